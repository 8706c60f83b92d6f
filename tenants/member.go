package tenants

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// Member is a person in an organisation.
type Member struct {
	ID              id.Member
	UserID          id.User
	Email           string
	Name            string
	EmailVerifiedAt *time.Time
	// Role is one of Roles, or RoleCustom; then CustomRole and RoleName say which.
	Role       Role
	CustomRole id.Role
	RoleName   string
	// Permissions are what the member may do.
	Permissions []Permission
	CreatedAt   time.Time
}

// errLastOwner: with nobody left who may do everything, some things could never be done again.
func errLastOwner() error {
	return fault.New(fault.Conflict, "last_owner", "This is the organisation's last owner. Make another member an owner first.")
}

// GetMemberTx returns a member of the organisation, or not found.
func (s *Service) GetMemberTx(ctx context.Context, tx pgx.Tx, org id.Org, member id.Member) (Member, error) {
	row, err := tenantsdb.New(tx).GetMember(ctx, tenantsdb.GetMemberParams{OrgID: string(org), ID: string(member)})
	if err != nil {
		return Member{}, postgres.Translate(fmt.Errorf("read a member: %w", err))
	}
	return memberOf(tenantsdb.ListMembersRow(row)), nil
}

// ListMembers returns up to limit members in the order of joining, after the one with this id; an empty id begins at the first.
func (s *Service) ListMembers(ctx context.Context, org id.Org, after id.Member, limit int) (out []Member, err error) {
	err = s.in(ctx, org, func(tx pgx.Tx, _ *tenantsdb.Queries) error {
		out, err = s.ListMembersTx(ctx, tx, org, after, limit)
		return err
	})
	return out, err
}

// ListMembersTx is ListMembers in a transaction of the organisation.
func (s *Service) ListMembersTx(ctx context.Context, tx pgx.Tx, org id.Org, after id.Member, limit int) ([]Member, error) {
	rows, err := tenantsdb.New(tx).ListMembers(ctx, tenantsdb.ListMembersParams{OrgID: string(org), After: string(after), MaxRows: rowLimit(limit)})
	if err != nil {
		return nil, fmt.Errorf("list members: %w", err)
	}
	out := make([]Member, len(rows))
	for i, r := range rows {
		out[i] = memberOf(r)
	}
	return out, nil
}

func memberOf(r tenantsdb.ListMembersRow) Member {
	m := Member{
		ID: id.Member(r.ID), UserID: id.User(r.UserID), Email: r.Email, Name: r.Name,
		EmailVerifiedAt: r.EmailVerifiedAt, Role: Role(r.Role), RoleName: r.Role, CreatedAt: r.CreatedAt,
	}
	m.Permissions = PermissionsOf(m.Role)
	if r.RoleID != nil {
		m.CustomRole, m.RoleName, m.Permissions = id.Role(*r.RoleID), r.RoleName, permissionsOf(r.RolePermissions)
	}
	return m
}

// SetMemberRoleTx gives a member another role, by its name or, for one that the organisation made, its id. by must have all that the
// member's present role allows, and all that the new one does. It holds from the member's next request on. Its faults: not_found for the
// member, invalid_request for the role, permission_denied, last_owner.
func (s *Service) SetMemberRoleTx(ctx context.Context, tx pgx.Tx, by principal.Principal, member id.Member, role string) (Member, error) {
	q := tenantsdb.New(tx)
	was, err := s.lockMember(ctx, tx, q, by, member)
	if err != nil {
		return Member{}, err
	}
	set, err := s.roleToGive(ctx, tx, by, role)
	if err != nil {
		return Member{}, err
	}
	set.ID = string(member)
	if was.Role == RoleOwner && Role(role) != RoleOwner {
		if err := s.keepAnOwner(ctx, q, by.Org); err != nil {
			return Member{}, err
		}
	}
	if err := q.SetMemberRole(ctx, set); err != nil {
		return Member{}, fmt.Errorf("set a member's role: %w", err)
	}
	return s.GetMemberTx(ctx, tx, by.Org, member)
}

// roleToGive finds a role by its name or id, for by to give to somebody. Only the role of what it returns is set, and the organisation.
func (s *Service) roleToGive(ctx context.Context, tx pgx.Tx, by principal.Principal, role string) (tenantsdb.SetMemberRoleParams, error) {
	set := tenantsdb.SetMemberRoleParams{OrgID: string(by.Org), Role: role}
	gives := PermissionsOf(Role(role))
	if custom, err := id.Parse[id.Role](role); err == nil {
		r, err := s.GetRoleTx(ctx, tx, by.Org, custom)
		if err != nil && fault.As(err).Kind == fault.NotFoundKind {
			return set, errNoRole()
		}
		if err != nil {
			return set, err
		}
		set.Role, set.RoleID, gives = string(RoleCustom), &role, r.Permissions
	}
	if len(gives) == 0 {
		return set, errNoRole()
	}
	return set, mayHandOut(by, gives)
}

func errNoRole() error {
	return fault.InvalidField("/role", "unknown_role", "There is no such role. It is owner, admin, billing, developer or viewer, or the id of a role that the organisation made.")
}

// RemoveMemberTx takes a member out of the organisation, from the member's next request on. The API keys that the member made, and those
// that were made with them, are revoked in the same commit. Its faults: not_found, permission_denied, last_owner.
func (s *Service) RemoveMemberTx(ctx context.Context, tx pgx.Tx, by principal.Principal, member id.Member) error {
	q := tenantsdb.New(tx)
	was, err := s.lockMember(ctx, tx, q, by, member)
	if err != nil {
		return err
	}
	if was.Role == RoleOwner {
		if err := s.keepAnOwner(ctx, q, by.Org); err != nil {
			return err
		}
	}
	if _, err := q.DeleteMember(ctx, tenantsdb.DeleteMemberParams{OrgID: string(by.Org), ID: string(member)}); err != nil {
		return fmt.Errorf("remove a member: %w", err)
	}
	// Without this, keys would work again for whoever is invited anew.
	if _, err := q.RevokeKeysOf(ctx, tenantsdb.RevokeKeysOfParams{Now: s.clock.Now(), OrgID: string(by.Org), UserID: string(was.UserID)}); err != nil {
		return fmt.Errorf("revoke a removed member's keys: %w", err)
	}
	return nil
}

// lockMember reads a member whom by may change, while nobody else changes members of this organisation.
func (s *Service) lockMember(ctx context.Context, tx pgx.Tx, q *tenantsdb.Queries, by principal.Principal, member id.Member) (Member, error) {
	if err := lockMembership(ctx, q, by.Org); err != nil {
		return Member{}, err
	}
	was, err := s.GetMemberTx(ctx, tx, by.Org, member)
	if err != nil {
		return Member{}, err
	}
	return was, mayHandOut(by, was.Permissions)
}

// keepAnOwner is called under the lock, before one owner ceases to be one.
func (s *Service) keepAnOwner(ctx context.Context, q *tenantsdb.Queries, org id.Org) error {
	owners, err := q.CountOwners(ctx, string(org))
	if err != nil {
		return fmt.Errorf("count the owners: %w", err)
	}
	if owners < 2 {
		return errLastOwner()
	}
	return nil
}
