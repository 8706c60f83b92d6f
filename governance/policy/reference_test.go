package policy_test

import (
	"context"
	"flag"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/id"
)

var seed = flag.Uint64("seed", 20261120, "the seed of the random rules and requests")

// TestASetAnswersAsCasbinDoes compares the compiled rules with Casbin on 100,000 random requests, both reading the same rows of Postgres.
func TestASetAnswersAsCasbinDoes(t *testing.T) {
	const organisations, requests = 100, 1000
	t.Logf("seed %d (run again with -seed=%d)", *seed, *seed)
	o := newOffice(t)
	anything := policy.NewService(o.cache, policy.Catalogue{}, o.clock)
	c := &chance{Rand: rand.New(rand.NewPCG(*seed, 1))} //nolint:gosec // not for secrets
	count := map[policy.Effect]int{}
	byCode := map[string]int{}
	for range organisations {
		org, project, agents := o.org(3)
		c.project, c.agents = project, agents
		var set *policy.Set
		var ref *policy.Reference
		o.in(org, func(ctx context.Context, tx pgx.Tx) (err error) {
			zone := pick(c, []string{"UTC", "Asia/Tokyo", "America/St_Johns", "Europe/Madrid", "Pacific/Chatham"})
			if _, err := tx.Exec(ctx, `UPDATE organizations SET time_zone = $2 WHERE id = $1`, org, zone); err != nil {
				return err
			}
			for range c.IntN(16) {
				if _, err := anything.Create(ctx, tx, org, c.rule()); err != nil {
					return err
				}
			}
			for _, a := range agents {
				if _, err := anything.SetTags(ctx, tx, org, a, [][]string{{}, {"a"}, {"b"}, {"a", "b"}}[c.IntN(4)]); err != nil {
					return err
				}
			}
			if set, err = policy.Load(ctx, tx, org); err != nil {
				return err
			}
			ref, err = policy.NewReference(ctx, tx, org)
			return err
		})
		for range requests {
			r := c.request()
			got := set.Decide(r)
			want, err := ref.Decide(r)
			require.NoError(t, err)
			require.Equal(t, want, got.Effect, "seed %d: %+v: decided by %s: %s", *seed, r, got.Rule, got.Reason().Message)
			require.Equal(t, got, set.Explain(r).Decision)
			count[got.Effect]++
			if len(got.Rule) < 20 {
				byCode[got.Rule]++
			}
		}
	}
	t.Logf("%d requests: %v, without a rule %v", organisations*requests, count, byCode)
	for _, effect := range []policy.Effect{policy.Allow, policy.Deny, policy.Approve} {
		require.Greater(t, count[effect], 1000, "the random requests must try each effect")
	}
	for _, code := range []string{policy.ByDefault, policy.NoRule, policy.ByDomain, policy.ByKind, policy.ByModel, policy.ByTools} {
		require.Greater(t, byCode[code], 100, code)
	}
}

func TestCasbinLoadsOneOrganisationsRulesAndWritesNone(t *testing.T) {
	o := newOffice(t)
	org, _, _ := o.org(0)
	other, _, _ := o.org(0)
	o.create(other, policy.Rule{Subject: "*", Effect: policy.Deny, Kind: "*"})
	r := asking(id.New[id.Agent](), policy.ToolCall, "bash")
	for _, at := range []struct {
		org  id.Org
		want policy.Effect
	}{{org, policy.Allow}, {other, policy.Deny}} {
		o.in(at.org, func(ctx context.Context, tx pgx.Tx) error {
			ref, err := policy.NewReference(ctx, tx, at.org)
			require.NoError(t, err)
			got, err := ref.Decide(r)
			require.Equal(t, at.want, got)
			return err
		})
	}
	// Row-level security alone keeps another organisation's rules out.
	o.in(org, func(ctx context.Context, tx pgx.Tx) error {
		set, err := policy.Load(ctx, tx, other)
		require.NoError(t, err)
		require.Zero(t, set.Len())
		return nil
	})
}

func BenchmarkDecide(b *testing.B) {
	const organisations, rules = 100, 100
	o := newOffice(b)
	anything := policy.NewService(o.cache, policy.Catalogue{}, o.clock)
	c := &chance{Rand: rand.New(rand.NewPCG(*seed, 2))} //nolint:gosec // not for secrets
	type tenant struct {
		set      *policy.Set
		ref      *policy.Reference
		bare     map[[3]string]policy.Effect
		requests []policy.Request
	}
	tenants := make([]tenant, organisations)
	for i := range tenants {
		tn := &tenants[i]
		org, project, agents := o.org(5)
		c.project, c.agents = project, agents
		o.in(org, func(ctx context.Context, tx pgx.Tx) (err error) {
			for range rules {
				if _, err := anything.Create(ctx, tx, org, c.rule()); err != nil {
					return err
				}
			}
			if tn.set, err = policy.Load(ctx, tx, org); err != nil {
				return err
			}
			tn.ref, err = policy.NewReference(ctx, tx, org)
			return err
		})
		tn.bare = map[[3]string]policy.Effect{}
		for range 64 {
			r := c.request()
			tn.requests = append(tn.requests, r)
			tn.bare[[3]string{string(r.Agent), r.Kind, r.Name}] = tn.set.Decide(r).Effect
		}
	}
	at := func(n int) (*tenant, *policy.Request) {
		tn := &tenants[n%organisations]
		return tn, &tn.requests[n/organisations%len(tn.requests)]
	}
	b.Run("compiled", func(b *testing.B) {
		b.ReportAllocs()
		n := 0
		for b.Loop() {
			tn, r := at(n)
			tn.set.Decide(*r)
			n++
		}
		b.ReportMetric(float64(b.Elapsed())/float64(b.N)/float64(time.Microsecond), "µs/decision")
	})
	b.Run("compiled, with the reason in words", func(b *testing.B) {
		n := 0
		for b.Loop() {
			tn, r := at(n)
			_ = tn.set.Decide(*r).Reason()
			n++
		}
	})
	b.Run("raw Casbin, one enforcer a tenant", func(b *testing.B) {
		n := 0
		for b.Loop() {
			tn, r := at(n)
			if _, err := tn.ref.Decide(*r); err != nil {
				b.Fatal(err)
			}
			n++
		}
	})
	b.Run("bare map", func(b *testing.B) {
		n := 0
		for b.Loop() {
			tn, r := at(n)
			_ = tn.bare[[3]string{string(r.Agent), r.Kind, r.Name}]
			n++
		}
	})
}
