package api

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
)

type explainIn struct {
	Body struct {
		Agent       id.Agent     `json:"agent" required:"true" doc:"Its newest version is looked at."`
		Kind        string       `json:"kind" required:"true" maxlen:"32" example:"tool_call"`
		Name        string       `json:"name" maxlen:"128" example:"bash" doc:"The model or the tool."`
		Action      string       `json:"action" maxlen:"64" doc:"What is done with it, such as GET."`
		Object      string       `json:"object" maxlen:"512" doc:"What it is done to."`
		Amount      *money.Nanos `json:"amount" doc:"The most that it may cost; none when left out."`
		At          *time.Time   `json:"at" doc:"When; now, when left out. Hours are read by the clock of the organisation's zone."`
		Domain      string       `json:"domain" maxlen:"253" doc:"The host that it goes to."`
		Environment string       `json:"environment" maxlen:"64"`
	} `body:"json"`
}

// Explanation says what the rules decide, and why.
type Explanation struct {
	Type          string        `json:"type" const:"permission_explanation"`
	Effect        string        `json:"effect" enum:"allow,deny,approve"`
	Rule          string        `json:"rule" doc:"The id of the rule that decided, or, when none did: default (the definition names it), no_rule (rules allow something else of the kind), agent.model or agent.tools (the definition does not name it), kind or domain (not understood)."`
	Reason        string        `json:"reason" doc:"What the agent reads."`
	Applied       []AppliedRule `json:"applied" doc:"All rules that apply to it, what decided among them."`
	Nearest       *NearestRule  `json:"nearest" doc:"The rule that would have allowed it with the fewest differences; null when it is allowed, and when no rule is near."`
	PolicyVersion int64         `json:"policy_version" doc:"Grows with each change of the organisation's rules; 0 when there never were any."`
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
	b := in.Body
	r := policy.Request{
		Agent: agent.ID, Project: agent.Project, Model: agent.Definition.Model, Tools: agent.Definition.Tools,
		Kind: b.Kind, Name: b.Name, Action: b.Action, Object: b.Object, Domain: b.Domain, Environment: b.Environment, At: a.cfg.Clock.Now().UTC(),
	}
	if b.Amount != nil {
		r.Amount = *b.Amount
	}
	if b.At != nil {
		r.At = *b.At
	}
	e, err := a.cfg.Domains.Policies.Explain(ctx, tx, principal.From(ctx).Org, r)
	if err != nil {
		return Explanation{}, err
	}
	out := Explanation{
		Type: "permission_explanation", Effect: string(e.Decision.Effect), Rule: e.Decision.Rule, Reason: e.Reason.Message, Applied: []AppliedRule{}, PolicyVersion: e.Version,
	}
	for _, n := range e.Applied {
		out.Applied = append(out.Applied, appliedFrom(n))
	}
	if e.Nearest != nil {
		out.Nearest = &NearestRule{AppliedRule: appliedFrom(e.Nearest.Named), Missing: []RuleDifference{}, DeniedBy: append([]id.Permission{}, e.Nearest.DeniedBy...)}
		for _, d := range e.Nearest.Missing {
			out.Nearest.Missing = append(out.Nearest.Missing, RuleDifference(d))
		}
	}
	return out, nil
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
