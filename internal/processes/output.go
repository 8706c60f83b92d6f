package processes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// longestLine is where a child's line is cut: a child that prints without end
// must not fill our memory.
const longestLine = 64 << 10

// keptLines is how many of a child's last lines are kept for a report.
const keptLines = 30

// usualName is the width of the names' column unless a longer one comes.
const usualName = 12

// largestLog is when a log file is put aside at the next start.
const largestLog = 32 << 20

// Output merges what several children print into one readable stream: one line
// an event, with the time, the child's name and the level. Lines that are JSON
// (slog's or Nomad's) are taken apart; others are shown as they are.
type Output struct {
	mu     sync.Mutex
	w      io.Writer
	colour bool
	asJSON bool
	width  int // of the longest name so far
	now    func() time.Time
}

// NewOutput writes to w; colour is for terminals, asJSON for machines.
func NewOutput(w io.Writer, colour, asJSON bool) *Output {
	return &Output{w: w, colour: colour, asJSON: asJSON, width: usualName, now: time.Now}
}

// Print writes a block of text that is no log line, as it is.
func (o *Output) Print(text string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, _ = io.WriteString(o.w, text)
}

// Logger returns a logger whose lines stand in the stream under name.
func (o *Output) Logger(name string, least slog.Level) *slog.Logger {
	s := o.Stream(name, least, nil)
	return slog.New(slog.NewJSONHandler(s, &slog.HandlerOptions{Level: least, ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Value.Kind() == slog.KindDuration { // nanoseconds otherwise
			a.Value = slog.StringValue(a.Value.Duration().String())
		}
		return a
	}}))
}

// Stream returns a writer for one child's output. Lines below least are left
// out of the merged stream, and go only to file, which may be nil. A line whose
// level can't be seen counts as INFO.
func (o *Output) Stream(name string, least slog.Level, file io.Writer) *Stream {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.width = max(o.width, len(name))
	return &Stream{out: o, name: name, least: least, file: file}
}

// Stream is one child's part of an Output.
type Stream struct {
	out   *Output
	name  string
	least slog.Level
	file  io.Writer
	// Quiet are pieces of lines that say nothing to people: such a line goes
	// only to the file. It is set before the first Write.
	Quiet []string

	mu      sync.Mutex
	partial []byte
	last    []string
}

// Write takes any piece of output; whole lines are passed on.
func (s *Stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		_, _ = s.file.Write(p) // a full disk must not stop the child
	}
	rest := p
	for {
		i := bytes.IndexByte(rest, '\n')
		if i < 0 {
			break
		}
		s.line(append(s.partial, rest[:i]...))
		s.partial = s.partial[:0]
		rest = rest[i+1:]
	}
	if len(s.partial)+len(rest) > longestLine {
		s.line(append(s.partial, rest...)[:longestLine])
		s.partial = s.partial[:0]
		return len(p), nil
	}
	s.partial = append(s.partial, rest...)
	return len(p), nil
}

// Last returns the last lines that the child has printed, oldest first.
func (s *Stream) Last() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.last)
}

func (s *Stream) line(raw []byte) {
	text := strings.TrimRight(string(raw), "\r\n")
	if text == "" {
		return
	}
	s.last = append(s.last, text)
	if len(s.last) > keptLines {
		s.last = slices.Delete(s.last, 0, len(s.last)-keptLines)
	}
	e := parseLine(text)
	if e.level < s.least || slices.ContainsFunc(s.Quiet, func(q string) bool { return strings.Contains(text, q) }) {
		return
	}
	s.out.show(s.name, e)
}

// entry is one line as far as it was understood.
type entry struct {
	level slog.Level
	text  string
	attrs []string // "key=value"
}

func (o *Output) show(name string, e entry) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.asJSON {
		line := map[string]string{
			"time": o.now().UTC().Format(time.RFC3339Nano), "process": name, "level": e.level.String(), "msg": e.text,
		}
		for _, a := range e.attrs {
			k, v, _ := strings.Cut(a, "=")
			if _, taken := line[k]; !taken {
				line[k] = v
			}
		}
		b, err := json.Marshal(line)
		if err == nil {
			_, _ = o.w.Write(append(b, '\n'))
		}
		return
	}
	level := e.level.String()
	before, dim, after := "", "", ""
	if o.colour {
		before, dim, after = levelColour(e.level), "\x1b[2m", "\x1b[0m"
	}
	attrs := ""
	if len(e.attrs) > 0 {
		attrs = "  " + dim + strings.Join(e.attrs, " ") + after
	}
	_, _ = fmt.Fprintf(o.w, "%s%s %-*s%s %s%-5s%s %s%s\n",
		dim, o.now().Format("15:04:05"), o.width, name, after, before, level, after, e.text, attrs)
}

func levelColour(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "\x1b[31m"
	case l >= slog.LevelWarn:
		return "\x1b[33m"
	default:
		return "\x1b[32m"
	}
}

// parseLine understands slog's JSON, Nomad's (hclog) JSON and Postgres's text.
func parseLine(text string) entry {
	if strings.HasPrefix(text, "{") {
		if e, ok := parseJSON(text); ok {
			return e
		}
	}
	e := entry{level: slog.LevelInfo, text: text}
	for mark, level := range postgresLevels {
		if _, rest, ok := strings.Cut(text, mark); ok {
			e.level = level
			e.text = strings.TrimSpace(rest)
			break
		}
	}
	if strings.HasPrefix(e.text, "the database system is ") {
		// Postgres's answer to whoever asks while it starts or stops, as we do
		// to see when it is ready. It calls that fatal.
		e.level = slog.LevelInfo
	}
	return e
}

var postgresLevels = map[string]slog.Level{
	" LOG:  ": slog.LevelInfo, " WARNING:  ": slog.LevelWarn, " ERROR:  ": slog.LevelError,
	" FATAL:  ": slog.LevelError, " PANIC:  ": slog.LevelError,
	" DETAIL:  ": slog.LevelDebug, " HINT:  ": slog.LevelDebug, " STATEMENT:  ": slog.LevelDebug, " CONTEXT:  ": slog.LevelDebug,
}

func parseJSON(text string) (entry, bool) {
	dec := json.NewDecoder(strings.NewReader(text))
	dec.UseNumber()
	if t, err := dec.Token(); err != nil || t != json.Delim('{') {
		return entry{}, false
	}
	e := entry{level: slog.LevelInfo}
	found := false
	for dec.More() { // by tokens, so that attributes keep their order
		key, err := dec.Token()
		if err != nil {
			return entry{}, false
		}
		var value any
		if err := dec.Decode(&value); err != nil {
			return entry{}, false
		}
		switch key {
		case "msg", "@message":
			e.text, found = fmt.Sprint(value), true
		case "level", "@level":
			e.level = levelOf(fmt.Sprint(value))
		case "time", "@timestamp", "@module":
		default:
			e.attrs = append(e.attrs, fmt.Sprintf("%s=%s", key, attr(value)))
		}
	}
	return e, found
}

func levelOf(s string) slog.Level {
	var l slog.Level
	switch strings.ToUpper(s) {
	case "TRACE":
		return slog.LevelDebug
	default:
		if err := l.UnmarshalText([]byte(s)); err != nil {
			return slog.LevelInfo
		}
		return l
	}
}

func attr(v any) string {
	var s string
	switch x := v.(type) {
	case string:
		s = x
	case map[string]any, []any:
		b, err := json.Marshal(x)
		if err != nil {
			return "?"
		}
		return string(b)
	default:
		return fmt.Sprint(x)
	}
	if s == "" || strings.ContainsAny(s, " \t\n\"=") {
		return fmt.Sprintf("%q", s)
	}
	return s
}

// OpenLog opens a child's log file for appending, readable by its owner only,
// and puts one that has grown large aside as NAME.1.
func OpenLog(path string) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("making the log folder: %w", err)
	}
	if st, err := os.Stat(path); err == nil && st.Size() > largestLog {
		if err := os.Rename(path, path+".1"); err != nil {
			return nil, fmt.Errorf("putting the old log aside: %w", err)
		}
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("opening a log: %w", err)
	}
	return f, nil
}
