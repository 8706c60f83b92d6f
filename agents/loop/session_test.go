package loop_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/agents/loop"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
)

func TestAWholeSession(t *testing.T) {
	s := begin(t).says("list the files")
	d := s.next(func(in *loop.Input) {
		in.Tools = []models.Tool{{Name: "bash", InputSchema: json.RawMessage(`{"type":"object"}`)}}
	})
	r := d.Model.Request
	require.NoError(t, r.Validate())
	require.Equal(t, "test/model", r.Model)
	require.Equal(t, "Be brief.", r.System)
	require.EqualValues(t, 77, r.MaxTokens)
	require.Len(t, r.Tools, 1)
	require.Equal(t, []string{"user: list the files"}, talk(r.Messages))
	require.Equal(t, 1, d.Model.Attempt)
	require.EqualValues(t, 2, d.Model.LastInputSeq)

	s.answers("I look.", "a", "b")
	require.Len(t, s.next().Tools, 2)
	s.tool("a", "a.txt")
	require.Equal(t, "b", s.next().Tools[0].ID)
	s.says("hurry") // queued: it enters at the next model call, after the results
	require.Len(t, s.next().Tools, 1)
	s.tool("b", "b.txt")
	require.Equal(t, []string{
		"user: list the files", "assistant: I look. use(a) use(b)", "user: result(a=a.txt) result(b=b.txt) hurry",
	}, talk(s.next().Model.Request.Messages))

	s.answers("Two files.")
	require.Equal(t, journal.StopEndTurn, s.next().Finish.Type)
	s.idle(journal.StopEndTurn).says("and now?")
	require.Equal(t, []string{"assistant: Two files.", "user: and now?"}, talk(s.next().Model.Request.Messages)[3:])
}

func TestHowAnAnswerEndsTheWork(t *testing.T) {
	for stop, want := range map[models.StopReason]string{
		models.EndTurn: journal.StopEndTurn, models.StopAtSequence: journal.StopEndTurn, models.StopMaxTokens: journal.StopMaxTokens, models.StopRefusal: journal.StopRefusal,
	} {
		s := begin(t).says("hello")
		s.ends(s.calls(), stop)
		require.Equal(t, want, s.next().Finish.Type)
		require.NotNil(t, s.says("and now?").next().Model, "input that came meanwhile is answered")
	}
	s := begin(t).says("hello")
	step := s.calls()
	s.add(step, journal.AgentToolUse{ToolUseID: "a", Name: "bash", Input: json.RawMessage(`{}`)}).ends(step, models.StopMaxTokens)
	require.Len(t, s.next().Tools, 1, "a call that was whole before the limit is carried out")
	require.Equal(t, journal.StopEndTurn, begin(t).next().Finish.Type, "nobody has said anything")
}

func TestThoughtsGoBackToWhoHadThem(t *testing.T) {
	s := begin(t).says("hello")
	step := s.calls()
	raw := json.RawMessage(`{"type":"thinking","thinking":"hm","signature":"c2ln"}`)
	s.add(step, journal.AgentThinking{Summary: "hm", Provider: "anthropic", Raw: raw})
	s.add(step, journal.AgentToolUse{ToolUseID: "a", Name: "bash", Input: json.RawMessage(`{}`)}).ends(step, models.StopToolUse)
	s.tool("a", "ok")
	thought := s.next().Model.Request.Messages[1].Content[0]
	require.Equal(t, models.Block{Type: models.Thinking, Text: "hm", Provider: "anthropic", Raw: raw}, thought)
}

func TestLimits(t *testing.T) {
	for want, change := range map[string]func(*loop.Input){
		journal.LimitSteps: func(in *loop.Input) { in.Limits.MaxSteps, in.Usage.Steps = 3, 3 },
		journal.LimitTokens: func(in *loop.Input) {
			in.Limits.MaxTokens, in.Usage.OutputTokens, in.Usage.CacheReadTokens = 100, 40, 60
		},
		journal.LimitWallTime: func(in *loop.Input) { in.Limits.MaxWallSeconds, in.Now = 60, began.Add(time.Minute) },
	} {
		s := begin(t).says("hello")
		stop := *s.next(change).Finish
		require.Contains(t, stop.Reason, "limits.max_", "it says which limit, and what it allows")
		stop.Reason = ""
		require.Equal(t, journal.StopReason{Type: journal.StopBudgetReached, Limit: want, Scope: "session"}, stop)
		s.answers("", "a")
		require.Equal(t, want, s.next(change).Finish.Limit, "no tool either")
		require.Len(t, s.next().Tools, 1, "with the limit raised it goes on where it was")
		s = begin(t).says("hello").answers("hi")
		require.Equal(t, journal.StopEndTurn, s.next(change).Finish.Type, "what is done is done")
	}
}

func TestFailuresAreTriedAgainAndThenGivenUp(t *testing.T) {
	s := begin(t).says("hello")
	for attempt := 1; attempt <= loop.MaxAttempts; attempt++ {
		require.Equal(t, attempt, s.next().Model.Attempt)
		s.fails(func(p *journal.StepSettled) { p.Outcome = journal.Cancelled }) // a worker that was stopped is no failure of the provider
		require.Equal(t, attempt, s.next().Model.Attempt)
		s.fails(func(p *journal.StepSettled) { p.RetryAfterMillis = 1500 })
		if attempt < loop.MaxAttempts {
			require.Equal(t, 1500*time.Millisecond, s.next().Model.RetryAfter)
			require.Equal(t, s.events[len(s.events)-1].CreatedAt, s.next().Model.FailedAt)
		}
	}
	stop := s.next().Finish
	require.Equal(t, journal.StopRetriesExhausted, stop.Type)
	require.Equal(t, "provider_failed", stop.Error.Code)
	require.Equal(t, 1, s.says("try again").next().Model.Attempt)

	s = begin(t).says("hello").fails(func(p *journal.StepSettled) { p.Final = true })
	require.Equal(t, journal.StopRetriesExhausted, s.next().Finish.Type, "what can't help is not tried again")
	s = begin(t).says("hello").fails().answers("hi")
	require.Equal(t, journal.StopEndTurn, s.next().Finish.Type)
}

func TestInterrupt(t *testing.T) {
	s := begin(t).says("hello").answers("", "a")
	s.interrupts()
	stop := s.next().Finish
	require.Equal(t, journal.StopInterrupted, stop.Type)
	require.Equal(t, "key_1", stop.By)
	s.idle(stop.Type).says("do something else")
	require.Equal(t, []string{
		"user: hello", "assistant: use(a)", "user: result(a=Not done: the work was interrupted before this tool was called.) do something else",
	}, talk(s.next().Model.Request.Messages), "the interrupted tool is not called")

	s = begin(t).says("hello")
	s.interrupts().says("rather this")
	require.NotNil(t, s.next().Model, "a message after the interrupt goes on at once")
}

func TestAJournalThatCannotBe(t *testing.T) {
	s := begin(t).says("hello")
	_, err := loop.Next(s.events[1:], loop.Input{})
	require.Error(t, err, "a gap")
	_, err = loop.Next(nil, loop.Input{})
	require.Error(t, err, "no beginning")
	s.answers("", "a").tool("a", "once").tool("a", "twice")
	_, err = loop.Next(s.events, loop.Input{})
	require.ErrorContains(t, err, "second result")
	s = begin(t).says("hello")
	s.events[1].Payload = json.RawMessage(`{"content":5}`)
	_, err = loop.Next(s.events, loop.Input{})
	require.Error(t, err)
}

// Whenever a message comes, it reaches the model: each once, in order, and at the latest with the next call.
func TestNoWordIsLost(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		s := begin(t)
		var said []string
		say := func() {
			said = append(said, fmt.Sprintf("message %d", len(said)))
			s.says(said[len(said)-1])
		}
		say()
		uses := 0
		for range rapid.IntRange(1, 30).Draw(rt, "rounds") {
			switch rapid.IntRange(0, 9).Draw(rt, "before") {
			case 0, 1:
				say()
			case 2:
				s.interrupts()
			}
			d := s.next()
			switch {
			case d.Model != nil:
				var heard []string
				for _, m := range d.Model.Request.Messages {
					for _, b := range m.Content {
						if m.Role == models.User && b.Type == models.Text {
							heard = append(heard, b.Text)
						}
					}
				}
				require.Equal(rt, said, heard)
				switch rapid.IntRange(0, 3).Draw(rt, "answer") {
				case 0:
					s.fails()
				case 1:
					s.answers("done")
				default:
					uses += 2
					s.answers("", fmt.Sprintf("use_%d", uses), fmt.Sprintf("use_%d", uses+1))
				}
			case len(d.Tools) > 0:
				s.tool(d.Tools[0].ID, "ok")
			default:
				s.idle(d.Finish.Type)
				say()
			}
		}
	})
}
