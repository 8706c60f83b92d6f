package pgcluster

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// openDir is a folder that the server's account can enter, unlike t.TempDir's
// parents on some machines.
func openDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "pgc")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o755)) //nolint:gosec // see above
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func binaries(t *testing.T) string {
	t.Helper()
	dir, err := FindBinDir(t.Context())
	require.NoError(t, err)
	return dir
}

func exec1(t *testing.T, url, sql string, dest any) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), url)
	require.NoError(t, err)
	defer conn.Close(context.Background())
	if dest == nil {
		_, err = conn.Exec(t.Context(), sql)
	} else {
		err = conn.QueryRow(t.Context(), sql).Scan(dest)
	}
	require.NoError(t, err)
}

func stop(t *testing.T, c *Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	require.NoError(t, c.Stop(ctx))
}

func TestDataSurvivesStopAndKill(t *testing.T) {
	bin, dir := binaries(t), filepath.Join(openDir(t), "pg")
	c, err := Start(t.Context(), bin, dir, Options{})
	require.NoError(t, err)
	exec1(t, c.URL(), "CREATE TABLE kept (n int)", nil)
	exec1(t, c.URL(), "INSERT INTO kept VALUES (1)", nil)
	var fsync, sync string
	exec1(t, c.URL(), "SHOW fsync", &fsync)
	exec1(t, c.URL(), "SHOW synchronous_commit", &sync)
	require.Equal(t, []string{"on", "on"}, []string{fsync, sync})
	port := c.Port()
	stop(t, c)

	c, err = Start(t.Context(), bin, dir, Options{})
	require.NoError(t, err)
	require.Equal(t, port, c.Port(), "the port is kept")
	exec1(t, c.URL(), "INSERT INTO kept VALUES (2)", nil)

	// A crash leaves postmaster.pid, its socket and perhaps backends.
	require.NoError(t, syscall.Kill(c.PID(), syscall.SIGKILL))
	<-c.Done()
	c, err = Start(t.Context(), bin, dir, Options{})
	require.NoError(t, err)
	defer stop(t, c)
	var n int
	exec1(t, c.URL(), "SELECT count(*) FROM kept", &n)
	require.Equal(t, 2, n)
}

func TestAServerLeftRunningIsStopped(t *testing.T) {
	bin, dir := binaries(t), filepath.Join(openDir(t), "pg")
	first, err := Start(t.Context(), bin, dir, Options{Volatile: true})
	require.NoError(t, err)
	second, err := Start(t.Context(), bin, dir, Options{Volatile: true})
	require.NoError(t, err)
	defer stop(t, second)
	<-first.Done()
	require.NotEqual(t, first.PID(), second.PID())
}

func TestAPidFileOfAnotherProgramIsRemoved(t *testing.T) {
	bin, dir := binaries(t), filepath.Join(openDir(t), "pg")
	c, err := Start(t.Context(), bin, dir, Options{Volatile: true})
	require.NoError(t, err)
	stop(t, c)
	// As if our own process id had once been the server's.
	file := filepath.Join(c.data, "postmaster.pid")
	require.NoError(t, os.WriteFile(file, fmt.Appendf(nil, "%d\n%s\n", os.Getpid(), c.data), 0o600))
	c, err = Start(t.Context(), bin, dir, Options{Volatile: true})
	require.NoError(t, err)
	stop(t, c)
}

func TestAFolderThatTheServerCannotEnterIsNamed(t *testing.T) {
	if os.Getuid() != 0 {
		return // the server is ourselves then, and enters wherever we do
	}
	closed := openDir(t)
	require.NoError(t, os.Chmod(closed, 0o700))
	_, err := Prepare(t.Context(), binaries(t), filepath.Join(closed, "pg"), Options{})
	require.ErrorContains(t, err, "can't enter "+closed)
	require.ErrorContains(t, err, "AMBIT_DATA_DIR")
}

func TestLongPathsGetAShortSocket(t *testing.T) {
	dir := filepath.Join(openDir(t), "a-folder-with-a-name-that-is-long-enough-to-break-unix-sockets", "and-another")
	c, err := Start(t.Context(), binaries(t), dir, Options{Volatile: true})
	require.NoError(t, err)
	defer stop(t, c)
	defer os.RemoveAll(c.SocketDir())
	require.LessOrEqual(t, len(c.SocketDir()), longestSocketDir)
	url := fmt.Sprintf("postgres://%s:%s@/postgres?host=%s&port=%d", Superuser, c.password, c.SocketDir(), c.Port())
	exec1(t, url, "SELECT 1", nil)
}

func TestSharedClusterIsJoinedAndStopsWhenUnused(t *testing.T) {
	bin, dir := binaries(t), filepath.Join(openDir(t), "pg")
	first, firstUse, err := joinShared(t.Context(), bin, dir, 2*time.Second)
	require.NoError(t, err)
	second, secondUse, err := joinShared(t.Context(), bin, dir, 2*time.Second)
	require.NoError(t, err)
	require.Equal(t, first.URL(), second.URL())

	exec1(t, first.URL(), "CREATE DATABASE t_abandoned", nil)
	require.NoError(t, firstUse.Close())
	require.NoError(t, second.Ready(t.Context()), "it is still in use")
	require.NoError(t, secondUse.Close())
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(dir, "cluster", "postmaster.pid"))
		return os.IsNotExist(err)
	}, 20*time.Second, 50*time.Millisecond, "it stops after its last user")

	third, use, err := joinShared(t.Context(), bin, dir, 2*time.Second)
	require.NoError(t, err, "and starts again")
	var abandoned int
	exec1(t, third.URL(), "SELECT count(*) FROM pg_database WHERE datname = 't_abandoned'", &abandoned)
	require.Zero(t, abandoned)
	require.NoError(t, use.Close())
	require.Eventually(t, func() bool {
		_, err := os.Stat(filepath.Join(dir, "cluster", "postmaster.pid"))
		return os.IsNotExist(err)
	}, 20*time.Second, 50*time.Millisecond)
}
