package journal_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/journal"
)

func (b *book) fence(lease journal.Lease) error {
	return b.locked(func(_ context.Context, _ pgx.Tx, l *journal.Locked) error { return l.Fence(lease) })
}

func TestTheFenceLetsTheLeaseHolderPassAlone(t *testing.T) {
	b := newBook(t)
	lease, took := b.claim("worker-1", time.Minute)
	require.True(t, took)
	require.Equal(t, int64(1), lease.Epoch)
	require.NoError(t, b.fence(lease))

	other := lease
	other.Owner = "worker-2"
	require.ErrorIs(t, b.fence(other), journal.ErrFenced, "another owner")
	older := lease
	older.Epoch--
	require.ErrorIs(t, b.fence(older), journal.ErrFenced, "an old epoch")
	newer := lease
	newer.Epoch++
	require.ErrorIs(t, b.fence(newer), journal.ErrFenced, "an epoch that was never given")

	b.expire()
	require.ErrorIs(t, b.fence(lease), journal.ErrFenced, "a lease that ran out, though nobody else has taken it")
	next, took := b.claim("worker-2", time.Minute)
	require.True(t, took)
	require.Equal(t, int64(2), next.Epoch)
	require.NoError(t, b.fence(next))
	require.ErrorIs(t, b.fence(lease), journal.ErrFenced)
}

func TestASupersededWorkerIsFencedWhileItsLeaseLives(t *testing.T) {
	b := newBook(t)
	lease, _ := b.claim("worker-1", time.Minute)
	require.NoError(t, b.locked(func(ctx context.Context, _ pgx.Tx, l *journal.Locked) error {
		l.Supersede()
		_, err := l.Append(ctx, now, journal.Of(message("a new epoch")))
		return err
	}))
	require.ErrorIs(t, b.fence(lease), journal.ErrFenced)
	require.ErrorIs(t, b.tx(func(ctx context.Context, tx pgx.Tx) error { return journal.RenewLease(ctx, tx, lease, time.Minute) }), journal.ErrFenced)
}

func TestASessionAtRestIsFenced(t *testing.T) {
	b := newBook(t)
	lease, _ := b.claim("worker-1", time.Minute)
	require.NoError(t, b.append(journal.Of(journal.StatusIdle{StopReason: journal.StopReason{Type: journal.StopEndTurn}})))
	require.ErrorIs(t, b.fence(lease), journal.ErrFenced)
	b.expire()
	_, took := b.claim("worker-2", time.Minute)
	require.False(t, took, "there is nothing to do")
}

func TestOneOfManyWorkersGetsTheLease(t *testing.T) {
	b := newBook(t)
	var wg sync.WaitGroup
	var won atomic.Int32
	for range 16 {
		wg.Go(func() {
			err := b.tx(func(ctx context.Context, tx pgx.Tx) error {
				_, took, err := journal.ClaimLease(ctx, tx, b.org, b.session, "worker", "", time.Minute)
				if took {
					won.Add(1)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	require.Equal(t, int32(1), won.Load())
}

func TestALeaseIsRenewedUntilItRanOut(t *testing.T) {
	b := newBook(t)
	lease, _ := b.claim("worker-1", time.Minute)
	renew := func() error {
		return b.tx(func(ctx context.Context, tx pgx.Tx) error { return journal.RenewLease(ctx, tx, lease, time.Minute) })
	}
	require.NoError(t, renew())
	b.expire()
	require.ErrorIs(t, renew(), journal.ErrFenced, "a lease that ran out does not come back, even if nobody took it")
}

func TestALeaseOfAnotherIsNotReleased(t *testing.T) {
	b := newBook(t)
	first, _ := b.claim("worker-1", time.Minute)
	b.expire()
	second, _ := b.claim("worker-2", time.Minute)
	release := func(l journal.Lease) {
		require.NoError(t, b.tx(func(ctx context.Context, tx pgx.Tx) error { return journal.ReleaseLease(ctx, tx, l) }))
	}
	release(first)
	require.NoError(t, b.fence(second))
	release(second)
	require.ErrorIs(t, b.fence(second), journal.ErrFenced)
}

func TestTheScanFindsSessionsWhoseWorkerIsGone(t *testing.T) {
	b := newBook(t)
	scan := func(grace time.Duration) (found []journal.Ref) {
		require.NoError(t, b.db.InWorkerTx(t.Context(), func(tx pgx.Tx) (err error) {
			found, err = journal.WithoutWorker(t.Context(), tx, grace, 10)
			return err
		}))
		return found
	}
	lost := []journal.Ref{{Org: b.org, Session: b.session}}
	require.Equal(t, lost, scan(0), "the job that should have woken it was lost")
	lease, _ := b.claim("worker-1", time.Minute)
	require.Empty(t, scan(0))
	b.expire()
	require.Equal(t, lost, scan(time.Hour), "a lease that ran out needs no grace")
	_, took := b.claim("worker-2", time.Minute)
	require.True(t, took)
	require.Empty(t, scan(0))
	require.ErrorIs(t, b.fence(lease), journal.ErrFenced)
}
