package permissions

import (
	"context"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

// query is the question as it stands in the address.
type query struct {
	Agent, Kind, Name, Action, Object, Amount, Environment string
}

func explainPath(p page.Place, q query) string {
	values := url.Values{}
	for name, value := range map[string]string{"agent": q.Agent, "kind": q.Kind, "name": q.Name, "action": q.Action, "object": q.Object, "amount": q.Amount, "environment": q.Environment} {
		if value != "" {
			values.Set(name, value)
		}
	}
	return p.Path("permissions", "explain") + "?" + values.Encode()
}

type namedRule struct {
	Summary, Href string
	Effect        ui.Status
	Decided       bool
}

type answer struct {
	Status   ui.Status
	Question string
	Reason   string
	// Code says what decided when no rule did.
	Code    string
	Applied []namedRule
	Nearest *namedRule
	Missing []policy.Difference
	Denied  []namedRule
	Version int64
	Money   coverage
	// Remedies are what would have allowed it.
	Remedies []remedy
	Whole    ui.Status // what the rules make of all uses of it
	WholeOf  string
}

// remedy is something that would have to change; Href is empty where no page changes it.
type remedy struct {
	Text, Href string
	Until      *time.Time
}

// beyondRules say what decided where the rules allow it.
var beyondRules = map[string]string{
	"agent.network": "Its definition: no rule denies it, but the hosts that it may reach do not have this one, and no rule can add one.",
	"price":         "The rules allow it, but it has no price: nothing can be held for it.",
	"bound":         "The rules allow it, but what it costs at most is not known any more.",
	"hold":          "The rules allow it, but the money for it is not there.",
}

type explainView struct {
	Frame    page.Frame
	Tabs     []ui.Segment
	Action   string
	Q        query
	Agents   []ui.Option
	Kinds    []ui.Option
	Tools    []string
	Models   []string
	Problems ui.Problems
	Answer   *answer
}

// codeWords say what decided when no rule did.
var codeWords = map[string]string{
	policy.ByDefault: "No rule: its definition names it, and no rule allows the agent anything of this kind, which would leave the rest denied.",
	policy.NoRule:    "No rule allows it, and others of this kind are allowed by rules: what they leave out is denied.",
	policy.ByModel:   "Its definition: it names another model.",
	policy.ByTools:   "Its definition: it does not name this tool.",
	policy.ByKind:    "There is no such kind of effect.",
	policy.ByDomain:  "Where it goes is no host.",
}

func (h *Handler) explain(c echo.Context) error {
	p := page.PlaceOf(c)
	get := func(name string) string { return strings.TrimSpace(c.QueryParam(name)) }
	v := explainView{
		Tabs: tabs(p, "explain"), Action: p.Path("permissions", "explain"), Tools: h.Tools, Models: h.Models(c.Request().Context()), Kinds: kindOptions[:len(kindOptions)-1],
		Q: query{Agent: get("agent"), Kind: get("kind"), Name: get("name"), Action: get("action"), Object: get("object"), Amount: strings.TrimPrefix(get("amount"), "$"), Environment: get("environment")},
	}
	if v.Q.Kind == "" {
		v.Q.Kind = policy.ToolCall
	}
	status := 200
	err := h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
		known, err := h.names(ctx, tx, p)
		if err != nil {
			return err
		}
		v.Agents = known.offered
		if v.Q.Agent == "" {
			return nil
		}
		aid, err := id.Parse[id.Agent](v.Q.Agent)
		if err != nil {
			return fault.NotFound()
		}
		agent, err := h.Agents.Get(ctx, tx, p.Org, aid)
		if err != nil {
			return err
		}
		if agent.Project != p.Project {
			return fault.NotFound()
		}
		if v.Problems = v.Q.check(); len(v.Problems) > 0 {
			status = 422
			return nil
		}
		v.Answer, err = h.answer(ctx, tx, p, known, agent, v.Q)
		return err
	})
	if err != nil {
		return err
	}
	v.Frame = page.NewFrame(c, "permissions", "Explain", crumbs(p, page.Crumb{Label: "Explain"})...)
	return page.Render(c, status, Explain(v))
}

func (q query) check() (out ui.Problems) {
	if (q.Kind == policy.ToolCall || q.Kind == policy.ModelCall) && q.Name == "" {
		out = append(out, ui.Problem{Field: "name", Message: "Name the tool or the model."})
	}
	if q.Amount != "" {
		if _, err := page.Dollars(q.Amount); err != nil {
			out = append(out, ui.Problem{Field: "amount", Message: "Write dollars with a point and two decimals, such as 0.50."})
		}
	}
	if strings.Contains(q.Object, "://") {
		if _, err := egress.ParseURL(q.Object); err != nil {
			out = append(out, ui.Problem{Field: "object", Message: "The gate would refuse this address before any rule: " + err.Error()})
		}
	}
	return out
}

func (h *Handler) answer(ctx context.Context, tx pgx.Tx, p page.Place, known names, a agents.Agent, q query) (*answer, error) {
	ask := scheduler.ExplainInput{Agent: a, Kind: q.Kind, Name: q.Name, Action: q.Action, Object: q.Object, Environment: q.Environment}
	if amount, err := page.Dollars(q.Amount); err == nil {
		ask.Amount = &amount
	}
	said, err := h.Sessions.Explain(ctx, tx, p.Org, ask)
	if err != nil {
		return nil, err
	}
	set, err := h.Policies.Cache().Now(ctx, tx, p.Org)
	if err != nil {
		return nil, err
	}
	e := said.Rules
	show := func(n policy.Named) namedRule {
		words := n.Summary()
		if n.Subject != policy.Any {
			words = known.who(n.Subject) + ": " + n.What()
		}
		return namedRule{Summary: words, Href: p.Path("permissions", "rules", string(n.ID)), Effect: ui.Effect(string(n.Effect)), Decided: string(n.ID) == e.Decision.Rule}
	}
	what := policy.Rule{Kind: q.Kind, Name: orAny(q.Name), Action: orAny(q.Action), Object: orAny(q.Object)}
	out := &answer{
		Status: ui.Effect(string(e.Decision.Effect)), Question: a.Name + ", " + what.What(), Reason: said.Reason.Message, Code: codeWords[e.Decision.Rule], Version: e.Version,
		Whole: ui.Verdict(string(set.Outlook(requestOf(a, q.Kind, q.Name)).Verdict)), WholeOf: (policy.Rule{Kind: q.Kind, Name: orAny(q.Name), Action: policy.Any, Object: policy.Any}).What(),
		Money: coverageOf(p, said),
	}
	if said.Outcome == journal.Denied && e.Decision.Allowed() {
		out.Status, out.Code = ui.Verdict(string(policy.Denied)), beyondRules[said.Reason.Rule]
		if said.Money.Shortfall != nil && said.Reason.Rule == "hold" {
			out.Status = ui.Status{Tone: ui.ToneExhausted, Icon: "empty-coin", Word: "Not covered"}
		}
	}
	for _, n := range e.Applied {
		out.Applied = append(out.Applied, show(n))
	}
	for _, r := range said.Remedies {
		one := remedy{Text: known.named(r.Message)}
		if !r.Until.IsZero() {
			one.Until = &r.Until
		}
		switch {
		case r.What == "rule" && r.ID != "":
			one.Href = p.Path("permissions", "rules", r.ID)
		case r.What == "budget" && p.Can(tenants.BudgetsRead):
			one.Href = p.Path("budgets", r.ID)
		case r.What == "definition":
			one.Href = p.Path("agents", string(a.ID))
		case r.What == "balance" && p.Can(tenants.LedgerRead):
			one.Href = p.Path("ledger")
		}
		out.Remedies = append(out.Remedies, one)
	}
	if e.Nearest == nil {
		return out, nil
	}
	near := show(e.Nearest.Named)
	out.Nearest, out.Missing = &near, e.Nearest.Missing
	for _, n := range e.Applied {
		if n.Effect == policy.Deny {
			out.Denied = append(out.Denied, show(n))
		}
	}
	return out, nil
}

// coverage is whether the money is there, for who may see budgets; without that right, only the amount.
type coverage struct {
	Amount, Required money.Nanos
	Ceiling          *money.Nanos
	CeilingCovers    bool
	Shown            bool
	Balance          money.Nanos
	BalanceCovers    bool
	Budgets          []budgetRoom
}

type budgetRoom struct {
	Name, Href         string
	Spent, Held, Limit money.Nanos
	Left               money.Nanos
	ResetsAt           *time.Time
	Covers, Warns      bool
	Nearest            bool
}

func coverageOf(p page.Place, a gate.Answer) coverage {
	m := a.Money
	c := coverage{
		Amount: a.Amount, Required: m.Required, Ceiling: m.Ceiling, CeilingCovers: m.Ceiling == nil || *m.Ceiling >= a.Amount, Shown: p.Can(tenants.BudgetsRead),
		Balance: m.Available, BalanceCovers: m.Available >= m.Required,
	}
	for _, b := range m.Budgets {
		r := budgetRoom{
			Name: b.Name, Href: p.Path("budgets", string(b.ID)), Spent: b.Spent, Held: b.Held, Limit: b.Limit, Left: b.Available(), Warns: b.Action == billing.Warn,
			Covers: b.Limit-b.Spent-b.Held >= m.Required, Nearest: m.Nearest != nil && m.Nearest.ID == b.ID,
		}
		if !b.ResetsAt.IsZero() {
			r.ResetsAt = &b.ResetsAt
		}
		c.Budgets = append(c.Budgets, r)
	}
	slices.SortStableFunc(c.Budgets, func(x, y budgetRoom) int { // the nearest first
		switch {
		case x.Nearest == y.Nearest:
			return 0
		case x.Nearest:
			return -1
		}
		return 1
	})
	return c
}

func orAny(s string) string {
	if s == "" {
		return policy.Any
	}
	return s
}
