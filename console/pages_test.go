package console_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/test/browser"

	"github.com/jackc/pgx/v5"
)

const sayHello = "Say hello.\n\n```say\nHello from the built-in model.\n```\n"

// TestPagesHoldInEveryLook opens every page, with content as it is in use, wide and narrow, light and dark.
func TestPagesHoldInEveryLook(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada Byron")
	fresh := w.account(t, "new@example.com", "")
	agent := w.agent(t, ada, "analyst", "You are a careful analyst.\nAnswer in one sentence.\n\nUse the tools when a figure is asked for.\nNever guess.\nSources are in /data.")
	hello := w.invoke(t, ada, agent, sayHello, "Say hello")
	busy := w.recorded(t, ada, agent)
	second := agent.Definition
	second.System += "\nName the file that you used."
	second.Tools = append([]string{"python"}, second.Tools...)
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) error {
		if _, err := w.agents.Update(ada.ctx(t), tx, ada.Organization.ID, agent.ID, agents.UpdateInput{Definition: &second}); err != nil {
			return err
		}
		_, err := w.agents.PutAlias(ada.ctx(t), tx, ada.Organization.ID, agent.ID, "live", 1, 0)
		return err
	}))
	var steps []journal.Step
	require.Eventually(t, func() bool {
		var err error
		steps, err = w.sessions.Steps(t.Context(), ada.Organization.ID, busy, 0, 10)
		code, body := get(t, w.client(t, &ada), w.URL+ada.path+"/traces/"+string(hello.ID))
		return err == nil && code == 200 && len(body) > 0 && !strings.Contains(body, "No span has arrived")
	}, waitFor, tick)

	still := w.agent(t, ada, "still", "")
	var order scheduler.StopOrder
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) error {
		_, err := w.sessions.Invoke(ada.ctx(t), tx, ada.Organization.ID, scheduler.InvokeInput{Project: ada.Project.ID, Agent: &agents.Ref{Agent: still.ID}, Input: journal.Text("```pause seconds=600\n```")})
		return err
	}))
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) (err error) {
		order, err = w.sessions.StopScope(ada.ctx(t), tx, ada.Organization.ID, scheduler.StopInput{Scope: scheduler.Scope{Type: scheduler.ScopeAgent, ID: string(still.ID), Project: ada.Project.ID}, Reason: "a drill"})
		return err
	}))
	order, err := w.sessions.FinishStop(t.Context(), ada.Organization.ID, order.ID)
	require.NoError(t, err)

	b := browser.Start(t)
	public := map[string]string{
		"landing": "/", "sign-up": "/sign-up", "sign-in": "/sign-in", "check-mail": "/check-mail?email=ada@example.com", "forgot": "/forgot-password",
		"link-bad": "/reset-password?token=x", "error-types": "/errors", "error-type": "/errors/insufficient_funds", "reference": "/docs/api", "not-found": "/nothing/here",
	}
	for name, path := range public {
		t.Run(name, func(t *testing.T) { judge(t, w, b.Open(t), name, path) })
	}
	p := ada.path
	session := p + "/sessions/" + string(busy)
	inside := []struct{ name, path string }{
		{"overview", p},
		{"agents", p + "/agents"},
		{"agent-new", p + "/agents/new"},
		{"agent", p + "/agents/" + string(agent.ID)},
		{"agent-edit", p + "/agents/" + string(agent.ID) + "/edit"},
		{"agent-compare", p + "/agents/" + string(agent.ID) + "/compare?from=1&to=2"},
		{"playground", p + "/playground"},
		{"playground-run", p + "/playground?session=" + string(hello.ID)},
		{"sessions", p + "/sessions"},
		{"sessions-filtered", p + "/sessions?group=asleep"},
		{"session", session},
		{"session-step", session + "?step=" + string(steps[1].ID)},
		{"session-files", session + "?tab=files"},
		{"session-cost", session + "?tab=cost"},
		{"session-raw", session + "?tab=raw"},
		{"session-journal", session + "?view=journal"},
		{"session-kill", session + "?kill=1"},
		{"session-idle", p + "/sessions/" + string(hello.ID)},
		{"traces", p + "/traces"},
		{"trace", p + "/traces/" + string(hello.ID)},
		{"trace-span", p + "/traces/" + string(hello.ID) + "?span=" + journal.SpanID(string(hello.ID))},
		{"keys", p + "/keys"},
		{"key-new", p + "/keys/new"},
		{"settings", p + "/settings"},
		{"settings-organisation", p + "/settings?tab=organisation"},
		{"settings-projects", p + "/settings?tab=projects"},
		{"stop-agent", p + "/stop/agents/" + string(agent.ID)},
		{"stop-everything", p + "/stop/organisation"},
		{"stops", p + "/stops"},
		{"stop", p + "/stops/" + string(order.ID)},
		{"session-killed", p + "/sessions/" + string(order.Receipt.Sessions[0].Session)},
		{"inside-not-found", p + "/agents/agt_nothing"},
	}
	tab := b.Open(t)
	signIn(t, w, tab, ada)
	for _, one := range inside {
		t.Run(one.name, func(t *testing.T) { judge(t, w, tab, one.name, one.path) })
	}
	newcomer := b.Open(t)
	signIn(t, w, newcomer, fresh)
	for _, one := range []struct{ name, path string }{
		{"empty-overview", fresh.path + "?welcome=1"},
		{"empty-agents", fresh.path + "/agents"},
		{"empty-playground", fresh.path + "/playground?agent=sample"},
		{"empty-sessions", fresh.path + "/sessions"},
		{"empty-traces", fresh.path + "/traces"},
		{"empty-keys", fresh.path + "/keys"},
	} {
		t.Run(one.name, func(t *testing.T) { judge(t, w, newcomer, one.name, one.path) })
	}
}

func judge(t *testing.T, w *world, tab *browser.Tab, name, path string) {
	t.Helper()
	for _, l := range browser.Looks() {
		tab.See(t, l)
		tab.Visit(t, w.URL+path)
		tab.JudgeHere(t, name, l)
	}
}

func signIn(t *testing.T, w *world, tab *browser.Tab, a account) {
	t.Helper()
	tab.Visit(t, w.URL+"/sign-in")
	tab.Type(t, "#f-email", a.email)
	tab.Type(t, "#f-password", password+"\r")
	tab.Until(t, `document.querySelector(".shell")`)
}
