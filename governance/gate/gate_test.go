package gate_test

import (
	"context"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

func TestWhatIsAdmittedIsHeldAtItsBound(t *testing.T) {
	s := newScene(t, money.Dollar)
	d := s.admit(proposal())
	require.Equal(t, journal.Admitted, d.Outcome)
	require.Equal(t, bound, d.Hold.Amount)
	require.Nil(t, d.Shortfall)
	b := s.balances()
	require.Equal(t, bound, b.Held)
	require.Equal(t, money.Dollar-bound, b.Available)
	h := s.hold(d.Hold.ID)
	require.Equal(t, s.session, h.Session)
	require.Equal(t, "held", h.State)
}

func TestWhatIsDenied(t *testing.T) {
	tests := []struct {
		name   string
		change func(*gate.Proposal)
		rule   string
		says   string
	}{
		{"a model that is not the agent's", func(p *gate.Proposal) { p.Name = "test/other" }, "agent.model", "may call the model test/model, not test/other"},
		{"a tool that the agent was not given", func(p *gate.Proposal) { p.Kind, p.Name = gate.ToolCall, "python" }, "agent.tools", "The tool python is not among"},
		{"a tool by another's prefix", func(p *gate.Proposal) { p.Kind, p.Name = gate.ToolCall, "bash " }, "agent.tools", "is not among"},
		{"a person's command", func(p *gate.Proposal) { p.Kind = gate.Exec }, "exec", "not permitted"},
		{"a kind that nobody knows", func(p *gate.Proposal) { p.Kind = "teleport" }, "kind", "no kind of effect"},
		{"a model without a price", func(p *gate.Proposal) { p.Quantity[0].Ref = "test/unpriced" }, "price", "test/unpriced"},
		{"one part of two without a price", func(p *gate.Proposal) {
			p.Quantity = append(p.Quantity, gate.Priced{Kind: prices.Sandbox, Ref: "small", Quantities: prices.Quantities{prices.Millisecond: 1}})
		}, "price", "small"},
	}
	s := newScene(t, money.Dollar)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := proposal()
			tt.change(&p)
			d := s.admit(p)
			require.Equal(t, journal.Denied, d.Outcome)
			require.Nil(t, d.Admission)
			require.Nil(t, d.Hold)
			require.Len(t, d.Reasons, 1)
			require.Equal(t, tt.rule, d.Reasons[0].Rule)
			require.Contains(t, d.Reasons[0].Message, tt.says)
			require.Zero(t, s.balances().Held, "what is denied holds nothing")
		})
	}
}

func TestAnIncompleteProposalIsNoDecision(t *testing.T) {
	s := newScene(t, money.Dollar)
	for name, change := range map[string]func(*gate.Proposal){
		"no step":        func(p *gate.Proposal) { p.Step = "" },
		"no effect key":  func(p *gate.Proposal) { p.EffectKey = "" },
		"no digest":      func(p *gate.Proposal) { p.Digest = gate.Digest{} },
		"no end":         func(p *gate.Proposal) { p.Within = 0 },
		"no quantity":    func(p *gate.Proposal) { p.Quantity = nil },
		"less than none": func(p *gate.Proposal) { p.Quantity[0].Quantities[prices.InputToken] = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			p := proposal()
			change(&p)
			d, err := s.gate.Admit(s.unit(nil), p)
			require.Error(t, err)
			require.Nil(t, d.Admission)
		})
	}
}

func TestTheShortfallIsExact(t *testing.T) {
	s := newScene(t, bound-1)
	d := s.admit(proposal())
	require.Equal(t, journal.Denied, d.Outcome)
	require.Equal(t, &journal.Shortfall{Required: bound, Available: bound - 1, Shortfall: 1, Scope: "organization", ID: string(s.org)}, d.Shortfall)
	require.Equal(t, "hold", d.Reasons[0].Rule)
	require.Equal(t, "The organisation's balance is $0.0002; this needs up to $0.0002, which is $0.000000001 more.", d.Reasons[0].Message)
	require.Equal(t, bound-1, s.balances().Available)

	// One nano-dollar later it fits, to the last of it.
	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error { return grant(ctx, tx, s, 1) }))
	require.Equal(t, journal.Admitted, s.admit(proposal()).Outcome)
	require.Zero(t, s.balances().Available)
}

func TestEffectsAreCarvedFromTheCeiling(t *testing.T) {
	s := newScene(t, money.Dollar)
	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		return s.gate.Ceiling(ctx, tx, s.clock.Now(), l, 2*bound+1)
	}))
	require.Equal(t, 2*bound+1, s.balances().Held)

	first, second := s.admit(proposal()), s.admit(proposal())
	require.Equal(t, journal.Admitted, first.Outcome)
	require.Equal(t, journal.Admitted, second.Outcome)
	require.Equal(t, 2*bound+1, s.balances().Held, "a ceiling's money is held once")

	third := s.admit(proposal())
	require.Equal(t, &journal.Shortfall{Required: bound, Available: 1, Shortfall: bound - 1, Scope: "session", ID: string(s.session)}, third.Shortfall)

	// A step settled for less gives the rest back to the ceiling, so that the next fits.
	used := gate.Used{At: s.clock.Now(), Quantity: []gate.Priced{{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.InputToken: 10}}}}
	settled := s.settle(*first.Hold, used)
	require.Equal(t, money.Nanos(1000), settled.Captured)
	require.Equal(t, bound-1000, settled.Released)
	b := s.balances()
	require.Equal(t, 2*bound+1-1000, b.Held)
	require.Equal(t, money.Nanos(1000), b.Spent)
	require.Equal(t, journal.Denied, s.admit(proposal()).Outcome, "1,000 nano-dollars are spent: what is left is 999 short")

	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		_, err := s.gate.SettleTx(ctx, tx, s.clock.Now(), l, second.Hold.ID, gate.Used{At: s.clock.Now()})
		if err != nil {
			return err
		}
		released, err := s.gate.ReleaseCeiling(ctx, tx, s.clock.Now(), l)
		require.Equal(t, 2*bound+1-1000, released)
		require.Empty(t, l.CeilingHold)
		return err
	}))
	b = s.balances()
	require.Zero(t, b.Held)
	require.Equal(t, money.Dollar-1000, b.Available)
}

func TestACeilingThatIsNotCoveredIsRefusedWithTheShortfall(t *testing.T) {
	s := newScene(t, money.Cent)
	err := s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		return s.gate.Ceiling(ctx, tx, s.clock.Now(), l, 5*money.Cent)
	})
	f := fault.As(err)
	require.Equal(t, fault.PaymentRequired, f.Kind)
	require.Equal(t, "insufficient_funds", f.Code)
	require.Equal(t, 5*money.Cent, f.Details["required"])
	require.Equal(t, money.Cent, f.Details["available"])
	require.Equal(t, 4*money.Cent, f.Details["shortfall"])
	require.Equal(t, []map[string]any{{"scope": "organization", "id": string(s.org), "available": money.Cent}}, f.Details["limiting"])
	require.Zero(t, s.balances().Held)
}

func TestAnOrganisationWithNothingLeftIsRefusedAtOnce(t *testing.T) {
	s := newScene(t, 0)
	err := s.in(func(ctx context.Context, tx pgx.Tx, _ *journal.Locked) error { return s.gate.Covered(ctx, tx, s.org) })
	require.True(t, fault.IsCode(err, "insufficient_funds"), "%v", err)
	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, _ *journal.Locked) error {
		if err := grant(ctx, tx, s, 1); err != nil {
			return err
		}
		return s.gate.Covered(ctx, tx, s.org)
	}))
}

func TestAnOpenStepIsTakenUpUnderItsOwnKeyAndHoldOnly(t *testing.T) {
	s := newScene(t, money.Dollar)
	p := proposal()
	d := s.admit(p)
	open := journal.Step{ID: p.Step, EffectKey: p.EffectKey, Hold: d.Hold.ID, Epoch: 1}
	again := func(p gate.Proposal, open journal.Step) (d gate.Decision, err error) {
		err = s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) (err error) {
			l.Supersede()
			d, err = s.gate.Readmit(ctx, tx, s.clock.Now(), l, p, open)
			return err
		})
		return d, err
	}
	resumed, err := again(p, open)
	require.NoError(t, err)
	require.Equal(t, journal.Admitted, resumed.Outcome)
	require.Equal(t, d.Hold.ID, resumed.Hold.ID)
	require.Equal(t, bound, s.balances().Held, "no second hold")
	g, err := resumed.Admission.Consume(p.Kind, p.Digest)
	require.NoError(t, err)
	require.Equal(t, p.EffectKey, g.EffectKey)
	require.Equal(t, int64(2), g.Epoch)

	other := proposal()
	_, err = again(other, open)
	require.ErrorContains(t, err, "under its own key")
	settled := open
	settled.SettledSeq = 9
	_, err = again(p, settled)
	require.ErrorContains(t, err, "only an open step")

	forbidden := p
	forbidden.Name = "test/other"
	denied, err := again(forbidden, open)
	require.NoError(t, err)
	require.Equal(t, journal.Denied, denied.Outcome)

	s.settle(*d.Hold, gate.Used{At: s.clock.Now()})
	late, err := again(p, open)
	require.NoError(t, err)
	require.Equal(t, journal.Denied, late.Outcome)
	require.Nil(t, late.Admission)
}

func TestWhatIsUsedIsPricedAsOfItsAdmission(t *testing.T) {
	table, err := prices.New(prices.File{Version: "two", Currency: "USD", Entries: []prices.Entry{
		{Kind: prices.Model, Ref: "test/model", EffectiveFrom: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Nanos: prices.Prices{prices.InputToken: 100, prices.OutputToken: 1000}},
		{Kind: prices.Model, Ref: "test/model", EffectiveFrom: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC), Nanos: prices.Prices{prices.InputToken: 900, prices.OutputToken: 9000}},
	}})
	require.NoError(t, err)
	s := newScene(t, money.Dollar)
	g := gate.New(table, s.rules(), s.clock, nil)
	p := proposal()
	admittedAt := time.Date(2029, 12, 31, 23, 59, 59, 0, time.UTC)
	u := s.unit(nil)
	u.Now = admittedAt
	d, err := g.Admit(u, p)
	require.NoError(t, err)
	require.Equal(t, bound, d.Hold.Amount)
	require.NoError(t, s.commits.Commit(t.Context(), u))
	later := s.unit(nil)
	settled, err := g.Settle(t.Context(), later, *d.Hold, gate.Used{At: admittedAt, Quantity: p.Quantity})
	require.NoError(t, err)
	require.NoError(t, s.commits.Commit(t.Context(), later))
	require.Equal(t, bound, settled.Captured)
	require.Zero(t, settled.Excess)
}

func TestTheDecisionIsJournalledAsItWasMade(t *testing.T) {
	p := proposal()
	p.ToolUseID = "tlu_1"
	d := gate.Decision{Outcome: journal.Denied, Reasons: []journal.Reason{{Rule: "hold", Message: "no"}}, Shortfall: &journal.Shortfall{Shortfall: 1}}
	e := d.Event(p)
	require.Equal(t, journal.Denied, e.Decision)
	require.Equal(t, "model_call", e.Kind)
	require.Equal(t, "0100000000000000000000000000000000000000000000000000000000000000", e.Digest)
	require.Equal(t, "tlu_1", e.ToolUseID)
	require.Equal(t, d.Shortfall, e.Shortfall)
	require.Equal(t, d.Reasons, e.Reasons)
}

func grant(ctx context.Context, tx pgx.Tx, s *scene, amount money.Nanos) error {
	_, err := billing.Grant(ctx, tx, s.clock.Now(), s.org, amount, "test")
	return err
}

func TestAModelThatUsedMoreThanItsBoundIsRefusedUntilThatIsMended(t *testing.T) {
	s := newScene(t, money.Dollar)
	p := proposal()
	d := s.admit(p)
	much := gate.Used{At: s.clock.Now(), Quantity: []gate.Priced{{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.InputToken: 5000}}}}
	settled := s.settle(*d.Hold, much)
	require.Equal(t, bound, settled.Captured, "never more than the hold")
	require.Equal(t, money.Nanos(300_000), settled.Excess, "the rest is the platform's loss")

	denied := s.admit(proposal())
	require.Equal(t, journal.Denied, denied.Outcome)
	require.Equal(t, "bound", denied.Reasons[0].Rule)
	require.Zero(t, s.balances().Held)
	require.NoError(t, s.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
		broken, err := gate.BoundBreaches(t.Context(), tx)
		require.Len(t, broken, 1)
		require.Equal(t, money.Nanos(300_000), broken[0].Excess)
		require.Equal(t, p.Step, broken[0].Step)
		if err != nil {
			return err
		}
		return gate.MendBound(t.Context(), tx, "test/model")
	}))
	require.Equal(t, journal.Admitted, s.admit(proposal()).Outcome)
}

func TestALossIsToldOnceItIsCommitted(t *testing.T) {
	s := newScene(t, money.Dollar)
	var told strings.Builder
	g := gate.New(s.gate.Prices(), s.cache, s.clock, slog.New(slog.NewTextHandler(&told, nil)))
	much := gate.Used{At: s.clock.Now(), Quantity: []gate.Priced{{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.InputToken: 5000}}}}
	d := s.admit(proposal())
	for range 3 { // drafts that others were faster than
		_, err := g.Settle(t.Context(), s.unit(nil), *d.Hold, much)
		require.NoError(t, err)
	}
	require.Empty(t, told.String())
	u := s.unit(nil)
	_, err := g.Settle(t.Context(), u, *d.Hold, much)
	require.NoError(t, err)
	require.NoError(t, s.commits.Commit(t.Context(), u))
	require.Equal(t, 1, strings.Count(told.String(), "excess_nanos=300000"))

	require.NoError(t, s.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error { return gate.MendBound(t.Context(), tx, "test/model") }))
	d = s.admit(proposal())
	told.Reset()
	require.ErrorIs(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		_, err := g.SettleTx(ctx, tx, s.clock.Now(), l, d.Hold.ID, much)
		require.NoError(t, err)
		return errUndo
	}), errUndo)
	require.Empty(t, told.String(), "nor is what was rolled back")
	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		_, err := g.SettleTx(ctx, tx, s.clock.Now(), l, d.Hold.ID, much)
		return err
	}))
	require.Equal(t, 1, strings.Count(told.String(), "excess_nanos=300000"))
}
