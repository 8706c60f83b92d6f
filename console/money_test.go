package console_test

import (
	"context"
	"encoding/csv"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/test/browser"
)

func (w *world) budget(t testing.TB, a account, in billing.NewBudget) (b billing.Budget) {
	t.Helper()
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) (err error) {
		b, err = billing.CreateBudget(a.ctx(t), tx, time.Now(), a.Organization.ID, in)
		return err
	}))
	return b
}

// spend is one settled effect of a session, at a time.
func (w *world) spend(t testing.TB, a account, session id.Session, kind, name string, amount money.Nanos, at time.Time) {
	t.Helper()
	step := id.New[id.Step]()
	w.append(t, a, session, journal.Entry{Step: step, Payload: journal.StepIntended{Kind: kind, Name: name, EffectKey: string(step)}})
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) error {
		hold, short, err := billing.Place(a.ctx(t), tx, at, a.Organization.ID, billing.HoldRequest{Session: session, Step: step, Amount: amount + amount/3, Expires: time.Now().Add(time.Hour)})
		if err != nil {
			return err
		}
		require.Nil(t, short)
		_, err = billing.Settle(a.ctx(t), tx, at, a.Organization.ID, hold, amount)
		return err
	}))
}

// month spends for a month: on eight agents, two models and three tools, unevenly, as people do.
func (w *world) month(t testing.TB, a account, first agents.Agent) id.Session {
	t.Helper()
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) error {
		_, err := billing.Grant(a.ctx(t), tx, time.Now(), a.Organization.ID, 2000*money.Dollar, "invoice 2026-117")
		return err
	}))
	sessions := []id.Session{w.recorded(t, a, first)}
	for _, name := range []string{"reviewer of pull requests in the repositories of the platform team", "crawler", "translator", "night watch", "summariser", "planner", "tester"} {
		sessions = append(sessions, w.recorded(t, a, w.agent(t, a, name, "")))
	}
	now := time.Now()
	for i := range 60 {
		s := sessions[(i*i+i/7)%len(sessions)]
		at := now.Add(-time.Duration(i*11) * time.Hour)
		amount := money.Nanos((i*7919)%97+3) * 91_234_567 / 4
		switch i % 5 {
		case 0:
			w.spend(t, a, s, journal.KindToolCall, []string{"bash", "http_request", "read_file"}[i%3], amount/50, at)
		case 1:
			w.spend(t, a, s, journal.KindModelCall, "ambit/scripted", amount, at)
		default:
			w.spend(t, a, s, journal.KindModelCall, "openai/gpt-large-with-a-long-name-2026-10-01", amount, at)
		}
	}
	return sessions[0]
}

func TestPagesOfMoneyHoldInEveryLook(t *testing.T) {
	w := newWorld(t)
	ada, fresh := w.account(t, "ada@example.com", "Ada Byron"), w.account(t, "new@example.com", "")
	agent := w.agent(t, ada, "analyst", "")
	first := w.month(t, ada, agent)
	org := billing.Scope{Type: billing.ScopeOrganization}
	monthly := w.budget(t, ada, billing.NewBudget{Name: "All of us, monthly", Scope: org, Limit: 60 * money.Dollar, Period: "month", Action: billing.Block, Alerts: []int32{10, 50, 80, 100}})
	w.budget(t, ada, billing.NewBudget{Name: "Analyst", Scope: billing.Scope{Type: billing.ScopeAgent, ID: string(agent.ID)}, Limit: 3 * money.Dollar, Period: "week", Action: billing.Warn, Alerts: []int32{100}})
	w.budget(t, ada, billing.NewBudget{Name: "Never again: the night watch and what it calls in a night", Scope: billing.Scope{Type: billing.ScopeSession, ID: string(first)}, Limit: 0, Period: "total", Action: billing.Warn})
	w.spend(t, ada, first, journal.KindModelCall, "ambit/scripted", 3*money.Dollar+1, time.Now())
	stopped, _ := w.stoppedByABudget(t, ada)

	b := browser.Start(t)
	tab := b.Open(t)
	signIn(t, w, tab, ada)
	p := ada.path
	for _, one := range []struct{ name, path string }{
		{"budgets", p + "/budgets"},
		{"budget", p + "/budgets/" + string(monthly.ID)},
		{"budget-new", p + "/budgets/new"},
		{"budget-edit", p + "/budgets/" + string(monthly.ID) + "/edit"},
		{"budget-delete", p + "/budgets/" + string(monthly.ID) + "?delete=1"},
		{"usage", p + "/usage"},
		{"usage-lines", p + "/usage?by=model&chart=lines&since=90d"},
		{"usage-hours", p + "/usage?by=tool&since=24h&project=all"},
		{"usage-filtered", p + "/usage?by=model&agent=" + string(agent.ID)},
		{"usage-none", p + "/usage?model=nothing"},
		{"ledger", p + "/ledger"},
		{"ledger-account", p + "/ledger?account=available"},
		{"ledger-none", p + "/ledger?session=ses_x"},
		{"session-budget", p + "/sessions/" + string(stopped)},
	} {
		t.Run(one.name, func(t *testing.T) { judge(t, w, tab, one.name, one.path) })
	}
	newcomer := b.Open(t)
	signIn(t, w, newcomer, fresh)
	for _, name := range []string{"budgets", "usage", "ledger"} {
		t.Run("empty-"+name, func(t *testing.T) { judge(t, w, newcomer, "empty-"+name, fresh.path+"/"+name) })
	}
}

// stoppedByABudget is a session whose first model call is more than its agent's budget has left.
func (w *world) stoppedByABudget(t testing.TB, a account) (id.Session, billing.Budget) {
	t.Helper()
	var out scheduler.Invoked
	var budget billing.Budget
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) error {
		agent, err := w.agents.Create(a.ctx(t), tx, a.Organization.ID, agents.CreateInput{Project: a.Project.ID, Name: "narrow", Definition: journal.Definition{Model: "ambit/scripted"}})
		if err != nil {
			return err
		}
		budget, err = billing.CreateBudget(a.ctx(t), tx, time.Now(), a.Organization.ID, billing.NewBudget{
			Name: "Tight", Scope: billing.Scope{Type: billing.ScopeAgent, ID: string(agent.ID)}, Limit: 100_000, Period: "total", Action: billing.Block,
		})
		if err != nil {
			return err
		}
		out, err = w.sessions.Invoke(a.ctx(t), tx, a.Organization.ID, scheduler.InvokeInput{
			Project: a.Project.ID, Agent: &agents.Ref{Agent: agent.ID, Version: 1}, Input: journal.Text(sayHello), Title: "Work within a narrow budget",
		})
		return err
	}))
	ctx, cancel := context.WithTimeout(t.Context(), waitFor)
	defer cancel()
	s, err := w.sessions.WaitUntilIdle(ctx, a.Organization.ID, out.Session.ID, out.Input.Seq)
	require.NoError(t, err)
	require.Equal(t, journal.StopBudgetReached, s.StopReason.Type)
	return s.ID, budget
}

func TestABudgetIsSetChangedAndDeletedInTheConsole(t *testing.T) {
	w := newWorld(t)
	ada, eve := w.account(t, "ada@example.com", "Ada"), w.account(t, "eve@example.com", "Eve")
	theirs := w.agent(t, eve, "theirs", "")
	agent := w.agent(t, ada, "analyst", "")
	c := w.client(t, &ada)
	good := url.Values{"name": {"Analyst's week"}, "scope": {string(agent.ID)}, "limit": {"25"}, "period": {"week"}, "action": {"block"}, "alerts": {"50 80%, 100"}}
	for field, bad := range map[string][]string{
		"name":   {"", "   ", strings.Repeat("x", 81)},
		"limit":  {"", "-1", "-1.00", "1.0000000001", "9999999999", "1e9", "NaN", "25,00", "9999999999999.00"},
		"alerts": {"0", "-5", "abc", "1001", "99999999999", "1,2,3,4,5,6,7,8,9,10,11", "50.5"},
		"period": {"", "year"},
		"action": {"", "ask"},
		"scope":  {"", "x", string(theirs.ID), string(id.New[id.Agent]()), string(eve.Organization.ID)},
	} {
		for _, value := range bad {
			form := url.Values{}
			for k, v := range good {
				form[k] = v
			}
			form.Set(field, value)
			status, body := post(t, c, w.URL+ada.path+"/budgets/new", form)
			require.Equal(t, 422, status, "%s=%q", field, value)
			require.Contains(t, body, `href="#f-`+field+`"`, "%s=%q", field, value)
			require.True(t, field == "period" || strings.Contains(body, `value="week" selected`), "what was typed is kept")
		}
	}
	status, body := post(t, c, w.URL+ada.path+"/budgets/new", good)
	require.Equal(t, 200, status)
	require.Contains(t, body, "is set, and binds from now on")
	require.Contains(t, body, "Agent analyst")
	require.Contains(t, body, "$25.00")
	var made []billing.Budget
	require.NoError(t, w.db.InTx(t.Context(), ada.Organization.ID, func(tx pgx.Tx) (err error) {
		made, err = billing.ListBudgets(t.Context(), tx, ada.Organization.ID, "", "", 10)
		return err
	}))
	require.Len(t, made, 1)
	require.Equal(t, []int32{50, 80, 100}, made[0].Alerts)
	at := w.URL + ada.path + "/budgets/" + string(made[0].ID)

	_, body = get(t, c, at+"/edit")
	require.Contains(t, body, `value="25.00"`)
	status, body = post(t, c, at+"/edit", url.Values{"name": {"Analyst's week"}, "limit": {"30.5"}, "action": {"warn"}, "alerts": {""}, "version": {"1"}})
	require.Equal(t, 200, status)
	require.Contains(t, body, "$30.50")
	status, body = post(t, c, at+"/edit", url.Values{"name": {"x"}, "limit": {"1"}, "action": {"warn"}, "version": {"1"}})
	require.Equal(t, 422, status, "somebody else changed it meanwhile")
	require.Contains(t, body, "has changed since you read it")
	status, body = post(t, c, at+"/delete", nil)
	require.Equal(t, 200, status)
	require.Contains(t, body, "No budgets yet")
	status, body = get(t, c, at)
	require.Equal(t, 200, status)
	require.Contains(t, body, "binds and counts no more")
	for _, path := range []string{"/edit"} {
		status, _ = get(t, c, at+path)
		require.Equal(t, 404, status)
	}
	status, _ = post(t, c, at+"/delete", nil)
	require.Equal(t, 404, status)
	resp, err := c.Get(w.URL + "/x/" + string(made[0].ID))
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	require.Equal(t, ada.path+"/budgets/"+string(made[0].ID), resp.Request.URL.Path, "a mail's link leads here")
}

func TestTheZoneIsChangedInTheSettings(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	c := w.client(t, &ada)
	at := w.URL + ada.path + "/settings/organisation"
	status, body := post(t, c, at, url.Values{"name": {"Ada"}, "time_zone": {"Mars/Olympus"}, "version": {"1"}})
	require.Equal(t, 422, status)
	require.Contains(t, body, `There is no time zone &#34;Mars/Olympus&#34;`)
	require.Contains(t, body, `value="Mars/Olympus"`)
	status, body = post(t, c, at, url.Values{"name": {"Ada"}, "time_zone": {"Asia/Kolkata"}, "version": {"1"}})
	require.Equal(t, 200, status)
	require.Contains(t, body, `value="Asia/Kolkata"`)
	_, body = get(t, c, w.URL+ada.path+"/usage")
	require.NotContains(t, body, "Mars")
}

func TestThePageAndTheTableShowTheSameCents(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	session := w.recorded(t, ada, w.agent(t, ada, "analyst", ""))
	w.spend(t, ada, session, journal.KindModelCall, "ambit/scripted", 1_281_001, time.Now())
	w.spend(t, ada, session, journal.KindToolCall, "bash", 12_000, time.Now())
	c := w.client(t, &ada)
	_, body := get(t, c, w.URL+ada.path+"/usage?by=tool")
	require.Contains(t, body, `title="0.001293001 USD"`)
	require.Contains(t, body, `title="0.000012 USD"`)
	resp, err := c.Get(w.URL + ada.path + "/usage/csv?by=tool")
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // read to its end
	require.Equal(t, "text/csv; charset=utf-8", resp.Header.Get("Content-Type"))
	raw, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	lines, err := csv.NewReader(strings.NewReader(string(raw))).ReadAll()
	require.NoError(t, err)
	require.Equal(t, [][]string{{"day", "tool", "spent_usd", "effects"}, {lines[1][0], "", "0.001281001", "1"}, {lines[1][0], "bash", "0.000012", "1"}}, lines)
	_, body = get(t, c, w.URL+ada.path+"/ledger?account=spent")
	require.Contains(t, body, `title="0.001281001 USD"`)
	require.Contains(t, body, `title="0.001293001 USD"`, "the account's balance")
	_, body = get(t, c, w.URL+ada.path+"/sessions/"+string(session)+"?tab=cost")
	require.Contains(t, body, `title="0.001281001 USD"`)
	require.NotContains(t, body, "Unsettled")
	require.NoError(t, w.db.InTx(ada.ctx(t), ada.Organization.ID, func(tx pgx.Tx) error {
		hold, _, err := billing.Place(ada.ctx(t), tx, time.Now(), ada.Organization.ID, billing.HoldRequest{Session: session, Step: id.New[id.Step](), Amount: 75 * money.Cent, Expires: time.Now()})
		if err != nil {
			return err
		}
		_, err = tx.Exec(ada.ctx(t), "UPDATE holds SET state = 'unsettled' WHERE id = $1", hold)
		return err
	}))
	_, body = get(t, c, w.URL+ada.path+"/ledger")
	require.Contains(t, body, "$0.75 of what is held is for 1 effect of which nothing was heard")
	for _, odd := range []string{"/usage?by=colour&since=ever&agent=x&project=y", "/ledger?account=pockets&kind=gift&after=x", "/usage?since=24h", "/usage?model=" + strings.Repeat("x", 3000), "/budgets?after=x"} {
		status, _ := get(t, c, w.URL+ada.path+odd)
		require.Equal(t, 200, status, odd)
	}
}

// TestASessionSaysWhichBudgetStoppedItAndGoesOn is an admin's way: the session stops, its page names the budget, the budget is raised, and
// the session goes on where it was.
func TestASessionSaysWhichBudgetStoppedItAndGoesOn(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	session, tight := w.stoppedByABudget(t, ada)
	tab := browser.Start(t).Open(t)
	tab.See(t, browser.AllLooks[0])
	signIn(t, w, tab, ada)
	page := w.URL + ada.path + "/sessions/" + string(session)
	tab.Visit(t, page)
	tab.Until(t, `document.querySelector(".session-limit")?.innerText.includes("“Tight”")`)
	tab.Click(t, ".session-limit a")
	tab.Until(t, `document.querySelector("h1")?.innerText === "Tight"`)
	status, _ := post(t, w.client(t, &ada), w.URL+ada.path+"/budgets/"+string(tight.ID)+"/edit", url.Values{"name": {"Tight"}, "limit": {"5"}, "action": {"block"}, "version": {"1"}})
	require.Equal(t, 200, status)
	tab.Visit(t, page)
	tab.Click(t, ".session-limit button")
	tab.Until(t, `document.querySelector("#session-head .badge").innerText.includes("Completed")`)
	tab.Until(t, `!document.querySelector(".session-limit")`)
	require.Empty(t, tab.Noted())
}

func post(t testing.TB, c *http.Client, address string, form url.Values) (int, string) {
	t.Helper()
	resp, err := c.PostForm(address, form)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}
