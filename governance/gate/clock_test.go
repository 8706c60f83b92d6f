package gate_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// A worker's clock may be set, or run wrong by months. Budgets go by the database's clock, so that nothing more is spent for it.
func TestAClockThatJumpsSpendsNothingMore(t *testing.T) {
	s := newScene(t, money.Dollar)
	b := s.budget(3*bound, func(n *billing.NewBudget) { n.Period = "month" })
	first := s.admit(proposal())
	require.Equal(t, journal.Admitted, first.Outcome)

	s.clock.Advance(40 * 24 * time.Hour)
	p := proposal()
	_, err := first.Admission.Consume(p.Kind, p.Digest)
	requireRefused(t, err, "expired")
	second := s.admit(proposal())
	require.Equal(t, journal.Admitted, second.Outcome)
	s.clock.Advance(-80 * 24 * time.Hour)
	third := s.admit(proposal())
	require.Equal(t, journal.Admitted, third.Outcome)
	require.Equal(t, 3*bound, s.reread(b).Held, "all three count in one and the same period")
	for _, jump := range []time.Duration{0, 40 * 24 * time.Hour, -time.Hour} {
		s.clock.Advance(jump)
		d := s.admit(proposal())
		require.Equal(t, journal.Denied, d.Outcome)
		require.Equal(t, string(b.ID), d.Shortfall.ID)
	}

	// Each is settled, whatever the clock says by then.
	for _, d := range []*journal.HoldRef{first.Hold, second.Hold, third.Hold} {
		used := thousand
		used.At = s.clock.Now()
		require.Equal(t, money.Nanos(1000), s.settle(*d, used).Captured)
	}
	require.Equal(t, money.Nanos(3000), s.reread(b).Spent)
	require.Zero(t, s.balances().Held)
}

// A price table may have a hole: a time before its first price, an effect that it does not name. There is no effect then, and nothing is held.
func TestAHoleInThePriceTableIsADenial(t *testing.T) {
	s := newScene(t, money.Dollar)
	unknown := proposal()
	unknown.Quantity[0].Ref = "test/another"
	d := s.admit(unknown)
	require.Equal(t, journal.Denied, d.Outcome)
	require.Equal(t, "price", d.Reasons[0].Rule)

	s.clock.Advance(-time.Until(time.Date(2025, 12, 31, 0, 0, 0, 0, time.UTC)).Abs())
	d = s.admit(proposal())
	require.Equal(t, journal.Denied, d.Outcome, "no price is in force yet")
	require.Equal(t, "price", d.Reasons[0].Rule)
	require.Nil(t, d.Admission)
	require.Zero(t, s.balances().Held)
}
