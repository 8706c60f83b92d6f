package gate_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// explain asks about a proposal of the scene's session, and proves that nothing of the asking is left.
func (s *scene) explain(p gate.Proposal) (a gate.Answer) {
	s.t.Helper()
	ctx, before := s.t.Context(), s.traces()
	require.NoError(s.t, s.db.InTx(ctx, s.org, func(tx pgx.Tx) error {
		session, err := journal.Get(ctx, tx, s.org, s.session)
		require.NoError(s.t, err)
		scopes, err := journal.BudgetScopesOf(ctx, tx, s.org, s.session)
		require.NoError(s.t, err)
		a, err = s.gate.Explain(ctx, tx, gate.Question{
			Org: s.org, Session: session, Scopes: scopes, Kind: p.Kind, Name: p.Name, Action: p.Action, Object: p.Object, Domain: p.Domain, Quantity: p.Quantity, At: s.clock.Now(),
		})
		require.NoError(s.t, err)
		// Not even within the transaction is there a trace.
		var xid *string
		require.NoError(s.t, tx.QueryRow(ctx, `SELECT pg_current_xact_id_if_assigned()::text`).Scan(&xid))
		require.Nil(s.t, xid, "the transaction has written something")
		return nil
	}))
	require.Equal(s.t, before, s.traces())
	return a
}

// traces counts what a decision leaves behind.
func (s *scene) traces() (out string) {
	s.t.Helper()
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) error {
		var n [5]int64
		err := tx.QueryRow(s.t.Context(), `SELECT (SELECT count(*) FROM holds), (SELECT count(*) FROM events), (SELECT count(*) FROM steps), (SELECT count(*) FROM ledger_transfers), (SELECT count(*) FROM budget_periods)`).
			Scan(&n[0], &n[1], &n[2], &n[3], &n[4])
		out = fmt.Sprint(n)
		return err
	}))
	return out
}

// whats lists what would have to change.
func whats(a gate.Answer) (out []string) {
	for _, r := range a.Remedies {
		out = append(out, r.What)
	}
	return out
}

func TestExplainSaysWhatAdmitDecides(t *testing.T) {
	s := newScene(t, 5*bound)
	agree := func(p gate.Proposal) gate.Answer {
		t.Helper()
		a := s.explain(p)
		d := s.admit(p)
		require.Equal(t, d.Outcome, a.Outcome, "%+v", a)
		if d.Outcome == journal.Denied {
			require.Equal(t, d.Reasons[0], a.Reason)
			require.Equal(t, d.Shortfall, a.Money.Shortfall)
			require.NotEmpty(t, a.Remedies)
		} else {
			require.Equal(t, d.Hold.Amount, a.Amount)
			require.Empty(t, a.Remedies)
			used := thousand
			used.At = s.clock.Now()
			s.settle(*d.Hold, used) // gives the rest back
		}
		return a
	}
	a := agree(proposal())
	require.Equal(t, bound, a.Money.Required)
	require.Nil(t, a.Money.Nearest)

	wide := s.budget(100*bound, func(in *billing.NewBudget) { in.Name = "wide" })
	near := s.budget(bound+money.Nanos(2000), func(in *billing.NewBudget) { in.Name, in.Period = "near", "total" })
	a = agree(proposal())
	require.Equal(t, near.ID, a.Money.Nearest.ID, "the least room as a share of its limit")
	require.Len(t, a.Money.Budgets, 2)
	require.Greater(t, a.Money.Budgets[0].Left(), 900)
	require.Equal(t, wide.ID, a.Money.Budgets[0].ID)

	agree(proposal())
	a = agree(proposal()) // three settlements of 1,000 nano-dollars: 1,000 are missing
	require.Equal(t, journal.Denied, a.Outcome)
	require.Equal(t, "budget", a.Money.Shortfall.Scope)
	require.Equal(t, []string{"budget"}, whats(a))
	require.Equal(t, string(near.ID), a.Remedies[0].ID)
	require.Contains(t, a.Remedies[0].Message, "Raise the budget “near” by $0.000001")
	s.limit(near, 100*bound)

	dear := proposal()
	dear.Quantity = []gate.Priced{{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.InputToken: 10_000, prices.OutputToken: 1000}}}
	a = agree(dear)
	require.Equal(t, "organization", a.Money.Shortfall.Scope)
	require.Equal(t, []string{"balance"}, whats(a))

	other := proposal()
	other.Name = "test/other"
	a = agree(other)
	require.Equal(t, "agent.model", a.Reason.Rule)
	require.Equal(t, []string{"definition"}, whats(a))

	unpriced := proposal()
	unpriced.Quantity = []gate.Priced{{Kind: prices.Model, Ref: "test/free", Quantities: prices.Quantities{prices.InputToken: 1}}}
	require.Equal(t, "price", agree(unpriced).Reason.Rule)

	s.asOwner(`INSERT INTO bound_breaches (model, step_id, excess_nanos, noted_at) VALUES ('test/model', 'stp_x', 1, now())`)
	require.Equal(t, "bound", agree(proposal()).Reason.Rule)
}

func TestExplainLooksAtTheCeiling(t *testing.T) {
	s := newScene(t, money.Dollar)
	b := s.budget(3 * bound)
	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		return s.gate.Ceiling(ctx, tx, s.clock.Now(), l, 3*bound)
	}))
	a := s.explain(proposal())
	require.Equal(t, journal.Admitted, a.Outcome, "the budget is full, of what this very session holds")
	require.Equal(t, 3*bound, *a.Money.Ceiling)
	require.Zero(t, a.Money.Required)
	require.Zero(t, a.Money.Nearest.Available())
	require.Equal(t, b.ID, a.Money.Nearest.ID)

	dear := proposal()
	dear.Quantity = []gate.Priced{{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.InputToken: 10_000}}}
	a = s.explain(dear)
	require.Equal(t, "session", a.Money.Shortfall.Scope)
	require.Equal(t, []string{"ceiling"}, whats(a))
	d := s.admit(dear)
	require.Equal(t, d.Shortfall, a.Money.Shortfall)
}

func TestExplainNamesAllThatIsInTheWay(t *testing.T) {
	s := newScene(t, bound/2)
	s.budget(bound / 4)
	p := proposal()
	p.Kind, p.Name, p.Step = gate.ToolCall, "python", id.New[id.Step]()
	a := s.explain(p)
	require.Equal(t, "agent.tools", a.Reason.Rule)
	require.Equal(t, []string{"definition", "balance", "budget"}, whats(a))
}
