package scheduler

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"ambit.dev/ambit/agents/loop"
	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
)

// modelLimit bounds one model call as a whole; the provider's own limits on silence are shorter.
const modelLimit = 15 * time.Minute

// backoffs are the waits before the second and later attempts at a model call, when the provider names none.
var backoffs = []time.Duration{500 * time.Millisecond, 2 * time.Second, 5 * time.Second, 15 * time.Second}

// longestRetryAfter bounds how long a session waits because a provider says so; beyond it, the session stops with retries_exhausted.
const longestRetryAfter = 2 * time.Minute

// intendModel drafts a model step: decided, held, intended.
func (w *work) intendModel(d *draft, call loop.ModelCall) (following, error) {
	step := id.New[id.Step]()
	proposal := gate.Proposal{
		Step: step, Kind: gate.ModelCall, Name: call.Request.Model, Digest: models.Digest(call.Request), EffectKey: string(step), Within: modelLimit + time.Minute,
		Quantity: models.Priced(call.Request),
	}
	estimate := models.EstimateUsage(call.Request, models.Response{}).Input
	decision, err := w.intend(d, proposal, journal.StepIntended{
		Kind: journal.KindModelCall, Name: call.Request.Model, LastInputSeq: call.LastInputSeq, InputTokensEstimate: estimate, Attempt: call.Attempt, QueuedAt: d.Now,
	})
	switch {
	case err != nil:
		return following{}, err
	case decision.Outcome == journal.Admitted:
		return following{effect: &modelEffect{step: step, call: call, decision: decision, intendedAt: d.Now}}, nil
	case decision.Shortfall != nil:
		return outOfFunds(*decision.Shortfall), nil
	}
	detail := journal.ErrorDetail{Code: "permission_denied", Message: "The model call was refused."}
	if len(decision.Reasons) > 0 {
		detail.Message = decision.Reasons[0].Message
	}
	return following{finish: &journal.StopReason{Type: journal.StopRefusal, Error: &detail}}, nil
}

// modelEffect is an admitted model call.
type modelEffect struct {
	step       id.Step
	call       loop.ModelCall
	decision   gate.Decision
	intendedAt time.Time
}

func (e *modelEffect) run(base context.Context, w *work) outcome {
	admitted := w.clock.Now()
	ctx, done := w.effect(base, modelLimit)
	defer done()
	shown := map[int]id.Event{} // the ids under which pieces of the answer were shown, by block
	response, err := w.models.Generate(ctx, e.decision.Admission, e.call.Request, w.preview(shown))
	w.metrics.modelCalls.WithLabelValues(e.call.Request.Model, outcomeLabel(err)).Inc()
	return &modelOutcome{modelEffect: e, admittedAt: admitted, response: response, err: err, cause: context.Cause(ctx), shown: shown}
}

// backOff waits before a further attempt.
func (w *work) backOff(base context.Context, call loop.ModelCall) error {
	if call.Attempt <= 1 {
		return nil
	}
	wait := backoffs[min(call.Attempt-2, len(backoffs)-1)]
	if call.RetryAfter > wait {
		wait = call.RetryAfter
	}
	ctx, done := w.effect(base, wait+time.Minute)
	defer done()
	// Time that passed while no worker had the session counts.
	err := w.clock.Sleep(ctx, max(0, wait-w.clock.Now().Sub(call.FailedAt)))
	if err != nil && base.Err() != nil {
		return stopped(context.Cause(base))
	}
	return nil // an interrupt is found by the commit that follows
}

// preview passes pieces of the answer to whoever watches.
func (w *work) preview(shown map[int]id.Event) func(models.Event) {
	return func(e models.Event) {
		var kind string
		switch e.Kind {
		case models.TextDelta:
			kind = journal.AgentMessage{}.EventType()
		case models.ThinkingDelta:
			kind = journal.AgentThinking{}.EventType()
		default:
			return
		}
		event, known := shown[e.Index]
		if !known {
			event = id.New[id.Event]()
			shown[e.Index] = event
			w.previews.Publish(w.lease.Session, Preview{Start: true, Event: event, Type: kind})
		}
		w.previews.Publish(w.lease.Session, Preview{Event: event, Type: kind, Delta: e.Text})
	}
}

// modelOutcome is all that is known when a model call has ended.
type modelOutcome struct {
	*modelEffect

	admittedAt time.Time // when the commit that admitted it was done
	response   models.Response
	err        error
	cause      error // why the call's context ended, if it did
	shown      map[int]id.Event
}

func (o *modelOutcome) settle(ctx context.Context, w *work, d *draft) error {
	settled := journal.StepSettled{
		Kind: journal.KindModelCall, Name: o.call.Request.Model, StopReason: string(o.response.StopReason), TimeToFirstTokenMs: o.response.TimeToFirstToken.Milliseconds(),
	}
	usage := o.response.Usage
	if o.err == nil {
		settled.Outcome = journal.Succeeded
	} else {
		usage = w.failedModel(&settled, o)
	}
	money, err := w.gate.Settle(ctx, d.Unit, *o.decision.Hold, gate.Used{At: o.intendedAt, Quantity: models.Used(o.call.Request, usage)})
	if err != nil {
		return err
	}
	settled.Usage = usage.Journal()
	d.tokens = settled.Usage.Tokens()
	settled.Cost, settled.Entry, settled.Released = money.Captured, money.Entry, money.Released
	var entries []journal.Entry
	if o.err == nil {
		if entries, err = sayings(o.step, o.response, o.shown); err != nil {
			return err
		}
	}
	entries = append(entries, journal.Entry{Step: o.step, Payload: settled})
	if settled.Error != nil && settled.Outcome != journal.Cancelled {
		retry := "retrying"
		if settled.Final || o.call.Attempt >= loop.MaxAttempts {
			retry = "exhausted"
		}
		entries = append(entries, journal.Of(journal.SessionError{Error: *settled.Error, Retry: retry}))
	}
	d.PutSpan(modelSpan(&d.Draft, o, settled, d.Now))
	return d.append(entries...)
}

func (o *modelOutcome) stop() *journal.StopReason { return nil }

// failedModel says what a failed attempt means and what of it is charged: what the provider reported, or, when the call may have been
// worked on and nothing was reported, the counted input and what was streamed.
func (w *work) failedModel(settled *journal.StepSettled, o *modelOutcome) models.Usage {
	settled.Outcome = journal.Failed
	settled.Error = &journal.ErrorDetail{Code: "provider_failed", Message: "The model call failed."}
	usage := o.response.Usage
	switch {
	case errors.Is(o.cause, errInterrupted):
		settled.Outcome, settled.Final = journal.Cancelled, false
		settled.Error = &journal.ErrorDetail{Code: "interrupted", Message: "The model call was interrupted."}
	case errors.Is(o.cause, errLeaseLost), errors.Is(o.err, context.Canceled):
		settled.Outcome = journal.Cancelled
		settled.Error = &journal.ErrorDetail{Code: "worker_stopped", Message: "The worker was stopped while the model answered; the call is made anew."}
	default:
		var m *models.Error
		if errors.As(o.err, &m) {
			detail := m.Detail()
			settled.Error = &detail
			settled.Final = !m.Retryable || m.RetryAfter > longestRetryAfter
			settled.RetryAfterMillis = m.RetryAfter.Milliseconds()
			if !m.MayBeBilled {
				return usage // it never reached the provider, or was refused there: nothing was generated
			}
		} else {
			f := fault.As(o.err)
			settled.Error = &journal.ErrorDetail{Code: f.Code, Message: f.Message}
			settled.Final = !f.Retryable()
			return usage // refused before it was sent
		}
	}
	if usage == (models.Usage{}) {
		usage = models.EstimateUsage(o.call.Request, o.response)
	}
	return usage
}

// sayings turns an answer into events, in the answer's own order.
func sayings(step id.Step, r models.Response, shown map[int]id.Event) ([]journal.Entry, error) {
	var entries []journal.Entry
	for i, b := range r.Content {
		switch b.Type {
		case models.Text:
			if b.Text != "" {
				entries = append(entries, journal.Entry{ID: shown[i], Step: step, Payload: journal.AgentMessage{Content: journal.Text(b.Text)}})
			}
		case models.Thinking:
			entries = append(entries, journal.Entry{ID: shown[i], Step: step, Payload: journal.AgentThinking{Summary: b.Text, Provider: b.Provider, Raw: b.Raw}})
		case models.ToolUse:
			input := b.Input
			if !json.Valid(input) {
				return nil, fmt.Errorf("tool use %s has an input that is no JSON", b.ID)
			}
			use := b.ID
			if use == "" {
				use = string(id.New[id.ToolUse]())
			}
			entries = append(entries, journal.Entry{Step: step, Payload: journal.AgentToolUse{ToolUseID: use, Name: b.Name, Input: input}})
		case models.ToolResult, models.Image:
			// A model says neither.
		}
	}
	return entries, nil
}

func outcomeLabel(err error) string {
	if err == nil {
		return "succeeded"
	}
	var m *models.Error
	if errors.As(err, &m) {
		return string(m.Kind)
	}
	return "failed"
}

func modelSpan(d *journal.Draft, o *modelOutcome, settled journal.StepSettled, now time.Time) journal.Span {
	step := journal.Step{ID: o.step, IntendedAt: o.intendedAt, Hold: o.decision.Hold.ID, EffectKey: string(o.step)}
	s := stepSpan(d, step, "chat "+o.call.Request.Model, journal.OperationChat, settled, now)
	s.RequestModel, s.ResponseModel = o.call.Request.Model, o.response.ProviderModel
	s.Provider = providerOf(o.call.Request.Model)
	s.TimeGateMS = o.admittedAt.Sub(o.intendedAt).Milliseconds()
	s.TimeToFirstTokenMS = settled.TimeToFirstTokenMs
	s.DecisionReasons = reasons(o.decision.Reasons)
	s.Input = body(newInput(o.call.Request))
	s.Output = body(o.response.Content)
	if o.response.ProviderRequestID != "" {
		s.Attributes["gen_ai.response.id"] = o.response.ProviderRequestID
	}
	if o.response.ProviderStopReason != "" {
		s.Attributes["gen_ai.response.finish_reasons"] = o.response.ProviderStopReason
	}
	return s
}

// newInput is what a model call adds to the conversation: the span before it has what came before. With the whole conversation on each of
// its spans, a trace would grow with the square of the work.
func newInput(r models.Request) map[string]any {
	from := len(r.Messages)
	for from > 0 && r.Messages[from-1].Role != models.Assistant {
		from--
	}
	input := map[string]any{"messages": r.Messages[from:]}
	if from > 0 {
		input["earlier_messages"] = from
	} else {
		input["system"] = r.System
	}
	return input
}
