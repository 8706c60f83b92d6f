package permissions

import (
	"context"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

const (
	pageSize = 50
	// maxChoices bounds how many agents and projects a form offers.
	maxChoices = 200
)

// Handler serves the pages about permissions.
type Handler struct {
	DB       *postgres.DB
	Tenants  *tenants.Service
	Agents   *agents.Service
	Policies *policy.Service
	Sessions *scheduler.Service
	// Tools are the names of the tools that there are.
	Tools []string
	// Models lists the models that agents can be given now.
	Models func(ctx context.Context) []string
}

// Register adds the pages to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read, write := page.Need(tenants.PermissionsRead), page.Need(tenants.PermissionsWrite)
	g.GET("/permissions", h.matrix, read, page.Need(tenants.AgentsRead))
	g.GET("/permissions/explain", h.explain, read, page.Need(tenants.AgentsRead))
	g.GET("/permissions/rules", h.rules, read)
	g.GET("/permissions/rules/new", h.newRule, write)
	g.POST("/permissions/rules/new", h.createRule, write)
	g.GET("/permissions/rules/:rule", h.showRule, read)
	g.POST("/permissions/rules/:rule", h.updateRule, write)
	g.POST("/permissions/rules/:rule/delete", h.deleteRule, write)
	g.GET("/permissions/presets", h.presetForm, write)
	g.POST("/permissions/presets", h.applyPreset, write)
}

func (h *Handler) inTx(c echo.Context, fn func(ctx context.Context, tx pgx.Tx) error) error {
	ctx := c.Request().Context()
	return h.DB.InTx(ctx, page.PlaceOf(c).Org, func(tx pgx.Tx) error { return fn(ctx, tx) })
}

func tabs(p page.Place, current string) []ui.Segment {
	return []ui.Segment{
		{Label: "Matrix", Href: p.Path("permissions"), Current: current == "matrix"},
		{Label: "Rules", Href: p.Path("permissions", "rules"), Current: current == "rules"},
		{Label: "Explain", Href: p.Path("permissions", "explain"), Current: current == "explain"},
	}
}

func crumbs(p page.Place, more ...page.Crumb) []page.Crumb {
	return append([]page.Crumb{{Label: "Permissions", Href: p.Path("permissions")}}, more...)
}

// cell is one agent and one tool.
type cell struct {
	Tool, Href string
	// Named is false for a tool that the agent's definition does not have.
	Named  bool
	Status ui.Status
	Label  string
}

type matrixRow struct {
	Name, Href, Ambit string
	Cells             []cell
}

type matrixView struct {
	Frame    page.Frame
	Tabs     []ui.Segment
	Tools    []string
	Rows     []matrixRow
	Rules    int
	NewRule  string
	Presets  string
	NewAgent string
	CanWrite bool
	Pager    ui.PagerProps
}

// matrix shows what the rules make of each tool of each agent.
func (h *Handler) matrix(c echo.Context) error {
	p := page.PlaceOf(c)
	v := matrixView{
		Tabs: tabs(p, "matrix"), Tools: h.Tools, NewRule: p.Path("permissions", "rules", "new"), Presets: p.Path("permissions", "presets"),
		CanWrite: p.Can(tenants.PermissionsWrite),
	}
	if p.Can(tenants.AgentsWrite) {
		v.NewAgent = p.Path("agents", "new")
	}
	after, _ := id.Parse[id.Agent](c.QueryParam("after"))
	err := h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
		found, err := h.Agents.List(ctx, tx, p.Org, agents.ListFilter{Project: p.Project, After: after, Limit: pageSize + 1})
		if err != nil {
			return err
		}
		if len(found) > pageSize {
			found = found[:pageSize]
			v.Pager.Next = p.Path("permissions") + "?after=" + string(found[pageSize-1].ID)
		}
		set, err := h.Policies.Cache().Now(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		v.Rules = set.Len()
		for _, a := range found {
			v.Rows = append(v.Rows, h.row(p, set, a))
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "agents"
	if after != "" {
		v.Pager.First = p.Path("permissions")
	}
	v.Frame = page.NewFrame(c, "permissions", "Permissions", page.Crumb{Label: "Permissions"})
	return page.Render(c, 200, Matrix(v))
}

func (h *Handler) row(p page.Place, set *policy.Set, a agents.Agent) matrixRow {
	r := matrixRow{Name: a.Name, Href: p.Path("agents", string(a.ID)), Ambit: p.Path("agents", string(a.ID), "ambit")}
	for _, tool := range h.Tools {
		one := cell{Tool: tool, Href: explainPath(p, query{Agent: string(a.ID), Kind: policy.ToolCall, Name: tool})}
		outlook := set.Outlook(requestOf(a, policy.ToolCall, tool))
		if one.Named = outlook.Rule != policy.ByTools; one.Named {
			one.Status = ui.Verdict(string(outlook.Verdict))
			one.Label = a.Name + ", " + tool + ": " + one.Status.Word
		}
		r.Cells = append(r.Cells, one)
	}
	return r
}

// requestOf is an effect of an agent in its newest version.
func requestOf(a agents.Agent, kind, name string) policy.Request {
	return policy.Request{Agent: a.ID, Project: a.Project, Model: a.Definition.Model, Tools: a.Definition.Tools, Kind: kind, Name: name}
}

// names are what rules and decisions are about, for people.
type names struct {
	agents   map[string]string
	projects map[string]string
	// subjects are offered as what a rule is about.
	subjects []ui.Option
	// offered are the agents that can be asked about.
	offered []ui.Option
}

func (h *Handler) names(ctx context.Context, tx pgx.Tx, p page.Place) (names, error) {
	out := names{agents: map[string]string{}, projects: map[string]string{}, subjects: []ui.Option{{Value: policy.Any, Label: "All agents"}}}
	list, err := h.Agents.List(ctx, tx, p.Org, agents.ListFilter{Limit: maxChoices})
	if err != nil {
		return out, err
	}
	projects, err := h.Tenants.ListProjects(ctx, p.Org, tenants.ListProjects{OldestFirst: true, Limit: maxChoices})
	if err != nil {
		return out, err
	}
	tagged, err := h.Policies.ListTags(ctx, tx, p.Org, "", maxChoices)
	if err != nil {
		return out, err
	}
	for _, a := range list {
		out.agents[string(a.ID)] = a.Name
		out.subjects = append(out.subjects, ui.Option{Value: string(a.ID), Label: a.Name, Group: "One agent"})
		if a.Project == p.Project {
			out.offered = append(out.offered, ui.Option{Value: string(a.ID), Label: a.Name})
		}
	}
	seen := map[string]bool{}
	for _, t := range tagged {
		for _, tag := range t.Tags {
			if !seen[tag] {
				seen[tag] = true
				out.subjects = append(out.subjects, ui.Option{Value: policy.TagPrefix + tag, Label: tag, Group: "The agents with a tag"})
			}
		}
	}
	for _, one := range projects {
		out.projects[string(one.ID)] = one.Name
		out.subjects = append(out.subjects, ui.Option{Value: string(one.ID), Label: one.Name, Group: "The agents of a project"})
	}
	return out, nil
}

// options offers the subjects, with one more when it is of something that is archived or too far down the list.
func (n names) options(current string) []ui.Option {
	for _, o := range n.subjects {
		if o.Value == current || current == "" {
			return n.subjects
		}
	}
	return append([]ui.Option{{Value: current, Label: current}}, n.subjects...)
}

// who says what a rule's subject is.
func (n names) who(subject string) string {
	if subject == policy.Any {
		return "All agents"
	}
	if name := n.agents[subject]; name != "" {
		return name
	}
	if name := n.projects[subject]; name != "" {
		return "Agents of " + name
	}
	if len(subject) > len(policy.TagPrefix) && subject[:len(policy.TagPrefix)] == policy.TagPrefix {
		return "Agents tagged " + subject[len(policy.TagPrefix):]
	}
	return subject
}

// named writes a sentence that names agents and projects by their ids with their names instead.
func (n names) named(text string) string {
	for _, known := range []map[string]string{n.agents, n.projects} {
		for one, name := range known {
			if name != "" {
				text = strings.ReplaceAll(text, one, name)
			}
		}
	}
	return text
}

// parseRule is the rule that the address names.
func parseRule(c echo.Context) (id.Permission, error) {
	rule, err := id.Parse[id.Permission](c.Param("rule"))
	if err != nil {
		return "", fault.NotFound()
	}
	return rule, nil
}
