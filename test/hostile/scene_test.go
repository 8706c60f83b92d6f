package hostile

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/test/provider"
)

// may is what an agent is allowed.
type may struct {
	// model is openai/parrot where it is empty.
	model        string
	tools, hosts []string
	rules        []rule
	limits       map[string]any
	// budget is a limit in nano-dollars of all that the agent spends; zero is none.
	budget int64
}

// rule is a rule as the API takes it, its subject left out.
type rule map[string]any

func deny(of rule) rule  { return with(of, "deny") }
func allow(of rule) rule { return with(of, "allow") }

func with(of rule, effect string) rule {
	r := rule{"effect": effect, "kind": "tool_call"}
	for k, v := range of {
		r[k] = v
	}
	return r
}

func dollars(nanos int64) map[string]any {
	return map[string]any{"amount": fmt.Sprintf("%d.%09d", nanos/1_000_000_000, nanos%1_000_000_000), "currency": "USD"}
}

// scene is one session of one agent, and what is seen of it.
type scene struct {
	*stage

	t *testing.T
	// tag names the scene's script and is in the path of each of its requests.
	tag     string
	agent   string
	session string
	status  string
	stop    string // the stop reason as it is written
	events  []event
	hold    chan struct{} // what an answer can be kept back with
}

type event struct {
	Seq       int64  `json:"seq"`
	Type      string `json:"type"`
	Step      string `json:"step_id"`
	Kind      string `json:"kind"`
	Name      string `json:"name"`
	Outcome   string `json:"outcome"`
	Decision  string `json:"decision"`
	EffectKey string `json:"effect_key"`
	ToolUseID string `json:"tool_use_id"`
	IsError   bool   `json:"is_error"`
	Reasons   []struct {
		Rule    string `json:"rule"`
		Message string `json:"message"`
	} `json:"reasons"`
	Content []struct {
		Text string `json:"text"`
	} `json:"content"`
	StopReason json.RawMessage `json:"stop_reason"`
	Error      json.RawMessage `json:"error"`
}

func (e event) text() (s string) {
	for _, c := range e.Content {
		s += c.Text
	}
	return s
}

// newScene makes an agent that may do what is said, with its rules and its budget.
func (s *stage) newScene(t *testing.T, tag string, m may) *scene {
	t.Helper()
	x := &scene{stage: s, t: t, tag: tag, hold: make(chan struct{})}
	if m.model == "" {
		m.model = "openai/parrot"
	}
	body := map[string]any{"name": tag, "model": m.model, "tools": m.tools, "max_tokens": 64}
	if len(m.hosts) > 0 {
		body["network"] = map[string]any{"allowed_hosts": m.hosts}
	}
	if m.limits != nil {
		body["limits"] = m.limits
	}
	status, raw := s.account.Raw(http.MethodPost, "/v1/agents", body)
	require.Equal(t, http.StatusCreated, status, "%s", raw)
	var made struct {
		ID string `json:"id"`
	}
	require.NoError(t, json.Unmarshal(raw, &made))
	x.agent = made.ID
	for _, r := range m.rules {
		x.rule(r)
	}
	if m.budget > 0 {
		x.budget(m.budget)
	}
	return x
}

func (x *scene) rule(r rule) {
	x.t.Helper()
	r["subject"] = x.agent
	status, raw := x.admin.Raw(http.MethodPost, "/v1/permissions", r)
	require.Equal(x.t, http.StatusCreated, status, "%s", raw)
}

func (x *scene) budget(limit int64) {
	x.t.Helper()
	status, raw := x.admin.Raw(http.MethodPost, "/v1/budgets", map[string]any{
		"name": x.tag, "scope": map[string]any{"type": "agent", "id": x.agent}, "limit": dollars(limit), "period": "total",
	})
	require.Equal(x.t, http.StatusCreated, status, "%s", raw)
}

// begin starts a session of the scene's agent on a script.
func (x *scene) begin(script string) string {
	x.t.Helper()
	status, raw := x.account.Raw(http.MethodPost, "/v1/invoke", map[string]any{"agent": x.agent, "input": provider.Begin(script), "mode": "async"})
	require.Equal(x.t, http.StatusAccepted, status, "%s", raw)
	var made struct {
		Session string `json:"session_id"`
	}
	require.NoError(x.t, json.Unmarshal(raw, &made))
	return made.Session
}

// rest waits until a session is at rest.
func (x *scene) rest(session string) (status, stop string) {
	x.t.Helper()
	var s struct {
		Status     string          `json:"status"`
		StopReason json.RawMessage `json:"stop_reason"`
	}
	require.Eventually(x.t, func() bool {
		code, body, err := x.account.Try(http.MethodGet, "/v1/sessions/"+session, nil)
		return err == nil && code == http.StatusOK && json.Unmarshal(body, &s) == nil && (s.Status == "idle" || s.Status == "terminated")
	}, 2*time.Minute, 50*time.Millisecond, "the session %s is stuck", session)
	return s.Status, string(s.StopReason)
}

// read waits until the scene's session is at rest, and reads its journal.
func (x *scene) read() {
	x.t.Helper()
	x.status, x.stop = x.rest(x.session)
	x.events = x.journal(x.session)
}

func (x *scene) journal(session string) []event {
	x.t.Helper()
	var page struct {
		Data []event `json:"data"`
	}
	require.Equal(x.t, http.StatusOK, x.account.Call(http.MethodGet, "/v1/sessions/"+session+"/events?limit=1000", nil, &page))
	return page.Data
}

// notOfALiveSandbox is true of a hold that is not for the time of a sandbox that lives.
const notOfALiveSandbox = `NOT EXISTS (SELECT FROM steps p JOIN sandboxes b ON b.org_id = p.org_id AND b.session_id = p.session_id AND b.state <> 'ended'
	WHERE p.org_id = holds.org_id AND p.id = holds.step_id AND p.kind = 'sandbox' AND p.settled_seq IS NULL)`

// sound is what must hold of any session at rest, whatever was done to it: the journal has no gap, each step that was begun was admitted before
// and is settled once under its own key, no tool use has two results, and no money is held but for the time of a sandbox that lives.
func (x *scene) sound(session string, events []event) {
	x.t.Helper()
	admitted, intended, settled, results := map[string]bool{}, map[string]bool{}, map[string]bool{}, map[string]bool{}
	tick := "" // the one that was begun last
	for i, e := range events {
		require.Equal(x.t, int64(i)+1, e.Seq, "a gap or a double in the journal")
		switch e.Type {
		case "gate.decided":
			if e.Decision == "admitted" {
				admitted[e.Step] = true
			} else {
				require.NotEmpty(x.t, e.Reasons, "event %d denies and gives no reason", e.Seq)
			}
		case "step.intended":
			require.True(x.t, admitted[e.Step], "step %s was begun and never admitted", e.Step)
			require.False(x.t, intended[e.Step])
			intended[e.Step] = true
			if e.Kind == "sandbox" {
				require.True(x.t, tick == "" || settled[tick], "the tick %s was begun before the one before it was settled", e.Step)
				tick = e.Step
			}
		case "step.settled":
			require.False(x.t, settled[e.Step])
			settled[e.Step] = true
		case "agent.tool_result":
			require.False(x.t, results[e.ToolUseID], "tool use %s has two results", e.ToolUseID)
			results[e.ToolUseID] = true
		}
	}
	if tick != "" && !settled[tick] { // its sandbox may live on, and its time with it
		delete(intended, tick)
	}
	if x.status != "terminated" { // what a stop cut short is listed on its receipt
		require.Equal(x.t, intended, settled, "every step that was begun is settled")
	}
	require.Eventually(x.t, func() bool {
		return x.number(x.t, `SELECT count(*) FROM holds WHERE session_id = $1 AND state IN ('held', 'unsettled') AND `+notOfALiveSandbox, session) == 0
	}, 10*time.Second, 50*time.Millisecond, "money of %s is held after its end", session)
}

func (x *scene) results() (all []event) {
	for _, e := range x.events {
		if e.Type == "agent.tool_result" {
			all = append(all, e)
		}
	}
	return all
}

// ran counts the tool calls of the name that were begun; "" is any.
func (x *scene) ran(tool string) (n int) {
	for _, e := range x.events {
		if e.Type == "step.intended" && e.Kind == "tool_call" && (tool == "" || e.Name == tool) {
			n++
		}
	}
	return n
}

// content is a file of the session's working directory; "" where there is none.
func (x *scene) content(file string) string {
	x.t.Helper()
	status, body := x.account.Raw(http.MethodGet, "/v1/sessions/"+x.session+"/files/content?path="+url.QueryEscape(file), nil)
	if status != http.StatusOK {
		return ""
	}
	return string(body)
}

// openURL and shutURL are addresses of the two servers, below the scene's own path.
func (x *scene) openURL(rest string) string {
	return "http://127.0.0.1:" + x.open.port + "/" + x.tag + "/" + rest
}

func (x *scene) shutURL(rest string) string {
	return "http://127.0.0.1:" + x.shut.port + "/" + x.tag + "/" + rest
}

// why is where in the journal an attack's reason stands, and what it says.
type why struct {
	event string
	says  *regexp.Regexp
	least int
}

// denied: the gate refused so many proposals for this reason, and the model read it.
func denied(least int, says string) why { return why{"gate.decided", regexp.MustCompile(says), least} }

// answered: so many tool calls were answered with this, and the model read it.
func answered(least int, says string) why {
	return why{"agent.tool_result", regexp.MustCompile(says), least}
}

// stopped: the session ended with this stop reason.
func stopped(says string) why { return why{"stop", regexp.MustCompile(says), 1} }

// failed: a step ended with this error.
func failed(says string) why { return why{"step.settled", regexp.MustCompile(says), 1} }

// given counts how often the reason stands in the journal.
func (x *scene) given(w why) (n int) {
	for _, e := range x.events {
		switch {
		case e.Type != w.event:
		case e.Type == "gate.decided" && e.Decision == "denied" && len(e.Reasons) > 0 && w.says.MatchString(e.Reasons[0].Rule+": "+e.Reasons[0].Message):
			n++
		case e.Type == "agent.tool_result" && w.says.MatchString(e.text()):
			n++
		case e.Type == "step.settled" && w.says.Match(e.Error):
			n++
		}
		if w.event == "stop" && (e.Type == "session.status_idle" || e.Type == "session.status_terminated") && w.says.Match(e.StopReason) {
			n++
		}
	}
	return n
}

// told reports whether the model was told as often as the journal says.
func (x *scene) told(w why) bool {
	if w.event != "agent.tool_result" && w.event != "gate.decided" || x.provider.Requests(x.tag) < 2 {
		return true
	}
	n := 0
	for _, said := range x.provider.Told(x.tag) {
		if w.event == "agent.tool_result" && w.says.MatchString(said) || w.event == "gate.decided" && strings.Contains(said, "Denied: ") {
			n++
		}
	}
	return n >= w.least
}
