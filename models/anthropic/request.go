package anthropic

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"regexp"
	"strings"

	"ambit.dev/ambit/models"
)

var idShape = regexp.MustCompile(`^[a-zA-Z0-9_-]{1,64}$`)

// encode writes the request as the Messages API takes it: messages of one role in a row are joined, results of tools come first in their
// message, empty text (which the API refuses) is left out.
func encode(r models.Request, upstreamModel, provider string, cache bool) ([]byte, error) {
	w := wireRequest{
		Model: upstreamModel, MaxTokens: r.MaxTokens, Stream: true, Temperature: r.Temperature, TopP: r.TopP, StopSequences: r.StopSequences,
	}
	if r.System != "" {
		w.System = []wireBlock{{Type: "text", Text: r.System}}
	}
	for _, t := range r.Tools {
		w.Tools = append(w.Tools, wireTool{Name: t.Name, Description: t.Description, InputSchema: t.InputSchema})
	}
	for _, m := range r.Messages {
		content := encodeBlocks(m.Content, provider)
		if len(content) == 0 {
			continue
		}
		if last := len(w.Messages) - 1; last >= 0 && w.Messages[last].Role == string(m.Role) {
			w.Messages[last].Content = append(w.Messages[last].Content, content...)
			continue
		}
		w.Messages = append(w.Messages, wireMessage{Role: string(m.Role), Content: content})
	}
	for _, m := range w.Messages {
		resultsFirst(m.Content)
	}
	if cache {
		markCache(&w)
	}
	return json.Marshal(w)
}

func encodeBlocks(blocks []models.Block, provider string) []any {
	var out []any
	for _, b := range blocks {
		switch b.Type {
		case models.Text:
			if strings.TrimSpace(b.Text) != "" {
				out = append(out, &wireBlock{Type: "text", Text: b.Text})
			}
		case models.Thinking:
			// Only the provider that signed a thought takes it back.
			if b.Provider == provider && len(b.Raw) > 0 {
				out = append(out, b.Raw)
			}
		case models.ToolUse:
			out = append(out, &wireBlock{Type: "tool_use", ID: wireID(b.ID), Name: models.WireToolName(b.Name), Input: b.Input})
		case models.ToolResult:
			w := &wireBlock{Type: "tool_result", ToolUseID: wireID(b.ToolUseID), IsError: b.IsError}
			for _, c := range b.Content {
				switch {
				case c.Type == models.Image:
					w.Content = append(w.Content, *encodeImage(c))
				case c.Text != "":
					w.Content = append(w.Content, wireBlock{Type: "text", Text: c.Text})
				}
			}
			out = append(out, w)
		case models.Image:
			out = append(out, encodeImage(b))
		}
	}
	return out
}

func encodeImage(b models.Block) *wireBlock {
	return &wireBlock{Type: "image", Source: &wireSource{Type: "base64", MediaType: b.MediaType, Data: b.Data}}
}

// wireID fits an id that another provider made to the API's alphabet, the same way each time.
func wireID(id string) string {
	if idShape.MatchString(id) {
		return id
	}
	sum := sha256.Sum256([]byte(id))
	return "toolu_" + hex.EncodeToString(sum[:12])
}

func resultsFirst(content []any) {
	var results, rest []any
	for _, c := range content {
		if b, ok := c.(*wireBlock); ok && b.Type == "tool_result" {
			results = append(results, c)
		} else {
			rest = append(rest, c)
		}
	}
	copy(content, append(results, rest...))
}

// markCache asks for the prompt to be cached up to the tools and system prompt, which a session never changes, and up to its last two
// messages of the user, so that each turn reads what the one before wrote.
func markCache(w *wireRequest) {
	mark := &cacheControl{Type: "ephemeral"}
	if n := len(w.System); n > 0 {
		w.System[n-1].CacheControl = mark
	} else if n := len(w.Tools); n > 0 {
		w.Tools[n-1].CacheControl = mark
	}
	left := 2
	for i := len(w.Messages) - 1; i >= 0 && left > 0; i-- {
		if w.Messages[i].Role != string(models.User) {
			continue
		}
		if b, ok := w.Messages[i].Content[len(w.Messages[i].Content)-1].(*wireBlock); ok {
			b.CacheControl = mark
			left--
		}
	}
}
