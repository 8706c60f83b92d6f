package canonical_test

import (
	"crypto/sha256"
	"encoding/json"
	"testing"

	"github.com/gowebpki/jcs"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/internal/canonical"
)

func TestDigestIsPlainJCSForOrdinaryNumbers(t *testing.T) {
	got, err := canonical.Digest(json.RawMessage(`{"b": 0.10, "a": [1, 2.0, "é<"]}`))
	require.NoError(t, err)
	require.Equal(t, sha256.Sum256([]byte(`{"a":[1,2,"é<"],"b":0.1}`)), got)
}

func TestDigestTellsApartWhatADoubleDoesNot(t *testing.T) {
	for _, pair := range [][2]string{
		{`{"n":9007199254740993}`, `{"n":9007199254740992}`},
		{`{"n":1e400}`, `{"n":1e401}`},
		{`{"n":1e-400}`, `{"n":0}`},
		{`[0.1]`, `[0.10000000000000000001]`},
		{`[9007199254740993,9007199254740992]`, `[9007199254740992,9007199254740993]`},
	} {
		a, err := canonical.Digest(json.RawMessage(pair[0]))
		require.NoError(t, err)
		b, err := canonical.Digest(json.RawMessage(pair[1]))
		require.NoError(t, err)
		require.NotEqual(t, a, b, "%s and %s", pair[0], pair[1])
	}
}

func TestDigestRefusesWhatIsNotJSON(t *testing.T) {
	for _, bad := range []string{``, `{`, `{} {}`, `nul`} {
		_, err := canonical.Digest(json.RawMessage(bad))
		require.ErrorIs(t, err, canonical.ErrNotJSON, bad)
	}
}

func TestDigestIgnoresOrderAndSpace(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.MapOf(rapid.String(), rapid.Int64Range(-1<<53, 1<<53)).Draw(t, "object")
		compact, err := json.Marshal(m)
		require.NoError(t, err)
		spaced, err := json.MarshalIndent(m, " ", "\t")
		require.NoError(t, err)
		a, err := canonical.Digest(json.RawMessage(compact))
		require.NoError(t, err)
		b, err := canonical.Digest(json.RawMessage(spaced))
		require.NoError(t, err)
		require.Equal(t, a, b)
	})
}

// values are arbitrary JSON documents.
func values(depth int) *rapid.Generator[any] {
	leaves := rapid.OneOf(
		rapid.Just[any](nil), rapid.Map(rapid.Bool(), func(b bool) any { return b }), rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.Float64(), func(f float64) any { return f }), rapid.Map(rapid.Int64Range(-1<<53, 1<<53), func(n int64) any { return n }),
	)
	if depth == 0 {
		return leaves
	}
	inner := rapid.Deferred(func() *rapid.Generator[any] { return values(depth - 1) })
	keys := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"", "\u20ac", "\r", "\ufb33", "1", "\U0001F600", "\u0080", "\u00f6", "\ue000", "a", "A"}))
	return rapid.OneOf(leaves, rapid.Map(rapid.SliceOfN(inner, 0, 4), func(s []any) any { return s }),
		rapid.Map(rapid.MapOfN(keys, inner, 0, 5), func(m map[string]any) any { return m }))
}

func TestJSONIsWhatTheReferenceSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := values(3).Draw(t, "value")
		raw, err := json.Marshal(v)
		require.NoError(t, err)
		want, err := jcs.Transform(raw)
		require.NoError(t, err)
		got, err := canonical.JSON(v)
		require.NoError(t, err)
		require.Equal(t, string(want), string(got))
	})
}

func TestDigestIsTheHashOfWhatTheReferenceSays(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := values(3).Draw(t, "value")
		raw, err := json.Marshal(v)
		require.NoError(t, err)
		want, err := jcs.Transform(raw)
		require.NoError(t, err)
		got, err := canonical.Digest(v)
		require.NoError(t, err)
		require.Equal(t, sha256.Sum256(want), got)
	})
}

func FuzzDigest(f *testing.F) {
	f.Add([]byte(`{"a":[1e21,-0,"\u0000",{"b":9007199254740993}]}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, err := canonical.Digest(json.RawMessage(raw))
		if err != nil {
			return
		}
		b, err := canonical.Digest(json.RawMessage(append([]byte(" \n"), raw...)))
		require.NoError(t, err)
		require.Equal(t, a, b)
	})
}
