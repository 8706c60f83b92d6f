package models

import (
	"encoding/json"
	"fmt"
	"regexp"
	"unicode/utf8"

	"ambit.dev/ambit/internal/fault"
)

// Role says who speaks a message.
type Role string

// The roles. A tool's result is spoken by the user.
const (
	User      Role = "user"
	Assistant Role = "assistant"
)

// BlockType says which fields of a Block count.
type BlockType string

// The types of content.
const (
	// Text uses Text.
	Text BlockType = "text"
	// Thinking uses Text (a readable form, possibly empty), Provider and Raw.
	Thinking BlockType = "thinking"
	// ToolUse uses ID, Name and Input.
	ToolUse BlockType = "tool_use"
	// ToolResult uses ToolUseID, Content and IsError.
	ToolResult BlockType = "tool_result"
	// Image uses MediaType and Data.
	Image BlockType = "image"
)

// Block is one piece of a message. It is one flat struct, as on the wire and in the journal, and not an interface, so that a block read
// from an old journal needs no registry of types to be written again unchanged.
type Block struct {
	Type BlockType `json:"type"`
	Text string    `json:"text,omitempty"`

	// Provider and Raw keep a thinking block exactly as its provider sent it, signature included. It goes back to that provider
	// unchanged, and to no other.
	Provider string          `json:"provider,omitempty"`
	Raw      json.RawMessage `json:"raw,omitempty"`

	ID    string          `json:"id,omitempty"`
	Name  string          `json:"name,omitempty"`
	Input json.RawMessage `json:"input,omitempty"`

	ToolUseID string  `json:"tool_use_id,omitempty"`
	Content   []Block `json:"content,omitempty"`
	IsError   bool    `json:"is_error,omitempty"`

	MediaType string `json:"media_type,omitempty"`
	// Data is the image in standard base64.
	Data string `json:"data,omitempty"`
}

// TextBlock is a block of text.
func TextBlock(text string) Block { return Block{Type: Text, Text: text} }

// ToolUseBlock is a model's wish to have a tool called.
func ToolUseBlock(id, name string, input json.RawMessage) Block {
	return Block{Type: ToolUse, ID: id, Name: name, Input: input}
}

// ToolResultBlock is what became of a tool call.
func ToolResultBlock(toolUseID, text string, isError bool) Block {
	return Block{Type: ToolResult, ToolUseID: toolUseID, Content: []Block{TextBlock(text)}, IsError: isError}
}

// Message is one turn.
type Message struct {
	Role    Role    `json:"role"`
	Content []Block `json:"content"`
}

// Tool is a tool as a model sees it.
type Tool struct {
	// Name matches [a-zA-Z0-9_-]{1,64}, which every provider accepts.
	Name        string `json:"name"`
	Description string `json:"description,omitempty"`
	// InputSchema is a JSON Schema of type object.
	InputSchema json.RawMessage `json:"input_schema"`
}

// Request is one model call, whoever the provider.
type Request struct {
	// Model is a gateway id, "provider/model".
	Model    string    `json:"model"`
	System   string    `json:"system,omitempty"`
	Messages []Message `json:"messages"`
	Tools    []Tool    `json:"tools,omitempty"`
	// MaxTokens is the hard limit of output tokens, thinking included. It is required: the hold is made from it.
	MaxTokens     int64    `json:"max_tokens"`
	Temperature   *float64 `json:"temperature,omitempty"`
	TopP          *float64 `json:"top_p,omitempty"`
	StopSequences []string `json:"stop_sequences,omitempty"`
	// Metadata is for traces; providers are not sent it.
	Metadata map[string]string `json:"metadata,omitempty"`
}

const (
	maxMessages = 100_000
	maxTools    = 256
	maxStops    = 4
	// MaxOutputTokens is the largest max_tokens that the gateway takes; a provider may take less.
	MaxOutputTokens = 1_000_000
)

var toolName = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// ValidToolName reports whether every provider accepts the name.
func ValidToolName(name string) bool { return toolName.MatchString(name) }

// Validate checks what no provider could accept. It returns a fault with a pointer to the field.
func (r Request) Validate() error {
	switch {
	case r.Model == "":
		return fault.InvalidField("/model", "required", "Name a model, such as \"ambit/scripted\".")
	case r.MaxTokens < 1 || r.MaxTokens > MaxOutputTokens:
		return fault.InvalidField("/max_tokens", "out_of_range", fmt.Sprintf("max_tokens must be between 1 and %d.", MaxOutputTokens))
	case len(r.Messages) == 0:
		return fault.InvalidField("/messages", "required", "There must be at least one message.")
	case len(r.Messages) > maxMessages:
		return fault.InvalidField("/messages", "too_many", fmt.Sprintf("There may be at most %d messages.", maxMessages))
	case len(r.Tools) > maxTools:
		return fault.InvalidField("/tools", "too_many", fmt.Sprintf("There may be at most %d tools.", maxTools))
	case len(r.StopSequences) > maxStops:
		return fault.InvalidField("/stop_sequences", "too_many", fmt.Sprintf("There may be at most %d stop sequences.", maxStops))
	case r.Temperature != nil && !(*r.Temperature >= 0 && *r.Temperature <= 2): // written so that NaN fails
		return fault.InvalidField("/temperature", "out_of_range", "temperature must be between 0 and 2.")
	case r.TopP != nil && !(*r.TopP > 0 && *r.TopP <= 1):
		return fault.InvalidField("/top_p", "out_of_range", "top_p must be above 0 and at most 1.")
	}
	seen := map[string]bool{}
	for i, t := range r.Tools {
		at := fmt.Sprintf("/tools/%d", i)
		switch {
		case !ValidToolName(t.Name):
			return fault.InvalidField(at+"/name", "invalid", "A tool's name has 1 to 64 letters, digits, underscores or hyphens.")
		case seen[t.Name]:
			return fault.InvalidField(at+"/name", "duplicate", fmt.Sprintf("There are two tools named %q.", t.Name))
		case !isObject(t.InputSchema):
			return fault.InvalidField(at+"/input_schema", "invalid", "input_schema must be a JSON object.")
		}
		seen[t.Name] = true
	}
	for i, m := range r.Messages {
		if m.Role != User && m.Role != Assistant {
			return fault.InvalidField(fmt.Sprintf("/messages/%d/role", i), "invalid", "A role is \"user\" or \"assistant\".")
		}
		for j, b := range m.Content {
			if err := b.validate(fmt.Sprintf("/messages/%d/content/%d", i, j), m.Role); err != nil {
				return err
			}
		}
	}
	return nil
}

func (b Block) validate(at string, role Role) error {
	switch b.Type {
	case Text:
		return nil
	case Thinking:
		if role != Assistant {
			return fault.InvalidField(at, "invalid", "Only an assistant thinks.")
		}
		if len(b.Raw) > 0 && !json.Valid(b.Raw) {
			return fault.InvalidField(at+"/raw", "invalid", "raw must be JSON.")
		}
	case ToolUse:
		switch {
		case role != Assistant:
			return fault.InvalidField(at, "invalid", "Only an assistant uses tools.")
		case b.ID == "" || b.Name == "":
			return fault.InvalidField(at, "required", "A tool_use has an id and a name.")
		case !isObject(b.Input):
			return fault.InvalidField(at+"/input", "invalid", "A tool's input must be a JSON object.")
		}
	case ToolResult:
		if role != User {
			return fault.InvalidField(at, "invalid", "A tool_result is spoken by the user.")
		}
		if b.ToolUseID == "" {
			return fault.InvalidField(at+"/tool_use_id", "required", "A tool_result names its tool_use.")
		}
		for k, c := range b.Content {
			if c.Type != Text && c.Type != Image {
				return fault.InvalidField(fmt.Sprintf("%s/content/%d", at, k), "invalid", "A tool_result holds text and images.")
			}
		}
	case Image:
		if b.MediaType == "" || b.Data == "" {
			return fault.InvalidField(at, "required", "An image has a media_type and base64 data.")
		}
	default:
		return fault.InvalidField(at+"/type", "invalid", fmt.Sprintf("There is no content of type %q.", clip(string(b.Type), 40)))
	}
	return nil
}

func isObject(raw json.RawMessage) bool {
	for _, c := range raw {
		switch c {
		case ' ', '\t', '\r', '\n':
			continue
		case '{':
			return json.Valid(raw)
		}
		return false
	}
	return false
}

// clip shortens s to at most n bytes, on a character's edge.
func clip(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
