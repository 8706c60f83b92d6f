package money_test

import (
	"encoding/json"
	"math"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/internal/money"
)

func TestDecimalIsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := money.Nanos(rapid.Int64Range(-9_000_000_000_000_000_000, 9_000_000_000_000_000_000).Draw(t, "nanos"))
		back, err := money.Parse(n.Decimal())
		if err != nil || back != n {
			t.Fatalf("%d became %q became %d (%v)", n, n.Decimal(), back, err)
		}
	})
}

func TestParseRefuses(t *testing.T) {
	for _, s := range []string{"", "2500", "1.", ".50", "1.5", "+1.00", "01.00", "1.0000000001", "1e3", "1,00", "$1.00", " 1.00", "99999999999999.00", "9999999999999.00", "NaN"} {
		_, err := money.Parse(s)
		require.ErrorIs(t, err, money.ErrInvalid, s)
	}
}

func TestDisplay(t *testing.T) {
	for n, want := range map[money.Nanos]string{
		0:                          "$0.00",
		1:                          "$0.000000001",
		1_281_000:                  "$0.001281",
		123_456_789:                "$0.1235",
		999_999_999:                "$1.00",
		50 * money.Cent:            "$0.50",
		1_234_567 * money.Dollar:   "$1,234,567.00",
		money.Dollar + 994_999_999: "$1.99",
		-2 * money.Dollar:          "-$2.00",
		money.Nanos(math.MinInt64): "-$9223372036.85",
		995_000_000:                "$1.00",
		994_999_999:                "$0.995",
	} {
		require.Equal(t, want, n.Display(), "%d", n)
	}
}

func TestJSON(t *testing.T) {
	b, err := json.Marshal(map[string]money.Nanos{"cost": 1_281_000})
	require.NoError(t, err)
	require.JSONEq(t, `{"cost":{"amount":"0.001281","currency":"USD"}}`, string(b))

	var n money.Nanos
	require.NoError(t, json.Unmarshal([]byte(`{"amount":"25.00","currency":"USD"}`), &n))
	require.Equal(t, 25*money.Dollar, n)
	for _, bad := range []string{`25`, `"25.00"`, `{"amount":"25.00"}`, `{"amount":25.0,"currency":"USD"}`, `{"amount":"25.00","currency":"EUR"}`} {
		require.ErrorIs(t, json.Unmarshal([]byte(bad), &n), money.ErrInvalid, bad)
	}
}

func TestOverflowIsRefused(t *testing.T) {
	_, err := money.Nanos(math.MaxInt64).Add(1)
	require.ErrorIs(t, err, money.ErrOverflow)
	_, err = money.Nanos(math.MaxInt64 / 2).Times(3)
	require.ErrorIs(t, err, money.ErrOverflow)
	_, err = money.Nanos(-1).Times(3)
	require.ErrorIs(t, err, money.ErrOverflow)
}
