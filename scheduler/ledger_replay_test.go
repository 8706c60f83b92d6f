package scheduler_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync/atomic"
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
)

// posted is a transfer as a journal tells it: its kind, its amount, the step whose it is.
type posted struct {
	kind   string
	amount money.Nanos
	step   id.Step
}

func read[P journal.Payload](t *testing.T, e journal.Event) P {
	t.Helper()
	p, err := journal.Decode[P](e)
	require.NoError(t, err)
	return p
}

// replayed reads from a journal alone what the ledger must hold of its session.
func replayed(t *testing.T, events []journal.Event) []posted {
	t.Helper()
	var out []posted
	add := func(kind string, amount money.Nanos, step id.Step) {
		if amount > 0 {
			out = append(out, posted{kind, amount, step})
		}
	}
	var limit *money.Nanos // the session's max_cost
	var charged money.Nanos
	ceiling := false // what is left of it is held now
	for _, e := range events {
		switch e.Type {
		case journal.SessionCreated{}.EventType():
			limit = read[journal.SessionCreated](t, e).Limits.MaxCost
		case journal.SessionLimits{}.EventType():
			limit = read[journal.SessionLimits](t, e).Limits.MaxCost
		case journal.UserMessage{}.EventType():
			if limit != nil && !ceiling {
				add("hold", *limit-charged, "")
				ceiling = true
			}
		case journal.StepIntended{}.EventType():
			if !ceiling {
				add("hold", read[journal.StepIntended](t, e).Hold.Amount, e.Step)
			}
		case journal.StepSettled{}.EventType():
			p := read[journal.StepSettled](t, e)
			add("capture", p.Cost, e.Step)
			if !ceiling {
				add("release", p.Released, e.Step)
			}
			charged += p.Cost
		case journal.SessionUsage{}.EventType():
			if ceiling {
				add("release", read[journal.SessionUsage](t, e).Cost.Released, "")
				ceiling = false
			}
		}
	}
	return out
}

// moody is a model that does all that costs something in its own way: it answers, calls tools, and fails, billed or not.
type moody struct{ calls atomic.Int64 }

func (m *moody) Name() string { return "test" }

func (m *moody) Models(context.Context) ([]models.Model, error) {
	return []models.Model{{ID: "test/model", Provider: "test"}}, nil
}

func (m *moody) Generate(_ context.Context, call models.Call, _ func(models.Event)) (models.Response, error) {
	n := m.calls.Add(1)
	r := models.Response{StopReason: models.EndTurn, Usage: models.Usage{Input: 100 + n, Output: 10 + n%7, CacheRead: n % 3}}
	switch {
	case n%9 == 4:
		return r, &models.Error{Kind: models.Overloaded, Message: "busy", Retryable: true, RetryAfter: time.Millisecond}
	case n%9 == 7:
		return r, &models.Error{Kind: models.TruncatedStream, Message: "cut", Retryable: true, RetryAfter: time.Millisecond, MayBeBilled: true}
	case n%4 != 0:
		r.StopReason = models.StopToolUse
		for i := range 1 + n%2 {
			r.Content = append(r.Content, models.ToolUseBlock(fmt.Sprintf("use_%s_%d", call.EffectKey, i), "nothing", json.RawMessage(`{}`)))
		}
	default:
		r.Content = []models.Block{models.TextBlock("done")}
	}
	return r, nil
}

// TestAJournalReplayedIsTheLedger: the transfers of a session, each hold, capture and release, follow from its journal and from nothing else.
func TestAJournalReplayedIsTheLedger(t *testing.T) {
	w := newWorld(t, 100*money.Dollar, &moody{})
	var tried atomic.Int64
	w.worker(t, connectors.Tool{
		Name: "nothing", Mount: "builtin", Description: "Does nothing, or fails.", Schema: json.RawMessage(`{"type":"object"}`), Idempotency: connectors.Safe, ControlPlane: true,
		Limit: func(json.RawMessage) time.Duration { return time.Second },
		Run: func(context.Context, connectors.Workspace, json.RawMessage) (connectors.Result, error) {
			if tried.Add(1)%3 == 0 {
				return connectors.Result{}, errors.New("it does not work")
			}
			return connectors.Result{Text: "nothing was done"}, nil
		},
	})
	high, low := 10*money.Dollar, 30*money.Cent
	for _, limits := range []*journal.Limits{nil, {MaxCost: &high}, {MaxCost: &low}, nil, {MaxCost: &high}} {
		in, err := w.invoke(t, "test/model", "go", limits, "nothing")
		require.NoError(t, err)
		s := w.settled(t, in)
		said := replayed(t, w.events(t, s.ID))
		var booked []posted
		require.NoError(t, w.db.InTx(t.Context(), w.org, func(tx pgx.Tx) error {
			transfers, err := billing.SessionTransfers(t.Context(), tx, w.org, s.ID)
			for _, tr := range transfers {
				booked = append(booked, posted{tr.Kind, tr.Amount, tr.Step})
			}
			return err
		}))
		require.NotEmpty(t, booked)
		require.ElementsMatch(t, said, booked)
	}
}
