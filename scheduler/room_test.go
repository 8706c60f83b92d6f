package scheduler_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/scheduler"
)

// Two that ask for the last place at the same time, before either has committed, do not both get it.
func TestTheLastPlaceIsGivenOnce(t *testing.T) {
	w := newWorld(t, money.Dollar)
	deps := w.deps
	deps.Limits = scheduler.SessionLimits{PerOrganization: 1}
	limited := scheduler.NewService(deps)
	t.Cleanup(limited.Stop)
	inside, leave, first := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	ctx := w.ctx(t)
	go func() {
		first <- w.db.InTx(ctx, w.org, func(tx pgx.Tx) error {
			_, err := limited.Invoke(ctx, tx, w.org, w.hello("one"))
			close(inside)
			<-leave
			return err
		})
	}()
	<-inside
	second := make(chan error, 1)
	go func() {
		_, err := w.accept(t, limited, w.hello("two"))
		second <- err
	}()
	require.Eventually(t, func() bool {
		var waiting bool
		require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) error {
			return tx.QueryRow(ctx, `SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`).Scan(&waiting)
		}))
		return waiting || len(second) > 0
	}, 10*time.Second, 10*time.Millisecond)
	close(leave)
	require.NoError(t, <-first)
	err := <-second
	require.True(t, fault.IsCode(err, "concurrency_limited"), "the last place was given twice: %v", err)
}
