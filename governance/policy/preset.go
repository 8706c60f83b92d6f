package policy

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/policy/internal/policydb"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// Preset is a set of rules to begin with. Applying one copies its rules to a subject.
type Preset struct {
	Name        string
	Title       string
	Description string
	// Rules have no subject.
	Rules []Rule
}

// The built-in tools by what they do. A preset that promises something denies what would break the promise, so that another rule that
// allows more does not undo it.
var (
	toolsThatRead  = []string{"read_file", "list_files"}
	toolsThatWrite = []string{"write_file", "edit_file"}
	toolsThatRun   = []string{"bash", "python"}
)

const toolForWeb = "http_request"

func rules(effect Effect, kind, action, description string, names ...string) []Rule {
	out := make([]Rule, len(names))
	for i, name := range names {
		out[i] = Rule{Effect: effect, Kind: kind, Name: name, Action: action, Object: Any, Description: description}
	}
	return out
}

// whatItNames allows all that definitions speak of, and nothing that they don't, such as a hire.
func whatItNames(when Condition) (out []Rule) {
	for _, kind := range []string{ModelCall, ToolCall, Sandbox} {
		out = append(out, Rule{Effect: Allow, Kind: kind, Name: Any, Action: Any, Object: Any, Condition: when, Description: "What its definition names."})
	}
	return out
}

func preset(name, title, description string, parts ...[]Rule) Preset {
	p := Preset{Name: name, Title: title, Description: description}
	for _, part := range parts {
		p.Rules = append(p.Rules, part...)
	}
	return p
}

// Presets lists the presets, the narrowest first.
func Presets() []Preset {
	ownModel := rules(Allow, ModelCall, Any, "Its own model.", Any)
	sandbox := rules(Allow, Sandbox, Any, "Time in its sandbox.", Any)
	noNetwork := append(rules(Deny, ToolCall, Any, "No network.", toolForWeb), rules(Deny, OutboundRequest, Any, "No network.", Any)...)
	cheap := money.Dollar / 10
	return []Preset{
		preset("model-only", "Model only", "It thinks and answers, and uses no tool.",
			ownModel, rules(Deny, ToolCall, Any, "No tools.", Any), rules(Deny, Sandbox, Any, "No sandbox.", Any)),
		preset("read-only-researcher", "Read-only researcher", "It reads files and pages of the web, writes nothing, and runs nothing.",
			ownModel, sandbox, rules(Allow, ToolCall, Any, "Reading files.", toolsThatRead...),
			rules(Allow, ToolCall, "GET", "Reading pages.", toolForWeb), rules(Allow, ToolCall, "HEAD", "Reading pages.", toolForWeb),
			rules(Deny, ToolCall, Any, "Read only.", toolsThatWrite...), rules(Deny, ToolCall, Any, "Read only.", toolsThatRun...)),
		preset("write-files-no-network", "May write files, no network", "It reads and writes files in its working directory, runs nothing, and reaches nothing outside.",
			ownModel, sandbox, rules(Allow, ToolCall, Any, "Reading files.", toolsThatRead...), rules(Allow, ToolCall, Any, "Writing files.", toolsThatWrite...),
			rules(Deny, ToolCall, Any, "It runs no commands.", toolsThatRun...), noNetwork),
		preset("full-sandbox-no-network", "Full sandbox, no network", "It may do anything inside its sandbox, and reaches nothing outside.",
			ownModel, sandbox, rules(Allow, ToolCall, Any, "Reading files.", toolsThatRead...), rules(Allow, ToolCall, Any, "Writing files.", toolsThatWrite...),
			rules(Allow, ToolCall, Any, "Running commands.", toolsThatRun...), noNetwork),
		preset("web-client", "Web client", "It reads files and makes requests to the web, and runs nothing.",
			ownModel, sandbox, rules(Allow, ToolCall, Any, "Reading files.", toolsThatRead...), rules(Allow, ToolCall, Any, "Requests to the web.", toolForWeb),
			rules(Deny, ToolCall, Any, "It runs no commands.", toolsThatRun...)),
		preset("small-steps", "Small steps", "It may do what its definition names, as long as no single step can cost more than $0.10.",
			whatItNames(Condition{}),
			[]Rule{{Effect: Deny, Kind: Any, Name: Any, Action: Any, Object: Any, Condition: Condition{AmountOver: &cheap}, Description: "No step above $0.10."}}),
		preset("working-hours", "Working hours", "It may do what its definition names, on weekdays from 08:00 to 18:00 in the organisation's zone.",
			whatItNames(Condition{Hours: &Hours{From: 8 * 60, To: 18 * 60, Days: 0b0111110}})),
	}
}

// ApplyPreset copies a preset's rules to a subject, in one change. With replace the subject's other rules are deleted first. Its faults:
// not_found for a preset that there is not, invalid_request for the subject, state_conflict when there would be too many rules.
func (s *Service) ApplyPreset(ctx context.Context, tx pgx.Tx, org id.Org, name, subject string, replace bool) ([]Stored, error) {
	var chosen *Preset
	for _, p := range Presets() {
		if p.Name == name {
			chosen = &p
			break
		}
	}
	if chosen == nil {
		return nil, fault.NotFound()
	}
	if _, err := (Rule{Subject: subject, Effect: Allow, Kind: Any}).Check(""); err != nil {
		return nil, err
	}
	q, err := s.changing(ctx, tx, org)
	if err != nil {
		return nil, err
	}
	if bad, err := s.checkSubject(ctx, q, org, subject, ""); err != nil {
		return nil, err
	} else if bad != nil {
		return nil, fault.InvalidFields(*bad)
	}
	if replace {
		if _, err := q.DeletePermissionsOf(ctx, policydb.DeletePermissionsOfParams{OrgID: string(org), Subject: subject}); err != nil {
			return nil, fmt.Errorf("delete the rules of %s: %w", subject, err)
		}
	}
	if err := s.room(ctx, q, org, len(chosen.Rules)); err != nil {
		return nil, err
	}
	out := make([]Stored, 0, len(chosen.Rules))
	for _, r := range chosen.Rules {
		r.Subject = subject
		if r, err = r.Check(""); err != nil {
			return nil, fmt.Errorf("the preset %s: %w", name, err)
		}
		stored, err := s.insert(ctx, q, org, r, name)
		if err != nil {
			return nil, err
		}
		out = append(out, stored)
	}
	return out, nil
}
