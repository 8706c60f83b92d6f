package apiclient

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// Handler gets what a stream brings, in order. An error from either of its functions ends the stream.
type Handler struct {
	// Event gets each journalled event once.
	Event func(e Event) error
	// Preview gets pieces of an event that is still being made; nil ignores them.
	Preview func(p Preview) error
	// Lost is told when the connection broke and is made again; nil ignores it.
	Lost func(err error, again time.Duration)
}

// errEnded says that the server ended the stream, as it does when there is nothing more to come.
var errEnded = errors.New("the stream has ended")

// Logs follows a session's journal from the event after seq `after` until the session ends, or forever, over as many connections as it
// takes. until is idle, terminated or never.
func (c *Client) Logs(ctx context.Context, session string, after int64, until string, h Handler) error {
	query := url.Values{"after_seq": {"0"}, "until": {until}}
	return c.resume(ctx, &after, h, func(e Event) bool {
		return e.Type == "session.status_terminated" || (until == "idle" && e.Type == "session.status_idle")
	}, func(ctx context.Context, header http.Header) (*http.Response, error) {
		return c.send(ctx, http.MethodGet, "/v1/sessions/"+url.PathEscape(session)+"/events/stream", query, nil, header)
	})
}

// Invoke sends an invoke in mode stream and follows it to its end. When the connection breaks, the same request with the same
// Idempotency-Key is attached to the work that the first one began.
func (c *Client) Invoke(ctx context.Context, body map[string]any, h Handler) error {
	body["mode"] = "stream"
	var input string
	after := int64(0)
	seen := h.Event
	h.Event = func(e Event) error {
		// The last message before the work begins is this one's.
		if e.Type == "user.message" && input == "" {
			input = e.ID
		}
		return seen(e)
	}
	key := rand.Text()
	return c.resume(ctx, &after, h, func(e Event) bool {
		if e.Type == "session.status_terminated" {
			return true
		}
		for _, one := range e.InputEventIDs {
			if e.Type == "session.status_idle" && one == input {
				return true
			}
		}
		return false
	}, func(ctx context.Context, header http.Header) (*http.Response, error) {
		header.Set("Idempotency-Key", key)
		return c.send(ctx, http.MethodPost, "/v1/invoke", nil, body, header)
	})
}

// resume keeps one logical stream over several connections. last says that an event is a stream's proper end: a connection that closes
// after it was not lost.
func (c *Client) resume(ctx context.Context, after *int64, h Handler, last func(Event) bool, connect func(context.Context, http.Header) (*http.Response, error)) error {
	wait, over, failed := time.Duration(0), false, 0
	inner := h.Event
	h.Event = func(e Event) error {
		over = last(e)
		*after, failed = e.Seq, 0
		return inner(e)
	}
	for {
		header := http.Header{"Accept": {"text/event-stream"}}
		if *after > 0 {
			header.Set("Last-Event-ID", strconv.FormatInt(*after, 10))
		}
		res, err := connect(ctx, header)
		if err == nil {
			err = c.read(res, h, &wait)
		}
		var p *Problem
		var stop stopError
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case errors.As(err, &stop):
			return stop.error
		case errors.Is(err, errEnded) && (over || res.StatusCode == http.StatusNoContent):
			return nil
		case errors.As(err, &p) && p.Status < 500 && p.Status != http.StatusTooManyRequests && p.Code != "idempotency_in_progress":
			return err
		case *after == 0 && p == nil && failed == 0 && res == nil:
			return err // never reached: a wrong address should be told at once
		}
		if failed++; failed > 30 {
			return fmt.Errorf("the stream broke off %d times in a row: %w", failed, err)
		}
		pause := max(wait, min(time.Duration(failed)*200*time.Millisecond, 5*time.Second))
		if h.Lost != nil {
			h.Lost(err, pause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
	}
}

// stopError is a handler's wish to end the stream.
type stopError struct{ error }

func (c *Client) read(res *http.Response, h Handler, wait *time.Duration) error {
	defer res.Body.Close() //nolint:errcheck // read as far as it goes
	if res.StatusCode == http.StatusNoContent {
		return errEnded
	}
	r := NewReader(res.Body)
	for {
		m, err := r.Next()
		if errors.Is(err, io.EOF) {
			return errEnded
		}
		if err != nil {
			return err
		}
		*wait = min(r.Retry, 2*time.Second)
		switch m.Event {
		case "event_start", "event_delta":
			var p Preview
			if h.Preview == nil || json.Unmarshal(m.Data, &p) != nil {
				continue
			}
			if err := h.Preview(p); err != nil {
				return stopError{err}
			}
		case "error":
			var p Problem
			if err := json.Unmarshal(m.Data, &p); err != nil {
				return fmt.Errorf("read an error in the stream: %w", err)
			}
			return &p
		default:
			e := Event{Raw: m.Data}
			if err := json.Unmarshal(m.Data, &e); err != nil {
				// It would be the same over another connection.
				return stopError{fmt.Errorf("read the event %s: %w", m.ID, err)}
			}
			if err := h.Event(e); err != nil {
				return stopError{err}
			}
		}
	}
}

// Message is one server-sent event.
type Message struct {
	ID    string
	Event string
	Data  []byte
}

// maxMessage bounds one message: events are bounded by what a model or a tool may give.
const maxMessage = 64 << 20

// Reader parses an event stream as the WHATWG HTML standard says (section 9.2.6).
type Reader struct {
	// Retry is the last retry field.
	Retry time.Duration

	s  *bufio.Scanner
	id string
}

// NewReader reads from r.
func NewReader(r io.Reader) *Reader {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), maxMessage)
	s.Split(splitLines)
	return &Reader{s: s}
}

// Next returns the next message, or io.EOF at the stream's end. A message that the end cuts off is dropped, as the standard wants.
func (r *Reader) Next() (Message, error) {
	m := Message{Event: "message"}
	some := false
	for r.s.Scan() {
		line := r.s.Bytes()
		if len(line) == 0 {
			if some {
				m.ID = r.id
				m.Data = m.Data[:len(m.Data)-1] // the last line break is not part of the data
				return m, nil
			}
			m = Message{Event: "message"}
			continue
		}
		name, value := cut(line)
		switch name {
		case "data":
			m.Data = append(append(m.Data, value...), '\n')
			some = true
			if len(m.Data) > maxMessage {
				return Message{}, fmt.Errorf("an event is larger than %d bytes", maxMessage)
			}
		case "event":
			m.Event = string(value)
		case "id":
			r.id = string(value)
		case "retry":
			if ms, err := strconv.ParseUint(string(value), 10, 31); err == nil {
				r.Retry = time.Duration(ms) * time.Millisecond
			}
		}
	}
	if err := r.s.Err(); err != nil {
		return Message{}, err
	}
	return Message{}, io.EOF
}

func cut(line []byte) (string, []byte) {
	for i, b := range line {
		if b == ':' {
			value := line[i+1:]
			if len(value) > 0 && value[0] == ' ' {
				value = value[1:]
			}
			return string(line[:i]), value
		}
	}
	return string(line), nil
}

// splitLines ends a line at LF, CR or CR LF.
func splitLines(data []byte, atEOF bool) (int, []byte, error) {
	for i, b := range data {
		switch b {
		case '\n':
			return i + 1, data[:i], nil
		case '\r':
			if i+1 < len(data) {
				if data[i+1] == '\n' {
					return i + 2, data[:i], nil
				}
				return i + 1, data[:i], nil
			}
			if atEOF {
				return i + 1, data[:i], nil
			}
			return 0, nil, nil // a line feed may follow
		}
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}
