package e2e

import (
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/test/browser"
	"ambit.dev/ambit/test/instance"
)

// approverEmail is whom the owner invites to decide with her.
const approverEmail = "grace@harbour.example"

// authority is the story of what a person signs for an agent, and of what another one is asked.
type authority struct {
	*letters

	olive   *instance.Account
	tab     *browser.Tab // hers, under the name that passkeys are bound to
	home    string
	phone   *browser.Tab // Grace's
	agent   string
	mandate string
	session string
}

// authorised: an owner enrols a passkey and signs a mandate with it. Her agent spends under it, and asks before it runs a command; an admin
// decides, on her phone, from the mail that she gets, and the session goes on. The owner revokes the mandate, and what still works under
// it stops. What it signed, spent and was receipted for verifies with the public keys alone.
func (l *letters) authorised(t *testing.T) {
	a := &authority{letters: l, olive: l.Account("olive"), tab: l.wide(t)}
	a.tab.Authenticator(t)
	named := strings.Replace(l.URL, "127.0.0.1", "localhost", 1)
	a.home = named + "/o/" + a.olive.OrgSlug + "/p/" + a.olive.ProjectSlug
	a.tab.Visit(t, named+"/sign-in")
	a.tab.Write(t, "E-mail", a.olive.Email)
	a.tab.Write(t, "Password", a.olive.Password)
	a.tab.Choose(t, "Sign in", "form")
	a.tab.UntilSays(t, "h1", "Overview")
	var agent struct {
		ID string `json:"id"`
	}
	require.Equal(t, http.StatusCreated, a.olive.Call(http.MethodPost, "/v1/agents", map[string]any{
		"name": "buyer", "model": "ambit/scripted", "max_tokens": 256, "tools": []string{"bash", "python", "write_file"},
	}, &agent))
	a.agent = agent.ID

	a.enrols(t)
	a.signs(t)
	a.invites(t)
	a.asksBeforeCommands(t)
	a.waitsForGrace(t)
	a.graceApproves(t)
	a.spends(t)
	a.revokes(t)
	a.verifies(t)
	quiet(t, a.tab)
	quiet(t, a.phone)
}

func (a *authority) enrols(t *testing.T) {
	t.Helper()
	a.tab.Visit(t, a.home+"/settings?tab=security")
	a.tab.Choose(t, "Add a passkey", "main")
	a.tab.Write(t, "Your password", a.olive.Password)
	a.tab.Choose(t, "Continue", "main")
	a.tab.UntilSays(t, "main", "Name it for the device")
	a.tab.Write(t, "Name", "Harbour laptop")
	a.tab.Choose(t, "Make the passkey", "main")
	a.tab.UntilSays(t, "main", "Keep these codes")
}

func (a *authority) signs(t *testing.T) {
	t.Helper()
	a.tab.Visit(t, a.home+"/mandates/new?agent="+a.agent)
	a.tab.Write(t, "What for", "Supplies for the harbour office")
	a.tab.Fill(t, "#f-total", "50")
	a.tab.Fill(t, "#f-per_action", "5")
	a.tab.Choose(t, "Continue to sign", "main")
	a.tab.UntilSays(t, ".mandate-paper", "buyer may spend up to $50.00 in all, at most $5.00 an action")
	a.tab.Choose(t, "Sign", "main form")
	a.tab.UntilSays(t, "main", "In force")
	found := regexp.MustCompile(`/mandates/([a-z]+_[0-9a-z]+)`).FindStringSubmatch(a.tab.Path(t))
	require.Len(t, found, 2, a.tab.Path(t))
	a.mandate = found[1]
}

// invites makes Grace an admin, by mail.
func (a *authority) invites(t *testing.T) {
	t.Helper()
	n := len(a.mail.Messages())
	a.tab.Visit(t, a.home+"/members")
	a.tab.Choose(t, "Invite", ".page-actions")
	a.tab.Write(t, "E-mail", approverEmail)
	a.tab.Fill(t, "#f-role", "admin")
	a.tab.Choose(t, "Send invitation", "form")
	a.tab.UntilSays(t, "main", "Pending")
	link := a.next(t, n, approverEmail, "you are invited", "/invitation")
	a.phone = a.wide(t)
	small(t, a.phone)
	a.phone.Visit(t, link)
	a.phone.UntilSays(t, "h1", "Join ")
	a.phone.Write(t, "Name", "Grace")
	a.phone.Write(t, "Password", firstPassword)
	a.phone.Choose(t, "Create account and join", "form")
	a.phone.UntilSays(t, "body", "You are a member of")
}

func (a *authority) asksBeforeCommands(t *testing.T) {
	t.Helper()
	a.tab.Visit(t, a.home+"/approvals/rules/new")
	a.tab.Write(t, "Name", "Commands")
	a.tab.Fill(t, "#f-tool", "bash")
	a.tab.Until(t, `[...document.querySelectorAll('input[name="roles"]')].every(b => { if (b.checked !== (b.value === "admin")) b.click(); return b.checked === (b.value === "admin") })`)
	a.tab.Fill(t, "#f-need", "1")
	a.tab.Fill(t, "#f-within_hours", "4")
	a.tab.Choose(t, "Save the rule", "main")
	a.tab.UntilSays(t, "main", "Commands")
	a.tab.UntilSays(t, "h1", "Approval rules")
}

func (a *authority) begins(t *testing.T, input string) (status int, session string) {
	t.Helper()
	var made struct {
		Session string `json:"session_id"`
	}
	status = a.olive.Call(http.MethodPost, "/v1/invoke", map[string]any{"agent": a.agent, "input": input, "mandate_id": a.mandate, "mode": "async"}, &made)
	return status, made.Session
}

func (a *authority) waitsForGrace(t *testing.T) {
	t.Helper()
	var status int
	status, a.session = a.begins(t, "Write the order and check it.\n\n```write_file path=order.txt\n12 lamps\n```\n\n```bash\ncat order.txt && echo checked by hand\n```\n\n```say\nThe order is written and checked.\n```\n")
	require.Equal(t, http.StatusAccepted, status)
	require.Equal(t, "requires_action", settled(t, a.olive, a.session).StopReason.Type)
	// Who asked does not decide.
	a.tab.Visit(t, a.home+"/approvals")
	a.tab.UntilSays(t, "main", "Commands")
	require.NotContains(t, a.tab.Text(t, "main"), "Approve once")
}

// small makes a tab as narrow as a phone.
func small(t *testing.T, tab *browser.Tab) {
	t.Helper()
	i := slices.IndexFunc(browser.AllLooks, func(l browser.Look) bool { return l.Width < 500 })
	tab.See(t, browser.AllLooks[i])
}

// graceApproves from the link in her mail, which by itself decides nothing.
func (a *authority) graceApproves(t *testing.T) {
	t.Helper()
	var link string
	require.Eventually(t, func() bool {
		for _, m := range a.mail.Messages() {
			if m.To == approverEmail && strings.Contains(m.Link(), "/x/") {
				link = m.Link()
			}
		}
		return link != ""
	}, patience, 100*time.Millisecond, "nobody wrote to Grace")
	a.phone.Visit(t, link)
	a.phone.UntilSays(t, "main", "echo checked by hand")
	a.judge(t, a.phone, "approval-on-a-phone")
	small(t, a.phone)
	require.Equal(t, "requires_action", settled(t, a.olive, a.session).StopReason.Type)
	a.phone.Choose(t, "Approve once", "main")
	a.phone.UntilSays(t, "body", "Approved")
}

// spends: the session went on under the mandate, and what the mandate has spent is what the session was charged.
func (a *authority) spends(t *testing.T) {
	t.Helper()
	var s session
	require.Eventually(t, func() bool {
		require.Equal(t, http.StatusOK, a.olive.Call(http.MethodGet, "/v1/sessions/"+a.session, nil, &s))
		return s.StopReason.Type == "end_turn"
	}, patience, 200*time.Millisecond, "the session does not go on")
	require.Positive(t, s.Cost.Charged)
	a.tab.Visit(t, a.home+"/sessions/"+a.session)
	a.tab.UntilSays(t, "main", "The order is written and checked.")
	a.tab.UntilSays(t, "main", "checked by hand")
	// Its sandbox lives on for a while and costs: what the mandate has spent is what all its sessions were charged.
	var m struct {
		Money struct {
			Spent money.Nanos `json:"spent"`
		} `json:"money"`
	}
	require.Eventually(t, func() bool {
		require.Equal(t, http.StatusOK, a.olive.Call(http.MethodGet, "/v1/sessions/"+a.session, nil, &s))
		require.Equal(t, http.StatusOK, a.olive.Call(http.MethodGet, "/v1/mandates/"+a.mandate, nil, &m))
		return m.Money.Spent == s.Cost.Charged
	}, patience, 200*time.Millisecond, "the mandate and its one session disagree")
	a.tab.Visit(t, a.home+"/mandates/"+a.mandate)
	a.judge(t, a.tab, "mandate-spent")
}

// revokes: what works under it stops, and nothing begins under it any more.
func (a *authority) revokes(t *testing.T) {
	t.Helper()
	status, running := a.begins(t, "Wait for the delivery.\n\n```python\nimport time\ntime.sleep(240)\n```\n")
	require.Equal(t, http.StatusAccepted, status)
	a.tab.Visit(t, a.home+"/sessions/"+running)
	a.tab.UntilSays(t, "main", "time.sleep(240)")
	a.tab.Visit(t, a.home+"/mandates/"+a.mandate+"/revoke")
	a.tab.Write(t, "Reason", "The office is supplied")
	a.tab.Choose(t, "Revoke", "main form")
	a.tab.UntilSays(t, "h1", "Stop of mandate Supplies for the harbour office")
	a.judge(t, a.tab, "mandate-revocation")
	a.tab.Visit(t, a.home+"/mandates/"+a.mandate)
	a.tab.UntilSays(t, "main", "Revoked")
	require.Equal(t, "terminated", settled(t, a.olive, running).Status)
	status, _ = a.begins(t, "More lamps.")
	require.GreaterOrEqual(t, status, 400)
	require.Less(t, status, 500)
}

// verifies: the file from the console and the published keys, checked by the command with no server to ask.
func (a *authority) verifies(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	keep := func(name string, body []byte) string {
		path := filepath.Join(dir, name)
		require.NoError(t, os.WriteFile(path, body, 0o600))
		return path
	}
	get := func(path string) []byte {
		status, body := a.olive.Raw(http.MethodGet, path, nil)
		require.Equal(t, http.StatusOK, status, "%s: %s", path, body)
		return body
	}
	export := get("/v1/mandates/" + a.mandate + "/export")
	file := keep("mandate.json", export)
	keys := []string{keep("instance.json", get("/.well-known/jwks.json")), keep("organization.json", get("/organizations/"+string(a.olive.Org)+"/jwks.json"))}
	verify := func(file string) (string, error) {
		cmd := exec.CommandContext(t.Context(), instance.Build(t), "mandate", "verify", file, "--jwks", keys[0], "--jwks", keys[1])
		cmd.Env = []string{"HOME=" + dir}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := verify(file)
	require.NoError(t, err, out)
	require.Contains(t, out, "Supplies for the harbour office")
	// One spend that is not what was receipted, and it is nothing.
	changed := regexp.MustCompile(`"amount_nanos":\s*\d+`).ReplaceAllString(string(export), `"amount_nanos":1`)
	require.NotEqual(t, string(export), changed, "the export has no spend")
	out, err = verify(keep("changed.json", []byte(changed)))
	require.Error(t, err, "a changed file verifies: %s", out)
}
