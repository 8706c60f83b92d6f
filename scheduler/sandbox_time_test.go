package scheduler_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/connectors/builtin"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/blob"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/nomad"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/scheduler"
)

// A minute of a small sandbox at the price of the world.
const minuteOfSandbox = 6 * money.Cent

// metered are the world's sandboxes, of which one is warm. It is a row: nothing answers at its address.
func (w *world) metered(t *testing.T) {
	t.Helper()
	log := slog.New(slog.DiscardHandler)
	cluster, err := nomad.New(nomad.Config{Address: "http://127.0.0.1:1"}, log)
	require.NoError(t, err)
	blobs, err := blob.OpenDir(t.TempDir())
	require.NoError(t, err)
	t.Cleanup(func() { _ = blobs.Close() })
	sandboxes, err := sandbox.New(sandbox.Options{
		Config: sandbox.Config{Warm: 1, Max: 4, ControlURL: "http://127.0.0.1:1", NodeToken: "a-node-token-of-the-test", ClaimWait: 100 * time.Millisecond},
		Client: true, DB: w.db, Gate: w.gate, Nomad: cluster, Blobs: blobs, Signer: w, Clock: clock.System(), Log: log,
	})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, sandboxes.Stop(context.Background())) })
	tools, err := builtin.Registry()
	require.NoError(t, err)
	runner := scheduler.NewRunner(scheduler.RunnerDeps{
		DB: w.db, Gate: w.gate, Models: w.models, Tools: tools, Sandboxes: sandboxes, Listener: w.listener, Previews: w.previews, Clock: clock.System(), Log: log,
		Owner: "test/" + string(id.New[id.Request]()), LeaseTTL: 2 * time.Second,
	})
	worker, err := scheduler.NewWorker(w.db, runner, 4, log)
	require.NoError(t, err)
	require.NoError(t, worker.Start(t.Context()))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
		defer cancel()
		require.NoError(t, worker.Stop(ctx, 5*time.Second))
	})
}

func (w *world) warm(t *testing.T) {
	t.Helper()
	require.NoError(t, w.db.InWorkerTx(t.Context(), func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO warm_sandboxes (id, environment, build, state, job_id, alloc_id, node_id, address, secret_hash, token_hash, ready_at, heartbeat_at)
			VALUES ($1, 'default', '', 'ready', 'job', 'alloc', 'node', 'unix:/nowhere', '\x01', '\x02', now(), now())`, id.New[id.Sandbox]())
		return err
	}))
}

func TestASessionWhoseSandboxCantBePaidStopsAndGoesOnWhereItWas(t *testing.T) {
	w := newWorld(t, money.Dollar)
	w.metered(t)
	w.warm(t)
	var budget billing.Budget
	require.NoError(t, w.db.InTx(w.ctx(t), w.org, func(tx pgx.Tx) (err error) {
		budget, err = billing.CreateBudget(w.ctx(t), tx, clock.System().Now(), w.org, billing.NewBudget{
			Name: "no machines", Scope: billing.Scope{Type: billing.ScopeOrganization}, Limit: minuteOfSandbox - 1, Period: "total", Action: billing.Block,
		})
		return err
	}))
	in, err := w.invoke(t, "ambit/scripted", "```bash\necho hello\n```", nil, "bash")
	require.NoError(t, err)
	s := w.settled(t, in)
	require.Equal(t, journal.StopBudgetReached, s.StopReason.Type)
	require.Equal(t, "budget", s.StopReason.Scope)
	require.Contains(t, s.StopReason.Reason, "no machines")
	events := w.events(t, s.ID)
	require.NotContains(t, types(events), "agent.tool_result", "the tool was not called, and its use stays open")
	denied := false
	for _, e := range events {
		if e.Type == "gate.decided" {
			var d journal.GateDecided
			require.NoError(t, json.Unmarshal(e.Payload, &d))
			denied = denied || (d.Kind == journal.KindSandbox && d.Decision == journal.Denied)
		}
	}
	require.True(t, denied)
	require.Zero(t, w.balances(t).Held)

	limit := money.Dollar
	require.NoError(t, w.db.InTx(w.ctx(t), w.org, func(tx pgx.Tx) error {
		if _, err := billing.UpdateBudget(w.ctx(t), tx, clock.System().Now(), w.org, budget.ID, billing.ChangeBudget{Limit: &limit}, 0); err != nil {
			return err
		}
		_, err := w.sessions.Resume(w.ctx(t), tx, w.org, s.ID)
		return err
	}))
	require.Eventually(t, func() bool { // the same use of the tool, as a step of its own; this machine does not answer, which the model reads
		for _, e := range w.events(t, s.ID) {
			if e.Type == "agent.tool_result" {
				return true
			}
		}
		return false
	}, 20*time.Second, 20*time.Millisecond)
	uses, tools := 0, 0
	for _, e := range w.events(t, s.ID) {
		switch e.Type {
		case "agent.tool_use":
			uses++
		case "step.intended":
			p, err := journal.Decode[journal.StepIntended](e)
			require.NoError(t, err)
			if p.Kind == journal.KindToolCall {
				tools++
			}
		}
	}
	require.Equal(t, 1, uses)
	require.Equal(t, 2, tools)
}

func TestAKillSettlesTheSandboxesTickAndNothingIsBilledAfterIt(t *testing.T) {
	w := newWorld(t, money.Dollar)
	w.worker(t)
	in, err := w.invoke(t, "ambit/scripted", "Hello", nil, "nothing")
	require.NoError(t, err)
	s := w.settled(t, in)
	before := s.Charged
	w.tick(t, s.ID)
	var r scheduler.KillReceipt
	require.NoError(t, w.db.InTx(w.ctx(t), w.org, func(tx pgx.Tx) (err error) {
		r, err = w.sessions.Kill(w.ctx(t), tx, w.org, s.ID, "test")
		return err
	}))
	s, err = w.sessions.Get(t.Context(), w.org, s.ID)
	require.NoError(t, err)
	require.Greater(t, s.Charged, before, "what was used of the tick")
	require.Equal(t, int64(s.Charged), r.ChargedNanos)
	require.Empty(t, r.UnsettledSteps, "what a machine used is known")
	require.NotNil(t, r.LastBilled.Step)
	require.Equal(t, int64(s.Charged-before), r.LastBilled.Nanos, "the last that was billed is the tick")
	require.Len(t, r.HoldsReleased, 1)
	require.Equal(t, int64(minuteOfSandbox), r.HoldsReleased[0].Nanos+r.LastBilled.Nanos)
	require.Zero(t, w.balances(t).Held)
	require.NoError(t, w.db.InTx(w.ctx(t), w.org, func(tx pgx.Tx) error { // and after the kill the gate holds nothing for it
		l, err := journal.Lock(t.Context(), tx, w.org, s.ID)
		if err != nil {
			return err
		}
		d, err := w.gate.AdmitTx(t.Context(), tx, clock.System().Now(), l, tickProposal())
		require.Equal(t, journal.Denied, d.Outcome)
		require.Nil(t, d.Admission)
		return err
	}))
}

func TestAnInputHoldsWhatTheOpenTickLeavesOfTheCeilingAndLeavesTheTickAlone(t *testing.T) {
	w := newWorld(t, money.Dollar)
	w.worker(t)
	ceiling := 50 * money.Cent
	in, err := w.invoke(t, "ambit/scripted", "Hello", &journal.Limits{MaxCost: &ceiling}, "nothing")
	require.NoError(t, err)
	s := w.settled(t, in)
	w.tick(t, s.ID)
	require.NoError(t, w.db.InTx(w.ctx(t), w.org, func(tx pgx.Tx) error {
		again, err := w.sessions.Invoke(w.ctx(t), tx, w.org, scheduler.InvokeInput{Session: s.ID, Input: journal.Text("And again")})
		in.Input, in.Held = again.Input, again.Held
		return err
	}))
	require.Equal(t, ceiling-s.Charged-minuteOfSandbox, in.Held, "held twice it would be more than the ceiling")
	require.Equal(t, journal.StopEndTurn, w.settled(t, in).StopReason.Type)
	require.NoError(t, w.db.InTx(w.ctx(t), w.org, func(tx pgx.Tx) error {
		open, err := journal.OpenSteps(t.Context(), tx, w.org, s.ID)
		require.Len(t, open, 1, "a worker that takes a session up settles no tick: its sandbox lives on")
		return err
	}))
	require.Equal(t, minuteOfSandbox, w.balances(t).Held)
}

func tickProposal() gate.Proposal {
	step := id.New[id.Step]()
	return gate.Proposal{
		Step: step, Kind: gate.Sandbox, Name: sandbox.TickName, Digest: gate.Digest{1}, EffectKey: string(step), Within: 2 * time.Minute,
		Quantity: []gate.Priced{{Kind: prices.Sandbox, Ref: "small", Quantities: prices.Quantities{prices.Millisecond: 60_000}}},
	}
}

// tick gives the session a machine that is a row, and a tick of it that began ten seconds ago.
func (w *world) tick(t *testing.T, session id.Session) {
	t.Helper()
	require.NoError(t, w.db.InTx(w.ctx(t), w.org, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), `INSERT INTO sandboxes (org_id, id, project_id, session_id, environment, state, epoch, job_id, alloc_id, node_id, address, driver, accelerator, token_hash,
			created_at, started_at) VALUES ($1, $2, $3, $4, 'default', 'running', 1, 'job', 'alloc', 'node', 'unix:/nowhere', 'qemu', 'tcg', '\x02', now(), now())`,
			w.org, id.New[id.Sandbox](), w.project, session)
		if err != nil {
			return err
		}
		l, err := journal.Lock(t.Context(), tx, w.org, session)
		if err != nil {
			return err
		}
		now, p := clock.System().Now().Add(-10*time.Second), tickProposal()
		d, err := w.gate.AdmitTx(t.Context(), tx, now, l, p)
		if err != nil {
			return err
		}
		_, err = l.Append(t.Context(), now, journal.Entry{Step: p.Step, Payload: journal.StepIntended{
			Kind: journal.KindSandbox, Name: p.Name, EffectKey: p.EffectKey, Hold: d.Hold, HeldMillis: 60_000,
		}})
		return err
	}))
}
