package loop_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/agents/loop"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
)

const notDone = "Not done: the work was interrupted before this tool was called."

func TestAMessageIsAnsweredByAModelCall(t *testing.T) {
	d := begin(t).says("hello").next(func(in *loop.Input) { in.Tools = []models.Tool{{Name: "bash"}} })
	require.Nil(t, d.Tools)
	require.Nil(t, d.Finish)
	require.Equal(t, models.Request{
		Model: "test/model", System: "Be brief.", MaxTokens: 77, Tools: []models.Tool{{Name: "bash"}},
		Messages: []models.Message{{Role: models.User, Content: []models.Block{models.TextBlock("hello")}}},
	}, d.Model.Request)
	require.Equal(t, 1, d.Model.Attempt)
	require.Equal(t, int64(2), d.Model.LastInputSeq)
}

func TestHowATurnEnds(t *testing.T) {
	for model, want := range map[models.StopReason]string{
		models.EndTurn: journal.StopEndTurn, models.StopMaxTokens: journal.StopMaxTokens, models.StopRefusal: journal.StopRefusal,
		models.StopAtSequence: journal.StopEndTurn, "something new": journal.StopEndTurn,
	} {
		t.Run(string(model), func(t *testing.T) {
			s := begin(t).says("hello")
			s.ends(s.calls(), model)
			require.Equal(t, &journal.StopReason{Type: want}, s.next().Finish)
		})
	}
}

func TestTheTwoSidesTakeTurns(t *testing.T) {
	s := begin(t).says("count").answers("I look.", "a", "b")
	d := s.next()
	require.Nil(t, d.Model)
	require.Len(t, d.Tools, 2)
	require.Equal(t, "a", d.Tools[0].ID)
	require.JSONEq(t, `{"command":"a"}`, string(d.Tools[0].Input))

	s.tool("a", "1")
	d = s.next()
	require.Len(t, d.Tools, 1, "what has a result is not called again")
	require.Equal(t, "b", d.Tools[0].ID)

	s.tool("b", "2")
	require.Equal(t, []string{"user: count", "assistant: I look. use(a) use(b)", "user: result(a=1) result(b=2)"}, talk(s.next().Model.Request.Messages))
	s.answers("Three.")
	require.Equal(t, journal.StopEndTurn, s.next().Finish.Type)

	s.idle(journal.StopEndTurn).says("and now?")
	require.Equal(t, []string{
		"user: count", "assistant: I look. use(a) use(b)", "user: result(a=1) result(b=2)", "assistant: Three.", "user: and now?",
	}, talk(s.next().Model.Request.Messages))
}

func TestResultsComeBeforeWhatWasQueuedMeanwhile(t *testing.T) {
	s := begin(t).says("count").answers("", "a").says("hurry").tool("a", "1").says("please")
	require.Equal(t, []string{"user: count", "assistant: use(a)", "user: result(a=1) hurry please"}, talk(s.next().Model.Request.Messages))
}

func TestInputThatTheLastCallDidNotSeeIsAnswered(t *testing.T) {
	s := begin(t).says("one")
	step := s.calls()
	s.says("two") // while the call was under way
	s.add(step, journal.AgentMessage{Content: journal.Text("First.")}).ends(step, models.EndTurn)
	d := s.next()
	require.Nil(t, d.Finish, "the second message has no answer yet")
	require.Equal(t, []string{"user: one", "assistant: First.", "user: two"}, talk(d.Model.Request.Messages))
	s.answers("Second.")
	require.Equal(t, journal.StopEndTurn, s.next().Finish.Type)
}

func TestThinkingGoesBackAsItCame(t *testing.T) {
	s := begin(t).says("think")
	step := s.calls()
	s.add(step, journal.AgentThinking{Summary: "hm", Provider: "anthropic", Raw: json.RawMessage(`{"signature":"x"}`)})
	s.add(step, journal.AgentToolUse{ToolUseID: "a", Name: "bash", Input: json.RawMessage(`{}`)})
	s.ends(step, models.StopToolUse).tool("a", "1")
	block := s.next().Model.Request.Messages[1].Content[0]
	require.Equal(t, models.Block{Type: models.Thinking, Text: "hm", Provider: "anthropic", Raw: json.RawMessage(`{"signature":"x"}`)}, block)
}

func TestWhatFollowsAFailure(t *testing.T) {
	after := func(ms int64) func(*journal.StepSettled) {
		return func(p *journal.StepSettled) { p.RetryAfterMillis = ms }
	}
	outcome := func(o string) func(*journal.StepSettled) {
		return func(p *journal.StepSettled) { p.Outcome = o }
	}
	final := func(p *journal.StepSettled) { p.Final = true }

	t.Run("it is tried again, after the wait that was asked for", func(t *testing.T) {
		s := begin(t).says("hello").fails(after(1500))
		d := s.next()
		require.Equal(t, 2, d.Model.Attempt)
		require.Equal(t, 1500*time.Millisecond, d.Model.RetryAfter)
		require.Equal(t, s.events[s.last()-1].CreatedAt, d.Model.FailedAt)
		require.Equal(t, []string{"user: hello"}, talk(d.Model.Request.Messages), "the same request")
	})
	t.Run("an unknown outcome is tried again too", func(t *testing.T) {
		require.Equal(t, 2, begin(t).says("hello").fails(outcome(journal.Unknown)).next().Model.Attempt)
	})
	t.Run("a cancelled call says nothing of the provider", func(t *testing.T) {
		require.Equal(t, 1, begin(t).says("hello").fails(outcome(journal.Cancelled)).next().Model.Attempt)
	})
	t.Run("a final one is not tried again", func(t *testing.T) {
		stop := begin(t).says("hello").fails(final).next().Finish
		require.Equal(t, journal.StopRetriesExhausted, stop.Type)
		require.Equal(t, "provider_failed", stop.Error.Code)
	})
	t.Run("five in a row are enough", func(t *testing.T) {
		s := begin(t).says("hello")
		for range loop.MaxAttempts - 1 {
			s.fails()
		}
		require.Equal(t, loop.MaxAttempts, s.next().Model.Attempt)
		s.fails()
		require.Equal(t, journal.StopRetriesExhausted, s.next().Finish.Type)
		s.idle(journal.StopRetriesExhausted).says("again")
		d := s.next()
		require.Equal(t, 1, d.Model.Attempt, "new input begins anew")
		require.Equal(t, []string{"user: hello again"}, talk(d.Model.Request.Messages), "both sides still take turns")
	})
	t.Run("a success forgets them", func(t *testing.T) {
		s := begin(t).says("hello").fails().fails().answers("", "a").tool("a", "1")
		require.Equal(t, 1, s.next().Model.Attempt)
	})
	t.Run("so do new limits and a new start", func(t *testing.T) {
		require.Equal(t, 1, begin(t).says("hello").fails(final).add("", journal.SessionLimits{}).next().Model.Attempt)
		require.Equal(t, 1, begin(t).says("hello").fails(final).add("", journal.StatusRescheduled{}).next().Model.Attempt)
	})
}

func TestWhatAnInterruptDoes(t *testing.T) {
	t.Run("before anything", func(t *testing.T) {
		require.Equal(t, &journal.StopReason{Type: journal.StopInterrupted, By: "key_1"}, begin(t).says("hello").interrupts().next().Finish)
	})
	t.Run("it voids tool uses", func(t *testing.T) {
		s := begin(t).says("hello").answers("", "a", "b").tool("a", "1").interrupts()
		require.Equal(t, journal.StopInterrupted, s.next().Finish.Type)
		s.idle(journal.StopInterrupted).says("go on")
		d := s.next()
		require.Empty(t, d.Tools)
		require.Equal(t, []string{"user: hello", "assistant: use(a) use(b)", "user: result(a=1) result(b=" + notDone + ") go on"}, talk(d.Model.Request.Messages))
	})
	t.Run("with new input right behind it the session need not stop", func(t *testing.T) {
		s := begin(t).says("hello").answers("", "a").interrupts().says("do this instead")
		d := s.next()
		require.Nil(t, d.Finish)
		require.Empty(t, d.Tools)
		require.Equal(t, []string{"user: hello", "assistant: use(a)", "user: result(a=" + notDone + ") do this instead"}, talk(d.Model.Request.Messages))
	})
	t.Run("once the session is at rest it is over", func(t *testing.T) {
		s := begin(t).says("hello").interrupts().idle(journal.StopInterrupted).says("go on")
		require.NotNil(t, s.next().Model)
	})
	t.Run("it does not void what a later turn asks for", func(t *testing.T) {
		s := begin(t).says("hello").interrupts().says("go on").answers("", "a")
		require.Len(t, s.next().Tools, 1)
	})
}

func TestEachLimitAndThePlaceJustBelowIt(t *testing.T) {
	tests := []struct {
		name  string
		in    func(*loop.Input)
		limit string
	}{
		{"steps", func(in *loop.Input) { in.Limits.MaxSteps, in.Usage.Steps = 3, 3 }, journal.LimitSteps},
		{"tokens, of every sort together", func(in *loop.Input) {
			in.Limits.MaxTokens = 10
			in.Usage = journal.Usage{InputTokens: 1, OutputTokens: 2, CacheReadTokens: 3, CacheWriteTokens: 4}
		}, journal.LimitTokens},
		{"wall time", func(in *loop.Input) { in.Limits.MaxWallSeconds, in.Now = 60, began.Add(time.Minute) }, journal.LimitWallTime},
		{"one step less", func(in *loop.Input) { in.Limits.MaxSteps, in.Usage.Steps = 3, 2 }, ""},
		{"one token less", func(in *loop.Input) { in.Limits.MaxTokens, in.Usage.InputTokens = 10, 9 }, ""},
		{"a moment before", func(in *loop.Input) { in.Limits.MaxWallSeconds, in.Now = 60, began.Add(time.Minute-1) }, ""},
		{"no limit", func(in *loop.Input) { in.Usage.Steps, in.Now = 1e9, began.AddDate(9, 0, 0) }, ""},
		{"cost is the gate's", func(in *loop.Input) { c := money.Nanos(1); in.Limits.MaxCost = &c }, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for at, s := range map[string]*script{"a model call": begin(t).says("hello"), "a tool call": begin(t).says("hello").answers("", "a")} {
				d := s.next(tt.in)
				if tt.limit == "" {
					require.Nil(t, d.Finish, at)
					continue
				}
				require.NotNil(t, d.Finish, at)
				require.NotEmpty(t, d.Finish.Reason, at)
				require.Equal(t, journal.StopReason{Type: journal.StopBudgetReached, Limit: tt.limit, Scope: "session", Reason: d.Finish.Reason}, *d.Finish, at)
			}
			if tt.limit != "" {
				require.Equal(t, journal.StopEndTurn, begin(t).says("hello").answers("Done.").next(tt.in).Finish.Type, "what is finished is finished")
			}
		})
	}
}

func TestAJournalThatCannotBeRead(t *testing.T) {
	good := begin(t).says("hello").answers("", "a").tool("a", "1")
	broken := map[string]func([]journal.Event) []journal.Event{
		"no beginning":        func([]journal.Event) []journal.Event { return nil },
		"another first event": func(e []journal.Event) []journal.Event { e[0].Type = "session.usage"; return e },
		"a gap":               func(e []journal.Event) []journal.Event { return append(e[:2:2], e[3:]...) },
		"one twice":           func(e []journal.Event) []journal.Event { return append(e[:2:2], e[1:]...) },
		"no JSON":             func(e []journal.Event) []journal.Event { e[1].Payload = json.RawMessage("{"); return e },
		"a second result":     func(e []journal.Event) []journal.Event { r := e[6]; r.Seq = int64(len(e) + 1); return append(e, r) },
	}
	for name, breakIt := range broken {
		t.Run(name, func(t *testing.T) {
			_, err := loop.Next(breakIt(append([]journal.Event(nil), good.events...)), loop.Input{})
			require.Error(t, err)
		})
	}
	t.Run("a type of a later release is passed over", func(t *testing.T) {
		events := append([]journal.Event(nil), good.events...)
		events = append(events, journal.Event{Seq: int64(len(events) + 1), Type: "weather.changed", Payload: json.RawMessage(`{}`)})
		d, err := loop.Next(events, loop.Input{})
		require.NoError(t, err)
		require.NotNil(t, d.Model)
	})
}
