package api

import (
	"context"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func (a *API) keyRoutes() []Route {
	const tag = "Keys"
	return []Route{
		{
			ID: "api_keys.create", Method: http.MethodPost, Path: "/v1/api_keys", Permission: tenants.KeysWrite, Tag: tag,
			Summary:     "Make an API key",
			Description: "The secret is in this answer and nowhere else. A key can give no scope that it has not itself; a request that is bound to a project makes keys of that project.",
			Errors:      []string{slugDenied, "archived"}, Endpoint: write(http.StatusCreated, a.createKey),
		},
		{
			ID: "api_keys.list", Method: http.MethodGet, Path: "/v1/api_keys", Permission: tenants.KeysRead, Tag: tag,
			Summary: "List API keys", Description: "Newest first.", Errors: []string{slugPage}, Endpoint: plain(a.listKeys),
		},
		{
			ID: "api_keys.get", Method: http.MethodGet, Path: "/v1/api_keys/{key_id}", Permission: tenants.KeysRead, Tag: tag,
			Summary: "Get an API key", Endpoint: plain(a.getKey),
		},
		{
			ID: "api_keys.update", Method: http.MethodPost, Path: "/v1/api_keys/{key_id}", Permission: tenants.KeysWrite, Tag: tag,
			Summary: "Update an API key", Errors: []string{slugDenied, "precondition_failed", "state_conflict"}, Endpoint: write(http.StatusOK, a.updateKey),
		},
		{
			ID: "api_keys.rotate", Method: http.MethodPost, Path: "/v1/api_keys/{key_id}/rotate", Permission: tenants.KeysWrite, Tag: tag,
			Summary:     "Rotate an API key",
			Description: "Makes a successor with the same name, project and scopes, and lets the old key expire after expire_old_seconds. The new secret is in this answer and nowhere else.",
			Errors:      []string{slugDenied, "state_conflict"}, Endpoint: write(http.StatusCreated, a.rotateKey),
		},
		{
			ID: "api_keys.revoke", Method: http.MethodPost, Path: "/v1/api_keys/{key_id}/revoke", Permission: tenants.KeysWrite, Tag: tag,
			Summary: "Revoke an API key", Description: "For good, from the commit on. Revoking twice is harmless.", Endpoint: write(http.StatusOK, a.revokeKey),
		},
	}
}

// APIKey is a key without its secret.
type APIKey struct {
	ID         id.Key      `json:"id"`
	Type       string      `json:"type" const:"api_key"`
	ProjectID  *id.Project `json:"project_id" doc:"null for a key of the whole organisation."`
	Name       string      `json:"name"`
	Prefix     string      `json:"prefix" doc:"The beginning of the secret, to recognise it by."`
	Scopes     []string    `json:"scopes"`
	Status     string      `json:"status" enum:"active,expired,revoked"`
	APIVersion string      `json:"api_version"`
	CreatedBy  string      `json:"created_by"`
	Version    int64       `json:"version"`
	CreatedAt  Time        `json:"created_at"`
	ExpiresAt  *Time       `json:"expires_at"`
	LastUsedAt *Time       `json:"last_used_at" doc:"Exact to about a minute."`
	RevokedAt  *Time       `json:"revoked_at"`
}

func (k APIKey) entityTag() string { return quoteTag(k.Version) }
func (k APIKey) location() string  { return "/v1/api_keys/" + string(k.ID) }

// NewAPIKey is a key with its secret, this once.
type NewAPIKey struct {
	APIKey
	Secret string `json:"secret" doc:"Shown this once."`
}

func (a *API) showKey(k tenants.Key) APIKey {
	out := APIKey{
		ID: k.ID, Type: "api_key", Name: k.Name, Prefix: k.Prefix, Scopes: k.Scopes, Status: string(k.Status(a.cfg.Clock.Now())),
		APIVersion: k.APIVersion, CreatedBy: k.CreatedBy, Version: k.Version, CreatedAt: Time(k.CreatedAt),
		ExpiresAt: timePtr(k.ExpiresAt), LastUsedAt: timePtr(k.LastUsedAt), RevokedAt: timePtr(k.RevokedAt),
	}
	if k.Project != "" {
		out.ProjectID = &k.Project
	}
	return out
}

type createKeyIn struct {
	Body struct {
		Name      string      `json:"name" required:"true" minlen:"1" maxlen:"100" example:"ci"`
		ProjectID *id.Project `json:"project_id" doc:"Left out: a key of the whole organisation, or of the project that the request is bound to."`
		Scopes    []string    `json:"scopes" required:"true" minitems:"1" maxitems:"64" maxlen:"64" example:"[\"*\"]" doc:"Permissions such as sessions:read, or * for all that you have."`
		ExpiresAt *time.Time  `json:"expires_at"`
	} `body:"json"`
}

func (a *API) createKey(ctx context.Context, tx pgx.Tx, in createKeyIn) (NewAPIKey, error) {
	who := principal.From(ctx)
	ask := tenants.CreateKey{Name: in.Body.Name, Scopes: in.Body.Scopes, ExpiresAt: in.Body.ExpiresAt, Project: who.Project}
	if p := in.Body.ProjectID; p != nil {
		// A project's key must not make itself a key of another project.
		if who.Project != "" && *p != who.Project {
			return NewAPIKey{}, fault.NotFound()
		}
		ask.Project = *p
	}
	return a.makeKey(ctx, tx, ask)
}

func (a *API) makeKey(ctx context.Context, tx pgx.Tx, ask tenants.CreateKey) (NewAPIKey, error) {
	k, secret, err := a.cfg.Domains.Tenants.CreateKeyTx(ctx, tx, principal.From(ctx), ask)
	if err != nil {
		return NewAPIKey{}, err
	}
	return NewAPIKey{APIKey: a.showKey(k), Secret: secret}, nil
}

type listKeysIn struct {
	Paging
	projectFilter
	Statuses []string `query:"statuses[]" enum:"active,expired,revoked" maxitems:"3"`
	Order    string   `query:"order" enum:"asc,desc" default:"desc"`
}

func (a *API) listKeys(c *call, in listKeysIn) (Page[APIKey], error) {
	ctx := c.r.Context()
	project, err := in.project(ctx)
	if err != nil {
		return Page[APIKey]{}, err
	}
	after, err := positionID[id.Key](in.place)
	if err != nil {
		return Page[APIKey]{}, err
	}
	ask := tenants.ListKeys{Project: project, OldestFirst: in.Order == "asc", After: after, Limit: in.place.fetch()}
	for _, s := range in.Statuses {
		ask.Statuses = append(ask.Statuses, tenants.KeyStatus(s))
	}
	list, err := a.cfg.Domains.Tenants.ListKeys(ctx, c.who.Org, ask)
	if err != nil {
		return Page[APIKey]{}, err
	}
	return pageOf(in.place, list, func(k tenants.Key) string { return string(k.ID) }, a.showKey), nil
}

type keyIn struct {
	Key id.Key `path:"key_id"`
}

// seenKey reads a key that the caller may see: a request that is bound to a project sees that project's.
func (a *API) seenKey(ctx context.Context, key id.Key) (tenants.Key, error) {
	who := principal.From(ctx)
	k, err := a.cfg.Domains.Tenants.GetKey(ctx, who.Org, key)
	if err != nil {
		return tenants.Key{}, err
	}
	if who.Project != "" && k.Project != who.Project {
		return tenants.Key{}, fault.NotFound()
	}
	return k, nil
}

func (a *API) getKey(c *call, in keyIn) (APIKey, error) {
	k, err := a.seenKey(c.r.Context(), in.Key)
	if err != nil {
		return APIKey{}, err
	}
	return a.showKey(k), nil
}

type updateKeyIn struct {
	Key     id.Key  `path:"key_id"`
	IfMatch ifMatch `header:"If-Match" doc:"The ETag that the key must have."`
	Body    struct {
		Name      Opt[string]    `json:"name" maxlen:"100"`
		Scopes    Opt[[]string]  `json:"scopes" maxitems:"64"`
		ExpiresAt Opt[time.Time] `json:"expires_at" doc:"null: it does not expire."`
	} `body:"json"`
}

func (a *API) updateKey(ctx context.Context, tx pgx.Tx, in updateKeyIn) (APIKey, error) {
	have, err := a.seenKey(ctx, in.Key)
	if err != nil {
		return APIKey{}, err
	}
	change := tenants.UpdateKey{Name: in.Body.Name.Ptr()}
	if in.IfMatch != "" {
		if !in.IfMatch.allows(have.Version) {
			return APIKey{}, changedMeanwhile()
		}
		change.IfVersion = &have.Version
	}
	if in.Body.Scopes.Set {
		change.Scopes = append([]string{}, in.Body.Scopes.Value...)
	}
	if e := in.Body.ExpiresAt; e.Set {
		change.SetExpiry = true
		if !e.Null {
			change.ExpiresAt = &e.Value
		}
	}
	k, err := a.cfg.Domains.Tenants.UpdateKeyTx(ctx, tx, principal.From(ctx), in.Key, change)
	if err != nil {
		return APIKey{}, err
	}
	return a.showKey(k), nil
}

type rotateKeyIn struct {
	Key  id.Key `path:"key_id"`
	Body struct {
		ExpireOldSeconds *int64     `json:"expire_old_seconds" min:"1" max:"2592000" default:"86400" doc:"How long the old key still works."`
		ExpiresAt        *time.Time `json:"expires_at" doc:"When the new key expires; left out, when the old one would have."`
	} `body:"optional"`
}

func (a *API) rotateKey(ctx context.Context, tx pgx.Tx, in rotateKeyIn) (NewAPIKey, error) {
	old, err := a.seenKey(ctx, in.Key)
	if err != nil {
		return NewAPIKey{}, err
	}
	if old.Status(a.cfg.Clock.Now()) != tenants.KeyActive {
		return NewAPIKey{}, fault.New(fault.Conflict, "state_conflict", "This key is no longer active. Make a new one.")
	}
	grace := 24 * time.Hour
	if s := in.Body.ExpireOldSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	ends := a.cfg.Clock.Now().Add(grace)
	successor := tenants.CreateKey{Name: old.Name, Project: old.Project, Scopes: old.Scopes, ExpiresAt: old.ExpiresAt}
	if in.Body.ExpiresAt != nil {
		successor.ExpiresAt = in.Body.ExpiresAt
	}
	if old.ExpiresAt == nil || ends.Before(*old.ExpiresAt) {
		if _, err := a.cfg.Domains.Tenants.UpdateKeyTx(ctx, tx, principal.From(ctx), in.Key, tenants.UpdateKey{ExpiresAt: &ends, SetExpiry: true}); err != nil {
			return NewAPIKey{}, err
		}
	}
	return a.makeKey(ctx, tx, successor)
}

func (a *API) revokeKey(ctx context.Context, tx pgx.Tx, in keyIn) (APIKey, error) {
	if _, err := a.seenKey(ctx, in.Key); err != nil {
		return APIKey{}, err
	}
	k, err := a.cfg.Domains.Tenants.RevokeKeyTx(ctx, tx, principal.From(ctx).Org, in.Key)
	if err != nil {
		return APIKey{}, err
	}
	return a.showKey(k), nil
}
