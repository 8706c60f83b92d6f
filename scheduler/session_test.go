package scheduler_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

func TestASessionRunsToItsEnd(t *testing.T) {
	w := newWorld(t, money.Dollar)
	w.worker(t)
	ceiling := 10 * money.Cent
	in, err := w.invoke(t, "ambit/scripted", "Hello there", &journal.Limits{MaxCost: &ceiling})
	require.NoError(t, err)
	require.Equal(t, ceiling, in.Held)

	s := w.settled(t, in)
	require.Equal(t, journal.Idle, s.Status)
	require.Equal(t, journal.StopEndTurn, s.StopReason.Type)
	require.Positive(t, s.Charged)
	require.Equal(t, []string{
		"session.created", "user.message", "session.status_running", "gate.decided", "step.intended", "agent.message", "step.settled",
		"session.usage", "session.status_idle",
	}, types(w.events(t, s.ID)))

	b := w.balances(t)
	require.Equal(t, money.Dollar-s.Charged, b.Available, "the rest of the ceiling is given back")
	require.Equal(t, s.Charged, b.Spent)
	require.Zero(t, b.Held)
}

func TestWhatCannotBeCoveredIsRefusedBeforeAnythingBegins(t *testing.T) {
	w := newWorld(t, 5*money.Cent)
	ceiling := money.Dollar
	_, err := w.invoke(t, "ambit/scripted", "Hello", &journal.Limits{MaxCost: &ceiling})
	f := fault.As(err)
	require.Equal(t, "insufficient_funds", f.Code)
	require.Equal(t, 95*money.Cent, f.Details["shortfall"])
	require.Equal(t, 5*money.Cent, w.balances(t).Available)

	sessions, err := w.sessions.List(t.Context(), w.org, journal.SessionFilter{Limit: 10})
	require.NoError(t, err)
	require.Empty(t, sessions)
}

func TestAProjectionIsWhatItsEventsSay(t *testing.T) {
	w := newWorld(t, money.Dollar)
	w.worker(t)
	in, err := w.invoke(t, "ambit/scripted", "Hello", nil)
	require.NoError(t, err)
	s := w.settled(t, in)

	var folded journal.Session
	for _, e := range w.events(t, s.ID) {
		require.NoError(t, folded.Apply(e))
	}
	require.Equal(t, s.Status, folded.Status)
	require.Equal(t, s.StopReason, folded.StopReason)
	require.Equal(t, s.Usage, folded.Usage)
	require.Equal(t, s.Charged, folded.Charged)
	require.Equal(t, s.LastSeq, folded.LastSeq)
}
