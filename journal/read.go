package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal/internal/journaldb"
)

// Get reads a session. One that is not there, or is another organisation's, is not found.
func Get(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) (Session, error) {
	row, err := journaldb.New(tx).GetSession(ctx, journaldb.GetSessionParams{OrgID: org, ID: session})
	if errors.Is(err, pgx.ErrNoRows) {
		return Session{}, fault.NotFound()
	}
	if err != nil {
		return Session{}, fmt.Errorf("read session %s: %w", session, err)
	}
	return sessionFromRow(row)
}

// SessionFilter says which sessions to list. Empty fields do not narrow.
type SessionFilter struct {
	Project         id.Project
	Agent           id.Agent
	Parent          id.Session
	Statuses        []string
	StopReasons     []string
	Metadata        map[string]string
	IncludeArchived bool
	CreatedAfter    *time.Time
	CreatedBefore   *time.Time
	// After is the last session of the page before, in the list's order.
	After id.Session
	// Ascending lists the oldest first.
	Ascending bool
	Limit     int
}

// List lists an organisation's sessions, newest first unless the filter says otherwise.
func List(ctx context.Context, tx pgx.Tx, org id.Org, f SessionFilter) ([]Session, error) {
	metadata := []byte("{}")
	if len(f.Metadata) > 0 {
		var err error
		if metadata, err = json.Marshal(f.Metadata); err != nil {
			return nil, fmt.Errorf("write the metadata filter: %w", err)
		}
	}
	params := journaldb.ListSessionsParams{
		OrgID: org, ProjectID: string(f.Project), AgentID: string(f.Agent), ParentSessionID: string(f.Parent), Statuses: nonNil(f.Statuses),
		StopReasons: nonNil(f.StopReasons), Metadata: metadata, IncludeArchived: f.IncludeArchived, CreatedAfter: f.CreatedAfter,
		CreatedBefore: f.CreatedBefore, BeforeID: string(f.After), RowLimit: int32(f.Limit), //nolint:gosec // at most a page
	}
	q := journaldb.New(tx)
	var rows []journaldb.Session
	var err error
	if f.Ascending {
		rows, err = q.ListSessionsAscending(ctx, journaldb.ListSessionsAscendingParams{
			OrgID: params.OrgID, ProjectID: params.ProjectID, AgentID: params.AgentID, ParentSessionID: params.ParentSessionID,
			Statuses: params.Statuses, StopReasons: params.StopReasons, Metadata: params.Metadata, IncludeArchived: params.IncludeArchived,
			CreatedAfter: params.CreatedAfter, CreatedBefore: params.CreatedBefore, AfterID: params.BeforeID, RowLimit: params.RowLimit,
		})
	} else {
		rows, err = q.ListSessions(ctx, params)
	}
	if err != nil {
		return nil, fmt.Errorf("list sessions: %w", err)
	}
	out := make([]Session, len(rows))
	for i, r := range rows {
		if out[i], err = sessionFromRow(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// EventFilter says which events to list.
type EventFilter struct {
	// After is the number after which to begin; before which, when Descending, and then 0 begins at the end.
	After      int64
	Types      []string
	Descending bool
	Limit      int
}

// Events lists a session's events in the order of their numbers.
func Events(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session, f EventFilter) ([]Event, error) {
	q := journaldb.New(tx)
	var rows []journaldb.Event
	var err error
	if f.Descending {
		rows, err = q.ListEventsDescending(ctx, journaldb.ListEventsDescendingParams{OrgID: org, SessionID: session, BeforeSeq: f.After, Types: nonNil(f.Types), RowLimit: int32(f.Limit)}) //nolint:gosec // at most a page
	} else {
		rows, err = q.ListEvents(ctx, journaldb.ListEventsParams{OrgID: org, SessionID: session, AfterSeq: f.After, Types: nonNil(f.Types), RowLimit: int32(f.Limit)}) //nolint:gosec // at most a page
	}
	if err != nil {
		return nil, fmt.Errorf("list the events of %s: %w", session, err)
	}
	out := make([]Event, len(rows))
	for i, r := range rows {
		out[i] = eventFromRow(r)
	}
	return out, nil
}

// EventsUpTo reads all of a session's events after one number up to and with another.
func EventsUpTo(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session, after, last int64) ([]Event, error) {
	var out []Event
	for after < last {
		more, err := Events(ctx, tx, org, session, EventFilter{After: after, Limit: 1000})
		if err != nil {
			return nil, err
		}
		if len(more) == 0 {
			return nil, fmt.Errorf("the journal of %s ends at %d, its head says %d", session, after, last)
		}
		for len(more) > 0 && more[len(more)-1].Seq > last { // appended since the head was read
			more = more[:len(more)-1]
		}
		out = append(out, more...)
		after = out[len(out)-1].Seq
	}
	return out, nil
}

// GetEvent reads one event of the organisation by its id.
func GetEvent(ctx context.Context, tx pgx.Tx, org id.Org, event id.Event) (Event, error) {
	row, err := journaldb.New(tx).GetEvent(ctx, journaldb.GetEventParams{OrgID: org, ID: string(event)})
	if errors.Is(err, pgx.ErrNoRows) {
		return Event{}, fault.NotFound()
	}
	if err != nil {
		return Event{}, fmt.Errorf("read event %s: %w", event, err)
	}
	return eventFromRow(row), nil
}

// Step is one durable effect, as projected from its two events.
type Step struct {
	ID          id.Step
	Session     id.Session
	Kind        string
	Name        string
	EffectKey   string
	Epoch       int64
	IntendedSeq int64
	SettledSeq  int64  // 0 while the step is open
	Outcome     string // empty while the step is open
	Hold        id.Hold
	Usage       Usage
	Cost        money.Nanos
	Error       *ErrorDetail
	IntendedAt  time.Time
	SettledAt   *time.Time
}

// Steps lists a session's steps in order, after the one that was intended at seq after.
func Steps(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session, after int64, limit int) ([]Step, error) {
	rows, err := journaldb.New(tx).ListSteps(ctx, journaldb.ListStepsParams{OrgID: org, SessionID: session, AfterSeq: after, RowLimit: int32(limit)}) //nolint:gosec // at most a page
	if err != nil {
		return nil, fmt.Errorf("list the steps of %s: %w", session, err)
	}
	return stepsFromRows(rows)
}

// OpenSteps lists the steps that are intended and not settled: what a new lease-holder has to resolve.
func OpenSteps(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) ([]Step, error) {
	rows, err := journaldb.New(tx).OpenSteps(ctx, journaldb.OpenStepsParams{OrgID: org, SessionID: session})
	if err != nil {
		return nil, fmt.Errorf("list the open steps of %s: %w", session, err)
	}
	return stepsFromRows(rows)
}

// GetStep reads one step of the organisation.
func GetStep(ctx context.Context, tx pgx.Tx, org id.Org, step id.Step) (Step, error) {
	row, err := journaldb.New(tx).GetStep(ctx, journaldb.GetStepParams{OrgID: org, ID: step})
	if errors.Is(err, pgx.ErrNoRows) {
		return Step{}, fault.NotFound()
	}
	if err != nil {
		return Step{}, fmt.Errorf("read step %s: %w", step, err)
	}
	return stepFromRow(row)
}

// BudgetScopesOf says what a session's spending counts against.
func BudgetScopesOf(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) ([]string, error) {
	scopes, err := journaldb.New(tx).BudgetScopes(ctx, journaldb.BudgetScopesParams{OrgID: org, ID: session})
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, fault.NotFound()
	}
	if err != nil {
		return nil, fmt.Errorf("read what %s counts against: %w", session, err)
	}
	return scopes, nil
}

func stepsFromRows(rows []journaldb.Step) ([]Step, error) {
	out := make([]Step, len(rows))
	for i, r := range rows {
		var err error
		if out[i], err = stepFromRow(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func stepFromRow(r journaldb.Step) (Step, error) {
	s := Step{
		ID: r.ID, Session: r.SessionID, Kind: r.Kind, Name: r.Name, EffectKey: r.EffectKey, Epoch: r.Epoch, IntendedSeq: r.IntendedSeq,
		Outcome: deref(r.Outcome), Hold: id.Hold(deref(r.HoldID)), Cost: r.CostNanos, IntendedAt: r.IntendedAt.UTC(),
	}
	if r.SettledSeq != nil {
		s.SettledSeq = *r.SettledSeq
	}
	if r.SettledAt != nil {
		at := r.SettledAt.UTC()
		s.SettledAt = &at
	}
	if err := json.Unmarshal(r.Usage, &s.Usage); err != nil {
		return Step{}, fmt.Errorf("read the usage of step %s: %w", r.ID, err)
	}
	if len(r.Error) > 0 {
		if err := json.Unmarshal(r.Error, &s.Error); err != nil {
			return Step{}, fmt.Errorf("read the error of step %s: %w", r.ID, err)
		}
	}
	return s, nil
}

func nonNil(s []string) []string {
	if s == nil {
		return []string{}
	}
	return s
}
