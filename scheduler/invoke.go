package scheduler

import (
	"context"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
)

// Bounds of an invoke's input.
const (
	// MaxInputBytes bounds the text of one input.
	MaxInputBytes = 4 << 20
	maxTitle      = 200
)

// InvokeInput asks for work: by a stored agent, by one written into the request, or in a session that exists.
type InvokeInput struct {
	Project id.Project
	// Agent names a stored agent; Inline defines one on the spot. Neither may be given together with Session.
	Agent  *agents.Ref
	Inline *journal.Definition
	// Session continues a session.
	Session   id.Session
	Input     []journal.Block
	Overrides Overrides
	// Limits narrow or set the session's limits; nil leaves those of the agent.
	Limits    *journal.Limits
	IfRunning string // queue, interrupt or reject; empty takes the agent's
	// Parent is the session below which a new one starts: it must live, be of the same project, and allow the depth. It is stopped with it.
	Parent id.Session
	// Mandate is that under which a new session runs; empty for the one of the session above it, or none.
	Mandate id.Mandate
	// Quote binds the prices, and the ceiling where Limits name none; empty for the prices of the moment.
	Quote    id.Quote
	Title    string
	Metadata map[string]string
}

// Overrides replace parts of the agent's definition for one new session; nil leaves a part as it is.
type Overrides struct {
	Model     *string
	System    *string
	Tools     *[]string
	MaxTokens *int64
}

func (o Overrides) empty() bool {
	return o.Model == nil && o.System == nil && o.Tools == nil && o.MaxTokens == nil
}

// Invoked is work that was accepted.
type Invoked struct {
	Session journal.Session
	// Input is the user.message that was journalled.
	Input journal.Event
	// Held is what the session's price ceiling holds; zero without a ceiling.
	Held money.Nanos
}

// Invoke accepts work in the caller's transaction: the session, its first events, the hold of its ceiling and the job that wakes it are
// one commit. It fails with a fault before anything is begun: 402 with the shortfall, 409 when the session can't take input now.
func (s *Service) Invoke(ctx context.Context, tx pgx.Tx, org id.Org, in InvokeInput) (Invoked, error) {
	if err := checkInvoke(in); err != nil {
		return Invoked{}, err
	}
	if in.Session != "" {
		return s.continueSession(ctx, tx, org, in)
	}
	return s.newSession(ctx, tx, org, in)
}

func (s *Service) newSession(ctx context.Context, tx pgx.Tx, org id.Org, in InvokeInput) (Invoked, error) {
	snapshot, project, limits, err := s.newTerms(ctx, tx, org, in)
	if err != nil {
		return Invoked{}, err
	}
	title, err := checkTitle(in.Title)
	if err != nil {
		return Invoked{}, err
	}
	if err := agents.CheckMetadata("/metadata", in.Metadata); err != nil {
		return Invoked{}, err
	}
	now, by := s.clock.Now(), principal.From(ctx)
	if in.Mandate == "" && in.Parent != "" {
		above, err := journal.Get(ctx, tx, org, in.Parent)
		if err != nil {
			return Invoked{}, err
		}
		in.Mandate = above.Mandate
	}
	if err := mayBegin(ctx, tx, org, "", project, snapshot.ID, in.Mandate); err != nil {
		return Invoked{}, err
	}
	// After the lock on orders to stop, so that a revocation either is seen here or finds the session.
	path, err := s.gate.Mandates(ctx, tx, org, in.Mandate, snapshot.ID, project, by.ID)
	if err != nil {
		return Invoked{}, err
	}
	if len(path) > 0 {
		if err := s.mandates.UseSession(ctx, tx, org, path); err != nil {
			return Invoked{}, err
		}
	}
	if in.Parent != "" {
		if err := underParent(ctx, tx, org, project, in.Parent, path); err != nil {
			return Invoked{}, err
		}
	}
	session := id.New[id.Session]()
	var first []journal.Entry
	if in.Parent != "" {
		if first, err = inherited(ctx, tx, org, in.Parent); err != nil {
			return Invoked{}, err
		}
	}
	if in.Quote != "" {
		quote, err := billing.LockQuote(ctx, tx, org, in.Project, in.Quote)
		if err != nil {
			return Invoked{}, err
		}
		said, ceiling, err := s.bind(ctx, tx, org, quote, terms{input: in, agent: snapshot, project: project, limits: limits}, session, 0)
		if err != nil {
			return Invoked{}, err
		}
		first = append(first, said)
		if ceiling != nil && (limits.MaxCost == nil || *ceiling < *limits.MaxCost) {
			limits.MaxCost = ceiling
		}
	}
	l, _, err := journal.Create(ctx, tx, now, journal.New{
		Org: org, ID: session, Project: project, Agent: snapshot, Parent: in.Parent, By: by, Title: title, Metadata: in.Metadata, Limits: limits, Mandates: path,
	}, first...)
	if err != nil {
		return Invoked{}, err
	}
	return s.accept(ctx, tx, l, in)
}

// inherited is what a session has from the one above it: what that one had read from outside may speak through it. The one above is locked.
func inherited(ctx context.Context, tx pgx.Tx, org id.Org, parent id.Session) ([]journal.Entry, error) {
	read, err := journal.Events(ctx, tx, org, parent, journal.EventFilter{Types: []string{journal.Tainted{}.EventType()}, Limit: 1})
	if err != nil || len(read) == 0 {
		return nil, err
	}
	t, err := journal.Decode[journal.Tainted](read[0])
	if err != nil {
		return nil, err
	}
	return []journal.Entry{journal.Of(journal.Tainted{Source: journal.TaintAgent, Ref: string(parent), Excerpt: t.Excerpt})}, nil
}

func (s *Service) resolve(ctx context.Context, tx pgx.Tx, org id.Org, in InvokeInput) (journal.Snapshot, id.Project, error) {
	var snapshot journal.Snapshot
	project := in.Project
	switch {
	case in.Agent != nil && in.Inline != nil:
		return snapshot, "", fault.InvalidField("/agent", "ambiguous", "Name an agent or define one, not both.")
	case in.Agent != nil:
		got, home, err := s.agents.Resolve(ctx, tx, org, *in.Agent)
		if err != nil {
			return snapshot, "", err
		}
		if project != "" && home != project {
			return snapshot, "", fault.NotFound()
		}
		snapshot, project = got, home
	case in.Inline != nil:
		d, err := s.agents.Catalogue().Check("/agent", *in.Inline)
		if err != nil {
			return snapshot, "", err
		}
		snapshot = journal.Snapshot{Name: "inline", Definition: d}
	default:
		return snapshot, "", fault.InvalidField("/agent", "required", "Name an agent by its id, or define one with a model.")
	}
	if in.Overrides.empty() {
		return snapshot, project, nil
	}
	d := snapshot.Definition
	if in.Overrides.Model != nil {
		d.Model = *in.Overrides.Model
	}
	if in.Overrides.System != nil {
		d.System = *in.Overrides.System
	}
	if in.Overrides.Tools != nil {
		d.Tools = *in.Overrides.Tools
	}
	if in.Overrides.MaxTokens != nil {
		d.MaxTokens = *in.Overrides.MaxTokens
	}
	d, err := s.agents.Catalogue().Check("/overrides", d)
	snapshot.Definition = d
	return snapshot, project, err
}

func (s *Service) continueSession(ctx context.Context, tx pgx.Tx, org id.Org, in InvokeInput) (Invoked, error) {
	if err := in.onlyContinues(); err != nil {
		return Invoked{}, err
	}
	if err := mayBegin(ctx, tx, org, in.Session, "", "", ""); err != nil {
		return Invoked{}, err
	}
	var quote billing.Quote
	if in.Quote != "" {
		var err error
		if quote, err = billing.LockQuote(ctx, tx, org, in.Project, in.Quote); err != nil {
			return Invoked{}, err
		}
	}
	l, err := journal.Lock(ctx, tx, org, in.Session)
	if err != nil {
		return Invoked{}, err
	}
	if in.Project != "" && l.Project != in.Project {
		return Invoked{}, fault.NotFound()
	}
	if err := takesInput(&l.Session); err != nil {
		return Invoked{}, err
	}
	limits := l.Limits
	if in.Limits != nil {
		limits = merge(limits, *in.Limits)
	}
	var entries []journal.Entry
	if in.Quote != "" {
		t := terms{input: in}
		if err := t.continues(&l.Session); err != nil {
			return Invoked{}, err
		}
		said, ceiling, err := s.bind(ctx, tx, org, quote, t, l.ID, l.Charged)
		if err != nil {
			return Invoked{}, err
		}
		entries = append(entries, said)
		if ceiling != nil && (limits.MaxCost == nil || *ceiling < *limits.MaxCost) {
			limits.MaxCost = ceiling
		}
	}
	if in.Limits != nil || limits != l.Limits {
		entries = append(entries, journal.Of(journal.SessionLimits{Limits: limits, By: principal.From(ctx)}))
	}
	if _, err := l.Append(ctx, s.clock.Now(), entries...); err != nil {
		return Invoked{}, err
	}
	return s.accept(ctx, tx, l, in)
}

// accept journals the input, holds the ceiling where there is one, and wakes the session.
func (s *Service) accept(ctx context.Context, tx pgx.Tx, l *journal.Locked, in InvokeInput) (Invoked, error) {
	now, by := s.clock.Now(), principal.From(ctx)
	var entries []journal.Entry
	policy := in.IfRunning
	if policy == "" {
		policy = l.Agent.IfRunning
	}
	atWork := l.Status == journal.Running
	if atWork {
		switch policy {
		case "reject":
			return Invoked{}, fault.New(fault.Conflict, "session_running", "The session is at work and does not take input now. Wait until it is idle, or send if_running: queue.")
		case "interrupt":
			entries = append(entries, journal.Of(journal.UserInterrupt{By: by, Reason: "a new message"}))
		}
	}
	if err := s.cover(ctx, tx, l); err != nil {
		return Invoked{}, err
	}
	entries = append(entries, journal.Of(journal.UserMessage{Content: in.Input, By: by}))
	events, err := l.Append(ctx, now, entries...)
	if err != nil {
		return Invoked{}, err
	}
	if err := journal.WakeTx(ctx, tx, l.Org, l.ID); err != nil {
		return Invoked{}, err
	}
	if !atWork {
		if err := s.inRoom(ctx, tx, &l.Session); err != nil {
			return Invoked{}, err
		}
	}
	out := Invoked{Session: l.Session, Input: events[len(events)-1]}
	if l.CeilingHold != "" {
		h, err := billing.ReadHold(ctx, tx, l.Org, l.CeilingHold)
		if err != nil {
			return Invoked{}, err
		}
		out.Held = h.Amount
	}
	return out, nil
}

// cover holds what is left of the session's price ceiling, or makes sure that there is anything at all to spend.
func (s *Service) cover(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
	if l.CeilingHold != "" {
		return nil
	}
	if l.Limits.MaxCost == nil {
		return s.gate.Covered(ctx, tx, l.Org)
	}
	left := *l.Limits.MaxCost
	if l.LastSeq > 1 { // one that was just made holds nothing; of one that was at rest, a sandbox's time may be held
		of, err := gate.LeftOfCeiling(ctx, tx, &l.Session)
		if err != nil {
			return err
		}
		left = *of
	}
	if left <= 0 {
		return fault.New(fault.Conflict, "state_conflict", fmt.Sprintf("The session has spent %s of its price ceiling of %s. Raise limits.max_cost to go on.", l.Charged.Display(), l.Limits.MaxCost.Display()))
	}
	return s.gate.Ceiling(ctx, tx, s.clock.Now(), l, left)
}

func takesInput(s *journal.Session) error {
	if s.Status == journal.Terminated {
		return fault.New(fault.Conflict, "session_terminated", "The session has ended and takes no more input.")
	}
	if s.ArchivedAt != nil {
		return fault.New(fault.Conflict, "archived", "The session is archived; it can be read but takes no input.")
	}
	return nil
}

func checkInput(blocks []journal.Block) error {
	if len(blocks) == 0 {
		return fault.InvalidField("/input", "required", "Say what is to be done: input is a string or a list of content blocks.")
	}
	total := 0
	for i, b := range blocks {
		at := fmt.Sprintf("/input/%d", i)
		if b.Type != "text" {
			return fault.InvalidField(at+"/type", "unknown_type", `Only blocks of type "text" are taken.`)
		}
		if strings.TrimSpace(b.Text) == "" {
			return fault.InvalidField(at+"/text", "required", "A block of text must hold some.")
		}
		if !utf8.ValidString(b.Text) || strings.ContainsRune(b.Text, 0) {
			return fault.InvalidField(at+"/text", "invalid_text", "Text must be UTF-8 without the null character.")
		}
		total += len(b.Text)
	}
	if total > MaxInputBytes {
		return fault.New(fault.TooLarge, "too_large", fmt.Sprintf("The input has %d bytes of text; at most %d are allowed. Put large data into a file of the working directory.", total, MaxInputBytes))
	}
	return nil
}

func checkTitle(title string) (string, error) {
	title = strings.TrimSpace(title)
	if utf8.RuneCountInString(title) > maxTitle || strings.ContainsFunc(title, func(r rune) bool { return r < ' ' }) {
		return "", fault.InvalidField("/title", "out_of_range", fmt.Sprintf("A title has at most %d characters on one line.", maxTitle))
	}
	return title, nil
}

// narrow applies an invoke's limits to an agent's: whichever is stricter holds, as an invoke may not widen what its agent was given.
func narrow(agent, invoke journal.Limits) journal.Limits {
	out := journal.Limits{
		MaxTokens: stricter(agent.MaxTokens, invoke.MaxTokens), MaxSteps: stricter(agent.MaxSteps, invoke.MaxSteps),
		MaxWallSeconds: stricter(agent.MaxWallSeconds, invoke.MaxWallSeconds), MaxDepth: stricter(agent.MaxDepth, invoke.MaxDepth),
		MaxCost: agent.MaxCost,
	}
	if invoke.MaxCost != nil && (out.MaxCost == nil || *invoke.MaxCost < *out.MaxCost) {
		out.MaxCost = invoke.MaxCost
	}
	return out
}

func stricter(a, b int64) int64 {
	if a == 0 || (b != 0 && b < a) {
		return b
	}
	return a
}

// merge replaces the limits that are given.
func merge(have, given journal.Limits) journal.Limits {
	if given.MaxCost != nil {
		have.MaxCost = given.MaxCost
	}
	for _, f := range []struct{ to, from *int64 }{{&have.MaxTokens, &given.MaxTokens}, {&have.MaxSteps, &given.MaxSteps}, {&have.MaxWallSeconds, &given.MaxWallSeconds}, {&have.MaxDepth, &given.MaxDepth}} {
		if *f.from != 0 {
			*f.to = *f.from
		}
	}
	return have
}
