package models

import (
	"time"

	"ambit.dev/ambit/billing/prices"
)

// StopReason says why a model stopped.
type StopReason string

// The reasons.
const (
	// EndTurn is also what a reason unknown to us becomes; ProviderStopReason keeps the word.
	EndTurn        StopReason = "end_turn"
	StopToolUse    StopReason = "tool_use"
	StopMaxTokens  StopReason = "max_tokens"
	StopRefusal    StopReason = "refusal"
	StopAtSequence StopReason = "stop_sequence"
)

// Usage counts tokens. The five counts are disjoint: each token is in exactly one of them, so that a price per count never bills one
// twice. (OpenAI's prompt_tokens include cached ones and its completion_tokens include reasoning; the adapters take them apart.)
type Usage struct {
	// Input is read anew: neither from a cache nor into one.
	Input      int64 `json:"input_tokens"`
	CacheRead  int64 `json:"cache_read_tokens"`
	CacheWrite int64 `json:"cache_write_tokens"`
	// Output excludes Reasoning where the provider tells them apart; where it does not (Anthropic), thinking is in Output.
	Output    int64 `json:"output_tokens"`
	Reasoning int64 `json:"reasoning_tokens"`
}

// Prompt is all that was read.
func (u Usage) Prompt() int64 { return u.Input + u.CacheRead + u.CacheWrite }

// Completion is all that was written, reasoning included: what max_tokens limits.
func (u Usage) Completion() int64 { return u.Output + u.Reasoning }

// Total is all tokens.
func (u Usage) Total() int64 { return u.Prompt() + u.Completion() }

// Add sums two usages.
func (u Usage) Add(v Usage) Usage {
	return Usage{
		Input: u.Input + v.Input, CacheRead: u.CacheRead + v.CacheRead, CacheWrite: u.CacheWrite + v.CacheWrite,
		Output: u.Output + v.Output, Reasoning: u.Reasoning + v.Reasoning,
	}
}

// Quantities is the usage as the price table takes it.
func (u Usage) Quantities() prices.Quantities {
	return prices.Quantities{
		prices.InputToken: u.Input, prices.CacheReadToken: u.CacheRead, prices.CacheWriteToken: u.CacheWrite,
		prices.OutputToken: u.Output, prices.ReasoningToken: u.Reasoning,
	}
}

// Response is a model's whole reply, or, beside an error, as much of it as arrived.
type Response struct {
	Content    []Block    `json:"content"`
	StopReason StopReason `json:"stop_reason"`
	// ProviderStopReason is the reason in the provider's own word.
	ProviderStopReason string `json:"provider_stop_reason,omitempty"`
	Usage              Usage  `json:"usage"`
	// UsageEstimated says that the provider reported no usage, so that Usage is EstimateUsage's.
	UsageEstimated bool `json:"usage_estimated,omitempty"`
	// ProviderModel is the model that the provider says it used, which may be dated.
	ProviderModel     string `json:"provider_model,omitempty"`
	ProviderRequestID string `json:"provider_request_id,omitempty"`
	// TimeToFirstToken is from the request to the first content.
	TimeToFirstToken time.Duration `json:"time_to_first_token,omitempty"`
}

// ToolUses lists the tool calls of the reply, in order.
func (r Response) ToolUses() []Block {
	var uses []Block
	for _, b := range r.Content {
		if b.Type == ToolUse {
			uses = append(uses, b)
		}
	}
	return uses
}

// Text is the reply's text, joined.
func (r Response) Text() string {
	var s string
	for _, b := range r.Content {
		if b.Type == Text {
			s += b.Text
		}
	}
	return s
}
