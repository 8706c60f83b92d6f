package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/api"
	"ambit.dev/ambit/internal/apiclient"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
)

func (tn *tenant) streamPath(session id.Session, query string) string {
	return "/v1/sessions/" + string(session) + "/events/stream?" + query
}

// follow opens a stream and returns its reader; the test ends it by cancelling or by reading to its end.
func (tn *tenant) follow(ctx context.Context, session id.Session, query string, headers ...string) (*http.Response, *apiclient.Reader) {
	tn.t.Helper()
	res := tn.begin(ctx, tn.key, "GET", tn.streamPath(session, query), "", headers...)
	require.Equal(tn.t, 200, res.StatusCode)
	tn.t.Cleanup(func() { _ = res.Body.Close() })
	return res, apiclient.NewReader(res.Body)
}

func TestStreamOnTheWire(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	session, _ := tn.newSession("")
	tn.finish(session, "hi")
	events := tn.allEvents(session)
	res := tn.ask("GET", tn.streamPath(session, "after_seq=0&until=idle"), "")
	require.Equal(t, 200, res.StatusCode)
	require.Equal(t, "text/event-stream; charset=utf-8", res.Header.Get("Content-Type"))
	var want strings.Builder
	want.WriteString("retry: 2000\n\n")
	for _, e := range events {
		data, err := json.Marshal(e)
		require.NoError(t, err)
		fmt.Fprintf(&want, "id: %d\nevent: %s\ndata: %s\n\n", e.Seq, e.Type, data)
	}
	require.Equal(t, want.String(), res.raw)

	// Last-Event-ID counts before after_seq.
	res = tn.ask("GET", tn.streamPath(session, "after_seq=0&until=idle"), "", "Last-Event-ID", strconv.Itoa(len(events)-1))
	require.Equal(t, 1, strings.Count(res.raw, "id: "))
	res = tn.ask("GET", tn.streamPath(session, "after_seq=0&until=idle&types[]=agent.message&types[]=user.message"), "")
	require.Equal(t, 2, strings.Count(res.raw, "id: "))
	for _, bad := range []string{"after_seq=-1", "after_seq=x", "after_seq=999", "until=soon", "event_deltas[]=user.message"} {
		require.Equal(t, 400, tn.ask("GET", tn.streamPath(session, bad), "").StatusCode, bad)
	}
	require.Equal(t, 400, tn.ask("GET", tn.streamPath(session, ""), "", "Last-Event-ID", "evt_1").StatusCode)

	// At a terminated session's end there is nothing to come back for.
	require.Equal(t, 200, tn.ask("POST", "/v1/sessions/"+string(session)+"/archive", "").StatusCode)
	last := len(tn.allEvents(session))
	res = tn.ask("GET", tn.streamPath(session, ""), "", "Last-Event-ID", strconv.Itoa(last))
	require.Equal(t, 204, res.StatusCode)
	require.Empty(t, res.raw)
	res = tn.ask("GET", tn.streamPath(session, "after_seq=0"), "")
	require.Equal(t, last, strings.Count(res.raw, "id: "), "a terminated session's stream ends by itself")
}

func TestWithoutAPlaceOnlyWhatComesIsSent(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	session, _ := tn.newSession("")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, r := tn.follow(ctx, session, "")
	tn.work(session, journal.Of(journal.AgentMessage{Content: journal.Text("new")}))
	m, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, "agent.message", m.Event)
	require.Equal(t, strconv.Itoa(len(tn.allEvents(session))), m.ID)
}

// TestACutClientEndsWithTheDatabasesJournal cuts a client off a thousand times at random while the journal grows. Resuming by
// Last-Event-ID it must end with the same events as the database, each once, in order.
func TestACutClientEndsWithTheDatabasesJournal(t *testing.T) {
	const cuts = 1000
	tn := newRig(t).newTenant("Ada")
	session, _ := tn.newSession("")
	const seed = 20261120
	random := rand.New(rand.NewPCG(seed, 1))
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		writer := rand.New(rand.NewPCG(seed, 2))
		for range 500 {
			entries := make([]journal.Entry, 1+writer.IntN(4))
			for i := range entries {
				entries[i] = journal.Of(journal.AgentMessage{Content: journal.Text(strings.Repeat("x", writer.IntN(1000)))})
			}
			tn.work(session, entries...)
		}
		tn.work(session, journal.Of(journal.StatusTerminated{StopReason: journal.StopReason{Type: journal.StopExpired}}))
	}()
	var got []string
	last, cut := "0", 0
	ended := false
	for !ended {
		ctx, cancel := context.WithCancel(context.Background())
		res := tn.begin(ctx, tn.key, "GET", tn.streamPath(session, "after_seq=0"), "", "Last-Event-ID", last)
		if res.StatusCode == http.StatusNoContent {
			ended = true
		}
		r := apiclient.NewReader(res.Body)
		take := random.IntN(3)
		if cut >= cuts {
			take = 1 << 30
		}
		for range take {
			m, err := r.Next()
			if err != nil {
				break
			}
			last = m.ID
			got = append(got, m.ID+" "+string(m.Data))
		}
		cancel() // in the middle of whatever the server is writing
		_ = res.Body.Close()
		cut++
	}
	<-stopped
	var want []string
	for _, e := range tn.allEvents(session) {
		data, err := json.Marshal(e)
		require.NoError(t, err)
		want = append(want, fmt.Sprintf("%d %s", e.Seq, data))
	}
	require.Len(t, got, len(want))
	require.Equal(t, want, got)
	require.GreaterOrEqual(t, cut, cuts)
	t.Logf("%d events over %d connections", len(got), cut)
}

func TestInvokeAsAStream(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	body := `{"agent":{"model":"ambit/scripted"},"input":"x","mode":"stream"}`
	res := tn.begin(context.Background(), tn.key, "POST", "/v1/invoke", body, "Idempotency-Key", "s1")
	require.Equal(t, 200, res.StatusCode)
	location := res.Header.Get("Location")
	session := id.Session(strings.TrimPrefix(location, "/v1/sessions/"))
	r := apiclient.NewReader(res.Body)
	first, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, "session.created", first.Event)

	// A second message is queued; its idle ends not this stream.
	queued := tn.ask("POST", "/v1/invoke", `{"session_id":"`+string(session)+`","input":"later","mode":"async"}`)
	require.Equal(t, 202, queued.StatusCode, queued.raw)
	events := tn.allEvents(session)
	mine, later := events[1].ID, events[len(events)-1].ID
	tn.work(session,
		journal.Of(journal.StatusRunning{InputEventIDs: []id.Event{later}}),
		journal.Of(journal.StatusIdle{StopReason: journal.StopReason{Type: journal.StopEndTurn}, InputEventIDs: []id.Event{later}}),
		journal.Of(journal.StatusRunning{InputEventIDs: []id.Event{mine}}),
		journal.Of(journal.AgentMessage{Content: journal.Text("answer")}),
		journal.Of(journal.StatusIdle{StopReason: journal.StopReason{Type: journal.StopEndTurn}, InputEventIDs: []id.Event{mine}}))
	total := len(tn.allEvents(session))
	tn.work(session, journal.Of(journal.SessionUsage{}))
	n := 1
	for {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		n++
	}
	require.Equal(t, total, n, "the stream ends with the event that answers its input")
	require.NoError(t, res.Body.Close())

	again := tn.ask("POST", "/v1/invoke", body, "Idempotency-Key", "s1")
	require.Equal(t, "true", again.Header.Get("Idempotency-Replayed"))
	require.Equal(t, total, strings.Count(again.raw, "\nid: "))
	again = tn.ask("POST", "/v1/invoke", body, "Idempotency-Key", "s1", "Last-Event-ID", strconv.Itoa(total-1))
	require.Equal(t, 1, strings.Count(again.raw, "\nid: "))
}

func TestPreviewsAreSentAndGiveWayToTheEvent(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	session, _ := tn.newSession("")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	_, r := tn.follow(ctx, session, "event_deltas[]=agent.message")
	require.Eventually(t, func() bool { return tn.previews.Watched(session) }, 5*time.Second, time.Millisecond)
	coming := id.New[id.Event]()
	tn.previews.Publish(session, scheduler.Preview{Start: true, Event: coming, Type: "agent.message"})
	tn.previews.Publish(session, scheduler.Preview{Event: coming, Type: "agent.thinking", Delta: "hidden"})
	tn.previews.Publish(session, scheduler.Preview{Event: coming, Type: "agent.message", Delta: "Par"})
	m, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, "event_start", m.Event)
	require.Empty(t, m.ID, "a preview has no number, so that the last id is a durable one")
	require.JSONEq(t, `{"type":"event_start","event":{"id":"`+string(coming)+`","type":"agent.message"}}`, string(m.Data))
	m, err = r.Next()
	require.NoError(t, err)
	require.JSONEq(t, `{"type":"event_delta","event_id":"`+string(coming)+`","delta":{"type":"content_delta","index":0,"content":{"type":"text","text":"Par"}}}`, string(m.Data))
	cancel()
	require.Eventually(t, func() bool { return !tn.previews.Watched(session) }, 5*time.Second, time.Millisecond, "a client that leaves is forgotten")
}

func TestAReaderThatTakesNothingIsCut(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	session, _ := tn.newSession("")
	for range 14 {
		tn.work(session, journal.Of(journal.AgentMessage{Content: journal.Text(strings.Repeat("x", 1<<20))}))
	}
	conn, err := net.Dial("tcp", strings.TrimPrefix(tn.server.URL, "http://"))
	require.NoError(t, err)
	defer conn.Close() //nolint:errcheck // it is cut
	require.NoError(t, conn.(*net.TCPConn).SetReadBuffer(4096))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\n\r\n", tn.streamPath(session, "after_seq=0"), tn.key)
	require.Eventually(t, func() bool { return strings.Contains(tn.log.String(), "too slow") }, 30*time.Second, 50*time.Millisecond)
	// What was sent until then has no hole.
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	require.NoError(t, err)
	r := apiclient.NewReader(res.Body)
	for want := 1; ; want++ {
		m, err := r.Next()
		if err != nil {
			require.Less(t, want, 16, "it was not all sent")
			break
		}
		require.Equal(t, strconv.Itoa(want), m.ID)
	}
}

func TestTheDrainEndsStreamsCleanly(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	session, _ := tn.newSession("")
	_, r := tn.follow(context.Background(), session, "after_seq=0")
	for range 2 {
		_, err := r.Next()
		require.NoError(t, err)
	}
	tn.drain.Begin()
	_, err := r.Next()
	require.ErrorIs(t, err, io.EOF)
}

func TestTooManyStreamsOfOneKey(t *testing.T) {
	tn := newRig(t, func(c *api.Config) { c.MaxOpen = 3 }).newTenant("Ada")
	session, _ := tn.newSession("")
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for range 3 {
		tn.follow(ctx, session, "")
	}
	res := tn.ask("GET", tn.streamPath(session, ""), "")
	require.Equal(t, 429, res.StatusCode)
	require.Equal(t, "concurrency_limited", res.code(t))
	cancel()
	require.Eventually(t, func() bool {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		res := tn.begin(ctx, tn.key, "GET", tn.streamPath(session, ""), "")
		defer res.Body.Close() //nolint:errcheck // only opened
		return res.StatusCode == http.StatusOK
	}, 5*time.Second, 10*time.Millisecond)
}
