package policy_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// past writes decisions into the journal of a session of its own, as a gate and a worker would have.
func (o *office) past(org id.Org, project id.Project, agent id.Agent, payloads ...journal.Payload) id.Session {
	o.t.Helper()
	session := id.New[id.Session]()
	snapshot, err := json.Marshal(journal.Snapshot{ID: agent, Name: "a", Definition: journal.Definition{Model: "ambit/scripted", Tools: []string{"bash", "read_file", "http_request"}}})
	require.NoError(o.t, err)
	o.in(org, func(ctx context.Context, tx pgx.Tx) error {
		now := o.clock.Now()
		_, err := tx.Exec(ctx, `INSERT INTO sessions (org_id, id, project_id, agent_id, agent, principal, status, last_active_at, created_at, updated_at)
			VALUES ($1, $2, $3, $4, $5, '{}', 'idle', $6, $6, $6)`, org, session, project, agent, snapshot, now)
		if err != nil {
			return err
		}
		for i, p := range payloads {
			raw, err := json.Marshal(p)
			require.NoError(o.t, err)
			_, err = tx.Exec(ctx, `INSERT INTO events (org_id, session_id, seq, id, type, schema_version, epoch, payload, created_at) VALUES ($1, $2, $3, $4, $5, 1, 1, $6, $7)`,
				org, session, i+1, id.New[id.Event](), p.EventType(), raw, now)
			if err != nil {
				return err
			}
		}
		return nil
	})
	return session
}

func tool(name, decision string, asked *journal.Asked, reasons ...journal.Reason) journal.GateDecided {
	return journal.GateDecided{Decision: decision, Kind: policy.ToolCall, Name: name, Digest: "00", Reasons: reasons, Asked: asked}
}

func (o *office) simulate(org id.Org, in policy.Simulate) (out policy.Simulation) {
	o.t.Helper()
	o.in(org, func(ctx context.Context, tx pgx.Tx) (err error) {
		out, err = o.service.Simulate(ctx, tx, org, in)
		return err
	})
	return out
}

func TestSimulateSaysWhatWouldChange(t *testing.T) {
	o := newOffice(t)
	org, project, agents := o.org(1)
	held := func(amount money.Nanos) journal.StepIntended {
		return journal.StepIntended{Kind: policy.ToolCall, Name: "bash", Hold: &journal.HoldRef{ID: id.New[id.Hold](), Amount: amount}}
	}
	session := o.past(org, project, agents[0],
		journal.GateDecided{Decision: journal.Admitted, Kind: policy.ModelCall, Name: "ambit/scripted"},
		tool("bash", journal.Admitted, nil), held(2*money.Dollar),
		tool("bash", journal.Admitted, nil), held(money.Dollar),
		tool("http_request", journal.Admitted, &journal.Asked{Action: "POST", Domain: "a.test"}),
		tool("http_request", journal.Admitted, &journal.Asked{Action: "GET", Domain: "a.test"}),
		tool("read_file", journal.Denied, nil, journal.Reason{Rule: "hold", Message: "too dear"}),
		tool("python", journal.Denied, nil, journal.Reason{Rule: policy.ByTools, Message: "not its tool"}),
	)
	dollar := money.Dollar
	propose := func(rules ...policy.Rule) policy.Simulation {
		return o.simulate(org, policy.Simulate{Proposal: policy.Proposal{Rules: rules}, Days: 1, Limit: 100})
	}
	require.Empty(t, propose().Changes)
	require.Equal(t, 7, propose().Examined)

	out := propose(policy.Rule{Subject: "*", Effect: policy.Deny, Kind: policy.ToolCall, Name: "bash", Condition: policy.Condition{AmountOver: &dollar}})
	require.Len(t, out.Changes, 1)
	c := out.Changes[0]
	require.Equal(t, session, c.Session)
	require.EqualValues(t, 2, c.Seq)
	require.Equal(t, policy.Allow, c.Was)
	require.Equal(t, policy.Deny, c.Would)
	require.True(t, c.Certain, "the hold tells the amount")

	out = propose(policy.Rule{Subject: "*", Effect: policy.Deny, Kind: policy.ToolCall, Name: "http_request", Action: "POST"})
	require.Len(t, out.Changes, 1)
	require.EqualValues(t, 6, out.Changes[0].Seq)
	require.True(t, out.Changes[0].Certain)

	out = propose(policy.Rule{Subject: string(agents[0]), Effect: policy.Allow, Kind: policy.ToolCall, Name: "bash", Object: "ls*"})
	require.Len(t, out.Changes, 5, "all tool calls that were permitted: %+v", out.Changes)
	require.EqualValues(t, 8, out.Changes[0].Seq, "the newest comes first; what failed for want of money was permitted")
	byName := map[string]bool{}
	for _, c := range out.Changes {
		byName[c.Name] = c.Certain
	}
	require.Equal(t, map[string]bool{"bash": false, "http_request": true, "read_file": true}, byName, "what bash was called with was not written down")

	// Paged, each page goes on where the last ended.
	var seqs []int64
	in := policy.Simulate{Proposal: policy.Proposal{Rules: []policy.Rule{{Subject: "*", Effect: policy.Deny, Kind: "*"}}}, Days: 1, Limit: 2}
	for {
		page := o.simulate(org, in)
		for _, c := range page.Changes {
			seqs = append(seqs, c.Seq)
		}
		if in.Before = page.Next; in.Before == "" {
			break
		}
	}
	require.Equal(t, []int64{8, 7, 6, 4, 2, 1}, seqs)

	deny := o.create(org, policy.Rule{Subject: "*", Effect: policy.Deny, Kind: "*"})
	o.past(org, project, agents[0], tool("bash", journal.Denied, &journal.Asked{}, journal.Reason{Rule: string(deny.ID), Message: "denied"}))
	for name, p := range map[string]policy.Proposal{"without it": {Without: []id.Permission{deny.ID}}, "replaced": {Replace: true}} {
		out = o.simulate(org, policy.Simulate{Proposal: p, Days: 1, Limit: 10})
		require.Len(t, out.Changes, 1, name)
		require.Equal(t, policy.Allow, out.Changes[0].Would, name)
	}
	require.Empty(t, o.simulate(org, policy.Simulate{Proposal: policy.Proposal{Replace: true}, Days: 1, Limit: 10, Project: id.New[id.Project]()}).Changes)
	o.clock.Advance(48 * time.Hour)
	require.Zero(t, o.simulate(org, policy.Simulate{Days: 1, Limit: 10}).Examined, "it looks no further back than asked")
	require.Equal(t, 8, o.simulate(org, policy.Simulate{Days: 3, Limit: 10}).Examined)
}

func TestSimulateRefuses(t *testing.T) {
	o := newOffice(t)
	org, _, _ := o.org(0)
	for name, in := range map[string]policy.Simulate{
		"no days":         {Days: 0},
		"too many days":   {Days: policy.MaxSimulatedDays + 1},
		"a bad rule":      {Days: 1, Proposal: policy.Proposal{Rules: []policy.Rule{{Subject: "x"}}}},
		"an unknown tool": {Days: 1, Proposal: policy.Proposal{Rules: []policy.Rule{{Subject: "*", Effect: policy.Deny, Kind: policy.ToolCall, Name: "bsah"}}}},
		"too many rules":  {Days: 1, Proposal: policy.Proposal{Rules: make([]policy.Rule, policy.MaxProposed+1)}},
	} {
		err := o.try(org, func(ctx context.Context, tx pgx.Tx) error {
			_, err := o.service.Simulate(ctx, tx, org, in)
			return err
		})
		require.Equal(t, fault.Invalid, fault.As(err).Kind, name)
	}
}
