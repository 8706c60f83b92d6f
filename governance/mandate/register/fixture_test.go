package register_test

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants/identity"
)

// world is an organisation with an agent, the gate, and the register of its mandates.
type world struct {
	testing.TB

	db       *postgres.DB
	owner    *pgx.Conn
	org      id.Org
	project  id.Project
	user     id.User
	agent    id.Agent
	clock    clock.Clock
	gate     *gate.Gate
	commits  *gate.Committer
	keys     *identity.AgentKeys
	instance *identity.Keyring
	mandates *register.Service
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{TB: t, project: id.New[id.Project](), user: id.New[id.User](), clock: clock.System()}
	var url string
	w.db, url = dbtest.NewWithOwner(t)
	w.org = dbtest.NewOrg(t, w.db)
	var err error
	w.owner, err = pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	t.Cleanup(func() { _ = w.owner.Close(context.Background()) })
	_, err = w.owner.Exec(t.Context(), `INSERT INTO projects (org_id, id, name, slug, created_at, updated_at) VALUES ($1, $2, 'p', 'p', now(), now())`, w.org, w.project)
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	sealer, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	w.keys, err = identity.NewAgentKeys(w.db, identity.Deps{Sealer: sealer, Clock: w.clock, Logger: log}, "https://ambit.example")
	require.NoError(t, err)
	w.instance = identity.New(w.db, identity.Deps{Sealer: sealer, Clock: w.clock, Logger: log})
	require.NoError(t, w.instance.Start(t.Context()))
	t.Cleanup(func() { _ = w.instance.Stop(context.Background()) })
	w.mandates = register.New(w.keys, w.instance, w.clock)
	table, err := prices.New(prices.File{Version: "test", Currency: "USD", Entries: []prices.Entry{
		{Kind: prices.Model, Ref: "test/model", EffectiveFrom: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Nanos: prices.Prices{prices.InputToken: 100, prices.OutputToken: 1000}},
		{Kind: prices.Tool, Ref: "builtin/bash", EffectiveFrom: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Nanos: prices.Prices{prices.Call: 5000}},
	}})
	require.NoError(t, err)
	w.gate, w.commits = gate.New(table, policy.NewCache(w.db, nil, log), w.clock, log), gate.NewCommitter(w.db)
	w.agent = w.newAgent()
	w.in(func(ctx context.Context, tx pgx.Tx) error {
		_, err := billing.Grant(ctx, tx, w.clock.Now(), w.org, 1000*money.Dollar, "test")
		return err
	})
	return w
}

func (w *world) ctx() context.Context {
	return principal.With(w.Context(), principal.Principal{Kind: principal.User, ID: string(w.user), Org: w.org})
}

func (w *world) try(fn func(ctx context.Context, tx pgx.Tx) error) error {
	return w.db.InTx(w.ctx(), w.org, func(tx pgx.Tx) error { return fn(w.ctx(), tx) })
}

func (w *world) in(fn func(ctx context.Context, tx pgx.Tx) error) {
	w.Helper()
	require.NoError(w, w.try(fn))
}

func (w *world) newAgent() id.Agent {
	w.Helper()
	agent := id.New[id.Agent]()
	_, err := w.owner.Exec(w.Context(), `INSERT INTO agents (org_id, id, project_id, name, latest_version, created_by, created_at, updated_at) VALUES ($1, $2, $3, $2, 1, 'test', now(), now())`, w.org, agent, w.project)
	require.NoError(w, err)
	return agent
}

func (w *world) proof(m register.Mandate, method identity.Method) identity.Proof {
	return identity.Proof{Method: method, User: string(w.user), Purpose: register.Purpose(m.ID), Challenge: register.Challenge(m.Digest), At: w.clock.Now(), Statement: "x"}
}

// signed drafts a mandate, shows it to the person, and signs it.
func (w *world) signed(g mandate.Grant) (m register.Mandate) {
	w.Helper()
	w.in(func(ctx context.Context, tx pgx.Tx) (err error) {
		if m, err = w.mandates.Draft(ctx, tx, w.org, register.DraftInput{Agent: w.agent, Grant: g}); err != nil {
			return err
		}
		if m, err = w.mandates.Prepare(ctx, tx, w.org, m.ID, w.user); err != nil {
			return err
		}
		m, err = w.mandates.Sign(ctx, tx, w.org, m.ID, w.user, w.proof(m, identity.MethodPasskey))
		return err
	})
	return m
}

func (w *world) narrow(parent register.Mandate, agent id.Agent, g mandate.Grant) (m register.Mandate, err error) {
	err = w.try(func(ctx context.Context, tx pgx.Tx) (err error) {
		m, err = w.mandates.Narrow(ctx, tx, w.org, register.NarrowInput{Parent: parent.ID, Agent: agent, Grant: g})
		return err
	})
	return m, err
}

// session begins one under a mandate and takes its lease.
func (w *world) session(m register.Mandate) (lease journal.Lease) {
	w.Helper()
	session := id.New[id.Session]()
	w.in(func(ctx context.Context, tx pgx.Tx) error {
		path := m.Path
		if m.ID != "" {
			var err error
			if path, err = w.gate.Mandates(ctx, tx, w.org, m.ID, m.Agent, w.project, ""); err != nil {
				return err
			}
			if err := w.mandates.UseSession(ctx, tx, w.org, path); err != nil {
				return err
			}
		}
		agent := m.Agent
		if agent == "" {
			agent = w.agent
		}
		_, _, err := journal.Create(ctx, tx, w.clock.Now(), journal.New{
			Org: w.org, ID: session, Project: w.project, Mandates: path,
			Agent: journal.Snapshot{ID: agent, Name: "tester", Definition: journal.Definition{Model: "test/model", Tools: []string{"bash"}}},
		})
		if err != nil {
			return err
		}
		var claimed bool
		lease, claimed, err = journal.ClaimLease(ctx, tx, w.org, session, "test", "", time.Hour)
		require.True(w, claimed)
		return err
	})
	return lease
}

// effect proposes a model call of 200,000 nano-dollars, and commits what the gate decides, drafting it again as a worker would.
func (w *world) effect(lease journal.Lease) (gate.Decision, error) {
	step := id.New[id.Step]()
	return w.propose(lease, gate.Proposal{
		Step: step, Kind: gate.ModelCall, Name: "test/model", Digest: gate.Digest{1}, EffectKey: string(step), Within: time.Minute,
		Quantity: []gate.Priced{{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.InputToken: 1000, prices.OutputToken: 100}}},
	})
}

const bound = money.Nanos(200_000)

func (w *world) propose(lease journal.Lease, p gate.Proposal) (gate.Decision, error) {
	var refusal error
	for {
		var s journal.Session
		err := w.try(func(ctx context.Context, tx pgx.Tx) (err error) {
			s, err = journal.Get(ctx, tx, w.org, lease.Session)
			return err
		})
		if err != nil {
			return gate.Decision{}, err
		}
		u := gate.Draft(w.clock.Now(), s, lease, refusal)
		d, err := w.gate.Admit(u, p)
		if err != nil {
			return d, err
		}
		entries := []journal.Entry{journal.Of(d.Event(p))}
		if d.Outcome == journal.Admitted {
			entries = []journal.Entry{{Step: p.Step, Payload: d.Event(p)}, {Step: p.Step, Payload: journal.StepIntended{Kind: string(p.Kind), Name: p.Name, EffectKey: p.EffectKey, Hold: d.Hold}}}
		}
		if _, err = u.Append(u.Now, entries...); err != nil {
			return d, err
		}
		err = w.commits.Commit(w.ctx(), u)
		var wanting *gate.ShortError
		switch {
		case errors.As(err, &wanting):
			refusal = err
		case errors.Is(err, gate.ErrRuled):
			if err := w.try(func(ctx context.Context, tx pgx.Tx) error { return w.gate.Reload(ctx, tx, w.org) }); err != nil {
				return d, err
			}
		default:
			return d, err
		}
	}
}

func (w *world) settle(lease journal.Lease, d gate.Decision, step id.Step, used gate.Used) error {
	var s journal.Session
	err := w.try(func(ctx context.Context, tx pgx.Tx) (err error) {
		s, err = journal.Get(ctx, tx, w.org, lease.Session)
		return err
	})
	if err != nil {
		return err
	}
	u := gate.Draft(w.clock.Now(), s, lease, nil)
	settled, err := w.gate.Settle(w.ctx(), u, *d.Hold, used)
	if err != nil {
		return err
	}
	if _, err := u.Append(u.Now, journal.Entry{Step: step, Payload: journal.StepSettled{Kind: journal.KindModelCall, Name: "test/model", Outcome: journal.Succeeded, Cost: settled.Captured}}); err != nil {
		return err
	}
	return w.commits.Commit(w.ctx(), u)
}

func (w *world) spent(m register.Mandate) (out register.Money) {
	w.Helper()
	w.in(func(ctx context.Context, tx pgx.Tx) error {
		all, err := w.mandates.Spent(ctx, tx, w.org, m)
		out = all[m.ID]
		return err
	})
	return out
}

func amount(n money.Nanos) *money.Nanos { return &n }

func grant(total money.Nanos, depth int) mandate.Grant {
	return mandate.Grant{Intent: "research", Total: &total, Until: time.Now().Add(time.Hour), Depth: depth}
}

// together runs fn so many times at once.
func together(n int, fn func(i int)) {
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
}
