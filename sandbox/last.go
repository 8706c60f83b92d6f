package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

// LastGone is the proof that the session's last machine is gone, or nil when it never had one. ErrStillThere says that it is not proved
// to be gone yet.
func (s *Service) LastGone(ctx context.Context, org id.Org, session id.Session) (*Gone, error) {
	var rows []sandboxdb.Sandbox
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		rows, err = sandboxdb.New(tx).ListSessionSandboxes(ctx, sandboxdb.ListSessionSandboxesParams{OrgID: org, SessionID: session, Limit: 1})
		return err
	})
	switch {
	case err != nil:
		return nil, fmt.Errorf("read the last sandbox of %s: %w", session, err)
	case len(rows) == 0:
		return nil, nil
	case len(rows[0].GoneProof) == 0:
		return nil, ErrStillThere
	}
	var gone Gone
	if err := json.Unmarshal(rows[0].GoneProof, &gone); err != nil {
		return nil, fmt.Errorf("read the proof of sandbox %s: %w", rows[0].ID, err)
	}
	return &gone, nil
}

// ErrStillThere says that a machine is not proved to be gone.
var ErrStillThere = errors.New("the sandbox is not proved to be gone yet")

// SessionsWithMachine lists the sessions of an organisation that have a machine now.
func SessionsWithMachine(ctx context.Context, tx pgx.Tx, org id.Org) ([]string, error) {
	found, err := sandboxdb.New(tx).SessionsWithMachine(ctx, org)
	if err != nil {
		return nil, fmt.Errorf("list the machines of %s: %w", org, err)
	}
	return found, nil
}
