package api_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/api"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
	"ambit.dev/ambit/tenants/identity/authenticatortest"
)

func TestAnAgentsKeysAreListedRotatedAndRetired(t *testing.T) {
	r := newRig(t)
	tn := r.newTenant("Ada")
	agent := tn.newAgent("signer")
	path := "/v1/agents/" + agent
	res := tn.ask("GET", path+"/identity", "")
	require.Equal(t, 200, res.StatusCode, res.raw)
	require.Equal(t, "did:web:ambit.test:agents:"+agent, res.field(t, "did"))
	require.Equal(t, "http://ambit.test/agents/"+agent+"/jwks.json", res.field(t, "jwks_url"))
	require.Equal(t, "did:web:ambit.test", res.field(t, "controller"))

	list := func(res reply) (keys []api.AgentKey) {
		require.Equal(t, 200, res.StatusCode, res.raw)
		var page api.Page[api.AgentKey]
		res.into(t, &page)
		require.NotContains(t, res.raw, `"d":`, "no private half")
		return page.Data
	}
	keys := list(tn.ask("GET", path+"/keys", ""))
	require.Len(t, keys, 1, "made with the agent")
	first := keys[0]
	require.Equal(t, "active", first.State)
	require.Nil(t, first.RetiresAt)

	keys = list(tn.ask("POST", path+"/keys/rotate", "", "Idempotency-Key", "once"))
	require.Equal(t, []string{"active", "retiring"}, states(keys))
	require.Equal(t, first.KID, keys[1].KID)
	require.NotNil(t, keys[1].SignsUntil)
	replayed := tn.ask("POST", path+"/keys/rotate", "", "Idempotency-Key", "once")
	require.Equal(t, "true", replayed.Header.Get("Idempotency-Replayed"))
	require.Equal(t, keys, list(replayed))
	r.clock.Advance(time.Hour)
	require.Equal(t, []string{"active", "retiring", "retiring"}, states(list(tn.ask("POST", path+"/keys/rotate", ""))))

	keys = list(tn.ask("POST", path+"/keys/"+first.KID+"/retire", ""))
	require.Equal(t, []string{"active", "retiring", "retired"}, states(keys))
	require.True(t, keys[2].Compromised)
	require.Equal(t, keys, list(tn.ask("POST", path+"/keys/"+first.KID+"/retire", "")), "again is harmless")

	// Bad input, and who may not.
	require.Equal(t, 404, tn.ask("POST", path+"/keys/AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA/retire", "").StatusCode)
	require.Equal(t, 400, tn.ask("POST", path+"/keys/rotate", `{"at":"once"}`).StatusCode, "an unknown field")
	for _, bad := range []string{"x", "a%2Fb", "..", "%00"} {
		require.Contains(t, []int{400, 404}, tn.ask("POST", path+"/keys/"+bad+"/retire", "").StatusCode, bad)
	}
	reader, _ := tn.newKey(tenants.CreateKey{Name: "reader", Project: tn.project, Scopes: []string{"agents:read"}})
	require.Equal(t, 200, tn.askWith(reader, "GET", path+"/keys", "").StatusCode)
	require.Equal(t, 403, tn.askWith(reader, "POST", path+"/keys/rotate", "").StatusCode)
	require.Equal(t, 403, tn.askWith(reader, "POST", path+"/keys/"+first.KID+"/retire", "").StatusCode)
	none, _ := tn.newKey(tenants.CreateKey{Name: "none", Project: tn.project, Scopes: []string{"models:read"}})
	require.Equal(t, 404, tn.askWith(none, "GET", path+"/keys", "").StatusCode, "what may not be read is as missing")
}

func states(keys []api.AgentKey) (out []string) {
	for _, k := range keys {
		out = append(out, k.State)
	}
	return out
}

func TestAMembersPasskeysAreListed(t *testing.T) {
	r := newRig(t)
	tn := r.newTenant("Ada")
	var members struct{ Data []struct{ ID string } }
	tn.askWith(tn.orgKey, "GET", "/v1/members", "").into(t, &members)
	path := "/v1/members/" + members.Data[0].ID + "/passkeys"
	res := tn.askWith(tn.orgKey, "GET", path, "")
	require.JSONEq(t, `{"data":[],"next_page":null}`, res.raw)

	user := id.User(tn.owner.ID)
	request, err := r.stepUp.Begin(t.Context(), r.stepUp.AskEnrol(user))
	require.NoError(t, err)
	options, err := r.stepUp.BeginEnrolment(t.Context(), identity.PersonName{ID: user, Email: "ada@example.com"}, identity.Response{Method: identity.MethodPassword, Challenge: request.Challenge, Password: "correct horse battery Ada"})
	require.NoError(t, err)
	_, err = r.stepUp.Enrol(t.Context(), user, "Laptop", authenticatortest.New("https://ambit.test", "ambit.test").Create(options))
	require.NoError(t, err)
	var page api.Page[api.Passkey]
	res = tn.askWith(tn.orgKey, "GET", path, "")
	res.into(t, &page)
	require.Len(t, page.Data, 1)
	require.Equal(t, "Laptop", page.Data[0].Name)
	require.True(t, page.Data[0].Accepted)
	require.NotContains(t, res.raw, "public_key")
	require.Equal(t, 404, tn.ask("GET", path, "").StatusCode, "a project's key sees no members")
}

func TestIdentityHostsAreOfTheAllowedOnes(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	made := func(network string) reply {
		return tn.ask("POST", "/v1/agents", `{"name":"caller","model":"ambit/scripted","network":`+network+`}`)
	}
	res := made(`{"allowed_hosts":["api.example.com"],"identity_hosts":["other.example.com"]}`)
	require.Equal(t, 400, res.StatusCode, res.raw)
	require.Contains(t, res.raw, "/network/identity_hosts/0")
	require.Equal(t, 400, made(`{"allowed_hosts":["a.example"],"identity_hosts":"a.example"}`).StatusCode)
	res = made(`{"allowed_hosts":["API.example.com"],"identity_hosts":["api.EXAMPLE.com"]}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	require.Contains(t, res.raw, `"identity_hosts":["api.example.com"]`)
}
