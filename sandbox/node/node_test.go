package node

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/driver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// template is one whose files can be told apart.
func template(t *testing.T) *driver.Template {
	t.Helper()
	var files []*os.File
	for _, name := range []string{"memory", "state", "rootfs"} {
		path := filepath.Join(t.TempDir(), name)
		require.NoError(t, os.WriteFile(path, []byte("this is the "+name), 0o600))
		f, err := os.Open(path)
		require.NoError(t, err)
		files = append(files, f)
	}
	handles, err := driver.HandlesFromFiles(files)
	require.NoError(t, err)
	tpl := &driver.Template{Manifest: driver.Manifest{Key: "a-key", MemoryMiB: 256}, Handles: handles}
	t.Cleanup(func() { _ = tpl.Close() })
	return tpl
}

// serveHandover runs the service's side of the handover for one state.
func serveHandover(t *testing.T, state *templates) (socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "amb-node-")
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	socket = filepath.Join(dir, "node.sock")
	l, err := listenHandover(socket)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := l.AcceptUnix()
			if err != nil {
				return
			}
			handOver(ctx, conn, ServiceConfig{Environment: "default", Log: slog.New(slog.DiscardHandler)}, state)
		}
	}()
	t.Cleanup(func() { cancel(); _ = l.Close(); <-done })
	return socket
}

func TestATemplateIsHandedOverOnceItIsReady(t *testing.T) {
	tpl := template(t) // before the server, and so closed after it
	state := &templates{changed: make(chan struct{})}
	socket := serveHandover(t, state)
	info, err := os.Stat(socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())

	phases := make(chan string, 10)
	result := make(chan *driver.Template, 1)
	go func() {
		tpl, err := FetchTemplate(t.Context(), socket, "sbx_one", "default", func(phase string, _ float64) { phases <- phase })
		if err == nil {
			result <- tpl
		}
		close(result)
	}()
	<-phases
	state.update(func(r *bridge.NodeReport) { r.Phase = "boot" })
	require.Equal(t, "boot", <-phases)
	state.mu.Lock()
	state.ready = tpl
	state.mu.Unlock()
	state.update(func(r *bridge.NodeReport) { r.TemplateState = bridge.TemplateReady })

	got := <-result
	require.NotNil(t, got)
	defer got.Close() //nolint:errcheck // a test
	require.Equal(t, tpl.Manifest, got.Manifest)
	for i, want := range []string{"memory", "state", "rootfs"} {
		content, err := io.ReadAll(got.Handles.Files()[i])
		require.NoError(t, err)
		require.Equal(t, "this is the "+want, string(content))
	}
}

func TestAnUnknownEnvironmentIsRefusedAndAnAbsentServiceWaitedFor(t *testing.T) {
	socket := serveHandover(t, &templates{changed: make(chan struct{})})
	_, err := FetchTemplate(t.Context(), socket, "sbx_one", "other", nil)
	require.ErrorContains(t, err, `no template for environment "other"`)

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	_, err = FetchTemplate(ctx, socket+"-none", "sbx_one", "default", nil)
	require.ErrorIs(t, err, context.DeadlineExceeded)
}

func TestGarbageOnTheHandoverSocketEndsOnlyItsConnection(t *testing.T) {
	state := &templates{changed: make(chan struct{}), ready: template(t)}
	socket := serveHandover(t, state)
	for _, garbage := range []string{"", "{", "null", `{"environment":7}`} {
		c, err := net.Dial(network, socket) //nolint:noctx // a test
		require.NoError(t, err)
		_, _ = c.Write([]byte(garbage))
		require.NoError(t, c.Close())
	}
	tpl, err := FetchTemplate(t.Context(), socket, "sbx_one", "default", nil)
	require.NoError(t, err)
	require.NoError(t, tpl.Close())
}

func TestSweepEndsWhatAKilledAllocationLeft(t *testing.T) {
	root := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	alive, release, err := takeRunDir(root, "sbx_alive")
	require.NoError(t, err)
	defer release()
	require.NoError(t, os.MkdirAll(alive, 0o700))
	_, _, err = takeRunDir(root, "sbx_alive")
	require.ErrorContains(t, err, "another process has it")

	// An engine by its name, with the sandbox's id among its arguments.
	engine := filepath.Join(t.TempDir(), "qemu-stand-in")
	sleep, err := exec.LookPath("sleep")
	require.NoError(t, err)
	program, err := os.ReadFile(sleep)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(engine, program, 0o700)) //nolint:gosec // it must run
	left := exec.Command(engine, "600")                      //nolint:noctx // killed by the sweep
	left.Args = append([]string{"qemu guest=sbx_left"}, left.Args[1:]...)
	require.NoError(t, left.Start())
	other := exec.Command(sleep, "600") //nolint:noctx // killed below
	other.Args = append([]string{"sleep sbx_left"}, other.Args[1:]...)
	require.NoError(t, other.Start())

	require.NoError(t, os.MkdirAll(filepath.Join(root, "sbx_left"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(root, "sbx_left.lock"), nil, 0o600))
	require.NoError(t, Sweep(root, log))
	require.ErrorContains(t, left.Wait(), "killed")
	require.NoError(t, other.Process.Kill(), "no engine: it is left alone")
	require.Error(t, other.Wait())
	require.NoDirExists(t, filepath.Join(root, "sbx_left"))
	require.NoFileExists(t, filepath.Join(root, "sbx_left.lock"))
	require.DirExists(t, alive)
	require.NoError(t, Sweep(filepath.Join(root, "none"), log))
}
