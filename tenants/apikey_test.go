package tenants_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func TestAKeyIsShownOnceAndKnownAfterwards(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	by := f.ownerOf(a)
	made, secret := f.key(t, by, tenants.CreateKey{Name: " CI ", Project: a.Project.ID, Scopes: []string{"sessions:write", "agents:read", "agents:read"}})
	require.True(t, strings.HasPrefix(secret, made.Prefix))
	require.Len(t, made.Prefix, 10)
	require.Equal(t, "CI", made.Name)
	require.Equal(t, []string{"agents:read", "sessions:write"}, made.Scopes)
	require.Equal(t, tenants.DefaultAPIVersion, made.APIVersion)
	require.Equal(t, string(a.User.ID), made.CreatedBy)
	require.NotContains(t, f.asOwner(t, "SELECT string_agg(k::text, '') FROM api_keys k"), secret)

	got, err := f.AuthenticateKey(t.Context(), secret)
	require.NoError(t, err)
	require.Equal(t, made, got)
	p := got.Principal()
	require.Equal(t, principal.Principal{Kind: principal.Key, ID: string(made.ID), Org: a.Organization.ID, Project: a.Project.ID, Scopes: made.Scopes}, p)
	require.True(t, tenants.Allowed(p, tenants.SessionsWrite))
	require.False(t, tenants.Allowed(p, tenants.KeysWrite))

	again, err := f.GetKey(t.Context(), a.Organization.ID, made.ID)
	require.NoError(t, err)
	require.Equal(t, made, again)
}

func TestKeysThatAreNotAccepted(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	by := f.ownerOf(a)
	soon := f.hands.Now().Add(time.Hour)
	_, expiring := f.key(t, by, tenants.CreateKey{ExpiresAt: &soon})
	_, forged := newFixture(t).strayKey(t)

	for name, c := range map[string]struct{ secret, code, says string }{
		"none":            {"", "unauthenticated", "Authorization"},
		"another kind":    {"sk-1234567890", "unauthenticated", "begin with amb_"},
		"mistyped":        {expiring[:20] + flip(expiring[20]) + expiring[21:], "unauthenticated", "mistyped"},
		"cut":             {expiring[:40], "unauthenticated", "mistyped"},
		"with a space":    {expiring + " ", "unauthenticated", "mistyped"},
		"forged":          {forged, "unauthenticated", "not known"},
		"enormous":        {"amb_" + strings.Repeat("x", 1<<20), "unauthenticated", "mistyped"},
		"with a null":     {expiring[:43] + "\x00", "unauthenticated", "mistyped"},
		"not valid UTF-8": {"amb_" + strings.Repeat("\xff", 40), "unauthenticated", "mistyped"},
	} {
		_, err := f.AuthenticateKey(t.Context(), c.secret)
		got := requireCode(t, c.code, err)
		require.Equal(t, fault.Unauthenticated, got.Kind, name)
		require.Contains(t, got.Message, c.says, name)
	}
	_, err := f.AuthenticateKey(t.Context(), expiring)
	require.NoError(t, err)
	f.hands.Advance(time.Hour)
	_, err = f.AuthenticateKey(t.Context(), expiring)
	requireCode(t, "key_expired", err)
}

// strayKey makes a well-formed key that another instance knows.
func (f *fixture) strayKey(t *testing.T) (tenants.Key, string) {
	t.Helper()
	return f.key(t, f.ownerOf(f.account(t, "stray@example.com")), tenants.CreateKey{})
}

func flip(c byte) string {
	if c == 'A' {
		return "B"
	}
	return "A"
}

func TestARevokedKeyIsRefusedAtOnceOnEveryReplica(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	by := f.ownerOf(a)
	made, secret := f.key(t, by, tenants.CreateKey{})
	replica, err := tenants.New(f.db, f.deps)
	require.NoError(t, err)
	for _, s := range []*tenants.Service{f.Service, replica} {
		_, err := s.AuthenticateKey(t.Context(), secret)
		require.NoError(t, err)
	}
	var revoked tenants.Key
	f.tx(t, by.Org, func(tx pgx.Tx) (err error) {
		revoked, err = f.RevokeKeyTx(t.Context(), tx, by.Org, made.ID)
		return err
	})
	require.Equal(t, tenants.KeyRevoked, revoked.Status(f.hands.Now()))
	for _, s := range []*tenants.Service{f.Service, replica} {
		_, err := s.AuthenticateKey(t.Context(), secret)
		requireCode(t, "key_revoked", err)
	}
	f.tx(t, by.Org, func(tx pgx.Tx) error {
		again, err := f.RevokeKeyTx(t.Context(), tx, by.Org, made.ID)
		require.Equal(t, revoked, again)
		return err
	})
	name := "other"
	requireCode(t, "state_conflict", f.txErr(t, by.Org, func(tx pgx.Tx) error {
		_, err := f.UpdateKeyTx(t.Context(), tx, by, made.ID, tenants.UpdateKey{Name: &name})
		return err
	}))
}

func TestNobodyGivesAwayWhatTheyHaveNot(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	developer := f.ownerOf(a)
	developer.Role = "developer"
	create := func(by principal.Principal, scopes ...string) error {
		return f.db.InTx(t.Context(), by.Org, func(tx pgx.Tx) error {
			_, _, err := f.CreateKeyTx(t.Context(), tx, by, tenants.CreateKey{Name: "k", Scopes: scopes})
			return err
		})
	}
	require.NoError(t, create(developer, "sessions:write", "keys:write"))
	requireCode(t, "permission_denied", create(developer, "projects:write"))
	requireCode(t, "permission_denied", create(developer, "*"))

	narrow, _ := f.key(t, f.ownerOf(a), tenants.CreateKey{Scopes: []string{"keys:write", "agents:read"}})
	require.NoError(t, create(narrow.Principal(), "agents:read"))
	requireCode(t, "permission_denied", create(narrow.Principal(), "agents:write"))

	wide, _ := f.key(t, f.ownerOf(a), tenants.CreateKey{})
	requireCode(t, "permission_denied", f.txErr(t, narrow.Org, func(tx pgx.Tx) error {
		_, err := f.UpdateKeyTx(t.Context(), tx, narrow.Principal(), wide.ID, tenants.UpdateKey{SetExpiry: true})
		return err
	})) // to prolong is to give
}

func TestKeysAreChecked(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	by := f.ownerOf(a)
	past := f.hands.Now().Add(-time.Second)
	for name, in := range map[string]tenants.CreateKey{
		"no name":       {Scopes: []string{"*"}},
		"no scope":      {Name: "k"},
		"unknown scope": {Name: "k", Scopes: []string{"agents:wirte"}},
		"in the past":   {Name: "k", Scopes: []string{"*"}, ExpiresAt: &past},
	} {
		err := f.txErr(t, by.Org, func(tx pgx.Tx) error {
			_, _, err := f.CreateKeyTx(t.Context(), tx, by, in)
			return err
		})
		require.Equal(t, "invalid_request", fault.As(err).Code, name)
	}
	requireCode(t, "not_found", f.txErr(t, by.Org, func(tx pgx.Tx) error {
		_, _, err := f.CreateKeyTx(t.Context(), tx, by, tenants.CreateKey{Name: "k", Scopes: []string{"*"}, Project: id.New[id.Project]()})
		return err
	}))
}

func TestAKeyIsChanged(t *testing.T) {
	f := newFixture(t)
	by := f.ownerOf(f.account(t, "ada@example.com"))
	made, secret := f.key(t, by, tenants.CreateKey{})
	name, until := "renamed", f.hands.Now().Add(time.Hour)
	var changed tenants.Key
	f.tx(t, by.Org, func(tx pgx.Tx) (err error) {
		changed, err = f.UpdateKeyTx(t.Context(), tx, by, made.ID, tenants.UpdateKey{
			Name: &name, Scopes: []string{"models:read"}, ExpiresAt: &until, SetExpiry: true, IfVersion: &made.Version,
		})
		return err
	})
	require.Equal(t, made.Version+1, changed.Version)
	got, err := f.AuthenticateKey(t.Context(), secret)
	require.NoError(t, err)
	require.Equal(t, changed, got)
	requireCode(t, "precondition_failed", f.txErr(t, by.Org, func(tx pgx.Tx) error {
		_, err := f.UpdateKeyTx(t.Context(), tx, by, made.ID, tenants.UpdateKey{Name: &name, IfVersion: &made.Version})
		return err
	}))
	f.tx(t, by.Org, func(tx pgx.Tx) (err error) {
		changed, err = f.UpdateKeyTx(t.Context(), tx, by, made.ID, tenants.UpdateKey{SetExpiry: true})
		return err
	})
	require.Nil(t, changed.ExpiresAt)
}

func TestKeysAreListedByPage(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	by := f.ownerOf(a)
	soon := f.hands.Now().Add(time.Minute)
	var made []tenants.Key
	for i := range 5 {
		in := tenants.CreateKey{}
		switch i {
		case 1:
			in.Project = a.Project.ID
		case 2:
			in.ExpiresAt = &soon
		}
		k, _ := f.key(t, by, in)
		made = append(made, k)
	}
	f.tx(t, by.Org, func(tx pgx.Tx) error {
		_, err := f.RevokeKeyTx(t.Context(), tx, by.Org, made[3].ID)
		return err
	})
	f.hands.Advance(time.Hour)
	ids := func(in tenants.ListKeys) (out []id.Key) {
		if in.Limit == 0 {
			in.Limit = 10
		}
		list, err := f.ListKeys(t.Context(), by.Org, in)
		require.NoError(t, err)
		for _, k := range list {
			out = append(out, k.ID)
		}
		return out
	}
	require.Equal(t, []id.Key{made[4].ID, made[3].ID}, ids(tenants.ListKeys{Limit: 2}))
	require.Equal(t, []id.Key{made[2].ID, made[1].ID, made[0].ID}, ids(tenants.ListKeys{After: made[3].ID}))
	require.Equal(t, []id.Key{made[3].ID, made[4].ID}, ids(tenants.ListKeys{OldestFirst: true, After: made[2].ID}))
	require.Equal(t, []id.Key{made[4].ID, made[1].ID, made[0].ID}, ids(tenants.ListKeys{Statuses: []tenants.KeyStatus{tenants.KeyActive}}))
	require.Equal(t, []id.Key{made[2].ID, made[3].ID}, ids(tenants.ListKeys{OldestFirst: true, Statuses: []tenants.KeyStatus{tenants.KeyRevoked, tenants.KeyExpired}}))
	require.Equal(t, []id.Key{made[1].ID}, ids(tenants.ListKeys{Project: a.Project.ID}))
}

func TestTheLastUseIsWrittenAtMostOnceAMinuteAndNotLostAtTheEnd(t *testing.T) {
	f := newFixture(t)
	by := f.ownerOf(f.account(t, "ada@example.com"))
	made, secret := f.key(t, by, tenants.CreateKey{})
	f.Start(t.Context())
	<-f.Started()
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() { _, _ = f.AuthenticateKey(t.Context(), secret) })
	}
	wg.Wait()
	require.NoError(t, f.Stop(t.Context()))
	got, err := f.GetKey(t.Context(), by.Org, made.ID)
	require.NoError(t, err)
	require.NotNil(t, got.LastUsedAt)
	require.Equal(t, made.Version, got.Version, "a use is no change")

	first := *got.LastUsedAt
	f.hands.Advance(30 * time.Second)
	_, err = f.AuthenticateKey(t.Context(), secret)
	require.NoError(t, err)
	require.NoError(t, f.Stop(t.Context()))
	got, err = f.GetKey(t.Context(), by.Org, made.ID)
	require.NoError(t, err)
	require.Equal(t, first, *got.LastUsedAt)
	f.hands.Advance(time.Minute)
	_, err = f.AuthenticateKey(t.Context(), secret)
	require.NoError(t, err)
	require.NoError(t, f.Stop(t.Context()))
	got, err = f.GetKey(t.Context(), by.Org, made.ID)
	require.NoError(t, err)
	require.True(t, got.LastUsedAt.After(first))
}

func TestALastUseThatCouldNotBeWrittenIsKept(t *testing.T) {
	f := newFixture(t)
	by := f.ownerOf(f.account(t, "ada@example.com"))
	made, secret := f.key(t, by, tenants.CreateKey{})
	_, err := f.AuthenticateKey(t.Context(), secret)
	require.NoError(t, err)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	require.Error(t, f.Stop(gone))
	require.NoError(t, f.Stop(t.Context()))
	got, err := f.GetKey(t.Context(), by.Org, made.ID)
	require.NoError(t, err)
	require.NotNil(t, got.LastUsedAt)
}

func BenchmarkAuthenticateKey(b *testing.B) {
	f := newBenchFixture(b)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := f.service.AuthenticateKey(b.Context(), f.secret); err != nil {
				b.Error(err)
				return
			}
		}
	})
}
