package observability

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/clickhouse"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var quiet = slog.New(slog.DiscardHandler)

// tenant is an organisation with a project.
func tenant() Scope { return Scope{Org: id.New[id.Org](), Project: id.New[id.Project]()} }

// epoch is when the tests' spans start: recent enough for no partition to expire.
var epoch = time.Now().UTC().Truncate(time.Hour).Add(-24 * time.Hour)

// span makes the n-th span of a session. Everything in it follows from the
// arguments.
func span(scope Scope, session id.Session, n int) journal.Span {
	start := epoch.Add(time.Duration(n)*time.Second + 123*time.Microsecond)
	key := fmt.Sprintf("%s/%d", session, n)
	s := journal.Span{
		TraceID: journal.TraceID(string(session)), SpanID: journal.SpanID(key), ParentSpanID: journal.SpanID(string(session)),
		Name: "chat ambit/scripted", Operation: journal.OperationChat,
		OrgID: string(scope.Org), ProjectID: string(scope.Project), SessionID: string(session), StepID: "stp_" + key, Seq: int64(n + 1),
		AgentID: "agt_1", AgentName: "Ada", AgentVersion: 3, Principal: "key_1",
		StartTime: start, EndTime: start.Add(1500 * time.Microsecond), Status: journal.SpanOK,
		Provider: "ambit", RequestModel: "ambit/scripted", ResponseModel: "ambit/scripted",
		Usage:     map[string]int64{journal.UsageInputTokens: 100, journal.UsageOutputTokens: 10, journal.UsageCacheReadTokens: 40, "images": 2},
		CostNanos: 1_000_000, HoldID: "hld_" + key, LedgerEntryID: "led_" + key,
		Decision: "admitted", DecisionReasons: []string{"balance"},
		Input: journal.NewSpanBody([]byte(`{"text":"line\nline \u0000 ` + key + `"}`)), Output: journal.NewSpanBody([]byte(`"ok"`)),
		Attributes: map[string]string{"gen_ai.operation.name": "chat"}, TimeQueuedMS: 4, TimeGateMS: 2, TimeToFirstTokenMS: 9,
	}
	if n%3 == 2 {
		s.Operation, s.Name, s.ToolName = journal.OperationExecuteTool, "execute_tool bash", "bash"
		s.Provider, s.RequestModel, s.ResponseModel, s.Usage = "", "", "", nil
	}
	return s
}

// put writes spans into the outbox as the journal does.
func put(t testing.TB, db *postgres.DB, spans ...journal.Span) {
	t.Helper()
	byOrg := map[string][]journal.Span{}
	for _, s := range spans {
		byOrg[s.OrgID] = append(byOrg[s.OrgID], s)
	}
	for org, spans := range byOrg {
		require.NoError(t, putOne(context.Background(), db, id.Org(org), spans))
	}
}

func putOne(ctx context.Context, db *postgres.DB, org id.Org, spans []journal.Span) error {
	return db.InTx(ctx, org, func(tx pgx.Tx) error {
		batch := &pgx.Batch{}
		for _, s := range spans {
			payload, err := json.Marshal(s)
			if err != nil {
				return err
			}
			batch.Queue("INSERT INTO outbox (org_id, project_id, session_id, kind, payload) VALUES ($1, $2, $3, 'span', $4)",
				s.OrgID, s.ProjectID, s.SessionID, payload)
		}
		postgres.Notify(tx, journal.OutboxChannel, "")
		return tx.SendBatch(ctx, batch).Close()
	})
}

func exporter(t testing.TB, pg *postgres.DB, ch *clickhouse.DB, change ...func(*ExporterConfig)) *Exporter {
	t.Helper()
	cfg := ExporterConfig{Postgres: pg, ClickHouse: ch, Clock: clock.System(), Log: quiet}
	for _, c := range change {
		c(&cfg)
	}
	e, err := NewExporter(cfg)
	require.NoError(t, err)
	return e
}

// outboxRows counts what the outbox holds.
func outboxRows(t testing.TB, db *postgres.DB, condition string) (n int) {
	t.Helper()
	require.NoError(t, db.InWorkerTx(context.Background(), func(tx pgx.Tx) error {
		return tx.QueryRow(context.Background(), "SELECT count(*) FROM outbox WHERE "+condition).Scan(&n)
	}))
	return n
}

// number asks ClickHouse for one number.
func number(t testing.TB, db *clickhouse.DB, sql string) (n uint64) {
	t.Helper()
	require.NoError(t, db.Conn().QueryRow(context.Background(), sql).Scan(&n))
	return n
}

// requireOnce checks that a session's spans are there, each once, in the table,
// the roll-up and the trace.
func requireOnce(t testing.TB, ch *clickhouse.DB, scope Scope, session id.Session, want int) {
	t.Helper()
	where := fmt.Sprintf(" WHERE org_id = '%s' AND session_id = '%s'", scope.Org, session)
	require.Equal(t, uint64(want), number(t, ch, "SELECT uniqExact(span_id) FROM spans"+where), "spans are missing")
	require.Equal(t, uint64(want), number(t, ch, "SELECT count() FROM spans"+where), "spans are there twice")
	require.Equal(t, uint64(want), number(t, ch, fmt.Sprintf("SELECT sum(spans) FROM usage_hourly WHERE org_id = '%s'", scope.Org)), "the roll-up counts wrongly")
	require.Len(t, wholeTrace(t, NewReader(ch), scope, session, 1000), want)
}

// wholeTrace pages through a trace to its end.
func wholeTrace(t testing.TB, r *Reader, scope Scope, session id.Session, limit int) (all []SpanSummary) {
	t.Helper()
	page := TracePage{Limit: limit}
	for {
		spans, next, err := r.Trace(context.Background(), scope, session, page)
		require.NoError(t, err)
		all = append(all, spans...)
		if next == nil {
			return all
		}
		again, err := ParseSpanCursor(next.String())
		require.NoError(t, err)
		require.Equal(t, *next, again)
		page.After = &again
	}
}

// counted is the value of a counter.
func counted(t testing.TB, c prometheus.Counter) float64 {
	t.Helper()
	var m dto.Metric
	require.NoError(t, c.Write(&m))
	return m.GetCounter().GetValue()
}
