package mandate

import (
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/money"
)

// Bounds of a grant.
const (
	MaxIntent  = 500
	MaxNames   = 50
	MaxDepth   = 8
	MaxAmount  = 1_000_000_000 * money.Dollar
	maxRuns    = 1_000_000
	maxForward = 10 * 366 * 24 * time.Hour
)

// Axes are what a grant is limited on, in the order in which they are shown.
const (
	AxisTotal     = "total"
	AxisRecurring = "recurring"
	AxisPerAction = "per_action"
	AxisTools     = "tools"
	AxisPayees    = "payees"
	AxisFrom      = "from"
	AxisUntil     = "until"
	AxisDepth     = "depth"
	AxisSessions  = "sessions"
)

// Periods are how often what recurs begins anew, in the organisation's zone, as budgets do.
var Periods = []string{"day", "week", "month"}

// Recurring is an amount that can be spent anew in each period.
type Recurring struct {
	Every  string      `json:"every"`
	Amount money.Nanos `json:"amount"`
}

// Grant is what a mandate allows. It limits the money at least: in total, or in each period.
type Grant struct {
	// Intent is what it is for, in plain words. It binds nobody by itself, and is signed with the rest.
	Intent string `json:"intent"`
	// Total is the most that can be spent in all; nil where only the periods limit it.
	Total     *money.Nanos `json:"total"`
	Recurring *Recurring   `json:"recurring"`
	// PerAction is the most that one effect may cost.
	PerAction *money.Nanos `json:"per_action"`
	// Tools are the tools that may be used: names, or beginnings of names followed by *. Nil allows all that the agent has, and an empty list none.
	Tools []string `json:"tools"`
	// Payees are who may be paid: see PayeeOf. Nil allows everybody.
	Payees []string `json:"payees"`
	// From is from when on it holds; nil for at once.
	From *time.Time `json:"from"`
	// Until is when it ends: at that moment it holds no more.
	Until time.Time `json:"until"`
	// Depth is how many levels of sub-mandates there may be below it.
	Depth int `json:"depth"`
	// Sessions is how many sessions may be begun under it, those under its sub-mandates included; nil for any number.
	Sessions *int64 `json:"sessions"`
}

var (
	toolForm  = regexp.MustCompile(`^[a-zA-Z0-9_.:/-]{1,128}\*?$|^\*$`)
	payeeForm = regexp.MustCompile(`^(ambit|(provider|host|agent|organization):[a-zA-Z0-9_.:/-]{1,190}\*?)$`)
)

// Check brings a grant to its one form and refuses what makes no sense. now is when it would be signed.
func (g Grant) Check(now time.Time) (Grant, error) {
	var wrong []fault.Field
	no := func(axis, code, format string, args ...any) {
		wrong = append(wrong, fault.Field{Pointer: "/" + axis, Code: code, Message: fmt.Sprintf(format, args...)})
	}
	g.Intent = strings.TrimSpace(g.Intent)
	if g.Intent == "" || utf8.RuneCountInString(g.Intent) > MaxIntent || !utf8.ValidString(g.Intent) || strings.ContainsFunc(g.Intent, func(r rune) bool { return r < ' ' || r == 0x7f || isDirection(r) }) {
		no("intent", "out_of_range", "Say on one line of at most %d characters what it is for.", MaxIntent)
	}
	amount := func(axis string, n *money.Nanos) {
		if n != nil && (*n <= 0 || *n > MaxAmount) {
			no(axis, "out_of_range", "An amount is above zero and at most %s.", MaxAmount.Display())
		}
	}
	amount(AxisTotal, g.Total)
	amount(AxisPerAction, g.PerAction)
	if g.Recurring != nil {
		amount(AxisRecurring+"/amount", &g.Recurring.Amount)
		if !slices.Contains(Periods, g.Recurring.Every) {
			no(AxisRecurring+"/every", "unknown_value", "It recurs every %s.", strings.Join(Periods, ", "))
		}
	}
	if g.Total == nil && g.Recurring == nil {
		no(AxisTotal, "required", "A mandate limits the money: in total, or in each period.")
	}
	g.Tools = names(g.Tools, AxisTools, toolForm, "A tool is named in full, or by the beginning of its name and *.", no)
	g.Payees = names(g.Payees, AxisPayees, payeeForm, "A payee is ambit, provider:, host:, agent: or organization: and a name, or its beginning and *.", no)
	if g.From != nil {
		at := g.From.UTC().Truncate(time.Second)
		g.From = &at
	}
	g.Until = g.Until.UTC().Truncate(time.Second)
	switch {
	case g.Until.IsZero():
		no(AxisUntil, "required", "A mandate ends at some time.")
	case !g.Until.After(now) || (g.From != nil && !g.Until.After(*g.From)):
		no(AxisUntil, "out_of_range", "It ends after it begins, and after now.")
	case g.Until.Sub(now) > maxForward:
		no(AxisUntil, "out_of_range", "It ends within ten years.")
	}
	if g.Depth < 0 || g.Depth > MaxDepth {
		no(AxisDepth, "out_of_range", "There are from 0 to %d levels below a mandate.", MaxDepth)
	}
	if g.Sessions != nil && (*g.Sessions < 1 || *g.Sessions > maxRuns) {
		no(AxisSessions, "out_of_range", "It is good for 1 to %d sessions.", maxRuns)
	}
	if len(wrong) > 0 {
		return Grant{}, fault.InvalidFields(wrong...)
	}
	return g, nil
}

// isDirection says that a character turns the direction of what follows: a sentence to be signed must read as it is written.
func isDirection(r rune) bool {
	return (r >= 0x202a && r <= 0x202e) || (r >= 0x2066 && r <= 0x2069) || r == 0x200e || r == 0x200f || r == 0x2028 || r == 0x2029
}

func names(list []string, axis string, form *regexp.Regexp, say string, no func(axis, code, format string, args ...any)) []string {
	if list == nil {
		return nil
	}
	out := []string{}
	for i, n := range list {
		if n = strings.TrimSpace(n); !form.MatchString(n) {
			no(fmt.Sprintf("%s/%d", axis, i), "invalid_value", "%s", say)
			continue
		}
		out = append(out, n)
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) > MaxNames {
		no(axis, "too_long", "At most %d are named.", MaxNames)
	}
	return out
}

// fits says that a name is what a pattern stands for.
func fits(pattern, name string) bool {
	if beginning, open := strings.CutSuffix(pattern, "*"); open {
		return strings.HasPrefix(name, beginning)
	}
	return pattern == name
}

// covers says that all that inner stands for, outer stands for too.
func covers(outer, inner string) bool {
	beginning, open := strings.CutSuffix(outer, "*")
	if !open {
		return outer == inner
	}
	return strings.HasPrefix(strings.TrimSuffix(inner, "*"), beginning)
}

func named(list []string, name string) bool {
	return list == nil || slices.ContainsFunc(list, func(p string) bool { return fits(p, name) })
}

// Me is whom the platform itself is paid as: for sandbox time, and for tools of its own.
const Me = "ambit"

// PayeeOf says whom an effect pays: a model's provider, the host that it goes to, or the platform.
func PayeeOf(kind, name, domain string) string {
	switch {
	case domain != "":
		return "host:" + domain
	case kind == "model_call":
		provider, _, _ := strings.Cut(name, "/")
		return "provider:" + provider
	}
	return Me
}
