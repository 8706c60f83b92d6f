package e2e

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/test/browser"
	"ambit.dev/ambit/test/instance"
)

// builderEmail is whom the admin invites.
const builderEmail = "grace.hopper@example.test"

// workAround asks for the shell, which is forbidden by then. What it does instead prints so much that the model call which would read it may
// cost more than is left of the budget: a call is held at its upper bound before it is made.
const workAround = "Total the figures.\n\n```bash\nawk '{t += $1} END {print t}' figures.txt\n```\n\n" +
	"```python\nfor n in range(1400):\n    print(f\"{n:6d} {n * n:12d}\")\nprint(\"total\", sum(n * n for n in range(1400)))\n```\n\n" +
	"```say\nThe total is 913,686,900, without the shell.\n```\n"

// tight is above what two model calls and a program may cost, and below the call that reads what the program printed.
const tight money.Nanos = 3_000_000

// governing is the story of an admin and a builder in one organisation.
type governing struct {
	*letters

	ada   *person      // answers for it
	grace *browser.Tab // builds in it
	// key is Grace's own, made in the console.
	key     *instance.Account
	agent   string
	session string
}

// governed: an admin invites a member, sets a budget and forbids a tool. The member's session is denied the tool, reads why, does without it,
// reaches the budget and stops. The admin raises the budget, and the session goes on where it was. What it cost is one number, to the
// nano-dollar: on its page, in the usage, on the trace, in the ledger, on the budget and in the API.
func (l *letters) governed(t *testing.T) {
	g := &governing{letters: l, ada: l.person(t, "ada")}
	var agent struct {
		ID string `json:"id"`
	}
	require.Equal(t, http.StatusCreated, g.ada.Call(http.MethodPost, "/v1/agents", map[string]any{
		"name": "analyst", "model": "ambit/scripted", "max_tokens": 256, "tools": []string{"bash", "python", "http_request"},
		"network": map[string]any{"allowed_hosts": []string{"api.example.com"}},
	}, &agent))
	g.agent = agent.ID
	g.invites(t)
	g.setsABudget(t)
	g.forbidsATool(t)
	g.stopsAtTheBudget(t)
	g.explains(t)
	spent := g.asksForTheWorst(t)
	g.goesOn(t, spent)
	g.agreesToTheNano(t)
	g.looksAtRoles(t)
	quiet(t, g.grace)
	quiet(t, g.ada.Tab)
}

// invites: the link in the mail makes a member of the invited address, once, and of nobody else.
func (g *governing) invites(t *testing.T) {
	t.Helper()
	n := len(g.mail.Messages())
	g.ada.Choose(t, "Members", ".side")
	g.ada.UntilSays(t, "main", "Nobody is invited")
	g.ada.Choose(t, "Invite", ".page-actions")
	g.ada.Write(t, "E-mail", builderEmail)
	g.ada.Choose(t, "Send invitation", "form")
	g.ada.UntilSays(t, "body", "is on its way")
	g.ada.UntilSays(t, "main", "Pending")
	require.NotContains(t, g.ada.Text(t, "body"), "token=", "the link is the mailbox's alone")
	g.judge(t, g.ada.Tab, "members")
	link := g.next(t, n, builderEmail, "you are invited", "/invitation")

	other := g.person(t, "mallory")
	other.Visit(t, link)
	other.UntilSays(t, "main", "You are signed in as")
	require.NotContains(t, other.Text(t, "main"), "Accept the invitation")
	other.Choose(t, "Sign out", "main")
	other.UntilSays(t, "main", "Create account and join") // it comes back to the invitation

	g.grace = g.wide(t)
	g.grace.Visit(t, link)
	g.grace.UntilSays(t, "h1", "Join ")
	g.judge(t, g.grace, "invitation")
	g.grace.Write(t, "Name", "Grace")
	g.grace.Write(t, "Password", firstPassword)
	g.grace.Choose(t, "Create account and join", "form")
	g.grace.UntilSays(t, "body", "You are a member of")
	g.grace.Choose(t, "Settings", ".side")
	g.grace.UntilSays(t, "main", "Confirmed.")
	g.grace.Choose(t, "Members", ".side")
	g.grace.UntilSays(t, "main", builderEmail)
	require.NotContains(t, g.grace.Text(t, "main"), "Change role", "a developer manages nobody")
	again := g.wide(t)
	again.Visit(t, link)
	again.UntilSays(t, "h1", "This invitation does not work any more")
}

func (g *governing) setsABudget(t *testing.T) {
	t.Helper()
	g.ada.Choose(t, "Budgets", ".side")
	g.ada.UntilSays(t, "h1", "Budgets")
	g.ada.Choose(t, "Set a budget", "main")
	g.ada.Write(t, "Name", "Analyst, monthly")
	g.ada.Fill(t, "#f-scope", g.agent)
	g.ada.Fill(t, "#f-limit", tight.Decimal())
	g.ada.Choose(t, "Set budget", "form")
	g.ada.UntilSays(t, "body", "binds from now on")
	g.ada.UntilSays(t, "main table", "Agent analyst")
}

func (g *governing) forbidsATool(t *testing.T) {
	t.Helper()
	g.ada.Choose(t, "Permissions", ".side")
	g.ada.UntilSays(t, "main", "There is no rule yet.")
	require.Equal(t, []string{"Allowed", "Allowed", "Allowed"}, g.ada.Texts(t, ".table-matrix .badge"))
	g.ada.Choose(t, "New rule", ".page-actions")
	g.ada.Fill(t, "#f-subject", g.agent)
	g.ada.Write(t, "Name of the tool or model", "bash")
	g.ada.Write(t, "Why", "Not before the audit.")
	g.ada.Choose(t, "Try on the last 7 days", "form")
	g.ada.UntilSays(t, "#simulation", "would have been another")
	g.ada.Choose(t, "Save rule", "form")
	g.ada.UntilSays(t, "main", "the tool bash")
	g.judge(t, g.ada.Tab, "permissions-rules")
}

// stopsAtTheBudget: the builder makes a key, and starts the session with it. Nothing but budgets and the balance bounds it.
func (g *governing) stopsAtTheBudget(t *testing.T) {
	t.Helper()
	g.grace.Choose(t, "Keys", ".side")
	g.grace.Choose(t, "New key", ".page-actions")
	g.grace.Write(t, "Name", "grace's laptop")
	g.grace.Choose(t, "Create key", "form")
	g.grace.UntilSays(t, "h1", "is made")
	g.key = &instance.Account{Instance: g.Instance, Key: g.grace.Text(t, "#secret")}
	var made struct {
		Session string `json:"session_id"`
	}
	require.Equal(t, http.StatusAccepted, g.key.Call(http.MethodPost, "/v1/invoke", map[string]any{
		"agent": g.agent, "title": "Without a shell", "input": workAround, "mode": "async",
	}, &made))
	g.session = made.Session

	g.grace.Visit(t, g.ada.path("sessions", g.session))
	g.grace.UntilSays(t, "#transcript", "Not before the audit.") // what the agent reads, and why
	g.grace.UntilSays(t, "#transcript", "total 913686900")       // it did without
	g.grace.UntilSays(t, "#session-head .badge", "Limit reached")
	g.grace.UntilSays(t, ".session-limit", "“Analyst, monthly”")
	require.NotContains(t, g.grace.Text(t, "#transcript .entry:last-child"), "without the shell", "it stopped before it could say so")
	g.judge(t, g.grace, "session-limit")
	g.givesTheSandboxBack(t)

	s := settled(t, g.key, g.session)
	require.Equal(t, "budget_reached", s.StopReason.Type)
	require.Positive(t, s.Cost.Charged)
	require.Zero(t, s.Cost.Held, "nothing stays held while it waits")
	// A price ceiling is held at once: one that the budget does not cover is refused before any work, and the answer says by how much.
	var refused struct {
		Shortfall money.Nanos `json:"shortfall"`
	}
	require.Equal(t, http.StatusPaymentRequired, g.key.Call(http.MethodPost, "/v1/invoke", map[string]any{
		"agent": g.agent, "input": "More.", "mode": "async", "limits": map[string]any{"max_cost": 50 * money.Cent},
	}, &refused))
	require.Equal(t, 50*money.Cent-(tight-s.Cost.Charged), refused.Shortfall)
}

// givesTheSandboxBack: the time of a sandbox is charged for as long as it lives, also while its session waits. Stopping what the agent does saves
// and ends it, and leaves the session as it is; from here on nothing is charged until it goes on.
func (g *governing) givesTheSandboxBack(t *testing.T) {
	t.Helper()
	require.Less(t, g.ada.Call(http.MethodPost, "/v1/agents/"+g.agent+"/stop", map[string]any{"reason": "give its sandbox back"}, nil), 300)
	require.Eventually(t, func() bool {
		var ended struct {
			Data []struct {
				Reason string `json:"reason"`
			} `json:"data"`
		}
		return g.key.Call(http.MethodGet, "/v1/sessions/"+g.session+"/events?types[]=sandbox.ended", nil, &ended) == http.StatusOK && len(ended.Data) == 1 && ended.Data[0].Reason == "released"
	}, patience, 100*time.Millisecond, "the sandbox is kept")
}

// explains: each of the two sees which rule decides, and what would be without it.
func (g *governing) explains(t *testing.T) {
	t.Helper()
	g.grace.Choose(t, "Permissions", ".side")
	g.grace.UntilSays(t, "main", "Denied")
	require.NotContains(t, g.grace.Text(t, "main"), "New rule", "who builds an agent does not widen what it may do")
	g.grace.Choose(t, "analyst, bash: Denied", "")
	g.grace.UntilSays(t, "#answer", "Not before the audit.")
	require.NotContains(t, g.grace.Text(t, "#answer"), g.agent, "people know an agent by its name")
	g.judge(t, g.grace, "permissions-explain")
	g.ada.Visit(t, g.ada.path("permissions", "rules"))
	g.ada.Choose(t, "the tool bash", "table")
	g.ada.Choose(t, "Try without it", "form")
	g.ada.UntilSays(t, "#simulation", "0 denied, 1 allowed")
	g.judge(t, g.ada.Tab, "permissions-rule")
}

// asksForTheWorst returns what the session has spent so far: what is left of the budget is the most that the agent can spend.
func (g *governing) asksForTheWorst(t *testing.T) money.Nanos {
	t.Helper()
	spent := settled(t, g.key, g.session).Cost.Charged
	g.ada.Visit(t, g.ada.path("permissions"))
	g.judge(t, g.ada.Tab, "permissions")
	g.ada.Choose(t, "At the worst… analyst", "")
	g.ada.UntilSays(t, "h1", "What could analyst do and spend at the worst, right now?")
	require.Equal(t, "Denied", g.ada.Text(t, `[data-part="bash"] .badge`))
	require.Equal(t, "Allowed", g.ada.Text(t, `[data-part="api.example.com"] .badge`))
	require.Equal(t, tight-spent, exact(t, g.ada.Tab, "#most .money"))
	require.Equal(t, tight-spent, exact(t, g.ada.Tab, "#session-most .money"))
	g.judge(t, g.ada.Tab, "agent-ambit")
	return spent
}

// goesOn: who builds does not raise what may be spent; the admin does, and the session ends its turn where it had stopped.
func (g *governing) goesOn(t *testing.T, spent money.Nanos) {
	t.Helper()
	g.grace.Visit(t, g.ada.path("sessions", g.session))
	g.grace.Choose(t, "Look at the budget “Analyst, monthly”", ".session-limit")
	g.grace.UntilSays(t, "h1", "Analyst, monthly")
	require.Equal(t, spent, exact(t, g.grace, ".figures .money"))
	require.NotContains(t, g.grace.Text(t, "main"), "Change budget", "a developer does not raise it")
	status, _ := fetch(t, g.grace, g.URL+g.grace.Path(t)+"/edit")
	require.Equal(t, http.StatusForbidden, status)

	g.ada.Visit(t, g.ada.path("sessions", g.session))
	g.ada.Click(t, ".session-limit a")
	g.ada.UntilSays(t, "h1", "Analyst, monthly")
	g.ada.Choose(t, "Change budget", ".page-actions")
	g.ada.UntilSays(t, "h1", "Change")
	g.ada.Fill(t, "#f-limit", "5.00")
	g.ada.Choose(t, "Save budget", "form")
	g.ada.UntilSays(t, "main", "$5.00")

	g.grace.Visit(t, g.ada.path("sessions", g.session))
	g.grace.Choose(t, "Resume", ".session-limit")
	g.grace.UntilSays(t, "#transcript", "The total is 913,686,900, without the shell.")
	g.grace.UntilSays(t, "#session-head .badge", "Completed")
	require.Equal(t, 1, strings.Count(strings.Join(g.grace.Texts(t, "#transcript .entry-tool"), "\n"), "total 913686900"), "what was done is not done again")
}

// agreesToTheNano reads the session's cost wherever it is shown. It is the only session of the organisation.
func (g *governing) agreesToTheNano(t *testing.T) {
	t.Helper()
	api := settled(t, g.key, g.session)
	require.Equal(t, "end_turn", api.StopReason.Type)
	charged := api.Cost.Charged
	g.grace.Until(t, `document.querySelector("#session-head .money").title.startsWith("`+charged.Decimal()+` USD")`)
	require.Equal(t, charged, exact(t, g.grace, "#session-head .money"))

	g.ada.Visit(t, g.ada.path("traces", g.session))
	waitForSpans(t, g.ada.Tab, 6)       // the agent, three model calls, the program and the sandbox's time; what was refused had no effect, and is none
	require.Eventually(t, func() bool { // spans arrive within two seconds
		g.ada.Reload(t)
		return exact(t, g.ada.Tab, ".trace-head .money") == charged
	}, patience, 500*time.Millisecond, "the trace never says %s", charged.Decimal())
	of := amounts(t, g.ada.Tab, ".wf-cost .money")
	require.Equal(t, charged, of[0], "the agent's span is the sum")
	require.Equal(t, charged, sum(of[1:]), "of the spans below it")

	g.ada.Visit(t, g.ada.path("usage"))
	require.Equal(t, charged, exact(t, g.ada.Tab, ".figures .money"), "the usage page")
	require.Equal(t, charged, exact(t, g.ada.Tab, "main table tbody .num .money"), "the agent's row")
	g.ada.Visit(t, g.ada.path("usage?by=key"))
	require.Contains(t, g.ada.Text(t, "main table"), "grace's laptop")
	require.Equal(t, charged, exact(t, g.ada.Tab, "main table tbody .num .money"), "the key's row")

	g.ada.Visit(t, g.ada.path("ledger?account=spent&session="+g.session))
	require.Equal(t, charged, exact(t, g.ada.Tab, ".figures > :nth-child(4) .money"), "the account of what was spent")
	require.Equal(t, charged, sum(amounts(t, g.ada.Tab, "main table tbody .money")), "the entries of the session")
	g.judge(t, g.ada.Tab, "ledger-session")

	g.ada.Visit(t, g.ada.path("budgets"))
	g.ada.Choose(t, "Analyst, monthly", "main")
	g.ada.UntilSays(t, "h1", "Analyst, monthly")
	require.Equal(t, charged, exact(t, g.ada.Tab, ".figures .money"), "the budget")
}

func (g *governing) looksAtRoles(t *testing.T) {
	t.Helper()
	g.ada.Choose(t, "Members", ".side")
	g.ada.Choose(t, "Roles", ".tabs")
	g.ada.UntilSays(t, "h1", "Roles")
	g.judge(t, g.ada.Tab, "roles")
	g.ada.Choose(t, "New role", ".page-actions")
	g.ada.UntilSays(t, "h1", "New role")
	g.judge(t, g.ada.Tab, "role-new")
}

// amounts reads all amounts that a selector finds, as they are to the nano-dollar.
func amounts(t *testing.T, tab *browser.Tab, selector string) []money.Nanos {
	t.Helper()
	var out []money.Nanos
	for _, title := range tab.Attributes(t, selector, "title") {
		amount, found := strings.CutSuffix(title, " USD")
		if !found {
			continue // a dash: no price applies
		}
		n, err := money.Parse(amount)
		require.NoError(t, err)
		out = append(out, n)
	}
	require.NotEmpty(t, out, "%s finds no amount", selector)
	return out
}

func sum(list []money.Nanos) (out money.Nanos) {
	for _, n := range list {
		out += n
	}
	return out
}
