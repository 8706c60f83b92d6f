package mandate_test

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

var (
	tools  = []string{"http_request", "http_*", "exec", "read_file", "write_file", "*_file", "read_*", "*"}
	payees = []string{"ambit", "provider:openai", "provider:*", "host:a.example", "host:*", "provider:anthropic"}
	deeds  = []string{"http_request", "http_get", "exec", "read_file", "read_mail", "write_file"}
)

func some[T any](rng *rand.Rand, odds int, v T) *T {
	if rng.IntN(odds) == 0 {
		return nil
	}
	return &v
}

func subset(rng *rand.Rand, of []string) []string {
	if rng.IntN(3) == 0 {
		return nil
	}
	out := []string{}
	for _, v := range of {
		if rng.IntN(2) == 0 && v != "*_file" {
			out = append(out, v)
		}
	}
	return out
}

func anyGrant(rng *rand.Rand) mandate.Grant {
	g := mandate.Grant{
		Intent: "research", Total: some(rng, 3, money.Nanos(1+rng.Int64N(100))*money.Cent), PerAction: some(rng, 2, money.Nanos(1+rng.Int64N(50))*money.Cent/3+1),
		Tools: subset(rng, tools), Payees: subset(rng, payees), Until: now.Add(time.Duration(1+rng.IntN(2000)) * time.Hour), Depth: rng.IntN(5),
		Sessions: some(rng, 2, 1+rng.Int64N(20)), From: some(rng, 2, now.Add(time.Duration(rng.IntN(40))*time.Minute)),
	}
	if g.Total == nil || rng.IntN(2) == 0 {
		g.Recurring = &mandate.Recurring{Every: mandate.Periods[rng.IntN(3)], Amount: money.Nanos(1+rng.Int64N(60)) * money.Cent}
	}
	return g
}

// narrowed is a grant that was made to be narrower than its parent on most axes.
func narrowed(rng *rand.Rand, p mandate.Grant) mandate.Grant {
	c := anyGrant(rng)
	shrink := func(of, own *money.Nanos) *money.Nanos {
		if of == nil || rng.IntN(40) == 0 {
			return own
		}
		n := max(1, *of-money.Nanos(rng.Int64N(int64(*of))))
		return &n
	}
	c.Total, c.PerAction = shrink(p.Total, c.Total), shrink(p.PerAction, c.PerAction)
	if p.Recurring != nil && rng.IntN(20) != 0 {
		c.Recurring = &mandate.Recurring{Every: mandate.Periods[rng.IntN(3)], Amount: max(1, p.Recurring.Amount/money.Nanos(1+rng.IntN(40)))}
	}
	if p.Tools != nil && rng.IntN(20) != 0 {
		c.Tools = subset(rng, p.Tools)
	}
	if p.Payees != nil && rng.IntN(20) != 0 {
		c.Payees = subset(rng, p.Payees)
	}
	if rng.IntN(20) != 0 {
		c.Depth, c.Until = p.Depth-1, p.Until.Add(-time.Duration(rng.IntN(100))*time.Minute)
	}
	if p.Sessions != nil && rng.IntN(20) != 0 {
		n := 1 + rng.Int64N(*p.Sessions)
		c.Sessions = &n
	}
	if p.From != nil && rng.IntN(20) != 0 {
		from := p.From.Add(time.Duration(rng.IntN(10)) * time.Minute)
		c.From = &from
	}
	return c
}

// account keeps what was spent under one grant, as an independent reckoning of what it allows.
type account struct {
	g     mandate.Grant
	total money.Nanos
	in    map[string]money.Nanos
}

func (a *account) period(at time.Time) string {
	switch a.g.Recurring.Every {
	case "day":
		return at.Format("2006-01-02")
	case "month":
		return at.Format("2006-01")
	}
	year, week := at.ISOWeek()
	return fmt.Sprint(year, "/", week)
}

func (a *account) allows(at time.Time, tool string, amount money.Nanos) bool {
	g := a.g
	if !at.Before(g.Until) || (g.From != nil && at.Before(*g.From)) || (g.PerAction != nil && amount > *g.PerAction) || (g.Total != nil && a.total+amount > *g.Total) {
		return false
	}
	if g.Recurring != nil && a.in[a.period(at)]+amount > g.Recurring.Amount {
		return false
	}
	s := &mandate.Standing{ID: "m", Agent: "a", State: mandate.Active, Grant: g}
	return s.Decide(mandate.Request{Agent: "a", Kind: "tool_call", Name: tool, Amount: amount, At: at}) == nil
}

func (a *account) spend(at time.Time, amount money.Nanos) {
	a.total += amount
	if a.g.Recurring != nil {
		a.in[a.period(at)] += amount
	}
}

// TestNoChildIsWiderThanItsParent makes chains at random, and whatever Narrow lets pass is used up by somebody who spends all that he may: no
// spending that the child allows may be one that the parent would not have allowed.
func TestNoChildIsWiderThanItsParent(t *testing.T) {
	const chains = 100_000
	rng := rand.New(rand.NewPCG(2, 9901)) //nolint:gosec // the same each time
	links, refused, spent := 0, map[string]int{}, 0
	for range chains {
		parent := anyGrant(rng)
		for range 3 {
			child := narrowed(rng, parent)
			err := mandate.Narrow(parent, child)
			if err != nil {
				var w *mandate.Wider
				require.ErrorAs(t, err, &w)
				refused[w.Axis]++
				break
			}
			links++
			require.Less(t, child.Depth, parent.Depth)
			require.False(t, child.Until.After(parent.Until))
			if parent.Sessions != nil {
				require.LessOrEqual(t, *child.Sessions, *parent.Sessions)
			}
			below, above := account{child, 0, map[string]money.Nanos{}}, account{parent, 0, map[string]money.Nanos{}}
			at := now
			for range 40 {
				at = at.Add(time.Duration(rng.IntN(20*60)) * time.Minute)
				amount := money.Nanos(1+rng.Int64N(30)) * money.Cent
				for _, most := range []*money.Nanos{child.PerAction, child.Total} { // as much as one may
					if most != nil && rng.IntN(2) == 0 {
						amount = min(amount, *most)
					}
				}
				if child.Recurring != nil && rng.IntN(2) == 0 {
					if amount = child.Recurring.Amount - below.in[below.period(at)]; amount <= 0 {
						continue
					}
				}
				tool := deeds[rng.IntN(len(deeds))]
				if !below.allows(at, tool, amount) {
					continue
				}
				require.True(t, above.allows(at, tool, amount), "the child %+v spends %s on %s at %s, which its parent %+v does not allow", child, amount, tool, at, parent)
				below.spend(at, amount)
				above.spend(at, amount)
				spent++
			}
			parent = child
		}
	}
	require.Greater(t, links, chains/4)
	require.Greater(t, spent, chains/4)
	for _, axis := range []string{mandate.AxisTotal, mandate.AxisRecurring, mandate.AxisPerAction, mandate.AxisTools, mandate.AxisPayees, mandate.AxisFrom, mandate.AxisUntil, mandate.AxisDepth, mandate.AxisSessions} {
		require.Positive(t, refused[axis], "nothing was refused on %s", axis)
	}
	t.Logf("%d chains, %d links let pass, %d spends under them, refused by axis %v", chains, links, spent, refused)
}

func TestNarrowNamesTheAxis(t *testing.T) {
	dollars := func(n int64) *money.Nanos { v := money.Nanos(n) * money.Dollar; return &v }
	count := func(n int64) *int64 { return &n }
	from := now.Add(time.Hour)
	parent := mandate.Grant{
		Intent: "research", Total: dollars(50), Recurring: &mandate.Recurring{Every: "week", Amount: 14 * money.Dollar}, PerAction: dollars(5), Tools: []string{"http_*", "read_file"},
		Payees: []string{"provider:*"}, From: &from, Until: now.Add(24 * time.Hour), Depth: 2, Sessions: count(3),
	}
	same := mandate.Inherit(parent, mandate.Grant{Depth: -1})
	require.NoError(t, mandate.Narrow(parent, same))
	require.Equal(t, 1, same.Depth)
	earlier := from.Add(-time.Second)
	for axis, change := range map[string]func(*mandate.Grant){
		mandate.AxisTotal:     func(g *mandate.Grant) { g.Total = dollars(51) },
		mandate.AxisRecurring: func(g *mandate.Grant) { g.Recurring = &mandate.Recurring{Every: "day", Amount: 2*money.Dollar + 1} },
		mandate.AxisPerAction: func(g *mandate.Grant) { g.PerAction = nil },
		mandate.AxisTools:     func(g *mandate.Grant) { g.Tools = []string{"read_*"} },
		mandate.AxisPayees:    func(g *mandate.Grant) { g.Payees = []string{"ambit"} },
		mandate.AxisFrom:      func(g *mandate.Grant) { g.From = &earlier },
		mandate.AxisUntil:     func(g *mandate.Grant) { g.Until = g.Until.Add(time.Second) },
		mandate.AxisDepth:     func(g *mandate.Grant) { g.Depth = 2 },
		mandate.AxisSessions:  func(g *mandate.Grant) { g.Sessions = count(4) },
	} {
		wide := same
		change(&wide)
		var w *mandate.Wider
		require.ErrorAs(t, mandate.Narrow(parent, wide), &w, axis)
		require.Equal(t, axis, w.Axis)
		require.NotEqual(t, w.Parent, w.Child, axis)
	}
	day := same
	day.Recurring = &mandate.Recurring{Every: "day", Amount: 2 * money.Dollar}
	require.NoError(t, mandate.Narrow(parent, day), "seven days of two dollars are a week of fourteen")
}

func TestEachOfAChainIsAsked(t *testing.T) {
	five := 5 * money.Dollar
	root := &mandate.Standing{ID: "mnd_root", Agent: "agt_a", State: mandate.Active, Grant: mandate.Grant{Until: now.Add(time.Hour), PerAction: &five, Tools: []string{"http_*"}, Payees: []string{"host:a.example", "ambit"}}, Budgets: []id.Budget{"bud_r"}}
	leaf := &mandate.Standing{ID: "mnd_leaf", Parent: root, Agent: "agt_b", State: mandate.Active, Grant: mandate.Grant{Until: now.Add(time.Minute)}, Budgets: []id.Budget{"bud_l"}}
	good := mandate.Request{Agent: "agt_b", Kind: "tool_call", Name: "http_request", Domain: "a.example", Amount: five, At: now}
	require.Nil(t, leaf.Decide(good))
	require.Equal(t, root, leaf.Of("bud_r"))
	require.Nil(t, leaf.Of("bud_other"))
	for axis, change := range map[string]func(*mandate.Request){
		"agent":               func(r *mandate.Request) { r.Agent = "agt_a" },
		mandate.AxisPerAction: func(r *mandate.Request) { r.Amount++ },
		mandate.AxisTools:     func(r *mandate.Request) { r.Name = "exec" },
		mandate.AxisPayees:    func(r *mandate.Request) { r.Domain = "b.example" },
		mandate.AxisUntil:     func(r *mandate.Request) { r.At = now.Add(time.Minute) },
	} {
		r := good
		change(&r)
		d := leaf.Decide(r)
		require.NotNil(t, d, axis)
		require.Equal(t, axis, d.Axis)
	}
	root.State = mandate.Revoked
	require.Equal(t, "state", leaf.Decide(good).Axis)
	require.Equal(t, id.Mandate("mnd_root"), leaf.Decide(good).Mandate)
}
