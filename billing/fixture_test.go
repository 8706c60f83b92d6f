package billing_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

// books is the money of one organisation.
type books struct {
	db  *postgres.DB
	org id.Org
}

func open(t *testing.T, credit money.Nanos) books {
	t.Helper()
	db := dbtest.New(t)
	b := books{db: db, org: dbtest.NewOrg(t, db)}
	if credit > 0 {
		require.NoError(t, b.grant(t.Context(), credit))
	}
	return b
}

func (b books) in(ctx context.Context, fn func(tx pgx.Tx) error) error {
	return b.db.InTx(ctx, b.org, fn)
}

func (b books) grant(ctx context.Context, amount money.Nanos) error {
	return b.in(ctx, func(tx pgx.Tx) error {
		_, err := billing.Grant(ctx, tx, now, b.org, amount, "test")
		return err
	})
}

func (b books) revoke(ctx context.Context, amount money.Nanos) error {
	return b.in(ctx, func(tx pgx.Tx) error {
		_, err := billing.Revoke(ctx, tx, now, b.org, amount, "test")
		return err
	})
}

func (b books) place(ctx context.Context, parent id.Hold, amount money.Nanos) (hold id.Hold, short *billing.Short, err error) {
	err = b.in(ctx, func(tx pgx.Tx) (err error) {
		hold, short, err = billing.Place(ctx, tx, now, b.org, billing.HoldRequest{
			Session: "ses_test", Step: id.New[id.Step](), Parent: parent, Amount: amount, PriceVersion: "test", Expires: now.Add(time.Minute),
		})
		return err
	})
	return hold, short, err
}

func (b books) settle(ctx context.Context, hold id.Hold, used money.Nanos) (s billing.Settled, err error) {
	err = b.in(ctx, func(tx pgx.Tx) (err error) {
		s, err = billing.Settle(ctx, tx, now, b.org, hold, used)
		return err
	})
	return s, err
}

// accounts reads every account's balance, past the view that ReadBalances gives.
func (b books) accounts(ctx context.Context) (out map[billing.Account]money.Nanos, err error) {
	err = b.in(ctx, func(tx pgx.Tx) (err error) {
		out, err = b.accountsIn(ctx, tx)
		return err
	})
	return out, err
}

func (b books) accountsIn(ctx context.Context, tx pgx.Tx) (map[billing.Account]money.Nanos, error) {
	rows, err := tx.Query(ctx, "SELECT account, balance_nanos FROM account_balances WHERE org_id = $1", string(b.org))
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	out := map[billing.Account]money.Nanos{}
	for rows.Next() {
		var account string
		var balance int64
		if err := rows.Scan(&account, &balance); err != nil {
			return nil, err
		}
		out[billing.Account(account)] = money.Nanos(balance)
	}
	return out, rows.Err()
}
