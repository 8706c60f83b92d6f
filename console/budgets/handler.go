package budgets

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants"
)

const (
	pageSize = 50
	// maxChoices bounds how many of each kind the form offers to cover.
	maxChoices = 200
)

// Handler serves the pages about budgets.
type Handler struct {
	DB      *postgres.DB
	Tenants *tenants.Service
	Agents  *agents.Service
}

// Register adds the pages to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read, write := page.Need(tenants.BudgetsRead), page.Need(tenants.BudgetsWrite)
	g.GET("/budgets", h.list, read)
	g.GET("/budgets/new", h.newForm, write)
	g.POST("/budgets/new", h.create, write)
	g.GET("/budgets/:budget", h.show, read)
	g.GET("/budgets/:budget/edit", h.editForm, write)
	g.POST("/budgets/:budget/edit", h.update, write)
	g.POST("/budgets/:budget/delete", h.remove, write)
}

func (h *Handler) list(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	after, _ := id.Parse[id.Budget](c.QueryParam("after"))
	v := listView{Base: p.Path("budgets"), New: p.Path("budgets", "new"), CanWrite: p.Can(tenants.BudgetsWrite)}
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		found, err := billing.ListBudgets(ctx, tx, p.Org, "", after, pageSize+1)
		if err != nil {
			return err
		}
		if len(found) > pageSize {
			found = found[:pageSize]
			v.Pager.Next = v.Base + "?after=" + string(found[pageSize-1].ID)
		}
		v.Rows, v.Zone, err = h.rows(ctx, tx, p, found)
		return err
	})
	if err != nil {
		return err
	}
	if after != "" {
		v.Pager.First = v.Base
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "budgets"
	v.Frame = page.NewFrame(c, "budgets", "Budgets", page.Crumb{Label: "Budgets"})
	return page.Render(c, 200, List(v))
}

// rows reads what stands beside budgets: names and what was reached.
func (h *Handler) rows(ctx context.Context, tx pgx.Tx, p page.Place, found []billing.Budget) ([]row, string, error) {
	ids := make([]id.Budget, len(found))
	scopes := make([]string, len(found))
	for i, b := range found {
		ids[i], scopes[i] = b.ID, b.Scope.ID
	}
	reached, err := billing.ReachedAlerts(ctx, tx, p.Org, ids...)
	if err != nil {
		return nil, "", err
	}
	names, err := billing.Names(ctx, tx, p.Org, scopes)
	if err != nil {
		return nil, "", err
	}
	zone, err := billing.Zone(ctx, tx, p.Org)
	if err != nil {
		return nil, "", err
	}
	now := time.Now()
	out := make([]row, len(found))
	for i, b := range found {
		out[i] = newRow(p, b, names[b.Scope.ID], reached[b.ID], now)
	}
	return out, zone.String(), nil
}

// budgetOf reads the budget that the address names.
func (h *Handler) budgetOf(c echo.Context, tx pgx.Tx) (billing.Budget, error) {
	bid, err := id.Parse[id.Budget](c.Param("budget"))
	if err != nil {
		return billing.Budget{}, fault.NotFound()
	}
	return billing.GetBudget(c.Request().Context(), tx, page.PlaceOf(c).Org, bid)
}

func (h *Handler) show(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	v := showView{Deleting: c.QueryParam("delete") != ""}
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		b, err := h.budgetOf(c, tx)
		if err != nil {
			return err
		}
		rows, zone, err := h.rows(ctx, tx, p, []billing.Budget{b})
		if err != nil {
			return err
		}
		v.Row, v.Zone, v.CanWrite = rows[0], zone, p.Can(tenants.BudgetsWrite) && !b.Archived
		return nil
	})
	if err != nil {
		return err
	}
	v.Base = p.Path("budgets")
	v.Frame = page.NewFrame(c, "budgets", v.Row.Name, page.Crumb{Label: "Budgets", Href: v.Base}, page.Crumb{Label: v.Row.Name})
	return page.Render(c, 200, Show(v))
}

func (h *Handler) newForm(c echo.Context) error {
	f := form{Scope: billing.ScopeOrganization, Period: "month", Action: billing.Block, Alerts: "50, 80, 100"}
	if scope := c.QueryParam("scope"); scope != "" {
		f.Scope = scope
	}
	return h.draw(c, 200, formView{Form: f})
}

// draw shows the form, with what is wrong with it.
func (h *Handler) draw(c echo.Context, status int, v formView) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	v.Base, v.Action = p.Path("budgets"), p.Path("budgets", "new")
	crumbs := []page.Crumb{{Label: "Budgets", Href: v.Base}, {Label: "New"}}
	v.Title = "New budget"
	if v.ID != "" {
		v.Title, v.Action = "Change "+v.Name, p.Path("budgets", v.ID, "edit")
		crumbs = []page.Crumb{{Label: "Budgets", Href: v.Base}, {Label: v.Name, Href: p.Path("budgets", v.ID)}, {Label: "Change"}}
	} else {
		err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) (err error) {
			v.Scopes, err = h.scopeOptions(ctx, tx, p)
			return err
		})
		if err != nil {
			return err
		}
	}
	v.Frame = page.NewFrame(c, "budgets", v.Title, crumbs...)
	return page.Render(c, status, Form(v))
}

func (h *Handler) create(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	f := readForm(c)
	in, problems := f.budget(p)
	if len(problems) > 0 {
		return h.draw(c, 422, formView{Form: f, Problems: problems})
	}
	var made billing.Budget
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) (err error) {
		made, err = billing.CreateBudget(ctx, tx, time.Now(), p.Org, in)
		return err
	})
	if err != nil {
		problems, status, err := page.FormProblems(err, f.fields())
		if err != nil {
			return err
		}
		return h.draw(c, status, formView{Form: f, Problems: problems})
	}
	page.Flash(c, made.Name+" is set, and binds from now on.")
	return page.Redirect(c, p.Path("budgets"))
}

func (h *Handler) editForm(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	var v formView
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		b, err := h.budgetOf(c, tx)
		if err != nil {
			return err
		}
		if b.Archived {
			return fault.NotFound()
		}
		rows, _, err := h.rows(ctx, tx, p, []billing.Budget{b})
		if err != nil {
			return err
		}
		v = formView{ID: string(b.ID), Name: b.Name, Covers: rows[0].Covers, Period: rows[0].Period, Form: formOf(b)}
		return nil
	})
	if err != nil {
		return err
	}
	return h.draw(c, 200, v)
}

func (h *Handler) update(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	f := readForm(c)
	var v formView
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		b, err := h.budgetOf(c, tx)
		if err != nil {
			return err
		}
		rows, _, err := h.rows(ctx, tx, p, []billing.Budget{b})
		if err != nil {
			return err
		}
		v = formView{ID: string(b.ID), Name: b.Name, Covers: rows[0].Covers, Period: rows[0].Period, Form: f}
		in, problems := f.budget(p)
		if v.Problems = problems; len(problems) > 0 {
			return nil
		}
		version, _ := strconv.ParseInt(f.Version, 10, 64)
		if version < 1 {
			return fault.InvalidField("/version", "required", "Open the page again and repeat your change.")
		}
		_, err = billing.UpdateBudget(ctx, tx, time.Now(), p.Org, b.ID, billing.ChangeBudget{Name: &in.Name, Limit: &in.Limit, Action: &in.Action, Alerts: &in.Alerts}, version)
		return err
	})
	if err != nil {
		problems, status, err := page.FormProblems(err, f.fields())
		if err != nil {
			return err
		}
		v.Problems = problems
		return h.draw(c, status, v)
	}
	if len(v.Problems) > 0 {
		return h.draw(c, 422, v)
	}
	page.Flash(c, f.Name+" is changed. It binds at once; sessions that stopped at it can be resumed.")
	return page.Redirect(c, p.Path("budgets", v.ID))
}

func (h *Handler) remove(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	var name string
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		b, err := h.budgetOf(c, tx)
		if err != nil {
			return err
		}
		name = b.Name
		return billing.ArchiveBudget(ctx, tx, time.Now(), p.Org, b.ID)
	})
	if err != nil {
		return err
	}
	page.Flash(c, name+" is deleted: it binds no more.")
	return page.Redirect(c, p.Path("budgets"))
}
