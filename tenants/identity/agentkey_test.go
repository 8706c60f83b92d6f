package identity_test

import (
	"context"
	"crypto/ecdsa"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/tenants/identity"
)

const public = "https://ambit.example:8443/at"

func (f *fixture) agentKeys(t *testing.T, master string) *identity.AgentKeys {
	t.Helper()
	sealer, err := seal.Open(master, "")
	require.NoError(t, err)
	k, err := identity.NewAgentKeys(f.db, identity.Deps{Clock: f.hands, Logger: slog.New(slog.DiscardHandler), Sealer: sealer}, public)
	require.NoError(t, err)
	return k
}

// agent makes an agent's row, as the owner of the database.
func (f *fixture) agent(t *testing.T, org id.Org) id.Agent {
	t.Helper()
	agent := id.New[id.Agent]()
	conn, err := pgx.Connect(t.Context(), f.owner)
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // a test's own
	_, err = conn.Exec(t.Context(), `INSERT INTO agents (org_id, id, project_id, name, latest_version, created_by, created_at, updated_at)
		VALUES ($1, $2, 'prj_x', $2, 1, 'usr_x', now(), now())`, org, agent)
	require.NoError(t, err)
	return agent
}

// in runs fn in a transaction of an organisation and returns its error.
func (f *fixture) in(t *testing.T, org id.Org, fn func(tx pgx.Tx) error) error {
	t.Helper()
	return f.db.InTx(t.Context(), org, fn)
}

func (f *fixture) sign(t *testing.T, k *identity.AgentKeys, org id.Org, of identity.Subject) (token, kid string) {
	t.Helper()
	require.NoError(t, f.in(t, org, func(tx pgx.Tx) (err error) {
		token, err = k.SignAsAgent(t.Context(), tx, org, of, map[string]any{"typ": "x+jwt"}, []byte(`{"a":1}`))
		return err
	}))
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	require.NoError(t, err)
	return token, jws.Signatures[0].Protected.KeyID
}

func verifies(t *testing.T, k *identity.AgentKeys, of identity.Subject, token string) bool {
	t.Helper()
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.ES256})
	require.NoError(t, err)
	set, err := k.Published(t.Context(), of)
	require.NoError(t, err)
	keys := set.Key(jws.Signatures[0].Protected.KeyID)
	if len(keys) == 0 {
		return false
	}
	payload, err := jws.Verify(keys[0])
	require.NoError(t, err)
	require.JSONEq(t, `{"a":1}`, string(payload))
	return true
}

func TestAnAgentSignsWithAKeyOfItsOwn(t *testing.T) {
	f := newFixture(t)
	k := f.agentKeys(t, f.master)
	org := dbtest.NewOrg(t, f.db)
	a, b := identity.OfAgent(f.agent(t, org)), identity.OfAgent(f.agent(t, org))

	_, err := k.Published(t.Context(), a)
	require.True(t, fault.IsCode(err, "not_found"), "no key before it is needed")
	token, kid := f.sign(t, k, org, a)
	require.True(t, verifies(t, k, a, token))
	_, again := f.sign(t, k, org, a)
	require.Equal(t, kid, again, "one key, made on first use")
	_, other := f.sign(t, k, org, b)
	require.NotEqual(t, kid, other)
	_, own := f.sign(t, k, org, identity.OfOrganization(org))
	require.NotEqual(t, kid, own)

	restarted, _ := f.sign(t, f.agentKeys(t, f.master), org, a)
	require.True(t, verifies(t, k, a, restarted), "another process opens the sealed key")
	require.NoError(t, f.in(t, org, func(tx pgx.Tx) error {
		key, err := k.AgentKey(t.Context(), tx, org, a)
		require.NoError(t, err)
		require.Equal(t, kid, key.KeyID)
		require.IsType(t, &ecdsa.PublicKey{}, key.JWK.Key)
		for _, header := range []string{"alg", "kid", "jwk", "crit", "b64"} {
			_, err = k.SignAsAgent(t.Context(), tx, org, a, map[string]any{header: "none"}, []byte(`{}`))
			require.ErrorContains(t, err, header)
		}
		return nil
	}))
	sealed := f.asOwner(t, "SELECT encode(sealed_private, 'escape') FROM agent_keys LIMIT 1")
	require.NotContains(t, sealed, `"d"`)
}

func TestProcessesThatSignFirstAtOnceMakeOneKey(t *testing.T) {
	f := newFixture(t)
	org := dbtest.NewOrg(t, f.db)
	a := identity.OfAgent(f.agent(t, org))
	kids := make([]string, 6)
	var wg sync.WaitGroup
	for i := range kids {
		k := f.agentKeys(t, f.master)
		wg.Go(func() {
			_ = f.db.InTx(t.Context(), org, func(tx pgx.Tx) error {
				key, err := k.AgentKey(t.Context(), tx, org, a)
				kids[i] = key.KeyID
				return err
			})
		})
	}
	wg.Wait()
	for _, kid := range kids {
		require.NotEmpty(t, kid)
		require.Equal(t, kids[0], kid)
	}
}

func TestNobodyMakesAKeyInTheNameOfAnothersAgent(t *testing.T) {
	f := newFixture(t)
	k := f.agentKeys(t, f.master)
	mine, theirs := dbtest.NewOrg(t, f.db), dbtest.NewOrg(t, f.db)
	agent := identity.OfAgent(f.agent(t, theirs))
	for _, of := range []identity.Subject{agent, identity.OfOrganization(theirs), identity.OfAgent(id.New[id.Agent]()), identity.OfSession(id.New[id.Session]()), "", "x"} {
		err := f.in(t, mine, func(tx pgx.Tx) error {
			_, err := k.AgentKey(t.Context(), tx, mine, of)
			return err
		})
		require.True(t, fault.IsCode(err, "not_found"), "%q: %v", of, err)
	}
	_, _ = f.sign(t, k, theirs, agent)
	require.NoError(t, f.in(t, mine, func(tx pgx.Tx) error {
		keys, err := k.List(t.Context(), tx, mine, agent)
		require.NoError(t, err)
		require.Empty(t, keys)
		_, err = k.Compromised(t.Context(), tx, mine, agent, "x")
		require.True(t, fault.IsCode(err, "not_found"))
		return nil
	}))
}

func (f *fixture) states(t *testing.T, k *identity.AgentKeys, org id.Org, of identity.Subject) (states []identity.KeyState, kids []string) {
	t.Helper()
	require.NoError(t, f.in(t, org, func(tx pgx.Tx) error {
		keys, err := k.List(t.Context(), tx, org, of)
		for _, key := range keys {
			states, kids = append(states, key.State), append(kids, key.KeyID)
		}
		return err
	}))
	return states, kids
}

func TestAKeyRotatesWithAnOverlap(t *testing.T) {
	f := newFixture(t)
	k := f.agentKeys(t, f.master)
	org := dbtest.NewOrg(t, f.db)
	a := identity.OfAgent(f.agent(t, org))
	before, first := f.sign(t, k, org, a)
	rotate := func() {
		require.NoError(t, f.in(t, org, func(tx pgx.Tx) error {
			_, err := k.Rotate(t.Context(), tx, org, a)
			return err
		}))
	}
	rotate()
	rotate() // while a successor waits it changes nothing
	states, kids := f.states(t, k, org, a)
	require.Equal(t, []identity.KeyState{identity.KeyActive, identity.KeyRetiring}, states)
	set, err := k.Published(t.Context(), a)
	require.NoError(t, err)
	require.Len(t, set.Keys, 2, "the successor is published before it signs")
	_, signer := f.sign(t, k, org, a)
	require.Equal(t, first, signer, "and until then the old one signs")

	f.hands.Advance(20 * time.Minute)
	after, signer := f.sign(t, k, org, a)
	require.Equal(t, kids[0], signer)
	require.True(t, verifies(t, k, a, before), "what the old key signed still verifies")
	require.True(t, verifies(t, k, a, after))

	f.hands.Advance(2 * time.Hour)
	k.Start(t.Context())
	<-k.Started()
	require.NoError(t, k.Stop(context.Background()))
	require.Equal(t, "1", f.asOwner(t, "SELECT count(*)::text FROM agent_keys WHERE sealed_private IS NOT NULL"), "the old private half is destroyed")
	require.True(t, verifies(t, k, a, before))

	f.hands.Advance(24 * time.Hour)
	require.False(t, verifies(t, k, a, before), "the old key is retired")
	require.True(t, verifies(t, k, a, after))
	states, _ = f.states(t, k, org, a)
	require.Equal(t, []identity.KeyState{identity.KeyActive, identity.KeyRetired}, states)
}

func TestACompromisedKeyIsRetiredAtOnce(t *testing.T) {
	f := newFixture(t)
	k := f.agentKeys(t, f.master)
	org := dbtest.NewOrg(t, f.db)
	a := identity.OfAgent(f.agent(t, org))
	retire := func(kid string) {
		require.NoError(t, f.in(t, org, func(tx pgx.Tx) error {
			_, err := k.Compromised(t.Context(), tx, org, a, kid)
			return err
		}))
	}
	stolen, first := f.sign(t, k, org, a)
	retire(first)
	require.False(t, verifies(t, k, a, stolen))
	_, second := f.sign(t, k, org, a)
	require.NotEqual(t, first, second, "another key signs at once")

	// With a successor that waits, that one signs at once.
	require.NoError(t, f.in(t, org, func(tx pgx.Tx) error {
		_, err := k.Rotate(t.Context(), tx, org, a)
		return err
	}))
	_, kids := f.states(t, k, org, a)
	retire(second)
	_, third := f.sign(t, k, org, a)
	require.Equal(t, kids[0], third)
	// The waiting one is retired: the one that signs is retiring by then, and needs another successor.
	f.hands.Advance(time.Hour)
	require.NoError(t, f.in(t, org, func(tx pgx.Tx) error {
		_, err := k.Rotate(t.Context(), tx, org, a)
		return err
	}))
	_, kids = f.states(t, k, org, a)
	retire(kids[0])
	_, signer := f.sign(t, k, org, a)
	require.NotEqual(t, kids[0], signer)
	retire(first) // again: no error
	f.hands.Advance(time.Hour)
	_, signer = f.sign(t, k, org, a)
	require.NotContains(t, []string{first, second, kids[0]}, signer)
}

func TestAgentsKeysAreSealedAnewUnderANewMasterKey(t *testing.T) {
	f := newFixture(t)
	org := dbtest.NewOrg(t, f.db)
	a := identity.OfAgent(f.agent(t, org))
	_, kid := f.sign(t, f.agentKeys(t, f.master), org, a)
	newer := seal.NewKey()
	k := f.agentKeys(t, newer+","+f.master)
	k.Start(t.Context())
	<-k.Started()
	require.NoError(t, k.Stop(context.Background()))
	_, again := f.sign(t, f.agentKeys(t, newer), org, a)
	require.Equal(t, kid, again, "the old master key is needed no more")
}

func TestKeysArePublishedForEverybodyAndTellNothingElse(t *testing.T) {
	f := newFixture(t)
	instance := f.started(t)
	k := f.agentKeys(t, f.master)
	org := dbtest.NewOrg(t, f.db)
	agent := f.agent(t, org)
	a := identity.OfAgent(agent)
	_, kid := f.sign(t, k, org, a)
	srv := httptest.NewServer(k.Handler(instance))
	t.Cleanup(srv.Close)
	get := func(path string) (*http.Response, map[string]any) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.URL+path, nil)
		require.NoError(t, err)
		res, err := http.DefaultClient.Do(req)
		require.NoError(t, err)
		defer res.Body.Close() //nolint:errcheck // read
		var body map[string]any
		if res.StatusCode == http.StatusOK {
			require.NoError(t, json.NewDecoder(res.Body).Decode(&body))
		}
		return res, body
	}
	did := "did:web:ambit.example%3A8443:at:agents:" + string(agent)
	require.Equal(t, did, k.DID(a))
	require.Equal(t, public+"/agents/"+string(agent)+"/did.json", k.DocumentURL(a))

	res, doc := get("/agents/" + string(agent) + "/did.json")
	require.Equal(t, "application/did+json", res.Header.Get("Content-Type"))
	require.Equal(t, "public, max-age=300", res.Header.Get("Cache-Control"))
	require.Equal(t, did, doc["id"])
	require.Equal(t, "did:web:ambit.example%3A8443:at", doc["controller"])
	method := doc["verificationMethod"].([]any)[0].(map[string]any)
	require.Equal(t, did+"#"+kid, method["id"])
	require.Equal(t, kid, method["publicKeyJwk"].(map[string]any)["kid"])
	require.NotContains(t, method["publicKeyJwk"], "d")
	text, err := json.Marshal(doc)
	require.NoError(t, err)
	require.NotContains(t, string(text), string(org))

	_, jwks := get("/agents/" + string(agent) + "/jwks.json")
	require.Len(t, jwks["keys"], 1)
	_, doc = get("/.well-known/did.json")
	require.Equal(t, "did:web:ambit.example%3A8443:at", doc["id"])

	for _, path := range []string{"/agents/" + string(id.New[id.Agent]()) + "/did.json", "/sessions/" + string(agent) + "/did.json", "/agents/x/did.json", "/agents/" + string(agent) + "/x"} {
		res, _ = get(path)
		require.Equal(t, http.StatusNotFound, res.StatusCode, path)
	}
	require.True(t, identity.Serves("/agents/"+string(agent)+"/did.json"))
	require.False(t, identity.Serves("/agents/"+string(agent)))
	require.False(t, identity.Serves("/agents/x/did.json"))
}

// exec changes the database past row-level security.
func (f *fixture) exec(t *testing.T, statement string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.owner)
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // a test's own
	_, err = conn.Exec(t.Context(), statement)
	require.NoError(t, err)
}
