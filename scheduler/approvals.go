package scheduler

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
)

// Decide takes a member's decision on an approval. When it is answered by that, the session's journal says so and the session goes on. The
// faults are those of approval.Service.Decide; session_terminated for one whose session has ended, state_conflict while it is being stopped.
func (s *Service) Decide(ctx context.Context, tx pgx.Tx, org id.Org, asked id.Approval, in approval.Decision) (approval.Approval, error) {
	l, err := s.sessionOf(ctx, tx, org, asked)
	if err != nil {
		return approval.Approval{}, err
	}
	d, err := s.approvals.Decide(ctx, tx, org, asked, in)
	if err != nil || !d.Final {
		return d.Approval, err
	}
	return d.Approval, s.answered(ctx, tx, l, d)
}

// sessionOf locks the session that an approval is about: before the approval, as the session's worker does.
func (s *Service) sessionOf(ctx context.Context, tx pgx.Tx, org id.Org, asked id.Approval) (*journal.Locked, error) {
	a, err := approval.Get(ctx, tx, org, asked)
	if err != nil {
		return nil, err
	}
	if err := mayBegin(ctx, tx, org, a.Session, "", "", ""); err != nil { // an answer gives it work
		return nil, err
	}
	return journal.Lock(ctx, tx, org, a.Session)
}

// answered journals an answer and lets the session go on. A session whose ceiling can't be held again just now stops for that reason, with the
// answer in its journal: raising the limit or the balance lets it go on.
func (s *Service) answered(ctx context.Context, tx pgx.Tx, l *journal.Locked, d approval.Decided) error {
	if l.Status == journal.Terminated {
		return fault.New(fault.Conflict, "session_terminated", "The session has ended.")
	}
	began := !l.AtWork()
	now := s.clock.Now()
	if _, err := l.Append(ctx, now, journal.Of(d.Event())); err != nil {
		return err
	}
	if !began || !l.AtWork() {
		return nil
	}
	if err := s.cover(ctx, tx, l); err != nil {
		f := fault.As(err)
		if f.Kind != fault.PaymentRequired && f.Kind != fault.Conflict {
			return err
		}
		stop := journal.StopReason{Type: journal.StopBudgetReached, Limit: journal.LimitCost, Scope: "session", ScopeID: string(l.ID), Reason: f.Message}
		if f.Kind == fault.PaymentRequired {
			stop.Scope, stop.ScopeID = "organization", string(l.Org)
		}
		_, err := l.Append(ctx, now, journal.Of(journal.StatusIdle{StopReason: stop, InputEventIDs: []id.Event{}}))
		return err
	}
	if err := journal.WakeTx(ctx, tx, l.Org, l.ID); err != nil {
		return err
	}
	return s.inRoom(ctx, tx, &l.Session)
}

// lapse does what follows when the time of an approval is over, and tells those who may decide.
func (s *Service) lapse(ctx context.Context, tx pgx.Tx, org id.Org, asked id.Approval) error {
	l, err := s.sessionOf(ctx, tx, org, asked)
	if err != nil {
		return err
	}
	d, err := s.approvals.Lapse(ctx, tx, org, asked)
	if err != nil {
		return err
	}
	if d.Final {
		return s.answered(ctx, tx, l, d)
	}
	return s.approvals.Tell(ctx, tx, org, asked)
}

const (
	askEvery = time.Second
	askBatch = 100
)

// ApprovalKeeper tells people what waits for them, escalates what nobody answered, and ends what nobody answered then. It is a background
// service; several may run.
type ApprovalKeeper struct {
	db      *postgres.DB
	service *Service
	loop    *background.Loop
}

// NewApprovalKeeper makes a keeper over the service.
func NewApprovalKeeper(db *postgres.DB, service *Service, log *slog.Logger) *ApprovalKeeper {
	k := &ApprovalKeeper{db: db, service: service}
	k.loop = background.New("approval keeper", askEvery, log, k.RunOnce)
	return k
}

// Start begins to look for what is due.
func (k *ApprovalKeeper) Start(ctx context.Context) { k.loop.Start(ctx) }

// Started is closed after the first round.
func (k *ApprovalKeeper) Started() <-chan struct{} { return k.loop.Started() }

// Stop ends it, within ctx.
func (k *ApprovalKeeper) Stop(ctx context.Context) error { return k.loop.Stop(ctx) }

// RunOnce is one round. One approval that fails keeps no other waiting.
func (k *ApprovalKeeper) RunOnce(ctx context.Context) error {
	var due []approval.Ref
	err := k.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		due, err = approval.Due(ctx, tx, askBatch)
		return err
	})
	if err != nil {
		return err
	}
	var failed []error
	for _, one := range due {
		err := k.db.InTx(ctx, one.Org, func(tx pgx.Tx) error { return k.service.lapse(ctx, tx, one.Org, one.Approval) })
		if err != nil && !fault.IsCode(err, "session_terminated") && !fault.IsCode(err, "state_conflict") {
			failed = append(failed, fmt.Errorf("approval %s: %w", one.Approval, err))
		}
	}
	return errors.Join(failed...)
}

// Approvals keeps the rules of approvals and what waits.
func (s *Service) Approvals() *approval.Service { return s.approvals }
