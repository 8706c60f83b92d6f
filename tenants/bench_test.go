package tenants_test

import (
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/tenants"
)

type benchFixture struct {
	service *tenants.Service
	secret  string
}

func newBenchFixture(b *testing.B) (f benchFixture) {
	b.Helper()
	db := dbtest.New(b)
	sealer, err := seal.Open(seal.NewKey(), "")
	require.NoError(b, err)
	f.service, err = tenants.New(db, tenants.Deps{Clock: clock.System(), Logger: slog.New(slog.DiscardHandler), Sealer: sealer, PublicURL: "http://ambit.test"})
	require.NoError(b, err)
	a, err := f.service.CreateAccount(b.Context(), tenants.SignUp{Email: "bench@example.com", Password: password})
	require.NoError(b, err)
	by := principal.Principal{Kind: principal.User, ID: string(a.User.ID), Org: a.Organization.ID, Role: "owner"}
	require.NoError(b, db.InTx(b.Context(), by.Org, func(tx pgx.Tx) (err error) {
		_, f.secret, err = f.service.CreateKeyTx(b.Context(), tx, by, tenants.CreateKey{Name: "bench", Scopes: []string{"*"}})
		return err
	}))
	b.ResetTimer()
	return f
}
