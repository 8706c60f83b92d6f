package console_test

import (
	"log/slog"
	"net/http"
	"net/url"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/test/browser"
)

// joins makes one account's person a member of another's organisation.
func (w *world) joins(t testing.TB, a, person account, role tenants.Role) {
	t.Helper()
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO members (org_id, id, user_id, role, created_at) VALUES ($1, $2, $3, $4, now())`, string(a.Organization.ID), string(id.New[id.Member]()), string(person.User.ID), string(role))
		return err
	}))
}

// asked has an agent ask for what the tool call says, on behalf of by, and returns the question.
func (w *world) asked(t testing.TB, a, by account, agent agents.Agent, script string) approval.Approval {
	t.Helper()
	ctx := a.ctx(t)
	if by.User.ID != a.User.ID {
		by.Organization, by.Project = a.Organization, a.Project
		ctx = by.ctx(t)
	}
	var in scheduler.Invoked
	require.NoError(t, w.db.InTx(ctx, a.Organization.ID, func(tx pgx.Tx) (err error) {
		in, err = w.sessions.Invoke(ctx, tx, a.Organization.ID, scheduler.InvokeInput{Project: a.Project.ID, Agent: &agents.Ref{Agent: agent.ID, Version: agent.Version}, Input: journal.Text(script)})
		return err
	}))
	var list []approval.Approval
	require.Eventually(t, func() bool {
		require.NoError(t, w.db.InTx(t.Context(), a.Organization.ID, func(tx pgx.Tx) (err error) {
			list, err = approval.List(t.Context(), tx, a.Organization.ID, approval.Filter{Session: in.Session.ID, Limit: 10})
			return err
		}))
		return len(list) > 0
	}, waitFor, tick, "nobody was asked")
	return list[0]
}

func (w *world) approvalRule(t testing.TB, a account, r approval.Rule) approval.Stored {
	t.Helper()
	var made approval.Stored
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) (err error) {
		made, err = w.sessions.Approvals().CreateRule(a.ctx(t), tx, a.Organization.ID, r, nil)
		return err
	}))
	return made
}

func within(d time.Duration, need int, roles ...tenants.Role) []approval.Stage {
	return []approval.Stage{{Roles: roles, Need: need, Within: d}}
}

// TestAnApprovalIsDecidedInTheConsole in Chromium: by the keyboard, at a phone's size, by a second member, and remembered with a confirmation.
func TestAnApprovalIsDecidedInTheConsole(t *testing.T) {
	w := newWorld(t)
	ada, dev, fresh := w.account(t, "ada@example.com", "Ada Byron"), w.account(t, "dev@example.com", "Devi Rao"), w.account(t, "new@example.com", "")
	w.joins(t, ada, dev, tenants.RoleDeveloper)
	w.joins(t, ada, w.account(t, "eve@example.com", "Eve Lind"), tenants.RoleAdmin)
	agent := w.agent(t, ada, "analyst", "You are careful.")
	more := agent.Definition
	more.Tools = []string{"bash", "edit_file", "http_request", "write_file"}
	more.Network.AllowedHosts = []string{"api.example.com"}
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) (err error) {
		agent, err = w.agents.Update(ada.ctx(t), tx, ada.Organization.ID, agent.ID, agents.UpdateInput{Definition: &more})
		return err
	}))
	cent := money.Dollar / 100
	escalation := approval.Stage{Roles: []tenants.Role{tenants.RoleOwner}, Within: time.Hour}
	w.approvalRule(t, ada, approval.Rule{Name: "Requests to the outside", Description: "Ask before anything is sent.", Outcome: approval.Ask, Subject: "*", Tool: "http_request", Stages: within(4*time.Hour, 1, tenants.RoleAdmin, tenants.RoleOwner)})
	w.approvalRule(t, ada, approval.Rule{Name: "Changes of files", Outcome: approval.Ask, Subject: "*", Tool: "edit_file", Stages: within(24*time.Hour, 1, tenants.RoleOwner), Escalation: &escalation})
	w.approvalRule(t, ada, approval.Rule{Name: "What runs code", Outcome: approval.Ask, Subject: string(agent.ID), Tool: "bash", Risks: []string{"high"}, SumOver: &cent, SumWindow: 24 * time.Hour, FirstUse: "", Stages: within(time.Hour, 1, tenants.RoleBilling, tenants.RoleOwner)})
	post := "I have checked the figures; they must go to the partner today.\n```tool name=http_request\n" + `{"method":"POST","url":"https://api.example.com/v1/orders","headers":{"Content-Type":"application/json"},"body":"{\"items\":[{\"sku\":\"W-100\",\"count\":2}],\"total\":\"18.40\"}"}` + "\n```\n"
	edit := "```tool name=edit_file\n" + `{"path":"config/limits.yaml","old_text":"orders:\n  max: 10\n  notify: true\n","new_text":"orders:\n  max: 1000\n  notify: false\n"}` + "\n```\n"
	first := w.asked(t, ada, dev, agent, post)
	second := w.asked(t, ada, dev, agent, edit)
	own := w.asked(t, ada, ada, agent, post)

	b := browser.Start(t)
	tab := b.Open(t)
	signIn(t, w, tab, ada)
	p := ada.path
	for _, one := range []struct{ name, path string }{
		{"approvals", p + "/approvals"},
		{"approval-request", "/x/" + string(first.ID)},
		{"approval-diff", p + "/approvals?open=" + string(second.ID)},
		{"approval-own", p + "/approvals?open=" + string(own.ID)},
		{"approval-rules", p + "/approvals/rules"},
		{"approval-rule-new", p + "/approvals/rules/new"},
		{"approval-absence", p + "/approvals/absence"},
	} {
		t.Run(one.name, func(t *testing.T) { judge(t, w, tab, one.name, one.path) })
	}

	// To open the page decides nothing.
	now := func(a approval.Approval) approval.Approval {
		t.Helper()
		require.NoError(t, w.db.InTx(t.Context(), ada.Organization.ID, func(tx pgx.Tx) (err error) {
			a, err = approval.Get(t.Context(), tx, ada.Organization.ID, a.ID)
			return err
		}))
		return a
	}
	require.Equal(t, approval.Pending, now(first).Status)

	// Without a mouse: from the list to the decision.
	tab.See(t, browser.AllLooks[0])
	tab.Visit(t, w.URL+p+"/approvals?open="+string(first.ID))
	tab.Write(t, "Reason", "The total is not the one that was agreed.")
	tab.Choose(t, "Refuse", "main")
	tab.UntilSays(t, "body", "Refused.")
	require.Equal(t, approval.Refused, now(first).Status)
	require.Equal(t, "The total is not the one that was agreed.", now(first).Reason)

	// On a phone: approve, and be shown the rule for the next time, which takes a confirmation to save.
	for _, l := range browser.AllLooks {
		if l.Width < 500 {
			tab.See(t, l)
			break
		}
	}
	tab.Visit(t, w.URL+p+"/approvals?open="+string(second.ID))
	tab.Click(t, "#f-remember-1")
	tab.Choose(t, "Approve once", "main")
	tab.UntilSays(t, "main", "does not ask about what you write here")
	require.Contains(t, []approval.Status{approval.Approved, approval.Used}, now(second).Status)
	judgeAt(t, tab, "approval-remember", w.URL+p+"/approvals/rules/new?like="+string(second.ID))
	tab.Choose(t, "Save the rule", "main")
	tab.UntilSays(t, "main", "lets more happen without a person")
	for _, l := range browser.Looks() {
		tab.See(t, l)
		tab.JudgeHere(t, "approval-confirm", l)
	}
	tab.See(t, browser.AllLooks[0])
	tab.Write(t, "Your password", password)
	tab.Choose(t, "Save the rule", "main")
	tab.UntilSays(t, "main", "lets it go without asking")
	judge(t, w, tab, "approval-history", p+"/approvals?show=history")
	judge(t, w, tab, "approval-rules-more", p+"/approvals/rules")

	// What nobody answers is told as that.
	require.NoError(t, w.db.InTx(t.Context(), ada.Organization.ID, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `UPDATE approvals SET expires_at = now() - interval '1 second', escalated = true WHERE id = $1`, string(own.ID))
		return err
	}))
	require.NoError(t, scheduler.NewApprovalKeeper(w.db, w.sessions, slog.New(slog.DiscardHandler)).RunOnce(t.Context()))
	judge(t, w, tab, "approval-expired", p+"/approvals?show=history&open="+string(own.ID))

	newcomer := b.Open(t)
	signIn(t, w, newcomer, fresh)
	judge(t, w, newcomer, "empty-approvals", fresh.path+"/approvals")
}

// TestADecisionIsAPostOfWhoMay: without scripts.
func TestADecisionIsAPostOfWhoMay(t *testing.T) {
	w := newWorld(t)
	ada, dev := w.account(t, "ada@example.com", "Ada Byron"), w.account(t, "dev@example.com", "Devi Rao")
	w.joins(t, ada, dev, tenants.RoleDeveloper)
	agent := w.agent(t, ada, "analyst", "You are careful.")
	w.approvalRule(t, ada, approval.Rule{Name: "Code", Outcome: approval.Ask, Subject: "*", Tool: "bash", Stages: within(time.Hour, 1, tenants.RoleOwner)})
	a := w.asked(t, ada, dev, agent, "```bash\nls\n```\n")
	hers, theirs := w.client(t, &ada), w.client(t, &dev)
	page := w.URL + ada.path + "/approvals?open=" + string(a.ID)
	status, body := get(t, hers, page)
	require.Equal(t, 200, status)
	require.Contains(t, body, "Approve once")
	_, body = get(t, theirs, page)
	require.NotContains(t, body, "Approve once")
	decide := w.URL + ada.path + "/approvals/" + string(a.ID) + "/decide"
	post := func(as interface {
		PostForm(string, url.Values) (*http.Response, error)
	}, v url.Values,
	) int {
		resp, err := as.PostForm(decide, v)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		return resp.StatusCode
	}
	require.Equal(t, 422, post(theirs, url.Values{"verb": {"approve"}, "digest": {a.DigestText()}}))
	require.LessOrEqual(t, 400, post(hers, url.Values{"verb": {"approve"}, "digest": {"00"}}))
	require.Equal(t, 200, post(hers, url.Values{"verb": {"approve"}, "digest": {a.DigestText()}}))
	require.Equal(t, 200, post(hers, url.Values{"verb": {"approve"}, "digest": {a.DigestText()}}), "again is harmless")
	status, _ = get(t, hers, w.URL+ada.path+"/approvals/"+string(a.ID)+"/decide")
	require.Equal(t, 404, status, "a GET decides nothing: there is none")
}
