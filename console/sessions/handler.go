package sessions

import (
	"context"
	"errors"
	"log/slog"
	"strconv"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/transcript"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/httpx"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

// window is how many events of a journal a page shows at once; earlier ones are a link away.
const window = 600

// Handler serves the pages about sessions.
type Handler struct {
	DB       *postgres.DB
	Sessions *scheduler.Service
	Agents   *agents.Service
	// Sandboxes may be nil in a process that reaches none; the files are then said to be out of reach.
	Sandboxes *sandbox.Service
	Drain     *httpx.Drain
	Log       *slog.Logger
}

// Register adds the pages to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read, write := page.Need(tenants.SessionsRead), page.Need(tenants.SessionsWrite)
	g.GET("/sessions", h.list, read)
	g.GET("/sessions/:session", h.show, read)
	g.GET("/sessions/:session/stream", h.stream, read)
	g.GET("/sessions/:session/events/:seq", h.event, read)
	g.GET("/sessions/:session/files/content", h.download, read)
	g.POST("/sessions/:session/messages", h.send, write)
	g.POST("/sessions/:session/interrupt", h.interrupt, write)
	g.POST("/sessions/:session/resume", h.resume, write)
	g.POST("/sessions/:session/kill", h.kill, write)
}

// sessionOf reads the session that the address names, if it is in the address's project.
func (h *Handler) sessionOf(c echo.Context) (journal.Session, error) {
	sid, err := id.Parse[id.Session](c.Param("session"))
	if err != nil {
		return journal.Session{}, fault.NotFound()
	}
	p := page.PlaceOf(c)
	s, err := h.Sessions.Get(c.Request().Context(), p.Org, sid)
	if err == nil && s.Project != p.Project {
		err = fault.NotFound()
	}
	return s, err
}

// heldFor is what is reserved for a session now.
func heldFor(ctx context.Context, tx pgx.Tx, org id.Org, s id.Session) (money.Nanos, error) {
	holds, err := billing.OpenHolds(ctx, tx, org, s)
	if err != nil {
		return 0, err
	}
	var held money.Nanos
	open := map[id.Hold]bool{}
	for _, one := range holds {
		open[one.ID] = true
	}
	for _, one := range holds {
		if one.Parent == "" || !open[one.Parent] { // what is carved from a ceiling that is held is part of it; a sandbox's tick outlives it
			held += one.Amount - one.Captured - one.Released
		}
	}
	return held, nil
}

func (h *Handler) held(ctx context.Context, s journal.Session) (held money.Nanos, err error) {
	err = h.DB.InTx(ctx, s.Org, func(tx pgx.Tx) error {
		held, err = heldFor(ctx, tx, s.Org, s.ID)
		return err
	})
	return held, err
}

// viewerOf is the id of whoever looks.
func viewerOf(c echo.Context) string {
	v, _ := page.ViewerOf(c)
	return string(v.User)
}

func queryOf(c echo.Context) query {
	q := query{Tab: c.QueryParam("tab"), Step: c.QueryParam("step"), Path: c.QueryParam("path")}
	if c.QueryParam("view") == "journal" {
		q.View = "journal"
	}
	switch q.Tab {
	case "step", "files", "cost", "raw":
	default:
		q.Tab = "step"
	}
	q.Before, _ = strconv.ParseInt(c.QueryParam("before"), 10, 64)
	return q
}

func (h *Handler) show(c echo.Context) error {
	ctx := c.Request().Context()
	s, err := h.sessionOf(c)
	if err != nil {
		return err
	}
	q := queryOf(c)
	first := max(0, s.LastSeq-window)
	if q.Before > 0 {
		first = max(0, q.Before-1-window)
	}
	events, err := h.Sessions.Events(ctx, s.Org, s.ID, journal.EventFilter{After: first, Limit: window})
	if err != nil {
		return err
	}
	held, err := h.held(ctx, s)
	if err != nil {
		return err
	}
	p := page.PlaceOf(c)
	projection := transcript.Of(events, viewerOf(c))
	base := p.Path("sessions", string(s.ID))
	stoppedAt, err := h.limitOf(ctx, p, s)
	if err != nil {
		return err
	}
	v := show{
		Head: newHead(p, s, held, projection.UnderWay(), stoppedAt), Journal: q.View == "journal", Entries: projection.Entries,
		Options: q.options(base), Views: q.views(base), Killing: c.QueryParam("kill") != "",
	}
	if v.Journal {
		for _, e := range events {
			v.Rows = append(v.Rows, newJournalRow(base, e))
		}
	}
	if first > 0 {
		v.Earlier = base + q.with(func(q *query) { q.Before = first + 1 })
	}
	if len(events) > 0 {
		v.After = events[len(events)-1].Seq
	}
	if q.Before == 0 && s.Status != journal.Terminated {
		v.Stream = base + "/stream?after_seq=" + strconv.FormatInt(v.After, 10)
		if v.Journal {
			v.Stream += "&view=journal"
		}
	}
	if v.Inspector, err = h.inspect(c, s, q, v.Head, projection); err != nil {
		return err
	}
	v.Frame = page.NewFrame(c, "sessions", v.Head.Title, page.Crumb{Label: "Sessions", Href: p.Path("sessions")}, page.Crumb{Label: v.Head.Title})
	v.Frame.Panes, v.Frame.Live = true, v.Stream != ""
	return page.Render(c, 200, Show(v))
}

func (q query) options(base string) transcript.Options {
	return transcript.Options{Current: q.Step, StepHref: func(step string) string {
		return base + q.with(func(q *query) { q.Tab, q.Step, q.Path = "step", step, "" })
	}}
}

// event is one event of the journal, whole.
func (h *Handler) event(c echo.Context) error {
	s, err := h.sessionOf(c)
	if err != nil {
		return err
	}
	seq, err := strconv.ParseInt(c.Param("seq"), 10, 64)
	if err != nil || seq < 1 {
		return fault.NotFound()
	}
	found, err := h.Sessions.Events(c.Request().Context(), s.Org, s.ID, journal.EventFilter{After: seq - 1, Limit: 1})
	if err != nil {
		return err
	}
	if len(found) == 0 || found[0].Seq != seq {
		return fault.NotFound()
	}
	raw, err := found[0].MarshalJSON()
	if err != nil {
		return err
	}
	if c.Request().Header.Get("HX-Request") == "" {
		return c.JSONBlob(200, raw)
	}
	p := page.PlaceOf(c)
	return page.Render(c, 200, eventJSON(newJournalRow(p.Path("sessions", string(s.ID)), found[0]), string(raw)))
}

// send gives the session a message.
func (h *Handler) send(c echo.Context) error {
	s, err := h.sessionOf(c)
	if err != nil {
		return err
	}
	in := scheduler.InvokeInput{Project: s.Project, Session: s.ID, Input: journal.Text(c.FormValue("text")), IfRunning: c.FormValue("if_running")}
	err = h.DB.InTx(c.Request().Context(), s.Org, func(tx pgx.Tx) error {
		_, err := h.Sessions.Invoke(c.Request().Context(), tx, s.Org, in)
		return err
	})
	return h.answer(c, s, err, "Not sent.")
}

// interrupt asks the session to stop what it does; it can go on afterwards.
func (h *Handler) interrupt(c echo.Context) error {
	s, err := h.sessionOf(c)
	if err != nil {
		return err
	}
	err = h.DB.InTx(c.Request().Context(), s.Org, func(tx pgx.Tx) error {
		_, err := h.Sessions.Send(c.Request().Context(), tx, s.Org, s.ID, []scheduler.Input{{Type: "user.interrupt", Reason: "from the console"}})
		return err
	})
	if fault.IsCode(err, "state_conflict") {
		err = nil // it became idle by itself meanwhile, which is what was wanted
	}
	return h.answer(c, s, err, "Not interrupted.")
}

// answer ends an act on a session. The page's stream shows what came of it, so that a success needs no content.
func (h *Handler) answer(c echo.Context, s journal.Session, err error, title string) error {
	byScript := c.Request().Header.Get("HX-Request") != ""
	if err == nil {
		if byScript {
			// An empty answer is swapped in, which clears the problem of an earlier try.
			return c.HTMLBlob(200, nil)
		}
		return page.Redirect(c, page.PlaceOf(c).Path("sessions", string(s.ID)))
	}
	if !byScript {
		return err
	}
	f := page.AsFault(err)
	if page.Status(f) >= 500 {
		h.Log.ErrorContext(c.Request().Context(), "an act on a session failed", "session", s.ID, "error", f)
	}
	return page.Render(c, page.Status(f), Problem(title, f.Message))
}

// kill ends the session and shows the receipt.
func (h *Handler) kill(c echo.Context) error {
	ctx := c.Request().Context()
	s, err := h.sessionOf(c)
	if err != nil {
		return err
	}
	var r scheduler.KillReceipt
	err = h.DB.InTx(ctx, s.Org, func(tx pgx.Tx) error {
		r, err = h.Sessions.Kill(ctx, tx, s.Org, s.ID, c.FormValue("reason"))
		return err
	})
	if err == nil {
		waiting, cancel := context.WithTimeout(ctx, killWait)
		defer cancel()
		r, err = h.Sessions.FinishKill(waiting, s.Org, s.ID)
	}
	if err != nil || c.Request().Header.Get("HX-Request") == "" {
		if err == nil {
			page.Flash(c, "Session killed.")
		}
		return h.answer(c, s, err, "Not killed.")
	}
	return page.Render(c, 200, Receipt(newReceipt(r, page.PlaceOf(c).Path("sessions", string(s.ID)))))
}

var errNoSandboxes = errors.New("this process reaches no sandboxes")
