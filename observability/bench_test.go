package observability

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/clickhouse/clickhousetest"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
)

// BenchmarkSpansIntoClickHouse measures how fast committed spans reach
// ClickHouse: claimed in Postgres, decoded, sent, deleted. Its floor is the
// driver alone, which inserts the same rows into the same table one value after
// the other as its manual shows, without any outbox.
//
//	go test -run '^$' -bench SpansIntoClickHouse -benchtime 10x ./observability
func BenchmarkSpansIntoClickHouse(b *testing.B) {
	for _, size := range []int{1000, DefaultBatchRows} {
		b.Run(fmt.Sprintf("exporter/batch=%d", size), func(b *testing.B) { benchmarkExporter(b, size) })
		b.Run(fmt.Sprintf("floor/batch=%d", size), func(b *testing.B) { benchmarkFloor(b, size) })
	}
}

// BenchmarkCommitToVisible measures how long after its commit a span is read
// from ClickHouse, with the exporter at work as in production. The target is two
// seconds at most.
func BenchmarkCommitToVisible(b *testing.B) {
	pg, ch := dbtest.New(b), clickhousetest.New(b)
	notices := postgres.NewListener(pg, quiet, journal.OutboxChannel)
	notices.Start(b.Context())
	defer notices.Stop()
	<-notices.Started()
	e := exporter(b, pg, ch, func(c *ExporterConfig) { c.Notices = notices })
	e.Start(b.Context())
	<-e.Started()
	reader, scope := NewReader(ch), tenant()
	var slowest time.Duration
	for b.Loop() {
		session := id.New[id.Session]()
		put(b, pg, span(scope, session, 0))
		committed := time.Now()
		for {
			spans, _, err := reader.Trace(b.Context(), scope, session, TracePage{Limit: 1})
			require.NoError(b, err)
			if len(spans) == 1 {
				break
			}
		}
		slowest = max(slowest, time.Since(committed))
	}
	b.ReportMetric(float64(slowest.Milliseconds()), "ms-max")
	b.ReportMetric(float64(b.Elapsed().Milliseconds())/float64(b.N), "ms-mean")
	require.NoError(b, e.Stop(context.Background()))
}

// backlog is how many batches wait at once.
const backlog = 6

func benchmarkExporter(b *testing.B, size int) {
	pg, ch := dbtest.New(b), clickhousetest.New(b)
	e := exporter(b, pg, ch, func(c *ExporterConfig) { c.BatchRows = size })
	scope := tenant()
	for b.Loop() {
		b.StopTimer()
		for range backlog {
			put(b, pg, spansOf(scope, id.New[id.Session](), size)...)
		}
		b.StartTimer()
		require.NoError(b, e.runOnce(b.Context()))
	}
	report(b, size*backlog)
	b.StopTimer()
	require.Zero(b, outboxRows(b, pg, "true"))
	require.Equal(b, uint64(b.N*size*backlog), number(b, ch, "SELECT count() FROM spans"))
}

func benchmarkFloor(b *testing.B, size int) {
	ch := clickhousetest.New(b)
	scope := tenant()
	rows := make([][]any, size)
	for b.Loop() {
		b.StopTimer()
		for i, s := range spansOf(scope, id.New[id.Session](), size) {
			rows[i] = rowOf(&s)
		}
		b.StartTimer()
		batch, err := ch.Conn().PrepareBatch(b.Context(), insertStatement)
		require.NoError(b, err)
		for _, row := range rows {
			require.NoError(b, batch.Append(row...))
		}
		require.NoError(b, batch.Send())
	}
	report(b, size)
	b.StopTimer()
	require.Equal(b, uint64(b.N*size), number(b, ch, "SELECT count() FROM spans"))
}

func report(b *testing.B, size int) {
	b.Helper()
	b.ReportMetric(float64(b.N*size)/b.Elapsed().Seconds(), "spans/s")
}

// rowOf is a span as the values of one row.
func rowOf(s *journal.Span) []any {
	c := &spanColumns{}
	c.add(s)
	var row []any
	for _, column := range c.list() {
		row = append(row, first(column.values))
	}
	return row
}

func first(values any) any {
	switch v := values.(type) {
	case []string:
		return v[0]
	case []bool:
		return v[0]
	case []uint64:
		return v[0]
	case []uint32:
		return v[0]
	case []int64:
		return v[0]
	case [][]string:
		return v[0]
	case []map[string]string:
		return v[0]
	case []map[string]uint64:
		return v[0]
	case []time.Time:
		return v[0]
	default:
		panic("a column of a type that the benchmark does not know")
	}
}
