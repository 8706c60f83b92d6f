package members

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

const (
	pageSize = 50
	// maxInvitations is how many open invitations the page lists.
	maxInvitations = 200
	// maxRoles is above what an organisation may have.
	maxRoles = 200
)

// Handler serves the pages about members and roles.
type Handler struct {
	DB      *postgres.DB
	Tenants *tenants.Service
}

// Register adds the pages to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read, write := page.Need(tenants.MembersRead), page.Need(tenants.MembersWrite)
	g.GET("/members", h.list, read)
	g.GET("/members/invite", h.inviteForm, write)
	g.POST("/members/invite", h.invite, write)
	g.POST("/members/:member/role", h.setRole, write)
	g.POST("/members/:member/remove", h.remove, write)
	g.POST("/invitations/:invitation/resend", h.resend, write)
	g.POST("/invitations/:invitation/revoke", h.revoke, write)
	g.GET("/roles", h.roles, read)
	g.GET("/roles/new", h.newRole, write)
	g.POST("/roles/new", h.createRole, write)
	g.GET("/roles/:role", h.showRole, read)
	g.POST("/roles/:role", h.updateRole, write)
	g.POST("/roles/:role/delete", h.deleteRole, write)
}

func (h *Handler) inTx(c echo.Context, fn func(ctx context.Context, tx pgx.Tx, by principal.Principal) error) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	return h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error { return fn(ctx, tx, p.Acting) })
}

func (h *Handler) list(c echo.Context) error { return h.draw(c, 200, nil) }

// draw shows the members, with the problems of a change that was refused.
func (h *Handler) draw(c echo.Context, status int, problems ui.Problems) error {
	p := page.PlaceOf(c)
	viewer, _ := page.ViewerOf(c)
	v := listView{
		Base: p.Path("members"), Invite: p.Path("members", "invite"), Tabs: tabs(p, "members"), CanWrite: p.Can(tenants.MembersWrite),
		MailEnabled: h.Tenants.MailEnabled(), Problems: problems,
	}
	after, _ := id.Parse[id.Member](c.QueryParam("after"))
	err := h.inTx(c, func(ctx context.Context, tx pgx.Tx, by principal.Principal) error {
		found, err := h.Tenants.ListMembersTx(ctx, tx, by.Org, after, pageSize+1)
		if err != nil {
			return err
		}
		if len(found) > pageSize {
			found = found[:pageSize]
			v.Pager.Next = v.Base + "?after=" + string(found[pageSize-1].ID)
		}
		choices, err := h.choices(ctx, tx, p)
		if err != nil {
			return err
		}
		names := map[string]string{}
		for _, m := range found {
			v.Rows = append(v.Rows, memberRowOf(p, m, m.UserID == viewer.User, choices))
			names[string(m.UserID)] = m.Name
			if m.Name == "" {
				names[string(m.UserID)] = m.Email
			}
		}
		open, err := h.Tenants.ListInvitationsTx(ctx, tx, by.Org, tenants.ListInvitations{Open: true, Limit: maxInvitations})
		if err != nil {
			return err
		}
		for _, i := range open {
			v.Invitations = append(v.Invitations, invitationRowOf(p, i, names))
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "members"
	if after != "" {
		v.Pager.First = v.Base
	}
	v.Frame = page.NewFrame(c, "members", "Members", page.Crumb{Label: "Members"})
	return page.Render(c, status, List(v))
}

// choices are the roles that the viewer may give to somebody, the most powerful first.
func (h *Handler) choices(ctx context.Context, tx pgx.Tx, p page.Place) ([]ui.Option, error) {
	var out []ui.Option
	for _, r := range tenants.Roles() {
		if mayGive(p, tenants.PermissionsOf(r)) {
			out = append(out, ui.Option{Value: string(r), Label: roleLabel(string(r))})
		}
	}
	own, err := h.Tenants.ListRolesTx(ctx, tx, p.Org, "", maxRoles)
	if err != nil {
		return nil, err
	}
	for _, r := range own {
		if mayGive(p, r.Permissions) {
			out = append(out, ui.Option{Value: string(r.ID), Label: r.Name, Group: "Of this organisation"})
		}
	}
	return out, nil
}

// done comes back to the list, or shows it with what was refused.
func (h *Handler) done(c echo.Context, err error, said string) error {
	if err == nil {
		page.Flash(c, said)
		return page.Redirect(c, page.PlaceOf(c).Path("members"))
	}
	if fault.As(err).Kind == fault.NotFoundKind {
		return err
	}
	problems, status, err := page.FormProblems(err, map[string]string{"/role": "", "/email": ""})
	if err != nil {
		return err
	}
	return h.draw(c, status, problems)
}

func (h *Handler) setRole(c echo.Context) error {
	member, err := id.Parse[id.Member](c.Param("member"))
	if err != nil {
		return fault.NotFound()
	}
	var now tenants.Member
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, by principal.Principal) error {
		now, err = h.Tenants.SetMemberRoleTx(ctx, tx, by, member, c.FormValue("role"))
		return err
	})
	return h.done(c, err, now.Email+" is "+roleLabel(now.RoleName)+" now.")
}

func (h *Handler) remove(c echo.Context) error {
	member, err := id.Parse[id.Member](c.Param("member"))
	if err != nil {
		return fault.NotFound()
	}
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, by principal.Principal) error {
		return h.Tenants.RemoveMemberTx(ctx, tx, by, member)
	})
	if viewer, _ := page.ViewerOf(c); err == nil && c.FormValue("self") == string(viewer.User) {
		return page.Redirect(c, "/home") // oneself: there is no list to come back to
	}
	return h.done(c, err, "The member is removed.")
}

func (h *Handler) inviteForm(c echo.Context) error {
	return h.drawInvite(c, 200, inviteView{Role: string(tenants.RoleDeveloper)})
}

func (h *Handler) drawInvite(c echo.Context, status int, v inviteView) error {
	p := page.PlaceOf(c)
	v.Action, v.Back, v.MailEnabled, v.Org = p.Path("members", "invite"), p.Path("members"), h.Tenants.MailEnabled(), p.OrgName
	err := h.inTx(c, func(ctx context.Context, tx pgx.Tx, _ principal.Principal) (err error) {
		v.Roles, err = h.choices(ctx, tx, p)
		return err
	})
	if err != nil {
		return err
	}
	for _, r := range tenants.Roles() {
		if mayGive(p, tenants.PermissionsOf(r)) {
			v.About = append(v.About, ui.Fact{Term: roleLabel(string(r)), Text: tenants.DescribeRole(r)})
		}
	}
	v.Frame = page.NewFrame(c, "members", "Invite somebody", page.Crumb{Label: "Members", Href: v.Back}, page.Crumb{Label: "Invite"})
	return page.Render(c, status, Invite(v))
}

func (h *Handler) invite(c echo.Context) error {
	v := inviteView{Email: c.FormValue("email"), Role: c.FormValue("role")}
	var sent tenants.Sent
	err := h.inTx(c, func(ctx context.Context, tx pgx.Tx, by principal.Principal) (err error) {
		sent, err = h.Tenants.InviteTx(ctx, tx, by, tenants.Invite{Email: v.Email, Role: v.Role})
		return err
	})
	if err != nil {
		problems, status, err := page.FormProblems(err, nil)
		if err != nil {
			return err
		}
		v.Problems = problems
		return h.drawInvite(c, status, v)
	}
	return h.sent(c, sent, "The invitation to "+sent.Invitation.Email+" is on its way.")
}

// sent comes back to the list, or shows the link this once where no mail can carry it.
func (h *Handler) sent(c echo.Context, sent tenants.Sent, said string) error {
	p := page.PlaceOf(c)
	if sent.Link == "" {
		page.Flash(c, said)
		return page.Redirect(c, p.Path("members"))
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	c.Response().Header().Set("Referrer-Policy", "no-referrer")
	back := p.Path("members")
	return page.Render(c, http.StatusOK, Handover(handoverView{
		Frame: page.NewFrame(c, "members", "Hand over the link", page.Crumb{Label: "Members", Href: back}, page.Crumb{Label: "Hand over the link"}),
		Email: sent.Invitation.Email, Link: sent.Link, Expires: sent.Invitation.ExpiresAt, Back: back,
	}))
}

func (h *Handler) resend(c echo.Context) error {
	invitation, err := id.Parse[id.Invitation](c.Param("invitation"))
	if err != nil {
		return fault.NotFound()
	}
	var sent tenants.Sent
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, by principal.Principal) error {
		sent, err = h.Tenants.ResendInvitationTx(ctx, tx, by, invitation)
		return err
	})
	if err != nil {
		return h.done(c, err, "")
	}
	return h.sent(c, sent, "A new link is on its way to "+sent.Invitation.Email+". The old one is void.")
}

func (h *Handler) revoke(c echo.Context) error {
	invitation, err := id.Parse[id.Invitation](c.Param("invitation"))
	if err != nil {
		return fault.NotFound()
	}
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, by principal.Principal) error {
		return h.Tenants.RevokeInvitationTx(ctx, tx, by, invitation)
	})
	return h.done(c, err, "The invitation is revoked.")
}
