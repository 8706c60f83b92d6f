package sessions

import (
	"net/url"
	"strconv"
	"time"

	"github.com/a-h/templ"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/transcript"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"
)

// head is what stands above a session: its state, what it waits for, what it has spent.
type head struct {
	Base       string
	ID         string
	Title      string
	Status     ui.Status
	Waits      string
	Agent      string
	AgentHref  string
	Model      string
	By         string
	Steps      int64
	Tokens     ui.TokenCounts
	Spent      money.Nanos
	Held       money.Nanos
	Ceiling    *money.Nanos
	CreatedAt  time.Time
	LastActive time.Time
	AtWork     bool
	Ended      bool
	CanWrite   bool
	TraceHref  string
	// Limit is what it stopped at, nil when no limit stopped it.
	Limit *limit
	// Receipt is the file of a kill's receipt; empty for a session that was not killed.
	Receipt string
}

// titleOf names a session that has no title of its own after its agent.
func titleOf(s journal.Session) string {
	if s.Title != "" {
		return s.Title
	}
	if s.Agent.Name != "" {
		return "Session of " + s.Agent.Name
	}
	return "Session"
}

func agentLabel(s journal.Session) string {
	if s.Agent.ID == "" || s.Agent.Version == 0 {
		return s.Agent.Name
	}
	return s.Agent.Name + "@" + strconv.Itoa(s.Agent.Version)
}

func speaker(a journal.Actor) string {
	switch a.Kind {
	case "user":
		return "a member"
	case "api_key":
		return "an API key"
	case "agent":
		return "another agent"
	default:
		return "Ambit"
	}
}

// newHead maps a session to its head. held is what is reserved for it now; open names the step under way, if any.
func newHead(p page.Place, s journal.Session, held money.Nanos, open *transcript.Entry, stoppedAt *limit) head {
	h := head{
		Base: p.Path("sessions", string(s.ID)), ID: string(s.ID), Title: titleOf(s),
		Status: ui.Session(transcript.StateOf(s.Status, s.StopReason)), Agent: agentLabel(s), Model: s.Agent.Model, By: speaker(s.By),
		Steps: s.Usage.Steps, Spent: s.Charged, Held: held, Ceiling: s.Limits.MaxCost, CreatedAt: s.CreatedAt, LastActive: s.LastActiveAt,
		Tokens: ui.TokenCounts{Input: s.Usage.InputTokens, CacheRead: s.Usage.CacheReadTokens, CacheWrite: s.Usage.CacheWriteTokens, Output: s.Usage.OutputTokens + s.Usage.ReasoningTokens},
		AtWork: s.AtWork(), Ended: s.Status == journal.Terminated || s.ArchivedAt != nil, CanWrite: p.Can(tenants.SessionsWrite), TraceHref: p.Path("traces", string(s.ID)),
	}
	if s.Agent.ID != "" {
		h.AgentHref = p.Path("agents", string(s.Agent.ID))
	}
	if s.StopReason != nil && s.StopReason.Type == journal.StopKilled {
		h.Receipt = p.Path("sessions", string(s.ID), "receipt")
	}
	h.Waits, h.Limit = waits(s, open), stoppedAt
	return h
}

// waits says in a sentence what the session does or waits for.
func waits(s journal.Session, open *transcript.Entry) string {
	switch s.Status {
	case journal.Rescheduling:
		return "Waits for a worker"
	case journal.Running:
		if open == nil {
			return "At work"
		}
		if open.Kind == transcript.Model {
			return "Asks " + open.Name
		}
		return "Runs " + open.Name
	case journal.Terminated:
		return "Takes no more input"
	case journal.Idle:
	}
	if s.StopReason == nil {
		return ""
	}
	switch s.StopReason.Type {
	case journal.StopRequiresAction:
		return "Waits for your decision"
	case journal.StopBudgetReached:
		return "Waits for a higher limit"
	case journal.StopPaused:
		return "Waits to be resumed"
	case journal.StopRetriesExhausted:
		return "Send a message to try again"
	}
	return "Waits for the next message"
}

// journalRow is an event as the raw journal shows it.
type journalRow struct {
	Seq  int64
	Type string
	Gist string
	At   time.Time
	// Href gives the whole event, which is loaded when the row is opened: a page of them all would be megabytes.
	Href string
}

func (r journalRow) DOM() string { return "j" + strconv.FormatInt(r.Seq, 10) }

func newJournalRow(base string, e journal.Event) journalRow {
	r := journalRow{Seq: e.Seq, Type: e.Type, At: e.CreatedAt, Href: base + "/events/" + strconv.FormatInt(e.Seq, 10)}
	gist := []rune(string(e.Payload))
	if len(gist) > 120 {
		gist = append(gist[:120], '…')
	}
	r.Gist = string(gist)
	return r
}

// file is an entry of the working directory.
type file struct {
	Name string
	Path string
	Dir  bool
	Size int64
	At   time.Time
	Href string
	Get  string
}

// filesView is the inspector's part about the working directory.
type filesView struct {
	// Problem says why the files can't be shown; Empty that there are none.
	Problem string
	Path    string
	Up      string
	Entries []file
	// Open is the file that is shown.
	Open *openFile
	// Source says whose files these are: the sandbox's as it runs, or those of the last save.
	Source []ui.Fact
}

type openFile struct {
	Path, Download string
	Text           string
	Size           int64
	Binary         bool
}

// costView is the inspector's part about money.
type costView struct {
	Lines  []ui.Line
	Ledger []ledgerLine
}

type ledgerLine struct {
	Words  string
	Amount money.Nanos
	At     time.Time
	Step   string
}

// inspector is the right pane.
type inspector struct {
	Tab   string
	Tabs  []ui.Segment
	Head  head
	Step  *transcript.Entry
	Facts []ui.Fact
	Input string
	Files filesView
	Cost  costView
	Raw   string
}

// show is the page of one session.
type show struct {
	Frame     page.Frame
	Head      head
	Journal   bool
	Entries   []*transcript.Entry
	Rows      []journalRow
	Options   transcript.Options
	Views     []ui.Segment
	Inspector inspector
	Stream    string
	After     int64
	Earlier   string
	Killing   bool
	Flash     string
}

// query is what the address of a session's page says.
type query struct {
	Tab, Step, Path, View string
	Before                int64
}

func (q query) with(change func(*query)) string {
	change(&q)
	v := url.Values{}
	for name, value := range map[string]string{"tab": q.Tab, "step": q.Step, "path": q.Path, "view": q.View} {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.Before > 0 {
		v.Set("before", strconv.FormatInt(q.Before, 10))
	}
	if len(v) == 0 {
		return ""
	}
	return "?" + v.Encode()
}

func (q query) tabs(base string) []ui.Segment {
	var out []ui.Segment
	for _, t := range []struct{ key, label string }{{"step", "Step"}, {"files", "Files"}, {"cost", "Cost"}, {"raw", "Raw"}} {
		href := base + q.with(func(q *query) { q.Tab, q.Path = t.key, "" })
		out = append(out, ui.Segment{Label: t.label, Href: href, Current: q.Tab == t.key, Attrs: intoInspector(href)})
	}
	return out
}

// intoInspector are the attributes of a link that fills the inspector and keeps the address true.
func intoInspector(href string) templ.Attributes {
	return templ.Attributes{"hx-get": href, "hx-target": "#inspector", "hx-select": "#inspector", "hx-swap": "outerHTML", "hx-push-url": "true"}
}

func (q query) views(base string) []ui.Segment {
	return []ui.Segment{
		{Label: "Transcript", Icon: "bubble", Href: base + q.with(func(q *query) { q.View = "" }), Current: q.View != "journal"},
		{Label: "Journal", Icon: "lines", Href: base + q.with(func(q *query) { q.View = "journal" }), Current: q.View == "journal"},
	}
}

// receipt is a kill's receipt.
type receipt struct {
	Sentence string
	Facts    []ui.Fact
	Back     string
	File     string // empty until it is complete
}
