package transcript

import (
	"strconv"
	"time"

	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// Kind says what an entry is.
type Kind string

// The kinds of entry.
const (
	User  Kind = "user"
	Model Kind = "model"
	Tool  Kind = "tool"
	Note  Kind = "note"
)

// Entry is one thing that happened, made of one event or of several that belong together.
type Entry struct {
	// Seq is the number of its first event; it also names the element of the page.
	Seq  int64
	Kind Kind
	At   time.Time
	// Step is the step's id, where the entry is one; a model call's entry begins with its step, a tool call's gets it later.
	Step string

	// Name is the model, the tool, or the note's headline.
	Name string
	// Text is the message, the note's detail, or what the model said.
	Text     string
	Thinking string

	Input   string
	Output  string
	IsError bool

	// Open says that the effect is under way.
	Open bool
	// Outcome is the step's: succeeded, failed, unknown, cancelled, or denied and waiting when the gate said so.
	Outcome string
	Problem string
	Reasons []string
	Usage   journal.Usage
	Cost    *money.Nanos
	Held    *money.Nanos
	Took    time.Duration
	Attempt int

	Icon string
	Tone string
	// Status is shown as the note's badge.
	Status *ui.Status

	intendedAt time.Time
}

// DOM is the id of the entry's element.
func (e *Entry) DOM() string { return "e" + strconv.FormatInt(e.Seq, 10) }

// TypingDOM is the id of the element into which the pieces of a running model call go.
func (e *Entry) TypingDOM() string { return e.DOM() + "-typing" }

func (e *Entry) outcomeStatus() ui.Status {
	if e.Open {
		return ui.Step("")
	}
	return ui.Step(e.Outcome)
}

// quiet says that an outcome need not be said: it went as it should.
func (e *Entry) quiet() bool { return !e.Open && (e.Outcome == journal.Succeeded || e.Outcome == "") }

func (e *Entry) bad() bool {
	return e.Tone == "failed" || e.Outcome == journal.Failed || e.Outcome == journal.Unknown || e.Outcome == "denied"
}

func (e *Entry) class() string {
	c := "entry entry-" + string(e.Kind)
	switch {
	case e.Kind == Model && e.Text != "":
		c += " entry-agent"
	case e.Kind == Note:
		c += " entry-quiet"
	}
	switch {
	case e.bad():
		c += " entry-failed"
	case e.Outcome == journal.Waiting || e.Tone == "waiting":
		c += " entry-waiting"
	}
	return c
}

func (e *Entry) icon() string {
	switch {
	case e.Icon != "":
		return e.Icon
	case e.Kind == User:
		return "user"
	case e.Kind == Model:
		return "model"
	case e.Kind == Tool:
		return "tool"
	}
	return "flag"
}

func (e *Entry) tokens() ui.TokenCounts {
	return ui.TokenCounts{Input: e.Usage.InputTokens, CacheRead: e.Usage.CacheReadTokens, CacheWrite: e.Usage.CacheWriteTokens, Output: e.Usage.OutputTokens + e.Usage.ReasoningTokens}
}
