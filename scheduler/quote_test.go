package scheduler_test

import (
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
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
)

func (w *world) quote(t testing.TB, s *scheduler.Service, in scheduler.InvokeInput) billing.Quote {
	t.Helper()
	ctx := w.ctx(t)
	var q billing.Quote
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
		q, err = s.Quote(ctx, tx, w.org, in)
		return err
	}))
	return q
}

func (w *world) accept(t testing.TB, s *scheduler.Service, in scheduler.InvokeInput) (out scheduler.Invoked, err error) {
	t.Helper()
	ctx := w.ctx(t)
	err = w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
		out, err = s.Invoke(ctx, tx, w.org, in)
		return err
	})
	return out, err
}

func (w *world) hello(text string) scheduler.InvokeInput {
	return scheduler.InvokeInput{Project: w.project, Inline: &journal.Definition{Model: "ambit/scripted"}, Input: journal.Text(text)}
}

// dearer are the services of a process whose price table was replaced by one of ten times the price.
func (w *world) dearer(t testing.TB) {
	t.Helper()
	table, err := prices.Shipped(prices.File{Version: "dearer", Currency: money.Currency, Entries: []prices.Entry{{
		Kind: prices.Model, Ref: "ambit/scripted", EffectiveFrom: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC),
		Nanos: prices.Prices{prices.InputToken: 1_000_000, prices.OutputToken: 10_000_000},
	}}})
	require.NoError(t, err)
	log := slog.New(slog.DiscardHandler)
	w.gate = gate.New(table, policy.NewCache(w.db, nil, log), clock.System(), log)
	w.deps.Gate = w.gate
	w.sessions = scheduler.NewService(w.deps)
	t.Cleanup(w.sessions.Stop)
}

func TestAQuoteBindsItsPrices(t *testing.T) {
	w := newWorld(t, 100*money.Dollar)
	in := w.hello("Hello there")
	q := w.quote(t, w.sessions, in)
	require.Equal(t, billing.QuoteSession, q.Kind)
	require.Positive(t, q.Low)
	require.LessOrEqual(t, q.Low, q.Likely)
	require.LessOrEqual(t, q.Likely, q.Ceiling)
	var sum money.Nanos
	for _, l := range q.Lines {
		sum += l.Amount
	}
	require.Equal(t, q.Likely, sum, "the lines are what likely is made of")

	w.dearer(t)
	w.worker(t)
	plain, err := w.accept(t, w.sessions, in)
	require.NoError(t, err)
	dear := w.settled(t, plain)

	in.Quote = q.ID
	quoted, err := w.accept(t, w.sessions, in)
	require.NoError(t, err)
	require.Equal(t, q.Ceiling, quoted.Held, "the quote's ceiling is held")
	s := w.settled(t, quoted)
	require.Equal(t, journal.StopEndTurn, s.StopReason.Type, "%+v", s.StopReason)
	require.LessOrEqual(t, s.Charged, q.Ceiling)
	require.Less(t, s.Charged, dear.Charged/5, "the prices are the quote's, though the table has become dearer")
	require.NotNil(t, s.Quote)
	require.Equal(t, q.ID, s.Quote.Quote)
	require.NoError(t, w.db.InTx(t.Context(), w.org, func(tx pgx.Tx) error {
		var versions []string
		if err := tx.QueryRow(t.Context(), `SELECT array_agg(DISTINCT price_version) FROM holds WHERE session_id = $1`, string(s.ID)).Scan(&versions); err != nil {
			return err
		}
		require.Equal(t, []string{q.PriceVersion}, versions)
		got, err := billing.GetQuote(t.Context(), tx, w.org, w.project, q.ID)
		require.NoError(t, err)
		require.Equal(t, s.ID, got.Session)
		require.Equal(t, "used", got.Status(time.Now()))
		return nil
	}))
	var folded journal.Session
	for _, e := range w.events(t, s.ID) {
		require.NoError(t, folded.Apply(e))
	}
	require.Equal(t, q.PriceVersion, folded.Quote.PriceVersion, "the journal says by which prices it ran")
	w.balances(t)
}

func TestAQuoteIsGoodForWhatItSays(t *testing.T) {
	w := newWorld(t, 100*money.Dollar)
	q := w.quote(t, w.sessions, w.hello("Hello there"))
	refused := func(in scheduler.InvokeInput) string {
		in.Quote = q.ID
		_, err := w.accept(t, w.sessions, in)
		require.Error(t, err)
		return fault.As(err).Code
	}
	require.Equal(t, "quote_mismatch", refused(w.hello("Hello there!")))
	more := w.hello("Hello there")
	more.Limits = &journal.Limits{MaxSteps: 3}
	require.Equal(t, "quote_mismatch", refused(more))
	tools := w.hello("Hello there")
	tools.Inline.Tools = []string{"nothing"}
	require.Equal(t, "quote_mismatch", refused(tools))
	elsewhere := w.hello("Hello there")
	elsewhere.Project = id.New[id.Project]()
	require.Equal(t, "not_found", refused(elsewhere), "another project's quote is none")

	// A lower ceiling of the invoke's own is no other work.
	own := 20 * money.Cent
	in := w.hello("Hello there")
	in.Limits, in.Quote = &journal.Limits{MaxCost: &own}, q.ID
	var wg sync.WaitGroup
	codes := make(chan string, 8)
	for range cap(codes) {
		wg.Go(func() {
			code := "accepted"
			got, err := w.accept(t, w.sessions, in)
			if err != nil {
				code = fault.As(err).Code
			} else if got.Held != own {
				code = fmt.Sprint("held ", got.Held)
			}
			codes <- code
		})
	}
	wg.Wait()
	close(codes)
	count := map[string]int{}
	for c := range codes {
		count[c]++
	}
	require.Equal(t, map[string]int{"accepted": 1, "quote_used": 7}, count, "a quote is used once")

	effect := scheduler.EffectQuantities{Kind: journal.KindModelCall, Name: "ambit/scripted", Tokens: journal.Usage{InputTokens: 1000, OutputTokens: 100}}
	ctx := w.ctx(t)
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
		q, err = w.sessions.QuoteEffect(ctx, tx, w.org, w.project, effect)
		return err
	}))
	require.Less(t, q.Low, q.Likely)
	require.Equal(t, "quote_mismatch", refused(w.hello("Hello there")), "an effect's quote is no session's")
}

func TestAQuoteOfASessionThatWentOnIsForSomethingElse(t *testing.T) {
	w := newWorld(t, 100*money.Dollar)
	w.worker(t)
	first, err := w.invoke(t, "ambit/scripted", "Hello", nil)
	require.NoError(t, err)
	s := w.settled(t, first)
	next := scheduler.InvokeInput{Project: w.project, Session: s.ID, Input: journal.Text("And now?")}
	q, stale := w.quote(t, w.sessions, next), w.quote(t, w.sessions, next)
	next.Quote = q.ID
	second, err := w.accept(t, w.sessions, next)
	require.NoError(t, err)
	require.Equal(t, q.Ceiling, second.Held)
	done := w.settled(t, second)
	require.LessOrEqual(t, done.Charged, s.Charged+q.Ceiling)
	next.Quote = stale.ID
	_, err = w.accept(t, w.sessions, next)
	require.True(t, fault.IsCode(err, "quote_mismatch"), "%v", err)
}

func TestLikelyIsWhatTheAgentsSessionsCost(t *testing.T) {
	w := newWorld(t, 100*money.Dollar)
	w.worker(t)
	ctx := w.ctx(t)
	var agent agents.Agent
	require.NoError(t, w.db.InPlatformTx(ctx, func(tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `SELECT set_config('app.org_id', $1, true)`, string(w.org))
		if err == nil {
			_, err = tx.Exec(ctx, `INSERT INTO projects (org_id, id, name, slug, created_at, updated_at) VALUES ($1, $2, 'Test', 'test', now(), now())`, string(w.org), string(w.project))
		}
		return err
	}))
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
		agent, err = w.agents.Create(ctx, tx, w.org, agents.CreateInput{Project: w.project, Name: "helper", Definition: journal.Definition{Model: "ambit/scripted"}})
		return err
	}))
	ask := func(text string) scheduler.InvokeInput {
		return scheduler.InvokeInput{Project: w.project, Agent: &agents.Ref{Agent: agent.ID}, Input: journal.Text(text)}
	}
	require.Equal(t, "assumptions", w.quote(t, w.sessions, ask("Hello")).Basis.From)
	var charged []money.Nanos
	for n := range 5 {
		in, err := w.accept(t, w.sessions, ask(fmt.Sprintf("Say this again: %0*d", 1+n*400, 7)))
		require.NoError(t, err)
		charged = append(charged, w.settled(t, in).Charged)
	}
	require.IsIncreasing(t, charged)
	q := w.quote(t, w.sessions, ask("Hello"))
	require.Equal(t, billing.QuoteBasis{From: "history", Sessions: 5, Assumptions: q.Basis.Assumptions}, q.Basis)
	require.Equal(t, charged[2], q.Likely, "the middle one")
	require.GreaterOrEqual(t, q.Ceiling, q.Likely)

	// A new version is another agent to the quote that was made of the old one.
	require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) error {
		changed := agent.Definition
		changed.System = "Be brief."
		_, err := w.agents.Update(ctx, tx, w.org, agent.ID, agents.UpdateInput{Definition: &changed})
		return err
	}))
	in := ask("Hello")
	in.Quote = q.ID
	_, err := w.accept(t, w.sessions, in)
	require.True(t, fault.IsCode(err, "quote_mismatch"), "%v", err)
}
