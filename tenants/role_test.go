package tenants_test

import (
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

// join makes a person with an account of its own a member of another organisation.
func (f *fixture) join(t *testing.T, org id.Org, email string, role tenants.Role) (id.Member, tenants.Account) {
	t.Helper()
	a := f.account(t, email)
	member := id.New[id.Member]()
	f.tx(t, org, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO members (org_id, id, user_id, role, created_at) VALUES ($1, $2, $3, $4, now())`, org, member, a.User.ID, role)
		return err
	})
	return member, a
}

func (f *fixture) setRole(t *testing.T, by principal.Principal, member id.Member, role string) (tenants.Member, error) {
	t.Helper()
	var out tenants.Member
	err := f.db.InTx(t.Context(), by.Org, func(tx pgx.Tx) (err error) {
		out, err = f.SetMemberRoleTx(t.Context(), tx, by, member, role)
		return err
	})
	return out, err
}

func (f *fixture) remove(t *testing.T, by principal.Principal, member id.Member) error {
	t.Helper()
	return f.db.InTx(t.Context(), by.Org, func(tx pgx.Tx) error { return f.RemoveMemberTx(t.Context(), tx, by, member) })
}

func (f *fixture) memberOf(t *testing.T, org id.Org, user id.User) tenants.Member {
	t.Helper()
	members, err := f.ListMembers(t.Context(), org, "", 100)
	require.NoError(t, err)
	for _, m := range members {
		if m.UserID == user {
			return m
		}
	}
	t.Fatal("no such member")
	return tenants.Member{}
}

func (f *fixture) newRole(t *testing.T, by principal.Principal, in tenants.SaveRole) (out tenants.CustomRole) {
	t.Helper()
	f.tx(t, by.Org, func(tx pgx.Tx) (err error) {
		out, err = f.CreateRoleTx(t.Context(), tx, by, in)
		return err
	})
	return out
}

// as signs a person in and returns who acts in the organisation, as the console does at each request.
func (f *fixture) as(t *testing.T, a tenants.Account, org id.Org) principal.Principal {
	t.Helper()
	in, err := f.SignIn(t.Context(), tenants.Credentials{Email: a.User.Email, Password: password, Origin: here})
	require.NoError(t, err)
	person, err := f.Authenticate(t.Context(), in.Token)
	require.NoError(t, err)
	p, err := person.In(string(org), "")
	require.NoError(t, err)
	return p
}

func TestTheLastOwnerStays(t *testing.T) {
	f := newFixture(t)
	ada := f.account(t, "ada@example.com")
	owner := f.ownerOf(ada)
	mine := f.memberOf(t, owner.Org, ada.User.ID)
	for _, role := range []string{"admin", "billing", "developer", "viewer"} {
		_, err := f.setRole(t, owner, mine.ID, role)
		requireCode(t, "last_owner", err)
	}
	custom := f.newRole(t, owner, tenants.SaveRole{Name: "All", Permissions: names(tenants.Permissions())})
	_, err := f.setRole(t, owner, mine.ID, string(custom.ID))
	requireCode(t, "last_owner", err)
	requireCode(t, "last_owner", f.remove(t, owner, mine.ID))
	require.Equal(t, tenants.RoleOwner, f.memberOf(t, owner.Org, ada.User.ID).Role)

	second, _ := f.join(t, owner.Org, "bob@example.com", tenants.RoleViewer)
	_, err = f.setRole(t, owner, second, "owner")
	require.NoError(t, err)
	got, err := f.setRole(t, owner, mine.ID, "viewer")
	require.NoError(t, err)
	require.Equal(t, tenants.RoleViewer, got.Role)
	requireCode(t, "last_owner", f.remove(t, owner, second))
}

func names(ps []tenants.Permission) (out []string) {
	for _, p := range ps {
		out = append(out, string(p))
	}
	return out
}

// TestTwoOwnersCannotLeaveAtOnce: each would find the other still there.
func TestTwoOwnersCannotLeaveAtOnce(t *testing.T) {
	f := newFixture(t)
	ada := f.account(t, "ada@example.com")
	owner := f.ownerOf(ada)
	first := f.memberOf(t, owner.Org, ada.User.ID).ID
	second, _ := f.join(t, owner.Org, "bob@example.com", tenants.RoleOwner)
	for range 10 {
		var wg sync.WaitGroup
		results := make([]error, 2)
		for i, member := range []id.Member{first, second} {
			wg.Go(func() { _, results[i] = f.setRole(t, owner, member, "viewer") })
		}
		wg.Wait()
		refused, left := 0, second
		for i, err := range results {
			if err != nil {
				requireCode(t, "last_owner", err)
				refused++
				left = []id.Member{first, second}[i]
			}
		}
		require.Equal(t, 1, refused)
		for _, member := range []id.Member{first, second} {
			if member != left {
				_, err := f.setRole(t, owner, member, "owner")
				require.NoError(t, err)
			}
		}
	}
}

func TestNobodyGivesOrTakesWhatTheyHaveNot(t *testing.T) {
	f := newFixture(t)
	ada := f.account(t, "ada@example.com")
	owner := f.ownerOf(ada)
	_, bob := f.join(t, owner.Org, "bob@example.com", tenants.RoleAdmin)
	third, _ := f.join(t, owner.Org, "cyd@example.com", tenants.RoleViewer)
	payer, _ := f.join(t, owner.Org, "dan@example.com", tenants.RoleBilling)
	admin := f.as(t, bob, owner.Org)
	for _, role := range []string{"owner", "billing"} {
		_, err := f.setRole(t, admin, third, role)
		requireCode(t, "permission_denied", err)
	}
	_, err := f.setRole(t, admin, f.memberOf(t, owner.Org, ada.User.ID).ID, "viewer")
	requireCode(t, "permission_denied", err)
	requireCode(t, "permission_denied", f.remove(t, admin, payer))
	_, err = f.setRole(t, admin, third, "admin")
	require.NoError(t, err)
	err = f.txErr(t, owner.Org, func(tx pgx.Tx) error {
		_, err := f.CreateRoleTx(t.Context(), tx, admin, tenants.SaveRole{Name: "Payer", Permissions: []string{"billing:write"}})
		return err
	})
	requireCode(t, "permission_denied", err)
	// Nor by way of a role that they may not have made themselves.
	payers := f.newRole(t, owner, tenants.SaveRole{Name: "Payer", Permissions: []string{"billing:write", "members:read"}})
	_, err = f.setRole(t, admin, third, string(payers.ID))
	requireCode(t, "permission_denied", err)
	err = f.txErr(t, owner.Org, func(tx pgx.Tx) error {
		_, err := f.UpdateRoleTx(t.Context(), tx, admin, payers.ID, nil, func(in tenants.SaveRole) tenants.SaveRole {
			in.Permissions = []string{"members:read"}
			return in
		})
		return err
	})
	requireCode(t, "permission_denied", err)
	requireCode(t, "permission_denied", f.txErr(t, owner.Org, func(tx pgx.Tx) error { return f.DeleteRoleTx(t.Context(), tx, admin, payers.ID) }))
}

// TestACustomRoleHoldsFromTheNextRequestOn and in its own organisation only.
func TestACustomRoleHoldsFromTheNextRequestOn(t *testing.T) {
	f := newFixture(t)
	ada := f.account(t, "ada@example.com")
	owner := f.ownerOf(ada)
	role := f.newRole(t, owner, tenants.SaveRole{Name: " Auditor ", Description: "Reads traces", Permissions: []string{"traces:read", "ledger:read", "traces:read"}})
	require.Equal(t, "Auditor", role.Name)
	require.Equal(t, []tenants.Permission{tenants.LedgerRead, tenants.TracesRead}, role.Permissions)
	member, bob := f.join(t, owner.Org, "bob@example.com", tenants.RoleViewer)
	got, err := f.setRole(t, owner, member, string(role.ID))
	require.NoError(t, err)
	require.Equal(t, tenants.RoleCustom, got.Role)
	require.Equal(t, "Auditor", got.RoleName)
	require.Equal(t, role.Permissions, got.Permissions)

	acting, atHome := f.as(t, bob, owner.Org), f.as(t, bob, bob.Organization.ID)
	for _, p := range tenants.Permissions() {
		require.Equal(t, p == tenants.TracesRead || p == tenants.LedgerRead, tenants.Allowed(acting, p), "%s", p)
		require.True(t, tenants.Allowed(atHome, p), "at home he is the owner: %s", p)
	}
	requireCode(t, "state_conflict", f.txErr(t, owner.Org, func(tx pgx.Tx) error { return f.DeleteRoleTx(t.Context(), tx, owner, role.ID) }))

	one := int64(1)
	f.tx(t, owner.Org, func(tx pgx.Tx) error {
		changed, err := f.UpdateRoleTx(t.Context(), tx, owner, role.ID, &one, func(in tenants.SaveRole) tenants.SaveRole {
			in.Permissions = []string{"sessions:read"}
			return in
		})
		require.EqualValues(t, 2, changed.Version)
		return err
	})
	acting = f.as(t, bob, owner.Org)
	require.False(t, tenants.Allowed(acting, tenants.TracesRead))
	require.True(t, tenants.Allowed(acting, tenants.SessionsRead))
	requireCode(t, "precondition_failed", f.txErr(t, owner.Org, func(tx pgx.Tx) error {
		_, err := f.UpdateRoleTx(t.Context(), tx, owner, role.ID, &one, func(in tenants.SaveRole) tenants.SaveRole { return in })
		return err
	}))
	_, err = f.setRole(t, owner, member, "viewer")
	require.NoError(t, err)
	f.tx(t, owner.Org, func(tx pgx.Tx) error { return f.DeleteRoleTx(t.Context(), tx, owner, role.ID) })
	_, err = f.setRole(t, owner, member, string(role.ID))
	requireCode(t, "invalid_request", err)
}

func TestRolesThatAreRefused(t *testing.T) {
	f := newFixture(t)
	ada, eve := f.account(t, "ada@example.com"), f.account(t, "eve@example.com")
	owner := f.ownerOf(ada)
	theirs := f.newRole(t, f.ownerOf(eve), tenants.SaveRole{Name: "Theirs", Permissions: []string{"traces:read"}})
	f.newRole(t, owner, tenants.SaveRole{Name: "Taken", Permissions: []string{"traces:read"}})
	for name, in := range map[string]tenants.SaveRole{
		"no name":               {Permissions: []string{"traces:read"}},
		"a built-in role":       {Name: "Owner", Permissions: []string{"traces:read"}},
		"custom":                {Name: "custom", Permissions: []string{"traces:read"}},
		"no permission":         {Name: "x"},
		"an unknown permission": {Name: "x", Permissions: []string{"traces:raed"}},
		"everything":            {Name: "x", Permissions: []string{"*"}},
		"a name that is taken":  {Name: "tAKEN", Permissions: []string{"traces:read"}},
	} {
		err := f.txErr(t, owner.Org, func(tx pgx.Tx) error {
			_, err := f.CreateRoleTx(t.Context(), tx, owner, in)
			return err
		})
		want := "invalid_request"
		if name == "a name that is taken" {
			want = "state_conflict"
		}
		requireCode(t, want, err)
	}
	mine := f.memberOf(t, owner.Org, ada.User.ID).ID
	for _, role := range []string{"", "root", "custom", string(theirs.ID), string(id.New[id.Role]())} {
		_, err := f.setRole(t, owner, mine, role)
		requireCode(t, "invalid_request", err)
	}
	_, err := f.setRole(t, owner, f.memberOf(t, eve.Organization.ID, eve.User.ID).ID, "viewer")
	requireCode(t, "not_found", err)
	requireCode(t, "not_found", f.remove(t, owner, f.memberOf(t, eve.Organization.ID, eve.User.ID).ID))
}
