package observability

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	chdriver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/prometheus/client_golang/prometheus"

	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/clickhouse"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
)

// Defaults of ExporterConfig.
const (
	DefaultBatchRows  = 5000
	DefaultBatchBytes = 16 << 20
	DefaultPoll       = 500 * time.Millisecond
	DefaultLease      = 10 * time.Second
)

const (
	// linger is how long after a notice a batch is claimed. It lets the commits
	// of a burst gather: a part on disk for each of them would keep ClickHouse
	// merging.
	linger = 200 * time.Millisecond
	// firstBackoff doubles with each failure in a row, up to maxBackoff.
	firstBackoff = 500 * time.Millisecond
	maxBackoff   = 5 * time.Second
	// measureEvery is how often the backlog is counted.
	measureEvery = 5 * time.Second
)

// ExporterConfig is what an Exporter needs. Fields without a default are
// required.
type ExporterConfig struct {
	Postgres   *postgres.DB
	ClickHouse *clickhouse.DB
	// Notices brings rows sooner than the poll; it must listen on
	// journal.OutboxChannel. Nil leaves the poll alone.
	Notices *postgres.Listener
	Clock   clock.Clock
	Log     *slog.Logger
	// Metrics is where the exporter's metrics are registered; nil keeps none.
	Metrics prometheus.Registerer

	// BatchRows and BatchBytes bound a batch. Bytes are those of the rows'
	// payloads; a single row may exceed them.
	BatchRows  int
	BatchBytes int64
	// Poll is how often waiting rows are looked for without a notice.
	Poll time.Duration
	// Lease is how long one replica alone may send a batch. When it dies, another
	// takes over after that time. A send is given up before it ends.
	Lease time.Duration
}

// Exporter sends the outbox's rows to ClickHouse, in the background. Any number
// of them may run, in one process or many.
type Exporter struct {
	cfg     ExporterConfig
	outbox  *outbox
	metrics *exporterMetrics
	loop    *background.Loop

	stopNotices func()

	// What follows belongs to the loop's goroutine.
	failures   int       // sends that failed in a row
	retryAt    time.Time // nothing is tried before
	measuredAt time.Time
}

// NewExporter returns an exporter that is not started.
func NewExporter(cfg ExporterConfig) (*Exporter, error) {
	if cfg.BatchRows == 0 {
		cfg.BatchRows = DefaultBatchRows
	}
	if cfg.BatchBytes == 0 {
		cfg.BatchBytes = DefaultBatchBytes
	}
	if cfg.Poll == 0 {
		cfg.Poll = DefaultPoll
	}
	if cfg.Lease == 0 {
		cfg.Lease = DefaultLease
	}
	metrics, err := newExporterMetrics(cfg.Metrics)
	if err != nil {
		return nil, fmt.Errorf("register the exporter's metrics: %w", err)
	}
	e := &Exporter{
		cfg: cfg, metrics: metrics,
		outbox: &outbox{db: cfg.Postgres, lease: cfg.Lease, maxRows: cfg.BatchRows, maxBytes: cfg.BatchBytes},
	}
	e.loop = background.New("span exporter", cfg.Poll, cfg.Log, e.runOnce)
	return e, nil
}

// Start begins to export.
func (e *Exporter) Start(ctx context.Context) {
	e.loop.Start(ctx)
	if e.cfg.Notices == nil {
		return
	}
	notices, unsubscribe := e.cfg.Notices.Subscribe(journal.OutboxChannel, "")
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		e.forward(ctx, notices)
	}()
	e.stopNotices = func() {
		cancel()
		<-done
		unsubscribe()
	}
}

func (e *Exporter) forward(ctx context.Context, notices <-chan struct{}) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-notices:
		}
		if e.cfg.Clock.Sleep(ctx, linger) != nil {
			return
		}
		e.loop.Wake()
	}
}

// Started is closed after the first round.
func (e *Exporter) Started() <-chan struct{} { return e.loop.Started() }

// Stop lets the batch that is being sent arrive, until ctx ends. What is left
// stays in the outbox. An exporter that was never started stops at once.
func (e *Exporter) Stop(ctx context.Context) error {
	if e.stopNotices != nil {
		e.stopNotices()
		e.stopNotices = nil
	}
	return e.loop.Stop(ctx)
}

// runOnce sends batches until none is left or one fails. A failure is no error
// of the round: it is logged here, once for an outage and not once a poll, and
// counted.
func (e *Exporter) runOnce(ctx context.Context) error {
	now := e.cfg.Clock.Now()
	if now.Before(e.retryAt) {
		return nil
	}
	for ctx.Err() == nil {
		more, err := e.exportBatch(ctx)
		if err != nil {
			e.failed(ctx, err)
			break
		}
		e.recovered(ctx)
		if !more {
			break
		}
	}
	if now.Sub(e.measuredAt) >= measureEvery {
		e.measuredAt = now
		if err := e.measure(ctx); err != nil {
			e.failed(ctx, err)
		}
	}
	return nil
}

// exportBatch takes one batch, sends it and forgets it. It reports whether
// another should follow at once. After a batch that had room left none should:
// under a steady load there are always a few new rows, and to send each few by
// themselves is what the linger is there to prevent.
func (e *Exporter) exportBatch(ctx context.Context) (more bool, err error) {
	batch, err := e.outbox.take(ctx)
	if err != nil || batch == nil {
		return false, err
	}
	columns, full, err := e.load(ctx, batch)
	if err != nil {
		return false, err
	}
	if columns.rows() > 0 {
		started := time.Now()
		if err := e.send(ctx, batch.id, columns); err != nil {
			e.metrics.failures.Inc()
			// Best effort: without it the batch is free when its lease runs out.
			e.outbox.release(context.WithoutCancel(ctx), batch.id, backoff(int(batch.attempts)))
			return false, err
		}
		e.metrics.sendSeconds.Observe(time.Since(started).Seconds())
	}
	// From here on the rows are in ClickHouse. Should this fail, or the process
	// die before it, the batch is sent again under its token and dropped there.
	if err := e.outbox.finish(ctx, batch.id); err != nil {
		return false, err
	}
	e.metrics.batches.Inc()
	e.metrics.rows.Add(float64(columns.rows()))
	// What waits behind a batch that had failed may be a whole outage's.
	return full || batch.attempts > 1, nil
}

// load reads a batch's rows, and says whether the batch had no room for more.
// Rows that cannot be sent are taken out first, in a transaction of their own, so
// that the batch is the same at each attempt.
func (e *Exporter) load(ctx context.Context, batch *claimedBatch) (columns *spanColumns, full bool, err error) {
	rows, err := e.outbox.rows(ctx, batch.id)
	if err != nil {
		return nil, false, err
	}
	columns = &spanColumns{}
	var (
		rejected []rejectedRow
		bytes    int64
	)
	for _, row := range rows {
		bytes += int64(len(row.Payload))
		span, err := decodeSpan(row)
		if err != nil {
			rejected = append(rejected, rejectedRow{org: row.OrgID, id: row.ID, reason: err.Error()})
			continue
		}
		columns.add(&span)
	}
	full = len(rows) >= e.cfg.BatchRows || bytes >= e.cfg.BatchBytes
	if len(rejected) == 0 {
		return columns, full, nil
	}
	if err := e.outbox.reject(ctx, rejected); err != nil {
		return nil, false, err
	}
	e.metrics.rejected.Add(float64(len(rejected)))
	for _, r := range rejected {
		e.cfg.Log.ErrorContext(ctx, "a span cannot be stored and is set aside", "org_id", r.org, "outbox_id", r.id, "reason", r.reason)
	}
	return columns, full, nil
}

// send writes a batch under its token.
func (e *Exporter) send(ctx context.Context, token string, columns *spanColumns) error {
	// Less than the lease, so that as a rule nobody else sends at the same time.
	// Two senders would do no harm, as they share the token.
	ctx, cancel := context.WithTimeout(ctx, e.cfg.Lease*4/5)
	defer cancel()
	return insertSpans(ctx, e.cfg.ClickHouse, token, columns)
}

func insertSpans(ctx context.Context, db *clickhouse.DB, token string, columns *spanColumns) error {
	ctx = chdriver.Context(ctx, chdriver.WithSettings(chdriver.Settings{
		"async_insert":               0,
		"insert_deduplicate":         1,
		"insert_deduplication_token": token,
		// The token holds for the roll-up too, and for each on its own: a batch
		// that reached the table but not the roll-up is completed by the retry.
		"deduplicate_blocks_in_dependent_materialized_views": 1,
		// One block a batch, and so one token a partition, however large the rows.
		"max_insert_block_size":      1 << 20,
		"min_insert_block_size_rows": 1 << 20,
	}))
	batch, err := db.Conn().PrepareBatch(ctx, insertStatement)
	if err != nil {
		return fmt.Errorf("prepare a batch of spans: %w", err)
	}
	defer batch.Close() //nolint:errcheck // after Send it has nothing left to do
	if err := columns.appendTo(batch); err != nil {
		return fmt.Errorf("fill a batch of spans: %w", err)
	}
	if err := batch.Send(); err != nil {
		return fmt.Errorf("send a batch of spans: %w", err)
	}
	return nil
}

func (e *Exporter) failed(ctx context.Context, err error) {
	if errors.Is(err, context.Canceled) && ctx.Err() != nil {
		return
	}
	e.failures++
	wait := backoff(e.failures)
	e.retryAt = e.cfg.Clock.Now().Add(wait)
	level := slog.LevelDebug
	if e.failures == 1 || e.failures%20 == 0 {
		level = slog.LevelWarn
	}
	e.cfg.Log.Log(ctx, level, "spans cannot be exported; they wait in the outbox", "error", err, "failures", e.failures, "next_try_in", wait)
}

func (e *Exporter) recovered(ctx context.Context) {
	if e.failures > 0 {
		e.cfg.Log.InfoContext(ctx, "spans are exported again", "after_failures", e.failures)
	}
	e.failures, e.retryAt = 0, time.Time{}
}

func backoff(failures int) time.Duration {
	d := firstBackoff
	for range failures - 1 {
		if d *= 2; d >= maxBackoff {
			return maxBackoff
		}
	}
	return d
}

func (e *Exporter) measure(ctx context.Context) error {
	b, err := e.outbox.backlog(ctx)
	if err != nil {
		return err
	}
	e.metrics.waiting.Set(float64(b.Waiting))
	e.metrics.lag.Set(b.OldestSeconds)
	return nil
}
