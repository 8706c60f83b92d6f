package scripted_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/scripted"
)

func tool(name, properties string) models.Tool {
	return models.Tool{Name: name, InputSchema: json.RawMessage(`{"type":"object","properties":{` + properties + `}}`)}
}

var tools = []models.Tool{
	tool("bash", `"command":{"type":"string"},"timeout_seconds":{"type":"integer"}`), tool("python", `"code":{"type":"string"}`),
	tool("read_file", `"path":{"type":"string"}`), tool("write_file", `"path":{"type":"string"},"content":{"type":"string"}`),
	tool("edit_file", `"path":{"type":"string"},"replace_all":{"type":"boolean"}`), tool("list_files", ""), tool("search", ""),
}

func request(script string) models.Request {
	return models.Request{
		Model: scripted.ID, MaxTokens: 4096, Tools: tools,
		Messages: []models.Message{{Role: models.User, Content: []models.Block{models.TextBlock(script)}}},
	}
}

// play runs a session until the model ends its turn, answering each tool call with "result of <name>".
func play(t *testing.T, r models.Request) ([]models.Response, string) {
	t.Helper()
	var turns []models.Response
	for range 50 {
		resp, err := scripted.New(scripted.Config{}).Generate(context.Background(), models.Call{Request: r}, nil)
		require.NoError(t, err)
		turns = append(turns, resp)
		r.Messages = append(r.Messages, models.Message{Role: models.Assistant, Content: resp.Content})
		if resp.StopReason != models.StopToolUse {
			return turns, resp.Text()
		}
		var results []models.Block
		for _, use := range resp.ToolUses() {
			results = append(results, models.ToolResultBlock(use.ID, "result of "+use.Name, false))
		}
		r.Messages = append(r.Messages, models.Message{Role: models.User, Content: results})
		require.NoError(t, r.Validate())
	}
	t.Fatal("the script does not end")
	return nil, ""
}

func inputs(turns []models.Response) (out []string) {
	for _, turn := range turns {
		for _, use := range turn.ToolUses() {
			out = append(out, use.Name+" "+string(use.Input))
		}
	}
	return out
}

func TestOneCallATurnInOrder(t *testing.T) {
	turns, last := play(t, request("Do this:\n```bash timeout_seconds=5\necho hi\n```\nthen\n```write_file path=\"a b.txt\"\nline\n```\n"+
		"```read_file a.txt\n```\n~~~py\nprint(1)\n~~~\n```edit_file path=x replace_all=true\n<<<<<<<\nold\n=======\nnew\nmore\n>>>>>>>\n```\n"+
		"```go\nfunc main() {}\n```\n```tool name=search\n{\"q\": \"x\"}\n```\n```list_files\n```"))
	require.Equal(t, []string{
		`bash {"command":"echo hi","timeout_seconds":5}`,
		`write_file {"content":"line\n","path":"a b.txt"}`,
		`read_file {"path":"a.txt"}`,
		`python {"code":"print(1)"}`,
		`edit_file {"new_text":"new\nmore","old_text":"old","path":"x","replace_all":true}`,
		`search {"q": "x"}`,
		`list_files {}`,
	}, inputs(turns))
	require.Len(t, turns, 8)
	require.Equal(t, "Done: 7 tool calls. The last one, list_files, answered:\n\n```\nresult of list_files\n```", last)
}

func TestDirectives(t *testing.T) {
	turns, last := play(t, request("```say\nFirst.\n```\n```think\nHm.\n```\n```bash repeat=3\ntrue\n```\n````parallel\n```bash\na\n```\n```python\nb\n```\n````\n```say\nThe end.\n```"))
	require.Len(t, turns, 5)
	require.Equal(t, "First.", turns[0].Text())
	require.Equal(t, models.Thinking, turns[0].Content[0].Type)
	require.Len(t, turns[3].ToolUses(), 2)
	require.Equal(t, "The end.", last)
	ids := map[string]bool{}
	for _, turn := range turns {
		for _, use := range turn.ToolUses() {
			require.False(t, ids[use.ID], "ids are unique")
			ids[use.ID] = true
		}
	}
	resp, err := scripted.New(scripted.Config{}).Generate(context.Background(), models.Call{Request: request("```stop reason=refusal\n```")}, nil)
	require.NoError(t, err)
	require.Equal(t, models.StopRefusal, resp.StopReason)
	_, err = scripted.New(scripted.Config{}).Generate(context.Background(), models.Call{Request: request("```fail kind=overloaded\n```")}, nil)
	e, ok := models.AsError(err)
	require.True(t, ok)
	require.Equal(t, models.Overloaded, e.Kind)
}

func TestMistakesCallNothing(t *testing.T) {
	for script, says := range map[string]string{
		"```bash\necho":                                 "Line 1: this block is never closed",
		"\n\n```bash timeout_seconds=x\nls\n```":        "Line 3: timeout_seconds must be a number",
		"```bash repeat=0\nls\n```":                     "repeat must be a number from 1 to 1000",
		"```write_file path=\nx\n```":                   "path has no value",
		"```write_file path=\"a\nx\n```":                "a quote is never closed",
		"```read_file a path=b\n```":                    "path is given twice",
		"```edit_file path=a\nnothing\n```":             "write the old text between",
		"```tool name=search\n[1]\n```":                 "not a JSON object",
		"```tool name=nope\n```":                        "no tool named nope",
		"```pause seconds=-1\n```":                      "write ```pause seconds=2",
		"```parallel\n```":                              "parallel holds no tool call",
		"```bash\nls\n```\n```stop reason=because\n```": "reason must be",
	} {
		turns, last := play(t, request(script))
		require.Len(t, turns, 1, script)
		require.Contains(t, last, says, script)
		require.Contains(t, last, "called no tool", script)
	}
	r := request("```bash\nls\n```")
	r.Tools = nil
	_, last := play(t, r)
	require.Contains(t, last, "the agent has no tool named bash")
}

func TestNoBlocksSaysWhatItIs(t *testing.T) {
	_, last := play(t, request("What is the capital of France?"))
	require.Contains(t, last, "not a language model")
	require.Contains(t, last, "What is the capital of France?")
	_, last = play(t, request("Is ```` a fence?"))
	require.Contains(t, last, "`````\n", "what is quoted can't close its fence")
}

func TestANewMessageTakesOver(t *testing.T) {
	r := request("```bash\none\n```\n```bash\ntwo\n```")
	resp, err := scripted.New(scripted.Config{}).Generate(context.Background(), models.Call{Request: r}, nil)
	require.NoError(t, err)
	r.Messages = append(r.Messages, models.Message{Role: models.Assistant, Content: resp.Content},
		models.Message{Role: models.User, Content: []models.Block{models.ToolResultBlock(resp.ToolUses()[0].ID, "ok", false), models.TextBlock("```python\nthree\n```")}})
	turns, _ := play(t, r)
	require.Equal(t, []string{`python {"code":"three"}`}, inputs(turns))
}

func TestLimitsAreObeyed(t *testing.T) {
	r := request("```say\n" + strings.Repeat("é", 100) + "\n```")
	r.MaxTokens = 10
	resp, err := scripted.New(scripted.Config{}).Generate(context.Background(), models.Call{Request: r}, nil)
	require.NoError(t, err)
	require.Equal(t, models.StopMaxTokens, resp.StopReason)
	require.Equal(t, strings.Repeat("é", 20), resp.Text())
	require.EqualValues(t, 10, resp.Usage.Output)
	require.False(t, resp.UsageEstimated)
	require.LessOrEqual(t, resp.Usage.Prompt(), models.InputBound(r))

	r = request("```bash\n" + strings.Repeat("x", 100) + "\n```")
	r.MaxTokens = 10
	resp, err = scripted.New(scripted.Config{}).Generate(context.Background(), models.Call{Request: r}, nil)
	require.NoError(t, err)
	require.Equal(t, models.StopMaxTokens, resp.StopReason)
	require.Empty(t, resp.ToolUses(), "half a tool call is none")

	r = request("```say\none END two\n```")
	r.StopSequences = []string{"END"}
	resp, err = scripted.New(scripted.Config{}).Generate(context.Background(), models.Call{Request: r}, nil)
	require.NoError(t, err)
	require.Equal(t, "one ", resp.Text())
	require.Equal(t, models.StopAtSequence, resp.StopReason)
}

func TestPauseCanBeCancelled(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := scripted.New(scripted.Config{}).Generate(ctx, models.Call{Request: request("```pause seconds=600\n```")}, nil)
	e, ok := models.AsError(err)
	require.True(t, ok)
	require.Equal(t, models.Cancelled, e.Kind)
	require.Less(t, time.Since(began), time.Minute)
}

func TestEventsMakeTheReply(t *testing.T) {
	var text strings.Builder
	var kinds []models.EventKind
	resp, err := scripted.New(scripted.Config{ChunkBytes: 3}).Generate(context.Background(), models.Call{Request: request("```say\nhéllo wörld\n```\n```bash\nls\n```")}, func(e models.Event) {
		if e.Kind == models.TextDelta {
			text.WriteString(e.Text)
		}
		kinds = append(kinds, e.Kind)
	})
	require.NoError(t, err)
	require.Equal(t, resp.Text(), text.String())
	require.Equal(t, models.Stop, kinds[len(kinds)-1])
	require.Contains(t, kinds, models.ToolUseStop)
}

func FuzzScript(f *testing.F) {
	f.Add("```bash\nls\n```")
	f.Add("~~~~parallel x=\"\\\"\"\n```read_file a\n```\n~~~~")
	f.Add("```edit_file p\n<<<<<<<\n=======\n>>>>>>>\n```")
	f.Fuzz(func(t *testing.T, script string) {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // a script may pause
		_, err := scripted.New(scripted.Config{}).Generate(ctx, models.Call{Request: request(script)}, nil)
		if _, ok := models.AsError(err); !ok {
			t.Fatalf("%v", err)
		}
	})
}
