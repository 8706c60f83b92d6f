package tenants

import (
	"slices"

	"ambit.dev/ambit/internal/principal"
)

// Permission names something that may be done, as "noun:read" or "noun:write". Routes, actions of the console and the scopes of API keys
// use the same names.
type Permission string

// The permissions.
const (
	OrganizationRead  Permission = "organization:read"
	OrganizationWrite Permission = "organization:write"
	MembersRead       Permission = "members:read"
	MembersWrite      Permission = "members:write"
	ProjectsRead      Permission = "projects:read"
	ProjectsWrite     Permission = "projects:write"
	KeysRead          Permission = "keys:read"
	KeysWrite         Permission = "keys:write"
	AgentsRead        Permission = "agents:read"
	AgentsWrite       Permission = "agents:write"
	EnvironmentsRead  Permission = "environments:read"
	EnvironmentsWrite Permission = "environments:write"
	SessionsRead      Permission = "sessions:read"
	SessionsWrite     Permission = "sessions:write"
	ModelsRead        Permission = "models:read"
	PermissionsRead   Permission = "permissions:read"
	PermissionsWrite  Permission = "permissions:write"
	TracesRead        Permission = "traces:read"
	LedgerRead        Permission = "ledger:read"
	BudgetsRead       Permission = "budgets:read"
	BudgetsWrite      Permission = "budgets:write"
	BillingRead       Permission = "billing:read"
	BillingWrite      Permission = "billing:write"
	MandatesRead      Permission = "mandates:read"
	MandatesWrite     Permission = "mandates:write"
	WebhooksRead      Permission = "webhooks:read"
	WebhooksWrite     Permission = "webhooks:write"
	ApprovalsRead     Permission = "approvals:read"
	// ApprovalsDecide lets somebody answer; whether it is theirs to answer, the rule that asks says.
	ApprovalsDecide    Permission = "approvals:decide"
	ApprovalRulesRead  Permission = "approval_rules:read"
	ApprovalRulesWrite Permission = "approval_rules:write"
)

// AllScopes is the scope of an API key that may do everything.
const AllScopes = "*"

// Role is what a member is in an organisation: one of Roles, or RoleCustom.
type Role string

// The roles.
const (
	RoleOwner     Role = "owner"
	RoleAdmin     Role = "admin"
	RoleBilling   Role = "billing"
	RoleDeveloper Role = "developer"
	RoleViewer    Role = "viewer"
)

// Roles lists the roles, the most powerful first.
func Roles() []Role { return []Role{RoleOwner, RoleAdmin, RoleBilling, RoleDeveloper, RoleViewer} }

// grants is the one table of who may do what. A permission that has no row here is nobody's, not even an owner's or an all-scopes key's,
// so that a misspelt one fails closed. Owners have every row.
var grants = []struct {
	permission Permission
	roles      []Role
}{
	{OrganizationRead, []Role{RoleAdmin, RoleBilling, RoleDeveloper, RoleViewer}},
	{OrganizationWrite, []Role{RoleAdmin}},
	{MembersRead, []Role{RoleAdmin, RoleBilling, RoleDeveloper, RoleViewer}},
	{MembersWrite, []Role{RoleAdmin}},
	{ProjectsRead, []Role{RoleAdmin, RoleBilling, RoleDeveloper, RoleViewer}},
	{ProjectsWrite, []Role{RoleAdmin}},
	{KeysRead, []Role{RoleAdmin, RoleDeveloper}},
	{KeysWrite, []Role{RoleAdmin, RoleDeveloper}},
	{AgentsRead, []Role{RoleAdmin, RoleDeveloper, RoleViewer}},
	{AgentsWrite, []Role{RoleAdmin, RoleDeveloper}},
	{EnvironmentsRead, []Role{RoleAdmin, RoleDeveloper, RoleViewer}},
	{EnvironmentsWrite, []Role{RoleAdmin, RoleDeveloper}},
	{SessionsRead, []Role{RoleAdmin, RoleDeveloper, RoleViewer}},
	{SessionsWrite, []Role{RoleAdmin, RoleDeveloper}},
	{ModelsRead, []Role{RoleAdmin, RoleDeveloper, RoleViewer}},
	// The rules of agents. Who builds an agent does not widen what it may do.
	{PermissionsRead, []Role{RoleAdmin, RoleDeveloper, RoleViewer}},
	{PermissionsWrite, []Role{RoleAdmin}},
	{TracesRead, []Role{RoleAdmin, RoleDeveloper, RoleViewer}},
	{LedgerRead, []Role{RoleAdmin, RoleBilling, RoleDeveloper, RoleViewer}},
	{BudgetsRead, []Role{RoleAdmin, RoleBilling, RoleDeveloper, RoleViewer}},
	{BudgetsWrite, []Role{RoleAdmin, RoleBilling}},
	{BillingRead, []Role{RoleAdmin, RoleBilling}},
	{BillingWrite, []Role{RoleBilling}},
	// Signing takes a person besides.
	{MandatesRead, []Role{RoleAdmin, RoleBilling, RoleDeveloper, RoleViewer}},
	{MandatesWrite, []Role{RoleAdmin, RoleDeveloper}},
	// Not for viewers: an endpoint's address often holds a secret of its own.
	{WebhooksRead, []Role{RoleAdmin, RoleDeveloper}},
	{WebhooksWrite, []Role{RoleAdmin, RoleDeveloper}},
	// What is asked shows an effect's arguments, as its session does; a rule may name anybody as an approver.
	{ApprovalsRead, []Role{RoleAdmin, RoleBilling, RoleDeveloper, RoleViewer}},
	{ApprovalsDecide, []Role{RoleAdmin, RoleBilling, RoleDeveloper, RoleViewer}},
	{ApprovalRulesRead, []Role{RoleAdmin, RoleBilling, RoleDeveloper, RoleViewer}},
	{ApprovalRulesWrite, []Role{RoleAdmin}},
}

var byPermission = func() map[Permission][]Role {
	m := make(map[Permission][]Role, len(grants))
	for _, g := range grants {
		m[g.permission] = append([]Role{RoleOwner}, g.roles...)
	}
	return m
}()

// Permissions lists all permissions, in the order in which people should see them.
func Permissions() []Permission {
	out := make([]Permission, len(grants))
	for i, g := range grants {
		out[i] = g.permission
	}
	return out
}

// Known reports whether there is such a permission.
func (p Permission) Known() bool { return byPermission[p] != nil }

// Allowed reports whether the principal may do this within its organisation: a user by its role, which may be one that the organisation
// made, a key by its scopes. It is the one place where this is decided, for the API and the console. A part of Ambit itself may do
// everything. An agent's rights are not decided here, so it has none; nor has nobody.
func Allowed(p principal.Principal, permission Permission) bool {
	roles, known := byPermission[permission]
	if !known {
		return false
	}
	switch p.Kind {
	case principal.User:
		if Role(p.Role) == RoleCustom {
			return slices.Contains(p.Scopes, string(permission)) // by name only: a role's "*" is nothing
		}
		return slices.Contains(roles, Role(p.Role))
	case principal.Key:
		return p.HasScope(string(permission))
	case principal.System:
		return true
	default:
		return false
	}
}
