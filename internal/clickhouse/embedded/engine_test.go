package embedded_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/ext"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/clickhouse/clickhousetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// options are those of the stock driver on the engine's socket.
func options(engine *clickhousetest.Engine) *clickhouse.Options {
	return &clickhouse.Options{
		Protocol: clickhouse.HTTP,
		Addr:     []string{"localhost:80"},
		DialContext: func(ctx context.Context, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", engine.Socket)
		},
		Settings: clickhouse.Settings{"async_insert": 0},
	}
}

func open(t *testing.T, o *clickhouse.Options) driver.Conn {
	t.Helper()
	conn, err := clickhouse.Open(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return conn
}

// TestDriver runs the stock driver through what it can do, on one engine.
func TestDriver(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	conn := open(t, options(engine))
	ctx := t.Context()
	require.NoError(t, conn.Exec(ctx, "CREATE DATABASE d ENGINE = Atomic"))

	t.Run("handshake", func(t *testing.T) {
		require.NoError(t, conn.Ping(ctx))
		version, err := conn.ServerVersion()
		require.NoError(t, err)
		require.Equal(t, uint64(26), version.Version.Major)
		require.Equal(t, "America/St_Johns", version.Timezone.String())
	})

	t.Run("types", func(t *testing.T) {
		require.NoError(t, conn.Exec(ctx, `CREATE TABLE d.types (
			id UInt64, s String, lc LowCardinality(String), f FixedString(4), n Nullable(String), a Array(String),
			m Map(LowCardinality(String), UInt64), at DateTime64(6, 'UTC'), b Bool, d Decimal(18, 9)
		) ENGINE = MergeTree ORDER BY id`))
		at := time.Date(2026, 3, 4, 5, 6, 7, 891_234_000, time.UTC)
		batch, err := conn.PrepareBatch(ctx, "INSERT INTO d.types (id, s, lc, f, n, a, m, at, b, d)")
		require.NoError(t, err)
		nasty := "line\nline\r\n\x00tab\t'quote' \\ ; -- FORMAT Native\n\xff"
		require.NoError(t, batch.Append(uint64(10), nasty, "x", "abcd", (*string)(nil), []string{"\n", ""},
			map[string]uint64{"k\n": 1}, at, true, "1.000000001"))
		require.NoError(t, batch.Send())

		var got struct {
			S  string            `ch:"s"`
			N  *string           `ch:"n"`
			A  []string          `ch:"a"`
			M  map[string]uint64 `ch:"m"`
			At time.Time         `ch:"at"`
			B  bool              `ch:"b"`
		}
		require.NoError(t, conn.QueryRow(ctx, "SELECT s, n, a, m, at, b FROM d.types").ScanStruct(&got))
		require.Equal(t, nasty, got.S)
		require.Nil(t, got.N)
		require.Equal(t, []string{"\n", ""}, got.A)
		require.Equal(t, map[string]uint64{"k\n": 1}, got.M)
		require.True(t, at.Equal(got.At))
		require.True(t, got.B)
	})

	t.Run("statements with their rows in the text", func(t *testing.T) {
		require.NoError(t, conn.Exec(ctx, "CREATE TABLE d.text (x UInt32, s String) ENGINE = MergeTree ORDER BY x"))
		require.NoError(t, conn.Exec(ctx, "INSERT INTO d.text (x, s) VALUES (1, 'a\nb'),\n (2, concat('x', 'y')), (?, ?)", 3, "it's"))
		require.NoError(t, conn.Exec(ctx, "INSERT INTO d.text SELECT number + 10, 'SELECT; VALUES' FROM numbers(2)"))
		require.NoError(t, conn.Exec(ctx, "INSERT INTO d.text FORMAT JSONEachRow\n{\"x\": 20, \"s\": \"q\"}\n{\"x\": 21, \"s\": \"r\"}"))
		var rows []struct {
			X uint32 `ch:"x"`
			S string `ch:"s"`
		}
		require.NoError(t, conn.Select(ctx, &rows, "SELECT x, s FROM d.text ORDER BY x"))
		require.Len(t, rows, 7)
		require.Equal(t, "a\nb", rows[0].S)
		require.Equal(t, "xy", rows[1].S)
		require.Equal(t, "it's", rows[2].S)
	})

	t.Run("parameters", func(t *testing.T) {
		for _, value := range []string{"plain", "a\nb\tc", `back\slash`, "'; DROP DATABASE d --", "\x00", "ünïcode", ""} {
			var got string
			require.NoError(t, conn.QueryRow(ctx, "SELECT {v:String}", clickhouse.Named("v", value)).Scan(&got))
			require.Equal(t, value, got)
		}
		var n uint64
		require.NoError(t, conn.QueryRow(ctx, "SELECT count() FROM numbers(100) WHERE number IN {ids:Array(UInt64)}",
			clickhouse.Named("ids", []uint64{1, 5, 500})).Scan(&n))
		require.Equal(t, uint64(2), n)
		require.NoError(t, conn.QueryRow(ctx, "SELECT toUInt64($1)", 3).Scan(&n), "positional ones are bound by the driver")
	})

	t.Run("settings stay with their query", func(t *testing.T) {
		threads := func(ctx context.Context) (v string) {
			require.NoError(t, conn.QueryRow(ctx, "SELECT toString(getSetting('max_block_size'))").Scan(&v))
			return v
		}
		before := threads(ctx)
		with := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_block_size": 1234}))
		require.Equal(t, "1234", threads(with))
		require.Equal(t, before, threads(ctx))

		require.NoError(t, conn.Exec(ctx, "SET max_block_size = 77"), "a session ends with its request")
		require.Equal(t, before, threads(ctx))
		require.NoError(t, conn.Exec(ctx, "CREATE TEMPORARY TABLE mine (x UInt8)"))
		requireCode(t, conn.Exec(ctx, "SELECT * FROM mine"), 60)
	})

	t.Run("read-only queries write nothing", func(t *testing.T) {
		readonly := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"readonly": 2}))
		requireCode(t, conn.Exec(readonly, "CREATE TABLE d.no (x UInt8) ENGINE = Memory"), 164)
		strict := clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"readonly": 1, "max_threads": 1}))
		requireCode(t, conn.Exec(strict, "SET max_threads = 3"), 164)
		var n uint64
		require.NoError(t, conn.QueryRow(strict, "SELECT count() FROM numbers(3)").Scan(&n))
	})

	t.Run("errors are typed", func(t *testing.T) {
		requireCode(t, conn.Exec(ctx, "SELECT * FROM d.nowhere"), 60)
		requireCode(t, conn.Exec(ctx, "SELEC 1"), 62)
		requireCode(t, conn.Exec(clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"no_such_setting": 1})), "SELECT 1"), 115)
		requireCode(t, conn.Exec(clickhouse.Context(ctx, clickhouse.WithSettings(clickhouse.Settings{"max_memory_usage": 1_000_000})),
			"SELECT groupArray(number) FROM numbers(10000000)"), 241)
		_, err := conn.PrepareBatch(ctx, "INSERT INTO d.nowhere")
		requireCode(t, err, 60)
	})

	t.Run("an error in the midst of an answer", func(t *testing.T) {
		rows, err := conn.Query(ctx, "SELECT number, throwIf(number = 3000000) FROM numbers(5000000)")
		if err == nil {
			for rows.Next() {
			}
			err = errors.Join(rows.Err(), rows.Close())
		}
		requireCode(t, err, 395)
	})

	t.Run("a long answer", func(t *testing.T) {
		rows, err := conn.Query(ctx, "SELECT number FROM numbers(2000000)")
		require.NoError(t, err)
		var n, sum, v uint64
		for rows.Next() {
			require.NoError(t, rows.Scan(&v))
			n, sum = n+1, sum+v
		}
		require.NoError(t, rows.Err())
		require.NoError(t, rows.Close())
		require.Equal(t, uint64(2_000_000), n)
		require.Equal(t, uint64(1_999_999_000_000), sum)
	})

	t.Run("an empty answer", func(t *testing.T) {
		var rows []struct {
			X uint64 `ch:"number"`
		}
		require.NoError(t, conn.Select(ctx, &rows, "SELECT number FROM numbers(0)"))
		require.Empty(t, rows)
	})

	t.Run("external tables", func(t *testing.T) {
		table, err := ext.NewTable("wanted", ext.Column("id", "UInt64"))
		require.NoError(t, err)
		require.NoError(t, table.Append(uint64(3)))
		require.NoError(t, table.Append(uint64(4)))
		var n uint64
		require.NoError(t, conn.QueryRow(clickhouse.Context(ctx, clickhouse.WithExternalTable(table)),
			"SELECT count() FROM numbers(10) WHERE number IN (SELECT id FROM wanted)").Scan(&n))
		require.Equal(t, uint64(2), n)
	})

	t.Run("database/sql", func(t *testing.T) {
		o := options(engine)
		o.Auth.Database = "d"
		db := clickhouse.OpenDB(o)
		defer func() { require.NoError(t, db.Close()) }()
		_, err := db.ExecContext(ctx, "CREATE TABLE std (x UInt8) ENGINE = MergeTree ORDER BY x")
		require.NoError(t, err)
		_, err = db.ExecContext(ctx, "INSERT INTO std (x) VALUES ($1)", 7)
		require.NoError(t, err)
		var x uint8
		require.NoError(t, db.QueryRowContext(ctx, "SELECT x FROM std WHERE x = @x", sql.Named("x", 7)).Scan(&x))
		require.Equal(t, uint8(7), x)
	})
}

func requireCode(t *testing.T, err error, code int32) {
	t.Helper()
	var e *clickhouse.Exception
	require.ErrorAsf(t, err, &e, "want the engine's error %d", code)
	require.Equalf(t, code, e.Code, "%v", err)
}

func TestCompressions(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	for _, method := range []clickhouse.CompressionMethod{
		clickhouse.CompressionNone, clickhouse.CompressionLZ4, clickhouse.CompressionLZ4HC, clickhouse.CompressionZSTD,
		clickhouse.CompressionGZIP, clickhouse.CompressionDeflate, clickhouse.CompressionBrotli,
	} {
		t.Run(method.String(), func(t *testing.T) {
			o := options(engine)
			o.Compression = &clickhouse.Compression{Method: method, Level: 3}
			conn := open(t, o)
			ctx := t.Context()
			table := "c_" + strings.ReplaceAll(method.String(), "-", "_")
			require.NoError(t, conn.Exec(ctx, "CREATE DATABASE IF NOT EXISTS d ENGINE = Atomic"))
			require.NoError(t, conn.Exec(ctx, "CREATE TABLE d."+table+" (id UInt64, s String) ENGINE = MergeTree ORDER BY id"))
			batch, err := conn.PrepareBatch(ctx, "INSERT INTO d."+table)
			require.NoError(t, err)
			const rows = 20_000
			for i := range rows {
				require.NoError(t, batch.Append(uint64(i), fmt.Sprintf("row\n%d\x00%s", i, strings.Repeat("x", i%100))))
			}
			require.NoError(t, batch.Send())
			var n, sum uint64
			require.NoError(t, conn.QueryRow(ctx, "SELECT count(), sum(id) FROM d."+table+" WHERE s = concat('row\\n', toString(id), '\\0', repeat('x', id % 100))").Scan(&n, &sum))
			require.Equal(t, uint64(rows), n)
			require.Equal(t, uint64(rows*(rows-1)/2), sum)
			requireCode(t, conn.Exec(ctx, "SELECT * FROM d.nowhere"), 60)
		})
	}
}

// TestCancel proves that a query whose client has gone does not run on.
func TestCancel(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	conn := open(t, options(engine))
	running := func() (n uint64) {
		require.NoError(t, conn.QueryRow(t.Context(),
			"SELECT count() FROM system.processes WHERE query LIKE '%sipHash64(number)%' AND query NOT LIKE '%processes%'").Scan(&n))
		return n
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(t.Context())
	for range 3 {
		wg.Go(func() {
			var v uint64
			err := conn.QueryRow(ctx, "SELECT max(sipHash64(number)) FROM numbers(1000000000000)").Scan(&v)
			if !errors.Is(err, context.Canceled) {
				t.Errorf("want a cancelled query, got %v", err)
			}
		})
	}
	require.Eventually(t, func() bool { return running() == 3 }, 20*time.Second, 20*time.Millisecond)
	cancel()
	wg.Wait()
	require.Eventually(t, func() bool { return running() == 0 }, 10*time.Second, 20*time.Millisecond)
}

// TestParallel proves that one slow query does not hold up another.
func TestParallel(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	conn := open(t, options(engine))
	ctx, cancel := context.WithCancel(t.Context())
	slow := make(chan error, 1)
	go func() {
		slow <- conn.Exec(ctx, "SELECT sleepEachRow(1) FROM numbers(60) SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0")
	}()
	for range 10 {
		require.NoError(t, conn.Ping(t.Context()))
	}
	select {
	case err := <-slow:
		require.FailNow(t, "the slow query ended first", "%v", err)
	default:
	}
	cancel()
	require.ErrorIs(t, <-slow, context.Canceled)
}
