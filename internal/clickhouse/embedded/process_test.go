package embedded_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/clickhouse/clickhousetest"
)

// TestKillInTheMidstOfInserts proves what the outbox relies on: a batch that was
// acknowledged is there after a crash, whole, and one that was not is there
// whole or not at all.
func TestKillInTheMidstOfInserts(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	setup := open(t, options(engine))
	require.NoError(t, setup.Exec(t.Context(), "CREATE DATABASE d ENGINE = Atomic"))
	require.NoError(t, setup.Exec(t.Context(), "CREATE TABLE d.k (batch UInt64, row UInt64, s String) ENGINE = MergeTree ORDER BY (batch, row)"))

	const rows = 500
	var (
		mu    sync.Mutex
		acked []uint64
		next  atomic.Uint64
	)
	for round := range 3 {
		conn, err := clickhouse.Open(options(engine))
		require.NoError(t, err)
		require.NoError(t, conn.Ping(t.Context()))
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				for ctx.Err() == nil {
					id := next.Add(1)
					batch, err := conn.PrepareBatch(ctx, "INSERT INTO d.k (batch, row, s)")
					if err != nil {
						return
					}
					for i := range rows {
						if err := batch.Append(id, uint64(i), strings.Repeat("payload\n", 20)); err != nil {
							t.Errorf("append: %v", err)
							return
						}
					}
					if batch.Send() != nil {
						return
					}
					mu.Lock()
					acked = append(acked, id)
					mu.Unlock()
				}
			})
		}
		count := func() int { mu.Lock(); defer mu.Unlock(); return len(acked) }
		enough := (round + 1) * 5
		require.Eventually(t, func() bool { return count() >= enough }, 30*time.Second, 5*time.Millisecond)
		require.Error(t, engine.Kill(), "a killed process has no good exit status")
		cancel()
		wg.Wait()
		require.NoError(t, conn.Close())
		require.NoError(t, engine.Start(t.Context()))
	}

	var got []struct {
		Batch uint64 `ch:"batch"`
		N     uint64 `ch:"n"`
	}
	require.NoError(t, setup.Select(t.Context(), &got, "SELECT batch, count() AS n FROM d.k GROUP BY batch"))
	found := map[uint64]bool{}
	for _, g := range got {
		require.Equal(t, uint64(rows), g.N, "batch %d is there in part", g.Batch)
		found[g.Batch] = true
	}
	for _, id := range acked {
		require.True(t, found[id], "batch %d was acknowledged and is gone", id)
	}
}

// TestTerminate proves the orderly end, with a query under way.
func TestTerminate(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	conn := open(t, options(engine))
	require.NoError(t, conn.Exec(t.Context(), "CREATE DATABASE d ENGINE = Atomic"))
	require.NoError(t, conn.Exec(t.Context(), "CREATE TABLE d.t (x UInt8) ENGINE = MergeTree ORDER BY x"))
	require.NoError(t, conn.Exec(t.Context(), "INSERT INTO d.t VALUES (1)"))

	busy := make(chan error, 1)
	go func() {
		busy <- conn.Exec(context.WithoutCancel(t.Context()), "SELECT max(sipHash64(number)) FROM numbers(1000000000000)")
	}()
	require.Eventually(t, func() bool {
		var n uint64
		return conn.QueryRow(t.Context(), "SELECT count() FROM system.processes").Scan(&n) == nil && n >= 2
	}, 20*time.Second, 20*time.Millisecond)

	started := time.Now()
	require.NoError(t, engine.Stop())
	t.Logf("stopped in %s", time.Since(started))
	require.Less(t, time.Since(started), 10*time.Second, "three on a machine that does nothing else")
	require.Error(t, <-busy)
	require.NoFileExists(t, engine.Socket)

	require.NoError(t, engine.Start(t.Context()))
	var n uint64
	require.NoError(t, conn.QueryRow(t.Context(), "SELECT count() FROM d.t").Scan(&n))
	require.Equal(t, uint64(1), n)
}

func TestSecondProcessIsRefused(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	pid := engine.PID()
	err := engine.Second(t.Context())
	require.ErrorContains(t, err, fmt.Sprintf("is in use by process %d", pid))
}

func TestSocketIsPrivate(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	info, err := os.Stat(engine.Socket)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

// TestHTTP speaks the interface without the driver, where the driver would hide
// what matters.
func TestHTTP(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", engine.Socket)
		},
	}}
	post := func(t *testing.T, address string, body io.Reader, header ...string) (int, string, http.Header) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://engine/"+address, body)
		require.NoError(t, err)
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		resp, err := client.Do(req)
		require.NoError(t, err)
		defer resp.Body.Close() //nolint:errcheck // read to its end
		out, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		return resp.StatusCode, string(out), resp.Header
	}

	t.Run("formats", func(t *testing.T) {
		status, body, _ := post(t, "", strings.NewReader("SELECT 1 AS a, 'x' AS b FORMAT JSONEachRow"))
		require.Equal(t, 200, status)
		require.JSONEq(t, `{"a":1,"b":"x"}`, body)
	})
	t.Run("errors have a status and a code", func(t *testing.T) {
		status, body, header := post(t, "?query_id=q1", strings.NewReader("SELECT * FROM nowhere"))
		require.Equal(t, 404, status)
		require.Equal(t, "60", header.Get("X-ClickHouse-Exception-Code"))
		require.Equal(t, "q1", header.Get("X-ClickHouse-Query-Id"))
		require.Contains(t, body, "UNKNOWN_TABLE")
	})
	t.Run("a GET cannot write", func(t *testing.T) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://engine/?query=CREATE+DATABASE+evil", nil)
		require.NoError(t, err)
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, "164", resp.Header.Get("X-ClickHouse-Exception-Code"))
	})
	t.Run("wrong bodies", func(t *testing.T) {
		for name, c := range map[string]struct {
			address, body string
			header        []string
		}{
			"not gzip":           {"", "SELECT 1", []string{"Content-Encoding", "gzip"}},
			"unknown encoding":   {"", "SELECT 1", []string{"Content-Encoding", "rot13"}},
			"not frames":         {"?decompress=1", "SELECT 1 and more bytes than a frame's header has", nil},
			"setting's name":     {"?a%3Bb=1", "SELECT 1", nil},
			"no boundary":        {"", "SELECT 1", []string{"Content-Type", "multipart/form-data"}},
			"table of no name":   {"?a-b_structure=x", "--b\r\nContent-Disposition: form-data; name=\"a-b\"\r\n\r\n1\r\n--b--\r\n", []string{"Content-Type", "multipart/form-data; boundary=b"}},
			"truncated boundary": {"", "--b\r\nContent-Disp", []string{"Content-Type", "multipart/form-data; boundary=b"}},
		} {
			t.Run(name, func(t *testing.T) {
				status, body, header := post(t, c.address, strings.NewReader(c.body), c.header...)
				require.GreaterOrEqual(t, status, 400)
				require.NotEmpty(t, header.Get("X-ClickHouse-Exception-Code"), body)
			})
		}
	})
	t.Run("an insert that is cut off commits nothing", func(t *testing.T) {
		status, body, _ := post(t, "", strings.NewReader("CREATE TABLE default.cut (s String) ENGINE = MergeTree ORDER BY s"))
		require.Equal(t, 200, status, body)
		conn, err := (&net.Dialer{}).DialContext(t.Context(), "unix", engine.Socket)
		require.NoError(t, err)
		_, err = io.WriteString(conn, "POST /?query=INSERT+INTO+default.cut+FORMAT+TabSeparated HTTP/1.1\r\nHost: engine\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n")
		require.NoError(t, err)
		require.NoError(t, conn.(*net.UnixConn).CloseWrite())
		_, err = io.ReadAll(conn)
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		status, body, _ = post(t, "", strings.NewReader("SELECT count() FROM default.cut"))
		require.Equal(t, 200, status)
		require.Equal(t, "0\n", body)
	})
	t.Run("unknown paths", func(t *testing.T) {
		status, _, _ := post(t, "play", strings.NewReader(""))
		require.Equal(t, 404, status)
	})
}

// TestGoKeepsItsSignals runs a program that recovers from nil dereferences while
// the engine is loaded and connections come and go.
func TestGoKeepsItsSignals(t *testing.T) {
	bin := clickhousetest.Build(t, "ambit.dev/ambit/internal/clickhouse/embedded/testdata/nilderef")
	dir, err := os.MkdirTemp("", "ambit-ch-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	out, err := exec.CommandContext(t.Context(), bin, "-lib", clickhousetest.Library(t), "-dir", dir).CombinedOutput() //nolint:gosec // built above
	require.NoError(t, err, string(out))
	t.Log(strings.TrimSpace(string(out)))
}

func TestWrongLibraries(t *testing.T) {
	engine := clickhousetest.Build(t, "ambit.dev/ambit/internal/clickhouse/embedded/testdata/engine")
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(dir+"/text.so", []byte(strings.Repeat("not an object at all ", 10)), 0o600))
	for name, c := range map[string]struct{ lib, says string }{
		"missing":     {dir + "/none.so", "no such file"},
		"a directory": {dir, "is not a file"},
		"no library":  {dir + "/text.so", "invalid ELF header"},
		"another":     {libc(t), "too old or not libchdb"},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), engine, "--lib", c.lib, "--data", t.TempDir(), "--socket", dir+"/s").CombinedOutput() //nolint:gosec // built above
			require.Error(t, err)
			require.Contains(t, string(out), c.says)
		})
	}
	out, err := exec.CommandContext(t.Context(), engine, "--lib", "x", "--data", dir, "--socket", "/tmp/"+strings.Repeat("x", 120)).CombinedOutput() //nolint:gosec // built above
	require.Error(t, err)
	require.Contains(t, string(out), "at most 107")
}

// libc is some shared library that is not the engine.
func libc(t *testing.T) string {
	t.Helper()
	found, err := filepath.Glob("/lib/*/libc.so.6")
	require.NoError(t, err)
	require.NotEmpty(t, found)
	return found[0]
}
