package identity_test

import (
	"context"
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/tenants/identity"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))
}

type fixture struct {
	db     *postgres.DB
	owner  string
	hands  *clock.Offset
	master string
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{hands: clock.NewOffset(0), master: seal.NewKey()}
	f.db, f.owner = dbtest.NewWithOwner(t)
	return f
}

func (f *fixture) keyring(t *testing.T, master string) *identity.Keyring {
	t.Helper()
	sealer, err := seal.Open(master, "")
	require.NoError(t, err)
	return identity.New(f.db, identity.Deps{Clock: f.hands, Logger: slog.New(slog.DiscardHandler), Sealer: sealer})
}

func (f *fixture) started(t *testing.T) *identity.Keyring {
	t.Helper()
	k := f.keyring(t, f.master)
	require.NoError(t, k.Start(t.Context()))
	t.Cleanup(func() { require.NoError(t, k.Stop(context.Background())) })
	return k
}

func (f *fixture) asOwner(t *testing.T, query string) (v string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.owner)
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // read only
	require.NoError(t, conn.QueryRow(t.Context(), query).Scan(&v))
	return v
}

type claims struct {
	Subject string `json:"sub"`
}

func sign(t *testing.T, k *identity.Keyring, subject string) string {
	t.Helper()
	token, err := k.Sign(t.Context(), claims{subject})
	require.NoError(t, err)
	return token
}

func keyOf(t *testing.T, token string) string {
	t.Helper()
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	require.NoError(t, err)
	return jws.Signatures[0].Header.KeyID
}

func TestASignatureIsCheckedWithThePublishedKeysAlone(t *testing.T) {
	k := newFixture(t).started(t)
	token := sign(t, k, "ses_1")
	document, err := k.JWKS()
	require.NoError(t, err)

	// By hand, with the standard library only, as a stranger would.
	var set struct {
		Keys []struct{ Kty, Crv, Alg, Use, Kid, X, D string }
	}
	require.NoError(t, json.Unmarshal(document, &set))
	require.Len(t, set.Keys, 1)
	published := set.Keys[0]
	require.Equal(t, []string{"OKP", "Ed25519", "EdDSA", "sig", ""}, []string{published.Kty, published.Crv, published.Alg, published.Use, published.D})
	parts := strings.Split(token, ".")
	require.Len(t, parts, 3)
	header, err := base64.RawURLEncoding.DecodeString(parts[0])
	require.NoError(t, err)
	require.JSONEq(t, `{"alg":"EdDSA","kid":"`+published.Kid+`","typ":"JWT"}`, string(header))
	x, err := base64.RawURLEncoding.DecodeString(published.X)
	require.NoError(t, err)
	signature, err := base64.RawURLEncoding.DecodeString(parts[2])
	require.NoError(t, err)
	require.True(t, ed25519.Verify(x, []byte(parts[0]+"."+parts[1]), signature))

	got, err := k.Verify(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, published.Kid, got.KeyID)
	require.Equal(t, "JWT", got.Type)
	require.JSONEq(t, `{"sub":"ses_1"}`, string(got.Payload))
}

func TestForgeriesAreRefused(t *testing.T) {
	f := newFixture(t)
	k := f.started(t)
	token := sign(t, k, "ses_1")
	other := sign(t, newFixture(t).started(t), "ses_1")
	parts := strings.Split(token, ".")
	b64 := base64.RawURLEncoding.EncodeToString
	hmacSigner, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.HS256, Key: jose.JSONWebKey{Key: []byte(strings.Repeat("k", 32)), KeyID: keyOf(t, token)}}, nil)
	require.NoError(t, err)
	hmac, err := hmacSigner.Sign([]byte(`{"sub":"ses_1"}`))
	require.NoError(t, err)
	confused, err := hmac.CompactSerialize()
	require.NoError(t, err)

	for name, forged := range map[string]string{
		"empty":              "",
		"no token":           "a.b.c",
		"other payload":      parts[0] + "." + b64([]byte(`{"sub":"ses_2"}`)) + "." + parts[2],
		"no signature":       parts[0] + "." + parts[1] + ".",
		"alg none":           b64([]byte(`{"alg":"none"}`)) + "." + parts[1] + ".",
		"another algorithm":  confused,
		"another instance's": other,
		"another's key id":   b64([]byte(`{"alg":"EdDSA","kid":"`+keyOf(t, other)+`"}`)) + "." + parts[1] + "." + parts[2],
		"no key id":          b64([]byte(`{"alg":"EdDSA"}`)) + "." + parts[1] + "." + parts[2],
	} {
		_, err := k.Verify(t.Context(), forged)
		require.ErrorIs(t, err, identity.ErrSignature, name)
	}
}

func TestAllReplicasStartWithOneKey(t *testing.T) {
	f := newFixture(t)
	rings := make([]*identity.Keyring, 5)
	errs := make([]error, len(rings))
	var wg sync.WaitGroup
	for i := range rings {
		rings[i] = f.keyring(t, f.master)
		wg.Go(func() { errs[i] = rings[i].Start(t.Context()) })
	}
	wg.Wait()
	token := ""
	for i, k := range rings {
		require.NoError(t, errs[i])
		if token == "" {
			token = sign(t, k, "x")
		}
		_, err := k.Verify(t.Context(), token)
		require.NoError(t, err)
		require.NoError(t, k.Stop(t.Context()))
	}
	require.Equal(t, "1", f.asOwner(t, "SELECT count(*)::text FROM signing_keys"))
}

func TestRotationOverlaps(t *testing.T) {
	f := newFixture(t)
	k := f.started(t)
	replica := f.started(t)
	before := sign(t, k, "before")

	require.NoError(t, k.Rotate(t.Context()))
	require.NoError(t, k.Rotate(t.Context()), "while a successor waits, nothing more")
	require.Len(t, k.Keys().Keys, 2, "the next key is published before it signs")
	require.Equal(t, keyOf(t, before), keyOf(t, sign(t, k, "x")))

	f.hands.Advance(16 * time.Minute)
	after := sign(t, k, "after")
	require.NotEqual(t, keyOf(t, before), keyOf(t, after))
	got, err := replica.Verify(t.Context(), after)
	require.NoError(t, err, "a replica that did not know the new key looks it up")
	require.JSONEq(t, `{"sub":"after"}`, string(got.Payload))
	require.Equal(t, keyOf(t, after), keyOf(t, sign(t, replica, "x")))

	f.hands.Advance(2 * time.Hour)
	fresh := f.started(t)
	_, err = fresh.Verify(t.Context(), before)
	require.NoError(t, err, "old statements are checked for ever")
	require.Equal(t, "1", f.asOwner(t, "SELECT count(sealed_private)::text FROM signing_keys"), "but nothing new can be signed with the old key")
}

func TestAnOldKeyIsSucceededByItself(t *testing.T) {
	f := newFixture(t)
	k := f.started(t)
	first := keyOf(t, sign(t, k, "x"))
	f.hands.Advance(91 * 24 * time.Hour)
	other := f.started(t) // its first round finds the key too old
	f.hands.Advance(16 * time.Minute)
	next := sign(t, other, "x")
	require.NotEqual(t, first, keyOf(t, next))
	_, err := k.Verify(t.Context(), next)
	require.NoError(t, err)
	require.Equal(t, keyOf(t, next), keyOf(t, sign(t, k, "x")), "who reads the keys again signs with the new one too")
}

func TestARevokedKeyIsWorthNothing(t *testing.T) {
	f := newFixture(t)
	k := f.started(t)
	stolen := sign(t, k, "x")
	found, err := k.Revoke(t.Context(), "no such key")
	require.NoError(t, err)
	require.False(t, found)

	found, err = k.Revoke(t.Context(), keyOf(t, stolen))
	require.NoError(t, err)
	require.True(t, found)
	_, err = k.Verify(t.Context(), stolen)
	require.ErrorIs(t, err, identity.ErrSignature)
	next := sign(t, k, "x")
	require.NotEqual(t, keyOf(t, stolen), keyOf(t, next), "another key signs from now on")
	require.Len(t, k.Keys().Keys, 1)

	// With a successor waiting, that one takes over; and when the waiting one is revoked, the present one goes on.
	require.NoError(t, k.Rotate(t.Context()))
	waiting := k.Keys().Keys[0].KeyID
	require.NotEqual(t, keyOf(t, next), waiting)
	_, err = k.Revoke(t.Context(), keyOf(t, next))
	require.NoError(t, err)
	require.Equal(t, waiting, keyOf(t, sign(t, k, "x")))
	require.NoError(t, k.Rotate(t.Context()))
	_, err = k.Revoke(t.Context(), k.Keys().Keys[0].KeyID)
	require.NoError(t, err)
	sign(t, k, "x")
	f.hands.Advance(16 * time.Minute)
	sign(t, k, "x")
}

func TestAChangedMasterKey(t *testing.T) {
	f := newFixture(t)
	k := f.started(t)
	token := sign(t, k, "x")

	newer := seal.NewKey()
	err := f.keyring(t, newer).Start(t.Context())
	require.ErrorIs(t, err, seal.ErrUnknownKey)
	require.ErrorContains(t, err, "master key")

	both := f.keyring(t, newer+","+f.master)
	require.NoError(t, both.Start(t.Context()))
	require.NoError(t, both.Stop(t.Context()))
	alone := f.keyring(t, newer)
	require.NoError(t, alone.Start(t.Context()), "sealed anew under the new key, the old one is not needed any more")
	require.NoError(t, alone.Stop(t.Context()))
	require.Equal(t, keyOf(t, token), keyOf(t, sign(t, alone, "x")))
}

func TestThePrivateHalfIsNowhereInTheClear(t *testing.T) {
	f := newFixture(t)
	k := f.started(t)
	document, err := k.JWKS()
	require.NoError(t, err)
	require.NotContains(t, string(document), `"d"`)
	require.Equal(t, "false", f.asOwner(t, "SELECT (public_jwk ? 'd')::text FROM signing_keys"))
}

func TestClaimsAreAnObject(t *testing.T) {
	k := newFixture(t).started(t)
	for _, c := range []any{nil, "text", 1, []int{1}, func() {}} {
		_, err := k.Sign(t.Context(), c)
		require.Error(t, err)
	}
	token, err := k.SignAs(t.Context(), "receipt+jwt", map[string]any{"sub": "rcp_1"})
	require.NoError(t, err)
	got, err := k.Verify(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, "receipt+jwt", got.Type)
}

func FuzzVerify(f *testing.F) {
	fx := &fixture{hands: clock.NewOffset(0), master: seal.NewKey()}
	fx.db = dbtest.New(f)
	sealer, err := seal.Open(fx.master, "")
	require.NoError(f, err)
	k := identity.New(fx.db, identity.Deps{Clock: fx.hands, Logger: slog.New(slog.DiscardHandler), Sealer: sealer})
	good, err := k.Sign(f.Context(), claims{"x"})
	require.NoError(f, err)
	f.Add(good)
	f.Add("..")
	f.Add(`{"payload":"","signatures":[]}`)
	f.Fuzz(func(t *testing.T, token string) {
		got, err := k.Verify(t.Context(), token)
		if err == nil && string(got.Payload) != `{"sub":"x"}` {
			t.Fatalf("a forged statement was taken: %q", token)
		}
	})
}

func BenchmarkSign(b *testing.B) {
	sealer, err := seal.Open(seal.NewKey(), "")
	require.NoError(b, err)
	k := identity.New(dbtest.New(b), identity.Deps{Clock: clock.System(), Logger: slog.New(slog.DiscardHandler), Sealer: sealer})
	for b.Loop() {
		if _, err := k.Sign(b.Context(), claims{"x"}); err != nil {
			b.Fatal(err)
		}
	}
}
