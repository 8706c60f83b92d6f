package approval_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants"
)

// bench is an organisation with a rule, an owner, an admin and a session that asks.
type bench struct {
	db           *postgres.DB
	org          id.Org
	owner, admin id.User
	session      id.Session
	project      id.Project
	cache        *policy.Cache
	service      *approval.Service
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{
		db: dbtest.New(t), org: id.New[id.Org](), owner: id.New[id.User](), admin: id.New[id.User](), session: id.New[id.Session](), project: id.New[id.Project](),
		service: approval.NewService(approval.Deps{Clock: clock.System()}),
	}
	b.cache = policy.NewCache(b.db, nil, nil)
	approval.Extend(b.cache)
	require.NoError(t, b.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
		if err := postgres.SetOrg(t.Context(), tx, b.org); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `INSERT INTO organizations (id, name, slug, created_at, updated_at) VALUES ($1, 'Test', $2, now(), now())`, string(b.org), string(b.org)[4:24])
		return err
	}))
	for user, role := range map[id.User]tenants.Role{b.owner: tenants.RoleOwner, b.admin: tenants.RoleAdmin} {
		require.NoError(t, b.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
			for name, value := range map[string]string{"app.user_id": string(user), "app.org_id": string(b.org)} {
				if _, err := tx.Exec(t.Context(), `SELECT set_config($1, $2, true)`, name, value); err != nil {
					return err
				}
			}
			if _, err := tx.Exec(t.Context(), `INSERT INTO users (id, email, name, must_verify, created_at) VALUES ($1, $2, '', false, now())`, string(user), string(role)+"@example.com"); err != nil {
				return err
			}
			_, err := tx.Exec(t.Context(), `INSERT INTO members (org_id, id, user_id, role, created_at) VALUES ($1, $2, $3, $4, now())`, string(b.org), string(id.New[id.Member]()), string(user), string(role))
			return err
		}))
	}
	b.in(t, b.owner, func(tx pgx.Tx) error {
		_, _, err := journal.Create(t.Context(), tx, time.Now(), journal.New{Org: b.org, ID: b.session, Project: b.project, By: journal.Actor{Kind: principal.Key, ID: "key_none"}})
		if err != nil {
			return err
		}
		_, err = b.service.CreateRule(b.ctx(t, b.owner), tx, b.org, approval.Rule{
			Name: "Purchases", Outcome: approval.Ask, Subject: "*", Tool: "buy", Stages: []approval.Stage{{Roles: []tenants.Role{tenants.RoleAdmin}, Within: time.Hour}},
		}, nil)
		return err
	})
	return b
}

func (b *bench) in(t *testing.T, user id.User, fn func(tx pgx.Tx) error) {
	t.Helper()
	require.NoError(t, b.db.InTx(b.ctx(t, user), b.org, fn))
}

// stand asks about a purchase, in the caller's transaction.
func (b *bench) stand(t *testing.T, tx pgx.Tx, seq int64, arguments string) approval.Answer {
	t.Helper()
	set, err := b.cache.Now(t.Context(), tx, b.org)
	require.NoError(t, err)
	a, err := approval.Stand(t.Context(), tx, time.Now(), set, approval.Question{
		Org: b.org, Project: b.project, Seq: seq,
		Effect: approval.Effect{Request: policy.Request{Project: b.project, Kind: policy.ToolCall, Name: "buy", Tools: []string{"buy"}, Amount: money.Cent, At: time.Now()}},
		Shown:  approval.Shown{Action: approval.Action{Tool: "buy", Arguments: json.RawMessage(arguments), Session: b.session}},
	})
	require.NoError(t, err)
	return a
}

// TestAnApprovalIsUsedOnce also by who holds on to an answer.
func TestAnApprovalIsUsedOnce(t *testing.T) {
	b := newBench(t)
	var answer approval.Answer
	b.in(t, b.owner, func(tx pgx.Tx) error {
		answer = b.stand(t, tx, 7, `{"cups":1}`)
		require.Equal(t, approval.Waiting, answer.State)
		return nil
	})
	b.in(t, b.admin, func(tx pgx.Tx) error {
		_, err := b.service.Decide(b.ctx(t, b.admin), tx, b.org, answer.Approval.ID, approval.Decision{Verb: approval.Approve, Digest: answer.Approval.DigestText()})
		return err
	})
	b.in(t, b.owner, func(tx pgx.Tx) error {
		answer = b.stand(t, tx, 7, `{"cups": 1}`)
		require.Equal(t, approval.Granted, answer.State, "spelled in another way it is the same action")
		return answer.Admitted(t.Context(), tx, time.Now(), id.New[id.Step]())
	})
	err := b.db.InTx(t.Context(), b.org, func(tx pgx.Tx) error {
		return answer.Admitted(t.Context(), tx, time.Now(), id.New[id.Step]())
	})
	require.ErrorIs(t, err, approval.ErrNotGood, "an approval was used twice")
	b.in(t, b.owner, func(tx pgx.Tx) error {
		require.Equal(t, approval.Waiting, b.stand(t, tx, 7, `{"cups":1}`).State, "what was used is asked about anew")
		return nil
	})
}

// TestWeakeningTakesProof: what counts as weaker, and what does not.
func TestWeakeningTakesProof(t *testing.T) {
	cent, dime := money.Cent, 10*money.Cent
	base := approval.Rule{
		Name: "a", Outcome: approval.Ask, Subject: "*", Kind: "tool_call", Tool: "buy", Action: "*", Object: "*", Condition: policy.Condition{AmountOver: &dime},
		Stages: []approval.Stage{{Roles: []tenants.Role{tenants.RoleAdmin}, Need: 2, Within: time.Hour}},
	}
	change := func(f func(r *approval.Rule)) approval.Rule {
		r := base
		r.Stages = append([]approval.Stage{}, base.Stages...)
		f(&r)
		return r
	}
	for name, r := range map[string]approval.Rule{
		"another name": change(func(r *approval.Rule) { r.Name = "b" }),
		"more people":  change(func(r *approval.Rule) { r.Stages[0].Need = 3 }),
		"less time":    change(func(r *approval.Rule) { r.Stages[0].Within = time.Minute }),
		"a passkey":    change(func(r *approval.Rule) { r.Passkey = true }),
		"a second stage": change(func(r *approval.Rule) {
			r.Stages = append(r.Stages, approval.Stage{Roles: []tenants.Role{tenants.RoleOwner}, Need: 1, Within: time.Hour})
		}),
		"a smaller amount": change(func(r *approval.Rule) { r.Condition.AmountOver = &cent }),
	} {
		require.False(t, approval.Weaker(base, r), name)
	}
	for name, r := range map[string]approval.Rule{
		"fewer people":          change(func(r *approval.Rule) { r.Stages[0].Need = 1 }),
		"more roles":            change(func(r *approval.Rule) { r.Stages[0].Roles = []tenants.Role{tenants.RoleAdmin, tenants.RoleViewer} }),
		"more time":             change(func(r *approval.Rule) { r.Stages[0].Within = 2 * time.Hour }),
		"the asker may":         change(func(r *approval.Rule) { r.AskerMay = true }),
		"another tool":          change(func(r *approval.Rule) { r.Tool = "sell" }),
		"a larger amount":       change(func(r *approval.Rule) { d := money.Dollar; r.Condition.AmountOver = &d }),
		"an end":                change(func(r *approval.Rule) { at := time.Now(); r.Until = &at }),
		"only when it has read": change(func(r *approval.Rule) { r.Tainted = true }),
		"an escalation": change(func(r *approval.Rule) {
			r.Escalation = &approval.Stage{Roles: []tenants.Role{tenants.RoleViewer}, Need: 1, Within: time.Hour}
		}),
	} {
		require.True(t, approval.Weaker(base, r), name)
	}
}

func TestAMailboxIsAPerson(t *testing.T) {
	for _, same := range [][2]string{{"Ada@Example.com", "ada@example.com"}, {"ada+work@example.com", "ada@example.com"}, {"a.da+x@gmail.com", "ada@googlemail.com"}} {
		require.Equal(t, approval.Mailbox(same[0]), approval.Mailbox(same[1]))
	}
	require.NotEqual(t, approval.Mailbox("a.da@example.com"), approval.Mailbox("ada@example.com"))
}

func (b *bench) ctx(t *testing.T, user id.User) context.Context {
	t.Helper()
	return principal.With(t.Context(), principal.Principal{Kind: principal.User, ID: string(user), Org: b.org, Project: b.project})
}
