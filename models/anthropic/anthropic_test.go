package anthropic

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/internal/reply"
)

func conversation() models.Request {
	thought := json.RawMessage(`{"type":"thinking","thinking":"hm","signature":"c2ln","later":[1]}`)
	return models.Request{
		Model: "anthropic/claude-x", MaxTokens: 100, System: "Be brief.",
		Messages: []models.Message{
			{Role: models.User, Content: []models.Block{models.TextBlock("hello"), models.TextBlock("  ")}},
			{Role: models.Assistant, Content: []models.Block{
				{Type: models.Thinking, Provider: "anthropic", Text: "hm", Raw: thought},
				{Type: models.Thinking, Provider: "openai", Text: "another's"},
				models.ToolUseBlock("functions.bash:0", "functions.bash", json.RawMessage(`{"command":"ls"}`)),
			}},
			{Role: models.User, Content: []models.Block{models.TextBlock("and hurry")}},
			{Role: models.User, Content: []models.Block{models.ToolResultBlock("functions.bash:0", "a.txt", true)}},
		},
		Tools: []models.Tool{{Name: "bash", Description: "Runs.", InputSchema: json.RawMessage(`{"type":"object"}`)}},
	}
}

func TestEncode(t *testing.T) {
	r := conversation()
	require.NoError(t, r.Validate())
	got, err := encode(r, "claude-x", "anthropic", false)
	require.NoError(t, err)
	id := wireID("functions.bash:0")
	require.JSONEq(t, `{
	  "model":"claude-x","max_tokens":100,"stream":true,
	  "system":[{"type":"text","text":"Be brief."}],
	  "tools":[{"name":"bash","description":"Runs.","input_schema":{"type":"object"}}],
	  "messages":[
	    {"role":"user","content":[{"type":"text","text":"hello"}]},
	    {"role":"assistant","content":[
	      {"type":"thinking","thinking":"hm","signature":"c2ln","later":[1]},
	      {"type":"tool_use","id":"`+id+`","name":"functions_bash","input":{"command":"ls"}}]},
	    {"role":"user","content":[
	      {"type":"tool_result","tool_use_id":"`+id+`","content":[{"type":"text","text":"a.txt"}],"is_error":true},
	      {"type":"text","text":"and hurry"}]}
	  ]}`, string(got))
	require.Regexp(t, `^[a-zA-Z0-9_-]+$`, id)
}

func TestEncodeMarksTheCache(t *testing.T) {
	got, err := encode(conversation(), "claude-x", "anthropic", true)
	require.NoError(t, err)
	require.Equal(t, 3, strings.Count(string(got), `"cache_control":{"type":"ephemeral"}`), "the system prompt and two messages; four are allowed")
	again, err := encode(conversation(), "claude-x", "anthropic", true)
	require.NoError(t, err)
	require.Equal(t, string(got), string(again))
}

func decode(t *testing.T, events ...string) (models.Response, *decoder, *models.Error) {
	t.Helper()
	out := reply.New(models.Call{EffectKey: "stp_1"}, nil)
	d := newDecoder("anthropic", out)
	for _, e := range events {
		_, failed := d.event([]byte(e))
		if failed != nil {
			return models.Response{}, d, failed
		}
	}
	return out.Finish(stopReason(d.stop), d.stop), d, nil
}

func TestDecodeThinkingKeepsWhatIsSigned(t *testing.T) {
	r, _, failed := decode(t,
		`{"type":"message_start","message":{"model":"m","usage":{"input_tokens":5,"cache_read_input_tokens":100,"cache_creation_input_tokens":20,"output_tokens":1}}}`,
		`{"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":"","later":{"a":1}}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"let "}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"me see"}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"c2ln"}}`,
		`{"type":"content_block_stop","index":0}`,
		`{"type":"content_block_start","index":1,"content_block":{"type":"redacted_thinking","data":"xyz"}}`,
		`{"type":"content_block_stop","index":1}`,
		`{"type":"content_block_start","index":2,"content_block":{"type":"hologram","x":1}}`,
		`{"type":"content_block_delta","index":2,"delta":{"type":"hologram_delta","y":2}}`,
		`{"type":"content_block_stop","index":2}`,
		`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}`,
		`{"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"output_tokens":9}}`,
	)
	require.Nil(t, failed)
	require.Len(t, r.Content, 2)
	require.Equal(t, "let me see", r.Content[0].Text)
	require.JSONEq(t, `{"type":"thinking","thinking":"let me see","signature":"c2ln","later":{"a":1}}`, string(r.Content[0].Raw))
	require.JSONEq(t, `{"type":"redacted_thinking","data":"xyz"}`, string(r.Content[1].Raw))
	require.Equal(t, models.Usage{Input: 5, CacheRead: 100, CacheWrite: 20, Output: 9}, r.Usage)
}

func TestDecodeMaxTokensDropsHalfACall(t *testing.T) {
	r, _, failed := decode(t,
		`{"type":"message_start","message":{"usage":{"input_tokens":5}}}`,
		`{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"bash","input":{}}}`,
		`{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{\"comm"}}`,
		`{"type":"message_delta","delta":{"stop_reason":"max_tokens"},"usage":{"output_tokens":100}}`,
	)
	require.Nil(t, failed)
	require.Equal(t, models.StopMaxTokens, r.StopReason)
	require.Empty(t, r.Content)
}

func TestDecodeRefusesNonsense(t *testing.T) {
	for _, events := range [][]string{
		{`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"x"}}`},
		{`{"type":"content_block_stop","index":3}`},
		{`{"type":"message_start"}`},
		{`{"type":"message_start","message":{"usage":{"input_tokens":-1}}}`},
		{`{"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}`, `{"type":"content_block_start","index":0,"content_block":{"type":"text","text":"other"}}`},
		{`{"type":"content_block_start","index":0,"content_block":{"type":"tool_use"}}`},
		{`{"type":"error"}`},
		{`[]`},
		{`{`},
	} {
		_, _, failed := decode(t, events...)
		require.NotNil(t, failed, events)
		require.Equal(t, models.MalformedReply, failed.Kind)
	}
}

func TestKinds(t *testing.T) {
	for body, want := range map[string]models.ErrorKind{
		`{"error":{"type":"invalid_request_error","message":"Your credit balance is too low to access the API"}}`: models.QuotaExhausted,
		`{"error":{"type":"not_found_error","message":"model: claude-9"}}`:                                        models.ModelNotFound,
		`{"error":{"type":"brand_new_error"}}`:                                                                    "",
		`<html>`:                                                                                                  "",
		`{"error":"text"}`:                                                                                        "",
	} {
		kind, _ := explain(400, []byte(body))
		require.Equal(t, want, kind, body)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"type":"message_start","message":{"usage":{"input_tokens":5}}}` + "\n" + `{"type":"content_block_start","index":0,"content_block":{"type":"tool_use","id":"t","name":"bash","input":{}}}` + "\n" +
		`{"type":"content_block_delta","index":0,"delta":{"type":"input_json_delta","partial_json":"{}"}}` + "\n" + `{"type":"content_block_stop","index":0}`)
	f.Add(`{"type":"content_block_start","index":0,"content_block":{"type":"thinking"}}` + "\n" + `{"type":"content_block_stop","index":0}`)
	f.Fuzz(func(t *testing.T, stream string) {
		out := reply.New(models.Call{}, nil)
		d := newDecoder("anthropic", out)
		for _, e := range strings.Split(stream, "\n") {
			if _, failed := d.event([]byte(e)); failed != nil {
				break
			}
		}
		for _, r := range []models.Response{out.Finish(stopReason(d.stop), d.stop), out.Partial()} {
			request := models.Request{Model: "m", MaxTokens: 1, Messages: []models.Message{{Role: models.Assistant, Content: r.Content}}}
			if err := request.Validate(); err != nil {
				t.Fatalf("the reply can't go back: %v", err)
			}
			if _, err := encode(request, "m", "anthropic", true); err != nil {
				t.Fatal(err)
			}
		}
	})
}
