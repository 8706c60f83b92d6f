package api_test

import (
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/api"
	"ambit.dev/ambit/internal/ratelimit"
	"ambit.dev/ambit/scheduler"
)

// twoProcesses are two APIs on one database, with what counts quotas of their own.
func twoProcesses(t *testing.T, rates api.Rates) (first, second *tenant, eve *tenant) {
	t.Helper()
	var cfg api.Config
	r := newRig(t, func(c *api.Config) { c.Rates, cfg = rates, *c })
	cfg.Rates, cfg.Quotas = rates, ratelimit.New(r.db, r.clock, r.logger)
	other := *r
	other.api = api.New(cfg)
	other.server = httptest.NewServer(other.api.Handler())
	t.Cleanup(other.server.Close)
	ada := r.newTenant("Ada")
	there := *ada
	there.rig = &other
	return ada, &there, r.newTenant("Eve")
}

func TestAQuotaCountsOverProcesses(t *testing.T) {
	here, there, eve := twoProcesses(t, api.Rates{
		Requests: ratelimit.Policy{Quota: 60, Window: 24 * time.Hour}, OrganizationRequests: ratelimit.Policy{Quota: 80, Window: 24 * time.Hour},
	})
	count := func(key string) map[int]int {
		var mu sync.Mutex
		var all sync.WaitGroup
		got := map[int]int{}
		for _, tn := range []*tenant{here, there} {
			for range 4 {
				all.Go(func() {
					for range 10 {
						res := tn.askWith(key, "GET", "/v1/me", "")
						mu.Lock()
						got[res.StatusCode]++
						mu.Unlock()
					}
				})
			}
		}
		all.Wait()
		return got
	}
	require.Equal(t, map[int]int{200: 60, 429: 20}, count(here.key), "80 asked, at two processes")
	res := there.ask("GET", "/v1/me", "")
	require.Equal(t, 429, res.StatusCode)
	require.Equal(t, []any{"default"}, res.field(t, "violated_policies"))
	require.Contains(t, res.raw, "This key may ask 60 times in 86400 seconds.")
	require.Equal(t, `"default";q=60;w=86400, "organization";q=80;w=86400`, res.Header.Get("RateLimit-Policy"))
	require.Regexp(t, `^"default";r=0;t=\d+, "organization";r=\d+;t=\d+$`, res.Header.Get("RateLimit"))
	require.NotEmpty(t, res.Header.Get("Retry-After"))

	// Another key of the organisation has a quota of its own, and shares the organisation's.
	require.Equal(t, map[int]int{200: 20, 429: 60}, count(here.orgKey))
	res = here.askWith(here.orgKey, "GET", "/v1/me", "")
	require.Equal(t, []any{"organization"}, res.field(t, "violated_policies"))
	require.Contains(t, res.raw, "All keys of this organisation together may ask 80 times")
	require.Equal(t, 200, eve.ask("GET", "/v1/me", "").StatusCode, "another organisation is not touched")
}

func TestUsedTokensRefuseMoreWork(t *testing.T) {
	rates := api.Rates{Requests: ratelimit.Policy{Quota: 1_000_000, Window: time.Minute}, Tokens: ratelimit.Policy{Quota: 10, Window: 24 * time.Hour}}
	var quotas *ratelimit.Quotas
	r := newRig(t, func(c *api.Config) {
		quotas = ratelimit.New(c.DB, c.Clock, c.Log)
		c.Rates, c.Quotas = rates, quotas
	})
	r.countTokens = rates.UsedTokens(quotas)
	ada := r.newTenant("Ada")
	r.startWorker()
	session, _ := ada.newSession("")
	path := "/v1/sessions/" + string(session)
	require.Equal(t, "end_turn", ada.ask("GET", path+"?wait_for=idle&wait_seconds=20", "").field(t, "stop_reason.type"), "work that has begun goes on")
	r.clock.Advance(2 * time.Second)
	res := ada.ask("POST", "/v1/invoke", `{"agent":{"model":"ambit/scripted"},"input":"more","mode":"async"}`)
	require.Equal(t, 429, res.StatusCode, res.raw)
	require.Equal(t, []any{"tokens"}, res.field(t, "violated_policies"))
	require.Contains(t, res.raw, "The work of this key may use 10 tokens in 86400 seconds.")
	require.Contains(t, res.Header.Get("RateLimit"), `"tokens";r=0;`)
	res = ada.ask("POST", path+"/events", `{"events":[{"type":"user.message","content":"more"}]}`)
	require.Equal(t, "rate_limited", res.code(t))
	res = ada.ask("POST", path+"/events", `{"events":[{"type":"user.interrupt"}]}`)
	require.Equal(t, "state_conflict", res.code(t), "an interrupt is not counted")
	require.Equal(t, 200, ada.ask("GET", path, "").StatusCode, "looking goes on")
	res = ada.askWith(ada.orgKey, "POST", "/v1/invoke", `{"agent":{"model":"ambit/scripted"},"input":"more","mode":"async"}`, "Ambit-Project", string(ada.project))
	require.Equal(t, 202, res.StatusCode, "another key has used none")
}

// limited serves the API anew with a bound on sessions.
func (r *rig) limited(limits scheduler.SessionLimits) {
	deps, cfg := r.deps, r.cfg
	deps.Limits = limits
	cfg.Domains.Sessions = scheduler.NewService(deps)
	r.api = api.New(cfg)
	r.server.Close()
	r.server = httptest.NewServer(r.api.Handler())
}

func TestSessionsAtWorkAreBounded(t *testing.T) {
	r := newRig(t)
	r.limited(scheduler.SessionLimits{PerKey: 3, PerOrganization: 5})
	ada, eve := r.newTenant("Ada"), r.newTenant("Eve")
	const body = `{"agent":{"model":"ambit/scripted"},"input":"x","mode":"async"}`
	invoke := func(key string) (accepted int, refused reply) {
		var mu sync.Mutex
		var all sync.WaitGroup
		for range 12 {
			all.Go(func() {
				res := ada.askWith(key, "POST", "/v1/invoke", body, "Ambit-Project", string(ada.project))
				mu.Lock()
				defer mu.Unlock()
				if res.StatusCode == 202 {
					accepted++
				} else {
					refused = res
				}
			})
		}
		all.Wait()
		return accepted, refused
	}
	n, res := invoke(ada.key)
	require.Equal(t, 3, n, "12 at once")
	require.Equal(t, 429, res.StatusCode)
	require.Equal(t, "concurrency_limited", res.code(t))
	require.Equal(t, []any{"sessions"}, res.field(t, "violated_policies"))
	require.Equal(t, "5", res.Header.Get("Retry-After"))
	n, res = invoke(ada.orgKey)
	require.Equal(t, 2, n, "the organisation has room for two more")
	require.Equal(t, []any{"organization-sessions"}, res.field(t, "violated_policies"))
	n, _ = invoke(ada.key)
	require.Zero(t, n)
	var page api.Page[api.Session]
	ada.ask("GET", "/v1/sessions?limit=100", "").into(t, &page)
	require.Len(t, page.Data, 5, "what was refused has left nothing")
	_, _ = eve.newSession("")

	// One that ends makes room for one.
	ada.finish(page.Data[0].ID, "done")
	n, _ = invoke(ada.orgKey)
	require.Equal(t, 1, n)
	res = ada.ask("POST", "/v1/sessions/"+string(page.Data[0].ID)+"/events", `{"events":[{"type":"user.message","content":"again"}]}`)
	require.Equal(t, "concurrency_limited", res.code(t), "a session that is woken counts too")
}
