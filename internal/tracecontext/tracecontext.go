package tracecontext

import "strings"

// Header is the header's name.
const Header = "traceparent"

// Parent is the caller's span.
type Parent struct {
	TraceID string // 32 lower-case hexadecimal digits, not all zero
	SpanID  string // 16, not all zero
	// Sampled is the caller's word on whether it records the trace.
	Sampled bool
}

// The lengths of the fields of version 00, and of all that every later version begins with.
const (
	traceDigits = 32
	spanDigits  = 16
	length      = 2 + 1 + traceDigits + 1 + spanDigits + 1 + 2
)

// Parse reads the values of the header. Whatever is not exactly one well-formed value counts as none: the specification has a receiver
// ignore it and begin a trace of its own. A version that is not known yet is read as far as it agrees with version 00.
func Parse(values []string) (Parent, bool) {
	if len(values) != 1 {
		return Parent{}, false
	}
	v := strings.Trim(values[0], " \t")
	if len(v) < length || v[2] != '-' || v[35] != '-' || v[52] != '-' {
		return Parent{}, false
	}
	version, trace, span, flags := v[:2], v[3:35], v[36:52], v[53:55]
	switch {
	case version == "ff", version == "00" && len(v) != length, len(v) > length && v[length] != '-':
		return Parent{}, false
	case !isHex(version), !isHex(trace), !isHex(span), !isHex(flags), isZero(trace), isZero(span):
		return Parent{}, false
	}
	return Parent{TraceID: trace, SpanID: span, Sampled: digit(flags[1])&1 == 1}, true
}

// String writes the parent as version 00.
func (p Parent) String() string {
	flags := "00"
	if p.Sampled {
		flags = "01"
	}
	return "00-" + p.TraceID + "-" + p.SpanID + "-" + flags
}

func isHex(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') }) < 0
}

func isZero(s string) bool { return strings.Trim(s, "0") == "" }

func digit(c byte) byte {
	if c >= 'a' {
		return c - 'a' + 10
	}
	return c - '0'
}
