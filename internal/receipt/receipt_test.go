package receipt_test

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/receipt"
)

// instance has a key and publishes it, as an Ambit does.
type instance struct {
	private ed25519.PrivateKey
	public  jose.JSONWebKey
}

func newInstance(t testing.TB) *instance {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	require.NoError(t, err)
	i := &instance{private: private, public: jose.JSONWebKey{Key: public, Algorithm: "EdDSA", Use: "sig"}}
	print, err := i.public.Thumbprint(crypto.SHA256)
	require.NoError(t, err)
	i.public.KeyID = base64.RawURLEncoding.EncodeToString(print)
	return i
}

func (i *instance) keys(t testing.TB) []byte {
	t.Helper()
	raw, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{i.public}})
	require.NoError(t, err)
	return raw
}

func (i *instance) sign(t testing.TB, typ, claims string) string {
	t.Helper()
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: i.private, KeyID: i.public.KeyID}}, (&jose.SignerOptions{}).WithType(jose.ContentType(typ)))
	require.NoError(t, err)
	jws, err := signer.Sign([]byte(claims))
	require.NoError(t, err)
	compact, err := jws.CompactSerialize()
	require.NoError(t, err)
	return compact
}

const kill = `{"type":"kill_receipt","id":"rcp_1","session_id":"ses_root","parent_session_id":null,"epoch":7,"fenced_at":"2026-11-20T10:00:00.5Z",
	"sandbox":{"sandbox_id":"sbx_1","at":"2026-11-20T10:00:00.7Z","by":"allocation","detail":"process 42 was killed and reaped\u001b[2J"},"charged_nanos":123456789,
	"holds_released":[{"hold_id":"hld_1","released_nanos":2000000000,"released_at":"2026-11-20T10:00:00.4Z"}],
	"last_billed":{"ledger_entry_id":"led_1","step_id":"stp_1","amount_nanos":41600,"at":"2026-11-20T10:00:00.4Z"},"last_billed_at":"2026-11-20T10:00:00.4Z",
	"unsettled_steps":["stp_1"],"by":{"type":"api_key","id":"key_1"},"reason":"it ran away","requested_at":"2026-11-20T10:00:00.4Z","stop_id":null,
	"children":[{"session_id":"ses_child","parent_session_id":"ses_root","epoch":2,"fenced_at":"2026-11-20T10:00:00.5Z","sandbox":{"sandbox_id":"","at":"2026-11-20T10:00:01Z","by":"control plane"},
	"charged_nanos":0,"holds_released":[],"last_billed":null,"last_billed_at":null,"unsettled_steps":[]}],"children_already_ended":2}`

// shown is a receipt as the API gives it.
func shown(t testing.TB, claims, signature string) string {
	t.Helper()
	var m map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(claims), &m))
	quoted, err := json.Marshal(signature)
	require.NoError(t, err)
	m["signature"], m["complete"] = quoted, json.RawMessage("true")
	raw, err := json.MarshalIndent(m, "", "  ")
	require.NoError(t, err)
	return string(raw)
}

func TestAGenuineReceiptSaysWhatItProves(t *testing.T) {
	i := newInstance(t)
	signature := i.sign(t, receipt.Type, kill)
	for _, document := range []string{shown(t, kill, signature), signature, "\n " + signature + "\n"} {
		p, err := receipt.Verify([]byte(document), i.keys(t))
		require.NoError(t, err)
		require.Equal(t, "kill_receipt", p.Kind)
		require.Equal(t, i.public.KeyID, p.KeyID)
		var b bytes.Buffer
		require.NoError(t, p.Explain(&b))
		for _, want := range []string{
			"Receipt rcp_1 is genuine", "session ses_root was killed", `by api_key key_1 ("it ran away")`, "epoch 7", "Sandbox sbx_1 was gone at 2026-11-20 10:00:00.700000 UTC",
			"Hold hld_1 was released at 2026-11-20 10:00:00.400000 UTC: $2.00", "The last charge was $0.0000416", "stp_1", "below it: 1 session", "ses_child", "It had no sandbox", "Nothing was ever charged", "2 sessions had ended before",
		} {
			require.Contains(t, b.String(), want)
		}
		require.NotContains(t, b.String(), "\x1b", "a terminal does not obey a receipt")
	}
}

func TestAReceiptOfAScope(t *testing.T) {
	i := newInstance(t)
	claims := `{"type":"stop_receipt","id":"sto_1","scope":{"type":"project","id":"prj_1"},"by":{"type":"user","id":"usr_1"},"reason":"","include_idle":false,"requested_at":"2026-11-20T10:00:00Z",
		"fenced_at":"2026-11-20T10:00:01Z","gone_at":"2026-11-20T10:00:02Z","released_nanos":5,"last_billed_at":null,
		"sessions":[{"session_id":"ses_1","receipt_id":"rcp_1","epoch":3,"fenced_at":"2026-11-20T10:00:01Z","sandbox_gone_at":"2026-11-20T10:00:02Z","released_nanos":5,"last_billed_at":null,"unsettled_steps":1}]}`
	order := `{"type":"stop","id":"sto_1","status":"complete","receipt":` + shown(t, claims, i.sign(t, receipt.Type, claims)) + `}`
	p, err := receipt.Verify([]byte(order), i.keys(t))
	require.NoError(t, err)
	var b bytes.Buffer
	require.NoError(t, p.Explain(&b))
	require.Contains(t, b.String(), "all that worked in project prj_1 was stopped: 1 session.")
	require.Contains(t, b.String(), "sandbox gone at 2026-11-20 10:00:02")

	_, err = receipt.Verify([]byte(`{"type":"stop","id":"sto_1","status":"running","receipt":null}`), i.keys(t))
	require.ErrorContains(t, err, "not complete yet")
}

func TestABadReceiptIsRefusedWithItsReason(t *testing.T) {
	i, other := newInstance(t), newInstance(t)
	signature := i.sign(t, receipt.Type, kill)
	good := shown(t, kill, signature)
	parts := strings.Split(signature, ".")
	forged := strings.Split(i.sign(t, receipt.Type, strings.Replace(kill, "123456789", "1", 1)), ".")
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","kid":"`+i.public.KeyID+`","typ":"receipt+jwt"}`)) + "." + parts[1] + "."
	for name, bad := range map[string]struct{ document, reason string }{
		"empty":                     {" \n", "empty"},
		"not complete":              {shown(t, kill, ""), "no signature"},
		"says so itself":            {strings.Replace(good, `"complete": true`, `"complete": false`, 1), "not complete"},
		"an altered amount":         {strings.Replace(good, "123456789", "123456788", 1), "charged_nanos is not what the instance signed"},
		"an altered child":          {strings.Replace(good, "ses_child", "ses_other", 1), "children is not what"},
		"a member added":            {strings.Replace(good, `"complete": true`, `"complete": true, "note": "all is well"`, 1), "note is not what"},
		"a member left out":         {strings.Replace(good, `"reason": "it ran away",`, "", 1), "reason is not what"},
		"a member twice":            {strings.Replace(good, `"complete": true`, `"complete": true, "epoch": 9`, 1), "stands twice"},
		"cut off":                   {good[:len(good)/2], "not whole"},
		"something after":           {good + "{}", "not whole"},
		"a signature cut off":       {signature[:len(signature)-10], "does not hold"},
		"two parts":                 {parts[0] + "." + parts[1], "not whole"},
		"another payload":           {parts[0] + "." + forged[1] + "." + parts[2], "forged or altered"},
		"no algorithm":              {none, "compact JWS by an Ed25519 key"},
		"another instance's":        {other.sign(t, receipt.Type, kill), "not among the instance's"},
		"another instance's JSON":   {shown(t, kill, other.sign(t, receipt.Type, kill)), "not among the instance's"},
		"another sort of":           {i.sign(t, "JWT", kill), "is not a receipt"},
		"another kind":              {i.sign(t, receipt.Type, `{"type":"hire"}`), "a kind that this program does not know"},
		"words":                     {"hello", "not whole"},
		"a list":                    {"[]", "not whole"},
		"deeper than anybody reads": {"{\"a\":" + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}", "nested too deep"},
	} {
		_, err := receipt.Verify([]byte(bad.document), i.keys(t))
		var refused *receipt.Refused
		require.ErrorAs(t, err, &refused, name)
		require.Contains(t, refused.Reason, bad.reason, name)
	}
	// A key that calls itself by the instance's name is not the instance's.
	impostor := newInstance(t)
	impostor.public.KeyID = i.public.KeyID
	_, err := receipt.Verify([]byte(impostor.sign(t, receipt.Type, kill)), i.keys(t))
	require.ErrorContains(t, err, "forged or altered")

	for _, keys := range []string{"", "{}", `{"keys":[]}`, "<html>"} {
		_, err := receipt.Verify([]byte(good), []byte(keys))
		require.ErrorContains(t, err, "key document")
	}
}

func FuzzVerify(f *testing.F) {
	i := newInstance(f)
	signature := i.sign(f, receipt.Type, kill)
	f.Add([]byte(shown(f, kill, signature)))
	f.Add([]byte(signature))
	f.Add([]byte(`{"type":"stop","receipt":{"signature":"a.b.c"}}`))
	keys := i.keys(f)
	f.Fuzz(func(t *testing.T, document []byte) {
		p, err := receipt.Verify(document, keys)
		if err != nil {
			return
		}
		// Whatever passes is what was signed.
		require.JSONEq(t, kill, string(p.Claims))
		require.NoError(t, p.Explain(&bytes.Buffer{}))
	})
}
