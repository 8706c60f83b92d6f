package background

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// Loop runs a function at intervals. Make it with New. Start may be called once.
type Loop struct {
	name    string
	every   time.Duration
	log     *slog.Logger
	runOnce func(context.Context) error

	wake    chan struct{}
	started chan struct{}
	done    chan struct{}

	mu     sync.Mutex
	cancel context.CancelFunc
	stop   chan struct{}
}

// New returns a loop that is not started. An error of runOnce is logged under the name, and the next round comes as usual.
func New(name string, every time.Duration, log *slog.Logger, runOnce func(context.Context) error) *Loop {
	return &Loop{
		name: name, every: every, log: log, runOnce: runOnce,
		wake: make(chan struct{}, 1), started: make(chan struct{}), done: make(chan struct{}), stop: make(chan struct{}),
	}
}

// Start runs the first round at once, in a goroutine of its own, and then one each interval until Stop is called or ctx ends.
func (l *Loop) Start(ctx context.Context) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cancel != nil {
		panic("background: " + l.name + " was started twice")
	}
	ctx, l.cancel = context.WithCancel(ctx)
	go l.run(ctx)
}

// Started is closed after the first round.
func (l *Loop) Started() <-chan struct{} { return l.started }

// Wake brings the next round forward. It never blocks; several calls before that round count as one.
func (l *Loop) Wake() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// Stop lets the present round end, starts no other, and waits for that until ctx ends; then it cancels the round's context, waits for it
// to give up, and returns ctx's error. A loop that was never started stops at once.
func (l *Loop) Stop(ctx context.Context) error {
	l.mu.Lock()
	cancel := l.cancel
	select {
	case <-l.stop:
	default:
		close(l.stop)
	}
	l.mu.Unlock()
	if cancel == nil {
		return nil
	}
	defer cancel()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		cancel()
		<-l.done
		return fmt.Errorf("stop %s: %w", l.name, ctx.Err())
	}
}

func (l *Loop) run(ctx context.Context) {
	defer close(l.done)
	ticker := time.NewTicker(l.every)
	defer ticker.Stop()
	for first := true; ; first = false {
		if stopping(ctx, l.stop) {
			return
		}
		l.round(ctx)
		if first {
			close(l.started)
		}
		select {
		case <-ticker.C:
		case <-l.wake:
		case <-l.stop:
			return
		case <-ctx.Done():
			return
		}
	}
}

func stopping(ctx context.Context, stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	case <-ctx.Done():
		return true
	default:
		return false
	}
}

// round keeps a panic in one piece of work from ending the whole process and all its sessions.
func (l *Loop) round(ctx context.Context) {
	defer func() {
		if r := recover(); r != nil {
			l.log.ErrorContext(ctx, "background work panicked", "work", l.name, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
		}
	}()
	if err := l.runOnce(ctx); err != nil && ctx.Err() == nil {
		l.log.ErrorContext(ctx, "background work failed", "work", l.name, "error", err)
	}
}
