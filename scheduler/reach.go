package scheduler

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/connectors/builtin"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/tenants/identity"
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
	known, _, err := egress.ParseRules(session.Agent.Network.IdentityHosts)
	if err != nil {
		return builtin.Reach{}, fmt.Errorf("read the identity hosts of session %s: %w", g.Session, err)
	}
	return builtin.Reach{Hosts: rules, Identity: known, Repeated: step.Epoch != g.Epoch}, nil
}

// Tokens makes an agent's token for one call; tenants/identity does.
type Tokens interface {
	MintToken(ctx context.Context, tx pgx.Tx, out identity.Outbound) (string, error)
}

// Identify makes the token that an admitted request shows to an origin. Who acts, for whom and in which session is read from the journal by
// the grant, and is nobody's argument.
func (s *Service) Identify(ctx context.Context, g gate.Grant, audience string) (token string, err error) {
	if s.tokens == nil {
		return "", errors.New("this process makes no tokens of agents")
	}
	session, err := s.Get(ctx, g.Org, g.Session)
	if err != nil {
		return "", fmt.Errorf("read session %s: %w", g.Session, err)
	}
	behalf := session.By.ID
	if session.By.OnBehalfOf != "" {
		behalf = session.By.OnBehalfOf
	}
	err = s.db.InTx(ctx, g.Org, func(tx pgx.Tx) error {
		token, err = s.tokens.MintToken(ctx, tx, identity.Outbound{
			Org: g.Org, Agent: identity.Acting(session.Agent.ID, g.Session), Session: g.Session, OnBehalfOf: behalf, Audience: audience, EffectKey: g.EffectKey,
		})
		return err
	})
	return token, err
}
