package ui_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"ambit.dev/ambit/console/ui"
)

func TestEverySessionStateHasAnIconAndAWord(t *testing.T) {
	icons := map[string]bool{}
	for _, name := range ui.Icons() {
		icons[name] = true
	}
	reasons := []string{"", "end_turn", "requires_action", "waiting", "interrupted", "paused", "budget_reached", "max_tokens", "refusal", "retries_exhausted", "archived", "killed", "failed", "expired", "quarantined", "unheard_of"}
	for _, status := range []string{"running", "rescheduling", "idle", "terminated", "unheard_of"} {
		for _, reason := range reasons {
			for _, waits := range []string{"", "timer", "signal", "awaitable", "hire", "session"} {
				for _, hibernated := range []bool{false, true} {
					s := ui.Session(ui.SessionState{Status: status, StopReason: reason, For: waits, Hibernated: hibernated, Limit: "steps", Detail: "detail"})
					require.NotEmpty(t, s.Word, "%s %s", status, reason)
					require.True(t, icons[s.Icon], "%s %s has the icon %q", status, reason, s.Icon)
					require.NotEmpty(t, s.Tone)
				}
			}
		}
	}
	require.Equal(t, "Queued", ui.Session(ui.SessionState{Status: "rescheduling"}).Word, "a new session waits for a worker")
	require.Equal(t, "price ceiling", ui.Session(ui.SessionState{Status: "idle", StopReason: "budget_reached", Limit: "cost"}).Reason, "an ending carries its reason")
	for _, outcome := range []string{"", "succeeded", "failed", "unknown", "cancelled", "denied", "waiting"} {
		require.True(t, icons[ui.Step(outcome).Icon], outcome)
	}
}

func TestTimesAndSizesReadAsPeopleSayThem(t *testing.T) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	zone := time.FixedZone("somewhere", 5*3600+45*60)
	for want, d := range map[string]time.Duration{
		"just now": -2 * time.Second, "12 s ago": -12 * time.Second, "4 min ago": -4*time.Minute - 50*time.Second, "23 h ago": -23*time.Hour - 59*time.Minute,
		"in 30 s": 30 * time.Second, "in 2 min": 100 * time.Second, "in 3 h": 3 * time.Hour, "19 Nov, 15:45": -26 * time.Hour, "21 Nov 2025, 17:45": -364 * 24 * time.Hour,
	} {
		require.Equal(t, want, ui.Relative(now.Add(d), now, zone), d.String())
	}
	for want, d := range map[string]time.Duration{
		"40 µs": 40 * time.Microsecond, "38 ms": 38 * time.Millisecond, "4.20 s": 4200 * time.Millisecond, "42.0 s": 42 * time.Second, "3 min 05 s": 185 * time.Second,
		"2 h 10 min": 130 * time.Minute, "3 d 4 h": 76 * time.Hour, "—": -1,
	} {
		require.Equal(t, want, ui.Duration(d))
	}
	for want, n := range map[string]int64{"0 B": 0, "1023 B": 1023, "1 KiB": 1024, "1.5 MiB": 3 << 19, "2 GiB": 2 << 30, "—": -1} {
		require.Equal(t, want, ui.Bytes(n))
	}
	require.Equal(t, "20,000", ui.Count(20000))
	require.Equal(t, "-1,000", ui.Count(-1000))
	require.Equal(t, "AB", ui.Initials("Ada Byron"))
	require.Equal(t, "N", ui.Initials("new@example.com"))
	require.Equal(t, "?", ui.Initials(" "))
}

// TestDiffsGiveBothTextsBack holds for any two texts: what is on the left is the one, what is on the right the other.
func TestDiffsGiveBothTextsBack(t *testing.T) {
	line := rapid.SampledFrom([]string{"a", "b", "c", "", "long line"})
	rapid.Check(t, func(t *rapid.T) {
		a := rapid.SliceOfN(line, 0, 30).Draw(t, "a")
		b := rapid.SliceOfN(line, 0, 30).Draw(t, "b")
		var left, right []string
		folded := 0
		lines := ui.DiffLines(strings.Join(a, "\n"), strings.Join(b, "\n"))
		for _, l := range lines {
			if l.Change != ui.Added {
				left = append(left, l.Text)
			}
			if l.Change != ui.Removed {
				right = append(right, l.Text)
			}
		}
		require.Equal(t, trimmed(a), strings.Join(left, "\n"))
		require.Equal(t, trimmed(b), strings.Join(right, "\n"))
		shown := 0
		for _, r := range ui.SideBySide(lines) {
			folded += r.Folded
			if r.Left != nil {
				shown++
			}
			if r.Right != nil && r.Right != r.Left {
				shown++
			}
		}
		require.Equal(t, len(lines), shown+folded, "each line is shown or counted in a fold")
	})
}

// trimmed is a text without its last line end, as a comparison reads it.
func trimmed(lines []string) string {
	return strings.TrimSuffix(strings.Join(lines, "\n"), "\n")
}

func TestLargeTextsAreComparedInReasonableTime(t *testing.T) {
	var a, b strings.Builder
	for i := range 20_000 {
		fmt.Fprintf(&a, "line %d\n", i)
		fmt.Fprintf(&b, "other %d\n", i)
	}
	require.Len(t, ui.DiffLines(a.String(), b.String()), 40_000)
}

func TestJSONKeepsItsOrderAndItsDigits(t *testing.T) {
	root, ok := ui.ParseJSON([]byte(`{"z":9007199254740993,"a":1.10,"image":"data:image/png;base64,` + strings.Repeat("QUJD", 400) + `"}`))
	require.True(t, ok)
	require.Equal(t, "z", root.Children[0].Key)
	require.Equal(t, "9007199254740993", root.Children[0].Text, "beyond 2^53 too")
	require.Equal(t, "1.10", root.Children[1].Text)
	require.Equal(t, "media", root.Children[2].Kind)
	require.Equal(t, "image/png, 1.2 KiB", root.Children[2].Text)
	_, ok = ui.ParseJSON([]byte(`{"a":1} trailing`))
	require.False(t, ok)
	_, ok = ui.ParseJSON([]byte("[" + strings.Repeat("1,", 10_000) + "1]"))
	require.False(t, ok, "too large for a tree; shown as text")
	_, ok = ui.ParseJSON([]byte(strings.Repeat("[", 10_000)))
	require.False(t, ok)
}

func FuzzParseJSON(f *testing.F) {
	for _, s := range []string{`{"a":[1,{"b":null}]}`, `[`, `"\ud800"`, `{"a":1,"a":2}`, ``, `1e999`, `{"k":tru`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if root, ok := ui.ParseJSON(raw); ok && root.Kind == "" {
			t.Fatalf("%q was read as nothing", raw)
		}
		draw(t, ui.JSON(ui.CodeProps{ID: "j", Text: string(raw)}))
	})
}
