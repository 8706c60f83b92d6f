package sandbox_test

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/blob"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/nomad"
	"ambit.dev/ambit/sandbox"
)

// A minute of a small sandbox, and a second of it, at the shipped price.
const (
	aMinute = money.Nanos(600_000)
	aSecond = aMinute / 60
)

// meterScene is a session and a warm machine that is only a row: what holds a machine's time never talks to it.
type meterScene struct {
	t       *testing.T
	db      *postgres.DB
	owner   string
	org     id.Org
	session id.Session
	clock   *clock.Offset
	gate    *gate.Gate
	service *sandbox.Service
}

func newMeterScene(t *testing.T, credit money.Nanos, limits journal.Limits) *meterScene {
	t.Helper()
	s := &meterScene{t: t, clock: clock.NewOffset(0)}
	s.db, s.owner = dbtest.NewWithOwner(t)
	s.org = dbtest.NewOrg(t, s.db)
	table, err := prices.Shipped()
	require.NoError(t, err)
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s.gate = gate.New(table, policy.NewCache(s.db, nil, log), s.clock, log)
	s.service = s.process()
	s.session = id.New[id.Session]()
	s.in(func(tx pgx.Tx) error {
		if credit > 0 {
			if _, err := billing.Grant(t.Context(), tx, s.clock.Now(), s.org, credit, "test"); err != nil {
				return err
			}
		}
		_, _, err := journal.Create(t.Context(), tx, s.clock.Now(), journal.New{
			Org: s.org, ID: s.session, Project: "prj_test", Limits: limits,
			Agent: journal.Snapshot{Name: "tester", Definition: journal.Definition{Model: "test/model", Tools: []string{"bash"}}},
		})
		return err
	})
	s.warm()
	return s
}

// process is one more process of the control plane.
func (s *meterScene) process() *sandbox.Service {
	s.t.Helper()
	log := slog.New(slog.NewTextHandler(s.t.Output(), nil))
	cluster, err := nomad.New(nomad.Config{Address: "http://127.0.0.1:1"}, log)
	require.NoError(s.t, err)
	blobs, err := blob.OpenDir(s.t.TempDir())
	require.NoError(s.t, err)
	s.t.Cleanup(func() { _ = blobs.Close() })
	service, err := sandbox.New(sandbox.Options{
		Config: sandbox.Config{Warm: 1, Max: 4, ControlURL: "http://127.0.0.1:1", NodeToken: "a-node-token-of-the-test", ClaimWait: time.Second},
		Client: true, DB: s.db, Gate: s.gate, Nomad: cluster, Blobs: blobs, Signer: newSigner(s.t, "key-1"), Clock: s.clock, Log: log,
	})
	require.NoError(s.t, err)
	s.t.Cleanup(func() { require.NoError(s.t, service.Stop(context.Background())) })
	return service
}

func (s *meterScene) in(fn func(tx pgx.Tx) error) {
	s.t.Helper()
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, fn))
}

func (s *meterScene) asOwner(sql string, args ...any) {
	s.t.Helper()
	conn, err := pgx.Connect(s.t.Context(), s.owner)
	require.NoError(s.t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // the test's own
	_, err = conn.Exec(s.t.Context(), sql, args...)
	require.NoError(s.t, err)
}

func (s *meterScene) warm() {
	s.t.Helper()
	s.asOwner(`INSERT INTO warm_sandboxes (id, environment, build, state, job_id, alloc_id, node_id, address, secret_hash, token_hash, ready_at, heartbeat_at)
		VALUES ($1, 'default', '', 'ready', 'job', 'alloc', 'node', 'unix:/nowhere', '\x01', '\x02', now(), now())`, id.New[id.Sandbox]())
}

func (s *meterScene) claim() (id.Sandbox, error) {
	s.t.Helper()
	return s.service.Claim(s.t.Context(), sandbox.AcquireInput{Org: s.org, Project: "prj_test", Session: s.session, Epoch: 1})
}

// claimed is a machine that was claimed and runs.
func (s *meterScene) claimed() id.Sandbox {
	s.t.Helper()
	b, err := s.claim()
	require.NoError(s.t, err)
	s.asOwner("UPDATE sandboxes SET state = 'running', started_at = now()")
	return b
}

// pass lets time go by, in which the machine is heard or not, and makes the tick due.
func (s *meterScene) pass(d time.Duration, heard bool) {
	s.t.Helper()
	s.clock.Advance(d)
	s.asOwner("UPDATE sandboxes SET held_until = now()")
	if heard {
		s.asOwner("UPDATE sandboxes SET heartbeat_at = $1", s.clock.Now())
	}
}

// requireAbout allows for the time that the test itself takes.
func requireAbout(t *testing.T, want, got money.Nanos) {
	t.Helper()
	require.InDelta(t, int64(want), int64(got), float64(9*aSecond))
	require.GreaterOrEqual(t, got, want-aSecond)
}

type heldTick struct {
	Step     id.Step
	Open     bool
	Cost     money.Nanos
	Millis   int64
	Held     money.Nanos
	Released money.Nanos
	State    string
}

// ticks are the session's, in their order.
func (s *meterScene) ticks() (out []heldTick) {
	s.t.Helper()
	s.in(func(tx pgx.Tx) error {
		rows, err := tx.Query(s.t.Context(), `SELECT s.id, s.settled_seq IS NULL, s.cost_nanos, coalesce((s.usage ->> 'sandbox_ms')::bigint, 0), h.amount_nanos, h.released_nanos, h.state
			FROM steps s JOIN holds h ON h.org_id = s.org_id AND h.id = s.hold_id WHERE s.org_id = $1 AND s.kind = 'sandbox' ORDER BY s.intended_seq`, s.org)
		if err != nil {
			return err
		}
		out, err = pgx.CollectRows(rows, pgx.RowToStructByPos[heldTick])
		return err
	})
	return out
}

func (s *meterScene) balances() (b billing.Balances) {
	s.t.Helper()
	s.in(func(tx pgx.Tx) (err error) {
		wrong, err := billing.Recount(s.t.Context(), tx, s.org)
		require.NoError(s.t, err)
		require.Empty(s.t, wrong)
		budgets, err := billing.BudgetMismatches(s.t.Context(), tx, s.org)
		require.NoError(s.t, err)
		require.Empty(s.t, budgets)
		b, err = billing.ReadBalances(s.t.Context(), tx, s.org)
		return err
	})
	return b
}

func (s *meterScene) journal() (session journal.Session) {
	s.t.Helper()
	s.in(func(tx pgx.Tx) (err error) {
		session, err = journal.Get(s.t.Context(), tx, s.org, s.session)
		return err
	})
	return session
}

// decisions are the gate's on the machine's time.
func (s *meterScene) decisions() (out []journal.GateDecided) {
	s.t.Helper()
	s.in(func(tx pgx.Tx) error {
		events, err := journal.Events(s.t.Context(), tx, s.org, s.session, journal.EventFilter{Types: []string{"gate.decided"}, Limit: 100})
		for _, e := range events {
			d, err := journal.Decode[journal.GateDecided](e)
			if err != nil {
				return err
			}
			out = append(out, d)
		}
		return err
	})
	return out
}

// spans are what the outbox has of the machine's time: cost by step.
func (s *meterScene) spans() map[string]int64 {
	s.t.Helper()
	out := map[string]int64{}
	s.in(func(tx pgx.Tx) error {
		rows, err := tx.Query(s.t.Context(), "SELECT payload FROM outbox WHERE org_id = $1", s.org)
		if err != nil {
			return err
		}
		payloads, err := pgx.CollectRows(rows, pgx.RowTo[json.RawMessage])
		for _, p := range payloads {
			var span journal.Span
			if err := json.Unmarshal(p, &span); err != nil {
				return err
			}
			if span.Operation == journal.OperationSandbox {
				require.NotContains(s.t, out, span.StepID, "a tick has one span")
				out[span.StepID] = span.CostNanos
			}
		}
		return err
	})
	return out
}

func TestAClaimHoldsTheMachinesTimeAndEachTickSettlesWhatWasUsed(t *testing.T) {
	s := newMeterScene(t, money.Dollar, journal.Limits{})
	b := s.claimed()
	require.Equal(t, aMinute, s.balances().Held, "held before the machine is handed out")
	require.NoError(t, s.service.Meter(t.Context()))
	require.Len(t, s.ticks(), 1, "it is not due")

	s.pass(45*time.Second, true)
	require.NoError(t, s.service.Meter(t.Context()))
	ticks := s.ticks()
	require.Len(t, ticks, 2)
	requireAbout(t, 45*aSecond, ticks[0].Cost)
	require.Equal(t, aMinute, ticks[0].Cost+ticks[0].Released)
	require.True(t, ticks[1].Open)

	s.pass(10*time.Second, true)
	require.NoError(t, s.service.End(t.Context(), s.org, b, sandbox.ReasonIdle))
	ticks = s.ticks()
	require.Len(t, ticks, 2)
	requireAbout(t, 10*aSecond, ticks[1].Cost)
	balances, session := s.balances(), s.journal()
	require.Zero(t, balances.Held)
	requireAbout(t, 55*aSecond, balances.Spent)
	require.Equal(t, balances.Spent, session.Charged)
	require.Equal(t, balances.Spent, aSecond*money.Nanos(session.Usage.SandboxMillis)/1000)
	require.Zero(t, session.Usage.Steps, "a limit on steps is not used up by time that passes")

	require.Equal(t, map[string]int64{string(ticks[0].Step): int64(ticks[0].Cost), string(ticks[1].Step): int64(ticks[1].Cost)}, s.spans())
	for _, d := range s.decisions() {
		require.Equal(t, journal.Admitted, d.Decision)
		require.Equal(t, "sandbox", d.Kind)
	}
	s.in(func(tx pgx.Tx) error {
		rows, err := billing.Usage(t.Context(), tx, s.org, time.UTC, billing.UsageQuery{
			Since: s.clock.Now().Add(-time.Hour), Until: s.clock.Now().Add(time.Hour), By: []string{"tool"}, Limit: 10,
		})
		require.NoError(t, err)
		require.Len(t, rows, 1)
		require.Equal(t, sandbox.TickName, rows[0].Tool)
		requireAbout(t, 55*aSecond, rows[0].Spent)
		return nil
	})
}

func TestNoMoneyNoMachine(t *testing.T) {
	s := newMeterScene(t, aMinute-1, journal.Limits{})
	_, err := s.claim()
	var refused *sandbox.RefusedError
	require.ErrorAs(t, err, &refused)
	require.True(t, fault.IsCode(err, "insufficient_funds"), "%v", err)
	require.Equal(t, money.Nanos(1), refused.Decision.Shortfall.Shortfall)
	require.Empty(t, s.ticks())
	require.Zero(t, s.balances().Held)
	d := s.decisions()
	require.Len(t, d, 1)
	require.Equal(t, journal.Denied, d[0].Decision)
	require.NotNil(t, d[0].Shortfall)
	warm, err := s.service.Warm(t.Context())
	require.NoError(t, err)
	require.Equal(t, 1, warm, "the machine waits for somebody who can pay")

	s.in(func(tx pgx.Tx) error { // the twin: one nano-dollar more
		_, err := billing.Grant(t.Context(), tx, s.clock.Now(), s.org, 1, "test")
		return err
	})
	_, err = s.claim()
	require.NoError(t, err)
	require.Len(t, s.ticks(), 1)
}

func TestABudgetCoversSoManyTicksAndNoMore(t *testing.T) {
	s := newMeterScene(t, money.Dollar, journal.Limits{})
	s.in(func(tx pgx.Tx) error {
		_, err := billing.CreateBudget(t.Context(), tx, s.clock.Now(), s.org, billing.NewBudget{
			Name: "two minutes", Scope: billing.Scope{Type: billing.ScopeSession, ID: string(s.session)}, Limit: 2 * aMinute, Period: "total", Action: billing.Block,
		})
		return err
	})
	b := s.claimed()
	s.pass(time.Minute, true)
	require.NoError(t, s.service.Meter(t.Context()))
	require.Len(t, s.ticks(), 2)
	s.pass(time.Minute, true)
	require.NoError(t, s.service.Meter(t.Context()))
	require.NoError(t, s.service.Stop(context.Background())) // what is refused is ended beside the pass
	ticks := s.ticks()
	require.Len(t, ticks, 2, "the third was refused")
	require.False(t, ticks[1].Open, "its machine was ended")
	last := s.decisions()[2]
	require.Equal(t, journal.Denied, last.Decision)
	require.Equal(t, "two minutes", last.Shortfall.Name)
	balances := s.balances()
	require.Equal(t, 2*aMinute, balances.Spent)
	require.Zero(t, balances.Held)
	require.Error(t, s.service.KeepWithout(t.Context(), s.org, b))
}

func TestACeilingHoldsTheTicksAndBindsAtRest(t *testing.T) {
	ceiling := aMinute + 30*aSecond
	s := newMeterScene(t, money.Dollar, journal.Limits{MaxCost: &ceiling})
	s.locked(func(tx pgx.Tx, l *journal.Locked) error {
		return s.gate.Ceiling(t.Context(), tx, s.clock.Now(), l, ceiling)
	})
	s.claimed()
	require.Equal(t, ceiling, s.balances().Held, "carved from the ceiling, not held beside it")
	s.locked(func(tx pgx.Tx, l *journal.Locked) error { // the session comes to rest
		_, err := s.gate.ReleaseCeiling(t.Context(), tx, s.clock.Now(), l)
		return err
	})
	require.Equal(t, aMinute, s.balances().Held, "the tick outlives the ceiling that it was carved from")
	s.locked(func(tx pgx.Tx, l *journal.Locked) error {
		left, err := gate.LeftOfCeiling(t.Context(), tx, &l.Session)
		require.Equal(t, 30*aSecond, *left, "what a new input may hold is without the tick")
		return err
	})
	s.pass(20*time.Second, true)
	require.NoError(t, s.service.Meter(t.Context()))
	require.Len(t, s.ticks(), 2)
	s.pass(20*time.Second, true)
	require.NoError(t, s.service.Meter(t.Context()))
	require.NoError(t, s.service.Stop(context.Background()))
	require.Len(t, s.ticks(), 2, "another minute would go beyond the ceiling, though nobody works")
	last := s.decisions()[2]
	require.Equal(t, "session", last.Shortfall.Scope)
	require.LessOrEqual(t, s.journal().Charged, ceiling)
	require.Zero(t, s.balances().Held)
}

func (s *meterScene) locked(fn func(tx pgx.Tx, l *journal.Locked) error) {
	s.t.Helper()
	s.in(func(tx pgx.Tx) error {
		l, err := journal.Lock(s.t.Context(), tx, s.org, s.session)
		if err != nil {
			return err
		}
		return fn(tx, l)
	})
}

func TestATickWhoseProcessDiedIsUnsettledAndThenSettledByWhatWasHeard(t *testing.T) {
	s := newMeterScene(t, money.Dollar, journal.Limits{})
	s.claimed()
	s.pass(20*time.Second, true)
	// From here on nobody meters, and the machine falls silent.
	s.clock.Advance(time.Hour)
	s.asOwner("UPDATE holds SET state = 'unsettled' WHERE state = 'held'")
	require.Equal(t, aMinute, s.balances().Held, "it counts until it is settled")
	require.NoError(t, s.process().Meter(t.Context()))
	ticks := s.ticks()
	require.Len(t, ticks, 2)
	requireAbout(t, 20*aSecond, ticks[0].Cost)
	require.Equal(t, "captured", ticks[0].State)
	require.Equal(t, aMinute, s.balances().Held, "the next one alone")

	// One that was heard all the time has used its tick, and no more than that: what was not held for is not charged.
	s.pass(3*time.Hour, true)
	require.NoError(t, s.service.Meter(t.Context()))
	require.Equal(t, aMinute, s.ticks()[1].Cost)
	// And a clock that jumps back charges nothing.
	s.pass(-2*time.Hour, true)
	require.NoError(t, s.service.Meter(t.Context()))
	require.False(t, s.ticks()[2].Open)
	require.Zero(t, s.ticks()[2].Cost)
	s.in(func(tx pgx.Tx) error {
		accounts, err := billing.AccountBalances(t.Context(), tx, s.org)
		for _, a := range accounts {
			if a.Account == billing.Loss {
				require.Zero(t, a.Balance, "time that nobody held is nobody's loss on the ledger")
			}
		}
		return err
	})
}

func TestManyProcessesMeterAMachineOnce(t *testing.T) {
	s := newMeterScene(t, money.Dollar, journal.Limits{})
	s.claimed()
	s.pass(50*time.Second, true)
	var all sync.WaitGroup
	errs := make(chan error, 16)
	for range 4 {
		p := s.process()
		for range 4 {
			all.Go(func() { errs <- p.Meter(t.Context()) })
		}
	}
	all.Wait()
	close(errs)
	for err := range errs {
		require.NoError(t, err)
	}
	// Another may come between a hold and the note of it: then it settles that one and holds its own. Never are two held.
	open := 0
	var cost money.Nanos
	for _, tick := range s.ticks() {
		if tick.Open {
			open++
		}
		cost += tick.Cost
	}
	require.Equal(t, 1, open)
	requireAbout(t, 50*aSecond, cost)
	require.Equal(t, aMinute, s.balances().Held)
}

func TestNothingOfASessionThatHasEndedIsMetered(t *testing.T) {
	s := newMeterScene(t, money.Dollar, journal.Limits{})
	b := s.claimed()
	s.pass(30*time.Second, true)
	s.locked(func(tx pgx.Tx, l *journal.Locked) error { // as a kill ends it
		l.Supersede()
		open, err := journal.OpenSteps(t.Context(), tx, s.org, s.session)
		require.Len(t, open, 1)
		if err != nil {
			return err
		}
		settled, entry, err := sandbox.SettleTick(t.Context(), tx, s.gate, s.clock.Now(), l, open[0])
		requireAbout(t, 30*aSecond, settled.Captured)
		if err != nil {
			return err
		}
		_, err = l.Append(t.Context(), s.clock.Now(), entry, journal.Of(journal.StatusTerminated{StopReason: journal.StopReason{Type: journal.StopKilled}}))
		return err
	})
	before := s.journal()
	require.NoError(t, s.service.Meter(t.Context()))
	_, err := s.claim()
	var refused *sandbox.RefusedError
	require.True(t, errors.As(err, &refused) || errors.Is(err, sandbox.ErrFenced), "%v", err)
	s.clock.Advance(time.Minute)
	require.NoError(t, s.service.End(t.Context(), s.org, b, sandbox.ReasonKilled))
	after := s.journal()
	require.Equal(t, before.Charged, after.Charged)
	require.Len(t, s.ticks(), 1, "nothing is admitted after the session's end")
	require.Zero(t, s.balances().Held)
}

func TestARuleThatForbidsSandboxesBindsTheNextTick(t *testing.T) {
	s := newMeterScene(t, money.Dollar, journal.Limits{})
	s.claimed()
	ctx := principal.With(t.Context(), principal.NamedSystem("test"))
	rules := policy.NewService(policy.NewCache(s.db, nil, slog.New(slog.DiscardHandler)), policy.Catalogue{}, s.clock)
	s.in(func(tx pgx.Tx) error {
		_, err := rules.Create(ctx, tx, s.org, policy.Rule{
			Subject: policy.Any, Effect: policy.Deny, Kind: policy.Sandbox, Name: policy.Any, Action: policy.Any, Object: policy.Any, Description: "No machines today",
		})
		return err
	})
	s.pass(time.Minute, true)
	require.NoError(t, s.service.Meter(t.Context()))
	require.NoError(t, s.service.Stop(context.Background()))
	d := s.decisions()
	require.Equal(t, journal.Denied, d[len(d)-1].Decision)
	require.Contains(t, d[len(d)-1].Reasons[0].Message, "No machines today")
	require.Len(t, s.ticks(), 1)
	_, err := s.process().Claim(t.Context(), sandbox.AcquireInput{Org: s.org, Project: "prj_test", Session: s.session, Epoch: 1})
	require.Error(t, err)
}
