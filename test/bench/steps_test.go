// Package bench measures durable steps beside what durability costs at the least.
package bench

import (
	"context"
	"encoding/json"
	"fmt"
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
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/scheduler"
)

// stepsEach is how many steps a session has: as many model calls as tool calls, but for the last model call.
const stepsEach = 101

// instant answers at once: a tool call each time, until the session has had its steps.
type instant struct{}

func (instant) Name() string { return "instant" }

func (instant) Models(context.Context) ([]models.Model, error) {
	return []models.Model{{ID: "instant/model", Provider: "instant"}}, nil
}

func (instant) Generate(_ context.Context, call models.Call, _ func(models.Event)) (models.Response, error) {
	r := models.Response{StopReason: models.StopToolUse, Usage: models.Usage{Input: 10, Output: 1}}
	if n := len(call.Request.Messages); n >= stepsEach {
		r.StopReason, r.Content = models.EndTurn, []models.Block{models.TextBlock("done")}
		return r, nil
	}
	r.Content = []models.Block{models.ToolUseBlock("use_"+call.EffectKey, "nothing", json.RawMessage(`{}`))}
	return r, nil
}

func nothing() connectors.Tool {
	return connectors.Tool{
		Name: "nothing", Mount: "builtin", Description: "Does nothing.", Schema: json.RawMessage(`{"type":"object"}`), Idempotency: connectors.Safe, ControlPlane: true,
		Limit: func(json.RawMessage) time.Duration { return time.Second },
		Run: func(context.Context, connectors.Workspace, json.RawMessage) (connectors.Result, error) {
			return connectors.Result{Text: "nothing was done"}, nil
		},
	}
}

type rig struct {
	db       *postgres.DB
	owner    string
	orgs     []id.Org
	sessions *scheduler.Service
}

func newRig(b testing.TB, concurrency, organisations int) *rig {
	b.Helper()
	db, owner := durable(b)
	log := slog.New(slog.DiscardHandler)
	r := &rig{db: db, owner: owner}
	table, err := prices.Shipped(prices.File{Version: "bench", Currency: "USD", Entries: []prices.Entry{
		{Kind: prices.Model, Ref: "instant/model", EffectiveFrom: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Nanos: prices.Prices{prices.InputToken: 10, prices.OutputToken: 10}},
		{Kind: prices.Tool, Ref: "builtin/nothing", EffectiveFrom: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Nanos: prices.Prices{prices.Call: 10}},
	}})
	require.NoError(b, err)
	g := gate.New(table, policy.NewCache(db, nil, log), clock.System(), log)
	gateway, err := models.New(models.Config{Providers: []models.Provider{instant{}}, Clock: clock.System(), Log: log})
	require.NoError(b, err)
	registry, err := connectors.NewRegistry(nothing())
	require.NoError(b, err)
	list := agents.New(agents.Catalogue{KnowsModel: func(string) bool { return true }, KnowsTool: registry.Knows}, clock.System())
	listener := postgres.NewListener(db, log, journal.Channel, journal.InterruptChannel, journal.RestChannel)
	listener.Start(context.Background())
	b.Cleanup(listener.Stop)
	previews := scheduler.NewPreviews("", nil)
	r.sessions = scheduler.NewService(scheduler.Deps{DB: db, Agents: list, Gate: g, Listener: listener, Previews: previews, Clock: clock.System(), Log: log})
	runner := scheduler.NewRunner(scheduler.RunnerDeps{DB: db, Gate: g, Models: gateway, Tools: registry, Listener: listener, Previews: previews, Clock: clock.System(), Log: log, Owner: "bench"})
	worker, err := scheduler.NewWorker(db, runner, concurrency, log)
	require.NoError(b, err)
	require.NoError(b, worker.Start(context.Background()))
	b.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		_ = worker.Stop(ctx, time.Second)
	})
	for range organisations {
		org := id.New[id.Org]()
		r.orgs = append(r.orgs, org)
		require.NoError(b, db.InPlatformTx(context.Background(), func(tx pgx.Tx) error {
			if err := postgres.SetOrg(context.Background(), tx, org); err != nil {
				return err
			}
			if _, err := tx.Exec(context.Background(), `INSERT INTO organizations (id, name, slug, created_at, updated_at) VALUES ($1, 'Bench', $2, now(), now())`, string(org), string(org)[4:24]+string(org)[26:30]); err != nil {
				return err
			}
			_, err := billing.Grant(context.Background(), tx, clock.System().Now(), org, 1_000_000*money.Dollar, "bench")
			return err
		}))
	}
	return r
}

func (r *rig) session(b testing.TB, i int) {
	org := r.orgs[i%len(r.orgs)]
	ctx := principal.With(context.Background(), principal.Principal{Kind: principal.Key, ID: "key_bench", Org: org})
	var in scheduler.Invoked
	err := r.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		in, err = r.sessions.Invoke(ctx, tx, org, scheduler.InvokeInput{
			Project: id.New[id.Project](), Inline: &journal.Definition{Model: "instant/model", Tools: []string{"nothing"}}, Input: journal.Text("go"),
		})
		return err
	})
	require.NoError(b, err)
	wait, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	s, err := r.sessions.WaitUntilIdle(wait, org, in.Session.ID, in.Input.Seq)
	require.NoError(b, err)
	require.Equal(b, journal.StopEndTurn, s.StopReason.Type)
	require.EqualValues(b, stepsEach, s.Usage.Steps)
}

// floor is one committed transaction a step, with one row: what durability costs at the least.
func (r *rig) floor(b testing.TB, session string, steps int) {
	for i := range steps {
		err := r.db.InPlatformTx(context.Background(), func(tx pgx.Tx) error {
			_, err := tx.Exec(context.Background(), `INSERT INTO bench_floor (session, seq, payload) VALUES ($1, $2, $3)`, session, i, `{"kind":"step"}`)
			return err
		})
		require.NoError(b, err)
	}
}

// BenchmarkSteps measures durable steps a second beside the floor, in turns within the same run: one session alone, 32 at once each of an
// organisation of its own, and 32 at once on one organisation's balance.
func BenchmarkSteps(b *testing.B) {
	for _, c := range []struct{ sessions, organisations int }{{1, 1}, {32, 32}, {32, 1}} {
		b.Run(fmt.Sprintf("sessions=%d/organisations=%d", c.sessions, c.organisations), func(b *testing.B) {
			r := newRig(b, 64, c.organisations)
			createFloor(b, r)
			var ours, floor time.Duration
			b.ResetTimer()
			for range b.N {
				ours += together(c.sessions, func(i int) { r.session(b, i) })
				floor += together(c.sessions, func(i int) { r.floor(b, fmt.Sprint(id.New[id.Session](), i), stepsEach) })
			}
			n := float64(b.N * c.sessions * stepsEach)
			b.ReportMetric(n/ours.Seconds(), "steps/s")
			b.ReportMetric(n/floor.Seconds(), "floor-steps/s")
			b.ReportMetric(floor.Seconds()/ours.Seconds(), "x-floor")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func together(n int, fn func(i int)) time.Duration {
	began := time.Now()
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() { fn(i) })
	}
	wg.Wait()
	return time.Since(began)
}

// createFloor makes the floor's table: as an ordinary journal would be, with a key and nothing else.
func createFloor(b testing.TB, r *rig) {
	b.Helper()
	conn, err := pgx.Connect(context.Background(), r.owner)
	require.NoError(b, err)
	defer conn.Close(context.Background()) //nolint:errcheck // the bench's own
	_, err = conn.Exec(context.Background(), `CREATE TABLE IF NOT EXISTS bench_floor (session text, seq bigint, payload jsonb, at timestamptz DEFAULT now(), PRIMARY KEY (session, seq)); GRANT ALL ON bench_floor TO ambit_app`)
	require.NoError(b, err)
}
