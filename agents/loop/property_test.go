package loop_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/agents/loop"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
)

// Whatever happens in whatever order, as long as the loop's own decisions are followed: the answer is the same however the journal is
// read, a tool use with a result is never proposed, both sides take turns, and each tool use is answered in the turn after it.
func TestAnyHistory(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := begin(t).says("hello")
		piecemeal := loop.NewHistory()
		results := map[string]bool{}
		uses := 0
		for range rapid.IntRange(1, 25).Draw(rt, "rounds") {
			d := s.next()
			checkDecision(rt, s, piecemeal, d, results)

			// Somebody else may write first; then the decision is made anew.
			switch rapid.SampledFrom([]string{"go on", "go on", "go on", "message", "interrupt", "lost"}).Draw(rt, "before") {
			case "message":
				s.says("more")
				continue
			case "interrupt":
				s.interrupts()
				continue
			case "lost":
				s.add("", journal.StatusRescheduled{Reason: "the worker was lost"})
				continue
			}
			switch {
			case d.Finish != nil:
				s.idle(d.Finish.Type).says("again")
			case len(d.Tools) > 0:
				use := rapid.SampledFrom(d.Tools).Draw(rt, "tool")
				results[use.ID] = true
				s.tool(use.ID, "done")
			default:
				step := s.calls()
				if rapid.Bool().Draw(rt, "fails") {
					s.add(step, journal.StepSettled{
						Kind: journal.KindModelCall, Outcome: rapid.SampledFrom([]string{journal.Failed, journal.Unknown, journal.Cancelled}).Draw(rt, "outcome"),
						Final: rapid.Bool().Draw(rt, "final"), Error: &journal.ErrorDetail{Code: "x"},
					})
					continue
				}
				if rapid.Bool().Draw(rt, "input meanwhile") {
					s.says("meanwhile")
				}
				n := rapid.IntRange(0, 3).Draw(rt, "uses")
				s.add(step, journal.AgentMessage{Content: journal.Text("hm")})
				stop := models.EndTurn
				for range n {
					uses++
					stop = models.StopToolUse
					s.add(step, journal.AgentToolUse{ToolUseID: "use_" + strconv.Itoa(uses), Name: "bash", Input: json.RawMessage(`{}`)})
				}
				s.ends(step, stop)
			}
		}
		checkDecision(rt, s, piecemeal, s.next(), results)
	})
}

func checkDecision(rt *rapid.T, s *script, piecemeal *loop.History, d loop.Decision, results map[string]bool) {
	require.Equal(rt, d, s.next(), "asked twice, it answers the same")

	// Another worker, that followed the journal event by event, decides the same.
	require.NoError(rt, piecemeal.Apply(s.events[piecemeal.LastSeq():]...))
	again, err := piecemeal.Next(loop.Input{Agent: journal.Snapshot{Definition: journal.Definition{Model: "test/model", System: "Be brief.", MaxTokens: 77}}, Now: began})
	require.NoError(rt, err)
	require.Equal(rt, d, again)

	set := 0
	if d.Model != nil {
		set++
		checkConversation(rt, d.Model.Request.Messages)
	}
	if d.Finish != nil {
		set++
	}
	if len(d.Tools) > 0 {
		set++
	}
	require.Equal(rt, 1, set, "exactly one effect: %+v", d)
	for _, use := range d.Tools {
		require.False(rt, results[use.ID], "tool use %s has a result", use.ID)
	}
}

func checkConversation(rt *rapid.T, messages []models.Message) {
	require.NotEmpty(rt, messages)
	require.Equal(rt, models.User, messages[len(messages)-1].Role)
	for i, m := range messages {
		want := models.User
		if i%2 == 1 {
			want = models.Assistant
		}
		require.Equal(rt, want, m.Role, "%v", talk(messages))
		require.NotEmpty(rt, m.Content)
		var asked []string
		if i > 0 {
			for _, b := range messages[i-1].Content {
				if b.Type == models.ToolUse {
					asked = append(asked, b.ID)
				}
			}
		}
		var answered []string
		for _, b := range m.Content {
			if b.Type == models.ToolResult {
				answered = append(answered, b.ToolUseID)
			}
		}
		if m.Role == models.User {
			require.Equal(rt, asked, answered, "each tool use is answered in the turn after it: %v", talk(messages))
		}
	}
}

// The journals that earlier releases wrote are decided on as they were then.
func TestOldJournalsAreDecidedAsBefore(t *testing.T) {
	files, err := filepath.Glob("../../journal/testdata/golden/*.json")
	require.NoError(t, err)
	require.NotEmpty(t, files)
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			b, err := os.ReadFile(file)
			require.NoError(t, err)
			var g struct {
				Events []struct {
					Seq     int64           `json:"seq"`
					Type    string          `json:"type"`
					Step    string          `json:"step_id"`
					Payload json.RawMessage `json:"payload"`
				} `json:"events"`
				Projection struct {
					// Next is nil for a journal that has ended.
					Next *struct {
						Finish string   `json:"finish"`
						Tools  []string `json:"tools"`
						Model  bool     `json:"model"`
					} `json:"next"`
				} `json:"projection"`
			}
			require.NoError(t, json.Unmarshal(b, &g))
			s := &script{t: t}
			for _, e := range g.Events {
				s.events = append(s.events, journal.Event{Seq: e.Seq, Type: e.Type, CreatedAt: began, Payload: e.Payload})
			}
			d := s.next()
			want := g.Projection.Next
			if want == nil {
				return // it is read, and nobody asks for more
			}
			var tools []string
			for _, use := range d.Tools {
				tools = append(tools, use.ID)
			}
			require.True(t, slices.Equal(want.Tools, tools), "%v", tools)
			require.Equal(t, want.Model, d.Model != nil)
			if want.Finish != "" {
				require.Equal(t, want.Finish, d.Finish.Type)
			}
		})
	}
}
