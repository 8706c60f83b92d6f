package gate_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// jam makes the committer's lane wait for the organisation's balances, so that what is committed meanwhile gathers into one batch. The
// returned function lets go and waits for the unit that was stuck.
func (s *scene) jam() (release func()) {
	s.t.Helper()
	locked, held, freed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		freed <- s.db.InTx(context.Background(), s.org, func(tx pgx.Tx) error {
			if _, err := tx.Exec(context.Background(), `SELECT FROM ledger_balances FOR UPDATE`); err != nil {
				return err
			}
			close(locked)
			<-held
			return nil
		})
	}()
	<-locked
	before := s.waiting()
	u := s.unitOf(s.another(), nil)
	_, err := u.Append(u.Now, journal.Of(journal.StatusRunning{}))
	require.NoError(s.t, err)
	stuck := make(chan error, 1)
	go func() { stuck <- s.commits.Commit(context.Background(), u) }()
	require.Eventually(s.t, func() bool { return s.waiting() > before }, 10*time.Second, 5*time.Millisecond)
	return func() {
		close(held)
		require.NoError(s.t, <-freed)
		require.NoError(s.t, <-stuck)
	}
}

// waiting counts the database's sessions that wait for a lock.
func (s *scene) waiting() (n int) {
	require.NoError(s.t, s.db.App().QueryRow(s.t.Context(), `SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'`).Scan(&n))
	return n
}

// together commits units at the same time, as one batch, and returns the outcome of each.
func (s *scene) together(units ...*gate.Unit) []error {
	release := s.jam()
	outcomes := make([]error, len(units))
	var wg sync.WaitGroup
	for i, u := range units {
		wg.Go(func() { outcomes[i] = s.commits.Commit(s.t.Context(), u) })
	}
	require.Eventually(s.t, func() bool { return s.commits.Waiting() == len(units) }, 10*time.Second, time.Millisecond)
	release()
	wg.Wait()
	return outcomes
}

func TestABatchAtTheLimitAdmitsWhatFits(t *testing.T) {
	const fit, asked = 10, 25
	s := newScene(t, fit*bound+bound/2)
	units := make([]*gate.Unit, asked)
	decisions := make([]gate.Decision, asked)
	for i := range units {
		units[i], decisions[i] = s.begun(s.another(), proposal())
	}
	admitted := 0
	for i, err := range s.together(units...) {
		_, consumed := decisions[i].Admission.Consume(gate.ModelCall, gate.Digest{1})
		if err == nil {
			admitted++
			require.NoError(t, consumed)
			continue
		}
		var short *gate.ShortError
		require.ErrorAs(t, err, &short)
		require.Equal(t, billing.Short{Required: bound, Available: bound / 2}, short.Short)
		requireRefused(t, consumed, "never committed")
	}
	require.Equal(t, fit, admitted)
	b := s.balances()
	require.Equal(t, fit*bound, b.Held)
	require.Equal(t, bound/2, b.Available)
}

func TestOneUnitOfABatchTakesNoOtherDown(t *testing.T) {
	s := newScene(t, money.Dollar)
	taken := proposal()
	require.NoError(t, s.commits.Commit(t.Context(), first(s.begun(s.lease, taken))))

	stolen := proposal() // an effect key that was used before: the database refuses it by an error
	stolen.EffectKey = taken.EffectKey
	good := make([]*gate.Unit, 5)
	for i := range good {
		good[i], _ = s.begun(s.another(), proposal())
	}
	fenced := s.another()
	require.NoError(t, s.db.InTx(t.Context(), s.org, func(tx pgx.Tx) error { return journal.ReleaseLease(t.Context(), tx, fenced) }))
	late, lateDecision := s.begun(fenced, proposal())
	outcomes := s.together(append([]*gate.Unit{first(s.begun(s.another(), stolen)), late}, good...)...)
	require.Error(t, outcomes[0], "an effect key is used once")
	require.ErrorContains(t, outcomes[0], "steps_effect_key")
	require.ErrorIs(t, outcomes[1], journal.ErrFenced)
	for _, err := range outcomes[2:] {
		require.NoError(t, err)
	}
	_, err := lateDecision.Admission.Consume(gate.ModelCall, gate.Digest{1})
	requireRefused(t, err, "never committed")
	require.Equal(t, 6*bound, s.balances().Held, "what was refused holds nothing")
}

func TestALockedSessionHoldsUpNobodyElse(t *testing.T) {
	s := newScene(t, money.Dollar)
	locked := s.another()
	done := make(chan error, 1)
	err := s.db.InTx(t.Context(), s.org, func(tx pgx.Tx) error {
		if _, err := journal.Lock(t.Context(), tx, s.org, locked.Session); err != nil {
			return err
		}
		mine, _ := s.begun(locked, proposal())
		go func() { done <- s.commits.Commit(context.Background(), mine) }()
		ready := make(chan error, 8)
		for range cap(ready) {
			u, _ := s.begun(s.another(), proposal())
			go func() { ready <- s.commits.Commit(context.Background(), u) }()
		}
		for range cap(ready) {
			select {
			case err := <-ready:
				if err != nil {
					return err
				}
			case <-time.After(20 * time.Second):
				return errors.New("a unit waits for another session's lock")
			}
		}
		return nil
	})
	require.NoError(t, err)
	require.NoError(t, <-done)
}

func TestAUnitSettlesAndAdmitsInOneCommit(t *testing.T) {
	for _, ceiling := range []money.Nanos{0, 2 * bound} {
		s := newScene(t, bound+bound/2) // not enough for two at a time
		if ceiling > 0 {
			require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
				return s.gate.Ceiling(ctx, tx, s.clock.Now(), l, bound+bound/4)
			}))
		}
		before := proposal()
		u, d := s.begun(s.lease, before)
		require.NoError(t, s.commits.Commit(t.Context(), u))

		// What the first gives back is what the second takes.
		u = s.unit(nil)
		used := gate.Used{At: u.Now, Quantity: []gate.Priced{{Kind: before.Quantity[0].Kind, Ref: before.Quantity[0].Ref, Quantities: prices.Quantities{prices.InputToken: 10}}}}
		settled, err := s.gate.Settle(t.Context(), u, *d.Hold, used)
		require.NoError(t, err)
		after := proposal()
		next, err := s.gate.Admit(u, after)
		require.NoError(t, err)
		_, err = u.Append(u.Now,
			journal.Entry{Step: before.Step, Payload: journal.StepSettled{Kind: journal.KindModelCall, Outcome: journal.Succeeded, Cost: settled.Captured, Entry: settled.Entry, Released: settled.Released}},
			journal.Entry{Step: after.Step, Payload: journal.StepIntended{Kind: journal.KindModelCall, EffectKey: after.EffectKey, Hold: next.Hold}})
		require.NoError(t, err)
		require.NoError(t, s.commits.Commit(t.Context(), u))

		require.Equal(t, money.Nanos(1000), settled.Captured)
		require.Equal(t, "captured", s.hold(d.Hold.ID).State)
		require.Equal(t, "held", s.hold(next.Hold.ID).State)
		b := s.balances()
		require.Equal(t, money.Nanos(1000), b.Spent)
		require.Equal(t, bound+bound/2, b.Available+b.Held+b.Spent)
		require.Equal(t, b.Held, s.openHolds(), "what is held is what the open holds hold")
		require.NoError(t, s.db.InTx(t.Context(), s.org, func(tx pgx.Tx) error {
			wrong, err := billing.Recount(t.Context(), tx, s.org)
			require.Empty(t, wrong)
			return err
		}))
	}
}

// openHolds is what the scene's session has in open holds, what is carved from a ceiling counted once.
func (s *scene) openHolds() (sum money.Nanos) {
	s.t.Helper()
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) error {
		holds, err := billing.OpenHolds(s.t.Context(), tx, s.org, s.session)
		for _, h := range holds {
			if h.Parent == "" {
				sum += h.Amount - h.Captured - h.Released
			}
		}
		return err
	}))
	return sum
}

func first(u *gate.Unit, _ gate.Decision) *gate.Unit { return u }

func TestASupersededWorkerCommitsNothing(t *testing.T) {
	s := newScene(t, money.Dollar)
	old, decision := s.begun(s.lease, proposal())
	s.asOwner(`UPDATE sessions SET lease_expires_at = now() - interval '1 second' WHERE id = '` + string(s.session) + `'`)
	successor := s.claim(s.session)
	require.Equal(t, s.lease.Epoch+1, successor.Epoch)
	require.ErrorIs(t, s.commits.Commit(t.Context(), old), journal.ErrFenced, "a superseded worker commits nothing")
	_, err := decision.Admission.Consume(gate.ModelCall, gate.Digest{1})
	requireRefused(t, err, "never committed")
	require.Zero(t, s.balances().Held)
	u, _ := s.begun(successor, proposal())
	require.NoError(t, s.commits.Commit(t.Context(), u))
}
