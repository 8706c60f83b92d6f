package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

func (a *API) sessionRoutes() []Route {
	const tag = "Sessions"
	return []Route{
		{
			ID: "sessions.list", Method: http.MethodGet, Path: "/v1/sessions", Permission: tenants.SessionsRead, Tag: tag,
			Summary: "List sessions", Description: "Newest first, unless order is asc.", Errors: []string{slugPage}, Endpoint: read(a.listSessions),
		},
		{
			ID: "sessions.get", Method: http.MethodGet, Path: "/v1/sessions/{session_id}", Permission: tenants.SessionsRead, Tag: tag,
			Summary:     "Get a session",
			Description: "With wait_for=idle the answer comes when the session is idle or terminated, or after wait_seconds with the session as it then is.",
			Endpoint:    plain(a.getSession),
		},
		{
			ID: "sessions.update", Method: http.MethodPost, Path: "/v1/sessions/{session_id}", Permission: tenants.SessionsWrite, Tag: tag,
			Summary:     "Update a session",
			Description: "Title, metadata and limits. Raising the limit that a session stopped at lets it go on; the raised price ceiling is held first.",
			Errors:      []string{"insufficient_funds", "precondition_failed", "session_running", "session_terminated", "archived", slugMoney},
			Endpoint:    write(http.StatusOK, a.updateSession),
		},
		{
			ID: "sessions.archive", Method: http.MethodPost, Path: "/v1/sessions/{session_id}/archive", Permission: tenants.SessionsWrite, Tag: tag,
			Summary: "Archive a session", Description: "Ends an idle session for good; it stays readable. Archiving twice is harmless.",
			Errors: []string{"session_running"}, Endpoint: write(http.StatusOK, a.archiveSession),
		},
		{
			ID: "sessions.kill", Method: http.MethodPost, Path: "/v1/sessions/{session_id}/kill", Permission: tenants.SessionsWrite, Tag: tag,
			Summary:     "Kill a session",
			Description: "Ends the session and all sessions below it. From its commit on, no worker of any of them can journal, spend or reach a sandbox. The answer is a signed receipt; killing again gives the same one. While a sandbox's end is not yet proven the answer is 202.",
			Errors:      []string{"session_terminated"},
			Endpoint:    admit(killReceiptType, a.beginKill, a.replyKill),
		},
		{
			ID: "sessions.receipt", Method: http.MethodGet, Path: "/v1/sessions/{session_id}/receipt", Permission: tenants.SessionsRead, Tag: tag,
			Summary:     "Get the receipt of a session's kill",
			Description: "404 for a session that was not killed. 'ambit receipt verify' checks it without asking the instance, against the key document of /.well-known/jwks.json.",
			Endpoint:    plain(a.getReceipt),
		},
	}
}

type listSessionsIn struct {
	Paging
	projectFilter
	AgentID         id.Agent          `query:"agent_id" doc:"Only sessions of this agent."`
	ParentID        id.Session        `query:"parent_session_id" doc:"Only sessions that this one started."`
	Statuses        []string          `query:"statuses[]" enum:"running,rescheduling,idle,terminated" maxitems:"4"`
	StopReasons     []string          `query:"stop_reasons[]" maxlen:"40" maxitems:"20"`
	Metadata        map[string]string `query:"metadata" doc:"metadata[key]=value: only sessions with these pairs."`
	CreatedAt       TimeRange         `query:"created_at" doc:"created_at[gt], [gte], [lt], [lte]."`
	Order           string            `query:"order" enum:"asc,desc" default:"desc"`
	IncludeArchived bool              `query:"include_archived"`
	Expand          []string          `query:"expand[]" enum:"agent" maxitems:"1" doc:"agent: the stored agent as it is now, beside the session's own snapshot."`
}

func (a *API) listSessions(ctx context.Context, tx pgx.Tx, in listSessionsIn) (Page[SessionExpanded], error) {
	var none Page[SessionExpanded]
	project, err := in.project(ctx)
	if err != nil {
		return none, err
	}
	after, err := positionID[id.Session](in.place)
	if err != nil {
		return none, err
	}
	org := principal.From(ctx).Org
	list, err := journal.List(ctx, tx, org, journal.SessionFilter{
		Project: project, Agent: in.AgentID, Parent: in.ParentID, Statuses: in.Statuses, StopReasons: in.StopReasons, Metadata: in.Metadata,
		IncludeArchived: in.IncludeArchived, CreatedAfter: in.CreatedAt.after(), CreatedBefore: in.CreatedAt.before(),
		After: after, Ascending: in.Order == "asc", Limit: in.place.fetch(),
	})
	if err != nil {
		return none, err
	}
	page := pageOf(in.place, list, func(s journal.Session) string { return string(s.ID) }, func(s journal.Session) journal.Session { return s })
	out := Page[SessionExpanded]{Data: []SessionExpanded{}, NextPage: page.NextPage}
	shown, err := a.showSessions(ctx, tx, org, page.Data...)
	if err != nil {
		return none, err
	}
	for i, s := range page.Data {
		expanded, err := a.expandSession(ctx, tx, s, shown[i], in.Expand)
		if err != nil {
			return none, err
		}
		out.Data = append(out.Data, expanded)
	}
	return out, nil
}

// after and before are both exclusive, as the journal's filter has them; times here are exact to the microsecond.
func (r TimeRange) after() *time.Time {
	if r.From != nil {
		t := r.From.Add(-time.Microsecond)
		return &t
	}
	return r.After
}

func (r TimeRange) before() *time.Time {
	if r.To != nil {
		t := r.To.Add(time.Microsecond)
		return &t
	}
	return r.Before
}

type getSessionIn struct {
	Session     id.Session `path:"session_id"`
	WaitFor     string     `query:"wait_for" enum:"idle"`
	WaitSeconds int64      `query:"wait_seconds" min:"1" max:"600" default:"55" doc:"How long to wait, with wait_for."`
	Expand      []string   `query:"expand[]" enum:"agent" maxitems:"1"`
}

func (a *API) getSession(c *call, in getSessionIn) (out SessionExpanded, err error) {
	err = c.inTx(func(ctx context.Context, tx pgx.Tx) error {
		_, err := seenSession(ctx, tx, in.Session)
		return err
	})
	if err != nil {
		return out, err
	}
	if in.WaitFor == "idle" {
		idle := func(s journal.Session) bool { return !s.AtWork() }
		if _, err := c.await(in.Session, time.Duration(in.WaitSeconds)*time.Second, idle); err != nil {
			return out, err
		}
	}
	err = c.inTx(func(ctx context.Context, tx pgx.Tx) error {
		s, err := journal.Get(ctx, tx, c.who.Org, in.Session)
		if err != nil {
			return err
		}
		shown, err := a.showSession(ctx, tx, s)
		if err != nil {
			return err
		}
		out, err = a.expandSession(ctx, tx, s, shown, in.Expand)
		return err
	})
	return out, err
}

// SessionExpanded is a session with what was asked for besides.
type SessionExpanded struct {
	Session
	Expanded *Expanded `json:"expanded,omitempty" doc:"What expand[] asked for."`
}

// Expanded holds the present state of what a session refers to.
type Expanded struct {
	Agent *Agent `json:"agent"`
}

func (a *API) expandSession(ctx context.Context, tx pgx.Tx, s journal.Session, shown Session, expand []string) (SessionExpanded, error) {
	out := SessionExpanded{Session: shown}
	if slices.Contains(expand, "agent") {
		out.Expanded = &Expanded{}
		if s.Agent.ID != "" {
			found, err := a.cfg.Domains.Agents.Get(ctx, tx, s.Org, s.Agent.ID)
			if err != nil {
				return SessionExpanded{}, err
			}
			shown := agentFrom(found)
			out.Expanded.Agent = &shown
		}
	}
	return out, nil
}

// heldBy is what the session's price ceiling holds now.
func heldBy(ctx context.Context, tx pgx.Tx, s journal.Session) (money.Nanos, error) {
	if s.CeilingHold == "" {
		return 0, nil
	}
	h, err := billing.ReadHold(ctx, tx, s.Org, s.CeilingHold)
	return h.Amount, err
}

type updateSessionIn struct {
	Session id.Session `path:"session_id"`
	IfMatch ifMatch    `header:"If-Match" doc:"The ETag that the session must have."`
	Body    struct {
		Title    Opt[string]   `json:"title" maxlen:"200"`
		Metadata Opt[Metadata] `json:"metadata" doc:"Replaces the metadata as a whole."`
		Limits   *Limits       `json:"limits" doc:"Limits that are given replace the session's; the others stay."`
	} `body:"json"`
}

func (a *API) updateSession(ctx context.Context, tx pgx.Tx, in updateSessionIn) (Session, error) {
	org := principal.From(ctx).Org
	have, err := seenSession(ctx, tx, in.Session)
	if err != nil {
		return Session{}, err
	}
	if !in.IfMatch.allows(have.Version) {
		return Session{}, changedMeanwhile()
	}
	if in.Body.Limits != nil { // before anything locks the session
		if err := a.cfg.Domains.Sessions.MayBegin(ctx, tx, org, in.Session); err != nil {
			return Session{}, err
		}
	}
	ifVersion := int64(0)
	if in.IfMatch != "" && in.IfMatch != "*" {
		ifVersion = have.Version
	}
	b := &in.Body
	describe := scheduler.Describe{Title: b.Title.Ptr()}
	if b.Metadata.Set {
		m := map[string]string(b.Metadata.Value)
		if m == nil {
			m = map[string]string{}
		}
		describe.Metadata = &m
	}
	out := have
	if describe.Title != nil || describe.Metadata != nil || ifVersion > 0 {
		if out, err = a.cfg.Domains.Sessions.Update(ctx, tx, org, in.Session, describe, ifVersion); err != nil {
			return Session{}, err
		}
	}
	if b.Limits != nil {
		if out, err = a.cfg.Domains.Sessions.SetLimits(ctx, tx, org, in.Session, b.Limits.domain()); err != nil {
			return Session{}, err
		}
	}
	return a.showSession(ctx, tx, out)
}

type sessionIn struct {
	Session id.Session `path:"session_id"`
}

func (a *API) archiveSession(ctx context.Context, tx pgx.Tx, in sessionIn) (Session, error) {
	if _, err := seenSession(ctx, tx, in.Session); err != nil {
		return Session{}, err
	}
	out, err := a.cfg.Domains.Sessions.Archive(ctx, tx, principal.From(ctx).Org, in.Session)
	if err != nil {
		return Session{}, err
	}
	return a.showSession(ctx, tx, out)
}

// seenSession reads a session that the caller may see: of its organisation, and of its project when it has one. Anything else is the
// one 404.
func seenSession(ctx context.Context, tx pgx.Tx, session id.Session) (journal.Session, error) {
	who := principal.From(ctx)
	s, err := journal.Get(ctx, tx, who.Org, session)
	if err != nil {
		return journal.Session{}, err
	}
	if who.Project != "" && s.Project != who.Project {
		return journal.Session{}, fault.NotFound()
	}
	return s, nil
}
