package stops

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

const (
	pageSize = 50
	// waitFor is how long the page after the red button waits for the receipt, before it shows the progress.
	waitFor = 8 * time.Second
)

// Handler serves the pages about stopping.
type Handler struct {
	DB       *postgres.DB
	Agents   *agents.Service
	Tenants  *tenants.Service
	Sessions *scheduler.Service
	Mandates *register.Service
}

// Register adds the pages to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read := page.Need(tenants.SessionsRead)
	g.GET("/stops", h.list, read)
	g.GET("/stops/:stop", h.show, read)
	g.GET("/stops/:stop/receipt", h.stopReceipt, read)
	g.GET("/sessions/:session/receipt", h.sessionReceipt, read)
	for _, s := range []struct {
		path  string
		needs tenants.Permission
		of    func(echo.Context) (target, error)
	}{
		{"/stop/agents/:agent", tenants.SessionsWrite, h.agent},
		{"/stop/keys/:key", tenants.KeysWrite, h.key},
		{"/stop/project", tenants.ProjectsWrite, h.project},
		{"/stop/organisation", tenants.OrganizationWrite, h.organisation},
	} {
		g.GET(s.path, func(c echo.Context) error {
			t, err := s.of(c)
			if err != nil {
				return err
			}
			return h.ask(c, 200, t, askView{})
		}, page.Need(s.needs))
		g.POST(s.path, func(c echo.Context) error {
			t, err := s.of(c)
			if err != nil {
				return err
			}
			return h.stop(c, t)
		}, page.Need(s.needs))
	}
}

// target is what is to be stopped.
type target struct {
	scope scheduler.Scope
	name  string // as people know it
	noun  string // "the agent"
	back  string
	nav   string
	// typed is what must be typed to confirm; empty asks for nothing.
	typed string
}

func (h *Handler) agent(c echo.Context) (target, error) {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	aid, err := id.Parse[id.Agent](c.Param("agent"))
	if err != nil {
		return target{}, fault.NotFound()
	}
	var found agents.Agent
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		found, err = h.Agents.Get(ctx, tx, p.Org, aid)
		return err
	})
	if err == nil && found.Project != p.Project {
		err = fault.NotFound()
	}
	return target{
		scope: scheduler.Scope{Type: scheduler.ScopeAgent, ID: string(aid), Project: p.Project}, name: found.Name, noun: "the agent",
		back: p.Path("agents", string(aid)), nav: "agents",
	}, err
}

func (h *Handler) key(c echo.Context) (target, error) {
	p := page.PlaceOf(c)
	kid, err := id.Parse[id.Key](c.Param("key"))
	if err != nil {
		return target{}, fault.NotFound()
	}
	found, err := h.Tenants.GetKey(c.Request().Context(), p.Org, kid)
	return target{
		scope: scheduler.Scope{Type: scheduler.ScopeKey, ID: string(kid), Project: found.Project}, name: found.Name, noun: "the API key",
		back: p.Path("keys"), nav: "keys",
	}, err
}

func (h *Handler) project(c echo.Context) (target, error) {
	p := page.PlaceOf(c)
	return target{
		scope: scheduler.Scope{Type: scheduler.ScopeProject, ID: string(p.Project), Project: p.Project}, name: p.ProjectName, noun: "the project",
		back: p.Path("settings") + "?tab=projects", nav: "settings",
	}, nil
}

func (h *Handler) organisation(c echo.Context) (target, error) {
	p := page.PlaceOf(c)
	return target{
		scope: scheduler.Scope{Type: scheduler.ScopeOrganization, ID: string(p.Org)}, name: p.OrgName, noun: "the organisation",
		back: p.Path("settings") + "?tab=organisation", nav: "settings", typed: p.OrgName,
	}, nil
}

func (h *Handler) ask(c echo.Context, status int, t target, v askView) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) (err error) {
		v.Working, err = h.Sessions.CountWorking(ctx, tx, p.Org, t.scope)
		return err
	})
	if err != nil {
		return err
	}
	v.Action, v.Back, v.Noun, v.Name, v.Typed = c.Request().URL.Path, t.back, t.noun, t.name, t.typed
	v.Title = "Stop " + t.name
	if t.typed != "" {
		v.Title = "Stop everything"
	}
	v.Frame = page.NewFrame(c, t.nav, v.Title, page.Crumb{Label: "Stops", Href: p.Path("stops")}, page.Crumb{Label: v.Title})
	return page.Render(c, status, Ask(v))
}

func (h *Handler) stop(c echo.Context, t target) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	v := askView{Reason: c.FormValue("reason"), IncludeIdle: c.FormValue("idle") != ""}
	if t.typed != "" && strings.TrimSpace(c.FormValue("typed")) != t.typed {
		v.Problems = ui.Problems{{Field: "typed", Message: "Type the organisation's name, " + t.typed + ", as it stands here. Nothing was stopped."}}
	}
	if len(v.Reason) > 500 {
		v.Problems = append(v.Problems, ui.Problem{Field: "reason", Message: "A reason has at most 500 bytes."})
	}
	if len(v.Problems) > 0 {
		return h.ask(c, 422, t, v)
	}
	var o scheduler.StopOrder
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) (err error) {
		o, err = h.Sessions.StopScope(ctx, tx, p.Org, scheduler.StopInput{Scope: t.scope, Reason: v.Reason, IncludeIdle: v.IncludeIdle})
		return err
	})
	if err != nil {
		return err
	}
	waiting, cancel := context.WithTimeout(ctx, waitFor)
	defer cancel()
	if _, err := h.Sessions.FinishStop(waiting, p.Org, o.ID); err != nil {
		return err
	}
	return page.Redirect(c, p.Path("stops", string(o.ID)))
}

func (h *Handler) list(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	v := listView{Base: p.Path("stops")}
	after, _ := id.Parse[id.Stop](c.QueryParam("after"))
	var orders []scheduler.StopOrder
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		found, err := h.Sessions.ListStops(ctx, tx, p.Org, "", after, pageSize+1)
		if err != nil {
			return err
		}
		if len(found) > pageSize {
			found = found[:pageSize]
			v.Pager.Next = v.Base + "?after=" + string(found[pageSize-1].ID)
		}
		orders = found
		return nil
	})
	if err != nil {
		return err
	}
	known, err := h.names(c, orders...)
	if err != nil {
		return err
	}
	for _, o := range orders {
		v.Rows = append(v.Rows, newRow(p, o, known))
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "stops"
	if after != "" {
		v.Pager.First = v.Base
	}
	v.Frame = page.NewFrame(c, "sessions", "Stops", page.Crumb{Label: "Sessions", Href: p.Path("sessions")}, page.Crumb{Label: "Stops"})
	return page.Render(c, 200, List(v))
}

// maxMembers bounds whose names are looked up; whoever comes after is shown by the id.
const maxMembers = 500

// names looks up what orders are about and who gave them, as far as the viewer may see those.
func (h *Handler) names(c echo.Context, orders ...scheduler.StopOrder) (names, error) {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	out := names{}
	if p.Can(tenants.MembersRead) && len(orders) > 0 {
		list, err := h.Tenants.ListMembers(ctx, p.Org, "", maxMembers)
		if err != nil {
			return nil, err
		}
		for _, m := range list {
			if out[string(m.UserID)] = m.Name; m.Name == "" {
				out[string(m.UserID)] = m.Email
			}
		}
	}
	if viewer, ok := page.ViewerOf(c); ok {
		for _, o := range viewer.Orgs {
			for _, project := range o.Projects {
				out[string(project.ID)] = project.Name
			}
		}
	}
	for _, o := range orders {
		for _, one := range []string{o.Scope.ID, o.By.ID} {
			if out[one] != "" {
				continue
			}
			name, err := h.nameOf(ctx, p, one)
			if err != nil {
				return nil, err
			}
			out[one] = name
		}
	}
	return out, nil
}

// nameOf is the name of an agent or of a key, or what a mandate is for; empty for what is not there, or not the viewer's to see.
func (h *Handler) nameOf(ctx context.Context, p page.Place, one string) (name string, err error) {
	if agent, bad := id.Parse[id.Agent](one); bad == nil && p.Can(tenants.AgentsRead) {
		err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
			found, err := h.Agents.Get(ctx, tx, p.Org, agent)
			name = found.Name
			return err
		})
	}
	if mandate, bad := id.Parse[id.Mandate](one); bad == nil && p.Can(tenants.MandatesRead) {
		err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
			found, err := h.Mandates.Get(ctx, tx, p.Org, mandate)
			name = found.Grant.Intent
			return err
		})
	}
	if key, bad := id.Parse[id.Key](one); bad == nil && p.Can(tenants.KeysRead) {
		var found tenants.Key
		found, err = h.Tenants.GetKey(ctx, p.Org, key)
		name = found.Name
	}
	if fault.IsCode(err, fault.NotFound().Code) {
		err = nil
	}
	return name, err
}

func (h *Handler) order(c echo.Context) (scheduler.StopOrder, error) {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	sid, err := id.Parse[id.Stop](c.Param("stop"))
	if err != nil {
		return scheduler.StopOrder{}, fault.NotFound()
	}
	var o scheduler.StopOrder
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		o, err = h.Sessions.GetStop(ctx, tx, p.Org, sid)
		return err
	})
	return o, err
}

func (h *Handler) show(c echo.Context) error {
	o, err := h.order(c)
	if err != nil {
		return err
	}
	p := page.PlaceOf(c)
	known, err := h.names(c, o)
	if err != nil {
		return err
	}
	v := newShow(p, o, known)
	v.Frame = page.NewFrame(c, "sessions", v.Title, page.Crumb{Label: "Stops", Href: p.Path("stops")}, page.Crumb{Label: v.Title})
	return page.Render(c, 200, Show(v))
}

func (h *Handler) stopReceipt(c echo.Context) error {
	o, err := h.order(c)
	if err != nil {
		return err
	}
	if o.Receipt == nil {
		return fault.NotFound()
	}
	return sendFile(c, string(o.ID), o.Receipt)
}

func (h *Handler) sessionReceipt(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	sid, err := id.Parse[id.Session](c.Param("session"))
	if err != nil {
		return fault.NotFound()
	}
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		s, err := journal.Get(ctx, tx, p.Org, sid)
		if err == nil && s.Project != p.Project {
			return fault.NotFound()
		}
		return err
	})
	if err != nil {
		return err
	}
	r, err := h.Sessions.KillReceipt(ctx, p.Org, sid)
	if err != nil {
		return err
	}
	return sendFile(c, string(r.ID), r)
}

// sendFile answers with a receipt as a file, as ambit receipt verify reads it.
func sendFile(c echo.Context, name string, receipt any) error {
	raw, err := json.MarshalIndent(receipt, "", "  ")
	if err != nil {
		return fmt.Errorf("write receipt %s: %w", name, err)
	}
	head := c.Response().Header()
	head.Set("Content-Disposition", `attachment; filename="`+name+`.json"`)
	head.Set("Cache-Control", "no-store")
	return c.Blob(200, "application/json", raw)
}
