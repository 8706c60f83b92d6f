package loop_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/agents/loop"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
)

var start = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

func input() loop.Input {
	return loop.Input{
		Agent: journal.Snapshot{Definition: journal.Definition{Model: "ambit/scripted", System: "Be brief.", MaxTokens: 100}},
		Tools: []models.Tool{{Name: "bash", InputSchema: json.RawMessage(`{"type":"object"}`)}},
		Now:   start,
	}
}

// book is a journal under construction.
type book struct {
	events []journal.Event
}

func (b *book) add(step id.Step, p journal.Payload) id.Event {
	raw, err := json.Marshal(p)
	if err != nil {
		panic(err)
	}
	e := journal.Event{
		ID: id.New[id.Event](), Type: p.EventType(), Seq: int64(len(b.events) + 1), Step: step, SchemaVersion: journal.SchemaVersion,
		CreatedAt: start.Add(time.Duration(len(b.events)) * time.Second), Payload: raw,
	}
	b.events = append(b.events, e)
	return e.ID
}

func (b *book) seq() int64 { return int64(len(b.events)) }

func begun(texts ...string) *book {
	b := &book{}
	b.add("", journal.SessionCreated{})
	for _, t := range texts {
		b.say(t)
	}
	b.add("", journal.StatusRunning{})
	return b
}

func (b *book) say(text string) { b.add("", journal.UserMessage{Content: journal.Text(text)}) }

// model journals one model call with its outcome.
func (b *book) model(outcome string, stop models.StopReason, said ...journal.Payload) {
	step := id.New[id.Step]()
	b.add(step, journal.StepIntended{Kind: journal.KindModelCall, Name: "ambit/scripted", LastInputSeq: b.seq()})
	for _, p := range said {
		b.add(step, p)
	}
	settled := journal.StepSettled{Kind: journal.KindModelCall, Outcome: outcome, StopReason: string(stop)}
	if outcome != journal.Succeeded {
		settled.Error = &journal.ErrorDetail{Code: "provider_failed", Message: "overloaded"}
	}
	b.add(step, settled)
}

func (b *book) result(use, text string) {
	step := id.New[id.Step]()
	b.add(step, journal.StepIntended{Kind: journal.KindToolCall, Name: "bash", ToolUseID: use})
	b.add(step, journal.AgentToolResult{ToolUseID: use, Content: journal.Text(text)})
	b.add(step, journal.StepSettled{Kind: journal.KindToolCall, Outcome: journal.Succeeded})
}

func use(n int) journal.AgentToolUse {
	return journal.AgentToolUse{ToolUseID: fmt.Sprintf("use_%d", n), Name: "bash", Input: json.RawMessage(`{"command":"ls"}`)}
}

func text(s string) journal.AgentMessage { return journal.AgentMessage{Content: journal.Text(s)} }

func next(t *testing.T, b *book, in loop.Input) loop.Decision {
	t.Helper()
	d, err := loop.Next(b.events, in)
	require.NoError(t, err)
	return d
}

func TestAWholeSession(t *testing.T) {
	b := begun("list the files")
	d := next(t, b, input())
	require.Equal(t, "list the files", d.Model.Request.Messages[0].Content[0].Text)
	require.Equal(t, 1, d.Model.Attempt)

	b.model(journal.Succeeded, models.StopToolUse, text("I look."), use(1), use(2))
	d = next(t, b, input())
	require.Len(t, d.Tools, 2)
	b.result("use_1", "a.txt")
	d = next(t, b, input())
	require.Len(t, d.Tools, 1)
	require.Equal(t, "use_2", d.Tools[0].ID)
	b.say("hurry") // queued: it enters at the next model call, after the results
	require.Len(t, next(t, b, input()).Tools, 1)
	b.result("use_2", "b.txt")

	d = next(t, b, input())
	require.Len(t, d.Model.Request.Messages, 3)
	last := d.Model.Request.Messages[2].Content
	require.Equal(t, []models.BlockType{models.ToolResult, models.ToolResult, models.Text}, []models.BlockType{last[0].Type, last[1].Type, last[2].Type})
	require.Equal(t, "hurry", last[2].Text)
	require.NoError(t, d.Model.Request.Validate())

	b.model(journal.Succeeded, models.EndTurn, text("Two files."))
	require.Equal(t, journal.StopEndTurn, next(t, b, input()).Finish.Type)
}

func TestStops(t *testing.T) {
	for stop, want := range map[models.StopReason]string{
		models.EndTurn: journal.StopEndTurn, models.StopAtSequence: journal.StopEndTurn, models.StopMaxTokens: journal.StopMaxTokens, models.StopRefusal: journal.StopRefusal,
	} {
		b := begun("hello")
		b.model(journal.Succeeded, stop, text("hi"))
		require.Equal(t, want, next(t, b, input()).Finish.Type)
		b.say("and now?") // input that came meanwhile goes on
		require.NotNil(t, next(t, b, input()).Model)
	}
	b := begun("hello")
	b.model(journal.Succeeded, models.StopMaxTokens, use(1))
	require.Len(t, next(t, b, input()).Tools, 1, "a whole call before the limit is carried out")
	require.Equal(t, journal.StopEndTurn, next(t, begun(), input()).Finish.Type, "nothing was said")
}

func TestLimits(t *testing.T) {
	for want, spoil := range map[string]func(*loop.Input){
		journal.LimitSteps: func(in *loop.Input) { in.Limits.MaxSteps, in.Usage.Steps = 3, 3 },
		journal.LimitTokens: func(in *loop.Input) {
			in.Limits.MaxTokens, in.Usage.OutputTokens, in.Usage.CacheReadTokens = 100, 40, 60
		},
		journal.LimitWallTime: func(in *loop.Input) { in.Limits.MaxWallSeconds, in.Now = 60, start.Add(time.Minute) },
	} {
		in := input()
		spoil(&in)
		b := begun("hello")
		require.Equal(t, want, next(t, b, in).Finish.Limit)
		b.model(journal.Succeeded, models.StopToolUse, use(1))
		require.Equal(t, want, next(t, b, in).Finish.Limit, "no tool either")
		require.Len(t, next(t, b, input()).Tools, 1, "with the limit raised it goes on where it was")
		b = begun("hello")
		b.model(journal.Succeeded, models.EndTurn, text("hi"))
		require.Equal(t, journal.StopEndTurn, next(t, b, in).Finish.Type, "what is done is done")
	}
}

func TestFailuresAreTriedAgainAndThenGivenUp(t *testing.T) {
	b := begun("hello")
	for attempt := 1; attempt <= loop.MaxAttempts; attempt++ {
		require.Equal(t, attempt, next(t, b, input()).Model.Attempt)
		b.model(journal.Failed, "")
		b.model(journal.Cancelled, "") // a worker that was stopped is no failure of the provider
	}
	d := next(t, b, input())
	require.Equal(t, journal.StopRetriesExhausted, d.Finish.Type)
	require.Equal(t, "provider_failed", d.Finish.Error.Code)
	b.say("try again")
	require.Equal(t, 1, next(t, b, input()).Model.Attempt)
}

func TestInterrupt(t *testing.T) {
	b := begun("hello")
	b.model(journal.Succeeded, models.StopToolUse, use(1))
	b.add("", journal.UserInterrupt{By: journal.Actor{ID: "usr_1"}})
	d := next(t, b, input())
	require.Equal(t, journal.StopInterrupted, d.Finish.Type)
	require.Equal(t, "usr_1", d.Finish.By)
	b.add("", journal.StatusIdle{StopReason: *d.Finish})
	b.say("do something else")
	d = next(t, b, input())
	require.NotNil(t, d.Model, "the interrupted tool is not called")
	result := d.Model.Request.Messages[2].Content[0]
	require.True(t, result.IsError)
	require.Contains(t, result.Content[0].Text, "interrupted")
}

func TestAJournalThatCannotBe(t *testing.T) {
	b := begun("hello")
	_, err := loop.Next(b.events[1:], input())
	require.Error(t, err)
	_, err = loop.Next(nil, input())
	require.Error(t, err)
	b.model(journal.Succeeded, models.StopToolUse, use(1))
	b.result("use_1", "once")
	b.result("use_1", "twice")
	_, err = loop.Next(b.events, input())
	require.ErrorContains(t, err, "second result")
	b = begun("hello")
	b.events[1].Payload = json.RawMessage(`{"content":5}`)
	_, err = loop.Next(b.events, input())
	require.Error(t, err)
}

// Random sessions: whatever models, tools, people and crashes do, the loop answers the same each time, asks for no tool twice, sends only
// requests that a provider takes, and loses no word of the user's.
func TestRandomSessions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := begun("message 0")
		said, uses := []string{"message 0"}, 0
		history := loop.NewHistory()
		done := map[string]bool{} // tool uses that have a result
		var interrupted int64
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			if rapid.IntRange(0, 5).Draw(t, "message") == 0 {
				said = append(said, fmt.Sprintf("message %d", len(said)))
				b.say(said[len(said)-1])
			}
			if rapid.IntRange(0, 15).Draw(t, "interrupt") == 0 {
				b.add("", journal.UserInterrupt{})
				interrupted = b.seq()
			}
			require.NoError(t, history.Apply(b.events[history.LastSeq():]...))
			d, err := history.Next(input())
			require.NoError(t, err)
			whole, err := loop.Next(b.events, input())
			require.NoError(t, err)
			require.Equal(t, whole, d, "folded as it grew, and read at once")
			again, err := history.Next(input())
			require.NoError(t, err)
			require.Equal(t, d, again, "asking changes nothing")

			switch {
			case d.Model != nil:
				requireTakeable(t, d.Model.Request, said)
				switch rapid.IntRange(0, 6).Draw(t, "model") {
				case 0:
					b.model(rapid.SampledFrom([]string{journal.Failed, journal.Cancelled, journal.Unknown}).Draw(t, "outcome"), "")
				case 1, 2, 3:
					var blocks []journal.Payload
					if rapid.Bool().Draw(t, "thinks") {
						blocks = append(blocks, journal.AgentThinking{Summary: "hm", Provider: "ambit", Raw: json.RawMessage(`{"type":"thinking"}`)})
					}
					for range rapid.IntRange(1, 3).Draw(t, "uses") {
						uses++
						blocks = append(blocks, use(uses))
					}
					b.model(journal.Succeeded, rapid.SampledFrom([]models.StopReason{models.StopToolUse, models.StopMaxTokens}).Draw(t, "stop"), blocks...)
				default:
					stop := rapid.SampledFrom([]models.StopReason{models.EndTurn, models.StopMaxTokens, models.StopRefusal}).Draw(t, "stop")
					if rapid.Bool().Draw(t, "silent") {
						b.model(journal.Succeeded, stop)
					} else {
						b.model(journal.Succeeded, stop, text("done"))
					}
				}
			case len(d.Tools) > 0:
				for _, u := range d.Tools {
					require.False(t, done[u.ID], "%s has a result", u.ID)
					require.Greater(t, u.Seq, interrupted, "%s was interrupted", u.ID)
				}
				first := d.Tools[0].ID
				done[first] = true
				b.result(first, "ok")
			default:
				require.NotNil(t, d.Finish)
				b.add("", journal.StatusIdle{StopReason: *d.Finish})
				said = append(said, fmt.Sprintf("message %d", len(said)))
				b.say(said[len(said)-1])
				b.add("", journal.StatusRescheduled{})
			}
		}
	})
}

// requireTakeable checks what every provider demands of a conversation.
func requireTakeable(t require.TestingT, r models.Request, said []string) {
	require.NoError(t, r.Validate())
	require.Equal(t, models.User, r.Messages[0].Role)
	require.Equal(t, models.User, r.Messages[len(r.Messages)-1].Role)
	var heard []string
	var open []string // tool uses of the message before
	for i, m := range r.Messages {
		require.NotEmpty(t, m.Content)
		if i > 0 {
			require.NotEqual(t, r.Messages[i-1].Role, m.Role, "the roles take turns")
		}
		var answered []string
		for _, c := range m.Content {
			switch c.Type {
			case models.ToolResult:
				answered = append(answered, c.ToolUseID)
			case models.Text:
				if m.Role == models.User {
					heard = append(heard, c.Text)
				}
			}
		}
		if m.Role == models.User {
			require.Equal(t, open, answered, "each tool use is answered in the next message, once, in order")
			open = nil
			continue
		}
		for _, c := range m.Content {
			if c.Type == models.ToolUse {
				open = append(open, c.ID)
			}
		}
	}
	require.Equal(t, said, heard)
}
