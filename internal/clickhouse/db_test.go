package clickhouse_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/clickhouse"
	"ambit.dev/ambit/internal/clickhouse/clickhousetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestWrongConfigurations(t *testing.T) {
	for name, c := range map[string]struct {
		cfg  clickhouse.Config
		says string
	}{
		"nothing":      {clickhouse.Config{}, "neither by address nor by socket"},
		"both":         {clickhouse.Config{URL: "clickhouse://h:9000", Socket: "/s"}, "both by address and by socket"},
		"no address":   {clickhouse.Config{URL: "://user:hunter2@"}, "is not valid"},
		"bad name":     {clickhouse.Config{Socket: "/s", Database: "a`b"}, "cannot be the name"},
		"nobody there": {clickhouse.Config{Socket: filepath.Join(t.TempDir(), "none")}, "no such file"},
		"refused":      {clickhouse.Config{URL: "http://user:hunter2@127.0.0.1:1/x"}, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			_, err := clickhouse.Open(ctx, c.cfg)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "hunter2")
		})
	}
}

// TestByAddress reaches an engine over TCP, as a real server would be.
func TestByAddress(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	transport := &http.Transport{
		DisableCompression: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", engine.Socket)
		},
	}
	listener, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	server := &http.Server{ReadHeaderTimeout: time.Second, Handler: &httputil.ReverseProxy{
		Transport: transport,
		Rewrite:   func(r *httputil.ProxyRequest) { r.SetURL(&url.URL{Scheme: "http", Host: "engine"}) },
	}}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(listener) })
	defer func() {
		require.NoError(t, server.Close())
		wg.Wait()
		transport.CloseIdleConnections()
	}()

	db, err := clickhouse.Open(t.Context(), clickhouse.Config{URL: fmt.Sprintf("http://ambit:hunter2@%s", listener.Addr())})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	require.Equal(t, clickhouse.DefaultDatabase, db.Database())
	require.NoError(t, db.Migrate(t.Context(), slog.New(slog.DiscardHandler)))
	have, want, err := db.SchemaVersion(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, have)
	version, err := db.Version()
	require.NoError(t, err)
	require.Regexp(t, `^26\.`, version)
	var n uint64
	require.NoError(t, db.Conn().QueryRow(t.Context(), "SELECT count() FROM spans").Scan(&n))
	require.Zero(t, n)
}

// TestAPoolOutlivesARestart proves that nothing has to be opened anew after the
// engine was killed.
func TestAPoolOutlivesARestart(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	db := clickhousetest.NewOn(t, engine)
	require.Error(t, engine.Kill())
	require.Error(t, db.Ping(t.Context()))
	require.NoError(t, engine.Start(t.Context()))
	require.NoError(t, db.Ping(t.Context()))
}

// TestStartWhileItIsAway is a replica that comes up during an outage.
func TestStartWhileItIsAway(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	require.Error(t, engine.Kill())
	db, err := clickhouse.Connect(clickhouse.Config{Socket: engine.Socket})
	require.NoError(t, err)
	defer func() { require.NoError(t, db.Close()) }()
	log := slog.New(slog.DiscardHandler)
	require.Error(t, db.Migrate(t.Context(), log))
	require.NoError(t, engine.Start(t.Context()))
	require.NoError(t, db.Migrate(t.Context(), log))
	require.NoError(t, db.Ping(t.Context()))
}

func TestReplicasMigrateAtOnce(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	for round := range 3 {
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				db, err := clickhouse.Connect(clickhouse.Config{Socket: engine.Socket, Database: fmt.Sprintf("round_%d", round)})
				if err != nil {
					t.Error(err)
					return
				}
				if err := errors.Join(db.Migrate(t.Context(), slog.New(slog.DiscardHandler)), db.Close()); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
	}
}
