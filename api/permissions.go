package api

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func (a *API) permissionRoutes() []Route {
	const tag = "Permissions"
	const whole = "Takes a key of the whole organisation. "
	return []Route{
		{
			ID: "permissions.create", Method: http.MethodPost, Path: "/v1/permissions", Permission: tenants.PermissionsWrite, Tag: tag,
			Summary:     "Add a rule",
			Description: whole + "A rule says whether some agents may do something, under conditions. What denies wins over what allows. As soon as one rule allows an agent something of a kind, what no rule allows it of that kind is denied; until then it may do what its definition names. A rule binds from its commit on, running sessions too.",
			Errors:      []string{slugDenied, "state_conflict"}, Endpoint: write(http.StatusCreated, a.createPermission),
		},
		{
			ID: "permissions.list", Method: http.MethodGet, Path: "/v1/permissions", Permission: tenants.PermissionsRead, Tag: tag,
			Summary: "List rules", Description: whole + "Newest first.", Errors: []string{slugPage, slugDenied}, Endpoint: read(a.listPermissions),
		},
		{
			ID: "permissions.presets.list", Method: http.MethodGet, Path: "/v1/permissions/presets", Permission: tenants.PermissionsRead, Tag: tag,
			Summary: "List presets", Description: "Sets of rules to begin with.", Endpoint: plain(a.listPresets),
		},
		{
			ID: "permissions.presets.apply", Method: http.MethodPost, Path: "/v1/permissions/presets/{preset}", Permission: tenants.PermissionsWrite, Tag: tag,
			Summary:     "Apply a preset",
			Description: whole + "Copies the preset's rules to a subject, in one change. The copies are rules like others, and later releases do not change them.",
			Errors:      []string{slugDenied, "state_conflict"}, Endpoint: write(http.StatusCreated, a.applyPreset),
		},
		{
			ID: "permissions.explain", Method: http.MethodPost, Path: "/v1/permissions/explain", Permission: tenants.PermissionsRead, Tag: tag,
			Summary:     "Explain a decision",
			Description: "What the gate would decide now: by which rule, at which price, whether ceiling, balance and budgets would cover the hold, which budget is nearest to its limit, and what would have allowed it. It changes nothing: nothing is held, and no decision is journalled.",
			Endpoint:    read(a.explainPermission),
		},
		{
			ID: "permissions.simulate", Method: http.MethodPost, Path: "/v1/permissions/simulate", Permission: tenants.PermissionsRead, Tag: tag,
			Summary:     "Try rules on the past",
			Description: whole + "Which of the last days' decisions would have been others under the rules proposed, newest first. It changes nothing. A page looks at a bounded number of decisions: it may be empty and not the last.",
			Errors:      []string{slugPage, slugDenied}, Endpoint: read(a.simulatePermissions),
		},
		{
			ID: "permissions.tags.list", Method: http.MethodGet, Path: "/v1/permissions/tags", Permission: tenants.PermissionsRead, Tag: tag,
			Summary: "List tagged agents", Description: whole + "A rule whose subject is tag: and a tag is about all agents that have it.", Errors: []string{slugPage, slugDenied}, Endpoint: read(a.listTags),
		},
		{
			ID: "permissions.tags.put", Method: http.MethodPut, Path: "/v1/permissions/tags/{agent_id}", Permission: tenants.PermissionsWrite, Tag: tag,
			Summary: "Set an agent's tags", Description: whole + "The agent then has just these.", Errors: []string{slugDenied}, Endpoint: write(http.StatusOK, a.putTags),
		},
		{
			ID: "permissions.get", Method: http.MethodGet, Path: "/v1/permissions/{permission_id}", Permission: tenants.PermissionsRead, Tag: tag,
			Summary: "Get a rule", Endpoint: read(a.getPermission),
		},
		{
			ID: "permissions.update", Method: http.MethodPost, Path: "/v1/permissions/{permission_id}", Permission: tenants.PermissionsWrite, Tag: tag,
			Summary: "Change a rule", Description: "A field that is left out stays; condition is replaced whole, and null clears it.",
			Errors: []string{"precondition_failed"}, Endpoint: write(http.StatusOK, a.updatePermission),
		},
		{
			ID: "permissions.delete", Method: http.MethodDelete, Path: "/v1/permissions/{permission_id}", Permission: tenants.PermissionsWrite, Tag: tag,
			Summary: "Delete a rule", Endpoint: write(http.StatusOK, a.deletePermission),
		},
	}
}

type createPermissionIn struct {
	Body RuleInput `body:"json"`
}

func (a *API) createPermission(ctx context.Context, tx pgx.Tx, in createPermissionIn) (Permission, error) {
	if err := wholeOrganization(ctx); err != nil {
		return Permission{}, err
	}
	rule, err := in.Body.rule("")
	if err != nil {
		return Permission{}, err
	}
	made, err := a.cfg.Domains.Policies.Create(ctx, tx, principal.From(ctx).Org, rule)
	return permissionFrom(made), err
}

type listPermissionsIn struct {
	Paging
	Subject string `query:"subject" maxlen:"64" doc:"Only rules with this subject."`
	Effect  string `query:"effect" enum:"allow,deny"`
	Kind    string `query:"kind" maxlen:"32" doc:"Only rules about this kind; * for those about all kinds."`
	Order   string `query:"order" enum:"asc,desc" default:"desc"`
}

func (a *API) listPermissions(ctx context.Context, tx pgx.Tx, in listPermissionsIn) (Page[Permission], error) {
	if err := wholeOrganization(ctx); err != nil {
		return Page[Permission]{}, err
	}
	after, err := positionID[id.Permission](in.place)
	if err != nil {
		return Page[Permission]{}, err
	}
	list, err := a.cfg.Domains.Policies.List(ctx, tx, principal.From(ctx).Org, policy.ListFilter{
		Subject: in.Subject, Effect: policy.Effect(in.Effect), Kind: in.Kind, OldestFirst: in.Order == "asc", After: after, Limit: in.place.fetch(),
	})
	if err != nil {
		return Page[Permission]{}, err
	}
	return pageOf(in.place, list, func(r policy.Stored) string { return string(r.ID) }, permissionFrom), nil
}

type permissionIn struct {
	Permission id.Permission `path:"permission_id"`
}

// seenPermission: rules are the whole organisation's. For a request that is bound to one project there is none.
func (a *API) seenPermission(ctx context.Context, tx pgx.Tx, rule id.Permission) (policy.Stored, error) {
	who := principal.From(ctx)
	if who.Project != "" {
		return policy.Stored{}, fault.NotFound()
	}
	return a.cfg.Domains.Policies.Get(ctx, tx, who.Org, rule)
}

func (a *API) getPermission(ctx context.Context, tx pgx.Tx, in permissionIn) (Permission, error) {
	r, err := a.seenPermission(ctx, tx, in.Permission)
	if err != nil {
		return Permission{}, err
	}
	return permissionFrom(r), nil
}

type updatePermissionIn struct {
	Permission id.Permission `path:"permission_id"`
	IfMatch    ifMatch       `header:"If-Match" doc:"The ETag that the rule must have."`
	Body       struct {
		Subject     Opt[string]              `json:"subject" maxlen:"64"`
		Effect      Opt[string]              `json:"effect" maxlen:"16"`
		Kind        Opt[string]              `json:"kind" maxlen:"32"`
		Name        Opt[string]              `json:"name" maxlen:"128"`
		Action      Opt[string]              `json:"action" maxlen:"64"`
		Object      Opt[string]              `json:"object" maxlen:"512"`
		Condition   Opt[PermissionCondition] `json:"condition"`
		Description Opt[string]              `json:"description" maxlen:"500"`
	} `body:"json"`
}

func (a *API) updatePermission(ctx context.Context, tx pgx.Tx, in updatePermissionIn) (Permission, error) {
	have, err := a.seenPermission(ctx, tx, in.Permission)
	if err != nil {
		return Permission{}, err
	}
	var ifVersion *int64
	if in.IfMatch != "" {
		if !in.IfMatch.allows(have.Version) {
			return Permission{}, changedMeanwhile()
		}
		ifVersion = &have.Version
	}
	b := in.Body
	condition, err := b.Condition.Value.domain("/condition")
	if err != nil {
		return Permission{}, err
	}
	if err := offered(b.Effect.Value, b.Effect.Set); err != nil {
		return Permission{}, err
	}
	r, err := a.cfg.Domains.Policies.Update(ctx, tx, principal.From(ctx).Org, in.Permission, ifVersion, func(r policy.Rule) policy.Rule {
		for _, f := range []struct {
			set bool
			new string
			at  *string
		}{
			{b.Subject.Set, b.Subject.Value, &r.Subject},
			{b.Kind.Set, b.Kind.Value, &r.Kind},
			{b.Name.Set, b.Name.Value, &r.Name},
			{b.Action.Set, b.Action.Value, &r.Action},
			{b.Object.Set, b.Object.Value, &r.Object},
			{b.Description.Set, b.Description.Value, &r.Description},
		} {
			if f.set {
				*f.at = f.new
			}
		}
		if b.Effect.Set {
			r.Effect = policy.Effect(b.Effect.Value)
		}
		if b.Condition.Set {
			r.Condition = condition
		}
		return r
	})
	return permissionFrom(r), err
}

func (a *API) deletePermission(ctx context.Context, tx pgx.Tx, in permissionIn) (Deleted, error) {
	if _, err := a.seenPermission(ctx, tx, in.Permission); err != nil {
		return Deleted{}, err
	}
	if err := a.cfg.Domains.Policies.Delete(ctx, tx, principal.From(ctx).Org, in.Permission); err != nil {
		return Deleted{}, err
	}
	return Deleted{ID: string(in.Permission), Type: "permission_deleted"}, nil
}

func (a *API) listPresets(*call, struct{}) (Page[Preset], error) {
	all := policy.Presets()
	return pageOf(place{limit: len(all)}, all, func(p policy.Preset) string { return p.Name }, presetFrom), nil
}

type applyPresetIn struct {
	Preset string `path:"preset" pattern:"^[a-z][a-z0-9-]{0,62}$"`
	Body   struct {
		Subject string `json:"subject" required:"true" maxlen:"64" example:"*" doc:"Whom the rules will be about, as a rule's subject."`
		Replace bool   `json:"replace" doc:"Delete the subject's other rules first."`
	} `body:"json"`
}

func (a *API) applyPreset(ctx context.Context, tx pgx.Tx, in applyPresetIn) (Page[Permission], error) {
	if err := wholeOrganization(ctx); err != nil {
		return Page[Permission]{}, err
	}
	made, err := a.cfg.Domains.Policies.ApplyPreset(ctx, tx, principal.From(ctx).Org, in.Preset, in.Body.Subject, in.Body.Replace)
	if err != nil {
		return Page[Permission]{}, err
	}
	return pageOf(place{limit: len(made)}, made, func(r policy.Stored) string { return string(r.ID) }, permissionFrom), nil
}

type listTagsIn struct{ Paging }

func (a *API) listTags(ctx context.Context, tx pgx.Tx, in listTagsIn) (Page[AgentTags], error) {
	if err := wholeOrganization(ctx); err != nil {
		return Page[AgentTags]{}, err
	}
	after, err := positionID[id.Agent](in.place)
	if err != nil {
		return Page[AgentTags]{}, err
	}
	list, err := a.cfg.Domains.Policies.ListTags(ctx, tx, principal.From(ctx).Org, after, in.place.fetch())
	if err != nil {
		return Page[AgentTags]{}, err
	}
	return pageOf(in.place, list, func(t policy.Tagged) string { return string(t.Agent) }, tagsFrom), nil
}

type putTagsIn struct {
	Agent id.Agent `path:"agent_id"`
	Body  struct {
		Tags []string `json:"tags" required:"true" maxitems:"16" maxlen:"40" example:"[\"no-network\"]"`
	} `body:"json"`
}

func (a *API) putTags(ctx context.Context, tx pgx.Tx, in putTagsIn) (AgentTags, error) {
	if _, err := a.seenAgent(ctx, tx, in.Agent); err != nil {
		return AgentTags{}, err
	}
	if err := wholeOrganization(ctx); err != nil {
		return AgentTags{}, err
	}
	t, err := a.cfg.Domains.Policies.SetTags(ctx, tx, principal.From(ctx).Org, in.Agent, in.Body.Tags)
	return tagsFrom(t), err
}
