package sandbox_test

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/sandbox"
)

func itoa(n int) string { return strconv.Itoa(n) }

func TestSessionsWaitWhileAllAreInUse(t *testing.T) {
	r := newRig(t, warm(1), most(2), claimWait(3*time.Second))
	tn := r.tenant()
	r.awaitWarm(1)

	// Two sessions race for the one that is warm: one gets it, the other the next.
	first, second := tn.newSession(), tn.newSession()
	var wg sync.WaitGroup
	got := map[id.Session]*sandbox.Sandbox{}
	var mu sync.Mutex
	for _, session := range []id.Session{first, second} {
		wg.Go(func() {
			deadline := time.Now().Add(time.Minute)
			for {
				b, err := tn.acquireFor(session, 1)
				if err != nil && time.Now().Before(deadline) {
					continue // a slow machine may need longer than the wait to start another
				}
				mu.Lock()
				got[session] = b
				mu.Unlock()
				return
			}
		})
	}
	wg.Wait()
	require.NotNil(t, got[first])
	require.NotNil(t, got[second])
	require.NotEqual(t, got[first].ID, got[second].ID)

	// Both are in use: a third is told so after its wait, and holds up nobody.
	began := time.Now()
	_, err := tn.acquireFor(tn.newSession(), 1)
	require.ErrorIs(t, err, sandbox.ErrNoCapacity)
	require.GreaterOrEqual(t, time.Since(began), 3*time.Second)
	require.Empty(t, r.warmOnes(), "no more than two machines in all")

	// Who waits longest is served first.
	order := make(chan int, 2)
	third, fourth := tn.newSession(), tn.newSession()
	wait := func(n int, session id.Session) {
		for {
			b, err := tn.acquireFor(session, 1)
			if err != nil {
				continue
			}
			order <- n
			_, err = r.service.Kill(t.Context(), tn.org, b.Session, sandbox.ReasonKilled)
			require.NoError(t, err)
			return
		}
	}
	wg.Go(func() { wait(3, third) })
	wg.Go(func() { wait(4, fourth) })
	_, err = r.service.Kill(t.Context(), tn.org, first, sandbox.ReasonKilled)
	require.NoError(t, err)
	<-order
	<-order
	wg.Wait()
}

func TestAFinishedSessionMakesRoomForOneThatWaits(t *testing.T) {
	r := newRig(t, warm(0), most(1))
	tn := r.tenant()
	first, err := tn.acquire(1)
	require.NoError(t, err)
	tn.must(first, "echo here > file")
	tn.finish(tn.session)
	next, err := tn.acquireFor(tn.newSession(), 1)
	require.NoError(t, err, "without waiting for the idle time")
	require.Equal(t, sandbox.ReasonRoom, tn.row(first.ID).Reason)
	tn.finish(next.Session)
	back, err := tn.acquire(2)
	require.NoError(t, err)
	require.Equal(t, "here", tn.must(back, "cat file"))
}

func TestIdleSandboxesAreSavedAndEnded(t *testing.T) {
	r := newRig(t, idleAfter(2*time.Second))
	busy, idle := r.tenant(), r.tenant()
	working, err := busy.acquire(1)
	require.NoError(t, err)
	done := make(chan error, 1)
	e := busy.begin(working, "eff-busy")
	go func() {
		_, err := e.Exec(t.Context(), sandbox.ExecSpec{Script: "sleep 14"}, nil)
		done <- err
	}()
	resting, err := idle.acquire(1)
	require.NoError(t, err)
	idle.must(resting, "echo here > file")
	r.eventually(time.Minute, "the idle one ends", func() bool { return idle.row(resting.ID).State == "ended" })
	require.Equal(t, sandbox.ReasonIdle, idle.row(resting.ID).Reason)
	require.NoError(t, <-done, "one in which a command runs is not idle")
	back, err := idle.acquire(2)
	require.NoError(t, err)
	require.Equal(t, "here", idle.must(back, "cat file"))
}

func TestDrainSavesEverythingInTime(t *testing.T) {
	r := newRig(t, warm(1), most(5))
	tn := r.tenant()
	var sessions []id.Session
	for i := range 4 {
		session := tn.newSession()
		b, err := tn.acquireFor(session, 1)
		require.NoError(t, err)
		tn.must(b, "head -c 200000 /dev/urandom > data; echo "+itoa(i)+" > n")
		sessions = append(sessions, session)
	}
	began := time.Now()
	require.NoError(t, r.service.Drain(t.Context()))
	took := time.Since(began)
	t.Logf("drained 4 live sandboxes in %s", took)
	require.Less(t, took, 8*time.Second)
	for _, session := range sessions {
		last, err := r.service.LastArchive(t.Context(), tn.org, session)
		require.NoError(t, err)
		require.EqualValues(t, 2, last.Files)
	}
	_, err := tn.acquireFor(sessions[0], 1)
	require.ErrorIs(t, err, sandbox.ErrDraining)
	r.requireNothingLeft()
}
