package scheduler

import (
	"encoding/json"
	"time"

	"ambit.dev/ambit/internal/tracecontext"
	"ambit.dev/ambit/journal"
)

// rootSpan is the span of the whole session. It is written anew whenever the session begins or ends to work; the newest record holds.
func rootSpan(d *journal.Draft, now time.Time) journal.Span {
	s := newSpan(d, journal.SpanID(string(d.ID)), "", "invoke_agent "+d.Agent.Name, journal.OperationInvokeAgent, d.CreatedAt, now)
	// No usage and no cost: the steps carry them, each once, and the session's sum follows from them.
	s.RequestModel = d.Agent.Model
	s.Seq = d.LastSeq + 1
	// A link, not a parent: the session may outlive the caller's trace by weeks, and be continued from others.
	if caller, ok := tracecontext.Parse([]string{d.By.Trace}); ok {
		s.Attributes["ambit.caller.trace_id"], s.Attributes["ambit.caller.span_id"] = caller.TraceID, caller.SpanID
	}
	if d.StopReason != nil {
		s.Attributes["ambit.stop_reason"] = d.StopReason.Type
		s.Status = journal.SpanOK
		switch d.StopReason.Type {
		case journal.StopFailed, journal.StopRetriesExhausted:
			s.Status, s.ErrorType = journal.SpanError, d.StopReason.Type
			if d.StopReason.Error != nil {
				s.ErrorMessage = d.StopReason.Error.Message
			}
		}
	}
	return s
}

func newSpan(d *journal.Draft, spanID, parent, name string, op journal.Operation, from, to time.Time) journal.Span {
	return journal.Span{
		TraceID: journal.TraceID(string(d.ID)), SpanID: spanID, ParentSpanID: parent, Name: name, Operation: op,
		AgentID: string(d.Agent.ID), AgentName: d.Agent.Name, AgentVersion: int64(d.Agent.Version), Principal: d.By.ID,
		StartTime: from, EndTime: to, Status: journal.SpanUnset, Attributes: map[string]string{}, Usage: map[string]int64{},
	}
}

func stepSpan(d *journal.Draft, step journal.Step, name string, op journal.Operation, settled journal.StepSettled, now time.Time) journal.Span {
	s := newSpan(d, journal.SpanID(string(step.ID)), journal.SpanID(string(d.ID)), name, op, step.IntendedAt, now)
	s.StepID, s.Seq, s.HoldID = string(step.ID), d.LastSeq+1, string(step.Hold)
	s.CostNanos, s.LedgerEntryID = int64(settled.Cost), string(settled.Entry)
	s.Usage = spanUsage(settled.Usage)
	switch settled.Outcome {
	case journal.Succeeded:
		s.Status = journal.SpanOK
	case journal.Failed:
		s.Status = journal.SpanError
	}
	if settled.Error != nil {
		s.ErrorType, s.ErrorMessage = settled.Error.Code, settled.Error.Message
	}
	s.Attributes["ambit.outcome"] = settled.Outcome
	s.Attributes["ambit.effect_key"] = step.EffectKey
	s.Decision = journal.Admitted
	return s
}

func unknownSpan(d *journal.Draft, step journal.Step, settled journal.StepSettled, now time.Time) journal.Span {
	op, name := journal.OperationExecuteTool, "execute_tool "+step.Name
	if step.Kind == journal.KindModelCall {
		op, name = journal.OperationChat, "chat "+step.Name
	}
	s := stepSpan(d, step, name, op, settled, now)
	if op == journal.OperationChat {
		s.RequestModel, s.Provider = step.Name, providerOf(step.Name)
	} else {
		s.ToolName = step.Name
	}
	return s
}

// spanUsage counts as OpenTelemetry does: there, input tokens include cached ones.
func spanUsage(u journal.Usage) map[string]int64 {
	out := map[string]int64{}
	for name, n := range map[string]int64{
		journal.UsageInputTokens:      u.InputTokens + u.CacheReadTokens + u.CacheWriteTokens,
		journal.UsageOutputTokens:     u.OutputTokens,
		journal.UsageCacheReadTokens:  u.CacheReadTokens,
		journal.UsageCacheWriteTokens: u.CacheWriteTokens,
		journal.UsageReasoningTokens:  u.ReasoningTokens,
		"sandbox_ms":                  u.SandboxMillis,
	} {
		if n > 0 {
			out[name] = n
		}
	}
	return out
}

func reasons(rs []journal.Reason) []string {
	out := make([]string, len(rs))
	for i, r := range rs {
		out[i] = r.Rule + ": " + r.Message
	}
	return out
}

func body(v any) journal.SpanBody {
	b, err := json.Marshal(v)
	if err != nil {
		return journal.SpanBody{}
	}
	return journal.NewSpanBody(b)
}

func providerOf(model string) string {
	for i := range len(model) {
		if model[i] == '/' {
			return model[:i]
		}
	}
	return ""
}
