package gate

import (
	"context"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// asked is the effect as approval rules look at it.
func asked(session *journal.Session, p Proposal, amount money.Nanos, now time.Time) approval.Effect {
	return approval.Effect{
		Request: policy.Request{
			Agent: session.Agent.ID, Project: session.Project, Model: session.Agent.Model, Tools: session.Agent.Tools,
			Kind: string(p.Kind), Name: p.Name, Action: p.Action, Object: p.Object, Amount: amount, At: now, Domain: p.Domain,
		},
		Risk: p.Risk, Leaves: p.Domain != "", Tainted: p.Tainted,
	}
}

// mayAsk reports whether a person might have to decide on the effect, as far as memory tells.
func mayAsk(rules *policy.Set, session *journal.Session, p Proposal, amount money.Nanos, now time.Time) bool {
	return p.Kind == ToolCall && (p.Asked || approval.May(rules, asked(session, p, amount, now)))
}

// AdmitAsked decides on an effect about which people may have to be asked, in a transaction that has locked the session under the worker's
// lease. Asked of what only the database knows, it may turn out that nobody is: then it is admitted as by AdmitTx. When somebody is, it is
// waiting until they have decided; what was approved is admitted once, if it is still that very action and who decided may still decide; and
// what was refused, or nobody answered, is denied.
func (g *Gate) AdmitAsked(ctx context.Context, tx pgx.Tx, now time.Time, session *journal.Locked, p Proposal, question approval.Question) (Decision, error) {
	if err := holdStill(ctx, tx, session.Org); err != nil {
		return Decision{}, err
	}
	rules, err := g.policies.Now(ctx, tx, session.Org)
	if err != nil {
		return Decision{}, err
	}
	table, err := g.tableOf(&session.Session)
	if err != nil {
		return Decision{}, err
	}
	amount, _, err := bound(table, now, p.Quantity)
	if err != nil { // what has no price is denied by AdmitTx, with the reason
		return g.AdmitTx(ctx, tx, now, session, p)
	}
	if reason, facts := permitted(rules, now, &session.Session, p, amount); reason != nil {
		return Decision{Outcome: journal.Denied, Reasons: []journal.Reason{*reason}, Asked: facts}, nil
	}
	if reason := mandated(rules, now, &session.Session, p, amount); reason != nil { // nobody is asked about what a mandate forbids
		return Decision{Outcome: journal.Denied, Reasons: []journal.Reason{*reason}}, nil
	}
	question.Effect = asked(&session.Session, p, amount, now)
	question.Shown.Amount = amount
	answer, err := approval.Stand(ctx, tx, now, rules, question)
	if err != nil {
		return Decision{}, err
	}
	facts := &journal.Asked{Action: p.Action, Object: p.Object, Domain: p.Domain, Amount: amount, PolicyVersion: rules.Version()}
	switch answer.State {
	case approval.Waiting:
		return Decision{Outcome: journal.Waiting, Reasons: []journal.Reason{answer.Reason}, Asked: facts, Approval: answer.Approval, Fresh: answer.Fresh}, nil
	case approval.Rejected:
		return Decision{Outcome: journal.Denied, Reasons: []journal.Reason{answer.Reason}, Asked: facts}, nil
	case approval.Clear, approval.Granted: // no person is in the way
	}
	d, err := g.AdmitTx(ctx, tx, now, session, p)
	if err != nil || d.Outcome != journal.Admitted {
		return d, err // what can't be paid uses no approval up
	}
	if answer.State == approval.Granted {
		d.Reasons = append([]journal.Reason{answer.Reason}, d.Reasons...)
		d.Approval = answer.Approval
	}
	return d, answer.Admitted(ctx, tx, now, p.Step)
}
