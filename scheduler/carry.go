package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/scheduler/internal/stopdb"
)

// carryOut stops what an order covers, until nothing is left that works, and completes its receipt. The process that was given the order has
// it; a StopKeeper takes one up whose process is silent. Two that carry out the same are a waste and no harm: a session is killed once.
func (s *Service) carryOut(ctx context.Context, org id.Org, order id.Stop) error {
	var o StopOrder
	read := func() error {
		return s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
			if _, err = stopdb.New(tx).CarryStop(ctx, stopdb.CarryStopParams{CarrySeconds: carryFor.Seconds(), OrgID: org, ID: order, Mine: true}); err != nil {
				return fmt.Errorf("keep order %s: %w", order, err)
			}
			o, err = s.GetStop(ctx, tx, org, order)
			return err
		})
	}
	if err := read(); err != nil || o.CompletedAt != nil {
		return err
	}
	ctx = principal.With(ctx, o.By) // whoever gave the order stands on the receipts, whoever carries it out
	finishing := &finishers{slots: make(chan struct{}, finishLanes)}
	defer finishing.Wait()
	for o.FencedAt == nil {
		found, failed, err := s.stopBatch(ctx, org, o, finishing)
		if err != nil && failed >= found {
			return err
		}
		if err != nil { // one that can't be stopped just now must not keep the others alive: it is tried again
			s.log.ErrorContext(ctx, "some sessions could not be stopped yet", "stop", order, "failed", failed, "error", err)
		}
		if found == 0 {
			if err := s.endIdleMachines(ctx, org, o); err != nil {
				return err
			}
			now := s.clock.Now()
			err := s.db.InTx(ctx, org, func(tx pgx.Tx) error {
				return stopdb.New(tx).FenceStop(ctx, stopdb.FenceStopParams{Now: &now, OrgID: org, ID: order})
			})
			if err != nil {
				return fmt.Errorf("fence order %s: %w", order, err)
			}
		}
		if err := read(); err != nil {
			return err
		}
	}
	finishing.Wait()
	return s.completeStop(ctx, org, o)
}

// finishers end the sandboxes of the trees that were killed already, while others are still being killed.
type finishers struct {
	sync.WaitGroup

	slots chan struct{}
}

// stopBatch kills some of what the order covers, each tree in a transaction of its own. It says how many it found, and how many of them
// could not be killed, and why.
func (s *Service) stopBatch(ctx context.Context, org id.Org, o StopOrder, finishing *finishers) (_, _ int, err error) {
	var found []id.Session
	err = s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		if found, err = working(ctx, tx, org, o.Scope, stopBatch); err != nil || len(found) > 0 || !o.IncludeIdle {
			return err
		}
		found, err = idle(ctx, tx, org, o.Scope, true, nil, stopBatch)
		return err
	})
	if err != nil {
		return 0, 0, err
	}
	var mu sync.Mutex
	var failed []error
	var lanes sync.WaitGroup
	next := make(chan id.Session)
	for range min(stopLanes, len(found)) {
		lanes.Go(func() {
			for session := range next {
				if err := s.stopOne(ctx, org, o, session, finishing); err != nil {
					mu.Lock()
					failed = append(failed, fmt.Errorf("stop %s: %w", session, err))
					mu.Unlock()
				}
			}
		})
	}
	for _, session := range found {
		next <- session
	}
	close(next)
	lanes.Wait()
	return len(found), len(failed), errors.Join(failed...)
}

func (s *Service) stopOne(ctx context.Context, org id.Org, o StopOrder, session id.Session, finishing *finishers) error {
	begun := false
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		_, begun, err = s.kill(ctx, tx, org, session, o.Reason, &o.ID)
		return err
	})
	if fault.IsCode(err, "session_terminated") {
		return nil // it ended by itself meanwhile
	}
	if err == nil && begun {
		seen := s.clock.Now()
		finishing.Go(func() {
			finishing.slots <- struct{}{}
			defer func() { <-finishing.slots }()
			if err := s.finishKill(ctx, org, session, seen); err != nil {
				s.log.ErrorContext(ctx, "the receipts of a kill are not complete yet; it is tried again", "session", session, "error", err)
			}
		})
	}
	return err
}

// endIdleMachines saves and ends the machines of the sessions that stay: a program that one left running does not outlive the order.
func (s *Service) endIdleMachines(ctx context.Context, org id.Org, o StopOrder) error {
	if s.sandboxes == nil {
		return nil
	}
	var found []id.Session
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) error {
		live, err := sandbox.SessionsWithMachine(ctx, tx, org)
		if err != nil || len(live) == 0 {
			return err
		}
		found, err = idle(ctx, tx, org, o.Scope, false, live, int32(len(live))) //nolint:gosec // at most as many as there are machines
		return err
	})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var failed []error
	var all sync.WaitGroup
	for part := range slices.Chunk(found, endsAtOnce) {
		for _, session := range part {
			all.Go(func() {
				err := s.sandboxes.Release(ctx, org, session, sandbox.ReasonReleased)
				if err != nil { // better without a save than alive
					s.log.WarnContext(ctx, "the machine of an idle session could not be saved, and is ended", "session", session, "error", err)
					_, err = s.sandboxes.Kill(ctx, org, session, sandbox.ReasonKilled)
				}
				if err != nil {
					mu.Lock()
					failed = append(failed, fmt.Errorf("end the machine of %s: %w", session, err))
					mu.Unlock()
				}
			})
		}
		all.Wait()
	}
	return errors.Join(failed...)
}

// completeStop waits until the receipts of the sessions are complete, and signs the order's own.
func (s *Service) completeStop(ctx context.Context, org id.Org, o StopOrder) error {
	receipts, open, err := s.stopReceipts(ctx, org, o.ID)
	if err != nil {
		return err
	}
	for _, root := range open {
		if err := s.finishKill(ctx, org, root, s.clock.Now()); err != nil {
			return err
		}
	}
	if len(open) > 0 {
		if receipts, open, err = s.stopReceipts(ctx, org, o.ID); err != nil {
			return err
		}
		if len(open) > 0 {
			return fmt.Errorf("%d trees of order %s are not finished", len(open), o.ID)
		}
	}
	r := stopReceipt(o, receipts)
	if s.signer != nil {
		if r.Signature, err = s.signer.Sign(ctx, r); err != nil {
			return fmt.Errorf("sign the receipt of order %s: %w", o.ID, err)
		}
	}
	body, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("write the receipt of order %s: %w", o.ID, err)
	}
	now := s.clock.Now()
	return s.db.InTx(ctx, org, func(tx pgx.Tx) error {
		return stopdb.New(tx).CompleteStop(ctx, stopdb.CompleteStopParams{Body: body, Signature: &r.Signature, Now: &now, OrgID: org, ID: o.ID})
	})
}

// stopReceipts reads the receipts of an order's sessions, and which trees are not complete.
func (s *Service) stopReceipts(ctx context.Context, org id.Org, order id.Stop) (receipts []KillReceipt, open []id.Session, err error) {
	err = s.db.InTx(ctx, org, func(tx pgx.Tx) error {
		rows, err := stopdb.New(tx).StopReceipts(ctx, stopdb.StopReceiptsParams{OrgID: org, StopID: string(order)})
		if err != nil {
			return fmt.Errorf("read the receipts of order %s: %w", order, err)
		}
		for _, row := range rows {
			r, err := decodeReceipt(string(row.ID), row.Body)
			if err != nil {
				return err
			}
			receipts = append(receipts, r)
			if root := id.Session(row.RootSessionID); row.CompletedAt == nil && !slices.Contains(open, root) {
				open = append(open, root)
			}
		}
		return nil
	})
	return receipts, open, err
}

func stopReceipt(o StopOrder, receipts []KillReceipt) StopReceipt {
	out := StopReceipt{
		Type: StopReceiptType, ID: o.ID, Scope: o.Scope, By: o.By, Reason: o.Reason, IncludeIdle: o.IncludeIdle, RequestedAt: o.RequestedAt, FencedAt: *o.FencedAt,
		Sessions: []StoppedSession{},
	}
	for _, r := range receipts {
		one := StoppedSession{Session: r.Session, Receipt: r.ID, Epoch: r.Epoch, FencedAt: r.FencedAt, LastBilledAt: r.LastBilledAt, Unsettled: len(r.UnsettledSteps)}
		for _, h := range r.HoldsReleased {
			one.ReleasedNanos += h.Nanos
		}
		if r.Sandbox != nil && r.Sandbox.Sandbox != "" {
			one.SandboxGoneAt = &r.Sandbox.At
		}
		out.ReleasedNanos += one.ReleasedNanos
		out.LastBilledAt, out.GoneAt = later(out.LastBilledAt, one.LastBilledAt), later(out.GoneAt, one.SandboxGoneAt)
		out.Sessions = append(out.Sessions, one)
	}
	return out
}

func later(a, b *time.Time) *time.Time {
	if a == nil || (b != nil && b.After(*a)) {
		return b
	}
	return a
}
