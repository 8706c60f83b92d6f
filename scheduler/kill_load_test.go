package scheduler_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/scheduler"
)

// restless is a provider that calls a tool in each answer and never comes to an end. It keeps a log of the effect keys that reached it.
type restless struct {
	mu   sync.Mutex
	keys map[string]bool
}

func (*restless) Name() string { return "test" }

func (*restless) Models(context.Context) ([]models.Model, error) {
	return []models.Model{{ID: "test/model", Provider: "test"}}, nil
}

func (p *restless) Generate(_ context.Context, call models.Call, _ func(models.Event)) (models.Response, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.keys[call.EffectKey] = true
	return models.Response{
		StopReason: models.StopToolUse, Usage: models.Usage{Input: 10, Output: 1}, Content: []models.Block{models.ToolUseBlock("use_"+call.EffectKey, "nothing", json.RawMessage(`{}`))},
	}, nil
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

// TestNothingIsAdmittedAfterAKill kills trees whose sessions commit step after step, many in a transaction, at whatever instant it hits them.
// For each session the journal ends with its end, what it holds is released, what it was charged is what its receipt says, and each
// call that reached the provider is a step that was begun before.
func TestNothingIsAdmittedAfterAKill(t *testing.T) {
	provider := &restless{keys: map[string]bool{}}
	w := newWorld(t, 1000*money.Dollar, provider)
	worker := w.worker(t, nothing())
	ceiling := 10 * money.Dollar
	var roots, all []id.Session
	start := func(parent id.Session, limits *journal.Limits) id.Session {
		var out scheduler.Invoked
		ctx := w.ctx(t)
		require.NoError(t, w.db.InTx(ctx, w.org, func(tx pgx.Tx) (err error) {
			out, err = w.sessions.Invoke(ctx, tx, w.org, scheduler.InvokeInput{
				Project: w.project, Inline: &journal.Definition{Model: "test/model", Tools: []string{"nothing"}}, Input: journal.Text("go"), Limits: limits, Parent: parent,
			})
			return err
		}))
		all = append(all, out.Session.ID)
		return out.Session.ID
	}
	for range 5 {
		root := start("", &journal.Limits{MaxCost: &ceiling})
		roots = append(roots, root)
		start(root, nil)
		start(root, &journal.Limits{MaxCost: &ceiling})
	}
	for _, s := range all {
		require.Eventually(t, func() bool { return w.session(t, s).Usage.Steps > 3 }, 30*time.Second, 5*time.Millisecond)
	}

	receipts := make([]scheduler.KillReceipt, len(roots))
	var kills sync.WaitGroup
	for i, root := range roots {
		kills.Go(func() {
			r, err := w.kill(t, root)
			if err != nil {
				t.Error(err)
			}
			receipts[i] = r
		})
	}
	kills.Wait()
	stopping, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, worker.Stop(stopping, time.Second)) // whatever the workers still had in hand has ended

	begun := map[string]bool{}
	for _, r := range receipts {
		require.Len(t, r.Children, 2)
		for _, one := range append([]scheduler.KilledSession{r.KilledSession}, r.Children...) {
			events := w.allEvents(t, one.Session)
			last := events[len(events)-1]
			require.Equal(t, "session.status_terminated", last.Type, "event %d of %s came after its end", last.Seq, one.Session)
			require.EqualValues(t, len(events), last.Seq)
			for _, e := range events {
				if e.Type == (journal.StepIntended{}).EventType() {
					p, err := journal.Decode[journal.StepIntended](e)
					require.NoError(t, err)
					begun[p.EffectKey] = true
				}
			}
			require.Empty(t, w.openHolds(t, one.Session))
			var captured money.Nanos
			require.NoError(t, w.db.InTx(t.Context(), w.org, func(tx pgx.Tx) error {
				transfers, err := billing.SessionTransfers(t.Context(), tx, w.org, one.Session)
				for _, tr := range transfers {
					require.False(t, tr.CreatedAt.After(*one.FencedAt), "money of %s moved after its fence", one.Session)
					if tr.Debit == billing.Held && tr.Credit == billing.Spent {
						captured += tr.Amount
					}
				}
				return err
			}))
			require.EqualValues(t, one.ChargedNanos, captured)
		}
	}
	for key := range provider.keys {
		require.True(t, begun[key], "the call %s reached the provider and is no step of any session", key)
	}
	require.Zero(t, w.balances(t).Held)
}

// allEvents reads a journal whole.
func (w *world) allEvents(t testing.TB, session id.Session) (all []journal.Event) {
	t.Helper()
	head := w.session(t, session)
	require.NoError(t, w.db.InTx(t.Context(), w.org, func(tx pgx.Tx) (err error) {
		all, err = journal.EventsUpTo(t.Context(), tx, w.org, session, 0, head.LastSeq)
		return err
	}))
	return all
}
