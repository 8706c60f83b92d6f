package fault

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Kind is the sort of failure: what a client may do about it.
type Kind int

// The kinds, in the order of the HTTP statuses that the surfaces give them.
const (
	Internal Kind = iota
	Invalid
	Unauthenticated
	PaymentRequired
	Forbidden
	NotFoundKind
	Gone
	Conflict
	PreconditionFailed
	TooLarge
	UnsupportedMedia
	Unprocessable
	PreconditionRequired
	TooMany
	BadGateway
	Unavailable
	GatewayTimeout
)

// Field is one thing wrong with a request.
type Field struct {
	// Pointer is a JSON pointer (RFC 6901) into the request's body, or a query parameter's name.
	Pointer string `json:"pointer"`
	Code    string `json:"code"`
	Message string `json:"message"`
}

// Error is a failure that can be shown. Code is stable and machine-readable, Message a sentence that says what to do.
type Error struct {
	Kind    Kind
	Code    string
	Message string
	Fields  []Field
	// Details are further members of the problem document, such as the shortfall of a 402.
	Details map[string]any
	// RetryAfter is how long to wait before trying again; zero says nothing about it.
	RetryAfter time.Duration
	// Err is the cause, for the log only.
	Err error
}

// Error implements error. It includes the cause, so it is for logs and tests, not for clients.
func (e *Error) Error() string {
	s := e.Code + ": " + e.Message
	for _, f := range e.Fields {
		s += fmt.Sprintf(" [%s: %s]", f.Pointer, f.Message)
	}
	if e.Err != nil {
		s += ": " + e.Err.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Is makes two faults of one code equal to errors.Is.
func (e *Error) Is(target error) bool {
	var t *Error
	return errors.As(target, &t) && t.Code == e.Code && t.Kind == e.Kind
}

// New makes a fault.
func New(kind Kind, code, message string) *Error {
	return &Error{Kind: kind, Code: code, Message: message}
}

// Newf makes a fault with a formatted message.
func Newf(kind Kind, code, format string, args ...any) *Error {
	return New(kind, code, fmt.Sprintf(format, args...))
}

// NotFound is the one answer for what is missing and for what the asker may not know of.
func NotFound() *Error {
	return New(NotFoundKind, "not_found", "There is nothing here, or you may not see it.")
}

// InvalidField is a request with one wrong field.
func InvalidField(pointer, code, message string) *Error {
	return InvalidFields(Field{Pointer: pointer, Code: code, Message: message})
}

// InvalidFields is a request with wrong fields; there must be at least one.
func InvalidFields(fields ...Field) *Error {
	e := New(Invalid, "invalid_request", "The request is not valid: see errors.")
	if len(fields) == 1 {
		e.Message = fields[0].Message
	}
	e.Fields = fields
	return e
}

// With returns a copy of e with one more detail.
func (e *Error) With(key string, value any) *Error {
	c := *e
	c.Details = make(map[string]any, len(e.Details)+1)
	for k, v := range e.Details {
		c.Details[k] = v
	}
	c.Details[key] = value
	return &c
}

// After returns a copy of e that says when to try again.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// Because returns a copy of e with a cause, for the log.
func (e *Error) Because(err error) *Error {
	c := *e
	c.Err = err
	return &c
}

// Retryable reports whether the same request may succeed later without being changed.
func (e *Error) Retryable() bool {
	switch e.Kind {
	case TooMany, BadGateway, Unavailable, GatewayTimeout:
		return true
	case Conflict:
		return e.RetryAfter > 0
	default:
		return false
	}
}

// As returns err as a fault. A foreign error becomes internal, with err as its cause; nil stays nil.
func As(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	if errors.Is(err, context.DeadlineExceeded) {
		return New(GatewayTimeout, "provider_timeout", "This took too long and was given up. Try again.").Because(err)
	}
	return New(Internal, "internal", "Something went wrong on our side. The request id finds it in the log.").Because(err)
}

// IsCode reports whether err is a fault with this code.
func IsCode(err error, code string) bool {
	var e *Error
	return errors.As(err, &e) && e.Code == code
}
