package scheduler

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/agents/loop"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/canonical"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/sandbox"
)

// Quote prices what an invoke with the same input would start or continue, and keeps the offer. It starts nothing and holds nothing. It fails as
// the invoke would, as far as that does not depend on money.
func (s *Service) Quote(ctx context.Context, tx pgx.Tx, org id.Org, in InvokeInput) (billing.Quote, error) {
	quote, err := s.Estimate(ctx, tx, org, in)
	if err != nil {
		return billing.Quote{}, err
	}
	return billing.SaveQuote(ctx, tx, s.clock.Now(), org, quote)
}

// Estimate is Quote without keeping the offer: it has no id and binds nothing.
func (s *Service) Estimate(ctx context.Context, tx pgx.Tx, org id.Org, in InvokeInput) (billing.Quote, error) {
	if err := checkInvoke(in); err != nil {
		return billing.Quote{}, err
	}
	now := s.clock.Now()
	p := prospect{table: s.gate.Prices(), now: now, tools: s.lookup()}
	terms := terms{input: in}
	var events []journal.Event
	var stepsLeft int64
	if in.Session != "" {
		if err := in.onlyContinues(); err != nil {
			return billing.Quote{}, err
		}
		session, err := journal.Get(ctx, tx, org, in.Session)
		if err != nil {
			return billing.Quote{}, err
		}
		if err := terms.continues(&session); err != nil {
			return billing.Quote{}, err
		}
		if terms.limits.MaxSteps > 0 {
			stepsLeft = max(1, terms.limits.MaxSteps-session.Usage.Steps)
		}
		if events, err = journal.EventsUpTo(ctx, tx, org, session.ID, 0, session.LastSeq); err != nil {
			return billing.Quote{}, err
		}
	} else {
		var err error
		if terms.agent, terms.project, terms.limits, err = s.newTerms(ctx, tx, org, in); err != nil {
			return billing.Quote{}, err
		}
		events = []journal.Event{{Seq: 1, Type: journal.SessionCreated{}.EventType(), CreatedAt: now, Payload: json.RawMessage("{}")}}
		if terms.agent.ID != "" {
			if p.history, err = journal.LastFinished(ctx, tx, org, terms.agent.ID, terms.agent.Model, historyDepth); err != nil {
				return billing.Quote{}, err
			}
		}
	}
	p.agent, p.limits = terms.agent, terms.limits
	if stepsLeft > 0 {
		p.limits.MaxSteps = stepsLeft
	}
	var err error
	if p.request, err = s.firstRequest(p, events, in.Input); err != nil {
		return billing.Quote{}, err
	}
	quote, err := p.offer()
	if err != nil {
		return billing.Quote{}, err
	}
	quote.Project = terms.project
	if quote.Digest, err = terms.digest(); err != nil {
		return billing.Quote{}, err
	}
	var unpriced []string
	if quote.Prices, unpriced, err = p.inForce(); err != nil {
		return billing.Quote{}, err
	}
	for _, name := range unpriced {
		quote.Basis.Assumptions = append(quote.Basis.Assumptions, fmt.Sprintf("The tool %s has no price, so each use of it would be refused.", name))
	}
	return quote, nil
}

// EffectQuantities are what a single effect is to be priced for.
type EffectQuantities struct {
	Kind   string // journal.KindModelCall or journal.KindToolCall
	Name   string
	Tokens journal.Usage
	// Calls of a tool; 0 means one.
	Calls int64
}

// QuoteEffect prices one model call or the calls of one tool, and keeps the offer. The ceiling is what the gate would hold for these quantities,
// likely what they cost as they are, and low what is charged at the least: the input without an answer, or the calls without a sandbox.
func (s *Service) QuoteEffect(ctx context.Context, tx pgx.Tx, org id.Org, project id.Project, in EffectQuantities) (billing.Quote, error) {
	now, table := s.clock.Now(), s.gate.Prices()
	var quantities, least []gate.Priced
	switch in.Kind {
	case journal.KindModelCall:
		if in.Tokens.ReasoningTokens > in.Tokens.OutputTokens {
			return billing.Quote{}, fault.InvalidField("/effect/reasoning_tokens", "out_of_range", "Reasoning tokens are a part of the output tokens.")
		}
		all := tokens(in.Tokens)
		quantities = []gate.Priced{modelQuantities(in.Name, in.Tokens)}
		least = []gate.Priced{{Kind: prices.Model, Ref: in.Name, Quantities: prices.Quantities{
			prices.InputToken: all[prices.InputToken], prices.CacheReadToken: all[prices.CacheReadToken], prices.CacheWriteToken: all[prices.CacheWriteToken],
		}}}
	case journal.KindToolCall:
		calls := prices.Quantities{prices.Call: max(1, in.Calls)}
		least = []gate.Priced{{Kind: prices.Tool, Ref: "builtin/" + in.Name, Quantities: calls}}
		quantities = least
		if in.Tokens.SandboxMillis > 0 {
			quantities = append(quantities[:1:1], gate.Priced{Kind: prices.Sandbox, Ref: sandbox.Size, Quantities: prices.Quantities{prices.Millisecond: in.Tokens.SandboxMillis}})
		}
	default:
		return billing.Quote{}, fault.InvalidField("/effect/kind", "unknown_value", "An effect that has a price is a model_call or a tool_call.")
	}
	quote := billing.Quote{Kind: billing.QuoteEffect, Project: project, PriceVersion: table.Version(), Basis: billing.QuoteBasis{
		From: "quantities", Assumptions: []string{"The ceiling is what would be held: each quantity at the dearest price that it can turn out to have."},
	}}
	var err error
	if quote.Ceiling, quote.Lines, err = s.gate.Bound(nil, quantities); err != nil {
		return billing.Quote{}, err
	}
	for _, part := range []struct {
		of []gate.Priced
		to *money.Nanos
	}{{quantities, &quote.Likely}, {least, &quote.Low}} {
		var e estimate
		for _, q := range part.of {
			if err := e.add(table.Cost(now, q.Kind, q.Ref, q.Quantities)); err != nil {
				return billing.Quote{}, err
			}
		}
		*part.to = e.amount
	}
	for _, q := range quantities {
		entry, err := table.InForce(now, q.Kind, q.Ref)
		if err != nil {
			return billing.Quote{}, err
		}
		quote.Prices = append(quote.Prices, entry)
	}
	if quote.Digest, err = canonical.Digest(map[string]any{"effect": in}); err != nil {
		return billing.Quote{}, fmt.Errorf("digest an effect: %w", err)
	}
	return billing.SaveQuote(ctx, tx, now, org, quote)
}

func modelQuantities(model string, u journal.Usage) gate.Priced {
	return gate.Priced{Kind: prices.Model, Ref: model, Quantities: tokens(u)}
}

// terms are what the price of an invoke depends on.
type terms struct {
	input   InvokeInput
	agent   journal.Snapshot
	project id.Project
	limits  journal.Limits
	lastSeq int64 // of the session that is continued
}

// newTerms are those of a session that an invoke would start.
func (s *Service) newTerms(ctx context.Context, tx pgx.Tx, org id.Org, in InvokeInput) (journal.Snapshot, id.Project, journal.Limits, error) {
	snapshot, project, err := s.resolve(ctx, tx, org, in)
	if err != nil {
		return snapshot, "", journal.Limits{}, err
	}
	if !s.gate.Prices().Known(s.clock.Now(), prices.Model, snapshot.Model) {
		return snapshot, "", journal.Limits{}, prices.Unknown(prices.Model, snapshot.Model)
	}
	limits := snapshot.Limits
	if in.Limits != nil {
		limits = narrow(limits, *in.Limits)
	}
	return snapshot, project, limits, nil
}

// continues takes the terms of the session that is continued. Of its price ceiling, what is left counts.
func (t *terms) continues(s *journal.Session) error {
	if t.input.Project != "" && s.Project != t.input.Project {
		return fault.NotFound()
	}
	if err := takesInput(s); err != nil {
		return err
	}
	if s.AtWork() {
		return fault.New(fault.Conflict, "session_running", "The session is at work, so what it will read next is not known. It can be priced when it is idle.")
	}
	t.agent, t.project, t.limits, t.lastSeq = s.Agent, s.Project, s.Limits, s.LastSeq
	if t.input.Limits != nil {
		t.limits = merge(t.limits, *t.input.Limits)
	}
	if t.limits.MaxCost != nil {
		left := max(0, *t.limits.MaxCost-s.Charged)
		t.limits.MaxCost = &left
	}
	return nil
}

// digest is of all that the price depends on, but for the ceiling: an invoke may name a lower one.
func (t *terms) digest() ([32]byte, error) {
	limits := t.limits
	limits.MaxCost = nil
	d, err := canonical.Digest(map[string]any{
		"agent": t.agent, "project": t.project, "limits": limits, "input": t.input.Input, "session": t.input.Session, "last_seq": t.lastSeq, "parent": t.input.Parent,
	})
	if err != nil {
		return d, fmt.Errorf("digest what is quoted: %w", err)
	}
	return d, nil
}

// bind uses the quote that an invoke names, for the given terms. It returns what the journal says of it, and the terms' limits with the quote's
// ceiling where the invoke names none. charged is what the session has spent before.
func (s *Service) bind(ctx context.Context, tx pgx.Tx, org id.Org, quote billing.Quote, t terms, session id.Session, charged money.Nanos) (journal.Entry, *money.Nanos, error) {
	now := s.clock.Now()
	digest, err := t.digest()
	if err != nil {
		return journal.Entry{}, nil, err
	}
	if err := quote.Usable(now, digest); err != nil {
		return journal.Entry{}, nil, err
	}
	if err := billing.UseQuote(ctx, tx, now, org, quote.ID, session); err != nil {
		return journal.Entry{}, nil, err
	}
	entries, err := json.Marshal(quote.Prices)
	if err != nil {
		return journal.Entry{}, nil, fmt.Errorf("write the quote's prices: %w", err)
	}
	said := journal.Of(journal.SessionQuoted{Quoted: journal.Quoted{Quote: quote.ID, PriceVersion: quote.PriceVersion, Prices: entries}, By: principal.From(ctx)})
	if t.input.Limits != nil && t.input.Limits.MaxCost != nil {
		return said, nil, nil
	}
	ceiling, err := charged.Add(quote.Ceiling)
	if err != nil {
		return journal.Entry{}, nil, fmt.Errorf("raise a session's ceiling by its quote's: %w", err)
	}
	return said, &ceiling, nil
}

// firstRequest is the model call with which the work would begin: the loop's own, after the journal and the input.
func (s *Service) firstRequest(p prospect, events []journal.Event, input []journal.Block) (models.Request, error) {
	h := loop.NewHistory()
	if err := h.Apply(events...); err != nil {
		return models.Request{}, err
	}
	said, err := json.Marshal(journal.UserMessage{Content: input})
	if err != nil {
		return models.Request{}, fmt.Errorf("write the input: %w", err)
	}
	if err := h.Apply(journal.Event{Seq: h.LastSeq() + 1, Type: journal.UserMessage{}.EventType(), CreatedAt: p.now, Payload: said}); err != nil {
		return models.Request{}, err
	}
	ask := loop.Input{Agent: p.agent, Now: p.now}
	if s.tools != nil {
		ask.Tools = s.tools.Definitions(p.agent.Tools)
	}
	next, err := h.Next(ask)
	if err != nil {
		return models.Request{}, err
	}
	if next.Model == nil { // tool uses are still to be answered: the call after them reads at least this much
		return models.Request{Model: p.agent.Model, System: p.agent.System, Tools: ask.Tools, MaxTokens: p.agent.MaxTokens, Messages: []models.Message{{Role: models.User, Content: blocksOf(input)}}}, nil
	}
	return next.Model.Request, nil
}

func blocksOf(input []journal.Block) (out []models.Block) {
	for _, b := range input {
		out = append(out, models.TextBlock(b.Text))
	}
	return out
}

// inForce are the prices of all that the agent may use, and the tools that have none.
func (p prospect) inForce() (entries []prices.Entry, unpriced []string, err error) {
	model, err := p.table.InForce(p.now, prices.Model, p.agent.Model)
	if err != nil {
		return nil, nil, err
	}
	entries = append(entries, model)
	for _, name := range p.agent.Tools {
		e, err := p.table.InForce(p.now, prices.Tool, "builtin/"+name)
		if err != nil {
			unpriced = append(unpriced, name)
			continue
		}
		entries = append(entries, e)
	}
	if len(p.agent.Tools) > 0 {
		if e, err := p.table.InForce(p.now, prices.Sandbox, sandbox.Size); err == nil {
			entries = append(entries, e)
		}
	}
	return entries, unpriced, nil
}

// lookup describes the tools that there are; nil in a process that knows none.
func (s *Service) lookup() func(string) (connectors.Tool, bool) {
	if s.tools == nil {
		return nil
	}
	return s.tools.Lookup
}

// checkInvoke refuses what no invoke may ask for, whatever it is about.
func checkInvoke(in InvokeInput) error {
	if err := checkInput(in.Input); err != nil {
		return err
	}
	if in.Limits != nil {
		if err := agents.CheckLimits("/limits", *in.Limits); err != nil {
			return err
		}
	}
	switch in.IfRunning {
	case "", "queue", "interrupt", "reject":
		return nil
	default:
		return fault.InvalidField("/if_running", "unknown_value", `if_running must be "queue", "interrupt" or "reject".`)
	}
}

// onlyContinues refuses what a session that exists can't be given any more.
func (in InvokeInput) onlyContinues() error {
	if in.Agent != nil || in.Inline != nil || !in.Overrides.empty() {
		return fault.InvalidField("/session_id", "ambiguous", "A session runs on the agent that it began with: leave agent and overrides out.")
	}
	if in.Mandate != "" {
		return fault.InvalidField("/mandate_id", "ambiguous", "A session keeps the mandate that it began with: leave mandate_id out.")
	}
	if in.Parent != "" {
		return fault.InvalidField("/parent_session_id", "ambiguous", "A session keeps the parent that it began with: leave parent_session_id out.")
	}
	return nil
}
