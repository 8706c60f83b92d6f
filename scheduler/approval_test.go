package scheduler_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

// office is a world with members who decide, and a tool whose calls are counted where they take effect.
type office struct {
	*world
	service *approval.Service
	keeper  *scheduler.ApprovalKeeper
	mu      sync.Mutex
	bought  []string
}

func newOffice(t testing.TB) *office {
	t.Helper()
	o := &office{world: newWorld(t, money.Dollar), service: approval.NewService(approval.Deps{Clock: clock.System()})}
	o.keeper = scheduler.NewApprovalKeeper(o.db, o.sessions, slog.New(slog.DiscardHandler))
	buy := connectors.Tool{
		Name: "nothing", Mount: "builtin", Description: "Buys.", Schema: json.RawMessage(`{"type":"object"}`), Risk: connectors.HighRisk, Idempotency: connectors.Neither, ControlPlane: true,
		Limit: func(json.RawMessage) time.Duration { return time.Minute },
		Facets: func(in json.RawMessage) (string, string) {
			var a struct{ Payee string }
			_ = json.Unmarshal(in, &a)
			return "buy", a.Payee
		},
		Run: func(_ context.Context, _ connectors.Workspace, in json.RawMessage) (connectors.Result, error) {
			o.mu.Lock()
			defer o.mu.Unlock()
			o.bought = append(o.bought, string(in))
			return connectors.Result{Text: "bought"}, nil
		},
	}
	o.worker(t, buy)
	return o
}

func (o *office) effects() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.bought)
}

// join makes a member.
func (o *office) join(t testing.TB, email string, role tenants.Role) id.User {
	t.Helper()
	user := id.New[id.User]()
	require.NoError(t, o.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
		for _, set := range [][2]string{{"app.user_id", string(user)}, {"app.org_id", string(o.org)}} {
			if _, err := tx.Exec(t.Context(), `SELECT set_config($1, $2, true)`, set[0], set[1]); err != nil {
				return err
			}
		}
		if _, err := tx.Exec(t.Context(), `INSERT INTO users (id, email, name, must_verify, created_at) VALUES ($1, $2, '', false, now())`, string(user), email); err != nil {
			return err
		}
		_, err := tx.Exec(t.Context(), `INSERT INTO members (org_id, id, user_id, role, created_at) VALUES ($1, $2, $3, $4, now())`, string(o.org), string(id.New[id.Member]()), string(user), string(role))
		return err
	}))
	return user
}

func (o *office) as(t testing.TB, user id.User) context.Context {
	t.Helper()
	return principal.With(t.Context(), principal.Principal{Kind: principal.User, ID: string(user), Org: o.org, Project: o.project})
}

// rule adds one about the tool.
func (o *office) rule(t testing.TB, by id.User, change func(r *approval.Rule)) approval.Stored {
	t.Helper()
	r := approval.Rule{
		Name: "Purchases", Outcome: approval.Ask, Subject: "*", Tool: "nothing",
		Stages: []approval.Stage{{Roles: []tenants.Role{tenants.RoleAdmin}, Need: 1, Within: time.Hour}},
	}
	if change != nil {
		change(&r)
	}
	var made approval.Stored
	ctx := o.as(t, by)
	require.NoError(t, o.db.InTx(ctx, o.org, func(tx pgx.Tx) (err error) {
		made, err = o.service.CreateRule(ctx, tx, o.org, r, nil)
		return err
	}))
	return made
}

// ask has an agent of the member's propose the purchases, in one turn each.
func (o *office) ask(t testing.TB, user id.User, calls ...string) scheduler.Invoked {
	t.Helper()
	var script strings.Builder
	for _, c := range calls {
		script.WriteString("```tool name=nothing\n" + c + "\n```\n")
	}
	var in scheduler.Invoked
	ctx := o.as(t, user)
	require.NoError(t, o.db.InTx(ctx, o.org, func(tx pgx.Tx) (err error) {
		in, err = o.sessions.Invoke(ctx, tx, o.org, scheduler.InvokeInput{Project: o.project, Input: journal.Text(script.String()), Inline: &journal.Definition{
			Model: "ambit/scripted", Tools: []string{"nothing"},
		}})
		return err
	}))
	return in
}

// rest waits until the session is idle after its n-th rest.
func (o *office) rest(t testing.TB, session id.Session, n int) journal.Session {
	t.Helper()
	// In the test's own goroutine: what looks may fail the test, and must not outlive it.
	for deadline := time.Now().Add(20 * time.Second); ; <-time.After(10 * time.Millisecond) {
		rests := 0
		for _, e := range o.events(t, session) {
			if e.Type == "session.status_idle" {
				rests++
			}
		}
		s, err := o.sessions.Get(t.Context(), o.org, session)
		if err == nil && rests >= n && s.Status == journal.Idle {
			return s
		}
		require.True(t, time.Now().Before(deadline), "the session did not come to rest %d times", n)
	}
}

func (o *office) waiting(t testing.TB, session id.Session, n int) approval.Approval {
	t.Helper()
	s := o.rest(t, session, n)
	require.Equal(t, journal.StopRequiresAction, s.StopReason.Type, "%+v", s.StopReason)
	list := o.list(t, session)
	require.NotEmpty(t, list)
	return list[0]
}

func (o *office) list(t testing.TB, session id.Session) []approval.Approval {
	t.Helper()
	var list []approval.Approval
	require.NoError(t, o.db.InTx(t.Context(), o.org, func(tx pgx.Tx) (err error) {
		list, err = approval.List(t.Context(), tx, o.org, approval.Filter{Session: session, Limit: 100})
		return err
	}))
	return list
}

func (o *office) decide(t testing.TB, user id.User, a approval.Approval, verb approval.Verb, more ...func(d *approval.Decision)) (approval.Approval, error) {
	t.Helper()
	d := approval.Decision{Verb: verb, Digest: a.DigestText()}
	for _, m := range more {
		m(&d)
	}
	var out approval.Approval
	ctx := o.as(t, user)
	err := o.db.InTx(ctx, o.org, func(tx pgx.Tx) (err error) {
		out, err = o.sessions.Decide(ctx, tx, o.org, a.ID, d)
		return err
	})
	return out, err
}

func (o *office) exec(t testing.TB, sql string, args ...any) {
	t.Helper()
	require.NoError(t, o.db.InTx(t.Context(), o.org, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), sql, args...)
		return err
	}))
}

func (o *office) result(t testing.TB, session id.Session) string {
	t.Helper()
	for _, e := range slices.Backward(o.events(t, session)) {
		if e.Type == "agent.tool_result" {
			return string(e.Payload)
		}
	}
	return ""
}

const coffee = `{"payee":"coffee.example","cups":2}`

// TestAnEffectWaitsForAPersonAndIsDoneOnce: the whole way, and what it leaves in the journal.
func TestAnEffectWaitsForAPersonAndIsDoneOnce(t *testing.T) {
	o := newOffice(t)
	ada, dev := o.join(t, "ada@example.com", tenants.RoleAdmin), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	o.rule(t, ada, nil)
	in := o.ask(t, dev, coffee)
	a := o.waiting(t, in.Session.ID, 1)
	require.Empty(t, o.effects(), "nothing is done while it waits")
	require.JSONEq(t, coffee, string(a.Shown.Arguments))
	require.Equal(t, money.Nanos(5000), a.Shown.Amount)
	s, err := o.sessions.Get(t.Context(), o.org, in.Session.ID)
	require.NoError(t, err)
	require.Empty(t, s.LeaseOwner, "it costs no worker while it waits")
	require.Zero(t, o.balances(t).Held, "and holds no money")

	_, err = o.decide(t, ada, a, approval.Approve)
	require.NoError(t, err)
	require.Equal(t, journal.StopEndTurn, o.rest(t, in.Session.ID, 2).StopReason.Type)
	require.Len(t, o.effects(), 1)
	require.JSONEq(t, coffee, o.effects()[0])
	used := o.list(t, in.Session.ID)
	require.Len(t, used, 1)
	require.Equal(t, approval.Used, used[0].Status)
	require.NotEmpty(t, used[0].UsedStep)
	seen := types(o.events(t, in.Session.ID))
	at := slices.Index(seen, "approval.requested")
	require.Equal(t, []string{"gate.decided", "approval.requested", "session.usage", "session.status_idle", "approval.decided", "session.status_running", "gate.decided", "step.intended", "agent.tool_result", "step.settled"}, seen[at-1:at+9])
}

// TestWhatAnApprovalIsNotGoodFor: each of the ways in which a decision must not count.
func TestWhatAnApprovalIsNotGoodFor(t *testing.T) {
	o := newOffice(t)
	ada, bob, dev := o.join(t, "ada@example.com", tenants.RoleAdmin), o.join(t, "bob@example.com", tenants.RoleAdmin), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	o.rule(t, ada, nil)
	done := func(t *testing.T, want int) {
		t.Helper()
		require.Len(t, o.effects(), want)
	}

	t.Run("arguments that were changed after the approval", func(t *testing.T) {
		in := o.ask(t, dev, `{"payee":"changed.example"}`)
		a := o.waiting(t, in.Session.ID, 1)
		// Whatever could change them: the row is another action's.
		other := a
		other.Shown.Arguments = json.RawMessage(`{"payee":"evil.example"}`)
		digest, err := other.Shown.Digest()
		require.NoError(t, err)
		o.exec(t, `UPDATE approvals SET digest = $2 WHERE id = $1`, string(a.ID), digest[:])
		_, err = o.decide(t, ada, a, approval.Approve)
		require.True(t, fault.IsCode(err, "digest_mismatch"), "the person has seen another action: %v", err)
		other.Digest = digest
		_, err = o.decide(t, ada, other, approval.Approve)
		require.NoError(t, err)
		again := o.waiting(t, in.Session.ID, 2)
		done(t, 0)
		require.NotEqual(t, a.ID, again.ID, "changed arguments are asked about anew")
		require.Equal(t, approval.Void, o.list(t, in.Session.ID)[1].Status)
	})
	t.Run("an approval that was used before", func(t *testing.T) {
		in := o.ask(t, dev, `{"payee":"twice.example"}`, `{"payee":"twice.example"}`)
		_, err := o.decide(t, ada, o.waiting(t, in.Session.ID, 1), approval.Approve)
		require.NoError(t, err)
		second := o.waiting(t, in.Session.ID, 2)
		done(t, 1)
		_, err = o.decide(t, bob, second, approval.Refuse)
		require.NoError(t, err)
		o.rest(t, in.Session.ID, 3)
		done(t, 1)
		list := o.list(t, in.Session.ID)
		require.Equal(t, list[0].Digest, list[1].Digest, "it is the same action")
		_, err = o.decide(t, bob, list[1], approval.Approve)
		require.True(t, fault.IsCode(err, "already_decided"), "%v", err)
	})
	t.Run("after its time", func(t *testing.T) {
		in := o.ask(t, dev, `{"payee":"late.example"}`)
		a := o.waiting(t, in.Session.ID, 1)
		o.exec(t, `UPDATE approvals SET expires_at = now() - interval '1 second' WHERE id = $1`, string(a.ID))
		_, err := o.decide(t, ada, a, approval.Approve)
		require.True(t, fault.IsCode(err, "approval_expired"), "%v", err)
		require.NoError(t, o.keeper.RunOnce(t.Context()))
		o.rest(t, in.Session.ID, 2)
		require.Contains(t, o.result(t, in.Session.ID), "nobody answered in time")
		require.Contains(t, o.result(t, in.Session.ID), "no refusal by a person")
		done(t, 1)
	})
	t.Run("approved in time and used after it", func(t *testing.T) {
		in := o.ask(t, dev, `{"payee":"stale.example"}`)
		a := o.waiting(t, in.Session.ID, 1)
		o.exec(t, `UPDATE approvals SET status = 'approved', expires_at = now() - interval '1 second' WHERE id = $1`, string(a.ID))
		o.exec(t, `INSERT INTO approval_decisions (org_id, approval_id, user_id, person, stage, decision, by, at) VALUES ($1, $2, $3, 'ada@example.com', 0, 'approve', '{}', now())`, string(o.org), string(a.ID), string(ada))
		o.wake(t, in.Session.ID)
		again := o.waiting(t, in.Session.ID, 2)
		require.NotEqual(t, a.ID, again.ID)
		done(t, 1)
	})
	t.Run("by who asked for it", func(t *testing.T) {
		in := o.ask(t, ada, `{"payee":"own.example"}`)
		a := o.waiting(t, in.Session.ID, 1)
		_, err := o.decide(t, ada, a, approval.Approve)
		require.ErrorContains(t, err, "You asked for this yourself", "the asker decided")
		require.NotEqual(t, approval.Approved, o.list(t, in.Session.ID)[0].Status)
		_, err = o.decide(t, dev, a, approval.Approve)
		require.True(t, fault.IsCode(err, "permission_denied"), "nor does whom the rule does not name: %v", err)
		done(t, 1)
	})
	t.Run("by who gave the session its input", func(t *testing.T) {
		in := o.ask(t, dev, `{"payee":"input.example"}`)
		a := o.waiting(t, in.Session.ID, 1)
		ctx := o.as(t, bob)
		require.NoError(t, o.db.InTx(ctx, o.org, func(tx pgx.Tx) error {
			_, err := o.sessions.Send(ctx, tx, o.org, in.Session.ID, []scheduler.Input{{Type: "user.message", Content: journal.Text("```tool name=nothing\n{\"payee\":\"bobs.example\"}\n```")}})
			return err
		}))
		o.rest(t, in.Session.ID, 2)
		_, err := o.decide(t, ada, a, approval.Refuse)
		require.NoError(t, err)
		next := o.waiting(t, in.Session.ID, 3)
		_, err = o.decide(t, bob, next, approval.Approve)
		require.ErrorContains(t, err, "You asked for this yourself")
		done(t, 1)
	})
	t.Run("by a member who was removed since", func(t *testing.T) {
		eve := o.join(t, "eve@example.com", tenants.RoleAdmin)
		in := o.ask(t, dev, `{"payee":"removed.example"}`)
		a := o.waiting(t, in.Session.ID, 1)
		// She decides and is removed before a worker has looked: the decision is there, the session still rests.
		o.exec(t, `UPDATE approvals SET status = 'approved', expires_at = now() + interval '1 hour' WHERE id = $1`, string(a.ID))
		o.exec(t, `INSERT INTO approval_decisions (org_id, approval_id, user_id, person, stage, decision, by, at) VALUES ($1, $2, $3, 'eve@example.com', 0, 'approve', '{}', now())`, string(o.org), string(a.ID), string(eve))
		o.exec(t, `DELETE FROM members WHERE user_id = $1`, string(eve))
		o.wake(t, in.Session.ID)
		require.Equal(t, journal.StopRequiresAction, o.rest(t, in.Session.ID, 2).StopReason.Type, "a removed member's decision counted")
		again := o.waiting(t, in.Session.ID, 2)
		require.NotEqual(t, a.ID, again.ID)
		done(t, 1)
		_, err := o.decide(t, eve, again, approval.Approve)
		require.True(t, fault.IsCode(err, "permission_denied"), "%v", err)
	})
	t.Run("a link that is used twice", func(t *testing.T) {
		in := o.ask(t, dev, `{"payee":"link.example"}`)
		a := o.waiting(t, in.Session.ID, 1)
		for range 2 {
			_, err := o.decide(t, ada, a, approval.Approve)
			require.NoError(t, err, "harmless")
		}
		o.rest(t, in.Session.ID, 2)
		done(t, 2)
		_, err := o.decide(t, ada, a, approval.Refuse)
		require.True(t, fault.IsCode(err, "already_decided"), "%v", err)
		_, err = o.decide(t, bob, a, approval.Approve)
		require.ErrorContains(t, err, "approved by ada@example.com")
	})
	t.Run("by an agent", func(t *testing.T) {
		in := o.ask(t, dev, `{"payee":"agent.example"}`)
		a := o.waiting(t, in.Session.ID, 1)
		ctx := principal.With(t.Context(), principal.Principal{Kind: principal.Agent, ID: string(in.Session.ID), Org: o.org, OnBehalfOf: string(ada)})
		err := o.db.InTx(ctx, o.org, func(tx pgx.Tx) error {
			_, err := o.sessions.Decide(ctx, tx, o.org, a.ID, approval.Decision{Verb: approval.Approve, Digest: a.DigestText()})
			return err
		})
		require.True(t, fault.IsCode(err, "permission_denied"), "%v", err)
	})
}

// wake lets a worker look at a session that rests.
func (o *office) wake(t testing.TB, session id.Session) {
	t.Helper()
	require.NoError(t, o.db.InTx(t.Context(), o.org, func(tx pgx.Tx) error {
		l, err := journal.Lock(t.Context(), tx, o.org, session)
		if err != nil {
			return err
		}
		if _, err := l.Append(t.Context(), time.Now(), journal.Of(journal.StatusRescheduled{Reason: "test"})); err != nil {
			return err
		}
		return journal.WakeTx(t.Context(), tx, o.org, session)
	}))
}

// TestTwoAccountsOfOnePersonAreOne: two must approve.
func TestTwoAccountsOfOnePersonAreOne(t *testing.T) {
	o := newOffice(t)
	ada, double := o.join(t, "ada@example.com", tenants.RoleAdmin), o.join(t, "ada+second@example.com", tenants.RoleAdmin)
	bob, dev := o.join(t, "bob@example.com", tenants.RoleAdmin), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	o.rule(t, ada, func(r *approval.Rule) { r.Stages[0].Need = 2 })
	in := o.ask(t, dev, coffee)
	a := o.waiting(t, in.Session.ID, 1)
	_, err := o.decide(t, ada, a, approval.Approve)
	require.NoError(t, err)
	one, err := o.decide(t, double, a, approval.Approve)
	require.NoError(t, err, "the same person says the same again")
	require.Equal(t, approval.Pending, one.Status, "two accounts of one person were two approvers")
	require.Empty(t, o.effects())
	two, err := o.decide(t, bob, a, approval.Approve)
	require.NoError(t, err)
	require.Equal(t, approval.Approved, two.Status)
	o.rest(t, in.Session.ID, 2)
	require.Len(t, o.effects(), 1)

	// And of what one of them asked for, the other does not decide.
	in = o.ask(t, double, coffee)
	require.Eventually(t, func() bool { return strings.Contains(o.result(t, in.Session.ID), "it can't be had") }, 20*time.Second, 10*time.Millisecond, "there is only bob")
	require.Len(t, o.effects(), 1)
}

// TestStagesEscalationDelegation: who may decide, in which order, and what follows silence.
func TestStagesEscalationDelegation(t *testing.T) {
	o := newOffice(t)
	owner, ada := o.join(t, "owner@example.com", tenants.RoleOwner), o.join(t, "ada@example.com", tenants.RoleAdmin)
	bill, dev := o.join(t, "bill@example.com", tenants.RoleBilling), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	o.rule(t, ada, func(r *approval.Rule) {
		r.Stages = append(r.Stages, approval.Stage{Members: []id.User{bill}, Within: time.Hour})
		r.Escalation = &approval.Stage{Roles: []tenants.Role{tenants.RoleOwner}, Within: time.Hour}
	})
	in := o.ask(t, dev, coffee)
	a := o.waiting(t, in.Session.ID, 1)
	for _, early := range []id.User{bill, owner} {
		_, err := o.decide(t, early, a, approval.Approve)
		require.True(t, fault.IsCode(err, "permission_denied"), "not at this stage: %v", err)
	}
	a, err := o.decide(t, ada, a, approval.Approve)
	require.NoError(t, err)
	require.Equal(t, 1, a.Stage)
	require.Equal(t, approval.Pending, a.Status)

	// Bill is away, and the developer stands in: who asked for it stands in for nobody.
	away := func(delegate id.User) {
		ctx := o.as(t, bill)
		require.NoError(t, o.db.InTx(ctx, o.org, func(tx pgx.Tx) error {
			return o.service.SetAbsence(ctx, tx, o.org, bill, approval.Absence{From: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour), Delegate: delegate})
		}))
	}
	away(dev)
	_, err = o.decide(t, dev, a, approval.Approve)
	require.ErrorContains(t, err, "You asked for this yourself")

	// Nobody answers: the owner is asked as well, and then it ends as silence.
	o.exec(t, `UPDATE approvals SET expires_at = now() - interval '1 second' WHERE id = $1`, string(a.ID))
	require.NoError(t, o.keeper.RunOnce(t.Context()))
	require.True(t, o.list(t, in.Session.ID)[0].Escalated)
	a, err = o.decide(t, owner, a, approval.Approve)
	require.NoError(t, err)
	require.Equal(t, approval.Approved, a.Status)
	o.rest(t, in.Session.ID, 2)
	require.Len(t, o.effects(), 1)

	away(owner)
	in = o.ask(t, dev, coffee)
	a = o.waiting(t, in.Session.ID, 1)
	_, err = o.decide(t, ada, a, approval.Approve)
	require.NoError(t, err)
	a, err = o.decide(t, owner, a, approval.Approve)
	require.NoError(t, err, "the owner stands in for bill")
	require.Equal(t, string(bill), a.DecidedBy.OnBehalfOf)
	o.rest(t, in.Session.ID, 2)
	require.Len(t, o.effects(), 2)
}

// TestAPersonsEditIsANewProposalOfTheirs: the arguments that a person wrote are asked about anew, and not decided on by who wrote them.
func TestAPersonsEditIsANewProposalOfTheirs(t *testing.T) {
	o := newOffice(t)
	ada, bob, dev := o.join(t, "ada@example.com", tenants.RoleAdmin), o.join(t, "bob@example.com", tenants.RoleAdmin), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	o.rule(t, ada, nil)
	in := o.ask(t, dev, coffee)
	a := o.waiting(t, in.Session.ID, 1)
	_, err := o.decide(t, ada, a, approval.Edit, func(d *approval.Decision) { d.Arguments = json.RawMessage(`{"payee":"coffee.example","cups":1}`) })
	require.NoError(t, err)
	mine := o.waiting(t, in.Session.ID, 2)
	require.Equal(t, string(ada), mine.Shown.EditedBy.ID)
	_, err = o.decide(t, ada, mine, approval.Approve)
	require.ErrorContains(t, err, "You asked for this yourself")
	_, err = o.decide(t, bob, mine, approval.Approve)
	require.NoError(t, err)
	o.rest(t, in.Session.ID, 3)
	require.Equal(t, []string{`{"payee":"coffee.example","cups":1}`}, compacted(t, o.effects()))
	require.Contains(t, o.result(t, in.Session.ID), "A person changed the arguments")
}

func compacted(t testing.TB, list []string) []string {
	t.Helper()
	for i, s := range list {
		var v struct {
			Payee string `json:"payee"`
			Cups  int    `json:"cups"`
		}
		require.NoError(t, json.Unmarshal([]byte(s), &v))
		raw, err := json.Marshal(v)
		require.NoError(t, err)
		list[i] = string(raw)
	}
	return list
}

// TestASumOverAWindowAsks: a purchase that is split stays one.
func TestASumOverAWindowAsks(t *testing.T) {
	o := newOffice(t)
	ada, dev := o.join(t, "ada@example.com", tenants.RoleAdmin), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	over := money.Nanos(15000)
	o.rule(t, ada, func(r *approval.Rule) { r.SumOver, r.SumWindow = &over, 24*time.Hour })
	var calls []string
	for i := range 5 {
		calls = append(calls, fmt.Sprintf(`{"payee":"p%d.example"}`, i))
	}
	in := o.ask(t, dev, calls...)
	a := o.waiting(t, in.Session.ID, 1)
	require.Len(t, o.effects(), 3, "three of $0.000005 are let through, the fourth would be above")
	_, err := o.decide(t, ada, a, approval.Refuse, func(d *approval.Decision) { d.Reason = "enough" })
	require.NoError(t, err)
	fifth := o.waiting(t, in.Session.ID, 2)
	require.Contains(t, o.result(t, in.Session.ID), "They say: enough")
	require.NotEqual(t, a.ID, fifth.ID)
	// Another session of whomever does not begin a new sum.
	other := o.ask(t, ada, `{"payee":"p9.example"}`)
	require.Eventually(t, func() bool { return strings.Contains(o.result(t, other.Session.ID), "it can't be had") }, 20*time.Second, 10*time.Millisecond)
	require.Len(t, o.effects(), 3)
}

// TestAnEndVoidsWhatWaits: a kill, and an interrupt.
func TestAnEndVoidsWhatWaits(t *testing.T) {
	o := newOffice(t)
	ada, dev := o.join(t, "ada@example.com", tenants.RoleAdmin), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	o.rule(t, ada, nil)
	in := o.ask(t, dev, coffee)
	a := o.waiting(t, in.Session.ID, 1)
	ctx := o.as(t, dev)
	require.NoError(t, o.db.InTx(ctx, o.org, func(tx pgx.Tx) error {
		_, err := o.sessions.Send(ctx, tx, o.org, in.Session.ID, []scheduler.Input{{Type: "user.interrupt"}})
		return err
	}))
	s := o.rest(t, in.Session.ID, 2)
	require.Equal(t, journal.StopInterrupted, s.StopReason.Type)
	_, err := o.decide(t, ada, a, approval.Approve)
	require.True(t, fault.IsCode(err, "already_decided"), "%v", err)
	require.Equal(t, approval.Void, o.list(t, in.Session.ID)[0].Status)
	require.Empty(t, o.effects())
}
