package scheduler_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
)

// slow keeps a model call open for as long as a test takes.
const slow = "```pause seconds=600\n```\n```say\nDone.\n```"

// below starts a session below another.
func (w *world) below(t testing.TB, parent id.Session, text string, limits *journal.Limits) (id.Session, error) {
	t.Helper()
	var out scheduler.Invoked
	ctx := w.ctx(t)
	err := w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
		out, err = w.sessions.Invoke(ctx, tx, w.org, scheduler.InvokeInput{
			Project: w.project, Inline: &journal.Definition{Model: "ambit/scripted"}, Input: journal.Text(text), Limits: limits, Parent: parent,
		})
		return err
	})
	return out.Session.ID, err
}

func (w *world) kill(t testing.TB, session id.Session) (r scheduler.KillReceipt, err error) {
	t.Helper()
	ctx := w.ctx(t)
	if err := w.db.InTx(ctx, w.org, func(tx pgx.Tx) error {
		_, err := w.sessions.Kill(ctx, tx, w.org, session, "enough")
		return err
	}); err != nil {
		return r, err
	}
	waiting, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	return w.sessions.FinishKill(waiting, w.org, session)
}

func (w *world) session(t testing.TB, session id.Session) journal.Session {
	t.Helper()
	s, err := w.sessions.Get(t.Context(), w.org, session)
	require.NoError(t, err)
	return s
}

// inModelCall waits until the session's model call is under way.
func (w *world) inModelCall(t testing.TB, sessions ...id.Session) {
	t.Helper()
	for _, s := range sessions {
		require.Eventually(t, func() bool {
			steps, err := w.sessions.Steps(t.Context(), w.org, s, 0, 10)
			return err == nil && len(steps) == 1 && steps[0].SettledSeq == 0
		}, 20*time.Second, 10*time.Millisecond)
	}
}

func (w *world) openHolds(t testing.TB, session id.Session) (holds []billing.Hold) {
	t.Helper()
	require.NoError(t, w.db.InTx(t.Context(), w.org, func(tx pgx.Tx) (err error) {
		holds, err = billing.OpenHolds(t.Context(), tx, w.org, session)
		return err
	}))
	return holds
}

func TestAKillStopsTheWholeTree(t *testing.T) {
	w := newWorld(t, 10*money.Dollar)
	worker := w.worker(t)
	ceiling := money.Dollar
	in, err := w.invoke(t, "ambit/scripted", slow, &journal.Limits{MaxCost: &ceiling})
	require.NoError(t, err)
	root := in.Session.ID
	left, err := w.below(t, root, slow, nil)
	require.NoError(t, err)
	right, err := w.below(t, root, slow, &journal.Limits{MaxCost: &ceiling})
	require.NoError(t, err)
	deep, err := w.below(t, right, slow, nil)
	require.NoError(t, err)
	done, err := w.below(t, left, "Hello", nil)
	require.NoError(t, err)
	other, err := w.invoke(t, "ambit/scripted", slow, nil)
	require.NoError(t, err)
	w.inModelCall(t, root, left, right, deep, other.Session.ID)
	require.Eventually(t, func() bool { s := w.session(t, done); return !s.AtWork() }, 20*time.Second, 10*time.Millisecond)
	_, err = w.kill(t, done) // it had ended before the tree is killed
	require.NoError(t, err)

	r, err := w.kill(t, root)
	require.NoError(t, err)
	heads := map[id.Session]journal.Session{}
	for _, one := range []id.Session{root, left, right, deep} {
		s := w.session(t, one)
		require.Equal(t, journal.Terminated, s.Status)
		require.Equal(t, journal.StopKilled, s.StopReason.Type)
		require.Empty(t, w.openHolds(t, one))
		heads[one] = s
	}
	require.True(t, r.Done())
	require.Equal(t, root, r.Session)
	require.Equal(t, 1, r.AlreadyEnded)
	below := []id.Session{}
	for _, c := range append([]scheduler.KilledSession{r.KilledSession}, r.Children...) {
		require.Equal(t, heads[c.Session].Epoch, c.Epoch)
		require.NotNil(t, c.FencedAt)
		require.False(t, c.FencedAt.Before(r.RequestedAt))
		require.NotNil(t, c.Sandbox)
		require.Len(t, c.UnsettledSteps, 1, "its model call was under way")
		require.NotEmpty(t, c.HoldsReleased)
		require.NotNil(t, c.LastBilled, "the counted input of the open call was captured")
		require.Equal(t, heads[c.Session].Charged, money.Nanos(c.LastBilled.Nanos))
		if c.Session != root {
			below = append(below, c.Session)
		}
	}
	require.Equal(t, []id.Session{left, right, deep}, below, "the nearer first")
	require.Equal(t, right, *r.Children[2].Parent)

	again, err := w.kill(t, root)
	require.NoError(t, err)
	require.Equal(t, r, again, "killing twice gives the same receipt")
	child, err := w.kill(t, right)
	require.NoError(t, err)
	require.NotEqual(t, r.ID, child.ID, "a session that was stopped with its parent has a receipt of its own")
	require.True(t, child.Done())
	require.Equal(t, r.Children[1], child.KilledSession)
	require.Equal(t, []scheduler.KilledSession{r.Children[2]}, child.Children)
	require.Equal(t, journal.Running, w.session(t, other.Session.ID).Status, "who is not of the tree goes on")

	// Whatever the workers still had in hand is over when they have stopped; none of it reached the journal or the ledger.
	stopping, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, worker.Stop(stopping, time.Second))
	for one, head := range heads {
		require.Equal(t, head.LastSeq, w.session(t, one).LastSeq, "nothing is journalled after the kill")
		require.NoError(t, w.db.InTx(t.Context(), w.org, func(tx pgx.Tx) error {
			transfers, err := billing.SessionTransfers(t.Context(), tx, w.org, one)
			for _, tr := range transfers {
				require.False(t, tr.CreatedAt.After(r.RequestedAt.Add(time.Microsecond)), "nothing is booked after the kill")
			}
			return err
		}))
	}
	w.balances(t)
}

func TestNothingStartsBelowASessionThatMayNotHaveIt(t *testing.T) {
	w := newWorld(t, money.Dollar)
	in, err := w.invoke(t, "ambit/scripted", "Hello", &journal.Limits{MaxDepth: 2})
	require.NoError(t, err)
	root := in.Session.ID
	child, err := w.below(t, root, "Hello", nil)
	require.NoError(t, err)
	grandchild, err := w.below(t, child, "Hello", &journal.Limits{MaxDepth: 5})
	require.NoError(t, err)
	_, err = w.below(t, grandchild, "Hello", nil)
	require.Equal(t, "state_conflict", fault.As(err).Code, "the root allows two")
	require.Equal(t, "depth", fault.As(err).Details["limit"])

	_, err = w.below(t, id.New[id.Session](), "Hello", nil)
	require.Equal(t, "not_found", fault.As(err).Code)
	w.project = id.New[id.Project]()
	_, err = w.below(t, root, "Hello", nil)
	require.Equal(t, "not_found", fault.As(err).Code, "another project's session is as missing as one that never was")
}

func TestChildrenOfASessionThatHasEndedCanBeStopped(t *testing.T) {
	w := newWorld(t, money.Dollar)
	in, err := w.invoke(t, "ambit/scripted", "Hello", nil)
	require.NoError(t, err)
	root := in.Session.ID
	child, err := w.below(t, root, "Hello", nil)
	require.NoError(t, err)
	ctx := w.ctx(t)
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) error {
		l, err := journal.Lock(ctx, tx, w.org, root)
		if err != nil {
			return err
		}
		_, err = l.Append(ctx, time.Now(), journal.Of(journal.StatusTerminated{StopReason: journal.StopReason{Type: journal.StopFailed}}))
		return err
	}))
	_, err = w.below(t, root, "Hello", nil)
	require.Equal(t, "session_terminated", fault.As(err).Code)

	r, err := w.kill(t, root)
	require.NoError(t, err)
	require.Len(t, r.Children, 1)
	require.Equal(t, journal.Terminated, w.session(t, child).Status)
	require.Equal(t, journal.StopFailed, w.session(t, root).StopReason.Type, "how it ended stays")
	again, err := w.kill(t, root)
	require.NoError(t, err)
	require.Equal(t, r, again)

	lonely, err := w.invoke(t, "ambit/scripted", "Hello", nil)
	require.NoError(t, err)
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) error {
		l, err := journal.Lock(ctx, tx, w.org, lonely.Session.ID)
		if err != nil {
			return err
		}
		_, err = l.Append(ctx, time.Now(), journal.Of(journal.StatusTerminated{StopReason: journal.StopReason{Type: journal.StopFailed}}))
		return err
	}))
	_, err = w.kill(t, lonely.Session.ID)
	require.Equal(t, "session_terminated", fault.As(err).Code)
}

// TestKillsOfOverlappingTreesNeverWaitForEachOther kills every session of a tree at once, while others start more below them: each kill and
// each start ends, no deadlock, and afterwards nothing of the tree lives.
func TestKillsOfOverlappingTreesNeverWaitForEachOther(t *testing.T) {
	w := newWorld(t, 100*money.Dollar)
	for range 3 {
		in, err := w.invoke(t, "ambit/scripted", "Hello", nil)
		require.NoError(t, err)
		root := in.Session.ID
		all := []id.Session{root}
		for i := range 12 {
			child, err := w.below(t, all[i/3], "Hello", nil)
			require.NoError(t, err)
			all = append(all, child)
		}
		var mu sync.Mutex
		var everyone sync.WaitGroup
		var failed error
		for i := range all {
			everyone.Go(func() {
				_, err := w.kill(t, all[len(all)-1-i])
				mu.Lock()
				defer mu.Unlock()
				failed = errors.Join(failed, err)
			})
			everyone.Go(func() {
				started, err := w.below(t, all[i], "Hello", nil)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					all = append(all, started)
				} else if !fault.IsCode(err, "session_terminated") {
					failed = errors.Join(failed, err)
				}
			})
		}
		everyone.Wait()
		require.NoError(t, failed)
		_, err = w.kill(t, root)
		require.NoError(t, err)
		for _, one := range all {
			require.Equal(t, journal.Terminated, w.session(t, one).Status)
		}
	}
	require.Zero(t, w.balances(t).Held)
}

// TestAReceiptIsWhatWasSigned: the signature's claims are the receipt's members, so that a changed member shows.
func TestAReceiptIsWhatWasSigned(t *testing.T) {
	w := newWorld(t, money.Dollar)
	in, err := w.invoke(t, "ambit/scripted", "Hello", nil)
	require.NoError(t, err)
	_, err = w.below(t, in.Session.ID, "Hello", nil)
	require.NoError(t, err)
	r, err := w.kill(t, in.Session.ID)
	require.NoError(t, err)
	raw, err := json.Marshal(r)
	require.NoError(t, err)
	var members map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(raw, &members))
	delete(members, "signature")
	without, err := json.Marshal(members)
	require.NoError(t, err)
	require.JSONEq(t, w.signed[string(r.ID)], string(without))
}
