package permissions

import (
	"context"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
)

type ruleRow struct {
	ID, Who, What, Why string
	Preset             string
	Effect             ui.Status
	Href               string
	Changed            time.Time
}

type rulesView struct {
	Frame         page.Frame
	Tabs          []ui.Segment
	Base          string
	New, Presets  string
	Rows          []ruleRow
	Subject       string
	Effect        string
	Subjects      []ui.Option
	Filtered      bool
	CanWrite      bool
	Pager         ui.PagerProps
	EffectOptions []ui.Option
}

type ruleView struct {
	Frame        page.Frame
	Action, Back string
	Delete       string
	New          bool
	CanWrite     bool
	Summary      string
	Form         form
	Subjects     []ui.Option
	Tools        []string
	Models       []string
	Problems     ui.Problems
	Simulation   *simulation
	// stored is whom the rule is about as it is kept, which the summary names by its id.
	stored string
}

func (h *Handler) rules(c echo.Context) error {
	p := page.PlaceOf(c)
	v := rulesView{
		Tabs: tabs(p, "rules"), Base: p.Path("permissions", "rules"), New: p.Path("permissions", "rules", "new"), Presets: p.Path("permissions", "presets"),
		Subject: c.QueryParam("subject"), Effect: c.QueryParam("effect"), CanWrite: p.Can(tenants.PermissionsWrite),
		EffectOptions: []ui.Option{{Value: "", Label: "Any effect"}, {Value: "deny", Label: "Denies"}, {Value: "allow", Label: "Allows"}},
	}
	v.Filtered = v.Subject+v.Effect != ""
	after, _ := id.Parse[id.Permission](c.QueryParam("after"))
	err := h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
		found, err := h.Policies.List(ctx, tx, p.Org, policy.ListFilter{Subject: v.Subject, Effect: policy.Effect(v.Effect), After: after, Limit: pageSize + 1})
		if err != nil {
			return err
		}
		if len(found) > pageSize {
			found = found[:pageSize]
			v.Pager.Next = v.Base + "?" + url.Values{"subject": {v.Subject}, "effect": {v.Effect}, "after": {string(found[pageSize-1].ID)}}.Encode()
		}
		known, err := h.names(ctx, tx, p)
		if err != nil {
			return err
		}
		v.Subjects = append([]ui.Option{{Value: "", Label: "Whoever it is about"}}, known.options(v.Subject)...)
		for _, r := range found {
			v.Rows = append(v.Rows, ruleRow{
				ID: string(r.ID), Who: known.who(r.Subject), What: r.What(), Why: r.Description, Preset: r.Preset, Effect: ui.Effect(string(r.Effect)),
				Href: p.Path("permissions", "rules", string(r.ID)), Changed: r.UpdatedAt,
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "rules"
	if after != "" {
		v.Pager.First = v.Base
	}
	v.Frame = page.NewFrame(c, "permissions", "Rules", crumbs(p, page.Crumb{Label: "Rules"})...)
	return page.Render(c, 200, Rules(v))
}

func (h *Handler) newRule(c echo.Context) error {
	f := form{Subject: c.QueryParam("subject"), Effect: string(policy.Deny), Kind: policy.ToolCall, Name: c.QueryParam("name")}
	if f.Subject == "" {
		f.Subject = policy.Any
	}
	return h.editor(c, 200, ruleView{New: true, Form: f})
}

// editor draws the form; its frame and choices are the same whether it is opened or comes back.
func (h *Handler) editor(c echo.Context, status int, v ruleView) error {
	p := page.PlaceOf(c)
	err := h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
		known, err := h.names(ctx, tx, p)
		v.Subjects = known.options(v.Form.Subject)
		if name := known.agents[v.stored]; name != "" {
			v.Summary = strings.Replace(v.Summary, v.stored, name, 1)
		}
		if name := known.projects[v.stored]; name != "" {
			v.Summary = strings.Replace(v.Summary, v.stored, name, 1)
		}
		return err
	})
	if err != nil {
		return err
	}
	v.Back, v.Tools, v.Models = p.Path("permissions", "rules"), h.Tools, h.Models(c.Request().Context())
	v.CanWrite = p.Can(tenants.PermissionsWrite)
	title := "New rule"
	if v.New {
		v.Action = p.Path("permissions", "rules", "new")
	} else {
		title = "Rule"
		v.Action = p.Path("permissions", "rules", c.Param("rule"))
		v.Delete = v.Action + "/delete"
	}
	v.Frame = page.NewFrame(c, "permissions", title, crumbs(p, page.Crumb{Label: "Rules", Href: v.Back}, page.Crumb{Label: title})...)
	return page.Render(c, status, Rule(v))
}

func posted(c echo.Context) (form, error) {
	values, err := c.FormParams()
	if err != nil {
		return form{}, fault.New(fault.Invalid, "invalid_request", "The form could not be read. Go back and try again.").Because(err)
	}
	return formFrom(values), nil
}

// fail shows the form again with what the domain refused.
func (h *Handler) fail(c echo.Context, err error, v ruleView) error {
	problems, status, err := refused(err)
	if err != nil {
		return err
	}
	v.Problems = problems
	return h.editor(c, status, v)
}

func (h *Handler) createRule(c echo.Context) error {
	f, err := posted(c)
	if err != nil {
		return err
	}
	v := ruleView{New: true, Form: f}
	rule, problems := f.rule()
	if v.Problems = problems; len(problems) > 0 {
		return h.editor(c, 422, v)
	}
	if c.FormValue("do") == "try" {
		return h.try(c, policy.Proposal{Rules: []policy.Rule{rule}}, "With this rule", v)
	}
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
		_, err := h.Policies.Create(ctx, tx, page.PlaceOf(c).Org, rule)
		return err
	})
	if err != nil {
		return h.fail(c, err, v)
	}
	page.Flash(c, "The rule binds from now on.")
	return page.Redirect(c, page.PlaceOf(c).Path("permissions", "rules"))
}

// try shows the form with what the proposal would have changed.
func (h *Handler) try(c echo.Context, proposal policy.Proposal, title string, v ruleView) error {
	found, err := h.simulate(c, proposal, title)
	if err != nil {
		return h.fail(c, err, v)
	}
	v.Simulation = found
	return h.editor(c, 200, v)
}

func (h *Handler) showRule(c echo.Context) error {
	rule, err := parseRule(c)
	if err != nil {
		return err
	}
	var found policy.Stored
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
		found, err = h.Policies.Get(ctx, tx, page.PlaceOf(c).Org, rule)
		return err
	})
	if err != nil {
		return err
	}
	return h.editor(c, 200, ruleView{Form: formOf(found), Summary: found.Summary(), stored: found.Subject})
}

func (h *Handler) updateRule(c echo.Context) error {
	id, err := parseRule(c)
	if err != nil {
		return err
	}
	f, err := posted(c)
	if err != nil {
		return err
	}
	v, org := ruleView{Form: f}, page.PlaceOf(c).Org
	// Before anything that is said of the form: a rule that is not there has none.
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
		found, err := h.Policies.Get(ctx, tx, org, id)
		v.Summary, v.stored = found.Summary(), found.Subject
		return err
	})
	if err != nil {
		return err
	}
	if c.FormValue("do") == "without" {
		return h.try(c, policy.Proposal{Without: permissionIDs(id)}, "Without this rule", v)
	}
	rule, problems := f.rule()
	if v.Problems = problems; len(problems) > 0 {
		return h.editor(c, 422, v)
	}
	if c.FormValue("do") == "try" {
		return h.try(c, policy.Proposal{Rules: []policy.Rule{rule}, Without: permissionIDs(id)}, "With the rule as it stands in the form", v)
	}
	var ifVersion *int64
	if n, err := strconv.ParseInt(f.Version, 10, 64); err == nil {
		ifVersion = &n
	}
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
		_, err := h.Policies.Update(ctx, tx, org, id, ifVersion, func(policy.Rule) policy.Rule { return rule })
		return err
	})
	if err != nil {
		return h.fail(c, err, v)
	}
	page.Flash(c, "The rule is changed, and binds so from now on.")
	return page.Redirect(c, page.PlaceOf(c).Path("permissions", "rules"))
}

func permissionIDs(list ...id.Permission) []id.Permission { return list }

func (h *Handler) deleteRule(c echo.Context) error {
	rule, err := parseRule(c)
	if err != nil {
		return err
	}
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx) error {
		return h.Policies.Delete(ctx, tx, page.PlaceOf(c).Org, rule)
	})
	if err != nil {
		return err
	}
	page.Flash(c, "The rule is deleted, and binds nobody from now on.")
	return page.Redirect(c, page.PlaceOf(c).Path("permissions", "rules"))
}
