package ui

import (
	"strings"
	"time"
)

// Tone is the family of a status's colour.
type Tone string

// The tones, each a row of the design's table of statuses.
const (
	ToneQueued    Tone = "queued"
	ToneRunning   Tone = "running"
	ToneNeeds     Tone = "needs"
	ToneAsleep    Tone = "asleep"
	ToneCompleted Tone = "completed"
	ToneFailed    Tone = "failed"
	ToneStopped   Tone = "stopped"
	ToneExhausted Tone = "exhausted"
)

// Status is what a badge shows: always an icon and a word, and for whatever ended its reason.
type Status struct {
	Tone   Tone
	Icon   string
	Word   string
	Reason string
}

// SessionState is the part of a session from which its word for people is made. The names are those of the API.
type SessionState struct {
	// Status is running, rescheduling, idle or terminated.
	Status string
	// StopReason is the type of the stop reason, empty while there is none.
	StopReason string
	// For is what an idle session waits for: timer, signal, awaitable, hire or session.
	For string
	// Until is when a timer ends.
	Until time.Time
	// Limit is which limit was reached: cost, tokens, steps, wall_time or depth; budget or organization when that was what had too little.
	Limit string
	// Detail is a short sentence about a failure, a pause or a rule.
	Detail string
	// Hibernated says that the session holds no sandbox and no memory.
	Hibernated bool
}

var limitWords = map[string]string{
	"cost": "price ceiling", "budget": "budget", "organization": "balance", "tokens": "token limit", "steps": "step limit", "wall_time": "time limit", "depth": "depth limit",
}

// failureWords say in words what the codes of the usual failures mean.
var failureWords = map[string]string{
	"provider_failed": "the provider failed", "provider_timeout": "the provider took too long", "no_capacity": "no sandbox was free",
	"price_unknown": "no price is known", "insufficient_funds": "not enough credit", "internal": "an error of Ambit's own",
}

// failureReason is a sentence as it is, or a code in words.
func failureReason(detail string) string {
	if words, ok := failureWords[detail]; ok {
		return words
	}
	if !strings.Contains(detail, " ") {
		return strings.ReplaceAll(detail, "_", " ")
	}
	return detail
}

// Session projects a session's status and stop reason into the words that people see. It is the only place that does so.
func Session(s SessionState) Status {
	switch s.Status {
	case "running":
		return Status{Tone: ToneRunning, Icon: "arc", Word: "Running"}
	case "rescheduling":
		return Status{Tone: ToneQueued, Icon: "ring-dotted", Word: "Queued"}
	case "terminated":
		return terminated(s)
	case "idle":
		return idle(s)
	}
	return Status{Tone: ToneStopped, Icon: "diamond", Word: "Unknown", Reason: s.Status}
}

func idle(s SessionState) Status {
	switch s.StopReason {
	case "end_turn", "":
		return Status{Tone: ToneCompleted, Icon: "tick-disc", Word: "Completed"}
	case "requires_action":
		return Status{Tone: ToneNeeds, Icon: "hand", Word: "Waiting for you"}
	case "waiting":
		return waiting(s)
	case "interrupted":
		return Status{Tone: ToneStopped, Icon: "square", Word: "Stopped", Reason: "interrupted"}
	case "paused":
		return Status{Tone: ToneStopped, Icon: "pause", Word: "Paused", Reason: s.Detail}
	case "budget_reached":
		return Status{Tone: ToneExhausted, Icon: "empty-coin", Word: "Limit reached", Reason: firstOf(limitWords[s.Limit], s.Limit)}
	case "max_tokens":
		return Status{Tone: ToneExhausted, Icon: "empty-coin", Word: "Limit reached", Reason: "answer cut at its token limit"}
	case "refusal":
		return Status{Tone: ToneFailed, Icon: "barred", Word: "Refused", Reason: firstOf(s.Detail, "the model declined")}
	case "retries_exhausted":
		return Status{Tone: ToneFailed, Icon: "octagon", Word: "Failed", Reason: firstOf(failureReason(s.Detail), "retries used up")}
	}
	return Status{Tone: ToneStopped, Icon: "square", Word: "Idle", Reason: s.StopReason}
}

func waiting(s SessionState) Status {
	if s.Hibernated {
		return Status{Tone: ToneAsleep, Icon: "moon", Word: "Hibernated", Reason: s.For}
	}
	switch s.For {
	case "timer":
		return Status{Tone: ToneAsleep, Icon: "clock", Word: "Waiting", Reason: "timer"}
	case "signal":
		return Status{Tone: ToneAsleep, Icon: "aerial", Word: "Waiting", Reason: "signal"}
	case "awaitable":
		return Status{Tone: ToneNeeds, Icon: "bubble", Word: "Waiting for input"}
	}
	return Status{Tone: ToneAsleep, Icon: "clock", Word: "Waiting", Reason: s.For}
}

func terminated(s SessionState) Status {
	switch s.StopReason {
	case "killed":
		return Status{Tone: ToneStopped, Icon: "square", Word: "Stopped", Reason: "killed"}
	case "failed":
		return Status{Tone: ToneFailed, Icon: "octagon", Word: "Failed", Reason: failureReason(s.Detail)}
	case "archived":
		return Status{Tone: ToneStopped, Icon: "square", Word: "Archived"}
	case "expired":
		return Status{Tone: ToneStopped, Icon: "clock", Word: "Expired"}
	case "quarantined":
		return Status{Tone: ToneFailed, Icon: "shield", Word: "Quarantined", Reason: failureReason(s.Detail)}
	}
	return Status{Tone: ToneStopped, Icon: "square", Word: "Stopped", Reason: s.StopReason}
}

// Step projects a step's outcome; an empty outcome is a step that is under way.
func Step(outcome string) Status {
	switch outcome {
	case "":
		return Status{Tone: ToneRunning, Icon: "arc", Word: "Running"}
	case "succeeded":
		return Status{Tone: ToneCompleted, Icon: "tick-disc", Word: "Succeeded"}
	case "failed":
		return Status{Tone: ToneFailed, Icon: "octagon", Word: "Failed"}
	case "cancelled":
		return Status{Tone: ToneStopped, Icon: "square", Word: "Cancelled"}
	case "denied":
		return Status{Tone: ToneFailed, Icon: "barred", Word: "Denied"}
	case "waiting":
		return Status{Tone: ToneNeeds, Icon: "hand", Word: "Waiting for you"}
	}
	return Status{Tone: ToneNeeds, Icon: "diamond", Word: "Unknown", Reason: "the outcome was not learned"}
}

// Key projects an API key's status: active, expired or revoked.
func Key(status string) Status {
	switch status {
	case "active":
		return Status{Tone: ToneCompleted, Icon: "tick-disc", Word: "Active"}
	case "expired":
		return Status{Tone: ToneStopped, Icon: "clock", Word: "Expired"}
	}
	return Status{Tone: ToneStopped, Icon: "barred", Word: "Revoked"}
}

func firstOf(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
