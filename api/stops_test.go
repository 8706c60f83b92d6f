package api_test

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
)

func TestAKillTakesTheSessionsBelowWithIt(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	agent := tn.newAgent("helper")
	root, _ := tn.newSession(`{"agent":"` + agent + `","input":"x","mode":"async","limits":{"max_depth":1}}`)
	child, _ := tn.newSession(`{"agent":"` + agent + `","input":"x","mode":"async","parent_session_id":"` + string(root) + `"}`)
	require.Equal(t, string(root), tn.ask("GET", "/v1/sessions/"+string(child), "").field(t, "parent_session_id"))

	deeper := tn.ask("POST", "/v1/invoke", `{"agent":"`+agent+`","input":"x","mode":"async","parent_session_id":"`+string(child)+`"}`)
	require.Equal(t, 409, deeper.StatusCode, deeper.raw)
	require.Equal(t, "depth", deeper.field(t, "limit"))
	never := tn.ask("POST", "/v1/invoke", `{"agent":"`+agent+`","input":"x","mode":"async","parent_session_id":"`+string(id.New[id.Session]())+`"}`)
	require.Equal(t, 404, never.StatusCode)
	eve := tn.newTenant("Eve")
	theirs := eve.ask("POST", "/v1/invoke", `{"agent":"`+eve.newAgent("hers")+`","input":"x","mode":"async","parent_session_id":"`+string(root)+`"}`)
	require.Equal(t, never.raw, theirs.raw, "another organisation's session is as missing as one that never was")

	none := tn.ask("GET", "/v1/sessions/"+string(root)+"/receipt", "")
	require.Equal(t, 404, none.StatusCode, "it was not killed")
	killed := tn.ask("POST", "/v1/sessions/"+string(root)+"/kill", `{"reason":"enough"}`)
	require.Equal(t, 200, killed.StatusCode, killed.raw)
	var r struct {
		Children []struct {
			SessionID string `json:"session_id"`
		}
	}
	killed.into(t, &r)
	require.Len(t, r.Children, 1)
	require.Equal(t, string(child), r.Children[0].SessionID)
	require.Equal(t, "terminated", tn.ask("GET", "/v1/sessions/"+string(child), "").field(t, "status"))
	require.Equal(t, killed.raw, tn.ask("GET", "/v1/sessions/"+string(root)+"/receipt", "").raw)
	require.Equal(t, 200, tn.ask("GET", "/v1/sessions/"+string(child)+"/receipt", "").StatusCode)
	require.Equal(t, 404, eve.ask("GET", "/v1/sessions/"+string(root)+"/receipt", "").StatusCode)
}

func TestStoppingAScopeGivesOneOrderAndItsReceipt(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	agent, other := tn.newAgent("runaway"), tn.newAgent("calm")
	mine, _ := tn.newSession(`{"agent":"` + agent + `","input":"x","mode":"async"}`)
	theirs, _ := tn.newSession(`{"agent":"` + other + `","input":"x","mode":"async"}`)

	stopped := tn.ask("POST", "/v1/agents/"+agent+"/stop", `{"reason":"it ran away"}`)
	require.Equal(t, 200, stopped.StatusCode, stopped.raw)
	require.Equal(t, "complete", stopped.field(t, "status"))
	require.Equal(t, "agent", stopped.field(t, "scope.type"))
	require.EqualValues(t, 1, stopped.field(t, "sessions_stopped"))
	order, _ := stopped.field(t, "id").(string)
	require.Equal(t, "/v1/stops/"+order, stopped.Header.Get("Location"))
	require.Equal(t, "terminated", tn.ask("GET", "/v1/sessions/"+string(mine), "").field(t, "status"))
	require.Equal(t, "it ran away", tn.ask("GET", "/v1/sessions/"+string(mine)+"/receipt", "").field(t, "reason"))
	require.Equal(t, "rescheduling", tn.ask("GET", "/v1/sessions/"+string(theirs), "").field(t, "status"))
	require.Equal(t, stopped.raw, tn.ask("POST", "/v1/agents/"+agent+"/stop", "").raw, "stopping again gives the same order")
	require.Equal(t, stopped.raw, tn.ask("GET", "/v1/stops/"+order, "").raw)

	require.Equal(t, 403, tn.ask("POST", "/v1/organization/stop", "").StatusCode, "a project's key does not stop the organisation")
	everything := tn.askWith(tn.orgKey, "POST", "/v1/organization/stop", `{"include_idle":true}`)
	require.Equal(t, 200, everything.StatusCode, everything.raw)
	require.Equal(t, "terminated", tn.ask("GET", "/v1/sessions/"+string(theirs), "").field(t, "status"))
	all, _ := everything.field(t, "id").(string)
	require.Equal(t, 404, tn.ask("GET", "/v1/stops/"+all, "").StatusCode, "an order over the organisation is not a project's to see")

	var page struct{ Data []json.RawMessage }
	tn.ask("GET", "/v1/stops", "").into(t, &page)
	require.Len(t, page.Data, 1)
	tn.askWith(tn.orgKey, "GET", "/v1/stops", "").into(t, &page)
	require.Len(t, page.Data, 2)

	reader, _ := tn.newKey(tenants.CreateKey{Name: "reader", Project: tn.project, Scopes: []string{"sessions:read", "sessions:write"}})
	require.Equal(t, 403, tn.askWith(reader, "POST", "/v1/projects/"+string(tn.project)+"/stop", "").StatusCode)
	require.Equal(t, 403, tn.askWith(reader, "POST", "/v1/api_keys/"+string(tn.keyID)+"/stop", "").StatusCode)
	require.Equal(t, 400, tn.ask("POST", "/v1/agents/"+agent+"/stop", `{"reason":"`+string(make([]byte, 600))+`"}`).StatusCode)
}
