package upstream_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/internal/upstream"
)

func client(t *testing.T, url string, timeouts upstream.Timeouts) *upstream.Client {
	t.Helper()
	c, err := upstream.New(upstream.Config{
		BaseURL: url, Timeouts: timeouts, Header: http.Header{"X-Api-Key": {"sk-secret-1"}}, Secrets: []string{"sk-secret-1"},
		Explain: func(_ int, body []byte) (models.ErrorKind, string) { return "", string(body) },
	})
	require.NoError(t, err)
	t.Cleanup(c.CloseIdle)
	return c
}

func TestBaseURLIsChecked(t *testing.T) {
	for _, bad := range []string{"", "localhost:1", "ftp://x", "http://", "http://user:pass@host"} {
		_, err := upstream.New(upstream.Config{BaseURL: bad})
		require.Error(t, err, bad)
	}
}

func TestAHangEndsWithATimeout(t *testing.T) {
	for name, beforeHanging := range map[string]func(http.ResponseWriter){
		"before the headers": func(http.ResponseWriter) {},
		"in mid-stream": func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: 1\n\n")
			w.(http.Flusher).Flush()
		},
		"in an error's body": func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusInternalServerError)
			w.(http.Flusher).Flush()
		},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body) // a server sees a lost client only after the body was read
				beforeHanging(w)
				<-r.Context().Done()
			}))
			t.Cleanup(server.Close)
			c := client(t, server.URL, upstream.Timeouts{Idle: 50 * time.Millisecond})
			require.Equal(t, models.Timeout, drain(t, context.Background(), c).Kind)
		})
	}
}

func TestADripEndsWithTheTotalLimit(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "text/event-stream")
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, ": still here\n\n")
			w.(http.Flusher).Flush()
			<-time.After(10 * time.Millisecond)
		}
	}))
	t.Cleanup(server.Close)
	e := drain(t, context.Background(), client(t, server.URL, upstream.Timeouts{Idle: time.Minute, Total: 150 * time.Millisecond}))
	require.Equal(t, models.Timeout, e.Kind)
	require.Contains(t, e.Message, "longer than")
}

func TestCancellationIsNotATimeout(t *testing.T) {
	began := make(chan struct{})
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		close(began)
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-began; cancel() }()
	e := drain(t, ctx, client(t, server.URL, upstream.Timeouts{}))
	require.Equal(t, models.Cancelled, e.Kind)
	require.False(t, e.Retryable)
	require.ErrorIs(t, e, context.Canceled)
}

func TestNothingListens(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	e := drain(t, context.Background(), client(t, "http://"+l.Addr().String(), upstream.Timeouts{}))
	require.Equal(t, models.Unreachable, e.Kind)
	require.True(t, e.Retryable)
	require.False(t, e.MayBeBilled)
}

func TestOneAttemptOnlyAndNoRedirect(t *testing.T) {
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Idempotency-Key") != "key-1" {
			t.Error("the effect key is missing")
		}
		switch asked.Add(1) {
		case 1: // a good answer, so that the connection is reused
			w.Header().Set("Content-Type", "text/event-stream")
			_, _ = io.WriteString(w, "data: 1\n\n")
		case 2: // then the connection breaks after the request was read
			_, _ = io.Copy(io.Discard, r.Body)
			panic(http.ErrAbortHandler)
		default:
			http.Redirect(w, r, "http://elsewhere.invalid/", http.StatusTemporaryRedirect)
		}
	}))
	t.Cleanup(server.Close)
	c := client(t, server.URL, upstream.Timeouts{})
	require.Nil(t, drain(t, context.Background(), c))
	require.Equal(t, models.ConnectionReset, drain(t, context.Background(), c).Kind)
	require.EqualValues(t, 2, asked.Load(), "a broken request is not sent again behind the gate's back")
	require.Equal(t, models.BadRequest, drain(t, context.Background(), c).Kind)
	require.EqualValues(t, 3, asked.Load())
}

func TestKeysAreCutOut(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "bad key sk-secret-1", http.StatusUnauthorized)
	}))
	t.Cleanup(server.Close)
	e := drain(t, context.Background(), client(t, server.URL, upstream.Timeouts{}))
	require.Equal(t, models.Authentication, e.Kind)
	require.NotContains(t, e.Error(), "sk-secret")
	require.Contains(t, e.Error(), "[redacted]")
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	for value, want := range map[string]time.Duration{
		"": 0, "2": 2 * time.Second, "0.5": 500 * time.Millisecond, "-1": 0, "NaN": 0, "1e300": time.Hour, "soon": 0,
		"Fri, 20 Nov 2026 12:00:07 GMT": 7 * time.Second, "Fri, 20 Nov 2020 12:00:07 GMT": 0,
	} {
		require.Equal(t, want, upstream.RetryAfter(http.Header{"Retry-After": {value}}, now), value)
	}
	require.Equal(t, 250*time.Millisecond, upstream.RetryAfter(http.Header{"Retry-After-Ms": {"250"}, "Retry-After": {"9"}}, now))
}

func drain(t *testing.T, ctx context.Context, c *upstream.Client) *models.Error {
	t.Helper()
	s, e := c.Stream(ctx, "/x", []byte(`{}`), "key-1")
	if e != nil {
		return e
	}
	defer s.Close()
	for {
		_, err := s.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return s.Classify(err)
		}
	}
}
