package egress_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
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
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/egress"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dns answers each look-up of a name with the next of its answers, and then with the last for ever.
type dns struct {
	mu      sync.Mutex
	answers map[string][]string
	asked   []string
}

func (d *dns) LookupNetIP(_ context.Context, _, host string) ([]netip.Addr, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.asked = append(d.asked, host)
	list := d.answers[strings.TrimSuffix(host, ".")]
	if len(list) == 0 {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	if len(list) > 1 {
		d.answers[strings.TrimSuffix(host, ".")] = list[1:]
	}
	var out []netip.Addr
	for a := range strings.SplitSeq(list[0], ",") {
		out = append(out, netip.MustParseAddr(a))
	}
	return out, nil
}

func rules(t *testing.T, raw ...string) egress.Rules {
	t.Helper()
	rs, _, err := egress.ParseRules(raw)
	require.NoError(t, err)
	return rs
}

// serve runs a server on loopback and returns its address with another host name in it.
func serve(t *testing.T, host string, h http.HandlerFunc) (address, rule string) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	u, err := url.Parse(s.URL)
	require.NoError(t, err)
	return "http://" + host + ":" + u.Port(), host + ":" + u.Port()
}

func requireRefused(t *testing.T, err error, code string) {
	t.Helper()
	var refusal *egress.Refusal
	require.ErrorAs(t, err, &refusal)
	require.Equal(t, code, refusal.Code, refusal.Message)
}

func TestARequestAndItsAnswer(t *testing.T) {
	var got *http.Request
	var body bytes.Buffer
	address, rule := serve(t, "api.example.com", func(w http.ResponseWriter, r *http.Request) {
		got = r
		_, _ = body.ReadFrom(r.Body)
		http.SetCookie(w, &http.Cookie{Name: "a", Value: "b"})
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte("tea"))
	})
	c := egress.New(egress.Config{AllowLoopback: true, Resolver: &dns{answers: map[string][]string{"api.example.com": {"127.0.0.1"}}}})
	t.Setenv("HTTP_PROXY", "http://127.0.0.1:1")
	t.Setenv("http_proxy", "http://127.0.0.1:1")
	for range 2 {
		body.Reset()
		res, err := c.Do(t.Context(), egress.Request{
			Method: "POST", URL: address + "/x?y=1#z", Header: http.Header{"authorization": {"Bearer k"}}, Body: []byte("hello"), Rules: rules(t, rule),
		})
		require.NoError(t, err)
		require.Equal(t, http.StatusTeapot, res.Status)
		require.Equal(t, "tea", string(res.Body))
		require.Equal(t, "/x?y=1", got.RequestURI)
		require.Equal(t, strings.TrimPrefix(address, "http://"), got.Host)
		require.Equal(t, "Bearer k", got.Header.Get("Authorization"))
		require.Equal(t, "Ambit", got.UserAgent())
		require.Empty(t, got.Cookies(), "no cookie is kept")
		require.Equal(t, "hello", body.String())
	}
}

func TestWhatIsNeverReached(t *testing.T) {
	c := egress.New(egress.Config{Resolver: &dns{answers: map[string][]string{
		"inside.example.com": {"10.0.0.7"}, "meta.example.com": {"169.254.169.254"}, "mapped.example.com": {"::ffff:127.0.0.1"},
		"nat64.example.com": {"64:ff9b::a00:1"}, "six.example.com": {"fd00::1"}, "both.example.com": {"192.168.0.1,::1"}, "localhost": {"127.0.0.1"},
	}}})
	for _, host := range []string{
		"inside.example.com", "meta.example.com", "mapped.example.com", "nat64.example.com", "six.example.com", "both.example.com", "localhost",
		"127.0.0.1", "169.254.169.254", "0.0.0.0", "10.1.2.3", "100.64.0.1", "224.0.0.1", "[::1]", "[fd00:ec2::254]", "[64:ff9b::7f00:1]", "[2002:7f00:1::]",
	} {
		_, err := c.Do(t.Context(), egress.Request{Method: "GET", URL: "http://" + host + "/", Rules: rules(t, host)})
		requireRefused(t, err, egress.Forbidden)
		_, err = c.Check(t.Context(), "http://"+host+"/", rules(t, host))
		requireRefused(t, err, egress.Forbidden)
	}
	_, err := c.Do(t.Context(), egress.Request{Method: "GET", URL: "http://nowhere.example.com/", Rules: rules(t, "nowhere.example.com")})
	var failure *egress.Failure
	require.ErrorAs(t, err, &failure)
	require.False(t, failure.Sent)
	require.ErrorContains(t, err, "there is no host nowhere.example.com")
}

// TestANameThatChangesItsAnswer is DNS rebinding: a public answer for whoever checks, a private one for whoever connects.
func TestANameThatChangesItsAnswer(t *testing.T) {
	reached := false
	address, rule := serve(t, "rebind.example.com", func(http.ResponseWriter, *http.Request) { reached = true })
	names := &dns{answers: map[string][]string{"rebind.example.com": {"93.184.215.14", "127.0.0.1"}}}
	c := egress.New(egress.Config{Resolver: names})
	_, err := c.Check(t.Context(), address, rules(t, rule))
	require.NoError(t, err, "the first answer is public")
	_, err = c.Do(t.Context(), egress.Request{Method: "GET", URL: address, Rules: rules(t, rule)})
	requireRefused(t, err, egress.Forbidden)
	require.False(t, reached)
	require.Equal(t, []string{"rebind.example.com.", "rebind.example.com."}, names.asked, "the dial looks up once, and connects to what it checked")
}

func TestRedirects(t *testing.T) {
	var seen []*http.Request
	var other, otherRule string
	address, rule := serve(t, "api.example.com", func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r)
		to := r.URL.Query().Get("to")
		switch r.URL.Path {
		case "/loop":
			http.Redirect(w, r, "/loop", http.StatusFound)
		case "/to", "/to307", "/to303":
			status := map[string]int{"/to": 302, "/to307": 307, "/to303": 303}[r.URL.Path]
			w.Header().Set("Location", to)
			w.WriteHeader(status)
		default:
			_, _ = fmt.Fprintf(w, "%s %s", r.Method, r.URL.Path)
		}
	})
	other, otherRule = serve(t, "other.example.com", func(w http.ResponseWriter, r *http.Request) {
		seen = append(seen, r)
		_, _ = w.Write([]byte("other"))
	})
	c := egress.New(egress.Config{AllowLoopback: true, Resolver: &dns{answers: map[string][]string{
		"api.example.com": {"127.0.0.1"}, "other.example.com": {"127.0.0.1"}, "inside.example.com": {"10.0.0.1"},
	}}})
	do := func(method, path, to string, allow ...string) *egress.Response {
		seen = nil
		res, err := c.Do(t.Context(), egress.Request{
			Method: method, URL: address + path + "?to=" + url.QueryEscape(to), Body: []byte("x"), Redirects: 5, Rules: rules(t, append(allow, rule)...),
			Header: http.Header{"Authorization": {"Bearer k"}, "X-Api-Key": {"k"}, "Cookie": {"c=d"}, "Accept": {"text/plain"}, "Content-Type": {"text/plain"}},
		})
		require.NoError(t, err)
		return res
	}

	res := do("POST", "/to", "/end")
	require.Equal(t, "GET /end", string(res.Body), "as every browser does")
	require.Equal(t, "Bearer k", seen[1].Header.Get("Authorization"), "the same origin gets all headers")
	require.Len(t, res.Redirects, 1)
	require.Equal(t, "POST /end", string(do("POST", "/to307", "/end").Body))
	require.Equal(t, "GET /end", string(do("PUT", "/to303", "/end").Body))

	res = do("GET", "/to", other+"/x", otherRule)
	require.Equal(t, "other", string(res.Body))
	for _, name := range []string{"Authorization", "X-Api-Key", "Cookie"} {
		require.Empty(t, seen[1].Header.Get(name), "%s never goes to another host", name)
	}
	require.Equal(t, "text/plain", seen[1].Header.Get("Accept"))

	for to, code := range map[string]string{
		other + "/x":                    egress.NotAllowed,
		"http://169.254.169.254/":       egress.NotAllowed,
		"//inside.example.com/":         egress.Forbidden,
		"http://2130706433/":            egress.BadURL,
		"http://u:p@api.example.com/":   egress.BadURL,
		"file:///etc/passwd":            egress.BadURL,
		"gopher://api.example.com/":     egress.BadURL,
		"http://[::ffff:127.0.0.1]/":    egress.BadURL,
		`http:\\api.example.com@evil/x`: egress.BadRedirect,
	} {
		res := do("GET", "/to", to, "inside.example.com")
		require.Equal(t, 302, res.Status, to)
		require.NotNil(t, res.NotFollowed, to)
		require.Equal(t, code, res.NotFollowed.Code, "%s: %s", to, res.NotFollowed.Message)
		require.Len(t, seen, 1, to)
	}
	res = do("GET", "/loop", "")
	require.Equal(t, egress.BadRedirect, res.NotFollowed.Code)
	require.Len(t, seen, 6)

	res, err := c.Do(t.Context(), egress.Request{Method: "GET", URL: address + "/to?to=/end", Rules: rules(t, rule)})
	require.NoError(t, err)
	require.Equal(t, 302, res.Status)
	require.Nil(t, res.NotFollowed, "nobody asked to follow")
}

func TestBounds(t *testing.T) {
	hang := make(chan struct{})
	address, rule := serve(t, "api.example.com", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/huge":
			for range 100 {
				if _, err := w.Write(bytes.Repeat([]byte("x"), 64<<10)); err != nil {
					return
				}
			}
		case "/bomb":
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			zeros := make([]byte, 1<<20)
			for range 200 {
				if _, err := z.Write(zeros); err != nil {
					return
				}
			}
			_ = z.Close()
		case "/headers":
			w.Header().Set("X-Long", strings.Repeat("x", 2*egress.MaxHeaderBytes))
		case "/slow":
			_, _ = w.Write([]byte("begin"))
			w.(http.Flusher).Flush()
			<-hang
		case "/silent":
			<-hang
		}
	})
	t.Cleanup(func() { close(hang) })
	c := egress.New(egress.Config{AllowLoopback: true, Resolver: &dns{answers: map[string][]string{"api.example.com": {"127.0.0.1"}}}})
	ask := func(path string, timeout time.Duration) (*egress.Response, error) {
		return c.Do(t.Context(), egress.Request{Method: "POST", URL: address + path, Rules: rules(t, rule), MaxBody: 1000, Timeout: timeout})
	}
	for _, path := range []string{"/huge", "/bomb"} {
		res, err := ask(path, 0)
		require.NoError(t, err, path)
		require.True(t, res.Truncated, path)
		require.Len(t, res.Body, 1000, path)
	}
	for _, path := range []string{"/slow", "/silent"} {
		_, err := ask(path, 100*time.Millisecond)
		var failure *egress.Failure
		require.ErrorAs(t, err, &failure, path)
		require.True(t, failure.TimedOut, path)
		require.True(t, failure.Sent, "it is not known whether the other side acted")
	}
	_, err := ask("/headers", 0)
	require.Error(t, err)
	_, err = c.Do(t.Context(), egress.Request{Method: "POST", URL: address, Rules: rules(t, rule), Body: make([]byte, egress.MaxRequestBytes+1)})
	requireRefused(t, err, egress.TooManyData)
}

func TestHeadersThatBelongToTheConnection(t *testing.T) {
	for _, h := range []http.Header{
		{"Host": {"evil.example"}},
		{"host": {"evil.example"}},
		{"Connection": {"close"}},
		{"Transfer-Encoding": {"chunked"}},
		{"Content-Length": {"1"}},
		{"Upgrade": {"websocket"}},
		{"Proxy-Authorization": {"x"}},
		{"proxy-anything": {"x"}},
		{"TE": {"trailers"}},
		{"Accept-Encoding": {"gzip"}},
		{"X": {"a\r\nB: c"}},
		{"X": {"a\nb"}},
		{"X": {"a\x00b"}},
		{"X Y": {"a"}},
		{"X:": {"a"}},
		{"": {"a"}},
		{"Ä": {"a"}},
		{"X\r\nB": {"a"}},
		{"X": {strings.Repeat("x", egress.MaxHeaderBytes+1)}},
	} {
		requireRefused(t, egress.CheckHeader(h), egress.BadHeader)
	}
	require.NoError(t, egress.CheckHeader(http.Header{"X-A": {"b", "ü"}, "Authorization": {"Bearer k"}, "Cookie": {"a=b"}}))
	for _, method := range []string{"", "CONNECT", "TRACE", "get", "GET /x HTTP/1.1\r\nX: y"} {
		_, err := egress.New(egress.Config{}).Do(t.Context(), egress.Request{Method: method, URL: "http://example.com", Rules: rules(t, "example.com")})
		requireRefused(t, err, egress.BadURL)
	}
}

func TestNothingIsReachedWithoutARule(t *testing.T) {
	address, rule := serve(t, "127.0.0.1", func(http.ResponseWriter, *http.Request) { t.Error("reached") })
	c := egress.New(egress.Config{AllowLoopback: true})
	for _, rs := range []egress.Rules{nil, rules(t, "other.example.com"), rules(t, "127.0.0.1"), rules(t, "127.0.0.2:"+strings.Split(rule, ":")[1])} {
		_, err := c.Do(t.Context(), egress.Request{Method: "GET", URL: address, Rules: rs})
		requireRefused(t, err, egress.NotAllowed)
	}
}
