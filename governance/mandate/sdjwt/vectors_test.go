package sdjwt_test

import (
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/mandate/sdjwt"
)

func load(t testing.TB, name string, into any) {
	t.Helper()
	raw, err := os.ReadFile("testdata/" + name)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(raw, into))
}

func TestTheExampleOfRFC9901(t *testing.T) {
	var v struct {
		Issuer      jose.JSONWebKey `json:"issuer_key"`
		Audience    string
		Nonce       string
		Presented   string
		Disclosures []struct{ Name, Disclosure, Digest string }
	}
	load(t, "rfc9901.json", &v)
	for _, d := range v.Disclosures {
		require.Equal(t, d.Digest, sdjwt.Hash(d.Disclosure), d.Name)
	}
	token, err := sdjwt.Parse(v.Presented)
	require.NoError(t, err)
	require.Equal(t, v.Presented, token.String())
	want := sdjwt.Expect{Now: time.Unix(1_748_537_300, 0), Type: "example+sd-jwt", Audience: v.Audience, Nonce: v.Nonce, KeyBinding: true, MaxAge: 5 * time.Minute}
	got, err := sdjwt.Verify(token, v.Issuer, want)
	require.NoError(t, err)
	require.Equal(t, "John", got.Claims["given_name"])
	require.Equal(t, "Doe", got.Claims["family_name"])
	require.Equal(t, []any{"US"}, got.Claims["nationalities"])
	require.Equal(t, "Anytown", got.Claims["address"].(map[string]any)["locality"])
	require.NotContains(t, got.Claims, "email", "what was not disclosed is not told")
	require.NotContains(t, got.Claims, "_sd")
	require.NotContains(t, got.Claims, "_sd_alg")
	for code, change := range map[string]func(*sdjwt.Expect){
		sdjwt.WrongAudience: func(w *sdjwt.Expect) { w.Audience = "https://elsewhere.example" },
		sdjwt.WrongNonce:    func(w *sdjwt.Expect) { w.Nonce = "1234567891" },
		sdjwt.Expired:       func(w *sdjwt.Expect) { w.Now = w.Now.Add(time.Hour) },
		sdjwt.NotYetValid:   func(w *sdjwt.Expect) { w.Now = time.Unix(1_600_000_000, 0) },
		sdjwt.WrongType:     func(w *sdjwt.Expect) { w.Type = "other+sd-jwt" },
	} {
		other := want
		change(&other)
		_, err := sdjwt.Verify(token, v.Issuer, other)
		requireCode(t, code, err)
	}
}

func TestAP2sOwnChains(t *testing.T) {
	var v struct {
		Vectors []struct {
			ID              string
			Links           int
			Audience, Nonce string
			Last            map[string]any
			Root            jose.JSONWebKey `json:"root_key"`
			Token           string
		}
	}
	load(t, "ap2_delegation.json", &v)
	require.Len(t, v.Vectors, 4)
	for _, one := range v.Vectors {
		t.Run(one.ID, func(t *testing.T) {
			chain, err := sdjwt.ParseChain(one.Token)
			require.NoError(t, err)
			require.Len(t, chain, one.Links)
			require.Equal(t, one.Token, chain.String())
			links, err := sdjwt.VerifyChain(chain, one.Root, sdjwt.Expect{Now: time.Unix(1_785_268_700, 0), Audience: one.Audience, Nonce: one.Nonce})
			require.NoError(t, err)
			for name, want := range one.Last {
				require.Equal(t, want, links[len(links)-1].Body[name])
			}
			if one.Links > 1 {
				_, err = sdjwt.VerifyChain(chain, one.Root, sdjwt.Expect{Now: time.Unix(1_785_268_700, 0), Audience: "another", Nonce: one.Nonce})
				requireCode(t, sdjwt.WrongAudience, err)
				_, err = sdjwt.VerifyChain(chain, one.Root, sdjwt.Expect{Now: time.Unix(1_785_268_700, 0), Audience: one.Audience, Nonce: "another"})
				requireCode(t, sdjwt.WrongNonce, err)
			}
		})
	}
}

func requireCode(t testing.TB, code string, err error) {
	t.Helper()
	var r *sdjwt.Refused
	require.ErrorAs(t, err, &r, "what had to be refused as %s was not", code)
	require.Equal(t, code, r.Code, "%s", r.Detail)
}
