package background_test

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/background"
)

var quiet = slog.New(slog.DiscardHandler)

func TestARoundAtOnceAndThenEachInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rounds atomic.Int32
		l := background.New("count", time.Minute, quiet, func(context.Context) error {
			rounds.Add(1)
			return errors.New("an error does not end the loop")
		})
		l.Start(t.Context())
		<-l.Started()
		require.EqualValues(t, 1, rounds.Load())
		time.Sleep(2*time.Minute + time.Second)
		require.EqualValues(t, 3, rounds.Load())
		l.Wake()
		l.Wake()
		synctest.Wait()
		require.GreaterOrEqual(t, rounds.Load(), int32(4))
		require.NoError(t, l.Stop(t.Context()))
		n := rounds.Load()
		time.Sleep(time.Hour)
		require.Equal(t, n, rounds.Load(), "nothing runs after Stop")
		require.NoError(t, l.Stop(t.Context()), "stopping again is no error")
	})
}

func TestAPanicEndsTheRoundOnly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rounds atomic.Int32
		l := background.New("panic", time.Second, quiet, func(context.Context) error {
			rounds.Add(1)
			panic("on purpose")
		})
		l.Start(t.Context())
		time.Sleep(3*time.Second + time.Millisecond)
		require.NoError(t, l.Stop(t.Context()))
		require.EqualValues(t, 4, rounds.Load())
	})
}

func TestStopWaitsForTheRoundAndThenCancelsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var cancelled atomic.Bool
		l := background.New("slow", time.Second, quiet, func(ctx context.Context) error {
			<-ctx.Done()
			cancelled.Store(true)
			return ctx.Err()
		})
		l.Start(t.Context())
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		require.ErrorIs(t, l.Stop(ctx), context.DeadlineExceeded)
		require.True(t, cancelled.Load())
	})
}

func TestStopWithoutStart(t *testing.T) {
	l := background.New("idle", time.Second, quiet, func(context.Context) error { return nil })
	require.NoError(t, l.Stop(t.Context()))
}
