package playground

import (
	"context"
	"net/url"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	consoleagents "ambit.dev/ambit/console/agents"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/sessions"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

// sampleAgent stands for an agent that is defined on the spot, so that there is something to run before any agent is made.
const sampleAgent = "sample"

const (
	scripted       = "ambit/scripted"
	defaultCeiling = "0.05"
)

// Handler serves the playground.
type Handler struct {
	DB       *postgres.DB
	Agents   *agents.Service
	Sessions *scheduler.Service
	Shown    *sessions.Handler
	Tools    []consoleagents.Tool
	// APIURL is where clients reach the API, without a slash at the end.
	APIURL string
}

// Register adds the page to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	g.GET("/playground", h.show, page.Need(tenants.SessionsRead))
	g.POST("/playground", h.run, page.Need(tenants.SessionsWrite))
	g.POST("/playground/curl", h.asCurl, page.Need(tenants.SessionsRead))
	g.POST("/playground/estimate", h.estimate, page.Need(tenants.SessionsWrite))
}

func readForm(values url.Values) form {
	return form{
		Agent: values.Get("agent"), Version: values.Get("version"), Input: strings.ReplaceAll(values.Get("input"), "\r\n", "\n"), Ceiling: strings.TrimPrefix(strings.TrimSpace(values.Get("ceiling")), "$"),
	}
}

func (h *Handler) show(c echo.Context) error {
	f := readForm(c.QueryParams())
	v := view{Form: f}
	if sid, err := id.Parse[id.Session](c.QueryParam("session")); err == nil {
		shown, err := h.Shown.Embed(c, sid)
		if err != nil {
			return err
		}
		v.Embed, v.HasSession = shown, true
		if v.Form.Input == "" {
			v.Form.Input = shown.Input
		}
		if v.Form.Agent == "" {
			v.Form.Agent, v.Form.Version = string(shown.Session.Agent.ID), strconv.Itoa(shown.Session.Agent.Version)
		}
		if m := shown.Session.Limits.MaxCost; m != nil && v.Form.Ceiling == "" {
			v.Form.Ceiling = m.Decimal()
		}
	}
	return h.draw(c, 200, v)
}

// draw fills in the choices and draws the page.
func (h *Handler) draw(c echo.Context, status int, v view) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	if err := h.choices(ctx, p, &v); err != nil {
		return err
	}
	if v.Form.Ceiling == "" {
		v.Form.Ceiling = defaultCeiling
	}
	if v.Form.Input == "" && v.Model == scripted {
		v.Form.Input = sampleInput
	}
	v.Action, v.CanWrite = p.Path("playground"), p.Can(tenants.SessionsWrite)
	v.NewAgent = p.Path("agents", "new")
	v.Curl = curl(h.APIURL, v.Form, v.Definition)
	v.Frame = page.NewFrame(c, "playground", "Playground", page.Crumb{Label: "Playground"})
	v.Frame.Panes, v.Frame.Live = true, v.HasSession && v.Embed.Live()
	return page.Render(c, status, Page(v))
}

// choices lists agents and, of the chosen one, its versions.
func (h *Handler) choices(ctx context.Context, p page.Place, v *view) error {
	return h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		known, err := h.Agents.List(ctx, tx, p.Org, agents.ListFilter{Project: p.Project, Limit: 100})
		if err != nil {
			return err
		}
		var chosen *agents.Agent
		for i, a := range known {
			v.Agents = append(v.Agents, ui.Option{Value: string(a.ID), Label: a.Name, Group: "Agents"})
			if string(a.ID) == v.Form.Agent {
				chosen = &known[i]
			}
		}
		v.Agents = append(v.Agents, ui.Option{Value: sampleAgent, Label: "Sample agent, built-in model", Group: "To try things out"})
		if chosen == nil && v.Form.Agent != sampleAgent {
			if len(known) > 0 && v.Form.Agent == "" {
				chosen = &known[0]
			} else {
				v.Form.Agent = sampleAgent
			}
		}
		if chosen == nil {
			v.Form.Version, v.Definition = "", h.sample()
			v.Model = v.Definition.Model
			return nil
		}
		v.Form.Agent = string(chosen.ID)
		return h.versions(ctx, tx, p, v, *chosen)
	})
}

func (h *Handler) versions(ctx context.Context, tx pgx.Tx, p page.Place, v *view, chosen agents.Agent) error {
	versions, err := h.Agents.ListVersions(ctx, tx, p.Org, chosen.ID, 0, 100)
	if err != nil {
		return err
	}
	aliases, err := h.Agents.ListAliases(ctx, tx, p.Org, chosen.ID)
	if err != nil {
		return err
	}
	v.Versions = consoleagents.VersionOptions(versions, aliases, chosen.Version)
	v.Definition = chosen.Definition
	found := false
	for _, one := range versions {
		if strconv.Itoa(one.Version) == v.Form.Version {
			v.Definition, found = one.Definition, true
		}
	}
	if !found {
		v.Form.Version = strconv.Itoa(chosen.Version)
	}
	v.Model = v.Definition.Model
	return nil
}

func (h *Handler) sample() journal.Definition {
	d := journal.Definition{Model: scripted}
	for _, t := range h.Tools {
		d.Tools = append(d.Tools, t.Name)
	}
	return d
}

// run starts a session and comes back to the page that shows it.
func (h *Handler) run(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	values, err := c.FormParams()
	if err != nil {
		return echo.ErrBadRequest.WithInternal(err)
	}
	f := readForm(values)
	in, problems := h.invoke(p, f)
	if len(problems) > 0 {
		return h.draw(c, 422, view{Form: f, Problems: problems})
	}
	var out scheduler.Invoked
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		out, err = h.Sessions.Invoke(ctx, tx, p.Org, in)
		return err
	})
	if err != nil {
		refused, status, err := page.FormProblems(err, map[string]string{"/limits/max_cost": "ceiling", "/agent": "agent"})
		if err != nil {
			return err
		}
		for i := range refused {
			if strings.HasPrefix(refused[i].Field, "input") {
				refused[i].Field = "input"
			}
		}
		return h.draw(c, status, view{Form: f, Problems: refused})
	}
	q := url.Values{"session": {string(out.Session.ID)}}
	if f.Agent == sampleAgent {
		q.Set("agent", sampleAgent)
	}
	return page.Redirect(c, p.Path("playground")+"?"+q.Encode())
}

func (h *Handler) invoke(p page.Place, f form) (scheduler.InvokeInput, ui.Problems) {
	in := scheduler.InvokeInput{Project: p.Project, Input: journal.Text(f.Input), Title: titleFrom(f.Input)}
	var problems ui.Problems
	if f.Agent == sampleAgent || f.Agent == "" {
		d := h.sample()
		in.Inline = &d
	} else {
		aid, err := id.Parse[id.Agent](f.Agent)
		if err != nil {
			problems = append(problems, ui.Problem{Field: "agent", Message: "Choose an agent."})
		}
		version, err := strconv.Atoi(f.Version)
		if err != nil {
			version = 0 // the newest
		}
		in.Agent = &agents.Ref{Agent: aid, Version: version}
	}
	ceiling, err := page.Dollars(f.Ceiling)
	if err != nil || ceiling <= 0 {
		problems = append(problems, ui.Problem{Field: "ceiling", Message: "Price ceiling: write dollars, such as 0.05."})
	}
	in.Limits = &journal.Limits{MaxCost: &ceiling}
	return in, problems
}

// titleFrom names a session after the first line of its input that is words.
func titleFrom(input string) string {
	for line := range strings.SplitSeq(input, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "```") {
			continue
		}
		if r := []rune(line); len(r) > 80 {
			return string(r[:80]) + "…"
		}
		return line
	}
	return ""
}

// asCurl writes the request of the form as it is now.
func (h *Handler) asCurl(c echo.Context) error {
	values, err := c.FormParams()
	if err != nil {
		return echo.ErrBadRequest.WithInternal(err)
	}
	v := view{Form: readForm(values)}
	if err := h.choices(c.Request().Context(), page.PlaceOf(c), &v); err != nil {
		return err
	}
	return page.Render(c, 200, Curl(curl(h.APIURL, v.Form, v.Definition)))
}

// estimate says what the task of the form would cost, as it is now. It keeps nothing. What can't be priced gives no line: running it says why.
func (h *Handler) estimate(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	values, err := c.FormParams()
	if err != nil {
		return echo.ErrBadRequest.WithInternal(err)
	}
	in, problems := h.invoke(p, readForm(values))
	if len(problems) > 0 || strings.TrimSpace(values.Get("input")) == "" {
		return page.Render(c, 200, Estimate(nil))
	}
	var quote billing.Quote
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) (err error) {
		quote, err = h.Sessions.Estimate(ctx, tx, p.Org, in)
		return err
	})
	if err != nil {
		if _, _, err := page.FormProblems(err, nil); err != nil {
			return err
		}
		return page.Render(c, 200, Estimate(nil))
	}
	return page.Render(c, 200, Estimate(&quote))
}
