package sandbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/guest"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

// AcquireInput says who needs a machine.
type AcquireInput struct {
	Org     id.Org
	Project id.Project
	Session id.Session
	// Epoch is the caller's lease epoch on the session.
	Epoch int64
	// Environment is a template's name; empty is the installation's default.
	Environment string
	// Env is added to the environment of each command.
	Env map[string]string
}

// Sandbox is a session's machine, as one lease-holder uses it. It is safe for
// concurrent use and needs no closing: the machine lives on after it.
type Sandbox struct {
	ID      id.Sandbox
	Org     id.Org
	Session id.Session
	Epoch   int64
	Node    string
	Driver  string
	// Fresh says that it was claimed by this call.
	Fresh bool
	// Restored is the archive that the working directory came from, if any.
	Restored *Archive
	// Took is how long the claim took, restore included.
	Took time.Duration

	s       *Service
	address string
}

// tries is how often Acquire takes another machine when one turns out broken.
const tries = 3

// Acquire returns the session's machine: the live one, or a warm one that it
// claims, resumes, configures and restores. While all are in use it waits, first
// come first served, and then returns ErrNoCapacity; ErrFenced when a newer
// lease of the session has come; a *RefusedError when the gate does not admit the
// machine's time, and then the session has none.
func (s *Service) Acquire(ctx context.Context, in AcquireInput) (*Sandbox, error) {
	if in.Org == "" || in.Session == "" || in.Project == "" || in.Epoch < 1 {
		return nil, errors.New("acquire a sandbox: organisation, project, session and epoch are needed")
	}
	if in.Environment == "" {
		in.Environment = s.cfg.Environment
	}
	if in.Environment != s.cfg.Environment {
		return nil, fault.InvalidField("/environment_id", "not_found", "There is no such environment.")
	}
	var last error
	for range tries {
		if s.draining.Load() {
			return nil, ErrDraining
		}
		began := time.Now()
		row, held, err := s.find(ctx, in)
		if err != nil {
			return nil, err
		}
		b, err := s.enter(ctx, in, row, held)
		if err == nil {
			b.Took = time.Since(began)
			s.log.DebugContext(ctx, "sandbox acquired", "sandbox", b.ID, "session", b.Session, "fresh", b.Fresh, "took", b.Took)
			return b, nil
		}
		if !errors.Is(err, errGone) {
			return nil, err
		}
		last = err
		s.log.WarnContext(ctx, "a sandbox could not be used, taking another", "sandbox", row.ID, "error", err)
	}
	return nil, ErrLost.Because(last)
}

// find returns the session's live machine, or claims one, waiting for it. The
// tick is one that was begun for it just now, nil when another covers it.
func (s *Service) find(ctx context.Context, in AcquireInput) (sandboxdb.Sandbox, *tick, error) {
	var row sandboxdb.Sandbox
	var held *tick
	attempt := func(claim bool) (bool, error) {
		var err error
		row, held, err = s.findOnce(ctx, in, claim)
		if errors.Is(err, pgx.ErrNoRows) {
			return false, nil
		}
		return err == nil, err
	}
	// Who comes later must not overtake: with a line, only its head claims.
	if done, err := attempt(s.line.empty()); done || err != nil {
		return row, held, s.refusal(ctx, in, err)
	}
	s.wantMore()
	err := s.line.wait(ctx, s.cfg.ClaimWait, func() (bool, error) {
		if s.draining.Load() {
			return false, ErrDraining
		}
		done, err := attempt(true)
		if !done && err == nil {
			s.wantMore()
		}
		return done, err
	})
	return row, held, s.refusal(ctx, in, err)
}

// refusal journals a refusal of the machine's time, and passes the error on.
func (s *Service) refusal(ctx context.Context, in AcquireInput, err error) error {
	var refused *RefusedError
	if errors.As(err, &refused) {
		err = errors.Join(err, s.noteRefusal(ctx, in.Org, in.Session, "", refused))
	}
	return err
}

// findOnce is one transaction: it returns the live machine, raised to the
// caller's epoch, or moves a warm one to the session. Its time is held in the
// same commit, unless it is already. pgx.ErrNoRows when there is neither.
func (s *Service) findOnce(ctx context.Context, in AcquireInput, claim bool) (row sandboxdb.Sandbox, held *tick, err error) {
	err = s.db.InTx(ctx, in.Org, func(tx pgx.Tx) error {
		// The session's row is locked first, as everywhere: two workers of one
		// session queue here, and a superseded one learns that it is.
		session, err := journal.Lock(ctx, tx, in.Org, in.Session)
		if err != nil {
			return err
		}
		if session.Epoch > in.Epoch {
			return ErrFenced
		}
		q := sandboxdb.New(tx)
		row, err = q.LiveSandbox(ctx, sandboxdb.LiveSandboxParams{OrgID: in.Org, SessionID: in.Session})
		if err == nil {
			row, err = q.RaiseEpoch(ctx, sandboxdb.RaiseEpochParams{OrgID: in.Org, ID: row.ID, Epoch: in.Epoch})
			if errors.Is(err, pgx.ErrNoRows) {
				return ErrFenced
			}
			if err != nil {
				return err
			}
			covered := false
			if row.State != "pending" { // one that was not made ready yet has not used its tick, and needs an admission to begin
				if covered, err = q.Held(ctx, sandboxdb.HeldParams{OrgID: in.Org, ID: row.ID}); err != nil {
					return err
				}
			}
			if !covered {
				held, err = s.beginTick(ctx, tx, session, row)
			}
			return err
		}
		if !errors.Is(err, pgx.ErrNoRows) || !claim {
			return err
		}
		warm, err := q.ClaimWarm(ctx, sandboxdb.ClaimWarmParams{Environment: in.Environment, Build: s.build})
		if err != nil {
			return err
		}
		row, err = q.InsertSandbox(ctx, sandboxdb.InsertSandboxParams{
			OrgID: in.Org, ID: warm.ID, ProjectID: in.Project, SessionID: in.Session, Environment: warm.Environment, Epoch: in.Epoch,
			JobID: *warm.JobID, AllocID: *warm.AllocID, NodeID: *warm.NodeID, Address: *warm.Address, Driver: warm.Driver,
			Accelerator: warm.Accelerator, TokenHash: warm.TokenHash, CreatedAt: warm.CreatedAt,
		})
		if err != nil {
			return err
		}
		held, err = s.beginTick(ctx, tx, session, row)
		return err
	})
	if err != nil {
		return row, nil, fmt.Errorf("find a sandbox for session %s: %w", in.Session, err)
	}
	return row, held, nil
}

// enter makes the machine of a row usable. errGone means that it is not, that
// its end is recorded, and that another may be tried.
func (s *Service) enter(ctx context.Context, in AcquireInput, row sandboxdb.Sandbox, held *tick) (*Sandbox, error) {
	b := &Sandbox{
		ID: row.ID, Org: row.OrgID, Session: row.SessionID, Epoch: in.Epoch, Node: row.NodeID, Driver: row.Driver,
		s: s, address: row.Address,
	}
	if row.State != "pending" {
		if held != nil {
			if err := s.keep(ctx, in.Org, row.ID, held); err != nil {
				return nil, err
			}
		}
		return b, s.reenter(ctx, in, b, row)
	}
	// The pool has one fewer now. Its next pass, a moment later, starts another:
	// at once, the start would compete with this session's first command.
	b.Fresh = true
	err := s.keep(ctx, in.Org, row.ID, held) // nothing begins without it
	if err == nil {
		err = s.configure(ctx, in, b, row)
	}
	if err == nil {
		return b, nil
	}
	if ctx.Err() != nil || errors.Is(err, ErrFenced) {
		// The caller is gone or superseded. The machine stays claimed: the
		// session's next worker finds it pending and goes on from here.
		return nil, err
	}
	var damaged *damagedError
	if errors.As(err, &damaged) {
		s.abandon(ctx, row, "restore_failed", err)
		return nil, damaged.fault
	}
	s.abandon(ctx, row, "start_failed", err)
	return nil, fmt.Errorf("%w: %w", errGone, err)
}

// configure resumes a claimed machine, gives it its identity and its files.
func (s *Service) configure(ctx context.Context, in AcquireInput, b *Sandbox, row sandboxdb.Sandbox) error {
	began := time.Now()
	var answer bridge.ClaimAnswer
	req := bridge.ClaimRequest{Env: in.Env, DiskMiB: s.cfg.DiskMiB}
	if err := b.control(ctx, bridge.UseClaim, in.Epoch, req, &answer); err != nil {
		return err
	}
	archive, err := s.restore(ctx, b)
	if err != nil {
		return err
	}
	b.Restored = archive
	started := journal.SandboxStarted{Sandbox: b.ID, Driver: row.Driver + "/" + row.Accelerator, Node: row.NodeID}
	var seq *int64
	if archive != nil {
		seq, started.Restored = &archive.Seq, archive.Sum.String()
	}
	started.TookMs = time.Since(began).Milliseconds()
	err = s.db.InTx(ctx, b.Org, func(tx pgx.Tx) error {
		session, err := journal.Lock(ctx, tx, b.Org, b.Session)
		if err != nil {
			return err
		}
		if session.Epoch > in.Epoch {
			return ErrFenced
		}
		n, err := sandboxdb.New(tx).MarkRunning(ctx, sandboxdb.MarkRunningParams{OrgID: b.Org, ID: b.ID, RestoredSeq: seq})
		if err != nil {
			return err
		}
		if n == 0 {
			return fmt.Errorf("%w: it ended while it was being made ready", errGone)
		}
		_, err = session.Append(ctx, s.clock.Now(), journal.Of(started))
		return err
	})
	if err != nil {
		return fmt.Errorf("note that sandbox %s runs: %w", b.ID, err)
	}
	s.log.InfoContext(ctx, "sandbox claimed", "sandbox", b.ID, "session", b.Session, "took", time.Since(began),
		"resume_took", answer.ResumeTook, "configure_took", answer.ConfigTook, "restored", archive != nil)
	return nil
}

// sealPatience is how long a machine may stay sealed before somebody who needs
// it takes the seal for one that a dead process left.
const sealPatience = 20 * time.Second

// reenter makes sure that a machine from earlier still answers, and tells it the
// caller's epoch.
func (s *Service) reenter(ctx context.Context, in AcquireInput, b *Sandbox, row sandboxdb.Sandbox) error {
	deadline := time.Now().Add(sealPatience)
	broken := 0
	for {
		var status bridge.Status
		err := b.control(ctx, bridge.UsePing, in.Epoch, nil, &status)
		switch {
		case errors.Is(err, errGone):
			s.abandon(ctx, row, "unreachable", err)
			return err
		case errors.Is(err, guest.ErrDisconnected):
			// It may just be dying, or be served by too many at this moment.
			if broken++; broken > 10 {
				s.abandon(ctx, row, "unreachable", err)
				return fmt.Errorf("%w: %w", errGone, err)
			}
			if err := s.clock.Sleep(ctx, 100*time.Millisecond); err != nil {
				return err
			}
		case err != nil:
			return err
		case status.Sealed && time.Now().After(deadline):
			s.log.WarnContext(ctx, "a sandbox was left sealed; opening it", "sandbox", b.ID)
			if err := b.control(ctx, bridge.UseSeal, in.Epoch, bridge.SealRequest{Release: true}, nil); err != nil {
				return err
			}
		case status.Sealed:
			// It is being saved for its end: wait for that, then take another.
			if err := s.clock.Sleep(ctx, 50*time.Millisecond); err != nil {
				return err
			}
			if live, err := s.live(ctx, in.Org, in.Session); err != nil {
				return err
			} else if live == nil || live.ID != row.ID {
				return fmt.Errorf("%w: it was ended", errGone)
			}
		case status.State == "paused":
			return s.setPaused(ctx, b, false)
		default:
			return nil
		}
	}
}

// live returns the session's live machine, nil without one.
func (s *Service) live(ctx context.Context, org id.Org, session id.Session) (*sandboxdb.Sandbox, error) {
	var row sandboxdb.Sandbox
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		row, err = sandboxdb.New(tx).LiveSandbox(ctx, sandboxdb.LiveSandboxParams{OrgID: org, SessionID: session})
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) || fault.IsCode(err, "not_found") {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the sandbox of session %s: %w", session, err)
	}
	return &row, nil
}

// handle makes a Sandbox of a row for the control plane's own operations.
func (s *Service) handle(row sandboxdb.Sandbox) *Sandbox {
	return &Sandbox{
		ID: row.ID, Org: row.OrgID, Session: row.SessionID, Epoch: row.Epoch, Node: row.NodeID, Driver: row.Driver, s: s, address: row.Address,
	}
}

// token signs a token for one operation. Epoch 0 is the control plane itself.
func (b *Sandbox) token(ctx context.Context, use bridge.Use, epoch int64, effectKey string) (string, error) {
	claims := bridge.NewClaims(time.Now(), string(b.ID), string(b.Session), use, epoch, effectKey)
	token, err := b.s.signer.Sign(ctx, claims)
	if err != nil {
		return "", fmt.Errorf("sign a token for sandbox %s: %w", b.ID, err)
	}
	return token, nil
}

// control asks the allocation for something; errGone when there is none.
func (b *Sandbox) control(ctx context.Context, use bridge.Use, epoch int64, body, out any) error {
	token, err := b.token(ctx, use, epoch, "")
	if err != nil {
		return err
	}
	return meaning(ctx, bridge.Control(ctx, b.address, token, body, out))
}

// meaning turns what the bridge says into this package's errors.
func meaning(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case bridge.IsCode(err, bridge.CodeFenced):
		return ErrFenced.Because(err)
	case bridge.IsCode(err, bridge.CodeSealed):
		return ErrEnding.Because(err)
	case errors.Is(err, bridge.ErrUnreachable), bridge.IsCode(err, bridge.CodeEnded):
		return fmt.Errorf("%w: %w", errGone, err)
	case bridge.IsCode(err, bridge.CodeSilent):
		return fmt.Errorf("%w: %w", guest.ErrDisconnected, err)
	default:
		return err
	}
}

// setPaused pauses or resumes a machine and notes it.
func (s *Service) setPaused(ctx context.Context, b *Sandbox, pause bool) error {
	use, state := bridge.UseResume, "running"
	if pause {
		use, state = bridge.UsePause, "paused"
	}
	if err := b.control(ctx, use, 0, nil, nil); err != nil {
		return err
	}
	return s.db.InTx(ctx, b.Org, func(tx pgx.Tx) error {
		_, err := sandboxdb.New(tx).SetPaused(ctx, sandboxdb.SetPausedParams{State: state, OrgID: b.Org, ID: b.ID})
		return err
	})
}
