package sandbox

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-jose/go-jose/v4"

	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/blob"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/nomad"
)

// Service is the control plane's side of all sandboxes. It is safe for
// concurrent use, by any number of processes on one database.
type Service struct {
	cfg     Config
	build   string
	db      *postgres.DB
	nomad   *nomad.Client
	blobs   *blob.Store
	signer  TokenSigner
	gate    *gate.Gate
	keys    func(ctx context.Context) (jose.JSONWebKeySet, error)
	clock   clock.Clock
	log     *slog.Logger
	onEnded func(Ended)

	line     line
	refill   chan struct{} // a hint that the pool may be short
	failures atomic.Int32  // starts that failed in a row
	failedAt atomic.Int64  // when the last one did, in Unix nanoseconds
	draining atomic.Bool
	began    time.Time
	started  chan struct{}
	cancel   context.CancelFunc
	running  sync.WaitGroup
	handler  http.Handler

	refused sync.Map // the machines that are being ended because their time was refused, by id

	errandsMu sync.Mutex
	errands   sync.WaitGroup
	closed    bool // no more errands
}

// New makes a service; nothing happens before Start.
func New(o Options) (*Service, error) {
	o.Config = o.Config.withDefaults()
	o.Config.Node = o.Config.Node.withDefaults()
	build := ""
	if o.Client {
		if err := o.Config.validateOwn(); err != nil {
			return nil, err
		}
	} else {
		if err := o.Config.Validate(); err != nil {
			return nil, err
		}
		var err error
		if build, err = o.Config.Node.Build(); err != nil {
			return nil, err
		}
	}
	if o.Keys == nil {
		o.Keys = func(context.Context) (jose.JSONWebKeySet, error) { return jose.JSONWebKeySet{}, nil }
	}
	if o.Gate == nil {
		return nil, errors.New("sandbox: no gate to hold the time of machines by")
	}
	if o.OnEnded == nil {
		o.OnEnded = func(Ended) {}
	}
	s := &Service{
		cfg: o.Config, build: build, db: o.DB, nomad: o.Nomad, blobs: o.Blobs, signer: o.Signer, gate: o.Gate, keys: o.Keys, clock: o.Clock,
		log: o.Log.With("part", "sandbox"), onEnded: o.OnEnded, refill: make(chan struct{}, 1), started: make(chan struct{}),
		cancel: func() {},
	}
	s.line.most = o.Config.MaxWaiting
	s.handler = s.routes()
	return s, nil
}

// Start registers Ambit's two jobs with Nomad and begins to keep the pool, to
// reap and to follow Nomad. It returns once the jobs are registered; machines
// that live from an earlier run are taken over, not ended.
func (s *Service) Start(ctx context.Context) error {
	if err := s.nomad.RegisterSandboxJob(ctx, s.sandboxTask()); err != nil {
		return err
	}
	if err := s.nomad.RegisterNodeJob(ctx, s.nodeTask()); err != nil {
		return err
	}
	ctx, s.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.began = time.Now()
	s.every(ctx, "keep the pool", time.Second, s.refill, s.fillPool)
	s.every(ctx, "hold the time of sandboxes", s.cfg.Tick/12, nil, s.meter)
	s.every(ctx, "reap idle sandboxes", min(s.cfg.IdleAfter/4+time.Second, 15*time.Second), nil, s.reapIdle)
	s.every(ctx, "find silent sandboxes", 10*time.Second, nil, s.endSilent)
	s.running.Go(func() {
		if err := s.nomad.Watch(ctx, s.follower()); err != nil && ctx.Err() == nil {
			s.log.ErrorContext(ctx, "following Nomad ended", "error", err)
		}
	})
	close(s.started)
	return nil
}

// Started is closed when Start has done its work.
func (s *Service) Started() <-chan struct{} { return s.started }

// Stop ends the background work and leaves all machines as they are, for the
// next process to go on with.
func (s *Service) Stop(ctx context.Context) error {
	s.cancel()
	s.errandsMu.Lock()
	s.closed = true
	s.errandsMu.Unlock()
	done := make(chan struct{})
	go func() { s.running.Wait(); s.errands.Wait(); close(done) }()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("stop the sandbox service: %w", ctx.Err())
	}
}

// errand does something that a request asked for and does not wait for. After
// Stop there are none; Stop waits for those that are under way.
func (s *Service) errand(do func()) {
	s.errandsMu.Lock()
	defer s.errandsMu.Unlock()
	if !s.closed {
		s.errands.Go(do)
	}
}

// every runs one pass now, then every d, and whenever hint has something.
func (s *Service) every(ctx context.Context, what string, d time.Duration, hint <-chan struct{}, pass func(context.Context) error) {
	s.running.Go(func() {
		tick := time.NewTicker(d)
		defer tick.Stop()
		for {
			if err := pass(ctx); err != nil && ctx.Err() == nil {
				s.log.ErrorContext(ctx, "a pass failed", "pass", what, "error", err)
			}
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			case <-hint:
			}
		}
	})
}

// Errors that callers may test for with errors.Is.
var (
	// ErrNoCapacity: no machine came free within the time that a session waits.
	ErrNoCapacity = fault.New(fault.Unavailable, "no_capacity", "All sandboxes are in use. Try again shortly, or raise AMBIT_MAX_SANDBOXES.").
			After(5 * time.Second)
	// ErrFenced: a newer lease of the session has the sandbox.
	ErrFenced = fault.New(fault.Conflict, "fenced", "A newer worker has this session's sandbox.")
	// ErrLost: the machine is gone. What was running in it has an unknown
	// outcome; the next Acquire restores the last save into a new one.
	ErrLost = fault.New(fault.Unavailable, "sandbox_lost", "The sandbox was lost; its files are restored from the last save at its next use.")
	// ErrEnding: the machine was saved and ended while something ran in it, because its time was not held any longer or a rule forbids it now.
	ErrEnding = fault.New(fault.Unavailable, "sandbox_ended", "The sandbox was saved and ended while this ran. The files are as they were then.")
	// ErrDraining: this instance is shutting down.
	ErrDraining = fault.New(fault.Unavailable, "unavailable", "Ambit is shutting down.").After(5 * time.Second)
	// ErrNoFiles: the session never had a sandbox, so it has no files.
	ErrNoFiles = fault.NotFound()

	errGone = errors.New("the machine is gone")
)
