package models_test

import (
	"encoding/json"
	"reflect"
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

// Each field of a request, also one that is added later, must change the digest: a request that was admitted is the one that is sent.
func TestDigestBindsWhatIsSent(t *testing.T) {
	whole := func() models.Request {
		r := good()
		r.Temperature, r.TopP = new(float64), new(float64)
		r.StopSequences, r.Metadata = []string{"x"}, map[string]string{"k": "v"}
		r.Messages[0].Content[0] = models.Block{
			Type: models.Text, Text: "t", Provider: "p", Raw: json.RawMessage(`{}`), ID: "i", Name: "n", Input: json.RawMessage(`{}`), ToolUseID: "u",
			Content: []models.Block{models.TextBlock("c")}, MediaType: "m", Data: "d",
		}
		return r
	}
	seen := map[[32]byte]string{models.Digest(whole()): "unchanged"}
	again := whole()
	require.Contains(t, seen, models.Digest(again))
	changed := func(name string, r models.Request) {
		d := models.Digest(r)
		require.NotContains(t, seen, d, "%s has the digest of %s", name, seen[d])
		seen[d] = name
	}
	changes := func(name string, field func(r *models.Request) reflect.Value) {
		r := whole()
		change(t, field(&r))
		changed(name, r)
	}
	for i := range reflect.TypeFor[models.Request]().NumField() {
		changes("Request."+reflect.TypeFor[models.Request]().Field(i).Name, func(r *models.Request) reflect.Value { return reflect.ValueOf(r).Elem().Field(i) })
	}
	for i := range reflect.TypeFor[models.Message]().NumField() {
		changes("Message."+reflect.TypeFor[models.Message]().Field(i).Name, func(r *models.Request) reflect.Value { return reflect.ValueOf(&r.Messages[0]).Elem().Field(i) })
	}
	for i := range reflect.TypeFor[models.Block]().NumField() {
		changes("Block."+reflect.TypeFor[models.Block]().Field(i).Name, func(r *models.Request) reflect.Value {
			return reflect.ValueOf(&r.Messages[0].Content[0]).Elem().Field(i)
		})
	}
	for i := range reflect.TypeFor[models.Tool]().NumField() {
		changes("Tool."+reflect.TypeFor[models.Tool]().Field(i).Name, func(r *models.Request) reflect.Value { return reflect.ValueOf(&r.Tools[0]).Elem().Field(i) })
	}
	// What one field gives up, its neighbour does not take over unseen.
	moved := whole()
	moved.Model, moved.System = moved.Model+moved.System, ""
	changed("a field moved into its neighbour", moved)
}

// change makes a value another one.
func change(t *testing.T, v reflect.Value) {
	t.Helper()
	switch v.Kind() {
	case reflect.String:
		v.SetString(v.String() + "x")
	case reflect.Int64:
		v.SetInt(v.Int() + 1)
	case reflect.Bool:
		v.SetBool(!v.Bool())
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 {
			v.SetBytes(append([]byte(" "), v.Bytes()...))
			return
		}
		v.Set(reflect.Append(v, reflect.Zero(v.Type().Elem())))
	case reflect.Map:
		v.SetMapIndex(reflect.ValueOf("another"), reflect.ValueOf(""))
	case reflect.Pointer:
		v.Set(reflect.Zero(v.Type()))
	default:
		t.Fatalf("how to change a %s is not known here", v.Kind())
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
