package journal

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal/internal/journaldb"
)

// Lease is a worker's right to append step events to a session at one epoch. Its life is measured by the database's clock alone.
type Lease struct {
	Org     id.Org
	Session id.Session
	Owner   string
	Epoch   int64
}

// ClaimLease takes the lease of a session that has work and no worker. It returns false when there is nothing to take. The session's
// earlier worker, if it still lives, is fenced by the new epoch.
func ClaimLease(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session, owner, address string, ttl time.Duration) (Lease, bool, error) {
	epoch, err := journaldb.New(tx).ClaimLease(ctx, journaldb.ClaimLeaseParams{
		Owner: &owner, Address: ref(address), TtlSeconds: ttl.Seconds(), OrgID: org, ID: session,
	})
	if errors.Is(err, pgx.ErrNoRows) {
		return Lease{}, false, nil
	}
	if err != nil {
		return Lease{}, false, fmt.Errorf("claim the lease of %s: %w", session, err)
	}
	return Lease{Org: org, Session: session, Owner: owner, Epoch: epoch}, true, nil
}

// RenewLease prolongs a lease that has not run out. ErrFenced says that it has, or that another has taken it.
func RenewLease(ctx context.Context, tx pgx.Tx, l Lease, ttl time.Duration) error {
	n, err := journaldb.New(tx).RenewLease(ctx, journaldb.RenewLeaseParams{TtlSeconds: ttl.Seconds(), OrgID: l.Org, ID: l.Session, Epoch: l.Epoch, Owner: &l.Owner})
	if err != nil {
		return fmt.Errorf("renew the lease of %s: %w", l.Session, err)
	}
	if n == 0 {
		return ErrFenced
	}
	return nil
}

// ReleaseLease gives a lease back. A lease that is already another's is left alone.
func ReleaseLease(ctx context.Context, tx pgx.Tx, l Lease) error {
	_, err := journaldb.New(tx).ReleaseLease(ctx, journaldb.ReleaseLeaseParams{OrgID: l.Org, ID: l.Session, Epoch: l.Epoch, Owner: &l.Owner})
	if err != nil {
		return fmt.Errorf("release the lease of %s: %w", l.Session, err)
	}
	return nil
}

// Ref names a session and its organisation.
type Ref struct {
	Org     id.Org
	Session id.Session
}

// WithoutWorker lists sessions of any organisation that ought to be at work and have no live lease: their worker died, or the job that
// should have woken them was lost. tx must be of the worker's role. Sessions touched within grace are left to the job that is on its way.
func WithoutWorker(ctx context.Context, tx pgx.Tx, grace time.Duration, limit int) ([]Ref, error) {
	rows, err := journaldb.New(tx).SessionsWithoutWorker(ctx, journaldb.SessionsWithoutWorkerParams{GraceSeconds: grace.Seconds(), RowLimit: int32(limit)}) //nolint:gosec // small
	if err != nil {
		return nil, fmt.Errorf("look for sessions without a worker: %w", err)
	}
	refs := make([]Ref, len(rows))
	for i, r := range rows {
		refs[i] = Ref{Org: r.OrgID, Session: r.ID}
	}
	return refs, nil
}
