package gate_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// neighbour is another organisation of the same instance, with a session and some credit of its own.
func (s *scene) neighbour(credit money.Nanos) *scene {
	s.t.Helper()
	n := *s
	n.org, n.session = dbtest.NewOrg(s.t, s.db), id.New[id.Session]()
	require.NoError(s.t, s.db.InTx(s.t.Context(), n.org, func(tx pgx.Tx) error {
		if _, err := billing.Grant(s.t.Context(), tx, s.clock.Now(), n.org, credit, "test"); err != nil {
			return err
		}
		return n.create(tx, n.session)
	}))
	n.lease = n.claim(n.session)
	return &n
}

func TestABatchOfSeveralOrganisationsKeepsThemApart(t *testing.T) {
	rich := newScene(t, money.Dollar)
	poor, capped, other := rich.neighbour(bound+bound/2), rich.neighbour(money.Dollar), rich.neighbour(money.Dollar)
	b := capped.budget(2 * bound)
	fenced := rich.another()
	require.NoError(t, rich.db.InTx(t.Context(), rich.org, func(tx pgx.Tx) error { return journal.ReleaseLease(t.Context(), tx, fenced) }))

	// Both lanes are busy; the first that is free takes everything that waits, but for the organisation that the other has.
	releaseOther, releaseRich := other.jam(), rich.jam()
	late, _ := rich.begun(fenced, proposal())
	units := []*gate.Unit{late}
	for range 3 {
		for _, s := range []*scene{rich, poor, capped} {
			u, _ := s.begun(s.another(), proposal())
			units = append(units, u)
		}
	}
	outcomes := make([]error, len(units))
	var wg sync.WaitGroup
	for i, u := range units {
		wg.Go(func() { outcomes[i] = rich.commits.Commit(context.Background(), u) })
		require.Eventually(t, func() bool { return rich.commits.Waiting() == i+1 }, 10*time.Second, time.Millisecond)
	}
	releaseRich()
	wg.Wait()
	releaseOther()

	require.ErrorIs(t, outcomes[0], journal.ErrFenced)
	admitted := map[id.Org]int{}
	for i, u := range units[1:] {
		if outcomes[i+1] == nil {
			admitted[u.Org]++
			continue
		}
		var short *gate.ShortError
		require.ErrorAs(t, outcomes[i+1], &short)
		if u.Org == capped.org {
			require.Equal(t, b.ID, short.Short.Budget, "the budget is the neighbour's own")
		} else {
			require.Equal(t, billing.Short{Required: bound, Available: bound / 2}, short.Short)
		}
	}
	require.Equal(t, map[id.Org]int{rich.org: 3, poor.org: 1, capped.org: 2}, admitted)
	for _, s := range []*scene{rich, poor, capped} {
		n := money.Nanos(admitted[s.org]) //nolint:gosec // a handful
		require.Equal(t, n*bound, s.balances().Held, "each pays for its own")
	}
	require.Equal(t, 2*bound, capped.reread(b).Held)
}

// TestACommitReachesOnlyTheOrganisationsThatItNames: the role that commits is nobody's, and with the function's own conditions removed it
// would still see and write only rows of the organisations of its batch.
func TestACommitReachesOnlyTheOrganisationsThatItNames(t *testing.T) {
	s := newScene(t, money.Dollar)
	other := s.neighbour(money.Dollar)
	other.budget(money.Dollar)
	require.NoError(t, other.commits.Commit(t.Context(), first(other.begun(other.lease, proposal()))))
	conn, err := pgx.Connect(t.Context(), s.owner)
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // the test's own
	rows, err := conn.Query(t.Context(), `
		SELECT c.relname, CASE c.relname WHEN 'organizations' THEN 'id' ELSE 'org_id' END, has_table_privilege('ambit_committer', c.oid, 'SELECT')
		FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid WHERE p.polname = 'committer' ORDER BY 1`)
	require.NoError(t, err)
	type table struct {
		Name, Column string
		Read         bool
	}
	tables, err := pgx.CollectRows(rows, pgx.RowToStructByPos[table])
	require.NoError(t, err)
	require.Greater(t, len(tables), 10)
	var reachable int
	require.NoError(t, conn.QueryRow(t.Context(), `
		SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p')
		  AND has_table_privilege('ambit_committer', c.oid, 'SELECT, INSERT, UPDATE, DELETE') AND NOT EXISTS (SELECT FROM pg_policy p WHERE p.polrelid = c.oid AND p.polname = 'committer')
		  AND c.relname <> 'bound_breaches'`).Scan(&reachable))
	require.Zero(t, reachable, "a table without its policy")

	_, err = conn.Exec(t.Context(), "SELECT set_config('app.batch', $1, false), set_config('app.org_id', $2, false)", ","+string(s.org)+",", string(other.org))
	require.NoError(t, err)
	_, err = conn.Exec(t.Context(), "SET ROLE ambit_committer")
	require.NoError(t, err)
	seen := 0
	for _, tbl := range tables {
		if !tbl.Read {
			continue
		}
		var strange, own int
		require.NoError(t, conn.QueryRow(t.Context(), "SELECT count(*) FILTER (WHERE "+tbl.Column+" <> $1), count(*) FILTER (WHERE "+tbl.Column+" = $1) FROM "+tbl.Name, string(s.org)).Scan(&strange, &own), tbl.Name)
		require.Zero(t, strange, "only rows of the organisations that are named: %s", tbl.Name)
		seen += own
	}
	require.Positive(t, seen)
	_, err = conn.Exec(t.Context(), `INSERT INTO ledger_transfers (org_id, id, debit_account, credit_account, amount_nanos, kind, created_at) VALUES ($1, 'led_x', 'grants', 'available', 1, 'grant', now())`, string(other.org))
	require.ErrorContains(t, err, "row-level security")
	tag, err := conn.Exec(t.Context(), `UPDATE ledger_balances SET available_nanos = 0 WHERE org_id = $1`, string(other.org))
	require.NoError(t, err)
	require.Zero(t, tag.RowsAffected())

	// Nobody becomes it, and nobody but the application calls what it owns.
	require.ErrorContains(t, s.db.InTx(t.Context(), s.org, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "SET ROLE ambit_committer")
		return err
	}), "permission denied")
	_, err = conn.Exec(t.Context(), "RESET ROLE")
	require.NoError(t, err)
	var callers []string
	require.NoError(t, conn.QueryRow(t.Context(), `
		SELECT array_agg(r ORDER BY r) FROM unnest(ARRAY['ambit_app', 'ambit_worker', 'ambit_definer']) r, pg_proc p
		WHERE p.proname = 'commit_units' AND has_function_privilege(r, p.oid, 'EXECUTE')`).Scan(&callers))
	require.Equal(t, []string{"ambit_app"}, callers)
}
