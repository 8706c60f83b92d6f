package models_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/models"
)

func good() models.Request {
	return models.Request{
		Model: "ambit/scripted", MaxTokens: 100, System: "Be brief.",
		Messages: []models.Message{
			{Role: models.User, Content: []models.Block{models.TextBlock("hello")}},
			{Role: models.Assistant, Content: []models.Block{models.ToolUseBlock("t1", "bash", json.RawMessage(`{"command":"ls"}`))}},
			{Role: models.User, Content: []models.Block{models.ToolResultBlock("t1", "a.txt", false)}},
		},
		Tools: []models.Tool{{Name: "bash", Description: "Runs a command.", InputSchema: json.RawMessage(`{"type":"object"}`)}},
	}
}

func TestValidate(t *testing.T) {
	require.NoError(t, good().Validate())
	for pointer, spoil := range map[string]func(*models.Request){
		"/model":                     func(r *models.Request) { r.Model = "" },
		"/max_tokens":                func(r *models.Request) { r.MaxTokens = 0 },
		"/messages":                  func(r *models.Request) { r.Messages = nil },
		"/messages/0/role":           func(r *models.Request) { r.Messages[0].Role = "system" },
		"/messages/0/content/0/type": func(r *models.Request) { r.Messages[0].Content[0].Type = "video" },
		"/messages/0/content/0": func(r *models.Request) {
			r.Messages[0].Role = models.User
			r.Messages[0].Content[0].Type = models.Thinking
		},
		"/messages/1/content/0/input": func(r *models.Request) { r.Messages[1].Content[0].Input = json.RawMessage(`[1]`) },
		"/tools/0/name":               func(r *models.Request) { r.Tools[0].Name = "rm -rf" },
		"/tools/1/name":               func(r *models.Request) { r.Tools = append(r.Tools, r.Tools[0]) },
		"/tools/0/input_schema":       func(r *models.Request) { r.Tools[0].InputSchema = json.RawMessage(`true`) },
		"/temperature":                func(r *models.Request) { f := 2.5; r.Temperature = &f },
		"/stop_sequences":             func(r *models.Request) { r.StopSequences = make([]string, 5) },
	} {
		r := good()
		spoil(&r)
		err := r.Validate()
		f := fault.As(err)
		require.NotNil(t, f, pointer)
		require.Equal(t, "invalid_request", f.Code, pointer)
		require.Equal(t, pointer, f.Fields[0].Pointer)
	}
}

func TestDigestBindsWhatIsSent(t *testing.T) {
	base := models.Digest(good())
	require.NotEqual(t, [32]byte{}, base)
	same := good()
	same.Tools[0].InputSchema = json.RawMessage("{ \"type\" :\n\"object\"}")
	require.Equal(t, base, models.Digest(same), "space does not count")
	for name, change := range map[string]func(*models.Request){
		"model":    func(r *models.Request) { r.Model = "openai/x" },
		"system":   func(r *models.Request) { r.System += " " },
		"message":  func(r *models.Request) { r.Messages[0].Content[0].Text = "Hello" },
		"input":    func(r *models.Request) { r.Messages[1].Content[0].Input = json.RawMessage(`{"command":"rm"}`) },
		"is_error": func(r *models.Request) { r.Messages[2].Content[0].IsError = true },
		"limit":    func(r *models.Request) { r.MaxTokens++ },
		"tool":     func(r *models.Request) { r.Tools = nil },
	} {
		r := good()
		change(&r)
		require.NotEqual(t, base, models.Digest(r), name)
	}
}

// The worst that a byte-level tokenizer can do is one token a byte; the bound must cover it together with the framing.
func TestInputBoundCoversTheBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := models.Request{System: rapid.String().Draw(t, "system")}
		bytes := len(r.System)
		for range rapid.IntRange(0, 5).Draw(t, "messages") {
			s := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOf(rapid.Byte()), func(b []byte) string { return string(b) })).Draw(t, "text")
			r.Messages = append(r.Messages, models.Message{Role: models.User, Content: []models.Block{models.TextBlock(s)}})
			var sent string
			encoded, err := json.Marshal(s)
			require.NoError(t, err)
			require.NoError(t, json.Unmarshal(encoded, &sent))
			bytes += len(sent)
		}
		require.GreaterOrEqual(t, models.InputBound(r), int64(bytes+64*len(r.Messages)))
		require.LessOrEqual(t, models.EstimateUsage(r, models.Response{}).Input, models.InputBound(r))
	})
}

func TestToolInput(t *testing.T) {
	require.JSONEq(t, `{}`, string(models.ToolInput(" ")))
	require.JSONEq(t, `{}`, string(models.ToolInput("null")))
	require.Equal(t, `{"a": 1}`, string(models.ToolInput(`{"a": 1}`)))
	for _, bad := range []string{`{"a":1}{"a":1}`, `[1]`, `"x"`, `{"a":`} {
		text, ok := models.Malformed(models.ToolInput(bad))
		require.True(t, ok, bad)
		require.Equal(t, bad, text)
	}
	_, ok := models.Malformed(json.RawMessage(`{"command":"ls"}`))
	require.False(t, ok)
}

func TestRedact(t *testing.T) {
	require.Equal(t, "bad key [redacted]!", models.Redact("bad key sk-12345!", "sk-12345"))
	require.Equal(t, "nothing", models.Redact("nothing", ""))
	require.LessOrEqual(t, len(models.Redact(string(make([]byte, 10_000)))), 510)
}
