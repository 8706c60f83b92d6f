// Package faults breaks a whole, real instance while it works, and looks at what remains from outside: its API, its database, and the logs
// of the others that took part.
package faults

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/test/instance"
	"ambit.dev/ambit/test/provider"
)

func decode(b []byte, to any) error { return json.Unmarshal(b, to) }

const server = "serve --role all"

func TestAKilledWorkerIsSucceeded(t *testing.T) {
	p := provider.New(t)
	i := instance.Start(t, p.Environment(t)...)
	a := i.Account("faults")

	t.Run("while a model answers", func(t *testing.T) {
		hold, before := make(chan struct{}), len(p.Keys())
		p.Set(hold, nil)
		id := invoke(t, a, "openai/parrot", "Say hello.")
		p.WaitForCall(t, before)
		i.Kill(server)
		close(hold)
		p.Set(nil, nil)

		s := finished(t, a, id, time.Minute)
		require.Equal(t, "end_turn", s.StopReason.Type)
		events := journalOf(t, a, id)
		sound(t, events)
		once(t, p.Keys())
		steps := find(events, "step.settled")
		require.Len(t, steps, 2, "the call that was cut, and a new one")
		require.Equal(t, "unknown", steps[0].Outcome)
		require.Equal(t, "succeeded", steps[1].Outcome)
		require.NotEqual(t, steps[0].Step, steps[1].Step)
	})

	t.Run("while a command runs", func(t *testing.T) {
		id := invoke(t, a, "ambit/scripted", "```bash\necho once >> effects.txt; sleep 6; cat effects.txt; echo finished\n```", "bash")
		require.Eventually(t, func() bool { return len(find(journalOf(t, a, id), "sandbox.started")) == 1 }, time.Minute, 50*time.Millisecond)
		time.Sleep(500 * time.Millisecond) //nolint:forbidigo // the command is under way: there is no event that says so
		i.Kill(server)

		s := finished(t, a, id, time.Minute)
		require.Equal(t, "end_turn", s.StopReason.Type)
		events := journalOf(t, a, id)
		sound(t, events)
		results := find(events, "agent.tool_result")
		require.Len(t, results, 1)
		require.Equal(t, "once\nfinished", strings.TrimSpace(texts(results[0])), "the new worker attached to the command; it did not run it again")
		require.Len(t, find(events, "sandbox.started"), 1)
	})

	t.Run("while a commit is under way", func(t *testing.T) {
		hold, before := make(chan struct{}), len(p.Keys())
		p.Set(hold, nil)
		id := invoke(t, a, "openai/parrot", "Say hello again.")
		p.WaitForCall(t, before)
		// The session's row is held, so that the commit of the answer waits within its transaction.
		owner, err := pgx.Connect(t.Context(), i.Config.PostgresURL.Reveal())
		require.NoError(t, err)
		defer owner.Close(t.Context()) //nolint:errcheck // the test's own
		tx, err := owner.Begin(t.Context())
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "SELECT 1 FROM sessions WHERE id = $1 FOR UPDATE", id)
		require.NoError(t, err)
		close(hold)
		require.Eventually(t, func() bool {
			var waiting int
			require.NoError(t, tx.QueryRow(t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'").Scan(&waiting))
			return waiting > 0
		}, 20*time.Second, 20*time.Millisecond)
		i.Kill(server)
		p.Set(nil, nil)
		require.NoError(t, tx.Rollback(t.Context()))

		s := finished(t, a, id, time.Minute)
		require.Equal(t, "end_turn", s.StopReason.Type)
		sound(t, journalOf(t, a, id))
		once(t, p.Keys())
	})
	require.Contains(t, i.Log(), "killed", "the death of the server is named in the log")
}

func TestABadProviderNeverLeavesASessionStuck(t *testing.T) {
	p := provider.New(t)
	i := instance.Start(t, p.Environment(t)...)
	a := i.Account("provider")

	fail := func(n int, answer func(http.ResponseWriter)) func(http.ResponseWriter, *http.Request) bool {
		return func(w http.ResponseWriter, _ *http.Request) bool {
			if n == 0 {
				return false
			}
			n--
			answer(w)
			return true
		}
	}
	status := func(code int, header ...string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			if len(header) == 2 {
				w.Header().Set(header[0], header[1])
			}
			w.WriteHeader(code)
			fmt.Fprint(w, `{"error":{"message":"no","type":"x"}}`)
		}
	}
	reset := func(w http.ResponseWriter) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}
	begun := "data: {\"id\":\"c\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\"Half a \"}}]}\n\n"
	for name, c := range map[string]struct {
		misbehave func(http.ResponseWriter, *http.Request) bool
		stop      string
		calls     int
	}{
		"429 with Retry-After, once": {fail(1, status(429, "Retry-After", "1")), "end_turn", 2},
		"500, twice":                 {fail(2, status(500)), "end_turn", 3},
		"a reset, once":              {fail(1, reset), "end_turn", 2},
		"a truncated stream, once": {fail(1, func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, begun)
		}), "end_turn", 2},
		"bad JSON, once": {fail(1, func(w http.ResponseWriter) {
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprint(w, begun+"data: {\"choices\":[{\n\n")
		}), "end_turn", 2},
		"401, for ever": {fail(1000, status(401)), "retries_exhausted", 1},
		"400, for ever": {fail(1000, status(400)), "retries_exhausted", 1},
	} {
		t.Run(name, func(t *testing.T) {
			before := len(p.Keys())
			p.Set(nil, c.misbehave)
			defer p.Set(nil, nil)
			id := invoke(t, a, "openai/parrot", "Say hello.")
			s := finished(t, a, id, time.Minute)
			require.Equal(t, "idle", s.Status)
			require.Equal(t, c.stop, s.StopReason.Type)
			sound(t, journalOf(t, a, id))
			once(t, p.Keys())
			require.Len(t, p.Keys()[before:], c.calls)
		})
	}

	t.Run("a hang ends with an interrupt", func(t *testing.T) {
		hold := make(chan struct{})
		defer close(hold)
		before := len(p.Keys())
		p.Set(hold, nil)
		defer p.Set(nil, nil)
		id := invoke(t, a, "openai/parrot", "Say hello.")
		p.WaitForCall(t, before)
		require.Equal(t, http.StatusOK, a.Call(http.MethodPost, "/v1/sessions/"+id+"/events", map[string]any{"events": []any{map[string]any{"type": "user.interrupt"}}}, nil))
		s := finished(t, a, id, 20*time.Second)
		require.Equal(t, "interrupted", s.StopReason.Type)
		sound(t, journalOf(t, a, id))
	})
}
