package contract_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/models"
)

// misbehave answers one request; the body was read.
type misbehave func(d dialect, w http.ResponseWriter, r *http.Request)

func status(code int, header map[string]string, body func(d dialect) string) misbehave {
	return func(d dialect, w http.ResponseWriter, _ *http.Request) {
		for k, v := range header {
			w.Header().Set(k, v)
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		_, _ = io.WriteString(w, body(d))
	}
}

func saying(kind, message string) func(dialect) string {
	return func(d dialect) string { return d.errorBody(kind, message) }
}

func stream(w http.ResponseWriter, events ...string) {
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	for _, e := range events {
		_, _ = io.WriteString(w, e)
		w.(http.Flusher).Flush()
	}
}

// reset ends the connection with a TCP reset.
func reset(w http.ResponseWriter) {
	conn, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

var faults = []struct {
	name  string
	serve misbehave
	// kind is "" where the call must succeed.
	kind       models.ErrorKind
	retryAfter time.Duration
	status     int
	partial    string        // text that had arrived
	idle       time.Duration // how long nothing may come; short only where that is what is tested
}{
	{name: "429 with Retry-After", serve: status(429, map[string]string{"Retry-After": "7"}, saying("rate_limit_error", "slow down")), kind: models.RateLimited, retryAfter: 7 * time.Second, status: 429},
	{name: "429 without a body", serve: status(429, nil, func(dialect) string { return "" }), kind: models.RateLimited, status: 429},
	{name: "500", serve: status(500, nil, saying("api_error", "oops")), kind: models.ServerError, status: 500},
	{name: "502 with a page of HTML", serve: status(502, nil, func(dialect) string { return "<html>bad gateway</html>" }), kind: models.ServerError, status: 502},
	{name: "503", serve: status(503, map[string]string{"Retry-After": "1"}, func(dialect) string { return "" }), kind: models.Overloaded, retryAfter: time.Second, status: 503},
	{name: "529", serve: status(529, nil, saying("overloaded_error", "busy")), kind: models.Overloaded, status: 529},
	{name: "400", serve: status(400, nil, saying("invalid_request_error", "no such parameter")), kind: models.BadRequest, status: 400},
	{name: "400 for too long a prompt", serve: status(400, nil, func(d dialect) string { return d.tooLong }), kind: models.ContextTooLong, status: 400},
	{name: "401 that repeats the key", serve: status(401, nil, saying("authentication_error", "bad key "+key)), kind: models.Authentication, status: 401},
	{name: "402", serve: status(402, nil, saying("billing_error", "no credit")), kind: models.QuotaExhausted, status: 402},
	{name: "413", serve: status(413, nil, saying("request_too_large", "too large")), kind: models.ContextTooLong, status: 413},
	{name: "redirect", serve: status(307, map[string]string{"Location": "http://127.0.0.1:1/"}, func(dialect) string { return "" }), kind: models.BadRequest, status: 307},
	{name: "hang before the headers", serve: func(_ dialect, _ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, kind: models.Timeout, idle: 100 * time.Millisecond},
	{name: "hang in mid-stream", serve: func(d dialect, w http.ResponseWriter, r *http.Request) {
		stream(w, d.whole[:len(d.whole)/2]...)
		<-r.Context().Done()
	}, kind: models.Timeout, partial: "Hello", idle: 500 * time.Millisecond},
	{name: "reset before the headers", serve: func(_ dialect, w http.ResponseWriter, _ *http.Request) { reset(w) }, kind: models.ConnectionReset},
	{name: "reset in mid-stream", serve: func(d dialect, w http.ResponseWriter, _ *http.Request) {
		stream(w, d.whole[:len(d.whole)/2]...)
		reset(w)
	}, kind: models.ConnectionReset, partial: "Hello"},
	{name: "end in mid-stream", serve: func(d dialect, w http.ResponseWriter, _ *http.Request) {
		stream(w, d.whole[:len(d.whole)/2]...)
	}, kind: models.TruncatedStream, partial: "Hello"},
	{name: "end in mid-event", serve: func(d dialect, w http.ResponseWriter, _ *http.Request) {
		all := strings.Join(d.whole, "")
		stream(w, all[:strings.Index(all, "aris")])
	}, kind: models.TruncatedStream, partial: "Hello"},
	{name: "an empty stream", serve: func(_ dialect, w http.ResponseWriter, _ *http.Request) { stream(w, "") }, kind: models.TruncatedStream},
	{name: "bad JSON", serve: func(d dialect, w http.ResponseWriter, _ *http.Request) {
		stream(w, d.whole[0], "data: {\"choices\": oops}\n\n")
	}, kind: models.MalformedReply},
	{name: "JSON of another shape", serve: func(d dialect, w http.ResponseWriter, _ *http.Request) {
		stream(w, d.whole[0], "data: [1,2,3]\n\n")
	}, kind: models.MalformedReply},
	{name: "not a stream", serve: status(200, nil, func(dialect) string { return `{"ok":true}` }), kind: models.MalformedReply},
	{name: "an event that never ends", serve: func(_ dialect, w http.ResponseWriter, _ *http.Request) {
		stream(w, "data: "+strings.Repeat("x", 9<<20))
	}, kind: models.MalformedReply},
	{name: "an error in mid-stream", serve: func(d dialect, w http.ResponseWriter, _ *http.Request) {
		stream(w, append(append([]string{}, d.whole[:len(d.whole)/2]...), d.overloaded)...)
	}, kind: models.Overloaded, partial: "Hello"},
	{name: "a good stream", serve: func(d dialect, w http.ResponseWriter, _ *http.Request) { stream(w, d.whole...) }},
	{name: "split after each byte, with carriage returns", serve: func(d dialect, w http.ResponseWriter, _ *http.Request) {
		all := strings.ReplaceAll(strings.Join(d.whole, ": comment\n"), "\n", "\r\n")
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range len(all) {
			_, _ = io.WriteString(w, all[i:i+1])
			if i%7 == 0 {
				w.(http.Flusher).Flush()
			}
		}
	}},
	{name: "a slow drip", serve: func(d dialect, w http.ResponseWriter, _ *http.Request) {
		for _, e := range d.whole {
			stream(w, e)
			<-time.After(100 * time.Millisecond) // each pause is below the idle limit, their sum is above it
		}
	}, idle: 700 * time.Millisecond},
	{name: "no proper end, but all that matters", serve: func(d dialect, w http.ResponseWriter, _ *http.Request) {
		stream(w, d.whole[:len(d.whole)-1]...)
	}},
	{name: "unknown fields and events", serve: func(d dialect, w http.ResponseWriter, _ *http.Request) {
		events := []string{d.whole[0]}
		if d.name == "anthropic" {
			events = append(events, sse("news", `{"type":"news","x":[1]}`))
		}
		for _, e := range d.whole[1:] {
			events = append(events, strings.Replace(e, "data: {", `data: {"new_field":{"a":[null]},`, 1))
		}
		stream(w, events...)
	}},
}

func TestFaults(t *testing.T) {
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			for _, f := range faults {
				t.Run(f.name, func(t *testing.T) {
					var asked atomic.Int32
					server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						asked.Add(1)
						_, _ = io.Copy(io.Discard, r.Body)
						if r.URL.Path != d.path || r.URL.RawQuery != "" {
							t.Errorf("asked for %s", r.URL)
						}
						f.serve(d, w, r)
					}))
					defer server.Close()
					transport := &http.Transport{}
					defer transport.CloseIdleConnections()
					p, err := d.make(server.URL+d.basePath, cmp.Or(f.idle, 20*time.Second), time.Minute)
					require.NoError(t, err)
					var events folded
					resp, err := p.Generate(context.Background(), models.Call{Request: weather(d.name, "x"), EffectKey: "stp_1"}, events.take)
					require.EqualValues(t, 1, asked.Load(), "one attempt is one request")
					if f.kind == "" {
						require.NoError(t, err)
						requireWhole(t, resp)
						requireSame(t, events, resp)
						return
					}
					e, ok := models.AsError(err)
					require.True(t, ok, "%v", err)
					require.Equal(t, f.kind, e.Kind, "%v", err)
					require.Equal(t, f.status, e.Status)
					require.Equal(t, f.retryAfter, e.RetryAfter)
					require.NotContains(t, fmt.Sprintf("%v %+v", err, e), key)
					if f.kind != models.ConnectionReset { // a reset may take with it what had arrived
						require.Equal(t, f.partial, resp.Text())
					}
					require.Empty(t, resp.ToolUses(), "a call that failed wants no tool")
					require.NotEqual(t, models.StopToolUse, resp.StopReason)
				})
			}
		})
	}
}

func requireWhole(t *testing.T, resp models.Response) {
	t.Helper()
	require.Equal(t, "Hello", resp.Text())
	require.Len(t, resp.ToolUses(), 1)
	require.JSONEq(t, `{"city": "Paris"}`, string(resp.ToolUses()[0].Input))
	require.Equal(t, models.StopToolUse, resp.StopReason)
	require.Equal(t, models.Usage{Input: 10, Output: 5}, resp.Usage)
	require.False(t, resp.UsageEstimated)
}

// A stream in which any one event comes twice must end in the right reply, or in an error; what it may never do is count tokens twice or
// make two tool calls of one.
func TestAnyEventTwice(t *testing.T) {
	for _, d := range dialects {
		for i := range d.whole {
			t.Run(fmt.Sprintf("%s/%d", d.name, i), func(t *testing.T) {
				server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					_, _ = io.Copy(io.Discard, r.Body)
					var events []string
					for j, e := range d.whole {
						events = append(events, e)
						if i == j {
							events = append(events, e)
						}
					}
					stream(w, events...)
				}))
				defer server.Close()
				p, err := d.make(server.URL+d.basePath, 5*time.Second, time.Minute)
				require.NoError(t, err)
				resp, err := p.Generate(context.Background(), models.Call{Request: weather(d.name, "x"), EffectKey: "stp_1"}, nil)
				if err != nil {
					e, ok := models.AsError(err)
					require.True(t, ok)
					require.Equal(t, models.MalformedReply, e.Kind)
					return
				}
				require.Equal(t, models.Usage{Input: 10, Output: 5}, resp.Usage)
				require.Len(t, resp.ToolUses(), 1)
				if input := resp.ToolUses()[0].Input; string(input) != `{"city": "Paris"}` {
					_, malformed := models.Malformed(input)
					require.True(t, malformed, "doubled arguments are marked, not guessed at: %s", input)
				}
			})
		}
	}
}
