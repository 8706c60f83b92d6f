package gate_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// errUndo rolls a transaction back.
var errUndo = errors.New("undo")

// standing is an effect that no worker has.
func standing() gate.Proposal {
	step := id.New[id.Step]()
	return gate.Proposal{
		Step: step, Kind: gate.Sandbox, Name: "sandbox", Digest: gate.Digest{7}, EffectKey: string(step), Within: time.Minute,
		Quantity: []gate.Priced{{Kind: prices.Tool, Ref: "builtin/bash", Quantities: prices.Quantities{prices.Call: 1}}},
	}
}

func TestAnAdmissionUnderTheSessionsLockIsOfUseAfterItsCommitOnly(t *testing.T) {
	s := newScene(t, money.Dollar)
	var d gate.Decision
	require.ErrorIs(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) (err error) {
		d, err = s.gate.AdmitTx(ctx, tx, s.clock.Now(), l, standing())
		require.NoError(t, err)
		_, err = d.Admission.Consume(gate.Sandbox, gate.Digest{7})
		requireRefused(t, err, "never committed")
		return errUndo
	}), errUndo)
	_, err := d.Admission.Consume(gate.Sandbox, gate.Digest{7})
	requireRefused(t, err, "never committed")
	require.Zero(t, s.balances().Held)

	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) (err error) {
		d, err = s.gate.AdmitTx(ctx, tx, s.clock.Now(), l, standing())
		return err
	}))
	_, err = d.Admission.Consume(gate.ToolCall, gate.Digest{7})
	requireRefused(t, err, "not the effect")
	_, err = d.Admission.Consume(gate.Sandbox, gate.Digest{7})
	require.NoError(t, err)
	_, err = d.Admission.Consume(gate.Sandbox, gate.Digest{7})
	requireRefused(t, err, "used before")
	require.Equal(t, money.Nanos(5000), s.balances().Held)
}

func TestAChangeOfTheRulesWaitsForAnAdmissionUnderTheOldOnes(t *testing.T) {
	s := newScene(t, money.Dollar)
	none := policy.Rule{Subject: policy.Any, Effect: policy.Deny, Kind: policy.Sandbox, Name: policy.Any, Action: policy.Any, Object: policy.Any}
	other := none
	other.Kind = policy.Hire
	s.elsewhere(other) // so that there are rules at all
	changed := make(chan struct{})
	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		d, err := s.gate.AdmitTx(ctx, tx, s.clock.Now(), l, standing())
		require.Equal(t, journal.Admitted, d.Outcome)
		go func() {
			defer close(changed)
			s.elsewhere(none)
		}()
		require.Eventually(t, func() bool {
			waits := 0
			require.NoError(t, s.db.InTx(ctx, s.org, func(tx pgx.Tx) error {
				return tx.QueryRow(ctx, "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waits)
			}))
			return waits > 0
		}, 10*time.Second, 10*time.Millisecond, "the change does not pass it by")
		select {
		case <-changed:
			t.Error("the rules changed under an admission")
		default:
		}
		return err
	}))
	<-changed
	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		d, err := s.gate.AdmitTx(ctx, tx, s.clock.Now(), l, standing())
		require.Equal(t, journal.Denied, d.Outcome, "and binds the next")
		return err
	}))
}
