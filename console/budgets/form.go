package budgets

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
)

// oneSession is the form's choice of a session, which is named by its id besides.
const oneSession = "session"

// form is what was typed, so that a refused form comes back unchanged.
type form struct {
	Name, Scope, Session, Limit, Period, Action, Alerts, Version string
}

type formView struct {
	Frame    page.Frame
	Base     string
	Action   string
	Title    string
	Form     form
	Problems ui.Problems
	Scopes   []ui.Option
	// ID, Name, Covers and Period are those of a budget that is changed: what it covers and how often it begins anew stay.
	ID, Name, Covers, Period string
}

var periodOptions = []ui.Option{
	{Value: "hour", Label: "Each hour"}, {Value: "day", Label: "Each day"}, {Value: "week", Label: "Each week, from Monday"}, {Value: "month", Label: "Each month"}, {Value: "total", Label: "Never: it is a total"},
}

func readForm(c echo.Context) form {
	get := func(name string) string { return strings.TrimSpace(c.FormValue(name)) }
	return form{
		Name: get("name"), Scope: get("scope"), Session: get("session"), Limit: strings.TrimPrefix(get("limit"), "$"), Period: get("period"), Action: get("action"),
		Alerts: get("alerts"), Version: get("version"),
	}
}

func formOf(b billing.Budget) form {
	f := form{Name: b.Name, Limit: b.Limit.Decimal(), Action: b.Action, Version: strconv.FormatInt(b.Version, 10)}
	alerts := make([]string, len(b.Alerts))
	for i, a := range b.Alerts {
		alerts[i] = strconv.Itoa(int(a))
	}
	f.Alerts = strings.Join(alerts, ", ")
	return f
}

// fields maps the pointers of billing's faults to the inputs.
func (f form) fields() map[string]string {
	m := map[string]string{"/scope/type": "scope", "/scope/id": "scope"}
	if f.Scope == oneSession {
		m["/scope/id"] = "session"
	}
	for i := range 20 {
		m[fmt.Sprintf("/alerts/%d", i)] = "alerts"
	}
	return m
}

// budget reads the typed texts. What it refuses is only what is no number and no money; the rest is billing's to judge.
func (f form) budget(p page.Place) (billing.NewBudget, ui.Problems) {
	in := billing.NewBudget{Name: f.Name, Period: f.Period, Action: f.Action}
	var problems ui.Problems
	switch {
	case f.Scope == billing.ScopeOrganization:
		in.Scope = billing.Scope{Type: billing.ScopeOrganization, ID: string(p.Org)}
	case f.Scope == oneSession:
		in.Scope = billing.Scope{Type: billing.ScopeSession, ID: f.Session}
		if f.Session == "" {
			problems = append(problems, ui.Problem{Field: "session", Message: "Session: paste its id, which begins with ses_."})
		}
	default:
		in.Scope = billing.Scope{Type: scopeOfPrefix[id.PrefixOf(f.Scope)], ID: f.Scope}
	}
	limit, err := page.Dollars(f.Limit)
	if err != nil {
		problems = append(problems, ui.Problem{Field: "limit", Message: "Limit: write dollars, such as 25 or 25.00, with nine decimals at most."})
	}
	in.Limit = limit
	for one := range strings.FieldsFuncSeq(f.Alerts, func(r rune) bool { return r == ',' || r == ' ' || r == ';' }) {
		n, err := strconv.ParseInt(strings.TrimSuffix(one, "%"), 10, 32)
		if err != nil {
			problems = append(problems, ui.Problem{Field: "alerts", Message: "Alerts: write whole percentages, such as 50, 80, 100."})
			break
		}
		in.Alerts = append(in.Alerts, int32(n))
	}
	return in, problems
}

// scopeOptions are what a budget can be made to cover; what the viewer may not see is not offered.
func (h *Handler) scopeOptions(ctx context.Context, tx pgx.Tx, p page.Place) ([]ui.Option, error) {
	out := []ui.Option{{Value: billing.ScopeOrganization, Label: "The whole organisation"}, {Value: oneSession, Label: "One session, by its id"}}
	if p.Can(tenants.ProjectsRead) {
		found, err := h.Tenants.ListProjects(ctx, p.Org, tenants.ListProjects{OldestFirst: true, Limit: maxChoices})
		if err != nil {
			return nil, err
		}
		for _, one := range found {
			out = append(out, ui.Option{Value: string(one.ID), Label: one.Name, Group: "Projects"})
		}
	}
	if p.Can(tenants.AgentsRead) {
		found, err := h.Agents.List(ctx, tx, p.Org, agents.ListFilter{Limit: maxChoices})
		if err != nil {
			return nil, err
		}
		for _, one := range found {
			out = append(out, ui.Option{Value: string(one.ID), Label: one.Name, Group: "Agents"})
		}
	}
	if p.Can(tenants.KeysRead) {
		found, err := h.Tenants.ListKeys(ctx, p.Org, tenants.ListKeys{Statuses: []tenants.KeyStatus{tenants.KeyActive}, Limit: maxChoices})
		if err != nil {
			return nil, err
		}
		for _, one := range found {
			out = append(out, ui.Option{Value: string(one.ID), Label: one.Name + " (" + one.Prefix + "…)", Group: "API keys"})
		}
	}
	if p.Can(tenants.MembersRead) {
		found, err := h.Tenants.ListMembersTx(ctx, tx, p.Org, "", maxChoices)
		if err != nil {
			return nil, err
		}
		for _, one := range found {
			out = append(out, ui.Option{Value: string(one.UserID), Label: one.Email, Group: "Members"})
		}
	}
	return out, nil
}
