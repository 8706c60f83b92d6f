package register

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register/internal/registerdb"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
)

const maxReason = 500

// Revoke ends a mandate and all below it. From the commit on nothing more is admitted under any of them; what had been admitted is settled. A
// draft is thrown away. It returns what fell, the mandate itself first; nothing when it was revoked before. Stopping what works under them is
// the caller's.
func (s *Service) Revoke(ctx context.Context, tx pgx.Tx, org id.Org, of id.Mandate, reason string) ([]Mandate, error) {
	if reason = strings.TrimSpace(reason); len(reason) > maxReason {
		return nil, fault.InvalidField("/reason", "too_long", fmt.Sprintf("A reason has at most %d bytes.", maxReason))
	}
	now := s.clock.Now()
	if err := policy.Raise(ctx, tx, now, org); err != nil {
		return nil, err
	}
	q := registerdb.New(tx)
	m, err := s.Get(ctx, tx, org, of)
	if err != nil {
		return nil, err
	}
	if m.State == mandate.Draft {
		if _, err := q.DeleteDraft(ctx, registerdb.DeleteDraftParams{Now: now, OrgID: string(org), ID: string(of)}); err != nil {
			return nil, fmt.Errorf("throw the draft %s away: %w", of, err)
		}
		m.Grant.Until = now
		return []Mandate{m}, nil
	}
	by, err := json.Marshal(principal.From(ctx))
	if err != nil {
		return nil, fmt.Errorf("write who revokes: %w", err)
	}
	rows, err := q.RevokeBelow(ctx, registerdb.RevokeBelowParams{Now: &now, RevokedBy: by, Reason: &reason, OrgID: string(org), ID: string(of)})
	if err != nil {
		return nil, fmt.Errorf("revoke %s: %w", of, err)
	}
	fallen, err := fromRows(rows)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(fallen, func(a, b Mandate) int {
		if d := len(a.Path) - len(b.Path); d != 0 {
			return d
		}
		return strings.Compare(string(a.ID), string(b.ID))
	})
	var budgets []string
	for _, f := range fallen {
		budgets = append(budgets, f.Budgets...)
	}
	// A second lock on the same door: the budgets end too, by the database's clock, in the commit itself.
	if err := billing.EndMandates(ctx, tx, now, org, budgets); err != nil {
		return nil, err
	}
	return fallen, nil
}

// UseSession counts a session that is begun under a mandate, whose path this is, against each of it that limits them. Its fault, when one is
// used up, is mandate_exceeded.
func (s *Service) UseSession(ctx context.Context, tx pgx.Tx, org id.Org, path []id.Mandate) error {
	if len(path) == 0 {
		return nil
	}
	q := registerdb.New(tx)
	rows, err := q.LockPath(ctx, registerdb.LockPathParams{OrgID: string(org), Path: texts(path)})
	if err != nil {
		return fmt.Errorf("lock the mandates above: %w", err)
	}
	if len(rows) != len(path) {
		return fault.NotFound()
	}
	counted := []string{}
	for _, r := range rows {
		var g mandate.Grant
		if err := json.Unmarshal(r.GrantJson, &g); err != nil {
			return fmt.Errorf("read the mandate %s: %w", r.ID, err)
		}
		if g.Sessions == nil {
			continue
		}
		if r.SessionsUsed >= *g.Sessions {
			return fault.Newf(fault.PaymentRequired, "mandate_exceeded", "The mandate %s is good for %d sessions, and all of them were begun.", r.ID, *g.Sessions).
				With("limiting", []map[string]any{{"scope": billing.ScopeMandate, "id": r.ID, "axis": mandate.AxisSessions}})
		}
		counted = append(counted, r.ID)
	}
	if len(counted) == 0 {
		return nil
	}
	if err := q.UseSession(ctx, registerdb.UseSessionParams{OrgID: string(org), Path: counted}); err != nil {
		return fmt.Errorf("count a session under its mandates: %w", err)
	}
	return nil
}

// DefaultPasskeyAbove is the amount above which a mandate is signed with a passkey where the organisation has set none.
const DefaultPasskeyAbove = 100 * money.Dollar

// Settings are how an organisation wants its mandates.
type Settings struct {
	// PasskeyAbove is the amount, in all or in a period, above which a mandate is signed with a passkey.
	PasskeyAbove money.Nanos
	// RequiredOf are who must run under a mandate: ids of agents, projects and API keys, or * for all.
	RequiredOf []string
	Version    int64
	UpdatedAt  time.Time
}

// WantsPasskey says that a grant is above the amount.
func (s Settings) WantsPasskey(g mandate.Grant) bool {
	return (g.Total != nil && *g.Total > s.PasskeyAbove) || (g.Recurring != nil && g.Recurring.Amount > s.PasskeyAbove)
}

// Settings reads them.
func (s *Service) Settings(ctx context.Context, tx pgx.Tx, org id.Org) (Settings, error) {
	row, err := registerdb.New(tx).GetSettings(ctx, string(org))
	if errors.Is(err, pgx.ErrNoRows) {
		return Settings{PasskeyAbove: DefaultPasskeyAbove, RequiredOf: []string{}}, nil
	}
	if err != nil {
		return Settings{}, fmt.Errorf("read how mandates are wanted: %w", err)
	}
	return Settings{PasskeyAbove: money.Nanos(row.PasskeyAboveNanos), RequiredOf: row.RequiredOf, Version: row.Version, UpdatedAt: row.UpdatedAt.UTC()}, nil
}

// SetSettings changes them, from the commit on, for running work too.
func (s *Service) SetSettings(ctx context.Context, tx pgx.Tx, org id.Org, in Settings) (Settings, error) {
	if in.PasskeyAbove < 0 || in.PasskeyAbove > mandate.MaxAmount {
		return Settings{}, fault.InvalidField("/passkey_above", "out_of_range", "An amount is from zero to "+mandate.MaxAmount.Display()+".")
	}
	if len(in.RequiredOf) > 200 {
		return Settings{}, fault.InvalidField("/required_of", "too_long", "At most 200 are named.")
	}
	now := s.clock.Now()
	if err := policy.Raise(ctx, tx, now, org); err != nil {
		return Settings{}, err
	}
	q := registerdb.New(tx)
	of := slices.Clone(in.RequiredOf)
	slices.Sort(of)
	of = slices.Compact(of)
	for i, subject := range of {
		if subject == policy.Any {
			continue
		}
		there, err := q.SubjectExists(ctx, registerdb.SubjectExistsParams{Org: string(org), Subject: subject})
		if err != nil {
			return Settings{}, fmt.Errorf("look for who must run under a mandate: %w", err)
		}
		if !there {
			return Settings{}, fault.InvalidField(fmt.Sprintf("/required_of/%d", i), "not_found", "There is no such agent, project or API key.")
		}
	}
	if of == nil {
		of = []string{}
	}
	row, err := q.PutSettings(ctx, registerdb.PutSettingsParams{OrgID: string(org), PasskeyAboveNanos: int64(in.PasskeyAbove), RequiredOf: of, Now: now})
	if err != nil {
		return Settings{}, fmt.Errorf("keep how mandates are wanted: %w", err)
	}
	return Settings{PasskeyAbove: money.Nanos(row.PasskeyAboveNanos), RequiredOf: row.RequiredOf, Version: row.Version, UpdatedAt: row.UpdatedAt.UTC()}, nil
}
