package gate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/gate/internal/gatedb"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
)

// AdmitTx is Admit in a transaction that has locked the session: for what goes on whether or not a worker has the session, as the time of
// its sandbox does. The lock stands in for the lease: whoever ends the session takes the same lock, and after that nothing is admitted. What
// was settled before in the same transaction is free for it. An error means that no decision could be made.
func (g *Gate) AdmitTx(ctx context.Context, tx pgx.Tx, now time.Time, session *journal.Locked, p Proposal) (Decision, error) {
	if p.EffectKey == "" || p.Digest == (Digest{}) || p.Step == "" || p.Within <= 0 {
		return Decision{}, errors.New("a proposal needs a step, an effect key, a digest and a time within which it ends")
	}
	if session.Status == journal.Terminated {
		return Decision{Outcome: journal.Denied, Reasons: []journal.Reason{{Rule: "session", Message: "The session has ended."}}}, nil
	}
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
	bound, lines, err := bound(table, now, p.Quantity)
	unpriced := fault.IsCode(err, "price_unknown")
	if err != nil && !unpriced {
		return Decision{}, err
	}
	reason, asked := permitted(rules, now, &session.Session, p, bound)
	if reason == nil {
		reason = mandated(rules, now, &session.Session, p, bound)
	}
	if reason == nil && unpriced {
		reason = &journal.Reason{Rule: "price", Message: fault.As(err).Message}
	}
	if reason != nil {
		return Decision{Outcome: journal.Denied, Reasons: []journal.Reason{*reason}, Asked: asked}, nil
	}
	left, err := LeftOfCeiling(ctx, tx, &session.Session)
	if err != nil {
		return Decision{}, err
	}
	denied := func(s journal.Shortfall) Decision {
		return Decision{Outcome: journal.Denied, Shortfall: &s, Asked: asked, Reasons: []journal.Reason{{Rule: "hold", Message: s.Sentence()}}}
	}
	// While the ceiling is held, what it has left is asked of it; at rest nothing holds it, and it binds all the same.
	if left != nil && *left < bound && session.CeilingHold == "" {
		free := max(0, *left)
		return denied(journal.Shortfall{Required: bound, Available: free, Shortfall: bound - free, Scope: "session", ID: string(session.ID)}), nil
	}
	hold, short, err := billing.Place(ctx, tx, now, session.Org, billing.HoldRequest{
		Session: session.ID, Step: p.Step, Parent: session.CeilingHold, Amount: bound, Lines: lines, PriceVersion: table.Version(), Expires: now.Add(p.Within),
	})
	if err != nil {
		return Decision{}, err
	}
	if short != nil {
		return denied(ofMandate(rules, &session.Session, *short, shortfall(session.Org, session.ID, *short))), nil
	}
	a := &Admission{
		kind: p.Kind, digest: p.Digest, now: g.clock.Now,
		grant: Grant{Org: session.Org, Session: session.ID, Step: p.Step, EffectKey: p.EffectKey, Epoch: session.Epoch, ExpiresAt: now.Add(p.Within)},
	}
	postgres.AfterCommit(tx, a.arm)
	return Decision{
		Outcome: journal.Admitted, Hold: &journal.HoldRef{ID: hold, Amount: bound}, Admission: a, Asked: asked,
		Reasons: []journal.Reason{{Rule: "hold", Message: "held " + bound.Display() + " at most"}},
	}, nil
}

// holdStill has the balances and the rules stay as they are until the transaction ends, so that what is read after it holds until the commit.
// They are taken in the order in which a change of the rules takes them: in the other one, the two would wait for each other for ever.
func holdStill(ctx context.Context, tx pgx.Tx, org id.Org) error {
	if err := gatedb.New(tx).LockBalances(ctx, org); err != nil {
		return fmt.Errorf("hold the balances still: %w", err)
	}
	if err := gatedb.New(tx).LockRules(ctx, org); err != nil {
		return fmt.Errorf("hold the rules still: %w", err)
	}
	return nil
}

// LeftOfCeiling is what a session may still hold below its price ceiling, beyond what it was charged and holds already; below zero when the
// ceiling was lowered since. Nil without a ceiling.
func LeftOfCeiling(ctx context.Context, tx pgx.Tx, session *journal.Session) (*money.Nanos, error) {
	if session.Limits.MaxCost == nil {
		return nil, nil
	}
	left := *session.Limits.MaxCost - session.Charged
	open, err := billing.OpenHolds(ctx, tx, session.Org, session.ID)
	if err != nil {
		return nil, err
	}
	for _, h := range open {
		if h.Parent == "" || h.Parent != session.CeilingHold { // what is carved from the ceiling is a part of it
			left -= h.Amount - h.Captured - h.Released
		}
	}
	return &left, nil
}
