package connectors

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"unicode/utf8"

	"ambit.dev/ambit/sandbox/guest"
)

// MaxResultBytes is how much of an output the model is shown. The whole is kept as a file in the sandbox.
const MaxResultBytes = 32 << 10

// TailBytes is how much of MaxResultBytes is the output's end, where errors stand.
const TailBytes = 4 << 10

// Capture collects a command's output as it comes, both streams in the order in which they were written. It is safe for concurrent use.
type Capture struct {
	mu   sync.Mutex
	data []byte
}

// Take is a sandbox.Output.
func (c *Capture) Take(chunk guest.Chunk) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if left := MaxResultBytes - len(c.data); left > 0 {
		c.data = append(c.data, chunk.Data[:min(left, len(chunk.Data))]...)
	}
	return nil
}

// Bytes is what came so far.
func (c *Capture) Bytes() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]byte{}, c.data...)
}

// Clean makes text of bytes that a program wrote: what is no UTF-8 becomes U+FFFD, and the null character, which neither the journal's
// database nor every provider takes, its picture U+2400.
func Clean(b []byte) string {
	s := strings.ToValidUTF8(string(b), "\uFFFD")
	return strings.ReplaceAll(s, "\x00", "\u2400")
}

// Failed is a result that tells the model what went wrong.
func Failed(format string, args ...any) Result {
	return Result{Text: Clean(fmt.Appendf(nil, format, args...)), IsError: true}
}

// refusal turns the guest's own refusals, which tell the model what it did wrong, into results. The others are errors of the platform.
func refusal(err error) (Result, error) {
	var g *guest.Error
	if !errors.As(err, &g) {
		return Result{}, err
	}
	switch g.Code {
	case guest.CodeInvalid, guest.CodeOutsideWork, guest.CodeNotFound, guest.CodeExists, guest.CodeIsDirectory, guest.CodeNotDirectory,
		guest.CodeNotRegular, guest.CodeTooLarge, guest.CodeTooMany, guest.CodeNoSpace:
		message := g.Message
		if g.Code == guest.CodeNoSpace {
			message += " The sandbox's disk is full: remove what is not needed."
		}
		return Failed("%s", message), nil
	default:
		return Result{}, err
	}
}

// short bounds what is quoted in a message.
func short(s string) string {
	const most = 300
	if len(s) <= most {
		return s
	}
	n := most
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n] + "…"
}
