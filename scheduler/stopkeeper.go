package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/scheduler/internal/stopdb"
)

const (
	keepEvery = 2 * time.Second
	// keepGrace leaves the receipts of a kill to the process that made it.
	keepGrace = finishWithin
)

// StopKeeper takes up what a process that died has left in the middle: orders to stop that nobody carries out, and receipts that nobody
// completes. It is a background service.
type StopKeeper struct {
	db      *postgres.DB
	service *Service
	loop    *background.Loop
	grace   time.Duration
}

// NewStopKeeper makes a keeper over the service.
func NewStopKeeper(db *postgres.DB, service *Service, log *slog.Logger) *StopKeeper {
	k := &StopKeeper{db: db, service: service, grace: keepGrace}
	k.loop = background.New("stop keeper", keepEvery, log, k.RunOnce)
	return k
}

// Start begins to look for what was left.
func (k *StopKeeper) Start(ctx context.Context) { k.loop.Start(ctx) }

// Started is closed after the first round.
func (k *StopKeeper) Started() <-chan struct{} { return k.loop.Started() }

// Stop ends it, within ctx.
func (k *StopKeeper) Stop(ctx context.Context) error { return k.loop.Stop(ctx) }

// RunOnce is one round.
func (k *StopKeeper) RunOnce(ctx context.Context) error {
	var stops []stopdb.UnfinishedStopsRow
	var trees []stopdb.UnfinishedReceiptsRow
	err := k.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		q := stopdb.New(tx)
		if stops, err = q.UnfinishedStops(ctx); err != nil {
			return fmt.Errorf("find orders that nobody carries out: %w", err)
		}
		if trees, err = q.UnfinishedReceipts(ctx, k.grace.Seconds()); err != nil {
			return fmt.Errorf("find receipts that nobody completes: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	var failed []error
	for _, one := range stops {
		var mine int64
		err := k.db.InTx(ctx, one.OrgID, func(tx pgx.Tx) (err error) {
			mine, err = stopdb.New(tx).CarryStop(ctx, stopdb.CarryStopParams{CarrySeconds: carryFor.Seconds(), OrgID: one.OrgID, ID: one.ID})
			return err
		})
		if err == nil && mine == 1 {
			k.service.log.InfoContext(ctx, "an order to stop has nobody who carries it out; taking it up", "org", one.OrgID, "stop", one.ID)
			err = k.service.carryOut(ctx, one.OrgID, one.ID)
		}
		failed = append(failed, err)
	}
	for _, one := range trees {
		if err := k.service.finishKill(ctx, one.OrgID, *one.RootSessionID, k.service.clock.Now()); err != nil {
			failed = append(failed, fmt.Errorf("complete the receipts below %s: %w", *one.RootSessionID, err))
		}
	}
	return errors.Join(failed...)
}
