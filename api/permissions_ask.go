package api

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

type explainIn struct {
	Body struct {
		Agent       id.Agent       `json:"agent" required:"true" doc:"Its newest version is looked at."`
		SessionID   *id.Session    `json:"session_id" doc:"A session of this agent, whose definition, price ceiling and budgets count; without it, those of a session that you would start."`
		Kind        string         `json:"kind" required:"true" maxlen:"32" example:"tool_call"`
		Name        string         `json:"name" maxlen:"128" example:"bash" doc:"The model or the tool."`
		Action      string         `json:"action" maxlen:"64" doc:"What is done with it, such as GET."`
		Object      string         `json:"object" maxlen:"512" doc:"What it is done to. A web address is taken in its one spelling, and its host is the domain."`
		Amount      *money.Nanos   `json:"amount" doc:"The most that it may cost, in place of quantities."`
		Quantities  *askQuantities `json:"quantities" doc:"What it would have at most, to be priced as the gate prices it. Without them and without an amount: a model call with an empty message, or a tool call that names no time limit."`
		At          *time.Time     `json:"at" doc:"When; now, when left out. Hours are read by the clock of the organisation's zone. Money is looked at as it is now."`
		Domain      string         `json:"domain" maxlen:"253" doc:"The host that it goes to."`
		Environment string         `json:"environment" maxlen:"64"`
	} `body:"json"`
}

// askQuantities are an effect's quantities at most.
type askQuantities struct {
	InputTokens   int64 `json:"input_tokens" min:"0" max:"1000000000" doc:"Of a model call, cached ones included."`
	OutputTokens  int64 `json:"output_tokens" min:"0" max:"1000000000"`
	Calls         int64 `json:"calls" min:"0" max:"1000000" doc:"Of a tool; one when left out."`
	SandboxMillis int64 `json:"sandbox_ms" min:"0" max:"604800000" doc:"Of kind sandbox: the time that would be held, in milliseconds; a minute where it is not given."`
}

// Explanation says what the gate would decide, and why. Nothing of it is kept.
type Explanation struct {
	Type          string        `json:"type" const:"permission_explanation"`
	Decision      string        `json:"decision" enum:"admitted,denied" doc:"What the gate would decide: the rules, the definition, the price and the money together."`
	DecidedBy     string        `json:"decided_by" doc:"What decided: a rule's id or a code as in rule; agent.network, price, bound or hold where the rules allow it."`
	Reason        string        `json:"reason" doc:"What the agent reads."`
	Effect        string        `json:"effect" enum:"allow,deny,approve" doc:"What the rules decide."`
	Rule          string        `json:"rule" doc:"The id of the rule that decided, or, when none did: default (the definition names it), no_rule (rules allow something else of the kind), agent.model or agent.tools (the definition does not name it), kind or domain (not understood)."`
	Applied       []AppliedRule `json:"applied" doc:"All rules that apply to it, what decided among them."`
	Nearest       *NearestRule  `json:"nearest" doc:"The rule that would have allowed it with the fewest differences; null when it is allowed, and when no rule is near."`
	PolicyVersion int64         `json:"policy_version" doc:"Grows with each change of the organisation's rules; 0 when there never were any."`
	Money         AskMoney      `json:"money"`
	Remedies      []AskRemedy   `json:"remedies" doc:"What would have allowed it, all of it together; empty when it is admitted."`
}

// AskMoney says whether the money is there.
type AskMoney struct {
	Amount    money.Nanos  `json:"amount" doc:"What would be held for the effect: the most that it may cost."`
	Required  money.Nanos  `json:"required" doc:"What has to be had from balance and budgets: the amount; the whole price ceiling where the work begins with one; nothing where one is held already."`
	Covered   bool         `json:"covered"`
	Available *money.Nanos `json:"available" doc:"The organisation's balance; null, and no budgets, without the permission budgets:read."`
	Ceiling   *money.Nanos `json:"ceiling" doc:"What is left of the price ceiling; null without one."`
	Budgets   []AskBudget  `json:"budgets" doc:"All that cover it."`
	Nearest   *AskBudget   `json:"nearest_budget" doc:"The one with the least left as a share of its limit; null when none covers it."`
	Limiting  []AskLimit   `json:"limiting" doc:"What is short, first; empty when it is covered."`
}

// AskBudget is a budget that covers an effect.
type AskBudget struct {
	ID         id.Budget   `json:"id"`
	Name       string      `json:"name"`
	Scope      BudgetScope `json:"scope"`
	Period     string      `json:"period" enum:"total,hour,day,week,month"`
	Action     string      `json:"action" enum:"block,warn"`
	Limit      money.Nanos `json:"limit"`
	Available  money.Nanos `json:"available"`
	LeftPermil int         `json:"left_permil" doc:"What is left, in thousandths of the limit."`
	Covers     bool        `json:"covers" doc:"Whether it has room for what is required; a warn budget never refuses."`
	ResetsAt   *Time       `json:"resets_at" doc:"When it begins anew; null for total."`
}

// AskLimit is something that has too little.
type AskLimit struct {
	Scope     string      `json:"scope" enum:"organization,session,budget"`
	ID        string      `json:"id"`
	Available money.Nanos `json:"available"`
	Shortfall money.Nanos `json:"shortfall"`
}

// AskRemedy is something that would have to change.
type AskRemedy struct {
	What    string `json:"what" enum:"rule,definition,kind,domain,price,bound,ceiling,balance,budget"`
	ID      string `json:"id" doc:"The rule or the budget, where it is one."`
	Message string `json:"message"`
	Until   *Time  `json:"until" doc:"When it changes by itself: a budget begins anew; null when it does not."`
}

// AppliedRule is a rule in short.
type AppliedRule struct {
	ID      id.Permission `json:"id"`
	Effect  string        `json:"effect" enum:"allow,deny,approve"`
	Summary string        `json:"summary"`
}

// NearestRule is a rule that comes close.
type NearestRule struct {
	AppliedRule
	Missing  []RuleDifference `json:"missing" doc:"What does not fit; empty when only denied_by is in the way."`
	DeniedBy []id.Permission  `json:"denied_by" doc:"The rules that deny it whatever allows it."`
}

// RuleDifference is a part of a rule that a request does not meet.
type RuleDifference struct {
	Part  string `json:"part" enum:"name,action,object,amount,hours,domain,environment"`
	Wants string `json:"wants"`
	Has   string `json:"has"`
}

func (a *API) explainPermission(ctx context.Context, tx pgx.Tx, in explainIn) (Explanation, error) {
	agent, err := a.seenAgent(ctx, tx, in.Body.Agent)
	if err != nil {
		return Explanation{}, err
	}
	b, who := in.Body, principal.From(ctx)
	ask := scheduler.ExplainInput{Agent: agent, Kind: b.Kind, Name: b.Name, Action: b.Action, Object: b.Object, Domain: b.Domain, Environment: b.Environment, Amount: b.Amount, At: b.At}
	if q := b.Quantities; q != nil {
		ask.Used = scheduler.EffectQuantities{Calls: q.Calls, Tokens: journal.Usage{InputTokens: q.InputTokens, OutputTokens: q.OutputTokens, SandboxMillis: q.SandboxMillis}}
	}
	if b.SessionID != nil {
		session, err := journal.Get(ctx, tx, who.Org, *b.SessionID)
		if err != nil {
			return Explanation{}, err
		}
		if session.Agent.ID != agent.ID {
			return Explanation{}, fault.NotFound()
		}
		ask.Session = &session
	}
	e, err := a.cfg.Domains.Sessions.Explain(ctx, tx, who.Org, ask)
	if err != nil {
		return Explanation{}, err
	}
	out := Explanation{
		Type: "permission_explanation", Decision: e.Outcome, DecidedBy: e.Reason.Rule, Reason: e.Reason.Message, Effect: string(e.Rules.Decision.Effect), Rule: e.Rules.Decision.Rule,
		Applied: []AppliedRule{}, PolicyVersion: e.Rules.Version, Money: askMoneyFrom(e, tenants.Allowed(who, tenants.BudgetsRead)), Remedies: []AskRemedy{},
	}
	for _, n := range e.Rules.Applied {
		out.Applied = append(out.Applied, appliedFrom(n))
	}
	if near := e.Rules.Nearest; near != nil {
		out.Nearest = &NearestRule{AppliedRule: appliedFrom(near.Named), Missing: []RuleDifference{}, DeniedBy: append([]id.Permission{}, near.DeniedBy...)}
		for _, d := range near.Missing {
			out.Nearest.Missing = append(out.Nearest.Missing, RuleDifference(d))
		}
	}
	for _, r := range e.Remedies {
		one := AskRemedy{What: r.What, ID: r.ID, Message: r.Message}
		if !r.Until.IsZero() {
			at := Time(r.Until)
			one.Until = &at
		}
		out.Remedies = append(out.Remedies, one)
	}
	return out, nil
}

// askMoneyFrom shows balance and budgets to who may read them. What is short is shown in any case: a refusal would name it.
func askMoneyFrom(e gate.Answer, whole bool) AskMoney {
	m := AskMoney{Amount: e.Amount, Required: e.Money.Required, Covered: e.Money.Shortfall == nil, Ceiling: e.Money.Ceiling, Budgets: []AskBudget{}, Limiting: []AskLimit{}}
	if s := e.Money.Shortfall; s != nil {
		m.Limiting = append(m.Limiting, AskLimit{Scope: s.Scope, ID: s.ID, Available: s.Available, Shortfall: s.Shortfall})
	}
	if !whole {
		return m
	}
	m.Available = &e.Money.Available
	for _, b := range e.Money.Budgets {
		one := AskBudget{
			ID: b.ID, Name: b.Name, Scope: BudgetScope(b.Scope), Period: b.Period, Action: b.Action, Limit: b.Limit, Available: b.Available(), LeftPermil: b.Left(),
			Covers: b.Action != billing.Block || b.Limit-b.Spent-b.Held >= e.Money.Required,
		}
		if !b.ResetsAt.IsZero() {
			at := Time(b.ResetsAt)
			one.ResetsAt = &at
		}
		m.Budgets = append(m.Budgets, one)
		if n := e.Money.Nearest; n != nil && n.ID == b.ID {
			m.Nearest = &one
		}
	}
	return m
}

func appliedFrom(n policy.Named) AppliedRule {
	return AppliedRule{ID: n.ID, Effect: string(n.Effect), Summary: n.Summary()}
}

type simulateIn struct {
	Paging
	Body struct {
		Rules   []RuleInput     `json:"rules" maxitems:"200" doc:"Rules that would be added."`
		Without []id.Permission `json:"without" maxitems:"2000" doc:"Rules that would be deleted."`
		Replace bool            `json:"replace" doc:"Leave out all rules that there are."`
		Days    int             `json:"days" min:"1" max:"90" default:"7" doc:"How many days back; 7 when left out."`
	} `body:"json"`
}

// Simulation is a page of decisions that would have been others.
type Simulation struct {
	Type     string           `json:"type" const:"permission_simulation"`
	Data     []DecisionChange `json:"data"`
	NextPage *string          `json:"next_page"`
	Examined int              `json:"examined" doc:"How many decisions this page looked at."`
	Since    Time             `json:"since"`
}

// DecisionChange is a decision of the past that would have been another.
type DecisionChange struct {
	EventID   id.Event   `json:"event_id"`
	SessionID id.Session `json:"session_id"`
	Seq       int64      `json:"seq"`
	AgentID   *id.Agent  `json:"agent_id" doc:"null for an agent that was written into the invoke."`
	CreatedAt Time       `json:"created_at"`
	Kind      string     `json:"kind"`
	Name      string     `json:"name"`
	Was       string     `json:"was" enum:"allow,deny,approve" doc:"What permissions said. What was refused for want of money counts as allowed."`
	Would     string     `json:"would" enum:"allow,deny,approve"`
	Rule      string     `json:"rule" doc:"The rule that would have decided: its id, proposed_ and its place in rules, or a code as in an explanation."`
	Reason    string     `json:"reason"`
	Certain   bool       `json:"certain" doc:"false when a rule looks at something that was not written down with the decision."`
}

func (a *API) simulatePermissions(ctx context.Context, tx pgx.Tx, in simulateIn) (Simulation, error) {
	if err := wholeOrganization(ctx); err != nil {
		return Simulation{}, err
	}
	before, err := positionID[id.Event](in.place)
	if err != nil {
		return Simulation{}, err
	}
	ask := policy.Simulate{Days: in.Body.Days, Before: before, Limit: in.place.limit, Proposal: policy.Proposal{Without: in.Body.Without, Replace: in.Body.Replace}}
	if ask.Days == 0 {
		ask.Days = 7
	}
	for i, r := range in.Body.Rules {
		rule, err := r.rule(fmt.Sprintf("/rules/%d", i))
		if err != nil {
			return Simulation{}, err
		}
		ask.Proposal.Rules = append(ask.Proposal.Rules, rule)
	}
	s, err := a.cfg.Domains.Policies.Simulate(ctx, tx, principal.From(ctx).Org, ask)
	if err != nil {
		return Simulation{}, err
	}
	out := Simulation{Type: "permission_simulation", Data: []DecisionChange{}, Examined: s.Examined, Since: Time(s.Since)}
	for _, c := range s.Changes {
		d := DecisionChange{
			EventID: c.Event, SessionID: c.Session, Seq: c.Seq, CreatedAt: Time(c.At), Kind: c.Kind, Name: c.Name,
			Was: string(c.Was), Would: string(c.Would), Rule: c.Reason.Rule, Reason: c.Reason.Message, Certain: c.Certain,
		}
		if c.Agent != "" {
			d.AgentID = &c.Agent
		}
		out.Data = append(out.Data, d)
	}
	if s.Next != "" {
		out.NextPage = in.place.token(string(s.Next))
	}
	return out, nil
}
