package policy

import (
	"fmt"
	"slices"
	"strings"

	"ambit.dev/ambit/journal"
)

// Reason says what decided, in words that the agent reads and can act on.
func (d Decision) Reason() journal.Reason {
	r := &d.request
	switch d.Rule {
	case ByModel:
		return journal.Reason{Rule: ByModel, Message: fmt.Sprintf("This agent may call the model %s, not %s.", r.Model, r.Name)}
	case ByTools:
		if r.Kind == Sandbox {
			return journal.Reason{Rule: ByTools, Message: "This agent has no tools, and so no use for a sandbox."}
		}
		return journal.Reason{Rule: ByTools, Message: fmt.Sprintf("The tool %s is not among this agent's tools.", r.Name)}
	case ByKind:
		return journal.Reason{Rule: ByKind, Message: fmt.Sprintf("%q is no kind of effect that this gate knows.", r.Kind)}
	case ByDomain:
		return journal.Reason{Rule: ByDomain, Message: fmt.Sprintf("%q is no host name, and no IP address in its usual spelling.", truncate(r.Domain, 80))}
	case ByDefault:
		return journal.Reason{Rule: ByDefault, Message: "The agent's definition names it, and no rule says otherwise."}
	case NoRule:
		return journal.Reason{Rule: NoRule, Message: d.nothingAllows()}
	}
	c := d.by
	if c == nil {
		return journal.Reason{Rule: d.Rule, Message: "Not decided."}
	}
	switch d.Effect {
	case Allow:
		return journal.Reason{Rule: d.Rule, Message: "A rule allows " + c.What() + "."}
	case Approve:
		return journal.Reason{Rule: d.Rule, Message: "A rule lets a person decide on " + c.What() + "." + said(c.Description)}
	default:
		return journal.Reason{Rule: d.Rule, Message: "A rule of this organisation denies " + c.What() + "." + said(c.Description) + " Do not try it in another way; do without it, or say that it is needed."}
	}
}

// Asked is what the decision was about, as the journal keeps it beside kind and name, so that it can be simulated under other rules.
func (d Decision) Asked() *journal.Asked {
	r := &d.request
	return &journal.Asked{
		Action: truncate(r.Action, MaxAction), Object: truncate(r.Object, MaxObject), Domain: truncate(r.Domain, 253), Environment: r.Environment, Amount: r.Amount,
		PolicyVersion: d.set.version,
	}
}

func said(description string) string {
	if description == "" {
		return ""
	}
	return " It says: " + strings.TrimRight(description, ". ") + "."
}

// nothingAllows says what would have been allowed: the nearest rule, or else what else there is.
func (d Decision) nothingAllows() string {
	r := &d.request
	message := "No rule allows this agent " + kindInWords(r.Kind, orAny(r.Name)) + "."
	if what := facets(r); what != "" {
		message = "No rule allows this agent " + kindInWords(r.Kind, orAny(r.Name)) + " " + what + "."
	}
	if near := d.set.nearest(r); near != nil && near.sameName {
		return message + " It may use it for " + near.by.What() + "."
	}
	if r.Kind != ToolCall {
		return message
	}
	var others []string
	for _, tool := range r.Tools {
		if d.set.mayUse(r, tool) {
			others = append(others, tool)
		}
	}
	if len(others) == 0 {
		return message + " It may use no tool at all."
	}
	return message + " It may use: " + strings.Join(others, ", ") + "."
}

func orAny(name string) string {
	if name == "" {
		return Any
	}
	return name
}

// facets says how an effect differs from others of its kind and name.
func facets(r *Request) string {
	var parts []string
	if r.Action != "" {
		parts = append(parts, "with the action "+truncate(r.Action, MaxAction))
	}
	if r.Object != "" {
		parts = append(parts, "on "+truncate(r.Object, MaxObject))
	}
	if r.Domain != "" {
		parts = append(parts, "to "+r.Domain)
	}
	return strings.Join(parts, " ")
}

// mayUse reports whether some use of the tool is allowed: whether a rule allows it under whatever conditions, and none denies it under
// all.
func (s *Set) mayUse(r *Request, tool string) bool {
	var room [MaxTags + 3]*bucket
	buckets := room[:s.buckets(r, &room)]
	some := func(l *list, fits func(*compiled) bool) bool {
		named := func(c *compiled) bool { return matches(c.Rule.Name, tool) && fits(c) }
		return slices.ContainsFunc(l.exact[kindName{ToolCall, tool}], fits) || slices.ContainsFunc(l.patterns[ToolCall], named) || slices.ContainsFunc(l.allKinds, named)
	}
	allowed, governed := false, false
	for _, b := range buckets {
		if some(&b.deny, func(c *compiled) bool { return c.Action == Any && c.Object == Any && c.Condition.IsZero() }) {
			return false
		}
		always := func(*compiled) bool { return true }
		allowed = allowed || some(&b.allow, always) || some(&b.approve, always)
		governed = governed || b.governsAll || b.governs[ToolCall]
	}
	return allowed || !governed
}

// MayUse lists those of the agent's tools of which some use is permitted, in their order. It says what could be, and decides nothing.
func (s *Set) MayUse(r Request) []string {
	var out []string
	for _, tool := range r.Tools {
		if s.mayUse(&r, tool) {
			out = append(out, tool)
		}
	}
	return out
}
