package tenants_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func TestTheRolesInOneTable(t *testing.T) {
	allowed := func(role tenants.Role, p tenants.Permission) bool {
		return tenants.Allowed(principal.Principal{Kind: principal.User, Role: string(role)}, p)
	}
	for _, p := range tenants.Permissions() {
		require.True(t, p.Known())
		require.True(t, allowed(tenants.RoleOwner, p), "an owner may %s", p)
	}
	for _, c := range []struct {
		role tenants.Role
		p    tenants.Permission
		want bool
	}{
		{tenants.RoleAdmin, tenants.MembersWrite, true},
		{tenants.RoleAdmin, tenants.BillingWrite, false},
		{tenants.RoleBilling, tenants.BillingWrite, true},
		{tenants.RoleBilling, tenants.SessionsRead, false},
		{tenants.RoleBilling, tenants.KeysRead, false},
		{tenants.RoleDeveloper, tenants.SessionsWrite, true},
		{tenants.RoleDeveloper, tenants.KeysWrite, true},
		{tenants.RoleDeveloper, tenants.ProjectsWrite, false},
		{tenants.RoleViewer, tenants.TracesRead, true},
		{tenants.RoleViewer, tenants.SessionsWrite, false},
		{tenants.RoleViewer, tenants.KeysRead, false},
		{"", tenants.OrganizationRead, false},
		{"root", tenants.OrganizationRead, false},
	} {
		require.Equal(t, c.want, allowed(c.role, c.p), "%s %s", c.role, c.p)
	}
}

func TestWhoElseMayDoWhat(t *testing.T) {
	key := principal.Principal{Kind: principal.Key, Scopes: []string{"agents:read"}}
	require.True(t, tenants.Allowed(key, tenants.AgentsRead))
	require.False(t, tenants.Allowed(key, tenants.AgentsWrite))
	all := principal.Principal{Kind: principal.Key, Scopes: []string{tenants.AllScopes}}
	require.True(t, tenants.Allowed(all, tenants.BillingWrite))
	require.False(t, tenants.Allowed(all, "agents:wirte"), "a permission that is not in the table is nobody's")
	require.True(t, tenants.Allowed(principal.NamedSystem("lease_scan"), tenants.SessionsWrite))
	require.False(t, tenants.Allowed(principal.Principal{Kind: principal.Agent, Role: "owner", Scopes: []string{"*"}}, tenants.AgentsRead))
	require.False(t, tenants.Allowed(principal.Principal{}, tenants.AgentsRead))
}
