package ratelimit

import (
	"math"
	"sync"
	"time"
)

// Policy is a quota over a window: Quota requests may come at once, and the bucket is full again after Window.
type Policy struct {
	Name   string
	Quota  int
	Window time.Duration
}

// Decision is what became of one request.
type Decision struct {
	Allowed bool
	// Remaining is how many more may come at once now.
	Remaining int
	// Reset is how long until the quota is whole again.
	Reset time.Duration
	// RetryAfter is how long until one more may come; zero when one may now.
	RetryAfter time.Duration
}

// Limiter counts by key. Make it with New.
type Limiter struct {
	policy  Policy
	perSec  float64
	mu      sync.Mutex
	buckets map[string]*bucket
	swept   time.Time
}

type bucket struct {
	tokens float64
	at     time.Time
}

// New returns a Limiter in which every bucket is full.
func New(p Policy) *Limiter {
	return &Limiter{policy: p, perSec: float64(p.Quota) / p.Window.Seconds(), buckets: map[string]*bucket{}}
}

// Policy returns what the limiter enforces.
func (l *Limiter) Policy() Policy { return l.policy }

// Take asks for one token of key's bucket at the time now.
func (l *Limiter) Take(key string, now time.Time) Decision {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sweep(now)
	b := l.buckets[key]
	if b == nil {
		b = &bucket{tokens: float64(l.policy.Quota), at: now}
		l.buckets[key] = b
	}
	// A clock that steps back gives nothing and takes nothing.
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens = math.Min(float64(l.policy.Quota), b.tokens+passed.Seconds()*l.perSec)
		b.at = now
	}
	d := Decision{Allowed: b.tokens >= 1}
	if d.Allowed {
		b.tokens--
	}
	d.Remaining = int(b.tokens)
	d.Reset = l.timeFor(float64(l.policy.Quota) - b.tokens)
	if b.tokens < 1 && !d.Allowed {
		d.RetryAfter = l.timeFor(1 - b.tokens)
	}
	return d
}

func (l *Limiter) timeFor(tokens float64) time.Duration {
	return time.Duration(tokens / l.perSec * float64(time.Second))
}

// sweep forgets buckets that are full again: a full bucket and none at all are the same. Once a window, so that its cost stays small.
func (l *Limiter) sweep(now time.Time) {
	if now.Sub(l.swept) < l.policy.Window {
		return
	}
	l.swept = now
	for key, b := range l.buckets {
		if now.Sub(b.at) >= l.policy.Window {
			delete(l.buckets, key)
		}
	}
}

// Len is the number of buckets that are kept.
func (l *Limiter) Len() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.buckets)
}
