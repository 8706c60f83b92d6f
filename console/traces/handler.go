package traces

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/observability"
	"ambit.dev/ambit/tenants"
)

const (
	pageSize = 50
	// spansPage is how many spans a waterfall shows at once; the rest is a link away, never cut off silently.
	spansPage = 500
	// readLimit is how long a page waits for ClickHouse before it says that it is away.
	readLimit = 5 * time.Second
)

// Handler serves the pages about traces.
type Handler struct {
	DB     *postgres.DB
	Agents *agents.Service
	Traces *observability.Reader
	Log    *slog.Logger
}

// Register adds the pages to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read := page.Need(tenants.TracesRead)
	g.GET("/traces", h.list, read)
	g.GET("/traces/:session", h.show, read)
}

func scopeOf(p page.Place) observability.Scope {
	return observability.Scope{Org: p.Org, Project: p.Project}
}

// away says in a sentence why traces can't be read now, for errors that are not about the request.
func (h *Handler) away(ctx context.Context, err error) string {
	h.Log.WarnContext(ctx, "traces can't be read", "error", err)
	return "The store of traces does not answer. Sessions go on as they are, and their spans arrive when it is back: none is lost."
}

func (h *Handler) list(c echo.Context) error {
	p := page.PlaceOf(c)
	ctx, cancel := context.WithTimeout(c.Request().Context(), readLimit)
	defer cancel()
	q := listQuery{Only: c.QueryParam("only"), Agent: c.QueryParam("agent"), Since: c.QueryParam("since"), Before: c.QueryParam("before")}
	filter := observability.TraceFilter{ErrorsOnly: q.Only == "errors", DeniedOnly: q.Only == "denied", Limit: pageSize}
	if a, err := id.Parse[id.Agent](q.Agent); err == nil {
		filter.AgentID = a
	}
	if b, err := id.Parse[id.Session](q.Before); err == nil {
		filter.Before = b
	}
	base := p.Path("traces")
	v := listView{Query: q, Action: base, Run: p.Path("playground"), Filtered: q != (listQuery{Before: q.Before}), Agents: []ui.Option{{Value: "", Label: "Any agent"}}}
	for _, period := range periods {
		v.Periods = append(v.Periods, ui.Option{Value: period.value, Label: period.label})
		if period.value == q.Since && period.length > 0 {
			filter.From = time.Now().Add(-period.length)
		}
	}
	for _, s := range []struct{ key, label string }{{"", "All"}, {"errors", "With errors"}, {"denied", "With denials"}} {
		to := q
		to.Only, to.Before = s.key, ""
		v.Segments = append(v.Segments, ui.Segment{Label: s.label, Href: base + to.encode(), Current: s.key == q.Only})
	}
	err := h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		known, err := h.Agents.List(ctx, tx, p.Org, agents.ListFilter{Project: p.Project, IncludeArchived: true, Limit: 100})
		for _, a := range known {
			v.Agents = append(v.Agents, ui.Option{Value: string(a.ID), Label: a.Name})
		}
		return err
	})
	if err != nil {
		return err
	}
	found, next, err := h.Traces.Traces(ctx, scopeOf(p), filter)
	switch {
	case err != nil && c.Request().Context().Err() != nil:
		return err
	case err != nil:
		v.Problem = h.away(ctx, err)
	}
	titles, err := h.titles(c.Request().Context(), p.Org, found)
	if err != nil {
		return err
	}
	for _, t := range found {
		r := newRow(p, t)
		r.Title = titles[t.SessionID]
		v.Rows = append(v.Rows, r)
	}
	v.Pager = ui.PagerProps{Shown: len(v.Rows), Noun: "traces"}
	if next != "" {
		to := q
		to.Before = string(next)
		v.Pager.Next = base + to.encode()
	}
	if q.Before != "" {
		to := q
		to.Before = ""
		v.Pager.First = base + to.encode()
	}
	v.Frame = page.NewFrame(c, "traces", "Traces", page.Crumb{Label: "Traces"})
	return page.Render(c, 200, List(v))
}

// titles are the names of the traces' sessions, which spans do not carry: they can be changed. A session that was deleted meanwhile is
// named by its id.
func (h *Handler) titles(ctx context.Context, org id.Org, found []observability.TraceSummary) (map[string]string, error) {
	titles := map[string]string{}
	err := h.DB.InTx(ctx, org, func(tx pgx.Tx) error {
		for _, t := range found {
			titles[t.SessionID] = t.SessionID
			s, err := journal.Get(ctx, tx, org, id.Session(t.SessionID))
			if fault.IsCode(err, "not_found") {
				continue
			}
			if err != nil {
				return err
			}
			titles[t.SessionID] = titleOf(s)
		}
		return nil
	})
	return titles, err
}

// sessionOf reads the session of the trace from Postgres: it says whether there is such a session at all, also while ClickHouse is away.
func (h *Handler) sessionOf(c echo.Context) (s journal.Session, err error) {
	sid, err := id.Parse[id.Session](c.Param("session"))
	if err != nil {
		return s, fault.NotFound()
	}
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	err = h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error {
		if s, err = journal.Get(ctx, tx, p.Org, sid); err == nil && s.Project != p.Project {
			err = fault.NotFound()
		}
		return err
	})
	return s, err
}

func (h *Handler) show(c echo.Context) error {
	p := page.PlaceOf(c)
	s, err := h.sessionOf(c)
	if err != nil {
		return err
	}
	v := showView{Session: p.Path("sessions", string(s.ID)), Title: titleOf(s), Retry: c.Request().URL.RequestURI()}
	if err := h.fill(c, &v, s); err != nil {
		return err
	}
	v.Frame = page.NewFrame(c, "traces", "Trace of "+v.Title, page.Crumb{Label: "Traces", Href: p.Path("traces")}, page.Crumb{Label: v.Title})
	v.Frame.Panes = true
	return page.Render(c, 200, Show(v))
}

func titleOf(s journal.Session) string {
	if s.Title != "" {
		return s.Title
	}
	return "Session of " + firstText(s.Agent.Name, "an agent")
}

// fill reads the trace. That ClickHouse is away is no error of the page, but something that it says.
func (h *Handler) fill(c echo.Context, v *showView, s journal.Session) error {
	ctx, cancel := context.WithTimeout(c.Request().Context(), readLimit)
	defer cancel()
	p := page.PlaceOf(c)
	summary, err := h.Traces.TraceOf(ctx, scopeOf(p), s.ID)
	if fault.IsCode(err, "not_found") {
		v.Waiting = true
		return nil
	}
	if err != nil {
		v.Problem = h.away(ctx, err)
		return nil
	}
	v.Summary = newRow(p, summary)
	at := observability.TracePage{Limit: spansPage}
	if raw := c.QueryParam("after"); raw != "" {
		cursor, err := observability.ParseSpanCursor(raw)
		if err != nil {
			return err
		}
		at.After = &cursor
	}
	spans, next, err := h.Traces.Trace(ctx, scopeOf(p), s.ID, at)
	if err != nil {
		v.Problem = h.away(ctx, err)
		return nil
	}
	base := p.Path("traces", string(s.ID))
	href := func(span, zoom string) string {
		q := url.Values{}
		for name, value := range map[string]string{"span": span, "zoom": zoom, "after": c.QueryParam("after")} {
			if value != "" {
				q.Set(name, value)
			}
		}
		return base + "?" + q.Encode()
	}
	current, zoom := c.QueryParam("span"), c.QueryParam("zoom")
	v.Waterfall = newWaterfall(spans, v.Summary.Cost, current, zoom, href)
	if next != nil {
		v.More = base + "?after=" + url.QueryEscape(next.String())
	}
	if current == "" {
		return nil
	}
	detail, err := h.Traces.Span(ctx, scopeOf(p), s.ID, current)
	if err != nil {
		if errors.Is(err, context.DeadlineExceeded) {
			v.Problem = h.away(ctx, err)
			return nil
		}
		return err
	}
	v.Span = newSpan(p, detail, v.Summary.Cost, zoom, href)
	return nil
}
