package identity_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants/identity"
)

const audience = "https://api.example.com"

func TestAnAgentsTokenVerifiesAndEachForgeryIsRefusedByName(t *testing.T) {
	f := newFixture(t)
	k := f.agentKeys(t, f.master)
	org := dbtest.NewOrg(t, f.db)
	a, b := identity.OfAgent(f.agent(t, org)), identity.OfAgent(f.agent(t, org))
	session := id.New[id.Session]()
	out := identity.Outbound{Org: org, Agent: a, Session: session, OnBehalfOf: "usr_ada", Audience: audience, EffectKey: "stp_1"}
	mint := func(out identity.Outbound) (token string) {
		require.NoError(t, f.in(t, org, func(tx pgx.Tx) (err error) {
			token, err = k.MintToken(t.Context(), tx, out)
			return err
		}))
		return token
	}
	sign := func(of identity.Subject, typ string, claims any) (token string) {
		payload, err := json.Marshal(claims)
		require.NoError(t, err)
		require.NoError(t, f.in(t, org, func(tx pgx.Tx) (err error) {
			token, err = k.SignAsAgent(t.Context(), tx, org, of, map[string]any{"typ": typ}, payload)
			return err
		}))
		return token
	}
	token, now := mint(out), f.hands.Now()
	keys, err := k.Published(t.Context(), a)
	require.NoError(t, err)
	verify := func(token string) error {
		_, err := identity.VerifyToken(token, keys, k.DID(a), audience, now)
		return err
	}
	claims, err := identity.VerifyToken(token, keys, k.DID(a), audience, now)
	require.NoError(t, err)
	require.Equal(t, k.DID(identity.OfOrganization(org)), claims.Subject, "for the organisation")
	require.Equal(t, k.DID(a), claims.Actor.Subject, "the agent acts")
	require.Equal(t, "usr_ada", claims.Actor.Actor.Subject, "for the user")
	require.Nil(t, claims.Actor.Actor.Actor)
	require.Equal(t, string(session), claims.Session)
	require.Equal(t, "stp_1", claims.EffectKey)
	again, err := identity.VerifyToken(mint(out), keys, k.DID(a), audience, now)
	require.NoError(t, err)
	require.NotEqual(t, claims.ID, again.ID, "each has a jti of its own")
	out.OnBehalfOf = ""
	alone, err := identity.VerifyToken(mint(out), keys, k.DID(a), audience, now)
	require.NoError(t, err)
	require.Nil(t, alone.Actor.Actor, "what the platform began is for nobody in between")

	_, err = identity.VerifyToken(token, keys, k.DID(a), "https://other.example.com", now)
	require.ErrorIs(t, err, identity.ErrTokenAudience)
	_, err = identity.VerifyToken(token, keys, k.DID(b), audience, now)
	require.ErrorIs(t, err, identity.ErrTokenIssuer)
	_, err = identity.VerifyToken(token, keys, k.DID(a), audience, now.Add(identity.TokenLasts+identity.TokenLeeway+time.Second))
	require.ErrorIs(t, err, identity.ErrTokenExpired)
	_, err = identity.VerifyToken(token, keys, k.DID(a), audience, now.Add(-identity.TokenLeeway-2*time.Second))
	require.ErrorIs(t, err, identity.ErrTokenEarly)
	others, err := identity.VerifyToken(token, jose.JSONWebKeySet{}, k.DID(a), audience, now)
	require.ErrorIs(t, err, identity.ErrTokenKey)
	require.Empty(t, others)

	parts := strings.Split(token, ".")
	flipped := "A"
	if parts[2][0] == 'A' {
		flipped = "B"
	}
	require.ErrorIs(t, verify(parts[0]+"."+parts[1]+"."+flipped+parts[2][1:]), identity.ErrTokenSignature)
	require.ErrorIs(t, verify("x"), identity.ErrTokenForm)
	require.ErrorIs(t, verify(sign(a, "JWT", claims)), identity.ErrTokenForm, "a statement of another sort by the same key")
	// Another agent's key, in this one's name.
	_ = sign(b, identity.TokenType, claims)
	require.ErrorIs(t, verify(sign(b, identity.TokenType, claims)), identity.ErrTokenKey)
	long, nameless, unacted := claims, claims, claims
	long.Expires += 86400
	nameless.ID = ""
	unacted.Actor = nil
	require.ErrorIs(t, verify(sign(a, identity.TokenType, long)), identity.ErrTokenForm, "one that would be good for a day")
	require.ErrorIs(t, verify(sign(a, identity.TokenType, nameless)), identity.ErrTokenForm)
	require.ErrorIs(t, verify(sign(a, identity.TokenType, unacted)), identity.ErrTokenIssuer)

	// Algorithm confusion: the public key as an HMAC's secret, and no signature at all.
	public, err := keys.Keys[0].MarshalJSON()
	require.NoError(t, err)
	payload, err := json.Marshal(claims)
	require.NoError(t, err)
	hs, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: public, KeyID: keys.Keys[0].KeyID}}, (&jose.SignerOptions{}).WithType(identity.TokenType))
	require.NoError(t, err)
	jws, err := hs.Sign(payload)
	require.NoError(t, err)
	confused, err := jws.CompactSerialize()
	require.NoError(t, err)
	require.ErrorIs(t, verify(confused), identity.ErrTokenAlgorithm)
	require.ErrorIs(t, verify("eyJhbGciOiJub25lIn0."+parts[1]+"."), identity.ErrTokenAlgorithm)

	// A retired key's tokens verify no more.
	require.NoError(t, f.in(t, org, func(tx pgx.Tx) error {
		_, err := k.Compromised(t.Context(), tx, org, a, keys.Keys[0].KeyID)
		return err
	}))
	keys, err = k.Published(t.Context(), a)
	require.NoError(t, err)
	require.ErrorIs(t, verify(token), identity.ErrTokenKey)
}

func TestATokenNamesAllThatItIsFor(t *testing.T) {
	f := newFixture(t)
	k := f.agentKeys(t, f.master)
	org, other := dbtest.NewOrg(t, f.db), dbtest.NewOrg(t, f.db)
	whole := identity.Outbound{Org: org, Agent: identity.OfAgent(f.agent(t, org)), Session: id.New[id.Session](), Audience: audience, EffectKey: "stp_1"}
	for name, change := range map[string]func(*identity.Outbound){
		"organisation": func(o *identity.Outbound) { o.Org = "" },
		"agent":        func(o *identity.Outbound) { o.Agent = "" },
		"session":      func(o *identity.Outbound) { o.Session = "" },
		"audience":     func(o *identity.Outbound) { o.Audience = "" },
		"effect":       func(o *identity.Outbound) { o.EffectKey = "" },
	} {
		out := whole
		change(&out)
		require.Error(t, f.in(t, org, func(tx pgx.Tx) error {
			_, err := k.MintToken(t.Context(), tx, out)
			return err
		}), name)
	}
	theirs := whole
	theirs.Org = other
	err := f.in(t, other, func(tx pgx.Tx) error {
		_, err := k.MintToken(t.Context(), tx, theirs)
		return err
	})
	require.True(t, fault.IsCode(err, "not_found"), "another organisation's agent: %v", err)
}

func FuzzVerifyToken(f *testing.F) {
	f.Add("eyJhbGciOiJFUzI1NiJ9.e30.AAAA")
	f.Add("..")
	f.Fuzz(func(t *testing.T, token string) {
		_, err := identity.VerifyToken(token, jose.JSONWebKeySet{}, "did:web:x", audience, time.Unix(0, 0))
		require.Error(t, err)
	})
}

func FuzzProof(f *testing.F) {
	f.Add(`{"method":"passkey","challenge":"AA","statement":"eyJhbGciOiJFZERTQSJ9.e30.AAAA"}`)
	f.Fuzz(func(t *testing.T, text string) {
		var p identity.Proof
		if json.Unmarshal([]byte(text), &p) != nil {
			return
		}
		require.Error(t, identity.VerifyProof(p, [32]byte{}, console, rpID, jose.JSONWebKeySet{}))
	})
}
