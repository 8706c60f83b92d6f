package observability

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/observability/internal/outboxdb"
)

// outbox is the reader's side of the outbox table. It acts as the worker's role,
// across organisations.
type outbox struct {
	db       *postgres.DB
	lease    time.Duration
	maxRows  int
	maxBytes int64
}

// claimedBatch is a batch that this process may send until its lease ends.
type claimedBatch struct {
	id       string
	attempts int32
}

type rejectedRow struct {
	org    string
	id     int64
	reason string
}

// take returns a batch to send, already committed: one whose sender has failed
// before any new one, so that an outage does not leave more and more batches
// half sent. It returns nil when there is nothing to do.
func (o *outbox) take(ctx context.Context) (*claimedBatch, error) {
	var batch *claimedBatch
	err := o.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		batch = nil
		q := outboxdb.New(tx)
		old, err := q.TakeExpiredBatch(ctx, o.lease.Seconds())
		if err == nil {
			batch = &claimedBatch{id: old.ID, attempts: old.Attempts}
			return nil
		}
		if !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		fresh := string(id.New[id.Batch]())
		n, err := q.StampRows(ctx, outboxdb.StampRowsParams{BatchID: fresh, MaxRows: int32(o.maxRows), MaxBytes: o.maxBytes}) //nolint:gosec // some thousands
		if err != nil || n == 0 {
			return err
		}
		batch = &claimedBatch{id: fresh, attempts: 1}
		return q.AddBatch(ctx, outboxdb.AddBatchParams{ID: fresh, LeaseSeconds: o.lease.Seconds()})
	})
	if err != nil {
		return nil, fmt.Errorf("take a batch from the outbox: %w", err)
	}
	return batch, nil
}

func (o *outbox) rows(ctx context.Context, batch string) (rows []outboxdb.BatchRowsRow, err error) {
	err = o.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		rows, err = outboxdb.New(tx).BatchRows(ctx, batch)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read a batch from the outbox: %w", err)
	}
	return rows, nil
}

func (o *outbox) reject(ctx context.Context, rows []rejectedRow) error {
	err := o.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		q := outboxdb.New(tx)
		for _, r := range rows {
			if err := q.RejectRow(ctx, outboxdb.RejectRowParams{OrgID: r.org, ID: r.id, Reason: r.reason}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("set rows of the outbox aside: %w", err)
	}
	return nil
}

// finish removes a batch that has arrived.
func (o *outbox) finish(ctx context.Context, batch string) error {
	err := o.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		q := outboxdb.New(tx)
		if _, err := q.DeleteBatchRows(ctx, batch); err != nil {
			return err
		}
		return q.DeleteBatch(ctx, batch)
	})
	if err != nil {
		return fmt.Errorf("remove a sent batch from the outbox: %w", err)
	}
	return nil
}

// release gives a batch up for a while. A failure is harmless.
func (o *outbox) release(ctx context.Context, batch string, wait time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	_ = o.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		return outboxdb.New(tx).ReleaseBatch(ctx, outboxdb.ReleaseBatchParams{ID: batch, WaitSeconds: wait.Seconds()})
	})
}

// backlogCountedTo bounds the count of waiting rows.
const backlogCountedTo = 1_000_000

func (o *outbox) backlog(ctx context.Context) (b outboxdb.BacklogRow, err error) {
	err = o.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		b, err = outboxdb.New(tx).Backlog(ctx, backlogCountedTo)
		return err
	})
	if err != nil {
		return b, fmt.Errorf("measure the outbox: %w", err)
	}
	return b, nil
}
