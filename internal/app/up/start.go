package up

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/internal/engines/nomadagent"
	"ambit.dev/ambit/internal/engines/pgcluster"
	"ambit.dev/ambit/internal/processes"
)

// Database is the name of Ambit's database in its own Postgres.
const Database = "ambit"

// Start obtains and starts everything, in order, and returns when the server is
// ready and, on the first start, the demonstration was shown. What was started
// before an error runs on until Stop.
func (i *Instance) Start(ctx context.Context) error {
	began := time.Now()
	if err := i.clearEarlier(ctx); err != nil {
		return err
	}
	if !i.opts.EnginesOnly {
		if err := errors.Join(
			checkListen(ctx, "AMBIT_LISTEN", i.cfg.Listen),
			checkListen(ctx, "AMBIT_NODE_LISTEN", i.cfg.NodeListen),
		); err != nil {
			return err
		}
	}
	set, err := i.obtain(ctx)
	if err != nil {
		return err
	}
	for _, start := range []func(context.Context, *engines.Set) error{i.startPostgres, i.startClickHouse, i.startNomad} {
		if err := start(ctx, set); err != nil {
			return err
		}
	}
	if err := i.writeAddresses(); err != nil {
		return err
	}
	if i.opts.EnginesOnly {
		i.showEngines()
		return nil
	}
	if err := i.startServer(ctx); err != nil {
		return err
	}
	i.log.InfoContext(ctx, "ready", "took", time.Since(began).Round(100*time.Millisecond), "console", i.cfg.PublicURL)
	return i.demonstrateOnce(ctx)
}

// Needed are the engines that a configuration does not name elsewhere.
func Needed(cfg config.Config) []engines.Name {
	var names []engines.Name
	for name, given := range map[engines.Name]bool{
		engines.Postgres: cfg.PostgresURL.IsSet(), engines.ClickHouse: cfg.ClickHouseURL.IsSet(), engines.Nomad: cfg.NomadAddr.IsSet(),
		engines.QEMU: cfg.QEMU != "", engines.Kernel: cfg.KernelImage != "" && cfg.KernelModules != "", engines.Rootfs: cfg.Rootfs != "",
	} {
		if !given {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// obtain brings the engines that are not given.
func (i *Instance) obtain(ctx context.Context) (*engines.Set, error) {
	names := Needed(i.cfg)
	set, err := engines.Obtain(ctx, engines.Options{CacheDir: i.cfg.CacheDir, Out: os.Stderr}, names...)
	if err != nil {
		return nil, err
	}
	// What was set by hand stays.
	for field, found := range map[*string]string{
		&i.cfg.QEMU: set.QEMU, &i.cfg.KernelImage: set.Vmlinux, &i.cfg.KernelModules: set.KernelModules, &i.cfg.Rootfs: set.RootfsErofs,
	} {
		if *field == "" {
			*field = found
		}
	}
	return set, nil
}

func (i *Instance) startPostgres(ctx context.Context, set *engines.Set) error {
	if i.cfg.PostgresURL.IsSet() {
		i.log.InfoContext(ctx, "using the outside Postgres", "url", i.cfg.PostgresURL)
		return nil
	}
	cluster, err := pgcluster.Prepare(ctx, set.PostgresBinDir, i.path("postgres"), pgcluster.Options{})
	if err != nil {
		return err
	}
	stream, err := i.stream(postgresName, slog.LevelWarn)
	if err != nil {
		return err
	}
	err = i.supervisor.Start(ctx, processes.Spec{
		Name: postgresName, Output: stream,
		Command: func(ctx context.Context) (*exec.Cmd, error) {
			// After a crash its last backends may still hold its memory.
			if err := cluster.ClearStale(ctx); err != nil {
				return nil, err
			}
			cmd := cluster.Command()
			cmd.Env = append(cmd.Env, i.marker())
			return cmd, nil
		},
		Ready: cluster.Ready, ReadyWithin: time.Minute,
		StopSignal: pgcluster.StopSignal, StopWithin: engineStop,
	})
	if err != nil {
		return err
	}
	if err := ensureDatabase(ctx, cluster.URL()); err != nil {
		return err
	}
	i.cfg.PostgresURL = config.Address(cluster.DatabaseURL(Database))
	i.log.InfoContext(ctx, "postgres is ready", "port", cluster.Port(), "pid", i.supervisor.PID(postgresName))
	return nil
}

func ensureDatabase(ctx context.Context, url string) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return fmt.Errorf("connecting to our own Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	var there bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", Database).Scan(&there); err != nil {
		return fmt.Errorf("looking for the database: %w", err)
	}
	if there {
		return nil
	}
	if _, err := conn.Exec(ctx, "CREATE DATABASE "+pgx.Identifier{Database}.Sanitize()); err != nil {
		return fmt.Errorf("making the database: %w", err)
	}
	return nil
}

func (i *Instance) startClickHouse(ctx context.Context, set *engines.Set) error {
	if i.cfg.ClickHouseURL.IsSet() {
		i.log.InfoContext(ctx, "using the outside ClickHouse", "url", i.cfg.ClickHouseURL)
		return nil
	}
	socket, err := i.socketPath("clickhouse.sock")
	if err != nil {
		return err
	}
	stream, err := i.stream(clickhouseName, slog.LevelWarn)
	if err != nil {
		return err
	}
	err = i.supervisor.Start(ctx, processes.Spec{
		Name: clickhouseName, Output: stream,
		Command: func(context.Context) (*exec.Cmd, error) {
			cmd := exec.Command(i.opts.Binary, "embedded-clickhouse", //nolint:noctx // the supervisor ends it
				"--data", i.path("clickhouse"), "--socket", socket, "--lib", set.LibChdb)
			cmd.Env = i.baseEnvironment()
			return cmd, nil
		},
		Ready:       func(ctx context.Context) error { return getOK(ctx, socket, "http://clickhouse/ping") },
		ReadyWithin: time.Minute, StopWithin: engineStop,
	})
	if err != nil {
		return err
	}
	i.cfg.ClickHouseURL = config.Address("unix://" + socket)
	i.log.InfoContext(ctx, "clickhouse is ready", "pid", i.supervisor.PID(clickhouseName))
	return nil
}

// nomadNoise is what Nomad calls an error and is none: a follower of its events
// that went away, and tasks that ended while no client watched.
var nomadNoise = []string{"broken pipe", "failed to reattach to executor", "error recovering task"}

func (i *Instance) startNomad(ctx context.Context, set *engines.Set) error {
	if i.cfg.NomadAddr.IsSet() {
		i.log.InfoContext(ctx, "using the outside Nomad", "address", i.cfg.NomadAddr)
		return nil
	}
	i.nomadDir = i.path("nomad")
	pair, err := nomadagent.Prepare(ctx, set.Nomad, i.nomadDir, i.baseEnvironment())
	if err != nil {
		return err
	}
	for _, agent := range []struct {
		name    string
		command func() *exec.Cmd
		ready   func(context.Context) error
	}{
		{nomadName, pair.ServerCommand, pair.ServerReady},
		{nomadClientName, pair.ClientCommand, pair.ClientReady},
	} {
		stream, err := i.stream(agent.name, slog.LevelError)
		if err != nil {
			return err
		}
		stream.Quiet = nomadNoise
		err = i.supervisor.Start(ctx, processes.Spec{
			Name: agent.name, Output: stream,
			Command: func(context.Context) (*exec.Cmd, error) { return agent.command(), nil },
			Ready:   agent.ready, ReadyWithin: time.Minute,
			StopSignal: nomadagent.StopSignal, StopWithin: nomadStop,
			// Helpers of running tasks are in the client's group: they must
			// outlive a client that died, so that the next finds the tasks again.
			LeaveGroup: true,
		})
		if err != nil {
			return err
		}
	}
	i.cfg.NomadAddr, i.cfg.NomadToken = config.Address(pair.URL()), config.Secret(pair.Token())
	i.log.InfoContext(ctx, "nomad is ready", "address", i.cfg.NomadAddr,
		"pid", i.supervisor.PID(nomadName), "client_pid", i.supervisor.PID(nomadClientName))
	return nil
}

func (i *Instance) startServer(ctx context.Context) error {
	stream, err := i.stream(serverName, i.cfg.LogLevel)
	if err != nil {
		return err
	}
	env := i.serverEnvironment()
	err = i.supervisor.Start(ctx, processes.Spec{
		Name: serverName, Output: stream,
		Command: func(context.Context) (*exec.Cmd, error) {
			cmd := exec.Command(i.opts.Binary, "serve", "--role", "all") //nolint:noctx // the supervisor ends it
			cmd.Env = env
			return cmd, nil
		},
		Ready: func(ctx context.Context) error { return serverReady(ctx, i.cfg.Listen) },
		// The first start migrates both databases and builds the sandbox template.
		ReadyWithin: 3 * time.Minute, StopWithin: serverStop,
	})
	if err != nil {
		return err
	}
	i.log.InfoContext(ctx, "server is ready", "listen", i.cfg.Listen, "pid", i.supervisor.PID(serverName))
	return nil
}

// showEngines prints how a server is pointed at what runs. It shows secrets:
// that is what the flag asks for.
func (i *Instance) showEngines() {
	text := "\nThe engines run. To point a server at them:\n\n"
	for _, kv := range i.cfg.Environ() {
		for _, name := range []string{"AMBIT_POSTGRES_URL=", "AMBIT_CLICKHOUSE_URL=", "AMBIT_NOMAD_ADDR=", "AMBIT_NOMAD_TOKEN=", "AMBIT_INSTANCE="} {
			if len(kv) > len(name) && kv[:len(name)] == name {
				text += fmt.Sprintf("export %s'%s'\n", name, kv[len(name):])
			}
		}
	}
	i.output.Print(text + "\n")
}

// serverReady asks a server whether it is ready; the error says what is not.
func serverReady(ctx context.Context, listen string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+listen+"/readyz", http.NoBody)
	if err != nil {
		return err
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	var answer struct {
		Status string
		Checks []struct{ Name, Status, Error string }
	}
	_ = json.NewDecoder(io.LimitReader(resp.Body, 64<<10)).Decode(&answer)
	for _, c := range answer.Checks {
		if c.Status != "ok" {
			return fmt.Errorf("%s: %s", c.Name, c.Error)
		}
	}
	return fmt.Errorf("it answered %s %s", resp.Status, answer.Status)
}

// getOK asks for one page, over a unix socket when one is given, and wants 200.
func getOK(ctx context.Context, socket, url string) error {
	ctx, cancel := context.WithTimeout(ctx, 3*time.Second)
	defer cancel()
	transport := &http.Transport{DisableKeepAlives: true}
	if socket != "" {
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return err
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return nil
}
