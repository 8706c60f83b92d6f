package models

import "encoding/json"

// EventKind says what an Event brings.
type EventKind string

// The kinds of event. Each content block has an Index, counted from 0 in the order of the final reply.
const (
	// TextDelta brings Text for the text block at Index.
	TextDelta EventKind = "text_delta"
	// ThinkingDelta brings Text for the thinking block at Index. A thinking block may come without any (its text withheld).
	ThinkingDelta EventKind = "thinking_delta"
	// ToolUseStart brings ToolUseID and ToolName.
	ToolUseStart EventKind = "tool_use_start"
	// ToolUseDelta brings a piece of the input's JSON in Text.
	ToolUseDelta EventKind = "tool_use_delta"
	// ToolUseStop brings the whole Input.
	ToolUseStop EventKind = "tool_use_stop"
	// UsageReport brings the counts known so far. Later ones replace earlier ones; they are never added up.
	UsageReport EventKind = "usage"
	// Stop brings the StopReason. It is the last event of a call that ended well.
	Stop EventKind = "stop"
)

// Event is one step of a streamed reply. Events are previews: the Response is the truth, and a call may fail after events were sent.
type Event struct {
	Kind       EventKind       `json:"kind"`
	Index      int             `json:"index"`
	Text       string          `json:"text,omitempty"`
	ToolUseID  string          `json:"tool_use_id,omitempty"`
	ToolName   string          `json:"tool_name,omitempty"`
	Input      json.RawMessage `json:"input,omitempty"`
	Usage      *Usage          `json:"usage,omitempty"`
	StopReason StopReason      `json:"stop_reason,omitempty"`
}
