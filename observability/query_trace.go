package observability

import (
	"context"
	"encoding/base64"
	"fmt"
	"strconv"
	"strings"
	"time"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
)

// MaxTracePage is how many spans one page of a trace may have.
const MaxTracePage = 1000

// SpanSummary is a span without its bodies: what a waterfall needs.
type SpanSummary struct {
	ProjectID    string `ch:"project_id"`
	SessionID    string `ch:"session_id"`
	TraceID      string `ch:"trace_id"`
	SpanID       string `ch:"span_id"`
	ParentSpanID string `ch:"parent_span_id"`
	Name         string `ch:"name"`
	Operation    string `ch:"operation"`
	StepID       string `ch:"step_id"`
	Seq          uint64 `ch:"seq"`

	AgentID      string `ch:"agent_id"`
	AgentName    string `ch:"agent_name"`
	AgentVersion uint32 `ch:"agent_version"`
	Principal    string `ch:"principal"`

	StartTime  time.Time `ch:"start_time"`
	EndTime    time.Time `ch:"end_time"`
	DurationUS uint64    `ch:"duration_us"`

	Status       string `ch:"status"`
	ErrorType    string `ch:"error_type"`
	ErrorMessage string `ch:"error_message"`

	Provider         string `ch:"provider"`
	RequestModel     string `ch:"request_model"`
	ResponseModel    string `ch:"response_model"`
	InputTokens      uint64 `ch:"input_tokens"`
	OutputTokens     uint64 `ch:"output_tokens"`
	CacheReadTokens  uint64 `ch:"cache_read_tokens"`
	CacheWriteTokens uint64 `ch:"cache_write_tokens"`
	ReasoningTokens  uint64 `ch:"reasoning_tokens"`
	CostNanos        int64  `ch:"cost_nanos"`
	HoldID           string `ch:"hold_id"`
	LedgerEntryID    string `ch:"ledger_entry_id"`

	ToolName        string   `ch:"tool_name"`
	Decision        string   `ch:"decision"`
	DecisionReasons []string `ch:"decision_reasons"`

	InputBytes  uint64 `ch:"input_bytes"`
	OutputBytes uint64 `ch:"output_bytes"`

	TimeQueuedMS       uint32 `ch:"time_queued_ms"`
	TimeGateMS         uint32 `ch:"time_gate_ms"`
	TimeToFirstTokenMS uint32 `ch:"time_to_first_token_ms"`
}

// summaryColumns are the columns of SpanSummary.
const summaryColumns = `project_id, session_id, trace_id, span_id, parent_span_id, name, operation, step_id, seq,
    agent_id, agent_name, agent_version, principal, start_time, end_time, duration_us, status, error_type, error_message,
    provider, request_model, response_model, input_tokens, output_tokens, cache_read_tokens, cache_write_tokens, reasoning_tokens,
    cost_nanos, hold_id, ledger_entry_id, tool_name, decision, decision_reasons, input_bytes, output_bytes,
    time_queued_ms, time_gate_ms, time_to_first_token_ms`

// SpanCursor is a place in a trace, after a span.
type SpanCursor struct {
	start time.Time
	span  string
}

// String is the cursor as text, safe in an address.
func (c SpanCursor) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.FormatInt(c.start.UnixMicro(), 36) + "." + c.span))
}

// ParseSpanCursor reads what String wrote.
func ParseSpanCursor(s string) (SpanCursor, error) {
	invalid := fault.New(fault.Invalid, "invalid_page", "The page is not one that this list gave out.")
	raw, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil {
		return SpanCursor{}, invalid
	}
	micros, span, ok := strings.Cut(string(raw), ".")
	n, err := strconv.ParseInt(micros, 36, 64)
	if !ok || err != nil || !isHex(span, 16) || !storableTime(time.UnixMicro(n)) {
		return SpanCursor{}, invalid
	}
	return SpanCursor{start: time.UnixMicro(n).UTC(), span: span}, nil
}

// TracePage says which part of a trace is wanted.
type TracePage struct {
	// After is where the page begins; nil is the trace's beginning.
	After *SpanCursor
	// Limit is how many spans at most, from 1 to MaxTracePage.
	Limit int
}

// Trace returns the spans of a session in the order of their start, a page at a
// time. next is nil on the last page. A session without spans has an empty
// trace: whether it exists the journal knows.
//
// A page is one short read along the sorting key, however long the trace is.
func (r *Reader) Trace(ctx context.Context, scope Scope, session id.Session, page TracePage) (spans []SpanSummary, next *SpanCursor, err error) {
	if page.Limit < 1 || page.Limit > MaxTracePage {
		return nil, nil, fault.InvalidField("limit", "out_of_range", fmt.Sprintf("limit is from 1 to %d.", MaxTracePage))
	}
	if err := r.run(ctx, scope, traceQuery(scope, session, page), &spans); err != nil {
		return nil, nil, err
	}
	if len(spans) > page.Limit {
		spans = spans[:page.Limit]
		last := spans[len(spans)-1]
		next = &SpanCursor{start: last.StartTime, span: last.SpanID}
	}
	return spans, next, nil
}

// traceQuery asks for one span more than the page has, to know whether another
// page follows.
func traceQuery(scope Scope, session id.Session, page TracePage) query {
	q := query{params: map[string]any{
		"org": string(scope.Org), "project": string(scope.Project), "session": string(session), "limit": uint64(page.Limit + 1), //nolint:gosec // checked to be above zero
	}}
	after := ""
	if page.After != nil {
		q.params["after_start"] = microTime(page.After.start)
		q.params["after_span"] = page.After.span
		// The first condition alone is what the index can use.
		after = `
  AND start_time >= {after_start:DateTime64(6, 'UTC')}
  AND (start_time, span_id) > ({after_start:DateTime64(6, 'UTC')}, toFixedString({after_span:String}, 16))`
	}
	q.sql = `SELECT ` + summaryColumns + `
FROM spans FINAL
WHERE org_id = {org:String}
  AND project_id = {project:String}
  AND session_id = {session:String}` + after + `
ORDER BY start_time, span_id
LIMIT {limit:UInt64}`
	return q
}

// microTime writes a time as a parameter. The driver's own way keeps whole
// seconds only.
func microTime(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000000") }
