package bench

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

const hotCallers = 64

// hot is one organisation's balance that many callers hold from at once, each in a session of its own.
type hot struct {
	*rig

	org      id.Org
	gate     *gate.Gate
	commits  *gate.Committer
	sessions []journal.Session
	leases   []journal.Lease
	bare     []id.Session // others, of which rows are written without the gate
}

func newHot(b *testing.B) *hot {
	b.Helper()
	h := &hot{rig: newRig(b, 1, 1)}
	h.org = h.orgs[0]
	table, err := prices.New(prices.File{Version: "bench", Currency: "USD", Entries: []prices.Entry{
		{Kind: prices.Model, Ref: "instant/model", EffectiveFrom: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Nanos: prices.Prices{prices.InputToken: 10, prices.OutputToken: 10}},
	}})
	require.NoError(b, err)
	log := slog.New(slog.DiscardHandler)
	h.gate, h.commits = gate.New(table, policy.NewCache(h.db, nil, log), clock.System(), log), gate.NewCommitter(h.db)
	require.NoError(b, h.db.InTx(b.Context(), h.org, func(tx pgx.Tx) error {
		for range hotCallers {
			session := id.New[id.Session]()
			_, _, err := journal.Create(b.Context(), tx, time.Now(), journal.New{Org: h.org, ID: session, Project: "prj_bench", Agent: journal.Snapshot{Definition: journal.Definition{Model: "instant/model"}}})
			if err != nil {
				return err
			}
			lease, ok, err := journal.ClaimLease(b.Context(), tx, h.org, session, "bench", "", time.Hour)
			if err != nil || !ok {
				return fmt.Errorf("claim (%v): %w", ok, err)
			}
			s, err := journal.Get(b.Context(), tx, h.org, session)
			if err != nil {
				return err
			}
			h.sessions, h.leases = append(h.sessions, s), append(h.leases, lease)
		}
		return nil
	}))
	return h
}

// admit is what the gate does: price, decide, hold, in a unit that shares its commit.
func (h *hot) admit(ctx context.Context, i int) error {
	step := id.New[id.Step]()
	u := gate.Draft(time.Now(), h.sessions[i], h.leases[i], nil)
	d, err := h.gate.Admit(u, gate.Proposal{
		Step: step, Kind: gate.ModelCall, Name: "instant/model", Digest: gate.Digest{1}, EffectKey: string(step), Within: time.Minute,
		Quantity: []gate.Priced{{Kind: prices.Model, Ref: "instant/model", Quantities: prices.Quantities{prices.InputToken: 10, prices.OutputToken: 1}}},
	})
	if err != nil || d.Outcome != journal.Admitted {
		return fmt.Errorf("%s: %w", d.Outcome, err)
	}
	return h.commits.Commit(ctx, u)
}

const holdAmount = money.Nanos(110)

// forUpdate is how it is usually done: lock the balance, look, write, commit.
func (h *hot) forUpdate(ctx context.Context, i int) error {
	return h.db.InTx(ctx, h.org, func(tx pgx.Tx) error {
		var balance int64
		if err := tx.QueryRow(ctx, `SELECT available_nanos FROM ledger_balances WHERE org_id = $1 FOR UPDATE`, h.org).Scan(&balance); err != nil {
			return err
		}
		if balance < int64(holdAmount) {
			return errors.New("short")
		}
		return h.write(ctx, tx, i)
	})
}

// write writes the rows that an admission writes.
func (h *hot) write(ctx context.Context, tx pgx.Tx, i int) error {
	hold, now := id.New[id.Hold](), time.Now()
	if _, err := tx.Exec(ctx, `INSERT INTO holds (org_id, id, session_id, step_id, amount_nanos, state, expires_at, created_at) VALUES ($1, $2, $3, $2, $4, 'held', $5, $5)`,
		h.org, hold, h.sessions[i].ID, int64(holdAmount), now); err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, hold_id, session_id, created_at) VALUES ($1, $2, 'available', 'held', $3, 'hold', $4, $5, $6)`,
		h.org, id.New[id.Entry](), int64(holdAmount), hold, h.sessions[i].ID, now); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `UPDATE sessions SET last_active_at = $3, version = version + 1 WHERE org_id = $1 AND id = $2`, h.org, h.sessions[i].ID, now)
	return err
}

// conditional writes the same rows in one statement that looks and writes, in a transaction of its own.
func (h *hot) conditional(ctx context.Context, i int) error {
	return h.db.InTx(ctx, h.org, func(tx pgx.Tx) error {
		hold, now := id.New[id.Hold](), time.Now()
		tag, err := tx.Exec(ctx, `
			WITH enough AS (SELECT 1 FROM ledger_balances WHERE org_id = $1 AND available_nanos >= $4 FOR UPDATE),
			     held AS (INSERT INTO holds (org_id, id, session_id, step_id, amount_nanos, state, expires_at, created_at) SELECT $1, $2, $3, $2, $4, 'held', $5, $5 FROM enough),
			     touched AS (UPDATE sessions SET last_active_at = $5, version = version + 1 FROM enough WHERE org_id = $1 AND id = $3)
			INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, hold_id, session_id, created_at)
			SELECT $1, $6, 'available', 'held', $4, 'hold', $2, $3, $5 FROM enough`,
			h.org, hold, h.sessions[i].ID, int64(holdAmount), now, id.New[id.Entry]())
		if err == nil && tag.RowsAffected() != 1 {
			err = errors.New("short")
		}
		return err
	})
}

// BenchmarkHoldsOnOneHotAccount has 64 callers hold from one organisation's balance at once, in turns within the same run.
func BenchmarkHoldsOnOneHotAccount(b *testing.B) {
	h := newHot(b)
	run := func(fn func(context.Context, int) error, each int) time.Duration {
		return together(hotCallers, func(i int) {
			for range each {
				if err := fn(b.Context(), i); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	run(h.admit, 2)
	run(h.forUpdate, 1)
	run(h.conditional, 1)
	var ours, locked, conditional time.Duration
	const each, fewer = 20, 4
	b.ResetTimer()
	for range b.N {
		ours += run(h.admit, each)
		locked += run(h.forUpdate, fewer)
		conditional += run(h.conditional, fewer)
	}
	rate := func(d time.Duration, each int) float64 { return float64(b.N*hotCallers*each) / d.Seconds() }
	b.ReportMetric(rate(ours, each), "holds/s")
	b.ReportMetric(rate(locked, fewer), "for-update/s")
	b.ReportMetric(rate(conditional, fewer), "conditional/s")
	b.ReportMetric(rate(ours, each)/rate(locked, fewer), "x-for-update")
	b.ReportMetric(rate(ours, each)/rate(conditional, fewer), "x-conditional")
	b.ReportMetric(0, "ns/op")
}
