package agent

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ambit.dev/ambit/sandbox/guest"
)

const (
	// termGrace is between SIGTERM at the time limit and SIGKILL.
	termGrace = 2 * time.Second
	// drainGrace is how long output is still read when every process of the
	// command is dead. Only a process that left the command's cgroup could hold
	// the pipe open longer.
	drainGrace = 2 * time.Second
)

// launch starts a claimed effect. On an error nothing runs; a program that does
// not exist is no error but a result, as in a shell.
func (s *Server) launch(e *effect, req guest.ExecRequest) error {
	name := fmt.Sprintf("c%d", e.serial)
	spool, err := newSpool(filepath.Join(s.cfg.StateDir, name), req.KeepLimit)
	if err != nil {
		return err
	}
	e.spool = spool
	close(e.ready)
	plan, err := s.plan(name, req)
	if err != nil {
		var nf *notRunnable
		if errors.As(err, &nf) {
			e.spool.add(guest.Stderr, []byte(nf.Error()+"\n"))
			s.conclude(e, exitStatus{status: syscall.WaitStatus(nf.code << 8)}, req) //nolint:gosec // an exit code, below 256
			return nil
		}
		return err
	}
	return s.run(e, req, plan, name)
}

func (s *Server) run(e *effect, req guest.ExecRequest, plan *plan, name string) error {
	defer plan.closeStdin()
	group, err := s.newCgroup(name)
	if err != nil {
		plan.cleanup()
		return err
	}
	e.group = group
	var outR, outW, errR, errW int
	pipes := [2]int{}
	if err := unix.Pipe2(pipes[:], unix.O_CLOEXEC); err != nil {
		return s.abandon(e, plan, fmt.Errorf("make a pipe: %w", err))
	}
	outR, outW = pipes[0], pipes[1]
	if err := unix.Pipe2(pipes[:], unix.O_CLOEXEC); err != nil {
		closeFDs(outR, outW)
		return s.abandon(e, plan, fmt.Errorf("make a pipe: %w", err))
	}
	errR, errW = pipes[0], pipes[1]

	attr := s.processAttributes(group)
	attr.Dir, attr.Env = plan.cwd, plan.env
	attr.Files = []uintptr{plan.stdin.Fd(), uintptr(outW), uintptr(errW)}
	s.starting.RLock()
	pid, ended, err := s.spawn.start(plan.path, plan.argv, attr)
	s.starting.RUnlock()
	closeFDs(outW, errW)
	if err != nil {
		closeFDs(outR, errR)
		var no syscall.Errno
		if errors.As(err, &no) {
			// The program or the directory was refused by the kernel: as a shell says.
			e.spool.add(guest.Stderr, fmt.Appendf(nil, "ambit: %s: %v\n", plan.argv[0], no))
			plan.cleanup()
			group.remove()
			s.conclude(e, exitStatus{status: 126 << 8}, req)
			return nil
		}
		return s.abandon(e, plan, err)
	}
	// The agent is nearly exempt from the OOM killer and children inherit that;
	// commands must be the first to go.
	_ = os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte("500"), 0)
	e.mu.Lock()
	e.pid, e.spawned = pid, true
	late := e.killed
	e.mu.Unlock()
	if late {
		e.kill()
	}
	go s.attend(e, req, plan, ended, pollable(outR, "stdout"), pollable(errR, "stderr"))
	return nil
}

// processAttributes are those of every process that is started: a session of
// its own, the commands' user, its cgroup.
func (s *Server) processAttributes(group *cgroup) *syscall.ProcAttr {
	sys := &syscall.SysProcAttr{Setsid: true}
	if s.cfg.UID != os.Geteuid() || s.cfg.GID != os.Getegid() {
		sys.Credential = &syscall.Credential{Uid: uint32(s.cfg.UID), Gid: uint32(s.cfg.GID)} //nolint:gosec // small constants
	}
	if group != nil {
		sys.UseCgroupFD, sys.CgroupFD = true, int(group.fd.Fd()) //nolint:gosec // a descriptor
	}
	return &syscall.ProcAttr{Sys: sys}
}

// abandon gives back what a failed launch took.
func (s *Server) abandon(e *effect, p *plan, err error) error {
	p.cleanup()
	e.group.remove()
	return err
}

// attend follows a command to its end.
func (s *Server) attend(e *effect, req guest.ExecRequest, plan *plan, ended <-chan exitStatus, stdout, stderr *os.File) {
	var pumps sync.WaitGroup
	pumps.Go(func() { pump(e.spool, guest.Stdout, stdout) })
	pumps.Go(func() { pump(e.spool, guest.Stderr, stderr) })

	limit := time.NewTimer(req.TimeLimit)
	defer limit.Stop()
	var st exitStatus
	select {
	case st = <-ended:
	case <-limit.C:
		st = e.expire(ended)
	}
	// What the command left running ends with it. A server that must live on is
	// a command of its own.
	e.mu.Lock()
	pid := e.pid
	e.pid = 0
	e.mu.Unlock()
	e.group.kill()
	if e.group == nil {
		_ = syscall.Kill(-pid, syscall.SIGKILL)
	}
	drained := make(chan struct{})
	go func() { pumps.Wait(); close(drained) }()
	select {
	case <-drained:
	case <-time.After(drainGrace):
	}
	_ = stdout.Close()
	_ = stderr.Close()
	<-drained
	plan.cleanup()
	s.conclude(e, st, req)
	e.group.remove()
}

// expire ends a command at its time limit: politely first.
func (e *effect) expire(ended <-chan exitStatus) exitStatus {
	e.mu.Lock()
	e.timedOut = true
	pid := e.pid
	e.mu.Unlock()
	for _, p := range e.group.pids() {
		_ = syscall.Kill(p, syscall.SIGTERM)
	}
	_ = syscall.Kill(-pid, syscall.SIGTERM)
	select {
	case st := <-ended:
		return st
	case <-time.After(termGrace):
	}
	e.group.kill()
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	return <-ended
}

// kill ends the whole tree of a command.
func (e *effect) kill() {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.pid == 0 && e.spawned {
		return // it has ended already
	}
	e.killed = true
	if !e.spawned {
		return // run looks again once it has started
	}
	e.group.kill()
	_ = syscall.Kill(-e.pid, syscall.SIGKILL)
}

// pump reads one stream until every writer is gone.
func pump(sp *spool, stream guest.Stream, f *os.File) {
	buf := make([]byte, 32<<10)
	for {
		n, err := f.Read(buf)
		sp.add(stream, buf[:n])
		if err != nil {
			return
		}
	}
}

// conclude makes the result and lets everybody who waits see it.
func (s *Server) conclude(e *effect, st exitStatus, req guest.ExecRequest) {
	e.spool.finish()
	state := e.spool.state()
	use := e.group.usage()
	res := &guest.ExecResult{
		EffectKey:        e.key,
		StdoutBytes:      state.stdout,
		StderrBytes:      state.stderr,
		Dropped:          state.dropped,
		StartedAt:        e.started,
		Duration:         time.Since(e.started),
		CPU:              use.cpu,
		PeakMemory:       use.peak,
		OutOfMemory:      use.oom,
		ProcessesRefused: use.pidsRefused,
	}
	if res.CPU == 0 {
		res.CPU = time.Duration(st.usage.Utime.Nano() + st.usage.Stime.Nano())
	}
	switch {
	case st.status.Signaled():
		res.ExitCode = 128 + int(st.status.Signal())
		res.Signal = unix.SignalName(st.status.Signal())
	default:
		res.ExitCode = st.status.ExitStatus()
	}
	if state.stdout+state.stderr > req.OutputLimit {
		res.OutputPath = s.keepAsFile(e)
	}
	e.mu.Lock()
	res.TimedOut, res.Killed = e.timedOut, e.killed
	e.result = res
	e.mu.Unlock()
	close(e.done)
	s.effects.finished()
}

// keepAsFile copies long output to where the agent can read it as a file, and
// where it is saved with the working directory. Best effort: the disk may be
// full, and ReadOutput still has it then.
func (s *Server) keepAsFile(e *effect) string {
	name := guest.OutputDir + "/" + e.key + ".txt"
	if err := s.makeParents(name); err != nil {
		return ""
	}
	err := s.replaceFile(name, 0o644, false, func(w io.Writer) error {
		if err := e.spool.copyText(w, 0, guest.MaxKeepLimit); err != nil {
			return err
		}
		if d := e.spool.state().dropped; d > 0 {
			_, err := fmt.Fprintf(w, "\n[ambit: the output went on for %d bytes more, which were not kept]\n", d)
			return err
		}
		return nil
	})
	if err != nil {
		s.log.Warn("long output was not kept as a file", "effect", e.key, "error", err)
		return ""
	}
	return name
}

// pollable wraps the reading end of a pipe, so that closing it ends a read.
func pollable(fd int, name string) *os.File {
	_ = unix.SetNonblock(fd, true)
	return os.NewFile(uintptr(fd), name) //nolint:gosec // a descriptor
}

func closeFDs(fds ...int) {
	for _, fd := range fds {
		_ = unix.Close(fd)
	}
}
