package gate_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
)

// crowd makes sessions with leases, many at a time.
func (s *scene) crowd(n int) []journal.Lease {
	s.t.Helper()
	leases := make([]journal.Lease, n)
	require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) error {
		for i := range leases {
			session := id.New[id.Session]()
			if err := s.create(tx, session); err != nil {
				return err
			}
			lease, claimed, err := journal.ClaimLease(s.t.Context(), tx, s.org, session, "test", "", time.Hour)
			if err != nil || !claimed {
				return fmt.Errorf("claim (%v): %w", claimed, err)
			}
			leases[i] = lease
		}
		return nil
	}))
	return leases
}

// gather holds up what n processes commit, after the decisions and before the ledger is written, so that none sees what another has decided.
// The returned function waits until all that is asked has gathered, and lets it go.
func (s *scene) gather(n int) func(committers []*gate.Committer, each int) {
	s.t.Helper()
	hold := func() *pgx.Conn {
		conn, err := pgx.Connect(s.t.Context(), s.owner)
		require.NoError(s.t, err)
		s.t.Cleanup(func() { _ = conn.Close(context.Background()) })
		return conn
	}
	const lock = "BEGIN; LOCK TABLE ledger_transfers IN SHARE MODE"
	first, second := hold(), hold()
	_, err := first.Exec(s.t.Context(), lock)
	require.NoError(s.t, err)
	eventually := func(met func() bool) {
		s.t.Helper()
		require.Eventually(s.t, met, 20*time.Second, 5*time.Millisecond)
	}
	return func(committers []*gate.Committer, each int) {
		eventually(func() bool { return s.waiting() >= n }) // with what came first, which is one batch, of one unit or of many
		for _, c := range committers {
			eventually(func() bool { return c.Waiting() >= each-64 })
		}
		held := make(chan error, 1)
		go func() {
			_, err := second.Exec(s.t.Context(), lock)
			held <- err
		}()
		eventually(func() bool { // the second lock is asked for: it comes after what waits now, and before all else
			var queued bool
			err := first.QueryRow(s.t.Context(), `SELECT EXISTS (SELECT FROM pg_locks WHERE mode = 'ShareLock' AND relation = 'ledger_transfers'::regclass AND NOT granted)`).Scan(&queued)
			return err == nil && queued
		})
		_, err := first.Exec(s.t.Context(), "COMMIT")
		require.NoError(s.t, err)
		require.NoError(s.t, <-held)
		eventually(func() bool { // with the batches that had gathered behind, if there is anything left to admit
			left := 0
			for _, c := range committers {
				left += c.Waiting()
			}
			return s.waiting() >= n || left == 0
		})
		_, err = second.Exec(s.t.Context(), "COMMIT")
		require.NoError(s.t, err)
	}
}

// Three committers, each with connections of its own as processes have, two hundred callers at each, and a budget for ten.
func TestSixHundredCallersSpendNoMoreThanABudgetForTen(t *testing.T) {
	const processes, callers, fit = 3, 200, 10
	s := newScene(t, money.Dollar)
	b := s.budget(fit * bound)
	leases := s.crowd(processes * callers)
	units := make([]*gate.Unit, len(leases))
	for i, l := range leases {
		units[i], _ = s.begun(l, proposal())
	}
	together := s.gather(processes) // an organisation is in one lane of a process at a time
	var (
		wg       sync.WaitGroup
		mu       sync.Mutex
		admitted int
		short    int
		failed   []error
	)
	var committers []*gate.Committer
	for p := range processes {
		db, err := postgres.Open(t.Context(), postgres.Config{OwnerURL: s.owner, Passwords: dbtest.Passwords(), MaxConns: 4})
		require.NoError(t, err)
		t.Cleanup(db.Close)
		committer := gate.NewCommitter(db)
		committers = append(committers, committer)
		for _, u := range units[p*callers : (p+1)*callers] {
			wg.Go(func() {
				err := committer.Commit(t.Context(), u)
				var wanting *gate.ShortError
				mu.Lock()
				defer mu.Unlock()
				switch {
				case err == nil:
					admitted++
				case errors.As(err, &wanting) && wanting.Short.Budget == b.ID && wanting.Short.Required == bound:
					short++
				default:
					failed = append(failed, err)
				}
			})
		}
	}
	together(committers, callers)
	wg.Wait()
	require.NoError(t, errors.Join(failed...))
	require.Equal(t, fit, admitted, "a budget for ten admits exactly ten")
	require.Equal(t, processes*callers-fit, short, "the rest is refused with the shortfall")
	require.Equal(t, fit*bound, s.reread(b).Held)
}

// player does random things with one session's money, as its worker and others may.
type player struct {
	*scene

	lease journal.Lease
	rand  *rand.Rand
	open  *journal.HoldRef // of the step under way
	step  id.Step
}

// once does one thing. A refusal is an answer; an error is one.
func (p *player) once(ctx context.Context, committer *gate.Committer) error {
	n := p.rand.IntN(100)
	switch {
	case n < 70: // the worker goes on: settles what is open, begins the next
		u, err := p.draft(ctx)
		if err != nil {
			return err
		}
		var entries []journal.Entry
		if p.open != nil {
			used := gate.Used{At: u.Now, Quantity: []gate.Priced{{Kind: prices.Model, Ref: "test/model", Quantities: prices.Quantities{prices.InputToken: p.rand.Int64N(2200)}}}}
			settled, err := p.gate.Settle(ctx, u, *p.open, used)
			if err != nil {
				return err
			}
			entries = append(entries, journal.Entry{Step: p.step, Payload: journal.StepSettled{Kind: journal.KindModelCall, Outcome: journal.Succeeded, Cost: settled.Captured, Entry: settled.Entry, Released: settled.Released}})
		}
		var next gate.Decision
		following := proposal()
		following.Quantity[0].Quantities[prices.InputToken] = p.rand.Int64N(2000)
		begins := p.rand.IntN(4) > 0 || p.open == nil
		if begins {
			if next, err = p.gate.Admit(u, following); err != nil {
				return err
			}
			entries = append(entries, journal.Entry{Step: following.Step, Payload: journal.StepIntended{Kind: journal.KindModelCall, EffectKey: following.EffectKey, Hold: next.Hold}})
		}
		if _, err := u.Append(u.Now, entries...); err != nil {
			return err
		}
		err = committer.Commit(ctx, u)
		var short *gate.ShortError
		switch {
		case errors.As(err, &short), errors.Is(err, gate.ErrMoved):
			return nil
		case errors.Is(err, gate.ErrBreached): // a step used more than its hold; an operator mends that
			return p.db.InPlatformTx(ctx, func(tx pgx.Tx) error { return gate.MendBound(ctx, tx, "test/model") })
		case err != nil:
			return err
		}
		p.open, p.step = nil, ""
		if begins {
			p.open, p.step = next.Hold, following.Step
		}
		return nil
	case n < 80: // a ceiling is held, or given back
		return p.db.InTx(ctx, p.org, func(tx pgx.Tx) error {
			l, err := journal.Lock(ctx, tx, p.org, p.lease.Session)
			if err != nil {
				return err
			}
			if l.CeilingHold == "" {
				err = p.gate.Ceiling(ctx, tx, p.clock.Now(), l, money.Nanos(1+p.rand.Int64N(int64(4*bound))))
			} else if p.open == nil {
				_, err = p.gate.ReleaseCeiling(ctx, tx, p.clock.Now(), l)
			}
			if err == nil { // as with any message: the worker must see that the ceiling is another
				_, err = l.Append(ctx, p.clock.Now(), journal.Of(journal.UserMessage{Content: journal.Text("go on")}))
			}
			return err
		})
	case n < 88: // somebody else settles: a kill, a lost worker
		if p.open == nil {
			return nil
		}
		hold, step := *p.open, p.step
		p.open, p.step = nil, ""
		return p.db.InTx(ctx, p.org, func(tx pgx.Tx) error {
			l, err := journal.Lock(ctx, tx, p.org, p.lease.Session)
			if err != nil {
				return err
			}
			settled, err := p.gate.SettleTx(ctx, tx, p.clock.Now(), l, hold.ID, gate.Used{At: p.clock.Now()})
			if err != nil {
				return err
			}
			_, err = l.Append(ctx, p.clock.Now(), journal.Entry{Step: step, Payload: journal.StepSettled{Kind: journal.KindModelCall, Outcome: journal.Unknown, Cost: settled.Captured, Entry: settled.Entry, Released: settled.Released}})
			return err
		})
	case n < 92: // credit comes and goes
		return p.db.InTx(ctx, p.org, func(tx pgx.Tx) error {
			amount := money.Nanos(1 + p.rand.Int64N(int64(bound)))
			if p.rand.IntN(2) == 0 {
				_, err := billing.Grant(ctx, tx, p.clock.Now(), p.org, amount, "test")
				return err
			}
			_, err := billing.Revoke(ctx, tx, p.clock.Now(), p.org, amount, "test")
			return err
		})
	case n < 96: // a budget is made
		return p.db.InTx(ctx, p.org, func(tx pgx.Tx) error {
			_, err := billing.CreateBudget(ctx, tx, p.clock.Now(), p.org, billing.NewBudget{
				Name: "random", Scope: billing.Scope{Type: billing.ScopeSession, ID: string(p.lease.Session)}, Limit: money.Nanos(p.rand.Int64N(int64(20 * bound))),
				Period: billing.BudgetPeriods[p.rand.IntN(5)], Action: billing.Block, Alerts: []int32{50},
			})
			return err
		})
	default: // or changed, or ended
		return p.db.InTx(ctx, p.org, func(tx pgx.Tx) error {
			list, err := billing.ListBudgets(ctx, tx, p.org, "session:"+string(p.lease.Session), "", 10)
			if err != nil || len(list) == 0 {
				return err
			}
			b := list[p.rand.IntN(len(list))]
			if p.rand.IntN(3) == 0 {
				return billing.ArchiveBudget(ctx, tx, p.clock.Now(), p.org, b.ID)
			}
			limit := money.Nanos(p.rand.Int64N(int64(40 * bound)))
			_, err = billing.UpdateBudget(ctx, tx, p.clock.Now(), p.org, b.ID, billing.ChangeBudget{Limit: &limit}, 0)
			return err
		})
	}
}

func (p *player) draft(ctx context.Context) (*gate.Unit, error) {
	var session journal.Session
	err := p.db.InTx(ctx, p.org, func(tx pgx.Tx) (err error) {
		session, err = journal.Get(ctx, tx, p.org, p.lease.Session)
		return err
	})
	return gate.Draft(p.clock.Now(), session, p.lease, nil), err
}

func TestAnyInterleavingOfTenThousandOperationsBalances(t *testing.T) {
	const players, each = 20, 500
	seed := uint64(time.Now().UnixNano()) //nolint:gosec // any will do, and it is told
	t.Logf("seed %d", seed)
	s := newScene(t, 10*money.Cent)
	var wg sync.WaitGroup
	failed := make([]error, players)
	leases := s.crowd(players)
	for i, lease := range leases {
		p := &player{scene: s, lease: lease, rand: rand.New(rand.NewPCG(seed, uint64(i)))} //nolint:gosec // repeatable on purpose
		wg.Go(func() {
			for range each {
				if err := p.once(t.Context(), s.commits); err != nil && !isRefusal(err) {
					failed[i] = err
					return
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(failed...))
	require.NoError(t, s.db.InTx(t.Context(), s.org, func(tx pgx.Tx) error {
		wrong, err := billing.Recount(t.Context(), tx, s.org)
		require.Empty(t, wrong, "balances are the sums of the transfers")
		if err != nil {
			return err
		}
		mismatches, err := billing.BudgetMismatches(t.Context(), tx, s.org)
		require.Empty(t, mismatches, "budgets are the sums of the transfers")
		if err != nil {
			return err
		}
		balances, err := billing.ReadBalances(t.Context(), tx, s.org)
		if err != nil {
			return err
		}
		// The open holds are what is held.
		var held money.Nanos
		for _, l := range leases {
			holds, err := billing.OpenHolds(t.Context(), tx, s.org, l.Session)
			if err != nil {
				return err
			}
			for _, h := range holds {
				if h.Parent == "" {
					held += h.Amount - h.Captured - h.Released
				}
			}
		}
		require.Equal(t, balances.Held, held)
		// And the journals, replayed, are the ledger: each capture is a settled step's, and no other.
		for _, l := range leases {
			events, err := journal.EventsUpTo(t.Context(), tx, s.org, l.Session, 0, s.headOf(tx, l))
			if err != nil {
				return err
			}
			said := map[id.Entry]money.Nanos{}
			for _, e := range events {
				if e.Type == (journal.StepSettled{}).EventType() {
					p, err := journal.Decode[journal.StepSettled](e)
					if err != nil {
						return err
					}
					if p.Entry != "" {
						said[p.Entry] = p.Cost
					}
				}
			}
			transfers, err := billing.SessionTransfers(t.Context(), tx, s.org, l.Session)
			if err != nil {
				return err
			}
			booked := map[id.Entry]money.Nanos{}
			for _, tr := range transfers {
				if tr.Kind == "capture" {
					booked[tr.ID] = tr.Amount
				}
			}
			require.Equal(t, said, booked)
		}
		return nil
	}))
}

func (s *scene) headOf(tx pgx.Tx, l journal.Lease) int64 {
	session, err := journal.Get(s.t.Context(), tx, s.org, l.Session)
	require.NoError(s.t, err)
	return session.LastSeq
}

// isRefusal tells an answer from a failure: money that is not there, a session that is in the wrong state for it.
func isRefusal(err error) bool {
	return fault.IsCode(err, "insufficient_funds") || fault.IsCode(err, "not_found")
}
