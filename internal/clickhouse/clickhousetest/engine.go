package clickhousetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/config"
)

const (
	enginePackage = "ambit.dev/ambit/internal/clickhouse/embedded/testdata/engine"

	startTimeout = 60 * time.Second
	// prepareTimeout has room for a download of the library, on the first run.
	prepareTimeout = 9 * time.Minute
)

// Engine is one process of the embedded engine.
type Engine struct {
	// Socket is where it serves.
	Socket string

	dir   string
	bin   string
	lib   string
	extra []string

	cmd    *exec.Cmd
	parent io.Closer // the end of the pipe whose closing ends the process
	log    string
}

// NewEngine makes an engine that belongs to the test alone, which may kill and
// start it as it likes. It runs when NewEngine returns, and is stopped and
// removed at the test's end.
func NewEngine(t testing.TB, extraFlags ...string) *Engine {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), prepareTimeout)
	defer cancel()
	e, err := newEngine(ctx, extraFlags)
	require.NoError(t, err)
	t.Cleanup(func() {
		_ = e.Kill()
		_ = os.RemoveAll(e.dir)
	})
	require.NoError(t, e.Start(ctx))
	return e
}

func newEngine(ctx context.Context, extraFlags []string) (*Engine, error) {
	lib, err := library(ctx)
	if err != nil {
		return nil, err
	}
	bin, err := build(ctx, enginePackage)
	if err != nil {
		return nil, err
	}
	// Not t.TempDir: its path may be too long for a unix socket.
	dir, err := os.MkdirTemp("", "ambit-ch-")
	if err != nil {
		return nil, err
	}
	return &Engine{
		Socket: filepath.Join(dir, "ch.sock"),
		dir:    dir, bin: bin, lib: lib, extra: extraFlags,
		log: filepath.Join(dir, "engine.log"),
	}, nil
}

// Start starts the process and waits until it answers.
func (e *Engine) Start(ctx context.Context) error {
	log, err := os.OpenFile(e.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() //nolint:errcheck // the child has its own descriptor
	// Should this process be killed, the pipe ends and the engine with it.
	child, parent, err := os.Pipe()
	if err != nil {
		return err
	}
	defer child.Close() //nolint:errcheck // see above
	args := append([]string{
		"--lib", e.lib, "--data", e.dir, "--socket", e.Socket, "--parent-pipe",
	}, e.extra...)
	// Not CommandContext: it outlives the start's deadline.
	e.cmd = exec.Command(e.bin, args...) //nolint:noctx // see above
	e.cmd.Stdin, e.cmd.Stderr = child, log
	// A zone that is not UTC: nothing may depend on the server's.
	e.cmd.Env = append(os.Environ(), "TZ=America/St_Johns")
	if err := e.cmd.Start(); err != nil {
		_ = parent.Close()
		return fmt.Errorf("start the ClickHouse engine: %w", err)
	}
	e.parent = parent
	if err := e.waitReady(ctx); err != nil {
		said, _ := os.ReadFile(e.log)
		_ = e.Kill()
		return fmt.Errorf("%w; it said: %s", err, bytes.TrimSpace(said))
	}
	return nil
}

func (e *Engine) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", e.Socket)
		},
	}}
	for {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/ping", nil)
		if err != nil {
			return err
		}
		if resp, err := client.Do(req); err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if e.exited() {
			return errors.New("the ClickHouse engine ended at its start")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for the ClickHouse engine: %w", ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// exited looks without waiting and without reaping, which Wait does.
func (e *Engine) exited() bool {
	stat, err := os.ReadFile("/proc/" + strconv.Itoa(e.cmd.Process.Pid) + "/stat")
	if err != nil {
		return true
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	return strings.HasPrefix(after, "Z")
}

// Second starts another process on the same data, and returns the error that it
// ended with; nil would mean that it was let in.
func (e *Engine) Second(ctx context.Context) error {
	cmd := exec.CommandContext(ctx, e.bin, "--lib", e.lib, "--data", e.dir, "--socket", e.Socket+"2")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(out))
	}
	return nil
}

// PID is the process id of the running engine.
func (e *Engine) PID() int { return e.cmd.Process.Pid }

// Log is what the engine has written so far.
func (e *Engine) Log() string {
	b, _ := os.ReadFile(e.log)
	return string(b)
}

// Kill ends the process at once, as a crash would. The data stays.
func (e *Engine) Kill() error {
	return e.end(syscall.SIGKILL)
}

// Stop asks the process to end and waits for it. It fails when its exit status
// is not 0.
func (e *Engine) Stop() error {
	return e.end(syscall.SIGTERM)
}

func (e *Engine) end(sig syscall.Signal) error {
	if e.cmd == nil {
		return nil
	}
	_ = e.cmd.Process.Signal(sig)
	err := e.cmd.Wait()
	_ = e.parent.Close()
	e.cmd = nil
	return err
}

// Build makes a program of the given package and returns its path. It is built
// like the engine's process: without cgo and without the race detector, as in
// production, whatever the test itself was built with.
func Build(t testing.TB, pkg string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	bin, err := build(ctx, pkg)
	require.NoError(t, err)
	return bin
}

func build(ctx context.Context, pkg string) (string, error) {
	dir := filepath.Join(config.CacheDir(), "test-clickhouse")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // a binary for everybody
		return "", err
	}
	lock, err := os.OpenFile(filepath.Join(dir, "build.lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close() //nolint:errcheck // closing frees the lock
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX); err != nil {
		return "", fmt.Errorf("wait for another build of the ClickHouse engine's process: %w", err)
	}
	bin := filepath.Join(dir, path.Base(pkg))
	cmd := exec.CommandContext(ctx, "go", "build", "-o", bin, pkg) //nolint:gosec // packages of this module
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the ClickHouse engine's process: %w\n%s", err, out)
	}
	return bin, nil
}

var shared struct {
	sync.Mutex

	engine *Engine
	err    error
}

// sharedEngine is the one that the tests of this binary have in common. It ends
// and removes its data when the binary ends.
func sharedEngine(t testing.TB) *Engine {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.engine == nil && shared.err == nil {
		ctx, cancel := context.WithTimeout(context.Background(), prepareTimeout)
		defer cancel()
		shared.engine, shared.err = newEngine(ctx, []string{"--ephemeral"})
		if shared.err == nil {
			shared.err = shared.engine.Start(ctx)
		}
	}
	require.NoError(t, shared.err)
	return shared.engine
}
