package masterkey_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	_ "gocloud.dev/secrets/localsecrets"

	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/masterkey"
	"ambit.dev/ambit/internal/seal"
)

const keeper = "base64key://smGbjm71Nxd1Ig5FS0wj9SlbzAIrnolCz9bQQ6uAhl4="

func settings(t *testing.T, url string) config.Config {
	t.Helper()
	return config.Config{MasterKeyFile: filepath.Join(t.TempDir(), "keys", "master.key"), MasterKeyURL: config.Address(url)}
}

func TestAKeyUnderAServiceIsMadeOnceAndNeverInClear(t *testing.T) {
	cfg := settings(t, keeper)
	var wg sync.WaitGroup
	ids := make([]string, 6)
	for i := range ids {
		wg.Go(func() {
			s, err := masterkey.Open(t.Context(), cfg)
			if err == nil {
				ids[i] = s.KeyID()
			}
		})
	}
	wg.Wait()
	for _, one := range ids {
		require.NotEmpty(t, one)
		require.Equal(t, ids[0], one, "processes that start at once take the same key")
	}
	info, err := os.Stat(cfg.MasterKeyFile)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	entries, err := os.ReadDir(filepath.Dir(cfg.MasterKeyFile))
	require.NoError(t, err)
	require.Len(t, entries, 1)

	other := cfg
	other.MasterKeyURL = "base64key://AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
	_, err = masterkey.Open(t.Context(), other)
	require.ErrorContains(t, err, "did not decrypt")
	raw, err := os.ReadFile(cfg.MasterKeyFile)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(cfg.MasterKeyFile, raw[:len(raw)-9], 0o600))
	_, err = masterkey.Open(t.Context(), cfg)
	require.Error(t, err, "a damaged file")
}

func TestAKeyInUseIsBroughtUnderTheService(t *testing.T) {
	cfg := settings(t, "")
	was, err := masterkey.Open(t.Context(), cfg)
	require.NoError(t, err)
	sealed, err := was.Seal([]byte("kept"), "p")
	require.NoError(t, err)
	clear, err := os.ReadFile(cfg.MasterKeyFile)
	require.NoError(t, err)

	cfg.MasterKeyURL = keeper
	_, err = masterkey.Open(t.Context(), cfg)
	require.ErrorContains(t, err, "made without AMBIT_MASTER_KEY_URL")
	require.NotContains(t, err.Error(), strings.TrimSpace(string(clear)))
	require.NoError(t, os.Remove(cfg.MasterKeyFile))
	cfg.MasterKey = config.Secret(strings.TrimSpace(string(clear)))
	_, err = masterkey.Open(t.Context(), cfg)
	require.NoError(t, err)
	_, err = masterkey.Open(t.Context(), cfg)
	require.NoError(t, err, "the other processes of that start")
	cfg.MasterKey = config.Secret(seal.NewKey())
	_, err = masterkey.Open(t.Context(), cfg)
	require.ErrorContains(t, err, "is not the key that", "two keys are no answer")
	cfg.MasterKey = ""
	now, err := masterkey.Open(t.Context(), cfg)
	require.NoError(t, err)
	got, err := now.Unseal(sealed, "p")
	require.NoError(t, err)
	require.Equal(t, "kept", string(got))
	encrypted, err := os.ReadFile(cfg.MasterKeyFile)
	require.NoError(t, err)
	require.False(t, bytes.Contains(encrypted, bytes.TrimSpace(clear)))
}

func TestAnErrorTellsNoAddress(t *testing.T) {
	for _, address := range []string{"unknown64key://smGbjm71Nxd1Ig5FS0wj9SlbzAIrnolCz9bQQ6uAhl4=", "base64key://smGbjm71Nxd1Ig5FS0wj9SlbzAIrnolCz9bQQ6uAhl4=?more=1", "unknown64key://smGbjm71Nxd1Ig5FS0wj9SlbzAIrnolCz9bQQ6uAhl4=\n"} {
		_, err := masterkey.Open(t.Context(), settings(t, address))
		require.ErrorContains(t, err, "AMBIT_MASTER_KEY_URL")
		require.NotContains(t, err.Error(), "smGbjm71", "an address may hold a key")
	}
}

func TestAnUnusableAddressIsRefused(t *testing.T) {
	for _, bad := range []string{"nowhere://x", "base64key://short", "::"} {
		cfg := settings(t, bad)
		_, err := masterkey.Open(t.Context(), cfg)
		require.ErrorContains(t, err, "AMBIT_MASTER_KEY_URL", bad)
		_, err = os.Stat(cfg.MasterKeyFile)
		require.Error(t, err, "nothing is made")
	}
	cfg := settings(t, keeper)
	cfg.MasterKey = "no key"
	_, err := masterkey.Open(t.Context(), cfg)
	require.Error(t, err)
	_, err = os.Stat(cfg.MasterKeyFile)
	require.Error(t, err)
}

// TestAWSKMS speaks to a server with the wire of AWS KMS (JSON 1.1), which reverses bytes in place of encrypting.
func TestAWSKMS(t *testing.T) {
	var targets []string
	down := false
	kms := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		targets = append(targets, r.Header.Get("X-Amz-Target"))
		if down {
			w.WriteHeader(http.StatusBadRequest)
			_, _ = w.Write([]byte(`{"__type":"AccessDeniedException","message":"no"}`))
			return
		}
		var in struct{ Plaintext, CiphertextBlob []byte }
		if json.NewDecoder(r.Body).Decode(&in) != nil || !strings.HasPrefix(r.Header.Get("Authorization"), "AWS4-HMAC-SHA256 ") {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		_ = json.NewEncoder(w).Encode(map[string]any{"KeyId": "k", "Plaintext": reversed(in.CiphertextBlob), "CiphertextBlob": reversed(in.Plaintext)})
	}))
	t.Cleanup(kms.Close)
	t.Setenv("AWS_ACCESS_KEY_ID", "test")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "test")
	t.Setenv("AWS_EC2_METADATA_DISABLED", "true")
	cfg := settings(t, "awskms:///alias/ambit?region=eu-central-1&endpoint="+url.QueryEscape(kms.URL))
	first, err := masterkey.Open(t.Context(), cfg)
	require.NoError(t, err)
	again, err := masterkey.Open(t.Context(), cfg)
	require.NoError(t, err)
	require.Equal(t, first.KeyID(), again.KeyID())
	require.Equal(t, []string{"TrentService.Encrypt", "TrentService.Decrypt", "TrentService.Decrypt"}, targets)
	down = true
	_, err = masterkey.Open(t.Context(), cfg)
	require.ErrorContains(t, err, "did not decrypt")
	sealed, err := again.Seal([]byte("x"), "p")
	require.NoError(t, err, "who has started works on")
	_, err = first.Unseal(sealed, "p")
	require.NoError(t, err)
}

func reversed(b []byte) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[len(b)-1-i] = b[i]
	}
	return out
}
