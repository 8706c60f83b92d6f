package api

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func (a *API) organizationRoutes() []Route {
	const tag = "Organisation"
	return []Route{
		{
			ID: "me", Method: http.MethodGet, Path: "/v1/me", Permission: anyKey, Tag: tag,
			Summary: "Who is asking", Description: "The key of this request, its organisation and its project. Any key may ask.", Endpoint: plain(a.me),
		},
		{
			ID: "organization.get", Method: http.MethodGet, Path: "/v1/organization", Permission: tenants.OrganizationRead, Tag: tag,
			Summary: "Get the organisation", Description: "With its balance, to the nano-dollar.", Endpoint: plain(a.getOrganization),
		},
		{
			ID: "organization.update", Method: http.MethodPost, Path: "/v1/organization", Permission: tenants.OrganizationWrite, Tag: tag,
			Summary: "Change the organisation", Description: "Its name, and the zone in which its days, weeks and months begin. What is left out stays. With another zone the periods of budgets begin at other moments, at once; what was spent and is held in them counts on.",
			Errors: []string{slugDenied, "precondition_failed", "unknown_time_zone"}, Endpoint: write(http.StatusOK, a.updateOrganization),
		},
	}
}

// Organization is the organisation of the key that asks.
type Organization struct {
	ID        id.Org   `json:"id"`
	Type      string   `json:"type" const:"organization"`
	Name      string   `json:"name"`
	Slug      string   `json:"slug" doc:"Stands for it in the console's URLs."`
	TimeZone  string   `json:"time_zone" example:"Europe/Berlin" doc:"By its name in the IANA database."`
	Balance   *Balance `json:"balance" doc:"null for a key without ledger:read."`
	Version   int64    `json:"version"`
	CreatedAt Time     `json:"created_at"`
	UpdatedAt Time     `json:"updated_at"`
}

func (o Organization) entityTag() string { return quoteTag(o.Version) }

// Balance is the organisation's money: what is free, and what holds have reserved.
type Balance struct {
	Available money.Nanos `json:"available"`
	Held      money.Nanos `json:"held"`
}

func (a *API) showOrganization(c context.Context, tx pgx.Tx, o tenants.Organization) (Organization, error) {
	out := Organization{
		ID: o.ID, Type: "organization", Name: o.Name, Slug: o.Slug, TimeZone: o.TimeZone, Version: o.Version,
		CreatedAt: Time(o.CreatedAt), UpdatedAt: Time(o.UpdatedAt),
	}
	if !tenants.Allowed(principal.From(c), tenants.LedgerRead) {
		return out, nil
	}
	b, err := billing.ReadBalances(c, tx, o.ID)
	if err != nil {
		return Organization{}, err
	}
	out.Balance = &Balance{Available: b.Available, Held: b.Held}
	return out, nil
}

func (a *API) getOrganization(c *call, _ struct{}) (out Organization, err error) {
	o, err := a.cfg.Domains.Tenants.GetOrganization(c.r.Context(), c.who.Org)
	if err != nil {
		return Organization{}, err
	}
	err = c.inTx(func(ctx context.Context, tx pgx.Tx) error {
		out, err = a.showOrganization(ctx, tx, o)
		return err
	})
	return out, err
}

type updateOrganizationIn struct {
	IfMatch ifMatch `header:"If-Match" doc:"The ETag that the organisation must have."`
	Body    struct {
		Name     Opt[string] `json:"name" minlen:"1" maxlen:"100"`
		TimeZone Opt[string] `json:"time_zone" maxlen:"64" example:"Europe/Berlin" doc:"A name of the IANA database."`
	} `body:"json"`
}

func (a *API) updateOrganization(ctx context.Context, tx pgx.Tx, in updateOrganizationIn) (Organization, error) {
	if err := wholeOrganization(ctx); err != nil {
		return Organization{}, err
	}
	who := principal.From(ctx)
	change := tenants.UpdateOrganization{Name: in.Body.Name.Ptr(), TimeZone: in.Body.TimeZone.Ptr()}
	if in.IfMatch != "" {
		have, err := a.cfg.Domains.Tenants.GetOrganization(ctx, who.Org)
		if err != nil {
			return Organization{}, err
		}
		if !in.IfMatch.allows(have.Version) {
			return Organization{}, changedMeanwhile()
		}
		change.IfVersion = &have.Version
	}
	o, err := a.cfg.Domains.Tenants.UpdateOrganizationTx(ctx, tx, who.Org, change)
	if err != nil {
		return Organization{}, err
	}
	return a.showOrganization(ctx, tx, o)
}

// Me is who is asking.
type Me struct {
	Type           string      `json:"type" const:"me"`
	Key            APIKey      `json:"api_key"`
	OrganizationID id.Org      `json:"organization_id"`
	Organization   string      `json:"organization_name"`
	ProjectID      *id.Project `json:"project_id" doc:"The project that this request is bound to."`
	APIVersion     string      `json:"api_version"`
}

func (a *API) me(c *call, _ struct{}) (Me, error) {
	ctx := c.r.Context()
	keyID, err := id.Parse[id.Key](c.who.ID)
	if err != nil {
		return Me{}, fault.NotFound()
	}
	k, err := a.cfg.Domains.Tenants.GetKey(ctx, c.who.Org, keyID)
	if err != nil {
		return Me{}, err
	}
	o, err := a.cfg.Domains.Tenants.GetOrganization(ctx, c.who.Org)
	if err != nil {
		return Me{}, err
	}
	out := Me{Type: "me", Key: a.showKey(k), OrganizationID: o.ID, Organization: o.Name, APIVersion: Version}
	if c.who.Project != "" {
		out.ProjectID = &c.who.Project
	}
	return out, nil
}
