package console

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/agents"
	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

// finder resolves a pasted id to the page about it, in any organisation of the person. What is not there, or is others', is the same 404.
type finder struct {
	tenants  *tenants.Service
	agents   *agents.Service
	sessions *scheduler.Service
	webhooks *notifications.Webhooks
	mandates *register.Service
	db       *postgres.DB
}

func (f *finder) register(g *echo.Group) { g.GET("/:id", f.open) }

func (f *finder) open(c echo.Context) error {
	ctx, wanted := c.Request().Context(), c.Param("id")
	for _, m := range personOf(c).Memberships {
		if acting, err := personOf(c).In(string(m.Organization), ""); err != nil || !tenants.Allowed(acting, neededFor(wanted)) {
			continue
		}
		project, parts, err := f.find(ctx, m.Organization, wanted)
		if fault.IsCode(err, "not_found") {
			continue
		}
		if err != nil {
			return err
		}
		home, err := f.tenants.GetProject(ctx, m.Organization, project)
		if err != nil {
			return err
		}
		to := page.Place{OrgSlug: m.OrganizationSlug, ProjectSlug: home.Slug}
		return c.Redirect(http.StatusSeeOther, to.Path(parts.path...)+parts.query)
	}
	return fault.NotFound()
}

// neededFor is the permission to find what has this id. It is that of the page to which the finder leads.
func neededFor(wanted string) tenants.Permission {
	switch id.PrefixOf(wanted) {
	case id.Agent("").Prefix():
		return tenants.AgentsRead
	case id.Project("").Prefix():
		return tenants.ProjectsRead
	case id.Budget("").Prefix():
		return tenants.BudgetsRead
	case id.Approval("").Prefix():
		return tenants.ApprovalsRead
	case id.ApprovalRule("").Prefix():
		return tenants.ApprovalRulesRead
	case id.Webhook("").Prefix():
		return tenants.WebhooksRead
	case id.Mandate("").Prefix():
		return tenants.MandatesRead
	default:
		return tenants.SessionsRead
	}
}

type target struct {
	path  []string
	query string
}

func (f *finder) find(ctx context.Context, org id.Org, wanted string) (project id.Project, to target, err error) {
	if m, parseErr := id.Parse[id.Mandate](wanted); parseErr == nil {
		err = f.db.InTx(ctx, org, func(tx pgx.Tx) error {
			found, err := f.mandates.Get(ctx, tx, org, m)
			project = found.Project
			return err
		})
		return project, target{path: []string{"mandates", wanted}}, err
	}
	if s, parseErr := id.Parse[id.Session](wanted); parseErr == nil {
		got, err := f.sessions.Get(ctx, org, s)
		return got.Project, target{path: []string{"sessions", wanted}}, err
	}
	if p, parseErr := id.Parse[id.Project](wanted); parseErr == nil {
		got, err := f.tenants.GetProject(ctx, org, p)
		return got.ID, target{}, err
	}
	if b, parseErr := id.Parse[id.Budget](wanted); parseErr == nil {
		return f.findBudget(ctx, org, b)
	}
	if w, parseErr := id.Parse[id.Webhook](wanted); parseErr == nil {
		return f.findWebhook(ctx, org, w)
	}
	if r, parseErr := id.Parse[id.ApprovalRule](wanted); parseErr == nil {
		return f.findApprovalRule(ctx, org, r)
	}
	err = f.db.InTx(ctx, org, func(tx pgx.Tx) error {
		project, to, err = f.findTx(ctx, tx, org, wanted)
		return err
	})
	return project, to, err
}

// findBudget: a budget is the whole organisation's, so it is shown within its first project.
func (f *finder) findBudget(ctx context.Context, org id.Org, budget id.Budget) (id.Project, target, error) {
	err := f.db.InTx(ctx, org, func(tx pgx.Tx) error {
		_, err := billing.GetBudget(ctx, tx, org, budget)
		return err
	})
	if err != nil {
		return "", target{}, err
	}
	first, err := f.firstProject(ctx, org)
	return first, target{path: []string{"budgets", string(budget)}}, err
}

// findWebhook: one that is of no project is shown within the first.
func (f *finder) findWebhook(ctx context.Context, org id.Org, webhook id.Webhook) (id.Project, target, error) {
	var found notifications.Webhook
	err := f.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		found, err = f.webhooks.GetTx(ctx, tx, org, webhook)
		return err
	})
	if err == nil && found.Project == "" {
		found.Project, err = f.firstProject(ctx, org)
	}
	return found.Project, target{path: []string{"webhooks", string(webhook)}}, err
}

// findApprovalRule: the rules stand on one page, the whole organisation's.
func (f *finder) findApprovalRule(ctx context.Context, org id.Org, rule id.ApprovalRule) (id.Project, target, error) {
	err := f.db.InTx(ctx, org, func(tx pgx.Tx) error {
		_, err := f.sessions.Approvals().GetRule(ctx, tx, org, rule)
		return err
	})
	if err != nil {
		return "", target{}, err
	}
	first, err := f.firstProject(ctx, org)
	return first, target{path: []string{"approvals", "rules"}}, err
}

func (f *finder) firstProject(ctx context.Context, org id.Org) (id.Project, error) {
	projects, err := f.tenants.ListProjects(ctx, org, tenants.ListProjects{OldestFirst: true, Limit: 1})
	if err != nil {
		return "", err
	}
	if len(projects) == 0 {
		return "", fault.NotFound()
	}
	return projects[0].ID, nil
}

func (f *finder) findTx(ctx context.Context, tx pgx.Tx, org id.Org, wanted string) (id.Project, target, error) {
	if a, err := id.Parse[id.Approval](wanted); err == nil {
		got, err := approval.Get(ctx, tx, org, a)
		return got.Project, target{path: []string{"approvals"}, query: "?open=" + wanted}, err
	}
	if a, err := id.Parse[id.Agent](wanted); err == nil {
		got, err := f.agents.Get(ctx, tx, org, a)
		return got.Project, target{path: []string{"agents", wanted}}, err
	}
	if s, err := id.Parse[id.Step](wanted); err == nil {
		step, err := journal.GetStep(ctx, tx, org, s)
		if err != nil {
			return "", target{}, err
		}
		got, err := journal.Get(ctx, tx, org, step.Session)
		return got.Project, target{path: []string{"sessions", string(step.Session)}, query: "?step=" + wanted}, err
	}
	if e, err := id.Parse[id.Event](wanted); err == nil {
		event, err := journal.GetEvent(ctx, tx, org, e)
		if err != nil {
			return "", target{}, err
		}
		got, err := journal.Get(ctx, tx, org, event.Session)
		return got.Project, target{path: []string{"sessions", string(event.Session)}, query: "?view=journal"}, err
	}
	return "", target{}, fault.NotFound()
}
