package pgcluster

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/processes"
)

// Superuser is the name of the cluster's own superuser.
const Superuser = "postgres"

// StopSignal asks the server for a "fast" shutdown: clients are cut off, their
// transactions rolled back, everything written, usually within a second.
const StopSignal = syscall.SIGINT

// Options say how a cluster runs. The zero value is right for real data.
type Options struct {
	// Port on 127.0.0.1. 0: the one of the last start while it is free, else any.
	Port int
	// MaxConnections, default 200.
	MaxConnections int
	// SharedBuffers in Postgres's notation, default "256MB".
	SharedBuffers string
	// Volatile switches fsync off: for tests only, data does not survive a
	// crash of the machine.
	Volatile bool
}

// Cluster is a Postgres cluster of our own, prepared and perhaps running.
type Cluster struct {
	binDir   string
	dir      string // holds everything below
	data     string // PGDATA
	sockets  string
	password string
	port     int
	opts     Options
	account  account

	child *processes.Child
}

// Prepare makes the cluster in dir when there is none yet, chooses its port,
// writes its settings and ends what a killed run has left. It starts nothing.
// The caller makes sure that one process at a time prepares or runs a dir.
func Prepare(ctx context.Context, binDir, dir string, opts Options) (*Cluster, error) {
	if opts.MaxConnections == 0 {
		opts.MaxConnections = 200
	}
	if opts.SharedBuffers == "" {
		opts.SharedBuffers = "256MB"
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, fmt.Errorf("resolving the Postgres folder: %w", err)
	}
	acc, err := serverAccount(ctx)
	if err != nil {
		return nil, err
	}
	c := &Cluster{binDir: binDir, dir: dir, data: filepath.Join(dir, "cluster"), opts: opts, account: acc}
	// Others may pass through (the server's account must) but not look around.
	if err := os.MkdirAll(dir, 0o711); err != nil { //nolint:gosec // see above
		return nil, fmt.Errorf("making the Postgres folder: %w", err)
	}
	if err := acc.checkReach(dir); err != nil {
		return nil, err
	}
	if err := c.prepareSockets(); err != nil {
		return nil, err
	}
	if err := c.ClearStale(ctx); err != nil {
		return nil, err
	}
	if err := c.initialise(ctx); err != nil {
		return nil, err
	}
	if err := c.choosePort(ctx); err != nil {
		return nil, err
	}
	if err := c.writeSettings(); err != nil {
		return nil, err
	}
	return c, nil
}

// Start prepares the cluster in dir, starts its server as a child of this
// process, and waits until it answers. The server ends with this process.
func Start(ctx context.Context, binDir, dir string, opts Options) (*Cluster, error) {
	c, err := Prepare(ctx, binDir, dir, opts)
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(c.LogPath(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening Postgres's log: %w", err)
	}
	defer log.Close() // the child has its own copy
	cmd := c.Command()
	cmd.Stdout, cmd.Stderr = log, log
	c.child, err = processes.Launch(cmd, StopSignal)
	if err != nil {
		return nil, err
	}
	if err := c.waitReady(ctx, c.child.Done()); err != nil {
		stopCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return nil, errors.Join(err, c.Stop(stopCtx))
	}
	return c, nil
}

// Command returns a new command that runs the server in the foreground, as the
// right user, printing its log to stderr.
func (c *Cluster) Command() *exec.Cmd {
	cmd := exec.Command(filepath.Join(c.binDir, "postgres"), "-D", c.data) //nolint:noctx // its life is the caller's: it must be stopped with StopSignal, not killed by a context
	cmd.Dir = c.data
	cmd.Env = []string{"LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TZ=UTC", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.account.credential()}
	return cmd
}

// URL is the superuser's address, by loopback TCP, of the database "postgres".
func (c *Cluster) URL() string { return c.DatabaseURL("postgres") }

// DatabaseURL is the superuser's address of a database by name.
func (c *Cluster) DatabaseURL(name string) string {
	u := url.URL{
		Scheme: "postgres", User: url.UserPassword(Superuser, c.password),
		Host: net.JoinHostPort("127.0.0.1", strconv.Itoa(c.port)), Path: "/" + name,
		RawQuery: "sslmode=disable",
	}
	return u.String()
}

// Port is the TCP port on 127.0.0.1.
func (c *Cluster) Port() int { return c.port }

// SocketDir is the folder of the server's unix socket.
func (c *Cluster) SocketDir() string { return c.sockets }

// BinDir is the folder of the server's binaries (pg_dump is there too).
func (c *Cluster) BinDir() string { return c.binDir }

// LogPath is the file that Start's server logs to.
func (c *Cluster) LogPath() string { return filepath.Join(c.dir, "postgres.log") }

// PID of the server that Start started; 0 when there is none.
func (c *Cluster) PID() int {
	if c.child == nil {
		return 0
	}
	return c.child.PID()
}

// Done is closed when the server that Start started has ended.
func (c *Cluster) Done() <-chan struct{} {
	if c.child == nil {
		return nil
	}
	return c.child.Done()
}

// Stop ends the server that Start started: fast shutdown, and a kill when ctx
// ends first (no committed data is lost by that either).
func (c *Cluster) Stop(ctx context.Context) error {
	if c.child == nil {
		return nil
	}
	if err := c.child.Stop(ctx, StopSignal); err != nil {
		return fmt.Errorf("stopping Postgres: %w", err)
	}
	return nil
}

// Ready asks the server for one answer.
func (c *Cluster) Ready(ctx context.Context) error {
	conn, err := pgx.Connect(ctx, c.URL())
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	return conn.Ping(ctx)
}

// waitReady polls until the server answers, it ends, or ctx does (a minute at
// most: crash recovery is slow, but not slower than that with our settings).
func (c *Cluster) waitReady(ctx context.Context, ended <-chan struct{}) error {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	tick := time.NewTicker(25 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		if last = c.Ready(ctx); last == nil {
			return nil
		}
		select {
		case <-ended:
			return fmt.Errorf("postgres ended before it was ready; the end of %s:\n%s", c.LogPath(), tail(c.LogPath(), 2000))
		case <-ctx.Done():
			return fmt.Errorf("postgres was not ready in time (%w); the end of %s:\n%s", last, c.LogPath(), tail(c.LogPath(), 2000))
		case <-tick.C:
		}
	}
}

// initialise runs initdb once, into a folder that is renamed when complete, so
// that a cluster half made is never taken for a cluster.
func (c *Cluster) initialise(ctx context.Context) error {
	passwordFile := filepath.Join(c.dir, "password")
	if _, err := os.Stat(filepath.Join(c.data, "PG_VERSION")); err == nil {
		pw, err := os.ReadFile(passwordFile)
		if err != nil {
			return fmt.Errorf("reading the superuser's password of the existing cluster: %w", err)
		}
		c.password = strings.TrimSpace(string(pw))
		return c.checkVersion(ctx)
	}

	random := make([]byte, 20)
	if _, err := rand.Read(random); err != nil {
		return err
	}
	c.password = hex.EncodeToString(random)
	making := c.data + ".new"
	if err := os.RemoveAll(making); err != nil {
		return fmt.Errorf("clearing a half-made cluster: %w", err)
	}
	if err := os.Mkdir(making, 0o700); err != nil {
		return err
	}
	// initdb re-opens the file as the server's user, so a pipe won't do.
	initial := filepath.Join(c.dir, "password.initdb")
	defer os.Remove(initial)
	if err := os.WriteFile(initial, []byte(c.password+"\n"), 0o600); err != nil {
		return err
	}
	if c.account.switched {
		for _, p := range []string{making, initial} {
			if err := os.Chown(p, c.account.uid, c.account.gid); err != nil {
				return fmt.Errorf("giving %s to %s: %w", p, c.account.name, err)
			}
		}
	}
	args := []string{
		"-D", making, "-U", Superuser, "--pwfile", initial, "--auth=scram-sha-256",
		"--encoding=UTF8", "--locale=C.UTF-8", "--data-checksums", "--no-instructions",
	}
	if c.opts.Volatile {
		args = append(args, "--no-sync")
	}
	cmd := exec.CommandContext(ctx, filepath.Join(c.binDir, "initdb"), args...)
	cmd.Dir = making
	cmd.Env = []string{"LANG=C.UTF-8", "LC_ALL=C.UTF-8", "TZ=UTC", "PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c.account.credential()}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("making a Postgres cluster (initdb): %w\n%s", err, out)
	}
	conf, err := os.OpenFile(filepath.Join(making, "postgresql.conf"), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = conf.WriteString("\n# Written by Ambit at each start; local.conf is yours and wins.\ninclude_if_exists = 'ambit.conf'\ninclude_if_exists = 'local.conf'\n")
	if err := errors.Join(err, conf.Close()); err != nil {
		return fmt.Errorf("completing postgresql.conf: %w", err)
	}
	// The password first: a cluster whose password is lost is lost.
	if err := os.WriteFile(passwordFile, []byte(c.password+"\n"), 0o600); err != nil {
		return fmt.Errorf("keeping the superuser's password: %w", err)
	}
	return os.Rename(making, c.data)
}

// checkVersion refuses a cluster that another major version made.
func (c *Cluster) checkVersion(ctx context.Context) error {
	b, err := os.ReadFile(filepath.Join(c.data, "PG_VERSION"))
	if err != nil {
		return err
	}
	made := strings.TrimSpace(string(b))
	major, err := serverMajor(ctx, c.binDir)
	if err != nil {
		return fmt.Errorf("asking %s for its version: %w", c.binDir, err)
	}
	if made != strconv.Itoa(major) {
		return fmt.Errorf("the cluster in %s was made by Postgres %s, but %s is Postgres %d: install postgresql-%s, or back up with the old one and restore", c.data, made, c.binDir, major, made)
	}
	return nil
}

func tail(path string, n int64) string {
	f, err := os.Open(path)
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err.Error()
	}
	b := make([]byte, min(n, st.Size()))
	k, _ := f.ReadAt(b, max(0, st.Size()-n))
	return string(b[:k])
}
