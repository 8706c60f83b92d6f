package postgres_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/dbtest"
)

// TestEveryPolicyOfTheApplicationNamesWhoseRowsItShows: with a query's own condition removed, the policies of ambit_app are all that is
// left. Each must compare the row with the transaction's organisation or person, both for reading and for writing, and nothing else may
// let the role see a row.
func TestEveryPolicyOfTheApplicationNamesWhoseRowsItShows(t *testing.T) {
	_, owner := dbtest.NewWithOwner(t)
	ctx := t.Context()
	conn, err := pgx.Connect(ctx, owner)
	require.NoError(t, err)
	defer conn.Close(ctx) //nolint:errcheck // read only
	rows, err := conn.Query(ctx, `
		SELECT c.relname, p.polname, coalesce(pg_get_expr(p.polqual, c.oid), ''), coalesce(pg_get_expr(p.polwithcheck, c.oid), ''), p.polcmd::text
		FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
		WHERE 0 = ANY (p.polroles) OR (SELECT oid FROM pg_roles WHERE rolname = 'ambit_app') = ANY (p.polroles)
		ORDER BY 1, 2`)
	require.NoError(t, err)
	type policy struct{ Table, Name, Using, Check, Command string }
	policies, err := pgx.CollectRows(rows, pgx.RowToStructByPos[policy])
	require.NoError(t, err)
	require.Greater(t, len(policies), 10)
	for _, p := range policies {
		for what, condition := range map[string]string{"USING": p.Using, "WITH CHECK": p.Check} {
			if condition == "" {
				continue // not of this command
			}
			// A look into members is itself under the policies of members.
			require.Regexp(t, `(FROM members m|ambit_org\(\)|ambit_user\(\)|ambit_person\(\))`, condition, "policy %s on %s, %s", p.Name, p.Table, what)
			require.NotRegexp(t, `\bOR\b|\btrue\b`, condition, "policy %s on %s, %s: too wide to be seen through", p.Name, p.Table, what)
		}
		require.NotEmpty(t, p.Using+p.Check, "policy %s on %s has no condition", p.Name, p.Table)
	}
}
