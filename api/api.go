package api

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/api/internal/schema"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/httpx"
	"ambit.dev/ambit/internal/idempotency"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/internal/ratelimit"
)

// Version is the date of the wire's shape. Keys are pinned to the version of the day on which they were made.
const Version = "2026-11-20"

const (
	readTimeout  = 60 * time.Second
	writeTimeout = 60 * time.Second
	// maxOpenPerKey bounds the streams and long polls that one key has open in one process.
	maxOpenPerKey = 500
)

// DefaultRate is the quota of one key.
var DefaultRate = ratelimit.Policy{Name: "default", Quota: 600, Window: time.Minute}

// Rates are quotas, over all processes. Those of tokens are counted when they have been used: until they are whole again, nothing is given to do.
type Rates struct {
	// Requests are those of one key; the zero value means DefaultRate.
	Requests ratelimit.Policy
	// OrganizationRequests are those of all keys of an organisation; the zero value means ten times those of a key.
	OrganizationRequests ratelimit.Policy
	// Tokens and OrganizationTokens are of models, of all kinds; the zero value is no limit.
	Tokens             ratelimit.Policy
	OrganizationTokens ratelimit.Policy
}

// complete fills in what is left out, and the names by which the headers call the policies.
func (r Rates) complete() Rates {
	if r.Requests.Quota == 0 {
		r.Requests = DefaultRate
	}
	if r.OrganizationRequests.Quota == 0 {
		r.OrganizationRequests = ratelimit.Policy{Quota: 10 * r.Requests.Quota, Window: r.Requests.Window}
	}
	r.Requests.Name, r.OrganizationRequests.Name = "default", "organization"
	r.Tokens.Name, r.OrganizationTokens.Name = "tokens", "organization-tokens"
	return r
}

// Config is what the API stands on.
type Config struct {
	// BaseURL is the instance's public address, without a slash at its end.
	BaseURL     string
	Log         *slog.Logger
	Clock       clock.Clock
	DB          *postgres.DB
	Listener    *postgres.Listener
	Idempotency *idempotency.Store
	Domains     Domains
	Rates       Rates
	// Quotas count over all processes; nil makes some that nobody starts.
	Quotas *ratelimit.Quotas
	// MaxOpen bounds the streams and waits that one key has open at a time; 0 means 500.
	MaxOpen int
	// Metrics counts requests; nil counts nothing.
	Metrics *httpx.Metrics
	// Drain ends streams and long polls when the process stops.
	Drain *httpx.Drain
	// Checks are what /readyz examines.
	Checks []httpx.Check
	// Prometheus serves /metrics; nil leaves it out, as a listener that strangers reach should.
	Prometheus http.Handler
	// ErrorPage shows /errors/{slug} to a browser; nil answers with JSON there too.
	ErrorPage http.Handler
}

// API is the HTTP surface. Make it with New.
type API struct {
	cfg      Config
	log      *slog.Logger
	problems *problems
	builder  *schema.Builder
	routes   []*mounted
	quotas   *ratelimit.Quotas
	open     openCount
	document []byte
	handler  http.Handler
}

// mounted is a route with what was read from its types.
type mounted struct {
	Route
	binding binding
	out     *schema.Schema
}

func (m *mounted) maxBody() int64 {
	if m.MaxBody > 0 {
		return m.MaxBody
	}
	return defaultMaxBody
}

// New mounts the route table. It panics on a table that contradicts itself, which a start of the program shows at once.
func New(cfg Config) *API {
	cfg.Rates = cfg.Rates.complete()
	if cfg.Quotas == nil {
		cfg.Quotas = ratelimit.New(cfg.DB, cfg.Clock, cfg.Log)
	}
	if cfg.MaxOpen == 0 {
		cfg.MaxOpen = maxOpenPerKey
	}
	if cfg.Drain == nil {
		cfg.Drain = httpx.NewDrain()
	}
	a := &API{
		cfg: cfg, log: cfg.Log, builder: schema.NewBuilder(), quotas: cfg.Quotas,
		problems: &problems{baseURL: cfg.BaseURL, log: cfg.Log},
		open:     openCount{most: cfg.MaxOpen, byKey: map[string]int{}},
	}
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		// The router's own refusals: no such path, or not with this method. Both are the one 404.
		a.problems.write(c.Response().Writer, c.Request(), fault.NotFound())
	}
	seen := map[string]bool{}
	for _, r := range a.table() {
		if seen[r.ID] {
			panic("api: two routes have the id " + r.ID)
		}
		seen[r.ID] = true
		a.mount(e, r)
	}
	doc, err := a.buildDocument()
	if err != nil {
		panic(fmt.Sprintf("api: make the OpenAPI document: %v", err))
	}
	a.document = doc
	a.mountPublic(e)
	a.handler = httpx.Chain(e,
		httpx.RequestID,
		httpx.AccessLog(cfg.Log, cfg.Metrics),
		httpx.Recover(cfg.Log, a.problems.write),
		httpx.SecurityHeaders(httpx.APIPolicy),
		httpx.Deadlines(readTimeout, writeTimeout),
	)
	return a
}

// Handler serves /v1, /openapi.json, /errors/{slug}, /healthz, /readyz and, when configured, /metrics.
func (a *API) Handler() http.Handler { return a.handler }

// Routes is the table as it is mounted, for tests that account for every route.
func (a *API) Routes() []Route {
	out := make([]Route, len(a.routes))
	for i, m := range a.routes {
		out[i] = m.Route
	}
	return out
}

func (a *API) mount(e *echo.Echo, r Route) {
	m := &mounted{Route: r, binding: bindingOf(a.builder, r.Endpoint.in)}
	if r.Endpoint.out != nil {
		m.out = a.builder.Of(r.Endpoint.out, schema.Out)
	}
	a.routes = append(a.routes, m)
	path := strings.NewReplacer("{", ":", "}", "").Replace(r.Path)
	e.Add(r.Method, path, func(ec echo.Context) error {
		// echo's response type hides the recorder from http.ResponseController; what is below it is used directly.
		c := &call{api: a, route: m, w: ec.Response().Writer, r: ec.Request(), param: ec.Param}
		if err := a.answer(c); err != nil {
			a.problems.write(c.w, c.r, err)
		}
		return nil
	})
}

// answer takes a request through key, quota, permission and endpoint.
func (a *API) answer(c *call) error {
	httpx.NoteFrom(c.r.Context()).Route = c.route.Method + " " + c.route.Path
	c.w.Header().Set("Ambit-Version", Version)
	if c.route.Permission != "" {
		if err := a.authenticate(c); err != nil {
			return err
		}
		httpx.NoteFrom(c.r.Context()).Principal = c.who.ID
		c.r = c.r.WithContext(principal.With(c.r.Context(), c.who))
		if err := a.takeQuota(c); err != nil {
			return err
		}
		if err := a.permit(c); err != nil {
			return err
		}
	}
	if err := speaks(c.r.Header.Values("Ambit-Version")); err != nil {
		return err
	}
	return c.route.Endpoint.run(c)
}

// openCount bounds how many long answers a key has open at a time.
type openCount struct {
	mu    sync.Mutex
	most  int
	byKey map[string]int
}

// enter counts one more for the key, or refuses. Call the returned function when the answer ends.
func (o *openCount) enter(key string) (leave func(), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.byKey[key] >= o.most {
		return nil, fault.Newf(fault.TooMany, slugConcurrency, "This key has %d streams and waits open already. Close some first.", o.most).
			With("violated_policies", []string{"open_answers"}).After(time.Second)
	}
	o.byKey[key]++
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		if o.byKey[key]--; o.byKey[key] == 0 {
			delete(o.byKey, key)
		}
	}, nil
}
