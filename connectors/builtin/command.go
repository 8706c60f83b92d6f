package builtin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/sandbox"
)

// commandArgs are what bash and python have in common.
type commandArgs struct {
	TimeoutSeconds int `json:"timeout_seconds"`
}

func (a commandArgs) limit() time.Duration {
	if a.TimeoutSeconds <= 0 {
		return DefaultCommandLimit
	}
	return min(time.Duration(a.TimeoutSeconds)*time.Second, MaxCommandLimit)
}

func commandLimit(input json.RawMessage) time.Duration {
	a, err := args[commandArgs](input)
	if err != nil {
		return DefaultCommandLimit
	}
	return a.limit()
}

// run runs a command and shapes its result.
func run(ctx context.Context, w connectors.Workspace, spec sandbox.ExecSpec) (connectors.Result, error) {
	spec.OutputLimit = connectors.MaxResultBytes - connectors.TailBytes
	var out connectors.Capture
	end, err := w.Exec(ctx, spec, out.Take)
	if err != nil {
		return connectors.Result{}, err
	}
	return shape(out.Bytes(), end), nil
}

// shape is what the model is told: the output as a terminal would show it, and then, in brackets, whatever was not as usual.
func shape(output []byte, end *sandbox.ExecResult) connectors.Result {
	r := connectors.Result{IsError: end.ExitCode != 0 || end.TimedOut || end.Killed}
	text := connectors.Clean(wholeCharacters(output))
	var notes []string
	if end.Truncated {
		total := end.StdoutBytes + end.StderrBytes
		tail := end.Tail
		left := total - int64(len(output)) - int64(len(tail))
		if left <= 0 { // what was passed on and the end overlap: nothing is missing
			text = connectors.Clean(append(output[:len(output):len(output)], tail[min(int64(len(tail)), -left):]...))
		} else {
			r.KeptAt = end.OutputPath
			where := "The whole was not kept as a file, because the disk is full."
			switch {
			case r.KeptAt != "" && end.Dropped > 0:
				where = fmt.Sprintf("All but the last %d bytes is in %s.", end.Dropped, r.KeptAt)
			case r.KeptAt != "":
				where = "The whole is in " + r.KeptAt + "; read parts of it with read_file, or search it."
			}
			text = strings.TrimRight(text, "\n") + fmt.Sprintf("\n\n[… %d of %d bytes left out here. %s]\n\n", left, total, where) +
				connectors.Clean(wholeCharacters(tail))
		}
	}
	switch {
	case end.TimedOut:
		notes = append(notes, fmt.Sprintf("timed out after %s: the command and all that it started were ended; timeout_seconds may be at most %d",
			end.Duration.Round(time.Millisecond), int(MaxCommandLimit.Seconds())))
	case end.Killed:
		notes = append(notes, "the command was stopped from outside")
	case end.Signal != "":
		notes = append(notes, "ended by "+end.Signal)
	case end.ExitCode != 0:
		notes = append(notes, fmt.Sprintf("exit code %d", end.ExitCode))
	}
	if end.OutOfMemory {
		notes = append(notes, "the sandbox's memory was used up, and a process was killed for it")
	}
	if end.ProcessesRefused {
		notes = append(notes, "the sandbox's limit on processes was reached")
	}
	if strings.TrimSpace(text) == "" && len(notes) == 0 {
		notes = append(notes, "no output")
	}
	if len(notes) > 0 {
		if text != "" && !strings.HasSuffix(text, "\n") {
			text += "\n"
		}
		text += "[" + strings.Join(notes, "; ") + "]"
	}
	r.Text = text
	return r
}

// wholeCharacters drops a character that a limit cut in half at either end.
func wholeCharacters(b []byte) []byte {
	for i := 0; i < utf8.UTFMax-1 && len(b) > 0 && !utf8.RuneStart(b[0]); i++ {
		b = b[1:]
	}
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if tail := b[len(b)-i:]; utf8.RuneStart(tail[0]) {
			if tail[0] >= utf8.RuneSelf && !utf8.FullRune(tail) {
				b = b[:len(b)-i]
			}
			break
		}
	}
	return b
}
