package scheduler

import (
	"context"
	"fmt"

	"ambit.dev/ambit/connectors/builtin"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/egress"
)

// Reach is what an admitted request may reach: the hosts of the definition that its session runs on. It also says whether the request may
// have been sent before, by a worker that was lost: then its step was begun at an earlier epoch than the admission's.
func (s *Service) Reach(ctx context.Context, g gate.Grant) (builtin.Reach, error) {
	session, err := s.Get(ctx, g.Org, g.Session)
	if err != nil {
		return builtin.Reach{}, fmt.Errorf("read session %s: %w", g.Session, err)
	}
	step, err := s.Step(ctx, g.Org, g.Session, g.Step)
	if err != nil {
		return builtin.Reach{}, fmt.Errorf("read step %s: %w", g.Step, err)
	}
	rules, _, err := egress.ParseRules(session.Agent.Network.AllowedHosts)
	if err != nil {
		return builtin.Reach{}, fmt.Errorf("read the allowed hosts of session %s: %w", g.Session, err)
	}
	return builtin.Reach{Hosts: rules, Repeated: step.Epoch != g.Epoch}, nil
}
