package openai

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/internal/reply"
)

func TestEncode(t *testing.T) {
	r := models.Request{
		Model: "openai/x", MaxTokens: 100, System: "Be brief.", StopSequences: []string{"END"},
		Messages: []models.Message{
			{Role: models.User, Content: []models.Block{models.TextBlock("hello"), models.TextBlock("you")}},
			{Role: models.Assistant, Content: []models.Block{
				{Type: models.Thinking, Provider: "anthropic", Raw: json.RawMessage(`{}`)},
				models.TextBlock("ok"),
				models.ToolUseBlock("call_1", "bash", json.RawMessage(`{"command": "ls"}`)), models.ToolUseBlock("call_2", "bash", json.RawMessage(`{}`)),
			}},
			{Role: models.User, Content: []models.Block{models.ToolResultBlock("call_1", "a.txt", false), models.ToolResultBlock("call_2", "no command", true), models.TextBlock("and hurry")}},
			{Role: models.User, Content: []models.Block{models.TextBlock("look"), {Type: models.Image, MediaType: "image/png", Data: "aGk="}}},
		},
		Tools: []models.Tool{{Name: "bash", Description: "Runs.", InputSchema: json.RawMessage(`{"type":"object"}`)}},
	}
	require.NoError(t, r.Validate())
	got, err := encode(r, "x", MaxCompletionTokens)
	require.NoError(t, err)
	require.JSONEq(t, `{
	  "model":"x","stream":true,"stream_options":{"include_usage":true},"max_completion_tokens":100,"stop":["END"],
	  "tools":[{"type":"function","function":{"name":"bash","description":"Runs.","parameters":{"type":"object"}}}],
	  "messages":[
	    {"role":"system","content":"Be brief."},
	    {"role":"user","content":"hello\nyou"},
	    {"role":"assistant","content":"ok","tool_calls":[
	      {"id":"call_1","type":"function","function":{"name":"bash","arguments":"{\"command\": \"ls\"}"}},
	      {"id":"call_2","type":"function","function":{"name":"bash","arguments":"{}"}}]},
	    {"role":"tool","tool_call_id":"call_1","content":"a.txt"},
	    {"role":"tool","tool_call_id":"call_2","content":"[error] no command"},
	    {"role":"user","content":"and hurry"},
	    {"role":"user","content":[{"type":"text","text":"look"},{"type":"image_url","image_url":{"url":"data:image/png;base64,aGk="}}]}
	  ]}`, string(got))
	got, err = encode(r, "x", MaxTokens)
	require.NoError(t, err)
	require.Contains(t, string(got), `"max_tokens":100`)
	require.NotContains(t, string(got), "max_completion_tokens")
}

func TestMaxTokensFieldFollowsTheServer(t *testing.T) {
	for base, want := range map[string]MaxTokensField{
		"": MaxCompletionTokens, "https://api.openai.com/v1/": MaxCompletionTokens, "https://x.openai.azure.com/openai/v1": MaxCompletionTokens,
		"http://127.0.0.1:11434": MaxTokens, "http://127.0.0.1:8000/v1": MaxTokens, "https://openai.com.evil.example/v1": MaxTokens,
	} {
		p, err := New(Config{BaseURL: base})
		require.NoError(t, err)
		require.Equal(t, want, p.field, base)
	}
	require.Equal(t, "http://127.0.0.1:11434/v1", withVersion("http://127.0.0.1:11434/"))
	require.Equal(t, "http://h/api/v3", withVersion("http://h/api/v3"))
	require.Equal(t, "http://h/v1", withVersion("http://h/v1/chat/completions"))
}

func decode(t *testing.T, request models.Request, chunks ...string) models.Response {
	t.Helper()
	out := reply.New(models.Call{Request: request, EffectKey: "stp_1"}, nil)
	d := newDecoder("openai", out)
	for _, c := range chunks {
		body, failed := d.chunk([]byte(c))
		require.Nil(t, failed, c)
		require.Nil(t, body)
	}
	reason := d.reason()
	d.finishCalls(reason)
	return out.Finish(reason, d.finish)
}

const (
	done   = `{"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`
	usage1 = `{"choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5}}`
)

func TestQuirks(t *testing.T) {
	t.Run("Ollama: calls whole, each with index 0, finish_reason stop", func(t *testing.T) {
		r := decode(t, models.Request{},
			`{"choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":[{"id":"call_a","index":0,"type":"function","function":{"name":"bash","arguments":"{\"command\":\"ls\"}"}}]},"finish_reason":null}]}`,
			`{"choices":[{"index":0,"delta":{"role":"assistant","content":"","tool_calls":[{"id":"call_b","index":0,"type":"function","function":{"name":"bash","arguments":"{\"command\":\"pwd\"}"}}]},"finish_reason":null}]}`,
			done, usage1)
		require.Len(t, r.ToolUses(), 2)
		require.JSONEq(t, `{"command":"pwd"}`, string(r.ToolUses()[1].Input))
		require.Equal(t, models.StopToolUse, r.StopReason)
	})
	t.Run("vLLM: no id, null arguments, running usage, a matched stop sequence", func(t *testing.T) {
		r := decode(t, models.Request{},
			`{"choices":[{"index":0,"delta":{"reasoning_content":"hm"}}],"usage":{"prompt_tokens":10,"completion_tokens":1}}`,
			`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":null,"function":{"name":"bash","arguments":null}}]}}]}`,
			`{"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":""}}]},"finish_reason":"tool_calls"}]}`, usage1)
		require.Equal(t, "hm", r.Content[0].Text)
		require.Len(t, r.ToolUses(), 1)
		require.NotEmpty(t, r.ToolUses()[0].ID)
		require.Equal(t, `{}`, string(r.ToolUses()[0].Input))
		require.Equal(t, models.Usage{Input: 10, Output: 5}, r.Usage)
		r = decode(t, models.Request{}, `{"choices":[{"index":0,"delta":{"content":"one "},"finish_reason":"stop","stop_reason":"END"}]}`)
		require.Equal(t, models.StopAtSequence, r.StopReason)
		require.True(t, r.UsageEstimated)
		require.EqualValues(t, 1, r.Usage.Output)
	})
	t.Run("no index, arguments as an object", func(t *testing.T) {
		r := decode(t, models.Request{},
			`{"choices":[{"delta":{"tool_calls":[{"function":{"name":"a","arguments":{"x":1}}},{"function":{"name":"b","arguments":""}}]}}]}`,
			`{"choices":[{"delta":{"tool_calls":[{"function":{"arguments":"{\"y\":2}"}}]}}]}`, done)
		require.Equal(t, `{"x":1}`, string(r.ToolUses()[0].Input))
		require.Equal(t, `{"y":2}`, string(r.ToolUses()[1].Input))
	})
	t.Run("ids that the conversation has already", func(t *testing.T) {
		earlier := models.Request{Messages: []models.Message{{Role: models.Assistant, Content: []models.Block{models.ToolUseBlock("call_0", "a", json.RawMessage(`{}`))}}}}
		chunk := `{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"call_0","function":{"name":"a","arguments":"{}"}}]}}]}`
		r := decode(t, earlier, chunk, done)
		require.NotEqual(t, "call_0", r.ToolUses()[0].ID)
		require.Equal(t, r, withTime(decode(t, earlier, chunk, done), r), "the same each time")
	})
	t.Run("max_tokens in a call", func(t *testing.T) {
		r := decode(t, models.Request{},
			`{"choices":[{"delta":{"content":"I will"}}]}`,
			`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"a","arguments":"{\"x\":"}}]}}]}`,
			`{"choices":[{"delta":{},"finish_reason":"length"}]}`)
		require.Empty(t, r.ToolUses())
		require.Equal(t, models.StopMaxTokens, r.StopReason)
	})
	t.Run("refusals", func(t *testing.T) {
		r := decode(t, models.Request{}, `{"choices":[{"delta":{"refusal":"I can't."}}]}`, done)
		require.Equal(t, models.StopRefusal, r.StopReason)
		require.Equal(t, "I can't.", r.Text())
		r = decode(t, models.Request{}, `{"choices":[{"delta":{},"finish_reason":"content_filter"}]}`)
		require.Equal(t, models.StopRefusal, r.StopReason)
	})
	t.Run("bad arguments are marked", func(t *testing.T) {
		r := decode(t, models.Request{}, `{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"a","arguments":"ls -l"}}]}}]}`, done)
		text, ok := models.Malformed(r.ToolUses()[0].Input)
		require.True(t, ok)
		require.Equal(t, "ls -l", text)
	})
}

func withTime(r, as models.Response) models.Response {
	r.TimeToFirstToken = as.TimeToFirstToken
	return r
}

func TestUsageCountsEachTokenOnce(t *testing.T) {
	for in, want := range map[string]models.Usage{
		`{"prompt_tokens":100,"completion_tokens":50,"total_tokens":150,"prompt_tokens_details":{"cached_tokens":80},"completion_tokens_details":{"reasoning_tokens":30}}`: {Input: 20, CacheRead: 80, Output: 20, Reasoning: 30},
		`{"prompt_tokens":100,"completion_tokens":50,"total_tokens":180,"completion_tokens_details":{"reasoning_tokens":30}}`:                                              {Input: 100, Output: 50, Reasoning: 30},
		`{"prompt_tokens":100,"completion_tokens":50,"prompt_tokens_details":{"cached_tokens":500}}`:                                                                       {CacheRead: 100, Output: 50},
		`{"prompt_tokens":100,"completion_tokens":50,"prompt_tokens_details":{"cached_tokens":60,"cache_write_tokens":30},"completion_tokens_details":null}`:               {Input: 10, CacheRead: 60, CacheWrite: 30, Output: 50},
		`{}`: {},
	} {
		var w wireUsage
		require.NoError(t, json.Unmarshal([]byte(in), &w))
		got, failed := usage(w)
		require.Nil(t, failed)
		require.Equal(t, want, got, in)
	}
	_, failed := usage(wireUsage{Prompt: -1})
	require.NotNil(t, failed)
}

func TestErrorBodies(t *testing.T) {
	for body, want := range map[string]struct {
		kind    models.ErrorKind
		message string
	}{
		`{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}`: {models.QuotaExhausted, "You exceeded your current quota"},
		`{"error":"model 'x' not found"}`:                        {models.ModelNotFound, "model 'x' not found"},
		`{"message":"boom"}`:                                     {"", "boom"},
		`{"detail":"Not Found"}`:                                 {"", "Not Found"},
		`{"error":{"message":"bad key","code":401}}`:             {"", "bad key"},
		`{"error":{"message":"x","code":"rate_limit_exceeded"}}`: {models.RateLimited, "x"},
		`nonsense`: {"", ""},
	} {
		kind, message := explain(400, []byte(body))
		require.Equal(t, want.kind, kind, body)
		require.Equal(t, want.message, message, body)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"choices":[{"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"a","arguments":"{}"}}]}}]}` + "\n" + done + "\n" + usage1)
	f.Add(`{"choices":[{"index":0,"delta":{"content":"x","reasoning":"y","refusal":"z"},"finish_reason":"length","stop_reason":7}]}`)
	f.Fuzz(func(t *testing.T, stream string) {
		out := reply.New(models.Call{}, nil)
		d := newDecoder("openai", out)
		for _, c := range strings.Split(stream, "\n") {
			if body, failed := d.chunk([]byte(c)); failed != nil || body != nil {
				break
			}
		}
		reason := d.reason()
		d.finishCalls(reason)
		for _, r := range []models.Response{out.Finish(reason, d.finish), out.Partial()} {
			u := r.Usage
			if u.Input < 0 || u.CacheRead < 0 || u.CacheWrite < 0 || u.Output < 0 || u.Reasoning < 0 {
				t.Fatalf("%+v", u)
			}
			request := models.Request{Model: "m", MaxTokens: 1, Messages: []models.Message{{Role: models.Assistant, Content: r.Content}}}
			if err := request.Validate(); err != nil {
				t.Fatalf("the reply can't go back: %v", err)
			}
		}
	})
}
