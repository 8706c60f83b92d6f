package sessions

import (
	"strings"
	"time"

	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/scheduler"
)

// killWait is how long the kill dialog waits for the sandbox to be gone before it shows the receipt as it is.
const killWait = 8 * time.Second

func newReceipt(r scheduler.KillReceipt, back string) receipt {
	var released money.Nanos
	for _, h := range r.HoldsReleased {
		released += money.Nanos(h.Nanos)
	}
	out := receipt{Back: back, Sentence: "No worker of it, or of a session below it, can write, spend or reach a sandbox any more.", Facts: []ui.Fact{
		{Term: "Receipt", Value: ui.Ident(string(r.ID))},
		{Term: "Charged", Value: ui.Money(money.Nanos(r.ChargedNanos))},
		{Term: "Released", Value: ui.Money(released)},
		{Term: "Asked at", Value: ui.Clock(r.RequestedAt)},
	}}
	if r.Sandbox == nil {
		out.Facts = append(out.Facts, ui.Fact{Term: "Sandbox", Text: "ending; the receipt is completed when it is gone"})
	} else {
		out.Facts = append(out.Facts, ui.Fact{Term: "Sandbox gone", Value: ui.Clock(r.Sandbox.At)}, ui.Fact{Term: "Seen by", Text: strings.TrimSpace(r.Sandbox.By + " " + r.Sandbox.Detail)})
	}
	if n := len(r.UnsettledSteps); n > 0 {
		out.Facts = append(out.Facts, ui.Fact{Term: "Unknown", Text: ui.Plural(int64(n), "step was under way; what became of it is not known", "steps were under way; what became of them is not known")})
	}
	if n := len(r.Children); n > 0 {
		out.Facts = append(out.Facts, ui.Fact{Term: "Below it", Text: ui.Plural(int64(n), "session was stopped with it", "sessions were stopped with it")})
	}
	if r.LastBilledAt != nil {
		out.Facts = append(out.Facts, ui.Fact{Term: "Last charge", Value: ui.Clock(*r.LastBilledAt)})
	}
	if r.Done() {
		out.File = back + "/receipt"
		out.Facts = append(out.Facts, ui.Fact{Term: "Signature", Text: "signed by this instance"})
	}
	return out
}
