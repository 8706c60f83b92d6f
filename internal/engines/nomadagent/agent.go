package nomadagent

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"ambit.dev/ambit/internal/processes"
)

// StopSignal ends an agent at once; the tasks live on, and a later client finds
// them again.
const StopSignal = syscall.SIGINT

// Pair is a server and a client of our own, prepared and perhaps running.
type Pair struct {
	binary string
	dir    string
	ports  ports
	token  string
	env    []string
}

// ports are each on loopback. An agent asks for all three kinds, even the
// client, which listens only on its HTTP port.
type ports struct {
	HTTP       int `json:"http"`
	RPC        int `json:"rpc"`
	Serf       int `json:"serf"`
	ClientHTTP int `json:"client_http"`
}

func (p *ports) all() []*int { return []*int{&p.HTTP, &p.RPC, &p.Serf, &p.ClientHTTP} }

// Prepare makes the pair in dir when there is none yet, and writes its
// configuration. env is the agents' environment, and through it that of every
// task. The caller makes sure that one process at a time prepares or runs a dir.
func Prepare(ctx context.Context, binary, dir string, env []string) (*Pair, error) {
	p := &Pair{binary: binary, dir: dir, env: env}
	// Allocations' folders lie below, and sandboxes do not run as root.
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // see above
		return nil, fmt.Errorf("making Nomad's folder: %w", err)
	}
	if p.loadPorts() && p.loadToken() == nil && p.portsFree(ctx) {
		return p, p.writeConfig()
	}
	// Nothing yet, or a port that another program has taken meanwhile: Nomad's
	// state names the ports, and holds nothing that could not be made again,
	// since the jobs come from Ambit.
	return p, p.makeAnew(ctx)
}

// ServerCommand returns a new command that runs the server in the foreground,
// logging JSON lines to stdout.
func (p *Pair) ServerCommand() *exec.Cmd { return p.command(server) }

// ClientCommand does the same for the client. It is started when the server is
// ready, not before.
func (p *Pair) ClientCommand() *exec.Cmd { return p.command(client) }

func (p *Pair) command(r role) *exec.Cmd {
	cmd := exec.Command(p.binary, "agent", "-config", p.configPath(r)) //nolint:noctx // its life is the caller's
	cmd.Dir = p.dir
	cmd.Env = p.env
	return cmd
}

// URL is the server's HTTP address.
func (p *Pair) URL() string { return address(p.ports.HTTP) }

// Token is the secret of the management token.
func (p *Pair) Token() string { return p.token }

// Dir is the pair's folder; mounts of allocations lie below.
func (p *Pair) Dir() string { return p.dir }

func address(port int) string {
	return "http://" + net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
}

func (p *Pair) configPath(r role) string { return filepath.Join(p.dir, string(r)+".json") }
func (p *Pair) dataPath(r role) string   { return filepath.Join(p.dir, string(r)) }
func (p *Pair) portsPath() string        { return filepath.Join(p.dir, "ports.json") }
func (p *Pair) tokenPath() string        { return filepath.Join(p.dir, "token") }

func (p *Pair) loadPorts() bool {
	b, err := os.ReadFile(p.portsPath())
	if err != nil || json.Unmarshal(b, &p.ports) != nil {
		return false
	}
	for _, port := range p.ports.all() {
		if *port <= 0 {
			return false
		}
	}
	return true
}

func (p *Pair) portsFree(ctx context.Context) bool {
	for _, port := range p.ports.all() {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(*port)))
		if err != nil {
			return false
		}
		_ = l.Close()
	}
	return true
}

func (p *Pair) loadToken() error {
	b, err := os.ReadFile(p.tokenPath())
	if err != nil {
		return err
	}
	p.token = strings.TrimSpace(string(b))
	if p.token == "" {
		return errors.New("the token's file is empty")
	}
	return nil
}

// makeAnew clears the state, and chooses the ports and the token.
func (p *Pair) makeAnew(ctx context.Context) error {
	if err := processes.UnmountBelow(p.dir); err != nil {
		return fmt.Errorf("clearing Nomad's mounts: %w", err)
	}
	for _, path := range []string{p.tokenPath(), p.portsPath(), p.dataPath(server), p.dataPath(client)} {
		if err := os.RemoveAll(path); err != nil {
			return fmt.Errorf("clearing Nomad's state: %w", err)
		}
	}
	if err := p.choosePorts(ctx); err != nil {
		return err
	}
	p.token = newToken()
	b, err := json.Marshal(p.ports)
	if err != nil {
		return err
	}
	return errors.Join(
		p.writeConfig(),
		os.WriteFile(p.portsPath(), b, 0o600),
		os.WriteFile(p.tokenPath(), []byte(p.token+"\n"), 0o600),
	)
}

// choosePorts takes free ones, all held until the last is chosen, so that they
// differ.
func (p *Pair) choosePorts(ctx context.Context) error {
	var held []net.Listener
	defer func() {
		for _, l := range held {
			_ = l.Close()
		}
	}()
	for _, port := range p.ports.all() {
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return fmt.Errorf("looking for a free port for Nomad: %w", err)
		}
		held = append(held, l)
		*port = l.Addr().(*net.TCPAddr).Port
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
