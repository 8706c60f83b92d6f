package scheduler

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

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

// callModel is one model step: decided, intended and held; called; settled with what the model said, in one commit.
func (w *work) callModel(base context.Context, call loop.ModelCall) (idle bool, err error) {
	if err := w.backOff(base, call); err != nil {
		return false, err
	}
	queued := w.clock.Now()
	step := id.New[id.Step]()
	digest := models.Digest(call.Request)
	proposal := gate.Proposal{
		Step: step, Kind: gate.ModelCall, Name: call.Request.Model, Digest: digest, EffectKey: string(step), Within: modelLimit + time.Minute,
		Quantity: models.Priced(call.Request),
	}
	estimate := models.EstimateUsage(call.Request, models.Response{}).Input
	decision, admittedAt, err := w.intend(base, proposal, journal.StepIntended{
		Kind: journal.KindModelCall, Name: call.Request.Model, LastInputSeq: call.LastInputSeq, InputTokensEstimate: estimate, Attempt: call.Attempt, QueuedAt: queued,
	})
	if err != nil {
		return false, err
	}
	if decision.Outcome != journal.Admitted {
		return w.refuseModel(base, decision)
	}

	ctx, done := w.effect(base, modelLimit)
	shown := map[int]id.Event{} // the ids under which pieces of the answer were shown, by block
	response, callErr := w.models.Generate(ctx, decision.Admission, call.Request, w.preview(shown))
	cause := context.Cause(ctx)
	done()
	w.metrics.modelCalls.WithLabelValues(call.Request.Model, outcomeLabel(callErr)).Inc()
	return false, w.settleModel(base, modelOutcome{
		step: step, call: call, decision: decision, queued: queued, admittedAt: admittedAt, response: response, err: callErr, cause: cause, shown: shown,
	})
}

// intend commits a decision with, if it was admitted, the hold and the intended event.
func (w *work) intend(ctx context.Context, p gate.Proposal, intended journal.StepIntended) (decision gate.Decision, at time.Time, err error) {
	seen := w.history.LastSeq()
	err = w.commit(ctx, func(tx pgx.Tx, l *journal.Locked) ([]journal.Entry, error) {
		if err := w.unchanged(l, seen); err != nil {
			return nil, err
		}
		at = w.clock.Now()
		decision, err = w.gate.Admit(context.WithoutCancel(ctx), tx, at, l, p)
		if err != nil {
			return nil, err
		}
		w.metrics.decisions.WithLabelValues(string(p.Kind), decision.Outcome).Inc()
		entries := []journal.Entry{{Step: p.Step, Payload: decision.Event(p)}}
		if decision.Outcome != journal.Admitted {
			entries[0].Step = "" // no step was begun
			return entries, nil
		}
		intended.EffectKey, intended.Digest, intended.Hold, intended.ToolUseID = p.EffectKey, hex.EncodeToString(p.Digest[:]), decision.Hold, p.ToolUseID
		return append(entries, journal.Entry{Step: p.Step, Payload: intended}), nil
	})
	return decision, at, err
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

// refuseModel ends the work because the gate denied the model call.
func (w *work) refuseModel(ctx context.Context, d gate.Decision) (bool, error) {
	if d.Shortfall != nil {
		return w.finish(ctx, journal.StopReason{Type: journal.StopBudgetReached, Limit: journal.LimitCost, Scope: d.Shortfall.Scope, Reason: d.Shortfall.Sentence()})
	}
	detail := journal.ErrorDetail{Code: "permission_denied", Message: "The model call was refused."}
	if len(d.Reasons) > 0 {
		detail.Message = d.Reasons[0].Message
	}
	return w.finish(ctx, journal.StopReason{Type: journal.StopRefusal, Error: &detail})
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
	step       id.Step
	call       loop.ModelCall
	decision   gate.Decision
	queued     time.Time
	admittedAt time.Time
	response   models.Response
	err        error
	cause      error // why the call's context ended, if it did
	shown      map[int]id.Event
}

func (w *work) settleModel(ctx context.Context, o modelOutcome) error {
	ctx = context.WithoutCancel(ctx)
	return w.commit(ctx, func(tx pgx.Tx, l *journal.Locked) ([]journal.Entry, error) {
		now := w.clock.Now()
		settled := journal.StepSettled{
			Kind: journal.KindModelCall, Name: o.call.Request.Model, StopReason: string(o.response.StopReason), TimeToFirstTokenMs: o.response.TimeToFirstToken.Milliseconds(),
		}
		usage := o.response.Usage
		if o.err == nil {
			settled.Outcome = journal.Succeeded
		} else {
			usage = w.failedModel(&settled, o)
		}
		money, err := w.gate.Settle(ctx, tx, now, l, o.decision.Hold.ID, gate.Used{At: o.admittedAt, Quantity: models.Used(o.call.Request, usage)})
		if err != nil {
			return nil, err
		}
		settled.Usage = usage.Journal()
		settled.Cost, settled.Entry, settled.Released = money.Captured, money.Entry, money.Released
		var entries []journal.Entry
		if o.err == nil {
			said, err := sayings(o.step, o.response, o.shown)
			if err != nil {
				return nil, err
			}
			entries = said
		}
		entries = append(entries, journal.Entry{Step: o.step, Payload: settled})
		if settled.Error != nil && settled.Outcome != journal.Cancelled {
			retry := "retrying"
			if settled.Final || o.call.Attempt >= loop.MaxAttempts {
				retry = "exhausted"
			}
			entries = append(entries, journal.Of(journal.SessionError{Error: *settled.Error, Retry: retry}))
		}
		l.PutSpan(modelSpan(l, o, settled, now))
		return entries, nil
	})
}

// failedModel says what a failed attempt means and what of it is charged: what the provider reported, or, when the call may have been
// worked on and nothing was reported, the counted input and what was streamed.
func (w *work) failedModel(settled *journal.StepSettled, o modelOutcome) models.Usage {
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

func modelSpan(l *journal.Locked, o modelOutcome, settled journal.StepSettled, now time.Time) journal.Span {
	step := journal.Step{ID: o.step, IntendedAt: o.admittedAt, Hold: o.decision.Hold.ID, EffectKey: string(o.step)}
	s := stepSpan(l, step, "chat "+o.call.Request.Model, journal.OperationChat, settled, now)
	s.RequestModel, s.ResponseModel = o.call.Request.Model, o.response.ProviderModel
	s.Provider = providerOf(o.call.Request.Model)
	s.TimeGateMS = o.admittedAt.Sub(o.queued).Milliseconds()
	s.TimeToFirstTokenMS = settled.TimeToFirstTokenMs
	s.DecisionReasons = reasons(o.decision.Reasons)
	s.Input = body(map[string]any{"system": o.call.Request.System, "messages": o.call.Request.Messages})
	s.Output = body(o.response.Content)
	if o.response.ProviderRequestID != "" {
		s.Attributes["gen_ai.response.id"] = o.response.ProviderRequestID
	}
	if o.response.ProviderStopReason != "" {
		s.Attributes["gen_ai.response.finish_reasons"] = o.response.ProviderStopReason
	}
	return s
}
