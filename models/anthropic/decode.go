package anthropic

import (
	"encoding/json"
	"fmt"

	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/internal/reply"
)

// decoder folds the API's events into a reply.
type decoder struct {
	provider string
	out      *reply.Builder
	blocks   map[int]*incoming
	usage    models.Usage
	started  bool
	stop     string
	stopped  bool // message_delta with a stop reason came
	done     bool // message_stop came
}

type incoming struct {
	at     int // index in the reply
	kind   string
	start  json.RawMessage
	closed bool
	// signature of a thinking block, which comes in pieces after its text.
	signature string
}

func newDecoder(provider string, out *reply.Builder) *decoder {
	return &decoder{provider: provider, out: out, blocks: map[int]*incoming{}}
}

func malformed(format string, args ...any) *models.Error {
	return models.NewError(models.MalformedReply, fmt.Sprintf(format, args...), nil)
}

// event takes one event's data. An event inside the stream that reports an error comes back as that error.
func (d *decoder) event(data []byte) (*wireError, *models.Error) {
	var e wireEvent
	if err := json.Unmarshal(data, &e); err != nil {
		return nil, models.NewError(models.MalformedReply, "an event is not JSON", err)
	}
	switch e.Type {
	case "message_start":
		if e.Message == nil {
			return nil, malformed("message_start without a message")
		}
		if d.started {
			return nil, nil // delivered twice
		}
		d.started = true
		d.out.Named(e.Message.Model, "")
		return nil, d.count(e.Message.Usage, false)
	case "content_block_start":
		return nil, d.open(e)
	case "content_block_delta":
		return nil, d.delta(e)
	case "content_block_stop":
		return nil, d.close(e.Index)
	case "message_delta":
		if e.Delta != nil && e.Delta.StopReason != "" {
			d.stop, d.stopped = e.Delta.StopReason, true
		}
		return nil, d.count(e.Usage, d.stopped)
	case "message_stop":
		d.done = true
	case "error":
		if e.Error == nil {
			return nil, malformed("an error event without an error")
		}
		return e.Error, nil
	}
	return nil, nil // ping, and what later versions of the API may send
}

func (d *decoder) open(e wireEvent) *models.Error {
	var b struct {
		Type     string          `json:"type"`
		ID       string          `json:"id"`
		Name     string          `json:"name"`
		Text     string          `json:"text"`
		Thinking string          `json:"thinking"`
		Input    json.RawMessage `json:"input"`
	}
	if err := json.Unmarshal(e.ContentBlock, &b); err != nil {
		return models.NewError(models.MalformedReply, "a content block is not JSON", err)
	}
	if known, ok := d.blocks[e.Index]; ok {
		if string(known.start) == string(e.ContentBlock) {
			return nil // delivered twice
		}
		return malformed("content block %d was started twice", e.Index)
	}
	in := &incoming{at: -1, kind: b.Type, start: e.ContentBlock}
	switch b.Type {
	case "text":
		in.at = d.out.Open(models.Block{Type: models.Text})
		d.out.Append(in.at, b.Text)
	case "thinking", "redacted_thinking":
		in.at = d.out.Open(models.Block{Type: models.Thinking, Provider: d.provider})
		d.out.Append(in.at, b.Thinking)
	case "tool_use":
		if b.ID == "" || b.Name == "" {
			return malformed("a tool_use without id or name")
		}
		in.at = d.out.Open(models.Block{Type: models.ToolUse, ID: b.ID, Name: b.Name})
		if len(b.Input) > 2 { // not "{}": some servers send the whole input at once
			d.out.Append(in.at, string(b.Input))
		}
	}
	d.blocks[e.Index] = in // a block of an unknown type is followed but not shown
	return nil
}

func (d *decoder) delta(e wireEvent) *models.Error {
	in, ok := d.blocks[e.Index]
	if !ok || e.Delta == nil {
		return malformed("a delta for content block %d, which was not started", e.Index)
	}
	if in.closed {
		return malformed("a delta for content block %d, which has ended", e.Index)
	}
	if in.at < 0 {
		return nil
	}
	switch {
	case e.Delta.Type == "text_delta" && in.kind == "text":
		d.out.Append(in.at, e.Delta.Text)
	case e.Delta.Type == "thinking_delta" && in.kind == "thinking":
		d.out.Append(in.at, e.Delta.Thinking)
	case e.Delta.Type == "signature_delta":
		in.signature += e.Delta.Signature
	case e.Delta.Type == "input_json_delta" && in.kind == "tool_use":
		d.out.Append(in.at, e.Delta.PartialJSON)
	}
	return nil
}

func (d *decoder) close(index int) *models.Error {
	in, ok := d.blocks[index]
	if !ok {
		return malformed("the end of content block %d, which was not started", index)
	}
	if in.closed || in.at < 0 {
		return nil
	}
	in.closed = true
	switch in.kind {
	case "thinking", "redacted_thinking":
		raw, err := wholeThought(in.start, d.out.Pending(in.at), in.signature)
		if err != nil {
			return models.NewError(models.MalformedReply, "a thinking block is not JSON", err)
		}
		d.out.Keep(in.at, raw)
	}
	d.out.Close(in.at)
	return nil
}

// wholeThought is the block as the API wants it back: the start's members, fields unknown to us included, with the streamed text and
// signature filled in.
func wholeThought(start json.RawMessage, text, signature string) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	if err := json.Unmarshal(start, &members); err != nil {
		return nil, err
	}
	set := func(name, value string) error {
		raw, err := json.Marshal(value)
		members[name] = raw
		return err
	}
	if string(members["type"]) == `"thinking"` {
		if err := set("thinking", text); err != nil {
			return nil, err
		}
		if signature != "" {
			if err := set("signature", signature); err != nil {
				return nil, err
			}
		}
	}
	return json.Marshal(members)
}

// count takes the counts that an event names. They are totals so far, so that an event that comes twice changes nothing.
func (d *decoder) count(u *wireUsage, final bool) *models.Error {
	if u == nil {
		return nil
	}
	for _, f := range []struct {
		from *int64
		to   *int64
	}{{u.Input, &d.usage.Input}, {u.Output, &d.usage.Output}, {u.CacheRead, &d.usage.CacheRead}, {u.CacheWrite, &d.usage.CacheWrite}} {
		if f.from == nil {
			continue
		}
		if *f.from < 0 {
			return malformed("a negative count of tokens")
		}
		*f.to = *f.from
	}
	d.out.Usage(d.usage, final)
	return nil
}

func stopReason(s string) models.StopReason {
	switch s {
	case "tool_use":
		return models.StopToolUse
	case "max_tokens", "model_context_window_exceeded":
		return models.StopMaxTokens
	case "stop_sequence":
		return models.StopAtSequence
	case "refusal":
		return models.StopRefusal
	default:
		return models.EndTurn
	}
}

// explain reads an error body.
func explain(_ int, body []byte) (models.ErrorKind, string) {
	var b wireErrorBody
	if json.Unmarshal(body, &b) != nil || b.Error == nil {
		return "", ""
	}
	return kindOf(*b.Error), b.Error.Message
}
