package policy

import (
	"slices"
	"strings"

	"ambit.dev/ambit/internal/id"
)

// Verdict says in a word what the rules make of all uses of one thing by one agent.
type Verdict string

// The verdicts.
const (
	// Allowed: every use is.
	Allowed Verdict = "allowed"
	// Denied: every use is.
	Denied Verdict = "denied"
	// Asks: each use that is not denied waits for a person.
	Asks Verdict = "asks"
	// Depends: on what is done, to what, at which cost or when.
	Depends Verdict = "depends"
)

// Outlook is what the rules make of all uses of one thing. It says what could be, and decides nothing: a decision looks at one use.
type Outlook struct {
	Verdict Verdict
	// Rule is the id of the rule that settles it, or a code as a Decision has; empty when it depends.
	Rule string
	// About are the rules that bear on it, in the order of their ids: those that deny or ask, and those that allow some of it.
	About []Named
}

// Outlook looks at all uses of what r names. Of the request only agent, project, model, tools, kind, name and domain are looked at; what it
// does, what it costs, when and where is left open. Domain may be "*." and a name, for all hosts below it.
func (s *Set) Outlook(r Request) Outlook {
	if !knownKind(r.Kind) {
		return Outlook{Verdict: Denied, Rule: ByKind}
	}
	if !r.named() {
		if r.Kind == ModelCall {
			return Outlook{Verdict: Denied, Rule: ByModel}
		}
		return Outlook{Verdict: Denied, Rule: ByTools}
	}
	if r.Domain != "" && r.Domain != Any {
		host, err := canonicalDomain(r.Domain)
		if err != nil {
			return Outlook{Verdict: Denied, Rule: ByDomain}
		}
		r.Domain = host
	}
	var out Outlook
	// The first rule of each effect that bears on every use, and whether there is one that bears on some.
	always, some := map[Effect]id.Permission{}, map[Effect]bool{}
	governed := false
	for _, c := range s.rules {
		if !s.selects(c, &r) || (c.Kind != Any && c.Kind != r.Kind) {
			continue
		}
		governed = governed || c.Effect == Allow
		if !matches(c.Rule.Name, r.Name) {
			continue
		}
		bears, whole := c.bearsOn(&r)
		if !bears {
			continue
		}
		out.About = append(out.About, Named{ID: c.id, Rule: c.Rule})
		if !whole {
			some[c.Effect] = true
		} else if _, have := always[c.Effect]; !have {
			always[c.Effect] = c.id
		}
	}
	byDefaultAllowed := !governed && byDefault(r.Kind)
	if rule, ok := always[Deny]; ok {
		out.Verdict, out.Rule = Denied, string(rule)
		return out
	}
	asks, asksAlways := always[Approve]
	allows, allowsAlways := always[Allow]
	switch {
	case asksAlways:
		out.Verdict, out.Rule = Asks, string(asks)
	case (allowsAlways || byDefaultAllowed) && !some[Deny] && !some[Approve]:
		out.Verdict, out.Rule = Allowed, string(allows)
		if !allowsAlways {
			out.Rule = ByDefault
		}
	case allowsAlways || byDefaultAllowed || some[Allow]:
		out.Verdict = Depends
	case some[Approve]:
		out.Verdict = Asks
	default:
		out.Verdict, out.Rule = Denied, NoRule
	}
	return out
}

// bearsOn reports whether the rule can apply to some use of what r names, and whether it applies to every one.
func (c *compiled) bearsOn(r *Request) (some, whole bool) {
	k := c.Condition
	whole = c.Action == Any && c.Object == Any && k.AmountAtMost == nil && k.AmountOver == nil && k.Hours == nil && len(k.Environments) == 0
	if len(k.Domains) == 0 {
		return true, whole
	}
	if r.Domain == "" || r.Domain == Any {
		return true, false
	}
	covered := slices.ContainsFunc(k.Domains, func(d string) bool { return covers(d, r.Domain) })
	return covered || slices.ContainsFunc(k.Domains, func(d string) bool { return covers(r.Domain, d) }), whole && covered
}

// covers reports whether every host that is meant by the narrower pattern is meant by the wider one.
func covers(wider, narrower string) bool {
	if wider == Any || wider == narrower {
		return true
	}
	suffix, ok := strings.CutPrefix(wider, "*")
	return ok && narrower != Any && len(narrower) > len(suffix) && strings.HasSuffix(narrower, suffix)
}

// Use is what a built-in tool does, as far as presets tell tools apart.
type Use string

// The uses.
const (
	UseReads  Use = "reads files"
	UseWrites Use = "writes files"
	UseRuns   Use = "runs commands"
	UseWeb    Use = "requests to the web"
)

// UsesOf says what the tool does; none for one that presets do not know. What runs commands reads and writes files too.
func UsesOf(tool string) []Use {
	switch {
	case slices.Contains(toolsThatRead, tool):
		return []Use{UseReads}
	case slices.Contains(toolsThatWrite, tool):
		return []Use{UseWrites}
	case slices.Contains(toolsThatRun, tool):
		return []Use{UseReads, UseWrites, UseRuns}
	case tool == toolForWeb:
		return []Use{UseWeb}
	}
	return nil
}
