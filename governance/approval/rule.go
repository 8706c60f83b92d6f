package approval

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/tenants"
)

// Outcome is what a rule does where it applies.
type Outcome string

const (
	// Ask lets people decide.
	Ask Outcome = "ask"
	// Waive lets one other rule, or the platform's own on what came from outside, not ask.
	Waive Outcome = "waive"
)

// Taint names the platform's own rule: a session that has read what came from outside asks before it acts outside.
const Taint = "taint"

// FirstUseOfHost and FirstUseOfPayee are the first uses that a rule can be about. Who is paid for a request is the host that it goes to.
const (
	FirstUseOfHost  = "host"
	FirstUseOfPayee = "payee"
)

// Limits of what a rule may say.
const (
	MaxRules     = 500
	MaxStages    = 3
	MaxApprovers = 32
	MaxNeed      = 10
	MinWithin    = time.Minute
	MaxWithin    = 30 * 24 * time.Hour
	maxWindow    = 366 * 24 * time.Hour
)

// Rule says which effects people decide on, and how. What it leaves empty does not narrow.
type Rule struct {
	Name        string
	Description string
	Outcome     Outcome
	// Waives is the rule that a Waive is about, or Taint.
	Waives string
	// Subject, Kind, Tool, Action, Object and Condition select effects as permissions do.
	Subject, Kind, Tool, Action, Object string
	Condition                           policy.Condition
	// SumOver and SumWindow: what the agent's effects under this rule come to within the window, this one included, is above SumOver.
	SumOver   *money.Nanos
	SumWindow time.Duration
	// Risks are the tool's classes of risk: low, medium, high.
	Risks []string
	// FirstUse is host or payee: the agent was never let to it before.
	FirstUse string
	// Tainted: only in a session that has read what came from outside.
	Tainted bool
	// Stages are passed one after the other. Of a Waive there are none.
	Stages []Stage
	// Escalation widens who may decide when a stage's time is over; after its own time silence is a refusal.
	Escalation *Stage
	// AskerMay lets people decide on what they asked for themselves.
	AskerMay bool
	// Passkey: a decision takes a step-up of who makes it.
	Passkey bool
	// Until ends a rule by itself; nil for one that stays.
	Until *time.Time
}

// Stage is who must decide, how many of them, and how long they have.
type Stage struct {
	Roles   []tenants.Role `json:"roles"`
	Members []id.User      `json:"members"`
	Need    int            `json:"need"`
	Within  time.Duration  `json:"within"`
}

// Stored is a rule as an organisation has it.
type Stored struct {
	ID id.ApprovalRule
	Rule
	// Owner hears when the rule asks too often; empty where no person made it.
	Owner     id.User
	Version   int64
	CreatedBy string
	CreatedAt time.Time
	UpdatedAt time.Time
}

// Settings hold for all approvals of an organisation.
type Settings struct {
	// TaintAsks: a session that has read what came from outside asks before each effect that leaves the organisation.
	TaintAsks bool
	// AsksPerDay is how often one person is asked within 24 hours before the rule's owner hears of it, and the person is asked no further.
	AsksPerDay int
	Version    int64
}

// DefaultSettings hold where an organisation has set none.
var DefaultSettings = Settings{TaintAsks: true, AsksPerDay: 50}

// byTaint is the platform's own rule. It guards against what was read, not against the person for whom the agent works: that person may
// decide, if an owner or admin.
var byTaint = Stored{ID: Taint, Rule: Rule{
	Name: "Content from outside", Description: "The session has read what came from outside, which may steer the agent.", Outcome: Ask, Subject: policy.Any, Kind: policy.Any, Tool: policy.Any,
	Action: policy.Any, Object: policy.Any, Tainted: true, AskerMay: true,
	Stages: []Stage{{Roles: []tenants.Role{tenants.RoleOwner, tenants.RoleAdmin}, Need: 1, Within: 24 * time.Hour}},
}}

// Check returns the rule in the form in which it is kept, or a fault that names each field that is wrong.
func (r Rule) Check() (Rule, error) {
	var wrong []fault.Field
	bad := func(pointer, code, format string, args ...any) {
		wrong = append(wrong, fault.Field{Pointer: pointer, Code: code, Message: fmt.Sprintf(format, args...)})
	}
	if r.Name = strings.TrimSpace(r.Name); r.Name == "" || len(r.Name) > 100 || !plain(r.Name) {
		bad("/name", "invalid_value", "Give the rule a name of at most 100 bytes on one line.")
	}
	if r.Kind == "" {
		r.Kind = policy.ToolCall
	}
	if r.Kind != policy.ToolCall && r.Kind != policy.Any {
		bad("/kind", "invalid_value", "kind must be tool_call or *: people decide on what tools do.")
	}
	// Whom and what it selects is checked as a permission is.
	as, err := policy.Rule{Subject: r.Subject, Effect: policy.Approve, Kind: r.Kind, Name: r.Tool, Action: r.Action, Object: r.Object, Condition: r.Condition, Description: r.Description}.Check("")
	if err != nil {
		for _, f := range fault.As(err).Fields {
			if f.Pointer == "/name" {
				f.Pointer = "/tool"
			}
			wrong = append(wrong, f)
		}
	} else {
		r.Subject, r.Tool, r.Action, r.Object, r.Condition, r.Description = as.Subject, as.Name, as.Action, as.Object, as.Condition, as.Description
	}
	if (r.SumOver != nil) != (r.SumWindow != 0) || r.SumOver != nil && (*r.SumOver < 0 || r.SumWindow < time.Minute || r.SumWindow > maxWindow) {
		bad("/sum_over", "invalid_value", "A sum takes an amount that is not negative and a window of one minute to 366 days.")
	}
	r.Risks = slices.Compact(slices.Sorted(slices.Values(r.Risks)))
	for _, risk := range r.Risks {
		if risk != "low" && risk != "medium" && risk != "high" {
			bad("/risks", "invalid_value", "A risk is low, medium or high.")
		}
	}
	if r.FirstUse != "" && r.FirstUse != FirstUseOfHost && r.FirstUse != FirstUseOfPayee {
		bad("/first_use", "invalid_value", "first_use is host or payee.")
	}
	switch r.Outcome {
	case Ask:
		if r.Waives != "" {
			bad("/waives", "invalid_value", "Only a rule that waives names another.")
		}
		if len(r.Stages) == 0 || len(r.Stages) > MaxStages {
			bad("/stages", "out_of_range", "Name one to %d stages: who must decide.", MaxStages)
		}
		for i := range r.Stages {
			r.Stages[i], wrong = r.Stages[i].check(fmt.Sprintf("/stages/%d", i), wrong)
		}
		if r.Escalation != nil {
			var e Stage
			e, wrong = r.Escalation.check("/escalation", wrong)
			r.Escalation = &e
		}
	case Waive:
		if r.Waives != Taint {
			if _, err := id.Parse[id.ApprovalRule](r.Waives); err != nil {
				bad("/waives", "invalid_value", `waives is the id of the rule that is not to ask, or "taint".`)
			}
		}
		if len(r.Stages) > 0 || r.Escalation != nil || r.AskerMay || r.Passkey || r.SumOver != nil || r.FirstUse != "" {
			bad("/outcome", "invalid_value", "A rule that waives asks nobody: it has no stages, no escalation, no sum and no first use.")
		}
	default:
		bad("/outcome", "invalid_value", "outcome must be ask or waive.")
	}
	if len(wrong) > 0 {
		return Rule{}, fault.InvalidFields(wrong...)
	}
	return r, nil
}

func (s Stage) check(at string, wrong []fault.Field) (Stage, []fault.Field) {
	bad := func(pointer, format string, args ...any) {
		wrong = append(wrong, fault.Field{Pointer: at + pointer, Code: "invalid_value", Message: fmt.Sprintf(format, args...)})
	}
	s.Roles = slices.Compact(slices.Sorted(slices.Values(s.Roles)))
	s.Members = slices.Compact(slices.Sorted(slices.Values(s.Members)))
	if len(s.Roles)+len(s.Members) == 0 || len(s.Roles)+len(s.Members) > MaxApprovers {
		bad("", "Name 1 to %d roles or members who may decide.", MaxApprovers)
	}
	for _, role := range s.Roles {
		if !slices.Contains(tenants.Roles(), role) {
			if _, err := id.Parse[id.Role](string(role)); err != nil {
				bad("/roles", "%q is no role.", string(role))
			}
		}
	}
	for _, m := range s.Members {
		if _, err := id.Parse[id.User](string(m)); err != nil {
			bad("/members", "%q is not a member's user id.", string(m))
		}
	}
	if s.Need == 0 {
		s.Need = 1
	}
	if s.Need < 1 || s.Need > MaxNeed {
		bad("/need", "1 to %d people must decide.", MaxNeed)
	}
	if s.Within < MinWithin || s.Within > MaxWithin {
		bad("/within_seconds", "People have one minute to 30 days.")
	}
	return s, wrong
}

func plain(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, unicode.IsControl)
}

// selection is the part of the rule that permissions know.
func (r *Rule) selection() policy.Rule {
	return policy.Rule{Subject: r.Subject, Effect: policy.Approve, Kind: r.Kind, Name: r.Tool, Action: r.Action, Object: r.Object, Condition: r.Condition}
}

// Words says when the rule applies, for people.
func (r *Rule) Words() string {
	sel := r.selection()
	parts := []string{sel.What()}
	if r.SumOver != nil {
		parts = append(parts, "when the sum within "+Span(r.SumWindow)+" is above "+r.SumOver.Display())
	}
	if len(r.Risks) > 0 {
		parts = append(parts, "of "+strings.Join(r.Risks, " or ")+" risk")
	}
	if r.FirstUse != "" {
		parts = append(parts, "for the first time with a "+r.FirstUse)
	}
	if r.Tainted {
		parts = append(parts, "after content from outside was read")
	}
	return strings.Join(parts, ", ")
}

// Span says a duration in whole words.
func Span(d time.Duration) string {
	unit := func(n int64, word string) string {
		if n == 1 {
			return "1 " + word
		}
		return fmt.Sprintf("%d %ss", n, word)
	}
	switch {
	case d >= 48*time.Hour && d%(24*time.Hour) == 0:
		return unit(int64(d/(24*time.Hour)), "day")
	case d >= time.Hour && d%time.Hour == 0:
		return unit(int64(d/time.Hour), "hour")
	case d >= time.Minute:
		return unit(int64(d/time.Minute), "minute")
	default:
		return unit(int64(d/time.Second), "second")
	}
}
