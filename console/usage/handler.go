package usage

import (
	"context"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants"
)

const (
	// maxRows bounds what one page sums; beyond it, it asks for less.
	maxRows    = 50_000
	maxTable   = 100_000
	maxOptions = 200
)

// Handler serves the page about usage.
type Handler struct {
	DB     *postgres.DB
	Agents *agents.Service
}

// Register adds the page to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read := page.Need(tenants.LedgerRead)
	g.GET("/usage", h.show, read)
	g.GET("/usage/csv", h.table, read)
}

func (h *Handler) show(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	q := queryOf(c)
	var v view
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		zone, err := billing.Zone(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		span := q.span(time.Now(), zone)
		rows, err := billing.Usage(ctx, tx, p.Org, zone, q.usage(p, span, maxRows+1))
		if err != nil {
			return err
		}
		names, err := h.names(ctx, tx, p, q, rows)
		if err != nil {
			return err
		}
		v = newView(p, q, span, rows[:min(len(rows), maxRows)], names)
		v.TooMany = len(rows) > maxRows
		v.Agents, err = h.agentOptions(ctx, tx, p, q)
		return err
	})
	if err != nil {
		return err
	}
	v.Frame = page.NewFrame(c, "usage", "Usage", page.Crumb{Label: "Usage"})
	return page.Render(c, 200, Page(v))
}

// names are those of the rows and of the filters.
func (h *Handler) names(ctx context.Context, tx pgx.Tx, p page.Place, q query, rows []billing.UsageRow) (map[string]string, error) {
	filter := billing.UsageRow{Agent: q.Agent, Key: q.Key, Member: q.Member}
	return billing.UsageNames(ctx, tx, p.Org, append([]billing.UsageRow{filter}, rows...))
}

func (h *Handler) agentOptions(ctx context.Context, tx pgx.Tx, p page.Place, q query) ([]ui.Option, error) {
	options := []ui.Option{{Value: "", Label: "Any agent"}}
	if !p.Can(tenants.AgentsRead) {
		return options, nil
	}
	in := agents.ListFilter{IncludeArchived: true, Limit: maxOptions}
	if q.Project == "" {
		in.Project = p.Project
	}
	known, err := h.Agents.List(ctx, tx, p.Org, in)
	if err != nil {
		return nil, err
	}
	for _, a := range known {
		options = append(options, ui.Option{Value: string(a.ID), Label: a.Name})
	}
	return options, nil
}

// table is what the page shows, as CSV.
func (h *Handler) table(c echo.Context) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	q := queryOf(c)
	var out []byte
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		zone, err := billing.Zone(ctx, tx, p.Org)
		if err != nil {
			return err
		}
		in := q.usage(p, q.span(time.Now(), zone), maxTable)
		rows, err := billing.Usage(ctx, tx, p.Org, zone, in)
		if err != nil {
			return err
		}
		names, err := billing.UsageNames(ctx, tx, p.Org, rows)
		if err != nil {
			return err
		}
		out = billing.UsageCSV(rows, in.Bucket, in.By, zone, names)
		return nil
	})
	if err != nil {
		return err
	}
	c.Response().Header().Set("Content-Disposition", `attachment; filename="usage.csv"`)
	c.Response().Header().Set("Cache-Control", "no-store")
	c.Response().Header().Set("Content-Length", strconv.Itoa(len(out)))
	return c.Blob(200, "text/csv; charset=utf-8", out)
}
