package sandbox

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/canonical"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

const (
	// TickName is what a tick is called in the journal, on spans and in usage.
	TickName = "sandbox"
	// Size is the only size of sandbox that there is, as the price table names it.
	Size = "small"
	// MaxTick is the longest that a machine's time is held for at once, and for how long it is held unless a configuration says less.
	MaxTick = time.Minute
	// tickGrace is how long after its end a tick may still be settled before its hold counts as unsettled.
	tickGrace = time.Minute
	// heardLately is how fresh the last word of a machine must be for it to count as alive now. Its allocation reports every five seconds.
	heardLately = 15 * time.Second
)

// tick is a time for which a machine may live: admitted and held, before it begins.
type tick struct {
	decision gate.Decision
	digest   gate.Digest
}

// RefusedError says that the gate does not let a session have a machine, or keep the one that it has.
type RefusedError struct{ Decision gate.Decision }

func (e *RefusedError) Error() string {
	if len(e.Decision.Reasons) == 0 {
		return "the sandbox was refused"
	}
	return "the sandbox was refused: " + e.Decision.Reasons[0].Message
}

// Unwrap gives clients and models the reason in words.
func (e *RefusedError) Unwrap() error {
	text := "A sandbox was refused."
	if len(e.Decision.Reasons) > 0 {
		text = e.Decision.Reasons[0].Message
	}
	if e.Decision.Shortfall != nil {
		return fault.New(fault.PaymentRequired, "insufficient_funds", text)
	}
	return fault.New(fault.Forbidden, "permission_denied", text)
}

// beginTick holds the machine's time from now on, and settles the tick before it, in a transaction that has locked the session. With a
// *RefusedError the transaction must be rolled back: then the tick before stands.
func (s *Service) beginTick(ctx context.Context, tx pgx.Tx, l *journal.Locked, row sandboxdb.Sandbox) (*tick, error) {
	now, sandboxID := s.clock.Now(), row.ID
	entries, err := s.settleTicks(ctx, tx, now, l, usedUntil(row, now))
	if err != nil {
		return nil, err
	}
	p, err := s.tickProposal(sandboxID)
	if err != nil {
		return nil, err
	}
	// What was settled must be folded in before the gate looks at what is left.
	if _, err := l.Append(ctx, now, entries...); err != nil {
		return nil, err
	}
	d, err := s.gate.AdmitTx(ctx, tx, now, l, p)
	if err != nil {
		return nil, fmt.Errorf("ask for the time of sandbox %s: %w", sandboxID, err)
	}
	if d.Outcome != journal.Admitted {
		return nil, &RefusedError{d}
	}
	_, err = l.Append(ctx, now,
		journal.Entry{Step: p.Step, Payload: d.Event(p)},
		journal.Entry{Step: p.Step, Payload: journal.StepIntended{
			Kind: journal.KindSandbox, Name: TickName, EffectKey: p.EffectKey, Digest: hex.EncodeToString(p.Digest[:]), Hold: d.Hold,
			HeldMillis: s.cfg.Tick.Milliseconds(), Attempt: 1, QueuedAt: now,
		}})
	if err != nil {
		return nil, err
	}
	return &tick{decision: d, digest: p.Digest}, nil
}

func (s *Service) tickProposal(sandboxID id.Sandbox) (gate.Proposal, error) {
	step, millis := id.New[id.Step](), s.cfg.Tick.Milliseconds()
	digest, err := canonical.Digest(map[string]any{"sandbox": sandboxID, "size": Size, "milliseconds": millis, "step": step})
	if err != nil {
		return gate.Proposal{}, fmt.Errorf("digest a tick: %w", err)
	}
	return gate.Proposal{
		Step: step, Kind: gate.Sandbox, Name: TickName, Digest: digest, EffectKey: string(step), Within: s.cfg.Tick + tickGrace,
		Quantity: []gate.Priced{{Kind: prices.Sandbox, Ref: Size, Quantities: prices.Quantities{prices.Millisecond: millis}}},
	}, nil
}

// noteRefusal journals that the gate refused a session its machine. It is a commit of its own: what was tried with it was rolled back.
func (s *Service) noteRefusal(ctx context.Context, org id.Org, session id.Session, sandboxID id.Sandbox, refused *RefusedError) error {
	p, err := s.tickProposal(sandboxID)
	if err != nil {
		return err
	}
	return s.db.InTx(ctx, org, func(tx pgx.Tx) error {
		l, err := journal.Lock(ctx, tx, org, session)
		if err != nil || l.Status == journal.Terminated {
			return err
		}
		_, err = l.Append(ctx, s.clock.Now(), journal.Of(refused.Decision.Event(p)))
		return err
	})
}

// keep spends a tick's admission: from here on the machine may live until the tick's end.
func (s *Service) keep(ctx context.Context, org id.Org, sandboxID id.Sandbox, t *tick) error {
	if t == nil {
		return fault.New(fault.Forbidden, "permission_denied", "The time of the sandbox was not admitted.")
	}
	grant, err := t.decision.Admission.Consume(gate.Sandbox, t.digest)
	if err != nil {
		return err
	}
	if grant.Org != org {
		return errors.New("the admission is of another organisation than the sandbox")
	}
	err = s.db.InTx(ctx, org, func(tx pgx.Tx) error {
		n, err := sandboxdb.New(tx).HoldUntil(ctx, sandboxdb.HoldUntilParams{Seconds: s.cfg.Tick.Seconds(), OrgID: org, ID: sandboxID})
		if err == nil && n == 0 {
			err = fmt.Errorf("%w: it ended while its time was being held", errGone)
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("note until when the time of sandbox %s is held: %w", sandboxID, err)
	}
	return nil
}

// settleTicks settles the session's open tick, if there is one, with what was used of it until the given time.
func (s *Service) settleTicks(ctx context.Context, tx pgx.Tx, now time.Time, l *journal.Locked, until time.Time) ([]journal.Entry, error) {
	open, err := journal.OpenSteps(ctx, tx, l.Org, l.ID)
	if err != nil {
		return nil, err
	}
	var entries []journal.Entry
	for _, step := range open {
		if step.Kind != journal.KindSandbox {
			continue
		}
		_, entry, err := settleTick(ctx, tx, s.gate, now, l, step, until)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry)
	}
	return entries, nil
}

// SettleTick settles a tick of a session that ends now, in the transaction that ends it: captured is the time until now, as far as the
// machine's allocation was heard. The entry is for the caller to append.
func SettleTick(ctx context.Context, tx pgx.Tx, g *gate.Gate, now time.Time, l *journal.Locked, step journal.Step) (billing.Settled, journal.Entry, error) {
	row, err := sandboxdb.New(tx).LiveSandbox(ctx, sandboxdb.LiveSandboxParams{OrgID: l.Org, SessionID: l.ID})
	if err != nil && !errors.Is(err, pgx.ErrNoRows) { // without a row nobody says that it lived
		return billing.Settled{}, journal.Entry{}, fmt.Errorf("look for the sandbox of session %s: %w", l.ID, err)
	}
	return settleTick(ctx, tx, g, now, l, step, usedUntil(row, now))
}

// usedUntil is the evidence of how long a machine was used: until now, when its allocation was heard lately, and else until it was last heard.
// One that was never made ready was of no use.
func usedUntil(row sandboxdb.Sandbox, now time.Time) time.Time {
	if row.StartedAt == nil {
		return time.Time{}
	}
	if now.Sub(row.HeartbeatAt) <= heardLately {
		return now
	}
	return row.HeartbeatAt
}

func settleTick(ctx context.Context, tx pgx.Tx, g *gate.Gate, now time.Time, l *journal.Locked, step journal.Step, until time.Time) (billing.Settled, journal.Entry, error) {
	events, err := journal.Events(ctx, tx, l.Org, l.ID, journal.EventFilter{After: step.IntendedSeq - 1, Limit: 1})
	if err != nil {
		return billing.Settled{}, journal.Entry{}, err
	}
	if len(events) != 1 {
		return billing.Settled{}, journal.Entry{}, fmt.Errorf("tick %s has no intended event at %d", step.ID, step.IntendedSeq)
	}
	intended, err := journal.Decode[journal.StepIntended](events[0])
	if err != nil {
		return billing.Settled{}, journal.Entry{}, err
	}
	// Never more than was held for: time beyond it was not admitted, and a clock that jumped is no use.
	millis := min(max(0, until.Sub(step.IntendedAt).Milliseconds()), intended.HeldMillis)
	settled, err := g.SettleTx(ctx, tx, now, l, step.Hold, gate.Used{
		At:       step.IntendedAt,
		Quantity: []gate.Priced{{Kind: prices.Sandbox, Ref: Size, Quantities: prices.Quantities{prices.Millisecond: millis}}},
	})
	if err != nil {
		return billing.Settled{}, journal.Entry{}, fmt.Errorf("settle tick %s: %w", step.ID, err)
	}
	payload := journal.StepSettled{
		Kind: journal.KindSandbox, Name: TickName, Outcome: journal.Succeeded, Usage: journal.Usage{SandboxMillis: millis},
		Cost: settled.Captured, Entry: settled.Entry, Released: settled.Released,
	}
	l.PutSpan(tickSpan(l, step, payload, now, millis))
	return settled, journal.Entry{Step: step.ID, Payload: payload}, nil
}

// tickSpan carries the tick's cost: this span and no other.
func tickSpan(l *journal.Locked, step journal.Step, settled journal.StepSettled, now time.Time, millis int64) journal.Span {
	end := step.IntendedAt.Add(time.Duration(millis) * time.Millisecond)
	if end.After(now) {
		end = now
	}
	return journal.Span{
		TraceID: journal.TraceID(string(l.ID)), SpanID: journal.SpanID(string(step.ID)), ParentSpanID: journal.SpanID(string(l.ID)),
		Name: TickName, Operation: journal.OperationSandbox, StepID: string(step.ID), Seq: l.LastSeq + 1,
		AgentID: string(l.Agent.ID), AgentName: l.Agent.Name, AgentVersion: int64(l.Agent.Version), Principal: l.By.ID,
		StartTime: step.IntendedAt, EndTime: end, Status: journal.SpanOK, Decision: journal.Admitted,
		Usage:     map[string]int64{"sandbox_ms": millis},
		CostNanos: int64(settled.Cost), HoldID: string(step.Hold), LedgerEntryID: string(settled.Entry),
		Attributes: map[string]string{"ambit.outcome": settled.Outcome, "ambit.effect_key": step.EffectKey},
	}
}
