package pgcluster

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/config"
)

//go:embed guardian.sh
var guardianScript string

// sharedIdle is how long the shared cluster outlives its last user: long enough
// to bridge the compiling of the next test binary.
const sharedIdle = 90 * time.Second

var shared struct {
	sync.Mutex

	cluster *Cluster
	users   *os.File // holds the shared lock until this process ends
}

// Shared returns the cluster that all test binaries of this machine share, in
// the cache folder, and starts it when it does not run. It runs without fsync,
// outlives the process that started it, and stops by itself 90 s after its last
// user has ended. The returned cluster must not be stopped.
//
// Its data is worth nothing: when it can't be started as it is, it is made anew.
func Shared(ctx context.Context) (*Cluster, error) {
	shared.Lock()
	defer shared.Unlock()
	if shared.cluster != nil {
		return shared.cluster, nil
	}
	binDir, err := FindBinDir(ctx)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(config.CacheDir(), "test-postgres")
	if os.Getuid() != 0 {
		// A cluster belongs to the user whose processes run it.
		dir += "-" + strconv.Itoa(os.Getuid())
	}
	c, users, err := joinShared(ctx, binDir, dir, sharedIdle)
	if err != nil {
		return nil, fmt.Errorf("starting the tests' Postgres in %s: %w", dir, err)
	}
	shared.cluster, shared.users = c, users
	return c, nil
}

// joinShared registers this process as a user of the cluster in dir until the
// returned file is closed, and starts the cluster when it does not run.
func joinShared(ctx context.Context, binDir, dir string, idle time.Duration) (_ *Cluster, _ *os.File, err error) {
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // the server's account passes through
		return nil, nil, err
	}
	starting, err := lockFile(ctx, filepath.Join(dir, "starting.lock"), syscall.LOCK_EX)
	if err != nil {
		return nil, nil, fmt.Errorf("waiting for another process that starts it: %w", err)
	}
	defer starting.Close()
	users, err := lockFile(ctx, filepath.Join(dir, "users.lock"), syscall.LOCK_SH)
	if err != nil {
		return nil, nil, fmt.Errorf("waiting for its earlier run to stop: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, users.Close())
		}
	}()

	opts := Options{Volatile: true, MaxConnections: 400, SharedBuffers: "256MB"}
	if c, err := attach(ctx, binDir, dir, opts); err == nil {
		return c, users, nil
	}
	c, err := startGuarded(ctx, binDir, dir, opts, users.Name(), idle)
	if err == nil {
		return c, users, nil
	}
	if ctx.Err() != nil {
		return nil, nil, err
	}
	// Without fsync a crash of the machine may have torn the files.
	if rmErr := os.RemoveAll(filepath.Join(dir, "cluster")); rmErr != nil {
		return nil, nil, errors.Join(err, rmErr)
	}
	c, err = startGuarded(ctx, binDir, dir, opts, users.Name(), idle)
	return c, users, err
}

// attach returns the running cluster in dir, or an error when none answers.
func attach(ctx context.Context, binDir, dir string, opts Options) (*Cluster, error) {
	acc, err := serverAccount(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cluster{binDir: binDir, dir: dir, data: filepath.Join(dir, "cluster"), opts: opts, account: acc}
	pid, err := readPID(filepath.Join(c.data, "postmaster.pid"))
	if err != nil {
		return nil, err
	}
	if !c.serves(pid) {
		return nil, errors.New("no server runs there")
	}
	if err := c.prepareSockets(); err != nil {
		return nil, err
	}
	pw, err := os.ReadFile(filepath.Join(dir, "password"))
	if err != nil {
		return nil, err
	}
	port, err := os.ReadFile(filepath.Join(dir, "port"))
	if err != nil {
		return nil, err
	}
	c.password = strings.TrimSpace(string(pw))
	if c.port, err = strconv.Atoi(strings.TrimSpace(string(port))); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	return c, c.Ready(ctx)
}

// startGuarded starts the server below a guardian that outlives this process.
func startGuarded(ctx context.Context, binDir, dir string, opts Options, usersFile string, idle time.Duration) (*Cluster, error) {
	c, err := Prepare(ctx, binDir, dir, opts)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(c.LogPath(), os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	server := c.Command()
	// Not CommandContext: it must outlive the test that happens to start it.
	cmd := exec.Command("/bin/sh", "-c", guardianScript, "ambit-postgres-guardian", //nolint:noctx // see above
		server.Path, c.data, usersFile, strconv.Itoa(int(idle.Seconds())))
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = server.Env, server.Dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.account.credential(), Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting the guardian: %w", err)
	}
	if err := cmd.Process.Release(); err != nil {
		return nil, err
	}
	if err := c.waitReady(ctx, nil); err != nil {
		return nil, err
	}
	return c, c.dropAbandoned(ctx)
}

// dropAbandoned drops the databases, named t_…, of tests that were killed before
// they could. Nobody uses the cluster at its start, so each of them is one.
func (c *Cluster) dropAbandoned(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.URL())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	rows, err := conn.Query(ctx, `SELECT datname::text FROM pg_database WHERE datname LIKE 't\_%'`)
	if err != nil {
		return fmt.Errorf("looking for abandoned databases: %w", err)
	}
	names, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return fmt.Errorf("looking for abandoned databases: %w", err)
	}
	for _, name := range names {
		if _, err := conn.Exec(ctx, "DROP DATABASE "+pgx.Identifier{name}.Sanitize()); err != nil {
			return fmt.Errorf("dropping the abandoned database %s: %w", name, err)
		}
	}
	return nil
}

// lockFile opens and locks a file, waiting for the lock no longer than ctx.
func lockFile(ctx context.Context, path string, how int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644) //nolint:gosec // the guardian, another user, locks it too
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(f.Fd()), how|syscall.LOCK_NB)
		if err == nil {
			return f, nil
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			return nil, errors.Join(err, f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(20 * time.Millisecond):
		}
	}
}
