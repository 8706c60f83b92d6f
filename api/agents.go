package api

import (
	"context"
	"net/http"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"
)

func (a *API) agentRoutes() []Route {
	const tag = "Agents"
	return []Route{
		{
			ID: "agents.create", Method: http.MethodPost, Path: "/v1/agents", Permission: tenants.AgentsWrite, Tag: tag,
			Summary: "Create an agent", Description: "Makes the agent and its version 1.",
			Errors: []string{"state_conflict"}, Endpoint: write(http.StatusCreated, a.createAgent),
		},
		{
			ID: "agents.list", Method: http.MethodGet, Path: "/v1/agents", Permission: tenants.AgentsRead, Tag: tag,
			Summary: "List agents", Description: "Newest first.", Errors: []string{slugPage}, Endpoint: read(a.listAgents),
		},
		{
			ID: "agents.get", Method: http.MethodGet, Path: "/v1/agents/{agent_id}", Permission: tenants.AgentsRead, Tag: tag,
			Summary: "Get an agent", Endpoint: read(a.getAgent),
		},
		{
			ID: "agents.update", Method: http.MethodPost, Path: "/v1/agents/{agent_id}", Permission: tenants.AgentsWrite, Tag: tag,
			Summary:     "Update an agent",
			Description: "A field that is left out stays, null clears it, an array replaces the whole array. A change of model, system, tools, max_tokens, limits, if_running or network makes a new version; sessions that run keep theirs.",
			Errors:      []string{"archived", "precondition_failed", "state_conflict"}, Endpoint: write(http.StatusOK, a.updateAgent),
		},
		{
			ID: "agents.archive", Method: http.MethodPost, Path: "/v1/agents/{agent_id}/archive", Permission: tenants.AgentsWrite, Tag: tag,
			Summary: "Archive an agent", Description: "It can be read for good, and neither changed nor invoked any more. Archiving twice is harmless.",
			Endpoint: write(http.StatusOK, a.archiveAgent),
		},
		{
			ID: "agents.versions.list", Method: http.MethodGet, Path: "/v1/agents/{agent_id}/versions", Permission: tenants.AgentsRead, Tag: tag,
			Summary: "List an agent's versions", Description: "Newest first.", Errors: []string{slugPage}, Endpoint: read(a.listVersions),
		},
		{
			ID: "agents.versions.get", Method: http.MethodGet, Path: "/v1/agents/{agent_id}/versions/{version}", Permission: tenants.AgentsRead, Tag: tag,
			Summary: "Get a version of an agent", Endpoint: read(a.getVersion),
		},
		{
			ID: "agents.aliases.list", Method: http.MethodGet, Path: "/v1/agents/{agent_id}/aliases", Permission: tenants.AgentsRead, Tag: tag,
			Summary: "List an agent's aliases", Endpoint: read(a.listAliases),
		},
		{
			ID: "agents.aliases.put", Method: http.MethodPut, Path: "/v1/agents/{agent_id}/aliases/{name}", Permission: tenants.AgentsWrite, Tag: tag,
			Summary:     "Make or move an alias",
			Description: "Moving one takes If-Match with its ETag, so that nobody's move is undone unseen; making one takes none.",
			Errors:      []string{"precondition_required", "precondition_failed", "archived"}, Endpoint: write(http.StatusOK, a.putAlias),
		},
		{
			ID: "agents.aliases.get", Method: http.MethodGet, Path: "/v1/agents/{agent_id}/aliases/{name}", Permission: tenants.AgentsRead, Tag: tag,
			Summary: "Get an alias", Endpoint: read(a.getAlias),
		},
		{
			ID: "agents.aliases.delete", Method: http.MethodDelete, Path: "/v1/agents/{agent_id}/aliases/{name}", Permission: tenants.AgentsWrite, Tag: tag,
			Summary: "Delete an alias", Description: "The versions stay.", Endpoint: write(http.StatusOK, a.deleteAlias),
		},
	}
}

type createAgentIn struct {
	Body struct {
		Name        string   `json:"name" required:"true" minlen:"1" maxlen:"120" example:"researcher"`
		Description string   `json:"description" maxlen:"2000"`
		Model       string   `json:"model" required:"true" minlen:"1" maxlen:"200" example:"ambit/scripted" doc:"One of GET /v1/models."`
		System      string   `json:"system" maxlen:"262144" doc:"The system prompt."`
		Tools       []string `json:"tools" maxitems:"64" maxlen:"100" doc:"Names of built-in tools: bash, python, read_file, write_file, edit_file, list_files, http_request." example:"[\"bash\"]"`
		MaxTokens   *int64   `json:"max_tokens" min:"1" max:"128000" doc:"The most output tokens of one model call."`
		Limits      *Limits  `json:"limits" doc:"Limits that its sessions begin with."`
		IfRunning   *string  `json:"if_running" enum:"queue,interrupt,reject" doc:"What a message to a running session does by default: queue it, interrupt, or reject it."`
		Network     *Network `json:"network" doc:"What its requests may reach; left out, nothing."`
		Metadata    Metadata `json:"metadata"`
	} `body:"json"`
}

func (a *API) createAgent(ctx context.Context, tx pgx.Tx, in createAgentIn) (Agent, error) {
	who := principal.From(ctx)
	project, err := a.workProject(ctx, tx)
	if err != nil {
		return Agent{}, err
	}
	b := in.Body
	d := journal.Definition{Model: b.Model, System: b.System, Tools: b.Tools, MaxTokens: orZero(b.MaxTokens), Network: b.Network.domain()}
	if b.Limits != nil {
		d.Limits = b.Limits.domain()
	}
	if b.IfRunning != nil {
		d.IfRunning = *b.IfRunning
	}
	made, err := a.cfg.Domains.Agents.Create(ctx, tx, who.Org, agents.CreateInput{
		Project: project, Name: b.Name, Description: b.Description, Metadata: b.Metadata, Definition: d,
	})
	return agentFrom(made), err
}

type listAgentsIn struct {
	Paging
	Name            string `query:"name" maxlen:"120" doc:"Only agents whose name contains this."`
	IncludeArchived bool   `query:"include_archived" doc:"Archived ones too."`
	projectFilter
}

func (a *API) listAgents(ctx context.Context, tx pgx.Tx, in listAgentsIn) (Page[Agent], error) {
	project, err := in.project(ctx)
	if err != nil {
		return Page[Agent]{}, err
	}
	after, err := positionID[id.Agent](in.place)
	if err != nil {
		return Page[Agent]{}, err
	}
	list, err := a.cfg.Domains.Agents.List(ctx, tx, principal.From(ctx).Org, agents.ListFilter{
		Project: project, NameContains: in.Name, IncludeArchived: in.IncludeArchived, After: after, Limit: in.place.fetch(),
	})
	if err != nil {
		return Page[Agent]{}, err
	}
	return pageOf(in.place, list, func(a agents.Agent) string { return string(a.ID) }, agentFrom), nil
}

type agentIn struct {
	Agent id.Agent `path:"agent_id"`
}

// seenAgent reads an agent that the caller may see.
func (a *API) seenAgent(ctx context.Context, tx pgx.Tx, agent id.Agent) (agents.Agent, error) {
	who := principal.From(ctx)
	found, err := a.cfg.Domains.Agents.Get(ctx, tx, who.Org, agent)
	if err != nil {
		return agents.Agent{}, err
	}
	if who.Project != "" && found.Project != who.Project {
		return agents.Agent{}, fault.NotFound()
	}
	return found, nil
}

func (a *API) getAgent(ctx context.Context, tx pgx.Tx, in agentIn) (Agent, error) {
	found, err := a.seenAgent(ctx, tx, in.Agent)
	if err != nil {
		return Agent{}, err
	}
	return agentFrom(found), nil
}

type updateAgentIn struct {
	Agent   id.Agent `path:"agent_id"`
	IfMatch ifMatch  `header:"If-Match" doc:"The ETag that the agent must have."`
	Body    struct {
		Name        Opt[string]   `json:"name" maxlen:"120"`
		Description Opt[string]   `json:"description" maxlen:"2000"`
		Model       Opt[string]   `json:"model" maxlen:"200"`
		System      Opt[string]   `json:"system" maxlen:"262144"`
		Tools       Opt[[]string] `json:"tools" maxitems:"64"`
		MaxTokens   Opt[int64]    `json:"max_tokens" min:"1" max:"128000"`
		Limits      Opt[Limits]   `json:"limits" doc:"Replaces the limits as a whole."`
		IfRunning   Opt[string]   `json:"if_running" enum:"queue,interrupt,reject"`
		Network     Opt[Network]  `json:"network" doc:"Replaces what may be reached as a whole."`
		Metadata    Opt[Metadata] `json:"metadata" doc:"Replaces the metadata as a whole."`
	} `body:"json"`
}

func (a *API) updateAgent(ctx context.Context, tx pgx.Tx, in updateAgentIn) (Agent, error) {
	b := &in.Body
	for try := 1; ; try++ {
		have, err := a.seenAgent(ctx, tx, in.Agent)
		if err != nil {
			return Agent{}, err
		}
		if !in.IfMatch.allows(int64(have.Version)) {
			return Agent{}, changedMeanwhile()
		}
		d := have.Definition
		set(&d.Model, b.Model)
		set(&d.System, b.System)
		set(&d.Tools, b.Tools)
		set(&d.MaxTokens, b.MaxTokens)
		set(&d.IfRunning, b.IfRunning)
		if b.Limits.Set {
			d.Limits = b.Limits.Value.domain()
		}
		if b.Network.Set {
			d.Network = b.Network.Value.domain()
		}
		change := agents.UpdateInput{Name: b.Name.Ptr(), Description: b.Description.Ptr(), Definition: &d, IfVersion: have.Version}
		if b.Metadata.Set {
			m := map[string]string(b.Metadata.Value)
			if m == nil {
				m = map[string]string{}
			}
			change.Metadata = &m
		}
		out, err := a.cfg.Domains.Agents.Update(ctx, tx, principal.From(ctx).Org, in.Agent, change)
		// Somebody else's change came between our look and the lock. Whoever named no version wants the change on top of it.
		if fault.IsCode(err, "precondition_failed") && in.IfMatch == "" && try < 5 {
			continue
		}
		if err != nil {
			return Agent{}, err
		}
		return agentFrom(out), nil
	}
}

// set writes an update's field; null gives the zero value, for which the domain has its default or its refusal.
func set[T any](to *T, o Opt[T]) {
	if o.Set {
		*to = o.Value
	}
}

func (a *API) archiveAgent(ctx context.Context, tx pgx.Tx, in agentIn) (Agent, error) {
	if _, err := a.seenAgent(ctx, tx, in.Agent); err != nil {
		return Agent{}, err
	}
	out, err := a.cfg.Domains.Agents.Archive(ctx, tx, principal.From(ctx).Org, in.Agent)
	if err != nil {
		return Agent{}, err
	}
	return agentFrom(out), nil
}

type listVersionsIn struct {
	Agent id.Agent `path:"agent_id"`
	Paging
}

func (a *API) listVersions(ctx context.Context, tx pgx.Tx, in listVersionsIn) (Page[AgentVersion], error) {
	if _, err := a.seenAgent(ctx, tx, in.Agent); err != nil {
		return Page[AgentVersion]{}, err
	}
	before, err := in.place.seq()
	if err != nil {
		return Page[AgentVersion]{}, err
	}
	list, err := a.cfg.Domains.Agents.ListVersions(ctx, tx, principal.From(ctx).Org, in.Agent, int(before), in.place.fetch())
	if err != nil {
		return Page[AgentVersion]{}, err
	}
	return pageOf(in.place, list, func(v agents.Version) string { return strconv.Itoa(v.Version) }, agentVersionFrom), nil
}

type versionIn struct {
	Agent   id.Agent `path:"agent_id"`
	Version int      `path:"version" min:"1" max:"1000000000"`
}

func (a *API) getVersion(ctx context.Context, tx pgx.Tx, in versionIn) (AgentVersion, error) {
	if _, err := a.seenAgent(ctx, tx, in.Agent); err != nil {
		return AgentVersion{}, err
	}
	v, err := a.cfg.Domains.Agents.GetVersion(ctx, tx, principal.From(ctx).Org, in.Agent, in.Version)
	if err != nil {
		return AgentVersion{}, err
	}
	return agentVersionFrom(v), nil
}

// ifMatch is an If-Match header: one or more strong tags, or *.
type ifMatch string

// allows says whether the present version is among those that the client has seen. No header allows all.
func (m ifMatch) allows(version int64) bool {
	if m == "" {
		return true
	}
	for one := range strings.SplitSeq(string(m), ",") {
		one = strings.TrimSpace(one)
		if one == "*" || one == quoteTag(version) { // If-Match compares strongly: W/"1" matches nothing
			return true
		}
	}
	return false
}

func changedMeanwhile() error {
	return fault.New(fault.PreconditionFailed, "precondition_failed", "It has changed since you read it. Read it again, look at what changed, and repeat your change with the new ETag.")
}
