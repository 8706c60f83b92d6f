package identity

import (
	"context"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants/identity/internal/identitydb"
)

// List returns a subject's keys, the newest first, the retired ones included; at most 100.
func (k *AgentKeys) List(ctx context.Context, tx pgx.Tx, org id.Org, of Subject) ([]AgentKeyInfo, error) {
	rows, err := identitydb.New(tx).ListAgentKeys(ctx, identitydb.ListAgentKeysParams{OrgID: string(org), Subject: string(of)})
	if err != nil {
		return nil, fmt.Errorf("list the keys of %s: %w", of, err)
	}
	now := k.deps.Clock.Now()
	out := make([]AgentKeyInfo, len(rows))
	for i, r := range rows {
		public, err := publicOf(r.PublicJwk)
		if err != nil {
			return nil, err
		}
		out[i] = AgentKeyInfo{
			PublicKey: public, State: stateOf(r.RetiresAt, now), Compromised: r.Compromised, CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt,
			SignsFrom: r.SignsFrom, SignsUntil: r.SignsUntil, RetiresAt: r.RetiresAt,
		}
	}
	return out, nil
}

func stateOf(retires *time.Time, now time.Time) KeyState {
	switch {
	case retires == nil:
		return KeyActive
	case retires.After(now):
		return KeyRetiring
	default:
		return KeyRetired
	}
}

// Rotate gives the subject's key a successor: published at once, it signs after a quarter of an hour, when no cache can lack it. The old
// key signs until then, and stays published for a day after. While a successor waits to sign, Rotate changes nothing. It returns all keys.
func (k *AgentKeys) Rotate(ctx context.Context, tx pgx.Tx, org id.Org, of Subject) ([]AgentKeyInfo, error) {
	q := identitydb.New(tx)
	if _, err := k.signing(ctx, tx, org, of); err != nil {
		return nil, err
	}
	if err := q.LockAgentKeys(ctx, string(of)); err != nil {
		return nil, fmt.Errorf("lock the keys of %s: %w", of, err)
	}
	keys, err := k.List(ctx, tx, org, of)
	if err != nil {
		return nil, err
	}
	now := k.deps.Clock.Now()
	current := newest(keys)
	if current == nil {
		return nil, fmt.Errorf("%s has no key to rotate", of)
	}
	if current.SignsFrom.After(now) {
		return keys, nil
	}
	from := now.Add(publishAhead)
	gone := from.Add(overlap)
	if err := q.EndAgentKey(ctx, identitydb.EndAgentKeyParams{OrgID: string(org), Kid: current.KeyID, SignsUntil: &from, RetiresAt: &gone}); err != nil {
		return nil, fmt.Errorf("let a key of %s retire: %w", of, err)
	}
	if err := k.insert(ctx, q, org, of, now, from); err != nil {
		return nil, err
	}
	return k.List(ctx, tx, org, of)
}

// Compromised retires a key that became known to somebody, now: it signs nothing more, leaves the published set, and its private half is
// destroyed. If it was the one that signs, another signs from now on. Again: no error. Its fault is not_found.
func (k *AgentKeys) Compromised(ctx context.Context, tx pgx.Tx, org id.Org, of Subject, kid string) ([]AgentKeyInfo, error) {
	q := identitydb.New(tx)
	if err := q.LockAgentKeys(ctx, string(of)); err != nil {
		return nil, fmt.Errorf("lock the keys of %s: %w", of, err)
	}
	keys, err := k.List(ctx, tx, org, of)
	if err != nil {
		return nil, err
	}
	now := k.deps.Clock.Now()
	found, signs, next := false, false, ""
	for _, key := range keys {
		switch {
		case key.KeyID == kid:
			found = true
		case key.Compromised:
		case key.RetiresAt == nil && key.SignsFrom.After(now):
			next = key.KeyID
		case !key.SignsFrom.After(now) && (key.SignsUntil == nil || key.SignsUntil.After(now)):
			signs = true
		}
	}
	if !found {
		return nil, fault.NotFound()
	}
	if err := q.RetireAgentKey(ctx, identitydb.RetireAgentKeyParams{OrgID: string(org), Kid: kid, Now: now}); err != nil {
		return nil, fmt.Errorf("retire a key of %s: %w", of, err)
	}
	k.deps.Logger.WarnContext(ctx, "agent key retired as compromised", "org", org, "subject", of, "key", kid)
	switch {
	case next != "" && !signs: // the successor that waits must sign now
		err = q.BeginAgentKey(ctx, identitydb.BeginAgentKeyParams{OrgID: string(org), Kid: next, SignsFrom: now.Add(-skew)})
	case next == "" && newestBut(keys, kid) == nil:
		err = k.insert(ctx, q, org, of, now, now.Add(-skew))
	}
	if err != nil {
		return nil, fmt.Errorf("let another key of %s sign: %w", of, err)
	}
	return k.List(ctx, tx, org, of)
}

func newest(keys []AgentKeyInfo) *AgentKeyInfo { return newestBut(keys, "") }

// newestBut is the key without an end, unless it is this one.
func newestBut(keys []AgentKeyInfo, kid string) *AgentKeyInfo {
	for i := range keys {
		if keys[i].RetiresAt == nil && keys[i].KeyID != kid {
			return &keys[i]
		}
	}
	return nil
}

// Start begins the background work: destroying private halves that sign no more, and sealing others anew under a new master key.
func (k *AgentKeys) Start(ctx context.Context) { k.care.Start(ctx) }

// Started is closed once the background work has had a round.
func (k *AgentKeys) Started() <-chan struct{} { return k.care.Started() }

// Stop ends the background work. The keys still sign.
func (k *AgentKeys) Stop(ctx context.Context) error { return k.care.Stop(ctx) }

func (k *AgentKeys) careOnce(ctx context.Context) error {
	masterKey, err := hex.DecodeString(k.deps.Sealer.KeyID())
	if err != nil {
		return fmt.Errorf("read the master key's id: %w", err)
	}
	now := k.deps.Clock.Now()
	return k.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		q := identitydb.New(tx)
		if _, err := q.DropAgentPrivateHalves(ctx, now.Add(-destroyAfter)); err != nil {
			return fmt.Errorf("destroy agents' private halves: %w", err)
		}
		if _, err := q.SweepChallenges(ctx, now.Add(-destroyAfter)); err != nil {
			return fmt.Errorf("delete what was asked and not confirmed: %w", err)
		}
		if _, err := q.SweepSignInChallenges(ctx, now.Add(-destroyAfter)); err != nil {
			return fmt.Errorf("delete old challenges of sign-ins: %w", err)
		}
		rows, err := q.AgentKeysToReseal(ctx, masterKey)
		if err != nil {
			return fmt.Errorf("find agents' keys under an older master key: %w", err)
		}
		for _, r := range rows {
			secret, err := k.deps.Sealer.Unseal(r.SealedPrivate, agentKeyPurpose(r.Kid))
			if err != nil {
				return fmt.Errorf("open agent key %s: %w", r.Kid, err)
			}
			sealed, err := k.deps.Sealer.Seal(secret, agentKeyPurpose(r.Kid))
			if err != nil {
				return fmt.Errorf("seal agent key %s anew: %w", r.Kid, err)
			}
			if err := q.ResealAgentKey(ctx, identitydb.ResealAgentKeyParams{Kid: r.Kid, SealedPrivate: sealed}); err != nil {
				return fmt.Errorf("keep agent key %s that was sealed anew: %w", r.Kid, err)
			}
		}
		return nil
	})
}
