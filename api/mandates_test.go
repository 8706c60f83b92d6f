package api_test

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants/identity"
)

// signMandate does what the console's page does when a person has confirmed.
func (tn *tenant) signMandate(of id.Mandate) {
	tn.t.Helper()
	user := id.New[id.User]()
	ctx := principal.With(context.Background(), principal.Principal{Kind: principal.User, ID: string(user), Org: tn.org})
	require.NoError(tn.t, tn.db.InTx(ctx, tn.org, func(tx pgx.Tx) error {
		m, err := tn.cfg.Domains.Mandates.Prepare(ctx, tx, tn.org, of, user)
		if err != nil {
			return err
		}
		_, err = tn.cfg.Domains.Mandates.Sign(ctx, tx, tn.org, of, user, identity.Proof{
			Method: identity.MethodPasskey, User: string(user), Purpose: register.Purpose(of), Challenge: register.Challenge(m.Digest),
		})
		return err
	}))
}

func TestAMandateFromDraftToRevocation(t *testing.T) {
	r := newRig(t)
	tn := r.newTenant("Ada")
	agent := tn.newAgent("scout")
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)

	res := tn.ask("POST", "/v1/mandates", `{"agent_id":"`+agent+`","intent":"research","total":{"amount":"50.00","currency":"USD"},"per_action":{"amount":"5.00","currency":"USD"},"tools":["bash"],"expires_at":"`+until+`","depth":1}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	require.Equal(t, "draft", res.field(t, "status"))
	of, _ := res.field(t, "id").(string)
	require.Contains(t, res.field(t, "sign_url"), of)
	require.Contains(t, res.field(t, "sentence"), "may spend up to $50.00 in all, at most $5.00 an action, on “research”")

	work := func(mandate string) reply {
		return tn.ask("POST", "/v1/invoke", `{"agent":"`+agent+`","input":"x","mode":"async","mandate_id":"`+mandate+`"}`)
	}
	require.Equal(t, 403, work(of).StatusCode, "nobody has signed it")
	require.Equal(t, 403, work(string(id.New[id.Mandate]())).StatusCode)
	tn.signMandate(id.Mandate(of))
	res = tn.ask("GET", "/v1/mandates/"+of, "")
	require.Equal(t, "active", res.field(t, "status"))
	require.Nil(t, res.field(t, "sign_url"))

	// Handed on: what is left out is the parent's, and what is wider is named.
	res = tn.ask("POST", "/v1/mandates/"+of+"/sub_mandates", `{"agent_id":"`+agent+`","total":{"amount":"51.00","currency":"USD"}}`)
	require.Equal(t, 400, res.StatusCode, res.raw)
	require.Contains(t, res.raw, "wider_than_parent")
	require.Contains(t, res.raw, `"/total"`)
	res = tn.ask("POST", "/v1/mandates/"+of+"/sub_mandates", `{"agent_id":"`+agent+`","total":{"amount":"20.00","currency":"USD"}}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	sub, _ := res.field(t, "id").(string)
	require.Equal(t, float64(0), res.field(t, "depth"))
	require.Equal(t, []any{"bash"}, res.field(t, "tools"))

	res = work(sub)
	require.Equal(t, 202, res.StatusCode, res.raw)
	session, _ := res.field(t, "session_id").(string)
	require.Equal(t, sub, tn.ask("GET", "/v1/sessions/"+session, "").field(t, "mandate_id"))
	res = tn.ask("POST", "/v1/invoke", `{"session_id":"`+session+`","input":"x","mode":"async","mandate_id":"`+sub+`"}`)
	require.Equal(t, 400, res.StatusCode, "a session keeps its mandate: %s", res.raw)
	// A ceiling that a mandate does not cover is refused before anything begins.
	res = tn.ask("POST", "/v1/invoke", `{"agent":"`+agent+`","input":"x","mode":"async","mandate_id":"`+sub+`","limits":{"max_cost":{"amount":"4.00","currency":"USD"}}}`)
	require.Equal(t, 202, res.StatusCode, res.raw)

	res = tn.ask("GET", "/v1/mandates?parent_id="+of, "")
	require.Contains(t, res.raw, sub)
	res = tn.ask("GET", "/v1/mandates/"+of+"/export", "")
	require.Equal(t, 200, res.StatusCode)

	// What was exported is drafted again from its chain, and is nobody's authority until it is signed.
	chain, _ := res.field(t, "chain").(string)
	var key identity.PublicKey
	require.NoError(t, tn.db.InTx(t.Context(), tn.org, func(tx pgx.Tx) (err error) {
		key, err = tn.keys.AgentKey(t.Context(), tx, tn.org, identity.OfOrganization(tn.org))
		return err
	}))
	set, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{key.JWK}})
	require.NoError(t, err)
	again := func(chain string) reply {
		body, err := json.Marshal(map[string]any{"agent_id": agent, "chain": chain, "keys": string(set)})
		require.NoError(t, err)
		return tn.ask("POST", "/v1/mandates/import", string(body))
	}
	res = again(chain)
	require.Equal(t, 201, res.StatusCode, res.raw)
	require.Equal(t, "draft", res.field(t, "status"))
	require.Equal(t, "research", res.field(t, "intent"))
	require.Equal(t, 400, again(strings.Replace(chain, "~W", "~X", 1)).StatusCode, "a chain that does not verify is refused")

	res = tn.ask("POST", "/v1/mandates/"+of+"/revoke", `{"reason":"enough"}`)
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.Equal(t, []any{of, sub}, res.field(t, "fallen"))
	stop, _ := res.field(t, "stop_id").(string)
	require.Eventually(t, func() bool { return tn.ask("GET", "/v1/stops/"+stop, "").field(t, "status") == "complete" }, 20*time.Second, 50*time.Millisecond)
	require.Equal(t, "terminated", tn.ask("GET", "/v1/sessions/"+session, "").field(t, "status"), "what worked under it was stopped")
	require.Equal(t, 403, work(of).StatusCode)
	require.Equal(t, 403, work(sub).StatusCode)
	res = tn.ask("POST", "/v1/mandates/"+of+"/revoke", "")
	require.Equal(t, []any{}, res.field(t, "fallen"), "once")
}

func TestWhatAMandateCoversIsHeldOfIt(t *testing.T) {
	r := newRig(t)
	tn := r.newTenant("Ada")
	agent := tn.newAgent("scout")
	until := time.Now().Add(time.Hour).UTC().Format(time.RFC3339)
	res := tn.ask("POST", "/v1/mandates", `{"agent_id":"`+agent+`","intent":"research","total":{"amount":"1.00","currency":"USD"},"expires_at":"`+until+`"}`)
	of, _ := res.field(t, "id").(string)
	tn.signMandate(id.Mandate(of))
	invoke := func(ceiling string) reply {
		return tn.ask("POST", "/v1/invoke", `{"agent":"`+agent+`","input":"x","mode":"async","mandate_id":"`+of+`","limits":{"max_cost":{"amount":"`+ceiling+`","currency":"USD"}}}`)
	}
	require.Equal(t, 202, invoke("0.75").StatusCode)
	res = invoke("0.50")
	require.Equal(t, 402, res.StatusCode, res.raw)
	require.Equal(t, "mandate_exceeded", res.field(t, "code"))
	require.Contains(t, res.raw, of)
	money := tn.ask("GET", "/v1/mandates/"+of, "").field(t, "money").(map[string]any)
	require.Equal(t, map[string]any{"amount": "0.75", "currency": "USD"}, money["held"])
	require.Equal(t, map[string]any{"amount": "0.25", "currency": "USD"}, money["free"])
	// It is no budget that anybody could change.
	require.NotContains(t, tn.askWith(tn.orgKey, "GET", "/v1/budgets", "").raw, "research")
}
