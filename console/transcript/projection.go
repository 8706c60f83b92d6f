package transcript

import (
	"encoding/json"
	"slices"
	"strings"
	"time"

	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// Projection folds events, in the order of their numbers, into entries. It may begin in the middle of a journal: what belongs to earlier
// events is then shown with what the later ones say.
type Projection struct {
	Entries []*Entry

	// viewer is the id of the person for whom the entries are drawn.
	viewer  string
	bySteps map[string]*Entry
	byUse   map[string]*Entry
	// saved is the last checkpoint's event: a save for the sandbox's end is told there.
	saved int64
	// time is the entry of the present sandbox's time; nil before its first tick.
	time *Entry
	// wanted are tool calls that the model asked for and that were not begun yet, in order.
	wanted []want
}

// want is a tool call that the model asked for.
type want struct {
	use   string
	event journal.Event
	name  string
	input string
}

// New makes an empty projection for a viewer, whose own messages are marked as such.
func New(viewer string) *Projection {
	return &Projection{viewer: viewer, bySteps: map[string]*Entry{}, byUse: map[string]*Entry{}}
}

// Of projects events.
func Of(events []journal.Event, viewer string) *Projection {
	p := New(viewer)
	for _, e := range events {
		p.Apply(e)
	}
	return p
}

// Running returns the model call that is under way, or nil.
func (p *Projection) Running() *Entry {
	for i := len(p.Entries) - 1; i >= 0; i-- {
		if e := p.Entries[i]; e.Kind == Model && e.Open {
			return e
		}
	}
	return nil
}

// UnderWay returns the step that began last and has not ended, or nil.
func (p *Projection) UnderWay() *Entry {
	for i := len(p.Entries) - 1; i >= 0; i-- {
		if e := p.Entries[i]; e.Open {
			return e
		}
	}
	return nil
}

// Apply folds one event in. It returns the entry that changed, nil when none did, and those that are new, in order. An event whose
// payload can't be read becomes a note: a transcript must not end at what it doesn't understand.
func (p *Projection) Apply(e journal.Event) (changed *Entry, fresh []*Entry) {
	before := len(p.Entries)
	changed, err := p.apply(e)
	if err != nil {
		changed = p.note(e, "warning", "Unreadable event", e.Type)
	}
	return changed, p.Entries[before:]
}

func (p *Projection) add(ev journal.Event, kind Kind) *Entry {
	e := &Entry{Seq: ev.Seq, Kind: kind, At: ev.CreatedAt, Step: string(ev.Step)}
	p.Entries = append(p.Entries, e)
	if ev.Step != "" && kind != Note {
		p.bySteps[string(ev.Step)] = e
	}
	return e
}

func (p *Projection) note(ev journal.Event, icon, name, text string) *Entry {
	e := p.add(ev, Note)
	e.Icon, e.Name, e.Text = icon, name, text
	return e
}

func (p *Projection) apply(ev journal.Event) (*Entry, error) {
	switch ev.Type {
	case "user.message":
		m, err := journal.Decode[journal.UserMessage](ev)
		if err != nil {
			return nil, err
		}
		e := p.add(ev, User)
		e.Name, e.Text = p.speaker(m.By), plain(m.Content)
		return e, nil
	case "user.interrupt":
		m, err := journal.Decode[journal.UserInterrupt](ev)
		return p.noted(ev, err, "stop", "Interrupt asked for", m.Reason)
	case "agent.message", "agent.thinking", "agent.tool_use", "agent.tool_result":
		return p.agent(ev)
	case "gate.decided":
		return p.decided(ev)
	case "step.intended":
		return p.intended(ev)
	case "step.settled":
		return p.settled(ev)
	}
	return p.session(ev)
}

func (p *Projection) noted(ev journal.Event, err error, icon, name, text string) (*Entry, error) {
	if err != nil {
		return nil, err
	}
	return p.note(ev, icon, name, text), nil
}

func (p *Projection) agent(ev journal.Event) (*Entry, error) {
	switch ev.Type {
	case "agent.message":
		m, err := journal.Decode[journal.AgentMessage](ev)
		if err != nil {
			return nil, err
		}
		e := p.model(ev)
		e.Text = joined(e.Text, plain(m.Content))
		return e, nil
	case "agent.thinking":
		m, err := journal.Decode[journal.AgentThinking](ev)
		if err != nil {
			return nil, err
		}
		e := p.model(ev)
		e.Thinking = joined(e.Thinking, m.Summary)
		return e, nil
	case "agent.tool_use":
		m, err := journal.Decode[journal.AgentToolUse](ev)
		if err != nil {
			return nil, err
		}
		// It is shown where it is begun or refused, so that the order is the journal's.
		p.wanted = append(p.wanted, want{use: m.ToolUseID, event: ev, name: m.Name, input: string(m.Input)})
		return nil, nil
	}
	m, err := journal.Decode[journal.AgentToolResult](ev)
	if err != nil {
		return nil, err
	}
	e := p.tool(ev, m.ToolUseID)
	e.Output, e.IsError = plain(m.Content), m.IsError
	if e.Step == "" { // refused before it became a step
		e.Open = false
	}
	return e, nil
}

// model is the entry of the step that a model's output belongs to.
func (p *Projection) model(ev journal.Event) *Entry {
	if e := p.bySteps[string(ev.Step)]; ev.Step != "" && e != nil {
		return e
	}
	e := p.add(ev, Model)
	e.Name = "Model call"
	return e
}

func (p *Projection) tool(ev journal.Event, use string) *Entry {
	if e := p.byUse[use]; use != "" && e != nil {
		return e
	}
	if e := p.bySteps[string(ev.Step)]; ev.Step != "" && e != nil {
		return e
	}
	e := p.add(ev, Tool)
	if use != "" {
		p.byUse[use] = e
	}
	for i, w := range p.wanted {
		if w.use == use {
			e.Name, e.Input = w.name, w.input
			p.wanted = append(p.wanted[:i:i], p.wanted[i+1:]...)
			break
		}
	}
	return e
}

// dropWanted shows what the model asked for and what is not going to happen.
func (p *Projection) dropWanted() {
	for _, w := range p.wanted {
		e := p.add(journal.Event{Seq: w.event.Seq, CreatedAt: w.event.CreatedAt}, Tool)
		e.Name, e.Input, e.Outcome = w.name, w.input, journal.Cancelled
		p.byUse[w.use] = e
	}
	p.wanted = nil
}

func (p *Projection) decided(ev journal.Event) (*Entry, error) {
	m, err := journal.Decode[journal.GateDecided](ev)
	if err != nil || m.Decision == journal.Admitted {
		return nil, err // an admission shows as the step that follows
	}
	var reasons []string
	for _, r := range m.Reasons {
		reasons = append(reasons, r.Message)
	}
	if m.Shortfall != nil && !slices.Contains(reasons, m.Shortfall.Sentence()) {
		reasons = append(reasons, m.Shortfall.Sentence())
	}
	outcome := "denied"
	if m.Decision == journal.Waiting {
		outcome = journal.Waiting
	}
	if m.ToolUseID != "" {
		e := p.tool(ev, m.ToolUseID)
		e.Outcome, e.Reasons, e.Open = outcome, reasons, false
		if e.Name == "" {
			e.Name = m.Name
		}
		return e, nil
	}
	e := p.note(ev, "gate", "The gate refused "+m.Name, "")
	if outcome == journal.Waiting {
		e.Name = "The gate asks for approval of " + m.Name
	}
	e.Outcome, e.Reasons = outcome, reasons
	return e, nil
}

func (p *Projection) intended(ev journal.Event) (*Entry, error) {
	m, err := journal.Decode[journal.StepIntended](ev)
	if err != nil {
		return nil, err
	}
	if m.Kind == journal.KindSandbox {
		return nil, nil // it is shown once it has passed
	}
	var e *Entry
	if m.Kind == journal.KindModelCall {
		e = p.add(ev, Model)
	} else {
		e = p.tool(ev, m.ToolUseID)
		e.Step = string(ev.Step)
		p.bySteps[e.Step] = e
	}
	e.Name, e.Open, e.Outcome, e.Attempt, e.intendedAt = m.Name, true, "", m.Attempt, ev.CreatedAt
	if m.Hold != nil {
		held := m.Hold.Amount
		e.Held = &held
	}
	return e, nil
}

func (p *Projection) settled(ev journal.Event) (*Entry, error) {
	m, err := journal.Decode[journal.StepSettled](ev)
	if err != nil {
		return nil, err
	}
	if m.Kind == journal.KindSandbox {
		return p.ticked(ev, m), nil
	}
	e := p.bySteps[string(ev.Step)]
	if e == nil { // its beginning is before this window
		kind := Tool
		if m.Kind == journal.KindModelCall {
			kind = Model
		}
		e = p.add(ev, kind)
		e.Name = m.Name
	}
	cost := m.Cost
	e.Open, e.Outcome, e.Usage, e.Cost, e.Held = false, m.Outcome, m.Usage, &cost, nil
	if !e.intendedAt.IsZero() {
		e.Took = ev.CreatedAt.Sub(e.intendedAt)
	}
	if m.Error != nil {
		e.Problem = m.Error.Message
	}
	return e, nil
}

// ticked adds a tick to the time of the sandbox that is shown already: a line a minute would bury what the agent did.
func (p *Projection) ticked(ev journal.Event, m journal.StepSettled) *Entry {
	if p.time == nil {
		p.time = p.add(ev, Tool)
		p.time.Icon, p.time.Name, p.time.Outcome = "sandbox", "Time in the sandbox", m.Outcome
	}
	e, cost := p.time, m.Cost
	if e.Cost != nil {
		cost += *e.Cost
	}
	e.Cost = &cost
	e.Usage.Add(m.Usage)
	e.Took = time.Duration(e.Usage.SandboxMillis) * time.Millisecond
	return e
}

func (p *Projection) session(ev journal.Event) (*Entry, error) {
	switch ev.Type {
	case "session.created":
		m, err := journal.Decode[journal.SessionCreated](ev)
		return p.noted(ev, err, "flag", "Session started", firstText(m.Agent.Name, "an inline agent")+", "+m.Agent.Model)
	case "session.status_idle":
		m, err := journal.Decode[journal.StatusIdle](ev)
		if err != nil {
			return nil, err
		}
		return p.stopped(ev, ui.Session(StateOf(journal.Idle, &m.StopReason)), &m.StopReason), nil
	case "session.status_terminated":
		m, err := journal.Decode[journal.StatusTerminated](ev)
		if err != nil {
			return nil, err
		}
		return p.stopped(ev, ui.Session(StateOf(journal.Terminated, &m.StopReason)), &m.StopReason), nil
	case "session.status_rescheduled":
		m, err := journal.Decode[journal.StatusRescheduled](ev)
		if err != nil || m.Reason == "" {
			return nil, err
		}
		return p.note(ev, "refresh", "Queued again", m.Reason), nil
	case "session.error":
		return p.failure(ev)
	case "approval.requested":
		m, err := journal.Decode[journal.ApprovalRequested](ev)
		return p.noted(ev, err, "hand", "Asked for approval", m.Name+", under "+m.Why)
	case "approval.decided":
		m, err := journal.Decode[journal.ApprovalDecided](ev)
		return p.noted(ev, err, "hand", answers[m.Decision], p.answer(m))
	case "session.tainted":
		m, err := journal.Decode[journal.Tainted](ev)
		return p.noted(ev, err, "warning", "Read from outside", m.Ref+"; what it sends out from here on is asked about, unless a rule says otherwise")
	case "session.limits_changed":
		m, err := journal.Decode[journal.SessionLimits](ev)
		return p.noted(ev, err, "settings", "Limits changed", "by "+p.speaker(m.By))
	case "session.quoted":
		m, err := journal.Decode[journal.SessionQuoted](ev)
		return p.noted(ev, err, "coin", "Runs by a quote", string(m.Quote)+", prices of table "+m.PriceVersion)
	case "sandbox.started":
		m, err := journal.Decode[journal.SandboxStarted](ev)
		text := m.Driver + " on node " + nodeName(m.Node)
		if m.Restored != "" {
			text += ", working directory restored"
		}
		p.time = nil
		return p.noted(ev, err, "sandbox", "Sandbox started", text)
	case "sandbox.ended":
		m, err := journal.Decode[journal.SandboxEnded](ev)
		text := strings.ReplaceAll(m.Reason, "_", " ")
		if m.LostSince != nil {
			text += ", changes since its last save are lost"
		} else if m.SavedSHA256 != "" && (p.saved == 0 || p.saved != ev.Seq-1) {
			text += ", working directory saved"
		}
		return p.noted(ev, err, "moon", "Sandbox ended", text)
	case "checkpoint.created":
		m, err := journal.Decode[journal.CheckpointCreated](ev)
		if err != nil || m.SHA256 == "" {
			return nil, err
		}
		p.saved = ev.Seq
		return p.note(ev, "folder", "Working directory saved", ui.Plural(m.Files, "file", "files")+", "+ui.Bytes(m.ContentBytes)), nil
	case "session.status_running", "session.usage":
		return nil, nil // shown in the header, or as what follows
	}
	return p.note(ev, "info", ev.Type, ""), nil
}

// answers say what became of an approval; silence is not told as a person's no.
var answers = map[string]string{
	"approved": "Approved once", "refused": "Refused", "edited": "Arguments changed by a person", "expired": "Nobody answered in time", "void": "Not asked any more",
}

func (p *Projection) answer(m journal.ApprovalDecided) string {
	var parts []string
	if m.By != nil {
		parts = append(parts, "by "+p.speaker(*m.By))
	}
	if m.Reason != "" && m.Decision != "expired" {
		parts = append(parts, m.Reason)
	}
	return strings.Join(parts, ": ")
}

func (p *Projection) failure(ev journal.Event) (*Entry, error) {
	m, err := journal.Decode[journal.SessionError](ev)
	if err != nil {
		return nil, err
	}
	name := map[string]string{"retrying": "Failed, trying again", "exhausted": "Failed, no try left", "terminal": "Failed"}[m.Retry]
	e := p.note(ev, "warning", firstText(name, "Error"), m.Error.Message)
	if m.Retry != "retrying" {
		e.Tone = "failed"
	}
	return e, nil
}

func (p *Projection) stopped(ev journal.Event, s ui.Status, why *journal.StopReason) *Entry {
	if why.Type != journal.StopRequiresAction && why.Type != journal.StopWaiting {
		p.dropWanted()
	}
	e := p.note(ev, s.Icon, "", why.Reason)
	e.Status = &s
	if why.Error != nil {
		e.Tone = "failed"
		// The error has mostly been told a line above; it is not told twice.
		if n := len(p.Entries); n < 2 || p.Entries[n-2].Text != why.Error.Message {
			e.Problem = why.Error.Message
		}
	}
	if s.Tone == ui.ToneNeeds {
		e.Tone = "waiting"
	}
	return e
}

// nodeName is the beginning of a node's id, by which it can be told from the others; a name is left as it is.
func nodeName(node string) string {
	if head, _, ok := strings.Cut(node, "-"); ok && len(node) == 36 {
		return head
	}
	return node
}

// StateOf is a session's status and stop reason in the form that the console's projection to words takes.
func StateOf(status journal.Status, why *journal.StopReason) ui.SessionState {
	s := ui.SessionState{Status: string(status)}
	if why == nil || status == journal.Running || status == journal.Rescheduling {
		return s
	}
	s.StopReason, s.Limit, s.Detail = why.Type, why.Limit, why.Reason
	if why.Limit == journal.LimitCost && why.Scope != "session" {
		s.Limit = why.Scope // a budget, or the balance, and not the session's own ceiling
	}
	if why.Error != nil {
		s.Detail = why.Error.Code
	}
	return s
}

func plain(blocks []journal.Block) string {
	parts := make([]string, 0, len(blocks))
	for _, b := range blocks {
		if b.Type == "text" {
			parts = append(parts, b.Text)
		} else {
			parts = append(parts, "["+b.Type+"]")
		}
	}
	return strings.Join(parts, "\n")
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "\n" + b
}

func (p *Projection) speaker(by journal.Actor) string {
	switch by.Kind {
	case "user":
		if by.ID == p.viewer {
			return "You"
		}
		return "A member"
	case "api_key":
		return "API key"
	case "agent":
		return "Another agent"
	case "system":
		return "Ambit"
	}
	return "Input"
}

func firstText(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// commandOf finds the one argument of a tool's input that says it all, so that a command is read as a command and not as JSON.
func commandOf(input string) (text, language string, ok bool) {
	var args map[string]json.RawMessage
	if json.Unmarshal([]byte(input), &args) != nil {
		return "", "", false
	}
	for _, name := range []string{"command", "code", "script", "content"} {
		var s string
		if raw, has := args[name]; has && json.Unmarshal(raw, &s) == nil && s != "" {
			return s, name, true
		}
	}
	return "", "", false
}

// gistOf is the part of the input that fits beside the tool's name, such as a path.
func gistOf(input string) string {
	var args map[string]json.RawMessage
	if json.Unmarshal([]byte(input), &args) != nil {
		return ""
	}
	for _, name := range []string{"path", "file_path", "url", "query"} {
		var s string
		if raw, has := args[name]; has && json.Unmarshal(raw, &s) == nil {
			line, _, _ := strings.Cut(strings.TrimSpace(s), "\n")
			if len(line) > 90 {
				line = line[:90] + "…"
			}
			return line
		}
	}
	return ""
}

func zero(n *money.Nanos) bool { return n == nil || *n == 0 }
