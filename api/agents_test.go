package api_test

import (
	"fmt"
	"net/http"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/api"
)

func TestAgentsFromBirthToArchive(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	res := tn.ask("POST", "/v1/agents", `{"name":"helper","model":"ambit/scripted","tools":["bash"],"limits":{"max_cost":{"amount":"1.00","currency":"USD"}},"metadata":{"team":"a"}}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	require.Equal(t, `"1"`, res.Header.Get("ETag"))
	agent, _ := res.field(t, "id").(string)
	require.Equal(t, "/v1/agents/"+agent, res.Header.Get("Location"))
	require.Equal(t, "1.00", res.field(t, "limits.max_cost.amount"))
	require.Contains(t, res.raw, `"max_tokens":null`, "null fields are present")

	// Left out stays, null clears, arrays replace.
	path := "/v1/agents/" + agent
	res = tn.ask("POST", path, `{"tools":["python"],"limits":null,"metadata":null}`)
	require.Equal(t, 200, res.StatusCode, res.raw)
	var got api.Agent
	res.into(t, &got)
	require.Equal(t, 2, got.Version)
	require.Equal(t, "helper", got.Name)
	require.Equal(t, "ambit/scripted", got.Model)
	require.Equal(t, []string{"python"}, got.Tools)
	require.Nil(t, got.Limits.MaxCost)
	require.Empty(t, got.Metadata)

	res = tn.ask("POST", path, `{"system":"x"}`, "If-Match", `"1"`)
	require.Equal(t, 412, res.StatusCode)
	require.Equal(t, "precondition_failed", res.code(t))
	res = tn.ask("POST", path, `{"system":"x"}`, "If-Match", `"2"`)
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.Equal(t, 409, tn.ask("POST", "/v1/agents", `{"name":"helper","model":"ambit/scripted"}`).StatusCode, "a name is one agent's")

	res = tn.ask("GET", path+"/versions?limit=2", "")
	require.Equal(t, 200, res.StatusCode, res.raw)
	var page api.Page[api.AgentVersion]
	res.into(t, &page)
	require.Len(t, page.Data, 2)
	require.Equal(t, 3, page.Data[0].Version)
	require.NotNil(t, page.NextPage)
	res = tn.ask("GET", path+"/versions?limit=2&page="+*page.NextPage, "")
	res.into(t, &page)
	require.Len(t, page.Data, 1)
	require.Equal(t, 1, page.Data[0].Version)
	require.Equal(t, "1.00", page.Data[0].Limits.MaxCost.Decimal(), "old versions stay as they were")
	require.Nil(t, page.NextPage)

	res = tn.ask("GET", path+"/versions/1", "", "If-None-Match", `"1"`)
	require.Equal(t, 304, res.StatusCode)
	require.Empty(t, res.raw)

	res = tn.ask("POST", path+"/archive", "")
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.NotNil(t, res.field(t, "archived_at"))
	require.Equal(t, "archived", tn.ask("POST", path, `{"name":"other"}`).code(t))
	require.Equal(t, "archived", tn.ask("POST", "/v1/invoke", `{"agent":"`+agent+`","input":"x"}`).code(t))
	require.NotContains(t, tn.ask("GET", "/v1/agents", "").raw, agent)
	require.Contains(t, tn.ask("GET", "/v1/agents?include_archived=true", "").raw, agent)
}

func TestAliasesMoveOnlyWhenSeen(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	agent := tn.newAgent("helper")
	require.Equal(t, 200, tn.ask("POST", "/v1/agents/"+agent, `{"system":"two"}`).StatusCode)
	path := "/v1/agents/" + agent + "/aliases/prod"
	require.Equal(t, 404, tn.ask("GET", path, "").StatusCode)
	res := tn.ask("PUT", path, `{"version":1}`)
	require.Equal(t, 200, res.StatusCode, res.raw)
	tag := res.Header.Get("ETag")
	require.Equal(t, "precondition_required", tn.ask("PUT", path, `{"version":2}`).code(t))
	require.Equal(t, "precondition_failed", tn.ask("PUT", path, `{"version":2}`, "If-Match", `"99"`).code(t))
	require.Equal(t, "invalid_request", tn.ask("PUT", path, `{"version":3}`, "If-Match", tag).code(t))
	res = tn.ask("PUT", path, `{"version":2}`, "If-Match", tag)
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.NotEqual(t, tag, res.Header.Get("ETag"))
	require.Equal(t, 412, tn.ask("PUT", path, `{"version":1}`, "If-Match", tag).StatusCode, "there and back is not unmoved")
	require.Equal(t, 412, tn.ask("PUT", "/v1/agents/"+agent+"/aliases/other", `{"version":1}`, "If-Match", tag).StatusCode)

	_, session := tn.newSession(`{"agent":{"id":"` + agent + `","alias":"prod"},"input":"x","mode":"async"}`)
	require.Equal(t, 2, *session.Agent.Version)
	require.Contains(t, tn.ask("GET", "/v1/agents/"+agent+"/aliases", "").raw, `"prod"`)
	res = tn.ask("DELETE", path, "")
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.JSONEq(t, `{"id":"prod","type":"agent_alias_deleted"}`, res.raw)
	require.Equal(t, 404, tn.ask("DELETE", path, "").StatusCode)
}

// TestUpdatesAtOnceAreAllKept sends changes of different fields side by side: none undoes another.
func TestUpdatesAtOnceAreAllKept(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	agent := tn.newAgent("helper")
	var wg sync.WaitGroup
	for _, body := range []string{`{"system":"s"}`, `{"tools":["python"]}`, `{"max_tokens":77}`, `{"if_running":"reject"}`} {
		wg.Go(func() {
			if res := tn.ask("POST", "/v1/agents/"+agent, body); res.StatusCode != http.StatusOK {
				t.Error(res.raw)
			}
		})
	}
	wg.Wait()
	var got api.Agent
	tn.ask("GET", "/v1/agents/"+agent, "").into(t, &got)
	require.Equal(t, 5, got.Version)
	require.Equal(t, "s/[python]/77/reject", fmt.Sprintf("%s/%v/%d/%s", got.System, got.Tools, got.MaxTokens, got.IfRunning))
}

func TestWhatAnAgentMayReach(t *testing.T) {
	ada := newRig(t).newTenant("Ada")
	made := ada.ask("POST", "/v1/agents", `{"name":"a","model":"ambit/scripted","network":{"allowed_hosts":["API.Example.com","*.example.org:8443"]}}`)
	require.Equal(t, 201, made.StatusCode, made.raw)
	require.Equal(t, []any{"api.example.com", "*.example.org:8443"}, made.field(t, "network.allowed_hosts"))
	path := made.Header.Get("Location")
	same := ada.ask("POST", path, `{"description":"x"}`)
	require.Equal(t, []any{"api.example.com", "*.example.org:8443"}, same.field(t, "network.allowed_hosts"), "left out, it stays")
	none := ada.ask("POST", path, `{"network":null}`)
	require.Equal(t, []any{}, none.field(t, "network.allowed_hosts"))
	require.InDelta(t, 2, none.field(t, "version"), 0)
	bad := ada.ask("POST", path, `{"network":{"allowed_hosts":["example.com","http://example.com"]}}`)
	require.Equal(t, 400, bad.StatusCode)
	require.Contains(t, bad.raw, `"pointer":"/network/allowed_hosts/1"`)
}
