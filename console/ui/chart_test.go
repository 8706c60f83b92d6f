package ui

import (
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/internal/money"
)

func TestTheScaleIsAboveAllAmountsAndNotFarAbove(t *testing.T) {
	require.Equal(t, money.Nanos(0), roundUp(0))
	require.Equal(t, money.Nanos(5), roundUp(3))
	require.Equal(t, 20*money.Dollar, roundUp(10*money.Dollar+1))
	require.Equal(t, money.Nanos(math.MaxInt64), roundUp(math.MaxInt64))
	rapid.Check(t, func(t *rapid.T) {
		n := money.Nanos(rapid.Int64Range(1, 1_000_000_000_000_000_000).Draw(t, "amount"))
		top := roundUp(n)
		if top < n || float64(top) > 2.5*float64(n)+1 {
			t.Fatalf("%d has the scale %d", n, top)
		}
	})
}

func TestTheBarsOfABucketStandUponEachOther(t *testing.T) {
	p := ChartProps{Buckets: []string{"a"}, Series: []ChartSeries{{Values: []money.Nanos{25}}, {Values: []money.Nanos{0}}, {Values: []money.Nanos{25}}}}
	bars := p.bars()
	require.Len(t, bars, 2, "nothing is drawn for nothing")
	require.Equal(t, []string{"50", "50", "0", "50"}, []string{bars[0].Y, bars[0].H, bars[1].Y, bars[1].H})
	require.Equal(t, 3, bars[1].Series)
	require.Equal(t, "a: $0.00000005", p.spots()[0].Title[:len("a: $0.00000005")])
}
