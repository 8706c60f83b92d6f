package console_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/test/browser"
)

// governed makes one of each thing that the pages about people and permissions can name.
func (w *world) governed(t testing.TB, a account, agent agents.Agent) map[string]string {
	t.Helper()
	out := map[string]string{}
	owner := principal.From(a.ctx(t))
	require.NoError(t, w.db.InTx(a.ctx(t), owner.Org, func(tx pgx.Tx) error {
		members, err := w.tenants.ListMembersTx(a.ctx(t), tx, owner.Org, "", 1)
		if err != nil {
			return err
		}
		role, err := w.tenants.CreateRoleTx(a.ctx(t), tx, owner, tenants.SaveRole{Name: "Auditor", Description: "Looks at what was done, and changes nothing.", Permissions: []string{"traces:read", "ledger:read", "sessions:read"}})
		if err != nil {
			return err
		}
		sent, err := w.tenants.InviteTx(a.ctx(t), tx, owner, tenants.Invite{Email: "grace.hopper.with.a.long.address@example.com", Role: string(role.ID)})
		if err != nil {
			return err
		}
		rule, err := w.policies.Create(a.ctx(t), tx, owner.Org, policy.Rule{Subject: string(agent.ID), Effect: policy.Deny, Kind: policy.ToolCall, Name: "bash", Description: "Commands are for the night shift."})
		out[":member"], out[":role"], out[":invitation"], out[":rule"] = string(members[0].ID), string(role.ID), string(sent.Invitation.ID), string(rule.ID)
		out["token"] = sent.Link[strings.Index(sent.Link, "token=")+len("token="):]
		return err
	}))
	return out
}

func (w *world) rule(t testing.TB, a account, r policy.Rule) {
	t.Helper()
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) error {
		_, err := w.policies.Create(a.ctx(t), tx, a.Organization.ID, r)
		return err
	}))
}

// TestPagesAboutPeopleAndPermissionsHoldInEveryLook opens them with content as it is in use, and without any.
func TestPagesAboutPeopleAndPermissionsHoldInEveryLook(t *testing.T) {
	w := newWorld(t)
	ada, fresh := w.account(t, "ada@example.com", "Ada Byron"), w.account(t, "new@example.com", "")
	agent := w.agent(t, ada, "analyst", "You are careful.")
	client := agent.Definition
	client.Tools = append([]string{"http_request", "write_file"}, client.Tools...)
	client.Network.AllowedHosts = []string{"api.example.com", "*.example.org", "example.net:8443"}
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) error {
		_, err := w.agents.Update(ada.ctx(t), tx, ada.Organization.ID, agent.ID, agents.UpdateInput{Definition: &client})
		return err
	}))
	other := w.agent(t, ada, "an-agent-whose-name-is-rather-long", "")
	w.recorded(t, ada, agent)
	made := w.governed(t, ada, agent)
	cent := money.Dollar / 100
	w.rule(t, ada, policy.Rule{Subject: policy.Any, Effect: policy.Deny, Kind: policy.ToolCall, Name: "http_request", Condition: policy.Condition{Domains: []string{"*.example.org"}}})
	w.rule(t, ada, policy.Rule{Subject: string(other.ID), Effect: policy.Allow, Kind: policy.ToolCall, Name: "read_*", Condition: policy.Condition{AmountAtMost: &cent, Hours: &policy.Hours{From: 8 * 60, To: 18 * 60}}})
	for _, b := range []billing.NewBudget{
		{Name: "All of it", Scope: billing.Scope{Type: billing.ScopeOrganization}, Limit: 3 * money.Dollar, Period: "month", Action: billing.Block, Alerts: []int32{80}},
		{Name: "The analyst", Scope: billing.Scope{Type: billing.ScopeAgent, ID: string(agent.ID)}, Limit: money.Dollar / 5, Period: "day", Action: billing.Block},
	} {
		w.budget(t, ada, b)
	}
	b := browser.Start(t)
	t.Run("invitation", func(t *testing.T) { judge(t, w, b.Open(t), "invitation", "/invitation?token="+made["token"]) })
	t.Run("invitation-bad", func(t *testing.T) { judge(t, w, b.Open(t), "invitation-bad", "/invitation?token=x") })
	tab := b.Open(t)
	signIn(t, w, tab, ada)
	p := ada.path
	explain := p + "/permissions/explain?agent=" + string(agent.ID)
	for _, one := range []struct{ name, path string }{
		{"members", p + "/members"},
		{"member-invite", p + "/members/invite"},
		{"invitation-another", "/invitation?token=" + made["token"]},
		{"roles", p + "/roles"},
		{"role-new", p + "/roles/new"},
		{"role", p + "/roles/" + made[":role"]},
		{"role-built-in", p + "/roles/admin"},
		{"permissions", p + "/permissions"},
		{"permissions-rules", p + "/permissions/rules"},
		{"permissions-rules-filtered", p + "/permissions/rules?effect=allow&subject=" + string(agent.ID)},
		{"permissions-rule-new", p + "/permissions/rules/new"},
		{"permissions-rule", p + "/permissions/rules/" + made[":rule"]},
		{"permissions-presets", p + "/permissions/presets"},
		{"permissions-explain", p + "/permissions/explain"},
		{"permissions-explain-denied", explain + "&kind=tool_call&name=bash"},
		{"permissions-explain-host", explain + "&kind=tool_call&name=http_request&action=GET&object=" + url.QueryEscape("https://elsewhere.example.com/x")},
		{"permissions-presets-chosen", p + "/permissions/presets?preset=web-client&subject=" + string(agent.ID)},
		{"permissions-explain-nearest", p + "/permissions/explain?agent=" + string(other.ID) + "&kind=tool_call&name=bash&amount=0.50"},
		{"permissions-explain-wrong", explain + "&kind=tool_call&amount=12,00"},
		{"agent-ambit", p + "/agents/" + string(agent.ID) + "/ambit"},
		{"agent-ambit-bare", p + "/agents/" + string(other.ID) + "/ambit"},
	} {
		t.Run(one.name, func(t *testing.T) { judge(t, w, tab, one.name, one.path) })
	}
	for _, l := range browser.Looks() {
		tab.See(t, l)
		for _, open := range []string{"role", "remove", "revoke"} {
			tab.Visit(t, w.URL+p+"/members")
			tab.Click(t, `[data-open^="`+open+`-"]`)
			tab.Until(t, `document.querySelector("dialog[open]")`)
			require.Equal(t, open == "role", tab.Focused(t) == "Role", "a question opens at what it asks")
			tab.JudgeHere(t, "members-"+open, l)
		}
		tab.Visit(t, w.URL+p+"/members/invite")
		tab.Type(t, "#f-email", "somebody-"+l.Name()+"@example.com")
		tab.Click(t, ".form-foot button[type=submit]")
		tab.Until(t, `document.querySelector("#link")`)
		tab.JudgeHere(t, "member-handover", l)
	}
	newcomer := b.Open(t)
	signIn(t, w, newcomer, fresh)
	for _, one := range []struct{ name, path string }{
		{"empty-members", fresh.path + "/members"},
		{"empty-roles", fresh.path + "/roles"},
		{"empty-permissions", fresh.path + "/permissions"},
		{"empty-permissions-rules", fresh.path + "/permissions/rules"},
		{"empty-permissions-explain", fresh.path + "/permissions/explain"},
	} {
		t.Run(one.name, func(t *testing.T) { judge(t, w, newcomer, one.name, one.path) })
	}
}

// TestInvitingWithoutMail goes from the invitation to the new member, its role and its removal, by forms alone.
func TestInvitingWithoutMail(t *testing.T) {
	w := newWorld(t)
	ada, eve := w.account(t, "ada@example.com", "Ada"), w.account(t, "eve@example.com", "Eve")
	c := w.client(t, &ada)
	members := w.URL + ada.path + "/members"
	code, body := post(t, c, members+"/invite", url.Values{"email": {"no address"}, "role": {"developer"}})
	require.Equal(t, 422, code)
	require.Contains(t, body, "Enter an e-mail address")
	require.Contains(t, body, "no address", "what was typed is kept")
	code, body = post(t, c, members+"/invite", url.Values{"email": {"grace@example.com"}, "role": {"developer"}})
	require.Equal(t, 200, code)
	_, after, found := strings.Cut(body, w.URL+tenants.InvitationPath+"?token=")
	require.True(t, found, "the link is shown")
	token, _, _ := strings.Cut(after, "<")
	_, body = get(t, c, members)
	require.Contains(t, body, "grace@example.com")
	require.NotContains(t, body, token, "once")
	code, _ = post(t, c, members+"/invite", url.Values{"email": {"grace@example.com"}, "role": {"developer"}})
	require.Equal(t, 422, code)

	stranger := w.client(t, &eve)
	code, body = get(t, stranger, w.URL+"/invitation?token="+token)
	require.Equal(t, 200, code)
	require.Contains(t, body, "You are signed in as eve@example.com")
	code, body = post(t, stranger, w.URL+"/invitation", url.Values{"token": {token}})
	require.Equal(t, 422, code)
	require.Contains(t, body, "another address")
	code, body = post(t, stranger, w.URL+"/invitation", url.Values{"token": {"x"}})
	require.Equal(t, 410, code)
	require.Contains(t, body, "Open the console", "somebody who is signed in is not sent to sign in")
	for to, shown := range map[string]string{"/invitation?token=" + token: "Create account and join", "https://evil.example/": "Welcome back."} {
		code, body = post(t, w.client(t, &eve), w.URL+"/sign-out", url.Values{"next": {to}})
		require.Equal(t, 200, code)
		require.Contains(t, body, shown, "signing out comes back to the invitation, and never leaves the console")
	}

	grace := w.client(t, nil)
	code, body = post(t, grace, w.URL+"/invitation", url.Values{"token": {token}, "password": {"short"}})
	require.Equal(t, 422, code)
	require.Contains(t, body, "Create account and join")
	code, body = post(t, grace, w.URL+"/invitation", url.Values{"token": {token}, "password": {password}, "name": {"Grace"}})
	require.Equal(t, 200, code)
	require.Contains(t, body, "You are a member of")
	code, _ = get(t, grace, w.URL+ada.path+"/agents/new")
	require.Equal(t, 200, code)
	code, _ = get(t, grace, w.URL+ada.path+"/members/invite")
	require.Equal(t, 403, code)
	code, _ = get(t, grace, w.URL+"/invitation?token="+token)
	require.Equal(t, 410, code)

	// "Everything that you may do" is a developer's everything, not an owner's.
	code, body = post(t, grace, w.URL+ada.path+"/keys/new", url.Values{"name": {"laptop"}, "scopes": {"all"}, "expires": {"90"}})
	require.Equal(t, 200, code, body)
	require.Contains(t, body, "laptop is made")
	keys, err := w.tenants.ListKeys(t.Context(), ada.Organization.ID, tenants.ListKeys{Limit: 10})
	require.NoError(t, err)
	require.Len(t, keys, 1)
	require.Contains(t, keys[0].Scopes, string(tenants.SessionsWrite))
	require.NotContains(t, keys[0].Scopes, string(tenants.MembersWrite))
	require.NotContains(t, keys[0].Scopes, tenants.AllScopes)

	list, err := w.tenants.ListMembers(t.Context(), ada.Organization.ID, "", 10)
	require.NoError(t, err)
	require.Len(t, list, 2)
	code, body = post(t, c, members+"/"+string(list[1].ID)+"/role", url.Values{"role": {"viewer"}})
	require.Equal(t, 200, code)
	require.Contains(t, body, "grace@example.com is Viewer now.")
	code, _ = get(t, grace, w.URL+ada.path+"/agents/new")
	require.Equal(t, 403, code, "from the next request on")
	code, body = post(t, c, members+"/"+string(list[0].ID)+"/role", url.Values{"role": {"viewer"}})
	require.Equal(t, 422, code)
	require.Contains(t, body, "last owner")
	code, _ = post(t, c, members+"/"+string(list[0].ID)+"/remove", nil)
	require.Equal(t, 422, code)
	code, body = post(t, c, members+"/"+string(list[1].ID)+"/remove", nil)
	require.Equal(t, 200, code)
	require.Contains(t, body, "The member is removed.")
	code, _ = get(t, grace, w.URL+ada.path+"/agents")
	require.Equal(t, 404, code)
}

// TestARoleIsMadeChangedAndDeleted goes through the checklist.
func TestARoleIsMadeChangedAndDeleted(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	c := w.client(t, &ada)
	roles := w.URL + ada.path + "/roles"
	code, body := post(t, c, roles+"/new", url.Values{"name": {"Auditor"}})
	require.Equal(t, 422, code)
	require.Contains(t, body, "Name at least one permission")
	code, body = post(t, c, roles+"/new", url.Values{"name": {"Auditor"}, "permissions": {"traces:read", "ledger:read"}})
	require.Equal(t, 200, code)
	require.Contains(t, body, "The role Auditor is made.")
	_, at, _ := strings.Cut(body, ada.path+"/roles/rol_")
	role, _, _ := strings.Cut(at, `"`)
	one := roles + "/rol_" + role
	_, body = get(t, c, one)
	require.Contains(t, body, `value="traces:read" checked`)
	code, _ = post(t, c, one, url.Values{"name": {"Auditor"}, "version": {"7"}, "permissions": {"traces:read"}})
	require.Equal(t, 422, code, "somebody else's change is not overwritten")
	code, _ = post(t, c, one, url.Values{"name": {"Owner"}, "version": {"1"}, "permissions": {"traces:read"}})
	require.Equal(t, 422, code)
	code, body = post(t, c, one, url.Values{"name": {"Reviser"}, "version": {"1"}, "permissions": {"traces:read"}})
	require.Equal(t, 200, code)
	require.Contains(t, body, "Reviser")
	code, _ = post(t, c, w.URL+ada.path+"/members/invite", url.Values{"email": {"x@example.com"}, "role": {"rol_" + role}})
	require.Equal(t, 200, code)
	code, body = post(t, c, one+"/delete", nil)
	require.Equal(t, 422, code)
	require.Contains(t, body, "open invitations give this role")
	require.Contains(t, body, `value="traces:read" checked`)
}

// TestAnAdminForbidsAToolAndSeesWhatItChanges makes a rule by the editor, tries it on the past, and reads it in the matrix, the explanation
// and the page about the worst.
func TestAnAdminForbidsAToolAndSeesWhatItChanges(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	agent := w.agent(t, ada, "analyst", "")
	hello := w.invoke(t, ada, agent, sayHello, "Say hello")
	tab := browser.Start(t).Open(t)
	tab.See(t, browser.AllLooks[0])
	signIn(t, w, tab, ada)
	worst := w.URL + ada.path + "/agents/" + string(agent.ID) + "/ambit"
	verdict := func(part string) string { return tab.Text(t, `[data-part="`+part+`"] .badge`) }

	tab.Visit(t, worst)
	require.Equal(t, "Allowed", verdict("bash"))
	require.Equal(t, "Allowed", verdict("ambit/scripted"))
	require.Contains(t, tab.Text(t, "#network"), "It reaches nothing")
	require.Contains(t, tab.Text(t, "#overrides"), "python", "an invoke can override the definition")
	require.Equal(t, "$0.50", tab.Text(t, "#session-most .money"))

	tab.Visit(t, w.URL+ada.path+"/permissions/rules/new")
	tab.Fill(t, "#f-kind", "model_call")
	tab.Click(t, `button[value=try]`)
	tab.Until(t, `document.querySelector("#simulation")`)
	require.Contains(t, tab.Text(t, "#simulation"), "1 denied, 0 allowed. Nothing is changed yet.")
	require.Contains(t, tab.Text(t, "#simulation tbody"), "analyst, the model ambit/scripted")
	require.Contains(t, tab.Attribute(t, "#simulation tbody a", "href"), string(hello.ID))

	tab.Fill(t, "#f-kind", "tool_call")
	tab.Fill(t, "#f-name", "bush")
	tab.Click(t, `button[value=save]`)
	tab.Until(t, `document.querySelector("#f-name-error")`)
	require.Contains(t, tab.Text(t, "#f-name-error"), "no tool")
	tab.Fill(t, "#f-name", "bash")
	tab.Type(t, "#f-description", "Not before the audit.")
	tab.Click(t, `button[value=save]`)
	tab.Until(t, `document.querySelector(".table")?.innerText.includes("the tool bash")`)

	tab.Visit(t, w.URL+ada.path+"/permissions")
	tab.Click(t, `a[aria-label="analyst, bash: Denied"]`)
	tab.Until(t, `document.querySelector("#answer")`)
	require.Contains(t, tab.Text(t, "#answer"), "Not before the audit.")
	require.Contains(t, tab.Text(t, "#answer"), "decided")
	require.Contains(t, tab.Text(t, "#answer"), "Change or delete the rule: Denies all agents the tool bash.\n")
	tab.Visit(t, worst)
	require.Equal(t, "Denied", verdict("bash"))
	require.Equal(t, "Allowed", verdict("read_file"))

	tab.Click(t, `[data-part="bash"] .rule-list a`)
	tab.Until(t, `document.querySelector("[data-open=delete-rule]")`)
	tab.Click(t, `[data-open=delete-rule]`)
	tab.Until(t, `document.querySelector("#delete-rule").open`)
	tab.Click(t, `#delete-rule button[type=submit]`)
	tab.Until(t, `document.querySelector("main").innerText.includes("No rules yet")`)

	tab.Visit(t, w.URL+ada.path+"/permissions/presets?preset=model-only")
	tab.Fill(t, "#f-subject", string(agent.ID))
	tab.Click(t, `button[value=apply]`)
	tab.Until(t, `location.pathname.endsWith("/rules")`)
	tab.Visit(t, worst)
	require.Equal(t, "Denied", verdict("read_file"))
	require.Contains(t, tab.Text(t, "#files"), "The rules deny it time in a sandbox")
	require.Contains(t, tab.Text(t, "#overrides"), "Nothing more")
	require.Empty(t, tab.Noted(), "no script failed and nothing broke the policy")
}

// TestTheWorstIsTheLeastOfWhatBinds: balance, each budget that covers the agent, and the ceilings of all of its versions.
func TestTheWorstIsTheLeastOfWhatBinds(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	agent, other := w.agent(t, ada, "analyst", ""), w.agent(t, ada, "other", "")
	c := w.client(t, &ada)
	look := func() (most, session string) {
		t.Helper()
		code, body := get(t, c, w.URL+ada.path+"/agents/"+string(agent.ID)+"/ambit")
		require.Equal(t, 200, code)
		amount := func(at string) string {
			_, rest, found := strings.Cut(body, `id="`+at+`"`)
			require.True(t, found)
			_, rest, _ = strings.Cut(rest, `title="`)
			exact, _, _ := strings.Cut(rest, " USD")
			return exact
		}
		return amount("most"), amount("session-most")
	}
	most, session := look()
	require.Equal(t, []string{"5.00", "0.50"}, []string{most, session}, "the balance, and the ceiling")
	budget := func(scope billing.Scope, limit money.Nanos, action string) {
		w.budget(t, ada, billing.NewBudget{Name: "b", Scope: scope, Limit: limit, Period: "day", Action: action})
	}
	budget(billing.Scope{Type: billing.ScopeAgent, ID: string(other.ID)}, money.Dollar/100, billing.Block)
	budget(billing.Scope{Type: billing.ScopeOrganization}, money.Dollar/100, billing.Warn)
	most, _ = look()
	require.Equal(t, "5.00", most, "another agent's, and one that only tells, bind nothing")
	budget(billing.Scope{Type: billing.ScopeProject, ID: string(ada.Project.ID)}, 2*money.Dollar, billing.Block)
	most, session = look()
	require.Equal(t, []string{"2.00", "0.50"}, []string{most, session})
	unlimited := agent.Definition
	unlimited.Limits = journal.Limits{}
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) error {
		_, err := w.agents.Update(ada.ctx(t), tx, ada.Organization.ID, agent.ID, agents.UpdateInput{Definition: &unlimited})
		return err
	}))
	_, session = look()
	require.Equal(t, "2.00", session)
	budget(billing.Scope{Type: billing.ScopeAgent, ID: string(agent.ID)}, money.Dollar/4, billing.Block)
	most, session = look()
	require.Equal(t, []string{"0.25", "0.25"}, []string{most, session})
}

// TestTheSidebarLeadsWhereTheRoleMayGo: a role that may see money and nothing else is led to money.
func TestTheSidebarLeadsWhereTheRoleMayGo(t *testing.T) {
	w := newWorld(t)
	ada, pat := w.account(t, "ada@example.com", "Ada"), w.account(t, "pat@example.com", "Pat")
	c := w.client(t, &pat)
	require.NoError(t, w.db.InTx(t.Context(), ada.Organization.ID, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO members (org_id, id, user_id, role, created_at) VALUES ($1, $2, $3, 'billing', now())`, ada.Organization.ID, id.New[id.Member](), pat.User.ID)
		return err
	}))
	_, body := get(t, c, w.URL+ada.path)
	for _, there := range []string{"/budgets", "/usage", "/ledger", "/members", "/settings"} {
		require.Contains(t, body, `class="nav-item" href="`+ada.path+there+`"`)
	}
	for _, not := range []string{"/agents", "/sessions", "/traces", "/permissions", "/keys"} {
		require.NotContains(t, body, `href="`+ada.path+not+`"`)
	}
}
