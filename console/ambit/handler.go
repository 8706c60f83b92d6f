package ambit

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants"
)

// maxVersions bounds how many of an agent's versions are looked at, the newest first; the page says so when there are more.
const maxVersions = 1000

// Handler serves the page.
type Handler struct {
	DB       *postgres.DB
	Agents   *agents.Service
	Policies *policy.Service
	// Tools are the names of the tools that there are.
	Tools []string
	// Models lists the models that agents can be given now.
	Models func(ctx context.Context) []string
}

type view struct {
	Frame   page.Frame
	Agent   agents.Agent
	Base    string
	At      time.Time
	Tools   []part
	Hosts   []part
	Models  []part
	Sandbox part
	Files   []fileUse
	// Web is what the rules make of requests at all.
	Web      part
	Versions int
	Cut      bool
	Rules    int
	Limits   []ui.Fact
	// Purse is nil for somebody who may not see money.
	Purse   *purse
	NewRule string
	Stop    string
}

// Register adds the page to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	g.GET("/agents/:agent/ambit", h.show, page.Need(tenants.AgentsRead), page.Need(tenants.PermissionsRead))
}

func (h *Handler) show(c echo.Context) error {
	aid, err := id.Parse[id.Agent](c.Param("agent"))
	if err != nil {
		return fault.NotFound()
	}
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	v := view{At: time.Now(), Base: p.Path("agents", string(aid))}
	models := h.Models(ctx)
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		if v.Agent, err = h.Agents.Get(ctx, tx, p.Org, aid); err != nil {
			return err
		}
		if v.Agent.Project != p.Project {
			return fault.NotFound()
		}
		versions, err := h.Agents.ListVersions(ctx, tx, p.Org, aid, 0, maxVersions)
		if err != nil {
			return err
		}
		set, err := h.Policies.Cache().Now(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		v.Versions, v.Cut, v.Rules = len(versions), len(versions) == maxVersions, set.Len()
		v.reach(reach{
			set: set, agent: v.Agent, versions: versions, tools: h.Tools,
			rulePath:    func(rule string) string { return p.Path("permissions", "rules", rule) },
			explainPath: func(kind, name, action, object string) string { return explainPath(p, aid, kind, name, action, object) },
		}, models)
		if !p.Can(tenants.LedgerRead) || !p.Can(tenants.BudgetsRead) {
			return nil
		}
		money, err := readPurse(ctx, tx, p, v.Agent, versions)
		v.Purse = &money
		return err
	})
	if err != nil {
		return err
	}
	v.Limits = limitFacts(v.Agent)
	if p.Can(tenants.PermissionsWrite) {
		v.NewRule = p.Path("permissions", "rules", "new") + "?subject=" + string(aid)
	}
	if p.Can(tenants.SessionsWrite) {
		v.Stop = p.Path("stop", "agents", string(aid))
	}
	v.Frame = page.NewFrame(c, "agents", "What "+v.Agent.Name+" could do at the worst",
		page.Crumb{Label: "Agents", Href: p.Path("agents")}, page.Crumb{Label: v.Agent.Name, Href: v.Base}, page.Crumb{Label: "At the worst"})
	return page.Render(c, 200, Page(v))
}

func (v *view) reach(r reach, models []string) {
	v.Tools, v.Hosts, v.Models = r.toolParts(), r.hostParts(), r.modelParts(models)
	v.Sandbox = r.part(r.request(policy.Sandbox, ""), "Sandbox")
	v.Files = fileUses(own(v.Tools), v.Sandbox)
	v.Web = r.part(r.request(policy.ToolCall, toolForWeb), toolForWeb)
}

func explainPath(p page.Place, agent id.Agent, kind, name, action, object string) string {
	q := url.Values{"agent": {string(agent)}, "kind": {kind}, "name": {name}}
	if action != "" {
		q.Set("action", action)
	}
	if object != "" {
		q.Set("object", object)
	}
	return p.Path("permissions", "explain") + "?" + q.Encode()
}

// count is how many of some can be used.
func count(parts []part) (possible, all int) {
	for _, p := range parts {
		if p.possible() {
			possible++
		}
	}
	return possible, len(parts)
}

func ofAll(parts []part) string {
	possible, all := count(parts)
	if all == 0 {
		return "none"
	}
	return strconv.Itoa(possible) + " of " + strconv.Itoa(all)
}

// own leaves out what only an override gives.
func own(parts []part) []part {
	var out []part
	for _, p := range parts {
		if !p.Overridden {
			out = append(out, p)
		}
	}
	return out
}

func overridden(parts []part) []part {
	var out []part
	for _, p := range parts {
		if p.Overridden && p.possible() {
			out = append(out, p)
		}
	}
	return out
}

func limitFacts(a agents.Agent) []ui.Fact {
	l := a.Definition.Limits
	number := func(n int64, unit string) string {
		if n == 0 {
			return "no limit"
		}
		return ui.Count(n) + unit
	}
	ceiling := ui.Fact{Term: "Price ceiling", Text: "none"}
	if l.MaxCost != nil {
		ceiling = ui.Fact{Term: "Price ceiling", Value: ui.Money(*l.MaxCost)}
	}
	return []ui.Fact{
		ceiling,
		{Term: "Tokens", Text: number(l.MaxTokens, "")},
		{Term: "Steps", Text: number(l.MaxSteps, "")},
		{Term: "Time", Text: number(l.MaxWallSeconds, " s")},
		{Term: "Answer of a model", Text: number(a.Definition.MaxTokens, " tokens")},
	}
}
