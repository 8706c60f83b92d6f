package api_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/api"
	"ambit.dev/ambit/internal/id"
)

func TestAQuoteIsAskedForAndUsed(t *testing.T) {
	r := newRig(t)
	ada, eve := r.newTenant("Ada"), r.newTenant("Eve")
	const work = `"agent":{"model":"ambit/scripted"},"input":"hello"`
	res := ada.ask("POST", "/v1/quotes", `{`+work+`,"mode":"async","title":"t"}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	var q api.Quote
	res.into(t, &q)
	require.Equal(t, "open", q.Status)
	require.Equal(t, ada.project, *q.ProjectID)
	require.NotEmpty(t, q.Lines)
	require.NotEmpty(t, q.Basis.Assumptions)
	require.True(t, 0 < q.Low && q.Low <= q.Likely && q.Likely <= q.Ceiling, res.raw)
	require.Equal(t, "5.00", ada.ask("GET", "/v1/organization", "").field(t, "balance.available.amount"), "a quote holds nothing")
	path := "/v1/quotes/" + string(q.ID)
	require.Equal(t, res.raw, ada.ask("GET", path, "").raw)

	// Another organisation's quote is one that never was, in the path and in a body.
	invoke := func(tn *tenant, quote id.Quote, rest string) reply {
		return tn.ask("POST", "/v1/invoke", `{`+work+`,"mode":"async","quote_id":"`+string(quote)+`"`+rest+`}`)
	}
	require.Equal(t, 404, eve.ask("GET", path, "").StatusCode)
	theirs, none := invoke(eve, q.ID, ""), invoke(eve, id.New[id.Quote](), "")
	require.Equal(t, 404, theirs.StatusCode, theirs.raw)
	require.Equal(t, none.raw, theirs.raw)

	require.Equal(t, "quote_mismatch", invoke(ada, q.ID, `,"limits":{"max_steps":4}`).code(t))
	res = invoke(ada, q.ID, "")
	require.Equal(t, 202, res.StatusCode, res.raw)
	require.Equal(t, q.Ceiling.Decimal(), res.field(t, "cost.held.amount"))
	session := res.field(t, "session_id")
	got, _ := session.(string)
	require.Equal(t, string(q.ID), ada.ask("GET", "/v1/sessions/"+got, "").field(t, "quote_id"))
	res = invoke(ada, q.ID, "")
	require.Equal(t, 409, res.StatusCode)
	require.Equal(t, "quote_used", res.code(t))
	require.Equal(t, session, res.field(t, "session_id"))
	res = ada.ask("GET", path, "")
	require.Equal(t, "used", res.field(t, "status"))
	require.Equal(t, session, res.field(t, "session_id"))

	ada.ask("POST", "/v1/quotes", `{`+work+`}`).into(t, &q)
	r.clock.Advance(15 * time.Minute)
	require.Equal(t, "quote_expired", invoke(ada, q.ID, "").code(t))
	require.Equal(t, "expired", ada.ask("GET", "/v1/quotes/"+string(q.ID), "").field(t, "status"))
}

func TestAQuoteKeepsToTheCeilingThatIsNamed(t *testing.T) {
	ada := newRig(t).newTenant("Ada")
	res := ada.ask("POST", "/v1/quotes", `{"agent":{"model":"ambit/scripted","tools":["bash"]},"input":"hello","limits":{"max_cost":{"amount":"0.000001","currency":"USD"},"max_steps":20}}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	var q api.Quote
	res.into(t, &q)
	require.Equal(t, "0.000001", q.Ceiling.Decimal())
	require.LessOrEqual(t, q.Likely, q.Ceiling)
	require.Contains(t, res.raw, "will likely stop at the ceiling")

	res = ada.ask("POST", "/v1/quotes", `{"agent":{"model":"ambit/scripted","max_tokens":128000},"input":"hello","limits":{"max_cost":{"amount":"900.00","currency":"USD"}}}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	res.into(t, &q)
	require.Less(t, q.Ceiling.Decimal(), "900.00", "one model call can cost no more than its bound")
}

func TestOneEffectIsQuoted(t *testing.T) {
	ada := newRig(t).newTenant("Ada")
	res := ada.ask("POST", "/v1/quotes", `{"effect":{"kind":"tool_call","name":"bash","sandbox_ms":1500}}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	// A call of bash is $0.000001; a second of a small sandbox $0.00001.
	require.Equal(t, "0.000001", res.field(t, "low.amount"))
	require.Equal(t, "0.000016", res.field(t, "likely.amount"))
	require.Equal(t, "0.000016", res.field(t, "ceiling.amount"))
	require.Equal(t, "quantities", res.field(t, "basis.from"))
	res = ada.askWith(ada.orgKey, "POST", "/v1/quotes", `{"effect":{"kind":"model_call","name":"ambit/scripted","input_tokens":1000,"output_tokens":100}}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	require.Nil(t, res.field(t, "project_id"))
	got, _ := res.field(t, "id").(string)
	require.Equal(t, 404, ada.ask("GET", "/v1/quotes/"+got, "").StatusCode, "a project's key does not see what is the organisation's")
	for body, want := range map[string]string{
		`{"effect":{"kind":"model_call","name":"ambit/nothing","input_tokens":1}}`:                               "price_unknown",
		`{"effect":{"kind":"model_call","name":"ambit/scripted"}}`:                                               "invalid_request",
		`{"effect":{"kind":"model_call","name":"ambit/scripted","output_tokens":1,"reasoning_tokens":2}}`:        "invalid_request",
		`{"effect":{"kind":"model_call","name":"ambit/scripted","input_tokens":1,"calls":1}}`:                    "invalid_request",
		`{"effect":{"kind":"tool_call","name":"bash","input_tokens":1}}`:                                         "invalid_request",
		`{"effect":{"kind":"tool_call","name":"bash"},"input":"x"}`:                                              "invalid_request",
		`{"effect":{"kind":"tool_call","name":"bash","sandbox_ms":-1}}`:                                          "invalid_request",
		`{"agent":{"model":"ambit/scripted"}}`:                                                                   "invalid_request",
		`{"agent":{"model":"ambit/scripted"},"input":"x","environment_id":"env_x"}`:                              "not_available",
		`{"agent":{"model":"ambit/scripted"},"input":"x","quote_id":"quo_x"}`:                                    "invalid_request",
		`{"session_id":"` + string(id.New[id.Session]()) + `","input":"x"}`:                                      "not_found",
		`{"agent":{"model":"ambit/scripted"},"input":"x","limits":{"max_cost":{"amount":"1","currency":"USD"}}}`: "invalid_money",
	} {
		require.Equal(t, want, ada.ask("POST", "/v1/quotes", body).code(t), body)
	}
}
