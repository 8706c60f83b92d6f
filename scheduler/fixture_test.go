package scheduler_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/scripted"
	"ambit.dev/ambit/scheduler"
)

// world is a database with one organisation and the parts that run its sessions, without sandboxes.
type world struct {
	db       *postgres.DB
	org      id.Org
	project  id.Project
	sessions *scheduler.Service
	gate     *gate.Gate
	listener *postgres.Listener
	models   *models.Gateway
	previews *scheduler.Previews
	agents   *agents.Service
	deps     scheduler.Deps
	// signed is what the instance's key was asked to sign, by the receipt's id.
	signed map[string]string
	mu     sync.Mutex
}

// Sign stands for the instance's key.
func (w *world) Sign(_ context.Context, claims any) (string, error) {
	raw, err := json.Marshal(claims)
	if err != nil {
		return "", err
	}
	var head struct{ ID string }
	if err := json.Unmarshal(raw, &head); err != nil {
		return "", err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.signed[head.ID] = string(raw)
	return "signed", nil
}

func newWorld(t testing.TB, credit money.Nanos, providers ...models.Provider) *world {
	t.Helper()
	db := dbtest.New(t)
	log := slog.New(slog.DiscardHandler)
	w := &world{db: db, org: id.New[id.Org](), project: id.New[id.Project](), previews: scheduler.NewPreviews("", nil), signed: map[string]string{}}
	table, err := prices.Shipped(prices.File{Version: "test", Currency: "USD", Entries: []prices.Entry{
		{
			Kind: prices.Model, Ref: "test/model", EffectiveFrom: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
			Nanos: prices.Prices{prices.InputToken: 100, prices.OutputToken: 1000},
		},
		{Kind: prices.Sandbox, Ref: "small", EffectiveFrom: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Nanos: prices.Prices{prices.Second: int64(money.Cent / 10)}},
		{Kind: prices.Tool, Ref: "builtin/nothing", EffectiveFrom: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Nanos: prices.Prices{prices.Call: 5000}},
	}})
	require.NoError(t, err)
	w.gate = gate.New(table, policy.NewCache(db, nil, log), clock.System(), log)
	w.models, err = models.New(models.Config{Providers: append([]models.Provider{scripted.New(scripted.Config{})}, providers...), Clock: clock.System(), Log: log})
	require.NoError(t, err)
	w.agents = agents.New(agents.Catalogue{
		KnowsModel: func(m string) bool { return w.models.Knows(context.Background(), m) },
		KnowsTool:  func(string) bool { return true },
	}, clock.System())
	w.listener = postgres.NewListener(db, log, journal.Channel, journal.InterruptChannel, journal.RestChannel)
	w.listener.Start(t.Context())
	t.Cleanup(w.listener.Stop)
	w.deps = scheduler.Deps{
		DB: db, Agents: w.agents, Gate: w.gate, Listener: w.listener, Previews: w.previews, Signer: w, Clock: clock.System(), Log: log,
	}
	w.sessions = scheduler.NewService(w.deps)
	t.Cleanup(w.sessions.Stop)
	require.NoError(t, db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
		if err := postgres.SetOrg(t.Context(), tx, w.org); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `INSERT INTO organizations (id, name, slug, created_at, updated_at) VALUES ($1, 'Test', $2, now(), now())`, string(w.org), string(w.org)[4:24])
		if err != nil || credit == 0 {
			return err
		}
		_, err = billing.Grant(t.Context(), tx, clock.System().Now(), w.org, credit, "test")
		return err
	}))
	return w
}

func (w *world) ctx(t testing.TB) context.Context {
	t.Helper()
	return principal.With(t.Context(), principal.Principal{Kind: principal.Key, ID: "key_test", Org: w.org, Project: w.project})
}

func (w *world) worker(t testing.TB, tools ...connectors.Tool) *scheduler.Worker {
	t.Helper()
	registry, err := connectors.NewRegistry(tools...)
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	runner := scheduler.NewRunner(scheduler.RunnerDeps{
		DB: w.db, Gate: w.gate, Models: w.models, Tools: registry, Listener: w.listener, Previews: w.previews, Clock: clock.System(), Log: log,
		Owner: "test/" + string(id.New[id.Request]()), LeaseTTL: 2 * time.Second,
	})
	worker, err := scheduler.NewWorker(w.db, runner, 16, log)
	require.NoError(t, err)
	require.NoError(t, worker.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, worker.Stop(ctx, 5*time.Second))
	})
	return worker
}

// invoke accepts work by an inline agent.
func (w *world) invoke(t testing.TB, model, text string, limits *journal.Limits, tools ...string) (scheduler.Invoked, error) {
	t.Helper()
	var out scheduler.Invoked
	ctx := w.ctx(t)
	err := w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
		out, err = w.sessions.Invoke(ctx, tx, w.org, scheduler.InvokeInput{
			Project: w.project, Inline: &journal.Definition{Model: model, Tools: tools}, Input: journal.Text(text), Limits: limits,
		})
		return err
	})
	return out, err
}

func (w *world) settled(t testing.TB, in scheduler.Invoked) journal.Session {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	s, err := w.sessions.WaitUntilIdle(ctx, w.org, in.Session.ID, in.Input.Seq)
	require.NoError(t, err)
	require.NoError(t, ctx.Err(), "the session is still %s", s.Status)
	return s
}

func (w *world) events(t testing.TB, session id.Session) []journal.Event {
	t.Helper()
	events, err := w.sessions.Events(t.Context(), w.org, session, journal.EventFilter{Limit: 1000})
	require.NoError(t, err)
	return events
}

func types(events []journal.Event) []string {
	out := make([]string, len(events))
	for i, e := range events {
		out[i] = e.Type
	}
	return out
}

func (w *world) balances(t testing.TB) billing.Balances {
	t.Helper()
	var b billing.Balances
	require.NoError(t, w.db.InTx(t.Context(), w.org, func(tx pgx.Tx) (err error) {
		if b, err = billing.ReadBalances(t.Context(), tx, w.org); err != nil {
			return err
		}
		wrong, err := billing.Recount(t.Context(), tx, w.org)
		require.Empty(t, wrong)
		return err
	}))
	return b
}
