package journal

import (
	"crypto/sha256"
	"encoding/hex"
	"time"
	"unicode/utf8"
)

// OutboxChannel is the Postgres channel on which a committed outbox row is
// announced. It is a hint: the reader also looks by itself, so a lost
// notification costs half a second and nothing else.
const OutboxChannel = "ambit_outbox"

// OutboxSpan is the kind of an outbox row whose payload is a Span.
const OutboxSpan = "span"

// Operation is what a span tells of, in OpenTelemetry's words for generative AI
// where it has them.
type Operation string

// The operations that Ambit makes spans for.
const (
	OperationInvokeAgent Operation = "invoke_agent"
	OperationChat        Operation = "chat"
	OperationExecuteTool Operation = "execute_tool"
	OperationSandbox     Operation = "sandbox"
)

// SpanStatus is how what the span tells of came out.
type SpanStatus string

// The statuses of a span. Unset is neither: work that was cut off with an
// unknown outcome, for one.
const (
	SpanOK    SpanStatus = "ok"
	SpanError SpanStatus = "error"
	SpanUnset SpanStatus = "unset"
)

// Span is the record of one finished piece of work. It is the payload of an
// outbox row, complete: whoever sends it on needs nothing else of the journal.
type Span struct {
	// TraceID is 32 hexadecimal digits, SpanID and ParentSpanID are 16;
	// ParentSpanID is empty at the root of a trace.
	TraceID      string    `json:"trace_id"`
	SpanID       string    `json:"span_id"`
	ParentSpanID string    `json:"parent_span_id"`
	Name         string    `json:"name"`
	Operation    Operation `json:"operation"`

	OrgID     string `json:"org_id"`
	ProjectID string `json:"project_id"`
	SessionID string `json:"session_id"`
	StepID    string `json:"step_id"`
	// Seq is the number of the journal event that finished the span. Of two
	// records with the same SpanID and StartTime the one with the higher Seq
	// holds; a span's StartTime must therefore never change.
	Seq int64 `json:"seq"`

	AgentID      string `json:"agent_id"`
	AgentName    string `json:"agent_name"`
	AgentVersion int64  `json:"agent_version"`
	// Principal is who acted: the id of a user, a key or an agent, or the name of
	// a system actor.
	Principal string `json:"principal"`

	// StartTime and EndTime are in UTC; microseconds are kept.
	StartTime time.Time `json:"start_time"`
	EndTime   time.Time `json:"end_time"`

	Status       SpanStatus `json:"status"`
	ErrorType    string     `json:"error_type"`
	ErrorMessage string     `json:"error_message"`

	Provider      string `json:"provider"`
	RequestModel  string `json:"request_model"`
	ResponseModel string `json:"response_model"`
	// Usage counts by kind: the Usage* names below, and whatever else a provider
	// counts under its own name.
	Usage map[string]int64 `json:"usage"`
	// CostNanos is what was charged, in nano-dollars. LedgerEntryID is the entry
	// that says so and HoldID the hold that it was captured from.
	CostNanos     int64  `json:"cost_nanos"`
	HoldID        string `json:"hold_id"`
	LedgerEntryID string `json:"ledger_entry_id"`

	ToolName string `json:"tool_name"`
	// Decision is the gate's: admitted, denied or waiting; empty where none was
	// asked for.
	Decision        string   `json:"decision"`
	DecisionReasons []string `json:"decision_reasons"`

	Input  SpanBody `json:"input"`
	Output SpanBody `json:"output"`

	Attributes map[string]string `json:"attributes"`

	// Where the time went before and at the start of the work, in milliseconds.
	TimeQueuedMS       int64 `json:"time_queued_ms"`
	TimeGateMS         int64 `json:"time_gate_ms"`
	TimeToFirstTokenMS int64 `json:"time_to_first_token_ms"`
}

// The kinds of usage that have columns of their own. Input tokens include those
// read from and written to a cache.
const (
	UsageInputTokens      = "input_tokens"
	UsageOutputTokens     = "output_tokens"
	UsageCacheReadTokens  = "cache_read_tokens"
	UsageCacheWriteTokens = "cache_write_tokens"
	UsageReasoningTokens  = "reasoning_tokens"
)

// MaxSpanBody is how much of an input or output a span carries, in bytes. The
// whole is in the journal or in a file of the session.
const MaxSpanBody = 64 << 10

// SpanBody is an input or output, cut to MaxSpanBody.
type SpanBody struct {
	// Text is JSON, or its beginning when Truncated.
	Text      string `json:"text"`
	Truncated bool   `json:"truncated"`
	// Bytes is the size of the whole.
	Bytes int64 `json:"bytes"`
}

// NewSpanBody cuts text to what a span carries, at the border of a character.
func NewSpanBody(text []byte) SpanBody {
	body := SpanBody{Bytes: int64(len(text))}
	if len(text) <= MaxSpanBody {
		body.Text = string(text)
		return body
	}
	n := MaxSpanBody
	for n > MaxSpanBody-utf8.UTFMax && !utf8.RuneStart(text[n]) {
		n--
	}
	body.Text, body.Truncated = string(text[:n]), true
	return body
}

// TraceID is the trace id of a session: the same wherever and whenever it is
// asked for, so that a record made twice is one record.
func TraceID(sessionID string) string {
	sum := sha256.Sum256([]byte("trace\x00" + sessionID))
	return hex.EncodeToString(sum[:16])
}

// SpanID is the span id of what key names, for the same reason. A step's key is
// its id; that of an input's handling is the id of its event.
func SpanID(key string) string {
	sum := sha256.Sum256([]byte("span\x00" + key))
	return hex.EncodeToString(sum[:8])
}
