package agent

import (
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// exitStatus is how a process ended.
type exitStatus struct {
	status syscall.WaitStatus
	usage  syscall.Rusage
}

// spawner starts processes from one thread that has no_new_privs set, and reaps
// them. As PID 1 it reaps every orphan too, which os/exec cannot do: it would
// find its own children taken away.
type spawner struct {
	init bool

	mu      sync.Mutex
	waiting map[int]chan exitStatus

	jobs chan func()
	stop chan struct{}
	sig  chan os.Signal
	wg   sync.WaitGroup
}

func newSpawner(init bool) (*spawner, error) {
	sp := &spawner{
		init:    init,
		waiting: map[int]chan exitStatus{},
		jobs:    make(chan func()),
		stop:    make(chan struct{}),
	}
	ready := make(chan error, 1)
	sp.wg.Go(func() { sp.thread(ready) })
	if err := <-ready; err != nil {
		sp.wg.Wait()
		return nil, err
	}
	if init {
		sp.sig = make(chan os.Signal, 16)
		signal.Notify(sp.sig, syscall.SIGCHLD)
		sp.wg.Go(sp.reapAll)
	}
	return sp, nil
}

func (sp *spawner) close() {
	close(sp.stop)
	if sp.sig != nil {
		signal.Stop(sp.sig)
	}
	sp.wg.Wait()
}

// thread owns an OS thread that is never given back: no_new_privs cannot be
// taken off again, and must not spread over the agent by accident.
func (sp *spawner) thread(ready chan<- error) {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		ready <- fmt.Errorf("set no_new_privs: %w", err)
		return
	}
	// The agent may run at a better priority than commands should.
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, 0)
	ready <- nil
	for {
		select {
		case job := <-sp.jobs:
			job()
		case <-sp.stop:
			return
		}
	}
}

// start runs a program. The channel gets its end, once.
func (sp *spawner) start(path string, argv []string, attr *syscall.ProcAttr) (pid int, ended <-chan exitStatus, err error) {
	ch := make(chan exitStatus, 1)
	finished := make(chan struct{})
	job := func() {
		defer close(finished)
		// Held across the fork: the child may end, and be reaped, before
		// it would stand in the map.
		sp.mu.Lock()
		defer sp.mu.Unlock()
		pid, _, err = syscall.StartProcess(path, argv, attr)
		if err == nil {
			sp.waiting[pid] = ch
		}
	}
	select {
	case sp.jobs <- job:
	case <-sp.stop:
		return 0, nil, os.ErrProcessDone
	}
	<-finished
	if err != nil {
		return 0, nil, err
	}
	if !sp.init {
		go sp.reapOne(pid)
	}
	return pid, ch, nil
}

// reapOne waits for one child, where somebody else is PID 1.
func (sp *spawner) reapOne(pid int) {
	var st exitStatus
	for {
		got, err := syscall.Wait4(pid, &st.status, 0, &st.usage)
		if err == syscall.EINTR { //nolint:errorlint // Wait4 returns bare errnos
			continue
		}
		if err == nil && got == pid {
			sp.deliver(pid, st)
		}
		return
	}
}

// reapAll waits for whatever ends, on each SIGCHLD. Signals coalesce, so each
// one is answered by reaping until nothing is left.
func (sp *spawner) reapAll() {
	for {
		for {
			var st exitStatus
			pid, err := syscall.Wait4(-1, &st.status, syscall.WNOHANG, &st.usage)
			if err == syscall.EINTR { //nolint:errorlint // Wait4 returns bare errnos
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
			sp.deliver(pid, st)
		}
		select {
		case <-sp.sig:
		case <-sp.stop:
			return
		}
	}
}

func (sp *spawner) deliver(pid int, st exitStatus) {
	sp.mu.Lock()
	ch := sp.waiting[pid]
	delete(sp.waiting, pid)
	sp.mu.Unlock()
	if ch != nil {
		ch <- st
	}
}
