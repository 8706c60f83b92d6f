package billing_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// rush places as many holds at once as there are goroutines, and counts those that were had.
func rush(t *testing.T, b books, parent id.Hold, goroutines int, each money.Nanos) int {
	t.Helper()
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		placed int
		failed []error
		start  = make(chan struct{})
	)
	for range goroutines {
		wg.Go(func() {
			<-start
			_, short, err := b.place(t.Context(), parent, each)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, err)
			} else if short == nil {
				placed++
			}
		})
	}
	close(start)
	wg.Wait()
	require.NoError(t, errors.Join(failed...))
	return placed
}

func TestThirtyTwoAtOnceHoldNoMoreThanThereIs(t *testing.T) {
	b := open(t, 10*money.Dollar)
	require.Equal(t, 10, rush(t, b, "", 32, money.Dollar))
	accounts, err := b.accounts(t.Context())
	require.NoError(t, err)
	require.Zero(t, accounts[billing.Available])
	require.Equal(t, 10*money.Dollar, accounts[billing.Held])
}

func TestThirtyTwoAtOnceCarveNoMoreThanTheCeilingHas(t *testing.T) {
	b := open(t, 100*money.Dollar)
	ceiling, short, err := b.place(t.Context(), "", 10*money.Dollar)
	require.NoError(t, err)
	require.Nil(t, short)
	require.Equal(t, 10, rush(t, b, ceiling, 32, money.Dollar))
	accounts, err := b.accounts(t.Context())
	require.NoError(t, err)
	require.Equal(t, 90*money.Dollar, accounts[billing.Available], "a ceiling's money is held once")
	require.Equal(t, 10*money.Dollar, accounts[billing.Held])
}

func TestNothingCanBeHeldBeforeAnythingWasGranted(t *testing.T) {
	b := open(t, 0)
	_, short, err := b.place(t.Context(), "", 1)
	require.NoError(t, err)
	require.Equal(t, &billing.Short{Required: 1}, short)
	require.True(t, fault.IsCode(b.revoke(t.Context(), 1), "insufficient_funds"))
}

func TestAmountsBelowZeroAreRefused(t *testing.T) {
	b := open(t, money.Dollar)
	_, _, err := b.place(t.Context(), "", -1)
	require.ErrorContains(t, err, "negative")
	hold, _, err := b.place(t.Context(), "", money.Cent)
	require.NoError(t, err)
	_, err = b.settle(t.Context(), hold, -1)
	require.ErrorContains(t, err, "negative")
	require.True(t, fault.IsCode(b.grant(t.Context(), 0), "invalid_request"))
	require.True(t, fault.IsCode(b.revoke(t.Context(), -1), "invalid_request"))
}

func TestMoreThanTheHoldIsThePlatformsLoss(t *testing.T) {
	b := open(t, money.Dollar)
	hold, _, err := b.place(t.Context(), "", money.Cent)
	require.NoError(t, err)
	got, err := b.settle(t.Context(), hold, 3*money.Cent)
	require.NoError(t, err)
	require.Equal(t, money.Cent, got.Captured)
	require.Equal(t, 2*money.Cent, got.Excess)
	accounts, err := b.accounts(t.Context())
	require.NoError(t, err)
	require.Equal(t, money.Dollar-money.Cent, accounts[billing.Available], "the organisation pays no more than was held")
	require.Equal(t, -2*money.Cent, accounts[billing.Loss])
}

// A session that fails may give its ceiling back while a step of it is still open.
func TestAChildSettledAfterItsParentLeavesNothingHeld(t *testing.T) {
	b := open(t, money.Dollar)
	parent, _, err := b.place(t.Context(), "", 50*money.Cent)
	require.NoError(t, err)
	child, _, err := b.place(t.Context(), parent, 20*money.Cent)
	require.NoError(t, err)

	got, err := b.settle(t.Context(), parent, 0)
	require.NoError(t, err)
	require.Equal(t, 30*money.Cent, got.Released, "what the child holds is not given back yet")
	_, short, err := b.place(t.Context(), parent, 1)
	require.NoError(t, err)
	require.Equal(t, &billing.Short{Required: 1, Ceiling: parent}, short, "a settled ceiling has nothing left")

	got, err = b.settle(t.Context(), child, 5*money.Cent)
	require.NoError(t, err)
	require.Equal(t, 15*money.Cent, got.Released)
	accounts, err := b.accounts(t.Context())
	require.NoError(t, err)
	require.Zero(t, accounts[billing.Held])
	require.Equal(t, 95*money.Cent, accounts[billing.Available])
	require.Equal(t, 5*money.Cent, accounts[billing.Spent])
}

func TestTheLedgerIsNeverChanged(t *testing.T) {
	b := open(t, money.Dollar)
	for _, statement := range []string{"UPDATE ledger_transfers SET amount_nanos = 1", "DELETE FROM ledger_transfers"} {
		err := b.in(t.Context(), func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), statement)
			return err
		})
		require.ErrorContains(t, err, "permission denied", statement)
	}
}

func TestASessionsTransfersAreListedInOrder(t *testing.T) {
	b := open(t, money.Dollar)
	hold, _, err := b.place(t.Context(), "", 10*money.Cent)
	require.NoError(t, err)
	_, err = b.settle(t.Context(), hold, 4*money.Cent)
	require.NoError(t, err)
	require.NoError(t, b.in(t.Context(), func(tx pgx.Tx) error {
		transfers, err := billing.SessionTransfers(t.Context(), tx, b.org, "ses_test")
		require.NoError(t, err)
		require.Len(t, transfers, 3)
		for i, want := range []struct {
			debit, credit billing.Account
			amount        money.Nanos
		}{{billing.Available, billing.Held, 10 * money.Cent}, {billing.Held, billing.Spent, 4 * money.Cent}, {billing.Held, billing.Available, 6 * money.Cent}} {
			require.Equal(t, want.debit, transfers[i].Debit)
			require.Equal(t, want.credit, transfers[i].Credit)
			require.Equal(t, want.amount, transfers[i].Amount)
			require.Equal(t, hold, transfers[i].Hold)
		}
		newest, err := billing.ListTransfers(t.Context(), tx, b.org, "", 2)
		require.NoError(t, err)
		require.Equal(t, transfers[2], newest[0])
		open, err := billing.OpenHolds(t.Context(), tx, b.org, "ses_test")
		require.NoError(t, err)
		require.Empty(t, open)
		return nil
	}))
}

// Two transactions that lock the same accounts in different orders would end in a deadlock, which Postgres breaks with an error.
func TestNobodyWaitsForOneAnotherCrosswise(t *testing.T) {
	b := open(t, 1000*money.Dollar)
	ceiling, _, err := b.place(t.Context(), "", 500*money.Dollar)
	require.NoError(t, err)
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed []error
	)
	note := func(err error) {
		if err != nil && !fault.IsCode(err, "insufficient_funds") {
			mu.Lock()
			failed = append(failed, err)
			mu.Unlock()
		}
	}
	for g := range 12 {
		wg.Go(func() {
			for i := range 15 {
				switch (g + i) % 4 {
				case 0:
					note(b.grant(t.Context(), money.Cent))
				case 1:
					note(b.revoke(t.Context(), money.Cent))
				default:
					parent := ceiling
					if (g+i)%4 == 2 {
						parent = ""
					}
					hold, _, err := b.place(t.Context(), parent, money.Cent)
					note(err)
					_, err = b.settle(t.Context(), hold, money.Nanos(i)*money.Cent/10)
					note(err)
				}
			}
		})
	}
	wg.Wait()
	require.NoError(t, errors.Join(failed...))
	require.NoError(t, b.in(t.Context(), func(tx pgx.Tx) error {
		wrong, err := billing.Recount(t.Context(), tx, b.org)
		require.Empty(t, wrong)
		return err
	}))
}
