package console_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/test/browser"
)

// TestFirstFiveMinutes goes the way of somebody new, by clicking: sign-up, key, agent, a new version, playground, session, trace.
func TestFirstFiveMinutes(t *testing.T) {
	w := newWorld(t)
	tab := browser.Start(t).Open(t)
	tab.See(t, browser.AllLooks[0])

	tab.Visit(t, w.URL+"/")
	tab.Click(t, `a[href="/sign-up"]`)
	tab.Until(t, `document.querySelector("#f-email")`)
	tab.Type(t, "#f-email", "grace@example.com")
	tab.Type(t, "#f-password", "short")
	tab.Press(t, "\r")
	tab.Until(t, `location.pathname === "/sign-up"`)
	tab.Type(t, "#f-password", password)
	tab.Click(t, `form[action="/sign-up"] button[type=submit]`)
	tab.Until(t, `document.querySelector("h1")?.innerText === "Welcome to Ambit"`)
	home := strings.SplitN(tab.Path(t), "?", 2)[0]
	require.Contains(t, tab.Text(t, ".figures"), "$5.00", "starter credit")

	tab.Visit(t, w.URL+home+"/keys/new")
	tab.Type(t, "#f-name", "laptop")
	tab.Click(t, ".form-foot button[type=submit]")
	tab.Until(t, `document.querySelector("#secret")`)
	secret := tab.Text(t, "#secret")
	require.Regexp(t, `^amb_[0-9A-Za-z]{40}$`, secret)
	require.Contains(t, tab.Text(t, "#curl"), secret, "the curl line holds the key and can be pasted")
	key, err := w.tenants.AuthenticateKey(t.Context(), secret)
	require.NoError(t, err)
	require.Equal(t, "laptop", key.Name)
	tab.Visit(t, w.URL+home+"/keys")
	require.NotContains(t, tab.Text(t, "body"), secret, "shown once")

	tab.Visit(t, w.URL+home+"/agents/new")
	tab.Type(t, "#f-name", "greeter")
	tab.Type(t, "#f-system", "Greet.")
	tab.Fill(t, "#f-max_cost", "25,00")
	tab.Click(t, ".form-foot button[type=submit]")
	tab.Until(t, `document.querySelector("#f-max_cost-error")`)
	require.Contains(t, tab.Text(t, ".form-summary"), "such as 0.50")
	tab.Fill(t, "#f-max_cost", "0.50")
	tab.Click(t, ".form-foot button[type=submit]")
	tab.Until(t, `document.querySelector("h1")?.innerText === "greeter"`)
	tab.Click(t, `a[href$="/edit"]`)
	tab.Until(t, `document.querySelector("#f-system")`)
	tab.Type(t, "#f-system", " Be brief.")
	tab.Click(t, `button[value=review]`)
	tab.Until(t, `document.querySelector(".diff")`)
	tab.Click(t, `button[value=publish]`)
	tab.Until(t, `document.querySelector(".page-head")?.innerText.includes("version 2")`)

	tab.Click(t, `a[href*="/playground?agent="]`)
	tab.Until(t, `document.querySelector("#f-input")`)
	tab.Fill(t, "#f-input", "Greet the world.\n\n```say\nHello, world.\n```\n")
	tab.Click(t, "#playground-form button[type=submit]")
	tab.Until(t, `document.querySelector("#transcript")?.innerText.includes("Hello, world.")`)
	tab.Until(t, `document.querySelector("#session-head")?.innerText.includes("Completed")`)

	tab.Click(t, `#session-head a[href*="/sessions/"]`)
	tab.Until(t, `document.querySelector(".session")`)
	tab.Click(t, `#transcript .entry-model a[data-pick]`)
	tab.Until(t, `document.querySelector("#inspector")?.innerText.includes("Effect key") && location.search.includes("step=")`)
	tab.Type(t, ".composer textarea", "Again.\n\n```say\nStill here.\n```")
	tab.Click(t, ".composer button[type=submit]")
	tab.Until(t, `document.querySelector("#transcript")?.innerText.includes("Still here.")`)
	tab.Until(t, `document.querySelector(".composer textarea").value === ""`)

	tab.Click(t, `.session-title a[href*="/traces/"]`)
	tab.Until(t, `document.querySelector(".trace")`)
	for range 50 { // spans arrive within two seconds; the page is asked again until then
		if strings.Contains(tab.Text(t, "main"), "chat") {
			break
		}
		tab.Visit(t, w.URL+tab.Path(t))
	}
	tab.Click(t, ".wf-row + .wf-row")
	tab.Until(t, `document.querySelector("#inspector")?.innerText.includes("Cost")`)
	require.Contains(t, tab.Text(t, "#inspector"), "Input")
	require.Empty(t, tab.Noted(), "no script failed and nothing broke the policy")
}

// TestSessionPageFollowsItsSession appends to a journal what a worker would, and watches the page that shows it.
func TestSessionPageFollowsItsSession(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	agent := w.agent(t, ada, "analyst", "Be careful.")
	sid := w.recorded(t, ada, agent)
	tab := browser.Start(t).Open(t)
	tab.See(t, browser.AllLooks[0])
	signIn(t, w, tab, ada)
	tab.Visit(t, w.URL+ada.path+"/sessions/"+string(sid))
	tab.Until(t, `document.querySelector("[data-live]")?.dataset.state === "live"`)
	tab.Type(t, ".composer textarea", "half a thought")

	before := tab.Text(t, "#session-facts")
	open := stepsOf(t, w, ada, sid)
	step := open[len(open)-1].ID
	use := journal.AgentToolUse{ToolUseID: "u9", Name: "bash", Input: json.RawMessage(`{"command":"echo streamed"}`)}
	w.append(t, ada, sid,
		journal.Entry{Step: step, Payload: journal.AgentMessage{Content: journal.Text("It is <script>alert(1)</script> & done.\r\nSecond line.")}},
		journal.Entry{Step: step, Payload: use},
		journal.Entry{Step: step, Payload: journal.StepSettled{Kind: journal.KindModelCall, Name: "ambit/scripted", Outcome: journal.Succeeded, Cost: 1_000_000, Usage: journal.Usage{InputTokens: 71, OutputTokens: 3}}})
	tab.Until(t, `document.querySelector("#transcript").innerText.includes("<script>alert(1)</script> & done.")`)
	require.Contains(t, tab.Text(t, "#transcript"), "Second line.")
	tool := id.New[id.Step]()
	w.append(t, ada, sid, journal.Entry{Step: tool, Payload: journal.StepIntended{Kind: journal.KindToolCall, Name: "bash", EffectKey: string(tool), ToolUseID: "u9", Attempt: 1}})
	tab.Until(t, `document.querySelector("#transcript").innerText.includes("echo streamed")`)
	w.append(t, ada, sid,
		journal.Entry{Step: tool, Payload: journal.AgentToolResult{ToolUseID: "u9", Content: journal.Text("streamed")}},
		journal.Entry{Step: tool, Payload: journal.StepSettled{Kind: journal.KindToolCall, Name: "bash", Outcome: journal.Succeeded}},
		journal.Of(journal.StatusIdle{StopReason: journal.StopReason{Type: journal.StopEndTurn}}))
	tab.Until(t, `document.querySelector("#session-head .badge").innerText.includes("Completed")`)
	tab.UntilSays(t, "#session-facts", "out") // what is known of the session is not as it was when the page was opened
	require.NotEqual(t, before, tab.Text(t, "#session-facts"))
	require.Equal(t, "half a thought", tab.Value(t, ".composer textarea"), "a patch leaves what one types alone")
	require.Equal(t, 1, strings.Count(tab.Text(t, "#transcript"), "echo streamed"), "patched in place, not drawn twice")

	// Paused, nothing comes; resumed, all that was missed comes once.
	tab.Click(t, "[data-live]")
	tab.Until(t, `document.querySelector("[data-live]").dataset.state === "paused"`)
	w.append(t, ada, sid, journal.Of(journal.UserMessage{Content: journal.Text("while you were away"), By: journal.Actor{Kind: "user", ID: string(ada.User.ID)}}))
	tab.Click(t, "[data-live]")
	tab.Until(t, `document.querySelector("#transcript").innerText.includes("while you were away")`)
	require.Equal(t, 1, strings.Count(tab.Text(t, "#transcript"), "while you were away"))

	tab.Click(t, `[data-open="kill-dialog"]`)
	tab.Until(t, `document.querySelector("#kill-dialog").open`)
	tab.Type(t, "#f-reason", "enough")
	tab.Click(t, `#kill-dialog button[type=submit]`)
	tab.Until(t, `document.querySelector("#kill-dialog").innerText.includes("Receipt")`)
	tab.Until(t, `document.querySelector("#session-head .badge").innerText.includes("Stopped")`)
	tab.Until(t, `document.querySelector("[data-live]").dataset.state === "ended"`)
	tab.Until(t, `document.querySelector("#composer").innerText.includes("has ended")`)
	require.Empty(t, tab.Noted(), "no script failed and nothing broke the policy")
}

func stepsOf(t testing.TB, w *world, a account, sid id.Session) []journal.Step {
	t.Helper()
	steps, err := w.sessions.Steps(t.Context(), a.Organization.ID, sid, 0, 100)
	require.NoError(t, err)
	return steps
}

func TestTheRawJournalOpensAnEventOnDemand(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	sid := w.recorded(t, ada, w.agent(t, ada, "analyst", ""))
	tab := browser.Start(t).Open(t)
	tab.See(t, browser.AllLooks[0])
	signIn(t, w, tab, ada)
	tab.Visit(t, w.URL+ada.path+"/sessions/"+string(sid)+"?view=journal")
	tab.Click(t, "#j2 summary")
	tab.Until(t, `document.querySelector("#j2 .json")?.innerText.includes("user.message")`)
	w.append(t, ada, sid, journal.Of(journal.UserMessage{Content: journal.Text("one more")}))
	tab.Until(t, `[...document.querySelectorAll("#journal > details")].some(d => d.innerText.includes("one more"))`)
	require.Empty(t, tab.Noted())
}
