package observability

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"

	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/observability/internal/outboxdb"
)

// decodeSpan reads the span of an outbox row. Whose it is the row says and not
// the payload, since the row stood under row-level security.
//
// An error means that the row can never be sent: ClickHouse would refuse the
// whole batch for its sake.
func decodeSpan(row outboxdb.BatchRowsRow) (journal.Span, error) {
	var s journal.Span
	if err := json.Unmarshal(row.Payload, &s); err != nil {
		return s, fmt.Errorf("the payload is no span: %w", err)
	}
	s.OrgID, s.ProjectID, s.SessionID = row.OrgID, row.ProjectID, row.SessionID
	switch {
	case !isHex(s.TraceID, 32):
		return s, errors.New("trace_id is not 32 hexadecimal digits")
	case !isHex(s.SpanID, 16):
		return s, errors.New("span_id is not 16 hexadecimal digits")
	case s.ParentSpanID != "" && !isHex(s.ParentSpanID, 16):
		return s, errors.New("parent_span_id is not 16 hexadecimal digits")
	case !storableTime(s.StartTime):
		return s, errors.New("start_time is not between 1970 and 2200")
	}
	if !storableTime(s.EndTime) || s.EndTime.Before(s.StartTime) {
		// Clocks of two replicas differ; a span does not end before it starts.
		s.EndTime = s.StartTime
	}
	return s, nil
}

func isHex(s string, n int) bool {
	return len(s) == n && strings.Trim(s, "0123456789abcdef") == ""
}

func storableTime(t time.Time) bool { return t.Year() >= 1970 && t.Year() < 2200 }

// spanColumns is a batch of spans turned on its side: ClickHouse takes columns,
// and the driver takes them several times faster than rows.
type spanColumns struct {
	orgID, projectID, sessionID             []string
	startTime, endTime                      []time.Time
	spanID, traceID, parentSpanID           []string
	name, operation, stepID                 []string
	seq                                     []uint64
	agentID, agentName                      []string
	agentVersion                            []uint32
	principal                               []string
	status, errorType, errorMessage         []string
	provider, requestModel, responseModel   []string
	inputTokens, outputTokens               []uint64
	cacheReadTokens, cacheWriteTokens       []uint64
	reasoningTokens                         []uint64
	usageOther                              []map[string]uint64
	costNanos                               []int64
	holdID, ledgerEntryID                   []string
	toolName, decision                      []string
	decisionReasons                         [][]string
	input, output                           []string
	inputTruncated, outputTruncated         []bool
	inputBytes, outputBytes                 []uint64
	attributes                              []map[string]string
	timeQueuedMS, timeGateMS, timeToFirstMS []uint32
}

// list pairs each column's name with its values, in the order of the insert.
func (c *spanColumns) list() []namedColumn {
	return []namedColumn{
		{"org_id", c.orgID},
		{"project_id", c.projectID},
		{"session_id", c.sessionID},
		{"start_time", c.startTime},
		{"end_time", c.endTime},
		{"span_id", c.spanID},
		{"trace_id", c.traceID},
		{"parent_span_id", c.parentSpanID},
		{"name", c.name},
		{"operation", c.operation},
		{"step_id", c.stepID},
		{"seq", c.seq},
		{"agent_id", c.agentID},
		{"agent_name", c.agentName},
		{"agent_version", c.agentVersion},
		{"principal", c.principal},
		{"status", c.status},
		{"error_type", c.errorType},
		{"error_message", c.errorMessage},
		{"provider", c.provider},
		{"request_model", c.requestModel},
		{"response_model", c.responseModel},
		{"input_tokens", c.inputTokens},
		{"output_tokens", c.outputTokens},
		{"cache_read_tokens", c.cacheReadTokens},
		{"cache_write_tokens", c.cacheWriteTokens},
		{"reasoning_tokens", c.reasoningTokens},
		{"usage_other", c.usageOther},
		{"cost_nanos", c.costNanos},
		{"hold_id", c.holdID},
		{"ledger_entry_id", c.ledgerEntryID},
		{"tool_name", c.toolName},
		{"decision", c.decision},
		{"decision_reasons", c.decisionReasons},
		{"input", c.input},
		{"input_truncated", c.inputTruncated},
		{"input_bytes", c.inputBytes},
		{"output", c.output},
		{"output_truncated", c.outputTruncated},
		{"output_bytes", c.outputBytes},
		{"attributes", c.attributes},
		{"time_queued_ms", c.timeQueuedMS},
		{"time_gate_ms", c.timeGateMS},
		{"time_to_first_token_ms", c.timeToFirstMS},
	}
}

type namedColumn struct {
	name   string
	values any
}

// insertStatement names every column, so that a column which a newer release has
// added takes its default.
var insertStatement = func() string {
	var names []string
	for _, column := range (&spanColumns{}).list() {
		names = append(names, column.name)
	}
	return "INSERT INTO spans (" + strings.Join(names, ", ") + ")"
}()

func (c *spanColumns) add(s *journal.Span) {
	c.orgID = append(c.orgID, s.OrgID)
	c.projectID = append(c.projectID, s.ProjectID)
	c.sessionID = append(c.sessionID, s.SessionID)
	c.startTime = append(c.startTime, s.StartTime.UTC())
	c.endTime = append(c.endTime, s.EndTime.UTC())
	c.spanID = append(c.spanID, s.SpanID)
	c.traceID = append(c.traceID, s.TraceID)
	c.parentSpanID = append(c.parentSpanID, s.ParentSpanID)
	c.name = append(c.name, s.Name)
	c.operation = append(c.operation, string(s.Operation))
	c.stepID = append(c.stepID, s.StepID)
	c.seq = append(c.seq, unsigned(s.Seq))
	c.agentID = append(c.agentID, s.AgentID)
	c.agentName = append(c.agentName, s.AgentName)
	c.agentVersion = append(c.agentVersion, unsigned32(s.AgentVersion))
	c.principal = append(c.principal, s.Principal)
	c.status = append(c.status, string(s.Status))
	c.errorType = append(c.errorType, s.ErrorType)
	c.errorMessage = append(c.errorMessage, s.ErrorMessage)
	c.provider = append(c.provider, s.Provider)
	c.requestModel = append(c.requestModel, s.RequestModel)
	c.responseModel = append(c.responseModel, s.ResponseModel)
	c.inputTokens = append(c.inputTokens, unsigned(s.Usage[journal.UsageInputTokens]))
	c.outputTokens = append(c.outputTokens, unsigned(s.Usage[journal.UsageOutputTokens]))
	c.cacheReadTokens = append(c.cacheReadTokens, unsigned(s.Usage[journal.UsageCacheReadTokens]))
	c.cacheWriteTokens = append(c.cacheWriteTokens, unsigned(s.Usage[journal.UsageCacheWriteTokens]))
	c.reasoningTokens = append(c.reasoningTokens, unsigned(s.Usage[journal.UsageReasoningTokens]))
	c.usageOther = append(c.usageOther, otherUsage(s.Usage))
	c.costNanos = append(c.costNanos, s.CostNanos)
	c.holdID = append(c.holdID, s.HoldID)
	c.ledgerEntryID = append(c.ledgerEntryID, s.LedgerEntryID)
	c.toolName = append(c.toolName, s.ToolName)
	c.decision = append(c.decision, s.Decision)
	c.decisionReasons = append(c.decisionReasons, s.DecisionReasons)
	c.input = append(c.input, s.Input.Text)
	c.inputTruncated = append(c.inputTruncated, s.Input.Truncated)
	c.inputBytes = append(c.inputBytes, unsigned(s.Input.Bytes))
	c.output = append(c.output, s.Output.Text)
	c.outputTruncated = append(c.outputTruncated, s.Output.Truncated)
	c.outputBytes = append(c.outputBytes, unsigned(s.Output.Bytes))
	c.attributes = append(c.attributes, s.Attributes)
	c.timeQueuedMS = append(c.timeQueuedMS, unsigned32(s.TimeQueuedMS))
	c.timeGateMS = append(c.timeGateMS, unsigned32(s.TimeGateMS))
	c.timeToFirstMS = append(c.timeToFirstMS, unsigned32(s.TimeToFirstTokenMS))
}

func (c *spanColumns) rows() int { return len(c.spanID) }

// appendTo fills a batch that was prepared with insertStatement.
func (c *spanColumns) appendTo(batch driver.Batch) error {
	for i, column := range c.list() {
		if err := batch.Column(i).Append(column.values); err != nil {
			return fmt.Errorf("column %s: %w", column.name, err)
		}
	}
	return nil
}

// ownUsage are the kinds of usage that have columns.
var ownUsage = map[string]bool{
	journal.UsageInputTokens: true, journal.UsageOutputTokens: true, journal.UsageReasoningTokens: true,
	journal.UsageCacheReadTokens: true, journal.UsageCacheWriteTokens: true,
}

func otherUsage(usage map[string]int64) map[string]uint64 {
	other := map[string]uint64{}
	for kind, n := range usage {
		if !ownUsage[kind] {
			other[kind] = unsigned(n)
		}
	}
	return other
}

// unsigned keeps a count that should never be negative from becoming a huge one.
func unsigned(n int64) uint64 { return uint64(max(0, n)) }

func unsigned32(n int64) uint32 { return uint32(min(max(0, n), math.MaxUint32)) }
