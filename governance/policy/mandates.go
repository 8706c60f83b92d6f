package policy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/policy/internal/policydb"
	"ambit.dev/ambit/internal/id"
)

// loadMandates reads what binds beside the rules. The version was read before: what is read here is of it, or newer.
func loadMandates(ctx context.Context, tx pgx.Tx, org id.Org) (map[id.Mandate]*mandate.Standing, map[string]bool, error) {
	q := policydb.New(tx)
	rows, err := q.Mandates(ctx, string(org))
	if err != nil {
		return nil, nil, fmt.Errorf("load the mandates: %w", err)
	}
	standing := make(map[id.Mandate]*mandate.Standing, len(rows))
	for _, r := range rows { // parents come before those below them
		m := &mandate.Standing{ID: id.Mandate(r.ID), Agent: id.Agent(r.AgentID), State: r.State}
		if err := json.Unmarshal(r.GrantJson, &m.Grant); err != nil {
			return nil, nil, fmt.Errorf("load the mandate %s: %w", r.ID, err)
		}
		for _, b := range r.Budgets {
			m.Budgets = append(m.Budgets, id.Budget(b))
		}
		if r.ParentID != "" {
			if m.Parent = standing[id.Mandate(r.ParentID)]; m.Parent == nil {
				continue // what is above it has ended, and so has it
			}
		}
		standing[m.ID] = m
	}
	of, err := q.MandateRequired(ctx, string(org))
	if err != nil && !errors.Is(err, pgx.ErrNoRows) {
		return nil, nil, fmt.Errorf("load who must run under a mandate: %w", err)
	}
	required := make(map[string]bool, len(of))
	for _, subject := range of {
		required[subject] = true
	}
	return standing, required, nil
}

// Mandate is a mandate as of this version with those above it; nil for one that is not signed, or is over.
func (s *Set) Mandate(m id.Mandate) *mandate.Standing { return s.mandates[m] }

// MandateRequired says whether one of these subjects must run under a mandate: agents, projects, API keys.
func (s *Set) MandateRequired(subjects ...string) bool {
	if len(s.required) == 0 {
		return false
	}
	for _, subject := range subjects {
		if subject != "" && s.required[subject] {
			return true
		}
	}
	return s.required[Any]
}
