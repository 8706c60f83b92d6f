package scheduler

import (
	"context"
	"encoding/hex"
	"errors"
	"slices"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents/loop"
	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/failpoint"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
)

// ask has the gate decide on a tool use about which people may have to be asked, in a transaction of its own: it reads before it writes. What
// waits for them brings the session to rest in the same commit, with its lease and its ceiling given back. What follows is the effect, the
// session's rest, its end for want of money, or, when the tool use is answered, nothing: then the loop decides anew.
func (w *work) ask(base context.Context, use loop.ToolUse) (next following, err error) {
	call, invalid := w.tools.Check(use.Name, use.Input)
	if invalid != nil {
		return following{}, invalid // it was valid when the unit before was drafted
	}
	proposal, limit := toolProposal(use, call, call.Digest, len(w.history.Taint()) > 0)
	seen := w.history.LastSeq()
	ctx := context.WithoutCancel(base)
	failpoint.Hit(failpoint.BeforeAsk)
	var outcome string
	err = w.commitTx(base, func(tx pgx.Tx, l *journal.Locked) ([]journal.Entry, error) {
		next = following{}
		if l.LastSeq > seen {
			return nil, errMoreInput
		}
		question, err := w.question(ctx, tx, l, use, call)
		if err != nil {
			return nil, err
		}
		now := w.clock.Now()
		decision, err := w.gate.AdmitAsked(ctx, tx, now, l, proposal, question)
		if err != nil {
			return nil, err
		}
		outcome = decision.Outcome
		var entries []journal.Entry
		if !w.running {
			entries = append(entries, w.runningEntry(&l.Draft))
		}
		switch {
		case decision.Outcome == journal.Admitted:
			next.effect = &toolEffect{step: proposal.Step, use: use, call: call, decision: decision, intendedAt: now, limit: limit}
			intended := journal.StepIntended{
				Kind: journal.KindToolCall, Name: use.Name, Attempt: 1, QueuedAt: now, EffectKey: proposal.EffectKey, Digest: hex.EncodeToString(proposal.Digest[:]),
				Hold: decision.Hold, ToolUseID: use.ID,
			}
			if decision.Approval != nil {
				intended.Approval = decision.Approval.ID
			}
			return append(entries, journal.Entry{Step: proposal.Step, Payload: decision.Event(proposal)}, journal.Entry{Step: proposal.Step, Payload: intended}), nil
		case decision.Outcome == journal.Waiting:
			next.rests = true
			return w.restFor(ctx, tx, l, append(entries, journal.Of(decision.Event(proposal))), decision)
		case decision.Shortfall != nil:
			next = outOfFunds(*decision.Shortfall)
			return append(entries, journal.Of(decision.Event(proposal))), nil
		default:
			return append(entries, journal.Of(decision.Event(proposal)), answer(use, denial(decision))), nil
		}
	})
	switch {
	case errors.Is(err, errMoreInput):
		return following{}, w.commitTx(base, func(pgx.Tx, *journal.Locked) ([]journal.Entry, error) { return nil, nil })
	case err != nil:
		return following{}, err
	}
	failpoint.Hit(failpoint.AfterAsk)
	w.running = true
	w.metrics.decisions.WithLabelValues(string(proposal.Kind), outcome).Inc()
	return next, nil
}

// restFor are the events with which a session comes to rest until people have decided.
func (w *work) restFor(ctx context.Context, tx pgx.Tx, l *journal.Locked, entries []journal.Entry, d gate.Decision) ([]journal.Entry, error) {
	requested := id.New[id.Event]()
	if d.Fresh {
		entries = append(entries, journal.Entry{ID: requested, Payload: d.Approval.Requested()})
	} else {
		earlier, err := journal.Events(ctx, tx, l.Org, l.ID, journal.EventFilter{Descending: true, Types: []string{journal.ApprovalRequested{}.EventType()}, Limit: 100})
		if err != nil {
			return nil, err
		}
		for _, e := range earlier {
			if p, err := journal.Decode[journal.ApprovalRequested](e); err == nil && p.Approval == d.Approval.ID {
				requested = e.ID
				break
			}
		}
	}
	released, err := w.gate.ReleaseCeiling(ctx, tx, w.clock.Now(), l)
	if err != nil {
		return nil, err
	}
	if err := journal.ReleaseLease(ctx, tx, w.lease); err != nil {
		return nil, err
	}
	stop := journal.StopReason{Type: journal.StopRequiresAction, EventIDs: []id.Event{requested}, Reason: d.Reasons[0].Message}
	return append(entries, w.idleEntries(&l.Draft, stop, released)...), nil
}

// question is what people are shown and what they decide on.
func (w *work) question(ctx context.Context, tx pgx.Tx, l *journal.Locked, use loop.ToolUse, call connectors.Prepared) (approval.Question, error) {
	actors := slices.Clone(w.history.Askers())
	if use.EditedBy != nil {
		actors = append(actors, *use.EditedBy)
	}
	var askers []id.User
	for _, a := range actors {
		user, err := approval.PersonOf(ctx, tx, l.Org, a)
		if err != nil {
			return approval.Question{}, err
		}
		if user != "" && !slices.Contains(askers, user) {
			askers = append(askers, user)
		}
	}
	tool, _ := w.tools.Lookup(use.Name)
	behind := l.By.ID
	if l.By.OnBehalfOf != "" {
		behind += " for " + l.By.OnBehalfOf
	}
	return approval.Question{
		Org: l.Org, Project: l.Project, Seq: use.Seq, Askers: askers,
		Shown: approval.Shown{
			Action:    approval.Action{Tool: use.Name, Arguments: use.Input, Agent: l.Agent.ID, Session: l.ID, Principal: behind, Mandate: string(l.Mandate)},
			AgentName: l.Agent.Name, AgentVersion: l.Agent.Version, By: l.By, ToolUseID: use.ID, Does: call.Action, Object: call.Object, Domain: call.Domain,
			Risk: string(call.Risk), Reversible: tool.Reversible, Said: excerptOf(w.history.Said(), 4000), Read: w.history.Taint(), EditedBy: use.EditedBy,
		},
	}, nil
}
