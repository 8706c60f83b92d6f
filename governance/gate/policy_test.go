package gate_test

import (
	"context"
	"log/slog"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/journal"
)

// elsewhere changes the organisation's rules as another process does, whose memory is not this one's.
func (s *scene) elsewhere(rule policy.Rule) {
	s.t.Helper()
	other := policy.NewService(policy.NewCache(s.db, nil, slog.New(slog.DiscardHandler)),
		policy.Catalogue{KnowsModel: func(string) bool { return true }, KnowsTool: func(string) bool { return true }}, s.clock)
	ctx := principal.With(s.t.Context(), principal.NamedSystem("test"))
	require.NoError(s.t, s.db.InTx(ctx, s.org, func(tx pgx.Tx) error {
		_, err := other.Create(ctx, tx, s.org, rule)
		return err
	}))
}

var noModel = policy.Rule{Subject: policy.Any, Effect: policy.Deny, Kind: string(gate.ModelCall), Name: "test/model", Action: policy.Any, Object: policy.Any, Description: "Not this quarter"}

func TestARuleThatWasChangedAMomentAgoBinds(t *testing.T) {
	s := newScene(t, money.Dollar)
	u, decision := s.begun(s.lease, proposal())
	require.Equal(t, journal.Admitted, decision.Outcome, "by the rules that this process knows")
	s.elsewhere(noModel)
	require.ErrorIs(t, s.commits.Commit(t.Context(), u), gate.ErrRuled, "a rule that was changed a moment ago binds the next admission")
	_, err := decision.Admission.Consume(gate.ModelCall, gate.Digest{1})
	requireRefused(t, err, "never committed")
	require.Zero(t, s.balances().Held)

	again := s.admit(proposal())
	require.Equal(t, journal.Denied, again.Outcome)
	require.Contains(t, again.Reasons[0].Message, "Not this quarter", "the agent reads why")
	require.Positive(t, again.Asked.PolicyVersion)
}

func TestARuleBindsAStepThatIsTakenUpAgain(t *testing.T) {
	s := newScene(t, money.Dollar)
	p := proposal()
	d := s.admit(p)
	s.elsewhere(noModel)
	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		got, err := s.gate.Readmit(ctx, tx, s.clock.Now(), l, p, journal.Step{ID: p.Step, EffectKey: p.EffectKey, Hold: d.Hold.ID})
		require.Equal(t, journal.Denied, got.Outcome)
		return err
	}))
}

func TestARuleAboutTheAmountSeesTheBound(t *testing.T) {
	s := newScene(t, money.Dollar)
	limit := bound - 1
	rule := noModel
	rule.Effect, rule.Description = policy.Allow, ""
	rule.Condition = policy.Condition{AmountAtMost: &limit}
	s.elsewhere(rule)
	require.Equal(t, journal.Denied, s.admit(proposal()).Outcome)
	cheap := proposal()
	cheap.Quantity[0].Quantities["output_token"] = 1
	require.Equal(t, journal.Admitted, s.admit(cheap).Outcome)
}

func TestAHostThatTheDefinitionDoesNotNameIsNotReached(t *testing.T) {
	s := newScene(t, money.Dollar)
	p := proposal()
	p.Kind, p.Name, p.Action, p.Domain, p.Object = gate.ToolCall, "bash", "GET", "example.org", "https://example.org/"
	d := s.admit(p)
	require.Equal(t, journal.Denied, d.Outcome)
	require.Equal(t, "agent.network", d.Reasons[0].Rule)
	require.Contains(t, d.Reasons[0].Message, "It may reach none.")
	require.Zero(t, s.balances().Held)
}
