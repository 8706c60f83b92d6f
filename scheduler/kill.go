package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/scheduler/internal/stopdb"
)

// Kill ends a session and all sessions below it at once, in the caller's transaction: from its commit on, no worker of any of them can
// journal, spend or reach a sandbox. After the commit the sandboxes are ended and the receipts completed, in the background; FinishKill
// waits for that. Killing again changes nothing and returns the same receipt. A session that has ended otherwise is refused, unless
// sessions below it still live: then they are what is stopped.
func (s *Service) Kill(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session, reason string) (KillReceipt, error) {
	r, begun, err := s.kill(ctx, tx, org, session, reason, nil)
	if err != nil {
		return KillReceipt{}, err
	}
	if begun || (!r.Done() && s.clock.Now().Sub(r.RequestedAt) > finishWithin) { // whoever killed it died before it was done
		postgres.AfterCommit(tx, func() { s.finishInBackground(ctx, org, session) })
	}
	return r, nil
}

// kill is Kill, and leaves what follows the commit to the caller. begun is false when there was nothing to do: it was killed before.
func (s *Service) kill(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session, reason string, order *id.Stop) (_ KillReceipt, begun bool, err error) {
	root, err := journal.Lock(ctx, tx, org, session)
	if err != nil {
		return KillReceipt{}, false, err
	}
	if r, err := readKillReceipt(ctx, tx, org, session); !fault.IsCode(err, "not_found") {
		return r, false, err
	}
	t := &tree{root: root, receipts: map[id.Session]*KillReceipt{}}
	if err := t.lock(ctx, tx); err != nil {
		return KillReceipt{}, false, err
	}
	if root.Status == journal.Terminated && len(t.live) == 0 {
		return KillReceipt{}, false, fault.New(fault.Conflict, "session_terminated", "The session has ended already.")
	}
	now, by := s.clock.Now(), principal.From(ctx)
	if root.Status == journal.Terminated { // it stands on the receipt as the root of those that are stopped
		t.receipts[root.ID] = &KillReceipt{KilledSession: KilledSession{
			Session: root.ID, Epoch: root.Epoch, ChargedNanos: int64(root.Charged), HoldsReleased: []ReleasedRef{}, UnsettledSteps: []id.Step{},
		}}
		t.order = append([]id.Session{root.ID}, t.order...)
	}
	for _, l := range t.live {
		r := &KillReceipt{ID: id.New[id.Receipt]()}
		if r.KilledSession, err = s.end(ctx, tx, now, l, r.ID, by, reason); err != nil {
			return KillReceipt{}, false, err
		}
		t.receipts[l.ID] = r
	}
	for _, one := range t.order {
		r := t.receipts[one]
		if r.ID == "" {
			r.ID = id.New[id.Receipt]()
		}
		r.Type, r.By, r.Reason, r.RequestedAt, r.Stop = KillReceiptType, by, reason, now, order
		r.Children, r.AlreadyEnded = t.below(one), t.ended[one]
		if err := t.put(ctx, tx, now, one, r); err != nil {
			return KillReceipt{}, false, err
		}
	}
	return *t.receipts[root.ID], true, nil
}

// end terminates one locked session: a new epoch, so that whoever works on it is fenced; what was under way settled as unknown; its holds
// and its ceiling released.
func (s *Service) end(ctx context.Context, tx pgx.Tx, now time.Time, l *journal.Locked, receipt id.Receipt, by journal.Actor, reason string) (KilledSession, error) {
	l.Supersede()
	out := KilledSession{Session: l.ID, Epoch: l.Epoch, HoldsReleased: []ReleasedRef{}, UnsettledSteps: []id.Step{}}
	if l.Parent != "" {
		out.Parent = &l.Parent
	}
	open, err := journal.OpenSteps(ctx, tx, l.Org, l.ID)
	if err != nil {
		return KilledSession{}, err
	}
	var ticks []journal.Step
	for _, step := range open {
		if step.Kind == journal.KindSandbox {
			ticks = append(ticks, step)
			continue
		}
		settled, err := s.settleUnknown(ctx, tx, now, l, step, "the session was killed while this was under way")
		if err != nil {
			return KilledSession{}, err
		}
		out.UnsettledSteps = append(out.UnsettledSteps, step.ID)
		if settled.Released > 0 {
			out.HoldsReleased = append(out.HoldsReleased, ReleasedRef{Hold: step.Hold, Nanos: int64(settled.Released), At: now})
		}
	}
	for _, step := range ticks { // what was used of it is known; that nothing is billed after it, the end of this transaction sees to
		settled, entry, err := sandbox.SettleTick(ctx, tx, s.gate, now, l, step)
		if err != nil {
			return KilledSession{}, err
		}
		if _, err := l.Append(ctx, now, entry); err != nil {
			return KilledSession{}, err
		}
		if settled.Released > 0 {
			out.HoldsReleased = append(out.HoldsReleased, ReleasedRef{Hold: step.Hold, Nanos: int64(settled.Released), At: now})
		}
	}
	ceiling := l.CeilingHold
	released, err := s.gate.ReleaseCeiling(ctx, tx, now, l)
	if err != nil {
		return KilledSession{}, err
	}
	if ceiling != "" {
		out.HoldsReleased = append(out.HoldsReleased, ReleasedRef{Hold: ceiling, Nanos: int64(released), At: now})
	}
	stop := journal.StopReason{Type: journal.StopKilled, Receipt: receipt, By: by.ID, Reason: reason}
	l.StopReason = &stop // for the span; the event below says the same
	l.PutSpan(rootSpan(&l.Draft, now))
	_, err = l.Append(ctx, now,
		journal.Of(journal.SessionUsage{Usage: l.Usage, Cost: journal.SessionCost{Charged: l.Charged, Released: released}}),
		journal.Of(journal.StatusTerminated{StopReason: stop}))
	if err != nil {
		return KilledSession{}, err
	}
	out.ChargedNanos = int64(l.Charged)
	last, err := stopdb.New(tx).LastCapture(ctx, stopdb.LastCaptureParams{OrgID: l.Org, SessionID: l.ID})
	if errors.Is(err, pgx.ErrNoRows) {
		return out, nil
	}
	if err != nil {
		return KilledSession{}, fmt.Errorf("read the last capture of %s: %w", l.ID, err)
	}
	at := last.CreatedAt.UTC()
	out.LastBilled, out.LastBilledAt = &Billed{Entry: last.ID, Nanos: int64(last.AmountNanos), At: at}, &at
	if last.StepID != "" {
		step := id.Step(last.StepID)
		out.LastBilled.Step = &step
	}
	return out, nil
}

// tree is a session and those below it, while they are being ended.
type tree struct {
	root *journal.Locked
	// live are those that have not ended, locked, in the order of their locks: the root first if it lives.
	live []*journal.Locked
	// order is live by id; children is who started whom, the ended included.
	order    []id.Session
	children map[id.Session][]id.Session
	ended    map[id.Session]int // how many below it had ended before
	receipts map[id.Session]*KillReceipt
}

// lock finds and locks what lives below the root, whose row is locked already.
//
// Rows are locked level by level, parents before children, and those of one level by their ids. Everybody who locks two sessions does so in
// this order: a kill, and an invoke that starts a session below another, which locks the parent and then the row that it just made. So of two
// kills whose trees overlap, one has the topmost session that both want and the other waits for it with nothing below it in hand. A batch of
// the committer waits for no session's row (SKIP LOCKED), and a unit alone waits for one with nothing in hand. Holds and balances come after
// all sessions, for everybody, so nobody who has them waits for a session.
//
// Nothing escapes: whoever starts a session below another has locked that other and seen that it lives. It has committed before this lock
// was had, and then its session is found here; or it comes after this transaction, and is refused.
func (t *tree) lock(ctx context.Context, tx pgx.Tx) error {
	q := stopdb.New(tx)
	t.children, t.ended = map[id.Session][]id.Session{}, map[id.Session]int{}
	parent := map[id.Session]id.Session{}
	if t.root.Status != journal.Terminated {
		t.live, t.order = append(t.live, t.root), append(t.order, t.root.ID)
	}
	level := []string{string(t.root.ID)}
	for len(level) > 0 {
		found, err := q.Children(ctx, stopdb.ChildrenParams{OrgID: t.root.Org, Parents: level})
		if err != nil {
			return fmt.Errorf("find the sessions below %s: %w", t.root.ID, err)
		}
		level = level[:0]
		for _, child := range found {
			parent[child.ID] = id.Session(child.ParentID)
			t.children[id.Session(child.ParentID)] = append(t.children[id.Session(child.ParentID)], child.ID)
			level = append(level, string(child.ID)) // one that has ended may have started others that live
			if child.Status != string(journal.Terminated) {
				l, err := journal.Lock(ctx, tx, t.root.Org, child.ID)
				if err != nil {
					return err
				}
				if l.Status != journal.Terminated {
					t.live, t.order = append(t.live, l), append(t.order, l.ID)
					continue
				}
			}
			for up := child.ID; up != t.root.ID; {
				up = parent[up]
				t.ended[up]++
			}
		}
	}
	return nil
}

// below is what the receipt of a session says of those below it.
func (t *tree) below(session id.Session) []KilledSession {
	out := []KilledSession{}
	for level := t.children[session]; len(level) > 0; {
		var next []id.Session
		for _, child := range level {
			if r := t.receipts[child]; r != nil {
				out = append(out, r.KilledSession)
			}
			next = append(next, t.children[child]...)
		}
		level = next
	}
	return out
}

func (t *tree) put(ctx context.Context, tx pgx.Tx, now time.Time, session id.Session, r *KillReceipt) error {
	l := t.root
	if i := slices.IndexFunc(t.live, func(l *journal.Locked) bool { return l.ID == session }); i >= 0 {
		l = t.live[i]
	}
	if err := l.PutReceipt(ctx, now, r.ID, r); err != nil {
		return err
	}
	var order *string
	if r.Stop != nil {
		text := string(*r.Stop)
		order = &text
	}
	err := stopdb.New(tx).TagReceipt(ctx, stopdb.TagReceiptParams{StopID: order, RootSessionID: &t.root.ID, OrgID: t.root.Org, ID: r.ID})
	if err != nil {
		return fmt.Errorf("note whose receipt %s is: %w", r.ID, err)
	}
	return nil
}

// settleUnknown settles a step of which nobody knows what became, by the declared policy: of a model call the counted input is captured,
// of anything else nothing, and the rest of the hold is released. The journal says that the outcome is unknown.
func (s *Service) settleUnknown(ctx context.Context, tx pgx.Tx, now time.Time, l *journal.Locked, step journal.Step, why string) (billing.Settled, error) {
	settled, entries, err := unknownOutcome(ctx, tx, s.gate, now, l, step, why)
	if err != nil {
		return billing.Settled{}, err
	}
	_, err = l.Append(ctx, now, entries...)
	return settled, err
}
