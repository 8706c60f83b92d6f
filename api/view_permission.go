package api

import (
	"fmt"
	"slices"
	"time"

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// RuleInput is a rule as a client writes it.
type RuleInput struct {
	Subject     string               `json:"subject" required:"true" maxlen:"64" example:"*" doc:"An agent's id, a project's id (all its agents), tag: and a tag (all agents that have it), or * for all agents."`
	Effect      string               `json:"effect" required:"true" maxlen:"16" example:"deny" doc:"allow or deny."`
	Kind        string               `json:"kind" required:"true" maxlen:"32" example:"tool_call" doc:"model_call, tool_call, exec, sandbox, outbound_request, session, hire, memory_write, or * for all."`
	Name        string               `json:"name" maxlen:"128" example:"bash" doc:"A pattern for the model or the tool, in which * stands for any run of characters. One without * must be known here. Left out: any."`
	Action      string               `json:"action" maxlen:"64" doc:"A pattern for what is done with it, such as GET. Left out: any."`
	Object      string               `json:"object" maxlen:"512" doc:"A pattern for what it is done to, such as a path or an address. Left out: any."`
	Condition   *PermissionCondition `json:"condition" doc:"When the rule applies; null: always."`
	Description string               `json:"description" maxlen:"500" doc:"Why. The agent reads it when the rule denies something."`
}

// PermissionCondition holds when everything that it names does.
type PermissionCondition struct {
	AmountAtMost *money.Nanos `json:"amount_at_most" doc:"The most that it may cost is not above this."`
	AmountOver   *money.Nanos `json:"amount_over" doc:"The most that it may cost is above this."`
	Hours        *HourWindow  `json:"hours" doc:"By the clock of the organisation's zone."`
	Domains      []string     `json:"domains" maxitems:"64" maxlen:"255" doc:"It goes to one of these hosts; *.example.com is every name below example.com, * any host."`
	Environments []string     `json:"environments" maxitems:"64" maxlen:"64" doc:"It happens in one of these environments."`
}

// HourWindow is a time of day on days of the week. One that ends at or before its beginning goes on into the next day.
type HourWindow struct {
	From string   `json:"from" required:"true" pattern:"^([01][0-9]|2[0-3]):[0-5][0-9]$" example:"09:00"`
	To   string   `json:"to" required:"true" pattern:"^(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$" example:"18:00" doc:"Not included. 24:00 is the end of the day."`
	Days []string `json:"days" enum:"monday,tuesday,wednesday,thursday,friday,saturday,sunday" maxitems:"7" doc:"Left out: every day."`
}

// Permission is a rule.
type Permission struct {
	ID          id.Permission        `json:"id"`
	Type        string               `json:"type" const:"permission"`
	Subject     string               `json:"subject"`
	Effect      string               `json:"effect" enum:"allow,deny,approve"`
	Kind        string               `json:"kind"`
	Name        string               `json:"name"`
	Action      string               `json:"action"`
	Object      string               `json:"object"`
	Condition   *PermissionCondition `json:"condition"`
	Description string               `json:"description"`
	Summary     string               `json:"summary" doc:"The rule in words."`
	Preset      *string              `json:"preset" doc:"The preset that it was copied from."`
	Version     int64                `json:"version"`
	CreatedBy   string               `json:"created_by"`
	CreatedAt   Time                 `json:"created_at"`
	UpdatedAt   Time                 `json:"updated_at"`
}

func (p Permission) entityTag() string { return quoteTag(p.Version) }
func (p Permission) location() string  { return "/v1/permissions/" + string(p.ID) }

func permissionFrom(r policy.Stored) Permission {
	out := Permission{
		ID: r.ID, Type: "permission", Subject: r.Subject, Effect: string(r.Effect), Kind: r.Kind, Name: r.Name, Action: r.Action, Object: r.Object,
		Condition: conditionFrom(r.Condition), Description: r.Description, Summary: r.Summary(), Version: r.Version, CreatedBy: r.CreatedBy,
		CreatedAt: Time(r.CreatedAt), UpdatedAt: Time(r.UpdatedAt),
	}
	if r.Preset != "" {
		out.Preset = &r.Preset
	}
	return out
}

// offered refuses an effect that rules can have and this API does not offer yet.
func offered(effect string, given bool) error {
	if !given || effect == string(policy.Allow) || effect == string(policy.Deny) {
		return nil
	}
	return fault.InvalidField("/effect", "invalid_value", "effect must be allow or deny.")
}

func (r RuleInput) rule(at string) (policy.Rule, error) {
	if err := offered(r.Effect, true); err != nil {
		return policy.Rule{}, fault.InvalidField(at+"/effect", "invalid_value", "effect must be allow or deny.")
	}
	condition, err := r.Condition.domain(at + "/condition")
	if err != nil {
		return policy.Rule{}, err
	}
	return policy.Rule{
		Subject: r.Subject, Effect: policy.Effect(r.Effect), Kind: r.Kind, Name: r.Name, Action: r.Action, Object: r.Object, Condition: condition, Description: r.Description,
	}, nil
}

var weekdays = []string{"monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"}

func (c *PermissionCondition) domain(at string) (out policy.Condition, err error) {
	if c == nil {
		return out, nil
	}
	out = policy.Condition{AmountAtMost: c.AmountAtMost, AmountOver: c.AmountOver, Domains: c.Domains, Environments: c.Environments}
	if c.Hours != nil {
		h := policy.Hours{}
		if h.From, err = minutes(c.Hours.From, at+"/hours/from"); err != nil {
			return out, err
		}
		if h.To, err = minutes(c.Hours.To, at+"/hours/to"); err != nil {
			return out, err
		}
		for _, day := range c.Hours.Days {
			h.Days |= 1 << ((slices.Index(weekdays, day) + 1) % 7) // the schema let no other word through
		}
		out.Hours = &h
	}
	return out, nil
}

func minutes(clock, at string) (int, error) {
	if clock == "24:00" {
		return 24 * 60, nil
	}
	t, err := time.Parse("15:04", clock)
	if err != nil {
		return 0, fault.InvalidField(at, "invalid_value", "A time of day is written as 09:00.")
	}
	return t.Hour()*60 + t.Minute(), nil
}

func conditionFrom(c policy.Condition) *PermissionCondition {
	if c.IsZero() {
		return nil
	}
	out := &PermissionCondition{
		AmountAtMost: c.AmountAtMost, AmountOver: c.AmountOver, Domains: append([]string{}, c.Domains...), Environments: append([]string{}, c.Environments...),
	}
	if h := c.Hours; h != nil {
		out.Hours = &HourWindow{From: clockText(h.From), To: clockText(h.To), Days: []string{}}
		for i, day := range weekdays {
			if h.Days&(1<<((i+1)%7)) != 0 {
				out.Hours.Days = append(out.Hours.Days, day)
			}
		}
	}
	return out
}

func clockText(minutes int) string { return fmt.Sprintf("%02d:%02d", minutes/60, minutes%60) }

// Preset is a set of rules to begin with.
type Preset struct {
	Name        string       `json:"name"`
	Type        string       `json:"type" const:"permission_preset"`
	Title       string       `json:"title"`
	Description string       `json:"description"`
	Rules       []PresetRule `json:"rules"`
}

// PresetRule is a rule that has no subject yet.
type PresetRule struct {
	Effect      string               `json:"effect" enum:"allow,deny"`
	Kind        string               `json:"kind"`
	Name        string               `json:"name"`
	Action      string               `json:"action"`
	Object      string               `json:"object"`
	Condition   *PermissionCondition `json:"condition"`
	Description string               `json:"description"`
	Summary     string               `json:"summary"`
}

func presetFrom(p policy.Preset) Preset {
	out := Preset{Name: p.Name, Type: "permission_preset", Title: p.Title, Description: p.Description}
	for _, r := range p.Rules {
		out.Rules = append(out.Rules, PresetRule{
			Effect: string(r.Effect), Kind: r.Kind, Name: r.Name, Action: r.Action, Object: r.Object, Condition: conditionFrom(r.Condition), Description: r.Description, Summary: r.Summary(),
		})
	}
	return out
}

// AgentTags is an agent with the tags that rules can name.
type AgentTags struct {
	AgentID id.Agent `json:"agent_id"`
	Type    string   `json:"type" const:"agent_tags"`
	Tags    []string `json:"tags"`
}

func tagsFrom(t policy.Tagged) AgentTags {
	return AgentTags{AgentID: t.Agent, Type: "agent_tags", Tags: append([]string{}, t.Tags...)}
}
