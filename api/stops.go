package api

import (
	"context"
	"net/http"
	"reflect"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

func (a *API) stopRoutes() []Route {
	const tag = "Stops"
	const what = " The order is recorded first, and from its commit on nothing of it begins (409 state_conflict) until all that works is stopped; then every session that works is killed, with all below it, and has a receipt of its own. " +
		"Idle sessions stay, unless include_idle is true; a machine that one still has is saved and ended. " +
		"The answer waits for the signed receipt; while it is not complete it is 202, and GET /v1/stops/{stop_id} tells how far it is. Stopping again while nothing has begun since gives the same order."
	return []Route{
		{
			ID: "agents.stop", Method: http.MethodPost, Path: "/v1/agents/{agent_id}/stop", Permission: tenants.SessionsWrite, Tag: tag,
			Summary: "Stop an agent", Description: "Stops all sessions of an agent." + what, Endpoint: admit(stopType, a.stopAgent, replyStop[stopAgentIn](a)),
		},
		{
			ID: "api_keys.stop", Method: http.MethodPost, Path: "/v1/api_keys/{key_id}/stop", Permission: tenants.KeysWrite, Tag: tag,
			Summary: "Stop what an API key began", Description: "Stops all sessions that a key began. The key itself stays: revoke it, too, if it leaked." + what,
			Endpoint: admit(stopType, a.stopKey, replyStop[stopKeyIn](a)),
		},
		{
			ID: "projects.stop", Method: http.MethodPost, Path: "/v1/projects/{project_id}/stop", Permission: tenants.ProjectsWrite, Tag: tag,
			Summary: "Stop a project", Description: "Stops all sessions of a project." + what, Endpoint: admit(stopType, a.stopProject, replyStop[stopProjectIn](a)),
		},
		{
			ID: "organization.stop", Method: http.MethodPost, Path: "/v1/organization/stop", Permission: tenants.OrganizationWrite, Tag: tag,
			Summary: "Stop everything", Description: "Stops all sessions of the organisation." + what, Endpoint: admit(stopType, a.stopEverything, replyStop[stopEverythingIn](a)),
		},
		{
			ID: "stops.list", Method: http.MethodGet, Path: "/v1/stops", Permission: tenants.SessionsRead, Tag: tag,
			Summary: "List orders to stop", Description: "Newest first. A project's key sees those that lie within its project.", Errors: []string{slugPage}, Endpoint: read(a.listStops),
		},
		{
			ID: "stops.get", Method: http.MethodGet, Path: "/v1/stops/{stop_id}", Permission: tenants.SessionsRead, Tag: tag,
			Summary: "Get an order to stop", Description: "How far it is, and its signed receipt once it is complete.", Endpoint: read(a.getStop),
		},
	}
}

var stopType = reflect.TypeFor[Stop]()

// Stop is an order to stop what works in a scope.
type Stop struct {
	ID          id.Stop         `json:"id"`
	Type        string          `json:"type" const:"stop"`
	Scope       scheduler.Scope `json:"scope" doc:"type is agent, api_key, project, organization, or mandate: one that was revoked, with all below it."`
	Status      string          `json:"status" enum:"running,fenced,complete" doc:"running: sessions are being stopped, and nothing of the scope begins. fenced: none can work any more, sandboxes are ending. complete: all are gone, and the receipt is signed."`
	By          Actor           `json:"by"`
	Reason      string          `json:"reason"`
	IncludeIdle bool            `json:"include_idle"`
	Stopped     int64           `json:"sessions_stopped"`
	RequestedAt Time            `json:"requested_at"`
	FencedAt    *Time           `json:"fenced_at"`
	CompletedAt *Time           `json:"completed_at"`
	// Receipt is signed over its own members, which is why amounts are integer nano-dollars in it.
	Receipt *scheduler.StopReceipt `json:"receipt" doc:"null until it is complete."`
}

func stopFrom(o scheduler.StopOrder) Stop {
	s := Stop{
		ID: o.ID, Type: "stop", Scope: o.Scope, Status: "running", By: actorFrom(o.By), Reason: o.Reason, IncludeIdle: o.IncludeIdle, Stopped: o.Stopped,
		RequestedAt: Time(o.RequestedAt), FencedAt: timePtr(o.FencedAt), CompletedAt: timePtr(o.CompletedAt), Receipt: o.Receipt,
	}
	switch {
	case o.CompletedAt != nil:
		s.Status = "complete"
	case o.FencedAt != nil:
		s.Status = "fenced"
	}
	return s
}

type stopBody struct {
	Reason      string `json:"reason" maxlen:"500" doc:"Stands on the receipts and in the journals."`
	IncludeIdle bool   `json:"include_idle" doc:"End idle sessions too: they take no more input afterwards."`
}

type stopAgentIn struct {
	Agent id.Agent `path:"agent_id"`
	Body  stopBody `body:"optional"`
}

type stopKeyIn struct {
	Key  id.Key   `path:"key_id"`
	Body stopBody `body:"optional"`
}

type stopProjectIn struct {
	Project id.Project `path:"project_id"`
	Body    stopBody   `body:"optional"`
}

type stopEverythingIn struct {
	Body stopBody `body:"optional"`
}

type stopTicket struct {
	Stop id.Stop `json:"stop_id"`
}

func (a *API) stopAgent(ctx context.Context, tx pgx.Tx, in stopAgentIn) (stopTicket, error) {
	found, err := a.seenAgent(ctx, tx, in.Agent)
	if err != nil {
		return stopTicket{}, err
	}
	return a.stop(ctx, tx, scheduler.Scope{Type: scheduler.ScopeAgent, ID: string(in.Agent), Project: found.Project}, in.Body)
}

func (a *API) stopKey(ctx context.Context, tx pgx.Tx, in stopKeyIn) (stopTicket, error) {
	found, err := a.seenKey(ctx, in.Key)
	if err != nil {
		return stopTicket{}, err
	}
	return a.stop(ctx, tx, scheduler.Scope{Type: scheduler.ScopeKey, ID: string(in.Key), Project: found.Project}, in.Body)
}

func (a *API) stopProject(ctx context.Context, tx pgx.Tx, in stopProjectIn) (stopTicket, error) {
	if _, err := a.seenProject(ctx, tx, in.Project); err != nil {
		return stopTicket{}, err
	}
	return a.stop(ctx, tx, scheduler.Scope{Type: scheduler.ScopeProject, ID: string(in.Project), Project: in.Project}, in.Body)
}

func (a *API) stopEverything(ctx context.Context, tx pgx.Tx, in stopEverythingIn) (stopTicket, error) {
	if err := wholeOrganization(ctx); err != nil {
		return stopTicket{}, err
	}
	return a.stop(ctx, tx, scheduler.Scope{Type: scheduler.ScopeOrganization, ID: string(principal.From(ctx).Org)}, in.Body)
}

func (a *API) stop(ctx context.Context, tx pgx.Tx, scope scheduler.Scope, body stopBody) (stopTicket, error) {
	o, err := a.cfg.Domains.Sessions.StopScope(ctx, tx, principal.From(ctx).Org, scheduler.StopInput{Scope: scope, Reason: body.Reason, IncludeIdle: body.IncludeIdle})
	return stopTicket{Stop: o.ID}, err
}

func replyStop[In any](a *API) func(c *call, in In, t stopTicket) error {
	return func(c *call, _ In, t stopTicket) error {
		ctx, cancel := context.WithTimeout(c.r.Context(), killWait)
		defer cancel()
		o, err := a.cfg.Domains.Sessions.FinishStop(ctx, c.who.Org, t.Stop)
		if err != nil {
			return err
		}
		c.w.Header().Set("Location", "/v1/stops/"+string(o.ID))
		if o.CompletedAt != nil {
			return c.answer(http.StatusOK, stopFrom(o))
		}
		return c.answer(http.StatusAccepted, stopFrom(o))
	}
}

type listStopsIn struct {
	Paging
	projectFilter
}

func (a *API) listStops(ctx context.Context, tx pgx.Tx, in listStopsIn) (Page[Stop], error) {
	project, err := in.project(ctx)
	if err != nil {
		return Page[Stop]{}, err
	}
	after, err := positionID[id.Stop](in.place)
	if err != nil {
		return Page[Stop]{}, err
	}
	list, err := a.cfg.Domains.Sessions.ListStops(ctx, tx, principal.From(ctx).Org, project, after, in.place.fetch())
	if err != nil {
		return Page[Stop]{}, err
	}
	return pageOf(in.place, list, func(o scheduler.StopOrder) string { return string(o.ID) }, stopFrom), nil
}

type stopIn struct {
	Stop id.Stop `path:"stop_id"`
}

func (a *API) getStop(ctx context.Context, tx pgx.Tx, in stopIn) (Stop, error) {
	who := principal.From(ctx)
	o, err := a.cfg.Domains.Sessions.GetStop(ctx, tx, who.Org, in.Stop)
	if err != nil {
		return Stop{}, err
	}
	if who.Project != "" && o.Scope.Project != who.Project {
		return Stop{}, fault.NotFound()
	}
	return stopFrom(o), nil
}
