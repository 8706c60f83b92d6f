package openai

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"strings"

	"ambit.dev/ambit/models"
)

// encode writes the request as Chat Completions take it. Results of tools become messages of their own, right after the calls.
func encode(r models.Request, upstreamModel string, field MaxTokensField) ([]byte, error) {
	w := wireRequest{
		Model: upstreamModel, Stream: true, StreamOptions: &streamOptions{IncludeUsage: true},
		Temperature: r.Temperature, TopP: r.TopP, Stop: r.StopSequences,
	}
	if field == MaxCompletionTokens {
		w.MaxCompletionTokens = r.MaxTokens
	} else {
		w.MaxTokens = r.MaxTokens
	}
	for _, t := range r.Tools {
		w.Tools = append(w.Tools, wireTool{Type: "function", Function: toolSpec{Name: t.Name, Description: t.Description, Parameters: t.InputSchema}})
	}
	if r.System != "" {
		w.Messages = append(w.Messages, wireMessage{Role: "system", Content: r.System})
	}
	for _, m := range r.Messages {
		if m.Role == models.Assistant {
			w.Messages = append(w.Messages, assistant(m.Content)...)
		} else {
			w.Messages = append(w.Messages, user(m.Content)...)
		}
	}
	return json.Marshal(w)
}

func assistant(blocks []models.Block) []wireMessage {
	m := wireMessage{Role: "assistant"}
	var text []string
	for _, b := range blocks {
		switch b.Type {
		case models.Text:
			if b.Text != "" {
				text = append(text, b.Text)
			}
		case models.ToolUse:
			m.ToolCalls = append(m.ToolCalls, wireCall{ID: wireID(b.ID), Type: "function", Function: wireFunction{Name: models.WireToolName(b.Name), Arguments: string(b.Input)}})
		default: // thinking is not taken back, and an assistant says nothing else
		}
	}
	if len(text) > 0 {
		m.Content = strings.Join(text, "\n")
	}
	if m.Content == nil && len(m.ToolCalls) == 0 {
		return nil // nothing but thinking, which this API does not take back
	}
	return []wireMessage{m}
}

func user(blocks []models.Block) []wireMessage {
	var out []wireMessage
	var parts []wirePart
	picture := false
	for _, b := range blocks {
		switch b.Type {
		case models.ToolResult:
			out = append(out, wireMessage{Role: "tool", ToolCallID: wireID(b.ToolUseID), Content: resultText(b)})
			// A tool's message holds text only; a picture in a result follows as the user's.
			for _, c := range b.Content {
				if c.Type == models.Image {
					parts, picture = append(parts, image(c)), true
				}
			}
		case models.Text:
			if b.Text != "" {
				parts = append(parts, wirePart{Type: "text", Text: b.Text})
			}
		case models.Image:
			parts, picture = append(parts, image(b)), true
		default: // a user neither thinks nor uses tools
		}
	}
	switch {
	case len(parts) == 0:
	case picture:
		out = append(out, wireMessage{Role: "user", Content: parts})
	default: // a plain string is what every server takes
		texts := make([]string, len(parts))
		for i, p := range parts {
			texts[i] = p.Text
		}
		out = append(out, wireMessage{Role: "user", Content: strings.Join(texts, "\n")})
	}
	return out
}

// resultText is a result as text. The API has no mark for a result that is an error, so the text says it.
func resultText(b models.Block) string {
	var text []string
	for _, c := range b.Content {
		switch c.Type {
		case models.Text:
			text = append(text, c.Text)
		case models.Image:
			text = append(text, "(An image follows.)")
		default:
		}
	}
	s := strings.Join(text, "\n")
	if b.IsError {
		return "[error] " + s
	}
	return s
}

// wireID fits an id that another provider made to the API's longest, the same way each time.
func wireID(id string) string {
	if len(id) <= 40 {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "call_" + hex.EncodeToString(sum[:12])
}

func image(b models.Block) wirePart {
	return wirePart{Type: "image_url", ImageURL: &imageURL{URL: "data:" + b.MediaType + ";base64," + b.Data}}
}
