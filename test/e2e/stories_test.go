package e2e

import (
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/test/browser"
	"ambit.dev/ambit/test/instance"
)

// patience bounds a wait: a session with a microVM takes seconds, on a machine that is busy with other tests many.
const patience = 2 * time.Minute

// stories share one instance and one browser; each opens tabs of its own, with their own cookies.
type stories struct {
	*instance.Instance

	browser *browser.Browser
}

// TestStories goes each way through one instance. A story stands on nothing that another one leaves.
func TestStories(t *testing.T) {
	browser.KeepPicturesIn("../screens")
	s := &stories{Instance: instance.Start(t), browser: browser.Start(t)}
	for _, story := range []struct {
		name string
		tell func(*testing.T)
	}{
		{"a first day", s.firstDay},
		{"a stranger sees nothing", s.stranger},
		{"interrupt and kill", s.interruptAndKill},
		{"sign-ins", s.signIns},
		{"the pasted line", s.pastedLine},
		{"by keyboard alone", s.keyboard},
		{"every page", s.everyPage},
	} {
		t.Run(story.name, story.tell)
	}
}

// person is an account with a tab in which it is signed in.
type person struct {
	*instance.Account
	*browser.Tab

	s *stories
}

// person makes an account and signs it in, by the form.
func (s *stories) person(t *testing.T, name string) *person {
	t.Helper()
	p := &person{Account: s.Account(name), Tab: s.wide(t), s: s}
	s.enter(t, p.Tab, p.Email, p.Password)
	p.UntilSays(t, "h1", "Overview")
	return p
}

// newcomer signs somebody up by the form, and returns the address of the project that was made.
func (s *stories) newcomer(t *testing.T, email string) (tab *browser.Tab, home string) {
	t.Helper()
	tab = s.wide(t)
	tab.Visit(t, s.URL+"/sign-up")
	tab.Write(t, "E-mail", email)
	tab.Write(t, "Password", "quiet rivers under old stones")
	tab.Choose(t, "Create account", "form")
	tab.UntilSays(t, "h1", "Welcome to Ambit")
	path, _, _ := strings.Cut(tab.Path(t), "?")
	return tab, s.URL + path
}

// wide opens a tab on a wide screen.
func (s *stories) wide(t *testing.T) *browser.Tab {
	t.Helper()
	tab := s.browser.Open(t)
	tab.See(t, browser.AllLooks[0])
	return tab
}

// enter signs in.
func (s *stories) enter(t *testing.T, tab *browser.Tab, email, password string) {
	t.Helper()
	tab.Visit(t, s.URL+"/sign-in")
	tab.Write(t, "E-mail", email)
	tab.Write(t, "Password", password)
	tab.Choose(t, "Sign in", "form")
}

// place is the path of the account's project, path an address within it.
func (p *person) place() string { return "/o/" + p.OrgSlug + "/p/" + p.ProjectSlug }

func (p *person) path(parts ...string) string {
	return p.URL + p.place() + strings.Join(append([]string{""}, parts...), "/")
}

// work is what an account has done: an agent and a session of it that has ended its turn.
type work struct {
	Agent, Session, Key string
}

// script writes a file and works with it in the microVM.
const script = "Total the third quarter's sales by region, and say which file you used.\n\n" +
	"```write_file path=data/q3.csv\nday,region,units,amount\n2026-07-02,north,120,24105.00\n2026-07-19,west,96,18240.50\n2026-08-11,south,88,15004.25\n" +
	"2026-08-30,north,121,24104.75\n2026-09-14,west,71,13636.00\n2026-09-28,south,82,13999.50\n```\n\n" +
	"```python\nimport csv, collections\ntotals = collections.Counter()\nfor row in csv.DictReader(open(\"data/q3.csv\")):\n" +
	"    totals[row[\"region\"]] += float(row[\"amount\"])\nfor region, total in totals.most_common():\n    print(f\"{total:10,.2f}  {region}\")\n```\n\n" +
	"```say\nNorth sold most: **48,209.75**, half again as much as West. The figures are from `data/q3.csv`.\n```\n"

// works gives an account an agent, a session with files and a trace, and a second key, through the API.
func works(t *testing.T, a *instance.Account) work {
	t.Helper()
	var agent, key struct {
		ID string `json:"id"`
	}
	require.Equal(t, http.StatusCreated, a.Call(http.MethodPost, "/v1/agents", map[string]any{
		"name": "analyst", "description": "Answers questions about the figures in /data.", "model": "ambit/scripted",
		"system": "You are a careful analyst.\nSay which file a figure comes from.", "tools": []string{"bash", "python", "write_file", "read_file"},
	}, &agent))
	require.Equal(t, http.StatusCreated, a.Call(http.MethodPost, "/v1/api_keys", map[string]any{"name": "nightly report", "scopes": []string{"sessions:read"}}, &key))
	w := work{Agent: agent.ID, Key: key.ID, Session: invoke(t, a, agent.ID, "Third quarter's sales by region", script)}
	require.Equal(t, "end_turn", settled(t, a, w.Session).StopReason.Type)
	return w
}

type session struct {
	ID         string `json:"id"`
	Status     string `json:"status"`
	StopReason struct {
		Type string `json:"type"`
	} `json:"stop_reason"`
	Cost struct {
		Charged money.Nanos `json:"charged"`
		Held    money.Nanos `json:"held"`
	} `json:"cost"`
}

// invoke starts a session and does not wait for it.
func invoke(t *testing.T, a *instance.Account, agent, title, input string) string {
	t.Helper()
	var made struct {
		Session string `json:"session_id"`
	}
	require.Equal(t, http.StatusAccepted, a.Call(http.MethodPost, "/v1/invoke", map[string]any{
		"agent": agent, "title": title, "input": input, "mode": "async", "limits": map[string]any{"max_cost": map[string]string{"amount": "0.50", "currency": "USD"}},
	}, &made))
	return made.Session
}

// settled waits until the session is at rest and nothing is held for it any more.
func settled(t *testing.T, a *instance.Account, id string) session {
	t.Helper()
	var s session
	require.Eventually(t, func() bool {
		require.Equal(t, http.StatusOK, a.Call(http.MethodGet, "/v1/sessions/"+id, nil, &s))
		return s.Status == "idle" || s.Status == "terminated"
	}, patience, 200*time.Millisecond, "session %s is not at rest", id)
	return s
}

// fetch requests an address with a tab's cookies, and answers with the status and the body as they came over the wire.
func fetch(t *testing.T, tab *browser.Tab, address string) (int, string) {
	t.Helper()
	return send(t, tab, http.MethodGet, address)
}

func send(t *testing.T, tab *browser.Tab, method, address string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, http.NoBody)
	require.NoError(t, err)
	for name, value := range tab.Cookies(t) {
		req.AddCookie(&http.Cookie{Name: name, Value: value})
	}
	client := &http.Client{CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	resp, err := client.Do(req)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

// exact reads an amount of money as it is on the page, to the nano-dollar.
func exact(t *testing.T, tab *browser.Tab, selector string) money.Nanos {
	t.Helper()
	title := tab.Attribute(t, selector, "title")
	amount, _, _ := strings.Cut(title, " USD")
	n, err := money.Parse(amount)
	require.NoError(t, err, "%s has no exact amount: %q", selector, title)
	return n
}

// quiet requires that no script failed and nothing broke the content security policy.
func quiet(t *testing.T, tab *browser.Tab) {
	t.Helper()
	require.Empty(t, tab.Noted())
}
