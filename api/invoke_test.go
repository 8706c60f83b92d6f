package api_test

import (
	"context"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/api"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

func TestInvokeWaitsForItsAnswer(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	agent := tn.newAgent("geographer")
	answered := make(chan reply, 1)
	go func() {
		answered <- tn.ask("POST", "/v1/invoke", `{"agent":"`+agent+`","input":"What is the capital of France?","limits":{"max_cost":{"amount":"0.50","currency":"USD"}},"wait_seconds":30}`)
	}()
	var begun api.Page[api.Session]
	require.Eventually(t, func() bool {
		tn.ask("GET", "/v1/sessions", "").into(t, &begun)
		return len(begun.Data) > 0
	}, 20*time.Second, 5*time.Millisecond)
	tn.finish(begun.Data[0].ID, "Paris.")
	res := <-answered
	require.Equal(t, 200, res.StatusCode, res.raw)
	var out api.InvokeResult
	res.into(t, &out)
	require.Equal(t, "invoke_result", out.Type)
	require.Equal(t, "idle", out.Status)
	require.Equal(t, "end_turn", out.StopReason.Type)
	require.Equal(t, []api.Block{{Type: "text", Text: "Paris."}}, out.Output)
	require.Equal(t, agent, string(*out.Agent.ID))
	require.Equal(t, "0.50", out.Cost.Held.Decimal())
	require.EqualValues(t, 1, out.FirstSeq)
	require.Equal(t, "/v1/sessions/"+string(out.SessionID), res.Header.Get("Location"))
	require.Greater(t, out.LastSeq, int64(4))

	res = tn.ask("GET", "/v1/sessions/"+string(out.SessionID), "")
	require.Equal(t, "0.50", res.field(t, "cost.held.amount"))
	require.Equal(t, "idle", res.field(t, "status"))
}

func TestAnEarlierAnswerIsNotThisOnes(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	session, _ := tn.newSession("")
	tn.finish(session, "first")
	// Continued and not yet answered: the old end_turn must not count.
	res := tn.ask("POST", "/v1/invoke", `{"session_id":"`+string(session)+`","input":"again","wait_seconds":1}`)
	require.Equal(t, 202, res.StatusCode, res.raw)
	require.Equal(t, "running", res.field(t, "status"))
	require.Nil(t, res.field(t, "stop_reason"))
	require.Contains(t, res.raw, `"output":[]`)
	tn.finish(session, "second")
	res = tn.ask("GET", "/v1/sessions/"+string(session)+"?wait_for=idle&wait_seconds=10", "")
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.Equal(t, "idle", res.field(t, "status"))
}

func TestRefusalsBeforeAnythingBegins(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	agent := tn.newAgent("helper")
	ended, _ := tn.newSession("")
	tn.finish(ended, "done")
	require.Equal(t, 200, tn.ask("POST", "/v1/sessions/"+string(ended)+"/archive", "").StatusCode)
	busy, _ := tn.newSession("")
	tn.work(busy, journal.Of(journal.StatusRunning{}))
	var before api.Page[api.Session]
	tn.ask("GET", "/v1/sessions?include_archived=true", "").into(t, &before)

	inline := `"agent":{"model":"ambit/scripted"}`
	for name, c := range map[string]struct {
		body   string
		status int
		code   string
		at     string
	}{
		"no agent":            {`{"input":"x"}`, 400, "invalid_request", "/agent"},
		"no input":            {`{` + inline + `}`, 400, "invalid_request", "/input"},
		"empty input":         {`{` + inline + `,"input":""}`, 400, "invalid_request", "/input"},
		"blank input":         {`{` + inline + `,"input":" "}`, 400, "invalid_request", "/input/0/text"},
		"no blocks":           {`{` + inline + `,"input":[]}`, 400, "invalid_request", "/input"},
		"an image":            {`{` + inline + `,"input":[{"type":"image","text":"x"}]}`, 400, "invalid_request", "/input/0/type"},
		"unknown mode":        {`{` + inline + `,"input":"x","mode":"both"}`, 400, "invalid_request", "/mode"},
		"unknown model":       {`{"agent":{"model":"acme/none"},"input":"x"}`, 400, "invalid_request", "/agent/model"},
		"unknown tool":        {`{"agent":{"model":"ambit/scripted","tools":["rm"]},"input":"x"}`, 400, "invalid_request", "/agent/tools/0"},
		"a tool schema":       {`{"agent":{"model":"ambit/scripted","tools":[{"name":"x","input_schema":"no schema"}]},"input":"x"}`, 400, "invalid_request", "/agent/tools/0"},
		"version and alias":   {`{"agent":{"id":"` + agent + `","version":1,"alias":"prod"},"input":"x"}`, 400, "invalid_request", "/agent"},
		"agent of no sort":    {`{"agent":{"name":"x"},"input":"x"}`, 400, "invalid_request", "/agent"},
		"unknown version":     {`{"agent":{"id":"` + agent + `","version":9},"input":"x"}`, 404, "not_found", ""},
		"unknown alias":       {`{"agent":{"id":"` + agent + `","alias":"prod"},"input":"x"}`, 404, "not_found", ""},
		"negative limit":      {`{` + inline + `,"input":"x","limits":{"max_steps":-1}}`, 400, "invalid_request", "/limits/max_steps"},
		"zero limit":          {`{` + inline + `,"input":"x","limits":{"max_tokens":0}}`, 400, "invalid_request", "/limits/max_tokens"},
		"money as a number":   {`{` + inline + `,"input":"x","limits":{"max_cost":0.5}}`, 400, "invalid_money", "/limits/max_cost"},
		"money in cents":      {`{` + inline + `,"input":"x","limits":{"max_cost":{"amount":"2500","currency":"USD"}}}`, 400, "invalid_money", "/limits/max_cost/amount"},
		"negative money":      {`{` + inline + `,"input":"x","limits":{"max_cost":{"amount":"-1.00","currency":"USD"}}}`, 400, "invalid_money", "/limits/max_cost/amount"},
		"too little money":    {`{` + inline + `,"input":"x","limits":{"max_cost":{"amount":"100.00","currency":"USD"}}}`, 402, "insufficient_funds", ""},
		"no quote's id":       {`{` + inline + `,"input":"x","quote_id":"quo_x"}`, 400, "invalid_request", "/quote_id"},
		"no mandate's id":     {`{` + inline + `,"input":"x","mandate_id":"man_x"}`, 400, "invalid_request", "/mandate_id"},
		"an environment":      {`{` + inline + `,"input":"x","environment_id":"env_x"}`, 400, "not_available", "/environment_id"},
		"wait without sync":   {`{` + inline + `,"input":"x","mode":"async","wait_seconds":5}`, 400, "invalid_request", "/wait_seconds"},
		"too long a wait":     {`{` + inline + `,"input":"x","wait_seconds":601}`, 400, "invalid_request", "/wait_seconds"},
		"too much metadata":   {`{` + inline + `,"input":"x","metadata":{"k":"` + strings.Repeat("x", 513) + `"}}`, 400, "invalid_request", "/metadata/k"},
		"a 10 MB prompt":      {`{` + inline + `,"input":"` + strings.Repeat("x", 10<<20) + `"}`, 413, "too_large", ""},
		"a 4.1 MiB prompt":    {`{` + inline + `,"input":"` + strings.Repeat("x", 4<<20+100<<10) + `"}`, 413, "too_large", ""},
		"an ended session":    {`{"session_id":"` + string(ended) + `","input":"x"}`, 409, "session_terminated", ""},
		"agent for a session": {`{"session_id":"` + string(busy) + `","agent":"` + agent + `","input":"x"}`, 400, "invalid_request", "/session_id"},
		"a busy session":      {`{"session_id":"` + string(busy) + `","input":"x","if_running":"reject"}`, 409, "session_running", ""},
	} {
		for _, mode := range []string{"", "stream"} {
			body := c.body
			if mode != "" && !strings.Contains(body, `"mode"`) && !strings.Contains(body, `"wait_seconds"`) {
				body = strings.Replace(body, "{", `{"mode":"stream",`, 1)
			}
			res := tn.ask("POST", "/v1/invoke", body)
			require.Equal(t, c.status, res.StatusCode, "%s: %s", name, res.raw)
			require.Equal(t, c.code, res.code(t), name)
			if c.at != "" {
				require.Contains(t, res.raw, `"pointer":"`+c.at+`"`, name)
			}
		}
	}
	var after api.Page[api.Session]
	tn.ask("GET", "/v1/sessions?include_archived=true", "").into(t, &after)
	require.Len(t, after.Data, len(before.Data), "no refusal has begun a session")

	res := tn.ask("POST", "/v1/invoke", `{`+inline+`,"input":"x","limits":{"max_cost":{"amount":"100.00","currency":"USD"}}}`)
	require.Equal(t, "100.00", res.field(t, "required.amount"), res.raw)
	require.NotNil(t, res.field(t, "available"))
	require.NotNil(t, res.field(t, "shortfall"))
	require.NotNil(t, res.field(t, "limiting"))
	require.Equal(t, "http://ambit.test/errors/insufficient_funds", res.field(t, "type"))
	require.NotEmpty(t, res.field(t, "request_id"))

	// An organisation's key must say where an agent that is nobody's runs.
	res = tn.askWith(tn.orgKey, "POST", "/v1/invoke", `{`+inline+`,"input":"x","mode":"async"}`)
	require.Equal(t, 400, res.StatusCode)
	require.Contains(t, res.raw, "Ambit-Project")
	res = tn.askWith(tn.orgKey, "POST", "/v1/invoke", `{`+inline+`,"input":"x","mode":"async"}`, "Ambit-Project", string(tn.project))
	require.Equal(t, 202, res.StatusCode, res.raw)
}

func TestARepeatedInvokeBeginsOnce(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	body := `{"agent":{"model":"ambit/scripted"},"input":"x","mode":"async"}`
	sessions := map[id.Session]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for {
				res := tn.ask("POST", "/v1/invoke", body, "Idempotency-Key", "once")
				if res.StatusCode == http.StatusConflict {
					if res.code(t) != "idempotency_in_progress" || res.Header.Get("Retry-After") != "1" {
						t.Error(res.raw)
					}
					continue // a test need not wait the whole second
				}
				var out api.InvokeResult
				res.into(t, &out)
				mu.Lock()
				sessions[out.SessionID]++
				mu.Unlock()
				return
			}
		})
	}
	wg.Wait()
	require.Len(t, sessions, 1)

	var session id.Session
	for s := range sessions {
		session = s
	}
	res := tn.ask("POST", "/v1/invoke", body, "Idempotency-Key", `"once"`)
	require.Equal(t, "true", res.Header.Get("Idempotency-Replayed"))
	require.Equal(t, "idempotency_key_reused", tn.ask("POST", "/v1/invoke", strings.Replace(body, `"x"`, `"y"`, 1), "Idempotency-Key", "once").code(t))
	require.Equal(t, "invalid_request", tn.ask("POST", "/v1/invoke", body, "Idempotency-Key", strings.Repeat("k", 256)).code(t))

	// A refusal is not kept: with more money the same request is a new one.
	poor := `{"agent":{"model":"ambit/scripted"},"input":"x","mode":"async","limits":{"max_cost":{"amount":"6.00","currency":"USD"}}}`
	require.Equal(t, 402, tn.ask("POST", "/v1/invoke", poor, "Idempotency-Key", "poor").StatusCode)
	tn.grant("2.00")
	res = tn.ask("POST", "/v1/invoke", poor, "Idempotency-Key", "poor")
	require.Equal(t, 202, res.StatusCode, res.raw)
	require.Empty(t, res.Header.Get("Idempotency-Replayed"))

	// Another key, or another project of an organisation's key, is another request.
	other, _ := tn.newKey(allScopes(tn.project))
	res = tn.askWith(other, "POST", "/v1/invoke", body, "Idempotency-Key", "once")
	require.NotContains(t, res.raw, string(session))
}

func TestASecretIsReplayedAndNotStoredInTheClear(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	body := `{"name":"ci","scopes":["sessions:read"]}`
	first := tn.ask("POST", "/v1/api_keys", body, "Idempotency-Key", "k1")
	require.Equal(t, 201, first.StatusCode, first.raw)
	second := tn.ask("POST", "/v1/api_keys", body, "Idempotency-Key", "k1")
	require.Equal(t, 201, second.StatusCode)
	require.Equal(t, first.raw, second.raw)
	require.Equal(t, first.Header.Get("ETag"), second.Header.Get("ETag"))
	require.Equal(t, first.Header.Get("Location"), second.Header.Get("Location"))
	secret, _ := first.field(t, "secret").(string)
	require.NotEmpty(t, secret)
	require.NoError(t, tn.db.InTx(context.Background(), tn.org, func(tx pgx.Tx) error {
		var n int
		require.NoError(t, tx.QueryRow(context.Background(), `SELECT count(*) FROM idempotency_records WHERE position($1::bytea IN sealed) > 0`, []byte(secret)).Scan(&n))
		require.Zero(t, n)
		return nil
	}))
	require.NotContains(t, tn.log.String(), secret)
	require.Equal(t, 403, tn.askWith(secret, "POST", "/v1/api_keys", `{"name":"more","scopes":["*"]}`).StatusCode)
}

func TestKillGivesOneReceipt(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	session, _ := tn.newSession(`{"agent":{"model":"ambit/scripted"},"input":"x","mode":"async","limits":{"max_cost":{"amount":"1.00","currency":"USD"}}}`)
	path := "/v1/sessions/" + string(session)
	res := tn.ask("POST", path+"/kill", `{"reason":"enough"}`)
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.Equal(t, "kill_receipt", res.field(t, "type"))
	require.Equal(t, true, res.field(t, "complete"))
	require.Equal(t, "enough", res.field(t, "reason"))
	again := tn.ask("POST", path+"/kill", `{}`)
	require.Equal(t, res.raw, again.raw, "killing again gives the same receipt")
	got := tn.ask("GET", path, "")
	require.Equal(t, "terminated", got.field(t, "status"))
	require.Equal(t, "killed", got.field(t, "stop_reason.type"))
	require.Equal(t, "0.00", got.field(t, "cost.held.amount"))
	require.Equal(t, "session_terminated", tn.ask("POST", path+"/events", `{"events":[{"type":"user.message","content":"x"}]}`).code(t))
	require.Equal(t, "5.00", tn.ask("GET", "/v1/organization", "").field(t, "balance.available.amount"))
}

func TestEventsAreSentAllOrNone(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	session, _ := tn.newSession("")
	tn.finish(session, "hi")
	path := "/v1/sessions/" + string(session) + "/events"
	before := len(tn.allEvents(session))
	for body, at := range map[string]string{
		`{"events":[{"type":"user.message","content":"x"},{"type":"user.message"}]}`:                "/events/1/content",
		`{"events":[{"type":"user.message","content":"x"},{"type":"user.message","content":"  "}]}`: "/events/1/content/0/text",
		`{"events":[{"type":"agent.message","content":"x"}]}`:                                       "/events/0/type",
		`{"events":[]}`: "/events",
		`{"events":[` + strings.Repeat(`{"type":"user.interrupt"},`, 50) + `{"type":"user.interrupt"}]}`: "/events",
	} {
		res := tn.ask("POST", path, body)
		require.Equal(t, 400, res.StatusCode, res.raw)
		require.Contains(t, res.raw, `"pointer":"`+at+`"`, body)
	}
	require.Equal(t, "state_conflict", tn.ask("POST", path, `{"events":[{"type":"user.interrupt"}]}`).code(t), "there is nothing to interrupt")
	require.Len(t, tn.allEvents(session), before)
	res := tn.ask("POST", path, `{"events":[{"type":"user.message","content":"x"},{"type":"user.message","content":[{"type":"text","text":"y"}]},{"type":"user.interrupt","reason":"r"}]}`)
	require.Equal(t, 200, res.StatusCode, res.raw)
	var sent struct{ Data []struct{ Seq int64 } }
	res.into(t, &sent)
	require.Len(t, sent.Data, 3)
	require.Len(t, tn.allEvents(session), before+3)
}

func TestPagesOfSessionsAndTheirCursors(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	for range 7 {
		tn.newSession("")
	}
	var ids []id.Session
	path, pages := "/v1/sessions?limit=3", 0
	next := path
	for next != "" {
		var page api.Page[api.Session]
		tn.ask("GET", next, "").into(t, &page)
		for _, s := range page.Data {
			ids = append(ids, s.ID)
		}
		next = ""
		if page.NextPage != nil {
			next = path + "&page=" + *page.NextPage
		}
		pages++
	}
	require.Equal(t, 3, pages)
	require.Len(t, ids, 7)
	require.IsDecreasing(t, ids)

	var page api.Page[api.Session]
	tn.ask("GET", path, "").into(t, &page)
	for _, other := range []string{
		"/v1/sessions?limit=3&order=asc", "/v1/sessions?limit=3&statuses[]=idle", "/v1/agents?limit=3", "/v1/sessions?created_at[gt]=2026-01-01T00:00:00Z",
		"/v1/sessions/" + string(ids[0]) + "/events?limit=3",
	} {
		glue := "&"
		if !strings.Contains(other, "?") {
			glue = "?"
		}
		require.Equal(t, "invalid_page", tn.ask("GET", other+glue+"page="+*page.NextPage, "").code(t), other)
	}
	for _, damaged := range []string{"x", "e30", (*page.NextPage)[:20], *page.NextPage + "A"} {
		require.Equal(t, "invalid_page", tn.ask("GET", path+"&page="+damaged, "").code(t), damaged)
	}
	require.Equal(t, 200, tn.ask("GET", "/v1/sessions?limit=5&page="+*page.NextPage, "").StatusCode, "another limit is no other list")
	for _, bad := range []string{"limit=0", "limit=101", "limit=x", "limit=1&limit=2", "statuses[]=busy", "order=up", "created_at[gt]=yesterday", "agent_id=x", "expand[]=owner"} {
		require.Equal(t, "invalid_request", tn.ask("GET", "/v1/sessions?"+bad, "").code(t), bad)
	}
	require.Contains(t, tn.ask("GET", "/v1/sessions?expand[]=agent&metadata[k]=v", "").raw, `"data":[]`)
	agent := tn.newAgent("helper")
	session, _ := tn.newSession(`{"agent":"` + agent + `","input":"x","mode":"async","metadata":{"k":"v"}}`)
	res := tn.ask("GET", "/v1/sessions?expand[]=agent&metadata[k]=v", "")
	require.Contains(t, res.raw, `"expanded":{"agent":{"id":"`+agent)
	require.Contains(t, res.raw, string(session))
}

func TestTimesFilterToTheMicrosecond(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	session, _ := tn.newSession("")
	at, _ := tn.ask("GET", "/v1/sessions/"+string(session), "").field(t, "created_at").(string)
	for op, there := range map[string]bool{"gt": false, "gte": true, "lt": false, "lte": true} {
		res := tn.ask("GET", "/v1/sessions?created_at["+op+"]="+at, "")
		require.Equal(t, there, strings.Contains(res.raw, string(session)), "%s %s: %s", op, at, res.raw)
	}
}

func TestWaitingTellsWhenTheProcessStops(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	session, _ := tn.newSession("")
	answered := make(chan reply, 1)
	go func() {
		answered <- tn.ask("GET", "/v1/sessions/"+string(session)+"?wait_for=idle&wait_seconds=600", "")
	}()
	tn.drain.Begin()
	select {
	case res := <-answered:
		require.Equal(t, 200, res.StatusCode)
		require.Equal(t, "rescheduling", res.field(t, "status"))
	case <-time.After(5 * time.Second):
		t.Fatal("a wait held up the drain")
	}
	require.Equal(t, 503, tn.get("/readyz").StatusCode)
	require.Equal(t, 200, tn.get("/healthz").StatusCode)
}
