package scripted

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"ambit.dev/ambit/models"
)

const (
	maxRepeat = 1000
	maxTurns  = 10_000
	maxPause  = 10 * time.Minute
)

// turn is what the model does at once, between two results.
type turn struct {
	pause time.Duration
	think string
	say   string
	calls []call
	stop  models.StopReason // ends the script
	fail  models.ErrorKind  // fails the call
}

type call struct {
	name  string
	input json.RawMessage
}

// fence is one fenced block.
type fence struct {
	line int // of the opening fence, from 1
	verb string
	info string
	body string
}

type scriptError struct {
	line int
	what string
}

func (e *scriptError) Error() string { return fmt.Sprintf("line %d: %s", e.line, e.what) }

func wrong(line int, format string, args ...any) error {
	return &scriptError{line: line, what: fmt.Sprintf(format, args...)}
}

// fences finds the fenced blocks of a text as CommonMark does: a fence has three or more backticks or tildes, and is closed by a line of at
// least as many of the same.
func fences(text string, firstLine int) ([]fence, error) {
	var (
		out   []fence
		open  *fence
		mark  string
		body  []string
		lines = strings.Split(strings.ReplaceAll(text, "\r\n", "\n"), "\n")
	)
	for i, line := range lines {
		trimmed := strings.TrimLeft(line, " ")
		indented := len(line)-len(trimmed) > 3
		run := fenceRun(trimmed)
		if open != nil {
			if !indented && len(run) >= len(mark) && run[:1] == mark[:1] && strings.TrimSpace(trimmed[len(run):]) == "" {
				open.body = strings.Join(body, "\n")
				out = append(out, *open)
				open, body = nil, nil
				continue
			}
			body = append(body, line)
			continue
		}
		if indented || len(run) < 3 {
			continue
		}
		info := strings.TrimSpace(trimmed[len(run):])
		if run[0] == '`' && strings.Contains(info, "`") {
			continue // inline code, not a fence
		}
		verb, rest, _ := strings.Cut(info, " ")
		mark, open = run, &fence{line: firstLine + i, verb: strings.ToLower(verb), info: strings.TrimSpace(rest)}
	}
	if open != nil {
		return nil, wrong(open.line, "this block is never closed: end it with a line of %s", mark)
	}
	return out, nil
}

func fenceRun(s string) string {
	if s == "" || (s[0] != '`' && s[0] != '~') {
		return ""
	}
	return s[:len(s)-len(strings.TrimLeft(s, s[:1]))]
}

type option struct{ name, value string }

// options reads name=value pairs; a value in double quotes may hold spaces and \" and \\.
func options(f fence) ([]option, error) {
	var out []option
	s := f.info
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" {
			return out, nil
		}
		name := ""
		if i := strings.IndexAny(s, "= \t\""); i > 0 && s[i] == '=' {
			name, s = s[:i], s[i+1:]
		}
		var value string
		if strings.HasPrefix(s, `"`) {
			var b strings.Builder
			closed, i := false, 1
			for ; i < len(s) && !closed; i++ {
				switch {
				case s[i] == '\\' && i+1 < len(s):
					i++
					b.WriteByte(s[i])
				case s[i] == '"':
					closed = true
				default:
					b.WriteByte(s[i])
				}
			}
			if !closed {
				return nil, wrong(f.line, "a quote is never closed")
			}
			value, s = b.String(), s[i:]
		} else {
			i := strings.IndexAny(s, " \t")
			if i < 0 {
				i = len(s)
			}
			value, s = s[:i], s[i:]
			if name != "" && value == "" {
				return nil, wrong(f.line, "%s has no value", name)
			}
		}
		if name == "" {
			name = "path"
		}
		for _, o := range out {
			if o.name == name {
				return nil, wrong(f.line, "%s is given twice", name)
			}
		}
		out = append(out, option{name, value})
	}
}

func take(opts []option, name string) (string, []option) {
	for i, o := range opts {
		if o.name == name {
			return o.value, append(append([]option{}, opts[:i]...), opts[i+1:]...)
		}
	}
	return "", opts
}

// parse turns a message into turns. The tools are those that the request offers.
func parse(text string, tools []models.Tool) ([]turn, error) {
	blocks, err := fences(text, 1)
	if err != nil {
		return nil, err
	}
	offered := map[string]models.Tool{}
	for _, t := range tools {
		offered[t.Name] = t
	}
	var (
		turns []turn
		next  turn
	)
	add := func(t turn) error {
		t.pause, t.think, t.say = next.pause, next.think, next.say
		next = turn{}
		turns = append(turns, t)
		if len(turns) > maxTurns {
			return fmt.Errorf("the script has more than %d turns", maxTurns)
		}
		return nil
	}
	for _, f := range blocks {
		opts, err := options(f)
		switch verb := canonicalVerb(f.verb); {
		case verb == "say" || verb == "think":
			if verb == "say" {
				next.say = joined(next.say, f.body)
			} else {
				next.think = joined(next.think, f.body)
			}
		case verb == "pause":
			if err != nil {
				return nil, err
			}
			d, err := pause(f, opts)
			if err != nil {
				return nil, err
			}
			if next.pause += d; next.pause > maxPause {
				return nil, wrong(f.line, "a turn may pause for at most %d seconds", int(maxPause.Seconds()))
			}
		case verb == "stop":
			if err != nil {
				return nil, err
			}
			value, _ := take(opts, "reason")
			reason := models.StopReason(value)
			if reason != models.EndTurn && reason != models.StopRefusal && reason != models.StopMaxTokens {
				return nil, wrong(f.line, "reason must be end_turn, refusal or max_tokens")
			}
			err := add(turn{stop: reason})
			return turns, err
		case verb == "fail":
			if err != nil {
				return nil, err
			}
			value, _ := take(opts, "kind")
			if !failures[models.ErrorKind(value)] {
				return nil, wrong(f.line, "%q is no kind of error of a model call", value)
			}
			err := add(turn{fail: models.ErrorKind(value)})
			return turns, err
		case verb == "parallel":
			inner, err := fences(f.body, f.line+1)
			if err != nil {
				return nil, err
			}
			var t turn
			for _, g := range inner {
				if !isCall(g.verb, offered) {
					return nil, wrong(g.line, "parallel holds tool calls only")
				}
				c, repeat, err := toCall(g, offered)
				if err != nil {
					return nil, err
				}
				for range repeat {
					t.calls = append(t.calls, c)
				}
			}
			if len(t.calls) == 0 {
				return nil, wrong(f.line, "parallel holds no tool call; give it a longer fence than the blocks inside it")
			}
			if err := add(t); err != nil {
				return nil, err
			}
		case isCall(f.verb, offered):
			c, repeat, err := toCall(f, offered)
			if err != nil {
				return nil, err
			}
			for range repeat {
				if err := add(turn{calls: []call{c}}); err != nil {
					return nil, err
				}
			}
		}
	}
	if next.say != "" || next.think != "" || next.pause > 0 {
		if err := add(turn{}); err != nil {
			return nil, err
		}
	}
	return turns, nil
}
