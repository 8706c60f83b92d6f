package scheduler_test

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
)

// as is the context of an API key.
func (w *world) as(t testing.TB, key id.Key) context.Context {
	t.Helper()
	return principal.With(t.Context(), principal.Principal{Kind: principal.Key, ID: string(key), Org: w.org, Project: w.project})
}

func (w *world) begin(ctx context.Context, project id.Project) (id.Session, error) {
	var out scheduler.Invoked
	err := w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
		out, err = w.sessions.Invoke(ctx, tx, w.org, scheduler.InvokeInput{
			Project: project, Inline: &journal.Definition{Model: "ambit/scripted"}, Input: journal.Text(slow),
		})
		return err
	})
	return out.Session.ID, err
}

func (w *world) stop(t testing.TB, in scheduler.StopInput) scheduler.StopOrder {
	t.Helper()
	ctx := w.ctx(t)
	var o scheduler.StopOrder
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
		o, err = w.sessions.StopScope(ctx, tx, w.org, in)
		return err
	}))
	waiting, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	o, err := w.sessions.FinishStop(waiting, w.org, o.ID)
	require.NoError(t, err)
	require.NotNil(t, o.CompletedAt)
	return o
}

func (w *world) everything() scheduler.StopInput {
	return scheduler.StopInput{Scope: scheduler.Scope{Type: scheduler.ScopeOrganization, ID: string(w.org)}, Reason: "a fire"}
}

func TestAScopeIsStoppedAndNothingElse(t *testing.T) {
	w := newWorld(t, 10*money.Dollar)
	key, project := id.New[id.Key](), id.New[id.Project]()
	mine, err := w.begin(w.as(t, key), w.project)
	require.NoError(t, err)
	theirs, err := w.begin(w.ctx(t), w.project)
	require.NoError(t, err)
	elsewhere, err := w.begin(w.ctx(t), project)
	require.NoError(t, err)
	child, err := w.below(t, mine, slow, nil) // by another key: it is stopped with the session that it is below
	require.NoError(t, err)

	o := w.stop(t, scheduler.StopInput{Scope: scheduler.Scope{Type: scheduler.ScopeKey, ID: string(key)}, Reason: "it leaked"})
	require.EqualValues(t, 2, o.Stopped)
	require.Equal(t, journal.Terminated, w.session(t, mine).Status)
	require.Equal(t, journal.Terminated, w.session(t, child).Status)
	require.True(t, w.session(t, theirs).Status != journal.Terminated && w.session(t, elsewhere).Status != journal.Terminated)
	require.Len(t, o.Receipt.Sessions, 2)
	require.NotEmpty(t, o.Receipt.Signature)
	require.False(t, o.Receipt.FencedAt.Before(o.RequestedAt))
	for _, s := range o.Receipt.Sessions {
		r, err := w.sessions.KillReceipt(t.Context(), w.org, s.Session)
		require.NoError(t, err)
		require.Equal(t, s.Receipt, r.ID)
		require.Equal(t, o.ID, *r.Stop)
		require.True(t, r.Done())
		require.Equal(t, "it leaked", r.Reason)
	}
	same := w.stop(t, scheduler.StopInput{Scope: scheduler.Scope{Type: scheduler.ScopeKey, ID: string(key)}, Reason: "again"})
	require.Equal(t, o, same, "nothing has begun since: it is the same order, with the same receipt")

	require.EqualValues(t, 1, w.stop(t, scheduler.StopInput{Scope: scheduler.Scope{Type: scheduler.ScopeProject, ID: string(project)}}).Stopped)
	require.Equal(t, journal.Terminated, w.session(t, elsewhere).Status)
	require.NotEqual(t, journal.Terminated, w.session(t, theirs).Status)
	require.EqualValues(t, 1, w.stop(t, w.everything()).Stopped)
	require.Equal(t, journal.Terminated, w.session(t, theirs).Status)

	later, err := w.begin(w.as(t, key), w.project)
	require.NoError(t, err, "what is asked for after the stop begins")
	require.EqualValues(t, 1, w.stop(t, scheduler.StopInput{Scope: scheduler.Scope{Type: scheduler.ScopeKey, ID: string(key)}}).Stopped)
	require.Equal(t, journal.Terminated, w.session(t, later).Status)
	require.Zero(t, w.balances(t).Held)
}

func TestIdleSessionsStayUnlessTheyAreNamed(t *testing.T) {
	w := newWorld(t, money.Dollar)
	w.worker(t)
	in, err := w.invoke(t, "ambit/scripted", "Hello", nil)
	require.NoError(t, err)
	s := w.settled(t, in)
	require.Zero(t, w.stop(t, w.everything()).Stopped)
	require.Equal(t, journal.Idle, w.session(t, s.ID).Status)
	all := w.everything()
	all.IncludeIdle = true
	require.EqualValues(t, 1, w.stop(t, all).Stopped)
	require.Equal(t, journal.Terminated, w.session(t, s.ID).Status)
}

func TestAScopeOfAnotherOrganisationIsNone(t *testing.T) {
	w := newWorld(t, money.Dollar)
	for _, scope := range []scheduler.Scope{
		{Type: scheduler.ScopeOrganization, ID: string(id.New[id.Org]())}, {Type: scheduler.ScopeAgent, ID: "x"}, {Type: "galaxy", ID: "milky"},
	} {
		err := w.db.InTx(w.ctx(t), w.org, func(tx pgx.Tx) error {
			_, err := w.sessions.StopScope(w.ctx(t), tx, w.org, scheduler.StopInput{Scope: scope})
			return err
		})
		require.Equal(t, "not_found", fault.As(err).Code)
	}
}

// TestNothingSlipsThroughAStop: sessions begin from all sides while everything is stopped. Each either began before the order and was stopped
// by it, or was refused by it, or began after it was fenced.
func TestNothingSlipsThroughAStop(t *testing.T) {
	w := newWorld(t, 100*money.Dollar)
	for range 20 {
		_, err := w.begin(w.ctx(t), w.project)
		require.NoError(t, err)
	}
	var mu sync.Mutex
	var begun []id.Session
	refused := 0
	enough := make(chan struct{})
	var callers sync.WaitGroup
	for range 6 {
		callers.Go(func() {
			for {
				select {
				case <-enough:
					return
				default:
				}
				s, err := w.begin(w.ctx(t), w.project)
				mu.Lock()
				if err == nil {
					begun = append(begun, s)
				} else if fault.IsCode(err, "state_conflict") {
					refused++
				} else {
					t.Error(err)
				}
				mu.Unlock()
			}
		})
	}
	require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return len(begun) > 20 }, 20*time.Second, time.Millisecond)
	o := w.stop(t, w.everything())
	require.Eventually(t, func() bool { mu.Lock(); defer mu.Unlock(); return refused > 0 }, 20*time.Second, time.Millisecond)
	close(enough)
	callers.Wait()
	require.GreaterOrEqual(t, o.Stopped, int64(40))
	for _, s := range begun {
		got := w.session(t, s)
		if got.Status != journal.Terminated {
			require.False(t, got.CreatedAt.Before(o.FencedAt.Add(-time.Second)), "a session that began before the order lives")
			events := w.events(t, s)
			require.True(t, events[0].CreatedAt.After(o.RequestedAt), "a session that began before the order lives")
		}
	}
	t.Logf("%d sessions stopped, %d refused; fenced %s after the order, complete after %s", o.Stopped, refused, o.FencedAt.Sub(o.RequestedAt), o.CompletedAt.Sub(o.RequestedAt))
}

// TestAnOrderWhoseProcessDiedIsCarriedOut: the order stands in the database and one of its sessions is stopped, when the process is gone.
func TestAnOrderWhoseProcessDiedIsCarriedOut(t *testing.T) {
	w := newWorld(t, money.Dollar)
	var all []id.Session
	for range 3 {
		s, err := w.begin(w.ctx(t), w.project)
		require.NoError(t, err)
		all = append(all, s)
	}
	w.sessions.Stop() // whatever this process begins in the background from here on is cut short, as if it died
	ctx := w.ctx(t)
	var o scheduler.StopOrder
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
		if o, err = w.sessions.StopScope(ctx, tx, w.org, w.everything()); err != nil {
			return err
		}
		_, err = tx.Exec(ctx, "UPDATE stops SET carried_until = now() - interval '1 second' WHERE id = $1", string(o.ID))
		return err
	}))
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) error {
		_, err := w.sessions.Kill(ctx, tx, w.org, all[0], "by hand")
		return err
	}))
	_, err := w.begin(ctx, w.project)
	require.Equal(t, "state_conflict", fault.As(err).Code, "the order holds although nobody carries it out")
	w.sessions.Stop()
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, "UPDATE receipts SET created_at = now() - interval '1 hour' WHERE session_id = $1", string(all[0]))
		return err
	}))

	second := scheduler.NewService(w.deps)
	t.Cleanup(second.Stop)
	keeper := scheduler.NewStopKeeper(w.db, second, slog.New(slog.DiscardHandler))
	require.NoError(t, keeper.RunOnce(t.Context()))
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
		o, err = second.GetStop(ctx, tx, w.org, o.ID)
		return err
	}))
	require.NotNil(t, o.CompletedAt)
	require.EqualValues(t, 2, o.Stopped)
	require.Equal(t, "key_test", o.Receipt.By.ID, "who gave the order stands on the receipt, whoever carried it out")
	for _, s := range all {
		require.Equal(t, journal.Terminated, w.session(t, s).Status)
		r, err := second.KillReceipt(ctx, w.org, s)
		require.NoError(t, err)
		require.True(t, r.Done(), "the receipt that nobody completed is complete too")
	}
	_, err = w.begin(ctx, w.project)
	require.NoError(t, err)
}

// TestAStopWaitsForWhatIsJustBeginning: a session that was let in and is not committed yet is found by the order that comes after it.
func TestAStopWaitsForWhatIsJustBeginning(t *testing.T) {
	w := newWorld(t, money.Dollar)
	let, in := make(chan struct{}), make(chan id.Session, 1)
	commit := sync.OnceFunc(func() { close(let) })
	defer commit()
	var both sync.WaitGroup
	both.Go(func() {
		ctx := w.ctx(t)
		err := w.db.InTx(ctx, w.org, func(tx pgx.Tx) error {
			out, err := w.sessions.Invoke(ctx, tx, w.org, scheduler.InvokeInput{Project: w.project, Inline: &journal.Definition{Model: "ambit/scripted"}, Input: journal.Text(slow)})
			in <- out.Session.ID
			<-let
			return err
		})
		if err != nil {
			t.Error(err)
		}
	})
	session := <-in
	both.Go(func() {
		if o := w.stop(t, w.everything()); o.Stopped != 1 {
			t.Errorf("the order stopped %d sessions", o.Stopped)
		}
	})
	require.Eventually(t, func() bool {
		var waiting int
		err := w.db.InTx(t.Context(), w.org, func(tx pgx.Tx) error {
			return tx.QueryRow(t.Context(), `SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`).Scan(&waiting)
		})
		return err == nil && waiting == 1
	}, 20*time.Second, 10*time.Millisecond, "the order does not wait")
	commit()
	both.Wait()
	require.Equal(t, journal.Terminated, w.session(t, session).Status)
}
