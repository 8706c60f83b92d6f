package scheduler

import (
	"context"
	"encoding/hex"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/agents/loop"
	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox"
)

// errNewMachine says that the sandbox in which a command ran is gone: the one at hand never heard of it.
var errNewMachine = errors.New("the sandbox in which it ran is gone")

// resolveOpenSteps deals with what an earlier worker had intended and not settled. A model call is settled as unknown, and the loop makes a
// new one; a tool call is taken up again under its own effect key where the other side knows the key, and is unknown where it can't be.
func (w *work) resolveOpenSteps(base context.Context) error {
	for _, step := range w.open {
		if base.Err() != nil {
			return stopped(context.Cause(base))
		}
		w.log.InfoContext(base, "resolving a step that an earlier worker had begun", "step", step.ID, "kind", step.Kind, "name", step.Name)
		var err error
		if step.Kind == journal.KindToolCall {
			err = w.resumeTool(base, step)
		} else {
			err = w.settleLost(base, step, "the worker was lost while it was under way")
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// settleLost settles a step as unknown.
func (w *work) settleLost(ctx context.Context, step journal.Step, why string) error {
	return w.commitTx(ctx, func(tx pgx.Tx, l *journal.Locked) ([]journal.Entry, error) {
		_, entries, err := unknownOutcome(context.WithoutCancel(ctx), tx, w.gate, w.clock.Now(), l, step, why)
		return entries, err
	})
}

// resumeTool takes a tool call up again. The guest keeps results by effect key: asked again it attaches to the running command, or answers
// with the finished one's result, or, if the request never reached it, runs it now for the first time.
func (w *work) resumeTool(base context.Context, step journal.Step) error {
	use, call, ok, err := w.toolUseOf(base, step)
	if err != nil {
		return err
	}
	if !ok {
		return w.settleLost(base, step, "its arguments are not those of a tool that there is now")
	}
	proposal := gate.Proposal{
		Step: step.ID, Kind: gate.ToolCall, Name: step.Name, Digest: call.Digest, EffectKey: step.EffectKey, Within: call.TimeLimit + toolSlack + time.Minute, ToolUseID: use.ID,
		Action: call.Action, Object: call.Object, Domain: call.Domain,
	}
	var decision gate.Decision
	err = w.commitTx(base, func(tx pgx.Tx, l *journal.Locked) (_ []journal.Entry, err error) {
		if decision, err = w.gate.Readmit(context.WithoutCancel(base), tx, w.clock.Now(), l, proposal, step); err != nil {
			return nil, err
		}
		return []journal.Entry{{Step: step.ID, Payload: decision.Event(proposal)}}, nil
	})
	if err != nil {
		return err
	}
	if decision.Outcome != journal.Admitted {
		return w.settleLost(base, step, "it may not be taken up again")
	}
	o := &toolOutcome{toolEffect: &toolEffect{step: step.ID, use: use, call: call, decision: decision, intendedAt: step.IntendedAt}, admittedAt: step.IntendedAt}
	w.runTool(base, o, call.TimeLimit, func(ctx context.Context, box *sandbox.Sandbox) (connectors.Result, error) {
		if box != nil && box.Fresh && call.Idempotency == connectors.Neither {
			return connectors.Result{}, errNewMachine
		}
		return w.tools.Call(ctx, decision.Admission, call, box)
	})
	if errors.Is(o.err, errNewMachine) {
		return w.settleLost(base, step, "the worker and the sandbox were lost while it was under way")
	}
	return w.commit(base, func(ctx context.Context, d *draft) error { return o.settle(ctx, w, d) })
}

// toolUseOf finds the tool use that a step answers.
func (w *work) toolUseOf(ctx context.Context, step journal.Step) (loop.ToolUse, connectors.Prepared, bool, error) {
	var use loop.ToolUse
	var intendedDigest string
	found := false
	err := w.db.InTx(ctx, w.lease.Org, func(tx pgx.Tx) error {
		intended, err := journal.Events(ctx, tx, w.lease.Org, w.lease.Session, journal.EventFilter{After: step.IntendedSeq - 1, Limit: 1})
		if err != nil || len(intended) == 0 {
			return err
		}
		p, err := journal.Decode[journal.StepIntended](intended[0])
		if err != nil {
			return err
		}
		uses, err := journal.Events(ctx, tx, w.lease.Org, w.lease.Session, journal.EventFilter{Descending: true, After: step.IntendedSeq, Types: []string{journal.AgentToolUse{}.EventType()}, Limit: 256})
		if err != nil {
			return err
		}
		for _, e := range uses {
			u, err := journal.Decode[journal.AgentToolUse](e)
			if err != nil {
				return err
			}
			if u.ToolUseID == p.ToolUseID {
				use, found = w.history.Edited(loop.ToolUse{ID: u.ToolUseID, Name: u.Name, Input: u.Input, Seq: e.Seq}), true
				intendedDigest = p.Digest
				return nil
			}
		}
		return nil
	})
	if err != nil || !found {
		return use, connectors.Prepared{}, false, err
	}
	call, invalid := w.tools.Check(use.Name, use.Input)
	if invalid != nil {
		w.log.WarnContext(ctx, "an open tool call can't be read", "step", step.ID, "error", fault.As(invalid).Message)
		return use, call, false, nil
	}
	return use, call, intendedDigest == hex.EncodeToString(call.Digest[:]), nil
}
