package mandate

import (
	"fmt"
	"slices"
	"time"

	"ambit.dev/ambit/internal/money"
)

// Wider says on which axis a sub-mandate would be wider than its parent, and what each of them has there.
type Wider struct {
	Axis   string
	Parent string
	Child  string
}

func (w *Wider) Error() string {
	return fmt.Sprintf("the sub-mandate is wider than its parent: %s is %s, and the parent has %s", w.Axis, w.Child, w.Parent)
}

// Narrow says whether a child is no wider than its parent on any axis; else its error is a *Wider for the first that is.
func Narrow(parent, child Grant) error {
	for _, axis := range []string{AxisTotal, AxisRecurring, AxisPerAction, AxisTools, AxisPayees, AxisFrom, AxisUntil, AxisDepth, AxisSessions} {
		if !narrows[axis](parent, child) {
			w := &Wider{Axis: axis, Parent: parent.Show(axis), Child: child.Show(axis)}
			if axis == AxisDepth && parent.Depth > 0 {
				w.Parent += ", of which a sub-mandate has one less"
			}
			return w
		}
	}
	return nil
}

var narrows = map[string]func(p, c Grant) bool{
	AxisTotal:     func(p, c Grant) bool { return atMost(p.Total, c.Total) },
	AxisRecurring: func(p, c Grant) bool { return p.Recurring == nil || withinPeriod(*p.Recurring, c) },
	AxisPerAction: func(p, c Grant) bool { return atMost(p.PerAction, c.PerAction) },
	AxisTools:     func(p, c Grant) bool { return within(p.Tools, c.Tools) },
	AxisPayees:    func(p, c Grant) bool { return within(p.Payees, c.Payees) },
	AxisFrom:      func(p, c Grant) bool { return p.From == nil || (c.From != nil && !c.From.Before(*p.From)) },
	AxisUntil:     func(p, c Grant) bool { return !c.Until.After(p.Until) },
	AxisDepth:     func(p, c Grant) bool { return c.Depth >= 0 && c.Depth < p.Depth },
	AxisSessions:  func(p, c Grant) bool { return p.Sessions == nil || (c.Sessions != nil && *c.Sessions <= *p.Sessions) },
}

func atMost(parent, child *money.Nanos) bool {
	return parent == nil || (child != nil && *child <= *parent)
}

func within(parent, child []string) bool {
	if parent == nil {
		return true
	}
	if child == nil {
		return false
	}
	for _, c := range child {
		if !slices.ContainsFunc(parent, func(p string) bool { return covers(p, c) }) {
			return false
		}
	}
	return true
}

// most is in how many periods of one length a period of another can lie, in part at least. A month has 31 days at most and touches 6 weeks.
var most = map[string]map[string]int64{
	"day":   {"day": 1, "week": 1, "month": 1},
	"week":  {"day": 7, "week": 1, "month": 2},
	"month": {"day": 31, "week": 6, "month": 1},
}

// withinPeriod says that a child can't spend more than the amount in any of the parent's periods, whatever it does.
func withinPeriod(p Recurring, c Grant) bool {
	if c.Total != nil && *c.Total <= p.Amount {
		return true
	}
	if c.Recurring == nil || most[p.Every][c.Recurring.Every] == 0 {
		return false
	}
	sum, err := c.Recurring.Amount.Times(most[p.Every][c.Recurring.Every])
	return err == nil && sum <= p.Amount
}

// Inherit gives the child what its parent has on each axis that the child leaves open, so that who narrows names only what is narrower.
// The depth is one less than the parent's where it is below zero.
func Inherit(parent, child Grant) Grant {
	if child.Intent == "" {
		child.Intent = parent.Intent
	}
	if child.Total == nil {
		child.Total = parent.Total
	}
	if child.Recurring == nil {
		child.Recurring = parent.Recurring
	}
	if child.PerAction == nil {
		child.PerAction = parent.PerAction
	}
	if child.Tools == nil {
		child.Tools = parent.Tools
	}
	if child.Payees == nil {
		child.Payees = parent.Payees
	}
	if child.From == nil {
		child.From = parent.From
	}
	if child.Until.IsZero() {
		child.Until = parent.Until
	}
	if child.Depth < 0 {
		child.Depth = max(0, parent.Depth-1)
	}
	if child.Sessions == nil {
		child.Sessions = parent.Sessions
	}
	return child
}

// InForce says whether the grant's time has come and is not over.
func (g Grant) InForce(now time.Time) bool {
	return now.Before(g.Until) && (g.From == nil || !now.Before(*g.From))
}
