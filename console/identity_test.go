package console_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants/identity"
	"ambit.dev/ambit/tenants/identity/authenticatortest"
	"ambit.dev/ambit/test/browser"
)

// named is the console under the name that passkeys are bound to.
func (w *world) named() string { return strings.Replace(w.URL, "127.0.0.1", "localhost", 1) }

func judgeAt(t *testing.T, tab *browser.Tab, name, address string) {
	t.Helper()
	for _, l := range browser.Looks() {
		tab.See(t, l)
		tab.Visit(t, address)
		tab.JudgeHere(t, name, l)
	}
	tab.See(t, browser.AllLooks[0])
}

// keyOf gives an agent its first key, which in the whole program is made with it.
func (w *world) keyOf(t testing.TB, a account, agent id.Agent) (kid string) {
	t.Helper()
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) error {
		key, err := w.agentKeys.AgentKey(a.ctx(t), tx, a.Organization.ID, identity.OfAgent(agent))
		kid = key.KeyID
		return err
	}))
	return kid
}

// passkey enrols one without a browser.
func (w *world) passkey(t testing.TB, a account, name string) (*authenticatortest.Passkey, identity.Enrolled) {
	t.Helper()
	request, err := w.stepUp.Begin(t.Context(), w.stepUp.AskEnrol(a.User.ID))
	require.NoError(t, err)
	options, err := w.stepUp.BeginEnrolment(t.Context(), identity.PersonName{ID: a.User.ID, Email: a.email, Label: a.email}, identity.Response{Method: identity.MethodPassword, Challenge: request.Challenge, Password: password})
	require.NoError(t, err)
	key := authenticatortest.New(w.stepUp.RelyingParty().Origin, w.stepUp.RelyingParty().ID)
	made, err := w.stepUp.Enrol(t.Context(), a.User.ID, name, key.Create(options))
	require.NoError(t, err)
	return key, made
}

// TestAPasskeyFromItsEnrolmentToItsEnd in Chromium, whose authenticator is virtual and whose answers are its own.
func TestAPasskeyFromItsEnrolmentToItsEnd(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada Byron")
	b := browser.Start(t)
	tab := b.Open(t)
	device := tab.Authenticator(t)
	tab.See(t, browser.AllLooks[0])
	tab.Visit(t, w.named()+"/sign-in")
	tab.Type(t, "#f-email", ada.email)
	tab.Type(t, "#f-password", password+"\r")
	tab.Until(t, `document.querySelector(".shell")`)
	home := w.named() + ada.path
	security := home + "/settings?tab=security"
	judgeAt(t, tab, "security-empty", security)
	judgeAt(t, tab, "passkey-confirm-password", home+"/settings/passkeys/new")

	// A wrong password asks again; the right one leads to the authenticator, and that to ten codes.
	tab.Visit(t, security)
	tab.Choose(t, "Add a passkey", "main")
	tab.Write(t, "Your password", "wrong horse battery staple")
	tab.Choose(t, "Continue", "main")
	tab.UntilSays(t, ".form-summary", "The present password is wrong.")
	tab.Write(t, "Your password", password)
	tab.Choose(t, "Continue", "main")
	tab.UntilSays(t, "main", "Name it for the device")
	for _, l := range browser.Looks() {
		tab.See(t, l)
		tab.JudgeHere(t, "passkey-make", l)
	}
	tab.See(t, browser.AllLooks[0])
	tab.Write(t, "Name", "Blue laptop")
	tab.Choose(t, "Make the passkey", "main")
	tab.UntilSays(t, "main", "Keep these codes")
	codes := tab.Texts(t, ".codes li")
	require.Len(t, codes, 10)
	for _, l := range browser.Looks() {
		tab.See(t, l)
		tab.JudgeHere(t, "recovery-codes", l)
	}
	tab.See(t, browser.AllLooks[0])
	tab.Choose(t, "I have kept them", "main")
	tab.UntilSays(t, "main", "Blue laptop")
	tab.UntilSays(t, "main", "10 of 10")
	judgeAt(t, tab, "security", security)

	// From now on the passkey confirms; an authenticator that does not recognise its person does not.
	tab.Choose(t, "Make new codes", "main")
	tab.Until(t, `document.querySelector("form[data-passkey-get]")`)
	judgeAt(t, tab, "passkey-confirm", home+"/settings/recovery-codes")
	device.Verifies(t, false)
	tab.Choose(t, "Make new codes", "main")
	tab.UntilSays(t, "[data-passkey-problem]", "Nothing was confirmed")
	device.Verifies(t, true)
	tab.Choose(t, "Make new codes", "main")
	tab.UntilSays(t, "main", "All older codes are void.")
	fresh := tab.Texts(t, ".codes li")
	require.Len(t, fresh, 10)
	require.NotContains(t, fresh, codes[0])

	// The device is lost. An old code does nothing; a new one, with the keyboard alone, makes another passkey.
	device.Lose(t)
	tab.Visit(t, home+"/settings/passkeys/new")
	tab.Choose(t, "Continue", "main")
	tab.UntilSays(t, "[data-passkey-problem]", "Nothing was confirmed")
	tab.Choose(t, "The passkey is lost? Use a recovery code", "main")
	tab.Write(t, "Recovery code", codes[0])
	tab.Press(t, "\r")
	tab.UntilSays(t, ".form-summary", "This recovery code is wrong")
	for _, l := range browser.Looks() {
		tab.See(t, l)
		tab.JudgeHere(t, "recovery-code-wrong", l)
	}
	tab.See(t, browser.AllLooks[0])
	tab.Write(t, "Recovery code", fresh[0])
	tab.Press(t, "\r")
	tab.UntilSays(t, "main", "Name it for the device")
	tab.Write(t, "Name", "New phone")
	tab.Choose(t, "Make the passkey", "main")
	tab.UntilSays(t, "main", "New phone")
	tab.UntilSays(t, "main", "9 of 10")

	// It confirms the end of the lost one, and its own name is changed.
	tab.Choose(t, "Revoke Blue laptop", "main")
	judgeHere(t, tab, "passkey-revoke")
	tab.Choose(t, "Revoke the passkey", "main")
	tab.Until(t, `document.querySelector("main table") && !document.querySelector("main table").innerText.includes("Blue laptop")`)

	// It signs in, too: no address, no password.
	tab.Choose(t, "Account", "")
	tab.Choose(t, "Sign out", "")
	tab.Until(t, `document.querySelector("form[action='/sign-in/passkey']")`)
	judgeHere(t, tab, "sign-in-passkey")
	device.Verifies(t, false)
	tab.Choose(t, "Sign in with a passkey", "")
	tab.UntilSays(t, "[data-passkey-problem]", "Nothing was confirmed")
	device.Verifies(t, true)
	tab.Choose(t, "Sign in with a passkey", "")
	tab.Until(t, `document.querySelector(".shell")`)
	tab.Visit(t, security)
	tab.Choose(t, "Rename New phone", "main")
	tab.Write(t, "Name", "Green phone")
	tab.Choose(t, "Save name", "dialog")
	tab.UntilSays(t, "main table", "Green phone")
	left, err := w.stepUp.Passkeys(t.Context(), ada.User.ID, "")
	require.NoError(t, err)
	require.Len(t, left, 1)
	require.Equal(t, "Green phone", left[0].Name)
	require.Empty(t, tab.Noted(), "nothing broke the policy of the pages")
}

func judgeHere(t *testing.T, tab *browser.Tab, name string) {
	t.Helper()
	for _, l := range browser.Looks() {
		tab.See(t, l)
		tab.JudgeHere(t, name, l)
	}
	tab.See(t, browser.AllLooks[0])
}

func TestPagesAboutIdentityHoldInEveryLook(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada Byron")
	agent, other := w.agent(t, ada, "analyst", ""), w.agent(t, ada, "an-agent-whose-name-is-rather-long", "")
	w.agent(t, ada, "unused", "")
	org := ada.Organization.ID
	first := w.keyOf(t, ada, agent.ID)
	w.keyOf(t, ada, other.ID)
	require.NoError(t, w.db.InTx(ada.ctx(t), org, func(tx pgx.Tx) error {
		if _, err := w.agentKeys.Compromised(ada.ctx(t), tx, org, identity.OfAgent(agent.ID), first); err != nil {
			return err
		}
		_, err := w.agentKeys.Rotate(ada.ctx(t), tx, org, identity.OfAgent(agent.ID))
		return err
	}))
	made := w.governed(t, ada, agent)
	w.passkey(t, ada, "Blue laptop")
	b := browser.Start(t)
	tab := b.Open(t)
	signIn(t, w, tab, ada)
	p := ada.path
	for _, one := range []struct{ name, path string }{
		{"identity", p + "/identity"},
		{"identity-agent", p + "/identity/agents/" + string(agent.ID)},
		{"identity-members", p + "/identity/members"},
		{"identity-member", p + "/identity/members/" + made[":member"]},
		{"security-elsewhere", p + "/settings?tab=security"},
	} {
		t.Run(one.name, func(t *testing.T) { judge(t, w, tab, one.name, one.path) })
	}
	tab.See(t, browser.AllLooks[0])
	tab.Visit(t, w.URL+p+"/identity/agents/"+string(other.ID))
	tab.Choose(t, "Rotate the key", "main")
	tab.Choose(t, "Rotate", "dialog")
	tab.UntilSays(t, "main", "A successor is published.")
	require.Equal(t, []string{"Signs soon", "Retiring"}, tab.Texts(t, "main tbody .badge"))
	second := tab.Texts(t, "main tbody .kid")[1]
	tab.Choose(t, "Retire the key "+second, "main")
	judgeHere(t, tab, "identity-retire")
	tab.Choose(t, "Retire the key", "dialog")
	tab.Until(t, `document.querySelector("main tbody .badge")?.textContent.includes("Active")`)
	require.Equal(t, []string{"Active", "Retired compromised"}, trimmed(tab.Texts(t, "main tbody .badge")))
}

func trimmed(texts []string) []string {
	for i := range texts {
		texts[i] = strings.Join(strings.Fields(texts[i]), " ")
	}
	return texts
}

// TestAMembersPasskeyIsBarredByWhoMay, with a confirmation of one's own, and by nobody else.
func TestAMembersPasskeyIsBarredByWhoMay(t *testing.T) {
	w := newWorld(t)
	ada, grace := w.account(t, "ada@example.com", "Ada"), w.account(t, "grace@example.com", "Grace")
	member := id.New[id.Member]()
	require.NoError(t, w.join(t, ada, grace, member, "developer"))
	_, made := w.passkey(t, grace, "Grace's laptop")
	bar := w.URL + ada.path + "/identity/members/" + string(member) + "/passkeys/" + string(made.Passkey.ID) + "/bar"

	c := w.client(t, &grace)
	status, _ := get(t, c, bar)
	require.Equal(t, http.StatusForbidden, status, "a developer changes no members")

	c = w.client(t, &ada)
	status, body := get(t, c, bar)
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "Grace")
	challenge := between(t, body, `name="challenge" value="`, `"`)
	status, body = post(t, c, bar, url.Values{"challenge": {challenge}, "confirm_by": {"password"}, "confirm_password": {"wrong horse"}, "reason": {"stolen"}})
	require.Equal(t, http.StatusUnprocessableEntity, status)
	require.Contains(t, body, `value="stolen"`, "what was typed is kept")
	for _, in := range []url.Values{{}, {"confirm_by": {"passkey"}, "passkey_answer": {"{}"}}, {"confirm_by": {"password"}, "confirm_password": {password}, "challenge": {"x"}}} {
		status, _ = post(t, c, bar, in)
		require.Equal(t, http.StatusUnprocessableEntity, status, "%v", in)
	}
	status, body = post(t, c, bar, url.Values{"challenge": {challenge}, "confirm_by": {"password"}, "confirm_password": {password}, "reason": {"stolen"}})
	require.Equal(t, http.StatusOK, status)
	require.Contains(t, body, "Not accepted")
	status, _ = get(t, c, bar)
	require.Equal(t, http.StatusNotFound, status)
	_, body = get(t, w.client(t, &grace), w.URL+grace.path+"/settings?tab=security")
	require.NotContains(t, body, "Not accepted", "elsewhere it works on")
}

// join makes somebody a member of another's organisation.
func (w *world) join(t testing.TB, owner, who account, member id.Member, role string) error {
	t.Helper()
	return w.db.InTx(t.Context(), owner.Organization.ID, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO members (org_id, id, user_id, role, created_at) VALUES ($1, $2, $3, $4, now())", owner.Organization.ID, member, who.User.ID, role)
		return err
	})
}

func between(t testing.TB, text, before, after string) string {
	t.Helper()
	_, rest, found := strings.Cut(text, before)
	require.True(t, found, "no %q", before)
	value, _, _ := strings.Cut(rest, after)
	return value
}
