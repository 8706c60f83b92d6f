package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/test/browser"
)

// everyPage looks at each page, with content as it is in use and without any, at two widths and in both themes.
func (s *stories) everyPage(t *testing.T) {
	p := s.person(t, "katherine")
	fresh, home := s.newcomer(t, "dorothy@example.test")
	home = strings.TrimPrefix(home, s.URL)
	w := works(t, p.Account)
	require.Equal(t, http.StatusOK, p.Call(http.MethodPost, "/v1/agents/"+w.Agent, map[string]any{"system": "You are a careful analyst.\nSay which file a figure comes from.\nNever guess."}, nil))
	failed := invoke(t, p.Account, w.Agent, "A division by nothing", "Divide.\n\n```bash\necho 'dividing' >&2; exit 3\n```\n\n```fail kind=bad_request\n```\n")
	settled(t, p.Account, failed)
	p.Visit(t, p.path("sessions", w.Session)+"?step="+s.stepOf(t, p, w.Session, "python"))
	step := p.Path(t)
	p.Visit(t, p.path("traces", w.Session))
	spans := waitForSpans(t, p.Tab, 6)
	span := p.Attribute(t, "#span-"+spans[len(spans)-2].id, "href")

	p.Visit(t, p.path("budgets", "new"))
	p.Write(t, "Name", "All of us, monthly")
	p.Write(t, "Limit", "25.00")
	p.Choose(t, "Set budget", "main")
	p.UntilSays(t, "#toasts", "All of us, monthly is set")
	budget := strings.TrimPrefix(p.Attribute(t, "main .cell-main a", "href"), p.place())

	var hook struct {
		ID string `json:"id"`
	}
	require.Equal(t, http.StatusCreated, p.Call(http.MethodPost, "/v1/webhooks", map[string]any{"url": "https://hooks.example.com/ambit", "event_types": []string{"*"}}, &hook))

	running := invoke(t, p.Account, w.Agent, "Wait for the tide", "Sleep for a while.\n\n```bash\necho begun; sleep 100; echo done\n```\n")
	public := s.wide(t)
	for _, page := range []struct {
		tab        *browser.Tab
		name, path string
	}{
		{p.Tab, "session-running", p.place() + "/sessions/" + running},
		{public, "landing", "/"},
		{public, "sign-up", "/sign-up"},
		{public, "sign-in", "/sign-in"},
		{public, "forgot-password", "/forgot-password"},
		{public, "reset-link-used", "/reset-password?token=x"},
		{public, "error-types", "/errors"},
		{public, "error-type", "/errors/insufficient_funds"},
		{public, "reference", "/docs/api"},
		{public, "not-found", "/nothing/here"},

		{fresh, "empty-overview", home + "?welcome=1"},
		{fresh, "empty-agents", home + "/agents"},
		{fresh, "empty-playground", home + "/playground"},
		{fresh, "empty-sessions", home + "/sessions"},
		{fresh, "empty-traces", home + "/traces"},
		{fresh, "empty-keys", home + "/keys"},
		{fresh, "empty-webhooks", home + "/webhooks"},
		{fresh, "empty-members", home + "/members"},
		{fresh, "empty-permissions", home + "/permissions"},
		{fresh, "empty-budgets", home + "/budgets"},
		{fresh, "empty-usage", home + "/usage"},
		{fresh, "empty-ledger", home + "/ledger"},

		{p.Tab, "overview", p.place()},
		{p.Tab, "agents", p.place() + "/agents"},
		{p.Tab, "agent", p.place() + "/agents/" + w.Agent},
		{p.Tab, "agent-new", p.place() + "/agents/new"},
		{p.Tab, "agent-edit", p.place() + "/agents/" + w.Agent + "/edit"},
		{p.Tab, "agent-compare", p.place() + "/agents/" + w.Agent + "/compare?from=1&to=2"},
		{p.Tab, "playground", p.place() + "/playground"},
		{p.Tab, "playground-done", p.place() + "/playground?session=" + w.Session},
		{p.Tab, "sessions", p.place() + "/sessions"},
		{p.Tab, "sessions-filtered", p.place() + "/sessions?group=asleep"},
		{p.Tab, "session", p.place() + "/sessions/" + w.Session},
		{p.Tab, "session-step", step},
		{p.Tab, "session-files", p.place() + "/sessions/" + w.Session + "?tab=files&path=data/q3.csv"},
		{p.Tab, "session-cost", p.place() + "/sessions/" + w.Session + "?tab=cost"},
		{p.Tab, "session-raw", p.place() + "/sessions/" + w.Session + "?tab=raw"},
		{p.Tab, "session-journal", p.place() + "/sessions/" + w.Session + "?view=journal"},
		{p.Tab, "session-failed", p.place() + "/sessions/" + failed},
		{p.Tab, "session-kill", p.place() + "/sessions/" + w.Session + "?kill=1"},
		{p.Tab, "traces", p.place() + "/traces"},
		{p.Tab, "trace", p.place() + "/traces/" + w.Session},
		{p.Tab, "trace-span", span},
		{p.Tab, "budgets", p.place() + "/budgets"},
		{p.Tab, "budget", p.place() + budget},
		{p.Tab, "budget-new", p.place() + "/budgets/new"},
		{p.Tab, "budget-edit", p.place() + budget + "/edit"},
		{p.Tab, "usage", p.place() + "/usage?by=tool&since=24h"},
		{p.Tab, "usage-lines", p.place() + "/usage?by=agent&chart=lines&since=7d"},
		{p.Tab, "usage-filtered", p.place() + "/usage?model=nothing"},
		{p.Tab, "ledger", p.place() + "/ledger"},
		{p.Tab, "ledger-account", p.place() + "/ledger?account=available&session=" + w.Session},
		{p.Tab, "keys", p.place() + "/keys"},
		{p.Tab, "key-new", p.place() + "/keys/new"},
		{p.Tab, "webhooks", p.place() + "/webhooks"},
		{p.Tab, "webhook", p.place() + "/webhooks/" + hook.ID},
		{p.Tab, "webhook-new", p.place() + "/webhooks/new"},
		{p.Tab, "stop-agent", p.place() + "/stop/agents/" + w.Agent},
		{p.Tab, "stops", p.place() + "/stops"},
		{p.Tab, "settings", p.place() + "/settings"},
		{p.Tab, "settings-organisation", p.place() + "/settings?tab=organisation"},
		{p.Tab, "settings-projects", p.place() + "/settings?tab=projects"},
		{p.Tab, "not-found-inside", p.place() + "/agents/agt_nothing"},
	} {
		t.Run(page.name, func(t *testing.T) {
			for _, look := range browser.AllLooks {
				page.tab.See(t, look)
				page.tab.Visit(t, s.URL+page.path)
				page.tab.JudgeHere(t, page.name, look)
			}
		})
	}
}

// stepOf is the id of the first settled step of the name.
func (s *stories) stepOf(t *testing.T, p *person, session, name string) string {
	t.Helper()
	var steps struct {
		Data []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"data"`
	}
	require.Equal(t, http.StatusOK, p.Call(http.MethodGet, "/v1/sessions/"+session+"/steps", nil, &steps))
	for _, step := range steps.Data {
		if step.Name == name {
			return step.ID
		}
	}
	t.Fatalf("session %s has no step %s", session, name)
	return ""
}
