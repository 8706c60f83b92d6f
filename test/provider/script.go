package provider

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Call is a tool call as a scripted model makes it: every part is sent as it is written, sensible or not.
type Call struct {
	ID, Name string
	// Arguments is JSON where the model is honest.
	Arguments string
}

// Turn is one answer of a scripted model.
type Turn struct {
	Say   string
	Calls []Call
	// Raw are chunks that are sent as they are, after the calls and before the end of the answer.
	Raw []string
	// After are chunks that are sent when the answer has ended.
	After []string
	// Usage is the account of tokens that it gives, as it is written; empty is an honest one.
	Usage string
	// Cut ends the stream before the answer does.
	Cut bool
	// Wait keeps the answer back until it is closed.
	Wait <-chan struct{}
}

// script is what the model says in a conversation, and what it was told in it.
type script struct {
	turns    []Turn
	steady   bool // the same conversation gets the same answer, however often it comes
	requests int
	told     []string
}

// marker begins the word by which a conversation names its script.
const marker = "script:"

// Script makes the model say the turns, one a request, in every conversation that begins with Begin(name); after the last it says that it is
// done.
func (p *Provider) Script(name string, turns ...Turn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.scripts == nil {
		p.scripts = map[string]*script{}
	}
	p.scripts[name] = &script{turns: turns}
}

// Dialogue is Script for conversations that may come to the model again, because who had asked is gone: how far one is says which turn is next.
func (p *Provider) Dialogue(name string, turns ...Turn) {
	p.Script(name, turns...)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.scripts[name].steady = true
}

// Begin is the message that begins the conversation of a script.
func Begin(name string) string { return marker + name + " begin" }

// Requests is how often a script's conversation has come to the model.
func (p *Provider) Requests(name string) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.scripts[name]; s != nil {
		return s.requests
	}
	return 0
}

// Told is what the tools' results said in the last request of a script's conversation, in their order.
func (p *Provider) Told(name string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.scripts[name]; s != nil {
		return append([]string{}, s.told...)
	}
	return nil
}

// WaitForRequest waits until a script's conversation has come to the model n times.
func (p *Provider) WaitForRequest(t testing.TB, name string, n int) {
	t.Helper()
	require.Eventually(t, func() bool { return p.Requests(name) >= n }, time.Minute, 10*time.Millisecond, "request %d of %s did not reach the provider", n, name)
}

// perform answers a request whose conversation has a script, and reports whether it has one.
func (p *Provider) perform(w http.ResponseWriter, r *http.Request, body []byte) bool {
	turn, found := p.turn(body)
	if !found {
		return false
	}
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(data string) {
		_, _ = fmt.Fprintf(w, "data: %s\n\n", data)
		_ = http.NewResponseController(w).Flush()
	}
	if turn.Wait != nil {
		select {
		case <-turn.Wait:
		case <-r.Context().Done():
			return true
		}
	}
	if turn.Say != "" {
		send(delta(map[string]any{"content": turn.Say}))
	}
	for i, c := range turn.Calls {
		send(delta(map[string]any{"tool_calls": []any{map[string]any{
			"index": i, "id": c.ID, "type": "function", "function": map[string]any{"name": c.Name, "arguments": c.Arguments},
		}}}))
	}
	for _, raw := range turn.Raw {
		send(raw)
	}
	if turn.Cut {
		return true
	}
	send(`{"id":"c1","object":"chat.completion.chunk","model":"parrot-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`)
	usage := turn.Usage
	if usage == "" {
		usage = `{"prompt_tokens":11,"completion_tokens":4,"total_tokens":15}`
	}
	send(`{"id":"c1","object":"chat.completion.chunk","model":"parrot-1","choices":[],"usage":` + usage + `}`)
	send("[DONE]")
	for _, raw := range turn.After {
		send(raw)
	}
	return true
}

func (p *Provider) turn(body []byte) (Turn, bool) {
	var req struct {
		Messages []struct {
			Role    string `json:"role"`
			Content any    `json:"content"`
		} `json:"messages"`
	}
	if json.Unmarshal(body, &req) != nil {
		return Turn{}, false
	}
	name, answers := "", 0
	var told []string
	for _, m := range req.Messages {
		text, _ := m.Content.(string)
		if rest, ok := strings.CutPrefix(text, marker); ok && m.Role == "user" && name == "" {
			name, _, _ = strings.Cut(rest, " ")
		}
		if m.Role == "assistant" {
			answers++
		}
		if m.Role == "tool" {
			told = append(told, text)
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.scripts[name]
	if s == nil {
		return Turn{}, false
	}
	s.requests++
	s.told = told
	next := s.requests - 1
	if s.steady {
		next = answers
	}
	if next >= len(s.turns) {
		return Turn{Say: "Done."}, true
	}
	return s.turns[next], true
}

// delta is a chunk that adds to the answer.
func delta(of map[string]any) string {
	b, err := json.Marshal(map[string]any{
		"id": "c1", "object": "chat.completion.chunk", "model": "parrot-1",
		"choices": []any{map[string]any{"index": 0, "delta": of, "finish_reason": nil}},
	})
	if err != nil { // maps of strings always marshal
		return err.Error()
	}
	return string(b)
}

// PieceOf is a chunk with one piece of a tool call, for a model that says its calls in pieces.
func PieceOf(index int, id, name, arguments string) string {
	function := map[string]any{"arguments": arguments}
	if name != "" {
		function["name"] = name
	}
	piece := map[string]any{"index": index, "function": function}
	if id != "" {
		piece["id"] = id
	}
	return delta(map[string]any{"tool_calls": []any{piece}})
}
