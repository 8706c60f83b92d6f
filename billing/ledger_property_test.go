package billing_test

import (
	"context"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// reckoning is what the books must say, reckoned without a database.
type reckoning struct {
	granted, available, held, spent, loss money.Nanos
	holds                                 []*reckonedHold
}

type reckonedHold struct {
	id     id.Hold
	parent *reckonedHold
	amount money.Nanos
	carved money.Nanos // what open children hold
	gone   money.Nanos // captured or released
	open   bool
}

func (h *reckonedHold) left() money.Nanos { return h.amount - h.carved - h.gone }

func (r *reckoning) openHolds(keep func(*reckonedHold) bool) []*reckonedHold {
	var out []*reckonedHold
	for _, h := range r.holds {
		if h.open && keep(h) {
			out = append(out, h)
		}
	}
	return out
}

// settle reckons what Settle must answer.
func (r *reckoning) settle(h *reckonedHold, used money.Nanos) (captured, released, excess money.Nanos) {
	captured = min(used, h.left())
	released, excess = h.left()-captured, used-captured
	h.open, h.gone = false, h.gone+captured+released
	r.spent += captured + excess
	r.loss -= excess
	r.held -= captured
	if h.parent == nil {
		r.held -= released
		r.available += released
		return captured, released, excess
	}
	h.parent.carved -= h.amount
	h.parent.gone += captured
	if !h.parent.open {
		h.parent.gone += released
		r.held -= released
		r.available += released
	}
	return captured, released, excess
}

// Whatever is done in whatever order, the books balance, nothing is spent that is not there, and each answer is the reckoned one.
func TestBooksBalanceWhateverIsDone(t *testing.T) {
	db := dbtest.New(t)
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		b := books{db: db, org: dbtest.NewOrg(t, db)}
		want := &reckoning{}
		amount := rapid.OneOf(rapid.Int64Range(1, 20), rapid.Int64Range(1, int64(50*money.Dollar)))
		rt.Repeat(map[string]func(*rapid.T){
			"grant": func(rt *rapid.T) {
				n := money.Nanos(amount.Draw(rt, "amount"))
				require.NoError(rt, b.grant(ctx, n))
				want.granted += n
				want.available += n
			},
			"revoke": func(rt *rapid.T) {
				n := money.Nanos(amount.Draw(rt, "amount"))
				err := b.revoke(ctx, n)
				if n > want.available {
					require.True(rt, fault.IsCode(err, "insufficient_funds"), "%v", err)
					return
				}
				require.NoError(rt, err)
				want.granted -= n
				want.available -= n
			},
			"hold": func(rt *rapid.T) {
				n := money.Nanos(rapid.OneOf(rapid.Int64Range(0, 20), rapid.Int64Range(0, max(1, int64(want.available)+1))).Draw(rt, "amount"))
				hold, short, err := b.place(ctx, "", n)
				require.NoError(rt, err)
				if n > want.available {
					require.Equal(rt, &billing.Short{Required: n, Available: want.available}, short)
					return
				}
				require.Nil(rt, short)
				want.available -= n
				want.held += n
				want.holds = append(want.holds, &reckonedHold{id: hold, amount: n, open: true})
			},
			"carve": func(rt *rapid.T) {
				roots := want.openHolds(func(h *reckonedHold) bool { return h.parent == nil })
				if len(roots) == 0 {
					rt.Skip("nothing to carve from")
				}
				parent := rapid.SampledFrom(roots).Draw(rt, "parent")
				n := money.Nanos(rapid.Int64Range(0, int64(parent.left())+1).Draw(rt, "amount"))
				hold, short, err := b.place(ctx, parent.id, n)
				require.NoError(rt, err)
				if n > parent.left() {
					require.Equal(rt, &billing.Short{Required: n, Available: parent.left(), Ceiling: parent.id}, short)
					return
				}
				require.Nil(rt, short)
				parent.carved += n
				want.holds = append(want.holds, &reckonedHold{id: hold, parent: parent, amount: n, open: true})
			},
			// Of a parent too, while its children are open.
			"settle": func(rt *rapid.T) {
				open := want.openHolds(func(*reckonedHold) bool { return true })
				if len(open) == 0 {
					rt.Skip("nothing to settle")
				}
				h := rapid.SampledFrom(open).Draw(rt, "hold")
				used := money.Nanos(rapid.Int64Range(0, int64(h.amount)+5).Draw(rt, "used"))
				captured, released, excess := want.settle(h, used)
				got, err := b.settle(ctx, h.id, used)
				require.NoError(rt, err)
				require.Equal(rt, []money.Nanos{captured, released, excess}, []money.Nanos{got.Captured, got.Released, got.Excess})
				require.Equal(rt, captured > 0, got.Entry != "")
			},
			"settle again": func(rt *rapid.T) {
				var closed []*reckonedHold
				for _, h := range want.holds {
					if !h.open {
						closed = append(closed, h)
					}
				}
				if len(closed) == 0 {
					rt.Skip("nothing is settled")
				}
				_, err := b.settle(ctx, rapid.SampledFrom(closed).Draw(rt, "hold").id, 1)
				require.Error(rt, err)
			},
			"": func(rt *rapid.T) { checkBooks(rt, ctx, b, want) },
		})
		// In the end nothing is left held that nobody holds.
		for _, h := range want.openHolds(func(*reckonedHold) bool { return true }) {
			want.settle(h, 0)
			_, err := b.settle(ctx, h.id, 0)
			require.NoError(rt, err)
		}
		require.Zero(rt, want.held)
		checkBooks(rt, ctx, b, want)
	})
}

func checkBooks(rt *rapid.T, ctx context.Context, b books, want *reckoning) {
	require.NoError(rt, b.in(ctx, func(tx pgx.Tx) error {
		accounts, err := b.accountsIn(ctx, tx)
		require.NoError(rt, err)
		var sum money.Nanos
		for account, balance := range accounts {
			sum += balance
			if account != billing.Grants && account != billing.Loss {
				require.GreaterOrEqual(rt, balance, money.Nanos(0), "account %s", account)
			}
		}
		require.Zero(rt, sum, "the accounts of an organisation sum to zero: %v", accounts)
		require.Equal(rt, want.available, accounts[billing.Available])
		require.Equal(rt, want.held, accounts[billing.Held])
		require.Equal(rt, want.spent, accounts[billing.Spent])
		require.Equal(rt, want.loss, accounts[billing.Loss])
		require.Equal(rt, -want.granted, accounts[billing.Grants])

		wrong, err := billing.Recount(ctx, tx, b.org)
		require.NoError(rt, err)
		require.Empty(rt, wrong)

		open, err := billing.OpenHolds(ctx, tx, b.org, "ses_test")
		require.NoError(rt, err)
		have := map[id.Hold]billing.Hold{}
		for _, h := range open {
			require.LessOrEqual(rt, h.Carved+h.Captured+h.Released, h.Amount)
			have[h.ID] = h
		}
		reckoned := want.openHolds(func(*reckonedHold) bool { return true })
		require.Len(rt, open, len(reckoned))
		for _, h := range reckoned {
			require.Equal(rt, h.left(), have[h.id].Left())
			require.Equal(rt, h.carved, have[h.id].Carved)
		}
		return nil
	}))
}
