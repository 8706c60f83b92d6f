package policy

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/policy/internal/policydb"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

// Bounds of one call of Simulate.
const (
	MaxSimulatedDays = 90
	// MaxProposed is how many rules can be proposed at a time.
	MaxProposed = 200

	maxScanned  = 20_000
	maxExamined = 2_000
)

// Proposal is a change of the rules that nobody has made yet.
type Proposal struct {
	// Rules are added to those that there are.
	Rules []Rule
	// Without are the rules that would be deleted.
	Without []id.Permission
	// Replace leaves out all rules that there are.
	Replace bool
}

// Simulate selects decisions of the past.
type Simulate struct {
	Proposal Proposal
	// Days back from now, from 1 to MaxSimulatedDays.
	Days int
	// Project restricts it to the decisions in one project; empty takes all.
	Project id.Project
	// Before is where the last page ended; empty begins at the newest.
	Before id.Event
	// Limit is how many changes one page has at most.
	Limit int
}

// Change is a decision of the past that the proposal would change.
type Change struct {
	Event   id.Event
	Session id.Session
	Seq     int64
	At      time.Time
	Agent   id.Agent
	Kind    string
	Name    string
	Was     Effect
	Would   Effect
	Reason  journal.Reason
	// Certain is false when a rule looks at something that was not written down with the decision.
	Certain bool
}

// Simulation is a page of changes, the newest decision first.
type Simulation struct {
	Changes []Change
	// Examined is how many decisions this page looked at.
	Examined int
	// Since is the moment from which on decisions are looked at.
	Since time.Time
	// Next is the Before of the next page; empty on the last. A page may be empty and not the last.
	Next id.Event
}

// Simulate says which decisions of the past would have been others under a proposal. It looks at permission alone: what was refused for
// want of money counts as permitted. The work of one call is bounded.
func (s *Service) Simulate(ctx context.Context, tx pgx.Tx, org id.Org, in Simulate) (Simulation, error) {
	if in.Days < 1 || in.Days > MaxSimulatedDays {
		return Simulation{}, fault.InvalidField("/days", "out_of_range", fmt.Sprintf("days lies between 1 and %d.", MaxSimulatedDays))
	}
	proposed, err := s.propose(ctx, tx, org, in.Proposal)
	if err != nil {
		return Simulation{}, err
	}
	in.Limit = min(max(in.Limit, 1), maxExamined)
	since := s.clock.Now().AddDate(0, 0, -in.Days)
	before, oldest := in.Before, id.Floor[id.Event](since)
	if before == "" {
		before = "evt_~" // after every id
	}
	q := policydb.New(tx)
	rows, err := q.Decisions(ctx, policydb.DecisionsParams{OrgID: string(org), Before: string(before), Oldest: string(oldest), ProjectID: string(in.Project), MaxScanned: maxScanned, MaxRows: maxExamined})
	if err != nil {
		return Simulation{}, fmt.Errorf("read decisions of the past: %w", err)
	}
	out := Simulation{Since: since}
	for _, row := range rows {
		out.Examined++
		change, err := proposed.compare(row)
		if err != nil {
			return Simulation{}, err
		}
		if change == nil {
			continue
		}
		if out.Changes = append(out.Changes, *change); len(out.Changes) == in.Limit {
			out.Next = change.Event
			return out, nil
		}
	}
	if len(rows) == maxExamined {
		out.Next = id.Event(rows[len(rows)-1].ID)
		return out, nil
	}
	end, err := q.Scanned(ctx, policydb.ScannedParams{OrgID: string(org), Before: string(before), Oldest: string(oldest), MaxScanned: maxScanned})
	if err != nil {
		return Simulation{}, fmt.Errorf("find the end of the decisions read: %w", err)
	}
	if end.Events == maxScanned {
		out.Next = id.Event(end.Oldest)
	}
	return out, nil
}

// propose compiles the rules as they would be.
func (s *Service) propose(ctx context.Context, tx pgx.Tx, org id.Org, p Proposal) (*Set, error) {
	if len(p.Rules) > MaxProposed || len(p.Without) > MaxRules {
		return nil, fault.InvalidField("/rules", "too_long", fmt.Sprintf("At most %d rules can be proposed at a time.", MaxProposed))
	}
	have, err := s.cache.Now(ctx, tx, org)
	if err != nil {
		return nil, err
	}
	var lines []*compiled
	if !p.Replace {
		lines = slices.DeleteFunc(slices.Clone(have.rules), func(c *compiled) bool { return slices.Contains(p.Without, c.id) })
	}
	q := policydb.New(tx)
	name, err := q.ZoneOf(ctx, string(org))
	if err != nil {
		return nil, fmt.Errorf("read the zone of %s: %w", org, err)
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, fmt.Errorf("load the zone of %s: %w", org, err)
	}
	for i, r := range p.Rules {
		at := fmt.Sprintf("/rules/%d", i)
		checked, err := r.Check(at)
		if err != nil {
			return nil, err
		}
		if err := s.checkKnown(ctx, q, org, checked, at); err != nil {
			return nil, err
		}
		lines = append(lines, &compiled{id: id.Permission(fmt.Sprintf("proposed_%d", i)), Rule: checked})
	}
	return compile(have.version, zone, lines, have.tags), nil
}

// compare decides a past request anew; nil when the decision would be the same.
func (s *Set) compare(row policydb.DecisionsRow) (*Change, error) {
	var was journal.GateDecided
	if err := json.Unmarshal(row.Payload, &was); err != nil {
		return nil, fmt.Errorf("read the decision %s: %w", row.ID, err)
	}
	var agent journal.Snapshot
	if err := json.Unmarshal(row.Agent, &agent); err != nil {
		return nil, fmt.Errorf("read the agent of %s: %w", row.SessionID, err)
	}
	r := Request{
		Agent: agent.ID, Project: id.Project(row.ProjectID), Model: agent.Model, Tools: agent.Tools, Kind: was.Kind, Name: was.Name, At: row.CreatedAt,
	}
	amountKnown := true
	switch {
	case was.Asked != nil:
		r.Action, r.Object, r.Domain, r.Environment, r.Amount = was.Asked.Action, was.Asked.Object, was.Asked.Domain, was.Asked.Environment, was.Asked.Amount
	case was.Shortfall != nil:
		r.Amount = was.Shortfall.Required
	default:
		var step journal.StepIntended
		if len(row.Intended) > 0 {
			if err := json.Unmarshal(row.Intended, &step); err != nil {
				return nil, fmt.Errorf("read the step after %s: %w", row.ID, err)
			}
		}
		if amountKnown = step.Hold != nil; amountKnown {
			r.Amount = step.Hold.Amount
		}
	}
	effect, would := permissionOf(was), s.Decide(r)
	if effect == would.Effect {
		return nil, nil
	}
	return &Change{
		Event: id.Event(row.ID), Session: id.Session(row.SessionID), Seq: row.Seq, At: row.CreatedAt.UTC(), Agent: agent.ID, Kind: was.Kind, Name: was.Name,
		Was: effect, Would: would.Effect, Reason: would.Reason(), Certain: was.Asked != nil || !s.looksFurther(&r, amountKnown),
	}, nil
}

// permissionOf is what permissions said in a decision that may have failed on something else.
func permissionOf(was journal.GateDecided) Effect {
	switch was.Decision {
	case journal.Waiting:
		return Approve
	case journal.Denied:
		for _, reason := range was.Reasons {
			if decidedByPermission(reason.Rule) {
				return Deny
			}
		}
	}
	return Allow
}

func decidedByPermission(rule string) bool {
	switch rule {
	case ByModel, ByTools, ByKind, ByDomain, NoRule, "exec":
		return true
	}
	return strings.HasPrefix(rule, id.Permission("").Prefix()+"_")
}

// looksFurther reports whether a rule that could be about this request asks for more than kind, name and what else is known.
func (s *Set) looksFurther(r *Request, amountKnown bool) bool {
	return slices.ContainsFunc(s.rules, func(c *compiled) bool {
		if !s.selects(c, r) || (c.Kind != Any && c.Kind != r.Kind) || !matches(c.Rule.Name, r.Name) {
			return false
		}
		k := c.Condition
		return c.Action != Any || c.Object != Any || len(k.Domains) > 0 || len(k.Environments) > 0 ||
			(!amountKnown && (k.AmountAtMost != nil || k.AmountOver != nil))
	})
}
