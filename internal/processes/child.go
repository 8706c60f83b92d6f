package processes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// pipeGrace is how long a child's output is still read after it has exited,
// should a grandchild hold the pipe open.
const pipeGrace = 500 * time.Millisecond

// Child is one running (or ended) process. It leads a process group of its own,
// so that a Ctrl-C at the terminal reaches it only through its parent.
type Child struct {
	pid     int
	started time.Time
	proc    *os.Process

	done chan struct{}
	mu   sync.Mutex // guards state and err until done is closed
	err  error
	st   *os.ProcessState
}

// Launch starts cmd in a process group of its own. When this process dies for
// whatever reason, the kernel sends deathSignal to the child (0: nothing is
// sent, the child may outlive us).
//
// Launch sets cmd.SysProcAttr's Setpgid and Pdeathsig and keeps the rest, a
// Credential for instance.
func Launch(cmd *exec.Cmd, deathSignal syscall.Signal) (*Child, error) {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	// A new session is a new group too; asking for both is refused by the kernel.
	cmd.SysProcAttr.Setpgid = !cmd.SysProcAttr.Setsid
	cmd.SysProcAttr.Pdeathsig = deathSignal
	if cmd.WaitDelay == 0 {
		cmd.WaitDelay = pipeGrace
	}

	c := &Child{done: make(chan struct{})}
	started := make(chan error, 1)
	go func() {
		// The death signal belongs to the *thread* that forked: were this
		// goroutine to move, and the runtime to end the thread, the child would
		// be killed while we live. So the thread is kept until the child ends.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()

		if err := cmd.Start(); err != nil {
			started <- err
			return
		}
		c.pid, c.proc, c.started = cmd.Process.Pid, cmd.Process, time.Now()
		started <- nil

		err := cmd.Wait()
		c.mu.Lock()
		c.err, c.st = err, cmd.ProcessState
		c.mu.Unlock()
		close(c.done)
	}()
	if err := <-started; err != nil {
		return nil, fmt.Errorf("starting %s: %w", cmd.Path, err)
	}
	return c, nil
}

// PID is the process id; it stays readable after the end.
func (c *Child) PID() int { return c.pid }

// Started is when the process was started.
func (c *Child) Started() time.Time { return c.started }

// Done is closed once the process has ended and its output was read.
func (c *Child) Done() <-chan struct{} { return c.done }

// Alive says whether the process has not ended yet.
func (c *Child) Alive() bool {
	select {
	case <-c.done:
		return false
	default:
		return true
	}
}

// Ending says in words how the process ended ("exited with code 3", "was killed
// (signal: killed)"), or "is running".
func (c *Child) Ending() string {
	if c.Alive() {
		return "is running"
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.st == nil {
		return fmt.Sprintf("ended: %v", c.err)
	}
	ws, ok := c.st.Sys().(syscall.WaitStatus)
	switch {
	case ok && ws.Signaled():
		return fmt.Sprintf("was killed (signal: %s)", ws.Signal())
	case c.st.ExitCode() == 0:
		return "exited with code 0"
	default:
		return fmt.Sprintf("exited with code %d", c.st.ExitCode())
	}
}

// ExitCode is the exit code, or -1 while it runs or when a signal ended it.
func (c *Child) ExitCode() int {
	if c.Alive() {
		return -1
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.st == nil {
		return -1
	}
	return c.st.ExitCode()
}

// Signal sends sig to the process itself. A process that has ended is no error.
func (c *Child) Signal(sig syscall.Signal) error {
	if err := c.proc.Signal(sig); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("sending %s to process %d: %w", sig, c.pid, err)
	}
	return nil
}

// KillGroup kills the process and whatever is left of its group at once.
func (c *Child) KillGroup() error {
	if err := syscall.Kill(-c.pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("killing process group %d: %w", c.pid, err)
	}
	return nil
}

// Stop sends sig and waits for the end. When ctx ends first the whole group is
// killed, and the error says so. The rest of the group is swept in any case.
func (c *Child) Stop(ctx context.Context, sig syscall.Signal) error {
	return errors.Join(c.stop(ctx, sig, c.KillGroup), c.KillGroup())
}

// StopAlone is Stop that leaves the rest of the group alone.
func (c *Child) StopAlone(ctx context.Context, sig syscall.Signal) error {
	return c.stop(ctx, sig, func() error { return c.Signal(syscall.SIGKILL) })
}

func (c *Child) stop(ctx context.Context, sig syscall.Signal, kill func() error) error {
	if err := c.Signal(sig); err != nil {
		return err
	}
	select {
	case <-c.done:
		return nil
	case <-ctx.Done():
	}
	if err := kill(); err != nil {
		return err
	}
	<-c.done
	return fmt.Errorf("process %d did not end on %s in time and was killed", c.pid, sig)
}
