package sandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

const (
	// maxRenewals bounds how many machines one pass of the meter renews, meterLanes how many at the same time.
	maxRenewals = 500
	meterLanes  = 4
	// saveTime bounds the save of a machine whose time can no longer be held.
	saveTime = 30 * time.Second
)

// lead is how long before a tick's end the next one is asked for: time enough to save the files, should it be refused.
func (s *Service) lead() time.Duration { return s.cfg.Tick / 4 }

// meter holds the next tick of each machine whose present one is about to end, whether its session is at work or at rest. Any process may do
// it: who comes second finds it done. A machine that may not be kept is saved and ended.
func (s *Service) meter(ctx context.Context) error {
	var due []sandboxdb.Sandbox
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		due, err = sandboxdb.New(tx).ListDue(ctx, sandboxdb.ListDueParams{Seconds: s.lead().Seconds(), Most: maxRenewals})
		return err
	})
	if err != nil {
		return fmt.Errorf("list the sandboxes whose time is to be held: %w", err)
	}
	next := make(chan sandboxdb.Sandbox)
	var lanes sync.WaitGroup
	for range min(meterLanes, len(due)) {
		lanes.Go(func() {
			for row := range next {
				s.meterOne(ctx, row)
			}
		})
	}
	for _, row := range due {
		next <- row
	}
	close(next)
	lanes.Wait()
	return ctx.Err()
}

func (s *Service) meterOne(ctx context.Context, row sandboxdb.Sandbox) {
	err := s.renew(ctx, row)
	var refused *RefusedError
	switch {
	case err == nil, errors.Is(err, errGone), ctx.Err() != nil:
	case errors.As(err, &refused):
		// Beside the pass: a save takes its time, and others are due.
		if _, under := s.refused.LoadOrStore(row.ID, true); !under {
			s.errand(func() {
				defer s.refused.Delete(row.ID)
				s.endRefused(context.WithoutCancel(ctx), row, refused)
			})
		}
	default: // one that can't be renewed must not keep the others from it
		s.log.ErrorContext(ctx, "the time of a sandbox could not be held", "sandbox", row.ID, "error", err)
	}
}

// renew settles a machine's tick and holds the next.
func (s *Service) renew(ctx context.Context, row sandboxdb.Sandbox) error {
	var next *tick
	err := s.db.InTx(ctx, row.OrgID, func(tx pgx.Tx) error {
		l, err := journal.Lock(ctx, tx, row.OrgID, row.SessionID)
		if err != nil {
			return err
		}
		held, err := sandboxdb.New(tx).Held(ctx, sandboxdb.HeldParams{Seconds: s.lead().Seconds(), OrgID: row.OrgID, ID: row.ID})
		if errors.Is(err, pgx.ErrNoRows) {
			return errGone
		}
		if err != nil || held || l.Status == journal.Terminated { // of a session that has ended, the machine is ended
			return err
		}
		next, err = s.beginTick(ctx, tx, l, row)
		return err
	})
	if err != nil || next == nil {
		return err
	}
	return s.keep(ctx, row.OrgID, row.ID, next)
}

// endRefused saves and ends a machine that may not be kept. The tick before still covers the save; when that is over and nothing could be
// saved, the machine is ended without: it does not live on what nobody holds.
func (s *Service) endRefused(ctx context.Context, row sandboxdb.Sandbox, refused *RefusedError) {
	reason := ReasonNotPermitted
	if refused.Decision.Shortfall != nil {
		reason = ReasonBudget
	}
	s.log.InfoContext(ctx, "a sandbox may not be kept; it is saved and ended", "org", row.OrgID, "session", row.SessionID, "sandbox", row.ID, "why", refused.Error())
	if err := s.noteRefusal(ctx, row.OrgID, row.SessionID, row.ID, refused); err != nil {
		s.log.ErrorContext(ctx, "a refusal could not be journalled", "sandbox", row.ID, "error", err)
	}
	saving, cancel := context.WithTimeout(ctx, saveTime)
	err := s.release(saving, row, reason, false)
	cancel()
	if err == nil {
		return
	}
	over, heldErr := s.over(ctx, row.OrgID, row.ID)
	if heldErr != nil || !over {
		s.log.WarnContext(ctx, "a sandbox that may not be kept could not be saved yet", "sandbox", row.ID, "error", errors.Join(err, heldErr))
		return // the next pass comes before the tick's end
	}
	s.log.ErrorContext(ctx, "a sandbox that may not be kept could not be saved, and is ended without", "sandbox", row.ID, "error", err)
	if _, err := s.end(ctx, row.OrgID, row.ID, reason, err.Error(), nil); err != nil {
		s.log.ErrorContext(ctx, "an end could not be recorded", "sandbox", row.ID, "error", err)
	}
	if _, err := s.finish(ctx, row, reason); err != nil {
		s.log.ErrorContext(ctx, "a sandbox that may not be kept could not be ended", "sandbox", row.ID, "error", err)
	}
}

// over says that nothing holds the machine's time any more.
func (s *Service) over(ctx context.Context, org id.Org, sandboxID id.Sandbox) (bool, error) {
	held := false
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		held, err = sandboxdb.New(tx).Held(ctx, sandboxdb.HeldParams{OrgID: org, ID: sandboxID})
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return false, nil // it has ended
	}
	return !held, err
}
