package ratelimit_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/internal/ratelimit"
)

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestQuotaIsGivenAtOnceAndComesBackEvenly(t *testing.T) {
	l := ratelimit.New(ratelimit.Policy{Name: "default", Quota: 60, Window: time.Minute})
	for i := range 60 {
		d := l.Take("key", start)
		require.True(t, d.Allowed, i)
		require.Equal(t, 59-i, d.Remaining)
	}
	d := l.Take("key", start)
	require.False(t, d.Allowed)
	require.Equal(t, time.Second, d.RetryAfter)
	require.Equal(t, time.Minute, d.Reset)

	require.True(t, l.Take("other", start).Allowed, "each key has its own bucket")
	require.False(t, l.Take("key", start.Add(999*time.Millisecond)).Allowed)
	require.True(t, l.Take("key", start.Add(1001*time.Millisecond)).Allowed)
}

func TestIdleBucketsAreForgotten(t *testing.T) {
	l := ratelimit.New(ratelimit.Policy{Quota: 10, Window: time.Minute})
	for i := range 1000 {
		l.Take(fmt.Sprint(i), start)
	}
	require.Equal(t, 1000, l.Len())
	l.Take("late", start.Add(2*time.Minute))
	require.Equal(t, 1, l.Len())
}

func TestNeverMoreThanTheQuotaPlusWhatCameBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		quota := rapid.IntRange(1, 50).Draw(t, "quota")
		l := ratelimit.New(ratelimit.Policy{Quota: quota, Window: time.Minute})
		now, allowed := start, 0
		for range rapid.IntRange(1, 200).Draw(t, "requests") {
			// The clock may also step back.
			now = now.Add(time.Duration(rapid.IntRange(-500, 3000).Draw(t, "ms")) * time.Millisecond)
			if l.Take("key", now).Allowed {
				allowed++
			}
		}
		latest := now.Add(time.Minute) // generous by what stepping back can hide
		most := float64(quota) + latest.Sub(start).Seconds()*float64(quota)/60
		if float64(allowed) > most+1 {
			t.Fatalf("%d were allowed, at most %.1f may be", allowed, most)
		}
	})
}
