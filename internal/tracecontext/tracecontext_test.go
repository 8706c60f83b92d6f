package tracecontext_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/tracecontext"
)

const (
	trace = "4bf92f3577b34da6a3ce929d0e0e4736"
	span  = "00f067aa0ba902b7"
)

func TestWellFormed(t *testing.T) {
	for header, want := range map[string]string{
		"00-" + trace + "-" + span + "-01":        "00-" + trace + "-" + span + "-01",
		"00-" + trace + "-" + span + "-00":        "00-" + trace + "-" + span + "-00",
		"00-" + trace + "-" + span + "-03":        "00-" + trace + "-" + span + "-01",
		" 00-" + trace + "-" + span + "-fe\t":     "00-" + trace + "-" + span + "-00",
		"01-" + trace + "-" + span + "-01":        "00-" + trace + "-" + span + "-01",
		"cc-" + trace + "-" + span + "-01-future": "00-" + trace + "-" + span + "-01",
	} {
		p, ok := tracecontext.Parse([]string{header})
		require.True(t, ok, header)
		require.Equal(t, trace, p.TraceID)
		require.Equal(t, span, p.SpanID)
		require.Equal(t, want, p.String())
	}
}

func TestMalformedIsNone(t *testing.T) {
	good := "00-" + trace + "-" + span + "-01"
	for _, header := range []string{
		"", "x", good[:54], good + "0", good + "-extra", strings.ToUpper(good), "ff" + good[2:], "cc" + good[2:] + ".future",
		"00-" + strings.Repeat("0", 32) + "-" + span + "-01", "00-" + trace + "-" + strings.Repeat("0", 16) + "-01",
		"00_" + good[3:], "0x" + good[2:], "00-" + trace + "-" + span + "-0g", "00-" + trace[:31] + "g-" + span + "-01",
		"00-" + trace + "-" + span[:15] + "é-1",
	} {
		_, ok := tracecontext.Parse([]string{header})
		require.False(t, ok, header)
	}
	_, ok := tracecontext.Parse(nil)
	require.False(t, ok)
	_, ok = tracecontext.Parse([]string{good, good})
	require.False(t, ok, "two are none")
}

func FuzzParse(f *testing.F) {
	f.Add("00-" + trace + "-" + span + "-01")
	f.Add("cc-" + trace + "-" + span + "-01-x")
	f.Fuzz(func(t *testing.T, header string) {
		p, ok := tracecontext.Parse([]string{header})
		if !ok {
			return
		}
		again, ok := tracecontext.Parse([]string{p.String()})
		if !ok || again != p {
			t.Fatalf("%q was read as %v, which is read as %v", header, p, again)
		}
	})
}
