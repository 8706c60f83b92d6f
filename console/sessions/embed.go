package sessions

import (
	"strconv"
	"time"

	"github.com/a-h/templ"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/transcript"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

// Recent draws sessions as the list does, for the overview.
func Recent(p page.Place, found []journal.Session) templ.Component {
	rows := make([]row, len(found))
	for i, s := range found {
		rows[i] = newRow(p, s)
	}
	return Table(rows)
}

// NeedsYou is the filter of sessions that wait for a person, and Working of those at work, as the list's groups have them.
func NeedsYou(p page.Place, limit int) journal.SessionFilter { return grouped(p, "needs_you", limit) }

// Working is the filter of sessions that run or wait for a worker.
func Working(p page.Place, limit int) journal.SessionFilter { return grouped(p, "working", limit) }

func grouped(p page.Place, group string, limit int) journal.SessionFilter {
	f := listQuery{Group: group}.filter(p, time.Now())
	f.Limit = limit
	return f
}

// Embed is a session shown inside another page: its head, its transcript and its message box, kept up to date.
type Embed struct {
	Session journal.Session
	Input   string
	view    show
}

// Live says whether the embedded session is followed.
func (e Embed) Live() bool { return e.view.Stream != "" }

// Component draws it.
func (e Embed) Component() templ.Component { return embedded(e.view) }

// Embed loads a session of the request's project for another page.
func (h *Handler) Embed(c echo.Context, session id.Session) (Embed, error) {
	c.SetParamNames("session")
	c.SetParamValues(string(session))
	s, err := h.sessionOf(c)
	if err != nil {
		return Embed{}, err
	}
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	first := max(0, s.LastSeq-window)
	events, err := h.Sessions.Events(ctx, s.Org, s.ID, journal.EventFilter{After: first, Limit: window})
	if err != nil {
		return Embed{}, err
	}
	held, err := h.held(ctx, s)
	if err != nil {
		return Embed{}, err
	}
	stoppedAt, err := h.limitOf(ctx, p, s)
	if err != nil {
		return Embed{}, err
	}
	projection := transcript.Of(events, viewerOf(c))
	base := p.Path("sessions", string(s.ID))
	e := Embed{Session: s, view: show{Head: newHead(p, s, held, projection.UnderWay(), stoppedAt), Entries: projection.Entries}}
	for _, one := range projection.Entries {
		if one.Kind == transcript.User {
			e.Input = one.Text
			break
		}
	}
	if len(events) > 0 {
		e.view.After = events[len(events)-1].Seq
	}
	if s.Status != journal.Terminated {
		e.view.Stream = base + "/stream?embedded=1&after_seq=" + strconv.FormatInt(e.view.After, 10)
	}
	return e, nil
}
