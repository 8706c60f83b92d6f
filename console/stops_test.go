package console_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
)

// TestTheRedButton stops an agent, a key's sessions and everything, each after its question, and downloads the receipts.
func TestTheRedButton(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	agent, other := w.agent(t, ada, "analyst", "Be careful."), w.agent(t, ada, "bystander", "Be calm.")
	begin := func(agent agents.Agent) id.Session {
		var out scheduler.Invoked
		require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) (err error) {
			out, err = w.sessions.Invoke(ada.ctx(t), tx, ada.Organization.ID, scheduler.InvokeInput{
				Project: ada.Project.ID, Agent: &agents.Ref{Agent: agent.ID}, Input: journal.Text("```pause seconds=600\n```"),
			})
			return err
		}))
		return out.Session.ID
	}
	mine, theirs := begin(agent), begin(other)
	client := w.client(t, &ada)
	get := func(path string) (int, string, http.Header) {
		res, err := client.Get(w.URL + path)
		require.NoError(t, err)
		defer res.Body.Close() //nolint:errcheck // read to its end
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(body), res.Header
	}
	post := func(path string, form url.Values) (int, string, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+path, strings.NewReader(form.Encode()))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set("Origin", w.URL)
		res, err := client.Do(req)
		require.NoError(t, err)
		defer res.Body.Close() //nolint:errcheck // read to its end
		body, err := io.ReadAll(res.Body)
		require.NoError(t, err)
		return res.StatusCode, string(body), res.Request.URL.Path
	}
	status := func(session id.Session) journal.Status {
		got, err := w.sessions.Get(t.Context(), ada.Organization.ID, session)
		require.NoError(t, err)
		return got.Status
	}

	for _, one := range []id.Session{mine, theirs} {
		require.Eventually(t, func() bool { return status(one) == journal.Running }, waitFor, tick)
	}
	_, page, _ := get(ada.path + "/agents/" + string(agent.ID))
	red := ada.path + "/stop/agents/" + string(agent.ID)
	require.Contains(t, page, red)
	code, question, _ := get(red)
	require.Equal(t, 200, code)
	require.Contains(t, question, "1 session works")
	require.Equal(t, journal.Running, status(mine), "the question stops nothing")

	code, body, at := post(red, url.Values{"reason": {"it ran away"}})
	require.Equal(t, 200, code, body)
	require.Contains(t, at, "/stops/sto_")
	require.Contains(t, body, string(mine))
	require.Contains(t, body, "it ran away")
	require.Contains(t, body, "Stop of agent analyst")
	require.Equal(t, journal.Terminated, status(mine))
	require.Equal(t, journal.Running, status(theirs))

	code, file, head := get(at + "/receipt")
	require.Equal(t, 200, code)
	require.Contains(t, head.Get("Content-Disposition"), "attachment; filename=\"sto_")
	var order struct {
		Type     string
		Sessions []struct {
			SessionID string `json:"session_id"`
		}
	}
	require.NoError(t, json.Unmarshal([]byte(file), &order))
	require.Equal(t, "stop_receipt", order.Type)
	require.Equal(t, string(mine), order.Sessions[0].SessionID)
	_, page, _ = get(ada.path + "/sessions/" + string(mine))
	require.Contains(t, page, ada.path+"/sessions/"+string(mine)+"/receipt")
	code, file, _ = get(ada.path + "/sessions/" + string(mine) + "/receipt")
	require.Equal(t, 200, code)
	require.Contains(t, file, `"kill_receipt"`)
	code, _, _ = get(ada.path + "/sessions/" + string(theirs) + "/receipt")
	require.Equal(t, 404, code, "it was not killed")

	// Everything asks for the organisation's name.
	_, page, _ = get(ada.path + "/settings?tab=organisation")
	require.Contains(t, page, ada.path+"/stop/organisation")
	for _, typed := range []string{"", "ada", "Somebody else"} {
		code, body, _ = post(ada.path+"/stop/organisation", url.Values{"reason": {"a fire"}, "typed": {typed}})
		require.Equal(t, 422, code)
		require.Contains(t, body, "Nothing was stopped")
		require.Contains(t, body, "a fire", "what was typed is kept")
	}
	require.Equal(t, journal.Running, status(theirs))
	code, body, at = post(ada.path+"/stop/organisation", url.Values{"reason": {"a fire"}, "typed": {ada.Organization.Name}})
	require.Equal(t, 200, code)
	require.Contains(t, at, "/stops/sto_")
	require.Contains(t, body, "Stop of everything")
	require.Equal(t, journal.Terminated, status(theirs))

	_, list, _ := get(ada.path + "/stops")
	require.Contains(t, list, "Everything")
	require.Contains(t, list, "Agent analyst")
}
