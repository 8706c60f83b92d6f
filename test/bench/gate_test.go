package bench

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

// outside is an effect: a request to a server on this machine.
type outside struct {
	*httptest.Server

	client *http.Client
}

func newOutside(b *testing.B) *outside {
	b.Helper()
	o := &outside{Server: httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "done") }))}
	b.Cleanup(o.Close)
	o.client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: hotCallers}}
	b.Cleanup(o.client.CloseIdleConnections)
	return o
}

func (o *outside) do(ctx context.Context, key string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, o.URL, http.NoBody)
	if err != nil {
		return err
	}
	req.Header.Set("Idempotency-Key", key)
	resp, err := o.client.Do(req)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	return errors.Join(err, resp.Body.Close())
}

// through makes effects one after another as a worker does: each decided, held and journalled before it, consumed, made, and settled, with its
// span, in the commit that admits the next. n effects are n+1 commits.
func (h *hot) through(ctx context.Context, i, n int, effect func(ctx context.Context, key string) error) error {
	digest := gate.Digest{1}
	quantity := func(out int64) []gate.Priced {
		return []gate.Priced{{Kind: prices.Model, Ref: "instant/model", Quantities: prices.Quantities{prices.InputToken: 10, prices.OutputToken: out}}}
	}
	var open gate.Decision
	var begun id.Step
	var began time.Time
	for at := 0; at <= n; at++ {
		u := gate.Draft(time.Now(), h.sessions[i], h.leases[i], nil)
		if at > 0 {
			money, err := h.gate.Settle(ctx, u, *open.Hold, gate.Used{At: began, Quantity: quantity(1)})
			if err != nil {
				return err
			}
			u.PutSpan(journal.Span{SpanID: journal.SpanID(string(begun)), Name: "chat", Operation: journal.OperationChat, StartTime: began, EndTime: u.Now, CostNanos: int64(money.Captured)})
			settled := journal.StepSettled{Kind: journal.KindModelCall, Name: "instant/model", Outcome: journal.Succeeded, Cost: money.Captured, Entry: money.Entry, Released: money.Released}
			if _, err := u.Append(u.Now, journal.Entry{Step: begun, Payload: settled}); err != nil {
				return err
			}
		}
		if at < n {
			begun, began = id.New[id.Step](), u.Now
			p := gate.Proposal{Step: begun, Kind: gate.ModelCall, Name: "instant/model", Digest: digest, EffectKey: string(begun), Within: time.Minute, Quantity: quantity(5)}
			var err error
			if open, err = h.gate.Admit(u, p); err != nil || open.Outcome != journal.Admitted {
				return fmt.Errorf("%s: %w", open.Outcome, err)
			}
			intended := journal.StepIntended{Kind: journal.KindModelCall, Name: p.Name, EffectKey: p.EffectKey, Digest: hex.EncodeToString(digest[:]), Hold: open.Hold, QueuedAt: u.Now}
			if _, err := u.Append(u.Now, journal.Entry{Step: begun, Payload: open.Event(p)}, journal.Entry{Step: begun, Payload: intended}); err != nil {
				return err
			}
		}
		if err := h.commits.Commit(ctx, u); err != nil {
			return err
		}
		h.sessions[i] = u.Session
		if at < n {
			grant, err := open.Admission.Consume(gate.ModelCall, digest)
			if err != nil {
				return err
			}
			if err := effect(ctx, grant.EffectKey); err != nil {
				return err
			}
		}
	}
	return nil
}

// bareRows writes the rows that an effect through the gate writes, in one transaction that is sent at once: no decision, no check, the
// ledger's own trigger, and the one lock without which two that write wait for each other crosswise.
func (h *hot) bareRows(ctx context.Context, i int, seqs *int64) error {
	org, session, now := h.org, h.bare[i], time.Now()
	step, hold := id.New[id.Step](), id.New[id.Hold]()
	event := func(batch *pgx.Batch, kind, payload string) {
		*seqs++
		batch.Queue(`INSERT INTO events (org_id, session_id, seq, id, type, schema_version, epoch, step_id, payload, created_at) VALUES ($1, $2, $3, $4, $5, 1, 1, $6, $7, $8)`,
			org, session, *seqs, id.New[id.Event](), kind, step, payload, now)
	}
	batch := &pgx.Batch{}
	batch.Queue(`SELECT 1 FROM ledger_balances WHERE org_id = $1 FOR NO KEY UPDATE`, org)
	event(batch, "gate.decided", `{"decision":"admitted","kind":"model_call","name":"instant/model","reasons":[{"rule":"hold","message":"held $0.0000001500 at most"}]}`)
	event(batch, "step.intended", `{"kind":"model_call","name":"instant/model","hold":{"id":"`+string(hold)+`"}}`)
	batch.Queue(`INSERT INTO steps (org_id, session_id, id, kind, effect_key, epoch, intended_seq, name, hold_id, intended_at) VALUES ($1, $2, $3, 'model_call', $3, 1, $4, 'instant/model', $5, $6)`,
		org, session, step, *seqs, hold, now)
	batch.Queue(`INSERT INTO holds (org_id, id, session_id, step_id, amount_nanos, state, expires_at, created_at) VALUES ($1, $2, $3, $4, 150, 'held', $5, $5)`, org, hold, session, step, now)
	transfer := func(debit, credit, kind string, amount int64) {
		batch.Queue(`INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, hold_id, session_id, step_id, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)`,
			org, id.New[id.Entry](), debit, credit, amount, kind, hold, session, step, now)
	}
	transfer("available", "held", "hold", 150)
	event(batch, "step.settled", `{"kind":"model_call","name":"instant/model","outcome":"succeeded"}`)
	batch.Queue(`UPDATE steps SET settled_seq = $3, outcome = 'succeeded', cost_nanos = 110, settled_at = $4 WHERE org_id = $1 AND id = $2`, org, step, *seqs, now)
	batch.Queue(`UPDATE holds SET captured_nanos = 110, released_nanos = 40, settled_at = $3, state = 'captured' WHERE org_id = $1 AND id = $2`, org, hold, now)
	transfer("held", "spent", "capture", 110)
	transfer("held", "available", "release", 40)
	batch.Queue(`INSERT INTO outbox (org_id, project_id, session_id, kind, payload) VALUES ($1, 'prj_bench', $2, 'span', '{"name":"chat"}')`, org, session)
	batch.Queue(`UPDATE sessions SET last_seq = $3, last_active_at = $4, version = version + 1 WHERE org_id = $1 AND id = $2`, org, session, *seqs, now)
	return h.db.InTx(ctx, org, func(tx pgx.Tx) error { return tx.SendBatch(ctx, batch).Close() })
}

// BenchmarkAnEffectThroughTheGate makes the same effect bare, through the gate, and beside the same rows written to Postgres without one, in turns
// within the same run: by one caller, and by 32 on one organisation's balance.
func BenchmarkAnEffectThroughTheGate(b *testing.B) {
	for _, callers := range []int{1, 32} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			h, o := newHot(b), newOutside(b)
			h.makeBare(b)
			seqs := make([]int64, callers)
			for i := range seqs {
				seqs[i] = 1 // session.created
			}
			const each = 20
			run := func(fn func(i int) error) time.Duration {
				return together(callers, func(i int) {
					if err := fn(i); err != nil {
						b.Error(err)
					}
				})
			}
			times := func(n int, fn func(i int) error) func(i int) error {
				return func(i int) error {
					for range n {
						if err := fn(i); err != nil {
							return err
						}
					}
					return nil
				}
			}
			effect := func(int) error { return o.do(b.Context(), "key") }
			rows := func(i int) error { return h.bareRows(b.Context(), i, &seqs[i]) }
			both := func(i int) error { return errors.Join(effect(i), rows(i)) }
			gated := func(i int) error { return h.through(b.Context(), i, each, o.do) }
			run(gated)
			run(times(2, both))
			var bare, written, through time.Duration
			b.ResetTimer()
			for range b.N {
				bare += run(times(each, effect))
				written += run(times(each, both))
				through += run(gated)
			}
			one := func(d time.Duration) float64 { return float64(d.Microseconds()) / float64(b.N*each) }
			b.ReportMetric(one(through), "µs/effect")
			b.ReportMetric(one(bare), "bare-µs")
			b.ReportMetric(one(written), "rows-µs")
			b.ReportMetric(one(through)-one(bare), "gate-µs")
			b.ReportMetric(one(through)/one(bare), "x-bare")
			b.ReportMetric(one(through)/one(written), "x-rows")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// makeBare makes as many sessions again, for rows that no gate writes.
func (h *hot) makeBare(b *testing.B) {
	b.Helper()
	require.NoError(b, h.db.InTx(b.Context(), h.org, func(tx pgx.Tx) error {
		for range hotCallers {
			session := id.New[id.Session]()
			_, _, err := journal.Create(b.Context(), tx, time.Now(), journal.New{Org: h.org, ID: session, Project: "prj_bench", Agent: journal.Snapshot{Definition: journal.Definition{Model: "instant/model"}}})
			if err != nil {
				return err
			}
			if _, ok, err := journal.ClaimLease(b.Context(), tx, h.org, session, "bench", "", time.Hour); err != nil || !ok { // or a worker would take it up
				return fmt.Errorf("claim (%v): %w", ok, err)
			}
			h.bare = append(h.bare, session)
		}
		return nil
	}))
}
