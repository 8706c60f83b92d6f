package gate_test

import (
	"context"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// waitsForLocks is for so many to wait for a lock of the database.
func (s *scene) waitsForLocks(n int) {
	s.t.Helper()
	require.Eventually(s.t, func() bool {
		waits := 0
		require.NoError(s.t, s.db.InTx(s.t.Context(), s.org, func(tx pgx.Tx) error {
			return tx.QueryRow(s.t.Context(), "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'").Scan(&waits)
		}))
		return waits >= n
	}, 10*time.Second, 10*time.Millisecond)
}

func noKind(kind string) policy.Rule {
	return policy.Rule{Subject: policy.Any, Effect: policy.Deny, Kind: kind, Name: policy.Any, Action: policy.Any, Object: policy.Any}
}

// A change of the rules that came first waits for the balances, and an admission comes behind it: neither may hold what the other wants.
func TestAnAdmissionAndAChangeOfTheRulesNeverWaitForEachOther(t *testing.T) {
	s := newScene(t, money.Dollar)
	s.elsewhere(noKind(policy.Hire)) // so that there is a version to lock
	changed, admitted := make(chan struct{}), make(chan error, 1)
	require.NoError(t, s.db.InTx(t.Context(), s.org, func(tx pgx.Tx) error {
		if _, err := tx.Exec(t.Context(), "SELECT 1 FROM ledger_balances WHERE org_id = $1 FOR NO KEY UPDATE", s.org); err != nil {
			return err
		}
		go func() {
			defer close(changed)
			s.elsewhere(noKind(policy.ModelCall))
		}()
		s.waitsForLocks(1)
		go func() {
			admitted <- s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
				_, err := s.gate.AdmitTx(ctx, tx, s.clock.Now(), l, standing())
				return err
			})
		}()
		s.waitsForLocks(2)
		return nil
	}))
	require.NoError(t, <-admitted)
	<-changed
}

func TestAChangeOfTheRulesWaitsForAStepThatIsTakenUpUnderTheOldOnes(t *testing.T) {
	s := newScene(t, money.Dollar)
	p := proposal()
	d := s.admit(p)
	changed := make(chan struct{})
	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		got, err := s.gate.Readmit(ctx, tx, s.clock.Now(), l, p, journal.Step{ID: p.Step, EffectKey: p.EffectKey, Hold: d.Hold.ID})
		require.Equal(t, journal.Admitted, got.Outcome)
		go func() {
			defer close(changed)
			s.elsewhere(noModel)
		}()
		s.waitsForLocks(1)
		select {
		case <-changed:
			t.Error("the rules changed under an admission")
		default:
		}
		return err
	}))
	<-changed
	require.NoError(t, s.in(func(ctx context.Context, tx pgx.Tx, l *journal.Locked) error {
		got, err := s.gate.Readmit(ctx, tx, s.clock.Now(), l, p, journal.Step{ID: p.Step, EffectKey: p.EffectKey, Hold: d.Hold.ID})
		require.Equal(t, journal.Denied, got.Outcome)
		return err
	}))
}
