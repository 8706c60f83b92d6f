package up

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/processes"
)

// Options say what to run.
type Options struct {
	// Binary is the ambit binary, which is also the server and the ClickHouse
	// engine.
	Binary string
	// EnginesOnly starts no server.
	EnginesOnly bool
	// Demonstrate runs the demonstration session if it never was.
	Demonstrate bool
}

// Instance is all of Ambit on one data directory.
type Instance struct {
	cfg        config.Config
	opts       Options
	output     *processes.Output
	log        *slog.Logger
	lock       *os.File
	logs       []io.Closer
	supervisor *processes.Supervisor
	nomadDir   string // empty while no agent of ours was prepared
}

// The children's names.
const (
	postgresName    = "postgres"
	clickhouseName  = "clickhouse"
	nomadName       = "nomad"
	nomadClientName = "nomad-client"
	serverName      = "server"
)

// Open takes the data directory for this process. It fails when another one
// runs on it.
func Open(cfg config.Config, opts Options, output *processes.Output) (*Instance, error) {
	cfg.Instance = instanceID(cfg.DataDir)
	i := &Instance{cfg: cfg, opts: opts, output: output, log: output.Logger("up", cfg.LogLevel)}
	// Postgres's and the sandboxes' accounts pass through it; they can't list it.
	if err := os.MkdirAll(cfg.DataDir, 0o711); err != nil { //nolint:gosec // see above
		return nil, fmt.Errorf("making the data directory: %w", err)
	}
	if err := i.takeLock(); err != nil {
		return nil, err
	}
	i.supervisor = processes.NewSupervisor(i.path("run"), i.log)
	return i, nil
}

// Failed gives the first child that was given up.
func (i *Instance) Failed() <-chan error { return i.supervisor.Failed() }

// Close gives the data directory back.
func (i *Instance) Close() {
	for _, l := range i.logs {
		_ = l.Close()
	}
	_ = i.lock.Close()
}

func (i *Instance) path(parts ...string) string {
	return filepath.Join(append([]string{i.cfg.DataDir}, parts...)...)
}

// takeLock holds up.lock until this process ends. The file tells whom to ask.
func (i *Instance) takeLock() error {
	f, err := os.OpenFile(i.path("up.lock"), os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // no secret
	if err != nil {
		return fmt.Errorf("opening the data directory's lock: %w", err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		holder, _ := io.ReadAll(io.LimitReader(f, 20))
		return errors.Join(
			fmt.Errorf("another ambit up (process %s) runs on %s: stop it first, or set AMBIT_DATA_DIR, AMBIT_LISTEN and AMBIT_NODE_LISTEN for a second one", strings.TrimSpace(string(holder)), i.cfg.DataDir),
			f.Close())
	}
	if err := errors.Join(f.Truncate(0), writeAtStart(f, strconv.Itoa(os.Getpid())+"\n")); err != nil {
		return errors.Join(err, f.Close())
	}
	i.lock = f
	return nil
}

func writeAtStart(f *os.File, text string) error {
	_, err := f.WriteAt([]byte(text), 0)
	return err
}

// Marker is the variable, with its value, by which every process that an ambit
// up on this data directory has started is known.
func Marker(dataDir string) string { return "AMBIT_INSTANCE=" + instanceID(dataDir) }

func instanceID(dataDir string) string {
	sum := sha256.Sum256([]byte(dataDir))
	return hex.EncodeToString(sum[:8])
}

func (i *Instance) marker() string { return Marker(i.cfg.DataDir) }

// baseEnvironment is ours without any setting of Ambit, plus the marker.
func (i *Instance) baseEnvironment() []string {
	var env []string
	for _, kv := range os.Environ() {
		if !strings.HasPrefix(kv, "AMBIT_") {
			env = append(env, kv)
		}
	}
	return append(env, i.marker())
}

// serverEnvironment is the configuration as it stands now.
func (i *Instance) serverEnvironment() []string {
	cfg := i.cfg
	cfg.LogFormat = config.LogJSON // it is taken apart and shown by us
	var env []string
	for _, kv := range i.baseEnvironment() {
		if !strings.HasPrefix(kv, "AMBIT_") {
			env = append(env, kv)
		}
	}
	return append(env, cfg.Environ()...)
}

// stream is where a child's output goes: all of it into a file of its own, and
// what is at least of that level to the terminal.
func (i *Instance) stream(name string, least slog.Level) (*processes.Stream, error) {
	f, err := processes.OpenLog(i.path("logs", name+".log"))
	if err != nil {
		return nil, err
	}
	i.logs = append(i.logs, f)
	return i.output.Stream(name, max(least, i.cfg.LogLevel), f), nil
}

// clearEarlier ends what a run that was killed has left: Nomad's tasks above
// all, which live in groups of their own.
func (i *Instance) clearEarlier(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	met, err := processes.Sweep(ctx, i.marker(), 5*time.Second)
	if len(met) > 0 {
		i.log.WarnContext(ctx, "an earlier run was killed and had left processes; they are ended", "count", len(met), "programs", programs(met))
	}
	return err
}

func programs(ps []processes.Leftover) string {
	count := map[string]int{}
	var order []string
	for _, p := range ps {
		if count[p.Name] == 0 {
			order = append(order, p.Name)
		}
		count[p.Name]++
	}
	for k, name := range order {
		if count[name] > 1 {
			order[k] = fmt.Sprintf("%s×%d", name, count[name])
		}
	}
	return strings.Join(order, ", ")
}

// checkListen tells early that an address is taken: after minutes of building
// it would be late.
func checkListen(ctx context.Context, setting, address string) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("%s is %s, where nothing can listen now (%w): end what uses it, or set %s to another address", setting, address, err, setting)
	}
	return l.Close()
}

// socketPath is a unix socket's path below the data directory, or, where that
// is longer than the kernel takes, one in the temporary folder.
func (i *Instance) socketPath(name string) (string, error) {
	path := i.path("run", name)
	if len(path) > 100 {
		path = filepath.Join(os.TempDir(), "ambit-"+i.cfg.Instance, name)
	}
	return path, os.MkdirAll(filepath.Dir(path), 0o711) //nolint:gosec // the folder holds pid files and sockets only
}
