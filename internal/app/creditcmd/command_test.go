package creditcmd

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

func TestAmountsAndNotesThatAreNone(t *testing.T) {
	for _, bad := range []string{"", "25", "-1.00", "0.00", "1.0000000001", "100000000.01", "1e3", "$1.00", "NaN"} {
		_, err := parseAmount(bad)
		require.Error(t, err, bad)
	}
	amount, err := parseAmount("25.00")
	require.NoError(t, err)
	require.Equal(t, 25*money.Dollar, amount)
	for _, bad := range []string{"", "  ", "a\nb", strings.Repeat("x", 501), "\xff"} {
		_, err := parseNote(bad)
		require.Error(t, err, "%q", bad)
	}
	note, err := parseNote(" invoice 117 ")
	require.NoError(t, err)
	require.Equal(t, "invoice 117", note)
}

func TestANoteIsRequiredBeforeAnythingIsOpened(t *testing.T) {
	for _, use := range []string{"grant", "revoke"} {
		cmd := Command()
		cmd.SetArgs([]string{use, "ada", "25.00"})
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		require.ErrorContains(t, cmd.Execute(), "--note is required")
	}
}

func TestTheListIsNewestFirst(t *testing.T) {
	entries := []billing.Transfer{{ID: "led_3"}, {ID: "led_1"}, {ID: "led_4"}, {ID: "led_2"}}
	var got []id.Entry
	for _, e := range newest(entries) {
		got = append(got, e.ID)
	}
	require.Equal(t, []id.Entry{"led_4", "led_3", "led_2", "led_1"}, got)
}
