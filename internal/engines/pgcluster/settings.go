package pgcluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// longestSocketDir leaves room for "/.s.PGSQL.65535.lock" in the 107 bytes that
// a unix socket's path may have.
const longestSocketDir = 80

// prepareSockets chooses a folder for the server's socket: beside the data, or,
// where that path is too long, a short one in the temporary folder.
func (c *Cluster) prepareSockets() error {
	c.sockets = filepath.Join(c.dir, "socket")
	if len(c.sockets) > longestSocketDir {
		sum := sha256.Sum256([]byte(c.dir))
		c.sockets = filepath.Join(os.TempDir(), "ambit-pg-"+hex.EncodeToString(sum[:6]))
	}
	if err := os.MkdirAll(c.sockets, 0o755); err != nil { //nolint:gosec // clients of any user connect; the password guards
		return fmt.Errorf("making the socket folder: %w", err)
	}
	if c.account.switched {
		if err := os.Chown(c.sockets, c.account.uid, c.account.gid); err != nil {
			return fmt.Errorf("giving the socket folder to %s: %w", c.account.name, err)
		}
	}
	return nil
}

// choosePort keeps the port of the last start while it is free, so that a
// second shell's psql command goes on working.
func (c *Cluster) choosePort(ctx context.Context) error {
	file := filepath.Join(c.dir, "port")
	wish := c.opts.Port
	if wish == 0 {
		if b, err := os.ReadFile(file); err == nil {
			wish, _ = strconv.Atoi(strings.TrimSpace(string(b)))
		}
	}
	port, err := freePort(ctx, wish)
	if err != nil && c.opts.Port != 0 {
		return fmt.Errorf("the port %d for Postgres is taken: %w", c.opts.Port, err)
	}
	if err != nil {
		if port, err = freePort(ctx, 0); err != nil {
			return fmt.Errorf("looking for a free port for Postgres: %w", err)
		}
	}
	c.port = port
	return os.WriteFile(file, []byte(strconv.Itoa(port)+"\n"), 0o644) //nolint:gosec // no secret
}

func freePort(ctx context.Context, wish int) (int, error) {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(wish)))
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// writeSettings writes ambit.conf, which postgresql.conf includes.
func (c *Cluster) writeSettings() error {
	settings := [][2]string{
		{"listen_addresses", "'127.0.0.1'"},
		{"port", strconv.Itoa(c.port)},
		{"unix_socket_directories", quote(c.sockets)},
		{"max_connections", strconv.Itoa(c.opts.MaxConnections)},
		{"shared_buffers", quote(c.opts.SharedBuffers)},
		{"password_encryption", "'scram-sha-256'"},
		{"timezone", "'UTC'"},
		{"log_timezone", "'UTC'"},
		{"log_line_prefix", "'%m [%p] %q%u@%d '"},
		{"log_checkpoints", "off"},
		{"log_autovacuum_min_duration", "-1"},
		{"idle_in_transaction_session_timeout", "'5min'"},
		{"jit", "off"}, // short queries only: compiling them costs more than it gains
	}
	if c.opts.Volatile {
		settings = append(settings, [][2]string{
			{"fsync", "off"},
			{"synchronous_commit", "off"},
			{"full_page_writes", "off"},
			{"max_wal_size", "'2GB'"},
			{"checkpoint_timeout", "'30min'"},
		}...)
	} else {
		settings = append(settings, [][2]string{
			{"fsync", "on"},
			{"synchronous_commit", "on"},
			{"full_page_writes", "on"},
			{"wal_level", "'replica'"},
			{"max_wal_size", "'1GB'"},
		}...)
	}
	var b strings.Builder
	b.WriteString("# Written by Ambit at each start: changes are lost. Put yours into local.conf.\n")
	for _, s := range settings {
		fmt.Fprintf(&b, "%s = %s\n", s[0], s[1])
	}
	path := filepath.Join(c.data, "ambit.conf")
	if err := os.WriteFile(path, []byte(b.String()), 0o600); err != nil {
		return fmt.Errorf("writing Postgres's settings: %w", err)
	}
	if c.account.switched {
		if err := os.Chown(path, c.account.uid, c.account.gid); err != nil {
			return fmt.Errorf("giving Postgres its settings: %w", err)
		}
	}
	return nil
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", "''") + "'" }
