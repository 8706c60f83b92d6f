package contract_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/anthropic"
	"ambit.dev/ambit/models/openai"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m, goleak.IgnoreCurrent()) }

const key = "sk-contract-0123456789"

// dialect is what the tests need to know of a provider's wire format.
type dialect struct {
	name string
	// path is where its base URL stands on the mock, and where it calls.
	basePath, path string
	make           func(base string, idle, total time.Duration) (models.Provider, error)
	// whole is a good stream: the text "Hello", one tool call, usage 10 in and 5 out. Its parts are its events.
	whole []string
	// errorBody is an error as the API words it.
	errorBody func(kind, message string) string
	// overloaded and tooLong are errors in the API's own words.
	overloaded, tooLong string
}

var dialects = []dialect{
	{
		name: "anthropic", path: "/v1/messages",
		make: func(base string, idle, total time.Duration) (models.Provider, error) {
			return anthropic.New(anthropic.Config{APIKey: key, BaseURL: base, Idle: idle, Total: total})
		},
		whole: []string{
			sse("message_start", `{"type":"message_start","message":{"id":"msg_1","model":"claude-x-2026","usage":{"input_tokens":10,"cache_read_input_tokens":0,"output_tokens":1}}}`),
			sse("ping", `{"type":"ping"}`),
			sse("content_block_start", `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`),
			sse("content_block_delta", `{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello"}}`),
			sse("content_block_stop", `{"type":"content_block_stop","index":0}`),
			sse("content_block_start", `{"type":"content_block_start","index":1,"content_block":{"type":"tool_use","id":"toolu_1","name":"get_weather","input":{}}}`),
			sse("content_block_delta", `{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"{\"city\": \"P"}}`),
			sse("content_block_delta", `{"type":"content_block_delta","index":1,"delta":{"type":"input_json_delta","partial_json":"aris\"}"}}`),
			sse("content_block_stop", `{"type":"content_block_stop","index":1}`),
			sse("message_delta", `{"type":"message_delta","delta":{"stop_reason":"tool_use"},"usage":{"output_tokens":5}}`),
			sse("message_stop", `{"type":"message_stop"}`),
		},
		errorBody: func(kind, message string) string {
			return fmt.Sprintf(`{"type":"error","error":{"type":%q,"message":%q}}`, kind, message)
		},
		overloaded: sse("error", `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`),
		tooLong:    `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}`,
	},
	{
		name: "openai", basePath: "/v1", path: "/v1/chat/completions",
		make: func(base string, idle, total time.Duration) (models.Provider, error) {
			return openai.New(openai.Config{APIKey: key, BaseURL: base, Idle: idle, Total: total})
		},
		whole: []string{
			sse("", `{"id":"c1","model":"gpt-x-2026","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`),
			sse("", `{"id":"c1","model":"gpt-x-2026","choices":[{"index":0,"delta":{"content":"Hello"},"finish_reason":null}]}`),
			sse("", `{"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"get_weather","arguments":""}}]}}]}`),
			sse("", `{"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"city\": \"P"}}]}}]}`),
			sse("", `{"id":"c1","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"aris\"}"}}]}}]}`),
			sse("", `{"id":"c1","choices":[{"index":0,"delta":{},"finish_reason":"tool_calls"}]}`),
			sse("", `{"id":"c1","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":5,"total_tokens":15}}`),
			sse("", `[DONE]`),
		},
		errorBody: func(kind, message string) string {
			return fmt.Sprintf(`{"error":{"message":%q,"type":%q,"code":null}}`, message, kind)
		},
		overloaded: sse("", `{"error":{"message":"Overloaded","type":"overloaded_error"}}`),
		tooLong:    `{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","code":"context_length_exceeded"}}`,
	},
}

func sse(event, data string) string {
	if event != "" {
		return "event: " + event + "\ndata: " + data + "\n\n"
	}
	return "data: " + data + "\n\n"
}

func weather(provider, model string) models.Request {
	return models.Request{
		Model: provider + "/" + model, MaxTokens: 200, System: "You tell the weather.",
		Messages: []models.Message{{Role: models.User, Content: []models.Block{models.TextBlock("weather in Paris?")}}},
		Tools:    []models.Tool{{Name: "get_weather", Description: "Tells the weather.", InputSchema: json.RawMessage(`{"type":"object","properties":{"city":{"type":"string"}}}`)}},
	}
}

// folded puts a reply together from its events alone.
type folded struct {
	text  map[int]string
	tools map[int]models.Event
	usage models.Usage
	stop  models.StopReason
}

func (f *folded) take(e models.Event) {
	if f.text == nil {
		f.text, f.tools = map[int]string{}, map[int]models.Event{}
	}
	switch e.Kind {
	case models.TextDelta, models.ThinkingDelta, models.ToolUseDelta:
		f.text[e.Index] += e.Text
	case models.ToolUseStop:
		f.tools[e.Index] = e
	case models.UsageReport:
		f.usage = *e.Usage
	case models.Stop:
		f.stop = e.StopReason
	case models.ToolUseStart:
	}
}

func requireSame(t *testing.T, f folded, r models.Response) {
	t.Helper()
	require.Equal(t, r.StopReason, f.stop)
	require.Equal(t, r.Usage, f.usage)
	text, tools := "", 0
	for i := range len(f.text) + len(f.tools) {
		if _, isTool := f.tools[i]; !isTool {
			text += f.text[i]
		}
	}
	for _, use := range f.tools {
		tools++
		require.JSONEq(t, string(use.Input), f.text[use.Index])
	}
	require.Equal(t, r.Text(), text)
	require.Len(t, r.ToolUses(), tools)
}
