package server

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"ambit.dev/ambit/api"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/httpx"
	"ambit.dev/ambit/internal/idempotency"
	"ambit.dev/ambit/internal/ratelimit"
	"ambit.dev/ambit/observability"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants/identity"
)

// stopWithin bounds the whole stop; ambit up allows the server a little more before it kills it.
const stopWithin = 8 * time.Second

// Server is one running process.
type Server struct {
	*Domains

	role     Role
	drain    *httpx.Drain
	public   *httpx.Server
	internal *httpx.Server
	worker   *scheduler.Worker
	stops    *scheduler.StopKeeper
	asks     *scheduler.ApprovalKeeper
	exporter *observability.Exporter
	sweeper  *idempotency.Sweeper
	watch    *billing.Watch
	sealer   *register.Sealer
	// retryTraces tries to migrate ClickHouse while it is away; nil when it was there at the start.
	retryTraces *background.Loop
	tracesReady atomic.Bool
	// drainsSandboxes says that the sandboxes end with this process: it is the whole of an installation on one machine.
	drainsSandboxes bool
}

// New makes a process of the given role; nothing runs yet.
func New(ctx context.Context, cfg config.Config, role Role, log *slog.Logger) (*Server, error) {
	d, err := Open(ctx, cfg, role, log)
	if err != nil {
		return nil, err
	}
	s := &Server{Domains: d, role: role, drain: httpx.NewDrain(), drainsSandboxes: role == All && cfg.Instance != ""}
	d.Registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	if err := s.build(); err != nil {
		d.Close()
		return nil, err
	}
	return s, nil
}

func (s *Server) build() error {
	handler, err := s.surfaces()
	if err != nil {
		return err
	}
	s.public = httpx.NewServer(httpx.ServerConfig{Name: string(s.role), Addr: s.Config.Listen, Handler: handler, Log: s.Log, Drained: s.drain})
	s.internal = httpx.NewServer(httpx.ServerConfig{Name: "nodes", Addr: s.Config.NodeListen, Handler: s.nodeHandler(), Log: s.Log, Drained: s.drain})
	s.sweeper = idempotency.NewSweeper(s.DB, s.Clock, s.Log)
	if !s.role.worker() {
		return nil
	}
	s.watch = billing.NewWatch(billing.WatchDeps{
		DB: s.DB, Tenants: s.Tenants, Mail: s.Mail, Clock: s.Clock, Log: s.Log, PublicURL: s.Config.PublicURL.Reveal(),
	})
	s.sealer = register.NewSealer(s.DB, s.Mandates, s.Log)
	metrics := scheduler.NewMetrics()
	s.Registry.MustRegister(metrics)
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("ask for the host's name: %w", err)
	}
	runner := scheduler.NewRunner(scheduler.RunnerDeps{
		DB: s.DB, Gate: s.Gate, Models: s.Models, Tools: s.Tools, Sandboxes: s.Sandboxes, Listener: s.Listener, Previews: s.Previews, Clock: s.Clock, Log: s.Log,
		CountTokens: s.rates().UsedTokens(s.Quotas),
		Owner:       fmt.Sprintf("%s/%d/%s", host, os.Getpid(), shortHash(time.Now().String())), Address: string(s.Config.NodeURL), Metrics: metrics,
	})
	if s.worker, err = scheduler.NewWorker(s.DB, runner, s.Config.WorkerConcurrency, s.Log); err != nil {
		return err
	}
	s.stops = scheduler.NewStopKeeper(s.DB, s.Sessions, s.Log)
	s.asks = scheduler.NewApprovalKeeper(s.DB, s.Sessions, s.Log)
	s.exporter, err = observability.NewExporter(observability.ExporterConfig{
		Postgres: s.DB, ClickHouse: s.ClickHouse, Notices: s.Listener, Clock: s.Clock, Log: s.Log, Metrics: s.Registry,
	})
	return err
}

// rates are the quotas that are configured.
func (s *Server) rates() api.Rates {
	a := func(quota int) ratelimit.Policy {
		return ratelimit.Policy{Quota: quota, Window: api.DefaultRate.Window}
	}
	c := s.Config
	return api.Rates{Requests: a(c.RateLimit), OrganizationRequests: a(c.OrgRateLimit), Tokens: a(c.TokenLimit), OrganizationTokens: a(c.OrgTokenLimit)}
}

// surfaces is what the public listener serves, by the role.
func (s *Server) surfaces() (http.Handler, error) {
	metrics, err := httpx.NewMetrics(s.Registry, string(s.role))
	if err != nil {
		return nil, err
	}
	checks := []httpx.Check{{Name: "postgres", Run: s.pingPostgres}}
	if s.role.worker() {
		checks = append(checks, httpx.Check{Name: "sandboxes", Run: s.sandboxReady()})
	}
	// The API shows a person the console's pages about its errors, and the console shows the API's reference: each is made with a way to
	// the other.
	var pages http.Handler
	surface := api.New(api.Config{
		BaseURL: string(s.Config.PublicURL), Log: s.Log, Clock: s.Clock, DB: s.DB, Listener: s.Listener, Idempotency: s.Idempotency,
		Domains: api.Domains{Tenants: s.Tenants, Agents: s.Agents, Sessions: s.Sessions, Models: s.Models, Prices: s.Gate.Prices(), Policies: s.Policies, Mandates: s.Mandates, Sandboxes: s.Sandboxes, Webhooks: s.Webhooks, AgentKeys: s.AgentKeys, StepUp: s.StepUp},
		Rates:   s.rates(), Quotas: s.Quotas,
		Metrics: metrics, Drain: s.drain, Checks: checks,
		Prometheus: promhttp.HandlerFor(s.Registry, promhttp.HandlerOpts{}),
		ErrorPage:  http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { pages.ServeHTTP(w, r) }),
	})
	pages, err = s.consoleHandler(metrics, func() *api.API { return surface })
	if err != nil {
		return nil, err
	}
	a, documents := surface.Handler(), s.AgentKeys.Handler(s.Identity)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch path := r.URL.Path; {
		case path == "/.well-known/jwks.json" && r.Method == http.MethodGet:
			s.serveKeys(w, r)
		case identity.Serves(path):
			documents.ServeHTTP(w, r)
		case isAPI(path):
			if strings.HasPrefix(path, "/v1/") && !s.role.api() {
				http.NotFound(w, r)
				return
			}
			a.ServeHTTP(w, r)
		case s.role.console():
			pages.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	}), nil
}

func isAPI(path string) bool {
	switch path {
	case "/openapi.json", "/healthz", "/readyz", "/metrics", "/v1":
		return true
	}
	return strings.HasPrefix(path, "/v1/") || strings.HasPrefix(path, "/errors/")
}

// Start starts the parts in the order in which they need each other.
func (s *Server) Start(ctx context.Context) error {
	s.Listener.Start(ctx)
	if err := s.Identity.Start(ctx); err != nil {
		return err
	}
	s.AgentKeys.Start(ctx)
	s.Tenants.Start(ctx)
	s.Policies.Cache().Start(ctx)
	s.sweeper.Start(ctx)
	s.Quotas.Start(ctx)
	if s.role.worker() {
		// Nodes and other replicas have business with workers only.
		if err := s.internal.Start(ctx); err != nil {
			return err
		}
		s.Mail.Start(ctx)
		s.Webhooks.Start(ctx)
		s.watch.Start(ctx)
		s.sealer.Start(ctx)
		s.migrateTraces(ctx)
		s.exporter.Start(ctx)
		if err := s.Sandboxes.Start(ctx); err != nil {
			return err
		}
		if err := s.worker.Start(ctx); err != nil {
			return err
		}
		s.stops.Start(ctx)
		s.asks.Start(ctx)
	}
	return s.public.Start(ctx)
}

// migrateTraces brings ClickHouse to this release's schema before spans are sent. When ClickHouse is away the process starts all the same,
// and it is tried again until it is back: until then the outbox keeps the spans.
func (s *Server) migrateTraces(ctx context.Context) {
	first, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	err := MigrateTraces(first, s.Config, s.Log)
	if err == nil {
		return
	}
	s.Log.ErrorContext(ctx, "ClickHouse could not be migrated; traces wait until it can", "error", err)
	s.retryTraces = background.New("migration of ClickHouse", 5*time.Second, s.Log, func(ctx context.Context) error {
		if s.tracesReady.Load() {
			return nil
		}
		if err := MigrateTraces(ctx, s.Config, s.Log); err != nil {
			return err
		}
		s.tracesReady.Store(true)
		return nil
	})
	s.retryTraces.Start(context.WithoutCancel(ctx))
}

// Stop takes no more work, lets what is under way end, saves the sandboxes' working directories where they end with this process, and
// stops the parts in the opposite order, all within 8 s.
func (s *Server) Stop(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, stopWithin)
	defer cancel()
	var errs []error
	s.drain.Begin()
	if s.worker != nil {
		part, done := context.WithTimeout(ctx, 3500*time.Millisecond)
		errs = append(errs, s.worker.Stop(part, 1500*time.Millisecond))
		done()
	}
	if s.stops != nil {
		part, done := context.WithTimeout(ctx, time.Second)
		errs = append(errs, s.stops.Stop(part), s.asks.Stop(part))
		done()
	}
	s.Sessions.Stop()
	if s.role.worker() {
		if s.drainsSandboxes {
			part, done := context.WithTimeout(ctx, 4*time.Second)
			errs = append(errs, s.Sandboxes.Drain(part))
			done()
		} else {
			errs = append(errs, s.Sandboxes.Stop(ctx))
		}
	}
	errs = append(errs, s.public.Stop(ctx))
	if s.role.worker() {
		errs = append(errs, s.internal.Stop(ctx))
	}
	if s.retryTraces != nil {
		errs = append(errs, s.retryTraces.Stop(ctx))
	}
	if s.role.worker() {
		part, done := context.WithTimeout(ctx, time.Second) // what hangs is sent again by another process or at the next start
		errs = append(errs, s.Webhooks.Stop(part))
		done()
	}
	if s.watch != nil {
		errs = append(errs, s.watch.Stop(ctx), s.sealer.Stop(ctx))
	}
	if s.exporter != nil {
		errs = append(errs, s.exporter.Stop(ctx), s.Mail.Stop(ctx))
	}
	s.sweeper.Stop()
	errs = append(errs, s.Quotas.Stop(ctx)) // what the worker has counted
	errs = append(errs, s.Policies.Cache().Stop(ctx), s.Tenants.Stop(ctx), s.AgentKeys.Stop(ctx), s.Identity.Stop(ctx))
	s.Listener.Stop()
	s.Close()
	return errors.Join(errs...)
}

func shortHash(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:4])
}
