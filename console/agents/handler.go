package agents

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"

	domain "ambit.dev/ambit/agents"
)

const (
	pageSize = 50
	// maxVersions is how many versions a page lists and a picker offers.
	maxVersions = 100
)

// Handler serves the pages about agents.
type Handler struct {
	DB       *postgres.DB
	Agents   *domain.Service
	Policies *policy.Service
	// Models and Tools list what an agent can be given now.
	Models func(ctx context.Context) []Model
	Tools  []Tool
}

// Register adds the pages to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read, write := page.Need(tenants.AgentsRead), page.Need(tenants.AgentsWrite)
	g.GET("/agents", h.list, read)
	g.GET("/agents/new", h.newForm, write)
	g.POST("/agents/new", h.create, write)
	g.GET("/agents/:agent", h.show, read)
	g.GET("/agents/:agent/edit", h.editForm, write)
	g.POST("/agents/:agent/edit", h.update, write)
	g.GET("/agents/:agent/compare", h.compare, read)
	g.POST("/agents/:agent/live", h.setLive, write)
	g.POST("/agents/:agent/archive", h.archive, write)
	g.POST("/agents/:agent/tags", h.setTags, page.Need(tenants.PermissionsRead), page.Need(tenants.PermissionsWrite))
}

// whole is an agent with what its pages show of it.
type whole struct {
	agent    domain.Agent
	versions []domain.Version
	aliases  []domain.Alias
	// tags are those that rules can be about; none for who may not see rules.
	tags []string
}

func (h *Handler) load(c echo.Context) (whole, error) {
	var w whole
	aid, err := id.Parse[id.Agent](c.Param("agent"))
	if err != nil {
		return w, fault.NotFound()
	}
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		if w.agent, err = h.Agents.Get(ctx, tx, p.Org, aid); err != nil {
			return err
		}
		if w.agent.Project != p.Project {
			return fault.NotFound()
		}
		if w.versions, err = h.Agents.ListVersions(ctx, tx, p.Org, aid, 0, maxVersions); err != nil {
			return err
		}
		if w.aliases, err = h.Agents.ListAliases(ctx, tx, p.Org, aid); err != nil || !p.Can(tenants.PermissionsRead) {
			return err
		}
		tagged, err := h.Policies.TagsOf(ctx, tx, p.Org, aid)
		w.tags = tagged.Tags
		return err
	})
	return w, err
}

func (w whole) version(n int) (domain.Version, bool) {
	for _, v := range w.versions {
		if v.Version == n {
			return v, true
		}
	}
	return domain.Version{}, false
}

func (h *Handler) list(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	v := listView{Query: c.QueryParam("q"), Archived: c.QueryParam("archived") != "", Action: p.Path("agents"), New: p.Path("agents", "new"), CanWrite: p.Can(tenants.AgentsWrite)}
	v.Filtered = v.Query != "" || v.Archived
	filter := domain.ListFilter{Project: p.Project, NameContains: v.Query, IncludeArchived: v.Archived, Limit: pageSize + 1}
	if after, err := id.Parse[id.Agent](c.QueryParam("after")); err == nil {
		filter.After = after
	}
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		found, err := h.Agents.List(ctx, tx, p.Org, filter)
		if err != nil {
			return err
		}
		if len(found) > pageSize {
			found = found[:pageSize]
			v.Pager.Next = v.Action + "?" + url.Values{"q": {v.Query}, "after": {string(found[pageSize-1].ID)}}.Encode()
		}
		ids := make([]id.Agent, len(found))
		for i, a := range found {
			ids[i] = a.ID
		}
		aliases, err := h.Agents.AliasesOf(ctx, tx, p.Org, ids)
		if err != nil {
			return err
		}
		week, err := journal.ActivityOf(ctx, tx, p.Org, ids, time.Now().Add(-7*24*time.Hour))
		if err != nil {
			return err
		}
		for _, a := range found {
			v.Rows = append(v.Rows, newRow(p, a, aliases[a.ID], week[a.ID]))
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "agents"
	if filter.After != "" {
		v.Pager.First = v.Action
	}
	v.Frame = page.NewFrame(c, "agents", "Agents", page.Crumb{Label: "Agents"})
	return page.Render(c, 200, List(v))
}

func newRow(p page.Place, a domain.Agent, aliases []domain.Alias, week journal.Activity) row {
	live, _ := liveOf(aliases)
	return row{
		Week: week, Sessions: p.Path("sessions") + "?agent=" + string(a.ID) + "&since=7d",
		Href: p.Path("agents", string(a.ID)), Run: p.Path("playground") + "?agent=" + string(a.ID), Name: a.Name, Description: a.Description,
		Version: a.Version, Live: live, Model: a.Definition.Model, Updated: a.UpdatedAt, Archived: a.ArchivedAt != nil,
	}
}

func (h *Handler) newForm(c echo.Context) error {
	f := form{MaxCost: "0.50", IfRunning: "queue"}
	if models := h.Models(c.Request().Context()); len(models) > 0 {
		f.Model = models[0].ID
	}
	return h.editor(c, 200, editView{New: true, Form: f})
}

// editor draws the form; its frame and choices are the same whether it is opened or comes back.
func (h *Handler) editor(c echo.Context, status int, v editView) error {
	p := page.PlaceOf(c)
	agents := page.Crumb{Label: "Agents", Href: p.Path("agents")}
	v.Models, v.Tools = modelOptions(h.Models(c.Request().Context()), v.Form.Model), h.Tools
	if v.New {
		v.Action, v.Back = p.Path("agents", "new"), p.Path("agents")
		v.Frame = page.NewFrame(c, "agents", "New agent", agents, page.Crumb{Label: "New agent"})
	} else {
		v.Back = p.Path("agents", c.Param("agent"))
		v.Action = v.Back + "/edit"
		v.Frame = page.NewFrame(c, "agents", "Edit "+v.Form.Name, agents, page.Crumb{Label: v.Form.Name, Href: v.Back}, page.Crumb{Label: "Edit"})
	}
	return page.Render(c, status, Edit(v))
}

func (h *Handler) create(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	f, err := readForm(c)
	if err != nil {
		return err
	}
	d, problems := f.definition()
	if len(problems) > 0 {
		return h.editor(c, 422, editView{New: true, Form: f, Problems: problems})
	}
	var a domain.Agent
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		a, err = h.Agents.Create(ctx, tx, p.Org, domain.CreateInput{Project: p.Project, Name: f.Name, Description: f.Description, Definition: d})
		return err
	})
	if err != nil {
		return h.refused(c, err, editView{New: true, Form: f})
	}
	page.Flash(c, a.Name+" is made, as version 1.")
	return page.Redirect(c, p.Path("agents", string(a.ID)))
}

func (h *Handler) refused(c echo.Context, err error, v editView) error {
	problems, status, err := page.FormProblems(err, fieldNames)
	if err != nil {
		return err
	}
	for i, one := range problems { // each of them has a place of its own in the definition, and all have one input
		for prefix, input := range map[string]string{"tools": "tools", "network-allowed_hosts": "hosts", "network-identity_hosts": "identity_hosts"} {
			if strings.HasPrefix(one.Field, prefix) {
				problems[i].Field = input
			}
		}
	}
	v.Problems = problems
	return h.editor(c, status, v)
}

func (h *Handler) editForm(c echo.Context) error {
	w, err := h.load(c)
	if err != nil {
		return err
	}
	if w.agent.ArchivedAt != nil {
		return fault.New(fault.Conflict, "archived", "This agent is archived; it can be read but not changed.")
	}
	from := w.agent.Definition
	if n, err := strconv.Atoi(c.QueryParam("from")); err == nil {
		if v, ok := w.version(n); ok { // going back to an earlier version is a new version that says the same
			from = v.Definition
		}
	}
	return h.editor(c, 200, editView{Form: formOf(w.agent.Name, w.agent.Description, from, w.agent.Version)})
}

func (h *Handler) update(c echo.Context) error {
	w, err := h.load(c)
	if err != nil {
		return err
	}
	f, err := readForm(c)
	if err != nil {
		return err
	}
	d, problems := f.definition()
	if len(problems) > 0 {
		return h.editor(c, 422, editView{Form: f, Problems: problems})
	}
	if c.FormValue("do") == "review" {
		if checked, err := h.Agents.Catalogue().Check("", d); err != nil {
			return h.refused(c, err, editView{Form: f})
		} else {
			d = checked
		}
		changes := compare(w.agent.Definition, d)
		return h.editor(c, 200, editView{Form: f, Review: changes, Before: w.agent.Definition, After: d, Changed: anyChange(changes, w.agent.Definition, d)})
	}
	ifVersion, _ := strconv.Atoi(f.Version)
	return h.publish(c, w, f, d, ifVersion)
}

func (h *Handler) publish(c echo.Context, w whole, f form, d journal.Definition, ifVersion int) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	var a domain.Agent
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) (err error) {
		a, err = h.Agents.Update(ctx, tx, p.Org, w.agent.ID, domain.UpdateInput{Name: &f.Name, Description: &f.Description, Definition: &d, IfVersion: ifVersion})
		return err
	})
	if err != nil {
		return h.refused(c, err, editView{Form: f})
	}
	if a.Version > w.agent.Version {
		page.Flash(c, a.Name+" is published as version "+strconv.Itoa(a.Version)+".")
	} else {
		page.Flash(c, "Saved. The definition says the same as version "+strconv.Itoa(a.Version)+", so there is no new one.")
	}
	return page.Redirect(c, p.Path("agents", string(a.ID)))
}

func (h *Handler) show(c echo.Context) error {
	w, err := h.load(c)
	if err != nil {
		return err
	}
	p := page.PlaceOf(c)
	v, err := newShow(p, w, c.QueryParam("version"))
	if err != nil {
		return err
	}
	return h.drawShow(c, 200, w, v)
}

func (h *Handler) drawShow(c echo.Context, status int, w whole, v showView) error {
	v.Frame = page.NewFrame(c, "agents", w.agent.Name, page.Crumb{Label: "Agents", Href: page.PlaceOf(c).Path("agents")}, page.Crumb{Label: w.agent.Name})
	return page.Render(c, status, Show(v))
}

func newShow(p page.Place, w whole, wanted string) (showView, error) {
	base := p.Path("agents", string(w.agent.ID))
	v := showView{
		Base: base, Agent: w.agent, Shown: w.agent.Version, Definition: w.agent.Definition, Latest: true, Aliases: w.aliases,
		Sessions: p.Path("sessions") + "?agent=" + string(w.agent.ID), Playground: p.Path("playground") + "?agent=" + string(w.agent.ID),
		Edit: base + "/edit", Archived: w.agent.ArchivedAt != nil, CanWrite: p.Can(tenants.AgentsWrite) && w.agent.ArchivedAt == nil,
	}
	if p.Can(tenants.PermissionsRead) {
		v.Ambit = base + "/ambit"
		v.Tags = newTags(p, w)
	}
	if p.Can(tenants.SessionsWrite) {
		v.Stop = p.Path("stop", "agents", string(w.agent.ID))
	}
	v.Live, v.LiveRev = liveOf(w.aliases)
	if n, err := strconv.Atoi(wanted); err == nil && n != w.agent.Version {
		one, ok := w.version(n)
		if !ok {
			return v, fault.NotFound()
		}
		v.Shown, v.Definition, v.Latest = n, one.Definition, false
		v.Playground += "&version=" + wanted
		v.Edit += "?from=" + wanted
		v.CompareTo = base + "/compare?from=" + wanted + "&to=" + strconv.Itoa(w.agent.Version)
	}
	for _, one := range w.versions {
		r := versionRow{Version: one.Version, At: one.CreatedAt, By: one.CreatedBy, Model: one.Definition.Model, Latest: one.Version == w.agent.Version, Live: one.Version == v.Live}
		for _, a := range w.aliases {
			if a.Version == one.Version && a.Name != liveAlias {
				r.Aliases = append(r.Aliases, a.Name)
			}
		}
		if one.Version > 1 {
			r.Compare = base + "/compare?from=" + strconv.Itoa(one.Version-1) + "&to=" + strconv.Itoa(one.Version)
		}
		v.Versions = append(v.Versions, r)
	}
	return v, nil
}

func (h *Handler) compare(c echo.Context) error {
	w, err := h.load(c)
	if err != nil {
		return err
	}
	p := page.PlaceOf(c)
	to, err := strconv.Atoi(c.QueryParam("to"))
	if err != nil {
		to = w.agent.Version
	}
	from, err := strconv.Atoi(c.QueryParam("from"))
	if err != nil {
		from = max(1, to-1)
	}
	a, okA := w.version(from)
	b, okB := w.version(to)
	if !okA || !okB {
		return fault.NotFound()
	}
	v := compareView{
		Base: p.Path("agents", string(w.agent.ID)), From: from, To: to, Options: VersionOptions(w.versions, w.aliases, w.agent.Version),
		Changes: compare(a.Definition, b.Definition), Before: a.Definition, After: b.Definition,
	}
	v.Changed = anyChange(v.Changes, a.Definition, b.Definition)
	v.Frame = page.NewFrame(c, "agents", "Compare "+w.agent.Name,
		page.Crumb{Label: "Agents", Href: p.Path("agents")}, page.Crumb{Label: w.agent.Name, Href: v.Base}, page.Crumb{Label: "Compare"})
	return page.Render(c, 200, Compare(v))
}

// setLive moves the alias that marks the version in use.
func (h *Handler) setLive(c echo.Context) error {
	w, err := h.load(c)
	if err != nil {
		return err
	}
	version, err := strconv.Atoi(c.FormValue("version"))
	if err != nil {
		return fault.InvalidField("/version", "required", "Choose a version.")
	}
	revision, err := strconv.ParseInt(c.FormValue("revision"), 10, 64)
	if err != nil {
		return fault.InvalidField("/revision", "required", "Open the page again and repeat your change.")
	}
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		_, err := h.Agents.PutAlias(ctx, tx, p.Org, w.agent.ID, liveAlias, version, revision)
		return err
	})
	if err != nil {
		return err
	}
	page.Flash(c, "Version "+strconv.Itoa(version)+" is live.")
	return page.Redirect(c, p.Path("agents", string(w.agent.ID)))
}

func (h *Handler) archive(c echo.Context) error {
	w, err := h.load(c)
	if err != nil {
		return err
	}
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		_, err := h.Agents.Archive(ctx, tx, p.Org, w.agent.ID)
		return err
	})
	if err != nil {
		return err
	}
	page.Flash(c, w.agent.Name+" is archived.")
	return page.Redirect(c, p.Path("agents"))
}
