package idempotency

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/idempotency/internal/idempotencydb"
	"ambit.dev/ambit/internal/postgres"
)

const (
	sweepEvery = 10 * time.Minute
	sweepBatch = 1000
)

// Sweeper deletes expired records in the background. An expired record that is still there has no effect.
type Sweeper struct {
	db      *postgres.DB
	clock   clock.Clock
	log     *slog.Logger
	once    sync.Once
	stop    chan struct{}
	stopped chan struct{}
	started chan struct{}
}

// NewSweeper prepares a sweeper.
func NewSweeper(db *postgres.DB, c clock.Clock, log *slog.Logger) *Sweeper {
	return &Sweeper{db: db, clock: c, log: log, stop: make(chan struct{}), stopped: make(chan struct{}), started: make(chan struct{})}
}

// Start sweeps every ten minutes until Stop or until ctx ends.
func (s *Sweeper) Start(ctx context.Context) {
	go func() {
		defer close(s.stopped)
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		go func() {
			select {
			case <-s.stop:
				cancel()
			case <-ctx.Done():
			}
		}()
		close(s.started)
		for s.clock.Sleep(ctx, sweepEvery) == nil {
			if _, err := s.RunOnce(ctx); err != nil && ctx.Err() == nil {
				s.log.WarnContext(ctx, "expired idempotency records could not be deleted; the next sweep tries again", "err", err)
			}
		}
	}()
}

// Started is closed once the sweeper runs.
func (s *Sweeper) Started() <-chan struct{} { return s.started }

// Stop ends the sweeper and waits for it. It must have been started.
func (s *Sweeper) Stop() {
	s.once.Do(func() { close(s.stop) })
	<-s.stopped
}

// RunOnce deletes all that has expired and returns how many records that were.
func (s *Sweeper) RunOnce(ctx context.Context) (int64, error) {
	var total int64
	for {
		var n int64
		err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
			n, err = idempotencydb.New(tx).DeleteExpired(ctx, idempotencydb.DeleteExpiredParams{Now: s.clock.Now(), Most: sweepBatch})
			return err
		})
		total += n
		if err != nil {
			return total, fmt.Errorf("delete expired idempotency records: %w", err)
		}
		if n < sweepBatch {
			return total, nil
		}
	}
}
