package api_test

import (
	"encoding/csv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

const newBudget = `{"name":"Monthly","scope":{"type":"organization"},"limit":{"amount":"3.00","currency":"USD"},"period":"month","alerts":[80,50,50]}`

func TestABudgetsLife(t *testing.T) {
	ada := newRig(t).newTenant("Ada")
	org := func(method, path, body string, headers ...string) reply {
		return ada.askWith(ada.orgKey, method, path, body, headers...)
	}
	made := org("POST", "/v1/budgets", newBudget, "Idempotency-Key", "b1")
	require.Equal(t, 201, made.StatusCode, made.raw)
	require.Equal(t, made.raw, org("POST", "/v1/budgets", newBudget, "Idempotency-Key", "b1").raw)
	require.Equal(t, []any{50.0, 80.0}, made.field(t, "alerts"), "sorted, each once")
	require.Equal(t, string(ada.org), made.field(t, "scope.id"))
	require.Equal(t, "block", made.field(t, "action"))
	require.Equal(t, "3.00", made.field(t, "available.amount"))
	require.NotNil(t, made.field(t, "resets_at"))
	path := made.Header.Get("Location")
	require.Equal(t, made.raw, org("GET", path, "").raw)

	// What a session holds and spends shows at once.
	_, begun := ada.newSession(`{"agent":{"model":"ambit/scripted"},"input":"x","mode":"async","limits":{"max_cost":{"amount":"1.25","currency":"USD"}}}`)
	got := org("GET", path, "")
	require.Equal(t, "1.25", got.field(t, "held.amount"))
	require.Equal(t, "1.75", got.field(t, "available.amount"))
	refused := ada.ask("POST", "/v1/invoke", `{"agent":{"model":"ambit/scripted"},"input":"x","mode":"async","limits":{"max_cost":{"amount":"2.00","currency":"USD"}}}`)
	require.Equal(t, 402, refused.StatusCode, refused.raw)
	require.Contains(t, refused.raw, "Monthly")

	changed := org("POST", path, `{"limit":{"amount":"10.00","currency":"USD"},"alerts":null}`, "If-Match", got.Header.Get("ETag"))
	require.Equal(t, 200, changed.StatusCode, changed.raw)
	require.Equal(t, "8.75", changed.field(t, "available.amount"))
	require.Empty(t, changed.field(t, "alerts"))
	require.Equal(t, 412, org("POST", path, `{"name":"x"}`, "If-Match", got.Header.Get("ETag")).StatusCode)
	require.Equal(t, 200, org("POST", path, `{"name":"x"}`, "If-Match", "*").StatusCode)

	for _, scope := range []string{`{"type":"session","id":"` + string(begun.SessionID) + `"}`, `{"type":"project","id":"` + string(ada.project) + `"}`, `{"type":"key","id":"` + string(ada.keyID) + `"}`, `{"type":"member","id":"` + ada.owner.ID + `"}`} {
		res := org("POST", "/v1/budgets", `{"name":"one","scope":`+scope+`,"limit":{"amount":"0.00","currency":"USD"},"period":"total","action":"warn"}`)
		require.Equal(t, 201, res.StatusCode, res.raw)
		require.Nil(t, res.field(t, "resets_at"))
		require.Nil(t, res.field(t, "forecast"))
	}
	first := org("GET", "/v1/budgets?limit=3", "")
	require.Len(t, first.field(t, "data"), 3)
	next, _ := first.field(t, "next_page").(string)
	require.Len(t, org("GET", "/v1/budgets?limit=3&page="+next, "").field(t, "data"), 2)
	require.Len(t, org("GET", "/v1/budgets?scope_type=key&scope_id="+string(ada.keyID), "").field(t, "data"), 1)
	require.Equal(t, 400, org("GET", "/v1/budgets?scope_type=key", "").StatusCode)

	gone := org("DELETE", path, "")
	require.Equal(t, 200, gone.StatusCode, gone.raw)
	require.Equal(t, "budget_deleted", gone.field(t, "type"))
	require.Equal(t, true, org("GET", path, "").field(t, "archived"))
	require.Equal(t, 404, org("POST", path, `{"name":"x"}`).StatusCode)
	require.Equal(t, 404, org("DELETE", path, "").StatusCode)
	require.NotContains(t, org("GET", "/v1/budgets", "").raw, path[len("/v1/budgets/"):])
}

func TestABudgetThatCannotBe(t *testing.T) {
	r := newRig(t)
	ada, eve := r.newTenant("Ada"), r.newTenant("Eve")
	agent := eve.newAgent("theirs")
	for change, pointer := range map[string]string{
		`"name":""`:     "/name",
		`"name":"   "`:  "/name",
		`"name":"a\nb"`: "/name",
		`"name":"` + strings.Repeat("x", 81) + `"`:               "/name",
		`"limit":{"amount":"-1.00","currency":"USD"}`:            "/limit",
		`"limit":{"amount":"9999999999.00","currency":"USD"}`:    "/limit",
		`"limit":{"amount":"9999999999999.00","currency":"USD"}`: "/limit",
		`"limit":{"amount":"1.0000000001","currency":"USD"}`:     "/limit",
		`"limit":{"amount":"3","currency":"USD"}`:                "/limit",
		`"limit":{"amount":"NaN","currency":"USD"}`:              "/limit",
		`"limit":{"amount":"1.00","currency":"EUR"}`:             "/limit",
		`"limit":3.5`:                                   "/limit",
		`"limit":null`:                                  "/limit",
		`"period":"year"`:                               "/period",
		`"action":"ask"`:                                "/action",
		`"alerts":[0]`:                                  "/alerts/0",
		`"alerts":[50,-1]`:                              "/alerts/1",
		`"alerts":[1001]`:                               "/alerts/0",
		`"alerts":[50.5]`:                               "/alerts/0",
		`"alerts":[99999999999999]`:                     "",
		`"alerts":["50"]`:                               "/alerts/0",
		`"alerts":[1,2,3,4,5,6,7,8,9,10,11]`:            "/alerts",
		`"scope":{"type":"galaxy","id":"x"}`:            "/scope/type",
		`"scope":{"id":"x"}`:                            "/scope/type",
		`"scope":{"type":"agent"}`:                      "/scope/id",
		`"scope":{"type":"agent","id":"` + agent + `"}`: "/scope/id",
		`"scope":{"type":"agent","id":"` + string(id.New[id.Agent]()) + `"}`: "/scope/id",
		`"scope":{"type":"organization","id":"` + string(eve.org) + `"}`:     "/scope/id",
		`"scope":{"type":"project","id":"` + string(eve.project) + `"}`:      "/scope/id",
		`"scope":{"type":"member","id":"` + eve.owner.ID + `"}`:              "/scope/id",
		`"spent":{"amount":"0.00","currency":"USD"}`:                         "/spent",
	} {
		field := change[:strings.Index(change, ":")]
		body := `{` + change
		for _, part := range []string{`"name":"Monthly"`, `"scope":{"type":"organization"}`, `"limit":{"amount":"3.00","currency":"USD"}`, `"period":"month"`} {
			if !strings.HasPrefix(part, field) {
				body += "," + part
			}
		}
		res := ada.askWith(ada.orgKey, "POST", "/v1/budgets", body+"}")
		require.Equal(t, 400, res.StatusCode, "%s: %s", change, res.raw)
		require.Contains(t, res.raw, `"pointer":"`+pointer, change)
	}
	require.Equal(t, "invalid_money", ada.askWith(ada.orgKey, "POST", "/v1/budgets", strings.Replace(newBudget, "3.00", "3.0000000000", 1)).code(t))
	require.Empty(t, ada.askWith(ada.orgKey, "GET", "/v1/budgets", "").field(t, "data"))
	require.Equal(t, 403, ada.ask("POST", "/v1/budgets", newBudget).StatusCode, "a project's key sets no budgets")
	made := ada.askWith(ada.orgKey, "POST", "/v1/budgets", newBudget)
	for _, body := range []string{`{"name":null}`, `{"limit":null}`, `{"limit":{"amount":"-0.01","currency":"USD"}}`, `{"alerts":[0]}`, `{"scope":{"type":"organization"}}`, `{"period":"day"}`, `{"name":""}`} {
		res := ada.askWith(ada.orgKey, "POST", made.Header.Get("Location"), body)
		require.Equal(t, 400, res.StatusCode, "%s: %s", body, res.raw)
	}
}

func TestTheOrganisationsZoneBindsItsPeriods(t *testing.T) {
	ada := newRig(t).newTenant("Ada")
	require.Equal(t, "UTC", ada.ask("GET", "/v1/organization", "").field(t, "time_zone"))
	for _, zone := range []string{`"Mars/Olympus"`, `""`, `"Local"`, `null`, `"UTC+25"`} {
		res := ada.askWith(ada.orgKey, "POST", "/v1/organization", `{"time_zone":`+zone+`}`)
		require.Equal(t, 422, res.StatusCode, "%s: %s", zone, res.raw)
		require.Equal(t, "unknown_time_zone", res.code(t))
		require.Contains(t, res.raw, `"pointer":"/time_zone"`)
	}
	require.Equal(t, 403, ada.ask("POST", "/v1/organization", `{"time_zone":"Asia/Tokyo"}`).StatusCode)
	made := ada.askWith(ada.orgKey, "POST", "/v1/budgets", strings.Replace(newBudget, "month", "day", 1))
	require.Contains(t, made.field(t, "resets_at"), "T00:00:00")
	res := ada.askWith(ada.orgKey, "POST", "/v1/organization", `{"time_zone":"Asia/Tokyo"}`)
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.Equal(t, "Ada", res.field(t, "name"))
	require.Contains(t, ada.askWith(ada.orgKey, "GET", made.Header.Get("Location"), "").field(t, "resets_at"), "T15:00:00")
	require.Equal(t, "Asia/Tokyo", ada.ask("GET", "/v1/usage", "").field(t, "time_zone"))
}

// spend is one effect of a session that costs the amount.
func (tn *tenant) spend(session id.Session, kind, name string, amount money.Nanos) {
	tn.t.Helper()
	step := id.New[id.Step]()
	tn.work(session, journal.Entry{Step: step, Payload: journal.StepIntended{Kind: kind, Name: name, EffectKey: string(step)}})
	require.NoError(tn.t, tn.db.InTx(tn.t.Context(), tn.org, func(tx pgx.Tx) error {
		now := tn.clock.Now()
		hold, short, err := billing.Place(tn.t.Context(), tx, now, tn.org, billing.HoldRequest{Session: session, Step: step, Amount: amount, Expires: now.Add(time.Minute)})
		if err != nil {
			return err
		}
		require.Nil(tn.t, short)
		_, err = billing.Settle(tn.t.Context(), tx, now, tn.org, hold, amount)
		return err
	}))
}

func TestUsageAndLedgerShowTheSameNanoDollars(t *testing.T) {
	r := newRig(t)
	ada, eve := r.newTenant("Ada"), r.newTenant("Eve")
	agent := ada.newAgent("=analyst")
	session, _ := ada.newSession(`{"agent":"` + agent + `","input":"x","mode":"async"}`)
	other, _ := ada.newSession("")
	ada.spend(session, journal.KindModelCall, "ambit/scripted", 1_281_001)
	ada.spend(session, journal.KindToolCall, "bash", 12_000)
	ada.spend(other, journal.KindModelCall, "ambit/scripted", 7)
	require.Empty(t, eve.ask("GET", "/v1/usage", "").field(t, "data"))

	var sums struct {
		Data []struct {
			StartsAt *string     `json:"starts_at"`
			AgentID  *string     `json:"agent_id"`
			Model    *string     `json:"model"`
			Tool     *string     `json:"tool"`
			KeyID    *string     `json:"key_id"`
			Spent    money.Nanos `json:"spent"`
			Effects  int64       `json:"effects"`
		}
		NextPage *string `json:"next_page"`
	}
	ada.ask("GET", "/v1/usage", "").into(t, &sums)
	require.Len(t, sums.Data, 1)
	require.EqualValues(t, 1_293_008, sums.Data[0].Spent)
	require.NotNil(t, sums.Data[0].StartsAt)
	ada.ask("GET", "/v1/usage?bucket=none&group_by[]=agent&group_by[]=model&group_by[]=tool&group_by[]=key", "").into(t, &sums)
	require.Len(t, sums.Data, 3)
	require.Nil(t, sums.Data[0].AgentID, "an agent written into its invoke")
	require.Nil(t, sums.Data[0].StartsAt)
	require.Equal(t, string(ada.keyID), *sums.Data[0].KeyID)
	require.Equal(t, "bash", *sums.Data[1].Tool)
	require.Nil(t, sums.Data[1].Model)
	require.EqualValues(t, 1_281_001, sums.Data[2].Spent)

	page, seen := "", 0
	for {
		path := "/v1/usage?limit=1&bucket=hour&group_by[]=tool&group_by[]=agent"
		if page != "" {
			path += "&page=" + page
		}
		res := ada.ask("GET", path, "")
		require.Equal(t, 200, res.StatusCode, res.raw)
		res.into(t, &sums)
		seen += len(sums.Data)
		if sums.NextPage == nil {
			break
		}
		page = *sums.NextPage
	}
	require.Equal(t, 3, seen)
	require.Equal(t, 400, ada.ask("GET", "/v1/usage?limit=1&bucket=day&group_by[]=tool&page="+page, "").StatusCode, "a cursor of another query")

	table := ada.ask("GET", "/v1/usage?group_by[]=agent&group_by[]=model", "", "Accept", "text/csv")
	require.Equal(t, 200, table.StatusCode, table.raw)
	require.Equal(t, "text/csv; charset=utf-8", table.Header.Get("Content-Type"))
	lines, err := csv.NewReader(strings.NewReader(table.raw)).ReadAll()
	require.NoError(t, err)
	require.Equal(t, []string{"day", "agent_id", "agent", "model", "spent_usd", "effects"}, lines[0])
	require.Len(t, lines, 4)
	require.Equal(t, "'=analyst", lines[2][2], "a name is no formula")
	require.Equal(t, "0.001281001", lines[3][4])

	for _, bad := range []string{"bucket=year", "group_by[]=colour", "created_at[gte]=yesterday", "created_at[gte]=2026-01-02T00:00:00Z&created_at[lt]=2026-01-01T00:00:00Z", "created_at[gte]=2020-01-01T00:00:00Z", "agent_id=x", "limit=0", "page=x"} {
		require.Equal(t, 400, ada.ask("GET", "/v1/usage?"+bad, "").StatusCode, bad)
	}

	var entries struct {
		Data []struct {
			ID, Kind  string
			SessionID *string `json:"session_id"`
			Amount    money.Nanos
		}
	}
	ada.askWith(ada.orgKey, "GET", "/v1/ledger/entries?account=spent", "").into(t, &entries)
	require.Len(t, entries.Data, 3)
	var sum money.Nanos
	for _, e := range entries.Data {
		sum += e.Amount
	}
	require.EqualValues(t, 1_293_008, sum)
	ada.ask("GET", "/v1/ledger/entries?account=spent&session_id="+string(session), "").into(t, &entries)
	require.Len(t, entries.Data, 2)
	require.Equal(t, 200, ada.ask("GET", "/v1/ledger/entries/"+entries.Data[0].ID, "").StatusCode)
	ada.ask("GET", "/v1/ledger/entries?kind=grant", "").into(t, &entries)
	require.Empty(t, entries.Data, "the grant is the whole organisation's")
	holds := ada.ask("GET", "/v1/ledger/holds?statuses[]=captured&session_id="+string(session), "")
	require.Len(t, holds.field(t, "data"), 2, holds.raw)
	require.Contains(t, holds.raw, `"captured":{"amount":"0.001281001"`)
	require.Empty(t, ada.ask("GET", "/v1/ledger/holds?statuses[]=unsettled", "").field(t, "data"))
	balances := ada.askWith(ada.orgKey, "GET", "/v1/ledger/accounts", "")
	require.Contains(t, balances.raw, `"0.001293008"`)
	require.Equal(t, 403, ada.ask("GET", "/v1/ledger/accounts", "").StatusCode)
	require.Equal(t, 400, ada.ask("GET", "/v1/ledger/entries?account=pockets", "").StatusCode)
}

func TestASessionThatStoppedAtABudgetIsResumed(t *testing.T) {
	r := newRig(t)
	ada := r.newTenant("Ada")
	r.startWorker()
	made := ada.askWith(ada.orgKey, "POST", "/v1/budgets", `{"name":"Tight","scope":{"type":"organization"},"limit":{"amount":"0.00","currency":"USD"},"period":"total"}`)
	session, _ := ada.newSession("")
	path := "/v1/sessions/" + string(session)
	got := ada.ask("GET", path+"?wait_for=idle&wait_seconds=20", "")
	require.Equal(t, "budget_reached", got.field(t, "stop_reason.type"), got.raw)
	require.Equal(t, "budget", got.field(t, "stop_reason.scope"))
	require.Equal(t, made.field(t, "id"), got.field(t, "stop_reason.scope_id"))
	require.Equal(t, "Tight", got.field(t, "stop_reason.scope_name"))
	require.Contains(t, got.field(t, "stop_reason.reason"), "What is left of the budget “Tight” is $0.00; this needs up to")
	require.Equal(t, 200, ada.ask("POST", path+"/resume", "").StatusCode)
	got = ada.ask("GET", path+"?wait_for=idle&wait_seconds=20", "")
	require.Equal(t, "budget_reached", got.field(t, "stop_reason.type"), "the limit still holds")
	require.Equal(t, 200, ada.askWith(ada.orgKey, "POST", made.Header.Get("Location"), `{"limit":{"amount":"5.00","currency":"USD"}}`).StatusCode)
	require.Equal(t, 200, ada.ask("POST", path+"/resume", "").StatusCode)
	got = ada.ask("GET", path+"?wait_for=idle&wait_seconds=20", "")
	require.Equal(t, "end_turn", got.field(t, "stop_reason.type"), got.raw)
	require.Equal(t, "state_conflict", ada.ask("POST", path+"/resume", "").code(t))
}
