package postgres_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/postgres"
)

func TestEveryTableHasAForcedPolicyOrAReasonForNone(t *testing.T) {
	_, owner := dbtest.NewWithOwner(t)
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, owner)
	require.NoError(t, err)
	defer conn.Close(ctx) //nolint:errcheck // read only

	rows, err := conn.Query(ctx, `
		SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS forced,
		       EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'tenant') AS has_policy,
		       coalesce(obj_description(c.oid, 'pg_class'), '') AS comment
		FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p') ORDER BY 1`)
	require.NoError(t, err)
	type table struct {
		Name            string
		Forced, Policed bool
		Comment         string
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
	require.NoError(t, err)
	require.NotEmpty(t, tables)
	for _, tbl := range tables {
		if tbl.Name == "goose_db_version" {
			continue // goose's own bookkeeping: no tenant's data, no grant to a role that logs in
		}
		if len(tbl.Comment) > len("no-tenant: ") && tbl.Comment[:11] == "no-tenant: " {
			continue
		}
		require.True(t, tbl.Forced && tbl.Policed, "table %s has no forced tenant policy, and no comment that says why it needs none", tbl.Name)
	}
}

func TestRolesOwnNothingAndBypassNothing(t *testing.T) {
	_, owner := dbtest.NewWithOwner(t)
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, owner)
	require.NoError(t, err)
	defer conn.Close(ctx) //nolint:errcheck // read only
	var bad int
	require.NoError(t, conn.QueryRow(ctx, `SELECT count(*) FROM pg_roles WHERE rolname LIKE 'ambit\_%' AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb)`).Scan(&bad))
	require.Zero(t, bad)
	var owned []string
	require.NoError(t, conn.QueryRow(ctx, `SELECT coalesce(array_agg(c.relname::text), array[]::text[]) FROM pg_class c JOIN pg_roles r ON r.oid = c.relowner WHERE r.rolname IN ('ambit_app', 'ambit_worker')`).Scan(&owned))
	require.Empty(t, owned)
}

func TestNoOrganisationSeesNothing(t *testing.T) {
	db := dbtest.New(t)
	for _, table := range []string{"sessions", "events", "steps", "holds", "ledger_transfers", "account_balances", "agents"} {
		var n int
		err := db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
			return tx.QueryRow(t.Context(), "SELECT count(*) FROM "+table).Scan(&n)
		})
		require.NoError(t, err, table)
		require.Zero(t, n, table)
	}
}

func TestNoticesLeaveAfterTheCommitAndNotAfterARollback(t *testing.T) {
	db := dbtest.New(t)
	l := postgres.NewListener(db, slog.New(slog.DiscardHandler), "test_channel")
	l.Start(t.Context())
	defer l.Stop()
	<-l.Started()
	wake, done := l.Subscribe("test_channel", "x")
	defer done()
	select { // the hint that a new connection gives
	case <-wake:
	default:
	}

	ran := false
	err := db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
		postgres.Notify(tx, "test_channel", "x")
		postgres.AfterCommit(tx, func() { ran = true })
		return errors.New("no")
	})
	require.Error(t, err)
	require.False(t, ran)
	select {
	case <-wake:
		t.Fatal("a notice left although nothing was committed")
	case <-time.After(50 * time.Millisecond):
	}

	require.NoError(t, db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
		postgres.Notify(tx, "test_channel", "x")
		postgres.AfterCommit(tx, func() { ran = true })
		return nil
	}))
	require.True(t, ran)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	select {
	case <-wake:
	case <-ctx.Done():
		t.Fatal("the notice did not arrive")
	}
}
