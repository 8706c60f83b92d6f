package api

import (
	"encoding/json"
	"time"

	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"
)

// Approval is a question to people about one exact effect.
type Approval struct {
	ID        id.Approval     `json:"id"`
	Type      string          `json:"type" const:"approval"`
	Status    string          `json:"status" enum:"pending,approved,refused,edited,expired,void,used" doc:"expired: nobody answered in time, which is no person's refusal. edited: a person put other arguments in its place, which are asked about anew. void: nobody needs an answer any more, or who decided may not any more. used: it was approved, and is done."`
	Digest    string          `json:"digest" doc:"SHA-256, in hexadecimal, of the action in canonical JSON (RFC 8785): tool, arguments, agent, session, principal, mandate. A decision names it."`
	SessionID id.Session      `json:"session_id"`
	ProjectID id.Project      `json:"project_id"`
	AgentID   *id.Agent       `json:"agent_id"`
	AgentName string          `json:"agent_name"`
	Principal Actor           `json:"principal" doc:"For whom the agent acts."`
	Tool      string          `json:"tool"`
	Arguments json.RawMessage `json:"arguments"`
	Action    *string         `json:"action" doc:"What is done, as rules name it, such as POST."`
	Object    *string         `json:"object" doc:"To what, such as a path or an address."`
	Domain    *string         `json:"domain" doc:"The host that it goes to."`
	Amount    money.Nanos     `json:"amount" doc:"The most that it may cost."`
	Risk      string          `json:"risk"`
	Mandate   *string         `json:"mandate_id"`
	Said      string          `json:"said" doc:"What the agent said with it. It may be untrue."`
	Read      []ApprovalRead  `json:"read" doc:"What the session had read from outside by then."`
	Rules     []ApprovalFired `json:"rules" doc:"The rules that ask, as they then were."`
	Stages    []ApprovalStage `json:"stages" doc:"Passed one after the other."`
	Stage     int             `json:"stage" doc:"The one that is under way, from 0."`
	Escalated bool            `json:"escalated" doc:"Whether the time ran out once, and others are asked as well."`
	AskedBy   []id.User       `json:"asked_by" doc:"The people who asked for it, who may not decide unless the rule lets them."`
	EditedBy  *Actor          `json:"edited_by" doc:"Who wrote these arguments in place of the agent's."`
	ExpiresAt Time            `json:"expires_at" doc:"When silence is a refusal; of an approved one, until when it is good."`
	AskedAt   Time            `json:"asked_at"`
	DecidedAt *Time           `json:"decided_at"`
	DecidedBy *Actor          `json:"decided_by" doc:"null where nobody answered."`
	Reason    string          `json:"reason" doc:"Read by the agent when it was refused."`
	StepID    *id.Step        `json:"step_id" doc:"The step that used it up."`
	Version   int64           `json:"version"`
}

// ApprovalRead is something that a session has read from outside.
type ApprovalRead struct {
	Source  string `json:"source" doc:"network, memory, agent or file."`
	Ref     string `json:"ref"`
	Excerpt string `json:"excerpt" doc:"Its beginning. It is not to be trusted."`
}

// ApprovalFired is a rule that asks.
type ApprovalFired struct {
	ID   string `json:"id" doc:"taint is the platform's own."`
	Name string `json:"name"`
	When string `json:"when"`
}

// ApprovalStage is who must decide, how many of them, and how long they have.
type ApprovalStage struct {
	Roles         []string  `json:"roles" maxitems:"32" maxlen:"40" doc:"Roles, by name, or by id for one that the organisation made."`
	Members       []id.User `json:"members" maxitems:"32"`
	Need          int       `json:"need" doc:"How many people; two accounts of one mailbox are one. 1 when left out."`
	WithinSeconds int64     `json:"within_seconds" required:"true" doc:"60 to 2592000. Silence is a refusal."`
}

func (a Approval) entityTag() string { return quoteTag(a.Version) }

func approvalFrom(a approval.Approval) Approval {
	out := Approval{
		ID: a.ID, Type: "approval", Status: string(a.Status), Digest: a.DigestText(), SessionID: a.Session, ProjectID: a.Project, AgentName: a.Shown.AgentName, Principal: actorOf(a.Shown.By),
		Tool: a.Shown.Tool, Arguments: a.Shown.Arguments, Amount: a.Shown.Amount, Risk: a.Shown.Risk, Said: a.Shown.Said, Read: []ApprovalRead{}, Rules: []ApprovalFired{},
		Stages: stagesFrom(a.Demand.Stages), Stage: a.Stage, Escalated: a.Escalated, AskedBy: append([]id.User{}, a.Askers...), ExpiresAt: Time(a.ExpiresAt), AskedAt: Time(a.AskedAt),
		DecidedAt: timePtr(a.DecidedAt), Reason: a.Reason, Version: a.Version,
	}
	for text, at := range map[**string]string{&out.Action: a.Shown.Does, &out.Object: a.Shown.Object, &out.Domain: a.Shown.Domain, &out.Mandate: a.Shown.Mandate} {
		if at != "" {
			*text = &at
		}
	}
	if a.Agent != "" {
		out.AgentID = &a.Agent
	}
	if a.UsedStep != "" {
		out.StepID = &a.UsedStep
	}
	for actor, at := range map[**Actor]*journal.Actor{&out.DecidedBy: a.DecidedBy, &out.EditedBy: a.Shown.EditedBy} {
		if at != nil {
			shown := actorOf(*at)
			*actor = &shown
		}
	}
	for _, r := range a.Shown.Read {
		out.Read = append(out.Read, ApprovalRead{Source: r.Source, Ref: r.Ref, Excerpt: r.Excerpt})
	}
	for _, r := range a.Demand.Rules {
		out.Rules = append(out.Rules, ApprovalFired{ID: string(r.ID), Name: r.Name, When: r.Words})
	}
	return out
}

func actorOf(a journal.Actor) Actor {
	out := Actor{Type: string(a.Kind), ID: a.ID}
	if a.OnBehalfOf != "" {
		out.OnBehalfOf = &a.OnBehalfOf
	}
	return out
}

func stagesFrom(list []approval.Stage) []ApprovalStage {
	out := make([]ApprovalStage, len(list))
	for i, s := range list {
		out[i] = stageFrom(s)
	}
	return out
}

func stageFrom(s approval.Stage) ApprovalStage {
	out := ApprovalStage{Roles: []string{}, Members: append([]id.User{}, s.Members...), Need: s.Need, WithinSeconds: int64(s.Within / time.Second)}
	for _, r := range s.Roles {
		out.Roles = append(out.Roles, string(r))
	}
	return out
}

func (s ApprovalStage) domain() approval.Stage {
	out := approval.Stage{Members: s.Members, Need: s.Need}
	if s.WithinSeconds >= 0 && s.WithinSeconds <= int64(approval.MaxWithin/time.Second) { // beyond it, the check refuses zero
		out.Within = time.Duration(s.WithinSeconds) * time.Second
	}
	for _, r := range s.Roles {
		out.Roles = append(out.Roles, tenants.Role(r))
	}
	return out
}

// ApprovalRule says which effects people decide on, and how.
type ApprovalRule struct {
	ID   id.ApprovalRule `json:"id"`
	Type string          `json:"type" const:"approval_rule"`
	ApprovalRuleFields
	Summary   string   `json:"summary" doc:"When it applies, in words."`
	Owner     *id.User `json:"owner" doc:"Who hears when the rule asks one person too often."`
	Version   int64    `json:"version"`
	CreatedBy string   `json:"created_by"`
	CreatedAt Time     `json:"created_at"`
	UpdatedAt Time     `json:"updated_at"`
}

// ApprovalRuleFields are what a rule says.
type ApprovalRuleFields struct {
	Name        string               `json:"name" required:"true" minlen:"1" maxlen:"100"`
	Description string               `json:"description" maxlen:"500"`
	Outcome     string               `json:"outcome" enum:"ask,waive" doc:"ask lets people decide; waive lets one other rule not ask about what it selects. A waiver is made in the console, with a confirmation of who makes it."`
	Waives      *string              `json:"waives" maxlen:"40" doc:"The rule that a waiver is about, or taint: the platform's own on content from outside."`
	Subject     string               `json:"subject" required:"true" maxlen:"64" example:"*" doc:"An agent's id, a project's id, tag: and a tag, or * for all agents."`
	Tool        string               `json:"tool" maxlen:"128" example:"http_request" doc:"A pattern, in which * stands for any run of characters. Left out: any."`
	Action      string               `json:"action" maxlen:"64" doc:"A pattern for what is done, such as POST. Left out: any."`
	Object      string               `json:"object" maxlen:"512" doc:"A pattern for what it is done to, such as a path or an address. Left out: any."`
	Condition   *PermissionCondition `json:"condition" doc:"When the rule applies; null: always."`
	SumOver     *money.Nanos         `json:"sum_over" doc:"Only when all that was let through under this rule within the window comes to more, this effect included."`
	SumSeconds  int64                `json:"sum_window_seconds" doc:"The window of sum_over."`
	Risks       []string             `json:"risks" enum:"low,medium,high" maxitems:"3" doc:"The tool's classes of risk. Left out: any."`
	FirstUse    *string              `json:"first_use" maxlen:"10" doc:"host or payee: only what the agent was never let to before."`
	Tainted     bool                 `json:"tainted" doc:"Only in a session that has read what came from outside."`
	Stages      []ApprovalStage      `json:"stages" maxitems:"3"`
	Escalation  *ApprovalStage       `json:"escalation" doc:"Who is asked as well when a stage's time is over; null: nobody."`
	AskerMay    bool                 `json:"asker_may" doc:"Whether people decide on what they asked for themselves."`
	Passkey     bool                 `json:"passkey" doc:"Whether a decision takes a confirmation, in the console: with the passkey, or with the password of who has none."`
	Until       *Time                `json:"until" doc:"When the rule ends by itself."`
}

func (r ApprovalRule) entityTag() string { return quoteTag(r.Version) }
func (r ApprovalRule) location() string  { return "/v1/approval_rules/" + string(r.ID) }

func approvalRuleFrom(r approval.Stored) ApprovalRule {
	out := ApprovalRule{
		ID: r.ID, Type: "approval_rule", Summary: r.Words(), Version: r.Version, CreatedBy: r.CreatedBy, CreatedAt: Time(r.CreatedAt), UpdatedAt: Time(r.UpdatedAt),
		ApprovalRuleFields: ApprovalRuleFields{
			Name: r.Name, Description: r.Description, Outcome: string(r.Outcome), Subject: r.Subject, Tool: r.Tool, Action: r.Action, Object: r.Object, Condition: conditionFrom(r.Condition),
			SumOver: r.SumOver, SumSeconds: int64(r.SumWindow / time.Second), Risks: append([]string{}, r.Risks...), Tainted: r.Tainted, Stages: stagesFrom(r.Stages), AskerMay: r.AskerMay,
			Passkey: r.Passkey, Until: timePtr(r.Until),
		},
	}
	if r.Owner != "" {
		out.Owner = &r.Owner
	}
	if r.Waives != "" {
		out.Waives = &r.Waives
	}
	if r.FirstUse != "" {
		out.FirstUse = &r.FirstUse
	}
	if r.Escalation != nil {
		e := stageFrom(*r.Escalation)
		out.Escalation = &e
	}
	return out
}

func (f ApprovalRuleFields) rule() (approval.Rule, error) {
	condition, err := f.Condition.domain("/condition")
	if err != nil {
		return approval.Rule{}, err
	}
	out := approval.Rule{
		Name: f.Name, Description: f.Description, Outcome: approval.Outcome(f.Outcome), Subject: f.Subject, Tool: f.Tool, Action: f.Action, Object: f.Object, Condition: condition, SumOver: f.SumOver,
		SumWindow: time.Duration(max(0, min(f.SumSeconds, 1<<32))) * time.Second, Risks: f.Risks, Tainted: f.Tainted, AskerMay: f.AskerMay, Passkey: f.Passkey,
	}
	if f.Outcome == "" {
		out.Outcome = approval.Ask
	}
	if f.Waives != nil {
		out.Waives = *f.Waives
	}
	if f.FirstUse != nil {
		out.FirstUse = *f.FirstUse
	}
	for _, s := range f.Stages {
		out.Stages = append(out.Stages, s.domain())
	}
	if f.Escalation != nil {
		e := f.Escalation.domain()
		out.Escalation = &e
	}
	if f.Until != nil {
		at := time.Time(*f.Until)
		out.Until = &at
	}
	return out, nil
}

// ApprovalSettings hold for all approvals of the organisation.
type ApprovalSettings struct {
	Type       string `json:"type" const:"approval_settings"`
	Taint      string `json:"taint" enum:"ask,allow" doc:"Whether a session that has read what came from outside asks before each effect that leaves the organisation."`
	AsksPerDay int    `json:"asks_per_day" doc:"How often one person is asked within 24 hours before they are asked no further, and the rule's owner hears of it."`
	Version    int64  `json:"version"`
}

func (s ApprovalSettings) entityTag() string { return quoteTag(s.Version) }

func settingsFrom(s approval.Settings) ApprovalSettings {
	out := ApprovalSettings{Type: "approval_settings", Taint: "allow", AsksPerDay: s.AsksPerDay, Version: s.Version}
	if s.TaintAsks {
		out.Taint = "ask"
	}
	return out
}
