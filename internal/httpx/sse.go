package httpx

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"
)

// StreamWriteTimeout is how long one write to an event stream may take before its reader counts as too slow and is cut.
const StreamWriteTimeout = 10 * time.Second

// streamWriteTimeout is StreamWriteTimeout, but in a test of it.
var streamWriteTimeout = StreamWriteTimeout

// ErrSlowReader is wrapped by a stream's error when its reader did not take what was written in time. Nothing is ever skipped for such
// a reader: it is cut, and resumes from the last id that it has seen.
var ErrSlowReader = errors.New("the reader of the stream is too slow")

// EventStream writes server-sent events (the WHATWG HTML standard, section 9.2). Its methods belong to one goroutine.
type EventStream struct {
	w   http.ResponseWriter
	c   *http.ResponseController
	buf bytes.Buffer
}

// StartEventStream sends the header and the retry field, and flushes, so that the reader knows at once that it is connected.
func StartEventStream(w http.ResponseWriter, retry time.Duration) (*EventStream, error) {
	h := w.Header()
	h.Set("Content-Type", "text/event-stream; charset=utf-8")
	h.Set("Cache-Control", "no-store, no-transform")
	// Nginx and its kin otherwise hold back small writes.
	h.Set("X-Accel-Buffering", "no")
	h.Del("Content-Length")
	s := &EventStream{w: w, c: http.NewResponseController(w)}
	w.WriteHeader(http.StatusOK)
	s.buf.WriteString("retry: ")
	s.buf.WriteString(strconv.FormatInt(retry.Milliseconds(), 10))
	s.buf.WriteString("\n\n")
	return s, s.Flush()
}

// Add puts an event into the buffer that the next Flush sends. id is left out when it is negative. name must not contain a line break;
// data may, and then takes several data fields.
func (s *EventStream) Add(id int64, name string, data []byte) {
	if id >= 0 {
		s.buf.WriteString("id: ")
		s.buf.WriteString(strconv.FormatInt(id, 10))
		s.buf.WriteByte('\n')
	}
	s.buf.WriteString("event: ")
	s.buf.WriteString(name)
	s.buf.WriteByte('\n')
	for {
		line, rest, more := bytes.Cut(data, []byte{'\n'})
		s.buf.WriteString("data: ")
		s.buf.Write(line)
		s.buf.WriteByte('\n')
		if !more {
			break
		}
		data = rest
	}
	s.buf.WriteByte('\n')
}

// Close gives the connection a fresh deadline for what net/http still writes after the handler: without it a stream that was silent for
// longer than StreamWriteTimeout would end in a broken connection in place of a clean end. It sends nothing itself.
func (s *EventStream) Close() {
	_ = s.c.SetWriteDeadline(time.Now().Add(streamWriteTimeout)) // a connection without deadlines, or a dead one, needs none
}

// Ping puts a comment into the buffer: it keeps proxies from closing a silent connection, and finds readers that are gone.
func (s *EventStream) Ping() { s.buf.WriteString(": ping\n\n") }

// Buffered is the number of bytes that the next Flush will send.
func (s *EventStream) Buffered() int { return s.buf.Len() }

// Flush sends the buffer. Its error wraps ErrSlowReader when the reader's connection stayed full for StreamWriteTimeout.
func (s *EventStream) Flush() error {
	if err := s.c.SetWriteDeadline(time.Now().Add(streamWriteTimeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return fmt.Errorf("set the stream's deadline: %w", err)
	}
	_, err := s.w.Write(s.buf.Bytes())
	s.buf.Reset()
	if s.buf.Cap() > 1<<20 {
		s.buf = bytes.Buffer{} // one large event must not be paid for until the stream ends
	}
	if err == nil {
		err = s.c.Flush()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("%w: %w", ErrSlowReader, err)
	}
	if err != nil {
		return fmt.Errorf("write to the stream: %w", err)
	}
	return nil
}
