package qemu

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ambit.dev/ambit/sandbox/driver"
)

// process is a running QEMU and its monitor.
type process struct {
	runDir string
	mon    *monitor
	pid    int
	ooms   *oomCounter

	console *tail // the guest's console
	stderr  *tail

	mu       sync.Mutex
	killed   bool
	shutdown string // reason of the SHUTDOWN event
	broken   string // why the guest can no longer run
	exit     driver.Exit

	done chan struct{}
	// stopped gets a token whenever the guest stopped without our asking.
	stopped chan struct{}
	// migrated gets the status of a finished migration.
	migrated chan string
}

// channelSocket is the name of the guest's channel in a machine's directory.
const channelSocket = "guest.sock"

// launch starts QEMU and connects to its monitor. files begin with what stands
// at fdMemory. The caller's context bounds the start, not the process.
func (d *Driver) launch(ctx context.Context, runDir string, args []string, files []*os.File) (*process, error) {
	if err := os.MkdirAll(runDir, 0o750); err != nil {
		return nil, fmt.Errorf("make the machine's directory: %w", err)
	}
	listener, err := listenChannel(runDir)
	if err != nil {
		return nil, err
	}
	defer listener.Close() //nolint:errcheck // QEMU has its own
	ours, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close() //nolint:errcheck // QEMU has its own

	p := &process{
		runDir: runDir, console: &tail{}, stderr: &tail{},
		done: make(chan struct{}), stopped: make(chan struct{}, 1), migrated: make(chan string, 1),
	}
	cmd := exec.Command(d.binary, args...) //nolint:noctx // a machine outlives the request that started it; it is stopped by its process
	cmd.ExtraFiles = append([]*os.File{theirs, listener}, files...)
	cmd.Stdout, cmd.Stderr = p.console, p.stderr
	cmd.Env = []string{"PATH=/usr/bin:/bin", "LANG=C"}
	cmd.Dir = "/"
	started, ended := make(chan error, 1), make(chan error, 1)
	go d.own(cmd, runDir, started, ended)
	if err := <-started; err != nil {
		_ = ours.Close()
		return nil, fmt.Errorf("start QEMU: %w", err)
	}
	// Ours must not keep its end open: it is how a QEMU that ends before it has said a word is noticed.
	_ = theirs.Close()
	p.pid = cmd.Process.Pid
	p.ooms = newOOMCounter(p.pid)
	go func() {
		p.conclude(<-ended)
		close(p.done)
	}()
	mon, err := newMonitor(ctx, ours, p.event)
	if err != nil {
		p.kill()
		<-p.done
		if errors.Is(err, errMonitorGone) {
			return nil, fmt.Errorf("QEMU did not start: %s", p.lastWords())
		}
		return nil, err
	}
	p.mu.Lock()
	p.mon = mon
	p.mu.Unlock()
	return p, nil
}

// own starts the process on a thread of its own and stays on it until the
// process is gone: the kernel sends the death signal when that very thread
// ends, and the thread's namespaces are not those of the rest of the program.
func (d *Driver) own(cmd *exec.Cmd, runDir string, started, ended chan<- error) {
	runtime.LockOSThread() // never unlocked: the thread ends with this goroutine
	cmd.SysProcAttr = d.attributes()
	if os.Geteuid() == 0 {
		switch err := enterJail(runDir); {
		case errors.Is(err, errNoNamespaces):
			d.warnOnce.Do(func() { d.log.Warn("QEMU runs without namespaces of its own", "reason", err) })
			cmd.SysProcAttr.Cloneflags = 0
		case err != nil:
			started <- err
			return
		}
	}
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	started <- nil
	ended <- cmd.Wait()
}

// attributes are how the process is locked in. A machine must not outlive who
// answers for it.
func (d *Driver) attributes() *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		return attr
	}
	attr.Credential = &syscall.Credential{Uid: uint32(d.cfg.UID), Gid: uint32(d.cfg.GID)} //nolint:gosec // checked by the kernel
	if gid, ok := kvmGroup(); ok {
		attr.Credential.Groups = []uint32{gid}
	}
	attr.Cloneflags = syscall.CLONE_NEWNET | syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS | syscall.CLONE_NEWPID
	return attr
}

// kvmGroup is the group that may open /dev/kvm.
func kvmGroup() (uint32, bool) {
	var st unix.Stat_t
	if err := unix.Stat("/dev/kvm", &st); err != nil {
		return 0, false
	}
	return st.Gid, st.Gid != 0
}

// listenChannel makes the socket that QEMU will serve the channel on. It listens
// before QEMU exists, so nobody has to wait for it to appear.
func listenChannel(runDir string) (*os.File, error) {
	path := filepath.Join(runDir, channelSocket)
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("make the guest's channel: %w", err)
	}
	var file *os.File
	err := shortPath(runDir, channelSocket, func(short string) error {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: short, Net: "unix"})
		if err != nil {
			return err
		}
		l.SetUnlinkOnClose(false)
		defer l.Close() //nolint:errcheck // the duplicate stays
		file, err = l.File()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("make the guest's channel: %w", err)
	}
	return file, nil
}

// shortPath gives fn a path of name in dir that fits into a socket address,
// which ends at 107 bytes, however long dir is.
func shortPath(dir, name string, fn func(string) error) error {
	if path := filepath.Join(dir, name); len(path) < 100 {
		return fn(path)
	}
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // a directory
	return fn(fmt.Sprintf("/proc/self/fd/%d/%s", f.Fd(), name))
}

func socketPair() (*net.UnixConn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("make the monitor's channel: %w", err)
	}
	mine, theirs := os.NewFile(uintptr(fds[0]), "monitor"), os.NewFile(uintptr(fds[1]), "monitor")
	defer mine.Close() //nolint:errcheck // FileConn duplicates it
	c, err := net.FileConn(mine)
	if err != nil {
		_ = theirs.Close()
		return nil, nil, fmt.Errorf("make the monitor's channel: %w", err)
	}
	return c.(*net.UnixConn), theirs, nil //nolint:forcetypeassert // made as one above
}

// kill ends the process at once.
func (p *process) kill() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		return
	default:
	}
	p.killed = true
	if p.pid > 0 {
		_ = syscall.Kill(p.pid, syscall.SIGKILL)
	}
}

// event takes note of what QEMU reports.
func (p *process) event(ev monitorEvent) {
	switch ev.Name {
	case "SHUTDOWN":
		p.mu.Lock()
		p.shutdown = stringField(ev.Data, "reason")
		p.mu.Unlock()
	case "STOP":
		select {
		case p.stopped <- struct{}{}:
		default:
		}
	case "MIGRATION":
		switch s := stringField(ev.Data, "status"); s {
		case "completed", "failed", "cancelled":
			select {
			case p.migrated <- s:
			default:
			}
		}
	}
}

// lastWords is the end of what QEMU and the guest's console said.
func (p *process) lastWords() string {
	var parts []string
	if s := p.stderr.String(); s != "" {
		parts = append(parts, "QEMU: "+s)
	}
	if s := p.console.String(); s != "" {
		parts = append(parts, "console: "+s)
	}
	if len(parts) == 0 {
		return "it said nothing"
	}
	return strings.Join(parts, "; ")
}

// tail keeps the end of what is written to it.
type tail struct {
	mu sync.Mutex
	b  []byte
}

const tailBytes = 8 << 10

// Write implements io.Writer.
func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.b = append(t.b, p...)
	if len(t.b) > 2*tailBytes {
		t.b = append(t.b[:0], t.b[len(t.b)-tailBytes:]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.TrimSpace(string(t.b))
}

// waitOr waits for a channel, the end of the process, or the context.
func (p *process) waitOr(ctx context.Context, what string, ch <-chan string) (string, error) {
	select {
	case s := <-ch:
		return s, nil
	case <-p.done:
		return "", fmt.Errorf("%s: %w: %s", what, driver.ErrMachineEnded, p.lastWords())
	case <-ctx.Done():
		return "", fmt.Errorf("%s: %w", what, context.Cause(ctx))
	}
}

// endGrace is how long a monitor may take to say why a process ended.
const endGrace = 200 * time.Millisecond
