package tenants_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/tenants"
)

func TestARemovedMembersKeysStopAtOnce(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	owner := f.ownerOf(a)
	member, eve := f.join(t, a.Organization.ID, "eve@example.com", tenants.RoleOwner)
	by := f.as(t, eve, a.Organization.ID)
	every := tenants.CreateKey{Name: "all", Scopes: []string{tenants.AllScopes}}
	hers, herSecret := f.key(t, by, every)
	_, childSecret := f.key(t, hers.Principal(), tenants.CreateKey{Name: "made by her key", Scopes: []string{"agents:read"}})
	_, ownerSecret := f.key(t, owner, every)
	works := func(secret string) error {
		_, err := f.AuthenticateKey(t.Context(), secret)
		return err
	}
	for _, secret := range []string{herSecret, childSecret, ownerSecret} {
		require.NoError(t, works(secret))
	}

	require.NoError(t, f.remove(t, owner, member))
	for _, secret := range []string{herSecret, childSecret} {
		require.True(t, fault.IsCode(works(secret), "key_revoked"), "a removed member's key works")
	}
	require.NoError(t, works(ownerSecret), "nobody else's")
	listed, err := f.GetKey(t.Context(), a.Organization.ID, hers.ID)
	require.NoError(t, err)
	require.Equal(t, tenants.KeyRevoked, listed.Status(f.hands.Now()), "and the list says so")

	// A key that was being made while its maker was removed.
	_, late := f.key(t, by, every)
	require.True(t, fault.IsCode(works(late), "key_revoked"), "a key that was being made meanwhile works")
	_, lateChild := f.key(t, hers.Principal(), every)
	require.True(t, fault.IsCode(works(lateChild), "key_revoked"))

	// Whoever comes back begins anew.
	f.asOwner(t, `INSERT INTO members (org_id, id, user_id, role, created_at) VALUES ($1, $2, $3, 'owner', now()) RETURNING id`, a.Organization.ID, member, eve.User.ID)
	require.True(t, fault.IsCode(works(herSecret), "key_revoked"))
	require.True(t, fault.IsCode(works(childSecret), "key_revoked"))
}
