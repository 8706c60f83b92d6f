package account

import (
	"net/http"
	"net/url"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/tenants"
)

type invitationView struct {
	Token string
	Offer tenants.Offer
	Bad   bool
	// SignedInAs is the address of the viewer; empty for nobody.
	SignedInAs string
	Name       string
	SignIn     string
	Problems   ui.Problems
}

// here is the address of the page itself, to come back to.
func (v invitationView) here() string {
	return tenants.InvitationPath + "?" + url.Values{"token": {v.Token}}.Encode()
}

func (v invitationView) fits() bool { return v.SignedInAs == v.Offer.Email }

func (v invitationView) title() string {
	if v.Bad {
		return "This invitation does not work any more"
	}
	return "Join " + v.Offer.Organization
}

// invitation shows what an invitation's link offers. Opening it uses nothing up: programs that look into mail open links too. Whether the
// address has an account is not looked up: both ways are offered to somebody who is not signed in.
func (h *Handler) invitation(c echo.Context) error {
	return h.drawInvitation(c, http.StatusOK, invitationView{Token: c.QueryParam("token")})
}

func (h *Handler) drawInvitation(c echo.Context, status int, v invitationView) error {
	viewer, _ := page.ViewerOf(c)
	v.SignedInAs = viewer.Email
	var err error
	v.Offer, err = h.Tenants.ReadOffer(c.Request().Context(), v.Token)
	if fault.IsCode(err, "gone") {
		v.Bad, status = true, http.StatusGone
	} else if err != nil {
		return err
	}
	v.SignIn = "/sign-in?" + url.Values{"next": {v.here()}, "email": {v.Offer.Email}}.Encode()
	// The token stands in the address; it must not leave with a link that is followed from here.
	c.Response().Header().Set("Referrer-Policy", "no-referrer")
	return page.Render(c, status, Invitation(page.NewFrame(c, "", v.title()), v))
}

// acceptInvitation makes whoever is signed in a member, or signs up whoever is not.
func (h *Handler) acceptInvitation(c echo.Context) error {
	ctx, v := c.Request().Context(), invitationView{Token: c.FormValue("token"), Name: c.FormValue("name")}
	var joined tenants.Joined
	var err error
	if viewer, in := page.ViewerOf(c); in {
		joined, err = h.Tenants.AcceptInvitation(ctx, v.Token, viewer.User)
	} else {
		var in tenants.SignedIn
		in, joined, err = h.Tenants.SignUpInvited(ctx, v.Token, tenants.SignUp{Password: c.FormValue("password"), Name: v.Name, Origin: origin(c)})
		if err == nil {
			h.Cookies.set(c, in)
		}
	}
	if err != nil {
		return h.refused(c, err, func(p ui.Problems, status int) error {
			v.Problems = p
			return h.drawInvitation(c, status, v)
		})
	}
	page.Flash(c, "You are a member of "+joined.OrganizationName+" now.")
	projects, err := h.Tenants.ListProjects(ctx, joined.Organization, tenants.ListProjects{OldestFirst: true, Limit: 1})
	if err != nil {
		return err
	}
	if len(projects) == 0 {
		return page.Redirect(c, "/home")
	}
	return page.Redirect(c, page.Place{OrgSlug: joined.OrganizationSlug, ProjectSlug: projects[0].Slug}.Path())
}
