package scheduler

import (
	"fmt"
	"slices"
	"time"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/sandbox"
)

// What an estimate assumes where there is no history. Each is said in the quote's basis.
const (
	// enoughHistory is how many finished sessions of an agent an estimate is made from, historyDepth how many are looked at.
	enoughHistory = 3
	historyDepth  = 50
	// A short answer and an ordinary one, in tokens.
	shortAnswer    = 50
	ordinaryAnswer = 400
	// Turns are the model calls of work with tools: each but the last asks for one tool call, whose answer has so many tokens and, in a sandbox,
	// takes so long.
	assumedTurns   = 3
	assumedResult  = 500
	assumedSandbox = 2 * time.Second
	// headroom is how many times the likely cost a ceiling allows where no limit bounds the work.
	headroom = 3
)

// work that is to be estimated.
type prospect struct {
	table   *prices.Table
	now     time.Time
	agent   journal.Snapshot
	limits  journal.Limits // of which max_cost is what is left of it
	request models.Request // the first model call, as it will be made
	tools   func(name string) (connectors.Tool, bool)
	history []journal.Finished
}

// estimate is a sum and what it is made of.
type estimate struct {
	amount money.Nanos
	lines  []prices.Line
}

func (e *estimate) add(amount money.Nanos, lines []prices.Line, err error) error {
	if err != nil {
		return err
	}
	if e.amount, err = e.amount.Add(amount); err != nil {
		return fmt.Errorf("add up an estimate: %w", err)
	}
	e.lines = append(e.lines, lines...)
	return nil
}

// offer reckons what the work will cost: at the least, likely, and at most. It decides nothing and holds nothing.
func (p prospect) offer() (billing.Quote, error) {
	basis := billing.QuoteBasis{From: "assumptions", Assumptions: []string{}}
	assume := func(format string, args ...any) {
		basis.Assumptions = append(basis.Assumptions, fmt.Sprintf(format, args...))
	}
	reads := models.EstimateUsage(p.request, models.Response{}).Input
	low, err := p.priced([]journal.UsedOf{{
		Kind: journal.KindModelCall, Name: p.agent.Model, Calls: 1, Usage: journal.Usage{InputTokens: reads, OutputTokens: min(shortAnswer, p.agent.MaxTokens)},
	}})
	if err != nil {
		return billing.Quote{}, err
	}
	likely, assumedSteps, err := p.assumed(reads, assume)
	if err != nil {
		return billing.Quote{}, err
	}
	if before := p.finished(); len(before) >= enoughHistory {
		basis = billing.QuoteBasis{From: "history", Sessions: len(before), Assumptions: []string{}}
		assume("Likely is the middle one of this agent's last %d finished sessions on this model, and low the cheapest tenth of them, at today's prices; their inputs were others.", len(before))
		likely = before[(len(before)-1)/2]
		if tenth := before[(len(before)-1)/10]; tenth.amount > low.amount {
			low = tenth
		}
	}
	if likely.amount < low.amount {
		likely = low
		assume("Likely is raised to one model call that reads this input of about %d tokens.", reads)
	}
	ceiling, err := p.ceiling(likely.amount, assumedSteps, assume)
	if err != nil {
		return billing.Quote{}, err
	}
	out := billing.Quote{Kind: billing.QuoteSession, Low: low.amount, Likely: likely.amount, Ceiling: ceiling, Lines: likely.lines, Basis: basis, PriceVersion: p.table.Version()}
	if c := p.limits.MaxCost; c != nil && *c < out.Ceiling {
		out.Ceiling = *c
		out.Basis.Assumptions = append(out.Basis.Assumptions, "The ceiling is limits.max_cost.")
	}
	if out.Ceiling < out.Likely {
		out.Basis.Assumptions = append(out.Basis.Assumptions, "The work would likely cost "+out.Likely.Display()+", as the lines say; it will likely stop at the ceiling.")
		out.Likely, out.Low = out.Ceiling, min(out.Low, out.Ceiling)
	}
	return out, nil
}

// assumed is the likely cost where no history tells: one answer, or some turns with tools.
func (p prospect) assumed(reads int64, assume func(string, ...any)) (likely estimate, steps int64, err error) {
	answer := min(ordinaryAnswer, p.agent.MaxTokens)
	if len(p.agent.Tools) == 0 {
		assume("One model call that reads about %d tokens, a token for four bytes, and answers with %d.", reads, answer)
		likely, err = p.priced([]journal.UsedOf{{Kind: journal.KindModelCall, Name: p.agent.Model, Calls: 1, Usage: journal.Usage{InputTokens: reads, OutputTokens: answer}}})
		return likely, 1, err
	}
	turns := int64(assumedTurns)
	if m := p.limits.MaxSteps; m > 0 {
		turns = min(turns, (m+1)/2)
	}
	usage := journal.Usage{OutputTokens: turns * answer}
	for turn := range turns {
		usage.InputTokens += reads + turn*(answer+assumedResult)
	}
	used := []journal.UsedOf{{Kind: journal.KindModelCall, Name: p.agent.Model, Calls: turns, Usage: usage}}
	kept := ""
	if tool := p.dearestTool(); tool != "" && turns > 1 {
		used = append(used, journal.UsedOf{Kind: journal.KindToolCall, Name: tool, Calls: turns - 1})
		if p.inSandbox(tool) {
			millis := (turns-1)*assumedSandbox.Milliseconds() + sandbox.DefaultIdleAfter.Milliseconds()
			used = append(used, journal.UsedOf{Kind: journal.KindSandbox, Name: sandbox.TickName, Usage: journal.Usage{SandboxMillis: millis}})
			kept = fmt.Sprintf(" Its sandbox is kept for %s after its last use.", sandbox.DefaultIdleAfter)
		}
	}
	assume("%d model calls with %d tool calls between them. The first reads about %d tokens, a token for four bytes; each answers with %d, and each tool with %d that the next call reads.%s", turns, turns-1, reads, answer, assumedResult, kept)
	likely, err = p.priced(used)
	return likely, 2*turns - 1, err
}

// ceiling is the most that the work may cost under the quote. Where the agent has no tools, or its steps are limited, it is what they can cost at
// most; otherwise it is several times what is likely, with room for a further effect to be held at its most.
func (p prospect) ceiling(likely money.Nanos, steps int64, assume func(string, ...any)) (money.Nanos, error) {
	allowance, err := likely.Times(headroom)
	if err != nil {
		return 0, fmt.Errorf("reckon a ceiling: %w", err)
	}
	for _, f := range p.history {
		steps = max(steps, f.Steps())
	}
	last, err := p.worstCall((steps - 1) / 2)
	if err != nil {
		return 0, err
	}
	tick, err := p.sandboxed(sandbox.MaxTick)
	if err != nil {
		return 0, err
	}
	for _, more := range []money.Nanos{last, tick} { // a further effect must be held at its most, and a sandbox's time beside it
		if allowance, err = allowance.Add(more); err != nil {
			return 0, fmt.Errorf("reckon a ceiling: %w", err)
		}
	}
	if bounded := p.boundedSteps(); bounded > 0 {
		worst, err := p.worst(bounded)
		if err != nil {
			return 0, err
		}
		if worst <= allowance {
			assume("The ceiling is what %d steps can cost at most, each at its upper bound. An attempt that the provider fails and bills counts towards it.", bounded)
			return max(worst, likely), nil
		}
	}
	assume("The ceiling is %d times likely, and what one more model call may need to be held. It is kept; work that needs more stops there and can go on when the ceiling is raised.", headroom)
	return max(allowance, likely), nil
}

// boundedSteps is how many steps the work can take at most; 0 where nothing bounds them.
func (p prospect) boundedSteps() int64 {
	if len(p.agent.Tools) == 0 {
		return 1
	}
	return p.limits.MaxSteps
}

// worst is the most that so many steps can cost.
func (p prospect) worst(steps int64) (total money.Nanos, err error) {
	calls := min((steps+1)/2, 1000) // each model call but the last is followed by at least one tool call; so many cost more than any allowance
	for n := range calls {
		call, err := p.worstCall(n)
		if err != nil {
			return 0, err
		}
		if total, err = total.Add(call); err != nil {
			return 0, fmt.Errorf("reckon a ceiling: %w", err)
		}
	}
	tool := p.dearestTool()
	if tool == "" || steps < 2 {
		return total, nil
	}
	one, err := p.worstTool(tool)
	if err != nil {
		return 0, err
	}
	all, err := one.Times(steps - 1)
	if err != nil {
		return 0, fmt.Errorf("reckon a ceiling: %w", err)
	}
	kept, err := p.sandboxed(sandbox.DefaultIdleAfter + sandbox.MaxTick)
	if err != nil {
		return 0, err
	}
	for _, more := range []money.Nanos{all, kept} {
		if total, err = total.Add(more); err != nil {
			return 0, fmt.Errorf("reckon a ceiling: %w", err)
		}
	}
	return total, nil
}

// sandboxed is what so much time in a sandbox costs; nothing for an agent that needs none, or where it has no price.
func (p prospect) sandboxed(d time.Duration) (money.Nanos, error) {
	if !slices.ContainsFunc(p.agent.Tools, p.inSandbox) || !p.table.Known(p.now, prices.Sandbox, sandbox.Size) {
		return 0, nil
	}
	amount, _, err := p.table.Bound(p.now, prices.Sandbox, sandbox.Size, prices.Quantities{prices.Millisecond: d.Milliseconds()})
	return amount, err
}

// worstCall is the most that a model call can cost after so many others: what they said, and what their tools answered, it reads too.
func (p prospect) worstCall(after int64) (money.Nanos, error) {
	q := models.Priced(p.request)[0].Quantities
	grown := prices.Quantities{prices.OutputToken: q[prices.OutputToken], prices.InputToken: q[prices.InputToken] + after*(p.agent.MaxTokens+connectors.MaxResultBytes)}
	amount, _, err := p.table.Bound(p.now, prices.Model, p.agent.Model, grown)
	return amount, err
}

// worstTool is the most that a call of a tool costs when its arguments name no time limit, the time in its sandbox included.
func (p prospect) worstTool(name string) (money.Nanos, error) {
	var e estimate
	quantities := toolQuantities(name)
	if p.inSandbox(name) {
		quantities = append(quantities, gate.Priced{Kind: prices.Sandbox, Ref: sandbox.Size, Quantities: prices.Quantities{prices.Millisecond: p.limitOf(name).Milliseconds()}})
	}
	for _, q := range quantities {
		if err := e.add(p.table.Bound(p.now, q.Kind, q.Ref, q.Quantities)); err != nil {
			return 0, err
		}
	}
	return e.amount, nil
}

// dearestTool is the tool of the agent's whose call may cost most; empty where it has none with a price.
func (p prospect) dearestTool() (name string) {
	var most money.Nanos = -1
	for _, t := range p.agent.Tools {
		if amount, err := p.worstTool(t); err == nil && amount > most {
			name, most = t, amount
		}
	}
	return name
}

func (p prospect) tool(name string) (connectors.Tool, bool) {
	if p.tools == nil {
		return connectors.Tool{}, false
	}
	return p.tools(name)
}

func (p prospect) inSandbox(name string) bool {
	t, ok := p.tool(name)
	return ok && !t.ControlPlane
}

// finished are the agent's finished sessions at today's prices, the cheapest first. One that used what has no price today is left out.
func (p prospect) finished() (out []estimate) {
	for _, f := range p.history {
		if e, err := p.priced(f.Used); err == nil && e.amount > 0 {
			out = append(out, e)
		}
	}
	slices.SortStableFunc(out, func(a, b estimate) int { return int(max(-1, min(1, a.amount-b.amount))) })
	return out
}

// priced is what was used, or is assumed, at the table's prices.
func (p prospect) priced(used []journal.UsedOf) (e estimate, err error) {
	var millis int64
	for _, u := range used {
		switch u.Kind {
		case journal.KindModelCall:
			err = e.add(p.table.CostOfCalls(p.now, prices.Model, u.Name, tokens(u.Usage), u.Calls))
		case journal.KindSandbox:
			millis += u.Usage.SandboxMillis
		case journal.KindToolCall:
			millis += u.Usage.SandboxMillis // of journals from before a sandbox's time was a step of its own
			err = e.add(p.table.Cost(p.now, prices.Tool, "builtin/"+u.Name, prices.Quantities{prices.Call: u.Calls}))
		}
		if err != nil {
			return estimate{}, err
		}
	}
	if millis > 0 {
		err = e.add(p.table.Cost(p.now, prices.Sandbox, sandbox.Size, prices.Quantities{prices.Millisecond: millis}))
	}
	return e, err
}

// tokens are a journal's counts as the price table takes them: reasoning is no part of the output there.
func tokens(u journal.Usage) prices.Quantities {
	return prices.Quantities{
		prices.InputToken: u.InputTokens, prices.CacheReadToken: u.CacheReadTokens, prices.CacheWriteToken: u.CacheWriteTokens,
		prices.OutputToken: u.OutputTokens - u.ReasoningTokens, prices.ReasoningToken: u.ReasoningTokens,
	}
}
