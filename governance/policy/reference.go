package policy

import (
	"context"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"strings"
	"time"

	"github.com/casbin/casbin/v2"
	"github.com/casbin/casbin/v2/model"
	"github.com/casbin/casbin/v2/persist"
	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/policy/internal/policydb"
	"ambit.dev/ambit/internal/id"
)

// casbinModel is the policy as Casbin reads it. No line is ever evaluated as an expression: a condition is data for the function holds.
const casbinModel = `
[request_definition]
r = agent, project, kind, name, act, obj, ctx

[policy_definition]
p = id, sub, kind, name, act, obj, cond, eft

[role_definition]
g = _, _

[policy_effect]
e = some(where (p.eft == allow)) && !some(where (p.eft == deny))

[matchers]
m = (p.sub == "*" || p.sub == r.project || g(r.agent, p.sub)) && (p.kind == "*" || p.kind == r.kind) && fits(r.name, p.name) && fits(r.act, p.act) && fits(r.obj, p.obj) && holds(p.cond, r.ctx)
`

// The two lines that every organisation has: what a definition names is allowed to an agent that no rule allows anything of the kind, and
// what it does not name is denied.
const (
	condDefault = "default"
	condUnnamed = "unnamed"
)

// errReadOnly: rules are changed by the Service, which checks them and raises their version.
var errReadOnly = errors.New("rules are not changed through Casbin")

// adapter loads one organisation's lines for Casbin from the transaction of the caller.
type adapter struct {
	ctx context.Context //nolint:containedctx // Casbin's interface has no place for it; an adapter lives for one load
	tx  pgx.Tx
	// approveAs is how lines of the effect approve are loaded: Casbin knows two effects.
	approveAs Effect
	// zone is the organisation's, learnt with the lines.
	zone string
}

// LoadFilteredPolicy loads the lines of the organisation that the filter names.
func (a *adapter) LoadFilteredPolicy(m model.Model, filter any) error {
	org, ok := filter.(id.Org)
	if !ok || org == "" {
		return errors.New("the filter of policies is an organisation")
	}
	rows, err := policydb.New(a.tx).Lines(a.ctx, string(org))
	if err != nil {
		return fmt.Errorf("load the rules of %s: %w", org, err)
	}
	lines := [][]string{
		{"p", "default", "*", "*", "*", "*", "*", condDefault, string(Allow)},
		{"p", "definition", "*", "*", "*", "*", "*", condUnnamed, string(Deny)},
	}
	for _, r := range rows {
		a.zone = r.TimeZone
		switch {
		case r.ID != "":
			effect := r.Effect
			if Effect(effect) == Approve {
				effect = string(a.approveAs)
			}
			lines = append(lines, []string{"p", r.ID, r.Subject, r.Kind, r.Name, r.Action, r.Object, r.Condition, effect})
		case r.Agent != "":
			lines = append(lines, []string{"g", r.Agent, TagPrefix + r.Tag})
		}
	}
	for _, line := range lines {
		if err := persist.LoadPolicyArray(line, m); err != nil {
			return fmt.Errorf("load a line of %s: %w", org, err)
		}
	}
	return nil
}

func (*adapter) IsFiltered() bool { return true }
func (*adapter) LoadPolicy(model.Model) error {
	return errors.New("policies are loaded for one organisation at a time")
}
func (*adapter) SavePolicy(model.Model) error                              { return errReadOnly }
func (*adapter) AddPolicy(string, string, []string) error                  { return errReadOnly }
func (*adapter) RemovePolicy(string, string, []string) error               { return errReadOnly }
func (*adapter) RemoveFilteredPolicy(string, string, int, ...string) error { return errReadOnly }

// Reference is Casbin with one organisation's rules. It is a thousand times slower than a Set, reads the stored lines by itself, and
// shares no code with it that decides. It is not safe for concurrent use.
type Reference struct {
	// permits takes an approval as given; unasked takes it as refused.
	permits, unasked *casbin.Enforcer
	// governs are the pairs of subject and kind for which something is allowed.
	governs map[[2]string]bool
	zone    *time.Location
	regexps map[string]*regexp.Regexp
}

// NewReference loads an organisation's rules within a transaction of that organisation.
func NewReference(ctx context.Context, tx pgx.Tx, org id.Org) (*Reference, error) {
	ref := &Reference{governs: map[[2]string]bool{}, regexps: map[string]*regexp.Regexp{}}
	for _, e := range []struct {
		at        **casbin.Enforcer
		approveAs Effect
	}{{&ref.permits, Allow}, {&ref.unasked, Deny}} {
		m, err := model.NewModelFromString(casbinModel)
		if err != nil {
			return nil, fmt.Errorf("read Casbin's model: %w", err)
		}
		from := &adapter{ctx: ctx, tx: tx, approveAs: e.approveAs}
		enforcer, err := casbin.NewEnforcer(m, from)
		if err != nil {
			return nil, fmt.Errorf("make an enforcer: %w", err)
		}
		enforcer.AddFunction("fits", ref.fits)
		enforcer.AddFunction("holds", ref.holds)
		if err := enforcer.LoadFilteredPolicy(org); err != nil {
			return nil, err
		}
		if ref.zone, err = time.LoadLocation(from.zone); err != nil {
			return nil, fmt.Errorf("load the zone of %s: %w", org, err)
		}
		*e.at = enforcer
	}
	lines, err := ref.unasked.GetPolicy()
	if err != nil {
		return nil, fmt.Errorf("list Casbin's lines: %w", err)
	}
	for _, line := range lines {
		if line[0] != "default" && line[7] == string(Allow) {
			ref.governs[[2]string{line[1], line[2]}] = true
		}
	}
	return ref, nil
}

// Decide asks Casbin.
func (ref *Reference) Decide(r Request) (Effect, error) {
	if !r.canonical() {
		return Deny, nil
	}
	r.At = r.At.In(ref.zone)
	permitted, err := ref.enforce(ref.permits, &r)
	if err != nil || !permitted {
		return Deny, err
	}
	unasked, err := ref.enforce(ref.unasked, &r)
	if err != nil {
		return Deny, err
	}
	if !unasked {
		return Approve, nil
	}
	return Allow, nil
}

func (ref *Reference) enforce(e *casbin.Enforcer, r *Request) (bool, error) {
	ok, err := e.Enforce(string(r.Agent), string(r.Project), r.Kind, r.Name, r.Action, r.Object, r)
	if err != nil {
		return false, fmt.Errorf("ask Casbin: %w", err)
	}
	return ok, nil
}

// governed reports whether some rule allows the agent something of the request's kind.
func (ref *Reference) governed(r *Request) (bool, error) {
	subjects := []string{Any}
	if r.Project != "" {
		subjects = append(subjects, string(r.Project))
	}
	if r.Agent != "" {
		tags, err := ref.unasked.GetRolesForUser(string(r.Agent))
		if err != nil {
			return false, err
		}
		subjects = append(append(subjects, string(r.Agent)), tags...)
	}
	for _, s := range subjects {
		if ref.governs[[2]string{s, Any}] || ref.governs[[2]string{s, r.Kind}] {
			return true, nil
		}
	}
	return false, nil
}

// holds reads a line's condition from its text, each time anew.
func (ref *Reference) holds(args ...any) (any, error) {
	cond, isText := args[0].(string)
	r, isRequest := args[1].(*Request)
	if len(args) != 2 || !isText || !isRequest {
		return false, errors.New("holds takes a condition and a request")
	}
	switch cond {
	case "":
		return true, nil
	case condUnnamed:
		return !definitionNames(r), nil
	case condDefault:
		governed, err := ref.governed(r)
		return !governed && (r.Kind == "model_call" || r.Kind == "tool_call" || r.Kind == "sandbox"), err
	}
	for part := range strings.SplitSeq(cond, ";") {
		ok, err := ref.partHolds(part, r)
		if err != nil || !ok {
			return false, err
		}
	}
	return true, nil
}

func definitionNames(r *Request) bool {
	if r.Kind == "model_call" {
		return r.Model == r.Name
	}
	if r.Kind == "tool_call" || r.Kind == "sandbox" {
		for _, tool := range r.Tools {
			if tool == r.Name || r.Kind == "sandbox" {
				return true
			}
		}
		return false
	}
	return regexp.MustCompile(`^(exec|outbound_request|session|hire|memory_write)$`).MatchString(r.Kind)
}

var partForm = regexp.MustCompile(`^([a-z]+)(<=|>|=)(.+)$`)

func (ref *Reference) partHolds(part string, r *Request) (bool, error) {
	m := partForm.FindStringSubmatch(part)
	if m == nil {
		return false, fmt.Errorf("the condition %q is not understood", part)
	}
	switch m[1] + m[2] {
	case "amount<=", "amount>":
		limit, ok := new(big.Int).SetString(m[3], 10)
		if !ok {
			return false, fmt.Errorf("the amount %q is not understood", m[3])
		}
		above := big.NewInt(int64(r.Amount)).Cmp(limit) > 0
		return above == (m[2] == ">"), nil
	case "hours=":
		var from, to, days int
		if _, err := fmt.Sscanf(m[3], "%d-%d/%d", &from, &to, &days); err != nil {
			return false, fmt.Errorf("read the hours %q: %w", m[3], err)
		}
		return inWindow(from, to, days, r.At), nil
	case "domain=":
		for pattern := range strings.SplitSeq(m[3], ",") {
			if r.Domain != "" && ref.regexp(pattern).MatchString(r.Domain) {
				return true, nil
			}
		}
		return false, nil
	case "environment=":
		return strings.Contains(","+m[3]+",", ","+r.Environment+",") && r.Environment != "", nil
	}
	return false, fmt.Errorf("the condition %q is not known", part)
}

// inWindow steps back to each beginning of the window that could still be open.
func inWindow(from, to, days int, at time.Time) bool {
	length := to - from
	if length <= 0 {
		length += dayMinutes
	}
	for back := range 2 {
		began := int(at.Weekday()) - back
		if began < 0 {
			began += 7
		}
		since := at.Hour()*60 + at.Minute() + back*dayMinutes - from
		if days>>began&1 == 1 && since >= 0 && since < length {
			return true
		}
	}
	return false
}

func (ref *Reference) regexp(pattern string) *regexp.Regexp {
	made := ref.regexps[pattern]
	if made == nil {
		made = regexp.MustCompile("(?s)^" + strings.ReplaceAll(regexp.QuoteMeta(pattern), `\*`, ".*") + "$")
		ref.regexps[pattern] = made
	}
	return made
}

func (ref *Reference) fits(args ...any) (any, error) {
	value, isText := args[0].(string)
	pattern, also := args[1].(string)
	if len(args) != 2 || !isText || !also {
		return false, errors.New("fits takes a text and a pattern")
	}
	return ref.regexp(pattern).MatchString(value), nil
}
