package policy

import (
	"fmt"
	"math/bits"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/money"
)

// Condition says when a rule applies: when everything that it names is so. The zero value always applies.
type Condition struct {
	// AmountAtMost: the most that the effect may cost is not above this.
	AmountAtMost *money.Nanos
	// AmountOver: the most that the effect may cost is above this.
	AmountOver *money.Nanos
	// Hours: the effect is asked for within these hours, in the organisation's zone.
	Hours *Hours
	// Domains: the effect goes to one of these hosts. "*.example.com" is every name below example.com, "*" any host.
	Domains []string
	// Environments: the effect happens in one of these environments.
	Environments []string
}

// Hours are times of day on days of the week.
type Hours struct {
	// From and To are minutes since midnight. A window that ends at or before its beginning goes on into the next day, and belongs to the
	// day on which it began. To may be 1440.
	From, To int
	// Days has a bit for each weekday, as time.Weekday counts them; 0 means every day.
	Days uint8
}

const (
	allDays      = 1<<7 - 1
	dayMinutes   = 24 * 60
	maxDomains   = 64
	maxCondition = 8192
)

var environmentForm = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$`)

// IsZero reports whether the condition always applies.
func (c Condition) IsZero() bool {
	return c.AmountAtMost == nil && c.AmountOver == nil && c.Hours == nil && len(c.Domains) == 0 && len(c.Environments) == 0
}

func (c Condition) check(at string) (Condition, []fault.Field) {
	var wrong []fault.Field
	bad := func(pointer, code, format string, args ...any) {
		wrong = append(wrong, fault.Field{Pointer: at + pointer, Code: code, Message: fmt.Sprintf(format, args...)})
	}
	if c.AmountAtMost != nil && *c.AmountAtMost < 0 {
		bad("/amount_at_most", "invalid_value", "An amount must not be negative.")
	}
	if c.AmountOver != nil && *c.AmountOver < 0 {
		bad("/amount_over", "invalid_value", "An amount must not be negative.")
	}
	if c.AmountAtMost != nil && c.AmountOver != nil && *c.AmountOver >= *c.AmountAtMost {
		bad("/amount_over", "invalid_value", "amount_over must be below amount_at_most, or the rule would never apply.")
	}
	if h := c.Hours; h != nil {
		if h.From < 0 || h.From >= dayMinutes || h.To < 0 || h.To > dayMinutes {
			bad("/hours", "invalid_value", "Hours lie between 00:00 and 24:00.")
		}
		days := h.Days & allDays
		if days == 0 {
			days = allDays
		}
		c.Hours = &Hours{From: h.From, To: h.To, Days: days}
	}
	c.Domains = slices.Clone(c.Domains)
	for i, d := range c.Domains {
		canonical, err := canonicalDomain(d)
		if err != nil {
			bad(fmt.Sprintf("/domains/%d", i), "invalid_value", "%q is not a host name, an IP address in its usual spelling, or *. and a name.", truncate(d, 80))
			continue
		}
		c.Domains[i] = canonical
	}
	for i, e := range c.Environments {
		if !environmentForm.MatchString(e) {
			bad(fmt.Sprintf("/environments/%d", i), "invalid_value", "An environment's name or id has letters, digits, dots, hyphens and underscores, at most 64.")
		}
	}
	if len(c.Domains) > maxDomains || len(c.Environments) > maxDomains {
		bad("", "too_long", "A condition names at most %d domains and %d environments.", maxDomains, maxDomains)
	}
	c.Domains = sortedSet(c.Domains)
	c.Environments = sortedSet(slices.Clone(c.Environments))
	if len(wrong) == 0 && len(c.text()) > maxCondition {
		bad("", "too_long", "The condition is too long: write fewer or shorter domains.")
	}
	return c, wrong
}

func sortedSet(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// text is the one form in which a condition is kept, and the one template from which Casbin's lines are made:
// "amount<=500000000;hours=540-1080/62;domain=*.example.com,example.org". Nothing in it can be anything but data.
func (c Condition) text() string {
	var parts []string
	if c.AmountAtMost != nil {
		parts = append(parts, "amount<="+strconv.FormatInt(int64(*c.AmountAtMost), 10))
	}
	if c.AmountOver != nil {
		parts = append(parts, "amount>"+strconv.FormatInt(int64(*c.AmountOver), 10))
	}
	if h := c.Hours; h != nil {
		parts = append(parts, fmt.Sprintf("hours=%d-%d/%d", h.From, h.To, h.Days))
	}
	if len(c.Domains) > 0 {
		parts = append(parts, "domain="+strings.Join(c.Domains, ","))
	}
	if len(c.Environments) > 0 {
		parts = append(parts, "environment="+strings.Join(c.Environments, ","))
	}
	return strings.Join(parts, ";")
}

// parseCondition reads what text wrote. A part that it does not know is an error: a condition that is not understood must not be met.
func parseCondition(s string) (c Condition, err error) {
	if s == "" {
		return Condition{}, nil
	}
	for part := range strings.SplitSeq(s, ";") {
		switch {
		case strings.HasPrefix(part, "amount<="):
			c.AmountAtMost, err = parseNanos(part[len("amount<="):])
		case strings.HasPrefix(part, "amount>"):
			c.AmountOver, err = parseNanos(part[len("amount>"):])
		case strings.HasPrefix(part, "hours="):
			c.Hours, err = parseHours(part[len("hours="):])
		case strings.HasPrefix(part, "domain="):
			c.Domains = strings.Split(part[len("domain="):], ",")
		case strings.HasPrefix(part, "environment="):
			c.Environments = strings.Split(part[len("environment="):], ",")
		default:
			err = fmt.Errorf("the part %q is not known", part)
		}
		if err != nil {
			return Condition{}, fmt.Errorf("read a condition: %w", err)
		}
	}
	// What was kept went through check; what would not come out of it unchanged was not written by this package.
	again, wrong := c.check("")
	if len(wrong) > 0 || again.text() != s {
		return Condition{}, fmt.Errorf("read a condition: %q is not in the form in which conditions are kept", truncate(s, 200))
	}
	return again, nil
}

func parseNanos(s string) (*money.Nanos, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	v := money.Nanos(n)
	return &v, err
}

func parseHours(s string) (*Hours, error) {
	window, days, ok := strings.Cut(s, "/")
	from, to, also := strings.Cut(window, "-")
	if !ok || !also {
		return nil, fmt.Errorf("the hours %q are not understood", truncate(s, 40))
	}
	var h Hours
	for _, n := range []struct {
		text string
		into func(int)
	}{{from, func(n int) { h.From = n }}, {to, func(n int) { h.To = n }}, {days, func(n int) { h.Days = uint8(n) }}} { //nolint:gosec // checked below
		v, err := strconv.Atoi(n.text)
		if err != nil || v < 0 || v > dayMinutes {
			return nil, fmt.Errorf("the hours %q are not understood", truncate(s, 40))
		}
		n.into(v)
	}
	return &h, nil
}

// include reports whether the clock's time lies within.
func (h Hours) include(minute int, day time.Weekday) bool {
	if h.From < h.To {
		return minute >= h.From && minute < h.To && h.on(day)
	}
	return (minute >= h.From && h.on(day)) || (minute < h.To && h.on((day+6)%7))
}

func (h Hours) on(day time.Weekday) bool { return h.Days&(1<<day) != 0 }

// Words says the condition as part of a sentence; empty when there is none.
func (c Condition) Words() string {
	var parts []string
	if c.AmountAtMost != nil {
		parts = append(parts, "at a cost of at most "+c.AmountAtMost.Display())
	}
	if c.AmountOver != nil {
		parts = append(parts, "at a cost above "+c.AmountOver.Display())
	}
	if h := c.Hours; h != nil {
		when := fmt.Sprintf("from %02d:%02d to %02d:%02d", h.From/60, h.From%60, h.To/60, h.To%60)
		if h.Days != allDays {
			when += " on " + dayNames(h.Days)
		}
		parts = append(parts, when)
	}
	if len(c.Domains) > 0 {
		parts = append(parts, "to "+inWords(c.Domains))
	}
	if len(c.Environments) > 0 {
		parts = append(parts, "in the environment "+inWords(c.Environments))
	}
	return strings.Join(parts, ", ")
}

func dayNames(days uint8) string {
	var names []string
	for i := range 7 {
		day := time.Weekday((i + 1) % 7) // a week that begins on Monday
		if days&(1<<day) != 0 {
			names = append(names, day.String())
		}
	}
	if bits.OnesCount8(days) > 2 && days == 0b0111110 {
		return "weekdays"
	}
	return strings.Join(names, ", ")
}

// inWords lists the first few of many.
func inWords(list []string) string {
	if len(list) > 5 {
		return fmt.Sprintf("%s or %d others", strings.Join(list[:5], ", "), len(list)-5)
	}
	return strings.Join(list, " or ")
}

func truncate(s string, most int) string {
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
