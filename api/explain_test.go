package api_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/api"
	"ambit.dev/ambit/tenants"
)

func TestExplainTellsOfTheMoney(t *testing.T) {
	r := newRig(t)
	ada, eve := r.newTenant("Ada"), r.newTenant("Eve")
	agent := ada.newAgent("helper")
	res := ada.askWhole("POST", "/v1/budgets", `{"name":"Small","scope":{"type":"agent","id":"`+agent+`"},"limit":{"amount":"0.50","currency":"USD"},"period":"month"}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	budget := res.field(t, "id")
	explain := func(key, rest string) (e api.Explanation) {
		t.Helper()
		res := ada.askWith(key, "POST", "/v1/permissions/explain", `{"agent":"`+agent+`","kind":"tool_call","name":"bash"`+rest+`}`)
		require.Equal(t, 200, res.StatusCode, res.raw)
		res.into(t, &e)
		return e
	}
	e := explain(ada.key, `,"quantities":{"calls":2,"sandbox_ms":500}`)
	require.Equal(t, "admitted", e.Decision)
	require.Equal(t, "allow", e.Effect)
	require.Equal(t, "0.000002", e.Money.Amount.Decimal(), "two calls; the time of a sandbox is held by itself")
	require.True(t, e.Money.Covered)
	require.Equal(t, budget, string(e.Money.Nearest.ID))
	require.Equal(t, 1000, e.Money.Nearest.LeftPermil)
	require.NotNil(t, e.Money.Nearest.ResetsAt)
	require.Empty(t, e.Remedies)

	e = explain(ada.key, `,"amount":{"amount":"0.75","currency":"USD"}`)
	require.Equal(t, "denied", e.Decision)
	require.Equal(t, "allow", e.Effect, "the rules allow it")
	require.Equal(t, "hold", e.DecidedBy)
	require.Equal(t, []api.AskLimit{{Scope: "budget", ID: budget.(string), Available: 500_000_000, Shortfall: 250_000_000}}, e.Money.Limiting)
	require.Equal(t, "budget", e.Remedies[0].What)
	require.NotNil(t, e.Remedies[0].Until)
	require.Equal(t, "5.00", ada.ask("GET", "/v1/organization", "").field(t, "balance.available.amount"), "nothing is held")

	narrow, _ := ada.newKey(tenants.CreateKey{Name: "rules", Project: ada.project, Scopes: []string{"permissions:read"}})
	e = explain(narrow, `,"amount":{"amount":"0.75","currency":"USD"}`)
	require.Nil(t, e.Money.Available, "who may not read budgets sees only what is short")
	require.Empty(t, e.Money.Budgets)
	require.Len(t, e.Money.Limiting, 1)

	session, _ := ada.newSession(`{"agent":"` + agent + `","input":"x","mode":"async","limits":{"max_cost":{"amount":"0.40","currency":"USD"}}}`)
	e = explain(ada.key, `,"session_id":"`+string(session)+`","amount":{"amount":"0.41","currency":"USD"}`)
	require.Equal(t, "session", e.Money.Limiting[0].Scope)
	require.Equal(t, "ceiling", e.Remedies[0].What)
	require.Equal(t, "0.40", e.Money.Ceiling.Decimal())
	other := ada.newAgent("other")
	res = ada.ask("POST", "/v1/permissions/explain", `{"agent":"`+other+`","kind":"tool_call","name":"bash","session_id":"`+string(session)+`"}`)
	require.Equal(t, 404, res.StatusCode, "a session of another agent")
	theirs, _ := eve.newSession(`{"agent":"` + eve.newAgent("hers") + `","input":"x","mode":"async"}`)
	res = ada.ask("POST", "/v1/permissions/explain", `{"agent":"`+agent+`","kind":"tool_call","name":"bash","session_id":"`+string(theirs)+`"}`)
	require.Equal(t, 404, res.StatusCode)
}
