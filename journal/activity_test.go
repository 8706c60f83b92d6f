package journal_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

func TestActivityOfAgents(t *testing.T) {
	b := newBook(t)
	busy, quiet := id.New[id.Agent](), id.New[id.Agent]()
	weekAgo := time.Now().Add(-7 * 24 * time.Hour)
	begin := func(org id.Org, session id.Session, agent id.Agent, cost money.Nanos, end journal.Payload) {
		require.NoError(t, b.db.InTx(t.Context(), org, func(tx pgx.Tx) error {
			l, _, err := journal.Create(t.Context(), tx, now, journal.New{Org: org, ID: session, Project: "prj_test", Agent: journal.Snapshot{ID: agent, Name: "a"}})
			if err != nil {
				return err
			}
			step := id.New[id.Step]()
			_, err = l.Append(t.Context(), now,
				journal.Entry{Step: step, Payload: journal.StepIntended{Kind: journal.KindModelCall, Name: "m", EffectKey: string(step)}},
				journal.Entry{Step: step, Payload: journal.StepSettled{Kind: journal.KindModelCall, Name: "m", Outcome: journal.Succeeded, Cost: cost}},
				journal.Of(end))
			return err
		}))
	}
	done := journal.StatusIdle{StopReason: journal.StopReason{Type: journal.StopEndTurn}}
	begin(b.org, id.New[id.Session](), busy, 5, done)
	begin(b.org, id.New[id.Session](), busy, 7, done)
	begin(b.org, id.New[id.Session](), busy, 100, journal.StatusTerminated{StopReason: journal.StopReason{Type: journal.StopFailed}})
	begin(b.org, id.FirstAt[id.Session](weekAgo.Add(-time.Minute)), busy, 1000, done)
	begin(dbtest.NewOrg(t, b.db), id.New[id.Session](), busy, 10_000, done)

	require.NoError(t, b.tx(func(ctx context.Context, tx pgx.Tx) error {
		got, err := journal.ActivityOf(ctx, tx, b.org, []id.Agent{busy, quiet}, weekAgo)
		require.NoError(t, err)
		require.Equal(t, map[id.Agent]journal.Activity{busy: {Runs: 3, Failed: 1, Charged: 112, Median: 7}}, got)
		none, err := journal.ActivityOf(ctx, tx, b.org, nil, weekAgo)
		require.NoError(t, err)
		require.Empty(t, none)
		return nil
	}))
}
