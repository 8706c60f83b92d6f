package policy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// Request is an effect that an agent wants, as far as permissions look at it. What is left empty is not known, and a rule that asks for
// it in a pattern other than "*", or in a condition, does not apply.
type Request struct {
	// Agent is empty for one that was written into the invoke: then only rules about its project and about all agents apply.
	Agent   id.Agent
	Project id.Project
	// Model and Tools are what the agent's definition names.
	Model string
	Tools []string

	// Kind is the effect's kind, Name the model or tool.
	Kind string
	Name string
	// Action and Object are what is done, and to what: the method and the address of a request, "write" and the path of a file. A path
	// must be clean, an address canonical: rules compare text.
	Action string
	Object string
	// Amount is the most that the effect may cost.
	Amount money.Nanos
	// At is the moment. Hours are read by the clock of the organisation's zone, which the Set knows.
	At time.Time
	// Domain is the host that the effect goes to. Whatever CanonicalHost refuses is denied.
	Domain string
	// Environment is the id or name of the environment.
	Environment string

	// What the clock of the organisation's zone shows at At; set once a decision when a rule asks for it.
	minute int
	day    time.Weekday
}

// named reports whether the agent's definition lets it have such an effect at all, whatever the rules.
func (r *Request) named() bool {
	switch r.Kind {
	case ModelCall:
		return r.Name == r.Model
	case ToolCall:
		return slices.Contains(r.Tools, r.Name)
	case Sandbox:
		return len(r.Tools) > 0
	default:
		return true
	}
}

// canonical brings the domain to the spelling that rules are written in, and reports whether it has one.
func (r *Request) canonical() bool {
	if r.Domain == "" || plainName(r.Domain) {
		return true
	}
	host, err := CanonicalHost(r.Domain)
	r.Domain = host
	return err == nil
}

// byDefault reports whether an agent may have this effect for which there is no rule that allows it anything of the kind: what its
// definition names, it may.
func byDefault(kind string) bool { return kind == ModelCall || kind == ToolCall || kind == Sandbox }

// Decision is the answer to a request.
type Decision struct {
	// Effect is Allow, Deny or Approve.
	Effect Effect
	// Rule is the id of the rule that decided. When none did it is one of the codes below.
	Rule string

	set     *Set
	by      *compiled
	request Request
}

// What decided when no rule did.
const (
	// ByDefinition: the agent's definition does not name it.
	ByModel = "agent.model"
	ByTools = "agent.tools"
	// ByDefault: the definition names it, and no rule allows the agent anything of this kind.
	ByDefault = "default"
	// NoRule: rules allow the agent something of this kind, and none allows this.
	NoRule = "no_rule"
	// ByKind: there is no such kind of effect.
	ByKind = "kind"
	// ByDomain: where it goes is no host.
	ByDomain = "domain"
)

// Allowed reports whether the effect may happen without anybody being asked.
func (d Decision) Allowed() bool { return d.Effect == Allow }

// Set is an organisation's rules and tags at a version, ready to decide. It does not change, and is safe for concurrent use.
type Set struct {
	version int64
	// zone is the organisation's; nil when no rule asks for the hour.
	zone   *time.Location
	rules  []*compiled
	tags   map[id.Agent][]string // with TagPrefix
	bySubj map[string]*bucket
	// clock is the organisation's zone, also where no rule asks for the hour; nil where it was not read.
	clock *time.Location
	// extensions are rules of other kinds, by the name of their loader.
	extensions map[string]any
	// mandates bind beside the rules, and are of the same version; required are the subjects that must run under one.
	mandates map[id.Mandate]*mandate.Standing
	required map[string]bool
}

// compiled is a rule with what is worked out once.
type compiled struct {
	id id.Permission
	Rule
}

// bucket has the rules of one subject.
type bucket struct {
	deny, approve, allow list
	// governs are the kinds of which something is allowed.
	governs    map[string]bool
	governsAll bool
}

// list finds rules by kind and name where both are given in full, and goes through the rest of the kind and those about all kinds.
type list struct {
	exact    map[kindName][]*compiled
	patterns map[string][]*compiled // by kind
	allKinds []*compiled
}

type kindName struct{ kind, name string }

// Empty is the set of an organisation that has no rules.
var Empty = compile(0, nil, nil, nil)

// compile makes a set. rules are in the order of their ids, so that the same rules always give the same answers.
func compile(version int64, zone *time.Location, rules []*compiled, tags map[id.Agent][]string) *Set {
	s := &Set{version: version, zone: zone, rules: rules, tags: tags, bySubj: map[string]*bucket{}}
	for _, r := range rules {
		b := s.bySubj[r.Subject]
		if b == nil {
			b = &bucket{governs: map[string]bool{}}
			s.bySubj[r.Subject] = b
		}
		switch r.Effect {
		case Allow:
			b.allow.add(r)
			b.governs[r.Kind] = true
			b.governsAll = b.governsAll || r.Kind == Any
		case Approve:
			b.approve.add(r)
		default: // Deny; and anything that is not known would deny
			b.deny.add(r)
		}
	}
	return s
}

func (l *list) add(r *compiled) {
	if r.Kind == Any {
		l.allKinds = append(l.allKinds, r)
		return
	}
	if strings.Contains(r.Name, Any) {
		if l.patterns == nil {
			l.patterns = map[string][]*compiled{}
		}
		l.patterns[r.Kind] = append(l.patterns[r.Kind], r)
		return
	}
	if l.exact == nil {
		l.exact = map[kindName][]*compiled{}
	}
	key := kindName{r.Kind, r.Name}
	l.exact[key] = append(l.exact[key], r)
}

func (l *list) find(r *Request) *compiled {
	if l.exact != nil {
		for _, c := range l.exact[kindName{r.Kind, r.Name}] {
			if c.applies(r) {
				return c
			}
		}
	}
	for _, c := range l.patterns[r.Kind] {
		if matches(c.Rule.Name, r.Name) && c.applies(r) {
			return c
		}
	}
	for _, c := range l.allKinds {
		if matches(c.Rule.Name, r.Name) && c.applies(r) {
			return c
		}
	}
	return nil
}

// applies looks at all but subject, kind and name.
func (c *compiled) applies(r *Request) bool {
	return matches(c.Action, r.Action) && matches(c.Object, r.Object) && c.Condition.holds(r)
}

func (c *Condition) holds(r *Request) bool {
	if c.AmountAtMost != nil && r.Amount > *c.AmountAtMost {
		return false
	}
	if c.AmountOver != nil && r.Amount <= *c.AmountOver {
		return false
	}
	if c.Hours != nil && !c.Hours.include(r.minute, r.day) {
		return false
	}
	if len(c.Domains) > 0 && !slices.ContainsFunc(c.Domains, func(d string) bool { return inDomain(d, r.Domain) }) {
		return false
	}
	return len(c.Environments) == 0 || slices.Contains(c.Environments, r.Environment)
}

// Version is the version of the rules, 0 for an organisation that never had any.
func (s *Set) Version() int64 { return s.version }

// Len is the number of rules.
func (s *Set) Len() int { return len(s.rules) }

// buckets are the rules of each subject that stands for the agent, the narrowest first. It returns how many of out it used.
func (s *Set) buckets(r *Request, out *[MaxTags + 3]*bucket) int {
	n := 0
	add := func(subject string) {
		if b := s.bySubj[subject]; b != nil && n < len(out) {
			out[n] = b
			n++
		}
	}
	if r.Agent != "" {
		add(string(r.Agent))
		for _, tag := range s.tags[r.Agent] {
			add(tag)
		}
	}
	if r.Project != "" {
		add(string(r.Project))
	}
	add(Any)
	return n
}

// Decide says whether an effect is permitted. In this order: the agent's definition must name it; a rule that denies it decides; then one
// that asks for a person's approval; then one that allows it; then, if no rule allows the agent anything of this kind, what the
// definition names is allowed; and all else is denied.
func (s *Set) Decide(r Request) Decision {
	if !knownKind(r.Kind) {
		return s.decided(Deny, ByKind, nil, r)
	}
	if !r.named() {
		if r.Kind == ModelCall {
			return s.decided(Deny, ByModel, nil, r)
		}
		return s.decided(Deny, ByTools, nil, r)
	}
	if !r.canonical() {
		return s.decided(Deny, ByDomain, nil, r)
	}
	if s.zone != nil {
		r.At = r.At.In(s.zone)
		r.minute, r.day = r.At.Hour()*60+r.At.Minute(), r.At.Weekday()
	}
	var room [MaxTags + 3]*bucket
	buckets := room[:s.buckets(&r, &room)]
	for _, b := range buckets {
		if c := b.deny.find(&r); c != nil {
			return s.decided(Deny, string(c.id), c, r)
		}
	}
	for _, b := range buckets {
		if c := b.approve.find(&r); c != nil {
			return s.decided(Approve, string(c.id), c, r)
		}
	}
	governed := false
	for _, b := range buckets {
		if c := b.allow.find(&r); c != nil {
			return s.decided(Allow, string(c.id), c, r)
		}
		governed = governed || b.governsAll || b.governs[r.Kind]
	}
	if !governed && byDefault(r.Kind) {
		return s.decided(Allow, ByDefault, nil, r)
	}
	return s.decided(Deny, NoRule, nil, r)
}

func (s *Set) decided(e Effect, rule string, by *compiled, r Request) Decision {
	return Decision{Effect: e, Rule: rule, by: by, request: r, set: s}
}

// selects reports whether the rule is about the agent of the request.
func (s *Set) selects(c *compiled, r *Request) bool {
	switch {
	case c.Subject == Any:
		return true
	case strings.HasPrefix(c.Subject, TagPrefix):
		return r.Agent != "" && slices.Contains(s.tags[r.Agent], c.Subject)
	case c.Subject == string(r.Project):
		return r.Project != ""
	default:
		return r.Agent != "" && c.Subject == string(r.Agent)
	}
}

// NewSet compiles rules that are kept nowhere, for tests and simulations. Rules without an id get one from their place. It fails on a
// rule that Check refuses. Hours are read by the clock of zone.
func NewSet(zone *time.Location, rules []Stored, tags map[id.Agent][]string) (*Set, error) {
	lines := make([]*compiled, 0, len(rules))
	for i, r := range rules {
		checked, err := r.Check(fmt.Sprintf("/rules/%d", i))
		if err != nil {
			return nil, err
		}
		if r.ID == "" {
			r.ID = id.Permission(fmt.Sprintf("proposed_%d", i))
		}
		lines = append(lines, &compiled{id: r.ID, Rule: checked})
	}
	return compile(0, zone, lines, prefixed(tags)), nil
}

func prefixed(tags map[id.Agent][]string) map[id.Agent][]string {
	out := make(map[id.Agent][]string, len(tags))
	for agent, list := range tags {
		for _, tag := range list {
			out[agent] = append(out[agent], TagPrefix+tag)
		}
	}
	return out
}
