package api

import (
	"context"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
)

type aliasIn struct {
	Agent id.Agent `path:"agent_id"`
	Name  string   `path:"name" pattern:"^[a-z][a-z0-9-]{0,62}$"`
}

// listAliases is a page like any list, and its only one: an agent has few aliases.
func (a *API) listAliases(ctx context.Context, tx pgx.Tx, in agentIn) (Page[Alias], error) {
	if _, err := a.seenAgent(ctx, tx, in.Agent); err != nil {
		return Page[Alias]{}, err
	}
	list, err := a.cfg.Domains.Agents.ListAliases(ctx, tx, principal.From(ctx).Org, in.Agent)
	if err != nil {
		return Page[Alias]{}, err
	}
	return pageOf(place{limit: len(list)}, list, func(a agents.Alias) string { return a.Name }, aliasFrom), nil
}

func (a *API) getAlias(ctx context.Context, tx pgx.Tx, in aliasIn) (Alias, error) {
	found, err := a.seenAlias(ctx, tx, in)
	if err != nil {
		return Alias{}, err
	}
	return aliasFrom(found), nil
}

func (a *API) seenAlias(ctx context.Context, tx pgx.Tx, in aliasIn) (agents.Alias, error) {
	if _, err := a.seenAgent(ctx, tx, in.Agent); err != nil {
		return agents.Alias{}, err
	}
	return a.cfg.Domains.Agents.GetAlias(ctx, tx, principal.From(ctx).Org, in.Agent, in.Name)
}

type putAliasIn struct {
	aliasIn
	IfMatch ifMatch `header:"If-Match" doc:"The ETag that the alias must have; required to move one."`
	Body    struct {
		Version int `json:"version" required:"true" min:"1" max:"1000000000"`
	} `body:"json"`
}

func (a *API) putAlias(ctx context.Context, tx pgx.Tx, in putAliasIn) (Alias, error) {
	have, err := a.seenAlias(ctx, tx, in.aliasIn)
	missing := fault.As(err) != nil && fault.As(err).Kind == fault.NotFoundKind
	if missing {
		// The alias is missing, or the whole agent is.
		_, err = a.seenAgent(ctx, tx, in.Agent)
	}
	if err != nil {
		return Alias{}, err
	}
	switch {
	case missing && in.IfMatch != "":
		return Alias{}, changedMeanwhile()
	case !missing && in.IfMatch == "":
		return Alias{}, fault.New(fault.PreconditionRequired, "precondition_required", "Moving an alias takes If-Match with its ETag. Read it first, and see what it points to.")
	case !missing && !in.IfMatch.allows(have.Revision):
		return Alias{}, changedMeanwhile()
	}
	put, err := a.cfg.Domains.Agents.PutAlias(ctx, tx, principal.From(ctx).Org, in.Agent, in.Name, in.Body.Version, have.Revision)
	if err != nil {
		return Alias{}, err
	}
	return aliasFrom(put), nil
}

func (a *API) deleteAlias(ctx context.Context, tx pgx.Tx, in aliasIn) (Deleted, error) {
	if _, err := a.seenAgent(ctx, tx, in.Agent); err != nil {
		return Deleted{}, err
	}
	if err := a.cfg.Domains.Agents.DeleteAlias(ctx, tx, principal.From(ctx).Org, in.Agent, in.Name); err != nil {
		return Deleted{}, err
	}
	return Deleted{ID: in.Name, Type: "agent_alias_deleted"}, nil
}
