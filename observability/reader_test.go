package observability

import (
	"context"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"testing"
	"time"

	chdriver "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/clickhouse"
	"ambit.dev/ambit/internal/clickhouse/clickhousetest"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	migrations "ambit.dev/ambit/migrations/clickhouse"
)

// store puts spans into ClickHouse without the outbox.
func store(t testing.TB, ch *clickhouse.DB, spans ...journal.Span) {
	t.Helper()
	columns := &spanColumns{}
	for i := range spans {
		columns.add(&spans[i])
	}
	require.NoError(t, insertSpans(context.Background(), ch, string(id.New[id.Batch]()), columns))
}

// TestALongTrace pages through 20,000 spans.
func TestALongTrace(t *testing.T) {
	ch := clickhousetest.New(t)
	scope, session := tenant(), id.New[id.Session]()
	const n = 20_000
	spans := spansOf(scope, session, n)
	// Many of them start in one microsecond, where only the span's id orders them.
	for i := range spans {
		spans[i].StartTime = epoch.Add(time.Duration(i/700) * time.Second)
		spans[i].EndTime = spans[i].StartTime
	}
	store(t, ch, spans[:n/2]...)
	store(t, ch, spans[n/2-100:]...) // some twice
	started := time.Now()
	got := wholeTrace(t, NewReader(ch), scope, session, 500)
	t.Logf("%d spans in pages of 500: %s", len(got), time.Since(started))
	require.Len(t, got, n)
	require.True(t, sort.SliceIsSorted(got, func(i, j int) bool {
		if !got[i].StartTime.Equal(got[j].StartTime) {
			return got[i].StartTime.Before(got[j].StartTime)
		}
		return got[i].SpanID < got[j].SpanID
	}))
	seen := map[string]bool{}
	for _, s := range got {
		require.False(t, seen[s.SpanID], "a span came twice")
		seen[s.SpanID] = true
	}
	started = time.Now()
	summary, err := NewReader(ch).TraceOf(t.Context(), scope, session)
	require.NoError(t, err)
	t.Logf("its summary: %s", time.Since(started))
	require.EqualValues(t, n, summary.Spans)
}

func TestTraces(t *testing.T) {
	ch := clickhousetest.New(t)
	r := NewReader(ch)
	scope := tenant()
	sessions := make([]id.Session, 7)
	for i := range sessions {
		sessions[i] = id.New[id.Session]()
		spans := spansOf(scope, sessions[i], 6)
		root := spans[0]
		root.SpanID, root.ParentSpanID, root.Operation, root.CostNanos = journal.SpanID(string(sessions[i])), "", journal.OperationInvokeAgent, 6_000_000
		if i == 2 { // a step failed, and the session with it
			spans[3].Status, root.Status = journal.SpanError, journal.SpanError
		}
		if i == 4 {
			spans[3].RequestModel, spans[5].ToolName, spans[5].Decision = "other/model", "python", "denied"
		}
		if i == 5 {
			for j := range spans {
				spans[j].AgentID = "agt_other"
			}
		}
		store(t, ch, append(spans, root)...)
	}
	list := func(f TraceFilter) (ids []id.Session) {
		t.Helper()
		if f.Limit == 0 {
			f.Limit = 100
		}
		traces, _, err := r.Traces(t.Context(), scope, f)
		require.NoError(t, err)
		for _, tr := range traces {
			ids = append(ids, id.Session(tr.SessionID))
		}
		return ids
	}
	newestFirst := make([]id.Session, 0, len(sessions))
	for i := len(sessions) - 1; i >= 0; i-- {
		newestFirst = append(newestFirst, sessions[i])
	}
	require.Equal(t, newestFirst, list(TraceFilter{}))
	require.Equal(t, []id.Session{sessions[2]}, list(TraceFilter{ErrorsOnly: true}))
	require.Equal(t, []id.Session{sessions[4]}, list(TraceFilter{DeniedOnly: true}))
	require.Equal(t, []id.Session{sessions[4]}, list(TraceFilter{Model: "other/model", Tool: "python"}), "in spans of two kinds")
	require.Equal(t, []id.Session{sessions[5]}, list(TraceFilter{AgentID: "agt_other"}))
	require.Empty(t, list(TraceFilter{AgentID: "agt_other", ErrorsOnly: true}))
	require.Empty(t, list(TraceFilter{To: time.Now().Add(-time.Hour)}))
	require.Len(t, list(TraceFilter{From: time.Now().Add(-time.Hour), To: time.Now().Add(time.Hour)}), 7)

	failed, err := r.TraceOf(t.Context(), scope, sessions[2])
	require.NoError(t, err)
	require.EqualValues(t, 1, failed.Errors, "the step's; the session's is the same one")

	// A failure that a later record of the same span took back.
	undone := span(scope, sessions[2], 3)
	undone.Seq = 100
	store(t, ch, undone)
	require.Equal(t, []id.Session{sessions[2]}, list(TraceFilter{ErrorsOnly: true}))
	failed, err = r.TraceOf(t.Context(), scope, sessions[2])
	require.NoError(t, err)
	require.EqualValues(t, 1, failed.Errors, "a session that failed and no step of it")
	whole := spansOf(scope, sessions[2], 6)[0]
	whole.SpanID, whole.ParentSpanID, whole.Operation, whole.CostNanos, whole.Seq = journal.SpanID(string(sessions[2])), "", journal.OperationInvokeAgent, 6_000_000, 101
	store(t, ch, whole)
	require.Empty(t, list(TraceFilter{ErrorsOnly: true}))

	var paged []id.Session
	f := TraceFilter{Limit: 3}
	for {
		traces, next, err := r.Traces(t.Context(), scope, f)
		require.NoError(t, err)
		for _, tr := range traces {
			paged = append(paged, id.Session(tr.SessionID))
		}
		if next == "" {
			break
		}
		f.Before = next
	}
	require.Equal(t, newestFirst, paged)

	got, err := r.TraceOf(t.Context(), scope, sessions[4])
	require.NoError(t, err)
	sort.Strings(got.Models)
	sort.Strings(got.Tools)
	require.Equal(t, TraceSummary{
		ProjectID: string(scope.Project), SessionID: string(sessions[4]), TraceID: journal.TraceID(string(sessions[4])),
		StartTime: epoch.Add(123 * time.Microsecond), EndTime: epoch.Add(5*time.Second + 1623*time.Microsecond),
		Spans: 7, ModelCalls: 4, ToolCalls: 2, Denied: 1, InputTokens: 400, OutputTokens: 40, CostNanos: 6_000_000,
		AgentID: "agt_1", AgentName: "Ada", AgentVersion: 3,
		Models: []string{"ambit/scripted", "other/model"}, Tools: []string{"bash", "python"}, LastSeq: 6,
	}, got)
}

func TestUsage(t *testing.T) {
	ch := clickhousetest.New(t)
	r := NewReader(ch)
	scope, session := tenant(), id.New[id.Session]()
	spans := spansOf(scope, session, 7200) // one a second, for two hours
	root := spans[0]
	root.SpanID, root.Operation = journal.SpanID("root"), journal.OperationInvokeAgent
	store(t, ch, append(spans, root)...)
	two := UsageFilter{From: epoch, To: epoch.Add(2 * time.Hour)}

	both := map[string]func(context.Context, Scope, UsageFilter) ([]UsageRow, error){"spans": r.Usage, "hourly": r.UsageHourly}
	for name, usage := range both {
		t.Run(name, func(t *testing.T) {
			rows, err := usage(t.Context(), scope, two)
			require.NoError(t, err)
			require.Len(t, rows, 1)
			require.InDelta(t, 1500, rows[0].P95US, 1)
			rows[0].P50US, rows[0].P95US, rows[0].P99US = 0, 0, 0
			require.Equal(t, UsageRow{
				Bucket: epoch, Spans: 7200, InputTokens: 480_000, OutputTokens: 48_000, CacheReadTokens: 192_000,
				CostNanos: 7_200_000_000, DurationUS: 7200 * 1500,
			}, rows[0])

			f := two
			f.Bucket, f.GroupBy = BucketHour, []UsageGroup{GroupModel, GroupTool, GroupModel}
			rows, err = usage(t.Context(), scope, f)
			require.NoError(t, err)
			require.Len(t, rows, 4)
			for i, row := range rows {
				require.Equal(t, epoch.Add(time.Duration(i/2)*time.Hour), row.Bucket)
				require.Empty(t, row.AgentID, "not asked for")
			}
			require.Equal(t, "bash", rows[0].Tool)
			require.EqualValues(t, 1200, rows[0].Spans)
			require.Equal(t, "ambit/scripted", rows[1].Model)
			require.EqualValues(t, 2400, rows[1].Spans)

			f = two
			f.Tool, f.Bucket, f.GroupBy = "bash", BucketDay, []UsageGroup{GroupProject, GroupAgent, GroupVersion, GroupOperation}
			rows, err = usage(t.Context(), Scope{Org: scope.Org}, f)
			require.NoError(t, err)
			require.Equal(t, string(scope.Project), rows[0].ProjectID)
			require.Equal(t, "agt_1", rows[0].AgentID)
			require.EqualValues(t, 3, rows[0].AgentVersion)
			require.Equal(t, "execute_tool", rows[0].Operation)
			for _, bucket := range []UsageBucket{BucketWeek, BucketMonth} {
				f.Bucket = bucket
				rows, err := usage(t.Context(), scope, f)
				require.NoError(t, err)
				require.NotEmpty(t, rows)
				require.False(t, rows[0].Bucket.After(epoch))
			}
		})
	}
	f := two
	f.Bucket, f.SessionID = BucketMinute, session
	rows, err := r.Usage(t.Context(), scope, f)
	require.NoError(t, err)
	require.Len(t, rows, 120)

	for name, wrong := range map[string]UsageFilter{
		"bucket": {From: epoch, To: epoch.Add(1), Bucket: "second; DROP TABLE spans"},
		"group":  {From: epoch, To: epoch.Add(1), GroupBy: []UsageGroup{"input"}},
		"time":   {From: epoch, To: epoch},
	} {
		_, err := r.Usage(t.Context(), scope, wrong)
		require.Equal(t, fault.Invalid, fault.As(err).Kind, name)
	}
	_, err = r.UsageHourly(t.Context(), scope, UsageFilter{From: epoch, To: epoch.Add(1), Bucket: BucketMinute})
	require.Equal(t, fault.Invalid, fault.As(err).Kind)
}

// everyQuery is each query of the package, as it is asked for scope.
func everyQuery(scope Scope, session id.Session) map[string]query {
	all := TraceFilter{
		From: epoch.Add(-time.Hour), To: epoch.Add(100 * time.Hour), AgentID: "agt_1", Model: "ambit/scripted", Tool: "bash",
		ErrorsOnly: true, DeniedOnly: true, Before: "ses_7zzzzzzzzzzzzzzzzzzzzzzzzz", Limit: 20,
	}
	usage := UsageFilter{
		From: epoch, To: epoch.Add(time.Hour), Bucket: BucketHour, GroupBy: []UsageGroup{GroupModel, GroupAgent},
		AgentID: "agt_1", Model: "m", Tool: "t", Operation: "chat",
	}
	usageOfSession := usage
	usageOfSession.SessionID = session
	return map[string]query{
		"trace_first":    traceQuery(scope, session, TracePage{Limit: 100}),
		"trace_next":     traceQuery(scope, session, TracePage{Limit: 100, After: &SpanCursor{start: epoch, span: journal.SpanID("x")}}),
		"span":           spanQuery(scope, session, journal.SpanID("x")),
		"traces":         tracesQuery(scope, TraceFilter{Limit: 20}),
		"traces_all":     tracesQuery(scope, all),
		"usage":          usageQuery(scope, UsageFilter{From: epoch, To: epoch.Add(time.Hour)}),
		"usage_all":      usageQuery(scope, usageOfSession),
		"usage_org":      usageQuery(Scope{Org: scope.Org}, UsageFilter{From: epoch, To: epoch.Add(time.Hour), Bucket: BucketMonth}),
		"usage_hourly":   usageHourlyQuery(scope, UsageFilter{From: epoch, To: epoch.Add(time.Hour), Bucket: BucketDay}),
		"usage_hour_all": usageHourlyQuery(scope, usage),
	}
}

var update = flag.Bool("update", false, "write the golden files anew")

// TestGoldenSQL keeps every statement where a reviewer sees its changes.
func TestGoldenSQL(t *testing.T) {
	for name, q := range everyQuery(tenant(), id.New[id.Session]()) {
		path := filepath.Join("testdata", name+".sql")
		if *update {
			require.NoError(t, os.MkdirAll("testdata", 0o755))
			require.NoError(t, os.WriteFile(path, []byte(q.sql+"\n"), 0o644)) //nolint:gosec // a source file
		}
		want, err := os.ReadFile(path)
		require.NoError(t, err, "run the test with -update")
		require.Equal(t, string(want), q.sql+"\n", name)
		// The tenant comes first, and no value is part of the text.
		require.Regexp(t, `WHERE (s\.)?org_id = \{org:String\}`, q.sql)
		for _, value := range q.params {
			if s, ok := value.(string); ok && len(s) > 3 && s != "chat" && s != "bash" {
				require.NotContains(t, q.sql, s)
			}
		}
	}
}

// TestEveryQueryRuns runs each on the engine; the others' data is what it must
// not show.
func TestEveryQueryRuns(t *testing.T) {
	ch := clickhousetest.New(t)
	mine, theirs := tenant(), tenant()
	session := id.New[id.Session]()
	store(t, ch, spansOf(mine, session, 9)...)
	store(t, ch, spansOf(theirs, session, 9)...)
	for name, q := range everyQuery(mine, session) {
		rows, err := ch.Conn().Query(t.Context(), q.sql, args(q)...)
		require.NoError(t, err, name)
		require.NoError(t, rows.Close())
	}
}

// ownCondition matches what a query itself says about the tenant.
var ownCondition = regexp.MustCompile(`(s\.)?(org_id|project_id) = \{(org|project):String\}`)

// TestTheGuardAlone takes every query's own condition away and runs it for one
// organisation over another's rows: the second guard alone must yield nothing.
func TestTheGuardAlone(t *testing.T) {
	ch := clickhousetest.New(t)
	r := NewReader(ch)
	theirs, mine := tenant(), tenant()
	sibling := Scope{Org: theirs.Org, Project: id.New[id.Project]()}
	session := id.New[id.Session]()
	spans := spansOf(theirs, session, 9)
	store(t, ch, spans...)

	queries := map[string]query{
		"trace":  traceQuery(theirs, session, TracePage{Limit: 100}),
		"span":   spanQuery(theirs, session, spans[0].SpanID),
		"traces": tracesQuery(theirs, TraceFilter{Limit: 20}),
		"usage":  usageQuery(theirs, UsageFilter{From: epoch, To: epoch.Add(time.Hour), Bucket: BucketHour}),
		"hourly": usageHourlyQuery(theirs, UsageFilter{From: epoch, To: epoch.Add(time.Hour), Bucket: BucketHour}),
	}
	for name, q := range queries {
		q.sql = ownCondition.ReplaceAllString(q.sql, "1")
		delete(q.params, "org")
		delete(q.params, "project")
		count := func(scope Scope) int {
			t.Helper()
			switch name {
			case "trace":
				var out []SpanSummary
				require.NoError(t, r.run(t.Context(), scope, q, &out), name)
				return len(out)
			case "span":
				var out []SpanDetail
				require.NoError(t, r.run(t.Context(), scope, q, &out), name)
				return len(out)
			case "traces":
				var out []TraceSummary
				require.NoError(t, r.run(t.Context(), scope, q, &out), name)
				return len(out)
			default:
				var out []UsageRow
				require.NoError(t, r.run(t.Context(), scope, q, &out), name)
				return len(out)
			}
		}
		require.Positive(t, count(theirs), "%s: the query as such finds something", name)
		require.Zero(t, count(mine), name)
		require.Zero(t, count(sibling), name)
	}
}

// TestTwoOrganisations asks with another's ids, through the whole interface.
func TestTwoOrganisations(t *testing.T) {
	ch := clickhousetest.New(t)
	r := NewReader(ch)
	theirs := tenant()
	session := id.New[id.Session]()
	spans := spansOf(theirs, session, 9)
	store(t, ch, spans...)
	for _, scope := range []Scope{tenant(), {Org: theirs.Org, Project: id.New[id.Project]()}, {Org: id.New[id.Org](), Project: theirs.Project}} {
		got, next, err := r.Trace(t.Context(), scope, session, TracePage{Limit: 10})
		require.NoError(t, err)
		require.Empty(t, got)
		require.Nil(t, next)
		_, err = r.Span(t.Context(), scope, session, spans[0].SpanID)
		require.Equal(t, fault.NotFound(), fault.As(err), "the same as for a span that never was")
		_, err = r.TraceOf(t.Context(), scope, session)
		require.Equal(t, fault.NotFound(), fault.As(err))
		traces, _, err := r.Traces(t.Context(), scope, TraceFilter{Limit: 10})
		require.NoError(t, err)
		require.Empty(t, traces)
		rows, err := r.Usage(t.Context(), scope, UsageFilter{From: epoch, To: epoch.Add(time.Hour), Bucket: BucketHour})
		require.NoError(t, err)
		require.Empty(t, rows)
	}
	for _, scope := range []Scope{{}, {Org: "org_x' OR 1 = 1 --", Project: theirs.Project}, {Org: theirs.Org, Project: "prj_'"}} {
		_, _, err := r.Trace(t.Context(), scope, session, TracePage{Limit: 10})
		require.Error(t, err, "ids of no shape never reach a statement")
	}
}

// TestEveryTableIsGuarded refuses a table that the second guard does not know.
func TestEveryTableIsGuarded(t *testing.T) {
	ch := clickhousetest.New(t)
	var tables []struct {
		Name string `ch:"name"`
	}
	require.NoError(t, ch.Conn().Select(t.Context(), &tables,
		"SELECT name FROM system.tables WHERE database = currentDatabase() AND engine LIKE '%MergeTree' AND name != 'goose_db_version' ORDER BY name"))
	var names []string
	for _, table := range tables {
		names = append(names, table.Name)
	}
	require.Equal(t, guardedTables, names)
}

func TestClickHouseIsDown(t *testing.T) {
	engine := clickhousetest.NewEngine(t)
	ch := clickhousetest.NewOn(t, engine)
	require.Error(t, engine.Kill())
	_, _, err := NewReader(ch).Trace(t.Context(), tenant(), id.New[id.Session](), TracePage{Limit: 1})
	require.Equal(t, fault.Unavailable, fault.As(err).Kind)
	require.NotContains(t, fault.As(err).Message, engine.Socket)
	require.Error(t, ch.Ping(t.Context()))
}

// TestMigrationsAgain runs them over what is there already, as after a migration
// that was cut off.
func TestMigrationsAgain(t *testing.T) {
	ch := clickhousetest.New(t)
	have, want, err := ch.SchemaVersion(t.Context())
	require.NoError(t, err)
	require.Equal(t, want, have)
	require.NoError(t, ch.Conn().Exec(t.Context(), "TRUNCATE TABLE goose_db_version"))
	require.NoError(t, ch.Conn().Exec(t.Context(), "INSERT INTO goose_db_version (version_id, is_applied) VALUES (0, 1)"))
	require.NoError(t, ch.Migrate(t.Context(), quiet))

	entries, err := migrations.Files.ReadDir(".")
	require.NoError(t, err)
	for _, e := range entries {
		text, err := migrations.Files.ReadFile(e.Name())
		require.NoError(t, err)
		up, _, _ := strings.Cut(string(text), "-- +goose Down")
		for _, made := range regexp.MustCompile(`(?m)^CREATE .*`).FindAllString(up, -1) {
			require.Contains(t, made, "IF NOT EXISTS", e.Name())
		}
	}
}

func FuzzParseSpanCursor(f *testing.F) {
	f.Add(SpanCursor{start: epoch, span: journal.SpanID("x")}.String())
	f.Add("")
	f.Add("LTEuMDAwMDAwMDAwMDAwMDAwMA")
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseSpanCursor(s)
		if err != nil {
			var e *fault.Error
			require.ErrorAs(t, err, &e)
			require.Equal(t, "invalid_page", e.Code)
			return
		}
		again, err := ParseSpanCursor(c.String())
		require.NoError(t, err)
		require.Equal(t, c, again)
	})
}

func args(q query) []any {
	var out []any
	for name, value := range q.params {
		out = append(out, chdriver.Named(name, value))
	}
	return out
}
