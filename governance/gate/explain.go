package gate

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// Question is an effect that is not proposed, only asked about.
type Question struct {
	Org id.Org
	// Session is that which would propose it, as it is now; or one that an invoke would start, with an agent, a project, limits and who would start it.
	Session journal.Session
	// Scopes are what its spending counts against.
	Scopes      []string
	Kind        Kind
	Name        string
	Action      string
	Object      string
	Domain      string
	Environment string
	// Quantity is priced as a proposal's; where there is none, Amount is the most that the effect may cost.
	Quantity []Priced
	Amount   money.Nanos
	// At is when it would happen, for rules with hours. Money is looked at as it is now.
	At time.Time
}

// Answer says what the gate would decide, and why. Nothing of it is kept, held or journalled.
type Answer struct {
	// Outcome is journal.Admitted or journal.Denied, Reason what the agent would read.
	Outcome string
	Reason  journal.Reason
	// Rules is what the organisation's rules say, and which of them.
	Rules policy.Explanation
	// Amount is what would be held.
	Amount money.Nanos
	Money  Coverage
	// Remedies are what would have allowed it; empty when it is admitted, and when nothing can.
	Remedies []Remedy
}

// Coverage says whether the money is there.
type Coverage struct {
	// Required is what has to be held anew: the amount, or the price ceiling with which the work would begin; nothing where a ceiling is held.
	Required  money.Nanos
	Available money.Nanos // the organisation's balance
	// Ceiling is nil where there is no price ceiling; else what is left of it.
	Ceiling *money.Nanos
	// Budgets are all that cover it, in the order in which they are asked; Nearest is the one with the least left of its limit.
	Budgets []billing.Budget
	Nearest *billing.Budget
	// Shortfall is nil when all of them cover it.
	Shortfall *journal.Shortfall
}

// Remedy is something that would have to change.
type Remedy struct {
	// What is rule, definition, kind, domain, price, bound, ceiling, balance or budget; ID names the rule or the budget, where it is one.
	What    string
	ID      string
	Message string
	// Until is when it changes by itself: a budget begins anew. Zero when it does not.
	Until time.Time
}

// Explain says what the gate would decide on an effect, and what would have allowed it, as the transaction sees rules, prices and money. It has no
// side effect: nothing is held, and no decision is journalled. Admit decides on the same grounds, but with the money locked: what it is
// answered here may have changed by then.
func (g *Gate) Explain(ctx context.Context, tx pgx.Tx, q Question) (Answer, error) {
	table, err := g.tableOf(&q.Session)
	if err != nil {
		return Answer{}, err
	}
	out := Answer{Amount: q.Amount}
	var unpriced error
	if len(q.Quantity) > 0 {
		out.Amount, _, err = bound(table, g.clock.Now(), q.Quantity)
		if fault.IsCode(err, "price_unknown") {
			unpriced = err
		} else if err != nil {
			return Answer{}, err
		}
	}
	if out.Rules, err = g.policies.Explain(ctx, tx, q.Org, q.request(out.Amount)); err != nil {
		return Answer{}, err
	}
	if out.Money, err = coverage(ctx, tx, q, out.Amount); err != nil {
		return Answer{}, err
	}
	rules, err := g.policies.Now(ctx, tx, q.Org)
	if err != nil {
		return Answer{}, err
	}
	p := Proposal{Kind: q.Kind, Name: q.Name, Action: q.Action, Object: q.Object, Domain: q.Domain, environment: q.Environment}
	reason, _ := permitted(rules, q.At, &q.Session, p, out.Amount)
	byMandate := reason == nil
	if byMandate {
		reason = mandated(rules, q.At, &q.Session, p, out.Amount)
	}
	breached, err := g.breached(ctx, tx, q)
	if err != nil {
		return Answer{}, err
	}
	out.Outcome = journal.Denied
	switch {
	case reason != nil:
		out.Reason = *reason
	case unpriced != nil:
		out.Reason = journal.Reason{Rule: "price", Message: fault.As(unpriced).Message}
	case breached:
		out.Reason = breachReason(q.Name)
	case out.Money.Shortfall != nil:
		out.Reason = journal.Reason{Rule: "hold", Message: out.Money.Shortfall.Sentence()}
	default:
		out.Outcome, out.Reason = journal.Admitted, out.Rules.Reason
		return out, nil
	}
	if byMandate && reason != nil {
		out.Remedies = append(out.Remedies, Remedy{What: "mandate", ID: reason.Rule, Message: "Run it under a mandate that allows it."})
	}
	out.Remedies = append(out.Remedies, remedies(q, out, unpriced != nil, breached)...)
	return out, nil
}

func (q Question) request(amount money.Nanos) policy.Request {
	return policy.Request{
		Agent: q.Session.Agent.ID, Project: q.Session.Project, Model: q.Session.Agent.Model, Tools: q.Session.Agent.Tools,
		Kind: string(q.Kind), Name: q.Name, Action: q.Action, Object: q.Object, Amount: amount, At: q.At, Domain: q.Domain, Environment: q.Environment,
	}
}

func (g *Gate) breached(ctx context.Context, tx pgx.Tx, q Question) (bool, error) {
	if q.Kind != ModelCall {
		return false, nil
	}
	all, err := BoundBreaches(ctx, tx)
	if err != nil {
		return false, err
	}
	return slices.ContainsFunc(all, func(b BoundBreach) bool { return b.Model == q.Name }), nil
}

func breachReason(model string) journal.Reason {
	return journal.Reason{
		Rule:    "bound",
		Message: fmt.Sprintf("%s once used more than was held for it, so what it may cost at most is not known. It is refused until an operator has mended that (ambit bounds mend).", model),
	}
}

// coverage looks at the ceiling, the balance and the budgets, in the order in which a hold does.
func coverage(ctx context.Context, tx pgx.Tx, q Question, amount money.Nanos) (c Coverage, err error) {
	balances, err := billing.ReadBalances(ctx, tx, q.Org)
	if err != nil {
		return Coverage{}, err
	}
	c.Available, c.Required = balances.Available, amount
	switch {
	case q.Session.CeilingHold != "":
		hold, err := billing.ReadHold(ctx, tx, q.Org, q.Session.CeilingHold)
		if err != nil {
			return Coverage{}, err
		}
		left := hold.Left()
		c.Ceiling, c.Required = &left, 0
	case q.Session.Limits.MaxCost != nil:
		of, err := LeftOfCeiling(ctx, tx, &q.Session)
		if err != nil {
			return Coverage{}, err
		}
		left := max(0, *of)
		c.Ceiling, c.Required = &left, left
	}
	if c.Budgets, err = billing.BudgetsOver(ctx, tx, q.Org, q.Scopes); err != nil {
		return Coverage{}, err
	}
	for i := range c.Budgets {
		if b := &c.Budgets[i]; c.Nearest == nil || b.LessLeft(*c.Nearest) {
			c.Nearest = b
		}
	}
	var short *billing.Short
	switch {
	case c.Ceiling != nil && *c.Ceiling < amount:
		c.Shortfall = &journal.Shortfall{Required: amount, Available: *c.Ceiling, Shortfall: amount - *c.Ceiling, Scope: "session", ID: string(q.Session.ID)}
		return c, nil
	case c.Available < c.Required:
		short = &billing.Short{Required: c.Required, Available: c.Available}
	default:
		for _, b := range c.Budgets {
			if b.Action == billing.Block && b.Limit-b.Spent-b.Held < c.Required && q.Session.CeilingHold == "" {
				short = &billing.Short{Required: c.Required, Available: b.Available(), Budget: b.ID, BudgetName: b.Name}
				break
			}
		}
	}
	if short != nil {
		s := shortfall(q.Org, q.Session.ID, *short)
		if m, ok := strings.CutPrefix(scopeOf(c.Budgets, short.Budget), billing.ScopeMandate+":"); ok {
			s.Scope, s.ID = billing.ScopeMandate, m
		}
		c.Shortfall = &s
	}
	return c, nil
}

func scopeOf(budgets []billing.Budget, budget id.Budget) string {
	for _, b := range budgets {
		if b.ID == budget {
			return b.Scope.String()
		}
	}
	return ""
}

// remedies are all that stands in the way, not only what decided: whoever mends the first would meet the next.
func remedies(q Question, a Answer, unpriced, breached bool) (out []Remedy) {
	add := func(what, of, format string, args ...any) {
		out = append(out, Remedy{What: what, ID: of, Message: fmt.Sprintf(format, args...)})
	}
	switch d := a.Rules.Decision; {
	case q.Kind == Exec:
		add("kind", "", "Nothing can: a person's own commands in a sandbox are not permitted.")
		return out
	case d.Allowed():
	case d.Rule == policy.ByModel:
		add("definition", "", "Make %s the agent's model, in a new version.", q.Name)
	case d.Rule == policy.ByTools:
		add("definition", "", "Add %s to the agent's tools, in a new version.", q.Name)
	case d.Rule == policy.ByKind:
		add("kind", "", "Nothing can: there is no such kind of effect.")
		return out
	case d.Rule == policy.ByDomain:
		add("domain", "", "Name a host in its usual spelling.")
	default:
		for _, n := range a.Rules.Applied {
			if n.Effect != policy.Allow {
				add("rule", string(n.ID), "Change or delete the rule: %s", n.Summary())
			}
		}
		switch near := a.Rules.Nearest; {
		case d.Rule != policy.NoRule:
		case near == nil:
			add("rule", "", "Make a rule that allows it.")
		default:
			for _, m := range near.Missing {
				add("rule", string(near.ID), "Widen the rule “%s”: its %s is %s, and this has %s.", near.Summary(), m.Part, m.Wants, m.Has)
			}
		}
	}
	if reason := reachable(q.Session.Agent, Proposal{Object: q.Object, Domain: q.Domain}); reason != nil {
		add("definition", "", "Add the host %s to network.allowed_hosts of the agent, in a new version.", q.Domain)
	}
	if unpriced {
		add("price", "", "Name a price for %s in the operator's price file.", q.Name)
	}
	if breached {
		add("bound", "", "Mend the model's bound: ambit bounds mend %s.", q.Name)
	}
	m := a.Money
	if m.Ceiling != nil && *m.Ceiling < a.Amount {
		add("ceiling", "", "Raise limits.max_cost by %s.", (a.Amount - *m.Ceiling).Display())
	}
	if m.Available < m.Required {
		add("balance", "", "Add %s of credit.", (m.Required - m.Available).Display())
	}
	for _, b := range m.Budgets {
		room := b.Limit - b.Spent - b.Held
		if b.Action != billing.Block || room >= m.Required || q.Session.CeilingHold != "" {
			continue
		}
		if b.Scope.Type == billing.ScopeMandate {
			add("mandate", b.Scope.ID, "Sign a mandate that allows %s more.", (m.Required - room).Display())
		} else {
			add("budget", string(b.ID), "Raise the budget “%s” by %s.", b.Name, (m.Required - room).Display())
		}
		if !b.ResetsAt.IsZero() {
			last := &out[len(out)-1]
			last.Message, last.Until = strings.TrimSuffix(last.Message, ".")+", or wait until it begins anew.", b.ResetsAt
		}
	}
	return out
}
