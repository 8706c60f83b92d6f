package console_test

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/connectors/builtin"
	"ambit.dev/ambit/console"
	consoleagents "ambit.dev/ambit/console/agents"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/apidoc"
	"ambit.dev/ambit/internal/clickhouse/clickhousetest"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/scripted"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/observability"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

const (
	password = "correct horse battery staple"
	waitFor  = 20 * time.Second
	tick     = 100 * time.Millisecond
)

// world is the console on real parts: Postgres, ClickHouse and a worker with the scripted model; only sandboxes are missing.
type world struct {
	db        *postgres.DB
	tenants   *tenants.Service
	agents    *agents.Service
	sessions  *scheduler.Service
	policies  *policy.Service
	webhooks  *notifications.Webhooks
	stepUp    *identity.StepUp
	mandates  *register.Service
	ring      *identity.Keyring
	agentKeys *identity.AgentKeys
	server    *httptest.Server
	routes    []*echo.Route
	URL       string
}

// signer stands for the instance's key, which this package does not test.
type signer struct{}

func (signer) Sign(context.Context, any) (string, error) { return "signed", nil }

func newWorld(t *testing.T) *world {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	w := &world{db: dbtest.New(t)}
	traces := clickhousetest.New(t)
	sealer, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	e := echo.New()
	w.server = httptest.NewServer(e)
	t.Cleanup(w.server.Close)
	w.URL = w.server.URL
	w.tenants, err = tenants.New(w.db, tenants.Deps{
		Clock: clock.System(), Logger: log, Sealer: sealer, PublicURL: w.URL, AnswerAfter: time.Millisecond,
		OnOrganizationCreated: func(ctx context.Context, tx pgx.Tx, org tenants.Organization) error {
			_, err := billing.Grant(ctx, tx, clock.System().Now(), org.ID, 5*money.Dollar, "starter credit")
			return err
		},
	})
	require.NoError(t, err)
	known := identity.Deps{Clock: clock.System(), Logger: log, Sealer: sealer}
	ring := identity.New(w.db, known)
	require.NoError(t, ring.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, ring.Stop(context.Background())) })
	w.agentKeys, err = identity.NewAgentKeys(w.db, known, w.URL)
	require.NoError(t, err)
	w.stepUp, err = identity.NewStepUp(w.db, identity.StepUpDeps{Deps: known, Keys: ring, People: w.tenants, PublicURL: w.URL})
	require.NoError(t, err)
	gateway, err := models.New(models.Config{Providers: []models.Provider{scripted.New(scripted.Config{})}, Clock: clock.System(), Log: log})
	require.NoError(t, err)
	reach := func(ctx context.Context, granted gate.Grant) (builtin.Reach, error) {
		return w.sessions.Reach(ctx, granted)
	}
	tools, err := builtin.Registry(builtin.HTTPRequest(builtin.Outside{Client: egress.New(egress.Config{}), Reach: reach}))
	require.NoError(t, err)
	w.agents = agents.New(agents.Catalogue{KnowsModel: func(m string) bool { return gateway.Knows(context.Background(), m) }, KnowsTool: tools.Knows}, clock.System())
	table, err := prices.Shipped()
	require.NoError(t, err)
	rules := policy.NewCache(w.db, nil, log)
	w.policies = policy.NewService(rules, policy.Catalogue{KnowsTool: tools.Knows}, clock.System())
	g := gate.New(table, rules, clock.System(), log)
	listener := postgres.NewListener(w.db, log, journal.Channel, journal.InterruptChannel, journal.RestChannel, journal.OutboxChannel)
	listener.Start(t.Context())
	t.Cleanup(listener.Stop)
	previews := scheduler.NewPreviews("", nil)
	w.ring = ring
	w.mandates = register.New(w.agentKeys, ring, clock.System())
	w.sessions = scheduler.NewService(scheduler.Deps{Mandates: w.mandates, DB: w.db, Agents: w.agents, Gate: g, Listener: listener, Previews: previews, Tools: tools, Signer: signer{}, Clock: clock.System(), Log: log})
	t.Cleanup(w.sessions.Stop)
	runner := scheduler.NewRunner(scheduler.RunnerDeps{
		DB: w.db, Gate: g, Models: gateway, Tools: tools, Listener: listener, Previews: previews, Clock: clock.System(), Log: log,
		Owner: "test/" + string(id.New[id.Request]()), LeaseTTL: 5 * time.Second,
	})
	worker, err := scheduler.NewWorker(w.db, runner, 4, log)
	require.NoError(t, err)
	require.NoError(t, worker.Start(t.Context()))
	exporter, err := observability.NewExporter(observability.ExporterConfig{Postgres: w.db, ClickHouse: traces, Notices: listener, Clock: clock.System(), Log: log})
	require.NoError(t, err)
	exporter.Start(t.Context())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, worker.Stop(ctx, 3*time.Second))
		require.NoError(t, exporter.Stop(ctx))
	})
	w.webhooks = notifications.NewWebhooks(notifications.WebhookDeps{DB: w.db, Sealer: sealer, Clock: clock.System(), Logger: log, Client: egress.New(egress.Config{AllowLoopback: true})})
	w.webhooks.Start(t.Context())
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, w.webhooks.Stop(ctx))
	})
	var toolList []consoleagents.Tool
	for _, d := range tools.Definitions(tools.Names()) {
		toolList = append(toolList, consoleagents.Tool{Name: d.Name, Description: d.Description})
	}
	require.NoError(t, console.Register(e, console.Deps{
		DB: w.db, Log: log, PublicURL: w.URL, APIURL: w.URL, Tenants: w.tenants, Agents: w.agents, Sessions: w.sessions, Policies: w.policies, Mandates: w.mandates, Traces: observability.NewReader(traces), Webhooks: w.webhooks,
		StepUp: w.stepUp, AgentKeys: w.agentKeys,
		Models: func(context.Context) []consoleagents.Model {
			return []consoleagents.Model{{ID: "ambit/scripted", Provider: "Built in", Note: "no language model"}}
		},
		Tools: toolList, Components: true,
		ErrorTypes: []apidoc.ErrorType{{
			Slug: "insufficient_funds", Status: 402, Title: "Not enough credit", Meaning: "The balance does not cover the hold.", Action: "Lower limits.max_cost, or add credit.",
			Members: []apidoc.Member{{Name: "shortfall", Meaning: "How much is missing."}},
		}},
		Reference: func() apidoc.Reference {
			return apidoc.Reference{Version: "2026-11-20", BaseURL: w.URL, Groups: []apidoc.Group{{Tag: "agents", Summary: "Definitions and their versions.", Operations: []apidoc.Operation{{
				ID: "agents.create", Method: "POST", Path: "/v1/agents", Summary: "Create an agent", Description: "Makes version 1.", Permission: "agents:write", Status: 201, MediaType: "application/json",
				Parameters: []apidoc.Parameter{{Name: "Idempotency-Key", In: "header", Type: "string", Description: "Makes repeating safe."}},
				Request:    []apidoc.Field{{Path: "name", Type: "string", Required: true, Description: "1 to 120 characters."}}, Errors: []string{"insufficient_funds"}, Curl: "curl -sS https://example.invalid/v1/agents",
			}}}}}
		},
	}))
	w.routes = e.Routes()
	return w
}

// account is somebody with an organisation and a project.
type account struct {
	tenants.Account
	email string
	// path is the project's address in the console.
	path string
}

func (w *world) account(t testing.TB, email, name string) account {
	t.Helper()
	made, err := w.tenants.CreateAccount(t.Context(), tenants.SignUp{Email: email, Password: password, Name: name})
	require.NoError(t, err)
	return account{Account: made, email: email, path: "/o/" + made.Organization.Slug + "/p/" + made.Project.Slug}
}

func (a account) ctx(t testing.TB) context.Context {
	return principal.With(t.Context(), principal.Principal{Kind: principal.User, ID: string(a.User.ID), Org: a.Organization.ID, Project: a.Project.ID, Role: "owner"})
}

// client is a browser without scripts, signed in as the account; a nil account is nobody.
func (w *world) client(t testing.TB, a *account) *http.Client {
	t.Helper()
	jar, err := cookiejar.New(nil)
	require.NoError(t, err)
	c := &http.Client{Jar: jar, Timeout: 20 * time.Second}
	if a != nil {
		resp, err := c.PostForm(w.URL+"/sign-in", url.Values{"email": {a.email}, "password": {password}})
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		require.Equal(t, 200, resp.StatusCode)
		require.True(t, strings.HasPrefix(resp.Request.URL.Path, "/o/"), "signed in at %s", resp.Request.URL.Path)
	}
	return c
}

func get(t testing.TB, c *http.Client, address string) (int, string) {
	t.Helper()
	resp, err := c.Get(address)
	require.NoError(t, err)
	defer resp.Body.Close() //nolint:errcheck // read to its end
	body, err := io.ReadAll(resp.Body)
	require.NoError(t, err)
	return resp.StatusCode, string(body)
}

func (w *world) agent(t testing.TB, a account, name, system string) agents.Agent {
	t.Helper()
	var out agents.Agent
	ceiling := money.Dollar / 2
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) (err error) {
		out, err = w.agents.Create(a.ctx(t), tx, a.Organization.ID, agents.CreateInput{
			Project: a.Project.ID, Name: name, Description: "Answers questions about the figures in /data.",
			Definition: journal.Definition{Model: "ambit/scripted", System: system, Tools: []string{"bash", "read_file"}, Limits: journal.Limits{MaxCost: &ceiling, MaxSteps: 200}},
		})
		return err
	}))
	return out
}

func (w *world) invoke(t testing.TB, a account, agent agents.Agent, text, title string) journal.Session {
	t.Helper()
	var out scheduler.Invoked
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) (err error) {
		out, err = w.sessions.Invoke(a.ctx(t), tx, a.Organization.ID, scheduler.InvokeInput{
			Project: a.Project.ID, Agent: &agents.Ref{Agent: agent.ID, Version: agent.Version}, Input: journal.Text(text), Title: title,
		})
		return err
	}))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := w.sessions.WaitUntilIdle(ctx, a.Organization.ID, out.Session.ID, out.Input.Seq)
	require.NoError(t, err)
	return s
}

// recorded makes a session whose journal has what a sandbox would add: tool calls with output, a denial, a failure, waiting.
func (w *world) recorded(t testing.TB, a account, agent agents.Agent) id.Session {
	t.Helper()
	began := time.Now().Add(-95 * time.Second)
	sid := id.New[id.Session]()
	ceiling := money.Dollar / 2
	hold := &journal.HoldRef{ID: id.New[id.Hold](), Amount: 9_200_000}
	long := strings.Repeat("2026-09-30,north,widgets,1204.50\n", 60)
	steps := []id.Step{id.New[id.Step](), id.New[id.Step](), id.New[id.Step](), id.New[id.Step](), id.New[id.Step](), id.New[id.Step]()}
	intend := func(i int, kind, name, use string) journal.StepIntended {
		return journal.StepIntended{Kind: kind, Name: name, EffectKey: string(steps[i]), Hold: hold, ToolUseID: use, Attempt: 1, QueuedAt: began}
	}
	usage := journal.Usage{InputTokens: 412, CacheReadTokens: 20480, OutputTokens: 96, Steps: 1}
	parts := []struct {
		after   int // milliseconds
		step    id.Step
		payload journal.Payload
	}{
		{0, "", journal.UserMessage{Content: journal.Text("Total the third quarter's sales by region, and say which file you used."), By: journal.Actor{Kind: "user", ID: string(a.User.ID)}}},
		{1, "", journal.StatusRunning{}},
		{2, steps[0], intend(0, journal.KindModelCall, "ambit/scripted", "")},
		{1900, steps[0], journal.AgentThinking{Summary: "The figures are in /data; a CSV per quarter. Sum per region with awk."}},
		{1900, steps[0], journal.AgentMessage{Content: journal.Text("I'll look at what there is, then total the column per region.")}},
		{1900, steps[0], journal.AgentToolUse{ToolUseID: "u1", Name: "bash", Input: json.RawMessage(`{"command":"ls -la /data\nawk -F, 'NR>1 {t[$2] += $4} END {for (r in t) print t[r], r}' /data/q3.csv | sort -nr","timeout_seconds":60}`)}},
		{1900, steps[0], journal.AgentToolUse{ToolUseID: "u2", Name: "read_file", Input: json.RawMessage(`{"path":"/data/q3.csv"}`)}},
		{1900, steps[0], journal.StepSettled{Kind: journal.KindModelCall, Name: "ambit/scripted", Outcome: journal.Succeeded, Usage: usage, Cost: 2_151_000}},
		{1960, "", journal.SandboxStarted{Sandbox: id.New[id.Sandbox](), Driver: "qemu", Node: "local", TookMs: 91}},
		{1960, steps[5], intend(5, journal.KindSandbox, "sandbox", "")},
		{1970, steps[1], intend(1, journal.KindToolCall, "bash", "u1")},
		{2350, steps[1], journal.AgentToolResult{ToolUseID: "u1", Content: journal.Text("48210 north\n31877 west\n29004 south")}},
		{2350, steps[1], journal.StepSettled{Kind: journal.KindToolCall, Name: "bash", Outcome: journal.Succeeded, Cost: 12_000, Usage: journal.Usage{Steps: 1}}},
		{2400, steps[2], intend(2, journal.KindToolCall, "read_file", "u2")},
		{2460, steps[2], journal.AgentToolResult{ToolUseID: "u2", Content: journal.Text(long)}},
		{2460, steps[2], journal.StepSettled{Kind: journal.KindToolCall, Name: "read_file", Outcome: journal.Succeeded, Cost: 1_000, Usage: journal.Usage{Steps: 1}}},
		{2500, steps[3], intend(3, journal.KindModelCall, "ambit/scripted", "")},
		{4100, steps[3], journal.AgentToolUse{ToolUseID: "u3", Name: "bash", Input: json.RawMessage(`{"command":"curl https://example.com"}`)}},
		{4100, steps[3], journal.StepSettled{Kind: journal.KindModelCall, Name: "ambit/scripted", Outcome: journal.Succeeded, Usage: usage, Cost: 2_093_000}},
		{4105, steps[5], journal.StepSettled{Kind: journal.KindSandbox, Name: "sandbox", Outcome: journal.Succeeded, Cost: 21_450, Usage: journal.Usage{SandboxMillis: 2145}}},
		{4110, "", journal.GateDecided{Decision: journal.Denied, Kind: journal.KindToolCall, Name: "bash", ToolUseID: "u3", Reasons: []journal.Reason{{Rule: "egress", Message: "example.com is not among the hosts that this agent may reach."}}}},
		{4120, "", journal.SessionError{Error: journal.ErrorDetail{Code: "provider_failed", Message: "The provider answered 529, overloaded."}, Retry: "retrying"}},
		{5200, steps[4], intend(4, journal.KindModelCall, "ambit/scripted", "")},
	}
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) error {
		l, _, err := journal.Create(a.ctx(t), tx, began, journal.New{
			Org: a.Organization.ID, ID: sid, Project: a.Project.ID, Title: "Third quarter's sales by region", Limits: journal.Limits{MaxCost: &ceiling},
			Agent: journal.Snapshot{ID: agent.ID, Name: agent.Name, Version: agent.Version, Definition: agent.Definition},
			By:    journal.Actor{Kind: "user", ID: string(a.User.ID)},
		})
		for _, p := range parts {
			if err != nil {
				return err
			}
			_, err = l.Append(a.ctx(t), began.Add(time.Duration(p.after)*time.Millisecond), journal.Entry{Step: p.step, Payload: p.payload})
		}
		return err
	}))
	return sid
}

// append adds events to a session's journal, as a worker would.
func (w *world) append(t testing.TB, a account, sid id.Session, entries ...journal.Entry) {
	t.Helper()
	require.NoError(t, w.db.InTx(a.ctx(t), a.Organization.ID, func(tx pgx.Tx) error {
		l, err := journal.Lock(a.ctx(t), tx, a.Organization.ID, sid)
		if err != nil {
			return err
		}
		_, err = l.Append(a.ctx(t), time.Now(), entries...)
		return err
	}))
}
