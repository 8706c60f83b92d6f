package console_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/test/browser"
)

// webhook makes one of the whole organisation, with a test message under way.
func (w *world) webhook(t testing.TB, a account, address string) (hook id.Webhook, sent id.Delivery) {
	t.Helper()
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) error {
		made, _, err := w.webhooks.CreateTx(a.ctx(t), tx, principal.From(a.ctx(t)), notifications.CreateWebhook{URL: address, EventTypes: []string{notifications.AllEvents}})
		if err != nil {
			return err
		}
		d, err := w.webhooks.TestTx(a.ctx(t), tx, a.Organization.ID, made.ID)
		hook, sent = made.ID, d.ID
		return err
	}))
	return hook, sent
}

// endpoint answers as it is told, and counts.
type endpoint struct {
	*httptest.Server
	status, got atomic.Int64
}

func newEndpoint(t *testing.T) *endpoint {
	t.Helper()
	e := &endpoint{}
	e.status.Store(http.StatusNoContent)
	e.Server = httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) {
		e.got.Add(1)
		status := int(e.status.Load())
		rw.WriteHeader(status)
		if status >= 400 {
			_, _ = io.WriteString(rw, "<b>the queue is full</b>")
		}
	}))
	t.Cleanup(e.Close)
	return e
}

// attempted waits until a delivery has had so many attempts.
func (w *world) attempted(t testing.TB, a account, hook id.Webhook, sent id.Delivery, n int) notifications.Delivery {
	t.Helper()
	var d notifications.Delivery
	require.Eventually(t, func() bool {
		require.NoError(t, w.db.InTx(t.Context(), a.Organization.ID, func(tx pgx.Tx) (err error) {
			d, err = w.webhooks.DeliveryTx(t.Context(), tx, a.Organization.ID, hook, sent)
			return err
		}))
		return len(d.Attempts) >= n
	}, waitFor, tick)
	return d
}

// TestPagesAboutWebhooksHoldInEveryLook opens them with content as it is in use, and without any.
func TestPagesAboutWebhooksHoldInEveryLook(t *testing.T) {
	w := newWorld(t)
	ada, fresh := w.account(t, "ada@example.com", "Ada Byron"), w.account(t, "new@example.com", "")
	good, bad := newEndpoint(t), newEndpoint(t)
	bad.status.Store(http.StatusServiceUnavailable)
	hook, sent := w.webhook(t, ada, good.URL+"/ambit")
	failing, refused := w.webhook(t, ada, bad.URL+"/a-long-path-that-holds-a-secret-of-its-own/T024BE7LD/B024BE7LD/xxxxxxxxxxxxxxxxxxxxxxxx")
	off, _ := w.webhook(t, ada, "https://hooks.example.com/old")
	w.attempted(t, ada, hook, sent, 1)
	w.attempted(t, ada, failing, refused, 1)
	words, disabled := "Tells the night shift.", notifications.WebhookOff
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) error {
		if _, err := w.webhooks.UpdateTx(ada.ctx(t), tx, ada.Organization.ID, hook, notifications.UpdateWebhook{Description: &words, EventTypes: []string{notifications.SessionIdle, notifications.SessionTerminated}}); err != nil {
			return err
		}
		_, err := w.webhooks.UpdateTx(ada.ctx(t), tx, ada.Organization.ID, off, notifications.UpdateWebhook{Status: &disabled})
		return err
	}))
	agent := w.agent(t, ada, "analyst", "You are careful.")
	b := browser.Start(t)
	tab := b.Open(t)
	signIn(t, w, tab, ada)
	p := ada.path + "/webhooks"
	for _, one := range []struct{ name, path string }{
		{"webhooks", p},
		{"webhook-new", p + "/new"},
		{"webhook", p + "/" + string(hook)},
		{"webhook-edit", p + "/" + string(hook) + "/edit"},
		{"webhook-failing", p + "/" + string(failing)},
		{"webhook-disabled", p + "/" + string(off)},
		{"webhook-filtered", p + "/" + string(hook) + "?status=failed"},
		{"delivery", p + "/" + string(hook) + "/deliveries/" + string(sent)},
		{"delivery-failing", p + "/" + string(failing) + "/deliveries/" + string(refused)},
	} {
		t.Run(one.name, func(t *testing.T) { judge(t, w, tab, one.name, one.path) })
	}
	for _, l := range browser.Looks() {
		tab.See(t, l)
		for _, open := range []string{"rotate", "disable", "delete"} {
			tab.Visit(t, w.URL+p+"/"+string(hook))
			tab.Click(t, `[data-open="`+open+`"]`)
			tab.Until(t, `document.querySelector("dialog[open]")`)
			tab.JudgeHere(t, "webhook-"+open, l)
		}
		tab.Visit(t, w.URL+p+"/new")
		tab.Type(t, "#f-url", good.URL+"/once-more")
		tab.Click(t, ".form-foot button[type=submit]")
		tab.Until(t, `document.querySelector("#secret")`)
		tab.JudgeHere(t, "webhook-secret", l)
		tab.Visit(t, w.URL+p+"/new")
		tab.Click(t, `input[name=which][value=some]`)
		tab.Fill(t, "#f-url", "http://example.com/plain")
		tab.Click(t, ".form-foot button[type=submit]")
		tab.Until(t, `document.querySelector(".form-summary")`)
		tab.JudgeHere(t, "webhook-refused", l)
		tab.Visit(t, w.URL+ada.path+"/agents/"+string(agent.ID))
		tab.Fill(t, "#f-tags", "Careful!")
		tab.Click(t, "#tags button[type=submit]")
		tab.Until(t, `document.querySelector("#f-tags-error")`)
		tab.JudgeHere(t, "agent-tags-refused", l)
		tab.Fill(t, "#f-tags", "careful no-shell")
		tab.Click(t, "#tags button[type=submit]")
		tab.Until(t, `document.querySelectorAll("#tags .tag").length === 2 && !document.querySelector("#f-tags-error")`)
		tab.JudgeHere(t, "agent-tags", l)
	}
	newcomer := b.Open(t)
	signIn(t, w, newcomer, fresh)
	t.Run("empty-webhooks", func(t *testing.T) { judge(t, w, newcomer, "empty-webhooks", fresh.path+"/webhooks") })
}

// TestAWebhookIsMadeTestedDisabledAndDeleted goes the way of somebody who connects an endpoint: the secret is shown once, a test arrives, one
// that fails says why, and what is disabled is not sent to.
func TestAWebhookIsMadeTestedDisabledAndDeleted(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	end := newEndpoint(t)
	tab := browser.Start(t).Open(t)
	tab.See(t, browser.AllLooks[0])
	signIn(t, w, tab, ada)

	tab.Visit(t, w.URL+ada.path)
	tab.Choose(t, "Webhooks", ".side")
	tab.UntilSays(t, "main", "No webhooks yet")
	tab.Choose(t, "Make a webhook", "main")
	tab.Write(t, "Address", "http://user:word@10.0.0.1/x")
	tab.Choose(t, "Make webhook", "form")
	tab.Until(t, `document.querySelector("#f-url-error")`)
	tab.Write(t, "Address", end.URL+"/hook")
	tab.Choose(t, "Only what is chosen here", "form")
	tab.Choose(t, "Make webhook", "form")
	tab.UntilSays(t, ".form-summary", "at least one type")
	require.Equal(t, end.URL+"/hook", tab.Value(t, "#f-url"), "what was typed is kept")
	tab.Choose(t, "session.status_idle", "form")
	tab.Choose(t, "Make webhook", "form")
	tab.UntilSays(t, "h1", "The webhook is made")
	secret := tab.Text(t, "#secret")
	require.Regexp(t, `^whsec_[0-9A-Za-z+/=]{32,}$`, secret)
	tab.Choose(t, "I have copied it", "main")
	tab.UntilSays(t, "h1", strings.TrimPrefix(end.URL, "http://"))
	hook := w.URL + tab.Path(t)
	c := w.client(t, &ada)
	_, body := get(t, c, hook)
	require.NotContains(t, body, secret, "shown once")
	_, body = get(t, c, hook+"/edit")
	require.NotContains(t, body, secret)

	tab.Choose(t, "Send a test", "main")
	tab.UntilSays(t, "h1", "webhook.test")
	tab.UntilSays(t, "#delivery .badge", "Delivered") // by itself
	tab.UntilSays(t, "main", "answered 204")
	require.Equal(t, int64(1), end.got.Load())
	require.Contains(t, tab.Text(t, "#message-box"), `"webhook.test"`)
	first := tab.Path(t)
	tab.Choose(t, "Deliver again", "main")
	require.Eventually(t, func() bool { return end.got.Load() == 2 }, waitFor, tick)
	tab.Until(t, `location.pathname !== "`+first+`"`)
	tab.UntilSays(t, "#delivery .badge", "Delivered")

	end.status.Store(http.StatusServiceUnavailable)
	tab.Visit(t, hook)
	tab.Choose(t, "Send a test", "main")
	tab.UntilSays(t, "#delivery .badge", "Trying again")
	tab.UntilSays(t, "main", "answered 503")
	tab.UntilSays(t, "#answer-1", "<b>the queue is full</b>")
	require.NotContains(t, tab.Text(t, ".page-head"), "Deliver again", "not while it is under way")
	tab.Visit(t, hook)
	tab.UntilSays(t, ".page-head .badge", "Failing")
	require.Contains(t, tab.Text(t, "main table"), "503")

	tab.Choose(t, "New secret", "main")
	tab.Choose(t, "Make a new secret", "#rotate")
	tab.UntilSays(t, "h1", "The secret is new")
	require.NotEqual(t, secret, tab.Text(t, "#secret"))
	require.Contains(t, tab.Text(t, "main"), "24 hours")
	tab.Choose(t, "I have copied it", "main")
	tab.UntilSays(t, "main", "Old secret until")

	tab.Choose(t, "Disable", ".page-actions")
	tab.Choose(t, "Disable webhook", "#disable")
	tab.UntilSays(t, ".page-head .badge", "Disabled")
	require.Contains(t, tab.Text(t, "main table"), "Cancelled")
	code, body := post(t, c, hook+"/test", nil)
	require.Equal(t, 422, code)
	require.Contains(t, body, "This webhook is disabled")
	tab.Choose(t, "Enable", ".page-actions")
	tab.UntilSays(t, ".page-head .badge", "Active")

	code, _ = post(t, c, hook+"/edit", url.Values{"url": {end.URL}, "which": {"all"}, "version": {"1"}})
	require.Equal(t, 422, code, "somebody else's change is not overwritten")
	resp, err := c.Get(w.URL + "/x/" + hook[strings.LastIndex(hook, "/")+1:])
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, hook, w.URL+resp.Request.URL.Path, "a mail's link leads here")
	tab.Choose(t, "Delete webhook", "main")
	tab.Choose(t, "Delete webhook", "#delete")
	tab.UntilSays(t, "main", "No webhooks yet")
	code, _ = get(t, c, hook)
	require.Equal(t, 404, code)
	require.Empty(t, tab.Noted(), "no script failed and nothing broke the policy")
}

// TestTagsOfAnAgentDecideWhichRulesBindIt: a rule about a tag binds an agent as soon as it has the tag, and only who may write rules gives it.
func TestTagsOfAnAgentDecideWhichRulesBindIt(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	agent := w.agent(t, ada, "analyst", "")
	w.rule(t, ada, policy.Rule{Subject: policy.TagPrefix + "no-shell", Effect: policy.Deny, Kind: policy.ToolCall, Name: "bash"})
	c := w.client(t, &ada)
	at := w.URL + ada.path + "/agents/" + string(agent.ID)
	_, body := get(t, c, w.URL+ada.path+"/permissions")
	require.Contains(t, body, "analyst, bash: Allowed")
	for _, bad := range []string{"UPPER", "-x", strings.Repeat("a", 41), "a tag:x"} {
		code, body := post(t, c, at+"/tags", url.Values{"tags": {bad}})
		require.Equal(t, 422, code, bad)
		require.Contains(t, body, "f-tags-error")
		require.Contains(t, body, `value="`+bad+`"`, "what was typed is kept")
	}
	code, body := post(t, c, at+"/tags", url.Values{"tags": {"no-shell,  careful careful"}})
	require.Equal(t, 200, code)
	require.Contains(t, body, `value="careful no-shell"`)
	require.Contains(t, body, "/permissions/rules?subject=tag%3Ano-shell")
	_, body = get(t, c, w.URL+ada.path+"/permissions")
	require.Contains(t, body, "analyst, bash: Denied")
	_, body = get(t, c, w.URL+ada.path+"/permissions/rules/new")
	require.Contains(t, body, `value="tag:careful"`, "a rule can be about the tag")
	code, _ = post(t, c, at+"/tags", url.Values{"tags": {""}})
	require.Equal(t, 200, code)
	_, body = get(t, c, w.URL+ada.path+"/permissions")
	require.Contains(t, body, "analyst, bash: Allowed")
}
