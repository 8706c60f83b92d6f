package overview

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/sessions"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"
)

// countLimit bounds how far a figure counts: beyond it says "100+" and the list says the rest.
const countLimit = 100

const recentSessions = 8

// Handler serves the overview.
type Handler struct {
	DB      *postgres.DB
	Agents  *agents.Service
	Tenants *tenants.Service
}

// Register adds the page to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	g.GET("", h.show)
}

func (h *Handler) show(c echo.Context) error {
	p := page.PlaceOf(c)
	v := view{Place: p, Welcome: c.QueryParam("welcome") != ""}
	if !tenants.Allowed(principal.From(c.Request().Context()), tenants.SessionsRead) {
		v.NoRight = true
	} else if err := h.fill(c.Request().Context(), p, &v); err != nil {
		return err
	}
	v.Frame = page.NewFrame(c, "overview", "Overview", page.Crumb{Label: "Overview"})
	return page.Render(c, 200, Page(v))
}

func (h *Handler) fill(ctx context.Context, p page.Place, v *view) error {
	dayAgo := time.Now().Add(-24 * time.Hour)
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		for _, one := range []struct {
			filter journal.SessionFilter
			to     *[]journal.Session
		}{
			{sessions.Working(p, countLimit+1), &v.working},
			{sessions.NeedsYou(p, countLimit+1), &v.needs},
			{journal.SessionFilter{Project: p.Project, StopReasons: []string{journal.StopFailed, journal.StopRetriesExhausted}, CreatedAfter: &dayAgo, IncludeArchived: true, Limit: countLimit + 1}, &v.failed},
			{journal.SessionFilter{Project: p.Project, IncludeArchived: true, Limit: recentSessions}, &v.Recent},
		} {
			found, err := journal.List(ctx, tx, p.Org, one.filter)
			if err != nil {
				return err
			}
			*one.to = found
		}
		var err error
		if v.Balances, err = billing.ReadBalances(ctx, tx, p.Org); err != nil {
			return err
		}
		if err := countBudgets(ctx, tx, p, v); err != nil {
			return err
		}
		known, err := h.Agents.List(ctx, tx, p.Org, agents.ListFilter{Project: p.Project, Limit: 1})
		v.HasAgent = len(known) > 0
		return err
	})
	if err != nil {
		return err
	}
	keys, err := h.Tenants.ListKeys(ctx, p.Org, tenants.ListKeys{Limit: 20})
	if err != nil {
		return err
	}
	for _, k := range keys {
		v.HasKey = true
		v.KeyUsed = v.KeyUsed || k.LastUsedAt != nil
	}
	return nil
}

func countBudgets(ctx context.Context, tx pgx.Tx, p page.Place, v *view) error {
	if !p.Can(tenants.BudgetsRead) {
		return nil
	}
	found, err := billing.ListBudgets(ctx, tx, p.Org, "", "", countLimit+1)
	if err != nil {
		return err
	}
	v.Budgets = len(found)
	for _, b := range found {
		if b.Near() {
			v.Near++
		}
	}
	return nil
}

// counted writes a figure that is counted up to the limit.
func counted(n int) string {
	if n > countLimit {
		return strconv.Itoa(countLimit) + "+"
	}
	return strconv.Itoa(n)
}
