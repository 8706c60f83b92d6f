package embedded

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Defaults of Options.
const (
	DefaultMaxMemory  = 2 << 30
	DefaultMarkCache  = 128 << 20
	DefaultMaxQueries = 32
)

// stopTimeout bounds the orderly end: with what follows it the process is gone
// within three seconds of its signal.
const stopTimeout = time.Second

// Options say what engine to run and where.
type Options struct {
	// Lib is the path of libchdb.so, release 26.7 or later.
	Lib string
	// DataDir holds the engine's data. One process at a time may use it.
	DataDir string
	// Socket is the path of the unix socket to serve on, of at most 107 bytes. A
	// stale one is replaced.
	Socket string
	// MaxMemory bounds the engine's memory, in bytes; 0 means DefaultMaxMemory.
	MaxMemory int64
	// MarkCache bounds the cache of index marks, in bytes; 0 means
	// DefaultMarkCache.
	MarkCache int64
	// MaxQueries bounds the queries under way; others wait. 0 means
	// DefaultMaxQueries.
	MaxQueries int
	// Ephemeral removes DataDir at the end, for tests.
	Ephemeral bool
	// Log gets what the process has to say; nil discards it.
	Log *slog.Logger
}

// Serve runs the engine and its HTTP front until ctx ends, and then stops both.
// It can be called once in a process. It answers GET /ping with 200 as soon as
// queries are answered.
//
// It fails when the library cannot be loaded, another process uses DataDir, or
// the socket cannot be made. It returns nil after an orderly end.
func Serve(ctx context.Context, o Options) error {
	o = o.withDefaults()
	if len(o.Socket) > maxSocketPath {
		return fmt.Errorf("the socket's path %s has %d bytes, and at most %d fit", o.Socket, len(o.Socket), maxSocketPath)
	}
	if err := os.MkdirAll(o.DataDir, 0o700); err != nil {
		return fmt.Errorf("make the data directory: %w", err)
	}
	unlock, err := lockDir(o.DataDir)
	if err != nil {
		return err
	}
	defer unlock()
	if o.Ephemeral {
		defer func() {
			if err := os.RemoveAll(o.DataDir); err != nil {
				o.Log.WarnContext(ctx, "the data directory could not be removed", "error", err)
			}
		}()
	}

	started := time.Now()
	lib, err := openLibrary(o.Lib)
	if err != nil {
		return err
	}
	args := []string{
		"clickhouse",
		"--path=" + filepath.Join(o.DataDir, "store"),
		fmt.Sprintf("--max_server_memory_usage=%d", o.MaxMemory),
		fmt.Sprintf("--mark_cache_size=%d", o.MarkCache),
	}
	// The engine ends with its last connection, so this one stays open.
	anchor, err := lib.dial(args)
	if err != nil {
		return fmt.Errorf("start the ClickHouse engine on %s: %w", o.DataDir, err)
	}
	f := &front{lib: lib, args: args, log: o.Log, slots: make(chan struct{}, o.MaxQueries)}
	if f.version, f.zone, err = describe(anchor); err != nil {
		anchor.close()
		return err
	}

	listener, err := listen(ctx, o.Socket)
	if err != nil {
		anchor.close()
		return err
	}
	o.Log.InfoContext(ctx, "the ClickHouse engine is ready",
		"version", f.version, "library", lib.version(), "socket", o.Socket, "data", o.DataDir,
		"took", time.Since(started).Round(time.Millisecond))

	// Requests get a context of their own, so that what is under way when ctx
	// ends can finish within the grace period and is only then killed.
	requests, cancelRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer cancelRequests()
	server := &http.Server{
		Handler:           f,
		BaseContext:       func(net.Listener) context.Context { return requests },
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 20, // queries' parameters travel in the address
		ErrorLog:          slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
	}
	served := make(chan error, 1)
	go func() { served <- server.Serve(listener) }()

	select {
	case err := <-served:
		anchor.close()
		return fmt.Errorf("serve on %s: %w", o.Socket, err)
	case <-ctx.Done():
	}
	f.stop(server, cancelRequests, anchor)
	return nil
}

func (o Options) withDefaults() Options {
	if o.MaxMemory == 0 {
		o.MaxMemory = DefaultMaxMemory
	}
	if o.MarkCache == 0 {
		o.MarkCache = DefaultMarkCache
	}
	if o.MaxQueries == 0 {
		o.MaxQueries = DefaultMaxQueries
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// stop lets queries under way finish for a moment, kills the rest and closes the
// engine. What it cannot finish in time the end of the process does: the engine
// is crash-safe, as far as acknowledged inserts go.
func (f *front) stop(server *http.Server, cancelRequests func(), anchor *connection) {
	started := time.Now()
	deadline, cancel := context.WithTimeout(context.Background(), stopTimeout/2)
	defer cancel()
	if err := server.Shutdown(deadline); err != nil {
		cancelRequests()
		again, cancel := context.WithTimeout(context.Background(), stopTimeout/2)
		defer cancel()
		if err := server.Shutdown(again); err != nil {
			f.log.Warn("queries were cut off", "error", err)
			_ = server.Close()
			return
		}
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		anchor.close()
		f.lib.shutdown()
	}()
	select {
	case <-closed:
		f.log.Info("the ClickHouse engine has stopped", "took", time.Since(started).Round(time.Millisecond))
	case <-time.After(stopTimeout):
		f.log.Warn("the ClickHouse engine did not stop in time and is left to the end of the process")
	}
}

func describe(conn *connection) (version, zone string, err error) {
	out, _, err := conn.run("SELECT version(), timezone()", "TabSeparatedRaw", nil)
	if err != nil {
		return "", "", fmt.Errorf("ask the ClickHouse engine for its version: %w", err)
	}
	version, zone, ok := strings.Cut(strings.TrimSpace(string(out)), "\t")
	if !ok {
		return "", "", fmt.Errorf("the ClickHouse engine gave its version as %q", out)
	}
	return version, zone, nil
}

// maxSocketPath is the room in a unix socket's address, less the final zero.
const maxSocketPath = 107

func listen(ctx context.Context, socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o700); err != nil {
		return nil, fmt.Errorf("make the socket's directory: %w", err)
	}
	// The data directory is locked, so a socket that is still there is a dead one.
	if err := os.Remove(socket); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove a stale socket: %w", err)
	}
	// Created without any access for others rather than tightened afterwards.
	old := unix.Umask(0o177)
	listener, err := (&net.ListenConfig{}).Listen(ctx, "unix", socket)
	unix.Umask(old)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", socket, err)
	}
	return listener, nil
}

// lockDir makes sure that one process uses dir. The engine has a lock of its own,
// but its refusal comes without words.
func lockDir(dir string) (unlock func(), err error) {
	path := filepath.Join(dir, "ambit.lock")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the data directory: %w", err)
	}
	if err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		owner, _ := io.ReadAll(io.LimitReader(file, 32))
		_ = file.Close()
		return nil, fmt.Errorf("the data directory %s is in use by process %s", dir, strings.TrimSpace(string(owner)))
	}
	_ = file.Truncate(0)
	_, _ = file.WriteAt([]byte(fmt.Sprintf("%d\n", os.Getpid())), 0)
	return func() { _ = file.Close() }, nil
}
