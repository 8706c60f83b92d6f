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
	errUnreadable  = errors.New("the journal can't be read")
)

// Runner runs sessions: from the claim of a lease to the moment when the session is idle. It is safe for concurrent use.
type Runner struct {
	db        *postgres.DB
	gate      *gate.Gate
	committer *gate.Committer
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
	tokens  CountTokens

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
	// CountTokens may be nil.
	CountTokens CountTokens
}

// NewRunner makes a runner.
func NewRunner(d RunnerDeps) *Runner {
	r := &Runner{
		db: d.DB, gate: d.Gate, committer: gate.NewCommitter(d.DB), models: d.Models, tools: d.Tools, sandboxes: d.Sandboxes, listener: d.Listener, previews: d.Previews,
		clock: d.Clock, log: d.Log, owner: d.Owner, address: d.Address, ttl: d.LeaseTTL, metrics: d.Metrics, tokens: d.CountTokens, drained: make(chan struct{}),
	}
	if r.ttl == 0 {
		r.ttl = LeaseTTL
	}
	if r.tokens == nil {
		r.tokens = func(id.Org, principal.Principal, int64) {}
	}
	if r.metrics == nil {
		r.metrics = NewMetrics()
	}
	return r
}

// Run claims the session and runs its steps until it is idle. It returns nil when there was nothing to do or another worker has it. When
// ctx ends, work under way is cut short, journalled as such, and left to the next worker.
func (r *Runner) Run(ctx context.Context, org id.Org, session id.Session) error {
	w := &work{Runner: r, history: loop.NewHistory()}
	claimed := false
	err := r.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		if w.lease, claimed, err = journal.ClaimLease(ctx, tx, org, session, r.owner, r.address, r.ttl); err != nil || !claimed {
			return err
		}
		if w.open, err = journal.OpenSteps(ctx, tx, org, session); err != nil {
			return err
		}
		// A sandbox lives on without a worker, and so does its tick.
		w.open = slices.DeleteFunc(w.open, func(s journal.Step) bool { return s.Kind == journal.KindSandbox })
		if w.session, err = journal.Get(ctx, tx, org, session); err != nil {
			return err
		}
		w.unread, err = journal.EventsUpTo(ctx, tx, org, session, 0, w.session.LastSeq)
		return err
	})
	if err != nil || !claimed {
		return err
	}
	w.log = r.log.With("org", org, "session", session, "epoch", w.lease.Epoch)
	return w.run(ctx)
}

// work is one stretch of one session under one lease.
type work struct {
	*Runner

	lease   journal.Lease
	log     *slog.Logger
	session journal.Session
	history *loop.History
	unread  []journal.Event // read with the claim, not yet folded in
	open    []journal.Step  // begun by an earlier worker and not settled
	inputs  []id.Event      // the messages that this stretch answers
	running bool            // the journal says that this stretch has begun

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
	watching, endWatch := context.WithCancel(context.WithoutCancel(ctx))
	var watch sync.WaitGroup
	seen := w.session.LastSeq
	watch.Go(func() { w.watch(watching, seen, stop) })
	err := w.begin(base)
	if err == nil {
		err = w.steps(base)
	}
	if errors.Is(err, errUnreadable) {
		err = nil
	}
	endWatch()
	watch.Wait()
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

// begin folds the journal and resolves what an earlier worker left open.
func (w *work) begin(base context.Context) error {
	w.noteInputs(w.unread)
	if err := w.history.Apply(w.unread...); err != nil {
		return w.fail(base, err)
	}
	w.unread = nil
	if len(w.open) == 0 {
		return nil
	}
	err := w.commitTx(base, func(_ pgx.Tx, l *journal.Locked) ([]journal.Entry, error) {
		return []journal.Entry{w.runningEntry(&l.Draft)}, nil
	})
	if err != nil {
		return err
	}
	w.running = true
	return w.resolveOpenSteps(base)
}

// runningEntry says that the session runs, and shows its root span as open.
func (w *work) runningEntry(d *journal.Draft) journal.Entry {
	d.PutSpan(rootSpan(d, w.clock.Now()))
	return journal.Of(journal.StatusRunning{InputEventIDs: w.inputs})
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

// fail terminates a session that can't go on, as its journal can't be read by this release. Nothing of it is lost. It returns
// errUnreadable, which ends this stretch of work, unless that could not be written.
func (w *work) fail(ctx context.Context, cause error) error {
	w.log.ErrorContext(ctx, "a session can't go on: its journal can't be read", "error", cause)
	detail := journal.ErrorDetail{Code: "journal_unreadable", Message: fault.As(cause).Message}
	ctx = context.WithoutCancel(ctx)
	err := w.db.InTx(ctx, w.lease.Org, func(tx pgx.Tx) error {
		l, err := journal.Lock(ctx, tx, w.lease.Org, w.lease.Session)
		if err != nil {
			return err
		}
		if err := l.Fence(w.lease); err != nil {
			return err
		}
		now := w.clock.Now()
		released, err := w.gate.ReleaseCeiling(ctx, tx, now, l)
		if err != nil {
			return err
		}
		if err := journal.ReleaseLease(ctx, tx, w.lease); err != nil {
			return err
		}
		_, err = l.Append(ctx, now,
			journal.Of(journal.SessionError{Error: detail, Retry: "terminal"}),
			journal.Of(journal.SessionUsage{Usage: l.Usage, Cost: journal.SessionCost{Charged: l.Charged, Released: released}}),
			journal.Of(journal.StatusTerminated{StopReason: journal.StopReason{Type: journal.StopFailed, Error: &detail}}))
		return err
	})
	if err != nil {
		return err
	}
	return errUnreadable
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
