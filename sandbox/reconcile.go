package sandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/nomad"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

// What Nomad says and what the tables say are brought together here. Nomad tells
// what became of a process; the tables tell what it was for. An allocation
// reports its own end first where it can; Nomad's word counts where it could not
// (it was killed, its node is gone, it never began).

// settleIn is how young a machine's record may be before its absence from
// Nomad's list means anything: it is written before the dispatch.
const settleIn = 30 * time.Second

func (s *Service) follower() nomad.Follower {
	return nomad.Follower{
		Snapshot: func(ctx context.Context, all []nomad.Allocation) {
			if err := s.compare(ctx, all); err != nil && ctx.Err() == nil {
				s.log.ErrorContext(ctx, "comparing with Nomad failed", "error", err)
			}
		},
		Allocation: func(ctx context.Context, a nomad.Allocation) {
			if !a.State.Final() {
				return
			}
			sandboxID, ok := s.sandboxOf(a.JobID)
			if !ok {
				return
			}
			if err := s.allocationEnded(ctx, sandboxID, a); err != nil && ctx.Err() == nil {
				s.log.ErrorContext(ctx, "an allocation's end could not be recorded", "sandbox", sandboxID, "error", err)
			}
		},
		Node: func(ctx context.Context, n nomad.Node) {
			s.log.InfoContext(ctx, "node changed", "node", n.Name, "state", n.State, "eligible", n.Eligible, "draining", n.Draining)
		},
	}
}

func (s *Service) sandboxOf(jobID string) (id.Sandbox, bool) {
	text, ok := s.nomad.SandboxOf(jobID)
	if !ok {
		return "", false
	}
	sandboxID, err := id.Parse[id.Sandbox](text)
	return sandboxID, err == nil
}

// compare brings the tables in line with a complete list.
func (s *Service) compare(ctx context.Context, all []nomad.Allocation) error {
	var live []sandboxdb.Sandbox
	var warm []sandboxdb.WarmSandbox
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		q := sandboxdb.New(tx)
		if live, err = q.ListLive(ctx); err != nil {
			return err
		}
		warm, err = q.ListWarm(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("list sandboxes: %w", err)
	}
	placed := map[id.Sandbox]nomad.Allocation{}
	for _, a := range all {
		sandboxID, ok := s.sandboxOf(a.JobID)
		if !ok {
			continue
		}
		// Of several, one that runs counts.
		if was, seen := placed[sandboxID]; !seen || was.State.Final() {
			placed[sandboxID] = a
		}
	}
	known := map[id.Sandbox]bool{}
	var errs []error
	young := s.clock.Now().Add(-settleIn)
	for _, row := range live {
		known[row.ID] = true
		switch a, seen := placed[row.ID]; {
		case seen && a.State.Final():
			errs = append(errs, s.allocationEnded(ctx, row.ID, a))
		case !seen && row.CreatedAt.Before(young):
			_, err := s.end(ctx, row.OrgID, row.ID, ReasonAllocVanished, "Nomad has no allocation of it", nil)
			errs = append(errs, err)
		}
	}
	for _, row := range warm {
		known[row.ID] = true
		switch a, seen := placed[row.ID]; {
		case seen && a.State.Final():
			errs = append(errs, s.allocationEnded(ctx, row.ID, a))
		case !seen && row.CreatedAt.Before(young), row.Build != s.build:
			s.dropWarm(ctx, row, "outdated")
		}
	}
	for sandboxID, a := range placed {
		if !known[sandboxID] && !a.State.Final() && !a.Stopping {
			s.log.WarnContext(ctx, "stopping an allocation that nothing refers to", "sandbox", sandboxID, "job", a.JobID)
			errs = append(errs, s.nomad.Stop(ctx, a.JobID, false))
		}
	}
	return errors.Join(append(errs, s.forget(ctx))...)
}

// forget removes the records of jobs that are over, so that Nomad's lists do not
// grow with every sandbox that ever was.
func (s *Service) forget(ctx context.Context) error {
	jobs, err := s.nomad.SandboxJobs(ctx)
	if err != nil {
		return err
	}
	var errs []error
	for _, j := range jobs {
		if !j.Dead {
			continue
		}
		sandboxID, ok := s.sandboxOf(j.ID)
		if !ok {
			continue
		}
		var row sandboxdb.Sandbox
		err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
			row, err = sandboxdb.New(tx).FindSandbox(ctx, sandboxID)
			return err
		})
		// Only what is accounted for is forgotten.
		if (err == nil && row.State == "ended") || fault.IsCode(err, "not_found") {
			errs = append(errs, s.nomad.Stop(ctx, j.ID, true))
		}
	}
	return errors.Join(errs...)
}

// allocationEnded records what a final allocation means: for a session's machine
// its end, unless that is recorded, and the proof; for a warm one, that it is no
// more.
func (s *Service) allocationEnded(ctx context.Context, sandboxID id.Sandbox, a nomad.Allocation) error {
	var row sandboxdb.Sandbox
	var dropped int64
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		q := sandboxdb.New(tx)
		if dropped, err = q.DeleteWarm(ctx, sandboxID); err != nil || dropped > 0 {
			return err
		}
		row, err = q.FindSandbox(ctx, sandboxID)
		return err
	})
	switch {
	case fault.IsCode(err, "not_found"):
		return nil
	case err != nil:
		return err
	case dropped > 0:
		s.startFailed(ctx, sandboxID, a.Why, nil)
		s.wantMore()
		return nil
	}
	reason := ReasonAllocFailed
	switch {
	case a.State == nomad.AllocLost:
		reason = ReasonNodeLost
	case a.OutOfMemory:
		reason = ReasonOutOfMemory
	case a.State == nomad.AllocComplete:
		reason = "stopped"
	}
	if _, err := s.end(ctx, row.OrgID, sandboxID, reason, a.Why, nil); err != nil {
		return err
	}
	at := a.FinishedAt
	if at.IsZero() {
		at = s.clock.Now()
	}
	return s.noteGone(ctx, row.OrgID, Gone{Sandbox: sandboxID, At: at, By: "nomad", Detail: a.Why})
}
