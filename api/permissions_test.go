package api_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/api"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"
)

func (tn *tenant) askWhole(method, path, body string, headers ...string) reply {
	tn.t.Helper()
	return tn.askWith(tn.orgKey, method, path, body, headers...)
}

func TestRulesOverTheAPI(t *testing.T) {
	r := newRig(t)
	ada := r.newTenant("Ada")
	agent := ada.newAgent("helper")
	explain := func() (out api.Explanation) {
		t.Helper()
		res := ada.ask("POST", "/v1/permissions/explain", `{"agent":"`+agent+`","kind":"tool_call","name":"bash","amount":{"amount":"0.50","currency":"USD"},"at":"2026-11-20T20:00:00+01:00"}`)
		require.Equal(t, 200, res.StatusCode, res.raw)
		res.into(t, &out)
		return out
	}
	require.Equal(t, "default", explain().Rule)
	require.Zero(t, explain().PolicyVersion)

	body := `{"subject":"*","effect":"allow","kind":"tool_call","name":"bash","description":"By day","condition":{"amount_at_most":{"amount":"1.00","currency":"USD"},
		"hours":{"from":"08:00","to":"18:00","days":["friday","monday"]},"domains":[],"environments":[]}}`
	res := ada.askWhole("POST", "/v1/permissions", body, "Idempotency-Key", "once")
	require.Equal(t, 201, res.StatusCode, res.raw)
	var rule api.Permission
	res.into(t, &rule)
	require.Equal(t, `"1"`, res.Header.Get("ETag"))
	require.Equal(t, "/v1/permissions/"+string(rule.ID), res.Header.Get("Location"))
	require.Equal(t, []string{"monday", "friday"}, rule.Condition.Hours.Days)
	require.Equal(t, "Allows all agents the tool bash, at a cost of at most $1.00, from 08:00 to 18:00 on Monday, Friday.", rule.Summary)
	again := ada.askWhole("POST", "/v1/permissions", body, "Idempotency-Key", "once")
	require.Equal(t, res.raw, again.raw)
	require.Equal(t, "true", again.Header.Get("Idempotency-Replayed"))

	e := explain()
	require.Equal(t, "deny", e.Effect)
	require.Equal(t, "no_rule", e.Rule)
	require.Equal(t, []api.RuleDifference{{Part: "hours", Wants: "from 08:00 to 18:00 on Monday, Friday", Has: "Friday 19:00"}}, e.Nearest.Missing)
	require.Equal(t, rule.ID, e.Nearest.ID)

	path := "/v1/permissions/" + string(rule.ID)
	require.Equal(t, 412, ada.askWhole("POST", path, `{"condition":null}`, "If-Match", `"7"`).StatusCode)
	res = ada.askWhole("POST", path, `{"condition":null}`, "If-Match", `"1"`)
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.Nil(t, res.field(t, "condition"))
	require.Equal(t, "By day", res.field(t, "description"))
	require.Equal(t, "allow", explain().Effect)
	require.Equal(t, string(rule.ID), explain().Rule)

	res = ada.askWhole("POST", "/v1/permissions/presets/model-only", `{"subject":"`+agent+`"}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	e = explain()
	require.Equal(t, "deny", e.Effect)
	require.Contains(t, e.Reason, "No tools.")
	require.Len(t, e.Applied, 2)
	require.Empty(t, e.Nearest.Missing)
	require.Len(t, e.Nearest.DeniedBy, 1)
	require.Equal(t, 404, ada.askWhole("POST", "/v1/permissions/presets/everything", `{"subject":"*"}`).StatusCode)

	var page struct {
		Data     []api.Permission
		NextPage *string `json:"next_page"`
	}
	ada.askWhole("GET", "/v1/permissions?limit=2&order=asc", "").into(t, &page)
	require.Len(t, page.Data, 2)
	require.Equal(t, rule.ID, page.Data[0].ID)
	require.NotNil(t, page.NextPage)
	ada.askWhole("GET", "/v1/permissions?limit=2&order=asc&page="+*page.NextPage, "").into(t, &page)
	require.Len(t, page.Data, 2)
	require.Nil(t, page.NextPage)
	ada.askWhole("GET", "/v1/permissions?subject="+agent+"&effect=deny", "").into(t, &page)
	require.Len(t, page.Data, 2)
	for _, p := range page.Data {
		require.Equal(t, 200, ada.askWhole("DELETE", "/v1/permissions/"+string(p.ID), "").StatusCode)
	}
	require.Equal(t, "allow", explain().Effect)

	res = ada.askWhole("PUT", "/v1/permissions/tags/"+agent, `{"tags":["b","a","b"]}`)
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.JSONEq(t, `{"agent_id":"`+agent+`","type":"agent_tags","tags":["a","b"]}`, res.raw)
	require.Equal(t, 201, ada.askWhole("POST", "/v1/permissions", `{"subject":"tag:a","effect":"deny","kind":"*"}`).StatusCode)
	require.Equal(t, "deny", explain().Effect)
}

func TestRulesThatTheAPIRefuses(t *testing.T) {
	r := newRig(t)
	ada := r.newTenant("Ada")
	long := make([]byte, 600)
	for i := range long {
		long[i] = 'a'
	}
	for name, c := range map[string]struct{ body, pointer string }{
		"approve is not offered yet": {`{"subject":"*","effect":"approve","kind":"tool_call"}`, "/effect"},
		"an unknown effect":          {`{"subject":"*","effect":"permit","kind":"tool_call"}`, "/effect"},
		"an unknown tool":            {`{"subject":"*","effect":"deny","kind":"tool_call","name":"bsah"}`, "/name"},
		"an unknown model":           {`{"subject":"*","effect":"deny","kind":"model_call","name":"no/model"}`, "/name"},
		"an unknown kind":            {`{"subject":"*","effect":"deny","kind":"magic"}`, "/kind"},
		"an unknown agent":           {`{"subject":"` + string(id.New[id.Agent]()) + `","effect":"deny","kind":"*"}`, "/subject"},
		"an expression":              {`{"subject":"*","effect":"deny","kind":"*","object":"\" || true || \""}`, "/object"},
		"a long object":              {`{"subject":"*","effect":"deny","kind":"*","object":"` + string(long) + `"}`, "/object"},
		"a URL as a domain":          {`{"subject":"*","effect":"deny","kind":"*","condition":{"domains":["https://a.test/"]}}`, "/condition/domains/0"},
		"an hour that is none":       {`{"subject":"*","effect":"deny","kind":"*","condition":{"hours":{"from":"25:00","to":"26:00"}}}`, "/condition/hours/from"},
		"a day that is none":         {`{"subject":"*","effect":"deny","kind":"*","condition":{"hours":{"from":"08:00","to":"09:00","days":["caturday"]}}}`, "/condition/hours/days/0"},
		"a negative amount":          {`{"subject":"*","effect":"deny","kind":"*","condition":{"amount_over":{"amount":"-1.00","currency":"USD"}}}`, "/condition/amount_over"},
		"an unknown condition":       {`{"subject":"*","effect":"deny","kind":"*","condition":{"moon":"full"}}`, "/condition/moon"},
	} {
		res := ada.askWhole("POST", "/v1/permissions", c.body)
		require.Equal(t, 400, res.StatusCode, "%s: %s", name, res.raw)
		require.Contains(t, res.raw, `"pointer":"`+c.pointer+`"`, name)
		if name == "approve is not offered yet" {
			continue
		}
		res = ada.askWhole("POST", "/v1/permissions/simulate", `{"rules":[`+c.body+`]}`)
		require.Equal(t, 400, res.StatusCode, "%s: %s", name, res.raw)
		require.Contains(t, res.raw, `"pointer":"/rules/0`+c.pointer+`"`, name)
	}
	require.Equal(t, 403, ada.ask("POST", "/v1/permissions", `{"subject":"*","effect":"deny","kind":"*"}`).StatusCode, "a project's key makes no rule for the organisation")
	require.JSONEq(t, `{"data":[],"next_page":null}`, ada.askWhole("GET", "/v1/permissions", "").raw)
}

func TestSimulateOverTheAPI(t *testing.T) {
	r := newRig(t)
	ada := r.newTenant("Ada")
	session, _ := ada.newSession(`{"agent":"` + ada.newAgent("helper") + `","input":"hello","mode":"async"}`)
	for range 5 {
		ada.work(session, journal.Of(journal.GateDecided{Decision: journal.Admitted, Kind: journal.KindToolCall, Name: "bash", Digest: "00"}))
	}
	seen := map[float64]bool{}
	path := "/v1/permissions/simulate?limit=2"
	for pages := 0; ; pages++ {
		require.Less(t, pages, 10)
		res := ada.askWhole("POST", path, `{"rules":[{"subject":"*","effect":"deny","kind":"tool_call","name":"ba*"}],"days":1}`)
		require.Equal(t, 200, res.StatusCode, res.raw)
		data, _ := res.field(t, "data").([]any)
		for _, d := range data {
			c, _ := d.(map[string]any)
			require.Equal(t, []any{"allow", "deny", "proposed_0", true}, []any{c["was"], c["would"], c["rule"], c["certain"]})
			seq, _ := c["seq"].(float64)
			seen[seq] = true
		}
		next, _ := res.field(t, "next_page").(string)
		if next == "" {
			break
		}
		path = "/v1/permissions/simulate?limit=2&page=" + next
	}
	require.Len(t, seen, 5)
	require.Equal(t, 400, ada.askWhole("POST", "/v1/permissions/simulate", `{"days":91}`).StatusCode)
	require.Equal(t, 400, ada.askWhole("POST", "/v1/permissions/simulate?page=nonsense", `{}`).StatusCode)
	require.JSONEq(t, `{"data":[],"next_page":null}`, ada.askWhole("GET", "/v1/permissions", "").raw, "nothing was changed")
}

func TestRolesOverTheAPI(t *testing.T) {
	r := newRig(t)
	ada := r.newTenant("Ada")
	var members struct{ Data []api.Member }
	ada.askWhole("GET", "/v1/members", "").into(t, &members)
	require.Len(t, members.Data, 1)
	owner := members.Data[0]
	require.Equal(t, "owner", owner.Role)
	for _, c := range [][2]string{{"POST", `{"role":"viewer"}`}, {"DELETE", ""}} {
		res := ada.askWhole(c[0], "/v1/members/"+string(owner.ID), c[1])
		require.Equal(t, 409, res.StatusCode, res.raw)
		require.Equal(t, "last_owner", res.code(t))
	}
	require.Equal(t, 400, ada.askWhole("POST", "/v1/members/"+string(owner.ID), `{"role":"root"}`).StatusCode)

	res := ada.askWhole("POST", "/v1/roles", `{"name":"Auditor","permissions":["traces:read"]}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	path := res.Header.Get("Location")
	require.Equal(t, 409, ada.askWhole("POST", "/v1/roles", `{"name":"auditor","permissions":["traces:read"]}`).StatusCode)
	require.Equal(t, 400, ada.askWhole("POST", "/v1/roles", `{"name":"Owner","permissions":["traces:read"]}`).StatusCode)
	require.Equal(t, 400, ada.askWhole("POST", "/v1/roles", `{"name":"x","permissions":["traces:raed"]}`).StatusCode)
	require.Equal(t, 412, ada.askWhole("POST", path, `{"name":"x"}`, "If-Match", `"2"`).StatusCode)
	res = ada.askWhole("POST", path, `{"permissions":["traces:read","ledger:read"]}`, "If-Match", `"1"`)
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.Equal(t, []any{"ledger:read", "traces:read"}, res.field(t, "permissions"))
	var roles struct{ Data []api.Role }
	ada.askWhole("GET", "/v1/roles", "").into(t, &roles)
	require.Len(t, roles.Data, 6)
	require.Equal(t, "owner", roles.Data[0].Name)
	require.Len(t, roles.Data[0].Permissions, len(tenants.Permissions()))
	require.Equal(t, "Auditor", roles.Data[5].Name)

	// A key makes no role above itself.
	narrow, _ := ada.newKey(tenants.CreateKey{Name: "narrow", Scopes: []string{"members:read", "members:write"}})
	res = ada.askWith(narrow, "POST", "/v1/roles", `{"name":"Payer","permissions":["billing:write"]}`)
	require.Equal(t, 403, res.StatusCode, res.raw)
	require.Equal(t, "billing:write", res.field(t, "rule"))
	require.Equal(t, 403, ada.askWith(narrow, "DELETE", path, "").StatusCode)
	require.Equal(t, 200, ada.askWhole("DELETE", path, "").StatusCode)
	require.Equal(t, 404, ada.askWhole("GET", path, "").StatusCode)
}
