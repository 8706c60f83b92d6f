package sessions

import (
	"bytes"
	"context"
	"errors"
	"html"
	"strconv"
	"time"

	"github.com/a-h/templ"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/transcript"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/httpx"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
)

const (
	streamRetry = 2 * time.Second
	pingEvery   = 15 * time.Second
	pollEvery   = 5 * time.Second
	streamBatch = 100
	// maxMissed is how far behind a page may be and still be patched; beyond it, it is loaded again.
	maxMissed = 500
)

// live is one page that is kept up to date.
type live struct {
	h         *Handler
	c         echo.Context
	session   journal.Session
	place     page.Place
	after     int64
	asJournal bool
	// embedded is a session inside another page, which has no inspector and its own heading.
	embedded   bool
	options    transcript.Options
	projection *transcript.Projection
	out        *httpx.EventStream
}

// stream sends a page the patches that make it show what happened since it was drawn. Each carries the number of the last event that it
// contains, so that a page that comes back with Last-Event-ID gets exactly what it missed.
func (h *Handler) stream(c echo.Context) error {
	ctx := c.Request().Context()
	s, err := h.sessionOf(c)
	if err != nil {
		return err
	}
	after := c.Request().Header.Get("Last-Event-ID")
	if after == "" {
		after = c.QueryParam("after_seq")
	}
	l := &live{h: h, c: c, session: s, place: page.PlaceOf(c), asJournal: c.QueryParam("view") == "journal", projection: transcript.New(viewerOf(c))}
	if l.after, err = strconv.ParseInt(after, 10, 64); err != nil || l.after < 0 {
		l.after = s.LastSeq
	}
	q := queryOf(c)
	if l.embedded = c.QueryParam("embedded") != ""; !l.embedded {
		l.options = q.options(l.place.Path("sessions", string(s.ID)))
	}
	// Steps that are open at the page's last event have to be known, to be drawn whole when they go on.
	known, err := h.Sessions.Events(ctx, s.Org, s.ID, journal.EventFilter{After: max(0, l.after-window), Limit: window})
	if err != nil {
		return err
	}
	for _, e := range known {
		if e.Seq <= l.after {
			l.projection.Apply(e)
		}
	}
	hints, done := h.Sessions.Watch(s.ID)
	defer done()
	if l.out, err = httpx.StartEventStream(c.Response(), streamRetry); err != nil {
		return nil //nolint:nilerr // the page is gone
	}
	defer l.out.Close()
	if err := l.follow(ctx, hints); err != nil && ctx.Err() == nil && !errors.Is(err, httpx.ErrSlowReader) {
		h.Log.WarnContext(ctx, "a page's stream ended", "session", s.ID, "error", err)
	}
	return nil
}

func (l *live) follow(ctx context.Context, hints <-chan struct{}) error {
	previews := l.h.Sessions.WatchPreviews(ctx, l.session)
	ping, poll := time.NewTicker(pingEvery), time.NewTicker(pollEvery)
	defer ping.Stop()
	defer poll.Stop()
	for {
		over, err := l.catchUp(ctx)
		if err != nil || over {
			return err
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-l.h.Drain.Done():
				return nil // the page comes back, to another replica or to the next start
			case p, ok := <-previews:
				if !ok {
					previews = nil
					continue
				}
				err = l.preview(p)
			case <-ping.C:
				l.out.Ping()
				err = l.out.Flush()
			case <-hints:
				waiting = false
			case <-poll.C:
				waiting = false
			}
			if err != nil {
				return err
			}
		}
	}
}

// catchUp sends all that is in the journal and not on the page, and says whether nothing more can come.
func (l *live) catchUp(ctx context.Context) (over bool, err error) {
	for {
		s, err := l.h.Sessions.Get(ctx, l.session.Org, l.session.ID)
		if err != nil {
			return false, err
		}
		l.session = s
		if s.LastSeq-l.after > maxMissed {
			l.out.Add(-1, "refetch", []byte("{}"))
			return true, l.out.Flush()
		}
		if s.LastSeq <= l.after {
			if s.Status != journal.Terminated {
				return false, nil
			}
			l.out.Add(-1, "end", []byte("{}"))
			return true, l.out.Flush()
		}
		events, err := l.h.Sessions.Events(ctx, s.Org, s.ID, journal.EventFilter{After: l.after, Limit: streamBatch})
		if err != nil || len(events) == 0 {
			return false, err
		}
		if events[len(events)-1].Seq > s.LastSeq { // more was appended meanwhile: the head must not be older than what stands below it
			if l.session, err = l.h.Sessions.Get(ctx, s.Org, s.ID); err != nil {
				return false, err
			}
		}
		if err := l.patch(ctx, events); err != nil {
			return false, err
		}
	}
}

// patch sends one batch as one patch, so that a page never shows half of a commit.
func (l *live) patch(ctx context.Context, events []journal.Event) error {
	var body bytes.Buffer
	if l.asJournal {
		for _, e := range events {
			row := newJournalRow(l.place.Path("sessions", string(l.session.ID)), e)
			if err := l.partial(&body, "#journal", "beforeend", journalItem(row)); err != nil {
				return err
			}
		}
	}
	fresh := map[*transcript.Entry]bool{}
	var order []*transcript.Entry
	for _, e := range events {
		changed, added := l.projection.Apply(e)
		for _, entry := range added {
			fresh[entry] = true
			order = append(order, entry)
		}
		if _, seen := fresh[changed]; changed != nil && !seen {
			fresh[changed] = false
			order = append(order, changed)
		}
	}
	for _, entry := range order {
		if l.asJournal {
			break
		}
		target, swap := "#"+entry.DOM(), "outerMorph"
		if fresh[entry] {
			target, swap = "#transcript", "beforeend"
		}
		if err := l.partial(&body, target, swap, transcript.Item(entry, l.options)); err != nil {
			return err
		}
	}
	held, err := l.h.held(ctx, l.session)
	if err != nil {
		return err
	}
	stoppedAt, err := l.h.limitOf(ctx, l.place, l.session)
	if err != nil {
		return err
	}
	head := newHead(l.place, l.session, held, l.projection.UnderWay(), stoppedAt)
	if err := l.partial(&body, "#session-head", "outerMorph", l.header(head)); err != nil {
		return err
	}
	if !l.embedded {
		facts, err := l.h.facts(ctx, l.session, head)
		if err != nil {
			return err
		}
		if err := l.partial(&body, "#session-facts", "outerMorph", sessionFacts(facts)); err != nil {
			return err
		}
	}
	if l.session.Status == journal.Terminated {
		if err := l.partial(&body, "#composer", "outerHTML", Composer(head)); err != nil {
			return err
		}
	}
	if said := announcement(events, head.Status); said != "" {
		body.WriteString(`<hx-partial hx-target="#announce" hx-swap="textContent">` + html.EscapeString(said) + `</hx-partial>`)
	}
	l.after = events[len(events)-1].Seq
	return l.sendPatch(l.after, "patch", body.Bytes())
}

func (l *live) header(h head) templ.Component {
	if l.embedded {
		return embeddedHead(h)
	}
	return header(h)
}

// announcement is what a screen reader is told: only that the session's state changed, never each step.
func announcement(events []journal.Event, s ui.Status) string {
	for _, e := range events {
		if e.Type == "session.status_idle" || e.Type == "session.status_terminated" {
			said := "Session: " + s.Word
			if s.Reason != "" {
				said += ", " + s.Reason
			}
			return said
		}
	}
	return ""
}

func (l *live) partial(body *bytes.Buffer, target, swap string, component templ.Component) error {
	part, err := page.Fragment(l.c, component)
	if err != nil {
		return err
	}
	body.WriteString(`<hx-partial hx-target="` + target + `" hx-swap="` + swap + `">`)
	body.Write(part)
	body.WriteString(`</hx-partial>`)
	return nil
}

// preview sends a piece of the answer that a running model call is giving.
func (l *live) preview(p scheduler.Preview) error {
	entry := l.projection.Running()
	if l.asJournal || entry == nil || p.Start || p.Type != "agent.message" || p.Delta == "" {
		return nil
	}
	body := `<hx-partial hx-target="#` + entry.TypingDOM() + `" hx-swap="beforeend">` + html.EscapeString(p.Delta) + `</hx-partial>`
	return l.sendPatch(-1, "preview", []byte(body))
}

// sendPatch writes one event. A carriage return would end a line of the stream, so it is written as a reference.
func (l *live) sendPatch(seq int64, name string, body []byte) error {
	l.out.Add(seq, name, bytes.ReplaceAll(body, []byte("\r"), []byte("&#13;")))
	return l.out.Flush()
}
