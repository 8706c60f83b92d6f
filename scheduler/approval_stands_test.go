package scheduler_test

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/scheduler"
	"ambit.dev/ambit/tenants"
)

func (o *office) drop(t testing.TB, by id.User, rule id.ApprovalRule) {
	t.Helper()
	ctx := o.as(t, by)
	require.NoError(t, o.db.InTx(ctx, o.org, func(tx pgx.Tx) error {
		return o.service.DeleteRule(ctx, tx, o.org, rule, json.RawMessage(`{"method":"password"}`))
	}))
}

// TestARefusalStandsWhenTheRuleIsGone: nobody asks any more, and a person has said no.
func TestARefusalStandsWhenTheRuleIsGone(t *testing.T) {
	o := newOffice(t)
	ada, dev := o.join(t, "ada@example.com", tenants.RoleAdmin), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	rule := o.rule(t, ada, nil)
	in := o.ask(t, dev, coffee)
	a := o.waiting(t, in.Session.ID, 1)
	o.drop(t, ada, rule.ID)
	_, err := o.decide(t, ada, a, approval.Refuse)
	require.NoError(t, err)
	o.rest(t, in.Session.ID, 2)
	require.Empty(t, o.effects(), "what a person had refused was done")
	require.Contains(t, o.result(t, in.Session.ID), "A person refused this")
}

// TestNothingWaitsOnceItIsDoneWithoutAnAnswer: the rule went while it waited, and the session goes on for another reason.
func TestNothingWaitsOnceItIsDoneWithoutAnAnswer(t *testing.T) {
	o := newOffice(t)
	ada, dev := o.join(t, "ada@example.com", tenants.RoleAdmin), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	rule := o.rule(t, ada, nil)
	in := o.ask(t, dev, coffee)
	a := o.waiting(t, in.Session.ID, 1)
	o.drop(t, ada, rule.ID)
	o.wake(t, in.Session.ID)
	o.rest(t, in.Session.ID, 2)
	require.Len(t, o.effects(), 1, "nobody asks any more")
	require.Equal(t, approval.Void, o.list(t, in.Session.ID)[0].Status, "people are asked about what is done")
	_, err := o.decide(t, ada, a, approval.Refuse)
	require.True(t, fault.IsCode(err, "already_decided"), "a refusal of what was done was taken: %v", err)
}

// TestAMemberAndWhoStandsInForThemAreOneOfTwo: two must approve; one of them can't be both by naming somebody.
func TestAMemberAndWhoStandsInForThemAreOneOfTwo(t *testing.T) {
	o := newOffice(t)
	ada, bob := o.join(t, "ada@example.com", tenants.RoleAdmin), o.join(t, "bob@example.com", tenants.RoleAdmin)
	friend, dev := o.join(t, "friend@example.com", tenants.RoleViewer), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	o.rule(t, ada, func(r *approval.Rule) { r.Stages[0].Need = 2 })
	ctx := o.as(t, ada)
	require.NoError(t, o.db.InTx(ctx, o.org, func(tx pgx.Tx) error {
		return o.service.SetAbsence(ctx, tx, o.org, ada, approval.Absence{From: time.Now().Add(-time.Hour), Until: time.Now().Add(time.Hour), Delegate: friend})
	}))
	in := o.ask(t, dev, coffee)
	a := o.waiting(t, in.Session.ID, 1)
	for _, one := range []id.User{friend, ada} {
		after, err := o.decide(t, one, a, approval.Approve)
		require.NoError(t, err)
		require.Equal(t, approval.Pending, after.Status, "one admin and whom she named were two")
	}
	after, err := o.decide(t, bob, a, approval.Approve)
	require.NoError(t, err)
	require.Equal(t, approval.Approved, after.Status)
	o.rest(t, in.Session.ID, 2)
	require.Len(t, o.effects(), 1)
}

// TestWhatIsWaivedCountsTowardsASum: the waived purchases are part of what the others come to.
func TestWhatIsWaivedCountsTowardsASum(t *testing.T) {
	o := newOffice(t)
	ada, dev := o.join(t, "ada@example.com", tenants.RoleAdmin), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	over := money.Nanos(12000)
	rule := o.rule(t, ada, func(r *approval.Rule) { r.SumOver, r.SumWindow = &over, 24*time.Hour })
	ctx := o.as(t, ada)
	require.NoError(t, o.db.InTx(ctx, o.org, func(tx pgx.Tx) error {
		_, err := o.service.CreateRule(ctx, tx, o.org, approval.Rule{
			Name: "Coffee", Outcome: approval.Waive, Waives: string(rule.ID), Subject: "*", Tool: "nothing", Object: "coffee.example",
		}, json.RawMessage(`{"method":"password"}`))
		return err
	}))
	in := o.ask(t, dev, coffee, coffee, coffee, `{"payee":"tea.example"}`)
	o.waiting(t, in.Session.ID, 1)
	require.Len(t, o.effects(), 3, "three waived ones came to more than the sum")
}

// TestAnApprovalIsGoodForItsPrice: what would cost more than people have seen is asked about anew.
func TestAnApprovalIsGoodForItsPrice(t *testing.T) {
	o := newOffice(t)
	ada, dev := o.join(t, "ada@example.com", tenants.RoleAdmin), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	o.rule(t, ada, nil)
	in := o.ask(t, dev, coffee)
	a := o.waiting(t, in.Session.ID, 1)
	less := a.Shown
	less.Amount = a.Shown.Amount - 1
	raw, err := json.Marshal(less)
	require.NoError(t, err)
	o.exec(t, `UPDATE approvals SET action = $2 WHERE id = $1`, string(a.ID), raw)
	_, err = o.decide(t, ada, a, approval.Approve)
	require.NoError(t, err)
	again := o.waiting(t, in.Session.ID, 2)
	require.NotEqual(t, a.ID, again.ID)
	require.Empty(t, o.effects(), "it cost more than was approved")
}

// TestNoAnswerGivesWorkToWhatIsBeingStopped: an order to stop binds those who decide, too.
func TestNoAnswerGivesWorkToWhatIsBeingStopped(t *testing.T) {
	o := newOffice(t)
	ada, dev := o.join(t, "ada@example.com", tenants.RoleAdmin), o.join(t, "dev@example.com", tenants.RoleDeveloper)
	o.rule(t, ada, nil)
	in := o.ask(t, dev, coffee)
	a := o.waiting(t, in.Session.ID, 1)
	o.exec(t, `INSERT INTO stops (org_id, id, scope_type, scope_id, project_id, include_idle, requested_by, reason, requested_at) VALUES ($1, 'stp_x', 'project', $2, $2, false, '{}', 'test', now())`,
		string(o.org), string(o.project))
	_, err := o.decide(t, ada, a, approval.Approve)
	require.True(t, fault.IsCode(err, "state_conflict"), "work began under an order to stop: %v", err)
	require.Empty(t, o.effects())
	require.Equal(t, journal.Idle, o.rest(t, in.Session.ID, 1).Status)
}

// TestASessionBelowATaintedOneIsTainted: what was read above may speak through what is asked of it.
func TestASessionBelowATaintedOneIsTainted(t *testing.T) {
	o := newOffice(t)
	dev := o.join(t, "dev@example.com", tenants.RoleDeveloper)
	above := o.ask(t, dev, coffee)
	o.rest(t, above.Session.ID, 1)
	require.NoError(t, o.db.InTx(t.Context(), o.org, func(tx pgx.Tx) error {
		l, err := journal.Lock(t.Context(), tx, o.org, above.Session.ID)
		if err != nil {
			return err
		}
		_, err = l.Append(t.Context(), time.Now(), journal.Of(journal.Tainted{Source: journal.TaintNetwork, Ref: "https://evil.example/", Excerpt: "obey"}))
		return err
	}))
	ctx := o.as(t, dev)
	var below scheduler.Invoked
	require.NoError(t, o.db.InTx(ctx, o.org, func(tx pgx.Tx) (err error) {
		below, err = o.sessions.Invoke(ctx, tx, o.org, scheduler.InvokeInput{
			Project: o.project, Parent: above.Session.ID, Input: journal.Text("Go on."), Inline: &journal.Definition{Model: "ambit/scripted"},
		})
		return err
	}))
	o.rest(t, below.Session.ID, 1)
	require.Contains(t, types(o.events(t, below.Session.ID)), journal.Tainted{}.EventType(), "the taint was lost below")
}
