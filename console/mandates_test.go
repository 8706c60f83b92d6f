package console_test

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/tenants/identity"
	"ambit.dev/ambit/test/browser"
)

// draft makes a mandate that nobody has signed.
func (w *world) draft(t testing.TB, a account, agent id.Agent) (of id.Mandate) {
	t.Helper()
	total := 5 * money.Dollar
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) error {
		m, err := w.mandates.Draft(a.ctx(t), tx, a.Organization.ID, register.DraftInput{Agent: agent, Grant: mandate.Grant{Intent: "Secret research", Total: &total, Until: time.Now().Add(time.Hour), Depth: 1}})
		of = m.ID
		return err
	}))
	return of
}

// TestAMandateFromItsDraftToItsRevocation in Chromium: a person drafts it, sees what is signed, signs with a passkey, hands a part on, and
// takes it back.
func TestAMandateFromItsDraftToItsRevocation(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada Byron")
	agent := w.agent(t, ada, "Scout", "")
	helper := w.agent(t, ada, "Helper", "")
	b := browser.Start(t)
	tab := b.Open(t)
	tab.Authenticator(t)
	tab.See(t, browser.AllLooks[0])
	tab.Visit(t, w.named()+"/sign-in")
	tab.Type(t, "#f-email", ada.email)
	tab.Type(t, "#f-password", password+"\r")
	tab.Until(t, `document.querySelector(".shell")`)
	home := w.named() + ada.path
	judgeAt(t, tab, "mandates-empty", home+"/mandates")
	judgeAt(t, tab, "mandate-new", home+"/mandates/new")

	judgeAt(t, tab, "mandate-settings", home+"/mandates/settings")
	tab.Visit(t, home+"/mandates/settings")
	tab.Fill(t, "#f-passkey_above", "20")
	tab.Choose(t, "Scout", "main")
	tab.Choose(t, "Save", "main")
	tab.UntilSays(t, "body", "It binds from now on")
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) error {
		s, err := w.mandates.Settings(ada.ctx(t), tx, ada.Organization.ID)
		require.Equal(t, 20*money.Dollar, s.PasskeyAbove)
		require.Equal(t, []string{string(agent.ID)}, s.RequiredOf)
		return err
	}))

	write := func(total string) {
		tab.Visit(t, home+"/mandates/new?agent="+string(agent.ID))
		tab.Write(t, "What for", "Research on batteries")
		tab.Fill(t, "#f-total", total)
		tab.Fill(t, "#f-per_action", "5")
		tab.Fill(t, "#f-depth", "2")
		tab.Choose(t, "Continue to sign", "main")
		tab.UntilSays(t, "main", "Sign this mandate?")
	}
	// Above the organisation's amount only a passkey will do; Ada has none yet.
	write("500")
	tab.UntilSays(t, "main", "This takes a passkey.")
	for _, l := range browser.Looks() {
		tab.See(t, l)
		tab.JudgeHere(t, "mandate-passkey-wanted", l)
	}
	tab.See(t, browser.AllLooks[0])
	tab.Choose(t, "Add a passkey", "main")
	tab.Write(t, "Your password", password)
	tab.Choose(t, "Continue", "main")
	tab.UntilSays(t, "main", "Name it for the device")
	tab.Write(t, "Name", "Blue laptop")
	tab.Choose(t, "Make the passkey", "main")
	tab.UntilSays(t, "main", "Keep these codes")

	write("50")
	tab.UntilSays(t, ".mandate-paper", "Scout may spend up to $50.00 in all, at most $5.00 an action, on “Research on batteries”.")
	for _, l := range browser.Looks() {
		tab.See(t, l)
		tab.JudgeHere(t, "mandate-sign", l)
	}
	tab.See(t, browser.AllLooks[0])
	tab.Choose(t, "Sign", "main form")
	tab.UntilSays(t, "main", "In force")
	var root register.Mandate
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) error {
		all, err := w.mandates.List(ada.ctx(t), tx, ada.Organization.ID, register.Filter{State: mandate.Active, Limit: 10})
		require.Len(t, all, 1)
		root = all[0]
		return err
	}))
	require.Contains(t, string(root.Proof), `"method": "passkey"`)

	// A part of it: the form takes nothing wider, and neither does the server.
	at := home + "/mandates/" + string(root.ID)
	judgeAt(t, tab, "mandate-narrow", at+"/narrow")
	tab.Visit(t, at+"/narrow")
	require.Equal(t, "50.00", tab.Attribute(t, "#f-total", "max"))
	tab.Fill(t, "#f-total", "51")
	tab.Until(t, `!document.querySelector("main form").checkValidity()`) // a wider one can't be typed
	tab.Fill(t, "#f-total", "20")
	tab.Fill(t, "#f-agent", string(helper.ID))
	tab.Choose(t, "Hand on", "main form")
	tab.UntilSays(t, "main", "Helper may spend up to $20.00 in all")
	judgeAt(t, tab, "mandates", home+"/mandates")
	judgeAt(t, tab, "mandate", at)

	judgeAt(t, tab, "mandate-revoke", at+"/revoke")
	tab.Visit(t, at+"/revoke")
	tab.UntilSays(t, "main", "2 mandates fall")
	tab.Write(t, "Reason", "The research is done")
	tab.Choose(t, "Revoke", "main form")
	tab.UntilSays(t, "main", "Stop")
	judgeAt(t, tab, "mandate-revoked", at)
	tab.Visit(t, at)
	tab.UntilSays(t, "main", "Revoked")

	// What was signed verifies with the public keys alone, down to the passkey.
	client := w.client(t, &ada)
	resp, err := client.Get(w.URL + ada.path + "/mandates/" + string(root.ID) + "/export")
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // read to its end
	require.Equal(t, http.StatusOK, resp.StatusCode)
	require.True(t, strings.HasPrefix(resp.Header.Get("Content-Disposition"), "attachment"))
	raw, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	var keys jose.JSONWebKeySet
	document, err := w.ring.JWKS()
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(document, &keys))
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) error {
		key, err := w.agentKeys.AgentKey(ada.ctx(t), tx, ada.Organization.ID, identity.OfOrganization(ada.Organization.ID))
		keys.Keys = append(keys.Keys, key.JWK)
		return err
	}))
	rp := w.stepUp.RelyingParty()
	check := func(origin string) error {
		_, err := mandate.VerifyFile(raw, keys, time.Now(), func(proof json.RawMessage, digest [32]byte, keys jose.JSONWebKeySet) error {
			var p identity.Proof
			require.NoError(t, json.Unmarshal(proof, &p))
			require.Equal(t, identity.MethodPasskey, p.Method)
			return identity.VerifyProof(p, digest, origin, rp.ID, keys)
		})
		return err
	}
	require.NoError(t, check(rp.Origin))
	require.Error(t, check("https://elsewhere.example"), "a passkey's answer is bound to the page on which it was given")
}
