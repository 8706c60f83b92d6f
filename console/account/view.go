package account

import (
	"encoding/json"
	"time"

	"ambit.dev/ambit/console/transcript"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

type signUpView struct {
	Email, Name, Organization string
	MailEnabled               bool
	Problems                  ui.Problems
}

type signInView struct {
	Email, Next string
	// Passkey are the options that any passkey for this site may answer; Elsewhere is where passkeys work, if not here.
	Passkey     []byte
	Elsewhere   string
	MailEnabled bool
	Problems    ui.Problems
}

type mailView struct {
	Email    string
	Sent     bool
	Again    bool
	NoMail   bool
	Problems ui.Problems
}

type linkView struct {
	Token    string
	Purpose  linkPurpose
	Bad      bool
	Problems ui.Problems
}

const sampleViewer = "usr_sample"

// sample is the session that the landing page shows: a journal as a session with the built-in scripted model leaves it.
func sample() []*transcript.Entry {
	began := time.Date(2026, 11, 20, 9, 30, 0, 0, time.UTC)
	var events []journal.Event
	add := func(after time.Duration, step id.Step, p journal.Payload) {
		raw, err := json.Marshal(p)
		if err != nil {
			return // a constant of this function; a test draws the page
		}
		events = append(events, journal.Event{Seq: int64(len(events) + 1), Type: p.EventType(), Step: step, CreatedAt: began.Add(after), Payload: raw})
	}
	hold := journal.HoldRef{Amount: 9_200_000}
	add(0, "", journal.UserMessage{Content: journal.Text("Which region sold most in Q3? The figures are in sales.csv."), By: journal.Actor{Kind: "user", ID: sampleViewer}})
	add(80*time.Millisecond, "stp_1", journal.StepIntended{Kind: journal.KindModelCall, Name: "claude", Hold: &hold})
	add(1900*time.Millisecond, "stp_1", journal.AgentMessage{Content: journal.Text("I'll total the column per region.")})
	add(1900*time.Millisecond, "stp_1", journal.AgentToolUse{ToolUseID: "u1", Name: "bash", Input: json.RawMessage(`{"command":"awk -F, 'NR>1{t[$2]+=$4} END{for(r in t) print t[r], r}' sales.csv | sort -nr"}`)})
	add(1900*time.Millisecond, "stp_1", journal.StepSettled{Kind: journal.KindModelCall, Name: "claude", Outcome: journal.Succeeded, Usage: journal.Usage{InputTokens: 412, OutputTokens: 61}, Cost: 2_151_000})
	add(1960*time.Millisecond, "stp_2", journal.StepIntended{Kind: journal.KindToolCall, Name: "bash", ToolUseID: "u1", Hold: &journal.HoldRef{Amount: 400_000}})
	add(2110*time.Millisecond, "stp_2", journal.AgentToolResult{ToolUseID: "u1", Content: journal.Text("48210 north\n31877 west\n29004 south")})
	add(2110*time.Millisecond, "stp_2", journal.StepSettled{Kind: journal.KindToolCall, Name: "bash", Outcome: journal.Succeeded, Cost: 12_000})
	add(2200*time.Millisecond, "stp_3", journal.StepIntended{Kind: journal.KindModelCall, Name: "claude", Hold: &hold})
	add(3400*time.Millisecond, "stp_3", journal.AgentMessage{Content: journal.Text("North, with 48,210: half again as much as West.")})
	add(3400*time.Millisecond, "stp_3", journal.StepSettled{Kind: journal.KindModelCall, Name: "claude", Outcome: journal.Succeeded, Usage: journal.Usage{InputTokens: 498, OutputTokens: 17}, Cost: 1_749_000})
	add(3410*time.Millisecond, "", journal.StatusIdle{StopReason: journal.StopReason{Type: journal.StopEndTurn}})
	return transcript.Of(events, sampleViewer).Entries
}

const sampleSpent = money.Nanos(3_912_000)

func sampleCeiling() *money.Nanos {
	ceiling := money.Nanos(50_000_000)
	return &ceiling
}
