package sandbox_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/sandbox/guest"
)

// TestAMachineThatCantBePaidIsSavedAndEnded: ticks of a real machine, a budget that runs out under a command, and the files afterwards.
func TestAMachineThatCantBePaidIsSavedAndEnded(t *testing.T) {
	r := newRig(t, tickOf(3*time.Second))
	tn := r.tenant()
	b, err := tn.acquire(1)
	require.NoError(t, err)
	tn.must(b, "echo kept > file")
	r.eventually(20*time.Second, "three ticks", func() bool { return len(tn.events("step.settled")) >= 3 })
	require.Equal(t, b.ID, tn.live()[tn.session], "it lives on from tick to tick")

	e := tn.begin(b, "eff-long")
	began := make(chan struct{})
	ended := make(chan error, 1)
	go func() {
		var once bool
		_, err := e.Exec(context.WithoutCancel(t.Context()), sandbox.ExecSpec{Script: "echo under way >> file; echo go; sleep 60"}, func(guest.Chunk) error {
			if !once {
				once = true
				close(began)
			}
			return nil
		})
		ended <- err
	}()
	<-began
	// The budget covers what was spent until now and nothing more.
	var budget billing.Budget
	require.NoError(t, r.db.InTx(t.Context(), tn.org, func(tx pgx.Tx) (err error) {
		budget, err = billing.CreateBudget(t.Context(), tx, clock.System().Now(), tn.org, billing.NewBudget{
			Name: "too little", Scope: billing.Scope{Type: billing.ScopeSession, ID: string(tn.session)}, Limit: 1, Period: "total", Action: billing.Block,
		})
		return err
	}))
	r.eventually(20*time.Second, "the machine is ended", func() bool { return len(tn.live()) == 0 })
	require.ErrorIs(t, <-ended, sandbox.ErrEnding, "the command is told why")
	require.Equal(t, sandbox.ReasonBudget, tn.row(b.ID).Reason)
	var end journal.SandboxEnded
	require.NoError(t, json.Unmarshal(tn.events("sandbox.ended")[0], &end))
	require.Equal(t, sandbox.ReasonBudget, end.Reason)
	require.NotEmpty(t, end.SavedSHA256)
	require.Nil(t, end.LostSince, "nothing was lost")
	decided := tn.events("gate.decided")
	var last journal.GateDecided
	require.NoError(t, json.Unmarshal(decided[len(decided)-1], &last))
	require.Equal(t, journal.Denied, last.Decision)
	require.Equal(t, "too little", last.Shortfall.Name)

	_, err = tn.acquire(1)
	var refused *sandbox.RefusedError
	require.ErrorAs(t, err, &refused, "and gets none")
	limit := money.Dollar
	require.NoError(t, r.db.InTx(t.Context(), tn.org, func(tx pgx.Tx) error {
		_, err := billing.UpdateBudget(t.Context(), tx, clock.System().Now(), tn.org, budget.ID, billing.ChangeBudget{Limit: &limit}, 0)
		return err
	}))
	again, err := tn.acquire(1)
	require.NoError(t, err, "with the limit raised it goes on")
	require.Equal(t, "kept\nunder way", tn.must(again, "cat file"))

	// The ledger, the steps and the session say the same, and a kill ends the last tick.
	_, err = r.service.Kill(t.Context(), tn.org, tn.session, sandbox.ReasonKilled)
	require.NoError(t, err)
	require.NoError(t, r.db.InTx(t.Context(), tn.org, func(tx pgx.Tx) error {
		var steps, captured int64
		var open int
		err := tx.QueryRow(t.Context(), `SELECT (SELECT coalesce(sum(cost_nanos), 0) FROM steps WHERE org_id = $1 AND kind = 'sandbox'),
			(SELECT count(*) FROM steps WHERE org_id = $1 AND kind = 'sandbox' AND settled_seq IS NULL),
			(SELECT coalesce(sum(amount_nanos), 0) FROM ledger_transfers WHERE org_id = $1 AND kind = 'capture')`, tn.org).Scan(&steps, &open, &captured)
		require.Positive(t, steps)
		require.Equal(t, steps, captured)
		require.Zero(t, open)
		return err
	}))
}
