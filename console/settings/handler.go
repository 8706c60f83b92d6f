package settings

import (
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

// Handler serves the settings.
type Handler struct {
	DB      *postgres.DB
	Tenants *tenants.Service
	StepUp  *identity.StepUp
}

// Register adds the page to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	g.GET("/settings", h.show)
	g.POST("/settings/profile", h.profile)
	g.POST("/settings/password", h.password)
	g.POST("/settings/sign-ins/:sign_in/revoke", h.revokeSignIn)
	g.POST("/settings/sign-ins/revoke-others", h.revokeOthers)
	h.registerSecurity(g)
	g.POST("/settings/organisation", h.organisation, page.Need(tenants.OrganizationWrite))
	g.POST("/settings/projects", h.newProject, page.Need(tenants.ProjectsWrite))
}

func (h *Handler) show(c echo.Context) error {
	return h.draw(c, 200, c.QueryParam("tab"), nil, "")
}

// draw shows one tab, with the problems of a form that was refused.
func (h *Handler) draw(c echo.Context, status int, tab string, problems ui.Problems, projectInput string) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	viewer, _ := page.ViewerOf(c)
	base := p.Path("settings")
	v := view{
		Base: base, Tab: tab, Email: viewer.Email, Name: viewer.Name, Verified: viewer.Verified, OrgName: p.OrgName, OrgID: string(p.Org), CanRename: p.Can(tenants.OrganizationWrite), CanAddProjects: p.Can(tenants.ProjectsWrite),
		Problems: problems, ProjectInput: projectInput, MailEnabled: h.Tenants.MailEnabled(),
	}
	switch tab {
	case "security", "organisation", "projects":
	default:
		v.Tab = "you"
	}
	v.Tabs = tabSegments(p, base, v.Tab)
	if p.Can(tenants.MembersRead) {
		v.Members = p.Path("members")
	}
	v.Stops = p.Path("stops")
	if p.Can(tenants.ProjectsWrite) {
		v.StopProject = p.Path("stop", "project")
	}
	if p.Can(tenants.OrganizationWrite) {
		v.StopEverything = p.Path("stop", "organisation")
	}
	if err := requireTab(c, v.Tab); err != nil {
		return err
	}
	var err error
	switch v.Tab {
	case "you":
		found, listErr := h.Tenants.ListSignIns(ctx, viewer.User)
		v.SignIns, err = signInRows(found, viewer, base), listErr
	case "security":
		v.Security, err = h.security(c)
	case "organisation":
		err = h.fillOrganisation(c, &v)
	case "projects":
		found, listErr := h.Tenants.ListProjects(ctx, p.Org, tenants.ListProjects{IncludeArchived: true, OldestFirst: true, Limit: 100})
		for _, one := range found {
			v.Projects = append(v.Projects, projectRow{
				Name: one.Name, Slug: one.Slug, Current: one.ID == p.Project, Archived: one.ArchivedAt != nil, Created: one.CreatedAt,
				Href: page.Place{OrgSlug: p.OrgSlug, ProjectSlug: one.Slug}.Path(),
			})
		}
		err = listErr
	}
	if err != nil {
		return err
	}
	v.Frame = page.NewFrame(c, "settings", "Settings", page.Crumb{Label: "Settings"})
	return page.Render(c, status, Page(v))
}

func (h *Handler) fillOrganisation(c echo.Context, v *view) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	org, err := h.Tenants.GetOrganization(ctx, p.Org)
	if err != nil {
		return err
	}
	v.OrgName, v.OrgVersion, v.OrgZone = org.Name, strconv.FormatInt(org.Version, 10), org.TimeZone
	if c.Request().Method == http.MethodPost { // refused: what was typed is kept
		v.OrgName, v.OrgZone = c.FormValue("name"), c.FormValue("time_zone")
	}
	return nil
}

func requireTab(c echo.Context, tab string) error {
	for _, t := range tabs {
		if t.key == tab && t.needs != "" {
			return page.Require(c, t.needs)
		}
	}
	return nil
}

// done comes back to the tab, or shows it with what is wrong.
func (h *Handler) done(c echo.Context, err error, tab, said string) error {
	if err == nil {
		page.Flash(c, said)
		return page.Redirect(c, page.PlaceOf(c).Path("settings")+"?tab="+tab)
	}
	problems, status, err := page.FormProblems(err, map[string]string{"/password": "next", "/next": "next", "/present": "present", "/time_zone": "time_zone"})
	if err != nil {
		return err
	}
	return h.draw(c, status, tab, problems, c.FormValue("project"))
}

func (h *Handler) profile(c echo.Context) error {
	viewer, _ := page.ViewerOf(c)
	return h.done(c, h.Tenants.Rename(c.Request().Context(), viewer.User, c.FormValue("name")), "you", "Your name is saved.")
}

func (h *Handler) password(c echo.Context) error {
	viewer, _ := page.ViewerOf(c)
	err := h.Tenants.ChangePassword(c.Request().Context(), viewer.User, viewer.SignIn, c.FormValue("present"), c.FormValue("next"))
	if fault.IsCode(err, "wrong_credentials") {
		err = fault.InvalidField("/present", "wrong_credentials", "The present password is wrong.")
	}
	return h.done(c, err, "you", "Your password is changed. Other sign-ins have ended.")
}

func (h *Handler) revokeSignIn(c echo.Context) error {
	viewer, _ := page.ViewerOf(c)
	sid, err := id.Parse[id.SignIn](c.Param("sign_in"))
	if err != nil {
		return fault.NotFound()
	}
	return h.done(c, h.Tenants.RevokeSignIn(c.Request().Context(), viewer.User, sid), "you", "That sign-in has ended.")
}

func (h *Handler) revokeOthers(c echo.Context) error {
	viewer, _ := page.ViewerOf(c)
	n, err := h.Tenants.RevokeOtherSignIns(c.Request().Context(), viewer.User, viewer.SignIn)
	return h.done(c, err, "you", ui.Plural(n, "other sign-in has ended.", "other sign-ins have ended."))
}

func (h *Handler) organisation(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	version, err := strconv.ParseInt(c.FormValue("version"), 10, 64)
	if err != nil {
		return fault.InvalidField("/version", "required", "Open the page again and repeat your change.")
	}
	name := c.FormValue("name")
	in := tenants.UpdateOrganization{Name: &name, IfVersion: &version}
	if zone := strings.TrimSpace(c.FormValue("time_zone")); c.Request().Form.Has("time_zone") {
		in.TimeZone = &zone
	}
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		_, err := h.Tenants.UpdateOrganizationTx(ctx, tx, p.Org, in)
		return err
	})
	return h.done(c, err, "organisation", "The organisation is saved.")
}

func (h *Handler) newProject(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		_, err := h.Tenants.CreateProjectTx(ctx, tx, p.Org, tenants.CreateProject{Name: c.FormValue("project")})
		return err
	})
	if f := fault.As(err); err != nil && len(f.Fields) == 1 {
		f.Fields[0].Pointer = "/project"
	}
	return h.done(c, err, "projects", "The project is made.")
}
