package mandates

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/a-h/templ"
	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// form is a grant as it is typed.
type form struct {
	Agent, Intent, Total, Every, Each, PerAction, Payees, From, Until, Depth, Sessions string
	Tools                                                                              []string
	AnyTool                                                                            bool
}

const moment = "2006-01-02T15:04"

func readForm(c echo.Context) form {
	values, err := c.FormParams()
	if err != nil {
		return form{}
	}
	return form{
		Agent: c.FormValue("agent"), Intent: c.FormValue("intent"), Total: c.FormValue("total"), Every: c.FormValue("every"), Each: c.FormValue("each"), PerAction: c.FormValue("per_action"),
		Payees: c.FormValue("payees"), From: c.FormValue("from"), Until: c.FormValue("until"), Depth: c.FormValue("depth"), Sessions: c.FormValue("sessions"), Tools: values["tool"],
		AnyTool: c.FormValue("any_tool") != "",
	}
}

// grant reads what was typed. What is empty is left open.
func (f form) grant() (g mandate.Grant, problems ui.Problems) {
	wrong := func(field, message string) { problems = append(problems, ui.Problem{Field: field, Message: message}) }
	amount := func(field, text string) *money.Nanos {
		if text = strings.TrimSpace(strings.TrimPrefix(strings.TrimSpace(text), "$")); text == "" {
			return nil
		}
		n, err := page.Dollars(text)
		if err != nil {
			wrong(field, "Write an amount in dollars, such as 5.00.")
			return nil
		}
		return &n
	}
	whole := func(field, text string, none int64) int64 {
		if text = strings.TrimSpace(text); text == "" {
			return none
		}
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil {
			wrong(field, "Write a whole number.")
		}
		return n
	}
	at := func(field, text string) time.Time {
		if text == "" {
			return time.Time{}
		}
		for _, layout := range []string{moment, moment + ":05"} {
			if t, err := time.Parse(layout, text); err == nil {
				return t
			}
		}
		wrong(field, "Write a day and a time.")
		return time.Time{}
	}
	g = mandate.Grant{Intent: f.Intent, Total: amount("total", f.Total), PerAction: amount("per_action", f.PerAction), Until: at("until", f.Until), Depth: int(whole("depth", f.Depth, -1))}
	if each := amount("each", f.Each); each != nil {
		g.Recurring = &mandate.Recurring{Every: f.Every, Amount: *each}
	}
	if from := at("from", f.From); !from.IsZero() {
		g.From = &from
	}
	if n := whole("sessions", f.Sessions, 0); n != 0 {
		g.Sessions = &n
	}
	if !f.AnyTool {
		g.Tools = append([]string{}, f.Tools...)
	}
	if who := strings.FieldsFunc(f.Payees, func(r rune) bool { return r == ',' || r == ' ' || r == '\n' || r == '\r' }); len(who) > 0 {
		g.Payees = who
	}
	return g, problems
}

// fields are the inputs of the pointers of a fault.
var fields = map[string]string{
	"/agent_id": "agent", "/recurring/amount": "each", "/recurring/every": "each", "/recurring": "each", "/tools": "tools", "/payees": "payees",
}

func problemsOf(err error) (ui.Problems, int, error) {
	problems, code, err := page.FormProblems(err, fields)
	for i := range problems {
		for _, list := range []string{"tools", "payees"} {
			if strings.HasPrefix(problems[i].Field, list+"-") {
				problems[i].Field = list
			}
		}
	}
	return problems, code, err
}

type toolChoice struct {
	Name    string
	Checked bool
}

type formView struct {
	Frame    page.Frame
	Title    string
	Text     string
	Action   string
	Base     string
	Form     form
	Problems ui.Problems
	Agents   []ui.Option
	Tools    []toolChoice
	// Parent is what is narrowed, or nil: what it has bounds what can be typed.
	Parent *mandate.Grant
	Label  string
}

func (v formView) most(n *money.Nanos) templ.Attributes {
	a := templ.Attributes{"inputmode": "decimal", "autocomplete": "off", "step": "any", "min": "0"}
	if n != nil {
		a["max"], a["required"] = n.Decimal(), true
	}
	return a
}

func (v formView) total() *money.Nanos {
	if v.Parent == nil {
		return nil
	}
	return v.Parent.Total
}

func (v formView) perAction() *money.Nanos {
	if v.Parent == nil {
		return nil
	}
	return v.Parent.PerAction
}

func (v formView) each() *money.Nanos {
	if v.Parent == nil || v.Parent.Recurring == nil {
		return nil
	}
	return &v.Parent.Recurring.Amount
}

func (v formView) atMost(n *money.Nanos) string {
	if n == nil {
		return ""
	}
	return "At most " + n.Display() + "."
}

func (v formView) times() templ.Attributes {
	a := templ.Attributes{"required": true}
	if v.Parent != nil {
		a["max"] = v.Parent.Until.UTC().Format(moment)
		if v.Parent.From != nil {
			a["min"] = v.Parent.From.UTC().Format(moment)
		}
	}
	return a
}

func (v formView) depths() []ui.Option {
	most := mandate.MaxDepth
	if v.Parent != nil {
		most = v.Parent.Depth - 1
	}
	out := []ui.Option{{Value: "0", Label: "Nothing of it"}}
	for n := 1; n <= most; n++ {
		label := "Parts of it, one level deep"
		if n > 1 {
			label = "Parts of it, " + strconv.Itoa(n) + " levels deep"
		}
		out = append(out, ui.Option{Value: strconv.Itoa(n), Label: label})
	}
	return out
}

func (v formView) sessions() templ.Attributes {
	a := templ.Attributes{"inputmode": "numeric", "min": "1", "step": "1"}
	if v.Parent != nil && v.Parent.Sessions != nil {
		a["max"], a["required"] = strconv.FormatInt(*v.Parent.Sessions, 10), true
	}
	return a
}

func (v formView) everies() []ui.Option {
	return []ui.Option{{Value: "day", Label: "each day"}, {Value: "week", Label: "each week"}, {Value: "month", Label: "each month"}}
}

// choices fills in what the form offers: agents, and of the tools those that the parent allows.
func (h *Handler) choices(ctx context.Context, tx pgx.Tx, p page.Place, v *formView) error {
	found, err := h.Agents.List(ctx, tx, p.Org, agents.ListFilter{Project: p.Project, Limit: maxAgents})
	if err != nil {
		return err
	}
	for _, a := range found {
		v.Agents = append(v.Agents, ui.Option{Value: string(a.ID), Label: a.Name})
	}
	tools := h.Tools
	if v.Parent != nil && v.Parent.Tools != nil {
		tools = v.Parent.Tools
	}
	for _, t := range tools {
		v.Tools = append(v.Tools, toolChoice{t, slices.Contains(v.Form.Tools, t)})
	}
	return nil
}

func (h *Handler) draw(c echo.Context, v formView, code int) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	v.Title, v.Label, v.Action, v.Base = "New mandate", "Continue to sign", p.Path("mandates", "new"), p.Path("mandates")
	v.Text = "Say what an agent may spend. On the next page you see it exactly as it will be signed, and sign it."
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error { return h.choices(ctx, tx, p, &v) })
	if err != nil {
		return err
	}
	v.Frame = page.NewFrame(c, "mandates", v.Title, page.Crumb{Label: "Mandates", Href: v.Base}, page.Crumb{Label: "New"})
	return page.Render(c, code, Form(v))
}

func (h *Handler) newForm(c echo.Context) error {
	until := time.Now().UTC().AddDate(0, 0, 7)
	return h.draw(c, formView{Form: form{
		Agent: c.QueryParam("agent"), Every: "day", AnyTool: true, Depth: "0", Until: time.Date(until.Year(), until.Month(), until.Day(), 17, 0, 0, 0, time.UTC).Format(moment),
	}}, http.StatusOK)
}

func (h *Handler) create(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	f := readForm(c)
	g, problems := f.grant()
	if len(problems) > 0 {
		return h.draw(c, formView{Form: f, Problems: problems}, http.StatusUnprocessableEntity)
	}
	g.Depth = max(0, g.Depth)
	var m register.Mandate
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) (err error) {
		m, err = h.Mandates.Draft(ctx, tx, p.Org, register.DraftInput{Agent: id.Agent(f.Agent), Grant: g, Project: p.Project})
		return err
	})
	if err != nil {
		problems, code, err := problemsOf(err)
		if err != nil {
			return err
		}
		return h.draw(c, formView{Form: f, Problems: problems}, code)
	}
	return page.Redirect(c, p.Path("mandates", string(m.ID), "sign"))
}

func (h *Handler) drawNarrow(c echo.Context, v formView, code int) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	var parent row
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		m, err := h.of(c, tx)
		if err != nil {
			return err
		}
		rows, err := h.rows(ctx, tx, p, []register.Mandate{m})
		if err != nil {
			return err
		}
		parent, v.Parent = rows[0], &m.Grant
		if code == http.StatusOK {
			v.Form = formOf(m)
		}
		return h.choices(ctx, tx, p, &v)
	})
	if err != nil {
		return err
	}
	v.Title, v.Label, v.Action, v.Base = "Hand a part on", "Hand on", parent.Href+"/narrow", parent.Href
	v.Text = "A part of “" + parent.Intent + "”, no wider than it on any axis. What is spent under it is spent under every mandate above it, too. The agent's own key signs it; it is in force at once."
	v.Frame = page.NewFrame(c, "mandates", v.Title, crumbs(p, parent, "Hand on")...)
	return page.Render(c, code, Form(v))
}

// formOf begins with what the parent has: the widest that there can be.
func formOf(m register.Mandate) form {
	g := m.Grant
	f := form{Agent: string(m.Agent), Intent: g.Intent, Every: "day", Until: g.Until.UTC().Format(moment), AnyTool: g.Tools == nil, Tools: g.Tools, Payees: strings.Join(g.Payees, ", "), Depth: strconv.Itoa(max(0, g.Depth-1))}
	if g.Total != nil {
		f.Total = g.Total.Decimal()
	}
	if g.PerAction != nil {
		f.PerAction = g.PerAction.Decimal()
	}
	if g.Recurring != nil {
		f.Every, f.Each = g.Recurring.Every, g.Recurring.Amount.Decimal()
	}
	if g.From != nil {
		f.From = g.From.UTC().Format(moment)
	}
	if g.Sessions != nil {
		f.Sessions = strconv.FormatInt(*g.Sessions, 10)
	}
	return f
}

func (h *Handler) narrowForm(c echo.Context) error {
	return h.drawNarrow(c, formView{}, http.StatusOK)
}

func (h *Handler) narrow(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	f := readForm(c)
	g, problems := f.grant()
	if len(problems) > 0 {
		return h.drawNarrow(c, formView{Form: f, Problems: problems}, http.StatusUnprocessableEntity)
	}
	var m register.Mandate
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		parent, err := h.of(c, tx)
		if err != nil {
			return err
		}
		// The form knows minutes: the parent's own end, to the second, is what was meant by its minute.
		if g.Until.Equal(parent.Grant.Until.Truncate(time.Minute)) {
			g.Until = parent.Grant.Until
		}
		m, err = h.Mandates.Narrow(ctx, tx, p.Org, register.NarrowInput{Parent: parent.ID, Agent: id.Agent(f.Agent), Grant: g, Project: p.Project})
		return err
	})
	if err != nil {
		problems, code, err := problemsOf(err)
		if err != nil {
			return err
		}
		return h.drawNarrow(c, formView{Form: f, Problems: problems}, code)
	}
	page.Flash(c, "Handed on, and in force.")
	return page.Redirect(c, p.Path("mandates", string(m.ID)))
}
