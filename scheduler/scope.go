package scheduler

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler/internal/stopdb"
)

// Types of scope that can be stopped.
const (
	ScopeAgent        = "agent"
	ScopeKey          = "api_key"
	ScopeProject      = "project"
	ScopeOrganization = "organization"
	ScopeMandate      = "mandate" // with all below it
)

// Scope is whose sessions are stopped: those of an agent, those that an API key began, those of a project, or all of the organisation.
type Scope struct {
	Type string `json:"type"`
	ID   string `json:"id"`
	// Project is where the scope lies; empty when it reaches over the organisation. Who may see only one project sees the orders of it.
	Project id.Project `json:"-"`
}

// matches are the conditions that the scope puts on a session, as the queries take them.
func (s Scope) matches() (project, agent, key, mandate string) {
	switch s.Type {
	case ScopeAgent:
		agent = s.ID
	case ScopeKey:
		key = s.ID
	case ScopeProject:
		project = s.ID
	case ScopeMandate:
		mandate = s.ID
	}
	return project, agent, key, mandate
}

func (s Scope) valid(org id.Org) error {
	var err error
	switch s.Type {
	case ScopeAgent:
		_, err = id.Parse[id.Agent](s.ID)
	case ScopeKey:
		_, err = id.Parse[id.Key](s.ID)
	case ScopeProject:
		_, err = id.Parse[id.Project](s.ID)
	case ScopeMandate:
		_, err = id.Parse[id.Mandate](s.ID)
	case ScopeOrganization:
		if s.ID != string(org) {
			err = fault.NotFound()
		}
	default:
		err = fmt.Errorf("there is no scope of type %q", s.Type)
	}
	if err != nil {
		return fault.NotFound()
	}
	return nil
}

// mayBegin refuses to give a session work while an order to stop covers it. For a new session, session is empty and project and agent say
// what it will be. It must be asked before any session's row is locked: see stop_over in the migration.
func mayBegin(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session, project id.Project, agent id.Agent, under id.Mandate) error {
	order, err := stopdb.New(tx).StopOver(ctx, stopdb.StopOverParams{
		OrgID: string(org), SessionID: string(session), ProjectID: string(project), AgentID: string(agent), KeyID: principal.From(ctx).ID, MandateID: string(under),
	})
	if err != nil {
		return fmt.Errorf("look for an order to stop: %w", err)
	}
	if order == "" {
		return nil
	}
	return fault.New(fault.Conflict, "state_conflict", "This is being stopped just now, by order "+order+". Nothing of it begins until that is done.").
		With("stop_id", order).After(time.Second)
}

// MayBegin refuses, with 409, to give a session work while an order to stop covers it. Invoke, Send, SetLimits and Resume ask by themselves;
// whoever locks the session for something else before it calls one of them asks first.
func (s *Service) MayBegin(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) error {
	return mayBegin(ctx, tx, org, session, "", "", "")
}

// maxTreeDepth bounds how deep sessions start sessions where no limit says less.
const maxTreeDepth = 64

// underParent locks the session below which a new one is to start, and checks that it may: it lives, it is of the same project, and neither
// it nor one above it has its limit of depth exceeded.
func underParent(ctx context.Context, tx pgx.Tx, org id.Org, project id.Project, parent id.Session, path []id.Mandate) error {
	l, err := journal.Lock(ctx, tx, org, parent)
	if err != nil {
		return err
	}
	if l.Mandate != "" && !slices.Contains(path, l.Mandate) {
		return fault.New(fault.Forbidden, "mandate_required", "The session above runs under the mandate "+string(l.Mandate)+": name that one, or one that narrows it.")
	}
	if project != "" && l.Project != project {
		return fault.NotFound()
	}
	if err := takesInput(&l.Session); err != nil {
		return err
	}
	above, err := stopdb.New(tx).Ancestors(ctx, stopdb.AncestorsParams{OrgID: org, ID: parent})
	if err != nil {
		return fmt.Errorf("read the sessions above %s: %w", parent, err)
	}
	for _, a := range above {
		depth, most := a.Distance+1, a.MaxDepth
		if most == 0 {
			most = maxTreeDepth
		}
		if depth > most {
			f := fault.New(fault.Conflict, "state_conflict", fmt.Sprintf("The session would be %d deep below %s, which allows %d. Raise its limits.max_depth, or start the session elsewhere.", depth, a.ID, most))
			return f.With("limit", journal.LimitDepth).With("session_id", a.ID)
		}
	}
	return nil
}
