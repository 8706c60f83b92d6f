package api_test

import (
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/api"
	"ambit.dev/ambit/internal/id"
)

// TestASessionNamesItsSandbox: while it has one, alone and in lists.
func TestASessionNamesItsSandbox(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	session, _ := tn.newSession("")
	other, _ := tn.newSession("")
	get := func() any { return tn.ask("GET", "/v1/sessions/"+string(session), "").field(t, "sandbox_id") }
	require.Nil(t, get())
	require.Contains(t, tn.ask("GET", "/v1/sessions/"+string(session), "").raw, `"sandbox_id":null`)

	sandbox := id.New[id.Sandbox]()
	exec := func(sql string, args ...any) {
		require.NoError(t, tn.db.InTx(t.Context(), tn.org, func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), sql, args...)
			return err
		}))
	}
	exec(`INSERT INTO sandboxes (org_id, id, project_id, session_id, environment, state, epoch, job_id, alloc_id, node_id, address, driver, accelerator, token_hash, created_at)
		VALUES ($1, $2, $3, $4, 'default', 'running', 1, 'job', 'alloc', 'node', 'address', 'qemu', 'tcg', '', now())`, tn.org, sandbox, tn.project, session)
	require.Equal(t, string(sandbox), get())
	var page api.Page[api.Session]
	tn.ask("GET", "/v1/sessions", "").into(t, &page)
	require.Len(t, page.Data, 2)
	for _, s := range page.Data {
		if s.ID == other {
			require.Nil(t, s.Sandbox)
		} else {
			require.Equal(t, sandbox, *s.Sandbox)
		}
	}
	require.Equal(t, string(sandbox), tn.ask("POST", "/v1/sessions/"+string(session), `{"title":"x"}`).field(t, "sandbox_id"))

	exec(`UPDATE sandboxes SET state = 'ended', ended_at = now(), end_reason = 'idle' WHERE org_id = $1 AND id = $2`, tn.org, sandbox)
	require.Nil(t, get())
}
