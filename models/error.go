package models

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"ambit.dev/ambit/internal/fault"
)

// ErrorKind says what went wrong with a call.
type ErrorKind string

// The kinds of error.
const (
	// RateLimited: too many requests or tokens a minute; RetryAfter says when, if the provider did.
	RateLimited ErrorKind = "rate_limited"
	// QuotaExhausted: the operator's account with the provider has no credit left.
	QuotaExhausted ErrorKind = "quota_exhausted"
	Overloaded     ErrorKind = "overloaded"
	ServerError    ErrorKind = "server_error"
	// BadRequest: the provider refuses this request whenever it is sent.
	BadRequest     ErrorKind = "bad_request"
	Authentication ErrorKind = "authentication"
	ModelNotFound  ErrorKind = "model_not_found"
	ContextTooLong ErrorKind = "context_too_long"
	// Unreachable: no connection was made, so nothing was done or billed.
	Unreachable ErrorKind = "unreachable"
	// ConnectionReset: the connection broke after the request had begun to go out.
	ConnectionReset ErrorKind = "connection_reset"
	// TruncatedStream: the stream ended without its proper end.
	TruncatedStream ErrorKind = "truncated_stream"
	// MalformedReply: what came is not in the provider's own protocol.
	MalformedReply ErrorKind = "malformed_reply"
	// Timeout: nothing came for the idle limit, or the call outlasted the total limit.
	Timeout ErrorKind = "timeout"
	// Cancelled: our own caller gave up.
	Cancelled ErrorKind = "cancelled"
)

// Error is the only error that a Provider returns from Generate. Its message holds no key.
type Error struct {
	Kind ErrorKind
	// Retryable says that the same request may succeed later, as a new step.
	Retryable bool
	// RetryAfter is how long the provider asked to wait; zero when it did not say.
	RetryAfter time.Duration
	// Status is the HTTP status, or zero when none came.
	Status  int
	Message string
	// MayBeBilled says that the provider may have worked on the request, and may bill it, although there is no whole reply.
	MayBeBilled bool
	Err         error
}

// NewError makes an error with what its kind implies for Retryable and MayBeBilled.
func NewError(kind ErrorKind, message string, cause error) *Error {
	e := &Error{Kind: kind, Message: message, Err: cause}
	switch kind {
	case RateLimited, Overloaded, Unreachable:
		e.Retryable = true
	case ServerError, ConnectionReset, TruncatedStream, MalformedReply, Timeout:
		e.Retryable, e.MayBeBilled = true, true
	case Cancelled:
		e.MayBeBilled = true
	case QuotaExhausted, BadRequest, Authentication, ModelNotFound, ContextTooLong:
	}
	return e
}

// Error implements error.
func (e *Error) Error() string {
	s := string(e.Kind)
	if e.Status != 0 {
		s += fmt.Sprintf(" (HTTP %d)", e.Status)
	}
	if e.Message != "" {
		s += ": " + e.Message
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// AsError finds the model error in err.
func AsError(err error) (*Error, bool) {
	var e *Error
	return e, errors.As(err, &e)
}

// Fault turns the error into what a client of the API is shown.
func (e *Error) Fault() *fault.Error {
	switch e.Kind {
	case Timeout:
		return fault.New(fault.GatewayTimeout, "provider_timeout", "The model's provider took too long: "+e.Message).Because(e)
	case BadRequest, ContextTooLong:
		return fault.New(fault.Unprocessable, "provider_failed", "The model's provider refused the request: "+e.Message).Because(e)
	default:
		f := fault.New(fault.BadGateway, "provider_failed", "The model's provider failed: "+e.Error()).Because(e)
		f.RetryAfter = e.RetryAfter
		return f
	}
}

// Redact removes secrets from a message before it goes into an error, and bounds it.
func Redact(message string, secrets ...string) string {
	for _, s := range secrets {
		if len(s) >= 4 {
			message = strings.ReplaceAll(message, s, "[redacted]")
		}
	}
	return clip(strings.ToValidUTF8(message, "\uFFFD"), 500)
}
