package scheduler

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/notifications"
)

// RevokedMandate is what a revocation has done: the mandates that fell, and the order that stops what worked under them.
type RevokedMandate struct {
	Fallen []register.Mandate
	// Stop is nil when nothing worked under any of them.
	Stop *StopOrder
}

// RevokeMandate ends a mandate and all below it, and stops what works under them, in the caller's transaction. From its commit on nothing more
// is admitted under any of them, and nothing begins; what works is stopped in the background, and FinishStop waits for it. The caller must
// have locked no session.
func (s *Service) RevokeMandate(ctx context.Context, tx pgx.Tx, org id.Org, of id.Mandate, reason string) (RevokedMandate, error) {
	m, err := s.mandates.Get(ctx, tx, org, of)
	if err != nil {
		return RevokedMandate{}, err
	}
	var out RevokedMandate
	if m.State != mandate.Draft {
		why := "the mandate was revoked"
		if reason != "" {
			why += ": " + reason
		}
		// Before the mandates: whoever begins work holds this lock shared, and then looks whether its mandate stands.
		order, err := s.StopScope(ctx, tx, org, StopInput{Scope: Scope{Type: ScopeMandate, ID: string(of), Project: m.Project}, Reason: why})
		if err != nil {
			return RevokedMandate{}, err
		}
		out.Stop = &order
	}
	if out.Fallen, err = s.mandates.Revoke(ctx, tx, org, of, reason); err != nil {
		return RevokedMandate{}, err
	}
	for _, f := range out.Fallen {
		if f.State != mandate.Revoked {
			continue
		}
		err := notifications.PublishTx(ctx, tx, org, notifications.MandateRevoked, map[string]any{"type": "mandate", "id": f.ID, "project_id": f.Project})
		if err != nil {
			return RevokedMandate{}, fmt.Errorf("tell that a mandate was revoked: %w", err)
		}
	}
	return out, nil
}
