// Package upstream is the HTTP side that every remote provider shares: one streamed POST with time limits, and the translation of what can
// go wrong on the way into a typed model error.
//
// It owns connections, time limits, size limits and the redaction of keys. It knows no provider's wire format. It imports models and
// models/internal/sse only.
package upstream
