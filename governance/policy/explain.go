package policy

import (
	"fmt"
	"strings"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

// Explanation is a decision with its grounds.
type Explanation struct {
	Decision Decision
	Reason   journal.Reason
	// Applied are all rules that apply to the request, what decided among them, in the order of their ids.
	Applied []Named
	// Nearest is the rule that would have allowed it with the fewest differences; nil when the effect is allowed, and when no rule is
	// about this agent and this kind.
	Nearest *Nearest
	// Version is that of the rules.
	Version int64
}

// Named is a rule with its id.
type Named struct {
	ID id.Permission
	Rule
}

// Nearest is a rule that comes close, and why it does not apply.
type Nearest struct {
	Named
	// Missing says of each part that does not fit what the rule wants and what the request has.
	Missing []Difference
	// DeniedBy are the rules that deny the effect, and would do so even if this one allowed it.
	DeniedBy []id.Permission

	sameName bool
	by       *compiled
}

// Difference is a part of a rule that a request does not meet.
type Difference struct {
	// Part is name, action, object, amount, hours, domain or environment.
	Part  string
	Wants string
	Has   string
}

// Explain decides and says why, and what would have been allowed.
func (s *Set) Explain(r Request) Explanation {
	d := s.Decide(r)
	r = d.request // as it was understood: in the zone, the domain canonical
	out := Explanation{Decision: d, Reason: d.Reason(), Version: s.version}
	var denied []id.Permission
	for _, c := range s.rules {
		if s.selects(c, &r) && len(c.differences(&r)) == 0 && (c.Kind == Any || c.Kind == r.Kind) {
			out.Applied = append(out.Applied, Named{ID: c.id, Rule: c.Rule})
			if c.Effect == Deny {
				denied = append(denied, c.id)
			}
		}
	}
	if d.Effect == Deny {
		if out.Nearest = s.nearest(&r); out.Nearest != nil {
			out.Nearest.DeniedBy = denied
		}
	}
	return out
}

// nearest goes through the rules that allow this agent something of this kind. Of those with as few differences, one about the same name
// comes first, then the oldest.
func (s *Set) nearest(r *Request) *Nearest {
	var best *Nearest
	for _, c := range s.rules {
		if c.Effect == Deny || (c.Kind != Any && c.Kind != r.Kind) || !s.selects(c, r) {
			continue
		}
		n := &Nearest{Named: Named{ID: c.id, Rule: c.Rule}, Missing: c.differences(r), sameName: matches(c.Rule.Name, r.Name), by: c}
		if best == nil || len(n.Missing) < len(best.Missing) || (len(n.Missing) == len(best.Missing) && n.sameName && !best.sameName) {
			best = n
		}
	}
	return best
}

func (c *compiled) differences(r *Request) (out []Difference) {
	differ := func(part, wants, has string) {
		if has == "" {
			has = "none"
		}
		out = append(out, Difference{Part: part, Wants: wants, Has: has})
	}
	for _, p := range [...]struct{ part, pattern, has string }{{"name", c.Rule.Name, r.Name}, {"action", c.Action, r.Action}, {"object", c.Object, r.Object}} {
		if !matches(p.pattern, p.has) {
			differ(p.part, p.pattern, p.has)
		}
	}
	k := c.Condition
	if k.AmountAtMost != nil && r.Amount > *k.AmountAtMost {
		differ("amount", "at most "+k.AmountAtMost.Display(), r.Amount.Display())
	}
	if k.AmountOver != nil && r.Amount <= *k.AmountOver {
		differ("amount", "above "+k.AmountOver.Display(), r.Amount.Display())
	}
	if k.Hours != nil && !k.Hours.include(r.minute, r.day) {
		differ("hours", (&Condition{Hours: k.Hours}).Words(), fmt.Sprintf("%s %02d:%02d", r.At.Weekday(), r.At.Hour(), r.At.Minute()))
	}
	if only := (Condition{Domains: k.Domains}); !only.holds(r) {
		differ("domain", strings.Join(k.Domains, ", "), r.Domain)
	}
	if only := (Condition{Environments: k.Environments}); !only.holds(r) {
		differ("environment", strings.Join(k.Environments, ", "), r.Environment)
	}
	return out
}
