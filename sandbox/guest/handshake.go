package guest

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// The handshake exists because a byte channel into a virtual machine has no
// notion of a connection: after a restore, or after a client that died, either
// end may still hold bytes of a conversation that is over. The host repeats
// HELLO with a fresh nonce until that nonce is echoed, and skips all else; then
// GO and OK with the same nonce mark the exact byte at which yamux begins.
//
//	host:  AMBIT 1 HELLO <nonce>\n      (repeated)
//	guest: AMBIT 1 HELLO <nonce>\n
//	host:  AMBIT 1 GO <nonce>\n
//	guest: AMBIT 1 OK <nonce>\n

const (
	handshakeWord = "AMBIT"
	helloEvery    = 25 * time.Millisecond
	nonceBytes    = 16
	// maxHandshakeLine bounds what is kept while looking for a line's end.
	maxHandshakeLine = 128
)

// handshakeLine is one line of the handshake.
type handshakeLine struct {
	version int
	verb    string
	nonce   string
}

func (l handshakeLine) String() string {
	return fmt.Sprintf("%s %d %s %s\n", handshakeWord, l.version, l.verb, l.nonce)
}

// parseHandshakeLine reads a line without its newline. Whatever stands before
// the word AMBIT is left over from an earlier conversation and is ignored.
func parseHandshakeLine(s string) (handshakeLine, bool) {
	i := strings.LastIndex(s, handshakeWord+" ")
	if i < 0 {
		return handshakeLine{}, false
	}
	f := strings.Split(s[i:], " ")
	if len(f) != 4 {
		return handshakeLine{}, false
	}
	v, err := strconv.Atoi(f[1])
	if err != nil || v < 1 {
		return handshakeLine{}, false
	}
	if f[2] != "HELLO" && f[2] != "GO" && f[2] != "OK" {
		return handshakeLine{}, false
	}
	if len(f[3]) != 2*nonceBytes {
		return handshakeLine{}, false
	}
	if _, err := hex.DecodeString(f[3]); err != nil {
		return handshakeLine{}, false
	}
	return handshakeLine{version: v, verb: f[2], nonce: f[3]}, true
}

// readHandshakeLine reads byte by byte: not one byte behind the newline may be
// taken, because yamux begins there.
func readHandshakeLine(r io.Reader) (handshakeLine, error) {
	var buf []byte
	one := make([]byte, 1)
	for {
		n, err := r.Read(one)
		if n == 1 {
			if one[0] == '\n' {
				if l, ok := parseHandshakeLine(string(buf)); ok {
					return l, nil
				}
				buf = buf[:0]
				continue
			}
			if len(buf) == maxHandshakeLine {
				buf = append(buf[:0], buf[maxHandshakeLine/2:]...)
			}
			buf = append(buf, one[0])
		}
		if err != nil {
			return handshakeLine{}, err
		}
	}
}

// hostHandshake performs the client's side. ctx bounds it.
func hostHandshake(ctx context.Context, conn net.Conn) error {
	raw := make([]byte, nonceBytes)
	if _, err := rand.Read(raw); err != nil {
		return fmt.Errorf("make a nonce: %w", err)
	}
	nonce := hex.EncodeToString(raw)
	hello := handshakeLine{ProtocolVersion, "HELLO", nonce}.String()

	// Reads stop when ctx does.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	fail := func(err error) error {
		if ctx.Err() != nil {
			return fmt.Errorf("guest did not answer: %w", context.Cause(ctx))
		}
		return fmt.Errorf("guest handshake: %w", err)
	}

	lines := make(chan handshakeLine)
	readErr := make(chan error, 1)
	done := make(chan struct{})
	go func() {
		for {
			l, err := readHandshakeLine(conn)
			if err == nil && l.nonce != nonce {
				continue // an answer to somebody before us
			}
			if err != nil {
				readErr <- err
				return
			}
			select {
			case lines <- l:
			case <-done:
				return
			}
			if l.verb == "OK" {
				return // the next byte is yamux's
			}
		}
	}()
	defer close(done)

	tick := time.NewTicker(helloEvery)
	defer tick.Stop()
	if _, err := io.WriteString(conn, hello); err != nil {
		return fail(err)
	}
	greeted := false
	for {
		select {
		case l := <-lines:
			if l.version != ProtocolVersion {
				return Errorf(CodeVersion, "the guest speaks protocol %d, this build speaks %d", l.version, ProtocolVersion)
			}
			switch l.verb {
			case "HELLO":
				if greeted {
					continue
				}
				greeted = true
				if _, err := io.WriteString(conn, handshakeLine{ProtocolVersion, "GO", nonce}.String()); err != nil {
					return fail(err)
				}
			case "OK":
				if !greeted {
					return fail(errors.New("answers came out of order"))
				}
				if !stop() {
					return fail(context.Cause(ctx)) // the deadline is already set on conn
				}
				return nil
			}
		case err := <-readErr:
			return fail(err)
		case <-tick.C:
			if greeted {
				continue
			}
			if _, err := io.WriteString(conn, hello); err != nil {
				return fail(err)
			}
		}
	}
}

// AcceptHandshake performs the guest's side on a channel. It returns the nonce
// (fresh random bytes from the host, good for reseeding) once yamux may begin.
func AcceptHandshake(rw io.ReadWriter) (nonce []byte, err error) {
	var greeted string
	for {
		l, err := readHandshakeLine(rw)
		if err != nil {
			return nil, err
		}
		switch {
		case l.verb == "HELLO":
			greeted = l.nonce
			if _, err := io.WriteString(rw, handshakeLine{ProtocolVersion, "HELLO", l.nonce}.String()); err != nil {
				return nil, err
			}
		case l.verb == "GO" && l.version == ProtocolVersion && l.nonce == greeted:
			if _, err := io.WriteString(rw, handshakeLine{ProtocolVersion, "OK", l.nonce}.String()); err != nil {
				return nil, err
			}
			return hex.DecodeString(l.nonce)
		}
	}
}
