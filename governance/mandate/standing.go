package mandate

import (
	"fmt"
	"time"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// States in which a mandate is kept. That it has ended by itself, or that nothing of it is left, is reckoned and not kept.
const (
	Draft   = "draft"
	Active  = "active"
	Revoked = "revoked"
)

// Standing is a mandate as the gate asks it: what it allows, and which one it narrows.
type Standing struct {
	ID     id.Mandate
	Parent *Standing
	// Agent is who may spend under it.
	Agent id.Agent
	State string
	Grant Grant
	// Budgets are what counts and holds its money.
	Budgets []id.Budget
}

// Request is an effect that a session wants to have under a mandate.
type Request struct {
	Agent  id.Agent
	Kind   string
	Name   string
	Domain string
	// Amount is the most that it may cost.
	Amount money.Nanos
	At     time.Time
}

// Denial says which mandate of a chain does not allow an effect, and on which axis. Axis is "state" for one that is not in force and "agent" for
// one that is somebody else's.
type Denial struct {
	Mandate id.Mandate
	Axis    string
	Message string
}

// Decide asks a mandate and each above it. It is nil when all of them allow the effect, as far as they say it without the money that is spent
// already, which the ledger's commit asks about.
func (s *Standing) Decide(r Request) *Denial {
	if d := s.Stands(r.Agent, r.At); d != nil {
		return d
	}
	for m := s; m != nil; m = m.Parent {
		if d := m.decide(r); d != nil {
			return d
		}
	}
	return nil
}

// Stands says whether an agent may act under the mandate at all: that it is this agent's, and that it and each above it are in force.
func (s *Standing) Stands(agent id.Agent, at time.Time) *Denial {
	if s.Agent != agent || agent == "" {
		return &Denial{s.ID, "agent", fmt.Sprintf("The mandate %s is for the agent %s.", s.ID, s.Agent)}
	}
	for m := s; m != nil; m = m.Parent {
		if d := m.stands(at); d != nil {
			return d
		}
	}
	return nil
}

func (s *Standing) no(axis, format string, args ...any) *Denial {
	return &Denial{s.ID, axis, fmt.Sprintf("The mandate %s ", s.ID) + fmt.Sprintf(format, args...)}
}

func (s *Standing) stands(at time.Time) *Denial {
	switch {
	case s.State == Revoked:
		return s.no("state", "was revoked.")
	case s.State != Active:
		return s.no("state", "is not signed.")
	case !at.Before(s.Grant.Until):
		return s.no(AxisUntil, "ended on %s.", stamp(s.Grant.Until))
	case s.Grant.From != nil && at.Before(*s.Grant.From):
		return s.no(AxisFrom, "begins on %s.", stamp(*s.Grant.From))
	}
	return nil
}

func (s *Standing) decide(r Request) *Denial {
	g := s.Grant
	switch {
	case g.PerAction != nil && r.Amount > *g.PerAction:
		return s.no(AxisPerAction, "allows at most %s an action, and this may cost %s.", g.PerAction.Display(), r.Amount.Display())
	case r.Kind == "tool_call" && !named(g.Tools, r.Name):
		return s.no(AxisTools, "does not allow the tool %s. It allows: %s.", r.Name, g.Show(AxisTools))
	}
	if payee := PayeeOf(r.Kind, r.Name, r.Domain); !named(g.Payees, payee) {
		return s.no(AxisPayees, "does not allow to pay %s. It allows: %s.", payee, g.Show(AxisPayees))
	}
	return nil
}

// Of is the mandate of the chain that a budget counts for, or nil.
func (s *Standing) Of(budget id.Budget) *Standing {
	for m := s; m != nil; m = m.Parent {
		for _, b := range m.Budgets {
			if b == budget {
				return m
			}
		}
	}
	return nil
}
