package seal_test

import (
	"encoding/base64"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/internal/seal"
)

func TestWhatIsSealedOpensForItsPurposeOnly(t *testing.T) {
	s, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	rapid.Check(t, func(t *rapid.T) {
		secret := rapid.SliceOf(rapid.Byte()).Draw(t, "secret")
		purpose := rapid.String().Draw(t, "purpose")
		sealed, err := s.Seal(secret, purpose)
		require.NoError(t, err)
		got, err := s.Unseal(sealed, purpose)
		require.NoError(t, err)
		require.Equal(t, string(secret), string(got))
		_, err = s.Unseal(sealed, purpose+"x")
		require.ErrorIs(t, err, seal.ErrBroken)

		at := rapid.IntRange(0, len(sealed)-1).Draw(t, "at")
		sealed[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		_, err = s.Unseal(sealed, purpose)
		require.Error(t, err, "one changed byte")
		_, err = s.Unseal(sealed[:at], purpose)
		require.Error(t, err, "cut")
	})
}

func TestTheSameSecretIsSealedDifferentlyEachTime(t *testing.T) {
	s, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	a, err := s.Seal([]byte("the same"), "p")
	require.NoError(t, err)
	b, err := s.Seal([]byte("the same"), "p")
	require.NoError(t, err)
	require.NotEqual(t, a, b)
	require.NotContains(t, string(a), "the same")
}

func TestAChangedMasterKeyStillOpensWhatTheOldOneSealed(t *testing.T) {
	older, newer := seal.NewKey(), seal.NewKey()
	was, err := seal.Open(older, "")
	require.NoError(t, err)
	sealed, err := was.Seal([]byte("kept"), "p")
	require.NoError(t, err)

	now, err := seal.Open(newer+","+older, "")
	require.NoError(t, err)
	got, err := now.Unseal(sealed, "p")
	require.NoError(t, err)
	require.Equal(t, "kept", string(got))
	require.True(t, now.Stale(sealed))
	again, err := now.Seal(got, "p")
	require.NoError(t, err)
	require.False(t, now.Stale(again))

	alone, err := seal.Open(newer, "")
	require.NoError(t, err)
	_, err = alone.Unseal(sealed, "p")
	require.ErrorIs(t, err, seal.ErrUnknownKey)
	require.ErrorContains(t, err, was.KeyID())
}

func TestTheKeyFileIsMadeOnceAndForItsOwnerAlone(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data")
	file := filepath.Join(dir, "master.key")
	var wg sync.WaitGroup
	ids := make([]string, 8)
	errs := make([]error, len(ids))
	for i := range ids {
		wg.Go(func() {
			s, err := seal.Open("", file)
			if errs[i] = err; err == nil {
				ids[i] = s.KeyID()
			}
		})
	}
	wg.Wait()
	for i := range ids {
		require.NoError(t, errs[i])
		require.Equal(t, ids[0], ids[i], "all processes that start at once take the same key")
	}
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1, "no leftover of the making")
}

func TestAKeyFileThatOthersCanReadIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "master.key")
	_, err := seal.Open("", file)
	require.NoError(t, err)
	require.NoError(t, os.Chmod(file, 0o644))
	_, err = seal.Open("", file)
	require.ErrorContains(t, err, "chmod 600")
}

func TestKeysInEachForm(t *testing.T) {
	raw := []byte(strings.Repeat("\xfb\xff", 16))
	var first string
	for name, text := range map[string]string{
		"base64":          base64.StdEncoding.EncodeToString(raw),
		"base64 unpadded": base64.RawStdEncoding.EncodeToString(raw),
		"base64 of URLs":  base64.URLEncoding.EncodeToString(raw),
		"hexadecimal":     hex.EncodeToString(raw),
		"with a newline":  hex.EncodeToString(raw) + "\n",
	} {
		s, err := seal.Open(text, "")
		require.NoError(t, err, name)
		if first == "" {
			first = s.KeyID()
		}
		require.Equal(t, first, s.KeyID(), name)
	}
}

func TestABadKeyIsNeverRepeatedInTheError(t *testing.T) {
	for _, text := range []string{"hunter2-hunter2", strings.Repeat("ab", 31), seal.NewKey() + ",hunter2", ","} {
		_, err := seal.Open(text, "")
		require.Error(t, err, text)
		require.NotContains(t, err.Error(), "hunter2")
		require.NotContains(t, err.Error(), "abab")
	}
	k := seal.NewKey()
	_, err := seal.Open(k+" "+k, "")
	require.ErrorContains(t, err, "twice")
}

func TestDerivedSecretsFollowFromKeyAndPurpose(t *testing.T) {
	k := seal.NewKey()
	a, err := seal.Open(k, "")
	require.NoError(t, err)
	b, err := seal.Open(k, "")
	require.NoError(t, err)
	other, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	require.Len(t, a.Derive("p"), 32)
	require.Equal(t, a.Derive("p"), b.Derive("p"))
	require.NotEqual(t, a.Derive("p"), a.Derive("q"))
	require.NotEqual(t, a.Derive("p"), other.Derive("p"))
}

func FuzzUnseal(f *testing.F) {
	s, err := seal.Open(seal.NewKey(), "")
	require.NoError(f, err)
	good, err := s.Seal([]byte("x"), "p")
	require.NoError(f, err)
	f.Add(good)
	f.Add([]byte{1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, sealed []byte) {
		got, err := s.Unseal(sealed, "p")
		if err == nil && string(got) != "x" {
			t.Fatalf("a forged value opened")
		}
	})
}
