package gate_test

import (
	"context"
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

// budget makes a blocking budget over the scene's project.
func (s *scene) budget(limit money.Nanos, change ...func(*billing.NewBudget)) (b billing.Budget) {
	s.t.Helper()
	in := billing.NewBudget{Name: "the project's", Scope: billing.Scope{Type: billing.ScopeOrganization, ID: string(s.org)}, Limit: limit, Period: "day", Action: billing.Block}
	for _, c := range change {
		c(&in)
	}
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) (err error) {
		b, err = billing.CreateBudget(s.t.Context(), tx, s.clock.Now(), s.org, in)
		return err
	}))
	return b
}

// reread reads a budget again, and proves on the way that all budgets say what the ledger says.
func (s *scene) reread(b billing.Budget) (out billing.Budget) {
	s.t.Helper()
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) (err error) {
		wrong, err := billing.BudgetMismatches(s.t.Context(), tx, s.org)
		require.NoError(s.t, err)
		require.Empty(s.t, wrong)
		out, err = billing.GetBudget(s.t.Context(), tx, s.org, b.ID)
		return err
	}))
	return out
}

func (s *scene) limit(b billing.Budget, limit money.Nanos) {
	s.t.Helper()
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) error {
		_, err := billing.UpdateBudget(s.t.Context(), tx, s.clock.Now(), s.org, b.ID, billing.ChangeBudget{Limit: &limit}, 0)
		return err
	}))
}

var thousand = gate.Used{Quantity: []gate.Priced{{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.InputToken: 10}}}}

func TestABudgetAdmitsWhatFitsAndNamesItselfOtherwise(t *testing.T) {
	s := newScene(t, money.Dollar)
	b := s.budget(2 * bound)
	one, two := s.admit(proposal()), s.admit(proposal())
	require.Equal(t, journal.Admitted, one.Outcome)
	require.Equal(t, journal.Admitted, two.Outcome)
	three := s.admit(proposal())
	require.Equal(t, journal.Denied, three.Outcome)
	require.Equal(t, &journal.Shortfall{Required: bound, Shortfall: bound, Scope: "budget", ID: string(b.ID), Name: "the project's"}, three.Shortfall)
	require.Contains(t, three.Reasons[0].Message, "budget “the project's”")
	require.Equal(t, 2*bound, s.reread(b).Held)

	// What is settled for less makes room, and a raised limit does at once.
	thousand := thousand
	thousand.At = s.clock.Now()
	s.settle(*one.Hold, thousand)
	require.Equal(t, money.Nanos(1000), s.reread(b).Spent)
	require.Equal(t, bound, s.reread(b).Held)
	require.Equal(t, journal.Denied, s.admit(proposal()).Outcome, "1,000 nano-dollars are missing")
	s.limit(b, 2*bound+1000)
	require.Equal(t, journal.Admitted, s.admit(proposal()).Outcome)
	s.limit(b, 0)
	require.Equal(t, journal.Denied, s.admit(proposal()).Outcome, "and so does a lowered one")
}

func TestABatchNeverExceedsABudget(t *testing.T) {
	s := newScene(t, money.Dollar)
	b := s.budget(10 * bound)
	units := make([]*gate.Unit, 24)
	for i := range units {
		units[i], _ = s.begun(s.another(), proposal())
	}
	admitted := 0
	for _, err := range s.together(units...) {
		var short *gate.ShortError
		if err == nil {
			admitted++
		} else {
			require.ErrorAs(t, err, &short)
			require.Equal(t, b.ID, short.Short.Budget)
		}
	}
	require.Equal(t, 10, admitted)
	require.Equal(t, 10*bound, s.reread(b).Held)
}

func TestACeilingCountsOnceInABudget(t *testing.T) {
	s := newScene(t, money.Dollar)
	b := s.budget(3 * bound)
	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		return s.gate.Ceiling(ctx, tx, s.clock.Now(), l, 3*bound)
	}))
	require.Equal(t, 3*bound, s.reread(b).Held)
	first := s.admit(proposal())
	require.Equal(t, journal.Admitted, first.Outcome, "what the ceiling holds is not asked for again")
	require.Equal(t, 3*bound, s.reread(b).Held)
	thousand := thousand
	thousand.At = s.clock.Now()
	s.settle(*first.Hold, thousand)
	require.Equal(t, 3*bound-1000, s.reread(b).Held)
	require.Equal(t, money.Nanos(1000), s.reread(b).Spent)

	s.limit(b, bound)
	require.Equal(t, journal.Denied, s.admit(proposal()).Outcome, "a budget that was lowered below what the ceiling holds binds at once")
	s.limit(b, 3*bound)
	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		_, err := s.gate.ReleaseCeiling(ctx, tx, s.clock.Now(), l)
		return err
	}))
	require.Zero(t, s.reread(b).Held)
	require.Equal(t, money.Nanos(1000), s.reread(b).Spent)

	// A ceiling that a budget has no room for is refused before any work, and names it.
	err := s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		return s.gate.Ceiling(ctx, tx, s.clock.Now(), l, 3*bound)
	})
	require.ErrorContains(t, err, "budget “the project's”")
}

func TestANewBudgetCountsWhatWasSpentAndIsHeld(t *testing.T) {
	s := newScene(t, money.Dollar)
	thousand := thousand
	thousand.At = s.clock.Now()
	s.settle(*s.admit(proposal()).Hold, thousand)
	open := s.admit(proposal())
	b := s.budget(2*bound, func(n *billing.NewBudget) { n.Scope = billing.Scope{Type: billing.ScopeSession, ID: string(s.session)} })
	require.Equal(t, money.Nanos(1000), b.Spent)
	require.Equal(t, bound, b.Held)
	other := s.budget(money.Cent, func(n *billing.NewBudget) {
		n.Scope = billing.Scope{Type: billing.ScopeSession, ID: string(s.another().Session)}
	})
	require.Zero(t, other.Spent+other.Held, "another session's is not counted")
	s.settle(*open.Hold, thousand)
	require.Equal(t, money.Nanos(2000), s.reread(b).Spent)
	require.Zero(t, s.reread(b).Held)
}

func TestAHoldCountsInThePeriodInWhichItWasMade(t *testing.T) {
	s := newScene(t, money.Dollar)
	b := s.budget(bound)
	yesterday := s.admit(proposal())
	require.Equal(t, journal.Admitted, yesterday.Outcome)
	require.Equal(t, journal.Denied, s.admit(proposal()).Outcome)

	// A day goes by: what was held today is yesterday's.
	s.asOwner(`UPDATE budget_periods SET starts_at = starts_at - interval '1 day'`)
	s.asOwner(`UPDATE holds SET budgets = ARRAY[ROW ((budgets[1]).budget, (budgets[1]).starts - interval '1 day')::budget_ref] WHERE state = 'held'`)
	s.asOwner(`UPDATE ledger_transfers SET budgets = ARRAY[ROW ((budgets[1]).budget, (budgets[1]).starts - interval '1 day')::budget_ref] WHERE budgets <> '{}'`)
	require.Zero(t, s.reread(b).Held)
	require.Equal(t, journal.Admitted, s.admit(proposal()).Outcome)
	thousand := thousand
	thousand.At = s.clock.Now()
	s.settle(*yesterday.Hold, thousand)
	require.Zero(t, s.reread(b).Spent, "yesterday's effect is not today's expense")
	require.Equal(t, bound, s.reread(b).Held)
}

func TestPeriodsBeginInTheOrganisationsZone(t *testing.T) {
	s := newScene(t, money.Dollar)
	tests := []struct{ period, zone, at, want string }{
		{"day", "Europe/Berlin", "2026-03-29T21:30:00Z", "2026-03-28T23:00:00Z"},  // 23 hours long: it began in winter time
		{"day", "Europe/Berlin", "2026-03-29T22:00:00Z", "2026-03-29T22:00:00Z"},  // and ended in summer time
		{"day", "Europe/Berlin", "2026-10-25T22:59:59Z", "2026-10-24T22:00:00Z"},  // 25 hours long
		{"hour", "Europe/Berlin", "2026-10-25T01:30:00Z", "2026-10-25T01:00:00Z"}, // the second of the two hours after two
		{"hour", "Asia/Kolkata", "2026-05-01T10:40:00Z", "2026-05-01T10:30:00Z"},
		{"week", "America/New_York", "2026-11-23T04:59:00Z", "2026-11-16T05:00:00Z"}, // Monday has not begun there yet
		{"week", "America/New_York", "2026-11-02T05:00:00Z", "2026-11-02T05:00:00Z"}, // the Monday after the clocks went back
		{"month", "Pacific/Auckland", "2026-11-30T11:00:00Z", "2026-11-30T11:00:00Z"},
		{"month", "America/Sao_Paulo", "2026-12-01T02:00:00Z", "2026-11-01T03:00:00Z"},
	}
	for _, tt := range tests {
		at, err := time.Parse(time.RFC3339, tt.at)
		require.NoError(t, err)
		var got time.Time
		require.NoError(t, s.db.App().QueryRow(t.Context(), `SELECT budget_period_start($1, $2, $3)`, tt.period, tt.zone, at).Scan(&got))
		require.Equal(t, tt.want, got.UTC().Format(time.RFC3339), "%s in %s at %s", tt.period, tt.zone, tt.at)
	}
}

func TestAnAlertIsReachedOnceAPeriod(t *testing.T) {
	s := newScene(t, money.Dollar)
	b := s.budget(10_000, func(n *billing.NewBudget) { n.Action, n.Alerts = billing.Warn, []int32{50, 100, 10} })
	require.Equal(t, []int32{10, 50, 100}, b.Alerts)
	thousand := thousand
	thousand.At = s.clock.Now()
	reached := func() (n int) {
		require.NoError(t, s.db.InTx(t.Context(), s.org, func(tx pgx.Tx) error {
			return tx.QueryRow(t.Context(), `SELECT count(*) FROM budget_alerts WHERE sent_at IS NULL`).Scan(&n)
		}))
		return n
	}
	for i, want := range []int{1, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3} {
		d := s.admit(proposal())
		require.Equal(t, journal.Admitted, d.Outcome, "a budget that warns lets everything pass")
		s.settle(*d.Hold, thousand)
		require.Equal(t, want, reached(), "after %d", i+1)
	}
}

func TestWhatIsNoBudget(t *testing.T) {
	s := newScene(t, money.Dollar)
	for name, tt := range map[string]struct {
		change func(*billing.NewBudget)
		code   string
	}{
		"a negative limit":         {func(n *billing.NewBudget) { n.Limit = -1 }, "out_of_range"},
		"an absurd one":            {func(n *billing.NewBudget) { n.Limit = 2_000_000_000 * money.Dollar }, "out_of_range"},
		"no name":                  {func(n *billing.NewBudget) { n.Name = "  " }, "out_of_range"},
		"a period that is none":    {func(n *billing.NewBudget) { n.Period = "fortnight" }, "unknown_value"},
		"an action that is none":   {func(n *billing.NewBudget) { n.Action = "explode" }, "unknown_value"},
		"a scope that is none":     {func(n *billing.NewBudget) { n.Scope.Type = "planet" }, "unknown_value"},
		"a scope that isn't there": {func(n *billing.NewBudget) { n.Scope = billing.Scope{Type: "agent", ID: "agt_none"} }, "not_found"},
		"another organisation":     {func(n *billing.NewBudget) { n.Scope.ID = "org_other" }, "not_found"},
		"an alert at nothing":      {func(n *billing.NewBudget) { n.Alerts = []int32{0} }, "out_of_range"},
	} {
		t.Run(name, func(t *testing.T) {
			in := billing.NewBudget{Name: "b", Scope: billing.Scope{Type: billing.ScopeOrganization}, Limit: 1, Period: "day", Action: billing.Block}
			tt.change(&in)
			err := s.db.InTx(t.Context(), s.org, func(tx pgx.Tx) error {
				_, err := billing.CreateBudget(t.Context(), tx, s.clock.Now(), s.org, in)
				return err
			})
			require.Error(t, err)
			require.Equal(t, tt.code, fault.As(err).Fields[0].Code)
		})
	}
}
