// Package instance runs a whole Ambit for a test, as an operator would: the built binary, its own engines, its own data directory, on free
// ports. Nothing of it is simulated.
package instance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"ambit.dev/ambit/internal/app/server"
	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

// readyWithin is how long a start may take: a first one builds the sandboxes' template.
const readyWithin = 4 * time.Minute

// Instance is a running Ambit.
type Instance struct {
	// URL is that of the API and the console.
	URL string
	// Config is what it was started with, the engines' addresses filled in.
	Config config.Config

	t    testing.TB
	cmd  *exec.Cmd
	log  *logFile
	done chan error
}

// Start starts an Ambit with further environment variables ("AMBIT_…=…"), and stops it when the test ends. The test fails if it does not
// become ready, or leaves a process behind.
func Start(t testing.TB, env ...string) *Instance {
	t.Helper()
	i := &Instance{t: t}
	dir, err := os.MkdirTemp("", "ambit-test-") // a short path: unix sockets lie below it
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755)) //nolint:gosec // Postgres runs as another user below it
	listen, node := freeAddress(t), freeAddress(t)
	vars := append([]string{"AMBIT_DATA_DIR=" + filepath.Join(dir, "data"), "AMBIT_LISTEN=" + listen, "AMBIT_NODE_LISTEN=" + node, "AMBIT_LOG_LEVEL=INFO", "AMBIT_RATE_LIMIT=1000000"}, env...)
	i.Config, err = config.LoadFrom(environ(vars))
	require.NoError(t, err)
	i.URL = i.Config.PublicURL.Reveal()
	i.log = &logFile{path: filepath.Join(dir, "ambit.log")}
	i.launch(t, vars)
	t.Cleanup(func() {
		i.Stop()
		if t.Failed() {
			t.Logf("the instance's log:\n%s", tail(i.log.path, 12_000))
		}
		_ = os.RemoveAll(dir)
	})
	return i
}

func (i *Instance) launch(t testing.TB, vars []string) {
	t.Helper()
	binary := Build(t)
	before := len(i.logged())
	out, err := os.OpenFile(i.log.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	require.NoError(t, err)
	i.cmd = exec.Command(binary, "up", "--no-demonstration") //nolint:noctx // stopped by Stop, gracefully
	i.cmd.Env = append(os.Environ(), vars...)
	i.cmd.Stdout, i.cmd.Stderr = out, out
	i.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	require.NoError(t, i.cmd.Start())
	i.done = make(chan error, 1)
	go func() {
		i.done <- i.cmd.Wait()
		_ = out.Close()
	}()
	deadline := time.Now().Add(readyWithin)
	// Not only the server: "ambit up" must know that it is ready, or it takes a server that a test kills for one that never started.
	for !i.ready() || !strings.Contains(i.logged()[before:], "Stop     Ctrl-C") {
		select {
		case err := <-i.done:
			t.Fatalf("the instance ended during its start: %v\n%s", err, tail(i.log.path, 12_000))
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("the instance is not ready after %s\n%s", readyWithin, tail(i.log.path, 12_000))
		}
	}
	running, ok := up.Running(i.Config)
	require.True(t, ok)
	i.Config = running
}

func (i *Instance) ready() bool {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, i.URL+"/readyz", http.NoBody)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// Stop stops it as Ctrl-C does, and returns how long that took. Stopping twice is harmless.
func (i *Instance) Stop() time.Duration {
	if i.cmd == nil {
		return 0
	}
	began := time.Now()
	_ = i.cmd.Process.Signal(syscall.SIGINT) //nolint:errcheck // it may have ended
	select {
	case <-i.done: //nolint:errcheck // how it ended is in its log
	case <-time.After(30 * time.Second):
		_ = syscall.Kill(-i.cmd.Process.Pid, syscall.SIGKILL)
		<-i.done //nolint:errcheck // it was killed
		i.t.Errorf("the instance did not stop within 30 s")
	}
	i.cmd = nil
	if left := i.Processes(""); len(left) > 0 {
		i.t.Errorf("processes were left behind: %v", left)
	}
	return time.Since(began)
}

// Restart starts it again on the same data directory, after Stop.
func (i *Instance) Restart(env ...string) {
	i.launch(i.t, append([]string{
		"AMBIT_DATA_DIR=" + i.Config.DataDir, "AMBIT_LISTEN=" + i.Config.Listen, "AMBIT_NODE_LISTEN=" + i.Config.NodeListen, "AMBIT_RATE_LIMIT=1000000",
	}, env...))
}

// Process is one process that belongs to an instance.
type Process struct {
	PID     int
	Command string
}

// Processes lists the processes of this instance whose command line holds the given text, its own parent process left out.
func (i *Instance) Processes(text string) []Process {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	var found []Process
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() || (i.cmd != nil && pid == i.cmd.Process.Pid) {
			continue
		}
		environment, err := os.ReadFile(filepath.Join("/proc", e.Name(), "environ"))
		if err != nil || len(environment) == 0 {
			continue
		}
		raw, err := os.ReadFile(filepath.Join("/proc", e.Name(), "cmdline"))
		if err != nil {
			continue
		}
		command := strings.TrimSpace(strings.ReplaceAll(string(raw), "\x00", " "))
		ours := bytes.Contains(environment, []byte(i.Config.DataDir)) || strings.Contains(command, i.Config.DataDir)
		if ours && strings.Contains(command, text) {
			found = append(found, Process{PID: pid, Command: command})
		}
	}
	return found
}

// Kill sends SIGKILL to the instance's processes whose command line holds the text, and fails the test when there is none.
func (i *Instance) Kill(text string) {
	i.t.Helper()
	found := i.Processes(text)
	require.NotEmpty(i.t, found, "no process has %q in its command line", text)
	for _, p := range found {
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
}

// Log is what the instance has logged so far.
func (i *Instance) Log() string { return i.logged() }

func (i *Instance) logged() string {
	b, err := os.ReadFile(i.log.path)
	if err != nil {
		return ""
	}
	return string(b)
}

type logFile struct{ path string }

// Account is an organisation of its own with an API key that may do everything.
type Account struct {
	*Instance

	Email, Password string
	Org             id.Org
	OrgSlug         string
	Project         id.Project
	ProjectSlug     string
	Key             string
}

// Account makes an organisation.
func (i *Instance) Account(name string) *Account {
	i.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	cfg, ok := up.Running(i.Config)
	require.True(i.t, ok)
	d, closing, err := server.OpenTenants(ctx, cfg, server.NewLogger(cfg, io.Discard))
	require.NoError(i.t, err)
	defer closing()
	a := &Account{Instance: i, Email: name + "@example.test", Password: "correct horse battery staple " + name}
	made, err := d.Tenants.CreateAccount(ctx, tenants.SignUp{Email: a.Email, Password: a.Password, Name: name, OrganizationName: name})
	require.NoError(i.t, err)
	a.Org, a.OrgSlug, a.Project, a.ProjectSlug = made.Organization.ID, made.Organization.Slug, made.Project.ID, made.Project.Slug
	by := principal.Principal{Kind: principal.User, ID: string(made.User.ID), Org: a.Org, Project: a.Project, Role: string(tenants.RoleOwner)}
	require.NoError(i.t, d.DB.InTx(ctx, a.Org, func(tx pgx.Tx) (err error) {
		_, a.Key, err = d.Tenants.CreateKeyTx(ctx, tx, by, tenants.CreateKey{Name: "test", Project: a.Project, Scopes: []string{"*"}})
		return err
	}))
	return a
}

// Call makes an API request and decodes the answer; it returns the status.
func (a *Account) Call(method, path string, in, out any) int {
	a.t.Helper()
	status, body := a.Raw(method, path, in)
	if out != nil {
		require.NoError(a.t, json.Unmarshal(body, out), "%s %s answered %d: %s", method, path, status, body)
	}
	return status
}

// Raw makes an API request and returns the status and the body.
func (a *Account) Raw(method, path string, in any) (int, []byte) {
	a.t.Helper()
	status, body, err := a.Try(method, path, in)
	require.NoError(a.t, err)
	return status, body
}

// Try is Raw for a server that may be down at the moment.
func (a *Account) Try(method, path string, in any) (int, []byte, error) {
	var body io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return 0, nil, err
		}
		body = bytes.NewReader(b)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, a.URL+path, body)
	if err != nil {
		return 0, nil, err
	}
	req.Header.Set("Authorization", "Bearer "+a.Key)
	if in != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close() //nolint:errcheck // read to its end
	answer, err := io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

var build struct {
	once   sync.Once
	binary string
	err    error
}

// Build builds the three programs, without cgo and without the race detector, as they are shipped, and returns the path of ambit.
func Build(t testing.TB) string {
	t.Helper()
	build.once.Do(func() { build.binary, build.err = buildAll() })
	require.NoError(t, build.err)
	return build.binary
}

// BuildWithFailpoints builds ambit once more, with places where a proof can kill it, and returns its path.
func BuildWithFailpoints(t testing.TB) string {
	t.Helper()
	plain := Build(t)
	dir := filepath.Join(filepath.Dir(plain), "failpoints")
	require.NoError(t, os.MkdirAll(dir, 0o755))                                                                        //nolint:gosec // as its neighbour
	cmd := exec.Command("go", "build", "-trimpath", "-tags", "failpoints", "-o", dir+"/", "ambit.dev/ambit/cmd/ambit") //nolint:noctx // as long as it takes
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	return filepath.Join(dir, "ambit")
}

func buildAll() (string, error) {
	root, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}").Output() //nolint:noctx // short
	if err != nil {
		return "", fmt.Errorf("find the module's root: %w", err)
	}
	dir := filepath.Join(config.CacheDir(), "test-bin")
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // sandboxes run the guest from it as another user
		return "", err
	}
	// Several test binaries build at once; the second finds the first one's work in Go's own cache.
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", err
	}
	defer lock.Close() //nolint:errcheck // frees the lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", err
	}
	cmd := exec.Command("go", "build", "-trimpath", "-o", dir+"/", "./cmd/ambit", "./cmd/ambit-node", "./cmd/ambit-guest") //nolint:noctx // as long as it takes
	cmd.Dir = strings.TrimSpace(string(root))
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build the programs: %w\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 40*time.Minute)
	defer cancel()
	if _, err := engines.Require(ctx, engines.ForRunning()...); err != nil {
		return "", err
	}
	return filepath.Join(dir, "ambit"), nil
}

func freeAddress(t testing.TB) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // loopback
	require.NoError(t, err)
	defer l.Close() //nolint:errcheck // only its number was wanted
	return l.Addr().String()
}

func environ(vars []string) map[string]string {
	m := map[string]string{}
	for _, kv := range append(os.Environ(), vars...) {
		name, value, _ := strings.Cut(kv, "=")
		m[name] = value
	}
	return m
}

func tail(path string, n int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	if len(b) > n {
		b = b[len(b)-n:]
	}
	return string(b)
}

// Serve runs a further process of the given role on this instance's engines, as a replica, and returns its URL. It ends with the test.
func (i *Instance) Serve(role string) string {
	i.t.Helper()
	r := i.Replica(role, Build(i.t))
	i.t.Cleanup(func() {
		if err := r.Stop(); err != nil {
			i.t.Errorf("the %s process did not stop cleanly: %v\n%s", role, err, r.Log())
		}
	})
	return r.URL
}

// Replica is a further process on an instance's engines.
type Replica struct {
	URL string

	cmd  *exec.Cmd
	log  bytes.Buffer
	done chan struct{}
	err  error
}

// Done is closed when the process has ended.
func (r *Replica) Done() <-chan struct{} { return r.done }

// Log is what the process has written; only once it has ended.
func (r *Replica) Log() string {
	<-r.done
	return r.log.String()
}

// Stop stops the process as an operator would, unless it has ended, and says how it ended.
func (r *Replica) Stop() error {
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	<-r.done
	return r.err
}

// Replica runs a further process of the given role from the given binary, with further environment variables, and waits until it is ready.
func (i *Instance) Replica(role, binary string, env ...string) *Replica {
	i.t.Helper()
	cfg := i.Config
	cfg.Listen, cfg.NodeListen = freeAddress(i.t), freeAddress(i.t)
	cfg.PublicURL, cfg.NodeURL = config.Address("http://"+cfg.Listen), config.Address("http://"+cfg.NodeListen)
	programs := filepath.Dir(Build(i.t))
	cfg.NodeBinary, cfg.GuestBinary = filepath.Join(programs, "ambit-node"), filepath.Join(programs, "ambit-guest")
	r := &Replica{URL: cfg.PublicURL.Reveal(), done: make(chan struct{})}
	r.cmd = exec.Command(binary, "serve", "--role", role) //nolint:noctx // ended by Stop
	r.cmd.Env = append(append(os.Environ(), cfg.Environ()...), env...)
	r.cmd.Stdout, r.cmd.Stderr = &r.log, &r.log
	require.NoError(i.t, r.cmd.Start())
	go func() {
		r.err = r.cmd.Wait()
		close(r.done)
	}()
	probe := &Instance{t: i.t, URL: r.URL}
	deadline := time.Now().Add(time.Minute)
	for !probe.ready() {
		select {
		case <-r.done:
			i.t.Fatalf("the %s process ended during its start: %v\n%s", role, r.err, r.Log())
		case <-time.After(100 * time.Millisecond):
		}
		require.True(i.t, time.Now().Before(deadline), "the %s process is not ready", role)
	}
	return r
}
