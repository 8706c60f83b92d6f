package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

func (a *API) mandateRoutes() []Route {
	const tag = "Mandates"
	return []Route{
		{
			ID: "mandates.create", Method: http.MethodPost, Path: "/v1/mandates", Permission: tenants.MandatesWrite, Tag: tag,
			Summary: "Draft a mandate",
			Description: "Nothing may be spent under it until a person signs it, on the page at sign_url: there it is shown as it will be signed, and confirmed with a passkey, or with the password up to the amount " +
				"that the organisation sets. No key and no agent can sign.",
			Errors: []string{slugMoney, "state_conflict"}, Endpoint: write(http.StatusCreated, a.createMandate),
		},
		{
			ID: "mandates.list", Method: http.MethodGet, Path: "/v1/mandates", Permission: tenants.MandatesRead, Tag: tag,
			Summary: "List mandates", Description: "Newest first. A project's key sees those of its project.", Errors: []string{slugPage}, Endpoint: read(a.listMandates),
		},
		{
			ID: "mandates.get", Method: http.MethodGet, Path: "/v1/mandates/{mandate_id}", Permission: tenants.MandatesRead, Tag: tag,
			Summary: "Get a mandate", Description: "With what is granted, held, spent and free.", Endpoint: read(a.getMandate),
		},
		{
			ID: "mandates.sub_mandates", Method: http.MethodPost, Path: "/v1/mandates/{mandate_id}/sub_mandates", Permission: tenants.MandatesWrite, Tag: tag,
			Summary: "Hand a part of a mandate on",
			Description: "The sub-mandate is signed by the key of the parent's agent and is in force at once. It is no wider than its parent on any axis; an axis that is left out is the parent's. " +
				"What is spent under it is spent under every mandate above it, too. A field that would be wider is named with the code wider_than_parent.",
			Errors: []string{slugMoney, "state_conflict"}, Endpoint: write(http.StatusCreated, a.narrowMandate),
		},
		{
			ID: "mandates.revoke", Method: http.MethodPost, Path: "/v1/mandates/{mandate_id}/revoke", Permission: tenants.MandatesWrite, Tag: tag,
			Summary: "Revoke a mandate",
			Description: "Ends it and all below it: from the commit on nothing more is admitted under any of them. What works under them is stopped by an order of its own, whose receipts are at /v1/stops/{stop_id}. " +
				"A draft is thrown away. Revoking again changes nothing. Webhooks are told by mandate.revoked, once for each that fell.",
			Endpoint: write(http.StatusOK, a.revokeMandate),
		},
		{
			ID: "mandates.export", Method: http.MethodGet, Path: "/v1/mandates/{mandate_id}/export", Permission: tenants.MandatesRead, Tag: tag,
			Summary: "Export a mandate",
			Description: "A file that anybody checks with the public keys alone (ambit mandate verify): the chain of signed mandates, what narrows this one, a receipt of each effect that was spent or refused under it with the proof " +
				"that it is in a batch whose root the instance signed, and what each payee was paid. Receipts that are not made yet are made now.",
			Errors: []string{"state_conflict"}, Endpoint: read(a.exportMandate),
		},
		{
			ID: "mandates.import", Method: http.MethodPost, Path: "/v1/mandates/import", Permission: tenants.MandatesWrite, Tag: tag,
			Summary: "Draft a mandate from one of elsewhere",
			Description: "Checks a chain of open Payment mandates of AP2 v0.2 with the issuer's public keys, and drafts a mandate that allows what its last one does, for an agent of this organisation. " +
				"No authority passes over by it: a person here signs the draft, or does not. A chain that says something which is not enforced here is refused.",
			Errors: []string{slugMoney, "state_conflict"}, Endpoint: write(http.StatusCreated, a.importMandate),
		},
		{
			ID: "mandate_settings.get", Method: http.MethodGet, Path: "/v1/mandate_settings", Permission: tenants.MandatesRead, Tag: tag,
			Summary: "Get how mandates are wanted", Errors: []string{slugDenied}, Endpoint: read(a.getMandateSettings),
		},
		{
			ID: "mandate_settings.set", Method: http.MethodPut, Path: "/v1/mandate_settings", Permission: tenants.OrganizationWrite, Tag: tag,
			Summary:     "Set how mandates are wanted",
			Description: "Takes a key of the whole organisation. Binds from the commit on, running sessions too: one that must run under a mandate and does not is denied its next effect.",
			Errors:      []string{slugDenied, slugMoney}, Endpoint: write(http.StatusOK, a.setMandateSettings),
		},
	}
}

// Recurring is an amount that can be spent anew in each period.
type Recurring struct {
	Every  string      `json:"every" required:"true" enum:"day,week,month"`
	Amount money.Nanos `json:"amount" required:"true"`
}

// grantBody is what a mandate allows.
type grantBody struct {
	Total     *money.Nanos `json:"total" doc:"The most that can be spent in all. A mandate has this or recurring."`
	Recurring *Recurring   `json:"recurring" doc:"The most that can be spent in each period, which begins in the organisation's zone."`
	PerAction *money.Nanos `json:"per_action" doc:"The most that one effect may cost."`
	Tools     *[]string    `json:"tools" maxitems:"50" doc:"The tools that may be used: names, or beginnings of names and *. Left out: all that the agent has. An empty list: none."`
	Payees    *[]string    `json:"payees" maxitems:"50" example:"[\"ambit\",\"provider:openai\",\"host:api.example.com\"]" doc:"Who may be paid: ambit (sandbox time and tools of the platform), provider:, host:, agent: or organization: and a name, or its beginning and *. Left out: everybody."`
	From      *Time        `json:"from" doc:"Left out: at once."`
	Sessions  *int64       `json:"sessions" min:"1" max:"1000000" doc:"How many sessions may be begun under it. Left out: any number."`
}

func (g grantBody) grant() mandate.Grant {
	out := mandate.Grant{Total: g.Total, PerAction: g.PerAction, Sessions: g.Sessions}
	if g.Recurring != nil {
		out.Recurring = &mandate.Recurring{Every: g.Recurring.Every, Amount: g.Recurring.Amount}
	}
	if g.Tools != nil {
		out.Tools = append([]string{}, *g.Tools...)
	}
	if g.Payees != nil {
		out.Payees = append([]string{}, *g.Payees...)
	}
	if g.From != nil {
		at := time.Time(*g.From)
		out.From = &at
	}
	return out
}

// MandateMoney is one axis of a mandate's money.
type MandateMoney struct {
	Granted  money.Nanos `json:"granted"`
	Held     money.Nanos `json:"held"`
	Spent    money.Nanos `json:"spent"`
	Free     money.Nanos `json:"free"`
	Every    *string     `json:"every" enum:"day,week,month" doc:"null for the total."`
	ResetsAt *Time       `json:"resets_at" doc:"null for the total."`
}

// Mandate is what a person has signed that an agent may spend.
type Mandate struct {
	ID           id.Mandate    `json:"id"`
	Type         string        `json:"type" const:"mandate"`
	ProjectID    id.Project    `json:"project_id"`
	ParentID     *id.Mandate   `json:"parent_id" doc:"The mandate that it narrows."`
	Path         []id.Mandate  `json:"path" doc:"All above it and itself, the root first."`
	AgentID      id.Agent      `json:"agent_id" doc:"Who may spend under it."`
	Status       string        `json:"status" enum:"draft,active,not_yet_valid,exhausted,expired,revoked"`
	Intent       string        `json:"intent" doc:"What it is for, in plain words."`
	Sentence     string        `json:"sentence" doc:"All that it allows, in plain words."`
	Total        *money.Nanos  `json:"total"`
	Recurring    *Recurring    `json:"recurring"`
	PerAction    *money.Nanos  `json:"per_action"`
	Tools        *[]string     `json:"tools" doc:"null: all that the agent has."`
	Payees       *[]string     `json:"payees" doc:"null: everybody."`
	From         *Time         `json:"from"`
	ExpiresAt    Time          `json:"expires_at"`
	Depth        int           `json:"depth" doc:"How many levels of sub-mandates there may be below it."`
	Sessions     *int64        `json:"sessions"`
	SessionsUsed int64         `json:"sessions_used" doc:"Counted where sessions is set."`
	OnlyAP2      bool          `json:"only_ap2" doc:"Whether it is written in AP2's own constraints alone, so that a strict reader of AP2 accepts it."`
	Digest       string        `json:"digest" doc:"SHA-256 of what is signed, base64url: the passkey's challenge."`
	Money        *MandateMoney `json:"money" doc:"Of the total; null where there is none, and for a draft."`
	MoneyPeriod  *MandateMoney `json:"money_of_period" doc:"Of the period under way; null where nothing recurs, and for a draft."`
	SignedBy     *id.User      `json:"signed_by"`
	SignedAt     *Time         `json:"signed_at"`
	RevokedAt    *Time         `json:"revoked_at"`
	RevokeReason string        `json:"revoke_reason"`
	JWS          string        `json:"jws" doc:"The signed token alone; the export has the whole chain. Empty for a draft."`
	SignURL      *string       `json:"sign_url" doc:"Where a person signs it; null once it is signed."`
	CreatedBy    Actor         `json:"created_by"`
	CreatedAt    Time          `json:"created_at"`
	UpdatedAt    Time          `json:"updated_at"`
	Version      int64         `json:"version"`
}

func (m Mandate) entityTag() string { return quoteTag(m.Version) }
func (m Mandate) location() string  { return "/v1/mandates/" + string(m.ID) }

func listed(names []string) *[]string {
	if names == nil {
		return nil
	}
	return &names
}

func moneyOf(b *billing.Budget) *MandateMoney {
	if b == nil {
		return nil
	}
	out := &MandateMoney{Granted: b.Limit, Held: b.Held, Spent: b.Spent, Free: b.Available()}
	if b.Period != "total" {
		every := b.Period
		out.Every, out.ResetsAt = &every, timePtr(&b.ResetsAt)
	}
	return out
}

func (a *API) showMandates(ctx context.Context, tx pgx.Tx, list ...register.Mandate) ([]Mandate, error) {
	spent, err := a.cfg.Domains.Mandates.Spent(ctx, tx, principal.From(ctx).Org, list...)
	if err != nil {
		return nil, err
	}
	out := make([]Mandate, len(list))
	for i, m := range list {
		g, sum := m.Grant, spent[m.ID]
		out[i] = Mandate{
			ID: m.ID, Type: "mandate", ProjectID: m.Project, Path: m.Path, AgentID: m.Agent, Status: m.Status(a.cfg.Clock.Now()), Intent: g.Intent, Sentence: g.Sentence(string(m.Agent)),
			Total: g.Total, PerAction: g.PerAction, Tools: listed(g.Tools), Payees: listed(g.Payees), From: timePtr(g.From), ExpiresAt: Time(g.Until), Depth: g.Depth, Sessions: g.Sessions, SessionsUsed: m.SessionsUsed,
			OnlyAP2: g.OnlyAP2(), Digest: register.Challenge(m.Digest), Money: moneyOf(sum.Total), MoneyPeriod: moneyOf(sum.Recurring), SignedAt: timePtr(m.SignedAt), RevokedAt: timePtr(m.RevokedAt),
			RevokeReason: m.RevokeReason, JWS: m.Token, CreatedBy: Actor{Type: string(m.CreatedBy.Kind), ID: m.CreatedBy.ID}, CreatedAt: Time(m.CreatedAt), UpdatedAt: Time(m.UpdatedAt), Version: m.Version,
		}
		if g.Recurring != nil {
			out[i].Recurring = &Recurring{Every: g.Recurring.Every, Amount: g.Recurring.Amount}
		}
		if m.Parent != "" {
			out[i].ParentID = &m.Parent
		}
		if m.State == mandate.Draft {
			url := a.cfg.BaseURL + "/x/" + string(m.ID)
			out[i].SignURL = &url
		} else {
			out[i].SignedBy = &m.User
		}
		if out[i].Status == mandate.Active && sum.Total != nil && sum.Total.Spent >= sum.Total.Limit {
			out[i].Status = register.Exhausted
		}
	}
	return out, nil
}

func (a *API) showMandate(ctx context.Context, tx pgx.Tx, m register.Mandate) (Mandate, error) {
	out, err := a.showMandates(ctx, tx, m)
	if err != nil {
		return Mandate{}, err
	}
	return out[0], nil
}

type createMandateIn struct {
	Body struct {
		AgentID   id.Agent `json:"agent_id" required:"true" doc:"Who may spend under it: a stored agent."`
		Intent    string   `json:"intent" required:"true" minlen:"1" maxlen:"500" example:"research on batteries"`
		ExpiresAt Time     `json:"expires_at" required:"true"`
		Depth     int64    `json:"depth" min:"0" max:"8" doc:"How many levels of sub-mandates there may be below it."`
		grantBody
	} `body:"json"`
}

func (a *API) createMandate(ctx context.Context, tx pgx.Tx, in createMandateIn) (Mandate, error) {
	who := principal.From(ctx)
	g := in.Body.grant()
	g.Intent, g.Until, g.Depth = in.Body.Intent, time.Time(in.Body.ExpiresAt), int(in.Body.Depth)
	m, err := a.cfg.Domains.Mandates.Draft(ctx, tx, who.Org, register.DraftInput{Agent: in.Body.AgentID, Grant: g, Project: who.Project})
	if err != nil {
		return Mandate{}, err
	}
	return a.showMandate(ctx, tx, m)
}

type importMandateIn struct {
	Body struct {
		AgentID id.Agent `json:"agent_id" required:"true" doc:"Who may spend under what is drafted."`
		Chain   string   `json:"chain" required:"true" minlen:"1" maxlen:"1000000" doc:"The chain from its root on, as an export has it."`
		Keys    string   `json:"keys" required:"true" minlen:"1" maxlen:"100000" doc:"The issuer's public keys: a JWK set (RFC 7517), as text."`
	} `body:"json"`
}

func (a *API) importMandate(ctx context.Context, tx pgx.Tx, in importMandateIn) (Mandate, error) {
	var keys jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(in.Body.Keys), &keys); err != nil || len(keys.Keys) == 0 {
		return Mandate{}, fault.InvalidField("/keys", "invalid_value", "The issuer's keys are a JWK set.")
	}
	p, err := mandate.VerifyWith(in.Body.Chain, keys, a.cfg.Clock.Now())
	if err != nil {
		return Mandate{}, fault.InvalidField("/chain", "invalid_value", err.Error())
	}
	who, grant := principal.From(ctx), p.Leaf().Grant
	if grant.Intent == "" {
		grant.Intent = "imported" // AP2 has no place for words
	}
	m, err := a.cfg.Domains.Mandates.Draft(ctx, tx, who.Org, register.DraftInput{Agent: in.Body.AgentID, Grant: grant, Project: who.Project})
	if err != nil {
		return Mandate{}, err
	}
	return a.showMandate(ctx, tx, m)
}

type listMandatesIn struct {
	Paging
	AgentID  id.Agent   `query:"agent_id"`
	ParentID id.Mandate `query:"parent_id" doc:"Those that narrow this one."`
	State    string     `query:"state" enum:"draft,active,revoked" doc:"As it is kept: one that has ended by itself is active here, and expired in its status."`
}

func (a *API) listMandates(ctx context.Context, tx pgx.Tx, in listMandatesIn) (Page[Mandate], error) {
	var none Page[Mandate]
	after, err := positionID[id.Mandate](in.place)
	if err != nil {
		return none, err
	}
	who := principal.From(ctx)
	list, err := a.cfg.Domains.Mandates.List(ctx, tx, who.Org, register.Filter{
		Project: who.Project, Agent: in.AgentID, Parent: in.ParentID, State: in.State, After: after, Limit: in.place.fetch(),
	})
	if err != nil {
		return none, err
	}
	page := pageOf(in.place, list, func(m register.Mandate) string { return string(m.ID) }, func(m register.Mandate) register.Mandate { return m })
	out := Page[Mandate]{NextPage: page.NextPage}
	out.Data, err = a.showMandates(ctx, tx, page.Data...)
	return out, err
}

type mandateIn struct {
	Mandate id.Mandate `path:"mandate_id"`
}

func (a *API) seenMandate(ctx context.Context, tx pgx.Tx, of id.Mandate) (register.Mandate, error) {
	who := principal.From(ctx)
	m, err := a.cfg.Domains.Mandates.Get(ctx, tx, who.Org, of)
	if err == nil && who.Project != "" && m.Project != who.Project {
		return register.Mandate{}, fault.NotFound()
	}
	return m, err
}

func (a *API) getMandate(ctx context.Context, tx pgx.Tx, in mandateIn) (Mandate, error) {
	m, err := a.seenMandate(ctx, tx, in.Mandate)
	if err != nil {
		return Mandate{}, err
	}
	return a.showMandate(ctx, tx, m)
}

type narrowMandateIn struct {
	Mandate id.Mandate `path:"mandate_id"`
	Body    struct {
		AgentID   id.Agent `json:"agent_id" required:"true" doc:"Who may spend under the sub-mandate; it may be the parent's agent."`
		Intent    string   `json:"intent" maxlen:"500" doc:"Left out: the parent's."`
		ExpiresAt *Time    `json:"expires_at" doc:"Left out: with the parent."`
		Depth     *int64   `json:"depth" min:"0" max:"8" doc:"Left out: one less than the parent's."`
		grantBody
	} `body:"json"`
}

func (a *API) narrowMandate(ctx context.Context, tx pgx.Tx, in narrowMandateIn) (Mandate, error) {
	if _, err := a.seenMandate(ctx, tx, in.Mandate); err != nil {
		return Mandate{}, err
	}
	g := in.Body.grant()
	g.Intent, g.Depth = in.Body.Intent, -1
	if in.Body.ExpiresAt != nil {
		g.Until = time.Time(*in.Body.ExpiresAt)
	}
	if in.Body.Depth != nil {
		g.Depth = int(*in.Body.Depth)
	}
	who := principal.From(ctx)
	m, err := a.cfg.Domains.Mandates.Narrow(ctx, tx, who.Org, register.NarrowInput{Parent: in.Mandate, Agent: in.Body.AgentID, Grant: g, Project: who.Project})
	if err != nil {
		return Mandate{}, err
	}
	return a.showMandate(ctx, tx, m)
}

type revokeMandateIn struct {
	Mandate id.Mandate `path:"mandate_id"`
	Body    struct {
		Reason string `json:"reason" maxlen:"500" doc:"Stands on the receipts of what is stopped."`
	} `body:"optional"`
}

// RevokedMandates is what a revocation has done.
type RevokedMandates struct {
	Type   string       `json:"type" const:"mandate_revoked"`
	ID     id.Mandate   `json:"id"`
	Fallen []id.Mandate `json:"fallen" doc:"The mandates that fell, itself first; none when it was revoked before."`
	StopID *id.Stop     `json:"stop_id" doc:"The order that stops what works under them; null for a draft."`
}

func (a *API) revokeMandate(ctx context.Context, tx pgx.Tx, in revokeMandateIn) (RevokedMandates, error) {
	if _, err := a.seenMandate(ctx, tx, in.Mandate); err != nil {
		return RevokedMandates{}, err
	}
	done, err := a.cfg.Domains.Sessions.RevokeMandate(ctx, tx, principal.From(ctx).Org, in.Mandate, in.Body.Reason)
	if err != nil {
		return RevokedMandates{}, err
	}
	return revokedFrom(in.Mandate, done), nil
}

func revokedFrom(of id.Mandate, done scheduler.RevokedMandate) RevokedMandates {
	out := RevokedMandates{Type: "mandate_revoked", ID: of, Fallen: []id.Mandate{}}
	for _, f := range done.Fallen {
		out.Fallen = append(out.Fallen, f.ID)
	}
	if done.Stop != nil {
		out.StopID = &done.Stop.ID
	}
	return out
}

// MandateFile is a mandate with what was spent under it. It is signed in its parts: amounts in it are integer nano-dollars and cents.
type MandateFile mandate.File

func (a *API) exportMandate(ctx context.Context, tx pgx.Tx, in mandateIn) (MandateFile, error) {
	m, err := a.seenMandate(ctx, tx, in.Mandate)
	if err != nil {
		return MandateFile{}, err
	}
	f, err := a.cfg.Domains.Mandates.Export(ctx, tx, m.Org, m.ID, a.cfg.BaseURL)
	return MandateFile(f), err
}

// MandateSettings is how an organisation wants its mandates.
type MandateSettings struct {
	Type         string      `json:"type" const:"mandate_settings"`
	PasskeyAbove money.Nanos `json:"passkey_above" doc:"Above this amount, in all or in a period, a mandate is signed with a passkey."`
	RequiredOf   []string    `json:"required_of" doc:"Who must run under a mandate: ids of agents, projects and API keys, or * for all."`
}

func (a *API) getMandateSettings(ctx context.Context, tx pgx.Tx, _ struct{}) (MandateSettings, error) {
	s, err := a.cfg.Domains.Mandates.Settings(ctx, tx, principal.From(ctx).Org)
	return MandateSettings{Type: "mandate_settings", PasskeyAbove: s.PasskeyAbove, RequiredOf: s.RequiredOf}, err
}

type setMandateSettingsIn struct {
	Body struct {
		PasskeyAbove money.Nanos `json:"passkey_above" required:"true"`
		RequiredOf   []string    `json:"required_of" required:"true" maxitems:"200"`
	} `body:"json"`
}

func (a *API) setMandateSettings(ctx context.Context, tx pgx.Tx, in setMandateSettingsIn) (MandateSettings, error) {
	if err := wholeOrganization(ctx); err != nil {
		return MandateSettings{}, err
	}
	s, err := a.cfg.Domains.Mandates.SetSettings(ctx, tx, principal.From(ctx).Org, register.Settings{PasskeyAbove: in.Body.PasskeyAbove, RequiredOf: in.Body.RequiredOf})
	if err != nil {
		return MandateSettings{}, err
	}
	return MandateSettings{Type: "mandate_settings", PasskeyAbove: s.PasskeyAbove, RequiredOf: s.RequiredOf}, nil
}
