package notifications

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/notifications/internal/notificationsdb"
)

const (
	// dispatchEvery bounds how late an event is noticed.
	dispatchEvery = time.Second
	// attemptTimeout is how long an endpoint may take; deliveryClaim must outlast it, or a second dispatcher sends the same.
	attemptTimeout = 15 * time.Second
	deliveryClaim  = time.Minute
	// Places for deliveries under way in one process. Endpoints that fail have some of their own, so that however many hang they keep no
	// other waiting; one endpoint has at most its share of them, in all processes together.
	places       = 64
	share        = 4
	failingShare = 1
	fanBatch     = 200
	// DisableAfter is how long nothing may have arrived at an endpoint before it is disabled.
	DisableAfter = 5 * 24 * time.Hour
	// eventsKept is how long events and their deliveries can be looked at and sent again.
	eventsKept = 30 * 24 * time.Hour
	sweepEvery = time.Hour
	sweepBatch = 5000
)

// retries are the waits after the first, second, … attempt that failed, as Standard Webhooks proposes them. Each gets a tenth more or less,
// so that what failed together does not come back together.
var retries = []time.Duration{
	5 * time.Second, 5 * time.Minute, 30 * time.Minute, 2 * time.Hour, 5 * time.Hour, 10 * time.Hour, 14 * time.Hour, 20 * time.Hour, 24 * time.Hour,
}

func pauseAfter(attempt int) (time.Duration, bool) {
	if attempt > len(retries) {
		return 0, false
	}
	pause := retries[attempt-1]
	return pause - pause/10 + rand.N(pause/5), true //nolint:gosec // spreads load, guards nothing
}

// WebhookDeps are what webhooks work with. All are needed but OnDisabled.
type WebhookDeps struct {
	DB     *postgres.DB
	Sealer *seal.Sealer
	Clock  clock.Clock
	Logger *slog.Logger
	Client *egress.Client
	// OnDisabled is told, in the transaction that does it, of a webhook that was disabled because nothing arrives there any more: people
	// want to know, and this package does not know who they are.
	OnDisabled func(ctx context.Context, tx pgx.Tx, w Webhook) error
}

// Webhooks keeps the endpoints and sends to them. It is safe for concurrent use.
type Webhooks struct {
	deps WebhookDeps
	loop *background.Loop

	// sending ends what is under way when a stop can't wait for it.
	sending context.Context //nolint:containedctx // the life of the service, not of a call
	abort   context.CancelFunc
	running sync.WaitGroup
	healthy chan struct{}
	failing chan struct{}
	swept   time.Time
}

// NewWebhooks makes the service; nothing is sent before Start.
func NewWebhooks(d WebhookDeps) *Webhooks {
	w := &Webhooks{deps: d, healthy: make(chan struct{}, places), failing: make(chan struct{}, places)}
	w.sending, w.abort = context.WithCancel(context.Background())
	w.loop = background.New("webhook dispatcher", dispatchEvery, d.Logger, w.runOnce)
	return w
}

// Start begins to send.
func (w *Webhooks) Start(ctx context.Context) { w.loop.Start(ctx) }

// Started is closed after the first look.
func (w *Webhooks) Started() <-chan struct{} { return w.loop.Started() }

// Wake looks for what has just been committed without waiting for the next look.
func (w *Webhooks) Wake() { w.loop.Wake() }

// Stop takes up nothing more and waits for what is under way until ctx ends; then that is broken off, and sent again by another process or
// at the next start.
func (w *Webhooks) Stop(ctx context.Context) error {
	err := w.loop.Stop(ctx)
	ended := make(chan struct{})
	go func() { w.running.Wait(); close(ended) }()
	select {
	case <-ended:
	case <-ctx.Done():
	}
	w.abort()
	<-ended
	return err
}

// runOnce makes the deliveries of new events and begins as many of those that are due as there are places for. It waits for none.
func (w *Webhooks) runOnce(ctx context.Context) error {
	if err := w.fanOut(ctx); err != nil {
		return err
	}
	if err := w.begin(ctx, w.healthy, false, share); err != nil {
		return err
	}
	if err := w.begin(ctx, w.failing, true, failingShare); err != nil {
		return err
	}
	return w.sweep(ctx)
}

// fanOut makes one delivery of each new event for each webhook that wants it.
func (w *Webhooks) fanOut(ctx context.Context) error {
	for {
		n := 0
		err := w.deps.DB.InWorkerTx(ctx, func(tx pgx.Tx) error {
			q, now := notificationsdb.New(tx), w.deps.Clock.Now()
			events, err := q.ClaimEvents(ctx, fanBatch)
			if err != nil {
				return err
			}
			n = len(events)
			for _, e := range events {
				if err := fanOutOne(ctx, q, now, e); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("make the deliveries of new events: %w", err)
		}
		if n < fanBatch {
			return nil
		}
	}
}

func fanOutOne(ctx context.Context, q *notificationsdb.Queries, now time.Time, e notificationsdb.ClaimEventsRow) error {
	hooks, err := q.Listeners(ctx, notificationsdb.ListenersParams{OrgID: e.OrgID, Type: e.Type, ProjectID: e.ProjectID, CreatedAt: e.CreatedAt})
	if err != nil {
		return err
	}
	if len(hooks) == 0 {
		return q.DropEvent(ctx, notificationsdb.DropEventParams{OrgID: e.OrgID, ID: e.ID})
	}
	for _, hook := range hooks {
		_, err := q.InsertDelivery(ctx, notificationsdb.InsertDeliveryParams{OrgID: e.OrgID, ID: string(id.New[id.Delivery]()), WebhookID: hook, EventID: e.ID, Now: now})
		if err != nil {
			return err
		}
	}
	return q.MarkFanned(ctx, notificationsdb.MarkFannedParams{Now: now, OrgID: e.OrgID, ID: e.ID})
}

// begin claims deliveries that are due for the free places, and sends each in a goroutine of its own.
func (w *Webhooks) begin(ctx context.Context, lane chan struct{}, failing bool, each int32) error {
	free := cap(lane) - len(lane)
	if free == 0 {
		return nil
	}
	var claimed []notificationsdb.ClaimDeliveriesRow
	now := w.deps.Clock.Now()
	err := w.deps.DB.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		claimed, err = notificationsdb.New(tx).ClaimDeliveries(ctx, notificationsdb.ClaimDeliveriesParams{
			Now: now, ClaimedUntil: now.Add(deliveryClaim), Failing: failing, Share: each, MaxRows: int32(free), //nolint:gosec // at most places
		})
		return err
	})
	if err != nil {
		return fmt.Errorf("claim deliveries that are due: %w", err)
	}
	for _, c := range claimed {
		lane <- struct{}{}
		w.running.Go(func() {
			defer func() {
				<-lane
				w.loop.Wake() // a place is free, and the endpoint may have more waiting
			}()
			if err := w.attempt(w.sending, c); err != nil && w.sending.Err() == nil {
				w.deps.Logger.ErrorContext(w.sending, "a webhook's attempt could not be noted", "org", c.OrgID, "delivery", c.ID, "error", err)
			}
		})
	}
	return nil
}

// sweep deletes old events, now and then.
func (w *Webhooks) sweep(ctx context.Context) error {
	now := w.deps.Clock.Now()
	if now.Sub(w.swept) < sweepEvery {
		return nil
	}
	w.swept = now
	err := w.deps.DB.InWorkerTx(ctx, func(tx pgx.Tx) error {
		_, err := notificationsdb.New(tx).DeleteOldEvents(ctx, notificationsdb.DeleteOldEventsParams{OlderThan: now.Add(-eventsKept), MaxRows: sweepBatch})
		return err
	})
	if err != nil {
		return fmt.Errorf("delete old webhook events: %w", err)
	}
	return nil
}

// describe says in words why an attempt got no answer. It goes to the organisation: nothing of the platform's own network may be in it.
func describe(err error) string {
	var refusal *egress.Refusal
	var failure *egress.Failure
	switch {
	case errors.As(err, &refusal):
		return refusal.Message
	case errors.As(err, &failure) && failure.TimedOut:
		return fmt.Sprintf("no answer within %d s", int(attemptTimeout.Seconds()))
	case errors.As(err, &failure):
		return failure.Error()
	default:
		return "the platform could not send it"
	}
}
