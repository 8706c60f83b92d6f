package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/riverqueue/river"
	"github.com/riverqueue/river/riverdriver/riverpgxv5"

	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
	migrations "ambit.dev/ambit/migrations/postgres"
)

// scanEvery is how often sessions without a worker are looked for; scanGrace leaves those that were just touched to their own job.
const (
	scanEvery = time.Second
	scanGrace = 5 * time.Second
)

// Worker wakes sessions and runs them: jobs of the queue say which, and a scan finds those whose worker was lost. It is a background
// service: Start, Started, Stop.
type Worker struct {
	db      *postgres.DB
	runner  *Runner
	log     *slog.Logger
	queue   *river.Client[pgx.Tx]
	started chan struct{}

	mu       sync.Mutex
	busy     map[journal.Ref]bool // sessions under way in this process; true when one was woken again meanwhile
	sessions sync.WaitGroup
	runs     context.Context
	stopRuns context.CancelCauseFunc
	stopScan context.CancelFunc
	scanned  chan struct{}
	slots    chan struct{}
}

// NewWorker makes a worker that runs at most concurrency sessions at once.
func NewWorker(db *postgres.DB, runner *Runner, concurrency int, log *slog.Logger) (*Worker, error) {
	w := &Worker{
		db: db, runner: runner, log: log, started: make(chan struct{}), busy: map[journal.Ref]bool{}, scanned: make(chan struct{}),
		slots: make(chan struct{}, concurrency),
	}
	workers := river.NewWorkers()
	river.AddWorker(workers, &wakeWorker{w: w})
	queue, err := river.NewClient(riverpgxv5.New(db.Worker()), &river.Config{
		Schema: migrations.RiverSchema, Workers: workers, Logger: log,
		Queues:            map[string]river.QueueConfig{river.QueueDefault: {MaxWorkers: concurrency}},
		FetchCooldown:     5 * time.Millisecond,
		FetchPollInterval: time.Second,
		// A wake is done when the session is under way or handed to a slot; it never needs longer.
		JobTimeout: time.Minute,
		// Old wakes tell nothing: the journal does.
		CompletedJobRetentionPeriod: 10 * time.Minute,
		// The reindexer needs the tables' owner, which this role is not.
		ReindexerSchedule: river.NeverSchedule(),
	})
	if err != nil {
		return nil, fmt.Errorf("make the job queue's client: %w", err)
	}
	w.queue = queue
	return w, nil
}

// Start begins to take jobs and to scan.
func (w *Worker) Start(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx)
	w.runs, w.stopRuns = context.WithCancelCause(ctx)
	if err := w.queue.Start(ctx); err != nil {
		return fmt.Errorf("start the job queue: %w", err)
	}
	scan, stop := context.WithCancel(ctx)
	w.stopScan = stop
	go func() {
		defer close(w.scanned)
		w.scan(scan)
	}()
	close(w.started)
	return nil
}

// Started is closed once jobs are taken.
func (w *Worker) Started() <-chan struct{} { return w.started }

// Stop takes no further work, lets effects under way end for as long as grace, then cuts them short, and waits until each session's lease
// was given back. What was cut is journalled; another worker goes on.
func (w *Worker) Stop(ctx context.Context, grace time.Duration) error {
	w.stopScan()
	<-w.scanned
	if err := w.queue.StopAndCancel(ctx); err != nil && !errors.Is(err, context.Canceled) {
		w.log.WarnContext(ctx, "the job queue did not stop cleanly", "error", err)
	}
	// The runs end between steps by themselves once they are asked to drain.
	w.runner.drain()
	done := make(chan struct{})
	go func() {
		w.sessions.Wait()
		close(done)
	}()
	timer := time.NewTimer(grace)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
	}
	w.stopRuns(errDraining)
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("sessions are still being put down: %w", ctx.Err())
	}
}

// wake runs the session in the background, unless this process has it already; then it is looked at once more afterwards.
func (w *Worker) wake(ctx context.Context, ref journal.Ref) error {
	w.mu.Lock()
	if _, under := w.busy[ref]; under {
		w.busy[ref] = true
		w.mu.Unlock()
		return nil
	}
	w.mu.Unlock()
	select { // a slot first: at most so many sessions are held in memory
	case w.slots <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-w.runs.Done():
		return errDraining
	}
	w.mu.Lock()
	if _, under := w.busy[ref]; under || w.runs.Err() != nil || w.runner.draining() {
		if under {
			w.busy[ref] = true
		}
		w.mu.Unlock()
		<-w.slots
		return nil
	}
	w.busy[ref] = false
	w.sessions.Add(1)
	w.mu.Unlock()
	go w.run(ref)
	return nil
}

func (w *Worker) run(ref journal.Ref) {
	defer w.sessions.Done()
	defer func() { <-w.slots }()
	w.runner.metrics.working.Inc()
	defer w.runner.metrics.working.Dec()
	for {
		if err := w.runOnce(ref); err != nil && w.runs.Err() == nil {
			w.log.ErrorContext(w.runs, "running a session failed", "org", ref.Org, "session", ref.Session, "error", err)
		}
		w.mu.Lock()
		again := w.busy[ref] && w.runs.Err() == nil && !w.runner.draining()
		if !again {
			delete(w.busy, ref)
			w.mu.Unlock()
			return
		}
		w.busy[ref] = false
		w.mu.Unlock()
	}
}

// runOnce keeps a panic in one session's work from ending the process and with it all other sessions.
func (w *Worker) runOnce(ref journal.Ref) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
			w.log.Error("a session's work panicked", "org", ref.Org, "session", ref.Session, "panic", p, "stack", stack())
		}
	}()
	return w.runner.Run(w.runs, ref.Org, ref.Session)
}

// scan finds sessions whose worker is gone, and those whose job was lost, and wakes them here.
func (w *Worker) scan(ctx context.Context) {
	tick := time.NewTicker(scanEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if err := w.scanOnce(ctx); err != nil && ctx.Err() == nil {
			w.log.WarnContext(ctx, "looking for sessions without a worker failed", "error", err)
		}
	}
}

func (w *Worker) scanOnce(ctx context.Context) error {
	var found []journal.Ref
	err := w.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		found, err = journal.WithoutWorker(ctx, tx, scanGrace, 100)
		return err
	})
	if err != nil {
		return err
	}
	for _, ref := range found {
		w.runner.metrics.recovered.Inc()
		w.log.InfoContext(ctx, "a session has no worker; taking it up", "org", ref.Org, "session", ref.Session)
		if err := w.wake(ctx, ref); err != nil {
			return err
		}
	}
	return nil
}

// wakeWorker works the queue's jobs.
type wakeWorker struct {
	river.WorkerDefaults[journal.WakeArgs]

	w *Worker
}

// Work implements river.Worker.
func (x *wakeWorker) Work(ctx context.Context, job *river.Job[journal.WakeArgs]) error {
	return x.w.wake(ctx, journal.Ref{Org: job.Args.Org, Session: job.Args.Session})
}
