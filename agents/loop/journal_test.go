package loop_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/agents/loop"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
)

var began = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// script writes a journal, a second for each event.
type script struct {
	t      *testing.T
	events []journal.Event
	steps  int
}

func begin(t *testing.T) *script {
	t.Helper()
	return (&script{t: t}).add("", journal.SessionCreated{})
}

func (s *script) add(step id.Step, p journal.Payload) *script {
	s.t.Helper()
	payload, err := json.Marshal(p)
	require.NoError(s.t, err)
	seq := int64(len(s.events) + 1)
	s.events = append(s.events, journal.Event{
		ID: id.Event(fmt.Sprintf("evt_%d", seq)), Type: p.EventType(), Seq: seq, Session: "ses_test", Step: step, SchemaVersion: journal.SchemaVersion,
		CreatedAt: began.Add(time.Duration(seq-1) * time.Second), Payload: payload,
	})
	return s
}

func (s *script) last() int64 { return int64(len(s.events)) }

func (s *script) says(text string) *script {
	return s.add("", journal.UserMessage{Content: journal.Text(text)})
}

func (s *script) interrupts() *script {
	return s.add("", journal.UserInterrupt{By: principal.Principal{Kind: principal.Key, ID: "key_1"}})
}

func (s *script) idle(stop string) *script {
	return s.add("", journal.StatusIdle{StopReason: journal.StopReason{Type: stop}})
}

// calls begins a model call.
func (s *script) calls() id.Step {
	s.steps++
	step := id.Step(fmt.Sprintf("stp_%d", s.steps))
	s.add(step, journal.StepIntended{Kind: journal.KindModelCall, EffectKey: string(step), LastInputSeq: s.last()})
	return step
}

// ends settles a model call that succeeded.
func (s *script) ends(step id.Step, stop models.StopReason) *script {
	return s.add(step, journal.StepSettled{Kind: journal.KindModelCall, Outcome: journal.Succeeded, StopReason: string(stop)})
}

// answers is a whole model call with a text and tool uses.
func (s *script) answers(text string, uses ...string) *script {
	step := s.calls()
	if text != "" {
		s.add(step, journal.AgentMessage{Content: journal.Text(text)})
	}
	stop := models.EndTurn
	for _, use := range uses {
		s.add(step, journal.AgentToolUse{ToolUseID: use, Name: "bash", Input: json.RawMessage(`{"command":"` + use + `"}`)})
		stop = models.StopToolUse
	}
	return s.ends(step, stop)
}

// fails is a model call that came to nothing.
func (s *script) fails(change ...func(*journal.StepSettled)) *script {
	step := s.calls()
	p := journal.StepSettled{Kind: journal.KindModelCall, Outcome: journal.Failed, Error: &journal.ErrorDetail{Code: "provider_failed", Message: "The provider answered 500."}}
	for _, c := range change {
		c(&p)
	}
	return s.add(step, p)
}

// tool is a whole tool call.
func (s *script) tool(use, result string) *script {
	s.steps++
	step := id.Step(fmt.Sprintf("stp_%d", s.steps))
	s.add(step, journal.StepIntended{Kind: journal.KindToolCall, EffectKey: string(step), ToolUseID: use})
	s.add(step, journal.AgentToolResult{ToolUseID: use, Content: journal.Text(result)})
	return s.add(step, journal.StepSettled{Kind: journal.KindToolCall, Outcome: journal.Succeeded})
}

func (s *script) next(change ...func(*loop.Input)) loop.Decision {
	s.t.Helper()
	in := loop.Input{Agent: journal.Snapshot{Definition: journal.Definition{Model: "test/model", System: "Be brief.", MaxTokens: 77}}, Now: began}
	for _, c := range change {
		c(&in)
	}
	d, err := loop.Next(s.events, in)
	require.NoError(s.t, err)
	return d
}

// talk writes a conversation in one line a message, so that a test can say what it expects.
func talk(messages []models.Message) (lines []string) {
	for _, m := range messages {
		line := string(m.Role) + ":"
		for _, b := range m.Content {
			switch b.Type {
			case models.ToolUse:
				line += " use(" + b.ID + ")"
			case models.ToolResult:
				line += " result(" + b.ToolUseID + "=" + b.Content[0].Text + ")"
			case models.Thinking:
				line += " thinking(" + b.Text + ")"
			case models.Text, models.Image:
				line += " " + b.Text
			}
		}
		lines = append(lines, line)
	}
	return lines
}
