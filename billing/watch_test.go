package billing_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/notifications/mailtest"
	"ambit.dev/ambit/tenants"
)

// house is an organisation with members, webhooks and sessions that spend.
type house struct {
	t       testing.TB
	db      *postgres.DB
	owner   string
	tenants *tenants.Service
	mail    *notifications.Mailer
	smtp    *mailtest.Server
	account tenants.Account
	org     id.Org
	log     *strings.Builder
}

func newHouse(t testing.TB) *house {
	t.Helper()
	h := &house{t: t, log: &strings.Builder{}}
	h.db, h.owner = dbtest.NewWithOwner(t)
	log := slog.New(slog.DiscardHandler)
	sealer, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	h.smtp = mailtest.New(t)
	h.mail, err = notifications.New(h.db, notifications.Deps{Sealer: sealer, Clock: clock.System(), Logger: log}, notifications.Config{SMTPURL: h.smtp.URL(), From: "Ambit <ambit@example.com>"})
	require.NoError(t, err)
	h.tenants, err = tenants.New(h.db, tenants.Deps{Clock: clock.System(), Logger: log, Sealer: sealer, PublicURL: "http://ambit.test", AnswerAfter: time.Millisecond})
	require.NoError(t, err)
	h.account, err = h.tenants.CreateAccount(t.Context(), tenants.SignUp{Email: "ada@example.com", Password: "correct horse battery staple", Name: "Ada", OrganizationName: "Ada's"})
	require.NoError(t, err)
	h.org = h.account.Organization.ID
	h.in(func(tx pgx.Tx) error {
		_, err := billing.Grant(t.Context(), tx, clock.System().Now(), h.org, 100*money.Dollar, "test")
		return err
	})
	h.asOwner("UPDATE users SET email_verified_at = now()")
	return h
}

func (h *house) in(fn func(tx pgx.Tx) error) {
	h.t.Helper()
	require.NoError(h.t, h.db.InTx(h.t.Context(), h.org, fn))
}

// asOwner looks and changes behind the application's back.
func (h *house) asOwner(sql string, into ...any) {
	h.t.Helper()
	conn, err := pgx.Connect(h.t.Context(), h.owner)
	require.NoError(h.t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // the test is over for it
	if len(into) > 0 {
		require.NoError(h.t, conn.QueryRow(h.t.Context(), sql).Scan(into...))
		return
	}
	_, err = conn.Exec(h.t.Context(), sql)
	require.NoError(h.t, err)
}

func (h *house) count(sql string) (n int) {
	h.t.Helper()
	h.asOwner("SELECT count(*) FROM "+sql, &n)
	return n
}

func (h *house) session(agent id.Agent, by journal.Actor) id.Session {
	h.t.Helper()
	s := id.New[id.Session]()
	h.in(func(tx pgx.Tx) error {
		_, _, err := journal.Create(h.t.Context(), tx, time.Now(), journal.New{
			Org: h.org, ID: s, Project: h.account.Project.ID, By: by, Title: "work", Agent: journal.Snapshot{ID: agent, Name: "worker", Version: 1},
		})
		return err
	})
	return s
}

// spend is one effect of a session: a step, its hold and its capture.
func (h *house) spend(s id.Session, kind, name string, amount money.Nanos, at time.Time) {
	h.t.Helper()
	step := id.New[id.Step]()
	h.in(func(tx pgx.Tx) error {
		l, err := journal.Lock(h.t.Context(), tx, h.org, s)
		if err != nil {
			return err
		}
		if _, err := l.Append(h.t.Context(), at, journal.Entry{Step: step, Payload: journal.StepIntended{Kind: kind, Name: name, EffectKey: string(step)}}); err != nil {
			return err
		}
		hold, short, err := billing.Place(h.t.Context(), tx, at, h.org, billing.HoldRequest{Session: s, Step: step, Amount: amount, PriceVersion: "test", Expires: at.Add(time.Minute)})
		if err != nil {
			return err
		}
		if short != nil {
			return errors.New("the hold is short")
		}
		_, err = billing.Settle(h.t.Context(), tx, at, h.org, hold, amount)
		return err
	})
}

func (h *house) budget(in billing.NewBudget) (b billing.Budget) {
	h.t.Helper()
	h.in(func(tx pgx.Tx) (err error) {
		b, err = billing.CreateBudget(h.t.Context(), tx, time.Now(), h.org, in)
		return err
	})
	return b
}

func (h *house) watch() *billing.Watch {
	return billing.NewWatch(billing.WatchDeps{
		DB: h.db, Tenants: h.tenants, Mail: h.mail, Clock: clock.System(), Log: slog.New(slog.NewTextHandler(h.log, nil)), PublicURL: "http://ambit.test/",
	})
}

func (h *house) user() journal.Actor {
	return journal.Actor{Kind: "user", ID: string(h.account.User.ID)}
}

func TestEachThresholdIsToldOnceToEachWhoAnswersForMoney(t *testing.T) {
	h := newHouse(t)
	for email, role := range map[string]string{"admin@example.com": "admin", "billing@example.com": "billing", "dev@example.com": "developer", "viewer@example.com": "viewer", "unverified@example.com": "owner"} {
		other, err := h.tenants.CreateAccount(t.Context(), tenants.SignUp{Email: email, Password: "correct horse battery staple", Name: email, OrganizationName: email})
		require.NoError(t, err)
		h.in(func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "INSERT INTO members (org_id, id, user_id, role, created_at) VALUES ($1, $2, $3, $4, now())", h.org, id.New[id.Member](), other.User.ID, role)
			return err
		})
	}
	h.asOwner("UPDATE users SET email_verified_at = CASE WHEN email = 'unverified@example.com' THEN NULL ELSE now() END")
	h.asOwner("INSERT INTO webhooks (org_id, id, url, description, event_types, status, sealed_secret, created_by, created_at, updated_at) VALUES ('" + string(h.org) + "', 'whk_x', 'https://example.com', '', '{*}', 'active', '', 'x', now(), now())")
	b := h.budget(billing.NewBudget{Name: "Monthly", Scope: billing.Scope{Type: "organization"}, Limit: 10 * money.Dollar, Period: "month", Action: billing.Block, Alerts: []int32{50, 80, 100}})
	s := h.session("", h.user())
	h.spend(s, "model_call", "m", 6*money.Dollar, time.Now())
	w := h.watch()
	require.NoError(t, w.RunOnce(t.Context()))
	require.Equal(t, 3, h.count("outgoing_mail WHERE kind = 'budget_threshold'"), "owner, admin and billing")
	require.Equal(t, 1, h.count("webhook_events WHERE type = 'budget.threshold' AND data ->> 'id' = '"+string(b.ID)+"' AND data ->> 'percent' = '50'"))

	// Two more at once, and three processes that find them together.
	h.spend(s, "model_call", "m", 4*money.Dollar, time.Now())
	var group sync.WaitGroup
	errs := make([]error, 3)
	for i := range errs {
		group.Go(func() { errs[i] = h.watch().RunOnce(t.Context()) })
	}
	group.Wait()
	require.NoError(t, errors.Join(errs...))
	require.NoError(t, w.RunOnce(t.Context()))
	require.Equal(t, 9, h.count("outgoing_mail WHERE kind = 'budget_threshold'"))
	require.Equal(t, 3, h.count("webhook_events WHERE type = 'budget.threshold'"))
	require.Zero(t, h.count("budget_alerts WHERE sent_at IS NULL"))
	h.in(func(tx pgx.Tx) error {
		reached, err := billing.ReachedAlerts(t.Context(), tx, h.org, b.ID)
		require.NoError(t, err)
		require.Len(t, reached[b.ID], 3)
		require.EqualValues(t, 50, reached[b.ID][0].Percent)
		require.Equal(t, 6*money.Dollar, reached[b.ID][0].Spent)
		require.NotNil(t, reached[b.ID][0].ToldAt)
		return nil
	})
}

func TestALimitThatIsLoweredBelowAThresholdTellsAtOnceAndOnce(t *testing.T) {
	h := newHouse(t)
	b := h.budget(billing.NewBudget{Name: "Monthly", Scope: billing.Scope{Type: "organization"}, Limit: 10 * money.Dollar, Period: "month", Action: billing.Block, Alerts: []int32{50, 100}})
	s := h.session("", h.user())
	h.spend(s, "model_call", "m", 4*money.Dollar, time.Now())
	change := func(c billing.ChangeBudget) {
		h.in(func(tx pgx.Tx) error {
			_, err := billing.UpdateBudget(t.Context(), tx, time.Now(), h.org, b.ID, c, 0)
			return err
		})
		for range 2 {
			require.NoError(t, h.watch().RunOnce(t.Context()))
		}
	}
	told := func() int { return h.count("outgoing_mail WHERE kind = 'budget_threshold'") }
	limit := func(n money.Nanos) billing.ChangeBudget { return billing.ChangeBudget{Limit: &n} }
	h.asOwner("INSERT INTO budget_periods (org_id, budget_id, starts_at, spent_nanos) SELECT org_id, budget_id, starts_at - interval '1 month', 9000000000 FROM budget_periods WHERE budget_id = '" + string(b.ID) + "'")
	change(limit(9 * money.Dollar))
	require.Zero(t, told(), "44% are none of them, and last month is over")
	change(limit(8 * money.Dollar))
	require.Equal(t, 1, told(), "50%, though nothing was spent since")
	change(limit(4 * money.Dollar))
	require.Equal(t, 2, told(), "100%")
	change(limit(100 * money.Dollar))
	change(limit(money.Dollar))
	require.Equal(t, 2, told(), "each once a period")
	more := []int32{50, 100, 300}
	change(billing.ChangeBudget{Alerts: &more})
	require.Equal(t, 3, told(), "a threshold that is new and was reached before")

	h.budget(billing.NewBudget{Name: "Made late", Scope: billing.Scope{Type: "organization"}, Limit: 5 * money.Dollar, Period: "month", Action: billing.Warn, Alerts: []int32{80, 90}})
	require.NoError(t, h.watch().RunOnce(t.Context()))
	require.Equal(t, 4, told(), "a budget that begins beyond a threshold")
	zero := money.Nanos(0)
	fresh := h.budget(billing.NewBudget{Name: "Nothing", Scope: billing.Scope{Type: "session", ID: string(h.session("", h.user()))}, Limit: money.Dollar, Period: "total", Action: billing.Block, Alerts: []int32{50}})
	b = fresh
	change(billing.ChangeBudget{Limit: &zero})
	require.Equal(t, 4, told(), "of nothing spent there is nothing to tell")
}

// TestALimitLoweredUnderACaptureMissesNoThreshold: neither sees what the other has not committed, so the one waits for the other.
func TestALimitLoweredUnderACaptureMissesNoThreshold(t *testing.T) {
	h := newHouse(t)
	b := h.budget(billing.NewBudget{Name: "Monthly", Scope: billing.Scope{Type: "organization"}, Limit: 10 * money.Dollar, Period: "month", Action: billing.Block, Alerts: []int32{50}})
	s := h.session("", h.user())
	lowered := make(chan error, 1)
	h.in(func(tx pgx.Tx) error {
		hold, _, err := billing.Place(t.Context(), tx, time.Now(), h.org, billing.HoldRequest{Session: s, Amount: 4 * money.Dollar, Expires: time.Now().Add(time.Minute)})
		if err != nil {
			return err
		}
		if _, err := billing.Settle(t.Context(), tx, time.Now(), h.org, hold, 4*money.Dollar); err != nil {
			return err
		}
		go func() {
			lowered <- h.db.InTx(t.Context(), h.org, func(tx pgx.Tx) error {
				limit := 5 * money.Dollar
				_, err := billing.UpdateBudget(t.Context(), tx, time.Now(), h.org, b.ID, billing.ChangeBudget{Limit: &limit}, 0)
				return err
			})
		}()
		require.Eventually(t, func() bool {
			return h.count("pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'") > 0
		}, 10*time.Second, 10*time.Millisecond, "it does not wait")
		return nil
	})
	require.NoError(t, <-lowered)
	require.Equal(t, 1, h.count("budget_alerts"))
}

func TestTheMailSaysWhichBudgetAndWhatFollows(t *testing.T) {
	h := newHouse(t)
	b := h.budget(billing.NewBudget{Name: "Night shift", Scope: billing.Scope{Type: "project", ID: string(h.account.Project.ID)}, Limit: 10 * money.Dollar, Period: "week", Action: billing.Block, Alerts: []int32{80}})
	h.spend(h.session("", h.user()), "model_call", "m", 8*money.Dollar+money.Cent, time.Now())
	w := h.watch()
	w.Start(t.Context())
	<-w.Started()
	require.NoError(t, w.Stop(t.Context()))
	h.mail.Start(t.Context())
	defer h.mail.Stop(t.Context()) //nolint:errcheck // the test is over
	got := h.smtp.Next(t, 0)
	require.Equal(t, "ada@example.com", got.To)
	require.Equal(t, `Budget "Night shift" has reached 80%`, got.Subject)
	for _, part := range []string{`"Night shift" of Ada's has reached 80% of its limit`, "$8.01 of $10.00 a week (UTC)", "one project", "refused", "http://ambit.test/x/" + string(b.ID)} {
		require.Contains(t, got.Text, part)
	}
}

// TestAReplicaThatDiesTellsNoneTwice breaks the telling off after all was queued and before the commit.
func TestAReplicaThatDiesTellsNoneTwice(t *testing.T) {
	h := newHouse(t)
	h.budget(billing.NewBudget{Name: "Total", Scope: billing.Scope{Type: "organization"}, Limit: money.Dollar, Period: "total", Action: billing.Warn, Alerts: []int32{100}})
	h.spend(h.session("", h.user()), "tool_call", "bash", 2*money.Dollar, time.Now())
	h.asOwner(`CREATE FUNCTION die() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'killed'; END $$;
		CREATE CONSTRAINT TRIGGER die AFTER UPDATE ON budget_alerts DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION die()`)
	require.ErrorContains(t, h.watch().RunOnce(t.Context()), "tell "+string(h.org))
	require.Zero(t, h.count("outgoing_mail WHERE kind = 'budget_threshold'"))
	h.asOwner("DROP TRIGGER die ON budget_alerts")
	for range 2 {
		require.NoError(t, h.watch().RunOnce(t.Context()))
	}
	require.Equal(t, 1, h.count("outgoing_mail WHERE kind = 'budget_threshold'"))
}

func TestWithoutAMailServerWebhooksAreToldStill(t *testing.T) {
	h := newHouse(t)
	h.mail = nil
	h.asOwner("INSERT INTO webhooks (org_id, id, project_id, url, description, event_types, status, sealed_secret, created_by, created_at, updated_at) VALUES ('" + string(h.org) + "', 'whk_x', '" + string(h.account.Project.ID) + "', 'https://example.com', '', '{budget.threshold}', 'active', '', 'x', now(), now())")
	h.budget(billing.NewBudget{Name: "Project", Scope: billing.Scope{Type: "project", ID: string(h.account.Project.ID)}, Limit: money.Dollar, Period: "hour", Action: billing.Warn, Alerts: []int32{1}})
	h.spend(h.session("", h.user()), "tool_call", "bash", money.Dollar, time.Now())
	require.NoError(t, h.watch().RunOnce(t.Context()))
	require.Equal(t, 1, h.count("webhook_events WHERE data ->> 'project_id' = '"+string(h.account.Project.ID)+"'"))
	require.Zero(t, h.count("budget_alerts WHERE sent_at IS NULL"))
}

func TestAHoldThatRanOutIsUnsettledAndStillCounts(t *testing.T) {
	h := newHouse(t)
	b := h.budget(billing.NewBudget{Name: "b", Scope: billing.Scope{Type: "organization"}, Limit: 2 * money.Dollar, Period: "total", Action: billing.Block})
	s := h.session("", h.user())
	place := func(expires time.Time) (hold id.Hold) {
		h.in(func(tx pgx.Tx) (err error) {
			hold, _, err = billing.Place(t.Context(), tx, time.Now(), h.org, billing.HoldRequest{Session: s, Step: id.New[id.Step](), Amount: money.Dollar, Expires: expires})
			return err
		})
		return hold
	}
	old, fresh := place(time.Now().Add(-time.Second)), place(time.Now().Add(time.Hour))
	require.NoError(t, h.watch().RunOnce(t.Context()))
	h.in(func(tx pgx.Tx) error {
		for hold, state := range map[id.Hold]string{old: "unsettled", fresh: "held"} {
			got, err := billing.ReadHold(t.Context(), tx, h.org, hold)
			require.NoError(t, err)
			require.Equal(t, state, got.State)
		}
		now, err := billing.GetBudget(t.Context(), tx, h.org, b.ID)
		require.NoError(t, err)
		require.Equal(t, 2*money.Dollar, now.Held)
		_, short, err := billing.Place(t.Context(), tx, time.Now(), h.org, billing.HoldRequest{Session: s, Step: id.New[id.Step](), Amount: 1, Expires: time.Now()})
		require.NoError(t, err)
		require.NotNil(t, short)
		return nil
	})
	require.Contains(t, h.log.String(), string(old))

	// Its answer, come late, settles it all the same.
	h.in(func(tx pgx.Tx) error {
		settled, err := billing.Settle(t.Context(), tx, time.Now(), h.org, old, money.Cent)
		require.Equal(t, money.Cent, settled.Captured)
		return err
	})
}
