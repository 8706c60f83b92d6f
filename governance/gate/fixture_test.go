package gate_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
)

// scene is a session of an agent that may call one model and one tool, in an organisation with some credit.
type scene struct {
	t       *testing.T
	db      *postgres.DB
	owner   string // the owner's address, for what no role of the application may do
	org     id.Org
	session id.Session
	lease   journal.Lease
	gate    *gate.Gate
	commits *gate.Committer
	cache   *policy.Cache
	clock   *clock.Offset
}

func newScene(t *testing.T, credit money.Nanos) *scene {
	t.Helper()
	s := &scene{t: t, session: id.New[id.Session](), clock: clock.NewOffset(0)}
	s.db, s.owner = dbtest.NewWithOwner(t)
	s.org = dbtest.NewOrg(t, s.db)
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	table, err := prices.New(prices.File{Version: "test", Currency: "USD", Entries: []prices.Entry{
		{Kind: prices.Model, Ref: "test/model", EffectiveFrom: from, Nanos: prices.Prices{prices.InputToken: 100, prices.OutputToken: 1000}},
		{Kind: prices.Tool, Ref: "builtin/bash", EffectiveFrom: from, Nanos: prices.Prices{prices.Call: 5000}},
	}})
	require.NoError(t, err)
	s.gate, s.commits = gate.New(table, s.rules(), s.clock, slog.New(slog.DiscardHandler)), gate.NewCommitter(s.db)
	require.NoError(t, s.db.InTx(t.Context(), s.org, func(tx pgx.Tx) error {
		now := s.clock.Now()
		if credit > 0 {
			if _, err := billing.Grant(t.Context(), tx, now, s.org, credit, "test"); err != nil {
				return err
			}
		}
		return s.create(tx, s.session)
	}))
	s.lease = s.claim(s.session)
	return s
}

// in runs fn with the session locked; whatever fn returns decides whether it is committed.
func (s *scene) in(fn func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error) error {
	ctx := s.t.Context()
	return s.db.InTx(ctx, s.org, func(tx pgx.Tx) error {
		l, err := journal.Lock(ctx, tx, s.org, s.session)
		if err != nil {
			return err
		}
		return fn(ctx, tx, l)
	})
}

// asOwner changes rows behind the application's back.
func (s *scene) asOwner(sql string) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.owner)
	require.NoError(s.t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // the test's own
	_, err = conn.Exec(s.t.Context(), sql)
	require.NoError(s.t, err)
}

// rules is a cache of the permissions as one process has it.
func (s *scene) rules() *policy.Cache {
	s.cache = policy.NewCache(s.db, nil, slog.New(slog.DiscardHandler))
	return s.cache
}

// claim takes the lease of a session.
func (s *scene) claim(session id.Session) (lease journal.Lease) {
	s.t.Helper()
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) (err error) {
		var claimed bool
		lease, claimed, err = journal.ClaimLease(s.t.Context(), tx, s.org, session, "test", "", time.Hour)
		require.True(s.t, claimed)
		return err
	}))
	return lease
}

// unit drafts a unit on the session as it is.
func (s *scene) unit(refusal error) *gate.Unit {
	s.t.Helper()
	return s.unitOf(s.lease, refusal)
}

func (s *scene) unitOf(lease journal.Lease, refusal error) *gate.Unit {
	s.t.Helper()
	var session journal.Session
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) (err error) {
		session, err = journal.Get(s.t.Context(), tx, s.org, lease.Session)
		return err
	}))
	return gate.Draft(s.clock.Now(), session, lease, refusal)
}

// begun is a unit that admits a proposal and begins its step.
func (s *scene) begun(lease journal.Lease, p gate.Proposal) (*gate.Unit, gate.Decision) {
	s.t.Helper()
	u := s.unitOf(lease, nil)
	d, err := s.gate.Admit(u, p)
	require.NoError(s.t, err)
	_, err = u.Append(u.Now, journal.Entry{Step: p.Step, Payload: journal.StepIntended{Kind: journal.KindModelCall, Name: p.Name, EffectKey: p.EffectKey, Hold: d.Hold}})
	require.NoError(s.t, err)
	return u, d
}

// another makes one more session of the same agent and takes its lease.
func (s *scene) another() journal.Lease {
	s.t.Helper()
	session := id.New[id.Session]()
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) error { return s.create(tx, session) }))
	return s.claim(session)
}

func (s *scene) create(tx pgx.Tx, session id.Session) error {
	_, _, err := journal.Create(s.t.Context(), tx, s.clock.Now(), journal.New{
		Org: s.org, ID: session, Project: "prj_test",
		Agent: journal.Snapshot{Name: "tester", Definition: journal.Definition{Model: "test/model", Tools: []string{"bash"}}},
	})
	return err
}

// admit asks the gate and commits its answer.
func (s *scene) admit(p gate.Proposal) gate.Decision {
	s.t.Helper()
	var refusal error
	for {
		u := s.unit(refusal)
		d, err := s.gate.Admit(u, p)
		require.NoError(s.t, err)
		entries := []journal.Entry{journal.Of(d.Event(p))}
		if d.Outcome == journal.Admitted {
			entries = []journal.Entry{{Step: p.Step, Payload: d.Event(p)}, {Step: p.Step, Payload: journal.StepIntended{Kind: string(p.Kind), Name: p.Name, EffectKey: p.EffectKey, Hold: d.Hold}}}
		}
		_, err = u.Append(u.Now, entries...)
		require.NoError(s.t, err)
		err = s.commits.Commit(s.t.Context(), u)
		var wanting *gate.ShortError
		if errors.As(err, &wanting) || errors.Is(err, gate.ErrBreached) {
			refusal = err
			continue
		}
		if errors.Is(err, gate.ErrRuled) {
			require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) error { return s.gate.Reload(s.t.Context(), tx, s.org) }))
			continue
		}
		require.NoError(s.t, err)
		return d
	}
}

// settle settles a hold in a unit of its own.
func (s *scene) settle(hold journal.HoldRef, used gate.Used) billing.Settled {
	s.t.Helper()
	u := s.unit(nil)
	settled, err := s.gate.Settle(s.t.Context(), u, hold, used)
	require.NoError(s.t, err)
	require.NoError(s.t, s.commits.Commit(s.t.Context(), u))
	return settled
}

func (s *scene) balances() (b billing.Balances) {
	s.t.Helper()
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) (err error) {
		b, err = billing.ReadBalances(s.t.Context(), tx, s.org)
		return err
	}))
	return b
}

func (s *scene) hold(hold id.Hold) (h billing.Hold) {
	s.t.Helper()
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) (err error) {
		h, err = billing.ReadHold(s.t.Context(), tx, s.org, hold)
		return err
	}))
	return h
}

// proposal is a model call that costs at most 1,000 × 100 + 100 × 1,000 = 200,000 nano-dollars.
func proposal() gate.Proposal {
	step := id.New[id.Step]()
	return gate.Proposal{
		Step: step, Kind: gate.ModelCall, Name: "test/model", Digest: gate.Digest{1}, EffectKey: string(step), Within: time.Minute,
		Quantity: []gate.Priced{{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.InputToken: 1000, prices.OutputToken: 100}}},
	}
}

const bound = money.Nanos(200_000)
