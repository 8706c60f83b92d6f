package observability

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/clickhouse/clickhousetest"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
)

func spansOf(scope Scope, session id.Session, n int) []journal.Span {
	spans := make([]journal.Span, n)
	for i := range spans {
		spans[i] = span(scope, session, i)
	}
	return spans
}

// TestASpanArrivesWhole compares what is read with what was written, field by
// field.
func TestASpanArrivesWhole(t *testing.T) {
	pg, ch := dbtest.New(t), clickhousetest.New(t)
	scope, session := tenant(), id.New[id.Session]()
	s := span(scope, session, 1)
	s.Status, s.ErrorType, s.ErrorMessage = journal.SpanError, "rate_limited", "slow\ndown"
	long := strings.Repeat("ä", journal.MaxSpanBody)
	s.Output = journal.NewSpanBody([]byte(long))
	put(t, pg, s)
	require.NoError(t, exporter(t, pg, ch).runOnce(t.Context()))
	require.Zero(t, outboxRows(t, pg, "true"))

	got, err := NewReader(ch).Span(t.Context(), scope, session, s.SpanID)
	require.NoError(t, err)
	require.Equal(t, SpanDetail{
		SpanSummary: SpanSummary{
			ProjectID: s.ProjectID, SessionID: s.SessionID, TraceID: s.TraceID, SpanID: s.SpanID, ParentSpanID: s.ParentSpanID,
			Name: s.Name, Operation: "chat", StepID: s.StepID, Seq: 2, AgentID: "agt_1", AgentName: "Ada", AgentVersion: 3, Principal: "key_1",
			StartTime: s.StartTime, EndTime: s.EndTime, DurationUS: 1500, Status: "error", ErrorType: "rate_limited", ErrorMessage: "slow\ndown",
			Provider: "ambit", RequestModel: "ambit/scripted", ResponseModel: "ambit/scripted",
			InputTokens: 100, OutputTokens: 10, CacheReadTokens: 40, CostNanos: 1_000_000, HoldID: s.HoldID, LedgerEntryID: s.LedgerEntryID,
			Decision: "admitted", DecisionReasons: []string{"balance"}, InputBytes: uint64(s.Input.Bytes), OutputBytes: uint64(len(long)),
			TimeQueuedMS: 4, TimeGateMS: 2, TimeToFirstTokenMS: 9,
		},
		UsageOther: map[string]uint64{"images": 2}, Input: s.Input.Text, Output: s.Output.Text, OutputTruncated: true,
		Attributes: map[string]string{"gen_ai.operation.name": "chat"},
	}, got)
	require.Len(t, got.Output, journal.MaxSpanBody)
}

// TestTheSameBatchThrice sends one batch three times under its token.
func TestTheSameBatchThrice(t *testing.T) {
	ch := clickhousetest.New(t)
	scope, session := tenant(), id.New[id.Session]()
	columns := &spanColumns{}
	for _, s := range spansOf(scope, session, 2000) {
		columns.add(&s)
	}
	for range 3 {
		require.NoError(t, insertSpans(t.Context(), ch, "bat_1", columns))
	}
	requireOnce(t, ch, scope, session, 2000)

	t.Run("beyond the token's memory reads still show each once", func(t *testing.T) {
		require.NoError(t, insertSpans(t.Context(), ch, "bat_2", columns))
		require.Len(t, wholeTrace(t, NewReader(ch), scope, session, 1000), 2000)
		summary, err := NewReader(ch).TraceOf(t.Context(), scope, session)
		require.NoError(t, err)
		require.Equal(t, uint64(2000), summary.Spans)
		rows, err := NewReader(ch).Usage(t.Context(), scope, UsageFilter{From: epoch, To: epoch.Add(24 * time.Hour)})
		require.NoError(t, err)
		require.Equal(t, uint64(2000), rows[0].Spans)
	})
}

// TestABatchOverTwoMonths proves the token where a batch becomes several parts.
func TestABatchOverTwoMonths(t *testing.T) {
	ch := clickhousetest.New(t)
	scope, session := tenant(), id.New[id.Session]()
	columns := &spanColumns{}
	for i, s := range spansOf(scope, session, 300) {
		if i%2 == 0 {
			s.StartTime, s.EndTime = s.StartTime.AddDate(0, -2, 0), s.EndTime.AddDate(0, -2, 0)
		}
		columns.add(&s)
	}
	for range 3 {
		require.NoError(t, insertSpans(t.Context(), ch, "bat_1", columns))
	}
	requireOnce(t, ch, scope, session, 300)
}

// TestCrashBetweenSendAndDelete lets a batch arrive and its sender die before it
// says so.
func TestCrashBetweenSendAndDelete(t *testing.T) {
	pg, ch := dbtest.New(t), clickhousetest.New(t)
	scope, session := tenant(), id.New[id.Session]()
	put(t, pg, spansOf(scope, session, 50)...)

	// A lease of nothing: the successor need not wait for it to run out.
	dying := exporter(t, pg, ch, func(c *ExporterConfig) { c.Lease = time.Nanosecond })
	batch, err := dying.outbox.take(t.Context())
	require.NoError(t, err)
	columns, _, err := dying.load(t.Context(), batch)
	require.NoError(t, err)
	require.NoError(t, insertSpans(t.Context(), ch, batch.id, columns))
	require.Equal(t, 50, outboxRows(t, pg, "batch_id IS NOT NULL"))

	// New rows must not join the old batch.
	put(t, pg, spansOf(scope, id.New[id.Session](), 5)...)
	require.NoError(t, exporter(t, pg, ch).runOnce(t.Context()), "the old batch and what waits behind it")
	require.Zero(t, outboxRows(t, pg, "true"))
	require.Equal(t, uint64(55), number(t, ch, "SELECT count() FROM spans"))
	require.Equal(t, uint64(55), number(t, ch, "SELECT sum(spans) FROM usage_hourly"))
}

// TestALiveLeaseIsRespected keeps a second replica from a batch that is being
// sent.
func TestALiveLeaseIsRespected(t *testing.T) {
	pg, ch := dbtest.New(t), clickhousetest.New(t)
	scope, session := tenant(), id.New[id.Session]()
	put(t, pg, spansOf(scope, session, 10)...)
	first := exporter(t, pg, ch)
	batch, err := first.outbox.take(t.Context())
	require.NoError(t, err)
	require.NotNil(t, batch)
	require.NoError(t, exporter(t, pg, ch).runOnce(t.Context()))
	require.Equal(t, 10, outboxRows(t, pg, "true"))
}

func TestBatchesAreBounded(t *testing.T) {
	pg, ch := dbtest.New(t), clickhousetest.New(t)
	scope, session := tenant(), id.New[id.Session]()
	put(t, pg, spansOf(scope, session, 25)...)
	reg := prometheus.NewRegistry()
	e := exporter(t, pg, ch, func(c *ExporterConfig) { c.BatchRows, c.Metrics = 10, reg })
	require.NoError(t, e.runOnce(t.Context()))
	requireOnce(t, ch, scope, session, 25)
	require.InDelta(t, 3, counted(t, e.metrics.batches), 0)
	require.InDelta(t, 25, counted(t, e.metrics.rows), 0)
	require.InDelta(t, 0, counted(t, e.metrics.failures), 0)

	// One row is always taken, however large.
	put(t, pg, spansOf(scope, id.New[id.Session](), 4)...)
	e = exporter(t, pg, ch, func(c *ExporterConfig) { c.BatchBytes = 1 })
	require.NoError(t, e.runOnce(t.Context()))
	require.InDelta(t, 4, counted(t, e.metrics.batches), 0)
}

// TestARowThatCannotBeSent does not hold up the others.
func TestARowThatCannotBeSent(t *testing.T) {
	pg, ch := dbtest.New(t), clickhousetest.New(t)
	scope, session := tenant(), id.New[id.Session]()
	bad := span(scope, session, 100)
	bad.SpanID = "nonsense"
	ancient := span(scope, session, 101)
	ancient.StartTime = time.Time{}
	put(t, pg, append(spansOf(scope, session, 3), bad, ancient)...)
	require.NoError(t, pg.InTx(t.Context(), scope.Org, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO outbox (org_id, project_id, session_id, kind, payload) VALUES ($1, $2, $3, 'span', '[]')",
			string(scope.Org), string(scope.Project), string(session))
		return err
	}))
	e := exporter(t, pg, ch)
	require.NoError(t, e.runOnce(t.Context()))
	require.NoError(t, e.runOnce(t.Context()))
	require.Equal(t, 3, outboxRows(t, pg, "rejected IS NOT NULL AND batch_id IS NULL"))
	require.Equal(t, 3, outboxRows(t, pg, "true"))
	requireOnce(t, ch, scope, session, 3)
	require.InDelta(t, 3, counted(t, e.metrics.rejected), 0)
}

// TestALaterRecordReplacesAnEarlier is for a span that is told of twice.
func TestALaterRecordReplacesAnEarlier(t *testing.T) {
	pg, ch := dbtest.New(t), clickhousetest.New(t)
	scope, session := tenant(), id.New[id.Session]()
	early := span(scope, session, 1)
	early.Status = journal.SpanUnset
	late := early
	late.Seq, late.Status, late.CostNanos = 9, journal.SpanOK, 5
	e := exporter(t, pg, ch)
	put(t, pg, late)
	require.NoError(t, e.runOnce(t.Context()))
	put(t, pg, early)
	require.NoError(t, e.runOnce(t.Context()))
	trace := wholeTrace(t, NewReader(ch), scope, session, 10)
	require.Len(t, trace, 1)
	require.Equal(t, "ok", trace[0].Status)
	one, err := NewReader(ch).Span(t.Context(), scope, session, early.SpanID)
	require.NoError(t, err)
	require.EqualValues(t, 5, one.CostNanos)
}

// TestVisibleSoon runs the service as it runs in production. How soon the
// benchmark measures.
func TestVisibleSoon(t *testing.T) {
	pg, ch := dbtest.New(t), clickhousetest.New(t)
	scope := tenant()
	for name, withNotices := range map[string]bool{"with notices": true, "by the poll alone": false} {
		t.Run(name, func(t *testing.T) {
			e := exporter(t, pg, ch, func(c *ExporterConfig) {
				if withNotices {
					c.Notices = postgres.NewListener(pg, quiet, journal.OutboxChannel)
					c.Notices.Start(t.Context())
					t.Cleanup(c.Notices.Stop)
					<-c.Notices.Started()
				}
			})
			e.Start(t.Context())
			<-e.Started()
			reader := NewReader(ch)
			var worst time.Duration
			for range 5 {
				session := id.New[id.Session]()
				put(t, pg, spansOf(scope, session, 3)...)
				committed := time.Now()
				require.Eventually(t, func() bool {
					spans, _, err := reader.Trace(t.Context(), scope, session, TracePage{Limit: 10})
					return err == nil && len(spans) == 3
				}, 20*time.Second, 5*time.Millisecond)
				worst = max(worst, time.Since(committed))
			}
			t.Logf("slowest of 5: %s", worst)
			require.Zero(t, counted(t, e.metrics.failures))
			require.NoError(t, e.Stop(t.Context()))
			require.NoError(t, e.Stop(t.Context()), "stopping again is no error")
		})
	}
}

// TestOutage kills ClickHouse again and again while sessions go on and three
// replicas export, one of which is replaced. Nothing may be lost or counted
// twice, in the table or in the roll-up.
func TestOutage(t *testing.T) {
	pg := dbtest.New(t)
	engine := clickhousetest.NewEngine(t)
	ch := clickhousetest.NewOn(t, engine)

	const writers, perWriter = 4, 60
	scopes := []Scope{tenant(), tenant()}
	sessions := make([]id.Session, writers)
	var (
		wg      sync.WaitGroup
		written sync.Map
	)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	exporters := make([]*Exporter, 3)
	start := func(i int) {
		exporters[i] = exporter(t, pg, ch, func(c *ExporterConfig) { c.BatchRows, c.Poll, c.Lease = 40, 20*time.Millisecond, 2*time.Second })
		exporters[i].Start(ctx)
	}
	for i := range exporters {
		start(i)
	}

	total := 0
	for w := range writers {
		sessions[w] = id.New[id.Session]()
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 7)) //nolint:gosec // a repeatable load
			n := 0
			for range perWriter {
				var spans []journal.Span
				for range 1 + r.IntN(20) {
					spans = append(spans, span(scopes[w%2], sessions[w], n))
					n++
				}
				if err := putOne(ctx, pg, scopes[w%2].Org, spans); err != nil {
					t.Errorf("the journal must not notice: %v", err)
					return
				}
				time.Sleep(time.Duration(r.IntN(40)) * time.Millisecond) //nolint:forbidigo // the pace of the load, not a wait for anything
			}
			written.Store(w, n)
		})
	}
	for range 3 {
		before := outboxRows(t, pg, "true")
		require.Eventually(t, func() bool { return outboxRows(t, pg, "true") != before }, 20*time.Second, 5*time.Millisecond)
		require.Error(t, engine.Kill())
		require.NoError(t, exporters[0].Stop(ctx))
		start(0)
		// Long enough down for attempts to fail: they are what must do no harm.
		failed := counted(t, exporters[1].metrics.failures) + counted(t, exporters[2].metrics.failures) + counted(t, exporters[0].metrics.failures)
		require.Eventually(t, func() bool {
			return counted(t, exporters[1].metrics.failures)+counted(t, exporters[2].metrics.failures)+counted(t, exporters[0].metrics.failures) > failed
		}, 20*time.Second, 10*time.Millisecond)
		require.NoError(t, engine.Start(ctx))
	}
	wg.Wait()
	require.Eventually(t, func() bool { return outboxRows(t, pg, "true") == 0 }, 60*time.Second, 20*time.Millisecond)
	for _, e := range exporters {
		require.NoError(t, e.Stop(ctx))
	}

	byScope := map[Scope]uint64{}
	for w := range writers {
		n, _ := written.Load(w)
		total += n.(int)
		byScope[scopes[w%2]] += uint64(n.(int))
		require.Len(t, wholeTrace(t, NewReader(ch), scopes[w%2], sessions[w], 500), n.(int))
	}
	require.Equal(t, uint64(total), number(t, ch, "SELECT count() FROM spans"), "lost or double")
	for scope, n := range byScope {
		require.Equal(t, n, number(t, ch, fmt.Sprintf("SELECT sum(spans) FROM usage_hourly WHERE org_id = '%s'", scope.Org)))
	}
	t.Logf("%d spans, 3 kills", total)
}

// TestOutageIsSaidOnce keeps an hour's outage from filling the log.
func TestOutageIsSaidOnce(t *testing.T) {
	pg := dbtest.New(t)
	engine := clickhousetest.NewEngine(t)
	ch := clickhousetest.NewOn(t, engine)
	put(t, pg, span(tenant(), id.New[id.Session](), 1))
	require.Error(t, engine.Kill())
	var said strings.Builder
	e := exporter(t, pg, ch, func(c *ExporterConfig) { c.Log = slog.New(slog.NewTextHandler(&said, nil)) })
	for range 10 {
		require.NoError(t, e.runOnce(t.Context()))
		e.retryAt = time.Time{}
		require.NoError(t, pg.InWorkerTx(t.Context(), func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "UPDATE outbox_batches SET lease_until = now() - interval '1 second'")
			return err
		}))
	}
	require.Equal(t, 1, strings.Count(said.String(), "\n"), said.String())
	require.InDelta(t, 10, counted(t, e.metrics.failures), 0)
	require.Equal(t, 1, outboxRows(t, pg, "true"))

	require.NoError(t, engine.Start(t.Context()))
	e.retryAt = time.Time{}
	require.NoError(t, e.runOnce(t.Context()))
	require.Zero(t, outboxRows(t, pg, "true"))
	require.Contains(t, said.String(), "spans are exported again")
}

// TestTheOutboxIsTheTenants proves row-level security on the table that the
// worker may read whole.
func TestTheOutboxIsTheTenants(t *testing.T) {
	pg := dbtest.New(t)
	a, b := tenant(), tenant()
	put(t, pg, span(a, id.New[id.Session](), 1), span(b, id.New[id.Session](), 1))
	count := func(org id.Org) (n int) {
		require.NoError(t, pg.InTx(t.Context(), org, func(tx pgx.Tx) error {
			return tx.QueryRow(t.Context(), "SELECT count(*) FROM outbox").Scan(&n)
		}))
		return n
	}
	require.Equal(t, 1, count(a.Org))
	require.Zero(t, count(tenant().Org))
	err := pg.InTx(t.Context(), a.Org, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO outbox (org_id, project_id, session_id, kind, payload) VALUES ($1, 'p', 's', 'span', '{}')", string(b.Org))
		return err
	})
	require.Error(t, err, "a row of another's")
	err = pg.InTx(t.Context(), a.Org, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "DELETE FROM outbox")
		return err
	})
	require.Error(t, err, "only the exporter takes rows out")
}
