package observability

import (
	"time"

	"ambit.dev/ambit/internal/id"
)

// crockford is the alphabet of ids, in ascending order.
const crockford = "0123456789abcdefghjkmnpqrstvwxyz"

// firstSessionAt is the smallest id that a session made at t can have. Session
// ids begin with the time of their making, in milliseconds, so a stretch of time
// is a range of ids, and with it a range of the sorting key.
func firstSessionAt(t time.Time) string {
	// 26 characters of 5 bits hold 130: the time's 48 bits follow 2 bits of zero
	// and fill the first ten characters exactly.
	const chars, timeChars = 26, 10
	var b [chars]byte
	ms := uint64(max(0, t.UnixMilli())) & (1<<48 - 1)
	for i := timeChars - 1; i >= 0; i-- {
		b[i] = crockford[ms&31]
		ms >>= 5
	}
	for i := timeChars; i < chars; i++ {
		b[i] = crockford[0]
	}
	return id.Session("").Prefix() + "_" + string(b[:])
}
