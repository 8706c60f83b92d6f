package api

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

func (a *API) identityRoutes() []Route {
	const tag = "Identity"
	return []Route{
		{
			ID: "agents.identity", Method: http.MethodGet, Path: "/v1/agents/{agent_id}/identity", Permission: tenants.AgentsRead, Tag: tag,
			Summary: "Get an agent's identity", Description: "Its DID, and where its public keys are published for everybody.", Endpoint: read(a.getIdentity),
		},
		{
			ID: "agents.keys.list", Method: http.MethodGet, Path: "/v1/agents/{agent_id}/keys", Permission: tenants.AgentsRead, Tag: tag,
			Summary:     "List an agent's keys",
			Description: "What it signs with, newest first, retired ones included: the latest hundred. An agent older than agents' keys has none until it first signs.",
			Endpoint:    read(a.listAgentKeys),
		},
		{
			ID: "agents.keys.rotate", Method: http.MethodPost, Path: "/v1/agents/{agent_id}/keys/rotate", Permission: tenants.AgentsWrite, Tag: tag,
			Summary: "Rotate an agent's key",
			Description: "The successor is published at once and signs a quarter of an hour later; the old key signs until then, and stays published for a day after. " +
				"While a successor waits to sign, nothing changes. The answer lists all keys.",
			Endpoint: write(http.StatusOK, a.rotateAgentKey),
		},
		{
			ID: "agents.keys.retire", Method: http.MethodPost, Path: "/v1/agents/{agent_id}/keys/{kid}/retire", Permission: tenants.AgentsWrite, Tag: tag,
			Summary: "Retire a compromised key",
			Description: "For a key that somebody else may have: it signs nothing more, leaves the published set, and its private half is destroyed, at once and for good. " +
				"If it was the one that signs, another signs from then on. Retiring twice is harmless. The answer lists all keys.",
			Endpoint: write(http.StatusOK, a.retireAgentKey),
		},
		{
			ID: "members.passkeys.list", Method: http.MethodGet, Path: "/v1/members/{member_id}/passkeys", Permission: tenants.MembersRead, Tag: tag,
			Summary:     "List a member's passkeys",
			Description: "Takes a key of the whole organisation. A passkey is the person's own: people enrol, revoke and bar them in the console, where they can confirm it. At most twenty.",
			Endpoint:    read(a.listPasskeys),
		},
	}
}

// Identity is under what name others know an agent.
type Identity struct {
	Type       string   `json:"type" const:"agent_identity"`
	Agent      id.Agent `json:"agent_id"`
	DID        string   `json:"did" example:"did:web:ambit.example.com:agents:agt_01k9yq7m8pf2x4t6v8w0y2a4c6" doc:"In the method did:web."`
	Document   string   `json:"document_url" doc:"The DID document; public."`
	JWKS       string   `json:"jwks_url" doc:"The public keys as a JWK set; public."`
	Controller string   `json:"controller" doc:"The DID of this instance, which keeps the keys."`
}

// AgentKey is a key that an agent signs with. Its private half never leaves the platform.
type AgentKey struct {
	Type        string          `json:"type" const:"agent_key"`
	KID         string          `json:"kid" doc:"The thumbprint of RFC 7638."`
	State       string          `json:"state" enum:"active,retiring,retired" doc:"active: published, and signs from signs_from on. retiring: it has a successor, and is published until retires_at. retired: not published any more."`
	Compromised bool            `json:"compromised" doc:"It was retired because somebody else may have it."`
	JWK         json.RawMessage `json:"jwk" doc:"The public half: kty EC, crv P-256, alg ES256."`
	CreatedBy   string          `json:"created_by"`
	CreatedAt   Time            `json:"created_at"`
	SignsFrom   Time            `json:"signs_from"`
	SignsUntil  *Time           `json:"signs_until" doc:"null while it has no successor."`
	RetiresAt   *Time           `json:"retires_at" doc:"null while it has no successor."`
}

func agentKeyFrom(k identity.AgentKeyInfo) (AgentKey, error) {
	jwk, err := k.JWK.MarshalJSON()
	if err != nil {
		return AgentKey{}, fmt.Errorf("write a public key: %w", err)
	}
	return AgentKey{
		Type: "agent_key", KID: k.KeyID, State: string(k.State), Compromised: k.Compromised, JWK: jwk, CreatedBy: k.CreatedBy,
		CreatedAt: Time(k.CreatedAt), SignsFrom: Time(k.SignsFrom), SignsUntil: timePtr(k.SignsUntil), RetiresAt: timePtr(k.RetiresAt),
	}, nil
}

func agentKeysFrom(keys []identity.AgentKeyInfo, err error) (Page[AgentKey], error) {
	page := Page[AgentKey]{Data: []AgentKey{}}
	if err != nil {
		return page, err
	}
	for _, k := range keys {
		one, err := agentKeyFrom(k)
		if err != nil {
			return page, err
		}
		page.Data = append(page.Data, one)
	}
	return page, nil
}

// Passkey is a member's passkey as the organisation sees it.
type Passkey struct {
	ID         id.Passkey `json:"id"`
	Type       string     `json:"type" const:"passkey"`
	Name       string     `json:"name"`
	BackedUp   bool       `json:"backed_up" doc:"It is copied to the person's other devices by whoever keeps it."`
	Accepted   bool       `json:"accepted" doc:"false when this organisation does not accept it any more."`
	CreatedAt  Time       `json:"created_at"`
	LastUsedAt *Time      `json:"last_used_at"`
}

func (a *API) getIdentity(ctx context.Context, tx pgx.Tx, in agentIn) (Identity, error) {
	if _, err := a.seenAgent(ctx, tx, in.Agent); err != nil {
		return Identity{}, err
	}
	keys, of := a.cfg.Domains.AgentKeys, identity.OfAgent(in.Agent)
	return Identity{Type: "agent_identity", Agent: in.Agent, DID: keys.DID(of), Document: keys.DocumentURL(of), JWKS: keys.JWKSURL(of), Controller: keys.InstanceDID()}, nil
}

func (a *API) listAgentKeys(ctx context.Context, tx pgx.Tx, in agentIn) (Page[AgentKey], error) {
	if _, err := a.seenAgent(ctx, tx, in.Agent); err != nil {
		return Page[AgentKey]{}, err
	}
	return agentKeysFrom(a.cfg.Domains.AgentKeys.List(ctx, tx, principal.From(ctx).Org, identity.OfAgent(in.Agent)))
}

func (a *API) rotateAgentKey(ctx context.Context, tx pgx.Tx, in agentIn) (Page[AgentKey], error) {
	if _, err := a.seenAgent(ctx, tx, in.Agent); err != nil {
		return Page[AgentKey]{}, err
	}
	return agentKeysFrom(a.cfg.Domains.AgentKeys.Rotate(ctx, tx, principal.From(ctx).Org, identity.OfAgent(in.Agent)))
}

type retireKeyIn struct {
	Agent id.Agent `path:"agent_id"`
	KID   string   `path:"kid" pattern:"^[A-Za-z0-9_-]{43}$"`
}

func (a *API) retireAgentKey(ctx context.Context, tx pgx.Tx, in retireKeyIn) (Page[AgentKey], error) {
	if _, err := a.seenAgent(ctx, tx, in.Agent); err != nil {
		return Page[AgentKey]{}, err
	}
	return agentKeysFrom(a.cfg.Domains.AgentKeys.Compromised(ctx, tx, principal.From(ctx).Org, identity.OfAgent(in.Agent), in.KID))
}

func (a *API) listPasskeys(ctx context.Context, tx pgx.Tx, in memberIn) (Page[Passkey], error) {
	if err := wholeOrMissing(ctx); err != nil {
		return Page[Passkey]{}, err
	}
	org := principal.From(ctx).Org
	member, err := a.cfg.Domains.Tenants.GetMemberTx(ctx, tx, org, in.Member)
	if err != nil {
		return Page[Passkey]{}, err
	}
	found, err := a.cfg.Domains.StepUp.PasskeysOfTx(ctx, tx, org, member.UserID)
	page := Page[Passkey]{Data: []Passkey{}}
	for _, k := range found {
		page.Data = append(page.Data, Passkey{
			ID: k.ID, Type: "passkey", Name: k.Name, BackedUp: k.BackedUp, Accepted: !k.Barred, CreatedAt: Time(k.CreatedAt), LastUsedAt: timePtr(k.LastUsedAt),
		})
	}
	return page, err
}
