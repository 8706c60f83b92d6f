package gate

import (
	"context"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
)

// Readmit lets a new worker take up a step that an earlier one had begun, under the step's own effect key and its own hold, at the new
// epoch. It makes no second effect possible: the other side knows the key. It is refused when the step's hold is settled or the permission
// is gone since.
func (g *Gate) Readmit(ctx context.Context, tx pgx.Tx, now time.Time, session *journal.Locked, p Proposal, open journal.Step) (Decision, error) {
	if open.SettledSeq != 0 || open.ID != p.Step || open.EffectKey != p.EffectKey {
		return Decision{}, errors.New("only an open step can be taken up again, under its own key")
	}
	if err := holdStill(ctx, tx, session.Org); err != nil {
		return Decision{}, err
	}
	rules, err := g.policies.Now(ctx, tx, session.Org)
	if err != nil {
		return Decision{}, err
	}
	hold, err := billing.ReadHold(ctx, tx, session.Org, open.Hold)
	if err != nil {
		return Decision{}, err
	}
	reason, asked := permitted(rules, now, &session.Session, p, hold.Amount)
	if reason == nil {
		reason = mandated(rules, now, &session.Session, p, hold.Amount)
	}
	if reason != nil {
		return Decision{Outcome: journal.Denied, Reasons: []journal.Reason{*reason}, Asked: asked}, nil
	}
	if hold.State != "held" && hold.State != "unsettled" {
		return Decision{Outcome: journal.Denied, Reasons: []journal.Reason{{Rule: "hold", Message: "The hold of this step is settled."}}}, nil
	}
	a := &Admission{
		kind: p.Kind, digest: p.Digest, now: g.clock.Now,
		grant: Grant{Org: session.Org, Session: session.ID, Step: p.Step, EffectKey: p.EffectKey, Epoch: session.Epoch, ExpiresAt: now.Add(p.Within)},
	}
	postgres.AfterCommit(tx, a.arm)
	return Decision{
		Outcome: journal.Admitted, Hold: &journal.HoldRef{ID: hold.ID, Amount: hold.Amount}, Admission: a, Asked: asked,
		Reasons: []journal.Reason{{Rule: "resumed", Message: "taken up again under its own effect key and hold"}},
	}, nil
}
