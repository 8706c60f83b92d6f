package billing

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing/internal/billingdb"
	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/tenants"
)

const (
	// watchEvery bounds how late a threshold is told. There is no NOTIFY: inside each transaction it would serialise their commits.
	watchEvery = 5 * time.Second
	// watchBatch is how many alerts, organisations or holds one statement takes.
	watchBatch = 100
	// maxTold bounds how many members are looked through for one alert.
	maxTold = 1000
)

// WatchDeps are what the watch works with. Mail may be nil or without a server: then only webhooks and the console tell.
type WatchDeps struct {
	DB      *postgres.DB
	Tenants *tenants.Service
	Mail    *notifications.Mailer
	Clock   clock.Clock
	Log     *slog.Logger
	// PublicURL is where people reach the console; mails lead there.
	PublicURL string
}

// Watch tells of the thresholds that budgets reached, each exactly once however many processes watch, and marks the holds that ran out.
type Watch struct {
	deps WatchDeps
	loop *background.Loop
}

// NewWatch returns a watch that is not started.
func NewWatch(deps WatchDeps) *Watch {
	w := &Watch{deps: deps}
	w.loop = background.New("watch over budgets and holds", watchEvery, deps.Log, w.runOnce)
	return w
}

// Start begins to watch.
func (w *Watch) Start(ctx context.Context) { w.loop.Start(ctx) }

// Started is closed after the first look.
func (w *Watch) Started() <-chan struct{} { return w.loop.Started() }

// Stop ends the watch; what is not told yet is found by another, or at the next start.
func (w *Watch) Stop(ctx context.Context) error { return w.loop.Stop(ctx) }

// runOnce does both passes. One that fails keeps the other from nothing.
func (w *Watch) runOnce(ctx context.Context) error {
	return errors.Join(w.tellAll(ctx), w.markUnsettled(ctx))
}

// tellAll works through the organisations with alerts to tell. The worker's role finds them; each is then told as itself.
func (w *Watch) tellAll(ctx context.Context) error {
	var orgs []id.Org
	err := w.deps.DB.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
		orgs, err = billingdb.New(tx).OrganizationsWithAlerts(ctx, watchBatch)
		return err
	})
	if err != nil {
		return fmt.Errorf("find who has alerts to be told of: %w", err)
	}
	var errs []error
	for _, org := range orgs {
		for more := true; more && ctx.Err() == nil; {
			err := w.deps.DB.InTx(ctx, org, func(tx pgx.Tx) (err error) {
				more, err = w.tell(ctx, tx, org)
				return err
			})
			if err != nil {
				errs = append(errs, fmt.Errorf("tell %s of its budgets: %w", org, err))
				break
			}
		}
	}
	return errors.Join(errs...)
}

// tell queues the webhook event and the mails of some alerts and marks them as sent, in the one transaction: a process that is killed
// before its commit has told nobody, one that is killed after it has told everybody.
func (w *Watch) tell(ctx context.Context, tx pgx.Tx, org id.Org) (more bool, err error) {
	q := billingdb.New(tx)
	alerts, err := q.ClaimAlerts(ctx, billingdb.ClaimAlertsParams{OrgID: org, RowLimit: watchBatch})
	if err != nil || len(alerts) == 0 {
		return false, err
	}
	members, err := w.told(ctx, tx, org)
	if err != nil {
		return false, err
	}
	for _, a := range alerts {
		payload := map[string]any{"type": "budget", "id": a.BudgetID, "percent": a.Percent}
		if a.ProjectID != "" {
			payload["project_id"] = a.ProjectID
		}
		if err := notifications.PublishTx(ctx, tx, org, notifications.BudgetThreshold, payload); err != nil {
			return false, err
		}
		for _, m := range members {
			mail := alertMail(a, org, m, strings.TrimRight(w.deps.PublicURL, "/"))
			if err := w.deps.Mail.SendTx(ctx, tx, mail); err != nil {
				return false, err
			}
		}
		now := w.deps.Clock.Now()
		n, err := q.AlertSent(ctx, billingdb.AlertSentParams{Now: &now, OrgID: org, BudgetID: a.BudgetID, StartsText: a.StartsText, Percent: a.Percent})
		if err != nil || n != 1 {
			return false, fmt.Errorf("mark an alert of %s as sent (%d rows): %w", a.BudgetID, n, err)
		}
		w.deps.Log.InfoContext(ctx, "a budget's threshold was reached", "org", org, "budget", a.BudgetID, "percent", a.Percent, "mails", len(members))
	}
	return len(alerts) == watchBatch, nil
}

// told are the members who answer for money, and whose address is known to be theirs.
func (w *Watch) told(ctx context.Context, tx pgx.Tx, org id.Org) ([]tenants.Member, error) {
	if !w.deps.Mail.Enabled() {
		return nil, nil
	}
	members, err := w.deps.Tenants.ListMembersTx(ctx, tx, org, "", maxTold)
	if err != nil {
		return nil, err
	}
	var out []tenants.Member
	for _, m := range members {
		if m.EmailVerifiedAt != nil && (m.Role == tenants.RoleOwner || m.Role == tenants.RoleAdmin || m.Role == tenants.RoleBilling) {
			out = append(out, m)
		}
	}
	return out, nil
}

func alertMail(a billingdb.ClaimAlertsRow, org id.Org, to tenants.Member, console string) notifications.Mail {
	spent, limit := money.Nanos(a.SpentNanos), money.Nanos(a.LimitNanos)
	kind, _, _ := strings.Cut(a.Scope, ":")
	consequence := "It only tells: work goes on above the limit."
	if a.Action == Block {
		consequence = "Work that no longer fits into it is refused, and sessions stop where they are until the limit is raised or the period ends."
	}
	period := "in total"
	if a.Period != "total" {
		period = "a " + a.Period + " (" + a.TimeZone + ")"
	}
	return notifications.Mail{
		Kind: "budget_threshold", To: to.Email, Subject: fmt.Sprintf("Budget %q has reached %d%%", a.Name, a.Percent),
		Text: fmt.Sprintf("The budget %q of %s has reached %d%% of its limit: %s of %s %s are spent.\n\nIt covers: %s. %s\n\n%s/x/%s\n",
			a.Name, a.OrgName, a.Percent, spent.Display(), limit.Display(), period, coveredBy[kind], consequence, console, a.BudgetID),
		Once: fmt.Sprintf("%s/budget/%s/%s/%d/%s", org, a.BudgetID, a.StartsText, a.Percent, to.UserID),
	}
}

var coveredBy = map[string]string{
	ScopeOrganization: "the whole organisation", ScopeProject: "one project", ScopeAgent: "one agent", ScopeKey: "one API key", ScopeMember: "one member", ScopeSession: "one session",
}

// markUnsettled makes expired holds unsettled: nothing was heard of their effects in time, so they still count until an answer, or what was
// declared for the case, settles them.
func (w *Watch) markUnsettled(ctx context.Context) error {
	for ctx.Err() == nil {
		var marked []billingdb.MarkUnsettledRow
		err := w.deps.DB.InWorkerTx(ctx, func(tx pgx.Tx) (err error) {
			marked, err = billingdb.New(tx).MarkUnsettled(ctx, watchBatch)
			return err
		})
		if err != nil {
			return fmt.Errorf("mark the holds that ran out: %w", err)
		}
		for _, h := range marked {
			w.deps.Log.WarnContext(ctx, "a hold ran out before its effect was settled, and still counts",
				"org", h.OrgID, "hold", h.ID, "session", h.SessionID, "step", deref(h.StepID), "open", money.Nanos(h.OpenNanos).Decimal())
		}
		if len(marked) < watchBatch {
			return nil
		}
	}
	return ctx.Err()
}
