package apiclient_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/apiclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestReaderFollowsTheStandard(t *testing.T) {
	for in, want := range map[string]string{
		"id: 1\nevent: a\ndata: x\n\n":         "1 a x|",
		"id: 1\r\nevent: a\r\ndata: x\r\n\r\n": "1 a x|",
		"id: 1\revent: a\rdata: x\r\r":         "1 a x|",
		"data: x\ndata: y\n\n":                 " message x\ny|",
		"data:x\n\n: ping\n\ndata: z\n\n":      " message x| message z|",
		"event: a\n\ndata: z\n\n":              " message z|",
		"id: 1\ndata: x\n\ndata: y\n\n":        "1 message x|1 message y|",
		"data\n\n":                             " message |",
		"retry: 10\n\ndata: cut off":           "",
		"data: cut off\n":                      "",
		"unknown: x\ndata: y\n\n":              " message y|",
	} {
		r := apiclient.NewReader(strings.NewReader(in))
		var got strings.Builder
		for {
			m, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err)
			fmt.Fprintf(&got, "%s %s %s|", m.ID, m.Event, m.Data)
		}
		require.Equal(t, want, got.String(), "%q", in)
	}
}

func FuzzReader(f *testing.F) {
	f.Add([]byte("id: 1\r\ndata: x\r\rretry: 5\n\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		r := apiclient.NewReader(bytes.NewReader(in))
		for n := 0; ; n++ {
			if _, err := r.Next(); err != nil {
				return
			}
			if n > len(in) {
				t.Fatal("more messages than bytes")
			}
		}
	})
}

// TestAStreamOutlivesItsConnections cuts the connection after every event; each event comes once, in order.
func TestAStreamOutlivesItsConnections(t *testing.T) {
	const events = 5
	var keys []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		keys = append(keys, r.Header.Get("Idempotency-Key"))
		last, _ := strconv.Atoi(r.Header.Get("Last-Event-ID"))
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "retry: 1\n\n")
		seq := last + 1
		kind := "agent.message"
		rest := ""
		if seq == 1 {
			kind = "user.message"
		}
		if seq == events {
			kind, rest = "session.status_idle", `,"input_event_ids":["evt_1"]`
		}
		fmt.Fprintf(w, "id: %d\nevent: %s\ndata: {\"id\":\"evt_%d\",\"seq\":%d,\"type\":%q%s}\n\n", seq, kind, seq, seq, kind, rest)
		if seq < events {
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	defer s.Close()
	c, err := apiclient.New(s.URL, "amb_x", "")
	require.NoError(t, err)
	defer c.Close()
	var seqs []int64
	lost := 0
	err = c.Invoke(context.Background(), map[string]any{"input": "x"}, apiclient.Handler{
		Event: func(e apiclient.Event) error { seqs = append(seqs, e.Seq); return nil },
		Lost:  func(error, time.Duration) { lost++ },
	})
	require.NoError(t, err)
	require.Equal(t, []int64{1, 2, 3, 4, 5}, seqs)
	require.Equal(t, events-1, lost)
	for _, k := range keys {
		require.NotEmpty(t, k)
		require.Equal(t, keys[0], k, "each attempt is the same request")
	}
}

// TestEveryEventOfTheJournalIsRead guards against members that have one name and two shapes.
func TestEveryEventOfTheJournalIsRead(t *testing.T) {
	for _, raw := range []string{
		`{"id":"evt_1","type":"step.settled","seq":1,"step_id":"stp_1","kind":"model_call","outcome":"succeeded","stop_reason":"end_turn","error":null}`,
		`{"id":"evt_2","type":"session.status_idle","seq":2,"step_id":null,"stop_reason":{"type":"end_turn"},"input_event_ids":["evt_1"]}`,
		`{"id":"evt_3","type":"session.status_terminated","seq":3,"step_id":null,"stop_reason":{"type":"failed","error":{"code":"x","message":"y"}}}`,
	} {
		var e apiclient.Event
		require.NoError(t, json.Unmarshal([]byte(raw), &e), raw)
		require.NotEmpty(t, e.StopReason.Type)
	}
}

func TestARefusalIsToldAtOnce(t *testing.T) {
	calls := 0
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		calls++
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusPaymentRequired)
		fmt.Fprint(w, `{"status":402,"code":"insufficient_funds","detail":"Not enough."}`)
	}))
	defer s.Close()
	c, err := apiclient.New(s.URL, "amb_x", "")
	require.NoError(t, err)
	defer c.Close()
	err = c.Invoke(context.Background(), map[string]any{}, apiclient.Handler{Event: func(apiclient.Event) error { return nil }})
	require.True(t, apiclient.IsCode(err, "insufficient_funds"), err)
	require.Equal(t, 1, calls)
}
