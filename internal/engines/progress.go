package engines

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/mattn/go-isatty"
	"golang.org/x/term"

	"ambit.dev/ambit/internal/config"
)

const (
	redrawEvery = 100 * time.Millisecond // on a terminal
	repeatEvery = 10 * time.Second       // elsewhere, so that a log shows life
)

// board shows the state of several tasks: on a terminal one line each, redrawn
// in place; elsewhere a plain line when a task begins, every ten seconds, and
// when it ends.
type board struct {
	out   io.Writer
	lines bool // redraw in place
	width func() int

	mu    sync.Mutex
	tasks []*task // in flight, oldest first
	drawn int     // lines on the screen that belong to tasks
	stop  chan struct{}
	ended chan struct{}
}

// task is one thing that is being obtained. Its methods may be called from any
// goroutine.
type task struct {
	board *board
	title string
	began time.Time

	// below here guarded by board.mu
	what     string
	done     int64
	total    int64
	unit     unit
	lastLine time.Time
}

type unit int

const (
	noCount unit = iota
	bytesCount
	stepsCount
	percentCount
)

func newBoard(out io.Writer) *board {
	b := &board{out: out, width: func() int { return 100 }, stop: make(chan struct{}), ended: make(chan struct{})}
	if f, ok := out.(*os.File); ok && isatty.IsTerminal(f.Fd()) && !config.PlainTerminal() {
		b.lines = true
		b.width = func() int {
			if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 20 {
				return w
			}
			return 100
		}
	}
	go b.run()
	return b
}

func (b *board) run() {
	defer close(b.ended)
	tick := time.NewTicker(redrawEvery)
	defer tick.Stop()
	for {
		select {
		case <-b.stop:
			return
		case now := <-tick.C:
			b.mu.Lock()
			b.refresh(now)
			b.mu.Unlock()
		}
	}
}

// close ends the drawing; finished lines stay.
func (b *board) close() {
	close(b.stop)
	<-b.ended
	b.mu.Lock()
	defer b.mu.Unlock()
	b.erase()
}

func (b *board) begin(title string) *task {
	b.mu.Lock()
	defer b.mu.Unlock()
	t := &task{board: b, title: title, began: time.Now(), lastLine: time.Now(), what: "starting"}
	b.tasks = append(b.tasks, t)
	if !b.lines {
		fmt.Fprintf(b.out, "%-16s starting\n", title)
	}
	return t
}

// say sets what is being done, with no measure of how far.
func (t *task) say(format string, args ...any) {
	t.board.mu.Lock()
	defer t.board.mu.Unlock()
	t.what, t.unit, t.done, t.total = fmt.Sprintf(format, args...), noCount, 0, 0
}

// count sets what is being done and how far it is; total 0 is unknown.
func (t *task) count(what string, u unit, done, total int64) {
	t.board.mu.Lock()
	defer t.board.mu.Unlock()
	t.what, t.unit, t.done, t.total = what, u, done, total
}

// end prints the task's last line and takes it off the board.
func (t *task) end(err error, outcome string) {
	b := t.board
	b.mu.Lock()
	defer b.mu.Unlock()
	b.erase()
	for i, other := range b.tasks {
		if other == t {
			b.tasks = append(b.tasks[:i], b.tasks[i+1:]...)
			break
		}
	}
	mark := "ready"
	if err != nil {
		mark, outcome = "FAILED", firstLine(err.Error())
	}
	fmt.Fprintf(b.out, "%-16s %s %s(%s)\n", t.title, mark, spaced(outcome), took(time.Since(t.began)))
	b.draw(time.Now())
}

func spaced(s string) string {
	if s == "" {
		return ""
	}
	return s + " "
}

func (b *board) refresh(now time.Time) {
	if b.lines {
		b.erase()
		b.draw(now)
		return
	}
	for _, t := range b.tasks {
		if now.Sub(t.lastLine) >= repeatEvery {
			t.lastLine = now
			fmt.Fprintln(b.out, t.line(now))
		}
	}
}

// erase moves the cursor to the first of the drawn lines and clears from there.
func (b *board) erase() {
	if b.drawn > 0 {
		fmt.Fprintf(b.out, "\x1b[%dA\x1b[J", b.drawn)
		b.drawn = 0
	}
}

func (b *board) draw(now time.Time) {
	if !b.lines {
		return
	}
	width := b.width()
	for _, t := range b.tasks {
		line := []rune(t.line(now))
		if len(line) > width-1 {
			line = line[:width-1] // a wrapped line would break the counting of lines
		}
		fmt.Fprintln(b.out, string(line))
	}
	b.drawn = len(b.tasks)
}

func (t *task) line(now time.Time) string {
	var s strings.Builder
	fmt.Fprintf(&s, "%-16s %s", t.title, t.what)
	switch {
	case t.unit == bytesCount && t.total > 0:
		fmt.Fprintf(&s, " %s of %s (%d%%)", mega(t.done), mega(t.total), percent(t.done, t.total))
	case t.unit == bytesCount:
		fmt.Fprintf(&s, " %s", mega(t.done))
	case t.unit == stepsCount && t.total > 0:
		fmt.Fprintf(&s, " %d of %d (%d%%)", t.done, t.total, percent(t.done, t.total))
	case t.unit == stepsCount:
		fmt.Fprintf(&s, " %d", t.done)
	case t.unit == percentCount:
		fmt.Fprintf(&s, " %d%%", t.done)
	}
	fmt.Fprintf(&s, ", %s", took(now.Sub(t.began)))
	return s.String()
}

func percent(done, total int64) int64 { return min(100, done*100/total) }

func mega(n int64) string { return fmt.Sprintf("%.1f MB", float64(n)/1e6) }

func took(d time.Duration) string {
	switch {
	case d < 10*time.Second:
		return fmt.Sprintf("%.1fs", d.Seconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	default:
		return fmt.Sprintf("%dm%02ds", int(d.Minutes()), int(d.Seconds())%60)
	}
}

func firstLine(s string) string {
	first, _, _ := strings.Cut(s, "\n")
	return first
}
