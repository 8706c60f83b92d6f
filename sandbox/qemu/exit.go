package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ambit.dev/ambit/sandbox/driver"
)

// conclude decides why the process ended. QEMU says so on its monitor just
// before it exits, and that line may still be on its way.
func (p *process) conclude(waitErr error) {
	p.mu.Lock()
	mon := p.mon
	p.mu.Unlock()
	if mon != nil {
		select {
		case <-mon.gone:
		case <-time.After(endGrace):
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	status := "exit status 0"
	var ee *exec.ExitError
	signal := syscall.Signal(0)
	if errors.As(waitErr, &ee) {
		status = ee.String()
		if ws, ok := ee.Sys().(syscall.WaitStatus); ok && ws.Signaled() {
			signal = ws.Signal()
		}
	} else if waitErr != nil {
		status = waitErr.Error()
	}
	e := driver.Exit{At: time.Now(), Detail: status}
	switch {
	case p.broken != "":
		e.Reason, e.Detail = driver.ReasonInternalError, p.broken+"; "+p.lastWords()
	case p.shutdown == "guest-shutdown":
		e.Reason = driver.ReasonGuestShutdown
	case p.shutdown == "guest-reset" || p.shutdown == "guest-panic":
		// A guest never reboots of its own will: its kernel does, when it or
		// PID 1 has failed.
		e.Reason, e.Detail = driver.ReasonGuestPanic, p.lastWords()
	case p.killed:
		e.Reason = driver.ReasonKilled
	case signal == syscall.SIGKILL && p.ooms.rose():
		e.Reason = driver.ReasonOutOfMemory
	default:
		e.Reason, e.Detail = driver.ReasonEngineCrash, status+"; "+p.lastWords()
	}
	p.exit = e
}

// oomCounter tells whether the kernel's out-of-memory killer has struck in the
// process's memory cgroup since the process began.
type oomCounter struct {
	file string
	at   int64
}

// newOOMCounter looks at both generations of cgroups; a host without either
// counts nothing.
func newOOMCounter(pid int) *oomCounter {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cgroup")
	if err != nil {
		return nil
	}
	var file string
	for line := range strings.Lines(string(b)) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(f) != 3 {
			continue
		}
		switch {
		case f[1] == "memory":
			file = filepath.Join("/sys/fs/cgroup/memory", f[2], "memory.oom_control")
		case f[0] == "0" && f[1] == "" && file == "":
			file = filepath.Join("/sys/fs/cgroup", f[2], "memory.events")
		}
	}
	c := &oomCounter{file: file}
	c.at = c.read()
	return c
}

func (c *oomCounter) read() int64 {
	b, err := os.ReadFile(c.file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == "oom_kill" {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}

func (c *oomCounter) rose() bool { return c != nil && c.read() > c.at }

// stringField reads one string of a JSON object; empty when there is none.
func stringField(raw json.RawMessage, name string) string {
	var m map[string]any
	if json.Unmarshal(raw, &m) != nil {
		return ""
	}
	s, _ := m[name].(string)
	return s
}

func (p *process) markBroken(why string) {
	p.mu.Lock()
	if p.broken == "" {
		p.broken = why
	}
	p.mu.Unlock()
	p.forceKill()
}

// forceKill ends a process that is broken: not a kill that somebody asked for.
func (p *process) forceKill() {
	select {
	case <-p.done:
	default:
		if p.pid > 0 {
			_ = syscall.Kill(p.pid, syscall.SIGKILL)
		}
	}
}

func (p *process) endedError() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return fmt.Errorf("%w: %s", driver.ErrMachineEnded, p.exit.Reason)
}
