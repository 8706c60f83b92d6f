package tenants

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// Deps are what the service works with. Mail may be nil or without a server; all else is needed.
type Deps struct {
	Clock  clock.Clock
	Logger *slog.Logger
	Sealer *seal.Sealer
	Mail   *notifications.Mailer
	// PublicURL is where people reach the console, without a slash at the end; mailed links begin with it.
	PublicURL string
	// OnOrganizationCreated runs in the transaction that makes an organisation, such as to grant starter credit. An error undoes all of it.
	OnOrganizationCreated func(ctx context.Context, tx pgx.Tx, org Organization) error
	// APIVersion is the date that new API keys are pinned to; empty means DefaultAPIVersion.
	APIVersion string
	// AnswerAfter is how long answers that must not tell whether an address has an account take at least; 0 means 300 ms. It must be
	// longer than the work.
	AnswerAfter time.Duration
}

// DefaultAPIVersion is the API version of this release.
const DefaultAPIVersion = "2026-11-20"

// Service is safe for concurrent use. Make it with New.
type Service struct {
	db         *postgres.DB
	deps       Deps
	clock      clock.Clock
	log        *slog.Logger
	passwords  *passwordHasher
	throttle   *throttle
	apiVersion time.Time

	keyOrgs  sync.Map // digest of a key → its organisation, which never changes
	keyCount atomic.Int64
	keyUses  keyUses
	flusher  *background.Loop
	sweeper  *background.Loop
}

// New checks the dependencies and returns a service. Start begins its background work.
func New(db *postgres.DB, deps Deps) (*Service, error) {
	if db == nil || deps.Clock == nil || deps.Logger == nil || deps.Sealer == nil {
		return nil, errors.New("tenants: database, clock, logger and sealer are needed")
	}
	u, err := url.Parse(deps.PublicURL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return nil, fmt.Errorf("tenants: the public URL %q must begin with http:// or https://", deps.PublicURL)
	}
	deps.PublicURL = strings.TrimRight(deps.PublicURL, "/")
	if deps.APIVersion == "" {
		deps.APIVersion = DefaultAPIVersion
	}
	version, err := time.Parse(time.DateOnly, deps.APIVersion)
	if err != nil {
		return nil, fmt.Errorf("tenants: the API version %q is no date", deps.APIVersion)
	}
	if deps.AnswerAfter == 0 {
		deps.AnswerAfter = 300 * time.Millisecond
	}
	passwords, err := newPasswordHasher()
	if err != nil {
		return nil, err
	}
	s := &Service{
		db: db, deps: deps, clock: deps.Clock, log: deps.Logger, passwords: passwords, apiVersion: version,
		throttle: &throttle{db: db, clock: deps.Clock, key: deps.Sealer.Derive("tenants/throttle")},
	}
	s.flusher = background.New("last use of API keys", keyUseEvery, deps.Logger, s.flushKeyUses)
	s.sweeper = background.New("sweep of ended sign-ins", time.Hour, deps.Logger, s.sweepOnce)
	return s, nil
}

// Start begins the background work: noting when keys were used, and deleting what ended long ago.
func (s *Service) Start(ctx context.Context) {
	s.flusher.Start(ctx)
	s.sweeper.Start(ctx)
}

// Started is closed once each part of the background work has had a round.
func (s *Service) Started() <-chan struct{} { return s.sweeper.Started() }

// Stop ends the background work and then writes down the last uses of keys that are not written yet, so it comes after the last request.
func (s *Service) Stop(ctx context.Context) error {
	return errors.Join(s.sweeper.Stop(ctx), s.flusher.Stop(ctx), s.flushKeyUses(ctx))
}

// MailEnabled reports whether links can be mailed. Without it, the console shows no "forgot password" but says whom to ask.
func (s *Service) MailEnabled() bool { return s.deps.Mail.Enabled() }

// as runs fn in a transaction that acts for one person. With an empty user it sees nobody's rows, at the same cost.
func (s *Service) as(ctx context.Context, user id.User, fn func(tx pgx.Tx, q *tenantsdb.Queries) error) error {
	return s.db.InPlatformTx(ctx, func(tx pgx.Tx) error {
		q := tenantsdb.New(tx)
		if err := q.ActAs(ctx, string(user)); err != nil {
			return fmt.Errorf("name the person of the transaction: %w", err)
		}
		return fn(tx, q)
	})
}

// in runs fn in a transaction of one organisation.
func (s *Service) in(ctx context.Context, org id.Org, fn func(tx pgx.Tx, q *tenantsdb.Queries) error) error {
	return s.db.InTx(ctx, org, func(tx pgx.Tx) error { return fn(tx, tenantsdb.New(tx)) })
}

// lookUp runs one of the definer functions, which need nobody's rights.
func lookUp[T ~string](ctx context.Context, s *Service, what string, fn func(q *tenantsdb.Queries) (string, error)) (T, error) {
	found, err := fn(tenantsdb.New(s.db.App()))
	if err != nil {
		return "", postgres.Translate(fmt.Errorf("look up %s: %w", what, err))
	}
	return T(found), nil
}

// evenOut makes what took less than AnswerAfter take that long, so that its time tells nothing. It uses real time, not the clock's.
func (s *Service) evenOut(ctx context.Context, began time.Time) {
	t := time.NewTimer(time.Until(began.Add(s.deps.AnswerAfter)))
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
