package api_test

import (
	"encoding/json"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

// TestTheCallersTrace: a well-formed traceparent is journalled with who asked, and the session's first span names it; a malformed one
// counts as none, as the specification has it.
func TestTheCallersTrace(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	tn.startWorker()
	const (
		trace, span = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
		body        = `{"agent":{"model":"ambit/scripted"},"input":"hello","wait_seconds":30}`
	)
	root := func(session id.Session) (out journal.Span) {
		require.NoError(t, tn.db.InTx(t.Context(), tn.org, func(tx pgx.Tx) error {
			var raw []byte
			err := tx.QueryRow(t.Context(), `SELECT payload FROM outbox WHERE session_id = $1 AND payload ->> 'operation' = 'invoke_agent'
				ORDER BY (payload ->> 'seq')::bigint DESC LIMIT 1`, string(session)).Scan(&raw)
			require.NoError(t, err)
			return json.Unmarshal(raw, &out)
		}))
		return out
	}
	said := func(session id.Session, eventType string) (by struct {
		By struct{ Traceparent string }
	},
	) {
		for _, e := range tn.allEvents(session) {
			if e.Type == eventType {
				require.NoError(t, json.Unmarshal(e.Payload, &by))
			}
		}
		return by
	}
	invoke := func(body string, headers ...string) id.Session {
		res := tn.ask("POST", "/v1/invoke", body, headers...)
		require.Equal(t, 200, res.StatusCode, res.raw)
		session, _ := res.field(t, "session_id").(string)
		return id.Session(session)
	}

	session := invoke(body, "Traceparent", "00-"+trace+"-"+span+"-01")
	require.Equal(t, "00-"+trace+"-"+span+"-01", said(session, "session.created").By.Traceparent)
	got := root(session)
	require.Equal(t, trace, got.Attributes["ambit.caller.trace_id"])
	require.Equal(t, span, got.Attributes["ambit.caller.span_id"])
	require.Equal(t, journal.TraceID(string(session)), got.TraceID, "the session's trace is its own")
	require.Empty(t, got.ParentSpanID)

	// Each input keeps its own; the session goes on naming the one that began it.
	other := "00-aaf92f3577b34da6a3ce929d0e0e4736-aaf067aa0ba902b7-00"
	require.Equal(t, session, invoke(`{"session_id":"`+string(session)+`","input":"again","wait_seconds":30}`, "Traceparent", other))
	require.Equal(t, other, said(session, "user.message").By.Traceparent)
	require.Equal(t, trace, root(session).Attributes["ambit.caller.trace_id"])

	for _, malformed := range []string{"", "nonsense", "00-" + trace + "-0000000000000000-01", "ff-" + trace + "-" + span + "-01"} {
		session := invoke(body, "Traceparent", malformed)
		require.Empty(t, said(session, "session.created").By.Traceparent, malformed)
		require.NotContains(t, root(session).Attributes, "ambit.caller.trace_id")
	}
}
