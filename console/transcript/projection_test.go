package transcript

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

var began = time.Date(2026, 11, 20, 9, 30, 0, 0, time.UTC)

type record struct {
	step    id.Step
	payload journal.Payload
}

func journalOf(t testing.TB, lines ...record) []journal.Event {
	t.Helper()
	events := make([]journal.Event, len(lines))
	for i, l := range lines {
		raw, err := json.Marshal(l.payload)
		require.NoError(t, err)
		events[i] = journal.Event{Seq: int64(i + 1), Type: l.payload.EventType(), Step: l.step, CreatedAt: began.Add(time.Duration(i) * time.Second), Payload: raw, SchemaVersion: 1}
	}
	return events
}

func sample(t testing.TB) []journal.Event {
	return journalOf(t,
		record{"", journal.SessionCreated{Agent: journal.Snapshot{Name: "analyst", Definition: journal.Definition{Model: "m"}}}},
		record{"", journal.UserMessage{Content: journal.Text("go"), By: journal.Actor{Kind: "user", ID: "usr_1"}}},
		record{"", journal.StatusRunning{}},
		record{"", journal.GateDecided{Decision: journal.Admitted, Kind: "model_call", Name: "m"}},
		record{"stp_a", journal.StepIntended{Kind: journal.KindModelCall, Name: "m", Hold: &journal.HoldRef{Amount: 500}}},
		record{"stp_a", journal.AgentThinking{Summary: "hm"}},
		record{"stp_a", journal.AgentMessage{Content: journal.Text("looking")}},
		record{"stp_a", journal.AgentToolUse{ToolUseID: "u1", Name: "bash", Input: json.RawMessage(`{"command":"ls"}`)}},
		record{"stp_a", journal.AgentToolUse{ToolUseID: "u2", Name: "bash", Input: json.RawMessage(`{"command":"curl"}`)}},
		record{"stp_a", journal.AgentToolUse{ToolUseID: "u3", Name: "read_file", Input: json.RawMessage(`{"path":"a"}`)}},
		record{"stp_a", journal.StepSettled{Kind: journal.KindModelCall, Name: "m", Outcome: journal.Succeeded, Cost: 300, Usage: journal.Usage{InputTokens: 5, OutputTokens: 7}}},
		record{"stp_b", journal.StepIntended{Kind: journal.KindToolCall, Name: "bash", ToolUseID: "u1"}},
		record{"stp_b", journal.AgentToolResult{ToolUseID: "u1", Content: journal.Text("file")}},
		record{"stp_b", journal.StepSettled{Kind: journal.KindToolCall, Name: "bash", Outcome: journal.Succeeded}},
		record{"", journal.GateDecided{Decision: journal.Denied, Kind: "tool_call", Name: "bash", ToolUseID: "u2", Reasons: []journal.Reason{{Rule: "egress", Message: "not allowed"}}}},
		record{"", journal.StatusTerminated{StopReason: journal.StopReason{Type: journal.StopKilled, Reason: "enough"}}},
	)
}

func TestASaveIsToldOnce(t *testing.T) {
	notes := func(lines ...record) (got []string) {
		for _, e := range Of(journalOf(t, lines...), "").Entries {
			got = append(got, e.Name+": "+e.Text)
		}
		return got
	}
	saved := journal.CheckpointCreated{Checkpoint: "ckp_1", SHA256: "abc", Files: 2, ContentBytes: 2048}
	ended := journal.SandboxEnded{Reason: "made_room", SavedSHA256: "abc"}
	require.Equal(t, []string{"Working directory saved: 2 files, 2 KiB", "Sandbox ended: made room"}, notes(record{"", saved}, record{"", ended}))
	require.Equal(t, []string{"Working directory saved: 2 files, 2 KiB", "Queued again: x", "Sandbox ended: made room, working directory saved"},
		notes(record{"", saved}, record{"", journal.StatusRescheduled{Reason: "x"}}, record{"", ended}))
	require.Equal(t, []string{"Sandbox ended: made room, working directory saved"}, notes(record{"", ended}))
	require.Empty(t, notes(record{"", journal.CheckpointCreated{Checkpoint: "ckp_1"}}), "one from before it said what was saved")
}

func TestEventsBecomeWhatAPersonReads(t *testing.T) {
	p := Of(sample(t), "usr_1")
	var got []string
	for _, e := range p.Entries {
		got = append(got, string(e.Kind)+" "+e.Name+" "+e.Outcome)
	}
	require.Equal(t, []string{
		"note Session started ", "user You ", "model m succeeded", "tool bash succeeded", "tool bash denied", "tool read_file cancelled", "note  ",
	}, got, "a call that was asked for and never begun is shown as cancelled")
	model := p.Entries[2]
	require.Equal(t, "looking", model.Text)
	require.Equal(t, "hm", model.Thinking)
	require.EqualValues(t, 300, *model.Cost)
	require.Nil(t, model.Held, "a settled step holds nothing")
	require.Equal(t, 6*time.Second, model.Took)
	require.Equal(t, "file", p.Entries[3].Output)
	require.Equal(t, []string{"not allowed"}, p.Entries[4].Reasons)
	require.Equal(t, "Stopped", p.Entries[6].Status.Word)
	require.Equal(t, "enough", p.Entries[6].Text)
	require.Nil(t, p.Running())
	require.Equal(t, "A member", Of(sample(t), "usr_2").Entries[1].Name)
}

// TestApplyTellsEveryChange replays what a page is sent: entries appended when new, replaced when changed. It must end as the whole does.
func TestApplyTellsEveryChange(t *testing.T) {
	events := sample(t)
	page := map[int64]string{}
	var order []int64
	p := New("")
	for _, e := range events {
		changed, fresh := p.Apply(e)
		for _, one := range fresh {
			order = append(order, one.Seq)
			page[one.Seq] = drawn(t, one)
		}
		if changed != nil {
			require.Contains(t, page, changed.Seq, "what changes is on the page")
			page[changed.Seq] = drawn(t, changed)
		}
	}
	whole := Of(events, "")
	require.Len(t, whole.Entries, len(order))
	for i, e := range whole.Entries {
		require.Equal(t, order[i], e.Seq)
		require.Equal(t, drawn(t, e), page[e.Seq], "entry %d", e.Seq)
	}
}

// TestAnyWindowOfAJournalCanBeRead begins and ends in the middle of steps.
func TestAnyWindowOfAJournalCanBeRead(t *testing.T) {
	events := sample(t)
	rapid.Check(t, func(rt *rapid.T) {
		from := rapid.IntRange(0, len(events)).Draw(rt, "from")
		to := rapid.IntRange(from, len(events)).Draw(rt, "to")
		p := Of(events[from:to], "")
		seen := map[string]bool{}
		for _, e := range p.Entries {
			if seen[e.DOM()] {
				rt.Fatalf("two entries are called %s", e.DOM())
			}
			seen[e.DOM()] = true
			drawn(t, e)
		}
	})
}

func TestUnknownAndUnreadableEventsAreNoted(t *testing.T) {
	p := Of([]journal.Event{
		{Seq: 1, Type: "supervisor.flagged", CreatedAt: began, Payload: json.RawMessage(`{}`)},
		{Seq: 2, Type: "user.message", CreatedAt: began, Payload: json.RawMessage(`{"content":5}`)},
	}, "")
	require.Equal(t, "supervisor.flagged", p.Entries[0].Name)
	require.Equal(t, "Unreadable event", p.Entries[1].Name)
}

func TestAgentsTextStaysText(t *testing.T) {
	const bad = `<script>alert(1)</script><hx-partial hx-target="body">x</hx-partial>`
	events := journalOf(t,
		record{"", journal.UserMessage{Content: journal.Text(bad)}},
		record{"stp_a", journal.StepIntended{Kind: journal.KindModelCall, Name: bad}},
		record{"stp_a", journal.AgentThinking{Summary: bad}},
		record{"stp_a", journal.AgentMessage{Content: journal.Text(bad)}},
		record{"stp_a", journal.AgentToolUse{ToolUseID: "u1", Name: bad, Input: json.RawMessage(`{"` + strings.ReplaceAll(bad, `"`, `\"`) + `":{"path":1}}`)}},
		record{"stp_b", journal.StepIntended{Kind: journal.KindToolCall, Name: bad, ToolUseID: "u1"}},
		record{"stp_b", journal.AgentToolResult{ToolUseID: "u1", Content: journal.Text(bad), IsError: true}},
		record{"stp_b", journal.StepSettled{Kind: journal.KindToolCall, Name: bad, Outcome: journal.Failed, Error: &journal.ErrorDetail{Message: bad}}},
		record{"", journal.StatusIdle{StopReason: journal.StopReason{Type: bad, Reason: bad}}},
	)
	for _, e := range Of(events, "").Entries {
		html := drawn(t, e)
		require.NotContains(t, html, "<script")
		require.NotContains(t, html, "<hx-partial")
	}
}

func drawn(t testing.TB, e *Entry) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, Item(e, Options{StepHref: func(s string) string { return "?step=" + s }}).Render(t.Context(), &out))
	return out.String()
}

func TestTheTimeOfASandboxIsOneEntryThatGrows(t *testing.T) {
	tick := func(step id.Step, millis int64, cost money.Nanos) []record {
		return []record{
			{step, journal.GateDecided{Decision: journal.Admitted, Kind: journal.KindSandbox, Name: "sandbox"}},
			{step, journal.StepIntended{Kind: journal.KindSandbox, Name: "sandbox", HeldMillis: 60_000}},
			{step, journal.StepSettled{Kind: journal.KindSandbox, Name: "sandbox", Outcome: journal.Succeeded, Usage: journal.Usage{SandboxMillis: millis}, Cost: cost}},
		}
	}
	started := record{"", journal.SandboxStarted{Sandbox: "sbx_1", Driver: "qemu/tcg", Node: "n"}}
	lines := append([]record{started}, tick("stp_1", 45_000, 450_000)...)
	lines = append(lines, tick("stp_2", 15_000, 150_000)...)
	lines = append(lines, record{"", journal.SandboxEnded{Sandbox: "sbx_1", Reason: "budget_reached", SavedSHA256: "aa"}}, started)
	lines = append(lines, tick("stp_3", 1000, 10_000)[:2]...)
	p := Of(journalOf(t, lines...), "")
	var of []*Entry
	for _, e := range p.Entries {
		if e.Kind == Tool {
			of = append(of, e)
		}
	}
	require.Len(t, of, 1, "a tick that is under way is not shown")
	require.Equal(t, money.Nanos(600_000), *of[0].Cost)
	require.Equal(t, time.Minute, of[0].Took)
	require.Nil(t, p.UnderWay())
	p = Of(journalOf(t, append(lines, tick("stp_3", 1000, 10_000)[2:]...)...), "")
	require.Equal(t, money.Nanos(10_000), *p.Entries[len(p.Entries)-1].Cost, "another sandbox has an entry of its own")
}
