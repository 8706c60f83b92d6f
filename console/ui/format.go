package ui

import (
	"context"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Preferences are what a person chose for the whole console, read from cookies by the surface that renders.
type Preferences struct {
	// Theme is system, light or dark.
	Theme string
	// Folded says that the sidebar shows icons only.
	Folded bool
	// Zone is the one zone of the page; nil is UTC.
	Zone *time.Location
	// ShortcutsOff says that single keys do nothing.
	ShortcutsOff bool
	// Now is the page's time, fixed once, so that two cells never disagree.
	Now time.Time
}

type preferencesKey struct{}

// WithPreferences returns a context for rendering with p.
func WithPreferences(ctx context.Context, p Preferences) context.Context {
	return context.WithValue(ctx, preferencesKey{}, p)
}

// PreferencesFrom returns the preferences that the context carries; without any, those of somebody who chose nothing.
func PreferencesFrom(ctx context.Context) Preferences {
	p, _ := ctx.Value(preferencesKey{}).(Preferences)
	if p.Zone == nil {
		p.Zone = time.UTC
	}
	if p.Now.IsZero() {
		p.Now = time.Now()
	}
	if p.Theme == "" {
		p.Theme = "system"
	}
	return p
}

// Relative writes t as seen from now: "4 min ago" within a day, else the date in the zone.
func Relative(t, now time.Time, zone *time.Location) string {
	d := now.Sub(t).Round(time.Second)
	s := int(d / time.Second)
	switch {
	case s < -86400 || s >= 86400:
		return Absolute(t, now, zone)
	case s <= -3600:
		return fmt.Sprintf("in %d h", (-s+1800)/3600)
	case s <= -60:
		return fmt.Sprintf("in %d min", (-s+30)/60)
	case s < 0:
		return fmt.Sprintf("in %d s", -s)
	case s < 5:
		return "just now"
	case s < 60:
		return fmt.Sprintf("%d s ago", s)
	case s < 3600:
		return fmt.Sprintf("%d min ago", s/60)
	}
	return fmt.Sprintf("%d h ago", s/3600)
}

// Absolute writes t as "20 Nov, 13:44", with the year when it is not this one.
func Absolute(t, now time.Time, zone *time.Location) string {
	t, now = t.In(zone), now.In(zone)
	if t.Year() != now.Year() {
		return t.Format("2 Jan 2006, 15:04")
	}
	return t.Format("2 Jan, 15:04")
}

// Duration writes how long something took with the precision that a reader can use: "38 ms", "4.2 s", "3 min 05 s", "2 h 10 min".
func Duration(d time.Duration) string {
	switch {
	case d < 0:
		return "—"
	case d < time.Millisecond:
		return fmt.Sprintf("%d µs", d.Microseconds())
	case d < time.Second:
		return fmt.Sprintf("%d ms", d.Milliseconds())
	case d < 10*time.Second:
		return strings.Replace(fmt.Sprintf("%.2f s", d.Seconds()), "10.00", "10.0", 1)
	case d < time.Minute:
		return fmt.Sprintf("%.1f s", d.Seconds())
	case d < time.Hour:
		return fmt.Sprintf("%d min %02d s", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h %02d min", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%d d %d h", int(d.Hours())/24, int(d.Hours())%24)
}

// Bytes writes a size in binary units.
func Bytes(n int64) string {
	switch {
	case n < 0:
		return "—"
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return trimZero(float64(n)/(1<<10)) + " KiB"
	case n < 1<<30:
		return trimZero(float64(n)/(1<<20)) + " MiB"
	}
	return trimZero(float64(n)/(1<<30)) + " GiB"
}

func trimZero(f float64) string {
	if f >= 100 {
		return strconv.FormatFloat(f, 'f', 0, 64)
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0")
}

// Count writes an integer with thousands separated: 20,000.
func Count(n int64) string {
	s := strconv.FormatInt(n, 10)
	start := 0
	if n < 0 {
		start = 1
	}
	for i := len(s) - 3; i > start; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// Plural writes a count with its noun.
func Plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return Count(n) + " " + many
}

// Initials are one or two letters that stand for a name in an avatar.
func Initials(name string) string {
	name = strings.TrimSpace(name)
	if name == "" {
		return "?"
	}
	fields := strings.FieldsFunc(name, func(r rune) bool { return r == ' ' || r == '-' || r == '_' || r == '.' || r == '@' })
	if len(fields) == 0 {
		return strings.ToUpper(string([]rune(name)[:1]))
	}
	out := string([]rune(fields[0])[:1])
	if len(fields) > 1 && !strings.Contains(name, "@") {
		out += string([]rune(fields[len(fields)-1])[:1])
	}
	return strings.ToUpper(out)
}
