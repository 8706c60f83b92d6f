package guest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"github.com/hashicorp/yamux"
)

// Relay lets another client share this client's guest: it answers the
// handshake on conn and carries each of that client's streams to the guest and
// back. The channel into a machine has one user at a time, so a process that
// holds it (to save files when it must end, say) relays everybody else. Relay
// returns when conn or the guest's connection closes, or ctx ends; it closes
// conn, never c.
func (c *Client) Relay(ctx context.Context, conn net.Conn) error {
	return c.RelayOnly(ctx, conn, nil)
}

// RelayOnly is Relay for a client that may not do everything: allow sees the
// request that opens each stream, before the guest does, and an error of it is
// the client's answer (an *Error as it is, any other as invalid_request).
func (c *Client) RelayOnly(ctx context.Context, conn net.Conn, allow func(Request) error) error {
	defer conn.Close() //nolint:errcheck // read errors tell more
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	if _, err := AcceptHandshake(conn); err != nil {
		return fmt.Errorf("relay handshake: %w", err)
	}
	mux, err := yamux.Server(conn, MuxConfig())
	if err != nil {
		return fmt.Errorf("relay: start the multiplexer: %w", err)
	}
	defer mux.Close() //nolint:errcheck // closing twice is harmless

	var streams sync.WaitGroup
	defer streams.Wait()
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		select {
		case <-c.Done():
			_ = mux.Close()
		case <-ended:
		}
	}()
	for {
		in, err := mux.AcceptStream()
		if err != nil {
			switch {
			case ctx.Err() != nil:
				return context.Cause(ctx)
			case c.mux.IsClosed():
				return ErrDisconnected
			case errors.Is(err, io.EOF):
				return nil
			}
			return fmt.Errorf("relay: %w", err)
		}
		streams.Go(func() { c.relayStream(in, allow) })
	}
}

// relayStream carries one stream. The end of either direction is passed on, so
// that the guest sees a client detach and the client sees an answer end.
func (c *Client) relayStream(in *yamux.Stream, allow func(Request) error) {
	defer in.Close() //nolint:errcheck // nothing to be done
	var opening *Request
	if allow != nil {
		// The reader takes exactly one frame: what follows is copied untouched.
		req, err := DecodeRequest(NewFrameReader(in))
		if err != nil {
			return
		}
		if err := allow(req); err != nil {
			refusal := &Error{}
			if !errors.As(err, &refusal) {
				refusal = Errorf(CodeInvalid, "%s", err)
			}
			_ = WriteJSON(in, FrameError, refusal)
			return
		}
		opening = &req
	}
	out, err := c.mux.OpenStream()
	if err != nil {
		_ = WriteJSON(in, FrameError, Errorf(CodeInternal, "the guest's connection is gone"))
		return
	}
	defer out.Close() //nolint:errcheck // closing twice is harmless
	if opening != nil {
		if err := WriteJSON(out, FrameRequest, opening); err != nil {
			_ = WriteJSON(in, FrameError, Errorf(CodeInternal, "the guest's connection is gone"))
			return
		}
	}
	back := make(chan struct{})
	go func() {
		defer close(back)
		_, _ = io.Copy(in, out)
		_ = in.Close()
	}()
	_, _ = io.Copy(out, in)
	_ = out.Close()
	<-back
}
