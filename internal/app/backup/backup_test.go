package backup

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/clickhouse"
	"ambit.dev/ambit/internal/clickhouse/clickhousetest"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/seal"
)

// dataDir is a folder that Postgres's account can enter.
func dataDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "ambit-backup-")
	require.NoError(t, err)
	require.NoError(t, os.Chmod(dir, 0o711)) //nolint:gosec // see above
	t.Cleanup(func() { require.NoError(t, os.RemoveAll(dir)) })
	return dir
}

func openClickHouse(t *testing.T, cfg config.Config) *clickhouse.DB {
	t.Helper()
	db, err := clickhouse.Open(t.Context(), up.ClickHouseConfig(cfg))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return db
}

// source is an instance with something in every part of it.
func source(t *testing.T, engine *clickhousetest.Engine) config.Config {
	t.Helper()
	db, owner := dbtest.NewWithOwner(t)
	dbtest.NewOrg(t, db)
	dir := dataDir(t)
	cfg, err := config.LoadFrom(map[string]string{
		"AMBIT_DATA_DIR": dir, "AMBIT_POSTGRES_URL": owner, "AMBIT_CLICKHOUSE_URL": "unix://" + engine.Socket + "?database=backup_source",
	})
	require.NoError(t, err)
	_, err = seal.Open("", cfg.MasterKeyFile) // makes the key
	require.NoError(t, err)
	blob := filepath.Join(dir, "blobs", "org_x", "ab")
	require.NoError(t, os.MkdirAll(filepath.Dir(blob), 0o700))
	require.NoError(t, os.WriteFile(blob, []byte("a stored file\x00\xff"), 0o600))

	ch := openClickHouse(t, cfg)
	require.NoError(t, ch.Migrate(t.Context(), slog.New(slog.DiscardHandler)))
	// Bytes that are no text, a row that stands twice, maps and lists.
	for range 2 {
		require.NoError(t, ch.Conn().Exec(t.Context(), `INSERT INTO spans (org_id, project_id, session_id, start_time, end_time, span_id, trace_id, name, seq,
				cost_nanos, usage_other, attributes, decision_reasons, input, input_truncated, input_tokens)
			SELECT 'org_x', 'prj_x', concat('ses_', toString(number % 7)), toDateTime64('2026-11-20 10:00:00.123456', 6, 'UTC') + number, toDateTime64('2026-11-20 10:00:09', 6, 'UTC') + number,
				leftPad(toString(number), 16, '0'), leftPad('1', 32, 'a'), 'chat', number, toInt64(number) * -3,
				map('images', number), map('k', 'v', '', ''), ['one', 'two'], unhex('C3287F00'), number % 2 = 0, number
			FROM numbers(12000) SETTINGS insert_deduplicate = 0`))
	}
	return cfg
}

// fingerprint is equal for equal spans, whatever their order on the disk.
func fingerprint(t *testing.T, ch *clickhouse.DB) (rows, sum uint64) {
	t.Helper()
	require.NoError(t, ch.Conn().QueryRow(t.Context(), `SELECT count(), sum(cityHash64(org_id, project_id, session_id, start_time, end_time, span_id, trace_id, name, seq,
		cost_nanos, toString(mapSort(usage_other)), toString(mapSort(attributes)), decision_reasons, input, input_truncated, input_tokens, inserted_at)) FROM spans FINAL`).Scan(&rows, &sum))
	return rows, sum
}

func TestAnInstanceComesBackWhole(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	from := source(t, engine)
	file := filepath.Join(t.TempDir(), "instance.backup")
	var told bytes.Buffer
	made, err := Make(t.Context(), from, file, Options{Out: &told})
	require.NoError(t, err, told.String())
	require.EqualValues(t, 12000, made.Spans)
	require.NotContains(t, made.Parts, partMasterKey)
	require.Contains(t, made.Parts, "blobs/org_x/ab")
	st, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), st.Mode().Perm())
	_, err = Make(t.Context(), from, file, Options{Out: io.Discard})
	require.ErrorContains(t, err, "is there already")

	// To another machine: a new cluster, which has not even the roles yet.
	dir := dataDir(t)
	to, err := config.LoadFrom(map[string]string{
		"AMBIT_DATA_DIR": dir, "AMBIT_CLICKHOUSE_URL": "unix://" + engine.Socket + "?database=backup_target",
	})
	require.NoError(t, err)
	_, err = Restore(t.Context(), to, file, RestoreOptions{Out: io.Discard})
	require.ErrorContains(t, err, "which it does not hold", "without the key nothing is begun")
	require.NoDirExists(t, filepath.Join(dir, "blobs"))

	key, err := os.ReadFile(from.MasterKeyFile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(to.MasterKeyFile, key, 0o600))
	_, err = Restore(t.Context(), to, file, RestoreOptions{Out: &told})
	require.NoError(t, err, told.String())

	sameInstance(t, from, to)

	_, err = Restore(t.Context(), to, file, RestoreOptions{Out: io.Discard})
	require.ErrorIs(t, err, ErrNotEmpty)
	sameInstance(t, from, to)
	_, err = Restore(t.Context(), to, file, RestoreOptions{Force: true, Out: io.Discard})
	require.NoError(t, err)
	sameInstance(t, from, to)
}

func sameInstance(t *testing.T, from, to config.Config) {
	t.Helper()
	blob, err := os.ReadFile(filepath.Join(to.DataDir, "blobs", "org_x", "ab"))
	require.NoError(t, err)
	require.Equal(t, "a stored file\x00\xff", string(blob))

	source, target := openClickHouse(t, from), openClickHouse(t, to)
	wantRows, wantSum := fingerprint(t, source)
	rows, sum := fingerprint(t, target)
	require.Equal(t, wantRows, rows)
	require.Equal(t, wantSum, sum)
	var spans uint64
	require.NoError(t, target.Conn().QueryRow(t.Context(), "SELECT sum(spans) FROM usage_hourly").Scan(&spans))
	require.Equal(t, wantRows, spans, "the hourly usage was computed anew, each span once")

	require.NoError(t, up.WithDatabases(t.Context(), to, io.Discard, true, func(ctx context.Context, cfg config.Config) error {
		require.Equal(t, describe(t, from.PostgresURL), describe(t, cfg.PostgresURL))
		return nil
	}))
}

// describe lists a database's tables with their rows, its policies, and who owns
// its functions: those that look past the tenant's walls must not belong to the
// superuser.
func describe(t *testing.T, address config.Address) []string {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), address.Reveal())
	require.NoError(t, err)
	defer conn.Close(context.Background())
	rows, err := conn.Query(t.Context(), `
		SELECT format('%s.%s rows=%s rls=%s/%s', n.nspname, c.relname, (xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM %I.%I', n.nspname, c.relname), false, true, '')))[1]::text,
			c.relrowsecurity, c.relforcerowsecurity)
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname IN ('public', 'river')
		UNION ALL SELECT format('policy %s on %s to %s', policyname, tablename, roles) FROM pg_policies
		UNION ALL SELECT format('function %s owned by %s definer=%s', p.proname, pg_get_userbyid(p.proowner), p.prosecdef) FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace WHERE n.nspname = 'public'
		UNION ALL SELECT format('grant %s on %s to %s', privilege_type, table_name, grantee) FROM information_schema.role_table_grants WHERE grantee LIKE 'ambit%'
		ORDER BY 1`)
	require.NoError(t, err)
	out, err := pgx.CollectRows(rows, pgx.RowTo[string])
	require.NoError(t, err)
	require.Greater(t, len(out), 50)
	return out
}

func TestTheMasterKeyTravelsOnlyWhenAsked(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	from := source(t, engine)
	file := filepath.Join(t.TempDir(), "instance.backup")
	made, err := Make(t.Context(), from, file, Options{IncludeMasterKey: true, Out: io.Discard})
	require.NoError(t, err)
	require.Contains(t, made.Parts, partMasterKey)

	dir := t.TempDir()
	to := from
	to.DataDir, to.MasterKeyFile = dir, filepath.Join(dir, "master.key")
	included := filepath.Join(dir, "included")
	key, err := os.ReadFile(from.MasterKeyFile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(included, key, 0o600))

	install, err := checkMasterKey(t.Context(), to, included, made, false)
	require.NoError(t, err)
	require.NoError(t, install())
	got, err := os.ReadFile(to.MasterKeyFile)
	require.NoError(t, err)
	require.Equal(t, key, got)

	// Another key here is not replaced silently, and never thrown away.
	require.NoError(t, os.WriteFile(to.MasterKeyFile, []byte(seal.NewKey()+"\n"), 0o600))
	_, err = checkMasterKey(t.Context(), to, included, made, false)
	require.ErrorContains(t, err, "the master key here is")
	install, err = checkMasterKey(t.Context(), to, included, made, true)
	require.NoError(t, err)
	require.NoError(t, install())
	aside, err := filepath.Glob(to.MasterKeyFile + ".*")
	require.NoError(t, err)
	require.Len(t, aside, 1)
}

func TestADamagedBackupIsRefused(t *testing.T) {
	whole := archive(t, func(w *writer) {
		require.NoError(t, w.add(partPostgres, 5, bytes.NewReader([]byte("dump!"))))
		require.NoError(t, w.add("blobs/a/b", 3, bytes.NewReader([]byte("abc"))))
	})
	_, err := Verify(t.Context(), write2(t, whole))
	require.NoError(t, err)

	flipped := bytes.Replace(whole, []byte("dump!"), []byte("dump?"), 1)
	_, err = Verify(t.Context(), write2(t, flipped))
	require.ErrorIs(t, err, ErrDamaged)
	for cut := 0; cut < len(whole)-1024; cut += 300 { // the last 1024 bytes are the archive's end mark
		_, err = Verify(t.Context(), write2(t, whole[:cut]))
		require.ErrorIs(t, err, ErrDamaged, "cut after %d bytes", cut)
	}
	for _, name := range []string{"../escape", "blobs/../../escape", "/etc/passwd", "other"} {
		bad := archive(t, func(w *writer) { require.NoError(t, w.add(name, 1, bytes.NewReader([]byte("x")))) })
		_, err = Verify(t.Context(), write2(t, bad))
		require.ErrorIs(t, err, ErrDamaged, name)
	}
}

func archive(t *testing.T, fill func(*writer)) []byte {
	t.Helper()
	var b bytes.Buffer
	w := newWriter(&b)
	fill(w)
	require.NoError(t, w.finish(Manifest{Made: time.Now()}))
	return b.Bytes()
}

func write2(t *testing.T, b []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(file, b, 0o600))
	return file
}

func TestAShrinkingFileIsNoticed(t *testing.T) {
	w := newWriter(io.Discard)
	require.ErrorContains(t, w.add("blobs/x", 10, bytes.NewReader([]byte("short"))), "shrank")
}
