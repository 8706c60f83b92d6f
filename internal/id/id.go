package id

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

// Kind is implemented by each id type of this package and by nothing else.
type Kind interface {
	~string
	// Prefix is the part before the underscore.
	Prefix() string
}

// alphabet is Crockford's base 32, lower case: no i, l, o or u.
const alphabet = "0123456789abcdefghjkmnpqrstvwxyz"

// encodedLen is the number of characters of 128 bits in base 32; the first carries only two bits' worth of leading zeros.
const encodedLen = 26

// ErrMalformed is wrapped by every error of Parse.
var ErrMalformed = errors.New("malformed id")

var decodeTable = func() (t [256]int8) {
	for i := range t {
		t[i] = -1
	}
	for i, c := range []byte(alphabet) {
		t[c] = int8(i)
	}
	return t
}()

// New makes an id that was never made before. It panics when the system's random source fails, as nothing can go on without one.
func New[T Kind]() T {
	var zero T
	return T(zero.Prefix() + "_" + encode(uuid.Must(uuid.NewV7())))
}

// Floor returns the smallest id that could have been made at t: every id of this kind made in that millisecond or later is not below it. It
// is for ranges, and names nothing.
func Floor[T Kind](t time.Time) T {
	var zero T
	var u uuid.UUID
	ms := uint64(max(t.UnixMilli(), 0)) //nolint:gosec // not negative
	for i := range 6 {
		u[i] = byte(ms >> (40 - 8*i)) //nolint:gosec // the low eight bits are wanted
	}
	return T(zero.Prefix() + "_" + encode(u))
}

// Parse checks that s is an id of kind T: its prefix, its length, its alphabet. It does not say whether anything has that id.
func Parse[T Kind](s string) (T, error) {
	var zero T
	prefix := zero.Prefix()
	rest, ok := strings.CutPrefix(s, prefix+"_")
	if !ok {
		return "", fmt.Errorf("%w: want one that begins with %q", ErrMalformed, prefix+"_")
	}
	if !validBody(rest) {
		return "", fmt.Errorf("%w: after %q come %d characters of %s", ErrMalformed, prefix+"_", encodedLen, alphabet)
	}
	return T(s), nil
}

// PrefixOf returns the part of s before the underscore when s has the shape of an id of any kind, and "" otherwise.
func PrefixOf(s string) string {
	prefix, rest, ok := strings.Cut(s, "_")
	if !ok || len(prefix) != 3 || !validBody(rest) {
		return ""
	}
	return prefix
}

func validBody(s string) bool {
	// 26 characters hold 130 bits: the first may not exceed 7, or the value would not fit in 128.
	if len(s) != encodedLen || decodeTable[s[0]] < 0 || decodeTable[s[0]] > 7 {
		return false
	}
	for i := range len(s) {
		if decodeTable[s[i]] < 0 {
			return false
		}
	}
	return true
}

func encode(u uuid.UUID) string {
	var out [encodedLen]byte
	// Two words of 64 bits are read from the low end, five bits at a time.
	hi := be64(u[0:8])
	lo := be64(u[8:16])
	for i := encodedLen - 1; i >= 0; i-- {
		out[i] = alphabet[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return string(out[:])
}

func be64(b []byte) (v uint64) {
	for _, x := range b {
		v = v<<8 | uint64(x)
	}
	return v
}
