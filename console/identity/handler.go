package identity

import (
	"context"
	"net/http"
	"net/url"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	domain "ambit.dev/ambit/agents"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

const pageSize = 30

// Handler serves the pages.
type Handler struct {
	DB      *postgres.DB
	Agents  *domain.Service
	Tenants *tenants.Service
	Keys    *identity.AgentKeys
	StepUp  *identity.StepUp
}

// Register adds the pages to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read, write := page.Need(tenants.AgentsRead), page.Need(tenants.AgentsWrite)
	g.GET("/identity", h.list, read)
	g.GET("/identity/agents/:agent", h.show, read)
	g.POST("/identity/agents/:agent/rotate", h.rotate, write)
	g.POST("/identity/agents/:agent/keys/:kid/retire", h.retire, write)
	g.GET("/identity/members", h.members, page.Need(tenants.MembersRead))
	g.GET("/identity/members/:member", h.member, page.Need(tenants.MembersRead))
	g.GET("/identity/members/:member/passkeys/:passkey/bar", h.askBar, page.Need(tenants.MembersWrite))
	g.POST("/identity/members/:member/passkeys/:passkey/bar", h.bar, page.Need(tenants.MembersWrite))
}

func tabs(p page.Place, current string) []ui.Segment {
	out := []ui.Segment{{Label: "Agents", Href: p.Path("identity"), Current: current == "agents"}}
	if p.Can(tenants.MembersRead) {
		out = append(out, ui.Segment{Label: "Members", Href: p.Path("identity", "members"), Current: current == "members"})
	}
	return out
}

// list shows the project's agents with the key that each signs with.
func (h *Handler) list(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	v := listView{Tabs: tabs(p, "agents"), InstanceDID: h.Keys.InstanceDID(), New: p.Path("agents", "new"), CanWrite: p.Can(tenants.AgentsWrite)}
	filter := domain.ListFilter{Project: p.Project, Limit: pageSize + 1}
	if after, err := id.Parse[id.Agent](c.QueryParam("after")); err == nil {
		filter.After, v.Pager.First = after, p.Path("identity")
	}
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		found, err := h.Agents.List(ctx, tx, p.Org, filter)
		if err != nil {
			return err
		}
		if len(found) > pageSize {
			found = found[:pageSize]
			v.Pager.Next = p.Path("identity") + "?" + url.Values{"after": {string(found[pageSize-1].ID)}}.Encode()
		}
		for _, a := range found {
			keys, err := h.Keys.List(ctx, tx, p.Org, identity.OfAgent(a.ID))
			if err != nil {
				return err
			}
			v.Rows = append(v.Rows, agentRowOf(p, a, keys))
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "agents"
	v.Frame = page.NewFrame(c, "identity", "Identity", page.Crumb{Label: "Identity"})
	return page.Render(c, http.StatusOK, List(v))
}

// inAgent finds the agent of the address, in the viewer's project.
func (h *Handler) inAgent(c echo.Context, fn func(ctx context.Context, tx pgx.Tx, p page.Place, a domain.Agent) error) error {
	aid, err := id.Parse[id.Agent](c.Param("agent"))
	if err != nil {
		return fault.NotFound()
	}
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	return h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		a, err := h.Agents.Get(ctx, tx, p.Org, aid)
		if err != nil {
			return err
		}
		if a.Project != p.Project {
			return fault.NotFound()
		}
		return fn(ctx, tx, p, a)
	})
}

func (h *Handler) show(c echo.Context) error {
	var v agentView
	err := h.inAgent(c, func(ctx context.Context, tx pgx.Tx, p page.Place, a domain.Agent) error {
		of := identity.OfAgent(a.ID)
		keys, err := h.Keys.List(ctx, tx, p.Org, of)
		if err != nil {
			return err
		}
		v = agentView{
			Name: a.Name, ID: string(a.ID), DID: h.Keys.DID(of), Document: h.Keys.DocumentURL(of), JWKS: h.Keys.JWKSURL(of), Controller: h.Keys.InstanceDID(),
			Agent: p.Path("agents", string(a.ID)), Rotate: p.Path("identity", "agents", string(a.ID), "rotate"), CanWrite: p.Can(tenants.AgentsWrite),
		}
		for _, k := range keys {
			v.Keys = append(v.Keys, keyRowOf(p, a.ID, k))
			v.Waits = v.Waits || v.Keys[len(v.Keys)-1].Waits
		}
		return nil
	})
	if err != nil {
		return err
	}
	back := page.PlaceOf(c).Path("identity")
	v.Frame = page.NewFrame(c, "identity", v.Name, page.Crumb{Label: "Identity", Href: back}, page.Crumb{Label: v.Name})
	return page.Render(c, http.StatusOK, Agent(v))
}

func (h *Handler) rotate(c echo.Context) error {
	var back string
	err := h.inAgent(c, func(ctx context.Context, tx pgx.Tx, p page.Place, a domain.Agent) error {
		back = p.Path("identity", "agents", string(a.ID))
		_, err := h.Keys.Rotate(ctx, tx, p.Org, identity.OfAgent(a.ID))
		return err
	})
	if err != nil {
		return err
	}
	page.Flash(c, "The successor is published, and signs in a quarter of an hour.")
	return page.Redirect(c, back)
}

func (h *Handler) retire(c echo.Context) error {
	var back string
	err := h.inAgent(c, func(ctx context.Context, tx pgx.Tx, p page.Place, a domain.Agent) error {
		back = p.Path("identity", "agents", string(a.ID))
		_, err := h.Keys.Compromised(ctx, tx, p.Org, identity.OfAgent(a.ID), c.Param("kid"))
		return err
	})
	if err != nil {
		return err
	}
	page.Flash(c, "The key is retired. Another one signs.")
	return page.Redirect(c, back)
}
