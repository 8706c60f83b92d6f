package hostile

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/app/server"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/test/instance"
	"ambit.dev/ambit/test/provider"
)

// court is an instance on which a hostile model meets people who decide: an asker, whose agents are hostile, an approver, and others.
type court struct {
	*stage

	// trusted has no rule on what came from outside; strict has it, as every organisation has from the start.
	trusted, strict *office
	stranger        *instance.Account
}

// office is an organisation with the keys of its people.
type office struct {
	// asker's key is a project's, admin's one of the whole organisation: both are of the person who asks.
	asker, admin *instance.Account
	// approver may decide; viewer is a member whom no rule names; limited is the approver's key without the permission; gone was removed.
	approver, viewer, limited, gone *instance.Account
}

func newCourt(t *testing.T) *court {
	t.Helper()
	s := &stage{provider: provider.New(t), open: newOutside(t), shut: newOutside(t)}
	s.instance = instance.Start(t, append(s.provider.Environment(t,
		fmt.Sprintf(`{"kind":"tool","ref":"builtin/http_request","effective_from":"2026-01-01T00:00:00Z","nanos":{"call":%d}}`, requestPrice),
	), "AMBIT_EGRESS_ALLOW_LOOPBACK=true")...)
	var err error
	s.owner, err = pgxpool.New(t.Context(), string(s.instance.Config.PostgresURL))
	require.NoError(t, err)
	t.Cleanup(s.owner.Close)
	c := &court{stage: s, stranger: s.instance.Account("stranger")}
	c.trusted, c.strict = c.office(t, "trusted"), c.office(t, "strict")
	s.trusting(t, c.trusted.asker)
	return c
}

func (c *court) office(t *testing.T, name string) *office {
	t.Helper()
	o := &office{asker: c.instance.Account(name)}
	o.admin = c.wholeKey(t, o.asker)
	o.approver = c.member(t, o.asker, name+"-approver", tenants.RoleAdmin, "*")
	o.limited = c.keyOf(t, o.approver, o.asker, "approvals:read")
	o.viewer = c.member(t, o.asker, name+"-viewer", tenants.RoleViewer, "*")
	o.gone = c.member(t, o.asker, name+"-gone", tenants.RoleAdmin, "*")
	_, err := c.owner.Exec(t.Context(), `DELETE FROM members WHERE org_id = $1 AND user_id = (SELECT user_id FROM members m JOIN users u ON u.id = m.user_id WHERE m.org_id = $1 AND u.email = $2)`, string(o.asker.Org), o.gone.Email)
	require.NoError(t, err)
	return o
}

// member makes somebody a member, with a key of the whole organisation.
func (c *court) member(t *testing.T, of *instance.Account, name string, role tenants.Role, scope string) *instance.Account {
	t.Helper()
	person := c.instance.Account(name)
	_, err := c.owner.Exec(t.Context(), `INSERT INTO members (org_id, id, user_id, role, created_at) SELECT $1, $2, id, $3, now() FROM users WHERE email = $4`,
		string(of.Org), string(id.New[id.Member]()), string(role), person.Email)
	require.NoError(t, err)
	return c.keyOf(t, person, of, scope)
}

func (c *court) keyOf(t *testing.T, person, of *instance.Account, scope string) *instance.Account {
	t.Helper()
	d, closing, err := server.OpenTenants(t.Context(), c.instance.Config, server.NewLogger(c.instance.Config, testWriter{}))
	require.NoError(t, err)
	defer closing()
	out := *person
	out.Org, out.Project = of.Org, of.Project
	var user, role string
	require.NoError(t, c.owner.QueryRow(t.Context(), `SELECT m.user_id, m.role FROM members m JOIN users u ON u.id = m.user_id WHERE m.org_id = $1 AND u.email = $2`, string(of.Org), person.Email).Scan(&user, &role))
	// A key has no more scopes than its maker may give, so an owner's hand makes it for the person.
	by := principal.Principal{Kind: principal.User, ID: user, Org: of.Org, Role: string(tenants.RoleOwner)}
	require.NoError(t, d.DB.InTx(t.Context(), of.Org, func(tx pgx.Tx) (err error) {
		_, out.Key, err = d.Tenants.CreateKeyTx(t.Context(), tx, by, tenants.CreateKey{Name: "person", Scopes: []string{scope}})
		return err
	}))
	return &out
}

type testWriter struct{}

func (testWriter) Write(p []byte) (int, error) { return len(p), nil }

// question is an approval as the API shows it.
type question struct {
	ID, Digest, Status, Said string
	Arguments                struct{ URL, Method, Body string }
	Read                     []struct{ Excerpt string }
}

// person decides on a question: approve, refuse, or nothing. n counts the questions of a scene.
type person func(x *trial, q question, n int) string

// trial is one scene before a person: an agent, its sessions, and what reached the server.
type trial struct {
	*court

	t       *testing.T
	in      *office
	tag     string
	agents  []string
	session string
	asked   int
	stop    string
}

func (x *trial) url(rest string) string {
	return "http://127.0.0.1:" + x.open.port + "/" + x.tag + "/" + rest
}

func (x *trial) good() string { return x.url("good") }

// agent makes a further agent of the scene.
func (x *trial) agent() string {
	x.t.Helper()
	status, raw := x.in.asker.Raw(http.MethodPost, "/v1/agents", map[string]any{
		"name": fmt.Sprintf("%s-%d", x.tag, len(x.agents)), "model": "openai/parrot", "tools": []string{"http_request"}, "max_tokens": 64,
		"network": map[string]any{"allowed_hosts": []string{"127.0.0.1:" + x.open.port, "127.0.0.2:" + x.open.port}},
	})
	require.Equal(x.t, http.StatusCreated, status, "%s", raw)
	var made struct{ ID string }
	require.NoError(x.t, json.Unmarshal(raw, &made))
	x.agents = append(x.agents, made.ID)
	return made.ID
}

// rule asks people about what it selects of an agent.
func (x *trial) rule(agent string, of map[string]any) {
	x.t.Helper()
	r := map[string]any{"name": "Rule of " + x.tag, "subject": agent, "tool": "http_request", "stages": []map[string]any{{"roles": []string{"admin"}, "within_seconds": 600}}}
	for k, v := range of {
		r[k] = v
	}
	status, raw := x.in.admin.Raw(http.MethodPost, "/v1/approval_rules", r)
	require.Equal(x.t, http.StatusCreated, status, "%s", raw)
}

// begin starts a session of the agent on a script of its own.
func (x *trial) begin(agent, script string, turns ...provider.Turn) {
	x.t.Helper()
	x.provider.Dialogue(script, turns...)
	status, raw := x.in.asker.Raw(http.MethodPost, "/v1/invoke", map[string]any{"agent": agent, "input": provider.Begin(script), "mode": "async"})
	require.Equal(x.t, http.StatusAccepted, status, "%s", raw)
	var made struct {
		Session string `json:"session_id"`
	}
	require.NoError(x.t, json.Unmarshal(raw, &made))
	x.session = made.Session
}

// rest waits until the session is at rest.
func (x *trial) rest() string {
	x.t.Helper()
	var s struct {
		Status     string          `json:"status"`
		StopReason json.RawMessage `json:"stop_reason"`
	}
	require.Eventually(x.t, func() bool {
		code, body, err := x.in.asker.Try(http.MethodGet, "/v1/sessions/"+x.session, nil)
		return err == nil && code == http.StatusOK && json.Unmarshal(body, &s) == nil && (s.Status == "idle" || s.Status == "terminated")
	}, 2*time.Minute, 30*time.Millisecond, "the session %s is stuck", x.session)
	x.stop = string(s.StopReason)
	return x.stop
}

// pending are the questions of the session that wait.
func (x *trial) pending() []question {
	x.t.Helper()
	var page struct{ Data []question }
	require.Equal(x.t, http.StatusOK, x.in.approver.Call(http.MethodGet, "/v1/approvals?statuses[]=pending&session_id="+x.session, nil, &page))
	return page.Data
}

// decide posts a decision with somebody's key, and returns the status of the answer.
func (x *trial) decide(by *instance.Account, q question, verb string) int {
	x.t.Helper()
	status, _ := by.Raw(http.MethodPost, "/v1/approvals/"+q.ID+"/"+verb, map[string]any{"digest": q.Digest, "reason": "looked at"})
	return status
}

// meet lets the person decide until the session asks nothing more, or the person leaves a question open.
func (x *trial) meet(p person) {
	x.t.Helper()
	for range 30 {
		if !strings.Contains(x.rest(), "requires_action") {
			return
		}
		for _, q := range x.pending() {
			verb := p(x, q, x.asked)
			x.asked++
			if verb == "" {
				return
			}
			require.Equal(x.t, http.StatusOK, x.decide(x.in.approver, q, verb))
		}
	}
}

// reached counts the requests of the scene whose path has the part.
func (x *trial) reached(part string) int { return len(x.open.seen("/"+x.tag+"/", "/"+part+"/")) }

// used counts the approvals that the scene's agents have used up.
func (x *trial) used() int {
	x.t.Helper()
	return int(x.number(x.t, `SELECT count(*) FROM approvals WHERE agent_id = ANY ($1) AND status = 'used'`, x.agents))
}

// careful approves exactly what was agreed, as a person does who reads what is shown, and refuses all else.
func careful(x *trial, q question, _ int) string {
	if q.Arguments.URL == x.good() && (q.Arguments.Body == "" || q.Arguments.Body == "x") && q.Arguments.Method != http.MethodDelete {
		return "approve"
	}
	return "refuse"
}

// once approves the first thing that was agreed, and refuses what follows.
func once(x *trial, q question, n int) string {
	if n > 0 {
		return "refuse"
	}
	return careful(x, q, n)
}

func never(*trial, question, int) string { return "refuse" }
func away(*trial, question, int) string  { return "" }
