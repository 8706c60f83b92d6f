package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/money"
)

// budget: an admin sets a budget, a session runs into it and stops, the admin raises it, the session goes on where it was; and the usage, the
// ledger and the traces show the same cents.
func (s *stories) budget(t *testing.T) {
	ada := s.person(t, "budgeteer")
	var agent struct {
		ID string `json:"id"`
	}
	require.Equal(t, http.StatusCreated, ada.Call(http.MethodPost, "/v1/agents", map[string]any{"name": "spender", "model": "ambit/scripted", "tools": []string{}}, &agent))
	first := invoke(t, ada.Account, agent.ID, "First", "```say\nOne.\n```\n")
	spent := settled(t, ada.Account, first).Cost.Charged
	require.Positive(t, spent)

	var refused struct {
		Shortfall money.Nanos `json:"shortfall"`
	}
	// What was spent in the period counts: with a limit of just that, nothing more fits.
	ada.Choose(t, "Budgets", ".side")
	ada.UntilSays(t, "h1", "Budgets")
	ada.Choose(t, "Set a budget", "main")
	ada.Write(t, "Name", "Tight")
	ada.Fill(t, "#f-limit", spent.Decimal())
	ada.Choose(t, "Set budget", "form")
	ada.UntilSays(t, "body", "binds from now on")
	second := s.withoutCeiling(t, ada, agent.ID, "```say\nTwo.\n```\n")
	require.Equal(t, "budget_reached", settled(t, ada.Account, second).StopReason.Type)

	// A price ceiling is held at once: one that the budget does not cover is refused before any work, and the answer says by how much.
	require.Equal(t, http.StatusPaymentRequired, ada.Call(http.MethodPost, "/v1/invoke", map[string]any{
		"agent": agent.ID, "input": "More.", "mode": "async", "limits": map[string]any{"max_cost": 50 * money.Cent},
	}, &refused))
	require.Equal(t, 50*money.Cent, refused.Shortfall)

	ada.Visit(t, ada.path("sessions", second))
	ada.UntilSays(t, ".session-limit", "“Tight”")
	ada.Click(t, ".session-limit a")
	ada.UntilSays(t, "h1", "Tight")
	ada.Click(t, `a[href$="/edit"]`)
	ada.Until(t, `document.querySelector("#f-limit")`)
	ada.Fill(t, "#f-limit", "5.00")
	ada.Choose(t, "Save budget", "form")
	ada.UntilSays(t, "main", "$5.00")
	ada.Visit(t, ada.path("sessions", second))
	ada.Choose(t, "Resume", ".session-limit")
	ada.UntilSays(t, "#transcript", "Two.")
	ada.UntilSays(t, "#session-head .badge", "Completed")

	again := settled(t, ada.Account, second).Cost.Charged
	sum := spent + again
	shows := func(amount money.Nanos, parts ...string) {
		t.Helper()
		require.Eventually(t, func() bool { // spans arrive within two seconds
			status, body := fetch(t, ada.Tab, ada.path(parts...))
			return status == http.StatusOK && strings.Contains(body, `title="`+amount.Decimal()+` USD"`)
		}, patience, 500*time.Millisecond, "%v does not show %s", parts, amount)
	}
	shows(sum, "usage")
	shows(sum, "ledger?account=spent")
	shows(again, "traces", second)
	shows(spent, "traces", first)
	quiet(t, ada.Tab)
}

// withoutCeiling starts a session that has no price ceiling: only budgets and the balance bound it.
func (s *stories) withoutCeiling(t *testing.T, p *person, agent, input string) string {
	t.Helper()
	var made struct {
		Session string `json:"session_id"`
	}
	require.Equal(t, http.StatusAccepted, p.Call(http.MethodPost, "/v1/invoke", map[string]any{"agent": agent, "input": input, "mode": "async"}, &made))
	return made.Session
}
