package policy_test

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

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
)

func TestARuleIsKeptAsItWasChecked(t *testing.T) {
	o := newOffice(t)
	org, project, agents := o.org(1)
	dollar := money.Dollar
	made := o.create(org, policy.Rule{
		Subject: string(agents[0]), Effect: policy.Deny, Kind: policy.ToolCall, Name: "http**", Condition: policy.Condition{
			AmountOver: &dollar, Hours: &policy.Hours{From: 540, To: 1080}, Domains: []string{"B.test", "*.a.test", "b.test"}, Environments: []string{"default"},
		}, Description: " why ",
	})
	require.Equal(t, "http*", made.Name)
	require.Equal(t, "*", made.Action)
	require.Equal(t, []string{"*.a.test", "b.test"}, made.Condition.Domains)
	require.Equal(t, "why", made.Description)
	require.EqualValues(t, 1, made.Version)
	o.in(org, func(ctx context.Context, tx pgx.Tx) error {
		read, err := o.service.Get(ctx, tx, org, made.ID)
		require.NoError(t, err)
		require.Equal(t, made, read)
		two := int64(2)
		_, err = o.service.Update(ctx, tx, org, made.ID, &two, func(r policy.Rule) policy.Rule { return r })
		require.True(t, fault.IsCode(err, "precondition_failed"))
		changed, err := o.service.Update(ctx, tx, org, made.ID, &made.Version, func(r policy.Rule) policy.Rule {
			r.Subject, r.Condition = string(project), policy.Condition{}
			return r
		})
		require.NoError(t, err)
		require.EqualValues(t, 2, changed.Version)
		require.True(t, changed.Condition.IsZero())
		list, err := o.service.List(ctx, tx, org, policy.ListFilter{Subject: string(project), Limit: 10})
		require.NoError(t, err)
		require.Equal(t, []policy.Stored{changed}, list)
		require.NoError(t, o.service.Delete(ctx, tx, org, made.ID))
		_, err = o.service.Get(ctx, tx, org, made.ID)
		require.Equal(t, fault.NotFoundKind, fault.As(err).Kind)
		require.Equal(t, fault.NotFoundKind, fault.As(o.service.Delete(ctx, tx, org, made.ID)).Kind)
		return nil
	})
}

func TestRulesThatNameNothing(t *testing.T) {
	o := newOffice(t)
	org, _, _ := o.org(0)
	_, otherProject, otherAgents := o.org(1)
	for _, r := range []policy.Rule{
		{Subject: "*", Effect: policy.Allow, Kind: policy.ToolCall, Name: "bsah"},
		{Subject: "*", Effect: policy.Allow, Kind: policy.ModelCall, Name: "no/model"},
		{Subject: string(id.New[id.Agent]()), Effect: policy.Allow, Kind: policy.ToolCall, Name: "bash"},
		{Subject: string(otherAgents[0]), Effect: policy.Allow, Kind: policy.ToolCall, Name: "bash"},
		{Subject: string(otherProject), Effect: policy.Allow, Kind: policy.ToolCall, Name: "bash"},
	} {
		err := o.try(org, func(ctx context.Context, tx pgx.Tx) error {
			_, err := o.service.Create(ctx, tx, org, r)
			return err
		})
		require.Equal(t, fault.Invalid, fault.As(err).Kind, "%+v: %v", r, err)
	}
	require.Zero(t, o.now(org).Version(), "what was refused changed nothing")
}

func TestTheNumberOfRulesIsBounded(t *testing.T) {
	o := newOffice(t)
	org, _, _ := o.org(0)
	o.in(org, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `INSERT INTO permissions (org_id, id, subject, effect, kind, name, action, object, condition, description, created_by, created_at, updated_at)
			SELECT $1, 'prm_' || n, '*', 'allow', 'exec', '*', '*', '*', '', '', 'test', now(), now() FROM generate_series(1, $2::int) n`, org, policy.MaxRules)
		return err
	})
	err := o.try(org, func(ctx context.Context, tx pgx.Tx) error {
		_, err := o.service.Create(ctx, tx, org, policy.Rule{Subject: "*", Effect: policy.Deny, Kind: "*"})
		return err
	})
	require.True(t, fault.IsCode(err, "state_conflict"), "%v", err)
}

func TestTagsChangeWhomRulesAreAbout(t *testing.T) {
	o := newOffice(t)
	org, _, agents := o.org(2)
	o.create(org, policy.Rule{Subject: "tag:no-shell", Effect: policy.Deny, Kind: policy.ToolCall, Name: "bash"})
	require.True(t, o.now(org).Decide(asking(agents[0], policy.ToolCall, "bash")).Allowed())
	o.in(org, func(ctx context.Context, tx pgx.Tx) error {
		tagged, err := o.service.SetTags(ctx, tx, org, agents[0], []string{"no-shell", "a", "a"})
		require.Equal(t, []string{"a", "no-shell"}, tagged.Tags)
		return err
	})
	require.False(t, o.now(org).Decide(asking(agents[0], policy.ToolCall, "bash")).Allowed())
	require.True(t, o.now(org).Decide(asking(agents[1], policy.ToolCall, "bash")).Allowed())
	o.in(org, func(ctx context.Context, tx pgx.Tx) error {
		list, err := o.service.ListTags(ctx, tx, org, "", 10)
		require.Equal(t, []policy.Tagged{{Agent: agents[0], Tags: []string{"a", "no-shell"}}}, list)
		return err
	})
	for _, tags := range [][]string{{"UPPER"}, {"tag:x"}, {strings.Repeat("a", 41)}, {""}} {
		err := o.try(org, func(ctx context.Context, tx pgx.Tx) error {
			_, err := o.service.SetTags(ctx, tx, org, agents[0], tags)
			return err
		})
		require.Equal(t, fault.Invalid, fault.As(err).Kind)
	}
	err := o.try(org, func(ctx context.Context, tx pgx.Tx) error {
		_, err := o.service.SetTags(ctx, tx, org, id.New[id.Agent](), []string{"a"})
		return err
	})
	require.Equal(t, fault.NotFoundKind, fault.As(err).Kind, "%v", err)
}

func TestAPresetIsCopiedInOneChange(t *testing.T) {
	o := newOffice(t)
	org, _, agents := o.org(1)
	subject := string(agents[0])
	o.create(org, policy.Rule{Subject: subject, Effect: policy.Allow, Kind: "*"})
	apply := func(name, subject string, replace bool) (out []policy.Stored, err error) {
		err = o.try(org, func(ctx context.Context, tx pgx.Tx) (err error) {
			out, err = o.service.ApplyPreset(ctx, tx, org, name, subject, replace)
			return err
		})
		return out, err
	}
	made, err := apply("read-only-researcher", subject, true)
	require.NoError(t, err)
	set := o.now(org)
	require.Equal(t, len(made), set.Len(), "the subject's other rule is gone")
	require.Equal(t, "read-only-researcher", made[0].Preset)
	require.False(t, set.Decide(asking(agents[0], policy.ToolCall, "bash")).Allowed())
	_, err = apply("root", subject, false)
	require.Equal(t, fault.NotFoundKind, fault.As(err).Kind)
	_, err = apply("web-client", "nobody", false)
	require.Equal(t, fault.Invalid, fault.As(err).Kind)
	_, err = apply("web-client", string(id.New[id.Agent]()), false)
	require.Equal(t, fault.Invalid, fault.As(err).Kind)
	require.Equal(t, set.Version(), o.now(org).Version())
}

// TestAChangeBindsAtOnce: an admission that begins after the commit of a change decides by it, though nobody told its process.
func TestAChangeBindsAtOnce(t *testing.T) {
	o := newOffice(t)
	org, _, agents := o.org(1)
	elsewhere := policy.NewCache(o.db, nil, slog.New(slog.DiscardHandler))
	decide := func() bool {
		var allowed bool
		o.in(org, func(ctx context.Context, tx pgx.Tx) error {
			version, err := policy.Version(ctx, tx, org)
			require.NoError(t, err)
			set, err := elsewhere.At(ctx, tx, org, version)
			require.NoError(t, err)
			require.Equal(t, version, set.Version())
			allowed = set.Decide(asking(agents[0], policy.ToolCall, "bash")).Allowed()
			return nil
		})
		return allowed
	}
	require.True(t, decide())
	for range 20 {
		made := o.create(org, policy.Rule{Subject: "*", Effect: policy.Deny, Kind: policy.ToolCall, Name: "bash"})
		require.False(t, decide())
		o.in(org, func(ctx context.Context, tx pgx.Tx) error { return o.service.Delete(ctx, tx, org, made.ID) })
		require.True(t, decide())
	}
}

// TestHoursAreReadInTheOrganisationsZone, also the moment after it moved.
func TestHoursAreReadInTheOrganisationsZone(t *testing.T) {
	o := newOffice(t)
	org, _, agents := o.org(1)
	o.create(org, policy.Rule{Subject: "*", Effect: policy.Allow, Kind: policy.ToolCall, Name: "bash", Condition: policy.Condition{Hours: &policy.Hours{From: 12 * 60, To: 13 * 60}}})
	request := asking(agents[0], policy.ToolCall, "bash") // at noon, UTC
	require.True(t, o.now(org).Decide(request).Allowed())
	for _, c := range []struct {
		zone  string
		ahead time.Duration
	}{{"Asia/Tokyo", -9 * time.Hour}, {"Europe/Madrid", -time.Hour}, {"America/New_York", 5 * time.Hour}} {
		o.in(org, func(ctx context.Context, tx pgx.Tx) error {
			_, err := tx.Exec(ctx, `UPDATE organizations SET time_zone = $2 WHERE id = $1`, org, c.zone)
			return err
		})
		set, there := o.now(org), request
		there.At = there.At.Add(c.ahead)
		require.False(t, set.Decide(request).Allowed(), c.zone)
		require.True(t, set.Decide(there).Allowed(), c.zone)
		// In summer, noon comes an hour earlier where clocks were put forward.
		summer := time.Date(2027, time.July, 1, 12, 0, 0, 0, time.FixedZone("", 0))
		there.At = summer.Add(c.ahead)
		require.Equal(t, c.zone == "Asia/Tokyo", set.Decide(there).Allowed(), c.zone)
	}
}

// TestARolledBackChangeLeavesNothingInMemory: what a transaction read of its own change, before it failed, is never anybody's rule.
func TestARolledBackChangeLeavesNothingInMemory(t *testing.T) {
	o := newOffice(t)
	org, _, agents := o.org(1)
	o.create(org, policy.Rule{Subject: "*", Effect: policy.Allow, Kind: "*"})
	request := asking(agents[0], policy.ToolCall, "bash")
	no := errors.New("no")
	for range 3 {
		err := o.try(org, func(ctx context.Context, tx pgx.Tx) error {
			_, err := o.service.Create(ctx, tx, org, policy.Rule{Subject: "*", Effect: policy.Deny, Kind: "*"})
			require.NoError(t, err)
			set, err := o.cache.Now(ctx, tx, org)
			require.NoError(t, err)
			require.False(t, set.Decide(request).Allowed(), "it sees its own change")
			return no
		})
		require.ErrorIs(t, err, no)
		require.True(t, o.now(org).Decide(request).Allowed())
		o.create(org, policy.Rule{Subject: "*", Effect: policy.Allow, Kind: policy.Exec})
		require.True(t, o.now(org).Decide(request).Allowed(), "a version that was rolled back is not given again")
	}
}

// TestTwoCachesHearOfAChange: replicas that wait for nothing have the new rules within a second of the commit.
func TestTwoCachesHearOfAChange(t *testing.T) {
	o := newOffice(t)
	ctx := context.Background()
	orgs := make([]id.Org, 3)
	for i := range orgs {
		orgs[i], _, _ = o.org(0)
		o.create(orgs[i], policy.Rule{Subject: "*", Effect: policy.Allow, Kind: "*"})
	}
	caches := make([]*policy.Cache, 2)
	for i := range caches {
		listener := postgres.NewListener(o.db, slog.New(slog.DiscardHandler), policy.Channel)
		listener.Start(ctx)
		<-listener.Started()
		t.Cleanup(listener.Stop)
		c := policy.NewCache(o.db, listener, slog.New(slog.DiscardHandler))
		c.Start(ctx)
		<-c.Started()
		t.Cleanup(func() { require.NoError(t, c.Stop(ctx)) })
		for _, org := range orgs {
			o.in(org, func(ctx context.Context, tx pgx.Tx) error {
				_, err := c.Now(ctx, tx, org)
				return err
			})
		}
		caches[i] = c
	}
	for range 5 {
		for _, org := range orgs {
			began := time.Now()
			o.create(org, policy.Rule{Subject: "*", Effect: policy.Deny, Kind: policy.Exec})
			want := o.now(org).Version()
			require.Eventually(t, func() bool {
				return caches[0].InMemory(org).Version() == want && caches[1].InMemory(org).Version() == want
			}, time.Second, 2*time.Millisecond)
			t.Logf("both replicas had the change after %s", time.Since(began).Round(time.Millisecond))
		}
	}
}

// TestChangesOfOneOrganisationWaitForEachOther: of many at once none is lost, and each has a version of its own.
func TestChangesOfOneOrganisationWaitForEachOther(t *testing.T) {
	o := newOffice(t)
	org, _, _ := o.org(0)
	var wg sync.WaitGroup
	failed := make(chan error, 16)
	for range cap(failed) {
		wg.Go(func() {
			failed <- o.try(org, func(ctx context.Context, tx pgx.Tx) error {
				_, err := o.service.Create(ctx, tx, org, policy.Rule{Subject: "*", Effect: policy.Allow, Kind: policy.ToolCall, Name: "bash"})
				return err
			})
		})
	}
	wg.Wait()
	close(failed)
	for err := range failed {
		require.NoError(t, err)
	}
	require.Equal(t, 16, o.now(org).Len())
}

// TestARuleThatCannotBeReadDecidesNothing: there is no admission by the rules that are left.
func TestARuleThatCannotBeReadDecidesNothing(t *testing.T) {
	o := newOffice(t)
	org, _, _ := o.org(0)
	made := o.create(org, policy.Rule{Subject: "*", Effect: policy.Deny, Kind: "*"})
	o.in(org, func(ctx context.Context, tx pgx.Tx) error {
		_, err := tx.Exec(ctx, `UPDATE permissions SET condition = 'moon=full' WHERE id = $1`, made.ID)
		require.NoError(t, err)
		_, err = o.cache.Now(ctx, tx, org)
		require.ErrorContains(t, err, "moon=full")
		return nil
	})
}

func TestExplainAsksCasbinToo(t *testing.T) {
	o := newOffice(t)
	org, _, agents := o.org(1)
	o.create(org, policy.Rule{Subject: string(agents[0]), Effect: policy.Allow, Kind: policy.ToolCall, Name: "read_file"})
	o.in(org, func(ctx context.Context, tx pgx.Tx) error {
		e, err := o.service.Explain(ctx, tx, org, asking(agents[0], policy.ToolCall, "bash"))
		require.NoError(t, err)
		require.Equal(t, policy.Deny, e.Decision.Effect)
		require.Equal(t, "read_file", e.Nearest.Name)
		return nil
	})
}
