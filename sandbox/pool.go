package sandbox

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/nomad"
	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

// maxStarts bounds how many machines one pass starts: a node starts about
// fifteen a second, and more at once only makes all of them slow.
const maxStarts = 8

// wantMore hints that the pool may be short.
func (s *Service) wantMore() {
	select {
	case s.refill <- struct{}{}:
	default:
	}
}

// newSecret returns 32 random bytes in hex, and their SHA-256.
func newSecret() (secret string, hash []byte) {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails, by its contract
	secret = hex.EncodeToString(raw[:])
	return secret, hashOf(secret)
}

func hashOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}

type start struct {
	id     id.Sandbox
	secret string
}

// fillPool starts what is missing: as many as should wait, and one for each
// session that stands in line, within the most that there may be.
func (s *Service) fillPool(ctx context.Context) error {
	if s.draining.Load() || s.resting() {
		return nil
	}
	var starts []start
	missing := 0
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		q := sandboxdb.New(tx)
		// Two processes that both saw one missing must not start two.
		if err := q.LockPool(ctx); err != nil {
			return fmt.Errorf("lock the pool: %w", err)
		}
		have, err := q.CountMachines(ctx, sandboxdb.CountMachinesParams{Environment: s.cfg.Environment, Build: s.build})
		if err != nil {
			return fmt.Errorf("count the machines: %w", err)
		}
		free := s.cfg.Max - int(have.AllWarm) - int(have.Live)
		missing = s.line.length() - int(have.Warm) - max(free, 0)
		n := min(s.cfg.Warm+s.line.length()-int(have.Warm), free, maxStarts)
		for range max(n, 0) {
			one := start{id: id.New[id.Sandbox]()}
			var hash []byte
			one.secret, hash = newSecret()
			if err := q.InsertWarm(ctx, sandboxdb.InsertWarmParams{
				ID: one.id, Environment: s.cfg.Environment, Build: s.build, SecretHash: hash,
			}); err != nil {
				return fmt.Errorf("note a machine that is to be started: %w", err)
			}
			starts = append(starts, one)
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, one := range starts {
		if err := s.dispatch(ctx, one); err != nil {
			return err
		}
	}
	if missing > 0 {
		return s.makeRoom(ctx, missing)
	}
	return nil
}

// maxMakeRoom bounds how many machines are saved and ended at a time to make room.
const maxMakeRoom = 4

// makeRoom saves and ends machines that nobody needs at the moment, for sessions that stand in line while all are taken: those whose own
// sessions wait for their next input, the longest unused first. Their files come back with their next command.
func (s *Service) makeRoom(ctx context.Context, n int) error {
	var atRest []sandboxdb.Sandbox
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		atRest, err = sandboxdb.New(tx).ListAtRest(ctx, int32(min(n, maxMakeRoom))) //nolint:gosec // bounded
		return err
	})
	if err != nil {
		return fmt.Errorf("list the sandboxes that are at rest: %w", err)
	}
	var made atomic.Bool
	var wg sync.WaitGroup
	for _, row := range atRest {
		wg.Go(func() {
			reap, cancel := context.WithTimeout(ctx, reapTime)
			defer cancel()
			err := s.release(reap, row, ReasonRoom, true)
			switch {
			case errors.Is(err, errBusy):
			case err != nil:
				s.log.ErrorContext(ctx, "a sandbox at rest could not be saved and ended", "sandbox", row.ID, "error", err)
			default:
				made.Store(true)
			}
		})
	}
	wg.Wait()
	if made.Load() {
		s.wantMore()
	}
	return nil
}

// dispatch asks Nomad for a machine that was noted. When that fails the note
// goes, and the pool rests a while.
func (s *Service) dispatch(ctx context.Context, one start) error {
	keys, err := s.keys(ctx)
	if err != nil {
		return fmt.Errorf("read the published keys: %w", err)
	}
	//nolint:gosec // handing the secret to its allocation is what this is for
	payload, err := json.Marshal(bridge.ClaimFile{Control: s.cfg.ControlURL, Secret: one.secret, Keys: keys})
	if err != nil {
		return fmt.Errorf("write a dispatch: %w", err)
	}
	job, err := s.nomad.Dispatch(ctx, nomad.Dispatch{Sandbox: string(one.id), Environment: s.cfg.Environment, Payload: payload})
	if err != nil {
		s.startFailed(ctx, one.id, "Nomad refused the dispatch", err)
	}
	note := func(tx pgx.Tx) error {
		if job == "" {
			_, err := sandboxdb.New(tx).DeleteWarm(ctx, one.id)
			return err
		}
		return sandboxdb.New(tx).SetWarmJob(ctx, sandboxdb.SetWarmJobParams{ID: one.id, JobID: &job})
	}
	if dbErr := s.db.InWorkerTx(ctx, note); dbErr != nil {
		return fmt.Errorf("note a dispatch: %w", dbErr)
	}
	return err
}

// startFailed counts a machine that ended before it was ready.
func (s *Service) startFailed(ctx context.Context, sandboxID id.Sandbox, why string, err error) {
	n := s.failures.Add(1)
	s.failedAt.Store(time.Now().UnixNano())
	s.log.ErrorContext(ctx, "a sandbox could not be started", "sandbox", sandboxID, "why", why, "error", err, "failed_in_a_row", n)
}

// resting says whether the pool waits before its next start, because the last
// ones failed: ten seconds after three in a row, half a minute after six.
func (s *Service) resting() bool {
	n := s.failures.Load()
	pause := time.Duration(0)
	switch {
	case n >= 6:
		pause = 30 * time.Second
	case n >= 3:
		pause = 10 * time.Second
	}
	return time.Since(time.Unix(0, s.failedAt.Load())) < pause
}
