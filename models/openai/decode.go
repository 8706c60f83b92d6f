package openai

import (
	"encoding/json"

	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/internal/reply"
)

// decoder folds the API's chunks into a reply.
type decoder struct {
	provider string
	out      *reply.Builder
	calls    []*pendingCall
	newest   map[int]*pendingCall // by the server's index
	finish   string
	matched  bool // a stop sequence matched
	refused  bool
	done     bool // [DONE] came
}

type pendingCall struct {
	at   int    // index in the reply
	id   string // the server's, which may be empty or not unique
	name string
}

func newDecoder(provider string, out *reply.Builder) *decoder {
	return &decoder{provider: provider, out: out, newest: map[int]*pendingCall{}}
}

// chunk takes one event's data. An error that the server reports inside the stream comes back as its body.
func (d *decoder) chunk(data []byte) (errorBody []byte, _ *models.Error) {
	if string(data) == "[DONE]" {
		d.done = true
		return nil, nil
	}
	var c wireChunk
	if err := json.Unmarshal(data, &c); err != nil {
		return nil, models.NewError(models.MalformedReply, "a chunk is not what the API promises", err)
	}
	if len(c.Error) > 0 && string(c.Error) != "null" {
		return data, nil
	}
	d.out.Named(c.Model, "")
	for _, choice := range c.Choices {
		if choice.Index != 0 {
			continue // one answer was asked for
		}
		if failed := d.delta(choice.Delta); failed != nil {
			return nil, failed
		}
		if choice.FinishReason != "" {
			d.finish = choice.FinishReason
			d.matched = len(choice.StopReason) > 0 && choice.StopReason[0] == '"'
		}
	}
	if c.Usage != nil {
		u, failed := usage(*c.Usage)
		if failed != nil {
			return nil, failed
		}
		// vLLM can be set to report running counts; the last report stands. What comes before the end is not final.
		d.out.Usage(u, d.finish != "" || len(c.Choices) == 0)
	}
	return nil, nil
}

func (d *decoder) delta(delta wireDelta) *models.Error {
	d.out.Thinking(d.provider, delta.ReasoningContent)
	if delta.ReasoningContent == "" {
		d.out.Thinking(d.provider, delta.Reasoning)
	}
	d.out.Text(delta.Content)
	if delta.Refusal != "" {
		d.refused = true
		d.out.Text(delta.Refusal)
	}
	for _, c := range delta.ToolCalls {
		if failed := d.call(c); failed != nil {
			return failed
		}
	}
	return nil
}

// call takes a piece of a tool call. A server may leave out the index (Gemini's door), give each call the index 0 (Ollama), or the id (vLLM).
// A piece with a name begins a call, unless it repeats the one that its index has: then the chunk was delivered twice.
func (d *decoder) call(c wireCallDelta) *models.Error {
	index := 0
	if c.Index != nil {
		index = *c.Index
	} else if c.Function.Name != "" {
		index = -1 - len(d.calls)
	} else if len(d.calls) > 0 {
		index = -len(d.calls)
	}
	p := d.newest[index]
	begins := p == nil || (c.ID != "" && p.id != "" && c.ID != p.id) || (c.Function.Name != "" && c.Function.Name != p.name)
	if begins {
		if c.Function.Name == "" {
			return models.NewError(models.MalformedReply, "a tool call without a name", nil)
		}
		p = &pendingCall{id: c.ID, name: c.Function.Name}
		p.at = d.out.Open(models.Block{Type: models.ToolUse, ID: p.id, Name: p.name})
		d.calls = append(d.calls, p)
		d.newest[index] = p
	}
	arguments, failed := argumentsText(c.Function.Arguments)
	if failed != nil {
		return failed
	}
	d.out.Append(p.at, arguments)
	return nil
}

func argumentsText(raw json.RawMessage) (string, *models.Error) {
	switch {
	case len(raw) == 0, string(raw) == "null":
		return "", nil
	case raw[0] == '"':
		var s string
		if err := json.Unmarshal(raw, &s); err != nil {
			return "", models.NewError(models.MalformedReply, "a tool call's arguments can't be read", err)
		}
		return s, nil
	default:
		return string(raw), nil
	}
}

// finishCalls ends the tool calls. Chat Completions do not say when a call is complete, so after max_tokens a call whose arguments do not
// parse counts as cut off.
func (d *decoder) finishCalls(reason models.StopReason) {
	for _, c := range d.calls {
		if reason == models.StopMaxTokens && !json.Valid([]byte(d.out.Pending(c.at))) {
			continue
		}
		d.out.Close(c.at)
	}
}

func (d *decoder) reason() models.StopReason {
	switch d.finish {
	case "length":
		return models.StopMaxTokens
	case "content_filter":
		return models.StopRefusal
	case "tool_calls", "function_call":
		return models.StopToolUse
	}
	switch {
	case d.refused:
		return models.StopRefusal
	case d.matched && len(d.calls) == 0:
		return models.StopAtSequence
	default:
		return models.EndTurn // with tool calls, the builder makes it tool_use
	}
}

// usage takes the counts apart, so that each token is in one of them.
func usage(w wireUsage) (models.Usage, *models.Error) {
	u := models.Usage{Input: w.Prompt, Output: w.Completion}
	if w.PromptDetails != nil {
		u.CacheRead, u.CacheWrite = w.PromptDetails.Cached, w.PromptDetails.CacheWrite
	}
	if w.CompletionDetails != nil {
		u.Reasoning = w.CompletionDetails.Reasoning
	}
	for _, n := range []int64{u.Input, u.Output, u.CacheRead, u.CacheWrite, u.Reasoning, w.Total} {
		if n < 0 || n > 1<<40 {
			return models.Usage{}, models.NewError(models.MalformedReply, "a count of tokens makes no sense", nil)
		}
	}
	// A part can't be more than the whole; where a server says so, the whole stands.
	u.CacheRead = min(u.CacheRead, w.Prompt)
	u.CacheWrite = min(u.CacheWrite, w.Prompt-u.CacheRead)
	u.Input = w.Prompt - u.CacheRead - u.CacheWrite
	// Some servers count reasoning beside the completion. The total tells, where there is one.
	if w.Total != w.Prompt+w.Completion+u.Reasoning || u.Reasoning == 0 {
		u.Reasoning = min(u.Reasoning, w.Completion)
		u.Output = w.Completion - u.Reasoning
	}
	return u, nil
}
