package approval

import (
	"context"
	"fmt"
	"slices"
	"time"

	"ambit.dev/ambit/governance/approval/internal/approvaldb"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
)

// Effect is what is known of an effect when it is decided whether anybody is asked.
type Effect struct {
	// Request is as permissions get it: whose, what, to where, how much at most, when.
	Request policy.Request
	// Risk is the tool's class of risk.
	Risk string
	// Leaves says that the effect leaves the organisation.
	Leaves bool
	// Tainted says that the session has read what came from outside.
	Tainted bool
}

// May reports whether anybody might have to be asked about the effect. It looks at memory alone: what it can't know there, a sum or a first
// use, it takes as given. When it says no, nobody is to be asked by the rules of that version.
func May(set *policy.Set, e Effect) bool {
	r := rulesOf(set)
	for i := range r.asks {
		// What is waived counts towards a sum all the same.
		if r.asks[i].fits(set, &e) && (r.asks[i].SumOver != nil || !r.waived(set, &e, string(r.asks[i].ID))) {
			return true
		}
	}
	return r.byTaint(set, &e)
}

// byTaint reports whether the platform's own rule asks.
func (r *rules) byTaint(set *policy.Set, e *Effect) bool {
	return r.settings.TaintAsks && e.Tainted && e.Leaves && !r.waived(set, e, Taint)
}

func (r *rules) waived(set *policy.Set, e *Effect, rule string) bool {
	return slices.ContainsFunc(r.waives, func(w Stored) bool { return w.Waives == rule && w.fits(set, e) })
}

// fits looks at all of a rule but what only the database knows.
func (s *Stored) fits(set *policy.Set, e *Effect) bool {
	if s.Until != nil && !e.Request.At.Before(*s.Until) {
		return false
	}
	if s.Tainted && !e.Tainted || len(s.Risks) > 0 && !slices.Contains(s.Risks, e.Risk) || s.FirstUse != "" && e.Request.Domain == "" {
		return false
	}
	sel := s.selection()
	return set.Fits(&sel, e.Request)
}

// fired are the rules that ask about the effect, with what the database knows. watched are those that count its amount, whether they ask
// or not. The caller's transaction has locked the organisation's balances.
func (r *rules) fired(ctx context.Context, q *approvaldb.Queries, org id.Org, set *policy.Set, e *Effect) (fired, watched []Stored, err error) {
	for i := range r.asks {
		rule := r.asks[i]
		if !rule.fits(set, e) {
			continue
		}
		if rule.SumOver != nil {
			watched = append(watched, rule)
		}
		if r.waived(set, e, string(rule.ID)) {
			continue
		}
		if rule.SumOver != nil {
			sum, err := q.SumOver(ctx, approvaldb.SumOverParams{OrgID: string(org), RuleID: string(rule.ID), Since: e.Request.At.Add(-rule.SumWindow)})
			if err != nil {
				return nil, nil, fmt.Errorf("sum up what rule %s has let through: %w", rule.ID, err)
			}
			if total := sum + int64(e.Request.Amount); total >= 0 && total <= int64(*rule.SumOver) {
				continue
			}
		}
		if rule.FirstUse != "" {
			seen, err := q.Seen(ctx, approvaldb.SeenParams{OrgID: string(org), AgentID: string(e.Request.Agent), Host: e.Request.Domain})
			if err != nil {
				return nil, nil, fmt.Errorf("look whether %s was used before: %w", e.Request.Domain, err)
			}
			if seen {
				continue
			}
		}
		fired = append(fired, rule)
	}
	if r.byTaint(set, e) {
		fired = append(fired, byTaint)
	}
	return fired, watched, nil
}

// Demand is what the rules that fired come to: who must decide, in which stages.
type Demand struct {
	Rules  []Fired `json:"rules"`
	Stages []Stage `json:"stages"`
	// Escalation is nil where nobody else is asked when the time is over.
	Escalation *Stage `json:"escalation,omitempty"`
	AskerMay   bool   `json:"asker_may,omitempty"`
	Passkey    bool   `json:"passkey,omitempty"`
}

// Fired is a rule that fired, as it then was.
type Fired struct {
	ID    id.ApprovalRule `json:"id"`
	Name  string          `json:"name"`
	Words string          `json:"words"`
	Says  string          `json:"says,omitempty"`
	Owner id.User         `json:"owner,omitempty"`
}

// demandOf joins what several rules demand: the stages of each, one after the other, where the same approvers are asked once, by the
// strictest of them. An organisation's own rules stand before the platform's, whose stage is then theirs if nobody decides in it whom the
// platform's would not ask: one rule more must not let fewer or others decide.
func demandOf(fired []Stored) Demand {
	d := Demand{AskerMay: true}
	for _, r := range fired {
		d.Rules = append(d.Rules, Fired{ID: r.ID, Name: r.Name, Words: r.Words(), Says: r.Description, Owner: r.Owner})
		d.AskerMay = d.AskerMay && r.AskerMay
		d.Passkey = d.Passkey || r.Passkey
		if r.ID == Taint && slices.ContainsFunc(d.Stages, guards) {
			continue
		}
		for _, s := range r.Stages {
			at := slices.IndexFunc(d.Stages, func(o Stage) bool { return slices.Equal(o.Roles, s.Roles) && slices.Equal(o.Members, s.Members) })
			if at < 0 {
				d.Stages = append(d.Stages, s)
				continue
			}
			d.Stages[at].Need = max(d.Stages[at].Need, s.Need)
			d.Stages[at].Within = min(d.Stages[at].Within, s.Within)
		}
		if r.Escalation != nil && d.Escalation == nil {
			d.Escalation = r.Escalation
		}
	}
	return d
}

// guards reports whether a stage can stand for that of the platform's own rule: none but owners and admins decide in it.
func guards(s Stage) bool {
	return len(s.Members) == 0 && !slices.ContainsFunc(s.Roles, func(r tenants.Role) bool { return r != tenants.RoleOwner && r != tenants.RoleAdmin })
}

// Why says in one line which rules ask.
func (d *Demand) Why() string {
	var out string
	for i, r := range d.Rules {
		if i > 0 {
			out += "; "
		}
		out += "“" + r.Name + "”"
	}
	return out
}

// admitted notes what later decisions look at: sums and first uses.
func admitted(ctx context.Context, q *approvaldb.Queries, org id.Org, e *Effect, watched []Stored, step id.Step, at time.Time) error {
	for _, r := range watched {
		err := q.InsertSum(ctx, approvaldb.InsertSumParams{OrgID: string(org), RuleID: string(r.ID), StepID: string(step), AgentID: string(e.Request.Agent), AmountNanos: int64(e.Request.Amount), At: at})
		if err != nil {
			return fmt.Errorf("note what rule %s has let through: %w", r.ID, err)
		}
	}
	if e.Request.Domain == "" {
		return nil
	}
	if err := q.InsertSeen(ctx, approvaldb.InsertSeenParams{OrgID: string(org), AgentID: string(e.Request.Agent), Host: e.Request.Domain, At: at}); err != nil {
		return fmt.Errorf("note the use of %s: %w", e.Request.Domain, err)
	}
	return nil
}
