package console_test

import (
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

// TestNothingOfAnotherOrganisationCanBeSeen asks for every route with the ids of somebody else, and with ids that never were. The answers
// are the same, byte for byte. A route with a parameter that this table does not know fails the test.
func TestNothingOfAnotherOrganisationCanBeSeen(t *testing.T) {
	w := newWorld(t)
	ada, eve := w.account(t, "ada@example.com", "Ada"), w.account(t, "eve@example.com", "Eve")
	agent := w.agent(t, ada, "analyst", "Secret prompt.")
	session := w.recorded(t, ada, agent)
	var key tenants.Key
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) (err error) {
		key, _, err = w.tenants.CreateKeyTx(ada.ctx(t), tx, principal.From(ada.ctx(t)), tenants.CreateKey{Name: "laptop", Scopes: []string{"*"}})
		return err
	}))
	var stopped scheduler.StopOrder
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) (err error) {
		idle := w.agent(t, ada, "idle", "")
		stopped, err = w.sessions.StopScope(ada.ctx(t), tx, ada.Organization.ID, scheduler.StopInput{Scope: scheduler.Scope{Type: scheduler.ScopeAgent, ID: string(idle.ID)}})
		return err
	}))
	budget := w.budget(t, ada, billing.NewBudget{Name: "Secret plans", Scope: billing.Scope{Type: billing.ScopeOrganization}, Limit: money.Dollar, Period: "month", Action: billing.Block})
	w.client(t, &ada)
	signIns, err := w.tenants.ListSignIns(t.Context(), ada.User.ID)
	require.NoError(t, err)
	theirs := map[string]string{":agent": string(agent.ID), ":session": string(session), ":key": string(key.ID), ":sign_in": string(signIns[0].ID), ":id": string(session), ":slug": "x", ":seq": "1", ":stop": string(stopped.ID), ":budget": string(budget.ID)}
	maps.Copy(theirs, w.governed(t, ada, agent))
	hook, sent := w.webhook(t, ada, "https://hooks.example.com/secret-path")
	theirs[":webhook"], theirs[":delivery"] = string(hook), string(sent)
	_, enrolled := w.passkey(t, ada, "laptop")
	theirs[":mandate"] = string(w.draft(t, ada, agent.ID))
	theirs[":kid"], theirs[":passkey"] = w.keyOf(t, ada, agent.ID), string(enrolled.Passkey.ID)
	never := map[string]string{
		":kid": "x", ":passkey": string(id.New[id.Passkey]()), ":mandate": string(id.New[id.Mandate]()),
		":agent": string(id.New[id.Agent]()), ":session": string(id.New[id.Session]()), ":key": string(id.New[id.Key]()), ":sign_in": string(id.New[id.SignIn]()),
		":id": string(id.New[id.Session]()), ":slug": "y", ":seq": "1", ":stop": string(id.New[id.Stop]()), ":budget": string(id.New[id.Budget]()),
		":member": string(id.New[id.Member]()), ":invitation": string(id.New[id.Invitation]()), ":role": string(id.New[id.Role]()), ":rule": string(id.New[id.Permission]()),
		":webhook": string(id.New[id.Webhook]()), ":delivery": string(id.New[id.Delivery]()),
	}
	client := w.client(t, &eve)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	asking := w.agent(t, ada, "asking", "")
	rule := w.approvalRule(t, ada, approval.Rule{Name: "Shell", Outcome: approval.Ask, Subject: string(asking.ID), Tool: "bash", Stages: within(time.Hour, 1, tenants.RoleOwner), AskerMay: true})
	waiting := w.asked(t, ada, ada, asking, "```tool name=bash\n{\"command\":\"true\"}\n```\n")
	theirs[":approval"], never[":approval"] = string(waiting.ID), string(id.New[id.Approval]())
	swept := 0
	for _, r := range w.routes {
		if !strings.Contains(r.Path, ":") || r.Method == "echo_route_not_found" {
			continue
		}
		theirs, never := maps.Clone(theirs), maps.Clone(never)
		if strings.Contains(r.Path, "/approvals/rules/") { // rules of two kinds have one word for their place in an address
			theirs[":rule"], never[":rule"] = string(rule.ID), string(id.New[id.ApprovalRule]())
		}
		// Eve's own project, with Ada's ids in it.
		if strings.Count(r.Path, ":") > 2 || strings.HasPrefix(r.Path, "/x/") {
			in := strings.Replace(r.Path, "/o/:org/p/:project", eve.path, 1)
			a, b := ask(t, client, r.Method, w.URL+fill(t, in, theirs)), ask(t, client, r.Method, w.URL+fill(t, in, never))
			require.Equal(t, http.StatusNotFound, a.status, "%s %s", r.Method, r.Path)
			require.Equal(t, b, a, "%s %s tells a thing of others from one that never was", r.Method, r.Path)
			swept++
		}
		// Ada's project itself, and one that there is not.
		if strings.HasPrefix(r.Path, "/o/") {
			a := ask(t, client, r.Method, w.URL+fill(t, strings.Replace(r.Path, "/o/:org/p/:project", ada.path, 1), theirs))
			b := ask(t, client, r.Method, w.URL+fill(t, strings.Replace(r.Path, "/o/:org/p/:project", "/o/never-was/p/default", 1), never))
			require.Equal(t, http.StatusNotFound, a.status, "%s %s", r.Method, r.Path)
			require.Equal(t, b, a, "%s %s", r.Method, r.Path)
			swept++
		}
	}
	require.Greater(t, swept, 40, "the sweep sees the routes")
	still, err := w.sessions.Get(t.Context(), ada.Organization.ID, session)
	require.NoError(t, err)
	require.EqualValues(t, "running", still.Status, "no act of another had an effect")
	got, err := w.tenants.GetKey(t.Context(), ada.Organization.ID, key.ID)
	require.NoError(t, err)
	require.Nil(t, got.RevokedAt)
}

type answer struct {
	status int
	body   string
}

func fill(t testing.TB, path string, values map[string]string) string {
	t.Helper()
	for name, value := range values {
		path = strings.ReplaceAll(path, name, value)
	}
	require.NotContains(t, path, ":", "the sweep does not know this parameter")
	return path
}

func ask(t testing.TB, c *http.Client, method, address string) answer {
	t.Helper()
	form := url.Values{"text": {"x"}, "version": {"1"}, "revision": {"0"}, "name": {"x"}, "reason": {"x"}, "present": {"x"}, "next": {"y"}}
	req, err := http.NewRequestWithContext(t.Context(), method, address, strings.NewReader(form.Encode()))
	require.NoError(t, err)
	req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	resp, err := c.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return answer{resp.StatusCode, string(body)}
}

func TestEveryPageSetsItsPolicyAndIsNotStored(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	client := w.client(t, &ada)
	for _, path := range []string{"/", "/sign-in", ada.path, ada.path + "/agents", "/nowhere", ada.path + "/agents/agt_x"} {
		resp, err := client.Get(w.URL + path)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		h := resp.Header
		policy := h.Get("Content-Security-Policy")
		require.Contains(t, policy, "script-src 'self'", path)
		require.Contains(t, policy, "require-trusted-types-for 'script'", path)
		require.NotContains(t, policy, "unsafe", path)
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), path)
		require.Equal(t, "DENY", h.Get("X-Frame-Options"), path)
		require.Equal(t, "no-store", h.Get("Cache-Control"), path)
	}
}

func TestRequestsOfOtherSitesChangeNothing(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	client := w.client(t, &ada)
	post := func(header, value string) int {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.URL+ada.path+"/settings/profile", strings.NewReader("name=Mallory"))
		require.NoError(t, err)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		req.Header.Set(header, value)
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	require.Equal(t, http.StatusForbidden, post("Sec-Fetch-Site", "cross-site"))
	require.Equal(t, http.StatusForbidden, post("Sec-Fetch-Site", "same-site"))
	require.Equal(t, http.StatusForbidden, post("Origin", "https://evil.example"))
	_, body := get(t, client, w.URL+ada.path+"/settings")
	require.NotContains(t, body, "Mallory")
	require.Equal(t, http.StatusOK, post("Sec-Fetch-Site", "same-origin"))
	_, body = get(t, client, w.URL+ada.path+"/settings")
	require.Contains(t, body, "Mallory")
}

func TestSigningInComesBackButNeverLeavesTheConsole(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	client := w.client(t, nil)
	resp, err := client.Get(w.URL + ada.path + "/agents?q=x")
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "/sign-in", resp.Request.URL.Path)
	require.Equal(t, ada.path+"/agents?q=x", resp.Request.URL.Query().Get("next"))
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	for next, want := range map[string]string{
		ada.path + "/agents?q=x": ada.path + "/agents?q=x", "https://evil.example/": "/home", "//evil.example": "/home", `/\evil.example`: "/home", "javascript:alert(1)": "/home", "": "/home",
	} {
		resp, err := client.PostForm(w.URL+"/sign-in", url.Values{"email": {ada.email}, "password": {password}, "next": {next}})
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, want, resp.Header.Get("Location"), next)
		for _, c := range resp.Cookies() {
			require.True(t, c.HttpOnly, c.Name)
			require.Equal(t, http.SameSiteLaxMode, c.SameSite, c.Name)
		}
		client = w.client(t, nil)
		client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	}
}

func TestSigningOutEndsTheSignIn(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	client := w.client(t, &ada)
	resp, err := client.Post(w.URL+"/sign-out", "application/x-www-form-urlencoded", nil)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, "/sign-in", resp.Request.URL.Path)
	left, err := w.tenants.ListSignIns(t.Context(), ada.User.ID)
	require.NoError(t, err)
	require.Empty(t, left)
}

// TestAViewerLooksAndDoesNotTouch gives somebody the role that may read sessions and no keys.
func TestAViewerLooksAndDoesNotTouch(t *testing.T) {
	w := newWorld(t)
	ada, vic := w.account(t, "ada@example.com", "Ada"), w.account(t, "vic@example.com", "Vic")
	agent := w.agent(t, ada, "analyst", "")
	session := w.recorded(t, ada, agent)
	client := w.client(t, &vic)
	require.NoError(t, w.db.InTx(t.Context(), ada.Organization.ID, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO members (org_id, id, user_id, role, created_at) VALUES ($1, $2, $3, 'viewer', now())`,
			string(ada.Organization.ID), string(id.New[id.Member]()), string(vic.User.ID))
		return err
	}))
	for path, want := range map[string]int{"": 200, "/agents": 200, "/sessions": 200, "/traces": 200, "/settings": 200, "/identity": 200, "/keys": 403, "/webhooks": 403, "/agents/new": 403, "/budgets": 200, "/usage": 200, "/ledger": 200, "/budgets/new": 403} {
		got, body := get(t, client, w.URL+ada.path+path)
		require.Equal(t, want, got, path)
		require.NotContains(t, body, ">New agent<", "what may not be done is not offered on %s", path)
	}
	got, body := get(t, client, w.URL+ada.path+"/sessions/"+string(session))
	require.Equal(t, 200, got)
	require.NotContains(t, body, "kill-dialog")
	require.NotContains(t, body, "composer-box")
	for _, act := range []string{"/sessions/" + string(session) + "/kill", "/sessions/" + string(session) + "/messages", "/playground", "/agents/new", "/keys/new", "/settings/organisation", "/budgets/new", "/members/invite", "/roles/new", "/permissions/rules/new", "/permissions/presets", "/webhooks/new", "/agents/" + string(agent.ID) + "/tags", "/identity/agents/" + string(agent.ID) + "/rotate", "/sessions/" + string(session) + "/resume"} {
		require.Equal(t, http.StatusForbidden, ask(t, client, http.MethodPost, w.URL+ada.path+act).status, act)
	}
}

// TestARoleOfTheOrganisationsOwnAllowsWhatItNamesAndNoMore: somebody whose role has one permission, which no page of a project needs,
// meets a refusal at every address but those that are listed here, and why.
func TestARoleOfTheOrganisationsOwnAllowsWhatItNamesAndNoMore(t *testing.T) {
	w := newWorld(t)
	ada, pat := w.account(t, "ada@example.com", "Ada"), w.account(t, "pat@example.com", "Pat")
	agent := w.agent(t, ada, "analyst", "")
	session := w.recorded(t, ada, agent)
	client := w.client(t, &pat)
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	owner := principal.From(ada.ctx(t))
	member := id.New[id.Member]()
	give := func(permissions ...string) {
		require.NoError(t, w.db.InTx(t.Context(), owner.Org, func(tx pgx.Tx) error {
			role, err := w.tenants.CreateRoleTx(t.Context(), tx, owner, tenants.SaveRole{Name: "Only " + permissions[0], Permissions: permissions})
			if err != nil {
				return err
			}
			_, err = tx.Exec(t.Context(), `INSERT INTO members (org_id, id, user_id, role, role_id, created_at) VALUES ($1, $2, $3, 'custom', $4, now())
				ON CONFLICT (org_id, id) DO UPDATE SET role_id = EXCLUDED.role_id`, owner.Org, member, pat.User.ID, role.ID)
			return err
		}))
	}
	give("models:read")
	open := map[string]string{
		"GET ":                    "the overview says that sessions are not to be seen",
		"GET /settings":           "one's own account",
		"POST /settings/profile":  "one's own account",
		"POST /settings/password": "one's own account",
		"POST /settings/sign-ins/:sign_in/revoke": "one's own account",
		"POST /settings/sign-ins/revoke-others":   "one's own account",
		"GET /settings/passkeys/new":              "one's own account",
		"POST /settings/passkeys/new":             "one's own account",
		"POST /settings/passkeys":                 "one's own account",
		"POST /settings/passkeys/:passkey/rename": "one's own account",
		"GET /settings/passkeys/:passkey/revoke":  "one's own account",
		"POST /settings/passkeys/:passkey/revoke": "one's own account",
		"GET /settings/recovery-codes":            "one's own account",
		"POST /settings/recovery-codes":           "one's own account",
	}
	values := map[string]string{":agent": string(agent.ID), ":session": string(session), ":key": "key_x", ":seq": "1", ":sign_in": "x", ":stop": "sto_x", ":budget": "bud_x", ":member": "mem_x", ":invitation": "inv_x", ":role": "rol_x", ":rule": "per_x", ":webhook": "whk_x", ":delivery": "dlv_x", ":kid": "x", ":passkey": "psk_x", ":mandate": "mnd_x", ":approval": "apr_x"}
	refused := 0
	for _, r := range w.routes {
		rest, ofProject := strings.CutPrefix(r.Path, "/o/:org/p/:project")
		if !ofProject || r.Method == "echo_route_not_found" || open[r.Method+" "+rest] != "" {
			continue
		}
		got := ask(t, client, r.Method, w.URL+ada.path+fill(t, rest, values))
		require.Equal(t, http.StatusForbidden, got.status, "%s %s", r.Method, r.Path)
		refused++
	}
	require.Greater(t, refused, 25)
	for _, tab := range []string{"organisation", "projects"} {
		require.Equal(t, http.StatusForbidden, ask(t, client, http.MethodGet, w.URL+ada.path+"/settings?tab="+tab).status)
	}
	hook, _ := w.webhook(t, ada, "https://hooks.example.com/secret-path")
	for _, wanted := range []string{string(session), string(agent.ID), string(ada.Project.ID), string(hook)} {
		require.Equal(t, http.StatusNotFound, ask(t, client, http.MethodGet, w.URL+"/x/"+wanted).status)
	}
	_, body := get(t, client, w.URL+ada.path)
	require.NotContains(t, body, ">New agent<")
	require.NotContains(t, body, string(session))

	give("sessions:read", "organization:read")
	require.Equal(t, http.StatusOK, ask(t, client, http.MethodGet, w.URL+ada.path+"/sessions/"+string(session)).status)
	require.Equal(t, http.StatusForbidden, ask(t, client, http.MethodPost, w.URL+ada.path+"/sessions/"+string(session)+"/kill").status)
	require.Equal(t, http.StatusSeeOther, ask(t, client, http.MethodGet, w.URL+"/x/"+string(session)).status)
	got, body := get(t, client, w.URL+ada.path+"/settings?tab=organisation")
	require.Equal(t, 200, got)
	require.NotContains(t, body, "ada@example.com", "members are not shown without members:read")
}
