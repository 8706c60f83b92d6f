package id

import (
	"encoding/binary"
	"time"

	"github.com/google/uuid"
)

// FirstAt is the smallest id of its kind that can have been made at t. Ids begin with the time of their making, in milliseconds, so a
// stretch of time is a range of ids, and with it a range of every index that ends with one.
func FirstAt[T Kind](t time.Time) T {
	var u uuid.UUID
	binary.BigEndian.PutUint64(u[:8], uint64(max(0, t.UnixMilli()))<<16) //nolint:gosec // not negative
	var zero T
	return T(zero.Prefix() + "_" + encode(u))
}
