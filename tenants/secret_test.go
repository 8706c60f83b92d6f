package tenants

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

func TestAKeyIsWellFormedAndNeverRepeats(t *testing.T) {
	seen := map[string]bool{}
	for range 2000 {
		s := newKeySecret()
		require.True(t, wellFormedKey(s), s)
		require.Len(t, s, 44)
		require.False(t, seen[s])
		seen[s] = true
	}
}

func TestASlipOfTheFingerIsAlwaysNoticed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := newKeySecret()
		at := rapid.IntRange(0, len(s)-1).Draw(t, "at")

		other := rapid.ByteRange(' ', '~').Filter(func(c byte) bool { return c != s[at] }).Draw(t, "other")
		require.False(t, wellFormedKey(s[:at]+string(other)+s[at+1:]), "one character replaced")

		if at+1 < len(s) && s[at] != s[at+1] {
			require.False(t, wellFormedKey(s[:at]+string(s[at+1])+string(s[at])+s[at+2:]), "two neighbours swapped")
		}
		require.False(t, wellFormedKey(s[:at]+s[at+1:]), "one character left out")
		require.False(t, wellFormedKey(s[:at]+string(s[at])+s[at:]), "one character doubled")
		require.False(t, wellFormedKey(s[:at]), "cut")
	})
}

func TestTheCaseOfAKeyCounts(t *testing.T) {
	s := newKeySecret()
	require.False(t, wellFormedKey(strings.ToUpper(s)))
}

func FuzzWellFormedKey(f *testing.F) {
	f.Add(newKeySecret())
	f.Add("amb_")
	f.Add("amb_" + strings.Repeat("0", 40))
	f.Add(strings.Repeat("\xff", keyLen))
	f.Fuzz(func(t *testing.T, s string) {
		if !wellFormedKey(s) {
			return
		}
		require.Len(t, s, keyLen)
		require.True(t, strings.HasPrefix(s, keyMark))
		require.Equal(t, s[keyLen-keyChecksumLen:], keyChecksum(s[:keyLen-keyChecksumLen]))
	})
}

func FuzzWellFormedToken(f *testing.F) {
	f.Add(newToken())
	f.Add("")
	f.Fuzz(func(t *testing.T, s string) {
		if wellFormedToken(s) {
			require.Len(t, strings.NewReplacer("\r", "", "\n", "").Replace(s), 43)
		}
	})
}
