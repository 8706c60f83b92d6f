package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/tenants/identity/internal/identitydb"
)

const (
	// CacheFor is how long others may keep the published keys without asking again.
	CacheFor = 5 * time.Minute
	// publishAhead is how long a key is published before it signs: longer than anybody's cache.
	publishAhead = 15 * time.Minute
	// rotateAfter is how long a key signs.
	rotateAfter = 90 * 24 * time.Hour
	// destroyAfter is when the private half of a key that signs no more is destroyed: later than any replica's last use of it.
	destroyAfter = time.Hour
	// skew is how far the clocks of two replicas may differ: a key that is needed at once must sign on the slower one too.
	skew = time.Minute
	// reloadEvery is how soon a replica learns of another one's new key.
	reloadEvery = time.Minute
	// reloadAtMost bounds the reads that tokens with unknown keys can cause.
	reloadAtMost = 2 * time.Second
)

// ErrSignature is wrapped by Verify's error when the token is not one of this instance's.
var ErrSignature = errors.New("not signed by this instance")

// Deps are what a keyring works with. All are needed.
type Deps struct {
	Clock  clock.Clock
	Logger *slog.Logger
	Sealer *seal.Sealer
}

// Keyring signs with the instance's present key and knows all of its public ones. It is safe for concurrent use.
type Keyring struct {
	db   *postgres.DB
	deps Deps
	loop *background.Loop

	mu     sync.RWMutex
	keys   []signingKey // the one that signs from the latest first
	loaded time.Time
}

// New returns a keyring without keys; Start gives it some.
func New(db *postgres.DB, deps Deps) *Keyring {
	k := &Keyring{db: db, deps: deps}
	k.loop = background.New("care of the signing keys", reloadEvery, deps.Logger, k.runOnce)
	return k
}

// Start makes the instance's first key if there is none, loads the keys, and begins to rotate them. Its error names a key that cannot be
// opened, as after a change of the master key.
func (k *Keyring) Start(ctx context.Context) error {
	if err := k.runOnce(ctx); err != nil {
		return fmt.Errorf("load the instance's signing keys: %w", err)
	}
	k.loop.Start(ctx)
	return nil
}

// Started is closed once the background work has had a round.
func (k *Keyring) Started() <-chan struct{} { return k.loop.Started() }

// Stop ends the background work. The keyring still signs and verifies.
func (k *Keyring) Stop(ctx context.Context) error { return k.loop.Stop(ctx) }

// runOnce keeps the keys in order: makes the first, rotates an old one, destroys private halves, seals anew under a new master key.
func (k *Keyring) runOnce(ctx context.Context) error {
	return k.change(ctx, func(ctx context.Context, q *identitydb.Queries, keys []signingKey, now time.Time) (changed bool, err error) {
		current := openKey(keys)
		switch {
		case current == nil:
			changed = true
			err = k.insert(ctx, q, now, now.Add(-skew))
		case now.Sub(current.from) >= rotateAfter:
			changed = true
			err = k.succeed(ctx, q, *current, now, now.Add(publishAhead))
		}
		if err != nil {
			return false, err
		}
		for _, key := range keys {
			if key.stale {
				changed = true
				if err := k.sealAnew(ctx, q, key); err != nil {
					return false, err
				}
			}
		}
		n, err := q.DropPrivateHalves(ctx, now.Add(-destroyAfter))
		if err != nil {
			return false, fmt.Errorf("destroy private halves: %w", err)
		}
		return changed || n > 0, nil
	})
}

// Rotate gives the present key a successor, which is published at once and signs after publishAhead. While a successor waits, it does
// nothing.
func (k *Keyring) Rotate(ctx context.Context) error {
	return k.change(ctx, func(ctx context.Context, q *identitydb.Queries, keys []signingKey, now time.Time) (bool, error) {
		current := openKey(keys)
		if current == nil || current.from.After(now) {
			return false, nil
		}
		return true, k.succeed(ctx, q, *current, now, now.Add(publishAhead))
	})
}

// Revoke is for a key that became known: nothing that it signed verifies any more, here within a minute and elsewhere when CacheFor is
// over. If it was the one that signs, another one signs from now on. False means that there is no such key.
func (k *Keyring) Revoke(ctx context.Context, keyID string) (found bool, err error) {
	err = k.change(ctx, func(ctx context.Context, q *identitydb.Queries, keys []signingKey, now time.Time) (bool, error) {
		n, err := q.RevokeSigningKey(ctx, identitydb.RevokeSigningKeyParams{ID: keyID, Now: now})
		if err != nil {
			return false, fmt.Errorf("revoke a signing key: %w", err)
		}
		if found = n > 0; !found {
			return false, nil
		}
		k.deps.Logger.WarnContext(ctx, "signing key revoked", "key", keyID)
		stillSigns, open := false, false
		for _, key := range keys {
			if key.id == keyID {
				continue
			}
			stillSigns = stillSigns || key.signsAt(now)
			open = open || (key.until == nil && !key.revoked)
		}
		switch {
		case stillSigns && open:
			return true, nil
		case open: // the successor that waits must sign now
			return true, k.beginNow(ctx, q, keys, keyID, now)
		default:
			return true, k.insert(ctx, q, now, now.Add(-skew))
		}
	})
	return found, err
}

// change reads the keys under a lock of the whole instance, lets fn write, and takes the outcome into memory.
func (k *Keyring) change(ctx context.Context, fn func(ctx context.Context, q *identitydb.Queries, keys []signingKey, now time.Time) (changed bool, err error)) error {
	now := k.deps.Clock.Now()
	var keys []signingKey
	err := k.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		q := identitydb.New(tx)
		if err := q.LockSigningKeys(ctx); err != nil {
			return fmt.Errorf("lock the signing keys: %w", err)
		}
		var err error
		if keys, err = k.read(ctx, q); err != nil {
			return err
		}
		changed, err := fn(ctx, q, keys, now)
		if err != nil || !changed {
			return err
		}
		keys, err = k.read(ctx, q)
		return err
	})
	if err != nil {
		return err
	}
	k.take(keys, now)
	return nil
}

func (k *Keyring) read(ctx context.Context, q *identitydb.Queries) ([]signingKey, error) {
	rows, err := q.ListSigningKeys(ctx)
	if err != nil {
		return nil, fmt.Errorf("list signing keys: %w", err)
	}
	keys := make([]signingKey, 0, len(rows))
	for _, row := range rows {
		key, err := open(k.deps.Sealer, row)
		if err != nil {
			return nil, err
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func (k *Keyring) take(keys []signingKey, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.keys, k.loaded = keys, at
}

func (k *Keyring) insert(ctx context.Context, q *identitydb.Queries, now, from time.Time) error {
	row, err := generate(k.deps.Sealer, now, from)
	if err != nil {
		return err
	}
	if err := q.InsertSigningKey(ctx, row); err != nil {
		return fmt.Errorf("insert a signing key: %w", err)
	}
	k.deps.Logger.InfoContext(ctx, "signing key made", "key", row.ID, "signs_from", from)
	return nil
}

// succeed ends a key and makes the one that follows it without a gap.
func (k *Keyring) succeed(ctx context.Context, q *identitydb.Queries, old signingKey, now, from time.Time) error {
	if err := q.EndSigningKey(ctx, identitydb.EndSigningKeyParams{ID: old.id, SignsUntil: &from}); err != nil {
		return fmt.Errorf("end a signing key: %w", err)
	}
	return k.insert(ctx, q, now, from)
}

func (k *Keyring) beginNow(ctx context.Context, q *identitydb.Queries, keys []signingKey, except string, now time.Time) error {
	for _, key := range keys {
		if key.id != except && key.until == nil && !key.revoked {
			if err := q.BeginSigningKey(ctx, identitydb.BeginSigningKeyParams{ID: key.id, SignsFrom: now}); err != nil {
				return fmt.Errorf("let a signing key begin: %w", err)
			}
		}
	}
	return nil
}

func (k *Keyring) sealAnew(ctx context.Context, q *identitydb.Queries, key signingKey) error {
	sealed, err := k.deps.Sealer.Seal(key.private.Seed(), purposeOf(key.id))
	if err != nil {
		return fmt.Errorf("seal a signing key anew: %w", err)
	}
	if err := q.ResealSigningKey(ctx, identitydb.ResealSigningKeyParams{ID: key.id, SealedPrivate: sealed}); err != nil {
		return fmt.Errorf("keep a signing key that was sealed anew: %w", err)
	}
	k.deps.Logger.InfoContext(ctx, "signing key sealed under the new master key", "key", key.id)
	return nil
}

// openKey is the last of the line: the one without an end.
func openKey(keys []signingKey) *signingKey {
	for i := range keys {
		if keys[i].until == nil && !keys[i].revoked {
			return &keys[i]
		}
	}
	return nil
}

// Keys returns the public keys, those that wait to sign included.
func (k *Keyring) Keys() jose.JSONWebKeySet {
	k.mu.RLock()
	defer k.mu.RUnlock()
	set := jose.JSONWebKeySet{Keys: []jose.JSONWebKey{}}
	for _, key := range k.keys {
		if !key.revoked {
			set.Keys = append(set.Keys, key.public)
		}
	}
	return set
}

// JWKS is the document of /.well-known/jwks.json (RFC 7517). It may be cached for CacheFor.
func (k *Keyring) JWKS() ([]byte, error) {
	document, err := json.Marshal(k.Keys())
	if err != nil {
		return nil, fmt.Errorf("write the published keys: %w", err)
	}
	return document, nil
}
