package e2e

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/test/browser"
	"ambit.dev/ambit/test/instance"
)

// task makes the built-in model write a program, run it, and close with words. The pause lets a page open while the session is at work.
const task = "Count the widgets.\n\n" +
	"```write_file path=report/count.sh\necho \"widgets: $((6 * 7))\"\n```\n\n" +
	"```pause seconds=3\n```\n\n" +
	"```bash\nsh report/count.sh | tee report/total.txt\n```\n\n" +
	"```say\nThere are 42 widgets.\n```\n"

// firstDay goes the way of somebody new, by clicking alone: sign-up, key, agent, playground, session, trace.
func (s *stories) firstDay(t *testing.T) {
	tab := s.wide(t)
	tab.Visit(t, s.URL+"/")
	tab.Choose(t, "Start free", "main")
	tab.Write(t, "E-mail", "grace@example.test")
	tab.Write(t, "Name", "Grace Hopper")
	tab.Write(t, "Password", "nine small ships at sea")
	tab.Choose(t, "Create account", "form")
	tab.UntilSays(t, "h1", "Welcome to Ambit")
	require.Contains(t, tab.Text(t, ".topbar"), "Grace Hopper", "an organisation was made, named after her")
	require.Contains(t, tab.Text(t, "main"), "$5.00 of starter credit")

	secret := s.makeKey(t, tab)
	s.makeAgent(t, tab)
	s.runInPlayground(t, tab)
	s.lookAtSession(t, tab, secret)
	s.lookAtTrace(t, tab, secret)
	quiet(t, tab)
}

// makeKey makes a key, copies it, and requires that it is never shown again.
func (s *stories) makeKey(t *testing.T, tab *browser.Tab) string {
	t.Helper()
	tab.Choose(t, "New key", "main")
	tab.Write(t, "Name", "my laptop")
	tab.Choose(t, "Create key", "form")
	tab.UntilSays(t, "h1", "my laptop is made")
	secret := tab.Text(t, "#secret")
	require.Regexp(t, `^amb_[0-9A-Za-z]{40}$`, secret)
	require.Contains(t, tab.Text(t, "#curl"), secret, "the line can be pasted as it is")
	tab.Choose(t, "Copy the key", "main")
	tab.Until(t, `document.querySelector("[data-copied]")`)
	require.Equal(t, secret, tab.Clipboard(t))
	tab.Choose(t, "I have copied it", "main")
	tab.UntilSays(t, "main", "my laptop")
	require.Contains(t, tab.Text(t, "table"), secret[:8], "a key is recognised by its beginning")
	for _, path := range []string{tab.Path(t), tab.Path(t) + "?all=1"} {
		code, body := fetch(t, tab, s.URL+path)
		require.Equal(t, http.StatusOK, code)
		require.NotContains(t, body, secret, "a key is shown once")
	}
	return secret
}

func (s *stories) makeAgent(t *testing.T, tab *browser.Tab) {
	t.Helper()
	tab.Choose(t, "Agents", ".side")
	tab.Choose(t, "Make the first agent", "main")
	tab.Write(t, "Name", "counter")
	tab.Write(t, "Description", "Counts what is in stock.")
	require.Equal(t, "ambit/scripted", tab.Value(t, "#f-model"), "without a provider's key the built-in model is the one to choose")
	tab.Write(t, "System prompt", "Count carefully.\nSay how you counted.")
	for _, tool := range []string{"bash", "write_file", "read_file"} {
		tab.Click(t, `input[name=tools][value=`+tool+`]`)
	}
	tab.Choose(t, "Create agent", "form")
	tab.UntilSays(t, "h1", "counter")
	require.Contains(t, tab.Text(t, "main"), "Say how you counted.")
	require.Contains(t, tab.Text(t, "main"), "bash")
}

// runInPlayground runs the agent and sees its steps come, on a page that is loaded once.
func (s *stories) runInPlayground(t *testing.T, tab *browser.Tab) {
	t.Helper()
	tab.Choose(t, "Run in the playground", "main")
	tab.Write(t, "Task", task)
	tab.Write(t, "Price ceiling", "0.25")
	tab.Until(t, `document.querySelector("#playground-form button[type=submit]").innerText.includes("at most $0.25")`)
	tab.Choose(t, "Run, at most $0.25", "form")
	tab.Until(t, `document.querySelector("[data-live]")?.dataset.state === "live"`)
	loaded := tab.Loaded(t)
	require.NotContains(t, tab.Text(t, "#session-head"), "Completed", "the page opens while the session is at work")
	tab.UntilSays(t, "#transcript", "write_file")
	tab.UntilSays(t, "#transcript", "widgets: 42")
	tab.UntilSays(t, "#transcript", "There are 42 widgets.")
	tab.UntilSays(t, "#session-head .badge", "Completed")
	tab.UntilSays(t, "#session-head", "ceiling $0.25")
	require.Equal(t, loaded, tab.Loaded(t), "the steps came by themselves")
	require.Equal(t, 1, strings.Count(strings.Join(tab.Texts(t, "#transcript .entry-model"), "\n"), "There are 42 widgets."), "nothing is drawn twice")
}

// lookAtSession reads the session's page.
func (s *stories) lookAtSession(t *testing.T, tab *browser.Tab, secret string) {
	t.Helper()
	tab.Choose(t, "Session", "#session-head")
	tab.UntilSays(t, "#session-head h1", "Count the widgets.")
	head := tab.Text(t, "#session-head")
	require.Contains(t, head, "Completed")
	require.Contains(t, head, "Waits for the next message")
	require.Contains(t, head, "counter@1")
	require.Regexp(t, `[1-9]\d* steps`, head)
	require.Contains(t, head, "$0.0006 held", "of a session that has ended its turn, nothing but its sandbox's time")

	tab.Choose(t, "Files", "#inspector")
	tab.Choose(t, "report", "#inspector")
	tab.UntilSays(t, "#inspector", "count.sh")
	require.Contains(t, tab.Text(t, "#inspector"), "total.txt")
	tab.Click(t, `#inspector a[href*="total.txt"]:not([download])`)
	tab.UntilSays(t, "#inspector .code", "widgets: 42")
	require.Contains(t, tab.Path(t), "tab=files", "the address leads back to the file")

	tab.Choose(t, "Cost", "#inspector")
	tab.UntilSays(t, "#inspector", "Charged")
	require.Contains(t, tab.Text(t, "#inspector"), "model call, ambit/scripted")
	require.Contains(t, tab.Text(t, "#inspector"), "captured")

	id := regexp.MustCompile(`ses_[0-9a-z]{26}`).FindString(tab.Path(t))
	a := &instance.Account{Instance: s.Instance, Key: secret}
	require.Eventually(t, func() bool { // the sandbox's time is charged while one looks: then one looks again
		tab.Reload(t)
		tab.Choose(t, "Cost", "#inspector")
		tab.UntilSays(t, "#inspector", "Charged")
		charged := exact(t, tab, "#inspector .sums .sum .money")
		return charged > 0 && charged == exact(t, tab, "#session-head .money") && charged == settled(t, a, id).Cost.Charged
	}, patience, 100*time.Millisecond, "the head and the API, with the key that was just made, say the same")
	require.Zero(t, settled(t, a, id).Cost.Held, "its ceiling holds nothing")
}

// lookAtTrace opens every span and adds up what they cost. The sandbox's time is charged while one looks: then one looks again.
func (s *stories) lookAtTrace(t *testing.T, tab *browser.Tab, secret string) {
	t.Helper()
	tab.Choose(t, "Trace", "#session-head")
	tab.UntilSays(t, ".trace-head h1", "Count the widgets.")
	id := regexp.MustCompile(`ses_[0-9a-z]{26}`).FindString(tab.Path(t))
	a := &instance.Account{Instance: s.Instance, Key: secret}
	require.Eventually(t, func() bool {
		tab.Reload(t)
		sum := s.addUpTrace(t, tab)
		return sum == exact(t, tab, ".trace-head .money") && sum == settled(t, a, id).Cost.Charged
	}, 2*patience, 100*time.Millisecond, "the spans' costs are the session's, to the nano-dollar")
}

func (s *stories) addUpTrace(t *testing.T, tab *browser.Tab) (sum money.Nanos) {
	t.Helper()
	spans := waitForSpans(t, tab, 6) // the agent, three model calls, two tools
	var names string
	for _, span := range spans {
		names += span.text + "\n"
	}
	require.Contains(t, names, "chat")
	require.Contains(t, names, "write_file")
	require.Contains(t, names, "bash")

	var all money.Nanos
	chats, tools := 0, 0
	for n, span := range spans {
		tab.Click(t, "#span-"+span.id)
		tab.UntilSays(t, "#inspector .kv", span.id)
		text := tab.Text(t, "#inspector")
		require.Contains(t, text, "Took")
		if n == 0 {
			all = factOf(t, tab, "Cost of its steps")
			continue
		}
		cost := factOf(t, tab, "Cost")
		sum += cost
		if strings.Contains(span.text, "sandbox") {
			require.Contains(t, text, "Ledger entry")
			continue
		}
		require.Contains(t, text, "Input")
		require.Contains(t, text, "Output")
		if strings.Contains(span.text, "chat") {
			chats++
			require.Regexp(t, `[1-9]\d* in`, text, "a model call counts tokens")
			require.Contains(t, text, "Ledger entry")
			require.Positive(t, cost)
			continue
		}
		tools++
		if strings.Contains(span.text, "bash") {
			require.Contains(t, text, "widgets: 42")
			require.Contains(t, text, "report/count.sh")
		}
	}
	require.GreaterOrEqual(t, chats, 3)
	require.GreaterOrEqual(t, tools, 2)
	require.Equal(t, all, sum, "what the root says of its steps")
	return sum
}

// spanRow is a row of the waterfall.
type spanRow struct{ id, text string }

// waitForSpans asks the trace's page again until it has as many spans, which takes two seconds at most, and reads its rows.
func waitForSpans(t *testing.T, tab *browser.Tab, n int) []spanRow {
	t.Helper()
	require.Eventually(t, func() bool {
		if len(tab.Texts(t, ".wf-row")) >= n {
			return true
		}
		tab.Reload(t)
		return false
	}, patience, 300*time.Millisecond, "the trace stays incomplete")
	var rows []spanRow
	ids := tab.Attributes(t, ".wf-row", "id")
	for i, text := range tab.Texts(t, ".wf-row") {
		rows = append(rows, spanRow{id: strings.TrimPrefix(ids[i], "span-"), text: text})
	}
	return rows
}

// factOf reads an amount from the inspector's list of facts.
func factOf(t *testing.T, tab *browser.Tab, term string) money.Nanos {
	t.Helper()
	terms := tab.Texts(t, "#inspector .kv:first-of-type dt")
	at := slices.Index(terms, term)
	require.NotEqual(t, -1, at, "%q is not among %v", term, terms)
	return exact(t, tab, "#inspector .kv:first-of-type dd:nth-of-type("+strconv.Itoa(at+1)+") .money")
}
