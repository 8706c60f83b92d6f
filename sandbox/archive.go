package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/blob"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/guest"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

// Archive is one saved working directory: a zstd-compressed tar in the blob
// store, named by its hash.
type Archive struct {
	Org     id.Org
	Session id.Session
	// Seq numbers a session's archives from 1.
	Seq     int64
	Sandbox id.Sandbox
	Sum     blob.Sum
	// Bytes is the archive's size, ContentBytes that of the files in it.
	Bytes        int64
	ContentBytes int64
	Files        int64
	Reason       string
	CreatedAt    time.Time
}

func archiveOf(r sandboxdb.WorkdirArchive) (*Archive, error) {
	sum, err := blob.ParseSum(r.Sha256)
	if err != nil {
		return nil, fmt.Errorf("read an archive's row: %w", err)
	}
	return &Archive{
		Org: r.OrgID, Session: r.SessionID, Seq: r.Seq, Sandbox: r.SandboxID, Sum: sum, Bytes: r.SizeBytes, ContentBytes: r.ContentBytes,
		Files: r.Files, Reason: r.Reason, CreatedAt: r.CreatedAt,
	}, nil
}

// LastArchive returns the session's newest save, nil when there is none.
func (s *Service) LastArchive(ctx context.Context, org id.Org, session id.Session) (*Archive, error) {
	var row sandboxdb.WorkdirArchive
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		row, err = sandboxdb.New(tx).LastArchive(ctx, sandboxdb.LastArchiveParams{OrgID: org, SessionID: session})
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for the last save of session %s: %w", session, err)
	}
	return archiveOf(row)
}

// Archives lists a session's saves, newest first, at most limit.
func (s *Service) Archives(ctx context.Context, org id.Org, session id.Session, limit int) ([]Archive, error) {
	var out []Archive
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) error {
		rows, err := sandboxdb.New(tx).ListArchives(ctx, sandboxdb.ListArchivesParams{
			OrgID: org, SessionID: session, Limit: int32(min(limit, 1000)), //nolint:gosec // bounded
		})
		if err != nil {
			return err
		}
		for _, r := range rows {
			a, err := archiveOf(r)
			if err != nil {
				return err
			}
			out = append(out, *a)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the saves of session %s: %w", session, err)
	}
	return out, nil
}

// SaveWorkdir saves the working directory of the session's live machine. It
// returns the save of before when nothing has changed, and nil when the session
// has no live machine. reason is a word for the record ("checkpoint", "idle").
func (s *Service) SaveWorkdir(ctx context.Context, org id.Org, session id.Session, reason string) (*Archive, error) {
	row, err := s.live(ctx, org, session)
	if err != nil || row == nil {
		return nil, err
	}
	if row.State == "pending" {
		return nil, nil // nothing was done in it yet
	}
	return s.save(ctx, *row, reason)
}

func (s *Service) save(ctx context.Context, row sandboxdb.Sandbox, reason string) (*Archive, error) {
	b := s.handle(row)
	if row.State == "paused" {
		if err := s.setPaused(ctx, b, false); err != nil {
			return nil, err
		}
	}
	at := s.clock.Now()
	var ref blob.Ref
	var meta *guest.Archive
	err := b.withGuest(ctx, bridge.UseSave, 0, "", func(c *guest.Client) error {
		pr, pw := io.Pipe()
		saved := make(chan error, 1)
		go func() {
			var err error
			meta, err = c.Save(ctx, pw)
			// Not Close: the store must not take half an archive for a whole one.
			_ = pw.CloseWithError(err)
			saved <- err
		}()
		var putErr error
		ref, putErr = s.blobs.Put(ctx, b.Org, pr, s.cfg.MaxArchiveBytes)
		_ = pr.CloseWithError(errors.New("the store takes no more"))
		saveErr := <-saved
		if errors.Is(putErr, blob.ErrTooLarge) {
			return fault.Newf(fault.TooLarge, "too_large", "The working directory is larger than %d bytes when compressed and was not saved.", s.cfg.MaxArchiveBytes).
				Because(putErr)
		}
		return errors.Join(saveErr, putErr)
	})
	if err != nil {
		return nil, fmt.Errorf("save the working directory of sandbox %s: %w", b.ID, err)
	}
	if meta.SHA256 != ref.Sum.String() || meta.Bytes != ref.Size {
		return nil, fmt.Errorf("save the working directory of sandbox %s: the guest sent %s, %s was stored", b.ID, meta.SHA256, ref.Sum)
	}
	return s.noteArchive(ctx, row, at, ref, meta, reason)
}

// noteArchive writes the row of a stored archive, and checkpoint.created in the
// same commit. A directory that has not changed since is no new checkpoint.
func (s *Service) noteArchive(
	ctx context.Context, row sandboxdb.Sandbox, at time.Time, ref blob.Ref, meta *guest.Archive, reason string,
) (*Archive, error) {
	var out sandboxdb.WorkdirArchive
	err := s.db.InTx(ctx, row.OrgID, func(tx pgx.Tx) error {
		q := sandboxdb.New(tx)
		// The session's row first, as everywhere. Two saves of one session queue
		// here, so that their numbers do not race.
		session, err := journal.Lock(ctx, tx, row.OrgID, row.SessionID)
		if err != nil {
			return err
		}
		if _, err := q.LockLive(ctx, sandboxdb.LockLiveParams{OrgID: row.OrgID, ID: row.ID}); err != nil {
			return err
		}
		if err := q.MarkSaved(ctx, sandboxdb.MarkSavedParams{SavedAt: at, OrgID: row.OrgID, ID: row.ID}); err != nil {
			return err
		}
		last, err := q.LastArchive(ctx, sandboxdb.LastArchiveParams{OrgID: row.OrgID, SessionID: row.SessionID})
		if err == nil && last.Sha256 == ref.Sum.String() {
			out = last
			return nil
		}
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return err
		}
		out, err = q.InsertArchive(ctx, sandboxdb.InsertArchiveParams{
			OrgID: row.OrgID, SessionID: row.SessionID, SandboxID: row.ID, Epoch: row.Epoch, Sha256: ref.Sum.String(),
			SizeBytes: ref.Size, ContentBytes: meta.ContentBytes, Files: meta.Files, Reason: reason,
		})
		if err != nil {
			return err
		}
		_, err = session.Append(ctx, s.clock.Now(), journal.Of(journal.CheckpointCreated{
			Checkpoint: id.New[id.Checkpoint](), Sandbox: row.ID, SHA256: out.Sha256, Bytes: out.SizeBytes, ContentBytes: out.ContentBytes,
			Files: out.Files, Reason: reason,
		}))
		return err
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fmt.Errorf("%w: it ended while it was being saved", errGone)
	}
	if err != nil {
		return nil, fmt.Errorf("note a save of sandbox %s: %w", row.ID, err)
	}
	return archiveOf(out)
}

// damagedError says that the session's files cannot be had back: going on in an
// empty directory would be a silent loss.
type damagedError struct{ fault *fault.Error }

func (e *damagedError) Error() string { return e.fault.Error() }

// restore puts the session's last save into a fresh machine; nil when there is none.
func (s *Service) restore(ctx context.Context, b *Sandbox) (*Archive, error) {
	last, err := s.LastArchive(ctx, b.Org, b.Session)
	if err != nil || last == nil {
		return nil, err
	}
	stored, err := s.blobs.Get(ctx, b.Org, last.Sum)
	if errors.Is(err, blob.ErrNotFound) {
		return nil, &damagedError{unrestorable(last, err)}
	}
	if err != nil {
		return nil, err
	}
	defer stored.Close() //nolint:errcheck // read only
	err = b.withGuest(ctx, bridge.UseRestore, b.Epoch, "", func(c *guest.Client) error {
		_, err := c.Restore(ctx, guest.RestoreRequest{Epoch: b.Epoch, SHA256: last.Sum.String(), Bytes: last.Bytes}, stored)
		return err
	})
	var refused *guest.Error
	switch {
	case err == nil:
	case errors.Is(err, blob.ErrDamaged), errors.As(err, &refused):
		// Another machine would refuse it too: it is the archive, and the blob
		// store's own check tells whether its bytes are at fault.
		return nil, &damagedError{unrestorable(last, errors.Join(err, s.verify(ctx, last)))}
	default:
		return nil, fmt.Errorf("restore the working directory of session %s: %w", b.Session, err)
	}
	return last, nil
}

// verify reads a stored archive to its end and so checks its hash.
func (s *Service) verify(ctx context.Context, a *Archive) error {
	stored, err := s.blobs.Get(ctx, a.Org, a.Sum)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, stored)
	return errors.Join(err, stored.Close())
}

func unrestorable(a *Archive, err error) *fault.Error {
	why := "cannot be restored"
	if errors.Is(err, blob.ErrDamaged) || errors.Is(err, blob.ErrNotFound) {
		why = "is damaged in the store and cannot be restored"
	}
	return fault.Newf(fault.Internal, "internal", "The working directory of this session, saved at %s, %s.",
		a.CreatedAt.UTC().Format(time.RFC3339), why).Because(err)
}
