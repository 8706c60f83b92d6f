package tenants

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

const (
	// keyUseEvery is how often last uses are written down.
	keyUseEvery = 15 * time.Second
	// keyUseGrain is how exact they are: a key in constant use costs one write a minute.
	keyUseGrain = time.Minute
	// maxKeyOrgs bounds the memory of which organisation a key belongs to.
	maxKeyOrgs = 100_000
)

// AuthenticateKey returns the key of this secret and notes its use. Its faults are all of kind Unauthenticated: key_expired, key_revoked,
// and unauthenticated with a message that tells a mistyped key from an unknown one.
//
// A key ends with the membership of who made it, or made the key that made it.
//
// Only the key's organisation, which never changes, is remembered. The key itself is read each time, so a revocation holds from its
// commit on, on every replica; the read costs a fraction of a millisecond.
func (s *Service) AuthenticateKey(ctx context.Context, secret string) (Key, error) {
	if secret == "" {
		return Key{}, fault.New(fault.Unauthenticated, "unauthenticated", "Send an API key: Authorization: Bearer amb_…")
	}
	if !wellFormedKey(secret) {
		message := "This API key is mistyped or cut off: its checksum does not match. Copy it again, or make a new one."
		if !strings.HasPrefix(secret, keyMark) {
			message = "This is not an API key of Ambit: those begin with amb_."
		}
		return Key{}, fault.New(fault.Unauthenticated, "unauthenticated", message)
	}
	digest := digestOf(secret)
	org, err := s.orgOfKey(ctx, digest)
	if err != nil {
		return Key{}, err
	}
	var key Key
	err = s.in(ctx, org, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		row, err := q.GetKeyBySecret(ctx, tenantsdb.GetKeyBySecretParams{OrgID: string(org), SecretSha256: digest})
		if noRows(err) {
			return errUnknownKey()
		}
		if err != nil {
			return fmt.Errorf("read a key: %w", err)
		}
		key = keyOf(tenantsdb.GetKeyRow{
			OrgID: row.OrgID, ID: row.ID, ProjectID: row.ProjectID, Name: row.Name, Prefix: row.Prefix, Scopes: row.Scopes, ApiVersion: row.ApiVersion,
			CreatedBy: row.CreatedBy, Version: row.Version, CreatedAt: row.CreatedAt, ExpiresAt: row.ExpiresAt, LastUsedAt: row.LastUsedAt, RevokedAt: row.RevokedAt,
		})
		if !row.AnsweredFor { // made while its maker was being removed
			return fault.New(fault.Unauthenticated, "key_revoked", "Who made this API key is no longer a member of the organisation. Make a new one.")
		}
		return nil
	})
	if err != nil {
		return Key{}, err
	}
	now := s.clock.Now()
	switch key.Status(now) {
	case KeyRevoked:
		return Key{}, fault.New(fault.Unauthenticated, "key_revoked", "This API key was revoked. Make a new one.")
	case KeyExpired:
		return Key{}, fault.New(fault.Unauthenticated, "key_expired", "This API key has expired. Make a new one, or set a later expiry.")
	case KeyActive:
	}
	if key.LastUsedAt == nil || now.Sub(*key.LastUsedAt) >= keyUseGrain {
		s.keyUses.note(key.Org, key.ID, now)
	}
	return key, nil
}

func (s *Service) orgOfKey(ctx context.Context, digest []byte) (id.Org, error) {
	at := [32]byte(digest)
	if org, ok := s.keyOrgs.Load(at); ok {
		return org.(id.Org), nil
	}
	org, err := lookUp[id.Org](ctx, s, "a key", func(q *tenantsdb.Queries) (string, error) { return q.FindKey(ctx, digest) })
	if err != nil {
		return "", err
	}
	if org == "" {
		return "", errUnknownKey() // not remembered: it may be made, and forged ones would fill the memory
	}
	if s.keyCount.Add(1) > maxKeyOrgs {
		s.keyOrgs.Clear()
		s.keyCount.Store(1)
	}
	s.keyOrgs.Store(at, org)
	return org, nil
}

func errUnknownKey() error {
	return fault.New(fault.Unauthenticated, "unauthenticated", "This API key is not known here. Was it made on another Ambit?")
}

// keyUses are last uses that are not written down yet.
type keyUses struct {
	mu      sync.Mutex
	pending map[id.Key]keyUse
}

type keyUse struct {
	org id.Org
	at  time.Time
}

func (u *keyUses) note(org id.Org, key id.Key, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if was, ok := u.pending[key]; ok && !at.After(was.at) {
		return
	}
	if u.pending == nil {
		u.pending = map[id.Key]keyUse{}
	}
	u.pending[key] = keyUse{org: org, at: at}
}

func (u *keyUses) take() map[id.Key]keyUse {
	u.mu.Lock()
	defer u.mu.Unlock()
	taken := u.pending
	u.pending = nil
	return taken
}

// flushKeyUses writes down the last uses, of all organisations in one statement. What could not be written is kept for the next time.
func (s *Service) flushKeyUses(ctx context.Context) error {
	taken := s.keyUses.take()
	if len(taken) == 0 {
		return nil
	}
	in := tenantsdb.RecordKeyUsesParams{}
	for key, use := range taken {
		in.OrgIds, in.Ids, in.UsedAt = append(in.OrgIds, string(use.org)), append(in.Ids, string(key)), append(in.UsedAt, use.at)
	}
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		_, err := tenantsdb.New(tx).RecordKeyUses(ctx, in)
		return err
	})
	if err != nil {
		for key, use := range taken {
			s.keyUses.note(use.org, key, use.at)
		}
		return fmt.Errorf("write down the last uses of keys: %w", err)
	}
	return nil
}
