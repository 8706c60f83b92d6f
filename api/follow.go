package api

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/httpx"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
)

const (
	streamRetry = 2 * time.Second
	pingEvery   = 15 * time.Second
	// pollEvery bounds how late an event is when its notice was lost.
	pollEvery = 5 * time.Second
	// streamBatch is how many events are read and sent at a time.
	streamBatch = 200
)

// follow is one reader of one session's journal.
type follow struct {
	api     *API
	org     id.Org
	session id.Session
	// after is the number of the last event that was delivered.
	after int64
	// types are the event types to show; empty shows all. Others still move after on.
	types []string
	// deltas are the event types whose previews are wanted; empty wants none.
	deltas []string
	// ends says whether the stream is over after this event.
	ends func(e journal.Event) bool
	// endsAt says whether the stream is over when everything was delivered and the session is in this state.
	endsAt func(s journal.Session) bool
}

// run replays the journal after f.after and then follows it, until its end, the client's leaving or the drain. No goroutine is its own:
// when it returns, nothing is left. An error that it returns came before the first byte.
func (f *follow) run(c *call) error {
	ctx := c.r.Context()
	// The subscription stands before the first read: a commit in between is seen by the read or announced by the notice.
	notices, unsubscribe := f.api.cfg.Listener.Subscribe(journal.Channel, string(f.session))
	defer unsubscribe()
	head, batch, err := f.read(ctx)
	if err != nil {
		return err
	}
	out, err := httpx.StartEventStream(c.w, streamRetry)
	if err != nil {
		return nil //nolint:nilerr // the client is gone; its access-log line says all there is to say
	}
	ended := f.api.cfg.Metrics.StreamOpened()
	err = f.send(ctx, c, out, notices, head, batch)
	out.Close()
	ended(errors.Is(err, httpx.ErrSlowReader))
	// A client that left is no failure. A write that failed also ends the context, so the slow reader is asked for first.
	if errors.Is(err, httpx.ErrSlowReader) || (err != nil && ctx.Err() == nil) {
		httpx.NoteFrom(ctx).Err = err
	}
	return nil
}

// send writes what was read, and then what comes.
func (f *follow) send(ctx context.Context, c *call, out *httpx.EventStream, notices <-chan struct{}, head journal.Session, batch []journal.Event) error {
	previews := previewWatch{api: f.api, wanted: len(f.deltas) > 0}
	defer previews.stop()
	ping, poll := time.NewTicker(pingEvery), time.NewTicker(pollEvery)
	defer ping.Stop()
	defer poll.Stop()
	final := map[string]bool{} // events of the last batches that are delivered: a late preview of one is dropped
	for {
		for len(batch) > 0 {
			over, err := f.deliver(out, batch, final)
			if err != nil || over {
				return err
			}
			if head, batch, err = f.read(ctx); err != nil {
				return f.fail(c, out, err)
			}
		}
		if f.endsAt != nil && head.LastSeq <= f.after && f.endsAt(head) {
			return nil
		}
		if head.Status == journal.Terminated && head.LastSeq <= f.after {
			return nil // nothing can come any more
		}
		previews.follow(ctx, head)
		more, err := f.wait(ctx, out, notices, &previews, ping.C, poll.C, final)
		if err != nil || !more {
			return err
		}
		if head, batch, err = f.read(ctx); err != nil {
			return f.fail(c, out, err)
		}
	}
}

// wait sends previews and pings until it is time to read again. more is false when the stream is to end.
func (f *follow) wait(ctx context.Context, out *httpx.EventStream, notices <-chan struct{}, previews *previewWatch, ping, poll <-chan time.Time, final map[string]bool) (more bool, err error) {
	for {
		select {
		case <-ctx.Done():
			return false, ctx.Err()
		case <-f.api.cfg.Drain.Done():
			return false, nil // the client comes back with its last id, to another replica or to the next start
		case <-notices:
			return true, nil
		case <-poll:
			return true, nil
		case p, ok := <-previews.ch:
			if !ok {
				previews.ch = nil
				continue
			}
			err = f.preview(out, p, final)
		case <-ping:
			out.Ping()
			err = out.Flush()
		}
		if err != nil {
			return false, err
		}
	}
}

// readTimeLimit bounds one look at the journal.
const readTimeLimit = 15 * time.Second

// read gets the session's head and the events after the last one that was delivered. A client that leaves meanwhile does not cut it short:
// a query that is cancelled costs its connection to the database, and clients leave all the time.
func (f *follow) read(ctx context.Context) (head journal.Session, batch []journal.Event, err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeLimit)
	defer cancel()
	err = f.api.cfg.DB.InTx(ctx, f.org, func(tx pgx.Tx) error {
		// The head first: an event that comes between the two reads makes the head look older, never the events.
		if head, err = journal.Get(ctx, tx, f.org, f.session); err != nil {
			return err
		}
		if head.LastSeq <= f.after {
			return nil
		}
		batch, err = journal.Events(ctx, tx, f.org, f.session, journal.EventFilter{After: f.after, Limit: streamBatch})
		return err
	})
	return head, batch, err
}

func (f *follow) deliver(out *httpx.EventStream, batch []journal.Event, final map[string]bool) (over bool, err error) {
	if len(final) > 4*streamBatch {
		clear(final)
	}
	for _, e := range batch {
		f.after = e.Seq
		if len(f.types) == 0 || slices.Contains(f.types, e.Type) {
			data, err := json.Marshal(e)
			if err != nil {
				return false, err
			}
			out.Add(e.Seq, e.Type, data)
		}
		if len(f.deltas) > 0 {
			final[string(e.ID)] = true
		}
		if f.ends != nil && f.ends(e) {
			over = true
			break
		}
		if out.Buffered() > 256<<10 {
			if err := out.Flush(); err != nil {
				return false, err
			}
		}
	}
	if out.Buffered() == 0 {
		return over, nil
	}
	return over, out.Flush()
}

// previewWatch reads the previews of a session from the worker that has it, and moves on when another worker gets it.
type previewWatch struct {
	api     *API
	wanted  bool
	address string
	ch      <-chan scheduler.Preview
	cancel  context.CancelFunc
}

func (w *previewWatch) follow(ctx context.Context, head journal.Session) {
	if !w.wanted || (w.cancel != nil && head.LeaseAddress == w.address) {
		return
	}
	w.stop()
	ctx, w.cancel = context.WithCancel(ctx)
	w.address = head.LeaseAddress
	w.ch = w.api.cfg.Domains.Sessions.WatchPreviews(ctx, head)
}

func (w *previewWatch) stop() {
	if w.cancel != nil {
		w.cancel()
	}
}

// previewBody is event_start or event_delta on the wire.
type previewBody struct {
	Type    string        `json:"type"`
	Event   *previewEvent `json:"event,omitempty"`
	EventID id.Event      `json:"event_id,omitempty"`
	Delta   *previewDelta `json:"delta,omitempty"`
}

type previewEvent struct {
	ID   id.Event `json:"id"`
	Type string   `json:"type"`
}

type previewDelta struct {
	Type    string        `json:"type"`
	Index   int           `json:"index"`
	Content journal.Block `json:"content"`
}

func (f *follow) preview(out *httpx.EventStream, p scheduler.Preview, final map[string]bool) error {
	if final[string(p.Event)] || !slices.Contains(f.deltas, p.Type) {
		return nil
	}
	body := previewBody{Type: "event_delta", EventID: p.Event, Delta: &previewDelta{Type: "content_delta", Index: p.Index, Content: journal.Block{Type: "text", Text: p.Delta}}}
	if p.Start {
		body = previewBody{Type: "event_start", Event: &previewEvent{ID: p.Event, Type: p.Type}}
	}
	data, err := json.Marshal(body)
	if err != nil {
		return err
	}
	out.Add(-1, body.Type, data)
	return out.Flush()
}

// fail tells the reader of a failure in the stream itself, as the status line has left long ago.
func (f *follow) fail(c *call, out *httpx.EventStream, err error) error {
	if c.r.Context().Err() != nil {
		return err
	}
	_, body := f.api.problems.render(fault.As(err), string(httpx.RequestIDFrom(c.r.Context())))
	out.Add(-1, "error", body[:len(body)-1])
	return errors.Join(err, out.Flush())
}

// await waits until done says so of the session, the wait is over, the client leaves or the process drains, and returns the session as
// it then is.
func (c *call) await(session id.Session, wait time.Duration, done func(journal.Session) bool) (s journal.Session, err error) {
	ctx := c.r.Context()
	notices, unsubscribe := c.api.cfg.Listener.Subscribe(journal.Channel, string(session))
	defer unsubscribe()
	get := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readTimeLimit)
		defer cancel()
		return c.api.cfg.DB.InTx(ctx, c.who.Org, func(tx pgx.Tx) (err error) {
			s, err = journal.Get(ctx, tx, c.who.Org, session)
			return err
		})
	}
	if err := get(); err != nil || wait <= 0 || done(s) {
		return s, err
	}
	leave, err := c.api.open.enter(c.who.ID)
	if err != nil {
		return s, err
	}
	defer leave()
	if err := httpx.ExtendWrite(c.w, wait+writeTimeout); err != nil {
		return s, err
	}
	over, poll := time.NewTimer(wait), time.NewTicker(pollEvery)
	defer over.Stop()
	defer poll.Stop()
	for {
		select {
		case <-ctx.Done():
			return s, ctx.Err()
		case <-over.C:
			return s, nil
		case <-c.api.cfg.Drain.Done():
			return s, nil
		case <-notices:
		case <-poll.C:
		}
		if err := get(); err != nil || done(s) {
			return s, err
		}
	}
}
