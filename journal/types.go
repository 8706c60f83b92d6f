package journal

import (
	"encoding/json"
	"fmt"
	"time"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
)

// SchemaVersion is the version that new events are written with. A reader must understand every version from 1 up to it; the golden
// journals in testdata hold one of each.
const SchemaVersion = 1

// Event is one row of a journal. Seq counts from 1 without gaps within its session.
type Event struct {
	ID            id.Event
	Type          string
	Seq           int64
	Session       id.Session
	Step          id.Step // empty where the event belongs to no step
	Epoch         int64
	SchemaVersion int
	CreatedAt     time.Time
	Payload       json.RawMessage
}

// MarshalJSON writes the event as the API shows it: its own members first, the payload's beside them.
func (e Event) MarshalJSON() ([]byte, error) {
	var step *id.Step
	if e.Step != "" {
		step = &e.Step
	}
	head, err := json.Marshal(struct {
		ID        id.Event   `json:"id"`
		Type      string     `json:"type"`
		Seq       int64      `json:"seq"`
		Session   id.Session `json:"session_id"`
		Step      *id.Step   `json:"step_id"`
		Epoch     int64      `json:"epoch"`
		CreatedAt string     `json:"created_at"`
	}{e.ID, e.Type, e.Seq, e.Session, step, e.Epoch, e.CreatedAt.UTC().Format("2006-01-02T15:04:05.000000Z")})
	if err != nil {
		return nil, err
	}
	if len(e.Payload) <= 2 { // {} or nothing
		return head, nil
	}
	out := make([]byte, 0, len(head)+len(e.Payload))
	out = append(out, head[:len(head)-1]...)
	out = append(out, ',')
	return append(out, e.Payload[1:]...), nil
}

// Decode reads the event's payload into its own type.
func Decode[P Payload](e Event) (P, error) {
	var p P
	if e.Type != p.EventType() {
		return p, fmt.Errorf("event %d is a %s, not a %s", e.Seq, e.Type, p.EventType())
	}
	if err := json.Unmarshal(e.Payload, &p); err != nil {
		return p, fmt.Errorf("read event %d (%s, schema %d): %w", e.Seq, e.Type, e.SchemaVersion, err)
	}
	return p, nil
}

// Payload is what an event of one type says.
type Payload interface {
	// EventType is the event's type, such as "user.message".
	EventType() string
}

// Status is what a session is doing.
type Status string

// The four statuses. Why a session is idle or terminated is its stop reason.
const (
	Running      Status = "running"
	Rescheduling Status = "rescheduling"
	Idle         Status = "idle"
	Terminated   Status = "terminated"
)

// The types of stop reason.
const (
	StopEndTurn          = "end_turn"
	StopRequiresAction   = "requires_action"
	StopWaiting          = "waiting"
	StopInterrupted      = "interrupted"
	StopPaused           = "paused"
	StopBudgetReached    = "budget_reached"
	StopMaxTokens        = "max_tokens"
	StopRefusal          = "refusal"
	StopRetriesExhausted = "retries_exhausted"
	StopArchived         = "archived"
	StopKilled           = "killed"
	StopFailed           = "failed"
	StopExpired          = "expired"
)

// Limits of a budget_reached.
const (
	LimitCost     = "cost"
	LimitTokens   = "tokens"
	LimitSteps    = "steps"
	LimitWallTime = "wall_time"
	LimitDepth    = "depth"
)

// StopReason says why a session is idle or terminated.
type StopReason struct {
	Type string `json:"type"`
	// Limit is the limit that a budget_reached ran into: cost, tokens, steps, wall_time or depth.
	Limit string `json:"limit,omitempty"`
	// Scope is whose limit: session (its own limits), budget or organization (its balance).
	Scope string `json:"scope,omitempty"`
	// ScopeID and ScopeName name the budget or whatever else the scope is; journals from before they were written have neither.
	ScopeID   string `json:"scope_id,omitempty"`
	ScopeName string `json:"scope_name,omitempty"`
	// Error is what failed, for failed and retries_exhausted.
	Error *ErrorDetail `json:"error,omitempty"`
	// Receipt names the receipt of a kill.
	Receipt id.Receipt `json:"receipt_id,omitempty"`
	// EventIDs are the events that wait for an answer.
	EventIDs []id.Event `json:"event_ids,omitempty"`
	// By and Reason say who interrupted, paused or killed, and why.
	By     string `json:"by,omitempty"`
	Reason string `json:"reason,omitempty"`
}

// ErrorDetail is an error as the journal keeps it: without secrets, readable by a person and by the agent.
type ErrorDetail struct {
	Code    string         `json:"code"`
	Message string         `json:"message"`
	Details map[string]any `json:"details,omitempty"`
}

// Block is a piece of content in an event. Only text is written today.
type Block struct {
	Type string `json:"type"`
	Text string `json:"text,omitempty"`
}

// Text makes content of one block of text.
func Text(s string) []Block { return []Block{{Type: "text", Text: s}} }

// Usage counts what was used. Each token is in one count only: input tokens exclude cached ones. Reasoning tokens are a part of the output
// tokens, not further ones.
type Usage struct {
	InputTokens      int64 `json:"input_tokens"`
	OutputTokens     int64 `json:"output_tokens"`
	CacheReadTokens  int64 `json:"cache_read_tokens"`
	CacheWriteTokens int64 `json:"cache_write_tokens"`
	ReasoningTokens  int64 `json:"reasoning_tokens,omitempty"`
	// SandboxMillis is time in a sandbox, in milliseconds.
	SandboxMillis int64 `json:"sandbox_ms,omitempty"`
	Steps         int64 `json:"steps"`
}

// Add adds v to u.
func (u *Usage) Add(v Usage) {
	u.InputTokens += v.InputTokens
	u.OutputTokens += v.OutputTokens
	u.CacheReadTokens += v.CacheReadTokens
	u.CacheWriteTokens += v.CacheWriteTokens
	u.ReasoningTokens += v.ReasoningTokens
	u.SandboxMillis += v.SandboxMillis
	u.Steps += v.Steps
}

// Tokens is all tokens, each once.
func (u Usage) Tokens() int64 {
	return u.InputTokens + u.OutputTokens + u.CacheReadTokens + u.CacheWriteTokens
}

// Limits bound a session. Zero or nil means no limit of that kind beyond the platform's own.
type Limits struct {
	// MaxCost is the session's price ceiling: it is held before the first step.
	MaxCost *money.Nanos `json:"max_cost"`
	// MaxTokens bounds the sum of all tokens over the session.
	MaxTokens int64 `json:"max_tokens"`
	// MaxSteps bounds the number of steps.
	MaxSteps int64 `json:"max_steps"`
	// MaxWallSeconds bounds the time since the session was created.
	MaxWallSeconds int64 `json:"max_wall_seconds"`
	// MaxDepth bounds how deep sessions may start sessions.
	MaxDepth int64 `json:"max_depth"`
}

// Quoted is the quote that a session runs by.
type Quoted struct {
	Quote id.Quote `json:"quote_id"`
	// PriceVersion names the price table that the quote was made from.
	PriceVersion string `json:"price_table_version"`
	// Prices are that table's entries for all that the session may use, as billing/prices writes them.
	Prices json.RawMessage `json:"prices"`
}

// Definition is what an agent version says, and the snapshot that a session runs on.
type Definition struct {
	Model  string `json:"model"`
	System string `json:"system"`
	// Tools are the names of built-in tools that the agent may use.
	Tools []string `json:"tools"`
	// MaxTokens bounds the output of one model call.
	MaxTokens int64  `json:"max_tokens"`
	Limits    Limits `json:"limits"`
	// IfRunning says what a message to a running session does by default: queue, interrupt or reject.
	IfRunning string `json:"if_running"`
	// Network is what its requests may reach outside of the platform. Journals from before there was any have none.
	Network Network `json:"network,omitzero"`
}

// Network is what an agent may reach. Rules can narrow it, never widen it.
type Network struct {
	// AllowedHosts are hosts as internal/egress reads them: "api.example.com", "*.example.com", either with a port. None: nothing is reached.
	AllowedHosts []string `json:"allowed_hosts"`
	// IdentityHosts are those of the allowed hosts that a request shows the agent's identity to: a token of minutes, for that host alone.
	IdentityHosts []string `json:"identity_hosts,omitempty"`
}

// Snapshot is the agent as a session took it: which one, in which version, and the definition with the invoke's overrides applied.
type Snapshot struct {
	ID      id.Agent `json:"id,omitempty"` // empty for an agent that was written into the invoke
	Name    string   `json:"name"`
	Version int      `json:"version,omitempty"`
	Definition
}

// Actor is a principal as events keep it.
type Actor = principal.Principal
