package egress

import "fmt"

// The codes of a Refusal.
const (
	BadURL      = "bad_url"       // the address can't be read, or is written in a way that hides what it means
	BadHeader   = "bad_header"    // a header that the caller may not set, or that would smuggle another
	NotAllowed  = "not_allowed"   // no rule allows the host
	Forbidden   = "forbidden"     // the host stands for an address that is never reached
	BadRedirect = "bad_redirect"  // one redirect too many, or one to something less safe
	TooManyData = "too_many_data" // the request's own body is too large
)

// Refusal is a request that was not made, because of what was asked for. Its message is a sentence for whoever asked.
type Refusal struct {
	Code    string
	Message string
}

// Error implements error.
func (r *Refusal) Error() string { return r.Message }

func refuse(code, format string, args ...any) *Refusal {
	return &Refusal{Code: code, Message: fmt.Sprintf(format, args...)}
}

// Failure is a request that was made, or tried, and got no answer.
type Failure struct {
	// Sent says that the request's head had left: whether the other side acted on it is not known.
	Sent bool
	// TimedOut says that the time ended first.
	TimedOut bool
	Err      error
}

// Error implements error.
func (f *Failure) Error() string { return f.Err.Error() }

// Unwrap gives the cause.
func (f *Failure) Unwrap() error { return f.Err }
