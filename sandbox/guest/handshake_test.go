package guest

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// socketPair is a buffered connection, as a unix socket is and net.Pipe is not.
func socketPair(t *testing.T) (host, guest net.Conn) {
	t.Helper()
	l, err := net.Listen("unix", t.TempDir()+"/s")
	require.NoError(t, err)
	defer l.Close() //nolint:errcheck // a test's
	accepted := make(chan net.Conn, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			accepted <- c
		}
		close(accepted)
	}()
	host, err = net.Dial("unix", l.Addr().String())
	require.NoError(t, err)
	guest = <-accepted
	require.NotNil(t, guest)
	t.Cleanup(func() { _ = host.Close(); _ = guest.Close() })
	return host, guest
}

func within(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestHandshakeFindsItsWayThroughWhatIsLeft(t *testing.T) {
	for name, left := range map[string]string{
		"nothing":         "",
		"half a line":     "AMBIT 1 HEL",
		"binary":          "\x00\x01\x00\xff\n\n\x00",
		"another's lines": "AMBIT 1 HELLO 00112233445566778899aabbccddeeff\nAMBIT 1 OK 00112233445566778899aabbccddeeff\n",
		"much":            strings.Repeat("x", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			host, guest := socketPair(t)
			served := make(chan error, 1)
			go func() {
				// The guest's leftovers reach the host first, the host's the guest.
				if _, err := io.WriteString(guest, left); err != nil {
					served <- err
					return
				}
				nonce, err := AcceptHandshake(guest)
				if err == nil && len(nonce) != nonceBytes {
					err = io.ErrShortBuffer
				}
				if err == nil {
					_, err = io.WriteString(guest, "the first byte of what follows")
				}
				served <- err
			}()
			_, err := io.WriteString(host, left)
			require.NoError(t, err)
			require.NoError(t, hostHandshake(within(t), host))
			got := make([]byte, 30)
			_, err = io.ReadFull(host, got)
			require.NoError(t, err)
			require.Equal(t, "the first byte of what follows", string(got))
			require.NoError(t, <-served)
		})
	}
}

func TestHandshakeWithNobody(t *testing.T) {
	host, _ := socketPair(t)
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err := Dial(ctx, host)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	_, err = host.Write([]byte("x"))
	require.Error(t, err, "the connection is closed")
}

func TestHandshakeWithAnotherVersion(t *testing.T) {
	host, guest := socketPair(t)
	go func() {
		l, err := readHandshakeLine(guest)
		if err == nil {
			l.version = ProtocolVersion + 1
			_, _ = io.WriteString(guest, l.String())
		}
	}()
	_, err := Dial(within(t), host)
	require.True(t, IsCode(err, CodeVersion), err)
}

func TestHandshakeWithTheDead(t *testing.T) {
	host, guest := socketPair(t)
	require.NoError(t, guest.Close())
	_, err := Dial(within(t), host)
	require.Error(t, err)
}
