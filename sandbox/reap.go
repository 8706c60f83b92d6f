package sandbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

// maxReaps bounds how many machines one pass saves and ends.
const maxReaps = 16

// reapTime bounds the save and end of one.
const reapTime = 2 * time.Minute

// reapIdle saves and ends the machines in which nothing has run for a while.
func (s *Service) reapIdle(ctx context.Context) error {
	if s.draining.Load() {
		return nil
	}
	var idle []sandboxdb.Sandbox
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		idle, err = sandboxdb.New(tx).ListIdle(ctx, sandboxdb.ListIdleParams{IdleSeconds: s.cfg.IdleAfter.Seconds(), Most: maxReaps})
		return err
	})
	if err != nil {
		return fmt.Errorf("list idle sandboxes: %w", err)
	}
	if err := s.endTerminated(ctx); err != nil {
		return err
	}
	for _, row := range idle {
		reap, cancel := context.WithTimeout(ctx, reapTime)
		err := s.release(reap, row, ReasonIdle, true)
		cancel()
		if errors.Is(err, errBusy) {
			s.touch(ctx, row.OrgID, row.ID)
			continue
		}
		if err != nil {
			// One that can't be saved must not keep the others from it.
			s.log.ErrorContext(ctx, "an idle sandbox could not be saved and ended", "sandbox", row.ID, "error", err)
			s.touch(ctx, row.OrgID, row.ID)
		}
	}
	return nil
}

// endTerminated ends the machines of sessions that are over for good. Whoever
// ends a session ends its machine too; this is for one that died in between.
func (s *Service) endTerminated(ctx context.Context) error {
	var rows []sandboxdb.Sandbox
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		rows, err = sandboxdb.New(tx).ListOfTerminated(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("list sandboxes of terminated sessions: %w", err)
	}
	for _, row := range rows {
		if _, err := s.end(ctx, row.OrgID, row.ID, ReasonKilled, "its session has ended", nil); err != nil {
			return err
		}
		if _, err := s.finish(ctx, row, ReasonKilled); err != nil {
			s.log.ErrorContext(ctx, "the sandbox of a terminated session could not be ended", "sandbox", row.ID, "error", err)
		}
	}
	return nil
}

// silence is how long a machine may go unheard before it is given up. Its
// allocation reports every five seconds.
const silence = 60 * time.Second

// endSilent ends the machines whose allocations have fallen silent. After a
// start it waits: while this instance was down nobody could be heard.
func (s *Service) endSilent(ctx context.Context) error {
	if time.Since(s.began) < silence {
		return nil
	}
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
	limit := s.clock.Now().Add(-silence)
	for _, row := range live {
		if row.HeartbeatAt.Before(limit) {
			s.abandon(ctx, row, ReasonUnresponsive, fmt.Errorf("not heard since %s", row.HeartbeatAt.UTC().Format(time.RFC3339)))
		}
	}
	for _, row := range warm {
		if row.HeartbeatAt != nil && row.HeartbeatAt.Before(limit) {
			s.dropWarm(ctx, row, ReasonUnresponsive)
		}
	}
	return nil
}

// dropWarm ends a warm machine.
func (s *Service) dropWarm(ctx context.Context, row sandboxdb.WarmSandbox, reason string) {
	var n int64
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		n, err = sandboxdb.New(tx).DeleteWarm(ctx, row.ID)
		return err
	})
	if err != nil {
		s.log.ErrorContext(ctx, "a warm sandbox could not be dropped", "sandbox", row.ID, "error", err)
		return
	}
	if n == 0 {
		return // claimed or gone meanwhile
	}
	s.log.InfoContext(ctx, "warm sandbox dropped", "sandbox", row.ID, "reason", reason)
	if row.Address != nil {
		b := &Sandbox{ID: row.ID, s: s, address: *row.Address}
		if err := b.control(ctx, bridge.UseEnd, 0, bridge.EndRequest{Reason: reason}, nil); err != nil {
			s.log.DebugContext(ctx, "a warm sandbox did not answer its end", "sandbox", row.ID, "error", err)
		}
	}
	if row.JobID != nil {
		if err := s.nomad.Stop(ctx, *row.JobID, false); err != nil {
			s.log.ErrorContext(ctx, "a warm sandbox could not be stopped", "sandbox", row.ID, "error", err)
		}
	}
	s.wantMore()
}

// drainReserve is what a drain keeps, of its time, for ending what was saved.
const drainReserve = 1500 * time.Millisecond

// Drain saves and ends everything within ctx: no new machine is handed out, each
// session's files are saved, all machines end, and both of Ambit's jobs stop. A
// machine that can't be saved in time is ended without, and its end says what
// was lost. It is for an instance that goes away with its nodes (one machine
// that is being shut down); a replica that leaves others behind only Stops.
func (s *Service) Drain(ctx context.Context) error {
	s.draining.Store(true)
	s.line.poke()
	s.cancel()
	s.running.Wait()
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
		return fmt.Errorf("list what is to be drained: %w", err)
	}
	began := time.Now()
	saving := ctx
	if deadline, ok := ctx.Deadline(); ok {
		var cancel context.CancelFunc
		saving, cancel = context.WithDeadline(ctx, deadline.Add(-drainReserve))
		defer cancel()
	}
	var mu sync.Mutex
	var errs []error
	var lost []id.Sandbox
	var wg sync.WaitGroup
	// The node service first: nothing is started any more.
	if err := s.nomad.Stop(ctx, s.nomad.NodeJobID(), false); err != nil {
		errs = append(errs, err)
	}
	for _, row := range warm {
		wg.Go(func() { s.dropWarm(ctx, row, ReasonDrained) })
	}
	for _, row := range live {
		wg.Go(func() {
			err := s.release(saving, row, ReasonDrained, false)
			if err == nil {
				return
			}
			mu.Lock()
			errs, lost = append(errs, err), append(lost, row.ID)
			mu.Unlock()
			if _, err := s.end(ctx, row.OrgID, row.ID, ReasonDrained, err.Error(), nil); err != nil {
				s.log.ErrorContext(ctx, "an end could not be recorded", "sandbox", row.ID, "error", err)
			}
			if _, err := s.finish(ctx, row, ReasonDrained); err != nil {
				s.log.ErrorContext(ctx, "a sandbox could not be ended", "sandbox", row.ID, "error", err)
			}
		})
	}
	wg.Wait()
	if err := s.stopRest(ctx); err != nil {
		errs = append(errs, err)
	}
	s.log.InfoContext(ctx, "drained", "sessions", len(live), "warm", len(warm), "without_save", lost, "took", time.Since(began))
	return errors.Join(errs...)
}

// stopRest stops every sandbox job that still runs, and waits until Nomad has
// nothing of ours that does.
func (s *Service) stopRest(ctx context.Context) error {
	jobs, err := s.nomad.SandboxJobs(ctx)
	if err != nil {
		return err
	}
	for _, j := range jobs {
		if !j.Stopped && !j.Dead {
			if err := s.nomad.Stop(ctx, j.ID, false); err != nil {
				return err
			}
		}
	}
	for {
		all, _, err := s.nomad.Allocations(ctx)
		if err != nil {
			return err
		}
		service, err := s.nomad.JobAllocations(ctx, s.nomad.NodeJobID())
		if err != nil {
			return err
		}
		running := 0
		for _, a := range append(all, service...) {
			if !a.State.Final() {
				running++
			}
		}
		if running == 0 {
			return nil
		}
		if err := s.clock.Sleep(ctx, 50*time.Millisecond); err != nil {
			return fmt.Errorf("%d allocations were still ending: %w", running, err)
		}
	}
}
