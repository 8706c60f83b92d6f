package gate

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// mandated asks the mandate that a session runs under, and each above it. reason is nil when all of them allow the effect. What is spent under
// them already is not asked here: their budgets are, by the commit.
func mandated(rules *policy.Set, now time.Time, session *journal.Session, p Proposal, amount money.Nanos) *journal.Reason {
	if session.Mandate == "" {
		if rules.MandateRequired(string(session.Agent.ID), string(session.Project), session.By.ID) {
			return &journal.Reason{Rule: "mandate_required", Message: "This must run under a mandate, and the session runs under none."}
		}
		return nil
	}
	m := rules.Mandate(session.Mandate)
	if m == nil {
		return &journal.Reason{Rule: string(session.Mandate), Message: fmt.Sprintf("The mandate %s is not in force.", session.Mandate)}
	}
	d := m.Decide(mandate.Request{Agent: session.Agent.ID, Kind: string(p.Kind), Name: p.Name, Domain: p.Domain, Amount: amount, At: now})
	if d == nil {
		return nil
	}
	return &journal.Reason{Rule: string(d.Mandate), Message: d.Message}
}

// ofMandate says of a shortfall of a budget that counts a mandate's money that it is the mandate's.
func ofMandate(rules *policy.Set, session *journal.Session, s billing.Short, out journal.Shortfall) journal.Shortfall {
	if s.Budget == "" || session.Mandate == "" {
		return out
	}
	if m := rules.Mandate(session.Mandate); m != nil {
		if of := m.Of(s.Budget); of != nil {
			out.Scope, out.ID, out.Name = billing.ScopeMandate, string(of.ID), of.Grant.Intent
		}
	}
	return out
}

// shortOf is ofMandate in a transaction, for a hold that no rules were asked about.
func (g *Gate) shortOf(ctx context.Context, tx pgx.Tx, session *journal.Session, s billing.Short) (journal.Shortfall, error) {
	out := shortfall(session.Org, session.ID, s)
	if s.Budget == "" || session.Mandate == "" {
		return out, nil
	}
	rules, err := g.policies.Now(ctx, tx, session.Org)
	if err != nil {
		return out, err
	}
	return ofMandate(rules, session, s, out), nil
}

// Mandates says what would refuse a session before it is begun: an agent or whoever asks that must run under a mandate and names none, or a
// mandate that is not in force, or is another agent's. It returns the path of the mandate, the root first.
func (g *Gate) Mandates(ctx context.Context, tx pgx.Tx, org id.Org, of id.Mandate, agent id.Agent, project id.Project, by string) ([]id.Mandate, error) {
	rules, err := g.policies.Now(ctx, tx, org)
	if err != nil {
		return nil, err
	}
	if of == "" {
		if rules.MandateRequired(string(agent), string(project), by) {
			return nil, fault.New(fault.Forbidden, "mandate_required", "This runs under a mandate only. Name one with mandate_id.")
		}
		return nil, nil
	}
	m := rules.Mandate(of)
	if m == nil {
		return nil, fault.New(fault.Forbidden, "permission_denied", "The mandate "+string(of)+" is not in force: it is not signed, was revoked, or has ended.").With("rule", string(of))
	}
	if d := m.Stands(agent, g.clock.Now()); d != nil {
		return nil, fault.New(fault.Forbidden, "permission_denied", d.Message).With("rule", string(d.Mandate))
	}
	var path []id.Mandate
	for ; m != nil; m = m.Parent {
		path = append([]id.Mandate{m.ID}, path...)
	}
	return path, nil
}
