package billing_test

import (
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

func (h *house) usage(in billing.UsageQuery) (out []billing.UsageRow) {
	h.t.Helper()
	if in.Limit == 0 {
		in.Limit = 1000
	}
	h.in(func(tx pgx.Tx) error {
		zone, err := billing.Zone(h.t.Context(), tx, h.org)
		if err != nil {
			return err
		}
		out, err = billing.Usage(h.t.Context(), tx, h.org, zone, in)
		return err
	})
	return out
}

func TestUsageIsTheLedgersCapturesWhateverTheyAreGroupedBy(t *testing.T) {
	h := newHouse(t)
	h.asOwner("UPDATE organizations SET time_zone = 'America/New_York'")
	agent, key := id.New[id.Agent](), id.New[id.Key]()
	mine, theirs := h.session(agent, h.user()), h.session("", journal.Actor{Kind: "api_key", ID: string(key)})
	// The night in which the clocks went back: 1 November 2026 has 25 hours in New York, from 04:00 to 05:00 UTC the day after.
	first := time.Date(2026, 11, 1, 4, 0, 0, 0, time.UTC)
	h.spend(mine, "model_call", "m/large", 3*money.Dollar+1, first)
	h.spend(mine, "tool_call", "bash", 2, first.Add(24*time.Hour+59*time.Minute))
	h.spend(theirs, "model_call", "m/small", 5, first.Add(25*time.Hour))
	h.spend(theirs, "model_call", "m/small", 7, first.Add(26*time.Hour))
	all := billing.UsageQuery{Since: first, Until: first.Add(48 * time.Hour)}
	want := 3*money.Dollar + 1 + 2 + 5 + 7

	for _, by := range append([][]string{nil, billing.UsageParts}, []string{"model"}, []string{"tool"}, []string{"agent", "key"}) {
		for _, bucket := range []string{"", "hour", "day"} {
			in := all
			in.By, in.Bucket = by, bucket
			var sum money.Nanos
			for _, r := range h.usage(in) {
				sum += r.Spent
			}
			require.Equal(t, want, sum, "by %v in %q", by, bucket)
		}
	}
	days := all
	days.Bucket = "day"
	got := h.usage(days)
	require.Len(t, got, 2)
	require.Equal(t, billing.UsageRow{StartsAt: first, Spent: 3*money.Dollar + 3, Effects: 2}, got[0], "the whole of the long day")
	require.Equal(t, billing.UsageRow{StartsAt: first.Add(25 * time.Hour), Spent: 12, Effects: 2}, got[1])

	parts := all
	parts.By = []string{"agent", "model", "tool", "key", "member"}
	require.Equal(t, []billing.UsageRow{
		{StartsAt: first, Model: "m/small", Key: string(key), Spent: 12, Effects: 2},
		{StartsAt: first, Agent: string(agent), Tool: "bash", Member: string(h.account.User.ID), Spent: 2, Effects: 1},
		{StartsAt: first, Agent: string(agent), Model: "m/large", Member: string(h.account.User.ID), Spent: 3*money.Dollar + 1, Effects: 1},
	}, h.usage(parts))

	// One row at a time, each after the last.
	paged := parts
	paged.Limit = 1
	var rows []billing.UsageRow
	for {
		page := h.usage(paged)
		if len(page) == 0 {
			break
		}
		rows, paged.After = append(rows, page[0]), &page[0]
	}
	require.Equal(t, h.usage(parts), rows)

	for name, filter := range map[string]func(*billing.UsageQuery){
		"agent":  func(q *billing.UsageQuery) { q.Agent = agent },
		"member": func(q *billing.UsageQuery) { q.Member = string(h.account.User.ID) },
	} {
		in := all
		filter(&in)
		require.Equal(t, 3*money.Dollar+3, h.usage(in)[0].Spent, name)
	}
	only := all
	only.Key, only.Model = key, "m/small"
	require.EqualValues(t, 12, h.usage(only)[0].Spent)
	only.Tool = "bash"
	require.Empty(t, h.usage(only))
}

func TestUsageRefusesRangesThatAreNone(t *testing.T) {
	h := newHouse(t)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for _, in := range []billing.UsageQuery{
		{Since: at, Until: at}, {Since: at, Until: at.Add(-time.Hour)}, {Since: at, Until: at.AddDate(2, 0, 0)}, {Since: at, Until: at.AddDate(0, 3, 0), Bucket: "hour"},
	} {
		err := h.db.InTx(t.Context(), h.org, func(tx pgx.Tx) error {
			_, err := billing.Usage(t.Context(), tx, h.org, time.UTC, in)
			return err
		})
		require.ErrorContains(t, err, "range", "%v", in)
	}
}

// TestAChangeOfTheZoneForgetsNothing: the day begins elsewhere, and the budget still counts what was spent and is held in it.
func TestAChangeOfTheZoneForgetsNothing(t *testing.T) {
	h := newHouse(t)
	b := h.budget(billing.NewBudget{Name: "daily", Scope: billing.Scope{Type: "organization"}, Limit: 10 * money.Dollar, Period: "day", Action: billing.Block})
	total := h.budget(billing.NewBudget{Name: "total", Scope: billing.Scope{Type: "organization"}, Limit: 10 * money.Dollar, Period: "total", Action: billing.Block})
	s := h.session("", h.user())
	h.spend(s, "model_call", "m", money.Dollar, time.Now())
	var open id.Hold
	h.in(func(tx pgx.Tx) (err error) {
		open, _, err = billing.Place(t.Context(), tx, time.Now(), h.org, billing.HoldRequest{Session: s, Step: id.New[id.Step](), Amount: money.Dollar, Expires: time.Now().Add(time.Hour)})
		return err
	})
	check := func(spent, held money.Nanos) {
		t.Helper()
		h.in(func(tx pgx.Tx) error {
			wrong, err := billing.BudgetMismatches(t.Context(), tx, h.org)
			require.NoError(t, err)
			require.Empty(t, wrong)
			for _, one := range []id.Budget{b.ID, total.ID} {
				now, err := billing.GetBudget(t.Context(), tx, h.org, one)
				require.NoError(t, err)
				require.Equal(t, spent, now.Spent, now.Name)
				require.Equal(t, held, now.Held, now.Name)
			}
			return nil
		})
	}
	move := func(zone string) {
		h.in(func(tx pgx.Tx) error {
			_, err := tx.Exec(t.Context(), "UPDATE organizations SET time_zone = $1", zone)
			return err
		})
	}
	check(money.Dollar, money.Dollar)
	for _, zone := range []string{"Pacific/Auckland", "America/Los_Angeles", "Asia/Kolkata"} {
		move(zone)
		check(money.Dollar, money.Dollar)
	}
	h.in(func(tx pgx.Tx) error {
		_, err := billing.Settle(t.Context(), tx, time.Now(), h.org, open, money.Cent)
		return err
	})
	for _, zone := range []string{"UTC", "Pacific/Auckland", "America/Los_Angeles", "UTC"} {
		move(zone)
		check(money.Dollar+money.Cent, 0)
	}
}

func TestAnOrganisationIsFoundByItsIDOrItsShortName(t *testing.T) {
	h := newHouse(t)
	find := func(name string) (org id.Org, err error) {
		err = h.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
			org, err = billing.FindOrganization(t.Context(), tx, name)
			return err
		})
		return org, err
	}
	for _, name := range []string{string(h.org), h.account.Organization.Slug} {
		found, err := find(name)
		require.NoError(t, err)
		require.Equal(t, h.org, found)
	}
	for _, name := range []string{"", "Ada's", "nobody"} {
		_, err := find(name)
		require.ErrorContains(t, err, "There is no organisation", name)
	}
}
