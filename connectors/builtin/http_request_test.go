package builtin_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/connectors/builtin"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/fault"
)

// hosts resolves names of tests.
type hosts map[string]string

func (h hosts) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	if a, ok := h[strings.TrimSuffix(host, ".")]; ok {
		return []netip.Addr{netip.MustParseAddr(a)}, nil
	}
	return nil, &net.DNSError{Err: "no such host", IsNotFound: true}
}

// outside is a server on loopback under the name api.example.com, and the tool with a rule for it.
type outside struct {
	port string
	tool connectors.Tool
	lost bool // the worker that began the call
	mu   sync.Mutex
	seen []*http.Request
	body []string
}

func newOutside(t *testing.T, handler http.HandlerFunc, more ...string) *outside {
	t.Helper()
	o := &outside{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		o.mu.Lock()
		o.seen, o.body = append(o.seen, r), append(o.body, string(b))
		o.mu.Unlock()
		handler(w, r)
	}))
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	o.port = u.Port()
	client := egress.New(egress.Config{AllowLoopback: true, Resolver: hosts{"api.example.com": "127.0.0.1", "other.example.com": "127.0.0.1", "inside.example.com": "10.0.0.1"}})
	o.tool = builtin.HTTPRequest(builtin.Outside{Client: client, Reach: func(_ context.Context, g gate.Grant) (builtin.Reach, error) {
		require.Equal(t, "stp_key", g.EffectKey)
		rules, _, err := egress.ParseRules(append([]string{"api.example.com:" + o.port, "inside.example.com"}, more...))
		return builtin.Reach{Hosts: rules, Repeated: o.lost}, err
	}})
	return o
}

// send is a call as it is after its admission.
func (o *outside) send(t *testing.T, arguments m) connectors.Result {
	t.Helper()
	if u, _ := arguments["url"].(string); strings.HasPrefix(u, "/") {
		arguments["url"] = "http://api.example.com:" + o.port + u
	}
	input, err := json.Marshal(arguments)
	require.NoError(t, err)
	r, err := connectors.NewRegistry(o.tool)
	require.NoError(t, err)
	p, err := r.Check("http_request", input)
	require.NoError(t, err)
	require.False(t, p.Sandbox)
	res, err := o.tool.Outside(t.Context(), gate.Grant{EffectKey: "stp_key"}, input)
	require.NoError(t, err)
	require.LessOrEqual(t, len(res.Text), connectors.MaxResultBytes+1000)
	return res
}

func TestHTTPRequest(t *testing.T) {
	o := newOutside(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/missing" {
			w.WriteHeader(404)
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = w.Write([]byte(`{"ok":true}`))
	})
	res := o.send(t, m{"method": "POST", "url": "/x?y=z", "headers": m{"authorization": "Bearer k", "Content-Type": "text/plain"}, "body": "hello"})
	require.False(t, res.IsError)
	require.True(t, strings.HasPrefix(res.Text, "HTTP 200 OK\n"), res.Text)
	require.Contains(t, res.Text, "content-type: application/json\n")
	require.True(t, strings.HasSuffix(res.Text, "\n\n{\"ok\":true}"), res.Text)
	require.Equal(t, "stp_key", o.seen[0].Header.Get("Idempotency-Key"), "the effect key goes to the other side")
	require.Equal(t, "Bearer k", o.seen[0].Header.Get("Authorization"))
	require.Equal(t, "hello", o.body[0])
	require.Equal(t, "/x?y=z", o.seen[0].RequestURI)
	require.True(t, o.send(t, m{"url": "/missing"}).IsError)
	require.Contains(t, o.send(t, m{"method": "HEAD", "url": "/x"}).Text, "HTTP 200 OK")
}

func TestHTTPRequestReachesAllowedHostsOnly(t *testing.T) {
	o := newOutside(t, func(http.ResponseWriter, *http.Request) {}, "other.example.com:9999")
	for _, u := range []string{
		"https://example.com/", "http://api.example.com/", "http://other.example.com:" + o.port + "/", "http://127.0.0.1:" + o.port + "/", "http://localhost:" + o.port + "/",
		"http://xapi.example.com:" + o.port + "/", "http://api.example.com.evil.example:" + o.port + "/", "http://[::1]:" + o.port + "/", "http://169.254.169.254/latest/meta-data/",
		"http://аpi.example.com:" + o.port + "/",
	} {
		res := o.send(t, m{"url": u})
		require.True(t, res.IsError, u)
		require.Contains(t, res.Text, "Nothing was sent", u)
		require.Contains(t, res.Text, "Hosts that it may reach: api.example.com", "it can act on the reason: "+res.Text)
	}
	res := o.send(t, m{"url": "http://inside.example.com/"})
	require.True(t, res.IsError)
	require.Contains(t, res.Text, "10.0.0.1", "a rule does not open a private network")
	require.Empty(t, o.seen)
	// Other spellings of the allowed host are the allowed host.
	for _, u := range []string{"http://API.Example.COM:" + o.port + "/", "http://api.example.com.:" + o.port + "/"} {
		require.False(t, o.send(t, m{"url": u}).IsError, u)
	}
}

func TestHTTPRequestFollowsNoRedirect(t *testing.T) {
	var to string
	o := newOutside(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/go" {
			w.Header().Set("Location", to)
			w.WriteHeader(302)
		}
	})
	for _, to = range []string{
		"/end", "?x=1", "http://other.example.com:" + o.port + "/", "http://169.254.169.254/", "http://inside.example.com/", "http://127.0.0.1:" + o.port + "/", "http://2130706433:" + o.port + "/", "file:///etc/passwd",
	} {
		before := len(o.seen)
		res := o.send(t, m{"url": "/go", "headers": m{"Authorization": "Bearer k"}})
		require.True(t, res.IsError, to)
		require.Contains(t, res.Text, "HTTP 302 Found")
		require.Contains(t, res.Text, "location: "+to)
		require.Contains(t, res.Text, "not followed")
		require.Len(t, o.seen, before+1, to)
	}
}

func TestHTTPRequestIsBounded(t *testing.T) {
	hang := make(chan struct{})
	o := newOutside(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/huge":
			for range 1000 {
				if _, err := w.Write(bytes.Repeat([]byte("é"), 10_000)); err != nil {
					return
				}
			}
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			line := bytes.Repeat([]byte("x"), 1<<20)
			for range 300 {
				if _, err := z.Write(line); err != nil {
					return
				}
			}
		case "/headers":
			for i := range 400 {
				w.Header().Set("X-"+strings.Repeat("a", i%50+1), strings.Repeat("b", 100))
			}
		case "/binary":
			_, _ = w.Write([]byte("\x89PNG\x00\x01"))
		case "/slow":
			_, _ = w.Write([]byte("begin"))
			w.(http.Flusher).Flush()
			<-hang
		}
	})
	t.Cleanup(func() { close(hang) })
	for _, path := range []string{"/huge", "/bomb"} {
		res := o.send(t, m{"url": path})
		require.Contains(t, res.Text, "The body is longer: only its first", path)
		require.NotContains(t, res.Text, "\uFFFD", path)
		require.Empty(t, res.KeptAt)
	}
	require.Contains(t, o.send(t, m{"url": "/headers"}).Text, "[more headers are left out]")
	require.Contains(t, o.send(t, m{"url": "/binary"}).Text, "The body is binary, 6 bytes")

	began := time.Now()
	res := o.send(t, m{"method": "POST", "url": "/slow", "timeout_seconds": 1})
	require.Less(t, time.Since(began), 10*time.Second)
	require.True(t, res.IsError)
	require.True(t, res.Unknown)
	require.Contains(t, res.Text, "not known; its Idempotency-Key was stp_key")
	res = o.send(t, m{"url": "/slow", "timeout_seconds": 1})
	require.False(t, res.Unknown, "a GET changes nothing")
	require.Contains(t, res.Text, "may be sent again")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("interrupted"))
	input, err := json.Marshal(m{"url": "http://api.example.com:" + o.port + "/slow"})
	require.NoError(t, err)
	_, err = o.tool.Outside(ctx, gate.Grant{EffectKey: "stp_key"}, input)
	require.ErrorIs(t, err, context.Canceled)
}

func TestHTTPRequestArgumentsAreChecked(t *testing.T) {
	r, err := connectors.NewRegistry(newOutside(t, nil).tool)
	require.NoError(t, err)
	for input, says := range map[string]string{
		`{}`:                                                                             "missing property 'url'",
		`{"url":"ftp://example.com/"}`:                                                   "must begin with http:// or https://",
		`{"url":"http://u:p@e.example/"}`:                                                "user name or a password",
		`{"url":"http://0x7f.0.0.1/"}`:                                                   "unusual spelling",
		`{"url":"http://metadata/"}`:                                                     "one label",
		`{"url":"https://e.example/","method":"CONNECT"}`:                                "method",
		`{"url":"https://e.example/","method":"GET","body":"x"}`:                         "a GET has no body",
		`{"url":"https://e.example/","body":"x"}`:                                        "a GET has no body",
		`{"url":"https://e.example/","headers":{"Host":"x"}}`:                            "Host can't be set",
		`{"url":"https://e.example/","headers":{"idempotency-key":"x"}}`:                 "Idempotency-Key is the platform's",
		`{"url":"https://e.example/","headers":{"Transfer-Encoding":"chunked"}}`:         "can't be set",
		`{"url":"https://e.example/","headers":{"X":"a\r\nAuthorization: Bearer x"}}`:    "line break",
		`{"url":"https://e.example/","headers":{"X\r\nY":"a"}}`:                          "no name of a header",
		`{"url":"https://e.example/","headers":{"x-a":"1","X-A":"2"}}`:                   "given twice",
		`{"url":"https://e.example/","headers":{"X":5}}`:                                 "want string",
		`{"url":"https://e.example/","timeout_seconds":9999}`:                            "maximum",
		`{"url":"https://e.example/","proxy":"http://x"}`:                                "not allowed",
		`{"url":"http://e.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\nGET / HTTP/1"}`: "control character",
	} {
		_, err := r.Check("http_request", json.RawMessage(input))
		require.Error(t, err, input)
		require.Contains(t, fault.As(err).Message, says, input)
	}
	for method, want := range map[string]connectors.Idempotency{
		"GET": connectors.Safe, "HEAD": connectors.Safe, "PUT": connectors.Idempotent, "DELETE": connectors.Idempotent, "POST": connectors.Neither, "PATCH": connectors.Neither,
	} {
		p, err := r.Check("http_request", json.RawMessage(`{"url":"https://API.example.com./x","method":"`+method+`","timeout_seconds":7}`))
		require.NoError(t, err)
		require.Equal(t, want, p.Idempotency, method)
		require.Equal(t, "api.example.com", p.Domain)
		require.Equal(t, 7*time.Second, p.TimeLimit)
	}
}

func TestHTTPRequestTakesAnAdmission(t *testing.T) {
	o := newOutside(t, func(http.ResponseWriter, *http.Request) {})
	r, err := connectors.NewRegistry(o.tool)
	require.NoError(t, err)
	p, err := r.Check("http_request", json.RawMessage(`{"url":"http://api.example.com:`+o.port+`/"}`))
	require.NoError(t, err)
	for _, adm := range []*gate.Admission{nil, {}} {
		_, err = r.Call(t.Context(), adm, p, nil)
		require.Equal(t, "permission_denied", fault.As(err).Code)
	}
	_, err = connectors.Run(t.Context(), p, nil)
	require.Error(t, err, "there is no way round the admission")
	_, err = o.tool.Outside(t.Context(), gate.Grant{}, p.Input)
	require.Error(t, err)
	require.Empty(t, o.seen)

	down := builtin.HTTPRequest(builtin.Outside{Client: egress.New(egress.Config{AllowLoopback: true}), Reach: func(context.Context, gate.Grant) (builtin.Reach, error) {
		return builtin.Reach{}, errors.New("the database does not answer")
	}})
	_, err = down.Outside(t.Context(), gate.Grant{EffectKey: "stp_key"}, p.Input)
	require.ErrorContains(t, err, "does not answer", "no rules, no request")
	require.Empty(t, o.seen)
}

func TestHTTPRequestThatMayHaveBeenSentIsNotSentAgain(t *testing.T) {
	o := newOutside(t, func(http.ResponseWriter, *http.Request) {})
	o.lost = true
	for method, again := range map[string]bool{"GET": true, "HEAD": true, "PUT": true, "DELETE": true, "POST": false, "PATCH": false} {
		before := len(o.seen)
		res := o.send(t, m{"method": method, "url": "/"})
		require.Equal(t, !again, res.Unknown, method)
		if again {
			require.Len(t, o.seen, before+1, method)
			require.Equal(t, "stp_key", o.seen[before].Header.Get("Idempotency-Key"), "under the same key")
			continue
		}
		require.Len(t, o.seen, before, method)
		require.True(t, res.IsError)
		require.Contains(t, res.Text, "it was not sent again")
	}
}

// TestTheAgentsIdentityIsShownWhereItWasNamed, by the platform alone, and not told to the model.
func TestTheAgentsIdentityIsShownWhereItWasNamed(t *testing.T) {
	var seen []string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r.Header.Get("Authorization"))
		w.Header().Set("X-Echo", r.Header.Get("Authorization"))
		_, _ = io.WriteString(w, "you sent "+r.Header.Get("Authorization"))
	}))
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	require.NoError(t, err)
	client := egress.New(egress.Config{AllowLoopback: true, Resolver: hosts{"api.example.com": "127.0.0.1"}})
	hosts, _, err := egress.ParseRules([]string{at.Host, "api.example.com:" + at.Port()})
	require.NoError(t, err)
	var asked []string
	var broken error
	o := builtin.Outside{
		Client: client,
		Reach: func(context.Context, gate.Grant) (builtin.Reach, error) {
			return builtin.Reach{Hosts: hosts, Identity: hosts[:1]}, nil
		},
		Identify: func(_ context.Context, g gate.Grant, audience string) (string, error) {
			require.Equal(t, "stp_key", g.EffectKey)
			asked = append(asked, audience)
			return "the.agents.token", broken
		},
		PlainIdentity: true,
	}
	send := func(o builtin.Outside, arguments m) (connectors.Result, error) {
		input, err := json.Marshal(arguments)
		require.NoError(t, err)
		return builtin.HTTPRequest(o).Outside(t.Context(), gate.Grant{EffectKey: "stp_key"}, input)
	}
	res, err := send(o, m{"url": server.URL + "/x"})
	require.NoError(t, err)
	require.Equal(t, []string{"Bearer the.agents.token"}, seen)
	require.Equal(t, []string{server.URL}, asked, "the audience is the origin")
	require.NotContains(t, res.Text, "the.agents.token")
	require.Contains(t, res.Text, "you sent Bearer [the agent's token]")

	// To an allowed host that is not named for it, it is not shown, and the agent's own header goes as it is.
	_, err = send(o, m{"url": "http://api.example.com:" + at.Port() + "/x", "headers": m{"Authorization": "Bearer mine"}})
	require.NoError(t, err)
	require.Equal(t, "Bearer mine", seen[1])
	require.Len(t, asked, 1)

	refused := func(o builtin.Outside, arguments m, why string) {
		res, err := send(o, arguments)
		require.NoError(t, err)
		require.True(t, res.IsError, "not refused: %s", why)
		require.Contains(t, res.Text, why)
		require.Len(t, seen, 2, "nothing was sent")
	}
	refused(o, m{"url": server.URL + "/x", "headers": m{"authorization": "Bearer mine"}}, "is the platform's for")
	secure := o
	secure.PlainIdentity = false
	refused(secure, m{"url": server.URL + "/x"}, "over https only")
	anywhere := o
	anywhere.Reach = func(context.Context, gate.Grant) (builtin.Reach, error) {
		return builtin.Reach{Hosts: hosts, Identity: hosts}, nil
	}
	refused(anywhere, m{"url": "http://api.example.com:" + at.Port() + "/x"}, "over https only")
	mute := o
	mute.Identify = nil
	refused(mute, m{"url": server.URL + "/x"}, "makes no tokens")
	broken = errors.New("the database is away")
	_, err = send(o, m{"url": server.URL + "/x"})
	require.ErrorIs(t, err, broken)
	require.Len(t, seen, 2, "without a token nothing is sent")
}
