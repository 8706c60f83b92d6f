package bridge

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"time"

	"ambit.dev/ambit/sandbox/guest"
)

// A connection begins with one line of the client, "AMBIT-BRIDGE 1 <token>",
// and, for a control operation, its JSON body on the next. The allocation
// answers one JSON line, a Reply. After an accepted token whose use is the
// guest's, the guest protocol begins at the next byte.

const (
	greetingWord = "AMBIT-BRIDGE 1 "
	maxLine      = 64 << 10
	greetingTime = 10 * time.Second
)

// Refusal codes of a Reply.
const (
	CodeToken    = "token"    // not accepted; the client learns no more
	CodeFenced   = "fenced"   // a newer lease has the sandbox
	CodeSealed   = "sealed"   // it is being saved for its end
	CodeBusy     = "busy"     // something runs in it (seal with if_idle)
	CodeState    = "state"    // not claimed yet, or claimed by another session
	CodeEnded    = "ended"    // the machine is gone
	CodeSilent   = "silent"   // the machine runs, its guest does not answer
	CodeInternal = "internal" // see the allocation's log
)

// Refusal is what the allocation answers in place of doing what was asked.
type Refusal struct {
	Code    string
	Message string
}

// Error implements error.
func (r *Refusal) Error() string { return fmt.Sprintf("sandbox refused (%s): %s", r.Code, r.Message) }

// IsCode says whether err is a Refusal with that code.
func IsCode(err error, code string) bool {
	var r *Refusal
	return errors.As(err, &r) && r.Code == code
}

// ErrUnreachable means that no connection came about: what was asked for was
// certainly not begun.
var ErrUnreachable = errors.New("sandbox is not reachable")

type reply struct {
	OK      bool            `json:"ok"`
	Code    string          `json:"code,omitempty"`
	Message string          `json:"message,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"`
}

// lineConn gives back what was read beyond a line.
type lineConn struct {
	net.Conn
	r *bufio.Reader
}

func (c *lineConn) Read(p []byte) (int, error) { return c.r.Read(p) }

func (c *lineConn) line() ([]byte, error) {
	b, err := c.r.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) {
		return nil, fmt.Errorf("a line of more than %d bytes", maxLine)
	}
	return b, err
}

func newLineConn(c net.Conn) *lineConn {
	return &lineConn{Conn: c, r: bufio.NewReaderSize(c, maxLine)}
}

// dial greets with a token and returns the connection after a reply that
// accepts. ctx bounds the greeting only.
func dial(ctx context.Context, address, token string, body any) (*lineConn, json.RawMessage, error) {
	var d net.Dialer
	raw, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	conn := newLineConn(raw)
	stop := context.AfterFunc(ctx, func() { _ = raw.SetDeadline(time.Unix(1, 0)) })
	rep, err := greet(conn, token, body)
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = raw.Close()
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return nil, nil, err
	}
	return conn, rep.Body, nil
}

func greet(conn *lineConn, token string, body any) (reply, error) {
	var rep reply
	msg := []byte(greetingWord + token + "\n")
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return rep, fmt.Errorf("encode a request to a sandbox: %w", err)
		}
		msg = append(append(msg, b...), '\n')
	}
	if _, err := conn.Write(msg); err != nil {
		return rep, fmt.Errorf("%w: %w", ErrUnreachable, err)
	}
	line, err := conn.line()
	if err != nil {
		return rep, fmt.Errorf("%w before the sandbox answered: %w", guest.ErrDisconnected, err)
	}
	if err := json.Unmarshal(line, &rep); err != nil {
		return rep, fmt.Errorf("read a sandbox's answer: %w", err)
	}
	if !rep.OK {
		return rep, &Refusal{Code: rep.Code, Message: rep.Message}
	}
	return rep, nil
}

// DialGuest opens a connection to the guest behind an allocation. The token
// bounds what may be done on it. ctx bounds the opening only. ErrUnreachable and
// guest.ErrDisconnected mean that nothing was begun.
func DialGuest(ctx context.Context, address, token string) (*guest.Client, error) {
	conn, _, err := dial(ctx, address, token, nil)
	if err != nil {
		return nil, err
	}
	client, err := guest.Dial(ctx, conn)
	var refused *guest.Error
	switch {
	case err == nil:
		return client, nil
	case ctx.Err() != nil:
		return nil, context.Cause(ctx)
	case errors.As(err, &refused):
		return nil, fmt.Errorf("reach the guest: %w", err)
	default:
		return nil, fmt.Errorf("%w while reaching the guest: %w", guest.ErrDisconnected, err)
	}
}

// Control asks the allocation itself for something and reads its answer into
// out (which may be nil).
func Control(ctx context.Context, address, token string, body, out any) error {
	if body == nil {
		body = struct{}{}
	}
	conn, answer, err := dial(ctx, address, token, body)
	if err != nil {
		return err
	}
	defer conn.Close() //nolint:errcheck // the answer is there
	if out == nil || len(answer) == 0 {
		return nil
	}
	if err := json.Unmarshal(answer, out); err != nil {
		return fmt.Errorf("read a sandbox's answer: %w", err)
	}
	return nil
}

// Incoming is an accepted connection whose token was verified.
type Incoming struct {
	Claims Claims
	conn   *lineConn
}

// Receive reads and checks the greeting of a connection. It closes the
// connection when it returns an error.
func Receive(ctx context.Context, raw net.Conn, v *Verifier) (*Incoming, error) {
	conn := newLineConn(raw)
	_ = raw.SetDeadline(time.Now().Add(greetingTime))
	line, err := conn.line()
	if err != nil {
		_ = raw.Close()
		return nil, fmt.Errorf("read a greeting: %w", err)
	}
	token, ok := strings.CutPrefix(strings.TrimSuffix(string(line), "\n"), greetingWord)
	if !ok {
		_ = raw.Close()
		return nil, errors.New("read a greeting: not in the form of one")
	}
	claims, err := v.Verify(ctx, token)
	if err != nil {
		in := &Incoming{conn: conn}
		in.Refuse(CodeToken, "the token was not accepted")
		return nil, err
	}
	return &Incoming{Claims: claims, conn: conn}, nil
}

// Body reads the request of a control operation into out.
func (in *Incoming) Body(out any) error {
	line, err := in.conn.line()
	if err != nil {
		return fmt.Errorf("read a control request: %w", err)
	}
	if err := json.Unmarshal(line, out); err != nil {
		return fmt.Errorf("read a control request: %w", err)
	}
	return nil
}

// Refuse answers with a refusal and closes the connection.
func (in *Incoming) Refuse(code, message string) {
	_ = in.send(reply{Code: code, Message: message}) // it is closed in any case
	_ = in.conn.Close()
}

// Answer answers a control operation and closes the connection.
func (in *Incoming) Answer(body any) error {
	defer in.conn.Close() //nolint:errcheck // the answer was written or not
	raw, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	return in.send(reply{OK: true, Body: raw})
}

// Accept answers that the guest protocol may begin and returns its connection,
// without a deadline.
func (in *Incoming) Accept() (net.Conn, error) {
	if err := in.send(reply{OK: true}); err != nil {
		_ = in.conn.Close()
		return nil, err
	}
	if err := in.conn.SetDeadline(time.Time{}); err != nil {
		_ = in.conn.Close()
		return nil, fmt.Errorf("clear a deadline: %w", err)
	}
	return in.conn, nil
}

// Unhurried lifts the deadline of the greeting, for a control operation that
// may take longer than reading a line.
func (in *Incoming) Unhurried() { _ = in.conn.SetDeadline(time.Time{}) }

func (in *Incoming) send(r reply) error {
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode an answer: %w", err)
	}
	if _, err := in.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("answer: %w", err)
	}
	return nil
}

var _ io.Reader = (*lineConn)(nil)
