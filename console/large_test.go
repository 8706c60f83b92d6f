package console_test

import (
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

// TestALongSessionOpens gives a session as many events as weeks of work leave, and opens its page. The time is measured and told; what is
// required is that a page shows a window of it, and that what is earlier can be reached.
func TestALongSessionOpens(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	agent := w.agent(t, ada, "analyst", "")
	sid := w.recorded(t, ada, agent)
	for batch := range 10 {
		var entries []journal.Entry
		for i := range 400 {
			step, use := id.New[id.Step](), fmt.Sprintf("w%d-%d", batch, i)
			entries = append(entries,
				journal.Of(journal.AgentToolUse{ToolUseID: use, Name: "bash", Input: json.RawMessage(fmt.Sprintf(`{"command":"echo step %d of %d"}`, i, batch))}),
				journal.Entry{Step: step, Payload: journal.StepIntended{Kind: journal.KindToolCall, Name: "bash", EffectKey: string(step), ToolUseID: use, Attempt: 1}},
				journal.Entry{Step: step, Payload: journal.AgentToolResult{ToolUseID: use, Content: journal.Text("done")}},
				journal.Entry{Step: step, Payload: journal.StepSettled{Kind: journal.KindToolCall, Name: "bash", Outcome: journal.Succeeded, Cost: 1000}},
				journal.Of(journal.CheckpointCreated{Checkpoint: id.New[id.Checkpoint]()}))
		}
		w.append(t, ada, sid, entries...)
	}
	client := w.client(t, &ada)
	base := w.URL + ada.path + "/sessions/" + string(sid)
	for _, path := range []string{"", "?view=journal", "?tab=cost", "?tab=raw"} {
		began := time.Now()
		code, body := get(t, client, base+path)
		t.Logf("%q: %v, %d kB", path, time.Since(began).Round(time.Millisecond), len(body)>>10)
		require.Equal(t, 200, code)
		require.Contains(t, body, "Show earlier events")
		require.Less(t, len(body), 3<<20)
	}
	_, body := get(t, client, base+"?before=601")
	require.Contains(t, body, "Total the third quarter", "its beginning")
}
