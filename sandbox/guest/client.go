package guest

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"github.com/hashicorp/yamux"
)

// Client speaks to one guest. It is safe for concurrent use: each call has a
// stream of its own. When a call's context ends, the call returns and its
// stream closes; a command that it had started goes on in the guest.
type Client struct {
	mux  *yamux.Session
	once sync.Once
}

// Dial performs the handshake on conn and returns a client that owns it. ctx
// bounds the handshake only. conn is closed when Dial fails.
func Dial(ctx context.Context, conn net.Conn) (*Client, error) {
	if err := hostHandshake(ctx, conn); err != nil {
		_ = conn.Close()
		return nil, err
	}
	mux, err := yamux.Client(conn, MuxConfig())
	if err != nil {
		_ = conn.Close()
		return nil, fmt.Errorf("start the multiplexer: %w", err)
	}
	return &Client{mux: mux}, nil
}

// MuxConfig is how both ends set yamux. Keep-alives and open timeouts are off:
// a paused guest answers nothing for hours and is not dead for that; whether a
// machine lives is the driver's to say.
func MuxConfig() *yamux.Config {
	c := yamux.DefaultConfig()
	c.EnableKeepAlive = false
	c.StreamOpenTimeout = 0
	c.ConnectionWriteTimeout = 60 * time.Second
	c.LogOutput = io.Discard
	return c
}

// Close ends the connection. Commands in the guest go on. Idempotent.
func (c *Client) Close() error {
	var err error
	c.once.Do(func() { err = c.mux.Close() })
	return err
}

// Done is closed when the connection is gone, for whatever reason.
func (c *Client) Done() <-chan struct{} { return c.mux.CloseChan() }

// call is one stream.
type call struct {
	ctx    context.Context //nolint:containedctx // a call is its context
	stream *yamux.Stream
	fr     *FrameReader
	stop   func() bool
	once   sync.Once
}

// open sends a request on a new stream.
func (c *Client) open(ctx context.Context, operation Op, body any) (*call, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("encode guest request: %w", err)
	}
	if len(raw) > MaxFrame-frameSpare {
		return nil, Errorf(CodeTooLarge, "the request has %d bytes; at most %d fit", len(raw), MaxFrame-frameSpare)
	}
	stream, err := c.mux.OpenStream()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDisconnected, err)
	}
	k := &call{ctx: ctx, stream: stream, fr: NewFrameReader(bufio.NewReaderSize(stream, dataChunk+frameHeader))}
	k.stop = context.AfterFunc(ctx, func() { _ = stream.SetDeadline(time.Unix(1, 0)) })
	if err := WriteJSON(stream, FrameRequest, Request{Op: operation, Body: raw}); err != nil {
		k.close()
		return nil, k.wrap(err)
	}
	return k, nil
}

// close ends the stream; the guest sees its end and stops answering.
func (k *call) close() {
	k.once.Do(func() {
		k.stop()
		_ = k.stream.Close()
	})
}

// wrap gives transport errors their meaning.
func (k *call) wrap(err error) error {
	switch {
	case err == nil:
		return nil
	case k.ctx.Err() != nil:
		return context.Cause(k.ctx)
	case errors.Is(err, errFrame):
		return fmt.Errorf("guest answer: %w", err)
	default:
		return fmt.Errorf("%w: %w", ErrDisconnected, err)
	}
}

// next reads a frame; an error frame becomes its Error.
func (k *call) next() (FrameType, []byte, error) {
	t, p, err := k.fr.Next()
	if err != nil {
		return 0, nil, k.wrap(err)
	}
	if t == FrameError {
		ge := &Error{}
		if err := json.Unmarshal(p, ge); err != nil || ge.Code == "" {
			return 0, nil, fmt.Errorf("guest answer: %w: error frame", errFrame)
		}
		return 0, nil, ge
	}
	return t, p, nil
}

// result reads frames until the result, giving data frames to onData.
func (k *call) result(out any, onData func([]byte) error) error {
	for {
		t, p, err := k.next()
		if err != nil {
			return err
		}
		switch t {
		case FrameData:
			if onData == nil {
				return fmt.Errorf("guest answer: %w: unexpected data", errFrame)
			}
			if err := onData(p); err != nil {
				return err
			}
		case FrameEnd:
		case FrameResult:
			if out == nil {
				return nil
			}
			if err := json.Unmarshal(p, out); err != nil {
				return fmt.Errorf("guest answer: %w: result: %w", errFrame, err)
			}
			return nil
		default:
			return fmt.Errorf("guest answer: %w: type %d", errFrame, t)
		}
	}
}

// unary is a request with one answer.
func (c *Client) unary(ctx context.Context, operation Op, body, out any) error {
	k, err := c.open(ctx, operation, body)
	if err != nil {
		return err
	}
	defer k.close()
	return k.result(out, nil)
}

// upload sends exactly size bytes of r, then the end mark, and reads the answer
// meanwhile: a guest that refuses early reads no more, and a write that waits
// for its window would wait for ever.
func (k *call) upload(r io.Reader, size int64, out any) error {
	sent := make(chan error, 1)
	go func() { sent <- k.send(r, size) }()
	err := k.result(out, nil)
	k.close() // lets a waiting write go
	sendErr := <-sent
	var re *readError
	if errors.As(sendErr, &re) && !IsCode(err, CodeNoSpace) {
		return sendErr // the guest only saw the content break off
	}
	return err
}

// readError is a failure of the caller's own reader.
type readError struct{ err error }

func (e *readError) Error() string { return "read what is to be sent to the guest: " + e.err.Error() }
func (e *readError) Unwrap() error { return e.err }

func (k *call) send(r io.Reader, size int64) error {
	buf := make([]byte, dataChunk)
	for left := size; left > 0; {
		n, err := io.ReadFull(r, buf[:min(int64(len(buf)), left)])
		if err != nil {
			_ = k.stream.Close() // half: the guest refuses, and its answer comes back
			return &readError{err}
		}
		left -= int64(n)
		if err := WriteFrame(k.stream, FrameData, buf[:n]); err != nil {
			return err
		}
	}
	return WriteFrame(k.stream, FrameEnd, nil)
}
