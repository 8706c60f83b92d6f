package server

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/prometheus/client_golang/prometheus"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/connectors/builtin"
	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/clickhouse"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/idempotency"
	"ambit.dev/ambit/internal/masterkey"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/ratelimit"
	"ambit.dev/ambit/internal/receipt"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/anthropic"
	"ambit.dev/ambit/models/openai"
	"ambit.dev/ambit/models/scripted"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/observability"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

// Domains are the parts that both surfaces and the worker stand on. Every process has them all; which of them do background work depends
// on its role.
type Domains struct {
	Config      config.Config
	Log         *slog.Logger
	Clock       clock.Clock
	Registry    *prometheus.Registry
	DB          *postgres.DB
	ClickHouse  *clickhouse.DB
	Sealer      *seal.Sealer
	Listener    *postgres.Listener
	Mail        *notifications.Mailer
	Egress      *egress.Client
	Webhooks    *notifications.Webhooks
	Tenants     *tenants.Service
	Identity    *identity.Keyring
	Mandates    *register.Service
	AgentKeys   *identity.AgentKeys
	StepUp      *identity.StepUp
	Models      *models.Gateway
	Tools       *connectors.Registry
	Gate        *gate.Gate
	Policies    *policy.Service
	Agents      *agents.Service
	Previews    *scheduler.Previews
	Sandboxes   *sandbox.Service
	Sessions    *scheduler.Service
	Approvals   *approval.Service
	Quotas      *ratelimit.Quotas
	Traces      *observability.Reader
	Idempotency *idempotency.Store
}

// Passwords of the two database roles follow from the master key, so that every replica knows them and nobody stores them.
func Passwords(s *seal.Sealer) postgres.Passwords {
	return postgres.Passwords{
		App:    hex.EncodeToString(s.Derive("postgres/" + postgres.RoleApp)),
		Worker: hex.EncodeToString(s.Derive("postgres/" + postgres.RoleWorker)),
	}
}

// OpenSealer opens the master key that the configuration names.
func OpenSealer(ctx context.Context, cfg config.Config) (*seal.Sealer, error) {
	return masterkey.Open(ctx, cfg)
}

// Migrate brings Postgres to the newest schema.
func Migrate(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	sealer, err := OpenSealer(ctx, cfg)
	if err != nil {
		return err
	}
	return postgres.Migrate(ctx, string(cfg.PostgresURL), Passwords(sealer), log)
}

// MigrateTraces brings ClickHouse to the newest schema.
func MigrateTraces(ctx context.Context, cfg config.Config, log *slog.Logger) error {
	ch, err := openClickHouse(cfg)
	if err != nil {
		return err
	}
	return errors.Join(ch.Migrate(ctx, log), ch.Close())
}

func openClickHouse(cfg config.Config) (*clickhouse.DB, error) {
	c := clickhouse.Config{URL: cfg.ClickHouseURL.Reveal()}
	if path, ok := unixPath(c.URL); ok {
		c = clickhouse.Config{Socket: path}
	}
	return clickhouse.Connect(c)
}

func unixPath(address string) (string, bool) {
	const scheme = "unix://"
	if len(address) > len(scheme) && address[:len(scheme)] == scheme {
		return address[len(scheme):], true
	}
	return "", false
}

// Open connects to the engines and makes the domains. Nothing works in the background yet.
func Open(ctx context.Context, cfg config.Config, role Role, log *slog.Logger) (*Domains, error) {
	d := &Domains{Config: cfg, Log: log, Clock: clock.System(), Registry: prometheus.NewRegistry()}
	if err := d.open(ctx, role); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Domains) open(ctx context.Context, role Role) (err error) {
	if !d.Config.PostgresURL.IsSet() || !d.Config.ClickHouseURL.IsSet() || !d.Config.NomadAddr.IsSet() {
		return errors.New("serve needs AMBIT_POSTGRES_URL, AMBIT_CLICKHOUSE_URL and AMBIT_NOMAD_ADDR; 'ambit up' starts these engines and sets them")
	}
	if d.Sealer, err = OpenSealer(ctx, d.Config); err != nil {
		return err
	}
	d.DB, err = postgres.Open(ctx, postgres.Config{
		OwnerURL: string(d.Config.PostgresURL), Passwords: Passwords(d.Sealer), MaxConns: int32(max(4, d.Config.PostgresConns/2)), //nolint:gosec // checked by config
	})
	if err != nil {
		return err
	}
	if d.ClickHouse, err = openClickHouse(d.Config); err != nil {
		return err
	}
	d.Traces = observability.NewReader(d.ClickHouse)
	d.Listener = postgres.NewListener(d.DB, d.Log, journal.Channel, journal.InterruptChannel, journal.RestChannel, journal.OutboxChannel, policy.Channel)
	d.Idempotency = idempotency.NewStore(d.Sealer, d.Clock)
	if err := d.openTenants(); err != nil {
		return err
	}
	d.Egress = egress.New(egress.Config{AllowLoopback: d.Config.EgressAllowLoopback})
	d.Webhooks = notifications.NewWebhooks(notifications.WebhookDeps{
		DB: d.DB, Sealer: d.Sealer, Clock: d.Clock, Logger: d.Log, Client: d.Egress, OnDisabled: d.mailDisabledWebhook,
	})
	if err := d.openModels(); err != nil {
		return err
	}
	if err := d.openSandboxes(!role.worker()); err != nil {
		return err
	}
	d.Mandates = register.New(d.AgentKeys, d.Identity, d.Clock)
	d.Previews = scheduler.NewPreviews(d.Config.NodeURL.Reveal(), scheduler.FetchPreviews(http.DefaultClient, d.previewsToken()))
	d.Quotas = ratelimit.New(d.DB, d.Clock, d.Log)
	d.Approvals = approval.NewService(approval.Deps{Clock: d.Clock, Mail: d.Mail, PublicURL: d.Config.PublicURL.Reveal()})
	d.Sessions = scheduler.NewService(scheduler.Deps{
		Approvals: d.Approvals, Limits: scheduler.SessionLimits{PerKey: d.Config.SessionLimit, PerOrganization: d.Config.OrgSessionLimit},
		DB: d.DB, Agents: d.Agents, Gate: d.Gate, Listener: d.Listener, Previews: d.Previews, Sandboxes: d.Sandboxes, Tools: d.Tools, Signer: d.Identity.Typed(receipt.Type), Tokens: d.AgentKeys, Clock: d.Clock, Log: d.Log,
		Mandates: d.Mandates,
	})
	return nil
}

func (d *Domains) openTenants() (err error) {
	d.Mail, err = notifications.New(d.DB, notifications.Deps{Sealer: d.Sealer, Clock: d.Clock, Logger: d.Log}, notifications.Config{SMTPURL: string(d.Config.SMTPURL), From: d.Config.MailFrom})
	if err != nil {
		return err
	}
	d.Identity = identity.New(d.DB, identity.Deps{Sealer: d.Sealer, Clock: d.Clock, Logger: d.Log})
	d.Tenants, err = tenants.New(d.DB, tenants.Deps{
		Clock: d.Clock, Logger: d.Log, Sealer: d.Sealer, Mail: d.Mail, PublicURL: string(d.Config.PublicURL),
		OnOrganizationCreated: func(ctx context.Context, tx pgx.Tx, org tenants.Organization) error {
			if d.Config.StarterCredit <= 0 {
				return nil
			}
			_, err := billing.Grant(ctx, tx, d.Clock.Now(), org.ID, d.Config.StarterCredit, "starter credit")
			return err
		},
	})
	if err != nil {
		return err
	}
	return d.openIdentity()
}

// openIdentity makes what agents sign with, and what people confirm with.
func (d *Domains) openIdentity() (err error) {
	deps := identity.Deps{Sealer: d.Sealer, Clock: d.Clock, Logger: d.Log}
	if d.AgentKeys, err = identity.NewAgentKeys(d.DB, deps, string(d.Config.PublicURL)); err != nil {
		return err
	}
	d.StepUp, err = identity.NewStepUp(d.DB, identity.StepUpDeps{Deps: deps, Keys: d.Identity, People: d.Tenants, PublicURL: string(d.Config.PublicURL)})
	return err
}

func (d *Domains) openModels() error {
	providers := []models.Provider{scripted.New(scripted.Config{})}
	if d.Config.AnthropicBaseURL.IsSet() {
		p, err := anthropic.New(anthropic.Config{APIKey: string(d.Config.AnthropicAPIKey), BaseURL: string(d.Config.AnthropicBaseURL)})
		if err != nil {
			return err
		}
		providers = append(providers, p)
	}
	if d.Config.OpenAIBaseURL.IsSet() {
		p, err := openai.New(openai.Config{APIKey: string(d.Config.OpenAIAPIKey), BaseURL: string(d.Config.OpenAIBaseURL)})
		if err != nil {
			return err
		}
		providers = append(providers, p)
	}
	var err error
	if d.Models, err = models.New(models.Config{Providers: providers, Clock: d.Clock, Log: d.Log}); err != nil {
		return err
	}
	table, err := d.prices()
	if err != nil {
		return err
	}
	if d.Tools, err = builtin.Registry(builtin.HTTPRequest(builtin.Outside{
		Client: d.Egress, Reach: func(ctx context.Context, g gate.Grant) (builtin.Reach, error) { return d.Sessions.Reach(ctx, g) },
		Identify: func(ctx context.Context, g gate.Grant, audience string) (string, error) {
			return d.Sessions.Identify(ctx, g, audience)
		},
		PlainIdentity: d.Config.EgressAllowLoopback,
	})); err != nil {
		return err
	}
	permissions := policy.NewCache(d.DB, d.Listener, d.Log)
	d.Gate = gate.New(table, permissions, d.Clock, d.Log)
	d.Agents = agents.New(agents.Catalogue{
		KnowsModel: func(model string) bool { return d.Models.Knows(context.Background(), model) },
		KnowsTool:  d.Tools.Knows,
	}, d.Clock)
	d.Agents.OnCreate(func(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent) error {
		_, err := d.AgentKeys.AgentKey(ctx, tx, org, identity.OfAgent(agent))
		return err
	})
	known := d.Agents.Catalogue()
	d.Policies = policy.NewService(permissions, policy.Catalogue{KnowsModel: known.KnowsModel, KnowsTool: known.KnowsTool}, d.Clock)
	return nil
}

func (d *Domains) prices() (*prices.Table, error) {
	if d.Config.PricesFile == "" {
		return prices.Shipped()
	}
	f, err := os.Open(d.Config.PricesFile)
	if err != nil {
		return nil, fmt.Errorf("open AMBIT_PRICES_FILE: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	own, err := prices.Read(f)
	if err != nil {
		return nil, fmt.Errorf("read AMBIT_PRICES_FILE: %w", err)
	}
	return prices.Shipped(own)
}

// previewsToken is what replicas show each other for previews.
func (d *Domains) previewsToken() string {
	return hex.EncodeToString(d.Sealer.Derive("scheduler/previews"))
}

// pingPostgres is what a process cannot serve without.
func (d *Domains) pingPostgres(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return d.DB.Ping(ctx)
}

// Close closes the connections to the engines.
func (d *Domains) Close() {
	if d.ClickHouse != nil {
		if err := d.ClickHouse.Close(); err != nil {
			d.Log.Warn("closing ClickHouse's connections failed", "error", err)
		}
	}
	if d.DB != nil {
		d.DB.Close()
	}
}
