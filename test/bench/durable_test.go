package bench

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/engines/pgcluster"
	"ambit.dev/ambit/internal/postgres"
)

// durable is a database on a cluster of its own that waits for the disk at each commit, as an instance's does and the tests' shared one
// does not: a step that is not durable is not what is measured.
func durable(b testing.TB) (db *postgres.DB, owner string) {
	b.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	binaries, err := pgcluster.FindBinDir(ctx)
	require.NoError(b, err)
	dir, err := os.MkdirTemp("/var/tmp", "ambit-bench-") // on a disk, where the tests' temporary folder may be memory
	require.NoError(b, err)
	require.NoError(b, os.Chmod(dir, 0o711)) //nolint:gosec // the server's account passes through
	cluster, err := pgcluster.Start(ctx, binaries, dir, pgcluster.Options{})
	require.NoError(b, err)
	b.Cleanup(func() {
		stopping, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = cluster.Stop(stopping)
		_ = os.RemoveAll(dir)
	})
	conn, err := pgx.Connect(ctx, cluster.URL())
	require.NoError(b, err)
	_, err = conn.Exec(ctx, "CREATE DATABASE ambit")
	require.NoError(b, err)
	require.NoError(b, conn.Close(ctx))
	owner = cluster.DatabaseURL("ambit")
	require.NoError(b, postgres.Migrate(ctx, owner, dbtest.Passwords(), slog.New(slog.DiscardHandler)))
	db, err = postgres.Open(ctx, postgres.Config{OwnerURL: owner, Passwords: dbtest.Passwords(), MaxConns: 40})
	require.NoError(b, err)
	b.Cleanup(db.Close)
	return db, owner
}
