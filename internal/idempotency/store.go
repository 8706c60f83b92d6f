package idempotency

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/idempotency/internal/idempotencydb"
	"ambit.dev/ambit/internal/seal"
)

const (
	// Kept is how long an answer is kept.
	Kept = 24 * time.Hour
	// KeptForMoney is how long it is kept where money moves.
	KeptForMoney = 30 * 24 * time.Hour
	// MaxKey is the longest Idempotency-Key, in bytes.
	MaxKey = 255

	purpose = "idempotency record"
)

// Scope is what a key is unique in. Two principals, two methods or two paths may use the same key.
type Scope struct {
	Org       id.Org
	Principal string
	Method    string
	Path      string
	Key       string
}

// Record is the answer to a request.
type Record struct {
	Status int               `json:"status"`
	Header map[string]string `json:"header,omitempty"`
	Body   []byte            `json:"body"`
}

// Store finds and keeps records. It is safe for concurrent use.
type Store struct {
	sealer *seal.Sealer
	clock  clock.Clock
}

// NewStore returns a Store whose records are sealed by sealer.
func NewStore(sealer *seal.Sealer, c clock.Clock) *Store { return &Store{sealer: sealer, clock: c} }

// BeginTx claims the scope until tx ends and returns the record of an earlier request, or nil when this is the first. It fails with
// idempotency_in_progress while another transaction has the claim, and with idempotency_key_reused when the earlier request had
// another body.
func (s *Store) BeginTx(ctx context.Context, tx pgx.Tx, scope Scope, body []byte) (*Record, error) {
	q := idempotencydb.New(tx)
	digest := scope.digest()
	free, err := q.TryLock(ctx, int64(binary.BigEndian.Uint64(digest[:8]))) //nolint:gosec // any 64 bits do
	if err != nil {
		return nil, fmt.Errorf("claim an idempotency key: %w", err)
	}
	if !free {
		return nil, fault.New(fault.Conflict, "idempotency_in_progress", "A request with this Idempotency-Key is still running.").After(time.Second)
	}
	// This is a statement of its own, and so sees what the holder of the lock before us has committed.
	row, err := q.Find(ctx, idempotencydb.FindParams{OrgID: string(scope.Org), ScopeSha256: digest, Now: s.clock.Now()})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find an idempotency record: %w", err)
	}
	if fingerprint := sha256.Sum256(body); !bytes.Equal(row.Fingerprint, fingerprint[:]) {
		return nil, fault.New(fault.Unprocessable, "idempotency_key_reused", "This Idempotency-Key came before with another body. Use a new key for a new request.")
	}
	plain, err := s.sealer.Unseal(row.Sealed, purpose)
	if err != nil {
		return nil, fmt.Errorf("open an idempotency record: %w", err)
	}
	var rec Record
	if err := json.Unmarshal(plain, &rec); err != nil {
		return nil, fmt.Errorf("read an idempotency record: %w", err)
	}
	return &rec, nil
}

// SaveTx keeps the answer for the given time, in the transaction that has the claim from BeginTx.
func (s *Store) SaveTx(ctx context.Context, tx pgx.Tx, scope Scope, body []byte, rec Record, kept time.Duration) error {
	plain, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("write an idempotency record: %w", err)
	}
	sealed, err := s.sealer.Seal(plain, purpose)
	if err != nil {
		return fmt.Errorf("seal an idempotency record: %w", err)
	}
	fingerprint := sha256.Sum256(body)
	now := s.clock.Now()
	err = idempotencydb.New(tx).Save(ctx, idempotencydb.SaveParams{
		OrgID: string(scope.Org), ScopeSha256: scope.digest(), Fingerprint: fingerprint[:], Sealed: sealed,
		CreatedAt: now, ExpiresAt: now.Add(kept),
	})
	if err != nil {
		return fmt.Errorf("keep an idempotency record: %w", err)
	}
	return nil
}

// digest is over length-prefixed parts, so that no two scopes run together.
func (s Scope) digest() []byte {
	h := sha256.New()
	for _, part := range []string{string(s.Org), s.Principal, s.Method, s.Path, s.Key} {
		var n [8]byte
		binary.BigEndian.PutUint64(n[:], uint64(len(part)))
		h.Write(n[:])
		h.Write([]byte(part))
	}
	return h.Sum(nil)
}
