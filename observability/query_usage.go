package observability

import (
	"context"
	"fmt"
	"strings"
	"time"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
)

// UsageGroup is what usage can be told apart by.
type UsageGroup string

// The groups of usage.
const (
	GroupAgent     UsageGroup = "agent"
	GroupVersion   UsageGroup = "agent_version"
	GroupModel     UsageGroup = "model"
	GroupTool      UsageGroup = "tool"
	GroupOperation UsageGroup = "operation"
	GroupProject   UsageGroup = "project"
)

// usageGroupColumns are the columns by which each group is told apart. The order
// is that of the answer.
var usageGroupColumns = []struct {
	group  UsageGroup
	column string
}{
	{GroupProject, "project_id"},
	{GroupAgent, "agent_id"},
	{GroupVersion, "agent_version"},
	{GroupModel, "request_model"},
	{GroupTool, "tool_name"},
	{GroupOperation, "operation"},
}

// UsageBucket is the width of a bar.
type UsageBucket string

// The buckets of usage, all in UTC. A week begins on Monday.
const (
	BucketMinute UsageBucket = "minute"
	BucketHour   UsageBucket = "hour"
	BucketDay    UsageBucket = "day"
	BucketWeek   UsageBucket = "week"
	BucketMonth  UsageBucket = "month"
	// BucketNone is one row for the whole stretch.
	BucketNone UsageBucket = ""
)

var bucketStart = map[UsageBucket]string{
	BucketNone:   "toDateTime({from:DateTime64(6, 'UTC')}, 'UTC')",
	BucketMinute: "toStartOfMinute(toDateTime(start_time, 'UTC'))",
	BucketHour:   "toStartOfHour(toDateTime(start_time, 'UTC'))",
	BucketDay:    "toStartOfDay(toDateTime(start_time, 'UTC'), 'UTC')",
	BucketWeek:   "toDateTime(toStartOfWeek(start_time, 1, 'UTC'), 'UTC')",
	BucketMonth:  "toDateTime(toStartOfMonth(start_time, 'UTC'), 'UTC')",
}

// MaxUsageRows is how many rows an answer about usage may have.
const MaxUsageRows = 10_000

// UsageFilter says what usage is asked for.
type UsageFilter struct {
	// From is included, To is not.
	From, To time.Time
	Bucket   UsageBucket
	GroupBy  []UsageGroup
	// The rest narrows it; empty fields do not.
	SessionID id.Session
	AgentID   id.Agent
	Model     string
	Tool      string
	Operation string
}

// UsageRow is the usage within one bucket and group. What was not grouped by is
// empty. Spans of kind invoke_agent are left out, since they repeat what their
// children used.
type UsageRow struct {
	Bucket       time.Time `ch:"bucket"`
	ProjectID    string    `ch:"project_id"`
	AgentID      string    `ch:"agent_id"`
	AgentVersion uint32    `ch:"agent_version"`
	Model        string    `ch:"request_model"`
	Tool         string    `ch:"tool_name"`
	Operation    string    `ch:"operation"`

	Spans            uint64 `ch:"spans"`
	Errors           uint64 `ch:"errors"`
	Denied           uint64 `ch:"denied"`
	InputTokens      uint64 `ch:"input_tokens"`
	OutputTokens     uint64 `ch:"output_tokens"`
	CacheReadTokens  uint64 `ch:"cache_read_tokens"`
	CacheWriteTokens uint64 `ch:"cache_write_tokens"`
	ReasoningTokens  uint64 `ch:"reasoning_tokens"`
	CostNanos        int64  `ch:"cost_nanos"`

	// Durations in microseconds: their sum and how long the slowest half,
	// twentieth and hundredth took at least.
	DurationUS uint64  `ch:"duration_us"`
	P50US      float64 `ch:"p50_us"`
	P95US      float64 `ch:"p95_us"`
	P99US      float64 `ch:"p99_us"`
}

// Usage sums up spans, each once. With an empty Project in scope it covers the
// whole organisation.
func (r *Reader) Usage(ctx context.Context, scope Scope, filter UsageFilter) ([]UsageRow, error) {
	if err := filter.validate(); err != nil {
		return nil, err
	}
	var rows []UsageRow
	if err := r.run(ctx, scope, usageQuery(scope, filter), &rows); err != nil {
		return nil, err
	}
	return inUTC(rows), nil
}

// inUTC shows the buckets in the zone that they were made in: the driver gives
// computed times the server's.
func inUTC(rows []UsageRow) []UsageRow {
	for i := range rows {
		rows[i].Bucket = rows[i].Bucket.UTC()
	}
	return rows
}

func (f UsageFilter) validate() error {
	var fields []fault.Field
	if _, ok := bucketStart[f.Bucket]; !ok {
		fields = append(fields, fault.Field{Pointer: "bucket", Code: "unknown_value", Message: fmt.Sprintf("There is no bucket %q.", f.Bucket)})
	}
	for _, g := range f.GroupBy {
		if !g.known() {
			fields = append(fields, fault.Field{Pointer: "group_by[]", Code: "unknown_value", Message: fmt.Sprintf("Usage cannot be grouped by %q.", g)})
		}
	}
	if f.From.IsZero() || f.To.IsZero() || !f.From.Before(f.To) || !storableTime(f.From) || !storableTime(f.To) {
		fields = append(fields, fault.Field{Pointer: "from", Code: "out_of_range", Message: "A stretch of time needs a beginning and a later end."})
	}
	if len(fields) > 0 {
		return fault.InvalidFields(fields...)
	}
	return nil
}

func (g UsageGroup) known() bool {
	for _, c := range usageGroupColumns {
		if c.group == g {
			return true
		}
	}
	return false
}

func usageQuery(scope Scope, filter UsageFilter) query {
	q := query{params: map[string]any{
		"org": string(scope.Org), "from": microTime(filter.From), "to": microTime(filter.To), "max_rows": uint64(MaxUsageRows),
	}}
	groups := usageGroups(filter.GroupBy)
	q.sql = `SELECT
    ` + bucketStart[filter.Bucket] + ` AS bucket,` + selectGroups(groups) + `
    count() AS spans,
    countIf(s.status = 'error') AS errors,
    countIf(s.decision = 'denied') AS denied,
    sum(s.input_tokens) AS input_tokens,
    sum(s.output_tokens) AS output_tokens,
    sum(s.cache_read_tokens) AS cache_read_tokens,
    sum(s.cache_write_tokens) AS cache_write_tokens,
    sum(s.reasoning_tokens) AS reasoning_tokens,
    sum(s.cost_nanos) AS cost_nanos,
    sum(s.duration_us) AS duration_us,
    toFloat64(quantileTDigest(0.5)(s.duration_us)) AS p50_us,
    toFloat64(quantileTDigest(0.95)(s.duration_us)) AS p95_us,
    toFloat64(quantileTDigest(0.99)(s.duration_us)) AS p99_us
FROM spans AS s FINAL
WHERE ` + q.usageConditions(scope, filter) + `
  AND start_time >= {from:DateTime64(6, 'UTC')}
  AND start_time < {to:DateTime64(6, 'UTC')}` + q.condition("session_id", "session", string(filter.SessionID)) + `
GROUP BY ` + strings.Join(append([]string{"bucket"}, groups...), ", ") + `
ORDER BY ` + strings.Join(append([]string{"bucket"}, groups...), ", ") + `
LIMIT {max_rows:UInt64}`
	return q
}

// usageConditions are those that the spans and their roll-up have in common.
func (q *query) usageConditions(scope Scope, filter UsageFilter) string {
	return "org_id = {org:String}" +
		q.condition("project_id", "project", string(scope.Project)) + `
  AND operation != 'invoke_agent'` +
		q.condition("operation", "operation", filter.Operation) +
		q.condition("agent_id", "agent", string(filter.AgentID)) +
		q.condition("request_model", "model", filter.Model) +
		q.condition("tool_name", "tool", filter.Tool)
}

// condition adds an equality, unless the value is empty.
func (q *query) condition(column, param, value string) string {
	if value == "" {
		return ""
	}
	q.params[param] = value
	return "\n  AND " + column + " = {" + param + ":String}"
}

// usageGroups are the columns to group by, in their fixed order and each once.
func usageGroups(by []UsageGroup) []string {
	var columns []string
	for _, c := range usageGroupColumns {
		for _, g := range by {
			if g == c.group {
				columns = append(columns, c.column)
				break
			}
		}
	}
	return columns
}

func selectGroups(columns []string) string {
	out := ""
	for _, c := range columns {
		out += "\n    " + c + ","
	}
	return out
}
