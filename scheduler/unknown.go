package scheduler

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/journal"
)

// unknownOutcome settles a step of which nobody knows what became. The declared policy: of a model call the counted input is captured, of
// anything else nothing; the rest is released, and the journal says unknown.
func unknownOutcome(ctx context.Context, tx pgx.Tx, g *gate.Gate, now time.Time, l *journal.Locked, step journal.Step, why string) (billing.Settled, []journal.Entry, error) {
	intended, err := intendedOf(ctx, tx, l, step)
	if err != nil {
		return billing.Settled{}, nil, err
	}
	settled := journal.StepSettled{Kind: step.Kind, Name: step.Name, Outcome: journal.Unknown, Error: &journal.ErrorDetail{Code: "outcome_unknown", Message: "It is not known what became of this: " + why + "."}}
	used := gate.Used{At: step.IntendedAt}
	if step.Kind == journal.KindModelCall {
		settled.Usage = journal.Usage{InputTokens: intended.InputTokensEstimate}
		used.Quantity = []gate.Priced{{Kind: prices.Model, Ref: step.Name, Quantities: prices.Quantities{prices.InputToken: intended.InputTokensEstimate}}}
	}
	var money billing.Settled
	if step.Hold != "" { // what holds nothing costs nothing
		if money, err = g.SettleTx(ctx, tx, now, l, step.Hold, used); err != nil {
			return billing.Settled{}, nil, err
		}
	}
	settled.Cost, settled.Entry, settled.Released = money.Captured, money.Entry, money.Released
	l.PutSpan(unknownSpan(&l.Draft, step, settled, now))
	var entries []journal.Entry
	if step.Kind == journal.KindToolCall && intended.ToolUseID != "" {
		entries = append(entries, journal.Entry{Step: step.ID, Payload: journal.AgentToolResult{
			ToolUseID: intended.ToolUseID, IsError: true,
			Content: journal.Text("The outcome of this call is not known: " + why + ". It may or may not have had its effect; look before you repeat it."),
		}})
	}
	return money, append(entries, journal.Entry{Step: step.ID, Payload: settled}), nil
}

func intendedOf(ctx context.Context, tx pgx.Tx, l *journal.Locked, step journal.Step) (journal.StepIntended, error) {
	events, err := journal.Events(ctx, tx, l.Org, l.ID, journal.EventFilter{After: step.IntendedSeq - 1, Limit: 1})
	if err != nil {
		return journal.StepIntended{}, err
	}
	if len(events) != 1 {
		return journal.StepIntended{}, fmt.Errorf("step %s has no intended event at %d", step.ID, step.IntendedSeq)
	}
	return journal.Decode[journal.StepIntended](events[0])
}
