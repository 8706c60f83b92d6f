package api

import (
	"fmt"

	"ambit.dev/ambit/internal/fault"
)

// takeQuota counts the request against its key and says on every answer how much is left (draft-ietf-httpapi-ratelimit-headers-11).
func (a *API) takeQuota(c *call) error {
	p := a.limiter.Policy()
	d := a.limiter.Take(c.who.ID, a.cfg.Clock.Now())
	h := c.w.Header()
	h.Set("RateLimit-Policy", fmt.Sprintf(`"%s";q=%d;w=%d`, p.Name, p.Quota, wholeSeconds(p.Window)))
	h.Set("RateLimit", fmt.Sprintf(`"%s";r=%d;t=%d`, p.Name, d.Remaining, wholeSeconds(d.Reset)))
	if d.Allowed {
		return nil
	}
	return fault.Newf(fault.TooMany, slugRate, "This key may ask %d times in %d seconds. Wait for Retry-After.", p.Quota, wholeSeconds(p.Window)).
		With("violated_policies", []string{p.Name}).After(d.RetryAfter)
}
