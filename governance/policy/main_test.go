package policy_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// office is the service over a real Postgres.
type office struct {
	t       testing.TB
	db      *postgres.DB
	clock   *clock.Offset
	cache   *policy.Cache
	service *policy.Service
}

func newOffice(t testing.TB) *office {
	t.Helper()
	o := &office{t: t, db: dbtest.New(t), clock: clock.NewOffset(0)}
	o.cache = policy.NewCache(o.db, postgres.NewListener(o.db, slog.New(slog.DiscardHandler), policy.Channel), slog.New(slog.DiscardHandler))
	o.service = policy.NewService(o.cache, policy.Catalogue{
		KnowsModel: func(m string) bool { return m == "ambit/scripted" },
		KnowsTool:  func(tool string) bool { return tool == "bash" || tool == "read_file" || tool == "http_request" },
	}, o.clock)
	return o
}

// org makes an organisation with a project and some agents, by SQL: their own packages are tested elsewhere.
func (o *office) org(agents int) (org id.Org, project id.Project, made []id.Agent) {
	o.t.Helper()
	org, project = id.New[id.Org](), id.New[id.Project]()
	o.in(org, func(ctx context.Context, tx pgx.Tx) error {
		now := o.clock.Now()
		_, err := tx.Exec(ctx, `INSERT INTO organizations (id, name, slug, created_at, updated_at) VALUES ($1, 'o', $2, $3, $3)`, org, "o-"+string(org[4:]), now)
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `INSERT INTO projects (org_id, id, name, slug, created_at, updated_at) VALUES ($1, $2, 'p', 'p', $3, $3)`, org, project, now); err != nil {
			return err
		}
		for i := range agents {
			made = append(made, id.New[id.Agent]())
			_, err := tx.Exec(ctx, `INSERT INTO agents (org_id, id, project_id, name, latest_version, created_by, created_at, updated_at) VALUES ($1, $2, $3, $4, 1, 'test', $5, $5)`,
				org, made[i], project, fmt.Sprint("agent ", i), now)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return org, project, made
}

func (o *office) in(org id.Org, fn func(ctx context.Context, tx pgx.Tx) error) {
	o.t.Helper()
	require.NoError(o.t, o.try(org, fn))
}

func (o *office) try(org id.Org, fn func(ctx context.Context, tx pgx.Tx) error) error {
	ctx := principal.With(context.Background(), principal.NamedSystem("test"))
	return o.db.InTx(ctx, org, func(tx pgx.Tx) error { return fn(ctx, tx) })
}

func (o *office) create(org id.Org, r policy.Rule) (out policy.Stored) {
	o.t.Helper()
	o.in(org, func(ctx context.Context, tx pgx.Tx) (err error) {
		out, err = o.service.Create(ctx, tx, org, r)
		return err
	})
	return out
}

func (o *office) now(org id.Org) (out *policy.Set) {
	o.t.Helper()
	o.in(org, func(ctx context.Context, tx pgx.Tx) (err error) {
		out, err = o.cache.Now(ctx, tx, org)
		return err
	})
	return out
}

// monday is a Monday at noon.
var monday = time.Date(2026, time.November, 16, 12, 0, 0, 0, time.UTC)

// asking is a request of an agent that has two tools.
func asking(agent id.Agent, kind, name string) policy.Request {
	return policy.Request{Agent: agent, Model: "ambit/scripted", Tools: []string{"bash", "read_file", "http_request"}, Kind: kind, Name: name, At: monday}
}
