package processes

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Spec describes a child that is to run until it is stopped.
type Spec struct {
	// Name stands in logs and names the pid file: "postgres".
	Name string
	// Command makes the command for one start. It is called again for each
	// restart, so it may clear up what the last one has left. Its Stdout and
	// Stderr are set by the supervisor.
	Command func(ctx context.Context) (*exec.Cmd, error)
	// Ready says whether the child does its work; it is asked until it returns
	// nil. A nil Ready is ready at once.
	Ready func(ctx context.Context) error
	// ReadyWithin is how long that may take; default 30 s.
	ReadyWithin time.Duration
	// StopSignal asks for an orderly end; default SIGTERM.
	StopSignal syscall.Signal
	// StopWithin is how long the orderly end may take before the group is
	// killed; default 3 s.
	StopWithin time.Duration
	// DeathSignal is sent by the kernel when we die; default StopSignal.
	DeathSignal syscall.Signal
	// LeaveGroup leaves the rest of the child's group alone when the child dies
	// or is stopped: for one whose own children are meant to outlive it.
	LeaveGroup bool
	// Output takes what it prints; nil discards it.
	Output *Stream
}

// How often a child may die before it is given up.
const (
	rapidDeaths  = 5
	rapidWithin  = time.Minute
	firstBackoff = 200 * time.Millisecond
	backoffLimit = 5 * time.Second
)

// How often readiness is asked for: often at first, for what takes a moment, and
// then seldom, since each question costs the child something.
const (
	readyPoll    = 50 * time.Millisecond
	readyPollMax = time.Second
	readyTell    = 10 * time.Second // how often it is told what is waited for
)

// GaveUpError is sent to Failed when a child dies again and again.
type GaveUpError struct {
	Name   string
	Ending string   // how it ended last
	Last   []string // what it printed last
}

// Error says it with the child's last words.
func (e *GaveUpError) Error() string {
	s := fmt.Sprintf("%s %s, for the %dth time within %s: giving it up", e.Name, e.Ending, rapidDeaths, rapidWithin)
	if len(e.Last) > 0 {
		s += "; its last words:\n    " + strings.Join(e.Last, "\n    ")
	}
	return s
}

// Supervisor starts children, starts them again when they die, and stops them.
type Supervisor struct {
	dir string
	log *slog.Logger

	failed chan error

	mu       sync.Mutex
	children map[string]*supervised
}

type supervised struct {
	spec    Spec
	pid     pidFile
	release context.CancelFunc // ends the watching, and a restart under way
	watched chan struct{}      // closed when the watching has ended
	deaths  []time.Time        // only the watcher's

	mu    sync.Mutex
	child *Child
}

func (c *supervised) current() *Child {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.child
}

// NewSupervisor keeps its pid files in dir.
func NewSupervisor(dir string, log *slog.Logger) *Supervisor {
	return &Supervisor{dir: dir, log: log, failed: make(chan error, 1), children: map[string]*supervised{}}
}

// Failed gives the first child that was given up.
func (s *Supervisor) Failed() <-chan error { return s.failed }

// Start starts a child, after ending one of the same name that an earlier run
// has left, and returns when it is ready. From then on it is started again
// whenever it dies. On an error nothing of it runs.
func (s *Supervisor) Start(ctx context.Context, spec Spec) error {
	if spec.ReadyWithin == 0 {
		spec.ReadyWithin = 30 * time.Second
	}
	if spec.StopSignal == 0 {
		spec.StopSignal = syscall.SIGTERM
	}
	if spec.StopWithin == 0 {
		spec.StopWithin = 3 * time.Second
	}
	if spec.DeathSignal == 0 {
		spec.DeathSignal = spec.StopSignal
	}
	c := &supervised{spec: spec, pid: pidFile(filepath.Join(s.dir, spec.Name+".pid")), watched: make(chan struct{})}
	if err := s.endEarlier(ctx, c); err != nil {
		return err
	}
	if err := s.startOnce(ctx, c); err != nil {
		return err
	}
	// The watching outlives this call, and ends with Stop.
	watch, release := context.WithCancel(context.WithoutCancel(ctx))
	c.release = release
	s.mu.Lock()
	s.children[spec.Name] = c
	s.mu.Unlock()
	go s.keep(watch, c)
	return nil
}

// PID of the child of that name, 0 when it does not run now.
func (s *Supervisor) PID(name string) int {
	s.mu.Lock()
	c := s.children[name]
	s.mu.Unlock()
	if c == nil {
		return 0
	}
	if child := c.current(); child.Alive() {
		return child.PID()
	}
	return 0
}

// endEarlier ends a child that an earlier run of ours has left.
func (s *Supervisor) endEarlier(ctx context.Context, c *supervised) error {
	id, alive := c.pid.read()
	if !alive {
		return c.pid.remove()
	}
	s.log.WarnContext(ctx, "an earlier run has left a process, ending it", "name", c.spec.Name, "pid", id.PID)
	_ = syscall.Kill(id.PID, c.spec.StopSignal)
	deadline := time.Now().Add(c.spec.StopWithin)
	for id.alive() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(readyPoll):
		}
		if time.Now().After(deadline) {
			_ = syscall.Kill(-id.PID, syscall.SIGKILL)
			_ = syscall.Kill(id.PID, syscall.SIGKILL)
		}
	}
	return c.pid.remove()
}

// startOnce starts the child and waits until it is ready; else it is ended.
func (s *Supervisor) startOnce(ctx context.Context, c *supervised) error {
	cmd, err := c.spec.Command(ctx)
	if err != nil {
		return fmt.Errorf("preparing %s: %w", c.spec.Name, err)
	}
	if c.spec.Output != nil {
		cmd.Stdout, cmd.Stderr = c.spec.Output, c.spec.Output
	}
	child, err := Launch(cmd, c.spec.DeathSignal)
	if err != nil {
		return err
	}
	c.mu.Lock()
	c.child = child
	c.mu.Unlock()
	if err := c.pid.write(child.PID()); err != nil {
		return errors.Join(fmt.Errorf("noting %s's process id: %w", c.spec.Name, err), s.end(c, child))
	}
	if err := s.waitReady(ctx, c, child); err != nil {
		return errors.Join(err, s.end(c, child))
	}
	return nil
}

func (s *Supervisor) waitReady(ctx context.Context, c *supervised, child *Child) error {
	if c.spec.Ready == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.spec.ReadyWithin)
	defer cancel()
	began := time.Now()
	told := began
	for pause := readyPoll; ; pause = min(pause+pause/10, readyPollMax) {
		err := c.spec.Ready(ctx)
		if err == nil && child.Alive() {
			return nil
		}
		if time.Since(told) >= readyTell {
			told = time.Now()
			s.log.InfoContext(ctx, "waiting for "+c.spec.Name, "since", time.Since(began).Round(time.Second), "because", err)
		}
		select {
		case <-child.Done():
			return fmt.Errorf("%s %s before it was ready%s", c.spec.Name, child.Ending(), c.lastWords())
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return ctx.Err()
			}
			return fmt.Errorf("%s was not ready after %s (%w)%s", c.spec.Name, time.Since(began).Round(time.Second), err, c.lastWords())
		case <-time.After(pause):
		}
	}
}

func (c *supervised) lastWords() string {
	if c.spec.Output == nil {
		return ""
	}
	lines := c.spec.Output.Last()
	if len(lines) == 0 {
		return ""
	}
	return "; its last words:\n    " + strings.Join(lines[max(0, len(lines)-10):], "\n    ")
}

// keep starts the child again whenever it ends by itself.
func (s *Supervisor) keep(ctx context.Context, c *supervised) {
	defer close(c.watched)
	for {
		child := c.current()
		select {
		case <-ctx.Done():
			return
		case <-child.Done():
		}
		if ctx.Err() != nil {
			return
		}
		ending := child.Ending()
		if !c.spec.LeaveGroup {
			_ = child.KillGroup() // what it had started must not meet its successor
		}
		if !s.restart(ctx, c, ending) {
			return
		}
	}
}

// restart tries until the child is ready again; false when it is given up or we
// are stopping.
func (s *Supervisor) restart(ctx context.Context, c *supervised, ending string) bool {
	backoff := firstBackoff
	for {
		c.deaths = append(c.deaths, time.Now())
		if n := len(c.deaths) - rapidDeaths; n > 0 {
			c.deaths = c.deaths[n:]
		}
		if len(c.deaths) == rapidDeaths && time.Since(c.deaths[0]) < rapidWithin {
			err := &GaveUpError{Name: c.spec.Name, Ending: ending}
			if c.spec.Output != nil {
				err.Last = c.spec.Output.Last()
			}
			s.log.ErrorContext(ctx, c.spec.Name+" "+ending+" too often; giving it up")
			select {
			case s.failed <- err:
			default:
			}
			return false
		}
		s.log.WarnContext(ctx, c.spec.Name+" "+ending+"; restarting", "in", backoff)
		select {
		case <-ctx.Done():
			return false
		case <-time.After(backoff):
		}
		backoff = min(backoff*2, backoffLimit)
		began := time.Now()
		err := s.startOnce(ctx, c)
		if err == nil {
			s.log.InfoContext(ctx, c.spec.Name+" runs again", "after", time.Since(began).Round(time.Millisecond))
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		ending = "could not be started again: " + err.Error()
	}
}

// end stops one running child.
func (s *Supervisor) end(c *supervised, child *Child) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.spec.StopWithin)
	defer cancel()
	stop := child.Stop
	if c.spec.LeaveGroup {
		stop = child.StopAlone
	}
	err := stop(ctx, c.spec.StopSignal)
	return errors.Join(err, c.pid.remove())
}

// Stop ends the named children side by side, each within its StopWithin, and
// returns when they are gone. Unknown names are passed over. The error tells
// which had to be killed.
func (s *Supervisor) Stop(names ...string) error {
	var wg sync.WaitGroup
	errs := make([]error, len(names))
	for i, name := range names {
		s.mu.Lock()
		c := s.children[name]
		delete(s.children, name)
		s.mu.Unlock()
		if c == nil {
			continue
		}
		wg.Go(func() {
			began := time.Now()
			c.release()
			<-c.watched // a restart under way ends first, or would leave its child
			if err := s.end(c, c.current()); err != nil {
				errs[i] = fmt.Errorf("%s: %w", name, err)
			}
			s.log.Info(name+" stopped", "took", time.Since(began).Round(time.Millisecond))
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// StopAll ends whatever still runs, side by side.
func (s *Supervisor) StopAll() error {
	s.mu.Lock()
	names := slices.Collect(maps.Keys(s.children))
	s.mu.Unlock()
	return s.Stop(names...)
}
