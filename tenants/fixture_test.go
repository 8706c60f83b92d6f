package tenants_test

import (
	"context"
	"log/slog"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/alexedwards/argon2id"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/notifications/mailtest"
	"ambit.dev/ambit/tenants"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/jackc/pgx/v5/pgxpool.(*Pool).backgroundHealthCheck"))
}

const password = "correct horse battery"

var here = tenants.Origin{Address: "192.0.2.7", UserAgent: "Test/1.0"}

// stillClock moves only when it is told to, so that no wait depends on how fast the machine is.
type stillClock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *stillClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *stillClock) Advance(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func (c *stillClock) Sleep(context.Context, time.Duration) error {
	panic("nothing here sleeps by the clock")
}

// fixture is a service on a database of its own. smtp is nil where no mail can be sent.
type fixture struct {
	*tenants.Service
	db    *postgres.DB
	owner string
	hands *stillClock
	deps  tenants.Deps
	smtp  *mailtest.Server
}

func newFixture(t *testing.T, change ...func(*tenants.Deps)) *fixture {
	t.Helper()
	f := &fixture{hands: &stillClock{now: clock.System().Now()}}
	f.db, f.owner = dbtest.NewWithOwner(t)
	sealer, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	f.deps = tenants.Deps{
		Clock: f.hands, Logger: slog.New(slog.DiscardHandler), Sealer: sealer, PublicURL: "http://ambit.test/", AnswerAfter: time.Millisecond,
	}
	for _, c := range change {
		c(&f.deps)
	}
	f.Service, err = tenants.New(f.db, f.deps)
	require.NoError(t, err)
	return f
}

// newMailFixture has a mail server, and the courier runs.
func newMailFixture(t *testing.T, change ...func(*tenants.Deps)) *fixture {
	t.Helper()
	f := newFixture(t, change...)
	f.smtp = mailtest.New(t)
	mail, err := notifications.New(f.db, notifications.Deps{Sealer: f.deps.Sealer, Clock: f.hands, Logger: f.deps.Logger},
		notifications.Config{SMTPURL: f.smtp.URL(), From: "Ambit <ambit@example.com>"})
	require.NoError(t, err)
	mail.Start(context.Background())
	t.Cleanup(func() { require.NoError(t, mail.Stop(context.Background())) })
	f.deps.Mail = mail
	f.Service, err = tenants.New(f.db, f.deps)
	require.NoError(t, err)
	return f
}

func (f *fixture) account(t *testing.T, email string) tenants.Account {
	t.Helper()
	a, err := f.CreateAccount(t.Context(), tenants.SignUp{Email: email, Password: password})
	require.NoError(t, err)
	return a
}

func (f *fixture) ownerOf(a tenants.Account) principal.Principal {
	return principal.Principal{Kind: principal.User, ID: string(a.User.ID), Org: a.Organization.ID, Role: "owner"}
}

func (f *fixture) key(t *testing.T, by principal.Principal, in tenants.CreateKey) (key tenants.Key, secret string) {
	t.Helper()
	if in.Name == "" {
		in.Name = "test"
	}
	if in.Scopes == nil {
		in.Scopes = []string{"*"}
	}
	f.tx(t, by.Org, func(tx pgx.Tx) (err error) {
		key, secret, err = f.CreateKeyTx(t.Context(), tx, by, in)
		return err
	})
	return key, secret
}

func (f *fixture) tx(t *testing.T, org id.Org, fn func(tx pgx.Tx) error) {
	t.Helper()
	require.NoError(t, f.db.InTx(t.Context(), org, fn))
}

// txErr is for what must fail.
func (f *fixture) txErr(t *testing.T, org id.Org, fn func(tx pgx.Tx) error) error {
	t.Helper()
	err := f.db.InTx(t.Context(), org, fn)
	require.Error(t, err)
	return err
}

// asOwner looks at the database past row-level security.
func (f *fixture) asOwner(t *testing.T, query string, args ...any) (v string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), f.owner)
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // read only
	require.NoError(t, conn.QueryRow(t.Context(), query, args...).Scan(&v))
	return v
}

func tokenOf(t *testing.T, link string) string {
	t.Helper()
	u, err := url.Parse(link)
	require.NoError(t, err)
	require.NotEmpty(t, u.Query().Get("token"), "link %q", link)
	return u.Query().Get("token")
}

func requireCode(t *testing.T, code string, err error) *fault.Error {
	t.Helper()
	var f *fault.Error
	require.ErrorAsf(t, err, &f, "want the fault %s", code)
	require.Equal(t, code, f.Code, f.Message)
	return f
}

func weakHash(t *testing.T, password string) string {
	t.Helper()
	hash, err := argon2id.CreateHash(password, &argon2id.Params{Memory: 64, Iterations: 1, Parallelism: 1, SaltLength: 16, KeyLength: 32})
	require.NoError(t, err)
	return hash
}
