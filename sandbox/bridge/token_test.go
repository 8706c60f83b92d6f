package bridge_test

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/guest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const box = "sbx_one"

type key struct {
	kid     string
	private ed25519.PrivateKey
}

func newKey(t testing.TB, kid string) key {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	return key{kid, private}
}

func (k key) set() jose.JSONWebKeySet {
	return jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: k.private.Public(), KeyID: k.kid, Algorithm: "EdDSA"}}}
}

func (k key) sign(t testing.TB, claims any) string {
	t.Helper()
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: k.private}, (&jose.SignerOptions{}).WithHeader("kid", k.kid))
	require.NoError(t, err)
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	jws, err := s.Sign(payload)
	require.NoError(t, err)
	token, err := jws.CompactSerialize()
	require.NoError(t, err)
	return token
}

func TestATokenIsAcceptedOnceByItsSandboxForAMinute(t *testing.T) {
	k, stranger := newKey(t, "a"), newKey(t, "a")
	now := time.Now()
	fresh := func(change func(*bridge.Claims)) bridge.Claims {
		c := bridge.NewClaims(now, box, "ses_one", bridge.UseExec, 3, "eff")
		if change != nil {
			change(&c)
		}
		return c
	}
	v := bridge.NewVerifier(box, "", k.set(), http.DefaultClient)
	good := k.sign(t, fresh(nil))
	c, err := v.Verify(t.Context(), good)
	require.NoError(t, err)
	require.Equal(t, "ses_one", c.Session)
	require.EqualValues(t, 3, c.Epoch)

	none, err := json.Marshal(fresh(nil))
	require.NoError(t, err)
	for name, token := range map[string]string{
		"used before":          good,
		"of another sandbox":   k.sign(t, fresh(func(c *bridge.Claims) { c.Sandbox = "sbx_two" })),
		"of another issuer":    k.sign(t, fresh(func(c *bridge.Claims) { c.Issuer = "somebody" })),
		"expired":              k.sign(t, bridge.NewClaims(now.Add(-2*time.Minute), box, "ses_one", bridge.UseExec, 3, "eff")),
		"from the future":      k.sign(t, bridge.NewClaims(now.Add(2*time.Minute), box, "ses_one", bridge.UseExec, 3, "eff")),
		"living too long":      k.sign(t, fresh(func(c *bridge.Claims) { c.ExpiresAt += 3600 })),
		"without an id":        k.sign(t, fresh(func(c *bridge.Claims) { c.ID = "" })),
		"without a use":        k.sign(t, fresh(func(c *bridge.Claims) { c.Use = "" })),
		"signed by a stranger": stranger.sign(t, fresh(nil)),
		"of no known key":      newKey(t, "b").sign(t, fresh(nil)),
		"changed":              good[:len(good)-4] + "AAAA",
		"not signed":           "eyJhbGciOiJub25lIn0." + string(none) + ".",
		"empty":                "",
	} {
		t.Run(name, func(t *testing.T) {
			_, err := v.Verify(t.Context(), token)
			require.ErrorIs(t, err, bridge.ErrToken)
		})
	}
}

func TestARotatedKeyIsFetchedAndForgeriesAreNot(t *testing.T) {
	old, current := newKey(t, "old"), newKey(t, "new")
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_ = json.NewEncoder(w).Encode(current.set())
	}))
	defer server.Close()
	defer server.Client().CloseIdleConnections()
	v := bridge.NewVerifier(box, server.URL, old.set(), server.Client())
	_, err := v.Verify(t.Context(), current.sign(t, bridge.NewClaims(time.Now(), box, "s", bridge.UsePing, 0, "")))
	require.NoError(t, err)
	for range 20 {
		_, err = v.Verify(t.Context(), newKey(t, "forged").sign(t, bridge.NewClaims(time.Now(), box, "s", bridge.UsePing, 0, "")))
		require.ErrorIs(t, err, bridge.ErrToken)
	}
	require.EqualValues(t, 1, asked.Load(), "forged tokens do not become requests")
}

func TestATokenAdmitsWhatItNames(t *testing.T) {
	exec := bridge.NewClaims(time.Now(), box, "s", bridge.UseExec, 3, "eff-1")
	request := func(op guest.Op, body string) guest.Request {
		return guest.Request{Op: op, Body: json.RawMessage(body)}
	}
	require.NoError(t, exec.Allows(request(guest.OpExec, `{"effect_key":"eff-1","epoch":3}`)))
	require.NoError(t, exec.Allows(request(guest.OpSignal, `{"effect_key":"eff-1","epoch":3,"signal":9}`)))
	require.NoError(t, exec.Allows(request(guest.OpReadOutput, `{"effect_key":"eff-1"}`)))
	for name, req := range map[string]guest.Request{
		"another effect":  request(guest.OpExec, `{"effect_key":"eff-2","epoch":3}`),
		"no effect":       request(guest.OpExec, `{"epoch":3}`),
		"another epoch":   request(guest.OpExec, `{"effect_key":"eff-1","epoch":4}`),
		"a file":          request(guest.OpWriteFile, `{"path":"x","epoch":3}`),
		"a configuration": request(guest.OpConfigure, `{"sandbox_id":"x","epoch":3}`),
		"a shutdown":      request(guest.OpShutdown, `{}`),
		"no JSON":         request(guest.OpExec, `{`),
	} {
		require.ErrorIs(t, exec.Allows(req), bridge.ErrToken, name)
	}
	attach := bridge.NewClaims(time.Now(), box, "s", bridge.UseAttach, 3, "eff-1")
	require.ErrorIs(t, attach.Allows(request(guest.OpExec, `{"effect_key":"eff-1","epoch":3}`)), bridge.ErrToken, "attaching starts nothing")
	look := bridge.NewClaims(time.Now(), box, "s", bridge.UseRead, 0, "")
	require.NoError(t, look.Allows(request(guest.OpList, `{"path":"."}`)))
	require.ErrorIs(t, look.Allows(request(guest.OpRemove, `{"path":".","epoch":3}`)), bridge.ErrToken)
	require.ErrorIs(t, look.Allows(request(guest.OpAttach, `{"effect_key":"eff-1"}`)), bridge.ErrToken)
	require.ErrorIs(t, bridge.NewClaims(time.Now(), box, "s", "unheard", 3, "").Allows(request(guest.OpInfo, `{}`)), bridge.ErrToken)
}

func TestControlOverAConnection(t *testing.T) {
	k := newKey(t, "a")
	v := bridge.NewVerifier(box, "", k.set(), http.DefaultClient)
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // a test
	require.NoError(t, err)
	defer l.Close() //nolint:errcheck // a test
	serve := func(answer func(*bridge.Incoming)) {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if in, err := bridge.Receive(t.Context(), conn, v); err == nil {
			answer(in)
		}
	}
	token := func() string { return k.sign(t, bridge.NewClaims(time.Now(), box, "s", bridge.UseEnd, 0, "")) }

	go serve(func(in *bridge.Incoming) {
		var req bridge.EndRequest
		if in.Body(&req) == nil {
			_ = in.Answer(bridge.EndAnswer{PID: 7, Detail: req.Reason})
		}
	})
	var answer bridge.EndAnswer
	require.NoError(t, bridge.Control(t.Context(), l.Addr().String(), token(), bridge.EndRequest{Reason: "killed"}, &answer))
	require.Equal(t, bridge.EndAnswer{PID: 7, Detail: "killed"}, answer)

	go serve(func(in *bridge.Incoming) { in.Refuse(bridge.CodeFenced, "too old") })
	err = bridge.Control(t.Context(), l.Addr().String(), token(), nil, nil)
	require.True(t, bridge.IsCode(err, bridge.CodeFenced), "%v", err)

	go serve(func(*bridge.Incoming) {})
	err = bridge.Control(t.Context(), l.Addr().String(), "forged", nil, nil)
	require.True(t, bridge.IsCode(err, bridge.CodeToken), "%v", err)

	require.NoError(t, l.Close())
	require.ErrorIs(t, bridge.Control(t.Context(), l.Addr().String(), token(), nil, nil), bridge.ErrUnreachable)
}

// FuzzReceive sends arbitrary bytes where a greeting is due: nothing may be
// accepted, and nothing may hang or panic.
func FuzzReceive(f *testing.F) {
	k := newKey(f, "a")
	f.Add([]byte("AMBIT-BRIDGE 1 x.y.z\n"))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"))
	f.Add([]byte(strings.Repeat("a", 70_000)))
	f.Fuzz(func(t *testing.T, greeting []byte) {
		v := bridge.NewVerifier(box, "", k.set(), http.DefaultClient)
		here, there := net.Pipe()
		go func() {
			_, _ = here.Write(greeting)
			if !bytes.Contains(greeting, []byte("\n")) {
				_ = here.Close() // nothing more would come
				return
			}
			_ = here.SetReadDeadline(time.Now().Add(time.Second))
			_, _ = here.Read(make([]byte, 256))
			_ = here.Close()
		}()
		in, err := bridge.Receive(t.Context(), there, v)
		require.Error(t, err)
		require.Nil(t, in)
		_ = here.Close()
	})
}
