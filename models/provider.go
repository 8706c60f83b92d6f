package models

import "context"

// Model describes one model that can be called.
type Model struct {
	// ID is the gateway id, "provider/model".
	ID          string `json:"id"`
	Provider    string `json:"provider"`
	DisplayName string `json:"display_name"`
	// ContextTokens and MaxOutputTokens are 0 when unknown.
	ContextTokens   int64 `json:"context_tokens"`
	MaxOutputTokens int64 `json:"max_output_tokens"`
	// LanguageModel is false for the scripted model only.
	LanguageModel bool `json:"language_model"`
}

// Call is one attempt at a request.
type Call struct {
	Request Request
	// EffectKey is unique for this attempt. It goes out as the Idempotency-Key header, so that an upstream that honours it acts once,
	// and so that its log can be matched with the journal.
	EffectKey string
}

// Provider is one place where models are run. Implementations are safe for concurrent use, never retry by themselves, and end every
// call: by an answer, an error, or their time limits.
type Provider interface {
	// Name is the first part of its models' ids, such as "anthropic".
	Name() string
	// Models lists what it offers. It may ask the provider, and answers from memory when that fails.
	Models(ctx context.Context) ([]Model, error)
	// Generate makes the call and hands each event to sink, in order, from the calling goroutine; sink may be nil and must be quick.
	// Beside an *Error, the Response holds what had arrived, with the usage known by then.
	// Request.Model is a gateway id of this provider.
	Generate(ctx context.Context, call Call, sink func(Event)) (Response, error)
}
