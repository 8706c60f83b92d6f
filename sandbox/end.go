package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

// The reasons of an end that the control plane gives. Others come from the
// machine itself (driver.Reason), from its allocation ("stopped", "orphaned",
// "start_failed") or from Nomad (below).
const (
	ReasonIdle          = "idle"
	ReasonRoom          = "made_room" // its session was at rest, and another stood in line
	ReasonReleased      = "released"
	ReasonKilled        = "killed"
	ReasonDrained       = "drained"
	ReasonNodeStopping  = "node_stopping"
	ReasonNodeLost      = "node_lost"
	ReasonAllocFailed   = "allocation_failed"
	ReasonAllocVanished = "allocation_vanished"
	ReasonOutOfMemory   = "out_of_memory"
	ReasonUnresponsive  = "unresponsive"
	ReasonBudget        = "budget_reached" // its time could not be held any longer
	ReasonNotPermitted  = "not_permitted"  // a rule does not let its session have it any longer
)

// Ended is the end of a session's machine, after it was recorded.
type Ended struct {
	Org     id.Org
	Session id.Session
	Sandbox id.Sandbox
	Reason  string
	// Saved is the last save when the end lost nothing; LostSince is set when it
	// did: what was done after that time is gone.
	Saved     *Archive
	LostSince *time.Time
}

// Gone is the proof that a machine does not run any more.
type Gone struct {
	Sandbox id.Sandbox `json:"sandbox_id"`
	At      time.Time  `json:"at"`
	// By is who saw it: "allocation" (it reaped the machine's process itself),
	// "nomad" (the allocation is final, its whole process tree with it).
	By     string `json:"by"`
	Detail string `json:"detail,omitempty"`
}

// end records the end of a session's machine with its reason, once: in one
// commit with the journal's event. It says whether this call was the first.
func (s *Service) end(ctx context.Context, org id.Org, sandboxID id.Sandbox, reason, detail string, saved *Archive) (bool, error) {
	var ended *Ended
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) error {
		q := sandboxdb.New(tx)
		row, err := q.GetSandbox(ctx, sandboxdb.GetSandboxParams{OrgID: org, ID: sandboxID})
		if err != nil {
			return err
		}
		session, err := journal.Lock(ctx, tx, org, row.SessionID)
		if err != nil {
			return err
		}
		row, err = q.EndSandbox(ctx, sandboxdb.EndSandboxParams{EndReason: reason, EndDetail: detail, OrgID: org, ID: sandboxID})
		if errors.Is(err, pgx.ErrNoRows) {
			return nil // somebody was first
		}
		if err != nil {
			return err
		}
		ended = &Ended{Org: org, Session: row.SessionID, Sandbox: sandboxID, Reason: reason, Saved: saved, LostSince: lostSince(row, saved)}
		now := s.clock.Now()
		entries, err := s.settleTicks(ctx, tx, now, session, usedUntil(row, now))
		if err != nil {
			return err
		}
		if row.StartedAt == nil { // it never began for the session: there is no start in the journal either
			_, err = session.Append(ctx, now, entries...)
			return err
		}
		event := journal.SandboxEnded{Sandbox: sandboxID, Reason: reason, LostSince: ended.LostSince}
		if saved != nil {
			event.SavedSHA256 = saved.Sum.String()
		}
		_, err = session.Append(ctx, now, append(entries, journal.Of(event))...)
		return err
	})
	if err != nil {
		return false, fmt.Errorf("record the end of sandbox %s: %w", sandboxID, err)
	}
	if ended == nil {
		return false, nil
	}
	s.log.InfoContext(ctx, "sandbox ended", "sandbox", sandboxID, "session", ended.Session, "reason", reason, "detail", detail,
		"lost_since", ended.LostSince)
	s.onEnded(*ended)
	s.wantMore()
	return true, nil
}

// usedLag is how far the noted time of a machine's last use may lie behind:
// while a command runs, its allocation reports every five seconds.
const usedLag = 7 * time.Second

// lostSince tells from when on work was lost: not at all when it was saved for
// its end, or when nothing can have been done after the last save. In doubt it
// says that something was lost.
func lostSince(row sandboxdb.Sandbox, saved *Archive) *time.Time {
	switch {
	case saved != nil || row.StartedAt == nil:
		return nil
	case row.LastSavedAt == nil:
		return row.StartedAt
	case row.UsedAt.Add(usedLag).After(*row.LastSavedAt):
		return row.LastSavedAt
	default:
		return nil
	}
}

// noteGone records the proof, the first that comes.
func (s *Service) noteGone(ctx context.Context, org id.Org, g Gone) error {
	proof, err := json.Marshal(g)
	if err != nil {
		return fmt.Errorf("write a proof: %w", err)
	}
	err = s.db.InTx(ctx, org, func(tx pgx.Tx) error {
		return sandboxdb.New(tx).MarkGone(ctx, sandboxdb.MarkGoneParams{GoneAt: g.At, GoneProof: proof, OrgID: org, ID: g.Sandbox})
	})
	if err != nil {
		return fmt.Errorf("record that sandbox %s is gone: %w", g.Sandbox, err)
	}
	return nil
}

// Release saves the session's working directory and ends its machine. Nothing
// can change between the two: the machine is sealed first. Without a live
// machine there is nothing to do.
func (s *Service) Release(ctx context.Context, org id.Org, session id.Session, reason string) error {
	row, err := s.live(ctx, org, session)
	if err != nil || row == nil {
		return err
	}
	return s.release(ctx, *row, reason, false)
}

// errBusy means that a machine is not idle after all.
var errBusy = errors.New("the sandbox is in use")

func (s *Service) release(ctx context.Context, row sandboxdb.Sandbox, reason string, onlyIdle bool) error {
	b := s.handle(row)
	var saved *Archive
	if row.State != "pending" {
		err := b.control(ctx, bridge.UseSeal, 0, bridge.SealRequest{IfIdle: onlyIdle}, nil)
		switch {
		case bridge.IsCode(err, bridge.CodeBusy):
			return errBusy
		case errors.Is(err, errGone):
			s.abandon(ctx, row, "unreachable", err)
			return nil
		case err != nil:
			return fmt.Errorf("seal sandbox %s: %w", row.ID, err)
		}
		if saved, err = s.save(ctx, row, reason); err != nil {
			// Better a machine that lives on than files that are lost: it is opened
			// again, and whoever wanted its end may try again or kill it.
			open, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
			defer cancel()
			if openErr := b.control(open, bridge.UseSeal, 0, bridge.SealRequest{Release: true}, nil); openErr != nil {
				err = errors.Join(err, openErr)
			}
			return err
		}
	}
	if _, err := s.end(ctx, row.OrgID, row.ID, reason, "", saved); err != nil {
		return err
	}
	_, err := s.finish(ctx, row, reason)
	return err
}

// Kill ends the session's machine at once, without a save, and returns when it
// is proved to be gone; nil without a live machine. The session's next sandbox
// begins from the last save.
func (s *Service) Kill(ctx context.Context, org id.Org, session id.Session, reason string) (*Gone, error) {
	row, err := s.live(ctx, org, session)
	if err != nil || row == nil {
		return nil, err
	}
	if _, err := s.end(ctx, org, row.ID, reason, "", nil); err != nil {
		return nil, err
	}
	return s.finish(ctx, *row, reason)
}

// finish ends the process of a machine whose end is recorded, and proves it.
func (s *Service) finish(ctx context.Context, row sandboxdb.Sandbox, reason string) (*Gone, error) {
	b := s.handle(row)
	gone := &Gone{Sandbox: row.ID, By: "allocation"}
	var answer bridge.EndAnswer
	err := b.control(ctx, bridge.UseEnd, 0, bridge.EndRequest{Reason: reason}, &answer)
	if err == nil {
		gone.At, gone.Detail = answer.GoneAt, fmt.Sprintf("process %d was killed and reaped; %s", answer.PID, answer.Detail)
	}
	// Nomad is told in any case: with the allocation dead, or deaf, its executor
	// ends whatever is left of the task.
	stopErr := s.nomad.Stop(ctx, row.JobID, false)
	if err != nil {
		if stopErr != nil {
			return nil, errors.Join(err, stopErr)
		}
		if gone, err = s.awaitFinal(ctx, row); err != nil {
			return nil, err
		}
	} else if stopErr != nil {
		s.log.WarnContext(ctx, "Nomad could not be told of an end", "job", row.JobID, "error", stopErr)
	}
	return gone, s.noteGone(ctx, row.OrgID, *gone)
}

// awaitFinal waits until Nomad says that the allocation is final.
func (s *Service) awaitFinal(ctx context.Context, row sandboxdb.Sandbox) (*Gone, error) {
	for {
		allocs, err := s.nomad.JobAllocations(ctx, row.JobID)
		if err != nil {
			return nil, err
		}
		final, why := true, "Nomad has no allocation of it"
		for _, a := range allocs {
			final = final && a.State.Final()
			why = a.Why
		}
		if final {
			return &Gone{Sandbox: row.ID, At: s.clock.Now(), By: "nomad", Detail: why}, nil
		}
		if err := s.clock.Sleep(ctx, 100*time.Millisecond); err != nil {
			return nil, fmt.Errorf("wait for the end of sandbox %s: %w", row.ID, err)
		}
	}
}

// abandon records the end of a machine that turned out unusable, and has Nomad
// clear it away. It works on after the caller's context: it mends.
func (s *Service) abandon(ctx context.Context, row sandboxdb.Sandbox, reason string, cause error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 15*time.Second)
	defer cancel()
	detail := ""
	if cause != nil {
		detail = cause.Error()
	}
	if _, err := s.end(ctx, row.OrgID, row.ID, reason, detail, nil); err != nil {
		s.log.ErrorContext(ctx, "an end could not be recorded", "sandbox", row.ID, "error", err)
	}
	if err := s.nomad.Stop(ctx, row.JobID, false); err != nil {
		s.log.ErrorContext(ctx, "a lost sandbox could not be stopped", "sandbox", row.ID, "error", err)
	}
}
