package doctor

import (
	"bytes"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/dbtest"
)

func load(t *testing.T, vars map[string]string) *examination {
	t.Helper()
	cfg, err := config.LoadFrom(vars)
	require.NoError(t, err)
	return &examination{cfg: cfg, outside: cfg}
}

func single(t *testing.T, c check, e *examination) Finding {
	t.Helper()
	found := c(t.Context(), e)
	require.Len(t, found, 1)
	if found[0].State == Failed {
		require.NotEmpty(t, found[0].Remedy, "what fails has a remedy: %s", found[0].Text)
	}
	return found[0]
}

func TestDataDirectory(t *testing.T) {
	parent, err := os.MkdirTemp("", "ambit-doctor-")
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(parent)) })
	require.NoError(t, os.Chmod(parent, 0o755)) //nolint:gosec // Postgres's account passes through
	dir := filepath.Join(parent, "data")
	e := load(t, map[string]string{"AMBIT_DATA_DIR": dir})
	require.Equal(t, OK, single(t, dataDirectory, e).State, "it need not exist")

	require.NoError(t, os.Mkdir(dir, 0o755)) //nolint:gosec // the test's own
	require.Equal(t, OK, single(t, dataDirectory, e).State)

	key := filepath.Join(dir, "master.key")
	require.NoError(t, os.WriteFile(key, []byte("x"), 0o644)) //nolint:gosec // that is the fault
	require.NoError(t, os.Chmod(key, 0o644))                  //nolint:gosec // that is the fault
	f := single(t, dataDirectory, e)
	require.Equal(t, Failed, f.State)
	require.Equal(t, "run: chmod 600 "+key, f.Remedy)
	require.NoError(t, os.Chmod(key, 0o600))

	require.NoError(t, os.Chmod(dir, 0o777)) //nolint:gosec // that is the fault
	require.Equal(t, "run: chmod go-w "+dir, single(t, dataDirectory, e).Remedy)
	require.NoError(t, os.Chmod(dir, 0o755)) //nolint:gosec // as before

	if os.Getuid() == 0 { // Postgres is another user then
		require.NoError(t, os.Chmod(parent, 0o700))
		f = single(t, dataDirectory, e)
		require.Equal(t, Failed, f.State)
		require.Contains(t, f.Text, "can't enter "+parent)
	}
}

func TestAddresses(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // closed below
	require.NoError(t, err)
	defer l.Close()
	e := load(t, map[string]string{"AMBIT_LISTEN": l.Addr().String(), "AMBIT_NODE_LISTEN": "0.0.0.0:0"})
	found := addresses(t.Context(), e)
	require.Len(t, found, 2)
	require.Equal(t, Failed, found[0].State)
	require.Contains(t, found[0].Remedy, "AMBIT_LISTEN")
	require.Equal(t, Warning, found[1].State)
	require.Contains(t, found[1].Remedy, "TLS")
	e.running = true
	require.Empty(t, addresses(t.Context(), e), "they are its own")
}

func TestPostgres(t *testing.T) {
	_, owner := dbtest.NewWithOwner(t)
	e := load(t, map[string]string{"AMBIT_POSTGRES_URL": owner})
	f := single(t, postgresAnswers, e)
	require.Equal(t, OK, f.State, f.Text)
	require.Contains(t, f.Text, "the newest")

	e = load(t, map[string]string{"AMBIT_POSTGRES_URL": "postgres://u:planted-secret@127.0.0.1:1/d?sslmode=disable"})
	f = single(t, postgresAnswers, e)
	require.Equal(t, Failed, f.State)
	require.NotContains(t, f.Text, "planted-secret")
	require.Equal(t, Skipped, single(t, postgresAnswers, load(t, nil)).State)
}

func TestSchemaVersions(t *testing.T) {
	require.Equal(t, OK, schema("p", "P", 5, 5)[0].State)
	require.Equal(t, Warning, schema("p", "P", 4, 5)[0].State, "a start migrates it")
	require.Equal(t, Failed, schema("p", "P", 6, 5)[0].State, "an older release must not touch it")
}

func TestEnginesThatDoNotAnswer(t *testing.T) {
	e := load(t, map[string]string{"AMBIT_CLICKHOUSE_URL": "http://127.0.0.1:1/d", "AMBIT_NOMAD_ADDR": "http://127.0.0.1:1"})
	e.running, e.cfg.Listen = true, "127.0.0.1:1"
	for _, c := range []check{clickhouseAnswers, nomadAnswers, serverAnswers} {
		f := single(t, c, e)
		require.Equal(t, Failed, f.State)
		require.Contains(t, f.Text, "does not answer")
	}
}

func TestMasterKeyIsNotMade(t *testing.T) {
	dir := t.TempDir()
	e := load(t, map[string]string{"AMBIT_DATA_DIR": dir})
	require.Equal(t, Skipped, single(t, masterKey, e).State)
	require.NoFileExists(t, e.cfg.MasterKeyFile)
	require.NoError(t, os.WriteFile(e.cfg.MasterKeyFile, []byte("not a key"), 0o600))
	require.Equal(t, Failed, single(t, masterKey, e).State)
}

func TestADamagedEngineIsFound(t *testing.T) {
	cache := t.TempDir()
	file := filepath.Join(cache, "chdb", "26.7.3-stable.1", "libchdb.so")
	require.NoError(t, os.MkdirAll(filepath.Dir(file), 0o700))
	require.NoError(t, os.WriteFile(file, []byte("not the library"), 0o600))
	e := load(t, map[string]string{"AMBIT_CACHE_DIR": cache})
	var seen bool
	for _, f := range engineFiles(t.Context(), e) {
		switch f.Part {
		case "engine: clickhouse":
			seen = true
			require.Equal(t, Failed, f.State)
			require.Contains(t, f.Text, "wrong hash")
			require.Equal(t, "run: rm -r "+filepath.Dir(file)+" && ambit engines clickhouse", f.Remedy)
		case "engine: kernel":
			require.Equal(t, Failed, f.State)
			require.Equal(t, "run: ambit engines kernel", f.Remedy)
		}
	}
	require.True(t, seen)
}

func TestReports(t *testing.T) {
	var text, lines bytes.Buffer
	f := Finding{Part: "nomad", State: Failed, Text: "does not answer", Remedy: "look"}
	textReport(&text)(f)
	require.Equal(t, "FAIL  nomad              does not answer\n                         → look\n", text.String())
	jsonReport(&lines)(f)
	var back Finding
	require.NoError(t, json.Unmarshal(lines.Bytes(), &back))
	require.Equal(t, f, back)
}

func TestACancelledExaminationEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	n := 0
	for f := range Examine(ctx, load(t, map[string]string{"AMBIT_DATA_DIR": t.TempDir()}).cfg) {
		require.NotContains(t, f.Part, "sandbox", "nothing is booted after that")
		if n++; n == 2 {
			cancel()
		}
	}
	require.Less(t, n, 6)
}
