package journal

import (
	"encoding/json"
	"time"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// Kinds of step.
const (
	KindModelCall = "model_call"
	KindToolCall  = "tool_call"
	KindExec      = "exec"
	KindSandbox   = "sandbox"
)

// Outcomes of a step.
const (
	Succeeded = "succeeded"
	Failed    = "failed"
	Unknown   = "unknown"
	Cancelled = "cancelled"
)

// Decisions of the gate.
const (
	Admitted = "admitted"
	Denied   = "denied"
	Waiting  = "waiting"
)

// UserMessage is input from whoever invoked the session.
type UserMessage struct {
	Content []Block `json:"content"`
	By      Actor   `json:"by"`
}

// UserInterrupt asks the session to stop what it does and become idle.
type UserInterrupt struct {
	By     Actor  `json:"by"`
	Reason string `json:"reason,omitempty"`
}

// AgentMessage is what the model said.
type AgentMessage struct {
	Content []Block `json:"content"`
}

// AgentThinking is the model's reasoning, as far as its provider shows it.
type AgentThinking struct {
	Summary string `json:"summary"`
	// Provider and Raw are the provider's own block, sent back to it, and to no other, unchanged with the next call.
	Provider string          `json:"provider,omitempty"`
	Raw      json.RawMessage `json:"raw,omitempty"`
}

// AgentToolUse is the model's wish to call a tool.
type AgentToolUse struct {
	ToolUseID string          `json:"tool_use_id"`
	Name      string          `json:"name"`
	Input     json.RawMessage `json:"input"`
}

// AgentToolResult answers a tool use. It may be an error that the model reads.
type AgentToolResult struct {
	ToolUseID string  `json:"tool_use_id"`
	Content   []Block `json:"content"`
	IsError   bool    `json:"is_error"`
}

// HoldRef names a hold and its amount.
type HoldRef struct {
	ID     id.Hold     `json:"id"`
	Amount money.Nanos `json:"amount"`
}

// StepIntended is written, with the hold, before the effect.
type StepIntended struct {
	Kind      string   `json:"kind"`
	Name      string   `json:"name"` // the model or the tool
	EffectKey string   `json:"effect_key"`
	Digest    string   `json:"digest"`
	Hold      *HoldRef `json:"hold"`
	// ToolUseID is the tool use that a tool call answers.
	ToolUseID string `json:"tool_use_id,omitempty"`
	// Approval is the one that this step uses up.
	Approval id.Approval `json:"approval_id,omitempty"`
	// LastInputSeq is the last event that a model call's request was made from.
	LastInputSeq int64 `json:"last_input_seq,omitempty"`
	// InputTokensEstimate is what the declared policy captures of a call whose outcome is unknown.
	InputTokensEstimate int64 `json:"input_tokens_estimate,omitempty"`
	// HeldMillis is for how long a sandbox's time is held, from this event on.
	HeldMillis int64 `json:"held_ms,omitempty"`
	// Attempt counts from 1 over the tries at the same model call or tool use.
	Attempt int `json:"attempt,omitempty"`
	// QueuedAt is when the step could have begun, for the span.
	QueuedAt time.Time `json:"queued_at"`
}

// StepSettled is written, with the capture, after the effect.
type StepSettled struct {
	Kind     string       `json:"kind"`
	Name     string       `json:"name"`
	Outcome  string       `json:"outcome"`
	Usage    Usage        `json:"usage"`
	Cost     money.Nanos  `json:"cost"`
	Entry    id.Entry     `json:"ledger_entry_id,omitempty"` // the capture
	Error    *ErrorDetail `json:"error"`
	Released money.Nanos  `json:"released"`
	// StopReason is the model's own, for a model call.
	StopReason string `json:"stop_reason,omitempty"`
	// Final says of a failed attempt that trying again would not help.
	Final bool `json:"final,omitempty"`
	// RetryAfterMillis is the wait that a failed attempt asks for before the next.
	RetryAfterMillis   int64 `json:"retry_after_ms,omitempty"`
	TimeToFirstTokenMs int64 `json:"time_to_first_token_ms,omitempty"`
}

// Reason is why the gate decided as it did, in words for the agent and for a person.
type Reason struct {
	Rule    string `json:"rule"`
	Message string `json:"message"`
}

// GateDecided is one decision of the gate.
type GateDecided struct {
	Decision string   `json:"decision"`
	Kind     string   `json:"kind"`
	Name     string   `json:"name"`
	Digest   string   `json:"digest"`
	Reasons  []Reason `json:"reasons"`
	// ToolUseID is the tool use decided on, if it was one.
	ToolUseID string `json:"tool_use_id,omitempty"`
	// Shortfall says what was missing, for a denial for want of money.
	Shortfall *Shortfall `json:"shortfall,omitempty"`
	// Asked is nil in journals from before permissions had rules.
	Asked *Asked `json:"asked,omitempty"`
}

// Asked is what a decision was about besides the kind and the name, as far as permissions look at it.
type Asked struct {
	Action      string `json:"action,omitempty"`
	Object      string `json:"object,omitempty"`
	Domain      string `json:"domain,omitempty"`
	Environment string `json:"environment,omitempty"`
	// Amount is the most that the effect may cost.
	Amount money.Nanos `json:"amount"`
	// PolicyVersion is the version of the rules that decided.
	PolicyVersion int64 `json:"policy_version"`
}

// Shortfall is what an effect would have needed and what there was.
type Shortfall struct {
	Required  money.Nanos `json:"required"`
	Available money.Nanos `json:"available"`
	Shortfall money.Nanos `json:"shortfall"`
	// Scope is what was short: session (its ceiling), mandate, budget or organization (its balance). Name is a budget's, and a mandate's intent.
	Scope string `json:"scope"`
	ID    string `json:"id"`
	Name  string `json:"name,omitempty"`
}

// SessionCreated is every journal's first event.
type SessionCreated struct {
	Agent     Snapshot        `json:"agent"`
	Project   id.Project      `json:"project_id"`
	Limits    Limits          `json:"limits"`
	By        Actor           `json:"by"`
	Title     string          `json:"title"`
	Parent    *id.Session     `json:"parent_session_id"`
	Mandate   *id.Mandate     `json:"mandate_id,omitempty"`
	Metadata  json.RawMessage `json:"metadata,omitempty"`
	TraceID   string          `json:"trace_id"`
	RootSpan  string          `json:"root_span_id"`
	ParentCtx string          `json:"traceparent,omitempty"`
}

// StatusRunning says that a worker has begun with the named inputs.
type StatusRunning struct {
	InputEventIDs []id.Event `json:"input_event_ids"`
}

// StatusIdle ends the work on the named inputs.
type StatusIdle struct {
	StopReason    StopReason `json:"stop_reason"`
	InputEventIDs []id.Event `json:"input_event_ids"`
}

// StatusRescheduled says that the session waits for a worker: at first, and after its last one was lost.
type StatusRescheduled struct {
	Reason string `json:"reason"`
}

// StatusTerminated ends the session for good.
type StatusTerminated struct {
	StopReason StopReason `json:"stop_reason"`
}

// SessionUsage is the sum so far.
type SessionUsage struct {
	Usage Usage       `json:"usage"`
	Cost  SessionCost `json:"cost"`
}

// SessionCost is the money of a session: what its ceiling holds now, what was charged, what this end of work released.
type SessionCost struct {
	Held     money.Nanos `json:"held"`
	Charged  money.Nanos `json:"charged"`
	Released money.Nanos `json:"released"`
}

// SessionError tells of an error and what is done about it: retrying, exhausted or terminal.
type SessionError struct {
	Error ErrorDetail `json:"error"`
	Retry string      `json:"retry"`
}

// SessionLimits changes the session's limits from here on.
type SessionLimits struct {
	Limits Limits `json:"limits"`
	By     Actor  `json:"by"`
}

// SessionQuoted says that the session runs by a quote from here on: its effects are held and captured at the quote's prices.
type SessionQuoted struct {
	Quoted
	By Actor `json:"by"`
}

// CheckpointCreated marks a place from which the session can resume: the working directory as it was here is kept.
type CheckpointCreated struct {
	Checkpoint id.Checkpoint `json:"checkpoint_id"`
	Sandbox    id.Sandbox    `json:"sandbox_id,omitempty"`
	// SHA256 names the archive of the working directory. Bytes is the archive's size, ContentBytes that of the Files in it.
	SHA256       string `json:"saved_sha256,omitempty"`
	Bytes        int64  `json:"size_bytes,omitempty"`
	ContentBytes int64  `json:"content_bytes,omitempty"`
	Files        int64  `json:"files,omitempty"`
	// Reason is why it was saved then, such as "idle" or "drained".
	Reason string `json:"reason,omitempty"`
}

// SandboxStarted says that the session has a microVM now.
type SandboxStarted struct {
	Sandbox id.Sandbox `json:"sandbox_id"`
	Driver  string     `json:"driver"`
	Node    string     `json:"node"`
	// Restored is the SHA-256 of the archive that the working directory was restored from, if any.
	Restored string `json:"restored_sha256,omitempty"`
	TookMs   int64  `json:"took_ms"`
}

// SandboxEnded says that it is gone, and why.
type SandboxEnded struct {
	Sandbox id.Sandbox `json:"sandbox_id"`
	Reason  string     `json:"reason"`
	// SavedSHA256 is the archive of the working directory; empty when nothing could be saved.
	SavedSHA256 string `json:"saved_sha256,omitempty"`
	// LostSince is set when work was lost: the time of the last save, or of the sandbox's start.
	LostSince *time.Time `json:"lost_since,omitempty"`
}

// ApprovalRequested says that people are asked about an effect, and the session rests until they have decided.
type ApprovalRequested struct {
	Approval  id.Approval `json:"approval_id"`
	ToolUseID string      `json:"tool_use_id"`
	Name      string      `json:"name"`
	// Digest is of the action that they decide on: tool, arguments, agent, session, principal, mandate.
	Digest string `json:"digest"`
	// Why names the rules that ask.
	Why       string    `json:"why"`
	ExpiresAt time.Time `json:"expires_at"`
}

// ApprovalDecided says what became of the question: approved, refused, edited, expired or void.
type ApprovalDecided struct {
	Approval   id.Approval `json:"approval_id"`
	ToolUseID  string      `json:"tool_use_id"`
	ToolUseSeq int64       `json:"tool_use_seq"`
	Digest     string      `json:"digest"`
	Decision   string      `json:"decision"`
	// By is nil where nobody answered.
	By     *Actor `json:"by"`
	Reason string `json:"reason,omitempty"`
	// Input is what a person put in place of the agent's arguments, for edited.
	Input json.RawMessage `json:"input,omitempty"`
}

// Sources of what came from outside.
const (
	TaintNetwork = "network"
	TaintMemory  = "memory"
	TaintAgent   = "agent"
	TaintFile    = "file"
)

// Tainted says that the session has read what came from outside: from here on, that may steer it.
type Tainted struct {
	// Source is network, memory, agent or file; Ref says which: a host, a record, a session, a path.
	Source string `json:"source"`
	Ref    string `json:"ref"`
	// Excerpt is the beginning of what was read.
	Excerpt string `json:"excerpt,omitempty"`
}

// EventType implements Payload.
func (ApprovalRequested) EventType() string { return "approval.requested" }

// EventType implements Payload.
func (ApprovalDecided) EventType() string { return "approval.decided" }

// EventType implements Payload.
func (Tainted) EventType() string { return "session.tainted" }

// EventType implements Payload.
func (UserMessage) EventType() string { return "user.message" }

// EventType implements Payload.
func (UserInterrupt) EventType() string { return "user.interrupt" }

// EventType implements Payload.
func (AgentMessage) EventType() string { return "agent.message" }

// EventType implements Payload.
func (AgentThinking) EventType() string { return "agent.thinking" }

// EventType implements Payload.
func (AgentToolUse) EventType() string { return "agent.tool_use" }

// EventType implements Payload.
func (AgentToolResult) EventType() string { return "agent.tool_result" }

// EventType implements Payload.
func (StepIntended) EventType() string { return "step.intended" }

// EventType implements Payload.
func (StepSettled) EventType() string { return "step.settled" }

// EventType implements Payload.
func (GateDecided) EventType() string { return "gate.decided" }

// EventType implements Payload.
func (SessionCreated) EventType() string { return "session.created" }

// EventType implements Payload.
func (StatusRunning) EventType() string { return "session.status_running" }

// EventType implements Payload.
func (StatusIdle) EventType() string { return "session.status_idle" }

// EventType implements Payload.
func (StatusRescheduled) EventType() string { return "session.status_rescheduled" }

// EventType implements Payload.
func (StatusTerminated) EventType() string { return "session.status_terminated" }

// EventType implements Payload.
func (SessionUsage) EventType() string { return "session.usage" }

// EventType implements Payload.
func (SessionError) EventType() string { return "session.error" }

// EventType implements Payload.
func (SessionLimits) EventType() string { return "session.limits_changed" }

// EventType implements Payload.
func (SessionQuoted) EventType() string { return "session.quoted" }

// EventType implements Payload.
func (CheckpointCreated) EventType() string { return "checkpoint.created" }

// EventType implements Payload.
func (SandboxStarted) EventType() string { return "sandbox.started" }

// EventType implements Payload.
func (SandboxEnded) EventType() string { return "sandbox.ended" }

// Sentence says the shortfall in words.
func (s Shortfall) Sentence() string {
	what := "The organisation's balance"
	switch s.Scope {
	case "session":
		what = "What is left of the session's price ceiling"
	case "budget":
		what = "What is left of the budget “" + s.Name + "”"
	case "mandate":
		what = "What is left of the mandate " + s.ID + " (“" + s.Name + "”)"
	}
	return what + " is " + s.Available.Display() + "; this needs up to " + s.Required.Display() + ", which is " + s.Shortfall.Display() + " more."
}
