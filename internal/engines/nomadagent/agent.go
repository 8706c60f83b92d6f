package nomadagent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ambit.dev/ambit/internal/processes"
)

// StopSignal ends the agent at once; its tasks live on, and a later agent finds
// them again.
const StopSignal = syscall.SIGINT

// firstStartWithin bounds the agent's first start.
const firstStartWithin = 90 * time.Second

// Agent is an agent of our own, prepared and perhaps running.
type Agent struct {
	binary string
	dir    string
	ports  ports
	token  string
	env    []string
}

type ports struct {
	HTTP int `json:"http"`
	RPC  int `json:"rpc"`
	Serf int `json:"serf"`
}

// Prepare makes the agent in dir when there is none yet, which takes a few
// seconds, and writes its configuration. env is the agent's environment, and
// through it that of every task. The caller makes sure that one process at a
// time prepares or runs a dir.
func Prepare(ctx context.Context, binary, dir string, env []string) (*Agent, error) {
	a := &Agent{binary: binary, dir: dir, env: env}
	// Allocations' folders lie below, and sandboxes do not run as root.
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // see above
		return nil, fmt.Errorf("making Nomad's folder: %w", err)
	}
	kept, err := a.loadPorts()
	if err != nil {
		return nil, err
	}
	if kept && a.portsFree(ctx) {
		if err := a.loadToken(); err == nil {
			return a, a.writeConfig()
		}
	}
	// Nothing yet, a first start that was cut off, or a port that another
	// program has taken: Nomad's own state names the ports, and holds nothing
	// that could not be made again, since the jobs come from Ambit.
	return a, a.makeAnew(ctx)
}

// Command returns a new command that runs the agent in the foreground, logging
// JSON lines to stdout.
func (a *Agent) Command() *exec.Cmd {
	cmd := exec.Command(a.binary, "agent", "-config", a.configPath()) //nolint:noctx // its life is the caller's
	cmd.Dir = a.dir
	cmd.Env = a.env
	return cmd
}

// URL is the agent's HTTP address.
func (a *Agent) URL() string {
	return "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(a.ports.HTTP))
}

// Token is the secret of its management token.
func (a *Agent) Token() string { return a.token }

// Dir is the agent's folder; mounts of allocations lie below.
func (a *Agent) Dir() string { return a.dir }

func (a *Agent) configPath() string { return filepath.Join(a.dir, "agent.json") }
func (a *Agent) portsPath() string  { return filepath.Join(a.dir, "ports.json") }
func (a *Agent) tokenPath() string  { return filepath.Join(a.dir, "token") }
func (a *Agent) dataPath() string   { return filepath.Join(a.dir, "data") }

func (a *Agent) loadPorts() (bool, error) {
	b, err := os.ReadFile(a.portsPath())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return json.Unmarshal(b, &a.ports) == nil && a.ports.HTTP > 0 && a.ports.RPC > 0 && a.ports.Serf > 0, nil
}

func (a *Agent) portsFree(ctx context.Context) bool {
	for _, p := range []int{a.ports.HTTP, a.ports.RPC, a.ports.Serf} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p)))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

func (a *Agent) loadToken() error {
	b, err := os.ReadFile(a.tokenPath())
	if err != nil {
		return err
	}
	a.token = strings.TrimSpace(string(b))
	if a.token == "" {
		return errors.New("the token's file is empty")
	}
	return nil
}

// makeAnew clears the state and runs the agent once. A client that starts
// together with a server that has no keyring yet is refused, and asks again only
// after 15 to 30 seconds; with the state that this first run leaves, the next
// start takes two.
func (a *Agent) makeAnew(ctx context.Context) error {
	if err := processes.UnmountBelow(a.dir); err != nil {
		return fmt.Errorf("clearing Nomad's mounts: %w", err)
	}
	for _, p := range []string{a.dataPath(), a.tokenPath(), a.portsPath()} {
		if err := os.RemoveAll(p); err != nil {
			return fmt.Errorf("clearing Nomad's state: %w", err)
		}
	}
	if err := a.choosePorts(ctx); err != nil {
		return err
	}
	a.token = newToken()
	if err := a.writeConfig(); err != nil {
		return err
	}
	log, err := processes.OpenLog(filepath.Join(a.dir, "first-start.log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := a.Command()
	cmd.Stdout, cmd.Stderr = log, log
	child, err := processes.Launch(cmd, syscall.SIGKILL)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, firstStartWithin)
	defer cancel()
	firstErr := a.firstStart(ctx, child)
	stopCtx, cancelStop := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancelStop()
	if err := errors.Join(firstErr, child.Stop(stopCtx, StopSignal)); err != nil {
		return fmt.Errorf("Nomad's first start (see %s): %w", log.Name(), err) //nolint:staticcheck // a name begins it
	}
	// The token last: without it all this is done again.
	b, err := json.Marshal(a.ports)
	if err != nil {
		return err
	}
	return errors.Join(os.WriteFile(a.portsPath(), b, 0o600), os.WriteFile(a.tokenPath(), []byte(a.token+"\n"), 0o600))
}

// firstStart switches access control on, so that not every program of this
// machine may run tasks as root, and waits until the keyring is there.
func (a *Agent) firstStart(ctx context.Context, child *processes.Child) error {
	steps := []func(context.Context) error{a.bootstrap, a.keyringReady}
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	var last error
	for len(steps) > 0 {
		if last = steps[0](ctx); last == nil {
			steps = steps[1:]
			continue
		}
		select {
		case <-child.Done():
			return fmt.Errorf("it %s", child.Ending())
		case <-ctx.Done():
			return fmt.Errorf("it did not get ready: %w", last)
		case <-tick.C:
		}
	}
	return nil
}

// choosePorts takes three free ones, held together so that they differ.
func (a *Agent) choosePorts(ctx context.Context) error {
	for _, p := range []*int{&a.ports.HTTP, &a.ports.RPC, &a.ports.Serf} {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("looking for a free port for Nomad: %w", err)
		}
		defer l.Close()
		*p = l.Addr().(*net.TCPAddr).Port
	}
	return nil
}

// newToken is a random UUID, the form that Nomad asks for.
func newToken() string {
	b := make([]byte, 16)
	_, _ = rand.Read(b) // never fails
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

func (a *Agent) writeConfig() error {
	loopback := "127.0.0.1"
	b, err := json.MarshalIndent(map[string]any{
		"name": "ambit", "datacenter": "ambit",
		"bind_addr": loopback, "advertise": map[string]string{"http": loopback, "rpc": loopback, "serf": loopback},
		"ports":    a.ports,
		"data_dir": a.dataPath(), "log_json": true, "log_level": "INFO",
		"disable_update_check": true,
		// Its end must not end the tasks: the supervisor may be restarting it.
		"leave_on_interrupt": false, "leave_on_terminate": false,
		"acl": map[string]any{"enabled": true},
		"server": map[string]any{
			"enabled": true, "bootstrap_expect": 1, "raft_multiplier": 1,
			"default_scheduler_config": []map[string]any{{"memory_oversubscription_enabled": true}},
		},
		"client": map[string]any{
			"enabled": true, "servers": []string{net.JoinHostPort(loopback, strconv.Itoa(a.ports.RPC))},
			"network_interface": "lo",
			"gc_max_allocs":     2000, // each sandbox is one; the default of 50 is for long-lived services
			"options": map[string]string{
				"fingerprint.denylist": "env_aws,env_gce,env_azure,env_digitalocean",
				"driver.allowlist":     "raw_exec",
			},
		},
		"consul": map[string]any{"auto_advertise": false, "server_auto_join": false, "client_auto_join": false},
		"plugin": []map[string]any{{"raw_exec": []map[string]any{{"config": []map[string]any{{"enabled": true}}}}}},
	}, "", "  ")
	if err != nil {
		return err
	}
	if err := os.WriteFile(a.configPath(), b, 0o600); err != nil {
		return fmt.Errorf("writing Nomad's configuration: %w", err)
	}
	return nil
}
