package sse

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
)

// Limits of one stream.
const (
	// DefaultMaxEvent bounds one event's data, in bytes.
	DefaultMaxEvent = 8 << 20
	// DefaultMaxStream bounds all bytes of a stream, comments included, so that an endless one ends.
	DefaultMaxStream = 128 << 20
)

// ErrTooLarge says that an event or the whole stream is larger than its limit.
var ErrTooLarge = errors.New("event stream too large")

// Event is one event with data.
type Event struct {
	// Type is "message" when the server named none.
	Type string
	ID   string
	Data []byte
	// Unterminated marks an event that the stream's end cut off before its blank line. The standard would drop it. Some servers omit the
	// last blank line, so it is handed over: data that does not parse was cut, data that does is whole.
	Unterminated bool
}

// Reader splits a stream into events.
type Reader struct {
	src       *bufio.Reader
	maxEvent  int
	remaining int64
	skipLF    bool
	started   bool
	ended     bool
}

// NewReader reads from r with the default limits.
func NewReader(r io.Reader) *Reader { return NewReaderLimits(r, DefaultMaxEvent, DefaultMaxStream) }

// NewReaderLimits reads from r with limits in bytes, both above zero.
func NewReaderLimits(r io.Reader, maxEvent int, maxStream int64) *Reader {
	return &Reader{src: bufio.NewReaderSize(r, 32<<10), maxEvent: maxEvent, remaining: maxStream}
}

// Next returns the next event that has data. It returns io.EOF at a clean end of the stream, the source's error as it is, or ErrTooLarge.
// The event's Data is the caller's to keep.
func (r *Reader) Next() (Event, error) {
	var (
		e    Event
		data []byte
		has  bool
	)
	for {
		if r.ended {
			return Event{}, io.EOF
		}
		line, err := r.line()
		atEnd := errors.Is(err, io.EOF)
		if err != nil && !atEnd {
			return Event{}, err
		}
		if atEnd {
			r.ended = true
		}
		if len(line) == 0 {
			if has {
				e.Data, e.Unterminated = data, atEnd
				if e.Type == "" {
					e.Type = "message"
				}
				return e, nil
			}
			e = Event{} // an event without data is dropped, its name with it
			continue
		}
		name, value := field(line)
		switch name {
		case "data":
			if len(data)+len(value)+1 > r.maxEvent {
				return Event{}, fmt.Errorf("%w: one event has more than %d bytes", ErrTooLarge, r.maxEvent)
			}
			if has {
				data = append(data, '\n')
			}
			data, has = append(data, value...), true
		case "event":
			e.Type = string(value)
		case "id":
			if !bytes.ContainsRune(value, 0) {
				e.ID = string(value)
			}
		}
		if atEnd && has {
			e.Data, e.Unterminated = data, true
			if e.Type == "" {
				e.Type = "message"
			}
			return e, nil
		}
	}
}

// field splits "name: value"; a comment has an empty name.
func field(line []byte) (string, []byte) {
	name, value, found := bytes.Cut(line, []byte(":"))
	if !found {
		return string(line), nil
	}
	return string(name), bytes.TrimPrefix(value, []byte(" "))
}

// line returns the next line without its ending, which is LF, CR or CRLF. At the end of the stream it returns what was left and io.EOF.
func (r *Reader) line() ([]byte, error) {
	var line []byte
	for {
		if _, err := r.src.Peek(1); err != nil {
			return line, err
		}
		// Look at all that is buffered, without waiting for more: a server may pause after any byte.
		chunk, err := r.src.Peek(r.src.Buffered())
		if err != nil {
			return line, err
		}
		if r.skipLF {
			r.skipLF = false
			if chunk[0] == '\n' {
				if err := r.discard(1); err != nil {
					return nil, err
				}
				continue
			}
		}
		if !r.started {
			// A byte order mark may open the stream. It can come in pieces; then wait for the rest of it.
			if bom := []byte("\xef\xbb\xbf"); chunk[0] == bom[0] {
				head, err := r.src.Peek(3)
				if err != nil && !errors.Is(err, io.EOF) {
					return nil, err
				}
				if bytes.Equal(head, bom) {
					r.started = true
					if err := r.discard(3); err != nil {
						return nil, err
					}
					continue
				}
			}
			r.started = true
		}
		end := bytes.IndexAny(chunk, "\r\n")
		if end < 0 {
			if len(line)+len(chunk) > r.maxEvent {
				return nil, fmt.Errorf("%w: one line has more than %d bytes", ErrTooLarge, r.maxEvent)
			}
			line = append(line, chunk...)
			if err := r.discard(len(chunk)); err != nil {
				return nil, err
			}
			continue
		}
		if len(line)+end > r.maxEvent {
			return nil, fmt.Errorf("%w: one line has more than %d bytes", ErrTooLarge, r.maxEvent)
		}
		line = append(line, chunk[:end]...)
		r.skipLF = chunk[end] == '\r'
		if err := r.discard(end + 1); err != nil {
			return nil, err
		}
		return line, nil
	}
}

func (r *Reader) discard(n int) error {
	if r.remaining -= int64(n); r.remaining < 0 {
		return fmt.Errorf("%w: the stream goes on and on", ErrTooLarge)
	}
	_, err := r.src.Discard(n)
	return err
}
