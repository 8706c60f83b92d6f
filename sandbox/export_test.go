package sandbox

import (
	"context"

	"ambit.dev/ambit/internal/id"
)

// Claim is Acquire up to where a machine of its own would be needed: a warm one is claimed and its time is held.
func (s *Service) Claim(ctx context.Context, in AcquireInput) (id.Sandbox, error) {
	in.Environment = s.cfg.Environment
	row, held, err := s.find(ctx, in)
	if err != nil {
		return "", err
	}
	if held == nil {
		return row.ID, nil
	}
	return row.ID, s.keep(ctx, in.Org, row.ID, held)
}

// Meter is one pass.
func (s *Service) Meter(ctx context.Context) error { return s.meter(ctx) }

// End records the end of a machine.
func (s *Service) End(ctx context.Context, org id.Org, sandboxID id.Sandbox, reason string) error {
	_, err := s.end(ctx, org, sandboxID, reason, "", nil)
	return err
}

// KeepWithout is what happens when a machine is to be kept for a time that nobody admitted.
func (s *Service) KeepWithout(ctx context.Context, org id.Org, sandboxID id.Sandbox) error {
	return s.keep(ctx, org, sandboxID, nil)
}
