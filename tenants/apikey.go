package tenants

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// KeyStatus is what a key is good for.
type KeyStatus string

// The statuses of a key.
const (
	KeyActive  KeyStatus = "active"
	KeyExpired KeyStatus = "expired"
	KeyRevoked KeyStatus = "revoked"
)

// Key is an API key, without its secret.
type Key struct {
	Org id.Org
	ID  id.Key
	// Project is empty for a key of the whole organisation.
	Project id.Project
	Name    string
	// Prefix is the beginning of the secret, to recognise it by.
	Prefix string
	// Scopes are permissions, sorted, or AllScopes alone.
	Scopes []string
	// APIVersion is the date of the API version that the key's requests speak unless they say otherwise.
	APIVersion string
	// CreatedBy is the id of the user or key that made it.
	CreatedBy string
	// Version grows with each change, from 1.
	Version   int64
	CreatedAt time.Time
	// ExpiresAt is nil for a key that does not expire.
	ExpiresAt *time.Time
	// LastUsedAt is exact to about a minute; nil before the first use.
	LastUsedAt *time.Time
	RevokedAt  *time.Time
}

// Status is what the key is good for at this time.
func (k Key) Status(now time.Time) KeyStatus {
	switch {
	case k.RevokedAt != nil:
		return KeyRevoked
	case k.ExpiresAt != nil && !k.ExpiresAt.After(now):
		return KeyExpired
	default:
		return KeyActive
	}
}

// Principal is who acts with this key.
func (k Key) Principal() principal.Principal {
	return principal.Principal{Kind: principal.Key, ID: string(k.ID), Org: k.Org, Project: k.Project, Scopes: k.Scopes}
}

// CreateKey is the input of CreateKeyTx.
type CreateKey struct {
	Name string
	// Project may be empty, for a key of the whole organisation.
	Project id.Project
	// Scopes are permissions, or AllScopes alone.
	Scopes    []string
	ExpiresAt *time.Time
}

// UpdateKey is the input of UpdateKeyTx. What is nil stays.
type UpdateKey struct {
	Name   *string
	Scopes []string
	// ExpiresAt is set when SetExpiry is; nil then means that the key does not expire.
	ExpiresAt *time.Time
	SetExpiry bool
	// IfVersion refuses the change, with precondition_failed, when the key is at another version.
	IfVersion *int64
}

// ListKeys selects keys.
type ListKeys struct {
	// Project restricts the list to the keys of one project; empty lists all of the organisation's.
	Project  id.Project
	Statuses []KeyStatus
	// OldestFirst turns the order round.
	OldestFirst bool
	// After is the id of the last one seen, in the same order; empty begins at the first.
	After id.Key
	Limit int
}

// CreateKeyTx makes a key in a transaction of the organisation of by, who gets no scope that by has not. The secret is returned this once
// and stored nowhere. Its faults: invalid_request, permission_denied, not_found or archived for the project.
func (s *Service) CreateKeyTx(ctx context.Context, tx pgx.Tx, by principal.Principal, in CreateKey) (key Key, secret string, err error) {
	var faults fieldFaults
	name, bad := cleanName(in.Name, "/name", true)
	faults.add(bad)
	scopes, bad := cleanScopes(in.Scopes)
	faults.add(bad)
	faults.add(s.checkExpiry(in.ExpiresAt))
	if err := faults.err(); err != nil {
		return Key{}, "", err
	}
	if err := mayGive(by, scopes); err != nil {
		return Key{}, "", err
	}
	var project *string
	if in.Project != "" {
		if _, err := s.RequireActiveProjectTx(ctx, tx, by.Org, in.Project); err != nil {
			return Key{}, "", err
		}
		p := string(in.Project)
		project = &p
	}
	secret = newKeySecret()
	var person *string
	if by.Kind == principal.User {
		person = &by.ID
	}
	row, err := tenantsdb.New(tx).InsertKey(ctx, tenantsdb.InsertKeyParams{
		OrgID: string(by.Org), ID: string(id.New[id.Key]()), ProjectID: project, Name: name, Prefix: secret[:keyShownLen],
		SecretSha256: digestOf(secret), Scopes: scopes, ApiVersion: s.apiVersion, CreatedBy: by.ID,
		CreatedAt: s.clock.Now(), ExpiresAt: micros(in.ExpiresAt), UserID: person,
	})
	if err != nil {
		return Key{}, "", fmt.Errorf("insert a key: %w", err)
	}
	return keyOf(tenantsdb.GetKeyRow(row)), secret, nil
}

// GetKey returns a key of the organisation, or not found.
func (s *Service) GetKey(ctx context.Context, org id.Org, key id.Key) (out Key, err error) {
	err = s.in(ctx, org, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		row, err := q.GetKey(ctx, tenantsdb.GetKeyParams{OrgID: string(org), ID: string(key)})
		if err != nil {
			return fmt.Errorf("read a key: %w", err)
		}
		out = keyOf(row)
		return nil
	})
	return out, err
}

// ListKeys returns keys of the organisation, newest first unless asked otherwise.
func (s *Service) ListKeys(ctx context.Context, org id.Org, in ListKeys) (out []Key, err error) {
	var project *string
	if in.Project != "" {
		p := string(in.Project)
		project = &p
	}
	statuses := make([]string, 0, len(in.Statuses))
	for _, st := range in.Statuses {
		statuses = append(statuses, string(st))
	}
	err = s.in(ctx, org, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		if in.OldestFirst {
			rows, err := q.ListKeysOldestFirst(ctx, tenantsdb.ListKeysOldestFirstParams{
				OrgID: string(org), ProjectID: project, Statuses: statuses, Now: s.clock.Now(), After: string(in.After), MaxRows: rowLimit(in.Limit),
			})
			for _, r := range rows {
				out = append(out, keyOf(tenantsdb.GetKeyRow(r)))
			}
			return wrap("list keys", err)
		}
		rows, err := q.ListKeys(ctx, tenantsdb.ListKeysParams{
			OrgID: string(org), ProjectID: project, Statuses: statuses, Now: s.clock.Now(), Before: string(in.After), MaxRows: rowLimit(in.Limit),
		})
		for _, r := range rows {
			out = append(out, keyOf(tenantsdb.GetKeyRow(r)))
		}
		return wrap("list keys", err)
	})
	return out, err
}

// UpdateKeyTx changes a key's name, scopes or expiry. Its faults: not_found, precondition_failed, key_revoked, permission_denied,
// invalid_request.
func (s *Service) UpdateKeyTx(ctx context.Context, tx pgx.Tx, by principal.Principal, key id.Key, in UpdateKey) (Key, error) {
	q := tenantsdb.New(tx)
	was, err := q.LockKey(ctx, tenantsdb.LockKeyParams{OrgID: string(by.Org), ID: string(key)})
	if err != nil {
		return Key{}, postgres.Translate(fmt.Errorf("read a key: %w", err))
	}
	if in.IfVersion != nil && *in.IfVersion != was.Version {
		return Key{}, errVersion()
	}
	if was.RevokedAt != nil {
		return Key{}, fault.New(fault.Conflict, "state_conflict", "This key is revoked and cannot be changed. Make a new one.")
	}
	next := tenantsdb.UpdateKeyParams{OrgID: was.OrgID, ID: was.ID, Name: was.Name, Scopes: was.Scopes, ExpiresAt: was.ExpiresAt}
	var faults fieldFaults
	var bad *fault.Field
	if in.Name != nil {
		next.Name, bad = cleanName(*in.Name, "/name", true)
		faults.add(bad)
	}
	if in.Scopes != nil {
		next.Scopes, bad = cleanScopes(in.Scopes)
		faults.add(bad)
	}
	if in.SetExpiry {
		next.ExpiresAt = micros(in.ExpiresAt)
		faults.add(s.checkExpiry(in.ExpiresAt))
	}
	if err := faults.err(); err != nil {
		return Key{}, err
	}
	// Also when only the expiry changes: to prolong a key is to give its scopes once more.
	if in.Scopes != nil || in.SetExpiry {
		if err := mayGive(by, next.Scopes); err != nil {
			return Key{}, err
		}
	}
	row, err := q.UpdateKey(ctx, next)
	if err != nil {
		return Key{}, fmt.Errorf("update a key: %w", err)
	}
	return keyOf(tenantsdb.GetKeyRow(row)), nil
}

// RevokeKeyTx ends a key for good; again: the same. A request that begins after the commit is refused, on every replica.
func (s *Service) RevokeKeyTx(ctx context.Context, tx pgx.Tx, org id.Org, key id.Key) (Key, error) {
	q := tenantsdb.New(tx)
	was, err := q.LockKey(ctx, tenantsdb.LockKeyParams{OrgID: string(org), ID: string(key)})
	if err != nil {
		return Key{}, postgres.Translate(fmt.Errorf("read a key: %w", err))
	}
	if was.RevokedAt != nil {
		return keyOf(tenantsdb.GetKeyRow(was)), nil
	}
	row, err := q.RevokeKey(ctx, tenantsdb.RevokeKeyParams{OrgID: string(org), ID: string(key), Now: s.clock.Now()})
	if err != nil {
		return Key{}, fmt.Errorf("revoke a key: %w", err)
	}
	return keyOf(tenantsdb.GetKeyRow(row)), nil
}

// cleanScopes sorts the scopes, drops doubles and refuses unknown ones.
func cleanScopes(in []string) ([]string, *fault.Field) {
	bad := func(message string) (_ []string, f *fault.Field) {
		return nil, &fault.Field{Pointer: "/scopes", Code: "invalid_scope", Message: message}
	}
	if len(in) == 0 {
		return bad(`Choose at least one scope, such as "sessions:read", or "*" for all.`)
	}
	if slices.Contains(in, AllScopes) {
		return []string{AllScopes}, nil
	}
	scopes := slices.Clone(in)
	slices.Sort(scopes)
	scopes = slices.Compact(scopes)
	for _, sc := range scopes {
		if !Permission(sc).Known() {
			names := make([]string, 0, len(grants))
			for _, p := range Permissions() {
				names = append(names, string(p))
			}
			return bad(fmt.Sprintf("There is no scope %q. There are: *, %s.", truncate(sc, 40), strings.Join(names, ", ")))
		}
	}
	return scopes, nil
}

// mayGive refuses to hand out what one has not: a developer's key must not do what the developer may not.
func mayGive(by principal.Principal, scopes []string) error {
	wanted := scopes
	if slices.Contains(scopes, AllScopes) {
		wanted = nil
		for _, p := range Permissions() {
			wanted = append(wanted, string(p))
		}
	}
	for _, w := range wanted {
		if !Allowed(by, Permission(w)) {
			return fault.Newf(fault.Forbidden, "permission_denied", "You may not give a key the scope %s, as you do not have it yourself.", w).With("rule", w)
		}
	}
	return nil
}

func (s *Service) checkExpiry(at *time.Time) *fault.Field {
	if at == nil || at.After(s.clock.Now()) {
		return nil
	}
	return &fault.Field{Pointer: "/expires_at", Code: "in_the_past", Message: "The expiry lies in the past."}
}

// micros brings a time to what Postgres keeps.
func micros(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC().Truncate(time.Microsecond)
	return &u
}

func wrap(what string, err error) error {
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

func keyOf(r tenantsdb.GetKeyRow) Key {
	k := Key{
		Org: id.Org(r.OrgID), ID: id.Key(r.ID), Name: r.Name, Prefix: r.Prefix, Scopes: r.Scopes, APIVersion: r.ApiVersion.Format(time.DateOnly),
		CreatedBy: r.CreatedBy, Version: r.Version, CreatedAt: r.CreatedAt, ExpiresAt: r.ExpiresAt, LastUsedAt: r.LastUsedAt, RevokedAt: r.RevokedAt,
	}
	if r.ProjectID != nil {
		k.Project = id.Project(*r.ProjectID)
	}
	return k
}
