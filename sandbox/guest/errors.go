package guest

import (
	"errors"
	"fmt"
)

// ErrDisconnected means that the channel to the guest broke before an answer
// came. A command that was started goes on: attach to its effect key over a
// new connection. Test with errors.Is.
var ErrDisconnected = errors.New("connection to the guest was lost")

// Code is the stable name of a refusal by the guest.
type Code string

// The codes of guest errors.
const (
	CodeInvalid        Code = "invalid_request"
	CodeUnconfigured   Code = "not_configured"  // Configure must come first
	CodeStaleEpoch     Code = "stale_epoch"     // a newer lease has spoken to this guest
	CodeEffectMismatch Code = "effect_mismatch" // the effect key was used for another command
	CodeEffectUnknown  Code = "effect_unknown"  // nothing was run under this effect key
	CodeOutsideWork    Code = "outside_work"    // the path leaves the working directory
	CodeNotFound       Code = "not_found"
	CodeExists         Code = "already_exists"
	CodeIsDirectory    Code = "is_directory"
	CodeNotDirectory   Code = "not_a_directory"
	CodeNotRegular     Code = "not_a_regular_file"
	CodeTooLarge       Code = "too_large"
	CodeTooMany        Code = "too_many"
	CodeNoSpace        Code = "no_space"
	CodeHashMismatch   Code = "hash_mismatch"
	CodeVersion        Code = "unsupported_version"
	CodeInternal       Code = "internal"
)

// Error is a refusal or failure that the guest reported. Its message is made
// for the agent that asked: it names paths inside the sandbox only.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error implements error.
func (e *Error) Error() string { return fmt.Sprintf("guest: %s: %s", e.Code, e.Message) }

// Errorf makes an Error.
func Errorf(code Code, format string, args ...any) *Error {
	return &Error{Code: code, Message: fmt.Sprintf(format, args...)}
}

// IsCode reports whether err is a guest Error with that code.
func IsCode(err error, code Code) bool {
	var ge *Error
	return errors.As(err, &ge) && ge.Code == code
}
