package mandate

import (
	"fmt"
	"strings"
	"time"
)

// Show writes what a grant has on an axis.
func (g Grant) Show(axis string) string {
	switch axis {
	case AxisTotal:
		if g.Total == nil {
			return "without a limit"
		}
		return g.Total.Display()
	case AxisRecurring:
		if g.Recurring == nil {
			return "without a limit"
		}
		return g.Recurring.Amount.Display() + " a " + g.Recurring.Every
	case AxisPerAction:
		if g.PerAction == nil {
			return "without a limit"
		}
		return g.PerAction.Display()
	case AxisTools:
		return list(g.Tools, "all that the agent has", "none")
	case AxisPayees:
		return list(g.Payees, "everybody", "nobody")
	case AxisFrom:
		if g.From == nil {
			return "at once"
		}
		return g.From.Format("2006-01-02 15:04:05 MST")
	case AxisUntil:
		return g.Until.UTC().Format("2006-01-02 15:04:05 MST")
	case AxisDepth:
		if g.Depth == 0 {
			return "none"
		}
		return levels(g.Depth)
	case AxisSessions:
		if g.Sessions == nil {
			return "any number"
		}
		return fmt.Sprint(*g.Sessions)
	}
	return ""
}

func list(names []string, all, none string) string {
	switch {
	case names == nil:
		return all
	case len(names) == 0:
		return none
	}
	return strings.Join(names, ", ")
}

func levels(n int) string {
	if n == 1 {
		return "one level"
	}
	return fmt.Sprintf("%d levels", n)
}

// Sentence says a grant in plain words: what its signer reads is made from what is signed, and from nothing else.
func (g Grant) Sentence(agent string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s may spend ", agent)
	var amounts []string
	if g.Total != nil {
		amounts = append(amounts, "up to "+g.Total.Display()+" in all")
	}
	if g.Recurring != nil {
		amounts = append(amounts, "up to "+g.Recurring.Amount.Display()+" each "+g.Recurring.Every)
	}
	if g.PerAction != nil {
		amounts = append(amounts, "at most "+g.PerAction.Display()+" an action")
	}
	b.WriteString(strings.Join(amounts, ", "))
	fmt.Fprintf(&b, ", on “%s”.", g.Intent)
	switch {
	case g.Tools == nil:
		b.WriteString(" It may use any tool that it has.")
	case len(g.Tools) == 0:
		b.WriteString(" It may use no tool.")
	default:
		b.WriteString(" It may use only these tools: " + strings.Join(g.Tools, ", ") + ".")
	}
	switch {
	case g.Payees == nil:
		b.WriteString(" It may pay anybody.")
	case len(g.Payees) == 0:
		b.WriteString(" It may pay nobody.")
	default:
		b.WriteString(" It may pay only: " + strings.Join(g.Payees, ", ") + ".")
	}
	if g.From != nil {
		b.WriteString(" It begins on " + stamp(*g.From) + ".")
	}
	b.WriteString(" It ends on " + stamp(g.Until) + ".")
	if g.Depth == 0 {
		b.WriteString(" It may hand nothing of it on to others.")
	} else {
		b.WriteString(" It may hand parts of it on to others, " + levels(g.Depth) + " deep.")
	}
	if g.Sessions != nil {
		fmt.Fprintf(&b, " It is good for %d %s.", *g.Sessions, plural(*g.Sessions, "session"))
	}
	return b.String()
}

func stamp(t time.Time) string { return t.UTC().Format("Monday, 2 January 2006 at 15:04:05 MST") }

func plural(n int64, noun string) string {
	if n == 1 {
		return noun
	}
	return noun + "s"
}
