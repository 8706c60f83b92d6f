package gate_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
)

// errUndo rolls a transaction back.
var errUndo = errors.New("undo")

// scene is a session of an agent that may call one model and one tool, in an organisation with some credit.
type scene struct {
	t       *testing.T
	db      *postgres.DB
	org     id.Org
	session id.Session
	gate    *gate.Gate
	clock   *clock.Offset
}

func newScene(t *testing.T, credit money.Nanos) *scene {
	t.Helper()
	s := &scene{t: t, db: dbtest.New(t), session: id.New[id.Session](), clock: clock.NewOffset(0)}
	s.org = dbtest.NewOrg(t, s.db)
	from := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	table, err := prices.New(prices.File{Version: "test", Currency: "USD", Entries: []prices.Entry{
		{Kind: prices.Model, Ref: "test/model", EffectiveFrom: from, Nanos: prices.Prices{prices.InputToken: 100, prices.OutputToken: 1000}},
		{Kind: prices.Tool, Ref: "builtin/bash", EffectiveFrom: from, Nanos: prices.Prices{prices.Call: 5000}},
	}})
	require.NoError(t, err)
	s.gate = gate.New(table, s.clock, slog.New(slog.DiscardHandler))
	require.NoError(t, s.db.InTx(t.Context(), s.org, func(tx pgx.Tx) error {
		now := s.clock.Now()
		if credit > 0 {
			if _, err := billing.Grant(t.Context(), tx, now, s.org, credit, "test"); err != nil {
				return err
			}
		}
		_, _, err := journal.Create(t.Context(), tx, now, journal.New{
			Org: s.org, ID: s.session, Project: "prj_test",
			Agent: journal.Snapshot{Name: "tester", Definition: journal.Definition{Model: "test/model", Tools: []string{"bash"}}},
		})
		return err
	}))
	return s
}

// in runs fn with the session locked; whatever fn returns decides whether it is committed.
func (s *scene) in(fn func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error) error {
	ctx := s.t.Context()
	return s.db.InTx(ctx, s.org, func(tx pgx.Tx) error {
		l, err := journal.Lock(ctx, tx, s.org, s.session)
		if err != nil {
			return err
		}
		return fn(ctx, tx, l)
	})
}

// admit asks the gate and commits its answer.
func (s *scene) admit(p gate.Proposal) gate.Decision {
	s.t.Helper()
	var d gate.Decision
	require.NoError(s.t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) (err error) {
		d, err = s.gate.Admit(ctx, tx, s.clock.Now(), l, p)
		return err
	}))
	return d
}

func (s *scene) balances() (b billing.Balances) {
	s.t.Helper()
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) (err error) {
		b, err = billing.ReadBalances(s.t.Context(), tx, s.org)
		return err
	}))
	return b
}

func (s *scene) hold(hold id.Hold) (h billing.Hold) {
	s.t.Helper()
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) (err error) {
		h, err = billing.ReadHold(s.t.Context(), tx, s.org, hold)
		return err
	}))
	return h
}

// proposal is a model call that costs at most 1,000 × 100 + 100 × 1,000 = 200,000 nano-dollars.
func proposal() gate.Proposal {
	step := id.New[id.Step]()
	return gate.Proposal{
		Step: step, Kind: gate.ModelCall, Name: "test/model", Digest: gate.Digest{1}, EffectKey: string(step), Within: time.Minute,
		Quantity: []gate.Priced{{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.InputToken: 1000, prices.OutputToken: 100}}},
	}
}

const bound = money.Nanos(200_000)
