package faults

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	appserver "ambit.dev/ambit/internal/app/server"
	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/receipt"
	"ambit.dev/ambit/test/instance"
)

// talker is an OpenAI-shaped provider. Asked to go on for ever it streams until nobody listens; it keeps a log of each call.
type talker struct {
	*httptest.Server

	mu    sync.Mutex
	calls map[string]*talk // by effect key
	again []string         // effect keys that came twice
}

// talk is one call as the provider saw it.
type talk struct {
	began, last time.Time // last is when somebody still took what was sent
	open        bool
}

func newTalker(t *testing.T) *talker {
	t.Helper()
	p := &talker{calls: map[string]*talk{}}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, `{"object":"list","data":[{"id":"talker","object":"model"}]}`)
	})
	mux.HandleFunc("POST /v1/chat/completions", p.complete)
	p.Server = httptest.NewServer(mux)
	t.Cleanup(p.Server.Close)
	t.Cleanup(p.Server.CloseClientConnections)
	return p
}

func (p *talker) complete(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	key := r.Header.Get("Idempotency-Key")
	mine := &talk{began: time.Now(), last: time.Now(), open: true}
	p.mu.Lock()
	if p.calls[key] != nil {
		p.again = append(p.again, key)
	}
	p.calls[key] = mine
	p.mu.Unlock()
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		mine.open = false
	}()
	w.Header().Set("Content-Type", "text/event-stream")
	send := func(data string) {
		fmt.Fprintf(w, "data: %s\n\n", data)
		_ = http.NewResponseController(w).Flush()
	}
	word := `{"id":"c1","object":"chat.completion.chunk","model":"talker-1","choices":[{"index":0,"delta":{"role":"assistant","content":"and "},"finish_reason":null}]}`
	if bytes.Contains(body, []byte("for ever")) {
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-r.Context().Done():
				return
			case <-tick.C:
			}
			send(word)
			if r.Context().Err() == nil {
				p.mu.Lock()
				mine.last = time.Now()
				p.mu.Unlock()
			}
		}
	}
	send(word)
	send(`{"id":"c1","object":"chat.completion.chunk","model":"talker-1","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`)
	send(`{"id":"c1","object":"chat.completion.chunk","model":"talker-1","choices":[],"usage":{"prompt_tokens":11,"completion_tokens":1,"total_tokens":12}}`)
	send("[DONE]")
}

func (p *talker) call(key string) (talk, bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.calls[key]
	if c == nil {
		return talk{}, false
	}
	return *c, true
}

func (p *talker) environment(t *testing.T) []string {
	t.Helper()
	prices := filepath.Join(t.TempDir(), "prices.json")
	require.NoError(t, os.WriteFile(prices, []byte(`{"version":"test","currency":"USD","entries":[
		{"kind":"model","ref":"openai/talker","effective_from":"2026-01-01T00:00:00Z","nanos":{"input_token":100,"output_token":1000}}]}`), 0o600))
	return []string{"AMBIT_OPENAI_BASE_URL=" + p.URL + "/v1", "AMBIT_PRICES_FILE=" + prices}
}

// under starts a session below another.
func under(t *testing.T, a *instance.Account, parent, model, input string, tools ...string) string {
	t.Helper()
	if tools == nil {
		tools = []string{}
	}
	body := map[string]any{"agent": map[string]any{"model": model, "tools": tools}, "input": input, "mode": "async"}
	if parent != "" {
		body["parent_session_id"] = parent
	}
	var s session
	require.Equal(t, http.StatusAccepted, a.Call(http.MethodPost, "/v1/invoke", body, &s))
	return s.SessionID
}

type killedSession struct {
	SessionID string    `json:"session_id"`
	Epoch     int64     `json:"epoch"`
	FencedAt  time.Time `json:"fenced_at"`
	Charged   int64     `json:"charged_nanos"`
	Sandbox   struct {
		ID     string    `json:"sandbox_id"`
		At     time.Time `json:"at"`
		Detail string    `json:"detail"`
	} `json:"sandbox"`
	Released []struct {
		At time.Time `json:"released_at"`
	} `json:"holds_released"`
	LastBilledAt *time.Time `json:"last_billed_at"`
	Unsettled    []string   `json:"unsettled_steps"`
}

type killReceipt struct {
	killedSession
	ID          string          `json:"id"`
	Complete    bool            `json:"complete"`
	RequestedAt time.Time       `json:"requested_at"`
	Children    []killedSession `json:"children"`
}

// ledgerOf reads what the database says of a session: the sum of its captures, its last transfer, and how many holds are open.
func ledgerOf(t *testing.T, a *instance.Account, session string) (captured int64, last time.Time, open int) {
	t.Helper()
	cfg, ok := up.Running(a.Config)
	require.True(t, ok)
	ctx := t.Context()
	d, closing, err := appserver.OpenTenants(ctx, cfg, appserver.NewLogger(cfg, io.Discard))
	require.NoError(t, err)
	defer closing()
	require.NoError(t, d.DB.InTx(ctx, a.Org, func(tx pgx.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT coalesce(sum(amount_nanos) FILTER (WHERE debit_account = 'held' AND credit_account = 'spent'), 0), max(created_at)
			FROM ledger_transfers WHERE session_id = $1`, session).Scan(&captured, &last); err != nil {
			return err
		}
		return tx.QueryRow(ctx, `SELECT count(*) FROM holds WHERE session_id = $1 AND state IN ('held', 'unsettled')`, session).Scan(&open)
	}))
	return captured, last, open
}

var reapedProcess = regexp.MustCompile(`process (\d+) was killed`)

// TestAKilledTreeHasNoEffectAfterItsCommit stops a session with a running tool, below which one session has an open model stream and one a
// tool and a child of its own with a stream, while other sessions keep the instance busy.
func TestAKilledTreeHasNoEffectAfterItsCommit(t *testing.T) {
	p := newTalker(t)
	i := instance.Start(t, p.environment(t)...)
	a := i.Account("tree")

	root := under(t, a, "", "ambit/scripted", "```bash\nwhile true; do date >> beat; sleep 0.02; done\n```", "bash")
	streaming := under(t, a, root, "openai/talker", "Talk for ever.")
	busy := under(t, a, root, "ambit/scripted", "```bash\nsleep 600\n```", "bash")
	deep := under(t, a, busy, "openai/talker", "Talk for ever, too.")
	tree := []string{root, streaming, busy, deep}
	stranger := under(t, a, "", "openai/talker", "Talk for ever, and stay.")

	// Load: others begin and end all the while.
	ctx, calm := context.WithCancel(t.Context())
	var others sync.WaitGroup
	for range 4 {
		others.Go(func() {
			for ctx.Err() == nil {
				_, _, _ = a.Try(http.MethodPost, "/v1/invoke", map[string]any{"agent": map[string]any{"model": "openai/talker", "tools": []string{}}, "input": "hello"})
			}
		})
	}
	defer others.Wait()
	defer calm()

	keys := map[string]string{} // of the open streams, by session
	for _, s := range []string{streaming, deep, stranger} {
		require.Eventually(t, func() bool {
			for _, e := range find(journalOf(t, a, s), "step.intended") {
				c, seen := p.call(e.EffectKey)
				keys[s] = e.EffectKey
				return seen && c.open && c.last.After(c.began)
			}
			return false
		}, time.Minute, 20*time.Millisecond, "the stream of %s did not begin", s)
	}
	for _, s := range []string{root, busy} {
		require.Eventually(t, func() bool { return len(find(journalOf(t, a, s), "sandbox.started")) == 1 }, time.Minute, 50*time.Millisecond, "the tool of %s did not begin", s)
	}

	asked := time.Now()
	status, raw := a.Raw(http.MethodPost, "/v1/sessions/"+root+"/kill", map[string]any{"reason": "the test says so"})
	answered := time.Now()
	if status == http.StatusAccepted {
		require.Eventually(t, func() bool {
			status, raw = a.Raw(http.MethodGet, "/v1/sessions/"+root+"/receipt", nil)
			return bytes.Contains(raw, []byte(`"complete":true`))
		}, time.Minute, 50*time.Millisecond)
	}
	require.Equal(t, http.StatusOK, status, string(raw))
	var r killReceipt
	require.NoError(t, json.Unmarshal(raw, &r))
	require.True(t, r.Complete)
	require.Equal(t, root, r.SessionID)
	require.Len(t, r.Children, 3)

	// The streams end; the stranger's goes on.
	last := asked
	for _, s := range []string{streaming, deep} {
		require.Eventually(t, func() bool { c, _ := p.call(keys[s]); return !c.open }, 30*time.Second, 5*time.Millisecond, "the stream of %s goes on after the kill", s)
		if c, _ := p.call(keys[s]); c.last.After(last) {
			last = c.last
		}
	}
	c, _ := p.call(keys[stranger])
	require.True(t, c.open, "a session that is not of the tree was cut off")

	statements := append([]killedSession{r.killedSession}, r.Children...)
	gone := asked
	for _, one := range statements {
		require.Contains(t, tree, one.SessionID)
		require.Len(t, one.Unsettled, 1, "one effect of %s was under way", one.SessionID)
		require.False(t, one.FencedAt.Before(r.RequestedAt))

		// By sequence: with the end nothing was admitted, begun, or said any more. A machine's end may be noted after it.
		events := journalOf(t, a, one.SessionID)
		sound(t, events)
		ended := find(events, "session.status_terminated")
		require.Len(t, ended, 1)
		for _, e := range events[ended[0].Seq:] {
			require.Contains(t, []string{"sandbox.ended", "checkpoint.created"}, e.Type, "event %d of %s came after the kill", e.Seq, one.SessionID)
		}
		// By the ledger: what the receipt says was charged is what was captured, nothing later than the fence, nothing held.
		captured, booked, open := ledgerOf(t, a, one.SessionID)
		require.Equal(t, one.Charged, captured)
		require.Zero(t, open, "%s holds money after its kill", one.SessionID)
		require.False(t, booked.After(one.FencedAt), "money of %s moved after the fence", one.SessionID)
		// By the processes: the machine that the receipt says is gone, is.
		if one.Sandbox.ID != "" {
			pid := reapedProcess.FindStringSubmatch(one.Sandbox.Detail)
			require.NotNil(t, pid, one.Sandbox.Detail)
			require.NoDirExists(t, "/proc/"+pid[1])
			if one.Sandbox.At.After(gone) {
				gone = one.Sandbox.At
			}
		}
	}
	// By the provider's own log: each call of the tree is a step that was begun before the kill, and none came twice.
	p.mu.Lock()
	require.Empty(t, p.again)
	p.mu.Unlock()
	for _, s := range []string{streaming, deep} {
		steps := find(journalOf(t, a, s), "step.intended")
		require.Len(t, steps, 1)
		require.Equal(t, keys[s], steps[0].EffectKey)
	}
	require.Equal(t, "running", func() string {
		var s session
		a.Call(http.MethodGet, "/v1/sessions/"+stranger, nil, &s)
		return s.Status
	}())

	again, repeated := a.Raw(http.MethodPost, "/v1/sessions/"+root+"/kill", nil)
	require.Equal(t, http.StatusOK, again)
	require.JSONEq(t, string(raw), string(repeated), "killing twice gives the same receipt")
	verifies(t, a, root, raw)
	t.Logf("kill under load: fenced %s after it was asked for, the last outside effect after %s, the last sandbox gone after %s, answered after %s",
		r.FencedAt.Sub(asked).Round(time.Millisecond), last.Sub(asked).Round(time.Millisecond), gone.Sub(asked).Round(time.Millisecond), answered.Sub(asked).Round(time.Millisecond))
}

// verifies checks a receipt as somebody does who has it and the key document, and no way to the instance.
func verifies(t *testing.T, a *instance.Account, root string, raw []byte) {
	t.Helper()
	_, jwks := a.Raw(http.MethodGet, "/.well-known/jwks.json", nil)
	_, err := receipt.Verify(raw, jwks)
	require.NoError(t, err)
	dir := t.TempDir()
	kept, keys, forged := filepath.Join(dir, "receipt.json"), filepath.Join(dir, "jwks.json"), filepath.Join(dir, "forged.json")
	require.NoError(t, os.WriteFile(kept, raw, 0o600))
	require.NoError(t, os.WriteFile(keys, jwks, 0o600))
	require.NoError(t, os.WriteFile(forged, bytes.Replace(raw, []byte("the test says so"), []byte("nobody said so"), 1), 0o600))
	verify := func(file string) (string, error) {
		cmd := exec.CommandContext(t.Context(), instance.Build(t), "receipt", "verify", file, "--jwks", keys)
		cmd.Env = []string{"HOME=" + dir, "AMBIT_API_URL=http://127.0.0.1:1"} // whoever asked a server would fail
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	said, err := verify(kept)
	require.NoError(t, err, said)
	require.Contains(t, said, "session "+root+" was killed")
	require.Contains(t, said, "Stopped in the same commit, below it: 3 sessions")
	said, err = verify(forged)
	require.Error(t, err)
	require.Contains(t, said, "reason is not what the instance signed")
	require.NotContains(t, said, "genuine")
}

// TestEverythingIsStoppedAndAKilledServerGoesOnWithIt gives the order to stop all, and kills the server in the middle of it.
func TestEverythingIsStoppedAndAKilledServerGoesOnWithIt(t *testing.T) {
	p := newTalker(t)
	i := instance.Start(t, p.environment(t)...)
	a := i.Account("fire")
	var all []string
	for n := range 12 {
		all = append(all, under(t, a, "", "openai/talker", fmt.Sprintf("Talk for ever, number %d.", n)))
	}
	tool := under(t, a, "", "ambit/scripted", "```bash\nsleep 600\n```", "bash")
	all = append(all, tool)
	require.Eventually(t, func() bool { return len(find(journalOf(t, a, tool), "sandbox.started")) == 1 }, time.Minute, 50*time.Millisecond)

	answer := make(chan struct{})
	go func() {
		defer close(answer)
		_, _, _ = a.Try(http.MethodPost, "/v1/projects/"+string(a.Project)+"/stop", map[string]any{"reason": "a fire"})
	}()
	// As soon as the order stands the server dies; how many sessions it has reached by then is chance.
	require.Eventually(t, func() bool {
		status, body, err := a.Try(http.MethodGet, "/v1/stops", nil)
		return err == nil && status == http.StatusOK && bytes.Contains(body, []byte(`"sto_`))
	}, time.Minute, time.Millisecond)
	i.Kill(server)
	<-answer

	var order struct {
		Data []struct {
			ID      string          `json:"id"`
			Status  string          `json:"status"`
			Stopped int             `json:"sessions_stopped"`
			Receipt json.RawMessage `json:"receipt"`
		} `json:"data"`
	}
	require.Eventually(t, func() bool {
		status, body, err := a.Try(http.MethodGet, "/v1/stops", nil)
		return err == nil && status == http.StatusOK && json.Unmarshal(body, &order) == nil && len(order.Data) == 1 && order.Data[0].Status == "complete"
	}, 3*time.Minute, 200*time.Millisecond, "nobody took the order up")
	require.Equal(t, len(all), order.Data[0].Stopped)
	for _, s := range all {
		got := finished(t, a, s, time.Second)
		require.Equal(t, "killed", got.StopReason.Type)
		_, _, open := ledgerOf(t, a, s)
		require.Zero(t, open)
	}
	_, jwks := a.Raw(http.MethodGet, "/.well-known/jwks.json", nil)
	_, err := receipt.Verify(order.Data[0].Receipt, jwks)
	require.NoError(t, err)
	// What is asked for now begins.
	done := under(t, a, "", "openai/talker", "hello")
	require.Equal(t, "end_turn", finished(t, a, done, time.Minute).StopReason.Type)

	// With nobody in the way the answer to the order is the receipt, its machine gone.
	tool = under(t, a, "", "ambit/scripted", "```bash\nsleep 600\n```", "bash")
	require.Eventually(t, func() bool { return len(find(journalOf(t, a, tool), "sandbox.started")) == 1 }, time.Minute, 50*time.Millisecond)
	asked := time.Now()
	status, raw := a.Raw(http.MethodPost, "/v1/projects/"+string(a.Project)+"/stop", nil)
	require.Equal(t, http.StatusOK, status, string(raw))
	p2, err := receipt.Verify(raw, jwks)
	require.NoError(t, err)
	require.Contains(t, string(p2.Claims), tool)
	require.Contains(t, string(p2.Claims), `"gone_at":"20`)
	t.Logf("a project with a running tool is stopped, its sandbox gone and the receipt signed, %s after the order", time.Since(asked).Round(time.Millisecond))
}
