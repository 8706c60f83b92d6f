package ratelimit_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/ratelimit"
)

// BenchmarkTake is what a request pays for its key and its organisation: from memory, with a slice now and then, and with a slice each time.
func BenchmarkTake(b *testing.B) {
	db := dbtest.New(b)
	org := dbtest.NewOrg(b, db)
	for name, quota := range map[string]int{"slices of 20000": 1_000_000, "slices of 1": 1} {
		b.Run(name, func(b *testing.B) {
			q := ratelimit.New(db, clock.System(), slog.New(slog.DiscardHandler))
			window := time.Duration(quota) * time.Microsecond // a million a second come back
			key := ratelimit.Ask{Subject: "key:" + name, Policy: ratelimit.Policy{Name: "default", Quota: quota, Window: window}}
			whole := ratelimit.Ask{Subject: "organization", Policy: ratelimit.Policy{Name: name, Quota: quota, Window: window}}
			for b.Loop() {
				d, err := q.Take(b.Context(), org, key, whole)
				require.NoError(b, err)
				require.Len(b, d, 2)
			}
		})
	}
}
