package clickhousetest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/clickhouse"
)

// New returns a migrated database that no other test sees, on the engine that
// the tests of the binary share. It is dropped at the test's end.
func New(t testing.TB) *clickhouse.DB {
	t.Helper()
	return NewOn(t, sharedEngine(t))
}

// NewOn is New on an engine of the test's own.
func NewOn(t testing.TB, engine *Engine) *clickhouse.DB {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), startTimeout)
	defer cancel()
	db, err := clickhouse.Open(ctx, clickhouse.Config{Socket: engine.Socket, Database: "test_" + random()})
	require.NoError(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if engine.cmd != nil {
			if err := db.Conn().Exec(ctx, fmt.Sprintf("DROP DATABASE IF EXISTS %s SYNC", db.Database())); err != nil {
				t.Logf("the test's ClickHouse database could not be dropped: %v", err)
			}
		}
		require.NoError(t, db.Close())
	})
	require.NoError(t, db.Migrate(ctx, slog.New(slog.DiscardHandler)))
	return db
}

func random() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
