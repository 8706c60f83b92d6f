package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents/loop"
	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/sandbox"
)

// LeaseTTL is how long a worker may be silent before another takes its sessions.
const LeaseTTL = 10 * time.Second

var (
	errInterrupted = errors.New("interrupted")
	errDraining    = errors.New("this worker is shutting down")
	errLeaseLost   = errors.New("the lease was lost")
)

// Runner runs sessions: from the claim of a lease to the moment when the session is idle. It is safe for concurrent use.
type Runner struct {
	db        *postgres.DB
	gate      *gate.Gate
	models    *models.Gateway
	tools     *connectors.Registry
	sandboxes *sandbox.Service
	listener  *postgres.Listener
	previews  *Previews
	clock     clock.Clock
	log       *slog.Logger
	// owner names this worker in leases; address is where it serves previews.
	owner   string
	address string
	ttl     time.Duration
	metrics *Metrics

	drainOnce sync.Once
	drained   chan struct{}
}

// drain asks the sessions under way to stop after the effect that they are at.
func (r *Runner) drain() { r.drainOnce.Do(func() { close(r.drained) }) }

func (r *Runner) draining() bool {
	select {
	case <-r.drained:
		return true
	default:
		return false
	}
}

// RunnerDeps are what a runner needs. Sandboxes may be nil in a process whose agents have no tools that need one.
type RunnerDeps struct {
	DB        *postgres.DB
	Gate      *gate.Gate
	Models    *models.Gateway
	Tools     *connectors.Registry
	Sandboxes *sandbox.Service
	Listener  *postgres.Listener
	Previews  *Previews
	Clock     clock.Clock
	Log       *slog.Logger
	Owner     string
	Address   string
	LeaseTTL  time.Duration // 0 means LeaseTTL
	Metrics   *Metrics
}

// NewRunner makes a runner.
func NewRunner(d RunnerDeps) *Runner {
	r := &Runner{
		db: d.DB, gate: d.Gate, models: d.Models, tools: d.Tools, sandboxes: d.Sandboxes, listener: d.Listener, previews: d.Previews,
		clock: d.Clock, log: d.Log, owner: d.Owner, address: d.Address, ttl: d.LeaseTTL, metrics: d.Metrics, drained: make(chan struct{}),
	}
	if r.ttl == 0 {
		r.ttl = LeaseTTL
	}
	if r.metrics == nil {
		r.metrics = NewMetrics()
	}
	return r
}

// Run claims the session and runs its steps until it is idle. It returns nil when there was nothing to do or another worker has it. When
// ctx ends, work under way is cut short, journalled as such, and left to the next worker.
func (r *Runner) Run(ctx context.Context, org id.Org, session id.Session) error {
	var lease journal.Lease
	var ok bool
	err := r.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		lease, ok, err = journal.ClaimLease(ctx, tx, org, session, r.owner, r.address, r.ttl)
		return err
	})
	if err != nil || !ok {
		return err
	}
	w := &work{
		Runner: r, lease: lease, history: loop.NewHistory(),
		log: r.log.With("org", org, "session", session, "epoch", lease.Epoch),
	}
	return w.run(ctx)
}

// work is one stretch of one session under one lease.
type work struct {
	*Runner

	lease   journal.Lease
	log     *slog.Logger
	session journal.Session
	history *loop.History
	inputs  []id.Event // the messages that this stretch answers

	mu sync.Mutex
	// cancelEffect ends the effect under way; nil between effects.
	cancelEffect context.CancelCauseFunc
	// interruptSeq is the newest interrupt that was seen, whoever saw it.
	interruptSeq int64
}

func (w *work) run(ctx context.Context) error {
	ctx = principal.With(ctx, principal.Principal{Kind: principal.Agent, ID: string(w.lease.Session), Org: w.lease.Org})
	// base ends when the process is asked to stop or the lease is lost. Commits do not run in it: an outcome must be journalled even then.
	base, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	err := w.begin(ctx)
	if err == nil {
		watching, endWatch := context.WithCancel(context.WithoutCancel(ctx))
		var watch sync.WaitGroup
		seen := w.history.LastSeq()
		watch.Go(func() { w.watch(watching, seen, stop) })
		if err = w.resolveOpenSteps(base); err == nil {
			err = w.steps(base)
		}
		endWatch()
		watch.Wait()
	}
	switch {
	case errors.Is(err, journal.ErrFenced):
		w.log.WarnContext(ctx, "fenced: another worker has the session, or it was killed")
		return nil
	case errors.Is(err, errDraining), err != nil && ctx.Err() != nil:
		return w.release(context.WithoutCancel(ctx))
	case err != nil:
		// The lease is left to run out: whoever takes the session then tries again, and not at once.
		w.log.ErrorContext(ctx, "a session's work failed; it will be taken up again when its lease has run out", "error", err)
		return err
	}
	return nil
}

// watch renews the lease and looks for an interrupt, which comes from any process, through the journal.
func (w *work) watch(ctx context.Context, seen int64, stop context.CancelCauseFunc) {
	hints, done := w.listener.Subscribe(journal.InterruptChannel, string(w.lease.Session))
	defer done()
	renew := time.NewTicker(w.ttl / 3)
	defer renew.Stop()
	lastRenewed := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-hints:
		case <-renew.C:
		}
		// Renewing also tells whether the session was killed or taken meanwhile: then what is under way ends now.
		err := w.db.InTx(ctx, w.lease.Org, func(tx pgx.Tx) error { return journal.RenewLease(ctx, tx, w.lease, w.ttl) })
		if errors.Is(err, journal.ErrFenced) || (err != nil && time.Since(lastRenewed) > w.ttl) {
			stop(errLeaseLost)
			return
		}
		if err == nil {
			lastRenewed = time.Now()
		}
		if upTo, err := w.interruptAfter(ctx, seen); err == nil && upTo > seen {
			seen = upTo
			w.interrupt(upTo)
		}
	}
}

// interruptAfter returns the number of the newest interrupt after seq, or seq.
func (w *work) interruptAfter(ctx context.Context, seq int64) (int64, error) {
	err := w.db.InTx(ctx, w.lease.Org, func(tx pgx.Tx) error {
		found, err := journal.Events(ctx, tx, w.lease.Org, w.lease.Session, journal.EventFilter{
			After: seq, Types: []string{journal.UserInterrupt{}.EventType()}, Limit: 1000,
		})
		if err == nil && len(found) > 0 {
			seq = found[len(found)-1].Seq
		}
		return err
	})
	return seq, err
}

// interrupt ends the effect under way, or the next one that was decided on before the interrupt.
func (w *work) interrupt(seq int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.interruptSeq = max(w.interruptSeq, seq)
	if w.cancelEffect != nil {
		w.cancelEffect(errInterrupted)
	}
}

// effect is the context of one effect that was intended with the journal at its present end. It ends with base, and when an interrupt
// comes after that. The returned function must be called when the effect has ended.
func (w *work) effect(base context.Context, limit time.Duration) (context.Context, func()) {
	timed, cancelTimed := context.WithTimeout(base, limit)
	ctx, cancel := context.WithCancelCause(timed)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cancelEffect = cancel
	if w.interruptSeq > w.history.LastSeq() {
		cancel(errInterrupted)
	}
	return ctx, func() {
		w.mu.Lock()
		w.cancelEffect = nil
		w.mu.Unlock()
		cancel(nil)
		cancelTimed()
	}
}

// steps runs one step after another until the session is idle.
func (w *work) steps(base context.Context) error {
	for {
		if base.Err() != nil {
			return stopped(context.Cause(base))
		}
		if w.draining() {
			return errDraining
		}
		decision, err := w.history.Next(loop.Input{
			Agent: w.session.Agent, Limits: w.session.Limits, Usage: w.session.Usage, Tools: w.tools.Definitions(w.session.Agent.Tools), Now: w.clock.Now(),
		})
		if err != nil {
			return w.fail(base, "journal_unreadable", err)
		}
		var idle bool
		switch {
		case decision.Model != nil:
			idle, err = w.callModel(base, *decision.Model)
		case len(decision.Tools) > 0:
			idle, err = w.callTool(base, decision.Tools[0])
		default:
			idle, err = w.finish(base, *decision.Finish)
		}
		if errors.Is(err, errMoreInput) {
			// What was decided may no longer be what follows: read what came, and decide again.
			err = w.commit(base, func(pgx.Tx, *journal.Locked) ([]journal.Entry, error) { return nil, nil })
		}
		if err != nil || idle {
			return err
		}
	}
}

// begin reads the journal and says that the session runs.
func (w *work) begin(ctx context.Context) error {
	return w.commit(ctx, func(_ pgx.Tx, l *journal.Locked) ([]journal.Entry, error) {
		l.PutSpan(rootSpan(l, w.clock.Now()))
		return []journal.Entry{journal.Of(journal.StatusRunning{InputEventIDs: w.inputs})}, nil
	})
}

// commit runs one unit: lock, fence, whatever decide does, and the events that it returns, all or nothing. Events that others appended
// since the last commit are folded in first, so that decide sees them.
func (w *work) commit(ctx context.Context, decide func(tx pgx.Tx, l *journal.Locked) ([]journal.Entry, error)) error {
	ctx = context.WithoutCancel(ctx)
	var folded []journal.Event
	var after journal.Session
	err := w.db.InTx(ctx, w.lease.Org, func(tx pgx.Tx) error {
		l, err := journal.Lock(ctx, tx, w.lease.Org, w.lease.Session)
		if err != nil {
			return err
		}
		if err := l.Fence(w.lease); err != nil {
			return err
		}
		folded = nil
		for seq := w.history.LastSeq(); seq < l.LastSeq; {
			more, err := journal.Events(ctx, tx, w.lease.Org, w.lease.Session, journal.EventFilter{After: seq, Limit: 1000})
			if err != nil {
				return err
			}
			if len(more) == 0 {
				return fmt.Errorf("the journal of %s ends at %d, its head says %d", w.lease.Session, seq, l.LastSeq)
			}
			folded = append(folded, more...)
			seq = more[len(more)-1].Seq
		}
		w.noteInputs(folded)
		entries, err := decide(tx, l)
		if err != nil {
			return err
		}
		appended, err := l.Append(ctx, w.clock.Now(), entries...)
		if err != nil {
			return err
		}
		folded = append(folded, appended...)
		after = l.Session
		return nil
	})
	if err != nil {
		return err
	}
	w.session = after
	return w.history.Apply(folded...)
}

// noteInputs collects the messages that this stretch of work answers.
func (w *work) noteInputs(events []journal.Event) {
	for _, e := range events {
		switch e.Type {
		case journal.UserMessage{}.EventType():
			if !slices.Contains(w.inputs, e.ID) {
				w.inputs = append(w.inputs, e.ID)
			}
		case journal.StatusIdle{}.EventType():
			w.inputs = nil
		}
	}
}

// errMoreInput says that something was appended after the decision that was about to be committed.
var errMoreInput = errors.New("there is more input")

// unchanged refuses a unit whose decision was made from an older journal.
func (w *work) unchanged(l *journal.Locked, seen int64) error {
	if l.LastSeq > seen {
		return errMoreInput
	}
	return nil
}

// finish makes the session idle: the usage, what is left of its ceiling given back, the lease released, one commit.
func (w *work) finish(ctx context.Context, stop journal.StopReason) (idle bool, err error) {
	seen := w.history.LastSeq()
	err = w.commit(ctx, func(tx pgx.Tx, l *journal.Locked) ([]journal.Entry, error) {
		if err := w.unchanged(l, seen); err != nil {
			return nil, err
		}
		return w.idleEntries(context.WithoutCancel(ctx), tx, l, stop)
	})
	return err == nil, err
}

func (w *work) idleEntries(ctx context.Context, tx pgx.Tx, l *journal.Locked, stop journal.StopReason) ([]journal.Entry, error) {
	now := w.clock.Now()
	released, err := w.gate.ReleaseCeiling(ctx, tx, now, l)
	if err != nil {
		return nil, err
	}
	if err := journal.ReleaseLease(ctx, tx, w.lease); err != nil {
		return nil, err
	}
	l.StopReason = &stop // for the span; the event below says the same
	l.PutSpan(rootSpan(l, now))
	w.metrics.stops.WithLabelValues(stop.Type).Inc()
	return []journal.Entry{
		journal.Of(journal.SessionUsage{Usage: l.Usage, Cost: journal.SessionCost{Charged: l.Charged, Released: released}}),
		journal.Of(journal.StatusIdle{StopReason: stop, InputEventIDs: w.inputs}),
	}, nil
}

// fail terminates a session that can't go on: its journal can't be read by this release. Nothing of it is lost.
func (w *work) fail(ctx context.Context, code string, cause error) error {
	w.log.ErrorContext(ctx, "a session can't go on", "code", code, "error", cause)
	detail := journal.ErrorDetail{Code: code, Message: fault.As(cause).Message}
	return w.commit(ctx, func(tx pgx.Tx, l *journal.Locked) ([]journal.Entry, error) {
		now := w.clock.Now()
		released, err := w.gate.ReleaseCeiling(ctx, tx, now, l)
		if err != nil {
			return nil, err
		}
		if err := journal.ReleaseLease(ctx, tx, w.lease); err != nil {
			return nil, err
		}
		return []journal.Entry{
			journal.Of(journal.SessionError{Error: detail, Retry: "terminal"}),
			journal.Of(journal.SessionUsage{Usage: l.Usage, Cost: journal.SessionCost{Charged: l.Charged, Released: released}}),
			journal.Of(journal.StatusTerminated{StopReason: journal.StopReason{Type: journal.StopFailed, Error: &detail}}),
		}, nil
	})
}

// release gives the session back to whoever comes next, because this worker shuts down.
func (w *work) release(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := w.db.InTx(ctx, w.lease.Org, func(tx pgx.Tx) error {
		if err := journal.ReleaseLease(ctx, tx, w.lease); err != nil {
			return err
		}
		return journal.WakeTx(ctx, tx, w.lease.Org, w.lease.Session)
	})
	if err != nil {
		return fmt.Errorf("give session %s back: %w", w.lease.Session, err)
	}
	return nil
}

func stack() string { return string(debug.Stack()) }

func stopped(cause error) error {
	if errors.Is(cause, errLeaseLost) {
		return journal.ErrFenced
	}
	return errDraining
}
