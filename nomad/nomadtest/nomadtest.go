// Package nomadtest starts real Nomad agents for tests, on ports and in folders
// of their own. It owns nothing else and is imported by tests only.
package nomadtest

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/internal/processes"
	"ambit.dev/ambit/nomad"
)

// Agent is a running agent: server and client in one process.
type Agent struct {
	// Address is its HTTP address.
	Address string

	t      testing.TB
	binary string
	dir    string
	args   []string
	mu     sync.Mutex
	cmd    *processes.Child
}

// Start starts an agent in development mode: ready within seconds, everything
// in memory, nothing left after the test.
func Start(t testing.TB) *Agent { return start(t, true) }

// StartDurable starts an agent that keeps its state in a folder, so that it can
// be killed and started again. A fresh one needs about half a minute.
func StartDurable(t testing.TB) *Agent { return start(t, false) }

func start(t testing.TB, dev bool) *Agent {
	t.Helper()
	// Not t.TempDir: removing it would fail on mounts that a killed agent left.
	dir, err := os.MkdirTemp("", "nomad-test-")
	require.NoError(t, err)
	a := &Agent{t: t, dir: dir, binary: binary(t)}
	ports := freePorts(t, 3)
	a.Address = fmt.Sprintf("http://127.0.0.1:%d", ports[0])
	conf := filepath.Join(dir, "agent.hcl")
	require.NoError(t, os.WriteFile(conf, fmt.Appendf(nil, agentConfig, ports[0], ports[1], ports[2], dir, ports[1]), 0o600))
	a.args = []string{"agent", "-config=" + conf}
	if dev {
		a.args = append(a.args, "-dev")
	}
	t.Cleanup(a.cleanUp)
	a.Run()
	return a
}

// Client makes a client for the agent and waits until jobs can be placed.
func (a *Agent) Client(log *slog.Logger) *nomad.Client {
	a.t.Helper()
	c, err := nomad.New(nomad.Config{Address: a.Address}, log)
	require.NoError(a.t, err)
	a.t.Cleanup(c.Close)
	a.AwaitReady(c)
	return c
}

// AwaitReady waits until jobs can be placed.
func (a *Agent) AwaitReady(c *nomad.Client) {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(a.t.Context(), 90*time.Second)
	defer cancel()
	if err := c.AwaitReady(ctx); err != nil {
		require.NoError(a.t, err, "the agent's last words:\n%s", a.lastWords())
	}
}

// Run starts the agent (again).
func (a *Agent) Run() {
	a.t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	cmd := exec.Command(a.binary, a.args...) //nolint:noctx // ended by Kill or the clean-up
	// A file, not a pipe: Nomad's helpers inherit it and may outlive the agent,
	// and waiting for the agent would be waiting for them.
	log, err := os.OpenFile(a.logPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	require.NoError(a.t, err)
	defer log.Close() //nolint:errcheck // the agent has its own
	cmd.Stdout, cmd.Stderr = log, log
	// A test that is killed takes its agent along.
	a.cmd, err = processes.Launch(cmd, syscall.SIGKILL)
	require.NoError(a.t, err)
}

// Kill kills the agent at once, as a crash would; its tasks live on.
func (a *Agent) Kill() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.cmd != nil {
		_ = a.cmd.Signal(syscall.SIGKILL)
		<-a.cmd.Done()
		a.cmd = nil
	}
}

func (a *Agent) logPath() string { return filepath.Join(a.dir, "agent.log") }

func (a *Agent) lastWords() string {
	b, err := os.ReadFile(a.logPath())
	if err != nil {
		return err.Error()
	}
	return string(b[max(0, len(b)-6000):])
}

func (a *Agent) cleanUp() {
	a.mu.Lock()
	cmd := a.cmd
	a.mu.Unlock()
	if cmd != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		if err := cmd.Stop(ctx, syscall.SIGINT); err != nil {
			a.t.Logf("stop the Nomad agent: %v", err)
		}
	}
	if a.t.Failed() {
		a.t.Logf("the agent's last words:\n%s", a.lastWords())
	}
	killBelow(a.dir)
	unmountBelow(a.dir)
	_ = os.RemoveAll(a.dir)
}

// killBelow ends what a durable agent's tasks left: their processes, helpers of
// Nomad included, name the agent's folder in their arguments or live in it.
func killBelow(dir string) {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	for _, p := range procs {
		line, _ := os.ReadFile(filepath.Join(p, "cmdline"))
		cwd, _ := os.Readlink(filepath.Join(p, "cwd"))
		if bytes.Contains(line, []byte(dir)) || strings.HasPrefix(cwd, dir) {
			var pid int
			if _, err := fmt.Sscanf(filepath.Base(p), "%d", &pid); err == nil && pid != os.Getpid() {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
	}
}

func unmountBelow(dir string) {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	var below []string
	for line := range strings.Lines(string(mounts)) {
		if f := strings.Fields(line); len(f) > 1 && strings.HasPrefix(f[1], dir+"/") {
			below = append(below, f[1])
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(below)))
	for _, m := range below {
		_ = syscall.Unmount(m, syscall.MNT_DETACH)
	}
}

func binary(t testing.TB) string {
	t.Helper()
	set, err := engines.Require(t.Context(), engines.Nomad)
	require.NoError(t, err)
	return set.Nomad
}

// freePorts finds ports that nobody listens on. All are held until all are found,
// so that they differ.
func freePorts(t testing.TB, n int) []int {
	t.Helper()
	var ports []int
	var held []net.Listener
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed at once
		require.NoError(t, err)
		held = append(held, l)
		ports = append(ports, l.Addr().(*net.TCPAddr).Port)
	}
	for _, l := range held {
		require.NoError(t, l.Close())
	}
	return ports
}

const agentConfig = `
bind_addr            = "127.0.0.1"
disable_update_check = true
leave_on_interrupt   = false
log_level            = "INFO"
ports { 
  http = %d
  rpc  = %d
  serf = %d
}
advertise {
  http = "127.0.0.1"
  rpc  = "127.0.0.1"
  serf = "127.0.0.1"
}
data_dir = "%s/data"
server {
  enabled          = true
  bootstrap_expect = 1
  raft_multiplier  = 1
}
client {
  enabled           = true
  servers           = ["127.0.0.1:%d"]
  network_interface = "lo"
  gc_max_allocs     = 500
  options = {
    "fingerprint.denylist" = "env_aws,env_gce,env_azure,env_digitalocean"
  }
}
consul {
  auto_advertise   = false
  server_auto_join = false
  client_auto_join = false
}
plugin "raw_exec" {
  config { enabled = true }
}
`
