package scheduler

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"ambit.dev/ambit/agents/loop"
	"ambit.dev/ambit/billing/prices"
	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/canonical"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox"
)

// toolSlack is what a tool call may take beyond its own time limit: waiting for a sandbox, restoring the working directory.
const toolSlack = 90 * time.Second

// intendTool drafts a tool step. What the model may not do, and arguments that make no sense, are answered with an error that the model
// reads, and nothing is done.
func (w *work) intendTool(d *draft, use loop.ToolUse) (following, error) {
	call, invalid := w.tools.Check(use.Name, use.Input)
	digest := call.Digest
	if digest == ([32]byte{}) {
		var err error
		if digest, err = canonical.Digest(map[string]any{"tool": use.Name, "input": use.Input}); err != nil {
			return following{}, fmt.Errorf("digest a tool use: %w", err)
		}
	}
	if invalid != nil && slices.Contains(d.Agent.Tools, use.Name) {
		return following{}, d.append(answer(use, fault.As(invalid).Message))
	}
	proposal, limit := toolProposal(use, call, digest, len(d.history.Taint()) > 0)
	step := proposal.Step
	decision, err := w.intend(d, proposal, journal.StepIntended{Kind: journal.KindToolCall, Name: use.Name, Attempt: 1, QueuedAt: d.Now})
	switch {
	case err != nil:
		return following{}, err
	case decision.Outcome == journal.Waiting:
		return following{ask: &use}, nil
	case decision.Outcome == journal.Admitted:
		return following{effect: &toolEffect{step: step, use: use, call: call, decision: decision, intendedAt: d.Now, limit: limit}}, nil
	case decision.Shortfall != nil:
		return outOfFunds(*decision.Shortfall), nil
	}
	return following{}, d.append(answer(use, denial(decision)))
}

func denial(d gate.Decision) string {
	if len(d.Reasons) == 0 {
		return "Denied."
	}
	return "Denied: " + d.Reasons[0].Message
}

// toolProposal is what the gate is asked about a tool use, and how long the tool may take.
func toolProposal(use loop.ToolUse, call connectors.Prepared, digest [32]byte, tainted bool) (gate.Proposal, time.Duration) {
	limit := call.TimeLimit
	if limit <= 0 {
		limit = time.Minute
	}
	step := id.New[id.Step]()
	return gate.Proposal{
		Step: step, Kind: gate.ToolCall, Name: use.Name, Digest: digest, EffectKey: string(step), Within: limit + toolSlack + time.Minute, ToolUseID: use.ID,
		Action: call.Action, Object: call.Object, Domain: call.Domain, Quantity: toolQuantities(use.Name), Risk: string(call.Risk), Tainted: tainted, Asked: use.Asked,
	}, limit
}

// answer gives a tool use a result without any effect.
func answer(use loop.ToolUse, text string) journal.Entry {
	return journal.Of(journal.AgentToolResult{ToolUseID: use.ID, Content: journal.Text(edited(use) + text), IsError: true})
}

// toolEffect is an admitted tool call.
type toolEffect struct {
	step       id.Step
	use        loop.ToolUse
	call       connectors.Prepared
	decision   gate.Decision
	intendedAt time.Time
	limit      time.Duration
}

func (e *toolEffect) run(base context.Context, w *work) outcome {
	o := &toolOutcome{toolEffect: e, admittedAt: w.clock.Now()}
	w.runTool(base, o, e.limit, func(ctx context.Context, box *sandbox.Sandbox) (connectors.Result, error) {
		return w.tools.Call(ctx, e.decision.Admission, e.call, box)
	})
	return o
}

// toolOutcome is all that is known when a tool call has ended.
type toolOutcome struct {
	*toolEffect

	admittedAt time.Time // when the commit that admitted it was done
	result     connectors.Result
	err        error
	cause      error
	ran        time.Duration // in the sandbox; queueing for one is not charged
}

// runTool gets the session's sandbox where the tool needs one, and runs the tool.
func (w *work) runTool(base context.Context, o *toolOutcome, limit time.Duration, run func(context.Context, *sandbox.Sandbox) (connectors.Result, error)) {
	ctx, done := w.effect(base, limit+toolSlack)
	defer func() {
		o.cause = context.Cause(ctx)
		done()
		w.metrics.toolCalls.WithLabelValues(o.use.Name, toolLabel(o)).Inc()
	}()
	var box *sandbox.Sandbox
	if o.call.Sandbox {
		var err error
		if box, err = w.acquire(ctx); err != nil {
			o.err = err
			return
		}
	}
	began := time.Now()
	o.result, o.err = run(ctx, box)
	o.ran = time.Since(began)
	// Not when the lease was lost: the worker that has the session now may be attached to this very command.
	if cause := context.Cause(ctx); errors.Is(cause, errInterrupted) || errors.Is(cause, errDraining) {
		w.endCommand(base, box, o)
	}
}

// acquire gets the session's sandbox and journals that it started.
func (w *work) acquire(ctx context.Context) (*sandbox.Sandbox, error) {
	if w.sandboxes == nil {
		return nil, fault.New(fault.Unavailable, "no_capacity", "This installation runs no sandboxes.")
	}
	box, err := w.sandboxes.Acquire(ctx, sandbox.AcquireInput{Org: w.lease.Org, Project: w.session.Project, Session: w.lease.Session, Epoch: w.lease.Epoch})
	if err != nil || !box.Fresh {
		return box, err
	}
	// The sandbox service journals a start in the transaction that claims the machine; what it wrote is folded in with the next commit.
	return box, nil
}

// endCommand ends what an interrupt or a shutdown cut short, so that it does not go on unseen.
func (w *work) endCommand(base context.Context, box *sandbox.Sandbox, o *toolOutcome) {
	if box == nil || !o.call.Command {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(base), 2*time.Second)
	defer cancel()
	if err := box.Signal(ctx, string(o.step), 9); err != nil {
		w.log.WarnContext(ctx, "could not end an interrupted command", "step", o.step, "error", err)
	}
}

func (o *toolOutcome) settle(ctx context.Context, w *work, d *draft) error {
	settled := journal.StepSettled{Kind: journal.KindToolCall, Name: o.use.Name, Outcome: journal.Succeeded}
	result := journal.AgentToolResult{ToolUseID: o.use.ID, Content: journal.Text(o.result.Text), IsError: o.result.IsError}
	switch {
	case o.err != nil:
		w.failedTool(&settled, &result, o)
	case o.result.Unknown:
		settled.Outcome = journal.Unknown
	}
	var quantity []gate.Priced
	if settled.Outcome == journal.Succeeded || o.ran > 0 {
		quantity = toolQuantities(o.use.Name)
	}
	money, err := w.gate.Settle(ctx, d.Unit, *o.decision.Hold, gate.Used{At: o.intendedAt, Quantity: quantity})
	if err != nil {
		return err
	}
	settled.Cost, settled.Entry, settled.Released = money.Captured, money.Entry, money.Released
	result.Content[0].Text = edited(o.use) + result.Content[0].Text
	d.PutSpan(toolSpan(&d.Draft, o, settled, result, d.Now))
	if o.stop() != nil { // the tool's use stays open: it is called when the session goes on
		return d.append(journal.Entry{Step: o.step, Payload: settled})
	}
	entries := []journal.Entry{{Step: o.step, Payload: result}, {Step: o.step, Payload: settled}}
	if t := o.taints(d.history); t != nil {
		entries = append([]journal.Entry{{Step: o.step, Payload: *t}}, entries...)
	}
	return d.append(entries...)
}

// maxTaints bounds how many readings from outside a journal names: one alone taints the session.
const maxTaints = 50

// taints is what the result brings in from outside; nil when nothing, or nothing that the journal has not.
func (o *toolOutcome) taints(h *loop.History) *journal.Tainted {
	if o.call.Domain == "" || o.err != nil || o.result.Text == "" {
		return nil
	}
	t := journal.Tainted{Source: journal.TaintNetwork, Ref: o.call.Domain, Excerpt: excerpt(o.result.Text)}
	if o.call.Object != "" {
		t.Ref = o.call.Object
	}
	have := h.Taint()
	if len(have) >= maxTaints || slices.ContainsFunc(have, func(x journal.Tainted) bool { return x.Source == t.Source && x.Ref == t.Ref && x.Excerpt == t.Excerpt }) {
		return nil
	}
	return &t
}

// excerpt is the beginning of a text, for a person who decides.
func excerpt(text string) string { return excerptOf(text, 600) }

func excerptOf(text string, most int) string {
	if len(text) <= most {
		return text
	}
	return strings.ToValidUTF8(text[:most], "") + "…"
}

// edited tells the model that what was called is not what it wrote.
func edited(use loop.ToolUse) string {
	if use.EditedBy == nil {
		return ""
	}
	return "A person changed the arguments of this call to: " + string(use.Input) + "\n\n"
}

// stop ends the session's work where the sandbox that the tool needs can't be paid. Nothing was run.
func (o *toolOutcome) stop() *journal.StopReason {
	var refused *sandbox.RefusedError
	if o.ran > 0 || !errors.As(o.err, &refused) || refused.Decision.Shortfall == nil {
		return nil
	}
	return outOfFunds(*refused.Decision.Shortfall).finish
}

// failedTool says in words for the model what went wrong, and what is known of the outcome.
func (w *work) failedTool(settled *journal.StepSettled, result *journal.AgentToolResult, o *toolOutcome) {
	result.IsError = true
	f := fault.As(o.err)
	settled.Outcome = journal.Failed
	settled.Error = &journal.ErrorDetail{Code: f.Code, Message: f.Message}
	text := f.Message
	switch {
	case errors.Is(o.cause, errInterrupted):
		settled.Outcome = journal.Cancelled
		settled.Error = &journal.ErrorDetail{Code: "interrupted", Message: "The tool call was interrupted."}
		text = "Interrupted: the command was stopped before it ended. What it had done until then is done."
	case o.cause != nil && !errors.Is(o.cause, context.DeadlineExceeded):
		settled.Outcome = journal.Cancelled
		settled.Error = &journal.ErrorDetail{Code: "worker_stopped", Message: "The worker was stopped while the tool ran; the command was ended."}
		text = "Stopped: the platform was restarted while this ran, and the command was ended. What it had done until then is done."
	case errors.Is(o.err, sandbox.ErrEnding):
		settled.Outcome = journal.Unknown
		text = "The sandbox was saved and ended while this ran, because its time could not be held any longer or a rule forbids it now. The files are as they were then. Look at them before you go on."
	case errors.Is(o.err, sandbox.ErrLost):
		settled.Outcome = journal.Unknown
		text = "The sandbox was lost while this ran, and with it what was written since the last save. Whether the command ended is not known. Look at the files before you go on."
	case f.Code == "internal":
		w.log.Error("a tool call failed", "tool", o.use.Name, "step", o.step, "error", o.err)
		text = "The tool could not be run because of an error of the platform. Try again, or do without it."
	}
	result.Content = journal.Text(text)
}

// toolQuantities is what a tool's call costs. The time of the sandbox that it runs in is held and settled by itself.
func toolQuantities(tool string) []gate.Priced {
	return []gate.Priced{{Kind: prices.Tool, Ref: "builtin/" + tool, Quantities: prices.Quantities{prices.Call: 1}}}
}

func toolLabel(o *toolOutcome) string {
	switch {
	case o.err != nil:
		return "failed"
	case o.result.IsError:
		return "error_result"
	default:
		return "succeeded"
	}
}

func toolSpan(d *journal.Draft, o *toolOutcome, settled journal.StepSettled, result journal.AgentToolResult, now time.Time) journal.Span {
	step := journal.Step{ID: o.step, IntendedAt: o.intendedAt, Hold: o.decision.Hold.ID, EffectKey: string(o.step)}
	s := stepSpan(d, step, "execute_tool "+o.use.Name, journal.OperationExecuteTool, settled, now)
	s.ToolName = o.use.Name
	s.TimeGateMS = o.admittedAt.Sub(o.intendedAt).Milliseconds()
	s.TimeQueuedMS = max(0, now.Sub(o.admittedAt).Milliseconds()-o.ran.Milliseconds())
	s.DecisionReasons = reasons(o.decision.Reasons)
	s.Input = journal.NewSpanBody(o.use.Input)
	s.Output = body(result.Content)
	if result.IsError && settled.Error == nil {
		s.Status, s.ErrorType = journal.SpanError, "tool_error"
	}
	s.Attributes["gen_ai.tool.call.id"] = o.use.ID
	return s
}
