package api_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/api"
	"ambit.dev/ambit/internal/apiclient"
	"ambit.dev/ambit/internal/id"
)

func TestInvokeInItsThreeModesWithAWorker(t *testing.T) {
	r := newRig(t)
	tn := r.newTenant("Ada")
	r.startWorker()
	agent := tn.newAgent("talker")

	res := tn.ask("POST", "/v1/invoke", `{"agent":"`+agent+`","overrides":{"tools":[]},"input":"hello there","limits":{"max_cost":{"amount":"0.50","currency":"USD"}},"wait_seconds":60}`)
	require.Equal(t, 200, res.StatusCode, res.raw)
	var sync api.InvokeResult
	res.into(t, &sync)
	require.Equal(t, "end_turn", sync.StopReason.Type, res.raw)
	require.NotEmpty(t, sync.Output)
	require.Positive(t, sync.Cost.Charged)
	require.Equal(t, sync.Cost.Held, sync.Cost.Charged+sync.Cost.Released, "what was held was charged or given back: %s", res.raw)
	require.EqualValues(t, 1, sync.Usage.Steps)

	body := begun(t, tn, `{"agent":{"model":"ambit/scripted"},"input":"hello","mode":"stream"}`)
	var kinds []string
	text, deltas := "", ""
	for {
		m, err := body.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(t, err)
		kinds = append(kinds, m.Event)
		switch m.Event {
		case "event_delta":
			deltas += string(m.Data)
		case "agent.message":
			text = string(m.Data)
		}
	}
	require.Equal(t, "session.status_idle", kinds[len(kinds)-1])
	require.NotEmpty(t, text)
	t.Log(strings.Join(kinds, " "))

	res = tn.ask("POST", "/v1/invoke", `{"session_id":"`+string(sync.SessionID)+`","input":"and again","mode":"async"}`)
	require.Equal(t, 202, res.StatusCode, res.raw)
	res = tn.ask("GET", "/v1/sessions/"+string(sync.SessionID)+"?wait_for=idle&wait_seconds=60", "")
	require.Equal(t, "idle", res.field(t, "status"), res.raw)
	require.Equal(t, "end_turn", res.field(t, "stop_reason.type"), res.raw)

	res = tn.ask("GET", "/v1/sessions/"+string(sync.SessionID)+"/steps", "")
	require.Equal(t, 200, res.StatusCode, res.raw)
	var steps api.Page[api.Step]
	res.into(t, &steps)
	require.Len(t, steps.Data, 2)
	require.Equal(t, "succeeded", *steps.Data[0].Outcome)
}

func begun(t *testing.T, tn *tenant, body string) *apiclient.Reader {
	t.Helper()
	res := tn.begin(context.Background(), tn.key, "POST", "/v1/invoke", body)
	require.Equal(t, 200, res.StatusCode)
	t.Cleanup(func() { _ = res.Body.Close() })
	return apiclient.NewReader(res.Body)
}

// TestTwoHundredInvokesAtOnceAllEnd sends them side by side, each with its own key, and every fifth twice.
func TestTwoHundredInvokesAtOnceAllEnd(t *testing.T) {
	const invokes = 200
	r := newRig(t)
	tn := r.newTenant("Ada")
	tn.grant("100.00")
	r.startWorker()
	var wg sync.WaitGroup
	var mu sync.Mutex
	sessions := map[id.Session]int{}
	for i := range invokes {
		for range 1 + i%5/4 {
			wg.Go(func() {
				for {
					res := tn.ask("POST", "/v1/invoke", `{"agent":{"model":"ambit/scripted"},"input":"hello","mode":"async"}`, "Idempotency-Key", fmt.Sprint(i))
					if res.StatusCode == http.StatusConflict {
						continue
					}
					if res.StatusCode != http.StatusAccepted {
						t.Error(res.raw)
						return
					}
					var out api.InvokeResult
					res.into(t, &out)
					mu.Lock()
					sessions[out.SessionID]++
					mu.Unlock()
					return
				}
			})
		}
	}
	wg.Wait()
	require.Len(t, sessions, invokes)
	began := time.Now()
	for session := range sessions {
		res := tn.ask("GET", "/v1/sessions/"+string(session)+"?wait_for=idle&wait_seconds=120", "")
		require.Equal(t, "idle", res.field(t, "status"), res.raw)
		require.Equal(t, "end_turn", res.field(t, "stop_reason.type"), res.raw)
	}
	t.Logf("all ended %s after the last was accepted", time.Since(began).Round(time.Millisecond))
}
