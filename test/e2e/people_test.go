package e2e

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
)

// invited: an admin invites a member by mail, who joins; the admin forbids a tool, and the member's session is denied it, reads why, and does
// without.
func (l *letters) invited(t *testing.T) {
	const email = "grace.hopper@example.test"
	ada := l.person(t, "ada")
	var agent struct {
		ID string `json:"id"`
	}
	require.Equal(t, http.StatusCreated, ada.Call(http.MethodPost, "/v1/agents", map[string]any{
		"name": "analyst", "model": "ambit/scripted", "tools": []string{"bash", "read_file", "http_request"},
		"network": map[string]any{"allowed_hosts": []string{"api.example.com"}}, "limits": map[string]any{"max_cost": map[string]string{"amount": "0.25", "currency": "USD"}},
	}, &agent))

	n := len(l.mail.Messages())
	ada.Choose(t, "Members", ".side")
	ada.UntilSays(t, "main", "Nobody is invited")
	ada.Choose(t, "Invite", ".page-actions")
	ada.Write(t, "E-mail", email)
	ada.Choose(t, "Send invitation", "form")
	ada.UntilSays(t, "body", "is on its way")
	ada.UntilSays(t, "main", "Pending")
	require.NotContains(t, ada.Text(t, "body"), "token=", "the link is the mailbox's alone")
	l.judge(t, ada.Tab, "members")
	link := l.next(t, n, email, "you are invited", "/invitation")

	other := l.person(t, "mallory")
	other.Visit(t, link)
	other.UntilSays(t, "main", "You are signed in as")
	require.NotContains(t, other.Text(t, "main"), "Accept the invitation")

	grace := l.wide(t)
	grace.Visit(t, link)
	grace.UntilSays(t, "h1", "Join ")
	l.judge(t, grace, "invitation")
	grace.Write(t, "Name", "Grace")
	grace.Write(t, "Password", firstPassword)
	grace.Choose(t, "Create account and join", "form")
	grace.UntilSays(t, "body", "You are a member of")
	grace.Choose(t, "Settings", ".side")
	grace.UntilSays(t, "main", "Confirmed.")
	grace.Choose(t, "Members", ".side")
	grace.UntilSays(t, "main", email)
	require.NotContains(t, grace.Text(t, "main"), "Change role", "a developer manages nobody")
	again := l.wide(t)
	again.Visit(t, link)
	again.UntilSays(t, "h1", "This invitation does not work any more")

	ada.Choose(t, "Permissions", ".side")
	ada.UntilSays(t, "main", "There is no rule yet.")
	require.Equal(t, []string{"Allowed", "Allowed", "Allowed"}, ada.Texts(t, ".table-matrix .badge"))
	ada.Choose(t, "New rule", ".page-actions")
	ada.Fill(t, "#f-subject", agent.ID)
	ada.Write(t, "Name of the tool or model", "bash")
	ada.Write(t, "Why", "Not before the audit.")
	ada.Choose(t, "Try on the last 7 days", "form")
	ada.UntilSays(t, "#simulation", "would have been another")
	ada.Choose(t, "Save rule", "form")
	ada.UntilSays(t, "main", "the tool bash")
	l.judge(t, ada.Tab, "permissions-rules")

	session := invoke(t, ada.Account, agent.ID, "Without a shell", "Look around.\n\n```bash\nls\n```\n\n```say\nDone without the shell.\n```\n")
	require.Equal(t, "end_turn", settled(t, ada.Account, session).StopReason.Type)
	grace.Visit(t, ada.path("sessions", session))
	grace.UntilSays(t, "#transcript", "Not before the audit.")
	grace.UntilSays(t, "#transcript", "Done without the shell.")

	grace.Choose(t, "Permissions", ".side")
	grace.UntilSays(t, "main", "Denied")
	require.NotContains(t, grace.Text(t, "main"), "New rule", "who builds an agent does not widen what it may do")
	grace.Choose(t, "analyst, bash: Denied", "")
	grace.UntilSays(t, "#answer", "Not before the audit.")
	l.judge(t, grace, "permissions-explain")
	ada.Visit(t, ada.path("permissions", "rules"))
	ada.Choose(t, "the tool bash", "table")
	ada.Choose(t, "Try without it", "form")
	ada.UntilSays(t, "#simulation", "0 denied, 1 allowed")
	l.judge(t, ada.Tab, "permissions-rule")

	ada.Visit(t, ada.path("permissions"))
	l.judge(t, ada.Tab, "permissions")
	ada.Choose(t, "At the worst… analyst", "")
	ada.UntilSays(t, "h1", "What could analyst do and spend at the worst, right now?")
	require.Equal(t, "Denied", ada.Text(t, `[data-part="bash"] .badge`))
	require.Equal(t, "Allowed", ada.Text(t, `[data-part="api.example.com"] .badge`))
	require.Equal(t, "0.25 USD", ada.Attribute(t, "#session-most .money", "title"))
	l.judge(t, ada.Tab, "agent-ambit")
	ada.Choose(t, "Members", ".side")
	ada.Choose(t, "Roles", ".tabs")
	ada.UntilSays(t, "h1", "Roles")
	l.judge(t, ada.Tab, "roles")
	ada.Choose(t, "New role", ".page-actions")
	ada.UntilSays(t, "h1", "New role")
	l.judge(t, ada.Tab, "role-new")
	quiet(t, grace)
	quiet(t, ada.Tab)
}
