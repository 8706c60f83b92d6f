package keys

import (
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

const pageSize = 50

// Handler serves the pages about API keys.
type Handler struct {
	DB      *postgres.DB
	Tenants *tenants.Service
	// APIURL is where clients reach the API, without a slash at the end.
	APIURL string
}

// Register adds the pages to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read, write := page.Need(tenants.KeysRead), page.Need(tenants.KeysWrite)
	g.GET("/keys", h.list, read)
	g.GET("/keys/new", h.newForm, write)
	g.POST("/keys/new", h.create, write)
	g.POST("/keys/:key/revoke", h.revoke, write)
}

func (h *Handler) list(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	in := tenants.ListKeys{Limit: pageSize + 1}
	all := c.QueryParam("all") != ""
	if !all {
		in.Statuses = []tenants.KeyStatus{tenants.KeyActive, tenants.KeyExpired}
	}
	if after, err := id.Parse[id.Key](c.QueryParam("after")); err == nil {
		in.After = after
	}
	found, err := h.Tenants.ListKeys(ctx, p.Org, in)
	if err != nil {
		return err
	}
	v := newList(p, found, all, time.Now())
	if in.After != "" {
		v.Pager.First = v.Base
	}
	v.Frame = page.NewFrame(c, "keys", "Keys", page.Crumb{Label: "Keys"})
	return page.Render(c, 200, List(v))
}

func (h *Handler) newForm(c echo.Context) error {
	return h.form(c, 200, createView{Form: form{Expires: "90", Scopes: "all", Where: "project"}})
}

func (h *Handler) form(c echo.Context, status int, v createView) error {
	p := page.PlaceOf(c)
	v.Base, v.Project, v.Org = p.Path("keys"), p.ProjectName, p.OrgName
	v.Permissions = permissionChoices(principal.From(c.Request().Context()), v.Form.Chosen)
	v.Frame = page.NewFrame(c, "keys", "New API key", page.Crumb{Label: "Keys", Href: v.Base}, page.Crumb{Label: "New"})
	return page.Render(c, status, Create(v))
}

func (h *Handler) create(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	values, err := c.FormParams()
	if err != nil {
		return echo.ErrBadRequest.WithInternal(err)
	}
	f := form{Name: values.Get("name"), Expires: values.Get("expires"), Scopes: values.Get("scopes"), Where: values.Get("where"), Chosen: values["scope"]}
	in := tenants.CreateKey{Name: f.Name, Scopes: f.Chosen}
	if f.Scopes == "all" {
		in.Scopes = everythingOf(principal.From(ctx))
	}
	if f.Where != "organisation" {
		in.Project = p.Project
	}
	if days, ok := expiries[f.Expires]; ok && days > 0 {
		at := time.Now().AddDate(0, 0, days)
		in.ExpiresAt = &at
	}
	var key tenants.Key
	var secret string
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		key, secret, err = h.Tenants.CreateKeyTx(ctx, tx, principal.From(ctx), in)
		return err
	})
	if err != nil {
		problems, status, err := page.FormProblems(err, map[string]string{"/scopes": "scopes", "/expires_at": "expires"})
		if err != nil {
			return err
		}
		return h.form(c, status, createView{Form: f, Problems: problems})
	}
	// The secret is in this one answer and nowhere else: no redirect, as it would have to be kept for the page after it.
	v := createdView{Name: key.Name, Secret: secret, Curl: curl(h.APIURL, secret, p, in.Project == ""), Base: p.Path("keys"), Sessions: p.Path("sessions"), CanInvoke: canInvoke(key.Scopes)}
	v.Frame = page.NewFrame(c, "keys", "API key made", page.Crumb{Label: "Keys", Href: v.Base}, page.Crumb{Label: key.Name})
	return page.Render(c, 200, Created(v))
}

func canInvoke(scopes []string) bool {
	return slices.Contains(scopes, tenants.AllScopes) || slices.Contains(scopes, string(tenants.SessionsWrite))
}

func (h *Handler) revoke(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	kid, err := id.Parse[id.Key](c.Param("key"))
	if err != nil {
		return fault.NotFound()
	}
	var key tenants.Key
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		key, err = h.Tenants.RevokeKeyTx(ctx, tx, p.Org, kid)
		return err
	})
	if err != nil {
		return err
	}
	page.Flash(c, key.Name+" is revoked. Requests with it are refused from now on.")
	return page.Redirect(c, p.Path("keys"))
}
