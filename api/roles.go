package api

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func (a *API) roleRoutes() []Route {
	const tag = "Members"
	const whole = "Takes a key of the whole organisation. "
	return []Route{
		{
			ID: "members.list", Method: http.MethodGet, Path: "/v1/members", Permission: tenants.MembersRead, Tag: tag,
			Summary: "List members", Description: whole + "In the order of joining.", Errors: []string{slugPage, slugDenied}, Endpoint: read(a.listMembers),
		},
		{
			ID: "members.update", Method: http.MethodPost, Path: "/v1/members/{member_id}", Permission: tenants.MembersWrite, Tag: tag,
			Summary:     "Give a member another role",
			Description: "Nobody gives or takes a permission that they do not have. The last owner stays one. It holds from the member's next request on.",
			Errors:      []string{slugDenied, slugLastOwner}, Endpoint: write(http.StatusOK, a.updateMember),
		},
		{
			ID: "members.delete", Method: http.MethodDelete, Path: "/v1/members/{member_id}", Permission: tenants.MembersWrite, Tag: tag,
			Summary: "Remove a member", Description: "From the member's next request on. The API keys that the member made, and those made with them, are revoked with it: let somebody else rotate a key beforehand that is to go on.",
			Errors: []string{slugDenied, slugLastOwner}, Endpoint: write(http.StatusOK, a.deleteMember),
		},
		{
			ID: "roles.create", Method: http.MethodPost, Path: "/v1/roles", Permission: tenants.MembersWrite, Tag: tag,
			Summary: "Make a role", Description: whole + "A named set of permissions, of those that you have yourself.",
			Errors: []string{slugDenied, "state_conflict"}, Endpoint: write(http.StatusCreated, a.createRole),
		},
		{
			ID: "roles.list", Method: http.MethodGet, Path: "/v1/roles", Permission: tenants.MembersRead, Tag: tag,
			Summary: "List roles", Description: whole + "Those that every organisation has stand on the first page, the most powerful first, besides the limit; then those that the organisation made, oldest first.",
			Errors: []string{slugPage, slugDenied}, Endpoint: read(a.listRoles),
		},
		{
			ID: "roles.get", Method: http.MethodGet, Path: "/v1/roles/{role_id}", Permission: tenants.MembersRead, Tag: tag,
			Summary: "Get a role", Description: "One that the organisation made.", Endpoint: read(a.getRole),
		},
		{
			ID: "roles.update", Method: http.MethodPost, Path: "/v1/roles/{role_id}", Permission: tenants.MembersWrite, Tag: tag,
			Summary: "Change a role", Description: "For all who have it, from their next request on.",
			Errors: []string{slugDenied, "precondition_failed", "state_conflict"}, Endpoint: write(http.StatusOK, a.updateRole),
		},
		{
			ID: "roles.delete", Method: http.MethodDelete, Path: "/v1/roles/{role_id}", Permission: tenants.MembersWrite, Tag: tag,
			Summary: "Delete a role", Description: "One that no member has.", Errors: []string{slugDenied, "state_conflict"}, Endpoint: write(http.StatusOK, a.deleteRole),
		},
	}
}

// Role is a named set of permissions.
type Role struct {
	ID          *id.Role `json:"id" doc:"null for a role that every organisation has."`
	Type        string   `json:"type" const:"role"`
	Name        string   `json:"name" doc:"By this a member is given a role that every organisation has; one that the organisation made, by its id."`
	Description string   `json:"description"`
	Permissions []string `json:"permissions"`
	BuiltIn     bool     `json:"built_in"`
	Version     int64    `json:"version" doc:"0 for a role that every organisation has."`
	CreatedAt   *Time    `json:"created_at"`
	UpdatedAt   *Time    `json:"updated_at"`
}

func (r Role) entityTag() string { return quoteTag(r.Version) }
func (r Role) location() string {
	if r.ID == nil {
		return ""
	}
	return "/v1/roles/" + string(*r.ID)
}

func roleFrom(r tenants.CustomRole) Role {
	return Role{
		ID: &r.ID, Type: "role", Name: r.Name, Description: r.Description, Permissions: permissionNames(r.Permissions), Version: r.Version,
		CreatedAt: timePtr(&r.CreatedAt), UpdatedAt: timePtr(&r.UpdatedAt),
	}
}

func permissionNames(list []tenants.Permission) []string {
	out := make([]string, len(list))
	for i, p := range list {
		out[i] = string(p)
	}
	return out
}

// Member is a person in the organisation.
type Member struct {
	ID          id.Member `json:"id"`
	Type        string    `json:"type" const:"member"`
	UserID      id.User   `json:"user_id"`
	Email       string    `json:"email"`
	Name        string    `json:"name"`
	Role        string    `json:"role" doc:"owner, admin, billing, developer or viewer, or the id of a role that the organisation made."`
	RoleName    string    `json:"role_name"`
	Permissions []string  `json:"permissions"`
	CreatedAt   Time      `json:"created_at"`
}

func memberFrom(m tenants.Member) Member {
	out := Member{
		ID: m.ID, Type: "member", UserID: m.UserID, Email: m.Email, Name: m.Name, Role: string(m.Role), RoleName: m.RoleName,
		Permissions: permissionNames(m.Permissions), CreatedAt: Time(m.CreatedAt),
	}
	if m.CustomRole != "" {
		out.Role = string(m.CustomRole)
	}
	return out
}

type listMembersIn struct{ Paging }

func (a *API) listMembers(ctx context.Context, tx pgx.Tx, in listMembersIn) (Page[Member], error) {
	if err := wholeOrganization(ctx); err != nil {
		return Page[Member]{}, err
	}
	after, err := positionID[id.Member](in.place)
	if err != nil {
		return Page[Member]{}, err
	}
	list, err := a.cfg.Domains.Tenants.ListMembersTx(ctx, tx, principal.From(ctx).Org, after, in.place.fetch())
	if err != nil {
		return Page[Member]{}, err
	}
	return pageOf(in.place, list, func(m tenants.Member) string { return string(m.ID) }, memberFrom), nil
}

// wholeOrMissing is wholeOrganization for a route that names one thing: for a request that is bound to a project, there is none.
func wholeOrMissing(ctx context.Context) error {
	if principal.From(ctx).Project != "" {
		return fault.NotFound()
	}
	return nil
}

type updateMemberIn struct {
	Member id.Member `path:"member_id"`
	Body   struct {
		Role string `json:"role" required:"true" maxlen:"64" example:"developer" doc:"owner, admin, billing, developer or viewer, or the id of a role that the organisation made."`
	} `body:"json"`
}

func (a *API) updateMember(ctx context.Context, tx pgx.Tx, in updateMemberIn) (Member, error) {
	if err := wholeOrMissing(ctx); err != nil {
		return Member{}, err
	}
	m, err := a.cfg.Domains.Tenants.SetMemberRoleTx(ctx, tx, principal.From(ctx), in.Member, in.Body.Role)
	return memberFrom(m), err
}

type memberIn struct {
	Member id.Member `path:"member_id"`
}

func (a *API) deleteMember(ctx context.Context, tx pgx.Tx, in memberIn) (Deleted, error) {
	if err := wholeOrMissing(ctx); err != nil {
		return Deleted{}, err
	}
	if err := a.cfg.Domains.Tenants.RemoveMemberTx(ctx, tx, principal.From(ctx), in.Member); err != nil {
		return Deleted{}, err
	}
	return Deleted{ID: string(in.Member), Type: "member_deleted"}, nil
}

type createRoleIn struct {
	Body struct {
		Name        string   `json:"name" required:"true" minlen:"1" maxlen:"60" example:"Auditor"`
		Description string   `json:"description" maxlen:"500"`
		Permissions []string `json:"permissions" required:"true" minitems:"1" maxitems:"128" maxlen:"64" example:"[\"traces:read\"]"`
	} `body:"json"`
}

func (a *API) createRole(ctx context.Context, tx pgx.Tx, in createRoleIn) (Role, error) {
	if err := wholeOrganization(ctx); err != nil {
		return Role{}, err
	}
	r, err := a.cfg.Domains.Tenants.CreateRoleTx(ctx, tx, principal.From(ctx), tenants.SaveRole{Name: in.Body.Name, Description: in.Body.Description, Permissions: in.Body.Permissions})
	if err != nil {
		return Role{}, err
	}
	return roleFrom(r), nil
}

type listRolesIn struct{ Paging }

func (a *API) listRoles(ctx context.Context, tx pgx.Tx, in listRolesIn) (Page[Role], error) {
	if err := wholeOrganization(ctx); err != nil {
		return Page[Role]{}, err
	}
	after, err := positionID[id.Role](in.place)
	if err != nil {
		return Page[Role]{}, err
	}
	list, err := a.cfg.Domains.Tenants.ListRolesTx(ctx, tx, principal.From(ctx).Org, after, in.place.fetch())
	if err != nil {
		return Page[Role]{}, err
	}
	out := pageOf(in.place, list, func(r tenants.CustomRole) string { return string(r.ID) }, roleFrom)
	if after == "" {
		builtIn := make([]Role, 0, 5)
		for _, r := range tenants.Roles() {
			builtIn = append(builtIn, Role{Type: "role", Name: string(r), Description: tenants.DescribeRole(r), Permissions: permissionNames(tenants.PermissionsOf(r)), BuiltIn: true})
		}
		out.Data = append(builtIn, out.Data...)
	}
	return out, nil
}

type roleIn struct {
	Role id.Role `path:"role_id"`
}

func (a *API) getRole(ctx context.Context, tx pgx.Tx, in roleIn) (Role, error) {
	if err := wholeOrMissing(ctx); err != nil {
		return Role{}, err
	}
	r, err := a.cfg.Domains.Tenants.GetRoleTx(ctx, tx, principal.From(ctx).Org, in.Role)
	if err != nil {
		return Role{}, err
	}
	return roleFrom(r), nil
}

type updateRoleIn struct {
	Role    id.Role `path:"role_id"`
	IfMatch ifMatch `header:"If-Match" doc:"The ETag that the role must have."`
	Body    struct {
		Name        Opt[string]   `json:"name" maxlen:"60"`
		Description Opt[string]   `json:"description" maxlen:"500"`
		Permissions Opt[[]string] `json:"permissions" maxitems:"128"`
	} `body:"json"`
}

func (a *API) updateRole(ctx context.Context, tx pgx.Tx, in updateRoleIn) (Role, error) {
	who := principal.From(ctx)
	if err := wholeOrMissing(ctx); err != nil {
		return Role{}, err
	}
	var ifVersion *int64
	if in.IfMatch != "" {
		have, err := a.cfg.Domains.Tenants.GetRoleTx(ctx, tx, who.Org, in.Role)
		if err != nil {
			return Role{}, err
		}
		if !in.IfMatch.allows(have.Version) {
			return Role{}, changedMeanwhile()
		}
		ifVersion = &have.Version
	}
	b := in.Body
	r, err := a.cfg.Domains.Tenants.UpdateRoleTx(ctx, tx, who, in.Role, ifVersion, func(r tenants.SaveRole) tenants.SaveRole {
		if b.Name.Set {
			r.Name = b.Name.Value
		}
		if b.Description.Set {
			r.Description = b.Description.Value
		}
		if b.Permissions.Set {
			r.Permissions = b.Permissions.Value
		}
		return r
	})
	if err != nil {
		return Role{}, err
	}
	return roleFrom(r), nil
}

func (a *API) deleteRole(ctx context.Context, tx pgx.Tx, in roleIn) (Deleted, error) {
	if err := wholeOrMissing(ctx); err != nil {
		return Deleted{}, err
	}
	if err := a.cfg.Domains.Tenants.DeleteRoleTx(ctx, tx, principal.From(ctx), in.Role); err != nil {
		return Deleted{}, err
	}
	return Deleted{ID: string(in.Role), Type: "role_deleted"}, nil
}
