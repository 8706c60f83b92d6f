package mandate_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/big"
	mathrand "math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/sdjwt"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

type key struct {
	private *ecdsa.PrivateKey
	name    string
}

func newKey(t testing.TB, name string) key {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	return key{k, name}
}

func (k key) public() jose.JSONWebKey {
	return jose.JSONWebKey{Key: &k.private.PublicKey, KeyID: k.name, Algorithm: "ES256", Use: "sig"}
}

func (k key) sign(header map[string]any, payload []byte) (string, error) {
	o := &jose.SignerOptions{ExtraHeaders: map[jose.HeaderKey]any{}}
	for name, v := range header {
		o.ExtraHeaders[jose.HeaderKey(name)] = v
	}
	s, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: k.private, KeyID: k.name}}, o)
	if err != nil {
		return "", err
	}
	jws, err := s.Sign(payload)
	if err != nil {
		return "", err
	}
	return jws.CompactSerialize()
}

func terms(agent key, g mandate.Grant) mandate.Terms {
	return mandate.Terms{
		ID: id.New[id.Mandate](), Organization: "org_x", Agent: id.Agent("agt_" + agent.name), By: "usr_x", Grant: g, Issued: now, Key: agent.public(),
	}
}

func bodyOf(t testing.TB, tm mandate.Terms) []byte {
	t.Helper()
	raw, err := mandate.Body(tm)
	require.NoError(t, err)
	return raw
}

func object(t testing.TB, raw []byte) map[string]any {
	t.Helper()
	var m map[string]any
	d := json.NewDecoder(strings.NewReader(string(raw)))
	d.UseNumber()
	require.NoError(t, d.Decode(&m))
	return m
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	rng := mathrand.New(mathrand.NewPCG(1, 2)) //nolint:gosec // the same each time
	agent := newKey(t, "a")
	own := 0
	for range 5_000 {
		g, err := anyGrant(rng).Check(now.Add(-time.Hour))
		if err != nil {
			continue
		}
		want := terms(agent, g)
		raw := bodyOf(t, want)
		got, err := mandate.Read(object(t, raw), false)
		require.NoError(t, err, "%s", raw)
		got.Key, want.Key = jose.JSONWebKey{}, jose.JSONWebKey{}
		require.Equal(t, want, got, "%s", raw)
		_, err = mandate.Read(object(t, raw), true)
		require.Equal(t, g.OnlyAP2(), err == nil, "a reader that knows AP2's constraints only accepts just what is written in them: %s", raw)
		if g.OnlyAP2() {
			own++
		}
	}
	require.Positive(t, own)
}

func TestWhatIsNotUnderstoodIsRefused(t *testing.T) {
	fifty, five := 50*money.Dollar, 5*money.Dollar
	agent := newKey(t, "a")
	good := string(bodyOf(t, terms(agent, mandate.Grant{Intent: "research", Total: &fifty, PerAction: &five, Payees: []string{"ambit"}, Tools: []string{"exec"}, Until: now.Add(time.Hour)})))
	_, err := mandate.Read(object(t, []byte(good)), false)
	require.NoError(t, err)
	for what, c := range map[string][2]string{
		"an unknown constraint":            {`"constraints":[`, `"constraints":[{"type":"payment.moon_phase"},`},
		"ours of another version":          {`"constraints":[`, `"constraints":[{"type":"ambit.colour","amount":{"amount":"1.00","currency":"USD"}},`},
		"no type":                          {`"constraints":[`, `"constraints":[{},`},
		"an unknown member":                {`"frequency":"ON_DEMAND"`, `"frequency":"ON_DEMAND","unless":"weekend"`},
		"a member in other letters":        {`"frequency":"ON_DEMAND"`, `"Frequency":"ON_DEMAND"`},
		"a member twice, in other letters": {`"max":500`, `"MAX":500,"max":900`},
		"an unknown member of ours":        {`"intent":"research"`, `"intent":"research","only_on":"weekdays"`},
		"ours in other letters":            {`"intent":"research"`, `"Intent":"research"`},
		"another way to confirm":           {`"cnf":{`, `"cnf":{"x5t#S256":"AAAA",`},
		"a member of another constraint":   {`"frequency":"ON_DEMAND"`, `"frequency":"ON_DEMAND","levels":3`},
		"a frequency that isn't kept":      {`"ON_DEMAND"`, `"BIWEEKLY"`},
		"another currency":                 {`"currency":"USD","max":50`, `"currency":"EUR","max":50`},
		"a third decimal":                  {`"max":50`, `"max":50.001`},
		"an exponent":                      {`"max":50`, `"max":5e1`},
		"a least amount":                   {`"max":500`, `"max":500,"min":100`},
		"no limit to the money":            {`{"currency":"USD","max":50,"type":"payment.budget"},`, ``},
		"twice":                            {`"constraints":[`, `"constraints":[{"currency":"USD","max":9,"type":"payment.budget"},`},
		"a payee without an id":            {`{"id":"ambit","name":"ambit"}`, `{"name":"ambit"}`},
		"another type of credential":       {`mandate.payment.open.1`, `mandate.payment.open.2`},
		"a preset payment":                 {`"vct"`, `"payment_amount":{"amount":1,"currency":"USD"},"vct"`},
	} {
		text := strings.Replace(good, c[0], c[1], 1)
		require.NotEqual(t, good, text, "%s: nothing was changed in %s", what, good)
		_, err := mandate.Read(object(t, []byte(text)), false)
		var u *mandate.Unacceptable
		require.ErrorAs(t, err, &u, "what is not understood was accepted: %s", what)
	}
}

func TestAP2sHashes(t *testing.T) {
	raw, err := os.ReadFile("testdata/ap2_open_mandate_hash.json")
	require.NoError(t, err)
	var v struct {
		Vectors []struct {
			ID, Hash string
			Body     json.RawMessage
		}
	}
	require.NoError(t, json.Unmarshal(raw, &v))
	require.Len(t, v.Vectors, 4)
	for _, one := range v.Vectors {
		d, err := mandate.Digest(object(t, one.Body))
		require.NoError(t, err)
		require.Equal(t, one.Hash, "sha256:"+hex.EncodeToString(d[:]), one.ID)
	}
}

// signedChain signs a chain of grants, each by the key that the one before confirms.
func signedChain(t testing.TB, root key, agents []key, grants []mandate.Grant) sdjwt.Chain {
	t.Helper()
	chain := sdjwt.Chain{}
	for i, g := range grants {
		body := bodyOf(t, terms(agents[i], g))
		var token sdjwt.Token
		var err error
		if i == 0 {
			token, err = mandate.SignRoot(root.sign, body, json.RawMessage(`{"method":"passkey"}`))
		} else {
			token, err = mandate.HandOn(agents[i-1].sign, chain[i-1], body, sdjwt.Occasion{Audience: "agt_" + agents[i].name, Nonce: "n" + fmt.Sprint(i), At: now})
		}
		require.NoError(t, err)
		chain = append(chain, token)
	}
	return chain
}

func TestAChainOfMandates(t *testing.T) {
	root, a, b, c := newKey(t, "org"), newKey(t, "a"), newKey(t, "b"), newKey(t, "c")
	amount := func(n money.Nanos) *money.Nanos { return &n }
	grants := []mandate.Grant{
		{Intent: "research", Total: amount(50 * money.Dollar), Until: now.Add(time.Hour), Depth: 2},
		{Intent: "reading", Total: amount(20 * money.Dollar), Until: now.Add(time.Hour), Depth: 1, Tools: []string{"http_request"}},
		{Intent: "one page", Total: amount(5 * money.Dollar), PerAction: amount(money.Dollar), Until: now.Add(time.Minute), Tools: []string{"http_request"}, Payees: []string{"host:a.example"}},
	}
	chain := signedChain(t, root, []key{a, b, c}, grants)
	ask := mandate.Ask{Expect: sdjwt.Expect{Now: now, Type: mandate.RootType}}
	p, err := mandate.VerifyChain(chain.String(), root.public(), ask)
	require.NoError(t, err)
	require.Len(t, p.Terms, 3)
	require.JSONEq(t, `{"method":"passkey"}`, string(p.Proof))
	require.True(t, p.StandingAt(now))
	require.False(t, p.StandingAt(now.Add(time.Minute)))

	// Its end: what one payee was paid.
	paid := func(amount int64, payee string) error {
		last, err := mandate.Close(c.sign, chain[2], mandate.Closed{
			Type: mandate.TypeClosed, TransactionID: "t", Payee: mandate.Party{ID: payee, Name: payee}, Amount: mandate.CentAmount{Amount: amount, Currency: "USD"},
			Instrument: mandate.Instrument{ID: "org_x", Type: "ledger"},
		}, sdjwt.Occasion{Audience: payee, Nonce: "t", At: now})
		require.NoError(t, err)
		asking := ask
		asking.Audience, asking.Nonce = payee, "t"
		_, err = mandate.VerifyChain(append(chain[:3:3], last).String(), root.public(), asking)
		return err
	}
	require.NoError(t, paid(100, "host:a.example"))
	require.Error(t, paid(101, "host:a.example"), "more than one action may cost")
	require.Error(t, paid(1, "host:b.example"), "somebody who may not be paid")

	// A link that is wider than the one before it, rightly signed.
	grants[1].Total = amount(51 * money.Dollar)
	_, err = mandate.VerifyChain(signedChain(t, root, []key{a, b}, grants[:2]).String(), root.public(), ask)
	var w *mandate.Wider
	require.ErrorAs(t, err, &w)
	require.Equal(t, mandate.AxisTotal, w.Axis)
	_, err = mandate.VerifyChain(chain.String(), a.public(), ask)
	var r *sdjwt.Refused
	require.ErrorAs(t, err, &r)
	require.Equal(t, sdjwt.BadSignature, r.Code)
}

// elsewhere reads a chain as AP2 v0.2 and RFC 9901 say, with the standard library alone: it shares no line with what it is held against. It
// knows AP2's own constraints, fails on any other, and says what a payment of so many cents to a payee comes to.
func elsewhere(text string, root *ecdsa.PublicKey, payee string, cents int64) error {
	unb64 := func(s string) []byte { b, _ := base64.RawURLEncoding.DecodeString(s); return b }
	pub := root
	previous := ""
	for i, part := range strings.Split(text, "~~") {
		part = strings.TrimSuffix(part, "~")
		pieces := strings.Split(part, "~")
		jwt := strings.Split(pieces[0], ".")
		sum := sha256.Sum256([]byte(jwt[0] + "." + jwt[1]))
		sig := unb64(jwt[2])
		var header struct{ Alg, Typ string }
		if err := json.Unmarshal(unb64(jwt[0]), &header); err != nil || header.Alg != "ES256" || len(sig) != 64 {
			return fmt.Errorf("link %d is not signed by ES256", i)
		}
		if !ecdsa.Verify(pub, sum[:], new(big.Int).SetBytes(sig[:32]), new(big.Int).SetBytes(sig[32:])) {
			return fmt.Errorf("the signature of link %d does not hold", i)
		}
		var payload struct {
			Delegate []map[string]string `json:"delegate_payload"`
			SDHash   string              `json:"sd_hash"`
			Alg      string              `json:"_sd_alg"`
			Aud      string
			Nonce    string
			Iat      int64
		}
		if err := json.Unmarshal(unb64(jwt[1]), &payload); err != nil || payload.Alg != "sha-256" || len(payload.Delegate) != 1 {
			return fmt.Errorf("link %d: %w", i, err)
		}
		if i > 0 {
			h := sha256.Sum256([]byte(previous))
			if payload.SDHash != base64.RawURLEncoding.EncodeToString(h[:]) || payload.Aud == "" || payload.Nonce == "" || payload.Iat == 0 {
				return fmt.Errorf("link %d is not bound to the one before", i)
			}
		}
		previous = part + "~"
		h := sha256.Sum256([]byte(pieces[1]))
		if payload.Delegate[0]["..."] != base64.RawURLEncoding.EncodeToString(h[:]) {
			return fmt.Errorf("link %d does not disclose what was signed", i)
		}
		var disclosure []json.RawMessage
		if err := json.Unmarshal(unb64(pieces[1]), &disclosure); err != nil || len(disclosure) != 2 {
			return fmt.Errorf("link %d: %w", i, err)
		}
		var open struct {
			VCT         string
			Exp         int64
			Cnf         struct{ JWK struct{ X, Y string } }
			Constraints []struct {
				Type, Currency, Frequency string
				Max                       float64
				Allowed                   []json.RawMessage
				NotBefore                 string `json:"not_before"`
			}
		}
		if err := json.Unmarshal(disclosure[1], &open); err != nil {
			return fmt.Errorf("link %d: %w", i, err)
		}
		if open.VCT == "mandate.payment.1" {
			if header.Typ != "kb+sd-jwt" {
				return fmt.Errorf("link %d is no end", i)
			}
			continue
		}
		if open.VCT != "mandate.payment.open.1" || (i > 0 && header.Typ != "kb+sd-jwt+kb") {
			return fmt.Errorf("link %d is no open Payment mandate", i)
		}
		for _, c := range open.Constraints {
			switch c.Type {
			case "payment.amount_range":
				if c.Currency != "USD" || float64(cents) > c.Max {
					return fmt.Errorf("%d cents are above the range", cents)
				}
			case "payment.budget":
				if c.Currency != "USD" || cents > int64(c.Max*100) {
					return fmt.Errorf("%d cents are above the budget", cents)
				}
			case "payment.allowed_payees":
				found := false
				for _, raw := range c.Allowed {
					var a struct{ ID string }
					found = found || (json.Unmarshal(raw, &a) == nil && a.ID == payee)
				}
				if !found {
					return fmt.Errorf("%s may not be paid", payee)
				}
			case "payment.agent_recurrence", "payment.execution_date":
			default:
				return fmt.Errorf("unknown constraint %s", c.Type)
			}
		}
		next, err := ecdsa.ParseUncompressedPublicKey(elliptic.P256(), slices.Concat([]byte{4}, unb64(open.Cnf.JWK.X), unb64(open.Cnf.JWK.Y)))
		if err != nil {
			return fmt.Errorf("read the key of the next hop: %w", err)
		}
		pub = next
	}
	return nil
}

func TestAnotherReaderOfAP2(t *testing.T) {
	root, a, b := newKey(t, "org"), newKey(t, "a"), newKey(t, "b")
	fifty, five := 50*money.Dollar, 5*money.Dollar
	three := int64(3)
	grant := mandate.Grant{Intent: "research", Total: &fifty, PerAction: &five, Payees: []string{"host:a.example"}, Until: now.Add(time.Hour), Sessions: &three}
	require.True(t, grant.OnlyAP2())
	closed := func(chain sdjwt.Chain, by key, cents int64) string {
		last, err := mandate.Close(by.sign, chain[len(chain)-1], mandate.Closed{
			Type: mandate.TypeClosed, TransactionID: "t", Payee: mandate.Party{ID: "host:a.example", Name: "a"}, Amount: mandate.CentAmount{Amount: cents, Currency: "USD"},
			Instrument: mandate.Instrument{ID: "org_x", Type: "ledger"},
		}, sdjwt.Occasion{Audience: "host:a.example", Nonce: "t", At: now})
		require.NoError(t, err)
		return append(chain, last).String()
	}
	chain := signedChain(t, root, []key{a}, []mandate.Grant{grant})
	text := closed(chain, a, 500)
	require.NoError(t, elsewhere(text, &root.private.PublicKey, "host:a.example", 500))
	_, err := mandate.VerifyChain(text, root.public(), mandate.Ask{Expect: sdjwt.Expect{Now: now}, Strict: true})
	require.NoError(t, err)
	require.ErrorContains(t, elsewhere(closed(chain, a, 501), &root.private.PublicKey, "host:a.example", 501), "above the range")
	require.ErrorContains(t, elsewhere(text, &root.private.PublicKey, "host:b.example", 500), "may not be paid")
	require.ErrorContains(t, elsewhere(closed(chain, b, 1), &root.private.PublicKey, "host:a.example", 1), "does not hold")

	// Ours say more than it knows: it refuses them, whoever signed.
	grant.Tools = []string{"http_request"}
	require.False(t, grant.OnlyAP2())
	text = closed(signedChain(t, root, []key{a}, []mandate.Grant{grant}), a, 1)
	require.ErrorContains(t, elsewhere(text, &root.private.PublicKey, "host:a.example", 1), "unknown constraint ambit.tools")
	_, err = mandate.VerifyChain(text, root.public(), mandate.Ask{Expect: sdjwt.Expect{Now: now}, Strict: true})
	var u *mandate.Unacceptable
	require.ErrorAs(t, err, &u)
	require.Equal(t, "ambit.tools", u.Constraint)
	_, err = mandate.VerifyChain(text, root.public(), mandate.Ask{Expect: sdjwt.Expect{Now: now}})
	require.NoError(t, err)
}

func TestTheSentenceSaysWhatIsSigned(t *testing.T) {
	fifty, five := 50*money.Dollar, 5*money.Dollar
	g := mandate.Grant{Intent: "research", Total: &fifty, PerAction: &five, Tools: []string{"http_request"}, Until: time.Date(2026, 11, 27, 17, 0, 0, 0, time.UTC), Depth: 1}
	require.Equal(t, "Scout may spend up to $50.00 in all, at most $5.00 an action, on “research”. It may use only these tools: http_request. It may pay anybody. "+
		"It ends on Friday, 27 November 2026 at 17:00:00 UTC. It may hand parts of it on to others, one level deep.", g.Sentence("Scout"))
}

func BenchmarkVerifyChainOfThree(b *testing.B) {
	root, x, y, z := newKey(b, "org"), newKey(b, "a"), newKey(b, "b"), newKey(b, "c")
	amount := func(n money.Nanos) *money.Nanos { return &n }
	text := signedChain(b, root, []key{x, y, z}, []mandate.Grant{
		{Intent: "a", Total: amount(50 * money.Dollar), Until: now.Add(time.Hour), Depth: 2},
		{Intent: "b", Total: amount(20 * money.Dollar), Until: now.Add(time.Hour), Depth: 1},
		{Intent: "c", Total: amount(5 * money.Dollar), Until: now.Add(time.Hour)},
	}).String()
	public := root.public()
	for b.Loop() {
		if _, err := mandate.VerifyChain(text, public, mandate.Ask{Expect: sdjwt.Expect{Now: now, Type: mandate.RootType}}); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "chains/s")
	b.ReportMetric(3*float64(b.N)/b.Elapsed().Seconds(), "mandates/s")
}
