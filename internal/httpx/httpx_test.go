package httpx_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/httpx"
	"ambit.dev/ambit/internal/id"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func start(t *testing.T, h http.Handler) *httpx.Server {
	s := httpx.NewServer(httpx.ServerConfig{Name: "test", Addr: "127.0.0.1:0", Handler: h, Log: quiet()})
	require.NoError(t, s.Start(context.Background()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = s.Stop(ctx)
		http.DefaultClient.CloseIdleConnections()
	})
	return s
}

func get(t *testing.T, s *httpx.Server, path string) (*http.Response, string) {
	res, err := http.Get("http://" + s.Addr() + path)
	require.NoError(t, err)
	body, err := io.ReadAll(res.Body)
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	return res, string(body)
}

func TestAPanicIsAnAnswerAndALogLine(t *testing.T) {
	var log bytes.Buffer
	reg := prometheus.NewRegistry()
	m, err := httpx.NewMetrics(reg, "test")
	require.NoError(t, err)
	logger := slog.New(slog.NewTextHandler(&log, nil))
	h := httpx.Chain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		httpx.NoteFrom(r.Context()).Route = "GET /x"
		if r.URL.Path == "/late" {
			_, _ = w.Write(bytes.Repeat([]byte("x"), 1<<16))
		}
		panic("planted")
	}), httpx.RequestID, httpx.AccessLog(logger, m), httpx.Recover(logger, func(w http.ResponseWriter, _ *http.Request, err error) {
		w.WriteHeader(http.StatusInternalServerError)
	}), httpx.SecurityHeaders(httpx.APIPolicy))
	s := start(t, h)
	res, body := get(t, s, "/x?secret=1")
	require.Equal(t, 500, res.StatusCode)
	require.NotContains(t, body, "planted")
	_, err = id.Parse[id.Request](res.Header.Get("Request-Id"))
	require.NoError(t, err)
	require.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"))

	late, err := http.Get("http://" + s.Addr() + "/late")
	require.NoError(t, err)
	_, err = io.ReadAll(late.Body)
	require.Error(t, err, "half an answer is not taken for a whole one")
	require.NoError(t, late.Body.Close())

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	require.NoError(t, s.Stop(ctx))
	require.Contains(t, log.String(), "planted")
	require.Contains(t, log.String(), "path=/x ")
	require.NotContains(t, log.String(), "secret=1", "queries are not logged")
	families, err := reg.Gather()
	require.NoError(t, err)
	var series []string
	for _, f := range families {
		if f.GetName() == "ambit_http_requests_total" {
			for _, one := range f.GetMetric() {
				series = append(series, one.String())
			}
		}
	}
	require.Contains(t, strings.Join(series, "\n"), `value:"GET /x"`)
}

func TestEventStreamOnTheWire(t *testing.T) {
	s := start(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		out, err := httpx.StartEventStream(w, 2*time.Second)
		if err != nil {
			return
		}
		out.Add(7, "agent.message", []byte(`{"a":1}`))
		out.Add(-1, "event_delta", []byte("two\nlines"))
		out.Ping()
		_ = out.Flush()
		out.Close()
	}))
	res, body := get(t, s, "/")
	require.Equal(t, "text/event-stream; charset=utf-8", res.Header.Get("Content-Type"))
	require.Equal(t, "retry: 2000\n\nid: 7\nevent: agent.message\ndata: {\"a\":1}\n\nevent: event_delta\ndata: two\ndata: lines\n\n: ping\n\n", body)
}

func TestASlowReaderIsCut(t *testing.T) {
	httpx.SetStreamWriteTimeout(t, 200*time.Millisecond)
	ended := make(chan error, 1)
	s := start(t, httpx.Chain(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		out, err := httpx.StartEventStream(w, 2*time.Second)
		for err == nil {
			out.Add(1, "x", bytes.Repeat([]byte("x"), 1<<16))
			err = out.Flush()
		}
		ended <- err
	}), httpx.AccessLog(quiet(), nil)))
	conn, err := net.Dial("tcp", s.Addr())
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // it is cut
	_, err = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	require.NoError(t, err)
	// The client reads nothing at all.
	select {
	case err := <-ended:
		require.ErrorIs(t, err, httpx.ErrSlowReader)
	case <-time.After(10 * time.Second):
		t.Fatal("the reader was not cut")
	}
}

func TestStopEndsStreamsFirst(t *testing.T) {
	drain := httpx.NewDrain()
	began := make(chan struct{})
	s := httpx.NewServer(httpx.ServerConfig{Name: "test", Addr: "127.0.0.1:0", Log: quiet(), Drained: drain, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		out, err := httpx.StartEventStream(w, time.Second)
		if err != nil {
			return
		}
		close(began)
		<-drain.Done()
		out.Add(1, "last", []byte("{}"))
		_ = out.Flush()
		out.Close()
	})})
	require.NoError(t, s.Start(context.Background()))
	res, err := http.Get("http://" + s.Addr())
	require.NoError(t, err)
	defer res.Body.Close() //nolint:errcheck // read to its end
	<-began
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	require.NoError(t, s.Stop(ctx))
	body, err := io.ReadAll(bufio.NewReader(res.Body))
	require.NoError(t, err, "the stream ended cleanly")
	require.Contains(t, string(body), "event: last")
	require.NoError(t, <-s.Ended())
	http.DefaultClient.CloseIdleConnections()
}

func TestReadiness(t *testing.T) {
	drain := httpx.NewDrain()
	broken := errors.New("no answer from the database")
	var fail bool
	h := httpx.Readyz(drain.Done(), httpx.Check{Name: "postgres", Run: func(context.Context) error {
		if fail {
			return broken
		}
		return nil
	}})
	ask := func() (int, string) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/readyz", nil))
		return w.Code, w.Body.String()
	}
	code, _ := ask()
	require.Equal(t, 200, code)
	fail = true
	code, body := ask()
	require.Equal(t, 503, code)
	require.Contains(t, body, broken.Error())
	fail = false
	drain.Begin()
	code, body = ask()
	require.Equal(t, 503, code)
	require.Contains(t, body, "draining")
}

func TestDeadlineForTheBodyIsLiftedOnceItIsRead(t *testing.T) {
	release := make(chan struct{})
	ended := make(chan error, 1)
	s := start(t, httpx.Chain(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.ReadAll(r.Body)
		httpx.BodyRead(w)
		select {
		case <-r.Context().Done():
			ended <- r.Context().Err()
		case <-release:
			ended <- nil
		}
	}), httpx.Deadlines(50*time.Millisecond, time.Minute)))
	time.AfterFunc(300*time.Millisecond, func() { close(release) })
	res, err := http.Post("http://"+s.Addr(), "text/plain", strings.NewReader("x"))
	require.NoError(t, err)
	require.NoError(t, res.Body.Close())
	require.NoError(t, <-ended, "a long answer outlives the deadline for its body")
}
