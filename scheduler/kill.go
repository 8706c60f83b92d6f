package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox"
)

// KillReceipt says what a kill did, and when each part of it was true. Amounts are integer nano-dollars.
type KillReceipt struct {
	ID          id.Receipt    `json:"id"`
	Session     id.Session    `json:"session_id"`
	Epoch       int64         `json:"epoch"`
	By          journal.Actor `json:"by"`
	Reason      string        `json:"reason"`
	RequestedAt time.Time     `json:"requested_at"`
	// Sandbox is null while its end is under way; it has no id for a session that had none.
	Sandbox       *sandbox.Gone `json:"sandbox"`
	ChargedNanos  int64         `json:"charged_nanos"`
	HoldsReleased []ReleasedRef `json:"holds_released"`
	// UnsettledSteps had begun; what became of them is not known.
	UnsettledSteps []id.Step `json:"unsettled_steps"`
	// Signature is a compact JWS over the receipt without it; empty until the sandbox is known to be gone.
	Signature string `json:"signature,omitempty"`
}

// ReleasedRef is a hold and what of it was given back, in nano-dollars.
type ReleasedRef struct {
	Hold  id.Hold `json:"hold_id"`
	Nanos int64   `json:"released_nanos"`
}

// Kill ends a session at once, in the caller's transaction: from its commit on, no worker of it can journal, spend or reach a sandbox.
// After the commit the sandbox is ended and the receipt completed, in the background; FinishKill waits for that. Killing again, or a
// session that has ended otherwise and was never killed, changes nothing; the first returns the same receipt.
func (s *Service) Kill(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session, reason string) (KillReceipt, error) {
	l, err := journal.Lock(ctx, tx, org, session)
	if err != nil {
		return KillReceipt{}, err
	}
	if l.StopReason != nil && l.StopReason.Type == journal.StopKilled {
		r, err := readKillReceipt(ctx, tx, org, session)
		if err == nil && r.Signature == "" && s.clock.Now().Sub(r.RequestedAt) > finishWithin {
			// Whoever killed it died before it was done.
			postgres.AfterCommit(tx, func() { s.finishKills.Go(func() { s.finishKill(context.WithoutCancel(ctx), org, r) }) })
		}
		return r, err
	}
	if l.Status == journal.Terminated {
		return KillReceipt{}, fault.New(fault.Conflict, "session_terminated", "The session has ended already.")
	}
	now, by := s.clock.Now(), principal.From(ctx)
	l.Supersede()
	r := KillReceipt{
		ID: id.New[id.Receipt](), Session: session, Epoch: l.Epoch, By: by, Reason: reason, RequestedAt: now,
		HoldsReleased: []ReleasedRef{}, UnsettledSteps: []id.Step{},
	}
	open, err := journal.OpenSteps(ctx, tx, org, session)
	if err != nil {
		return KillReceipt{}, err
	}
	for _, step := range open {
		settled, err := s.settleUnknown(ctx, tx, l, step, "the session was killed while this was under way")
		if err != nil {
			return KillReceipt{}, err
		}
		r.UnsettledSteps = append(r.UnsettledSteps, step.ID)
		if settled.Released > 0 {
			r.HoldsReleased = append(r.HoldsReleased, ReleasedRef{Hold: step.Hold, Nanos: int64(settled.Released)})
		}
	}
	ceiling := l.CeilingHold
	released, err := s.gate.ReleaseCeiling(ctx, tx, now, l)
	if err != nil {
		return KillReceipt{}, err
	}
	if ceiling != "" {
		r.HoldsReleased = append(r.HoldsReleased, ReleasedRef{Hold: ceiling, Nanos: int64(released)})
	}
	stop := journal.StopReason{Type: journal.StopKilled, Receipt: r.ID, By: by.ID, Reason: reason}
	l.StopReason = &stop // for the span; the event below says the same
	l.PutSpan(rootSpan(&l.Draft, now))
	_, err = l.Append(ctx, now,
		journal.Of(journal.SessionUsage{Usage: l.Usage, Cost: journal.SessionCost{Charged: l.Charged, Released: released}}),
		journal.Of(journal.StatusTerminated{StopReason: stop}))
	if err != nil {
		return KillReceipt{}, err
	}
	r.ChargedNanos = int64(l.Charged)
	if err := l.PutReceipt(ctx, now, r.ID, r); err != nil {
		return KillReceipt{}, err
	}
	postgres.AfterCommit(tx, func() { s.finishKills.Go(func() { s.finishKill(context.WithoutCancel(ctx), org, r) }) })
	return r, nil
}

// FinishKill waits, until ctx ends, for the receipt of a kill to be complete, and returns it as it is then.
func (s *Service) FinishKill(ctx context.Context, org id.Org, session id.Session) (KillReceipt, error) {
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		var r KillReceipt
		err := s.db.InTx(context.WithoutCancel(ctx), org, func(tx pgx.Tx) (err error) {
			r, err = readKillReceipt(context.WithoutCancel(ctx), tx, org, session)
			return err
		})
		if err != nil || r.Signature != "" {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, nil
		case <-poll.C:
		}
	}
}

// finishWithin bounds the end of a killed session's sandbox and the completion of its receipt.
const finishWithin = 30 * time.Second

// finishKill ends the sandbox and completes the receipt. If this process dies first, the sandbox service's own passes end the sandbox, as
// its session is terminated, and asking for the kill once more completes the receipt.
func (s *Service) finishKill(ctx context.Context, org id.Org, r KillReceipt) {
	ctx, cancel := context.WithTimeout(ctx, finishWithin)
	defer cancel()
	gone := &sandbox.Gone{At: s.clock.Now(), By: "control plane", Detail: "the session had no sandbox"}
	if s.sandboxes != nil {
		got, err := s.sandboxes.Kill(ctx, org, r.Session, "killed")
		if err != nil {
			s.log.ErrorContext(ctx, "could not end the sandbox of a killed session", "session", r.Session, "error", err)
			return
		}
		if got == nil { // it was ended before, or there was none
			got, err = s.sandboxes.LastGone(ctx, org, r.Session)
		}
		if err != nil {
			s.log.ErrorContext(ctx, "the sandbox of a killed session is not proved to be gone", "session", r.Session, "error", err)
			return
		}
		if got != nil {
			gone = got
		}
	}
	r.Sandbox = gone
	if s.signer != nil {
		signature, err := s.signer.Sign(ctx, r)
		if err != nil {
			s.log.ErrorContext(ctx, "could not sign the receipt of a kill", "session", r.Session, "error", err)
			return
		}
		r.Signature = signature
	}
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) error {
		return journal.CompleteReceipt(ctx, tx, s.clock.Now(), org, r.ID, r, r.Signature)
	})
	if err != nil {
		s.log.ErrorContext(ctx, "could not complete the receipt of a kill", "session", r.Session, "error", err)
	}
}

func readKillReceipt(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) (KillReceipt, error) {
	row, err := journal.KillReceipt(ctx, tx, org, session)
	if err != nil {
		return KillReceipt{}, err
	}
	var r KillReceipt
	if err := json.Unmarshal(row.Body, &r); err != nil {
		return KillReceipt{}, fmt.Errorf("read receipt %s: %w", row.ID, err)
	}
	return r, nil
}

// settleUnknown settles a step of which nobody knows what became, by the declared policy: of a model call the counted input is captured,
// of anything else nothing, and the rest of the hold is released. The journal says that the outcome is unknown.
func (s *Service) settleUnknown(ctx context.Context, tx pgx.Tx, l *journal.Locked, step journal.Step, why string) (billing.Settled, error) {
	settled, entries, err := unknownOutcome(ctx, tx, s.gate, s.clock.Now(), l, step, why)
	if err != nil {
		return billing.Settled{}, err
	}
	_, err = l.Append(ctx, s.clock.Now(), entries...)
	return settled, err
}
