package identity

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
)

const (
	// TokenType is the typ of an agent's token for an outbound call.
	TokenType = "ambit-agent+jwt"
	// TokenLasts is how long a token is good: for one call, and for clocks that differ a little.
	TokenLasts = 3 * time.Minute
	// TokenLeeway is how far a verifier's clock may be behind or ahead.
	TokenLeeway = time.Minute
)

// Outbound is what a token says. A call's token is for one audience and names everybody in the chain: the agent acts for a person or key,
// who acts for the organisation.
type Outbound struct {
	Org     id.Org
	Agent   Subject
	Session id.Session
	// OnBehalfOf is the user's or key's id; empty where the platform itself began the session, as by a schedule.
	OnBehalfOf string
	// Audience is the origin that is called, such as "https://api.example.com".
	Audience string
	// EffectKey is the call's; it is also sent as Idempotency-Key.
	EffectKey string
}

// Actor is a link of the chain of RFC 8693, section 4.1: the outermost is who acts now, those inside it are on whose behalf.
type Actor struct {
	Subject string `json:"sub"`
	Actor   *Actor `json:"act,omitempty"`
}

// TokenClaims are those of an outbound token.
type TokenClaims struct {
	// Issuer is the agent's DID, under which its keys are published.
	Issuer string `json:"iss"`
	// Subject is the organisation's DID: on whose behalf all of it happens.
	Subject   string `json:"sub"`
	Audience  string `json:"aud"`
	IssuedAt  int64  `json:"iat"`
	NotBefore int64  `json:"nbf"`
	Expires   int64  `json:"exp"`
	ID        string `json:"jti"`
	Actor     *Actor `json:"act"`
	Session   string `json:"session_id"`
	EffectKey string `json:"effect_key"`
}

// MintToken signs a token with the agent's present key. It is called only where a call's admission was consumed, which a test of the
// architecture holds; the token says what that admission was for and nothing that the agent chose.
func (k *AgentKeys) MintToken(ctx context.Context, tx pgx.Tx, out Outbound) (string, error) {
	if out.Org == "" || out.Session == "" || out.Audience == "" || out.EffectKey == "" || folder(out.Agent) == "" {
		return "", errors.New("a token names an organisation, an agent, a session, an audience and an effect")
	}
	now := k.deps.Clock.Now()
	acting := &Actor{Subject: k.DID(out.Agent)}
	if out.OnBehalfOf != "" {
		acting.Actor = &Actor{Subject: out.OnBehalfOf}
	}
	claims := TokenClaims{
		Issuer: k.DID(out.Agent), Subject: k.DID(OfOrganization(out.Org)), Audience: out.Audience,
		IssuedAt: now.Unix(), NotBefore: now.Unix(), Expires: now.Add(TokenLasts).Unix(), ID: string(id.New[id.Token]()),
		Actor: acting, Session: string(out.Session), EffectKey: out.EffectKey,
	}
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("write an agent's token: %w", err)
	}
	return k.SignAsAgent(ctx, tx, out.Org, out.Agent, map[string]any{"typ": TokenType}, payload)
}

// The ways in which a token fails; VerifyToken wraps one of them.
var (
	ErrTokenForm      = errors.New("this is no agent's token")
	ErrTokenAlgorithm = errors.New("the token's algorithm is not ES256")
	ErrTokenKey       = errors.New("the token's key is not published")
	ErrTokenSignature = errors.New("the token's signature does not fit")
	ErrTokenIssuer    = errors.New("the token is another agent's")
	ErrTokenAudience  = errors.New("the token is for somebody else")
	ErrTokenExpired   = errors.New("the token has expired")
	ErrTokenEarly     = errors.New("the token is not valid yet")
)

// VerifyToken is how whoever is called checks a token: signed by a key of this set (the agent's jwks.json), issued by that agent, for this
// audience, at this time. A service that acts on a call keeps the jti until exp, and refuses one that it has seen.
func VerifyToken(token string, keys jose.JSONWebKeySet, issuer, audience string, now time.Time) (TokenClaims, error) {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	var unexpected *jose.ErrUnexpectedSignatureAlgorithm
	switch {
	case errors.As(err, &unexpected):
		return TokenClaims{}, fmt.Errorf("%w: %w", ErrTokenAlgorithm, err)
	case err != nil:
		return TokenClaims{}, fmt.Errorf("%w: %w", ErrTokenForm, err)
	}
	header := jws.Signatures[0].Protected
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); typ != TokenType {
		return TokenClaims{}, fmt.Errorf("%w: its typ is %q", ErrTokenForm, typ)
	}
	found := keys.Key(header.KeyID)
	if header.KeyID == "" || len(found) != 1 {
		return TokenClaims{}, ErrTokenKey
	}
	payload, err := jws.Verify(found[0])
	if err != nil {
		return TokenClaims{}, fmt.Errorf("%w: %w", ErrTokenSignature, err)
	}
	var c TokenClaims
	if err := json.Unmarshal(payload, &c); err != nil {
		return TokenClaims{}, fmt.Errorf("%w: %w", ErrTokenForm, err)
	}
	switch {
	case c.Issuer != issuer || c.Actor == nil || c.Actor.Subject != issuer:
		return TokenClaims{}, ErrTokenIssuer
	case c.Audience != audience:
		return TokenClaims{}, ErrTokenAudience
	case c.ID == "" || c.Expires <= c.IssuedAt || time.Duration(c.Expires-c.IssuedAt)*time.Second > 10*time.Minute:
		return TokenClaims{}, fmt.Errorf("%w: its times or its jti", ErrTokenForm)
	case now.Add(-TokenLeeway).Unix() >= c.Expires:
		return TokenClaims{}, ErrTokenExpired
	case now.Add(TokenLeeway).Unix() < c.NotBefore:
		return TokenClaims{}, ErrTokenEarly
	}
	return c, nil
}
