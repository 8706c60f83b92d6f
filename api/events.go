package api

import (
	"context"
	"net/http"
	"slices"
	"strconv"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

func (a *API) eventRoutes() []Route {
	const tag = "Sessions"
	return []Route{
		{
			ID: "sessions.events.list", Method: http.MethodGet, Path: "/v1/sessions/{session_id}/events", Permission: tenants.SessionsRead, Tag: tag,
			Summary: "List a session's events", Description: "The journal, oldest first unless order is desc.", Errors: []string{slugPage},
			Endpoint: read(a.listEvents),
		},
		{
			ID: "sessions.events.send", Method: http.MethodPost, Path: "/v1/sessions/{session_id}/events", Permission: tenants.SessionsWrite, Tag: tag,
			MaxBody: inputMaxBody + 512<<10,
			Summary: "Send events to a session", Description: "Messages and interrupts, 1 to 50 at a time, all or none. A message to a session at work is queued and taken in at its next model call.",
			Errors: []string{"insufficient_funds", "session_terminated", "archived", "state_conflict", slugTooLarge}, Endpoint: write(http.StatusOK, a.sendEvents),
		},
		{
			ID: "sessions.events.stream", Method: http.MethodGet, Path: "/v1/sessions/{session_id}/events/stream", Permission: tenants.SessionsRead, Tag: tag,
			Summary: "Follow a session's events",
			Description: "Server-sent events. The id of each is its seq. With Last-Event-ID or after_seq the journal is replayed from the next event on and then followed without a gap or a repeat; with neither only what comes is sent. Previews have no id. A reader that is too slow is cut, and resumes where it was. " +
				"At the end of a terminated session the answer is 204, which stops an EventSource.",
			Errors: []string{slugConcurrency}, Endpoint: serve(streamType, a.streamEvents),
		},
	}
}

type listEventsIn struct {
	Session id.Session `path:"session_id"`
	LongPaging
	Types []string `query:"types[]" maxlen:"64" maxitems:"50" doc:"Only events of these types."`
	Order string   `query:"order" enum:"asc,desc" default:"asc"`
}

func (a *API) listEvents(ctx context.Context, tx pgx.Tx, in listEventsIn) (Page[Event], error) {
	if _, err := seenSession(ctx, tx, in.Session); err != nil {
		return Page[Event]{}, err
	}
	after, err := in.place.seq()
	if err != nil {
		return Page[Event]{}, err
	}
	list, err := journal.Events(ctx, tx, principal.From(ctx).Org, in.Session, journal.EventFilter{
		After: after, Types: in.Types, Descending: in.Order == "desc", Limit: in.place.fetch(),
	})
	if err != nil {
		return Page[Event]{}, err
	}
	return pageOf(in.place, list, func(e journal.Event) string { return strconv.FormatInt(e.Seq, 10) }, func(e journal.Event) Event { return Event{e} }), nil
}

type sendEventsIn struct {
	Session id.Session `path:"session_id"`
	Body    struct {
		Events []sentEvent `json:"events" required:"true" minitems:"1" maxitems:"50"`
	} `body:"json"`
}

// Sent is the journalled events of a send.
type Sent struct {
	Data []Event `json:"data"`
}

func (a *API) sendEvents(ctx context.Context, tx pgx.Tx, in sendEventsIn) (Sent, error) {
	if _, err := seenSession(ctx, tx, in.Session); err != nil {
		return Sent{}, err
	}
	inputs := make([]scheduler.Input, len(in.Body.Events))
	for i, e := range in.Body.Events {
		inputs[i] = scheduler.Input{Type: e.Type, Content: e.Content, Reason: e.Reason}
	}
	if slices.ContainsFunc(inputs, func(i scheduler.Input) bool { return i.Type == journal.UserMessage{}.EventType() }) { // an interrupt is taken at any time
		left, err := a.tokensLeft(ctx, principal.From(ctx))
		if err != nil {
			return Sent{}, err
		}
		if err := refused(left); err != nil {
			return Sent{}, err
		}
	}
	events, err := a.cfg.Domains.Sessions.Send(ctx, tx, principal.From(ctx).Org, in.Session, inputs)
	if err != nil {
		return Sent{}, err
	}
	out := Sent{Data: []Event{}}
	for _, e := range events {
		out.Data = append(out.Data, Event{e})
	}
	return out, nil
}

type streamEventsIn struct {
	Session     id.Session `path:"session_id"`
	LastEventID string     `header:"Last-Event-ID" maxlen:"20" doc:"The seq of the last event that was seen; it counts before after_seq."`
	AfterSeq    *int64     `query:"after_seq" min:"0" doc:"Replays the journal after this event; 0 replays all of it."`
	Until       string     `query:"until" enum:"idle,terminated,never" default:"never" doc:"When to end the stream: as soon as the session is idle and everything was sent, when it is terminated, or never before that."`
	Types       []string   `query:"types[]" maxlen:"64" maxitems:"50" doc:"Only events of these types."`
	Deltas      []string   `query:"event_deltas[]" enum:"agent.message,agent.thinking" maxitems:"2" doc:"Previews of events of these types, as the model writes them."`
}

func (a *API) streamEvents(c *call, in streamEventsIn) error {
	var head journal.Session
	err := c.inTx(func(ctx context.Context, tx pgx.Tx) (err error) {
		head, err = seenSession(ctx, tx, in.Session)
		return err
	})
	if err != nil {
		return err
	}
	after, err := in.start(head)
	if err != nil {
		return err
	}
	if head.Status == journal.Terminated && after >= head.LastSeq {
		c.w.WriteHeader(http.StatusNoContent)
		return nil
	}
	leave, err := a.open.enter(c.who.ID)
	if err != nil {
		return err
	}
	defer leave()
	f := follow{api: a, org: c.who.Org, session: in.Session, after: after, types: in.Types, deltas: in.Deltas}
	if in.Until == "idle" {
		f.endsAt = func(s journal.Session) bool { return !s.AtWork() }
	}
	return f.run(c)
}

// start is the seq after which to begin.
func (in *streamEventsIn) start(head journal.Session) (int64, error) {
	after := head.LastSeq
	if in.AfterSeq != nil {
		after = *in.AfterSeq
	}
	if in.LastEventID != "" {
		n, err := strconv.ParseInt(in.LastEventID, 10, 64)
		if err != nil || n < 0 {
			return 0, fault.InvalidField("header/Last-Event-ID", "invalid_value", "Last-Event-ID must be the id of an event of this stream: its seq.")
		}
		after = n
	}
	if after > head.LastSeq {
		return 0, fault.InvalidField("query/after_seq", "out_of_range", "The session has no event of this number yet; its last one is "+strconv.FormatInt(head.LastSeq, 10)+".")
	}
	return after, nil
}
