package faults

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/test/instance"
)

type event struct {
	Seq       int64  `json:"seq"`
	Type      string `json:"type"`
	Step      string `json:"step_id"`
	Kind      string `json:"kind"`
	Outcome   string `json:"outcome"`
	EffectKey string `json:"effect_key"`
	ToolUseID string `json:"tool_use_id"`
	IsError   bool   `json:"is_error"`
	Reason    string `json:"reason"`
	Content   []struct {
		Text string `json:"text"`
	} `json:"content"`
}

type session struct {
	ID         string `json:"id"`
	SessionID  string `json:"session_id"`
	Status     string `json:"status"`
	StopReason *struct {
		Type  string `json:"type"`
		Error *struct {
			Code string `json:"code"`
		} `json:"error"`
	} `json:"stop_reason"`
	LastSeq int64 `json:"last_seq"`
}

func invoke(t *testing.T, a *instance.Account, model, input string, tools ...string) string {
	t.Helper()
	if tools == nil {
		tools = []string{}
	}
	var s session
	status := a.Call(http.MethodPost, "/v1/invoke", map[string]any{
		"agent": map[string]any{"model": model, "tools": tools}, "input": input, "mode": "async",
	}, &s)
	require.Equal(t, http.StatusAccepted, status)
	return s.SessionID
}

// finished waits until the session is at rest.
func finished(t *testing.T, a *instance.Account, id string, within time.Duration) session {
	t.Helper()
	var s session
	require.Eventually(t, func() bool {
		status, body, err := a.Try(http.MethodGet, "/v1/sessions/"+id, nil)
		if err != nil || status != http.StatusOK || decode(body, &s) != nil {
			return false // the server is being restarted
		}
		return s.Status == "idle" || s.Status == "terminated"
	}, within, 100*time.Millisecond, "the session is stuck")
	return s
}

func journalOf(t *testing.T, a *instance.Account, id string) []event {
	t.Helper()
	var page struct {
		Data []event `json:"data"`
	}
	require.Equal(t, http.StatusOK, a.Call(http.MethodGet, "/v1/sessions/"+id+"/events?limit=1000", nil, &page))
	return page.Data
}

// sound checks what must hold of every journal, whatever happened: no gap, no double, each step settled once under its own key.
func sound(t *testing.T, events []event) {
	t.Helper()
	intended, settled, results := map[string]bool{}, map[string]bool{}, map[string]bool{}
	keys := map[string]bool{}
	tick := "" // the one that was begun last
	for i, e := range events {
		require.Equal(t, int64(i)+1, e.Seq, "a gap or a double in the journal")
		switch e.Type {
		case "step.intended":
			require.False(t, intended[e.Step], "step %s was intended twice", e.Step)
			require.False(t, keys[e.EffectKey], "effect key %s was used twice", e.EffectKey)
			intended[e.Step], keys[e.EffectKey] = true, true
			if e.Kind == "sandbox" {
				require.True(t, tick == "" || settled[tick], "a tick was begun before the one before it was settled")
				tick = e.Step
			}
		case "step.settled":
			require.True(t, intended[e.Step], "step %s was settled and never intended", e.Step)
			require.False(t, settled[e.Step], "step %s was settled twice", e.Step)
			settled[e.Step] = true
		case "agent.tool_result":
			require.False(t, results[e.ToolUseID], "tool use %s has two results", e.ToolUseID)
			results[e.ToolUseID] = true
		}
	}
	if !settled[tick] { // its sandbox lives on
		delete(intended, tick)
	}
	require.Equal(t, intended, settled, "every step that was begun is settled")
}

// once checks the provider's own log.
func once(t *testing.T, keys []string) {
	t.Helper()
	seen := map[string]bool{}
	for _, k := range keys {
		require.NotEmpty(t, k)
		require.False(t, seen[k], "effect key %s reached the provider twice", k)
		seen[k] = true
	}
}

func texts(e event) string {
	var s string
	for _, c := range e.Content {
		s += c.Text
	}
	return s
}

func find(events []event, kind string) []event {
	var found []event
	for _, e := range events {
		if e.Type == kind {
			found = append(found, e)
		}
	}
	return found
}
