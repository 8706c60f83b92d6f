package register_test

import (
	"context"
	"encoding/json"
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
	"ambit.dev/ambit/governance/mandate/sdjwt"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants/identity"
)

func TestAMandateIsSignedByThePersonWhoWasShownIt(t *testing.T) {
	w := newWorld(t)
	var m register.Mandate
	w.in(func(ctx context.Context, tx pgx.Tx) (err error) {
		m, err = w.mandates.Draft(ctx, tx, w.org, register.DraftInput{Agent: w.agent, Grant: grant(500*money.Dollar, 1)})
		return err
	})
	require.Equal(t, mandate.Draft, m.State)
	sign := func(change func(p *identity.Proof), by id.User) error {
		return w.try(func(ctx context.Context, tx pgx.Tx) error {
			p := w.proof(m, identity.MethodPasskey)
			if change != nil {
				change(&p)
			}
			_, err := w.mandates.Sign(ctx, tx, w.org, m.ID, by, p)
			return err
		})
	}
	require.True(t, fault.IsCode(sign(nil, w.user), "permission_denied"), "nobody was shown it yet")
	w.in(func(ctx context.Context, tx pgx.Tx) (err error) {
		m, err = w.mandates.Prepare(ctx, tx, w.org, m.ID, w.user)
		return err
	})
	var shown map[string]any
	require.NoError(t, json.Unmarshal(m.Body, &shown))
	require.Equal(t, string(w.user), shown["ambit"].(map[string]any)["user"])
	for what, c := range map[string]struct {
		code   string
		by     id.User
		change func(*identity.Proof)
	}{
		"another person":       {"permission_denied", id.New[id.User](), nil},
		"another's answer":     {"permission_denied", w.user, func(p *identity.Proof) { p.User = "usr_other" }},
		"another digest":       {"digest_mismatch", w.user, func(p *identity.Proof) { p.Challenge = register.Challenge([32]byte{1}) }},
		"another act":          {"digest_mismatch", w.user, func(p *identity.Proof) { p.Purpose = register.Purpose(id.New[id.Mandate]()) }},
		"a password, above":    {"permission_denied", w.user, func(p *identity.Proof) { p.Method = identity.MethodPassword }},
		"a recovery code":      {"permission_denied", w.user, func(p *identity.Proof) { p.Method = identity.MethodRecovery }},
		"something unheard of": {"permission_denied", w.user, func(p *identity.Proof) { p.Method = "telepathy" }},
	} {
		require.True(t, fault.IsCode(sign(c.change, c.by), c.code), what)
	}
	require.NoError(t, sign(nil, w.user))
	require.True(t, fault.IsCode(sign(nil, w.user), "already_decided"), "once")

	// What was signed verifies by the organisation's public key alone, and carries the proof.
	w.in(func(ctx context.Context, tx pgx.Tx) (err error) {
		if m, err = w.mandates.Get(ctx, tx, w.org, m.ID); err != nil {
			return err
		}
		key, err := w.keys.AgentKey(ctx, tx, w.org, identity.OfOrganization(w.org))
		if err != nil {
			return err
		}
		chain, err := w.mandates.Chain(ctx, tx, m)
		if err != nil {
			return err
		}
		p, err := mandate.VerifyChain(chain.String(), key.JWK, mandate.Ask{Expect: sdjwt.Expect{Now: w.clock.Now(), Type: mandate.RootType}})
		if err != nil {
			return err
		}
		require.Equal(t, m.Digest, p.Digests[0])
		require.Equal(t, m.Grant, p.Terms[0].Grant)
		var proof identity.Proof
		require.NoError(t, json.Unmarshal(p.Proof, &proof))
		require.Equal(t, register.Challenge(m.Digest), proof.Challenge)
		return nil
	})
	_, err := w.owner.Exec(t.Context(), `UPDATE mandates SET grant_json = '{}' WHERE id = $1`, m.ID)
	require.ErrorContains(t, err, "stays as it was signed")

	// A password will do below the amount that the organisation sets.
	w.in(func(ctx context.Context, tx pgx.Tx) error {
		_, err := w.mandates.SetSettings(ctx, tx, w.org, register.Settings{PasskeyAbove: 20 * money.Dollar})
		return err
	})
	w.in(func(ctx context.Context, tx pgx.Tx) (err error) {
		small, err := w.mandates.Draft(ctx, tx, w.org, register.DraftInput{Agent: w.agent, Grant: grant(20*money.Dollar, 0)})
		if err != nil {
			return err
		}
		if small, err = w.mandates.Prepare(ctx, tx, w.org, small.ID, w.user); err != nil {
			return err
		}
		_, err = w.mandates.Sign(ctx, tx, w.org, small.ID, w.user, w.proof(small, identity.MethodPassword))
		return err
	})
}

func TestEveryAncestorIsHeldInTheSameCommit(t *testing.T) {
	w := newWorld(t)
	root := w.signed(grant(3*bound, 2))
	other := w.newAgent()
	middle, err := w.narrow(root, other, mandate.Grant{Depth: -1})
	require.NoError(t, err)
	leaf, err := w.narrow(middle, other, mandate.Grant{Total: amount(2 * bound), Depth: -1})
	require.NoError(t, err)
	require.Equal(t, []id.Mandate{root.ID, middle.ID, leaf.ID}, leaf.Path)
	sibling, err := w.narrow(root, w.agent, mandate.Grant{Total: amount(3 * bound), Depth: -1})
	require.NoError(t, err)

	below, beside := w.session(leaf), w.session(sibling)
	for range 2 {
		d, err := w.effect(below)
		require.NoError(t, err)
		require.Equal(t, journal.Admitted, d.Outcome)
	}
	d, err := w.effect(below)
	require.NoError(t, err)
	require.Equal(t, journal.Denied, d.Outcome)
	require.Equal(t, string(leaf.ID), d.Shortfall.ID, "its own limit binds first: %s", d.Shortfall.Sentence())
	require.Equal(t, billing.ScopeMandate, d.Shortfall.Scope)
	require.Equal(t, 2*bound, w.spent(root).Total.Held)
	require.Equal(t, 2*bound, w.spent(middle).Total.Held)
	d, err = w.effect(beside)
	require.NoError(t, err)
	require.Equal(t, journal.Admitted, d.Outcome)
	d, err = w.effect(beside)
	require.NoError(t, err)
	require.Equal(t, journal.Denied, d.Outcome, "the sibling has room, what both narrow has none")
	require.Equal(t, string(root.ID), d.Shortfall.ID)
	require.Equal(t, money.Nanos(0), w.spent(root).Free())
}

func TestSiblingsThatRaceNeverExceedWhatBothNarrow(t *testing.T) {
	w := newWorld(t)
	const fit, racers = 7, 24
	root := w.signed(grant(fit*bound, 2))
	leases := make([]journal.Lease, racers)
	for i := range racers {
		child, err := w.narrow(root, w.agent, mandate.Grant{Depth: -1})
		require.NoError(t, err)
		leases[i] = w.session(child)
	}
	var mu sync.Mutex
	outcomes := map[string]int{}
	together(racers, func(i int) {
		d, err := w.effect(leases[i])
		mu.Lock()
		defer mu.Unlock()
		if err != nil {
			t.Error(err)
		}
		outcomes[d.Outcome]++
	})
	require.Equal(t, map[string]int{journal.Admitted: fit, journal.Denied: racers - fit}, outcomes, "siblings together never hold more than what both narrow has")
	require.Equal(t, fit*bound, w.spent(root).Total.Held)
}

func TestNothingIsAdmittedAfterARevocationsCommit(t *testing.T) {
	w := newWorld(t)
	root := w.signed(grant(50*money.Dollar, 2))
	child, err := w.narrow(root, w.agent, mandate.Grant{Depth: -1})
	require.NoError(t, err)
	const racers = 12
	leases := make([]journal.Lease, racers)
	for i := range racers {
		leases[i] = w.session(child)
	}
	d, err := w.effect(leases[0]) // the rules are in memory, as they were before
	require.NoError(t, err)
	require.Equal(t, journal.Admitted, d.Outcome)
	stop := make(chan struct{})
	var revokedAt time.Time
	go func() {
		defer close(stop)
		var fallen []register.Mandate
		err := w.try(func(ctx context.Context, tx pgx.Tx) (err error) {
			fallen, err = w.mandates.Revoke(ctx, tx, w.org, root.ID, "enough")
			return err
		})
		if err != nil || len(fallen) != 2 || fallen[0].ID != root.ID {
			t.Errorf("the revocation: %v, %d fell", err, len(fallen))
		}
		revokedAt = time.Now()
	}()
	together(racers, func(i int) {
		for {
			d, err := w.effect(leases[i])
			if err != nil {
				t.Error(err)
				return
			}
			if d.Outcome == journal.Denied {
				if d.Reasons[0].Rule != string(root.ID) && d.Reasons[0].Rule != string(child.ID) {
					t.Errorf("denied for %v", d.Reasons)
				}
				return
			}
		}
	})
	<-stop
	var after int
	require.NoError(t, w.owner.QueryRow(t.Context(), `SELECT count(*) FROM holds WHERE org_id = $1 AND created_at > $2`, w.org, revokedAt.Add(time.Second)).Scan(&after))
	require.Zero(t, after)
	for _, l := range leases {
		d, err := w.effect(l)
		require.NoError(t, err)
		require.Equal(t, journal.Denied, d.Outcome)
	}
	_, err = w.narrow(child, w.agent, mandate.Grant{Depth: -1})
	require.True(t, fault.IsCode(err, "state_conflict") || fault.IsCode(err, "invalid_request"), "%v", err)
	require.Error(t, w.try(func(ctx context.Context, tx pgx.Tx) error {
		_, err := w.gate.Mandates(ctx, tx, w.org, child.ID, w.agent, w.project, "")
		return err
	}), "no session begins under it")
}

func TestTheEndOfAMandateIsTheDatabases(t *testing.T) {
	w := newWorld(t)
	g := grant(50*money.Dollar, 0)
	m := w.signed(g)
	lease := w.session(m)
	d, err := w.effect(lease)
	require.NoError(t, err)
	require.Equal(t, journal.Admitted, d.Outcome)
	// This process still believes that it is in force; the database's clock has passed its end.
	_, err = w.owner.Exec(t.Context(), `UPDATE budgets SET ends_at = clock_timestamp() WHERE org_id = $1`, w.org)
	require.NoError(t, err)
	d, err = w.effect(lease)
	require.NoError(t, err)
	require.Equal(t, journal.Denied, d.Outcome, "a mandate that is over holds nothing")
	require.Equal(t, string(m.ID), d.Shortfall.ID)
}

func TestWhatAMandateDoesNotNameIsDenied(t *testing.T) {
	w := newWorld(t)
	g := grant(50*money.Dollar, 0)
	g.Tools, g.Payees, g.PerAction = []string{"read_file"}, []string{"provider:test"}, amount(bound)
	m := w.signed(g)
	lease := w.session(m)
	propose := func(kind gate.Kind, name string, quantity gate.Priced) gate.Decision {
		step := id.New[id.Step]()
		d, err := w.propose(lease, gate.Proposal{Step: step, Kind: kind, Name: name, Digest: gate.Digest{1}, EffectKey: string(step), Within: time.Minute, Quantity: []gate.Priced{quantity}})
		require.NoError(t, err)
		return d
	}
	tokens := func(n int64) gate.Priced {
		return gate.Priced{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.InputToken: n}}
	}
	require.Equal(t, journal.Admitted, propose(gate.ModelCall, "test/model", tokens(2000)).Outcome)
	d := propose(gate.ModelCall, "test/model", tokens(2001))
	require.Equal(t, journal.Denied, d.Outcome)
	require.Contains(t, d.Reasons[0].Message, "at most $0.0002 an action")
	d = propose(gate.ToolCall, "bash", gate.Priced{Kind: prices.Tool, Ref: "builtin/bash", Quantities: prices.Quantities{prices.Call: 1}})
	require.Equal(t, journal.Denied, d.Outcome, "a tool that is not named is denied")
	require.Contains(t, d.Reasons[0].Message, "does not allow the tool bash")
	require.Equal(t, string(m.ID), d.Reasons[0].Rule)
	// Another agent's mandate is none of this one's.
	require.True(t, fault.IsCode(w.try(func(ctx context.Context, tx pgx.Tx) error {
		_, err := w.gate.Mandates(ctx, tx, w.org, m.ID, w.newAgent(), w.project, "")
		return err
	}), "permission_denied"))
}

func TestWhoMustRunUnderAMandateDoes(t *testing.T) {
	w := newWorld(t)
	lease := w.session(register.Mandate{})
	d, err := w.effect(lease)
	require.NoError(t, err)
	require.Equal(t, journal.Admitted, d.Outcome)
	w.in(func(ctx context.Context, tx pgx.Tx) error {
		_, err := w.mandates.SetSettings(ctx, tx, w.org, register.Settings{PasskeyAbove: money.Dollar, RequiredOf: []string{string(w.agent)}})
		return err
	})
	d, err = w.effect(lease)
	require.NoError(t, err)
	require.Equal(t, journal.Denied, d.Outcome, "running work too")
	require.Equal(t, "mandate_required", d.Reasons[0].Rule)
	require.True(t, fault.IsCode(w.try(func(ctx context.Context, tx pgx.Tx) error {
		_, err := w.gate.Mandates(ctx, tx, w.org, "", w.agent, w.project, "")
		return err
	}), "mandate_required"))
}

func TestATickOfASandboxIsSpentUnderTheMandateToo(t *testing.T) {
	w := newWorld(t)
	m := w.signed(grant(bound, 0))
	lease := w.session(m)
	tick := func() (d gate.Decision) {
		w.in(func(ctx context.Context, tx pgx.Tx) error {
			l, err := journal.Lock(ctx, tx, w.org, lease.Session)
			if err != nil {
				return err
			}
			require.Equal(t, m.ID, l.Mandate)
			step := id.New[id.Step]()
			d, err = w.gate.AdmitTx(ctx, tx, w.clock.Now(), l, gate.Proposal{
				Step: step, Kind: gate.Sandbox, Name: "small", Digest: gate.Digest{1}, EffectKey: string(step), Within: time.Minute,
				Quantity: []gate.Priced{{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.OutputToken: 150}}},
			})
			return err
		})
		return d
	}
	require.Equal(t, journal.Admitted, tick().Outcome)
	d := tick()
	require.Equal(t, journal.Denied, d.Outcome)
	require.Equal(t, string(m.ID), d.Shortfall.ID)
	w.in(func(ctx context.Context, tx pgx.Tx) error {
		_, err := w.mandates.Revoke(ctx, tx, w.org, m.ID, "")
		return err
	})
	d = tick()
	require.Equal(t, journal.Denied, d.Outcome)
	require.Equal(t, string(m.ID), d.Reasons[0].Rule)
	require.Contains(t, d.Reasons[0].Message, "revoked")
}

func TestAMandateIsGoodForSoManySessions(t *testing.T) {
	w := newWorld(t)
	g := grant(50*money.Dollar, 1)
	three := int64(3)
	g.Sessions = &three
	root := w.signed(g)
	child, err := w.narrow(root, w.agent, mandate.Grant{Depth: -1})
	require.NoError(t, err)
	var mu sync.Mutex
	begun := 0
	together(10, func(i int) {
		m := root
		if i%2 == 0 {
			m = child
		}
		err := w.try(func(ctx context.Context, tx pgx.Tx) error { return w.mandates.UseSession(ctx, tx, w.org, m.Path) })
		mu.Lock()
		defer mu.Unlock()
		if err == nil {
			begun++
		} else if !fault.IsCode(err, "mandate_exceeded") {
			t.Error(err)
		}
	})
	require.Equal(t, 3, begun, "as many sessions as it is good for, and no more")
}

func TestAChildWiderThanItsParentIsNotSigned(t *testing.T) {
	w := newWorld(t)
	root := w.signed(grant(50*money.Dollar, 1))
	_, err := w.narrow(root, w.agent, mandate.Grant{Total: amount(51 * money.Dollar), Depth: -1})
	f := fault.As(err)
	require.Equal(t, "/total", f.Fields[0].Pointer)
	require.Equal(t, "wider_than_parent", f.Fields[0].Code)
	child, err := w.narrow(root, w.agent, mandate.Grant{Depth: -1})
	require.NoError(t, err)
	_, err = w.narrow(child, w.agent, mandate.Grant{Depth: -1})
	require.Equal(t, "/depth", fault.As(err).Fields[0].Pointer)
	require.Equal(t, w.user, child.User, "it is spent on behalf of who signed")
}

func TestARecurringMandateBeginsAnew(t *testing.T) {
	w := newWorld(t)
	m := w.signed(mandate.Grant{Intent: "daily news", Recurring: &mandate.Recurring{Every: "day", Amount: bound}, Until: time.Now().Add(240 * time.Hour)})
	lease := w.session(m)
	d, err := w.effect(lease)
	require.NoError(t, err)
	require.Equal(t, journal.Admitted, d.Outcome)
	d, err = w.effect(lease)
	require.NoError(t, err)
	require.Equal(t, journal.Denied, d.Outcome)
	// Yesterday's is not today's.
	_, err = w.owner.Exec(t.Context(), `UPDATE budget_periods SET starts_at = starts_at - interval '1 day' WHERE org_id = $1`, w.org)
	require.NoError(t, err)
	d, err = w.effect(lease)
	require.NoError(t, err)
	require.Equal(t, journal.Admitted, d.Outcome)
}

func TestMandatesAreTheOrganisations(t *testing.T) {
	w := newWorld(t)
	m := w.signed(grant(money.Dollar, 0))
	stranger := id.New[id.Org]()
	require.True(t, fault.IsCode(w.db.InTx(w.ctx(), stranger, func(tx pgx.Tx) error {
		_, err := w.mandates.Get(w.ctx(), tx, w.org, m.ID)
		return err
	}), "not_found"), "the rows of one organisation are not there for another")
}

func TestADraftThatWasThrownAwayIsSignedByNobody(t *testing.T) {
	w := newWorld(t)
	var m register.Mandate
	w.in(func(ctx context.Context, tx pgx.Tx) (err error) {
		if m, err = w.mandates.Draft(ctx, tx, w.org, register.DraftInput{Agent: w.agent, Grant: grant(money.Dollar, 0)}); err != nil {
			return err
		}
		m, err = w.mandates.Prepare(ctx, tx, w.org, m.ID, w.user)
		return err
	})
	w.in(func(ctx context.Context, tx pgx.Tx) error {
		_, err := w.mandates.Revoke(ctx, tx, w.org, m.ID, "not this one")
		return err
	})
	require.True(t, fault.IsCode(w.try(func(ctx context.Context, tx pgx.Tx) error {
		_, err := w.mandates.Sign(ctx, tx, w.org, m.ID, w.user, w.proof(m, identity.MethodPasskey))
		return err
	}), "state_conflict"), "the page that was open can't sign it any more")
	require.True(t, fault.IsCode(w.try(func(ctx context.Context, tx pgx.Tx) error {
		_, err := w.mandates.Prepare(ctx, tx, w.org, m.ID, w.user)
		return err
	}), "state_conflict"), "nor is it shown to be signed")
	w.in(func(ctx context.Context, tx pgx.Tx) error {
		again, err := w.mandates.Get(ctx, tx, w.org, m.ID)
		require.NotEqual(t, mandate.Draft, again.Status(w.clock.Now()))
		return err
	})
}

func TestDraftsThatWereThrownAwayOrAreOverLeaveRoomForOthers(t *testing.T) {
	w := newWorld(t)
	draft := func() (m register.Mandate, err error) {
		err = w.try(func(ctx context.Context, tx pgx.Tx) (err error) {
			m, err = w.mandates.Draft(ctx, tx, w.org, register.DraftInput{Agent: w.agent, Grant: grant(money.Dollar, 0)})
			return err
		})
		return m, err
	}
	first, err := draft()
	require.NoError(t, err)
	_, err = w.owner.Exec(t.Context(), `INSERT INTO mandates (org_id, id, project_id, path, agent_id, state, intent, grant_json, until_at, body, digest, key_id, created_by, created_at, updated_at)
		SELECT org_id, 'man_' || n, project_id, ARRAY['man_' || n], agent_id, state, intent, grant_json, until_at, body, digest, key_id, created_by, created_at, updated_at
		FROM mandates, generate_series(1, 199) n`)
	require.NoError(t, err)
	_, err = draft()
	require.True(t, fault.IsCode(err, "state_conflict"), "%v", err)
	w.in(func(ctx context.Context, tx pgx.Tx) error {
		_, err := w.mandates.Revoke(ctx, tx, w.org, first.ID, "")
		return err
	})
	_, err = draft()
	require.NoError(t, err)
}

func TestAnOrganisationHasSoManyMandatesInForceThoseHandedOnIncluded(t *testing.T) {
	w := newWorld(t)
	root := w.signed(grant(money.Dollar, 2))
	_, err := w.owner.Exec(t.Context(), `INSERT INTO mandates (org_id, id, project_id, path, agent_id, state, intent, grant_json, until_at, body, digest, key_id, token, user_id, created_by, created_at, updated_at, signed_at)
		SELECT org_id, 'man_' || n, project_id, ARRAY['man_' || n], agent_id, state, intent, grant_json, until_at, body, digest, key_id, token, user_id, created_by, created_at, updated_at, signed_at
		FROM mandates, generate_series(1, 4999) n`)
	require.NoError(t, err)
	_, err = w.narrow(root, w.agent, mandate.Grant{Depth: -1})
	require.True(t, fault.IsCode(err, "state_conflict"), "%v", err)
}

func TestAMandateWhoseConfirmationCameToNothingCanBeShownAgain(t *testing.T) {
	w := newWorld(t)
	var first, again register.Mandate
	w.in(func(ctx context.Context, tx pgx.Tx) (err error) {
		if first, err = w.mandates.Draft(ctx, tx, w.org, register.DraftInput{Agent: w.agent, Grant: grant(money.Dollar, 0)}); err != nil {
			return err
		}
		if first, err = w.mandates.Prepare(ctx, tx, w.org, first.ID, w.user); err != nil {
			return err
		}
		again, err = w.mandates.Prepare(ctx, tx, w.org, first.ID, w.user)
		return err
	})
	require.Equal(t, first.Digest, again.Digest, "while it can be answered it is one question")
	later := register.New(w.keys, w.instance, clock.NewOffset(identity.ChallengeLasts))
	w.in(func(ctx context.Context, tx pgx.Tx) (err error) {
		again, err = later.Prepare(ctx, tx, w.org, first.ID, w.user)
		return err
	})
	require.NotEqual(t, first.Digest, again.Digest, "a digest that was confirmed once is never asked for again")
	w.in(func(ctx context.Context, tx pgx.Tx) error {
		_, err := w.mandates.Sign(ctx, tx, w.org, again.ID, w.user, w.proof(again, identity.MethodPasskey))
		return err
	})
}

func TestWhoIsOfOneProjectHandsNothingOnToAnother(t *testing.T) {
	w := newWorld(t)
	root := w.signed(grant(money.Dollar, 2))
	here, elsewhere := w.newAgent(), w.newAgent()
	other := id.New[id.Project]()
	_, err := w.owner.Exec(t.Context(), `INSERT INTO projects (org_id, id, name, slug, created_at, updated_at) VALUES ($1, $2, 'q', 'q', now(), now())`, w.org, other)
	require.NoError(t, err)
	_, err = w.owner.Exec(t.Context(), `UPDATE agents SET project_id = $1 WHERE id = $2`, other, elsewhere)
	require.NoError(t, err)
	narrow := func(agent id.Agent, project id.Project) error {
		return w.try(func(ctx context.Context, tx pgx.Tx) error {
			_, err := w.mandates.Narrow(ctx, tx, w.org, register.NarrowInput{Parent: root.ID, Agent: agent, Project: project, Grant: mandate.Grant{Depth: -1}})
			return err
		})
	}
	require.NoError(t, narrow(here, w.project))
	require.True(t, fault.IsCode(narrow(elsewhere, w.project), "invalid_request"), "an agent of another project")
	require.True(t, fault.IsCode(narrow(here, other), "not_found"), "a mandate of another project")
	require.NoError(t, narrow(elsewhere, ""), "the whole organisation may")
}
