package register_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
)

// BenchmarkGateUnderAMandate admits and settles effects one after another, each a commit: without a mandate, and under one that is three deep.
func BenchmarkGateUnderAMandate(b *testing.B) {
	w := newWorld(b)
	root := w.signed(grant(500*money.Dollar, 2))
	middle, err := w.narrow(root, w.agent, mandate.Grant{Depth: -1})
	require.NoError(b, err)
	leaf, err := w.narrow(middle, w.agent, mandate.Grant{Depth: -1})
	require.NoError(b, err)
	for _, c := range []struct {
		name  string
		under register.Mandate
	}{{"without", register.Mandate{}}, {"three-deep", leaf}} {
		b.Run(c.name, func(b *testing.B) {
			w.TB = b
			lease := w.session(c.under)
			for b.Loop() {
				p := answering(10)
				d, err := w.propose(lease, p)
				if err != nil || d.Outcome != journal.Admitted {
					b.Fatal(d.Reasons, err)
				}
				if err := w.settle(lease, d, p.Step, gate.Used{At: time.Now(), Quantity: p.Quantity}); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "effects/s")
		})
	}
}
