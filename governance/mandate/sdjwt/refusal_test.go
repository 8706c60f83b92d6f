package sdjwt_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	mathrand "math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/mandate/sdjwt"
)

var now = time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)

type key struct{ private *ecdsa.PrivateKey }

func newKey(t testing.TB) key {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key{k}
}

func (k key) public() jose.JSONWebKey { return jose.JSONWebKey{Key: &k.private.PublicKey} }

func (k key) confirmed() map[string]any {
	x, y := make([]byte, 32), make([]byte, 32)
	k.private.X.FillBytes(x) //nolint:staticcheck // the numbers themselves are wanted
	k.private.Y.FillBytes(y) //nolint:staticcheck // the numbers themselves are wanted
	return map[string]any{"jwk": map[string]any{"kty": "EC", "crv": "P-256", "x": enc(x), "y": enc(y)}}
}

// sign writes a JWS by hand, with the header as it is told: a test must be able to write what no honest program does.
func (k key) sign(header map[string]any, payload []byte) (string, error) {
	h := map[string]any{"alg": "ES256"}
	for name, v := range header {
		h[name] = v
	}
	raw, err := json.Marshal(h)
	if err != nil {
		return "", err
	}
	signing := enc(raw) + "." + enc(payload)
	sum := sha256.Sum256([]byte(signing))
	r, s, err := ecdsa.Sign(rand.Reader, k.private, sum[:])
	if err != nil {
		return "", err
	}
	out := make([]byte, 64)
	r.FillBytes(out[:32])
	s.FillBytes(out[32:])
	return signing + "." + enc(out), nil
}

func enc(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

func signPayload(t testing.TB, k key, header map[string]any, payload string) string {
	t.Helper()
	s, err := k.sign(header, []byte(payload))
	require.NoError(t, err)
	return s
}

func TestWhatNoHonestProgramWritesIsRefusedByName(t *testing.T) {
	issuer, other := newKey(t), newKey(t)
	name, digest, err := sdjwt.NewDisclosure("email", "a@b.example")
	require.NoError(t, err)
	element, elementDigest, err := sdjwt.NewDisclosure("", "DE")
	require.NoError(t, err)
	hiding, hidingDigest, err := sdjwt.NewDisclosure("iss", "somebody else")
	require.NoError(t, err)
	good := `{"_sd":["` + digest + `"],"_sd_alg":"sha-256","iss":"me"}`
	token := func(payload string, disclosures ...string) string {
		return strings.Join(append([]string{signPayload(t, issuer, nil, payload)}, disclosures...), "~") + "~"
	}
	secret := hmac.New(sha256.New, issuer.private.PublicKey.X.Bytes()) //nolint:staticcheck // what an attacker has
	signing := enc([]byte(`{"alg":"HS256"}`)) + "." + enc([]byte(good))
	secret.Write([]byte(signing))
	for _, c := range []struct{ what, code, text string }{
		{"a good one", "", token(good, name)},
		{"nothing disclosed", "", token(good)},
		{"no algorithm", sdjwt.WrongAlgorithm, enc([]byte(`{"alg":"none"}`)) + "." + enc([]byte(good)) + ".~"},
		{"a secret in the place of a key", sdjwt.WrongAlgorithm, signing + "." + enc(secret.Sum(nil)) + "~"},
		{"another algorithm's name", sdjwt.WrongAlgorithm, signPayload(t, issuer, map[string]any{"alg": "ES384"}, good) + "~"},
		{"an algorithm twice", sdjwt.Malformed, enc([]byte(`{"alg":"none","alg":"ES256"}`)) + "." + enc([]byte(good)) + "." + enc(make([]byte, 64)) + "~"},
		{"an extension", sdjwt.WrongAlgorithm, signPayload(t, issuer, map[string]any{"crit": []string{"b64"}, "b64": false}, good) + "~"},
		{"another's key", sdjwt.BadSignature, signPayload(t, other, nil, good) + "~" + name + "~"},
		{"another digest", sdjwt.WrongAlgorithm, token(`{"_sd":[],"_sd_alg":"md5"}`)},
		{"a disclosure twice", sdjwt.DuplicateDisclosure, token(good, name, name)},
		{"a digest twice", sdjwt.DuplicateDisclosure, token(`{"_sd":["`+digest+`","`+digest+`"]}`, name)},
		{"a digest twice, at two places", sdjwt.DuplicateDisclosure, token(`{"_sd":["`+digest+`"],"a":{"_sd":["`+digest+`"]}}`, name)},
		{"a disclosure that nothing refers to", sdjwt.UnusedDisclosure, token(`{"iss":"me"}`, name)},
		{"a disclosure that hides a claim", sdjwt.ClaimHidden, token(`{"_sd":["`+hidingDigest+`"],"iss":"me"}`, hiding)},
		{"an element as a claim", sdjwt.Malformed, token(`{"_sd":["`+elementDigest+`"]}`, element)},
		{"a claim as an element", sdjwt.Malformed, token(`{"list":[{"...":"`+digest+`"}]}`, name)},
		{"dots outside of a list", sdjwt.Malformed, token(`{"...":"` + digest + `"}`)},
		{"dots with company", sdjwt.Malformed, token(`{"list":[{"...":"`+elementDigest+`","a":1}]}`, element)},
		{"digests in text", sdjwt.Malformed, token(`{"_sd":"` + digest + `"}`)},
		{"a member twice", sdjwt.Malformed, token(`{"iss":"me","iss":"you"}`)},
		{"a disclosure without a salt", sdjwt.Malformed, token(good, enc([]byte(`["","email","x"]`)))},
		{"a disclosure of four", sdjwt.Malformed, token(good, enc([]byte(`["s","email","x","y"]`)))},
		{"a disclosure named _sd", sdjwt.ClaimHidden, token(good, enc([]byte(`["s","_sd",[]]`)))},
		{"padding", sdjwt.Malformed, token(good, name+"=")},
		{"an empty disclosure", sdjwt.Malformed, token(good, "", name)},
		{"no end", sdjwt.Malformed, signPayload(t, issuer, nil, good)},
		{"expired", sdjwt.Expired, token(`{"exp":1700000000}`)},
		{"expired at this moment", sdjwt.Expired, token(`{"exp":1795176000}`)},
		{"not yet valid", sdjwt.NotYetValid, token(`{"nbf":1900000000}`)},
		{"from the future", sdjwt.NotYetValid, token(`{"iat":1900000000}`)},
		{"a time with a fraction", sdjwt.Malformed, token(`{"exp":1900000000.5}`)},
		{"a time in text", sdjwt.Malformed, token(`{"exp":"1900000000"}`)},
	} {
		parsed, err := sdjwt.Parse(c.text)
		if err == nil {
			_, err = sdjwt.Verify(parsed, issuer.public(), sdjwt.Expect{Now: now})
		}
		if c.code == "" {
			require.NoError(t, err, c.what)
			continue
		}
		var r *sdjwt.Refused
		require.ErrorAs(t, err, &r, c.what)
		require.Equal(t, c.code, r.Code, "%s: %s", c.what, r.Detail)
	}
	// The issuer's key is of the wrong kind.
	symmetric := jose.JSONWebKey{Key: []byte("secret")}
	parsed, err := sdjwt.Parse(token(good))
	require.NoError(t, err)
	_, err = sdjwt.Verify(parsed, symmetric, sdjwt.Expect{Now: now})
	requireCode(t, sdjwt.WrongKey, err)
}

func TestPossessionIsProvedForOneOccasion(t *testing.T) {
	issuer, holder, thief := newKey(t), newKey(t), newKey(t)
	token, err := sdjwt.Issue(issuer.sign, "x+sd-jwt", map[string]any{"cnf": holder.confirmed(), "email": "a@b.example", "name": "A"}, "email", "name")
	require.NoError(t, err)
	shown, err := token.Without(func(name string, _ any) bool { return name == "email" })
	require.NoError(t, err)
	bound, err := shown.Bind(holder.sign, sdjwt.Occasion{Audience: "shop", Nonce: "n1", At: now})
	require.NoError(t, err)
	want := sdjwt.Expect{Now: now, Audience: "shop", Nonce: "n1", KeyBinding: true, MaxAge: time.Minute}
	got, err := sdjwt.Verify(bound, issuer.public(), want)
	require.NoError(t, err)
	require.Equal(t, "A", got.Claims["name"])
	require.NotContains(t, got.Claims, "email")

	refused := func(code string, token sdjwt.Token, change func(*sdjwt.Expect)) {
		t.Helper()
		w := want
		if change != nil {
			change(&w)
		}
		_, err := sdjwt.Verify(token, issuer.public(), w)
		requireCode(t, code, err)
	}
	refused(sdjwt.WrongAudience, bound, func(w *sdjwt.Expect) { w.Audience = "bank" })
	refused(sdjwt.WrongNonce, bound, func(w *sdjwt.Expect) { w.Nonce = "n2" })
	refused(sdjwt.Expired, bound, func(w *sdjwt.Expect) { w.Now = now.Add(time.Hour) })
	refused(sdjwt.KeyBindingMissing, shown, nil)
	refused(sdjwt.KeyBindingUnwanted, bound, func(w *sdjwt.Expect) { w.KeyBinding = false })
	more := bound
	more.Disclosures = token.Disclosures
	refused(sdjwt.BrokenChain, more, nil)
	stolen, err := shown.Bind(thief.sign, sdjwt.Occasion{Audience: "shop", Nonce: "n1", At: now})
	require.NoError(t, err)
	refused(sdjwt.BadSignature, stolen, nil)
}

// threeDeep is a chain of three links and the key of its root.
func threeDeep(t testing.TB) (sdjwt.Chain, key) {
	t.Helper()
	root, a, b := newKey(t), newKey(t), newKey(t)
	exp := now.Add(time.Hour).Unix()
	first, err := sdjwt.Root(root.sign, "mandate+sd-jwt", map[string]any{"cnf": a.confirmed(), "exp": exp, "level": 1}, map[string]any{"proof": "p"})
	require.NoError(t, err)
	second, err := sdjwt.Hand(a.sign, sdjwt.TypeLink, first, map[string]any{"cnf": b.confirmed(), "exp": exp, "level": 2}, sdjwt.Occasion{Audience: "b", Nonce: "n2", At: now})
	require.NoError(t, err)
	third, err := sdjwt.Hand(b.sign, sdjwt.TypeLast, second, map[string]any{"level": 3}, sdjwt.Occasion{Audience: "shop", Nonce: "n3", At: now})
	require.NoError(t, err)
	return sdjwt.Chain{first, second, third}, root
}

var asked = sdjwt.Expect{Now: now, Type: "mandate+sd-jwt", Audience: "shop", Nonce: "n3"}

func TestAChainIsBoundLinkByLink(t *testing.T) {
	chain, root := threeDeep(t)
	links, err := sdjwt.VerifyChain(chain, root.public(), asked)
	require.NoError(t, err)
	require.True(t, links[2].Last)
	again, err := sdjwt.ParseChain(chain.String())
	require.NoError(t, err)
	require.Equal(t, chain, again)

	other, _ := threeDeep(t)
	refused := func(code string, c sdjwt.Chain, want sdjwt.Expect) {
		t.Helper()
		_, err := sdjwt.VerifyChain(c, root.public(), want)
		requireCode(t, code, err)
	}
	refused(sdjwt.BadSignature, sdjwt.Chain{chain[0], other[1], chain[2]}, asked)
	refused(sdjwt.BadSignature, sdjwt.Chain{chain[0], chain[2]}, asked)
	refused(sdjwt.BadSignature, sdjwt.Chain{chain[1], chain[2]}, asked)
	want := asked
	want.Now = now.Add(2 * time.Hour)
	refused(sdjwt.Expired, chain, want)
	// The same holder, under another mandate: the link is bound to one.
	a, b := newKey(t), newKey(t)
	one, err := sdjwt.Root(root.sign, "mandate+sd-jwt", map[string]any{"cnf": a.confirmed(), "n": 1}, nil)
	require.NoError(t, err)
	two, err := sdjwt.Root(root.sign, "mandate+sd-jwt", map[string]any{"cnf": a.confirmed(), "n": 2}, nil)
	require.NoError(t, err)
	link, err := sdjwt.Hand(a.sign, sdjwt.TypeLink, one, map[string]any{"cnf": b.confirmed()}, sdjwt.Occasion{Audience: "shop", Nonce: "n3", At: now})
	require.NoError(t, err)
	_, err = sdjwt.VerifyChain(sdjwt.Chain{one, link}, root.public(), asked)
	require.NoError(t, err)
	refused(sdjwt.BrokenChain, sdjwt.Chain{two, link}, asked)
	// A last link that confirms a key, and a handing link that confirms none.
	wrong, err := sdjwt.Hand(a.sign, sdjwt.TypeLast, one, map[string]any{"cnf": b.confirmed()}, sdjwt.Occasion{Audience: "shop", Nonce: "n3", At: now})
	require.NoError(t, err)
	refused(sdjwt.WrongType, sdjwt.Chain{one, wrong}, asked)
	wrong, err = sdjwt.Hand(a.sign, sdjwt.TypeLink, one, map[string]any{}, sdjwt.Occasion{Audience: "shop", Nonce: "n3", At: now})
	require.NoError(t, err)
	refused(sdjwt.ConfirmationMissing, sdjwt.Chain{one, wrong}, asked)
}

// TestNoTamperedTokenIsAccepted changes a chain in one place at a time: a character, a bit of what is decoded, a part left out, twice or moved.
func TestNoTamperedTokenIsAccepted(t *testing.T) {
	const times = 100_000
	chain, root := threeDeep(t)
	text := chain.String()
	rng := mathrand.New(mathrand.NewPCG(9901, 2)) //nolint:gosec // the same each time
	alphabet := "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_~.="
	accepted, looked := 0, 0
	for range times {
		var changed string
		switch at := rng.IntN(len(text)); rng.IntN(6) {
		case 0, 1: // another character
			changed = text[:at] + string(alphabet[rng.IntN(len(alphabet))]) + text[at+1:]
		case 2: // one more
			changed = text[:at] + string(alphabet[rng.IntN(len(alphabet))]) + text[at:]
		case 3: // one less
			changed = text[:at] + text[at+1:]
		case 4: // a part is left out, or stands twice, or stands elsewhere
			parts := strings.Split(text, "~")
			i, j := rng.IntN(len(parts)), rng.IntN(len(parts))
			switch rng.IntN(3) {
			case 0:
				parts = append(parts[:i:i], parts[i+1:]...)
			case 1:
				parts = append(append(parts[:i:i], parts[j]), parts[i:]...)
			default:
				parts[i], parts[j] = parts[j], parts[i]
			}
			changed = strings.Join(parts, "~")
		default: // a bit of what a part says
			parts := strings.FieldsFunc(text, func(r rune) bool { return r == '~' || r == '.' })
			part := parts[rng.IntN(len(parts))]
			raw, err := base64.RawURLEncoding.DecodeString(part)
			require.NoError(t, err)
			raw[rng.IntN(len(raw))] ^= 1 << rng.IntN(8)
			changed = strings.Replace(text, part, enc(raw), 1)
		}
		if changed == text {
			continue
		}
		looked++
		c, err := sdjwt.ParseChain(changed)
		if err == nil {
			_, err = sdjwt.VerifyChain(c, root.public(), asked)
		}
		if err == nil {
			accepted++
			t.Errorf("accepted: %s", changed)
		}
	}
	require.Zero(t, accepted)
	require.Greater(t, looked, times*9/10)
	t.Logf("%d tampered chains, %d accepted", looked, accepted)
}

func FuzzChain(f *testing.F) {
	chain, root := threeDeep(f)
	f.Add(chain.String())
	f.Add("a.b.c~")
	f.Add("~~~~")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := sdjwt.ParseChain(text)
		if err != nil {
			return
		}
		if _, err := sdjwt.VerifyChain(c, root.public(), asked); err == nil {
			require.Equal(t, chain.String(), c.String())
		}
	})
}
