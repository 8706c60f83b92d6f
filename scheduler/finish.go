package scheduler

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/scheduler/internal/stopdb"
)

const (
	// finishWithin bounds one try at ending the sandboxes of a killed tree and completing its receipts.
	finishWithin = 30 * time.Second
	// endsAtOnce bounds how many sandboxes one try ends at a time.
	endsAtOnce = 16
	// stopPatience is how long a stop of the process waits for what follows kills.
	stopPatience = time.Second
)

// FinishKill waits, until ctx ends, for the receipt of a kill to be complete, and returns it as it is then.
func (s *Service) FinishKill(ctx context.Context, org id.Org, session id.Session) (KillReceipt, error) {
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for {
		r, err := s.KillReceipt(context.WithoutCancel(ctx), org, session)
		if err != nil || r.Done() {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, nil
		case <-poll.C:
		}
	}
}

// finishInBackground begins to finish a kill that was just committed. If this process dies first, a StopKeeper takes it up.
func (s *Service) finishInBackground(ctx context.Context, org id.Org, root id.Session) {
	seen := s.clock.Now()
	s.inBackground(ctx, func(ctx context.Context) {
		if err := s.finishKill(ctx, org, root, seen); err != nil {
			s.log.ErrorContext(ctx, "the receipts of a kill are not complete yet; it is tried again", "session", root, "error", err)
		}
	})
}

// inBackground runs what follows a commit. It outlives the request that asked for it, and is cut short when the process stops.
func (s *Service) inBackground(ctx context.Context, fn func(ctx context.Context)) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	unhook := context.AfterFunc(s.running, cancel)
	s.finishKills.Go(func() {
		defer cancel()
		defer unhook()
		fn(ctx)
	})
}

// Stop lets what follows kills end for a moment, then cuts it short: another process, or the next start, takes it up.
func (s *Service) Stop() {
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.finishKills.Wait()
	}()
	patience := time.NewTimer(stopPatience)
	defer patience.Stop()
	select {
	case <-done:
	case <-patience.C:
	}
	s.cut()
	<-done
}

// finishKill ends the sandboxes of a killed tree and completes its receipts, all in one commit. Doing it twice is harmless. seen is a time
// at which the kill was known to be committed.
func (s *Service) finishKill(ctx context.Context, org id.Org, root id.Session, seen time.Time) error {
	ctx, cancel := context.WithTimeout(ctx, finishWithin)
	defer cancel()
	var receipts map[id.Session]KillReceipt
	var complete bool
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		receipts, complete, err = treeReceipts(ctx, tx, org, root)
		return err
	})
	if err != nil || complete {
		return err
	}
	gone, err := s.endSandboxes(ctx, org, receipts)
	if err != nil {
		return err
	}
	signed := make([]KillReceipt, 0, len(receipts))
	for _, r := range receipts {
		for _, one := range r.sessions() {
			one.FencedAt, one.Sandbox = &seen, gone[one.Session]
		}
		if s.signer != nil {
			if r.Signature, err = s.signer.Sign(ctx, r); err != nil {
				return fmt.Errorf("sign receipt %s: %w", r.ID, err)
			}
		}
		signed = append(signed, r)
	}
	return s.db.InTx(ctx, org, func(tx pgx.Tx) error {
		// Whoever comes second finds them complete, and must not mix its own times in.
		rows, err := stopdb.New(tx).LockReceipts(ctx, stopdb.LockReceiptsParams{OrgID: org, RootSessionID: &root})
		if err != nil {
			return fmt.Errorf("lock the receipts below %s: %w", root, err)
		}
		for _, row := range rows {
			if row.CompletedAt != nil {
				return nil
			}
		}
		for _, r := range signed {
			if err := journal.CompleteReceipt(ctx, tx, s.clock.Now(), org, r.ID, r, r.Signature); err != nil {
				return err
			}
		}
		return nil
	})
}

// endSandboxes ends the machines of the sessions, several at a time, and returns the proof for each.
func (s *Service) endSandboxes(ctx context.Context, org id.Org, receipts map[id.Session]KillReceipt) (map[id.Session]*sandbox.Gone, error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	var failed []error
	gone := make(map[id.Session]*sandbox.Gone, len(receipts))
	slots := make(chan struct{}, endsAtOnce)
	for session := range receipts {
		slots <- struct{}{}
		all.Go(func() {
			defer func() { <-slots }()
			proof, err := s.endSandbox(ctx, org, session)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, fmt.Errorf("end the sandbox of %s: %w", session, err))
			}
			gone[session] = proof
		})
	}
	all.Wait()
	return gone, errors.Join(failed...)
}

func (s *Service) endSandbox(ctx context.Context, org id.Org, session id.Session) (*sandbox.Gone, error) {
	none := &sandbox.Gone{At: s.clock.Now(), By: "control plane", Detail: "the session had no sandbox"}
	if s.sandboxes == nil {
		return none, nil
	}
	gone, err := s.sandboxes.Kill(ctx, org, session, sandbox.ReasonKilled)
	if err != nil {
		return nil, err
	}
	for gone == nil { // it was ended before, or is being ended by another, or there was none
		if gone, err = s.sandboxes.LastGone(ctx, org, session); errors.Is(err, sandbox.ErrStillThere) {
			err = s.clock.Sleep(ctx, 50*time.Millisecond)
		} else if gone == nil {
			gone = none
		}
		if err != nil {
			return nil, err
		}
	}
	return gone, nil
}
