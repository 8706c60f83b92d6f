package register

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/mandate/register/internal/registerdb"
	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
)

// sealEvery is how often what was spent gets its receipts, where nobody asks for them before.
const sealEvery = time.Minute

// Sealer makes the receipts of all organisations.
type Sealer struct {
	*background.Loop

	db       *postgres.DB
	mandates *Service
}

// NewSealer makes a sealer.
func NewSealer(db *postgres.DB, mandates *Service, log *slog.Logger) *Sealer {
	s := &Sealer{db: db, mandates: mandates}
	s.Loop = background.New("receipts of mandates", sealEvery, log, s.SealOnce)
	return s
}

// SealOnce goes once through the mandates of all organisations.
func (s *Sealer) SealOnce(ctx context.Context) error {
	var roots []registerdb.RootsToSealRow
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		roots, err = registerdb.New(tx).RootsToSeal(ctx)
		return err
	})
	if err != nil {
		return fmt.Errorf("find the mandates whose receipts are to be made: %w", err)
	}
	var failed []error
	for _, r := range roots {
		err := s.db.InTx(ctx, id.Org(r.OrgID), func(tx pgx.Tx) error {
			_, err := s.mandates.Seal(ctx, tx, id.Org(r.OrgID), id.Mandate(r.ID))
			return err
		})
		if err != nil {
			failed = append(failed, fmt.Errorf("make the receipts of %s: %w", r.ID, err))
		}
	}
	return errors.Join(failed...)
}
