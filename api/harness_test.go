package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/api"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/httpx"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/idempotency"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/internal/ratelimit"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/scripted"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// rig is an API over real services on a real Postgres. There is no worker: tests write what a worker would, through the journal.
type rig struct {
	t        testing.TB
	db       *postgres.DB
	api      *api.API
	server   *httptest.Server
	clock    *clock.Offset
	tenants  *tenants.Service
	previews *scheduler.Previews
	drain    *httpx.Drain
	log      *logBuffer
	gate     *gate.Gate
	models   *models.Gateway
	keys     *identity.AgentKeys
	listener *postgres.Listener
	logger   *slog.Logger
	// countTokens is given to the worker that startWorker starts.
	countTokens scheduler.CountTokens
	deps        scheduler.Deps
	cfg         api.Config
	stepUp      *identity.StepUp
}

func newRig(t testing.TB, change ...func(*api.Config)) *rig {
	t.Helper()
	ctx := context.Background()
	r := &rig{t: t, db: dbtest.New(t), clock: clock.NewOffset(0), drain: httpx.NewDrain(), log: &logBuffer{}}
	log := slog.New(slog.NewTextHandler(r.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	sealer, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	table, err := prices.Shipped()
	require.NoError(t, err)
	g := gate.New(table, policy.NewCache(r.db, nil, log), r.clock, log)
	r.tenants, err = tenants.New(r.db, tenants.Deps{
		Clock: r.clock, Logger: log, Sealer: sealer, PublicURL: "http://ambit.test",
		OnOrganizationCreated: func(ctx context.Context, tx pgx.Tx, org tenants.Organization) error {
			_, err := billing.Grant(ctx, tx, r.clock.Now(), org.ID, 5*money.Dollar, "starter credit")
			return err
		},
	})
	require.NoError(t, err)
	gateway, err := models.New(models.Config{Providers: []models.Provider{scripted.New(scripted.Config{})}, Clock: r.clock, Log: log})
	require.NoError(t, err)
	catalogue := agents.Catalogue{
		KnowsModel: func(m string) bool { return gateway.Knows(ctx, m) },
		KnowsTool:  func(tool string) bool { return tool == "bash" || tool == "python" },
	}
	ag := agents.New(catalogue, r.clock)
	known := identity.Deps{Clock: r.clock, Logger: log, Sealer: sealer}
	agentKeys, err := identity.NewAgentKeys(r.db, known, "http://ambit.test")
	require.NoError(t, err)
	r.stepUp, err = identity.NewStepUp(r.db, identity.StepUpDeps{Deps: known, Keys: identity.New(r.db, known), People: r.tenants, PublicURL: "https://ambit.test"})
	require.NoError(t, err)
	ag.OnCreate(func(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent) error {
		_, err := agentKeys.AgentKey(ctx, tx, org, identity.OfAgent(agent))
		return err
	})
	listener := postgres.NewListener(r.db, log, journal.Channel, journal.InterruptChannel, journal.RestChannel)
	listener.Start(ctx)
	<-listener.Started()
	r.previews = scheduler.NewPreviews("", nil)
	r.gate, r.models, r.listener, r.logger = g, gateway, listener, log
	r.deps = scheduler.Deps{
		DB: r.db, Agents: ag, Gate: g, Listener: listener, Previews: r.previews, Signer: signer{}, Clock: r.clock, Log: log,
	}
	keys, err := identity.NewAgentKeys(r.db, identity.Deps{Sealer: sealer, Clock: r.clock, Logger: log}, "http://ambit.test")
	require.NoError(t, err)
	r.keys = keys
	mandates := register.New(keys, signer{}, r.clock)
	r.deps.Mandates = mandates
	sessions := scheduler.NewService(r.deps)
	policies := policy.NewService(policy.NewCache(r.db, listener, log), policy.Catalogue{KnowsModel: catalogue.KnowsModel, KnowsTool: catalogue.KnowsTool}, r.clock)
	cfg := api.Config{
		BaseURL: "http://ambit.test", Log: log, Clock: r.clock, DB: r.db, Listener: listener,
		Idempotency: idempotency.NewStore(sealer, r.clock), Drain: r.drain,
		Rates: api.Rates{Requests: ratelimit.Policy{Quota: 1_000_000, Window: time.Minute}},
		Domains: api.Domains{Tenants: r.tenants, Agents: ag, Sessions: sessions, Models: gateway, Prices: table, Policies: policies, Mandates: mandates, Webhooks: notifications.NewWebhooks(notifications.WebhookDeps{
			DB: r.db, Sealer: sealer, Clock: r.clock, Logger: log, Client: egress.New(egress.Config{}),
		}), AgentKeys: agentKeys, StepUp: r.stepUp},
	}
	for _, c := range change {
		c(&cfg)
	}
	r.cfg = cfg
	r.api = api.New(cfg)
	r.server = httptest.NewServer(r.api.Handler())
	t.Cleanup(func() {
		r.drain.Begin()
		r.server.Close()
		http.DefaultClient.CloseIdleConnections()
		listener.Stop()
	})
	return r
}

// signer stands for the instance's key, which this package does not test.
type signer struct{}

func (signer) Sign(context.Context, any) (string, error) { return "signed", nil }

func (signer) SignAs(context.Context, string, any) (string, error) { return "signed", nil }

// logBuffer is a log that handlers write while a test reads it.
type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(b)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// tenant is an organisation with a key that may do everything in its first project, and one of the whole organisation.
type tenant struct {
	*rig
	org     id.Org
	project id.Project
	owner   principal.Principal
	key     string
	orgKey  string
	keyID   id.Key
}

func (r *rig) newTenant(name string) *tenant {
	r.t.Helper()
	ctx := context.Background()
	account, err := r.tenants.CreateAccount(ctx, tenants.SignUp{
		Email: strings.ToLower(name) + "@example.com", Password: "correct horse battery " + name, Name: name, OrganizationName: name,
	})
	require.NoError(r.t, err)
	tn := &tenant{rig: r, org: account.Organization.ID, project: account.Project.ID}
	tn.owner = principal.Principal{Kind: principal.User, ID: string(account.User.ID), Org: tn.org, Role: "owner"}
	tn.key, tn.keyID = tn.newKey(tenants.CreateKey{Name: "all", Project: tn.project, Scopes: []string{"*"}})
	tn.orgKey, _ = tn.newKey(tenants.CreateKey{Name: "organisation", Scopes: []string{"*"}})
	return tn
}

func (tn *tenant) newKey(in tenants.CreateKey) (secret string, key id.Key) {
	tn.t.Helper()
	require.NoError(tn.t, tn.db.InTx(context.Background(), tn.org, func(tx pgx.Tx) error {
		k, s, err := tn.tenants.CreateKeyTx(context.Background(), tx, tn.owner, in)
		secret, key = s, k.ID
		return err
	}))
	return secret, key
}

// reply is an answer, read whole.
type reply struct {
	*http.Response
	raw string
}

func (r reply) into(t testing.TB, out any) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(r.raw), out), r.raw)
}

func (r reply) field(t testing.TB, path string) any {
	t.Helper()
	var v any
	r.into(t, &v)
	for name := range strings.SplitSeq(path, ".") {
		m, ok := v.(map[string]any)
		require.True(t, ok, "%s in %s", path, r.raw)
		v = m[name]
	}
	return v
}

func (r reply) code(t testing.TB) string {
	t.Helper()
	require.Equal(t, "application/problem+json", r.Header.Get("Content-Type"), r.raw)
	c, _ := r.field(t, "code").(string)
	return c
}

// ask sends a request with the tenant's project key. headers are name, value, name, value…
func (tn *tenant) ask(method, path, body string, headers ...string) reply {
	tn.t.Helper()
	return tn.askWith(tn.key, method, path, body, headers...)
}

func (tn *tenant) askWith(key, method, path, body string, headers ...string) reply {
	tn.t.Helper()
	res := tn.begin(context.Background(), key, method, path, body, headers...)
	defer res.Body.Close() //nolint:errcheck // read to its end
	raw, err := io.ReadAll(res.Body)
	require.NoError(tn.t, err)
	return reply{res, string(raw)}
}

func (tn *tenant) begin(ctx context.Context, key, method, path, body string, headers ...string) *http.Response {
	tn.t.Helper()
	var in io.Reader
	if body != "" {
		in = strings.NewReader(body)
	}
	req, err := http.NewRequestWithContext(ctx, method, tn.server.URL+path, in)
	require.NoError(tn.t, err)
	if key != "" {
		req.Header.Set("Authorization", "Bearer "+key)
	}
	if body != "" {
		req.Header.Set("Content-Type", "application/json")
	}
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := http.DefaultClient.Do(req)
	require.NoError(tn.t, err)
	return res
}

// newAgent makes an agent and returns its id.
func (tn *tenant) newAgent(name string) string {
	tn.t.Helper()
	res := tn.ask("POST", "/v1/agents", `{"name":"`+name+`","model":"ambit/scripted","tools":["bash"]}`)
	require.Equal(tn.t, 201, res.StatusCode, res.raw)
	agent, _ := res.field(tn.t, "id").(string)
	return agent
}

// newSession begins a session and returns it as its invoke's answer has it.
func (tn *tenant) newSession(body string) (id.Session, api.InvokeResult) {
	tn.t.Helper()
	if body == "" {
		body = `{"agent":{"model":"ambit/scripted"},"input":"hello","mode":"async"}`
	}
	res := tn.ask("POST", "/v1/invoke", body)
	require.Equal(tn.t, 202, res.StatusCode, res.raw)
	var out api.InvokeResult
	res.into(tn.t, &out)
	return out.SessionID, out
}

// work writes what a worker would.
func (tn *tenant) work(session id.Session, entries ...journal.Entry) []journal.Event {
	tn.t.Helper()
	var events []journal.Event
	ctx := principal.With(context.Background(), principal.NamedSystem("test"))
	require.NoError(tn.t, tn.db.InTx(ctx, tn.org, func(tx pgx.Tx) error {
		l, err := journal.Lock(ctx, tx, tn.org, session)
		if err != nil {
			return err
		}
		events, err = l.Append(ctx, tn.clock.Now(), entries...)
		return err
	}))
	return events
}

// finish answers the session's newest message.
func (tn *tenant) finish(session id.Session, text string) {
	tn.t.Helper()
	var input id.Event
	require.NoError(tn.t, tn.db.InTx(context.Background(), tn.org, func(tx pgx.Tx) error {
		events, err := journal.Events(context.Background(), tx, tn.org, session, journal.EventFilter{Types: []string{"user.message"}, Descending: true, Limit: 1})
		if err == nil {
			input = events[0].ID
		}
		return err
	}))
	tn.work(session,
		journal.Of(journal.StatusRunning{InputEventIDs: []id.Event{input}}),
		journal.Of(journal.AgentMessage{Content: journal.Text(text)}),
		journal.Of(journal.SessionUsage{}),
		journal.Of(journal.StatusIdle{StopReason: journal.StopReason{Type: journal.StopEndTurn}, InputEventIDs: []id.Event{input}}))
}

// allEvents reads the journal from the database.
func (tn *tenant) allEvents(session id.Session) []journal.Event {
	tn.t.Helper()
	var events []journal.Event
	require.NoError(tn.t, tn.db.InTx(context.Background(), tn.org, func(tx pgx.Tx) (err error) {
		events, err = journal.Events(context.Background(), tx, tn.org, session, journal.EventFilter{Limit: 100_000})
		return err
	}))
	return events
}

func (tn *tenant) grant(amount string) {
	tn.t.Helper()
	n, err := money.Parse(amount)
	require.NoError(tn.t, err)
	require.NoError(tn.t, tn.db.InTx(context.Background(), tn.org, func(tx pgx.Tx) error {
		_, err := billing.Grant(context.Background(), tx, tn.clock.Now(), tn.org, n, "test")
		return err
	}))
}

func allScopes(project id.Project) tenants.CreateKey {
	return tenants.CreateKey{Name: "another", Project: project, Scopes: []string{"*"}}
}

// startWorker runs sessions for real, with the scripted model and no tools, until the test ends.
func (r *rig) startWorker() {
	r.t.Helper()
	tools, err := connectors.NewRegistry()
	require.NoError(r.t, err)
	runner := scheduler.NewRunner(scheduler.RunnerDeps{
		DB: r.db, Gate: r.gate, Models: r.models, Tools: tools, Listener: r.listener, Previews: r.previews,
		Clock: r.clock, Log: r.logger, Owner: "test", Metrics: scheduler.NewMetrics(), CountTokens: r.countTokens,
	})
	w, err := scheduler.NewWorker(r.db, runner, 16, r.logger)
	require.NoError(r.t, err)
	require.NoError(r.t, w.Start(context.Background()))
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(r.t, w.Stop(ctx, 5*time.Second))
	})
}
