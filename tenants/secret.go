package tenants

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"hash/crc32"
	"strings"
)

// An API key is "amb_", 34 random characters of base 62 (202 bits), and 6 characters of base 62 that are the CRC-32 of all before them.
// The checksum tells a mistyped or cut key from an unknown one without a look-up, and lets scanners of leaked secrets be sure of a find.
const (
	keyMark        = "amb_"
	keyRandomLen   = 34
	keyChecksumLen = 6
	keyLen         = len(keyMark) + keyRandomLen + keyChecksumLen
	// keyShownLen is how much of a key is kept to recognise it by; 166 bits stay unknown.
	keyShownLen = len(keyMark) + 6
)

const base62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// newKeySecret makes an API key's secret.
func newKeySecret() string {
	var b strings.Builder
	b.WriteString(keyMark)
	var buf [1]byte
	for b.Len() < len(keyMark)+keyRandomLen {
		_, _ = rand.Read(buf[:]) // never fails: crypto/rand ends the program instead
		// 248 is the highest multiple of 62 in a byte: above it some characters would be likelier than others.
		if buf[0] < 248 {
			b.WriteByte(base62[buf[0]%62])
		}
	}
	body := b.String()
	return body + keyChecksum(body)
}

// keyChecksum is the CRC-32 (IEEE) of s in base 62, with leading zeros.
func keyChecksum(s string) string {
	sum := crc32.ChecksumIEEE([]byte(s))
	var out [keyChecksumLen]byte
	for i := keyChecksumLen - 1; i >= 0; i-- {
		out[i] = base62[sum%62]
		sum /= 62
	}
	return string(out[:])
}

// wellFormedKey reports whether s has a key's length, alphabet and checksum. Nothing in it depends on a stored secret, so its time may
// differ.
func wellFormedKey(s string) bool {
	if len(s) != keyLen || !strings.HasPrefix(s, keyMark) {
		return false
	}
	for _, c := range []byte(s[len(keyMark):]) {
		if strings.IndexByte(base62, c) < 0 {
			return false
		}
	}
	body := s[:keyLen-keyChecksumLen]
	return s[len(body):] == keyChecksum(body)
}

// newToken makes an opaque secret of 256 bits, for sign-ins and mailed links.
func newToken() string {
	var raw [32]byte
	_, _ = rand.Read(raw[:])
	return base64.RawURLEncoding.EncodeToString(raw[:])
}

// wellFormedToken spares the database what can't be a token.
func wellFormedToken(s string) bool {
	raw, err := base64.RawURLEncoding.DecodeString(s)
	return err == nil && len(raw) == 32
}

// digestOf is what is stored of a secret. The secrets are random and long, so a plain hash can't be searched.
func digestOf(secret string) []byte {
	sum := sha256.Sum256([]byte(secret))
	return sum[:]
}
