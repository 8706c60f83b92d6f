package sandbox

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

// Warm counts the machines that are ready and wait for a session.
func (s *Service) Warm(ctx context.Context) (int, error) {
	n := 0
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		rows, err := sandboxdb.New(tx).ListWarm(ctx)
		if err != nil {
			return fmt.Errorf("list the warm sandboxes: %w", err)
		}
		for _, r := range rows {
			if r.State == "ready" {
				n++
			}
		}
		return nil
	})
	return n, err
}
