package ratelimit

import (
	"math"
	"time"
)

// Policy is a quota over a window: Quota may be used at once, and it is whole again after Window.
type Policy struct {
	Name   string
	Quota  int
	Window time.Duration
}

// slice is how much of the quota a process takes at a time.
func (p Policy) slice() int64 { return max(1, int64(p.Quota)/50) }

func (p Policy) perSecond() float64 { return float64(p.Quota) / p.Window.Seconds() }

// Ask is about one bucket: a subject's, such as "organization" or "key:key_…", under a policy.
type Ask struct {
	Subject string
	Policy  Policy
}

// Decision is what a bucket has for one more.
type Decision struct {
	Policy  Policy
	Allowed bool
	// Remaining is how many more may come at once now.
	Remaining int
	// Reset is how long until the quota is whole again.
	Reset time.Duration
	// RetryAfter is how long until one more may come; zero when one may now.
	RetryAfter time.Duration
}

// decide says what follows from what is left.
func (p Policy) decide(left float64, allowed bool) Decision {
	left = math.Min(left, float64(p.Quota))
	d := Decision{Policy: p, Allowed: allowed, Remaining: int(math.Max(0, left)), Reset: p.timeFor(float64(p.Quota) - left)}
	if !allowed {
		d.RetryAfter = max(time.Millisecond, p.timeFor(1-left))
	}
	return d
}

func (p Policy) timeFor(tokens float64) time.Duration {
	return time.Duration(math.Max(0, tokens) / p.perSecond() * float64(time.Second))
}
