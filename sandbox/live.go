package sandbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

// Live is the machine that a session has now, as the database knows it.
type Live struct {
	ID id.Sandbox
	// State is pending, running or paused.
	State  string
	Driver string
	Node   string
}

// LiveOf finds the machines of sessions, in one query of the caller's
// transaction. A session that has none is not in the answer.
func LiveOf(ctx context.Context, tx pgx.Tx, org id.Org, sessions ...id.Session) (map[id.Session]Live, error) {
	names := make([]string, len(sessions))
	for i, s := range sessions {
		names[i] = string(s)
	}
	rows, err := sandboxdb.New(tx).LiveSandboxes(ctx, sandboxdb.LiveSandboxesParams{OrgID: org, SessionIds: names})
	if err != nil {
		return nil, fmt.Errorf("look for the sandboxes of %d sessions: %w", len(sessions), err)
	}
	out := make(map[id.Session]Live, len(rows))
	for _, r := range rows {
		out[r.SessionID] = Live{ID: r.ID, State: r.State, Driver: r.Driver + "/" + r.Accelerator, Node: r.NodeID}
	}
	return out, nil
}
