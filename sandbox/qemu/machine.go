package qemu

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"sync"
	"time"

	"ambit.dev/ambit/sandbox/driver"
	"ambit.dev/ambit/sandbox/guest"
)

// startLimit bounds the load of a clone's state.
const startLimit = 30 * time.Second

var idPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)

// Start implements driver.Driver.
func (d *Driver) Start(ctx context.Context, spec driver.StartSpec) (driver.Machine, error) {
	if !idPattern.MatchString(spec.ID) {
		return nil, fmt.Errorf("start a machine: %q is no id", spec.ID)
	}
	m := spec.Manifest
	if m.Format != driver.ManifestFormat || m.Driver != Name || m.Machine != machineType {
		return nil, fmt.Errorf("start machine %s: %w: it is of driver %q, machine %q, format %d", spec.ID, driver.ErrTemplateStale, m.Driver, m.Machine, m.Format)
	}
	if v, err := d.version(ctx); err != nil {
		return nil, err
	} else if v != m.Version {
		return nil, fmt.Errorf("start machine %s: %w: made by QEMU %s, this is %s", spec.ID, driver.ErrTemplateStale, m.Version, v)
	}
	state, err := reopen(spec.Handles.State)
	if err != nil {
		return nil, err
	}
	defer state.Close() //nolint:errcheck // QEMU has its own
	ctx, cancel := context.WithTimeoutCause(ctx, startLimit, errors.New("the machine did not load in time"))
	defer cancel()

	sh := shape{m.Accelerator, m.CPUModel, m.MemoryMiB, m.VCPUs}
	args := append(sh.arguments(spec.ID, false), cloneArguments()...)
	p, err := d.launch(ctx, spec.RunDir, args, []*os.File{spec.Handles.Memory, spec.Handles.Rootfs, state})
	if err != nil {
		return nil, fmt.Errorf("start machine %s: %w", spec.ID, err)
	}
	mc := &machine{id: spec.ID, p: p, log: d.log.With("machine", spec.ID)}
	if err := mc.load(ctx); err == nil && !spec.Paused {
		err = mc.Resume(ctx)
		if err != nil {
			_ = mc.Close()
			return nil, fmt.Errorf("start machine %s: %w", spec.ID, err)
		}
	} else if err != nil {
		_ = mc.Close()
		return nil, fmt.Errorf("start machine %s: %w", spec.ID, err)
	}
	go mc.watch()
	return mc, nil
}

// machine implements driver.Machine.
type machine struct {
	id  string
	p   *process
	log *slog.Logger

	mu      sync.Mutex
	channel net.Conn // the last one opened

	closing sync.Once
	closed  error
}

// load restores the template's state. The memory is mapped already; only the
// devices' state is read.
func (m *machine) load(ctx context.Context) error {
	if err := ignoreShared(ctx, m.p.mon); err != nil {
		return err
	}
	uri := map[string]string{"uri": fmt.Sprintf("fd:%d", fdState)}
	if err := m.p.mon.execute(ctx, "migrate-incoming", uri, nil); err != nil {
		return err
	}
	status, err := m.p.waitOr(ctx, "load the machine's state", m.p.migrated)
	if err != nil {
		return err
	}
	if status != "completed" {
		return fmt.Errorf("load the machine's state: %s: %s", status, m.p.lastWords())
	}
	return nil
}

// ignoreShared leaves the memory, which lies in a file, out of the saved state,
// and has QEMU report the end of a migration as an event.
func ignoreShared(ctx context.Context, mon *monitor) error {
	return mon.execute(ctx, "migrate-set-capabilities", map[string]any{"capabilities": []map[string]any{
		{"capability": "x-ignore-shared", "state": true},
		{"capability": "events", "state": true},
	}}, nil)
}

// watch notices a guest that QEMU has stopped because it cannot go on: the
// process lives, and nothing in it runs any more.
func (m *machine) watch() {
	for {
		select {
		case <-m.p.stopped:
		case <-m.p.done:
			return
		}
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		status, err := m.p.status(ctx)
		cancel()
		if err == nil && status == "internal-error" {
			m.log.Error("QEMU can no longer run the guest", "status", status)
			m.p.markBroken("QEMU reports an internal error")
		}
	}
}

func (p *process) status(ctx context.Context) (string, error) {
	var st struct {
		Status string `json:"status"`
	}
	err := p.mon.execute(ctx, "query-status", nil, &st)
	return st.Status, err
}

// ID implements driver.Machine.
func (m *machine) ID() string { return m.id }

// PID implements driver.Machine.
func (m *machine) PID() int { return m.p.pid }

// Resume implements driver.Machine.
func (m *machine) Resume(ctx context.Context) error { return m.command(ctx, "cont") }

// Pause implements driver.Machine.
func (m *machine) Pause(ctx context.Context) error { return m.command(ctx, "stop") }

func (m *machine) command(ctx context.Context, name string) error {
	err := m.p.mon.execute(ctx, name, nil, nil)
	if errors.Is(err, errMonitorGone) {
		select {
		case <-m.p.done:
			return m.p.endedError()
		case <-time.After(time.Second):
		}
	}
	return err
}

// Channel implements driver.Machine.
func (m *machine) Channel(ctx context.Context) (net.Conn, error) {
	select {
	case <-m.p.done:
		return nil, m.p.endedError()
	default:
	}
	var conn net.Conn
	err := shortPath(m.p.runDir, channelSocket, func(path string) (err error) {
		var dialer net.Dialer
		conn, err = dialer.DialContext(ctx, "unix", path)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the channel to machine %s: %w", m.id, err)
	}
	// QEMU serves one connection, and keeps the next waiting until it ends.
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.channel != nil {
		_ = m.channel.Close()
	}
	m.channel = conn
	return conn, nil
}

// Guest implements driver.Machine.
func (m *machine) Guest(ctx context.Context) (*guest.Client, error) {
	// A machine that ends will never answer.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-m.p.done:
			cancel(m.p.endedError())
		case <-ended:
		}
	}()
	conn, err := m.Channel(ctx)
	if err != nil {
		return nil, err
	}
	c, err := guest.Dial(ctx, conn)
	if err == nil {
		return c, nil
	}
	// A broken channel is how a machine's end looks from here, a moment early.
	select {
	case <-m.p.done:
		err = m.p.endedError()
	case <-time.After(2 * endGrace):
	}
	return nil, fmt.Errorf("machine %s: %w", m.id, err)
}

// Done implements driver.Machine.
func (m *machine) Done() <-chan struct{} { return m.p.done }

// Exit implements driver.Machine.
func (m *machine) Exit() driver.Exit {
	select {
	case <-m.p.done:
	default:
		return driver.Exit{}
	}
	m.p.mu.Lock()
	defer m.p.mu.Unlock()
	return m.p.exit
}

// Kill implements driver.Machine.
func (m *machine) Kill(ctx context.Context) error {
	m.p.kill()
	select {
	case <-m.p.done:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("kill machine %s: %w", m.id, context.Cause(ctx))
	}
}

// Close implements driver.Machine.
func (m *machine) Close() error {
	m.closing.Do(func() {
		m.p.kill()
		<-m.p.done
		m.p.mon.close()
		m.closed = removeRunDir(m.p.runDir)
	})
	return m.closed
}

// removeRunDir removes what launch made, and the directory when nothing else is
// in it.
func removeRunDir(dir string) error {
	if err := os.Remove(filepath.Join(dir, channelSocket)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("remove the guest's channel: %w", err)
	}
	_ = os.Remove(dir)
	return nil
}
