package prices

import (
	"fmt"
	"time"

	"ambit.dev/ambit/internal/money"
)

// Quantities counts units. A missing unit is none of it.
type Quantities map[Unit]int64

// Line is one row of a bill: Quantity units at UnitPrice for each Per of them, rounded up.
type Line struct {
	Kind      Kind        `json:"kind"`
	Ref       string      `json:"ref"`
	Unit      Unit        `json:"unit"`
	UnitPrice money.Nanos `json:"unit_price"`
	Per       int64       `json:"per"`
	Quantity  int64       `json:"quantity"`
	Amount    money.Nanos `json:"amount"`
}

// order of lines on a bill.
var order = []Unit{InputToken, CacheReadToken, CacheWriteToken, OutputToken, ReasoningToken, Call, Millisecond}

// fallback is the price of a unit that an entry does not name: cached tokens at least cost what they would uncached, reasoning is output.
var fallback = map[Unit]Unit{CacheReadToken: InputToken, CacheWriteToken: InputToken, ReasoningToken: OutputToken, Millisecond: Second}

// Cost is what the quantities cost at the given time. Units of which there are none give no line. It fails with price_unknown, or when a
// quantity is negative or the sum does not fit.
func (t *Table) Cost(at time.Time, kind Kind, ref string, q Quantities) (money.Nanos, []Line, error) {
	return t.CostOfCalls(at, kind, ref, q, 1)
}

// CostOfCalls is what the quantities of so many calls cost together, as if each call had its even share of them: which tier counts is decided
// by the length of the mean prompt. It is an estimate where calls differ; what is captured is Cost, call by call.
func (t *Table) CostOfCalls(at time.Time, kind Kind, ref string, q Quantities, calls int64) (money.Nanos, []Line, error) {
	e, err := t.Lookup(at, kind, ref)
	if err != nil {
		return 0, nil, err
	}
	prompt, err := sum(q, InputToken, CacheReadToken, CacheWriteToken)
	if err != nil {
		return 0, nil, err
	}
	return bill(kind, ref, e.at(prompt/max(1, calls)), q)
}

// Bound is the most that a call can cost whose quantities are at most these. For a model, the counts of input, cache reads and cache
// writes together limit the prompt, however it turns out to be divided between the three, and so do output and reasoning the completion:
// each is priced at the dearest of its kinds, in the dearest tier within reach.
func (t *Table) Bound(at time.Time, kind Kind, ref string, q Quantities) (money.Nanos, []Line, error) {
	e, err := t.Lookup(at, kind, ref)
	if err != nil {
		return 0, nil, err
	}
	if kind != Model {
		return bill(kind, ref, e.Nanos, q)
	}
	prompt, err := sum(q, InputToken, CacheReadToken, CacheWriteToken)
	if err != nil {
		return 0, nil, err
	}
	completion, err := sum(q, OutputToken, ReasoningToken)
	if err != nil {
		return 0, nil, err
	}
	reachable := []Prices{e.Nanos}
	for _, tier := range e.Tiers {
		if prompt > tier.AbovePromptTokens {
			reachable = append(reachable, tier.Nanos)
		}
	}
	var (
		most  money.Nanos
		lines []Line
	)
	for i, p := range reachable {
		dearest := Prices{
			InputToken:  max(p.of(InputToken), p.of(CacheReadToken), p.of(CacheWriteToken)),
			OutputToken: max(p.of(OutputToken), p.of(ReasoningToken)),
		}
		total, ls, err := bill(kind, ref, dearest, Quantities{InputToken: prompt, OutputToken: completion})
		if err != nil {
			return 0, nil, err
		}
		if i == 0 || total > most {
			most, lines = total, ls
		}
	}
	return most, lines, nil
}

// at returns the prices for a prompt of this length.
func (e Entry) at(prompt int64) Prices {
	p := e.Nanos
	for _, t := range e.Tiers {
		if prompt > t.AbovePromptTokens {
			p = t.Nanos
		}
	}
	return p
}

// of is the price of a unit, by fallback where none is named.
func (p Prices) of(u Unit) int64 {
	if n, ok := p[u]; ok {
		return n
	}
	return p[fallback[u]]
}

func (p Prices) names(u Unit) bool {
	if _, ok := p[u]; ok {
		return true
	}
	_, ok := p[fallback[u]]
	return ok
}

func sum(q Quantities, units ...Unit) (int64, error) {
	var total money.Nanos // borrowed for its checked addition
	for _, u := range units {
		if q[u] < 0 {
			return 0, fmt.Errorf("%d of %s: a quantity is never negative", q[u], u)
		}
		var err error
		if total, err = total.Add(money.Nanos(q[u])); err != nil {
			return 0, fmt.Errorf("add up %s: %w", u, err)
		}
	}
	return int64(total), nil
}

func bill(kind Kind, ref string, p Prices, q Quantities) (money.Nanos, []Line, error) {
	var (
		total   money.Nanos
		lines   []Line
		counted int
	)
	for _, u := range order {
		n, ok := q[u]
		if ok {
			counted++
		}
		if n == 0 {
			continue
		}
		if n < 0 {
			return 0, nil, fmt.Errorf("%d of %s: a quantity is never negative", n, u)
		}
		if !p.names(u) {
			return 0, nil, Unknown(kind, ref).With("unit", string(u))
		}
		line := Line{Kind: kind, Ref: ref, Unit: u, UnitPrice: money.Nanos(p.of(u)), Per: 1, Quantity: n}
		if u == Millisecond {
			line.Per = 1000
		}
		product, err := line.UnitPrice.Times(n)
		if err != nil {
			return 0, nil, fmt.Errorf("price %d of %s: %w", n, u, err)
		}
		line.Amount = product / money.Nanos(line.Per)
		if product%money.Nanos(line.Per) != 0 {
			line.Amount++
		}
		if total, err = total.Add(line.Amount); err != nil {
			return 0, nil, fmt.Errorf("add up the bill: %w", err)
		}
		lines = append(lines, line)
	}
	if counted != len(q) {
		return 0, nil, fmt.Errorf("the quantities %v name a unit that has no price", q)
	}
	return total, lines, nil
}
