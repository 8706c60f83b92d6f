package observability

import (
	"context"
	"fmt"
	"time"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
)

// MaxSessionsPage is how many traces one page of the list may have.
const MaxSessionsPage = 100

// TraceFilter narrows the list of traces. Empty fields do not. A trace passes
// when for each condition it has a span that meets it.
type TraceFilter struct {
	// From and To bound when the session was made: From included, To not.
	From, To time.Time
	AgentID  id.Agent
	// Model is the model that was asked for.
	Model string
	Tool  string
	// ErrorsOnly keeps traces with at least one failed span.
	ErrorsOnly bool
	// DeniedOnly keeps traces in which the gate refused something.
	DeniedOnly bool

	// Before is where the page begins: the last session of the page before.
	Before id.Session
	// Limit is how many traces at most, from 1 to MaxSessionsPage.
	Limit int
}

// TraceSummary is a session's trace in one row.
//
// The spans of kind invoke_agent repeat what their children cost, so they count
// in neither tokens nor cost, and its failure is that of a step: it counts only
// where no step failed.
type TraceSummary struct {
	ProjectID  string    `ch:"project_id"`
	SessionID  string    `ch:"session_id"`
	TraceID    string    `ch:"trace_id"`
	StartTime  time.Time `ch:"start_time"`
	EndTime    time.Time `ch:"end_time"`
	Spans      uint64    `ch:"spans"`
	ModelCalls uint64    `ch:"model_calls"`
	ToolCalls  uint64    `ch:"tool_calls"`
	// Errors counts failed steps. A session that failed without one has one.
	Errors       uint64 `ch:"errors"`
	Denied       uint64 `ch:"denied"`
	InputTokens  uint64 `ch:"input_tokens"`
	OutputTokens uint64 `ch:"output_tokens"`
	CostNanos    int64  `ch:"cost_nanos"`
	AgentID      string `ch:"agent_id"`
	AgentName    string `ch:"agent_name"`
	AgentVersion uint32 `ch:"agent_version"`
	// Models and Tools are those used, each once, in no order.
	Models []string `ch:"models"`
	Tools  []string `ch:"tools"`
	// LastSeq is the highest journal number that has arrived here.
	LastSeq uint64 `ch:"last_seq"`
}

// Traces lists the traces of a project, newest session first. next is empty on
// the last page, else what the next page has to have as Before.
func (r *Reader) Traces(ctx context.Context, scope Scope, filter TraceFilter) (traces []TraceSummary, next id.Session, err error) {
	if filter.Limit < 1 || filter.Limit > MaxSessionsPage {
		return nil, "", fault.InvalidField("limit", "out_of_range", fmt.Sprintf("limit is from 1 to %d.", MaxSessionsPage))
	}
	if err := r.run(ctx, scope, tracesQuery(scope, filter), &traces); err != nil {
		return nil, "", err
	}
	if len(traces) > filter.Limit {
		traces = traces[:filter.Limit]
		next = id.Session(traces[len(traces)-1].SessionID)
	}
	return traces, next, nil
}

// TraceOf returns the summary of one session's trace, and not found while no
// span of it has arrived.
func (r *Reader) TraceOf(ctx context.Context, scope Scope, session id.Session) (TraceSummary, error) {
	q := query{
		sql: tracesSQL("session_id = {session:String}", "1"),
		params: map[string]any{
			"org": string(scope.Org), "project": string(scope.Project), "session": string(session),
		},
	}
	var traces []TraceSummary
	if err := r.run(ctx, scope, q, &traces); err != nil {
		return TraceSummary{}, err
	}
	if len(traces) == 0 {
		return TraceSummary{}, fault.NotFound()
	}
	return traces[0], nil
}

// tracesQuery first finds the page's sessions, by the sorting key and the few
// columns that the filter names, and then sums up those sessions alone. FINAL in
// both: the record of a failure that a later one has replaced must not let its
// session in.
func tracesQuery(scope Scope, filter TraceFilter) query {
	q := query{params: map[string]any{
		"org": string(scope.Org), "project": string(scope.Project), "limit": uint64(filter.Limit + 1), //nolint:gosec // checked to be above zero
	}}
	where, having := "", ""
	if !filter.From.IsZero() {
		q.params["from"] = firstSessionAt(filter.From)
		where += "\n      AND session_id >= {from:String}"
	}
	if !filter.To.IsZero() {
		q.params["to"] = firstSessionAt(filter.To)
		where += "\n      AND session_id < {to:String}"
	}
	if filter.Before != "" {
		q.params["before"] = string(filter.Before)
		where += "\n      AND session_id < {before:String}"
	}
	match := func(condition string) {
		if having == "" {
			having = "\n    HAVING "
		} else {
			having += " AND "
		}
		having += "countIf(" + condition + ") > 0"
	}
	if filter.AgentID != "" {
		q.params["agent"] = string(filter.AgentID)
		match("agent_id = {agent:String}")
	}
	if filter.Model != "" {
		q.params["model"] = filter.Model
		match("request_model = {model:String}")
	}
	if filter.Tool != "" {
		q.params["tool"] = filter.Tool
		match("tool_name = {tool:String}")
	}
	if filter.ErrorsOnly {
		match("status = 'error'")
	}
	if filter.DeniedOnly {
		match("decision = 'denied'")
	}
	q.sql = tracesSQL(`session_id IN (
    SELECT session_id
    FROM spans FINAL
    WHERE org_id = {org:String}
      AND project_id = {project:String}
      AND session_id != ''`+where+`
    GROUP BY session_id`+having+`
    ORDER BY session_id DESC
    LIMIT {limit:UInt64}
  )`, "{limit:UInt64}")
	return q
}

// tracesSQL sums up the sessions that condition selects. The agent is the
// one that began: a session that hires has spans of others later.
func tracesSQL(condition, limit string) string {
	return `SELECT
    s.project_id AS project_id,
    s.session_id AS session_id,
    argMin(s.trace_id, s.start_time) AS trace_id,
    min(s.start_time) AS start_time,
    max(s.end_time) AS end_time,
    count() AS spans,
    countIf(s.operation = 'chat') AS model_calls,
    countIf(s.operation = 'execute_tool') AS tool_calls,
    greatest(countIf(s.status = 'error' AND s.operation != 'invoke_agent'), toUInt64(countIf(s.status = 'error') > 0)) AS errors,
    countIf(s.decision = 'denied') AS denied,
    sumIf(s.input_tokens, s.operation != 'invoke_agent') AS input_tokens,
    sumIf(s.output_tokens, s.operation != 'invoke_agent') AS output_tokens,
    sumIf(s.cost_nanos, s.operation != 'invoke_agent') AS cost_nanos,
    argMin(s.agent_id, (s.agent_id = '', s.start_time)) AS agent_id,
    argMin(s.agent_name, (s.agent_name = '', s.start_time)) AS agent_name,
    argMin(s.agent_version, (s.agent_id = '', s.start_time)) AS agent_version,
    groupUniqArrayIf(100)(s.request_model, s.request_model != '') AS models,
    groupUniqArrayIf(100)(s.tool_name, s.tool_name != '') AS tools,
    max(s.seq) AS last_seq
FROM spans AS s FINAL
WHERE s.org_id = {org:String}
  AND s.project_id = {project:String}
  AND s.` + condition + `
GROUP BY s.project_id, s.session_id
ORDER BY s.session_id DESC
LIMIT ` + limit
}
