package api

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/internal/ratelimit"
	"ambit.dev/ambit/scheduler"
)

const wholeOrg = "organization"

// keyBucket is the subject of a key's own buckets.
func keyBucket(key string) string { return "key:" + key }

// takeQuota counts the request against its key and its organisation, and says on every answer how much is left
// (draft-ietf-httpapi-ratelimit-headers-11). What gives an agent something to do needs some of the quota of tokens besides.
func (a *API) takeQuota(c *call) error {
	ctx, r := c.r.Context(), a.cfg.Rates
	all, err := a.quotas.Take(ctx, c.who.Org,
		ratelimit.Ask{Subject: keyBucket(c.who.ID), Policy: r.Requests}, ratelimit.Ask{Subject: wholeOrg, Policy: r.OrganizationRequests})
	if err != nil {
		return err
	}
	if c.route.GivesWork {
		tokens, err := a.tokensLeft(ctx, c.who)
		if err != nil {
			return err
		}
		all = append(all, tokens...)
	}
	var policies, left []string
	for _, d := range all {
		policies = append(policies, fmt.Sprintf(`"%s";q=%d;w=%d`, d.Policy.Name, d.Policy.Quota, wholeSeconds(d.Policy.Window)))
		left = append(left, fmt.Sprintf(`"%s";r=%d;t=%d`, d.Policy.Name, d.Remaining, wholeSeconds(d.Reset)))
	}
	h := c.w.Header()
	h.Set("RateLimit-Policy", strings.Join(policies, ", "))
	h.Set("RateLimit", strings.Join(left, ", "))
	return refused(all)
}

// tokensLeft says what is left of the quotas of tokens that bind the caller.
func (a *API) tokensLeft(ctx context.Context, who principal.Principal) ([]ratelimit.Decision, error) {
	asks := tokenAsks(a.cfg.Rates, who.ID)
	if len(asks) == 0 {
		return nil, nil
	}
	return a.quotas.Left(ctx, who.Org, asks...)
}

// refused is the answer where a quota is used up: it names each, and the time until there is room in all of them.
func refused(all []ratelimit.Decision) error {
	var violated []string
	var worst ratelimit.Decision
	for _, d := range all {
		if d.Allowed {
			continue
		}
		violated = append(violated, d.Policy.Name)
		if d.RetryAfter >= worst.RetryAfter {
			worst = d
		}
	}
	if len(violated) == 0 {
		return nil
	}
	p := worst.Policy
	return fault.Newf(fault.TooMany, slugRate, "%s may "+may[p.Name]+" in %d seconds. There is room again in %d.",
		whose[p.Name], p.Quota, wholeSeconds(p.Window), wholeSeconds(worst.RetryAfter)).
		With("violated_policies", violated).After(worst.RetryAfter)
}

// tokenAsks are the quotas of tokens that are limited.
func tokenAsks(r Rates, key string) []ratelimit.Ask {
	return slices.DeleteFunc([]ratelimit.Ask{{Subject: keyBucket(key), Policy: r.Tokens}, {Subject: wholeOrg, Policy: r.OrganizationTokens}},
		func(a ratelimit.Ask) bool { return a.Policy.Quota == 0 })
}

var (
	whose = map[string]string{"default": "This key", "organization": "All keys of this organisation together", "tokens": "The work of this key", "organization-tokens": "The work of this organisation"}
	may   = map[string]string{"default": "ask %d times", "organization": "ask %d times", "tokens": "use %d tokens", "organization-tokens": "use %d tokens"}
)

// UsedTokens counts the tokens of a model call against the quotas of the key for which it was made, if it was one, and of its organisation. It is
// what a worker is given, so that what is counted there is what is asked about here.
func (r Rates) UsedTokens(q *ratelimit.Quotas) scheduler.CountTokens {
	r = r.complete()
	return func(org id.Org, by principal.Principal, tokens int64) {
		asks := tokenAsks(r, by.ID)
		if by.Kind != principal.Key {
			asks = slices.DeleteFunc(asks, func(a ratelimit.Ask) bool { return a.Subject != wholeOrg })
		}
		q.Used(org, tokens, asks...)
	}
}
