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

// RoleCustom is the role of a member who has one that the organisation made.
const RoleCustom Role = "custom"

const (
	maxRoleName        = 60
	maxRoleDescription = 500
	// maxRoles is how many roles an organisation makes at most.
	maxRoles = 100
)

// CustomRole is a role that an organisation made: a named set of permissions.
type CustomRole struct {
	ID          id.Role
	Name        string
	Description string
	Permissions []Permission
	// Version grows with each change, from 1.
	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
}

func init() {
	postgres.RegisterConstraint("roles_name_is_taken", fault.New(fault.Conflict, "state_conflict", "There is a role of that name already."))
}

// PermissionsOf lists what a built-in role allows, in the order in which people should see them.
func PermissionsOf(role Role) (out []Permission) {
	for _, p := range Permissions() {
		if slices.Contains(byPermission[p], role) {
			out = append(out, p)
		}
	}
	return out
}

// DescribeRole says in a sentence what a built-in role is for.
func DescribeRole(role Role) string {
	switch role {
	case RoleOwner:
		return "May do everything, and alone makes other owners. Every organisation has one."
	case RoleAdmin:
		return "Answers for what agents do: members, projects, rules and budgets; not for paying."
	case RoleBilling:
		return "Pays: sees balances, budgets and invoices, and nothing that agents do."
	case RoleDeveloper:
		return "Builds: agents, sessions, keys."
	case RoleViewer:
		return "Looks on."
	case RoleCustom:
	}
	return ""
}

// SaveRole is the input of CreateRoleTx and UpdateRoleTx.
type SaveRole struct {
	Name        string
	Description string
	Permissions []string
}

func (in SaveRole) clean() (SaveRole, error) {
	var faults fieldFaults
	name, bad := cleanName(in.Name, "/name", true)
	faults.add(bad)
	if bad == nil && len(name) > maxRoleName {
		faults.add(&fault.Field{Pointer: "/name", Code: "too_long", Message: "A role's name has at most 60 bytes."})
	}
	if role := Role(strings.ToLower(name)); slices.Contains(append(Roles(), RoleCustom), role) {
		faults.add(&fault.Field{Pointer: "/name", Code: "invalid_name", Message: fmt.Sprintf("%s is a role that every organisation has. Choose another name.", role)})
	}
	description, bad := cleanName(in.Description, "/description", false)
	if len(in.Description) > maxRoleDescription {
		bad = &fault.Field{Pointer: "/description", Code: "too_long", Message: "A description has at most 500 bytes."}
	}
	faults.add(bad)
	permissions := slices.Clone(in.Permissions)
	slices.Sort(permissions)
	permissions = slices.Compact(permissions)
	if len(permissions) == 0 {
		faults.add(&fault.Field{Pointer: "/permissions", Code: "required", Message: `Name at least one permission, such as "sessions:read".`})
	}
	for i, p := range in.Permissions {
		if !Permission(p).Known() {
			faults.add(&fault.Field{Pointer: fmt.Sprintf("/permissions/%d", i), Code: "unknown_permission", Message: fmt.Sprintf("There is no permission %q.", truncate(p, 40))})
		}
	}
	return SaveRole{Name: name, Description: description, Permissions: permissions}, faults.err()
}

// mayHandOut refuses to give or take what one has not: an admin must not raise anybody, or a role, above an admin, nor lower an owner.
func mayHandOut(by principal.Principal, permissions []Permission) error {
	for _, p := range permissions {
		if !Allowed(by, p) {
			return fault.Newf(fault.Forbidden, "permission_denied", "This role has the permission %s, which you do not have: you can neither give it nor take it away.", p).With("rule", p)
		}
	}
	return nil
}

// lockMembership makes changes of an organisation's members and roles wait for each other.
func lockMembership(ctx context.Context, q *tenantsdb.Queries, org id.Org) error {
	if _, err := q.LockMembership(ctx, string(org)); err != nil {
		return postgres.Translate(fmt.Errorf("lock the members of %s: %w", org, err))
	}
	return nil
}

// CreateRoleTx makes a role in a transaction of the organisation of by, who has all of its permissions. Its faults: invalid_request,
// permission_denied, state_conflict.
func (s *Service) CreateRoleTx(ctx context.Context, tx pgx.Tx, by principal.Principal, in SaveRole) (CustomRole, error) {
	in, err := in.clean()
	if err != nil {
		return CustomRole{}, err
	}
	if err := mayHandOut(by, permissionsOf(in.Permissions)); err != nil {
		return CustomRole{}, err
	}
	q := tenantsdb.New(tx)
	if err := lockMembership(ctx, q, by.Org); err != nil {
		return CustomRole{}, err
	}
	if n, err := q.CountRoles(ctx, string(by.Org)); err != nil {
		return CustomRole{}, fmt.Errorf("count the roles: %w", err)
	} else if n >= maxRoles {
		return CustomRole{}, fault.Newf(fault.Conflict, "state_conflict", "An organisation makes at most %d roles. Delete one that nobody has.", maxRoles)
	}
	row, err := q.InsertRole(ctx, tenantsdb.InsertRoleParams{
		OrgID: string(by.Org), ID: string(id.New[id.Role]()), Name: in.Name, Description: in.Description, Permissions: in.Permissions, Now: s.clock.Now(),
	})
	if err != nil {
		return CustomRole{}, postgres.Translate(fmt.Errorf("insert a role: %w", err))
	}
	return roleOf(row), nil
}

// UpdateRoleTx changes a role, for all who have it, at their next request. by must have all that the role allowed and will allow.
// ifVersion may be nil. Its faults: those of CreateRoleTx, not_found, precondition_failed.
func (s *Service) UpdateRoleTx(ctx context.Context, tx pgx.Tx, by principal.Principal, role id.Role, ifVersion *int64, change func(SaveRole) SaveRole) (CustomRole, error) {
	q := tenantsdb.New(tx)
	if err := lockMembership(ctx, q, by.Org); err != nil {
		return CustomRole{}, err
	}
	was, err := s.GetRoleTx(ctx, tx, by.Org, role)
	if err != nil {
		return CustomRole{}, err
	}
	if ifVersion != nil && *ifVersion != was.Version {
		return CustomRole{}, errVersion()
	}
	in := SaveRole{Name: was.Name, Description: was.Description}
	for _, p := range was.Permissions {
		in.Permissions = append(in.Permissions, string(p))
	}
	if in, err = change(in).clean(); err != nil {
		return CustomRole{}, err
	}
	if err := mayHandOut(by, slices.Concat(was.Permissions, permissionsOf(in.Permissions))); err != nil {
		return CustomRole{}, err
	}
	row, err := q.UpdateRole(ctx, tenantsdb.UpdateRoleParams{
		OrgID: string(by.Org), ID: string(role), Name: in.Name, Description: in.Description, Permissions: in.Permissions, Now: s.clock.Now(),
	})
	if err != nil {
		return CustomRole{}, postgres.Translate(fmt.Errorf("update a role: %w", err))
	}
	return roleOf(row), nil
}

// DeleteRoleTx deletes a role that no member has and no open invitation gives. Its faults: not_found, permission_denied, state_conflict.
func (s *Service) DeleteRoleTx(ctx context.Context, tx pgx.Tx, by principal.Principal, role id.Role) error {
	q := tenantsdb.New(tx)
	if err := lockMembership(ctx, q, by.Org); err != nil {
		return err
	}
	was, err := s.GetRoleTx(ctx, tx, by.Org, role)
	if err != nil {
		return err
	}
	if err := mayHandOut(by, was.Permissions); err != nil {
		return err
	}
	n, err := q.CountMembersWithRole(ctx, tenantsdb.CountMembersWithRoleParams{OrgID: string(by.Org), RoleID: string(role)})
	if err != nil {
		return fmt.Errorf("count who has a role: %w", err)
	}
	if n > 0 {
		return fault.Newf(fault.Conflict, "state_conflict", "%d of the members have this role. Give them another one first.", n)
	}
	open, err := q.CountOpenInvitationsWithRole(ctx, tenantsdb.CountOpenInvitationsWithRoleParams{OrgID: string(by.Org), RoleID: string(role), Now: s.clock.Now()})
	if err != nil {
		return fmt.Errorf("count who is invited to a role: %w", err)
	}
	if open > 0 {
		return fault.Newf(fault.Conflict, "state_conflict", "%d open invitations give this role. Revoke them first.", open)
	}
	if _, err := q.DeleteRole(ctx, tenantsdb.DeleteRoleParams{OrgID: string(by.Org), ID: string(role)}); err != nil {
		return fmt.Errorf("delete a role: %w", err)
	}
	return nil
}

// GetRoleTx returns a role of the organisation, or not found.
func (s *Service) GetRoleTx(ctx context.Context, tx pgx.Tx, org id.Org, role id.Role) (CustomRole, error) {
	row, err := tenantsdb.New(tx).GetRole(ctx, tenantsdb.GetRoleParams{OrgID: string(org), ID: string(role)})
	if err != nil {
		return CustomRole{}, postgres.Translate(fmt.Errorf("read a role: %w", err))
	}
	return roleOf(row), nil
}

// ListRolesTx returns the roles that the organisation made, oldest first, after the one with this id.
func (s *Service) ListRolesTx(ctx context.Context, tx pgx.Tx, org id.Org, after id.Role, limit int) ([]CustomRole, error) {
	rows, err := tenantsdb.New(tx).ListRoles(ctx, tenantsdb.ListRolesParams{OrgID: string(org), After: string(after), MaxRows: rowLimit(limit)})
	if err != nil {
		return nil, fmt.Errorf("list roles: %w", err)
	}
	out := make([]CustomRole, len(rows))
	for i, r := range rows {
		out[i] = roleOf(r)
	}
	return out, nil
}

func roleOf(r tenantsdb.Role) CustomRole {
	return CustomRole{
		ID: id.Role(r.ID), Name: r.Name, Description: r.Description, Permissions: permissionsOf(r.Permissions), Version: r.Version, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
}

func permissionsOf(names []string) []Permission {
	out := make([]Permission, len(names))
	for i, n := range names {
		out[i] = Permission(n)
	}
	return out
}
