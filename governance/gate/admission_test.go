package gate_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

func requireRefused(t *testing.T, err error, why string) {
	t.Helper()
	require.True(t, fault.IsCode(err, "permission_denied"), "an admission is refused when %s: %v", why, err)
	require.ErrorContains(t, err, why)
}

func TestAnAdmissionThatNoGateMadeIsRefused(t *testing.T) {
	var none *gate.Admission
	_, err := none.Consume(gate.ModelCall, gate.Digest{1})
	requireRefused(t, err, "there is no admission")

	// The zero value can be written anywhere; it is worth nothing.
	_, err = (&gate.Admission{}).Consume("", gate.Digest{})
	requireRefused(t, err, "never committed")
}

func TestAnAdmissionIsArmedByTheCommitAlone(t *testing.T) {
	s := newScene(t, money.Dollar)
	p := proposal()
	u := s.unit(nil)
	d, err := s.gate.Admit(u, p)
	require.NoError(t, err)
	require.Equal(t, journal.Admitted, d.Outcome)
	_, early := d.Admission.Consume(p.Kind, p.Digest)
	requireRefused(t, early, "never committed")

	// Somebody else appends: the unit is out of date, and its admission is worth nothing for ever.
	require.NoError(t, s.in(func(ctx context.Context, _ pgx.Tx, l *journal.Locked) error {
		_, err := l.Append(ctx, s.clock.Now(), journal.Of(journal.UserMessage{Content: journal.Text("wait")}))
		return err
	}))
	require.ErrorIs(t, s.commits.Commit(t.Context(), u), gate.ErrMoved)
	_, err = d.Admission.Consume(p.Kind, p.Digest)
	requireRefused(t, err, "never committed")
	require.Equal(t, money.Dollar, s.balances().Available, "nothing was held")
}

func TestAnAdmissionIsConsumedOnce(t *testing.T) {
	s := newScene(t, money.Dollar)
	p := proposal()
	d := s.admit(p)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		took int
	)
	for range 16 {
		wg.Go(func() {
			g, err := d.Admission.Consume(p.Kind, p.Digest)
			mu.Lock()
			defer mu.Unlock()
			if err == nil {
				took++
				if g.EffectKey != p.EffectKey || g.Session != s.session || g.Org != s.org || g.Step != p.Step {
					t.Errorf("the grant is for another effect: %+v", g)
				}
			}
		})
	}
	wg.Wait()
	require.Equal(t, 1, took)
	_, err := d.Admission.Consume(p.Kind, p.Digest)
	requireRefused(t, err, "used before")
}

func TestAnAdmissionIsForOneEffect(t *testing.T) {
	s := newScene(t, money.Dollar)
	p := proposal()
	d := s.admit(p)
	_, err := d.Admission.Consume(p.Kind, gate.Digest{2})
	requireRefused(t, err, "not the effect that was decided on")
	_, err = d.Admission.Consume(gate.ToolCall, p.Digest)
	requireRefused(t, err, "not the effect that was decided on")
	_, err = d.Admission.Consume(p.Kind, p.Digest)
	require.NoError(t, err, "a wrong attempt does not use it up")
}

func TestAnAdmissionExpires(t *testing.T) {
	s := newScene(t, money.Dollar)
	p := proposal()
	late, early := s.admit(p), s.admit(proposal())
	s.clock.Advance(p.Within - 10*time.Second)
	_, err := early.Admission.Consume(p.Kind, p.Digest)
	require.NoError(t, err)
	s.clock.Advance(10 * time.Second)
	_, err = late.Admission.Consume(p.Kind, p.Digest)
	requireRefused(t, err, "expired")
}
