package gate

import (
	"context"
	"errors"
	"fmt"
	"time"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// Unit is a session's next commit, drafted in memory: what is settled of the effect that ended, the decision on the effect that follows,
// and the events that say so. The committer writes all of it or nothing. A unit settles at most one effect and admits at most one.
type Unit struct {
	journal.Draft
	// Now is the time of everything in the unit.
	Now time.Time

	lease     journal.Lease
	seen      int64
	refusal   error // what was answered to the same unit before: ErrBreached or a *ShortError
	settle    *settlement
	place     *billing.HoldRequest
	hold      id.Hold
	admission *Admission
	// policy is the version of the rules by which it was decided; noPolicy where nothing was.
	policy       int64
	releaseLease bool
	// committed is what follows the commit.
	committed func()
}

const noPolicy = -1

type settlement struct {
	hold   journal.HoldRef
	used   money.Nanos
	result billing.Settled
}

// Draft begins a unit on a session as its lease-holder knows it. refusal is what the committer answered to the unit before, ErrBreached or
// a *ShortError: the gate then denies the effect for that reason. It is nil for the first draft.
func Draft(now time.Time, session journal.Session, lease journal.Lease, refusal error) *Unit {
	return &Unit{Draft: *journal.NewDraft(session), Now: now, lease: lease, seen: session.LastSeq, refusal: refusal, policy: noPolicy}
}

// ReleaseLease gives the lease back with the commit.
func (u *Unit) ReleaseLease() { u.releaseLease = true }

// Admit decides on a proposal. Waiting, it has decided nothing and written nothing: a person may have to be asked, and AdmitAsked decides. An error means that no decision could be made: then there is no effect. A refusal is a decision, not an
// error. That the hold can be had is only known when the unit is committed; if not, the unit is drafted again, with the shortfall.
func (g *Gate) Admit(u *Unit, p Proposal) (Decision, error) {
	if p.EffectKey == "" || p.Digest == (Digest{}) || p.Step == "" || p.Within <= 0 {
		return Decision{}, errors.New("a proposal needs a step, an effect key, a digest and a time within which it ends")
	}
	if u.place != nil {
		return Decision{}, errors.New("a unit admits one effect")
	}
	rules := g.policies.InMemory(u.Org) // whether they are the newest, the commit says
	if rules == nil {
		rules = policy.Empty
	}
	u.policy = rules.Version()
	table, err := g.tableOf(&u.Session)
	if err != nil {
		return Decision{}, err
	}
	bound, lines, err := bound(table, u.Now, p.Quantity)
	unpriced := fault.IsCode(err, "price_unknown")
	if err != nil && !unpriced {
		return Decision{}, err
	}
	reason, asked := permitted(rules, u.Now, &u.Session, p, bound)
	if reason == nil {
		reason = mandated(rules, u.Now, &u.Session, p, bound)
	}
	if reason == nil && unpriced {
		reason = &journal.Reason{Rule: "price", Message: fault.As(err).Message}
	}
	if reason != nil {
		return Decision{Outcome: journal.Denied, Reasons: []journal.Reason{*reason}, Asked: asked}, nil
	}
	if mayAsk(rules, &u.Session, p, bound, u.Now) {
		return Decision{Outcome: journal.Waiting, Asked: asked}, nil // AdmitAsked finds out, with what only the database knows
	}
	var wanting *ShortError
	switch {
	case errors.Is(u.refusal, ErrBreached):
		return Decision{Outcome: journal.Denied, Asked: asked, Reasons: []journal.Reason{breachReason(p.Name)}}, nil
	case errors.As(u.refusal, &wanting) && wanting.Short.Available < bound:
		again := wanting.Short
		again.Required = bound
		s := ofMandate(rules, &u.Session, again, shortfall(u.Org, u.ID, again))
		return Decision{Outcome: journal.Denied, Shortfall: &s, Asked: asked, Reasons: []journal.Reason{{Rule: "hold", Message: s.Sentence()}}}, nil
	}
	u.hold = id.New[id.Hold]()
	u.place = &billing.HoldRequest{
		Session: u.ID, Step: p.Step, Parent: u.CeilingHold, Amount: bound, Lines: lines, PriceVersion: table.Version(), Expires: u.Now.Add(p.Within),
	}
	u.admission = &Admission{
		kind: p.Kind, digest: p.Digest, now: g.clock.Now,
		grant: Grant{Org: u.Org, Session: u.ID, Step: p.Step, EffectKey: p.EffectKey, Epoch: u.Epoch, ExpiresAt: u.Now.Add(p.Within)},
	}
	return Decision{
		Outcome: journal.Admitted, Hold: &journal.HoldRef{ID: u.hold, Amount: bound}, Admission: u.admission, Asked: asked,
		Reasons: []journal.Reason{{Rule: "hold", Message: "held " + bound.Display() + " at most"}},
	}, nil
}

// Settle captures what an effect used, at most its hold, and releases the rest. The hold must be as it was placed: the commit fails if it
// is not.
func (g *Gate) Settle(ctx context.Context, u *Unit, hold journal.HoldRef, used Used) (billing.Settled, error) {
	if u.settle != nil {
		return billing.Settled{}, errors.New("a unit settles one effect")
	}
	cost, err := g.cost(&u.Session, used)
	if err != nil {
		return billing.Settled{}, err
	}
	result, err := billing.Outcome(hold.Amount, cost)
	if err != nil {
		return billing.Settled{}, fmt.Errorf("settle hold %s: %w", hold.ID, err)
	}
	u.settle = &settlement{hold: hold, used: cost, result: result}
	org, session, ctx := u.Org, u.ID, context.WithoutCancel(ctx)
	u.committed = func() { g.reportExcess(ctx, org, session, hold.ID, result) } // a draft that is not written lost nothing
	return result, nil
}
