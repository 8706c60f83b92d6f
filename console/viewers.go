package console

import (
	"context"
	"net/http"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/account"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

const personKey = "ambit.person"

// maxSwitcherProjects bounds how many projects of an organisation the switcher lists; the settings list all.
const maxSwitcherProjects = 50

// viewers finds out who is looking, and at which project.
type viewers struct {
	tenants *tenants.Service
	cookies account.Cookies
	banner  string
}

// load finds the person of the request's cookie. A cookie that is no sign-in any more is taken away.
func (v *viewers) load(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		page.SetBanner(c, v.banner)
		token := v.cookies.Token(c.Request())
		if token == "" {
			return next(c)
		}
		person, err := v.tenants.Authenticate(c.Request().Context(), token)
		if fault.IsCode(err, "unauthenticated") {
			v.cookies.Clear(c)
			return next(c)
		}
		if err != nil {
			return err
		}
		c.Set(personKey, person)
		page.SetViewer(c, page.Viewer{
			User: person.User.ID, SignIn: person.SignIn.ID, Name: person.User.Name, Email: person.User.Email, Verified: person.User.EmailVerifiedAt != nil,
		})
		return next(c)
	}
}

func personOf(c echo.Context) tenants.Person {
	p, _ := c.Get(personKey).(tenants.Person)
	return p
}

// place finds the project that the address names, and lets the request act there as the person's role allows. A project that is not
// there and one of an organisation of others are the same 404.
func (v *viewers) place(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx, person := c.Request().Context(), personOf(c)
		var in *tenants.Membership
		for i, m := range person.Memberships {
			if m.OrganizationSlug == c.Param("org") {
				in = &person.Memberships[i]
			}
		}
		if in == nil {
			return fault.NotFound()
		}
		project, err := v.tenants.GetProjectBySlug(ctx, in.Organization, c.Param("project"))
		if err != nil {
			return err
		}
		acting, err := person.In(string(in.Organization), project.ID)
		if err != nil {
			return err
		}
		c.SetRequest(c.Request().WithContext(principal.With(ctx, acting)))
		page.SetPlace(c, page.Place{
			Org: in.Organization, OrgName: in.OrganizationName, OrgSlug: in.OrganizationSlug,
			Project: project.ID, ProjectName: project.Name, ProjectSlug: project.Slug, Role: in.RoleName, Acting: acting,
		})
		return v.switcher(ctx, c, person, next)
	}
}

// switcher adds the organisations and projects that the person can go to.
func (v *viewers) switcher(ctx context.Context, c echo.Context, person tenants.Person, next echo.HandlerFunc) error {
	viewer, _ := page.ViewerOf(c)
	for _, m := range person.Memberships {
		entry := page.OrgEntry{ID: m.Organization, Name: m.OrganizationName, Slug: m.OrganizationSlug}
		projects, err := v.tenants.ListProjects(ctx, m.Organization, tenants.ListProjects{OldestFirst: true, Limit: maxSwitcherProjects})
		if err != nil {
			return err
		}
		for _, p := range projects {
			entry.Projects = append(entry.Projects, page.ProjectEntry{ID: p.ID, Name: p.Name, Slug: p.Slug})
		}
		viewer.Orgs = append(viewer.Orgs, entry)
	}
	page.SetViewer(c, viewer)
	return next(c)
}

// home goes to the first project of the person's first organisation.
func (v *viewers) home(c echo.Context) error {
	ctx := c.Request().Context()
	for _, m := range personOf(c).Memberships {
		projects, err := v.tenants.ListProjects(ctx, m.Organization, tenants.ListProjects{OldestFirst: true, Limit: 1})
		if err != nil {
			return err
		}
		if len(projects) > 0 {
			to := page.Place{OrgSlug: m.OrganizationSlug, ProjectSlug: projects[0].Slug}.Path()
			if c.QueryParam("welcome") != "" {
				to += "?welcome=1"
			}
			return c.Redirect(http.StatusSeeOther, to)
		}
	}
	return fault.New(fault.Forbidden, "permission_denied", "You are not a member of any organisation. Ask for an invitation, or create an account of your own.")
}
