package faults

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/test/instance"
)

// TestSessionsAtRestMakeRoom: with two sandboxes in all, five sessions work one after another, and each finds its files again.
func TestSessionsAtRestMakeRoom(t *testing.T) {
	i := instance.Start(t, "AMBIT_MAX_SANDBOXES=2", "AMBIT_WARM_SANDBOXES=1")
	a := i.Account("room")
	var ids []string
	for n := range 5 {
		id := invoke(t, a, "ambit/scripted", fmt.Sprintf("```bash\necho %d > number\n```", n), "bash")
		s := finished(t, a, id, time.Minute)
		require.Equal(t, "end_turn", s.StopReason.Type)
		results := find(journalOf(t, a, id), "agent.tool_result")
		require.Len(t, results, 1)
		require.False(t, results[0].IsError, "session %d: %s", n, texts(results[0]))
		ids = append(ids, id)
	}
	var ended struct {
		Data []event `json:"data"`
	}
	require.Equal(t, http.StatusOK, a.Call(http.MethodGet, "/v1/sessions/"+ids[0]+"/events?types[]=sandbox.ended", nil, &ended))
	require.Len(t, ended.Data, 1)
	require.Equal(t, "made_room", ended.Data[0].Reason)

	require.Equal(t, http.StatusOK, a.Call(http.MethodPost, "/v1/sessions/"+ids[0]+"/events", map[string]any{"events": []any{map[string]any{
		"type": "user.message", "content": []any{map[string]any{"type": "text", "text": "```bash\ncat number\n```"}},
	}}}, nil))
	require.Eventually(t, func() bool { return len(find(journalOf(t, a, ids[0]), "agent.tool_result")) == 2 }, time.Minute, 100*time.Millisecond)
	results := find(journalOf(t, a, ids[0]), "agent.tool_result")
	require.Equal(t, "0", strings.TrimSpace(texts(results[1])))
}
