package receipt

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"ambit.dev/ambit/internal/money"
)

// killed is of a kill's receipt what the words need.
type killed struct {
	ID          string
	By          actor
	Reason      string
	RequestedAt time.Time `json:"requested_at"`
	Stop        *string   `json:"stop_id"`
	one
	Children     []one
	AlreadyEnded int `json:"children_already_ended"`
}

type actor struct{ Type, ID string }

// one is a session of it.
type one struct {
	Session  string `json:"session_id"`
	Epoch    int64
	FencedAt *time.Time `json:"fenced_at"`
	Sandbox  *struct {
		ID         string `json:"sandbox_id"`
		At         time.Time
		By, Detail string
	}
	Charged  int64 `json:"charged_nanos"`
	Released []struct {
		Hold  string    `json:"hold_id"`
		Nanos int64     `json:"released_nanos"`
		At    time.Time `json:"released_at"`
	} `json:"holds_released"`
	LastBilled *struct {
		Entry string `json:"ledger_entry_id"`
		Nanos int64  `json:"amount_nanos"`
		At    time.Time
	} `json:"last_billed"`
	Unsettled []string `json:"unsettled_steps"`
}

type stopped struct {
	ID            string
	Scope         actor
	By            actor
	Reason        string
	RequestedAt   time.Time  `json:"requested_at"`
	FencedAt      time.Time  `json:"fenced_at"`
	GoneAt        *time.Time `json:"gone_at"`
	ReleasedNanos int64      `json:"released_nanos"`
	LastBilledAt  *time.Time `json:"last_billed_at"`
	Sessions      []struct {
		Session       string     `json:"session_id"`
		Receipt       string     `json:"receipt_id"`
		Epoch         int64      `json:"epoch"`
		FencedAt      *time.Time `json:"fenced_at"`
		SandboxGoneAt *time.Time `json:"sandbox_gone_at"`
		Unsettled     int        `json:"unsettled_steps"`
	}
}

// Explain says in words what a receipt proves. The words are made from what was signed, and from nothing else.
func (p Proven) Explain(w io.Writer) error {
	out := &lines{}
	switch p.Kind {
	case "kill_receipt":
		var k killed
		if err := json.Unmarshal(p.Claims, &k); err != nil {
			return refuse("what was signed does not have a receipt's form")
		}
		k.explain(out, p.KeyID)
	case "stop_receipt":
		var s stopped
		if err := json.Unmarshal(p.Claims, &s); err != nil {
			return refuse("what was signed does not have a receipt's form")
		}
		s.explain(out, p.KeyID)
	}
	out.add("", "It does not prove what an outside service did with a request that had left before: such steps are the ones whose outcome is not known.")
	_, err := io.WriteString(w, out.b.String())
	return err
}

type lines struct{ b strings.Builder }

// add writes a line. What comes from a receipt is a stranger's text: a terminal must not obey it.
func (l *lines) add(indent, format string, args ...any) {
	text := strings.Map(func(r rune) rune {
		if r < ' ' || (r >= 0x7f && r < 0xa0) {
			return ' '
		}
		return r
	}, fmt.Sprintf(format, args...))
	l.b.WriteString(indent + text + "\n")
}

func (k killed) explain(out *lines, key string) {
	out.add("", "Receipt %s is genuine: signed by the instance's key %s, and unchanged since.", k.ID, key)
	out.add("", "It proves that session %s was killed.", k.Session)
	out.add("  ", "Asked for at %s by %s %s%s.", stamp(k.RequestedAt), k.By.Type, k.By.ID, because(k.Reason))
	if k.Stop != nil {
		out.add("  ", "The kill carried out the order %s.", *k.Stop)
	}
	k.one.explain(out, "  ")
	if len(k.Children) > 0 {
		out.add("", "Stopped in the same commit, below it: %s.", count(len(k.Children), "session"))
	}
	for _, c := range k.Children {
		out.add("  ", "Session %s:", c.Session)
		c.explain(out, "    ")
	}
	if k.AlreadyEnded > 0 {
		out.add("", "Below it %s had ended before.", count(k.AlreadyEnded, "session"))
	}
}

func (o one) explain(out *lines, indent string) {
	if o.FencedAt != nil {
		out.add(indent, "From %s at the latest (epoch %d), no worker could write to its journal, hold money for it, or reach a sandbox of it.", stamp(*o.FencedAt), o.Epoch)
	}
	switch {
	case o.Sandbox == nil:
	case o.Sandbox.ID == "":
		out.add(indent, "It had no sandbox.")
	default:
		out.add(indent, "Sandbox %s was gone at %s, as seen by the %s: %s.", o.Sandbox.ID, stamp(o.Sandbox.At), o.Sandbox.By, strings.TrimSuffix(o.Sandbox.Detail, "."))
	}
	for _, h := range o.Released {
		out.add(indent, "Hold %s was released at %s: %s given back.", h.Hold, stamp(h.At), money.Nanos(h.Nanos).Display())
	}
	if o.LastBilled != nil {
		out.add(indent, "The last charge was %s at %s (ledger entry %s).", money.Nanos(o.LastBilled.Nanos).Display(), stamp(o.LastBilled.At), o.LastBilled.Entry)
	} else {
		out.add(indent, "Nothing was ever charged to it.")
	}
	out.add(indent, "Charged in all: %s.", money.Nanos(o.Charged).Display())
	if len(o.Unsettled) > 0 {
		out.add(indent, "Had begun, outcome not known: %s.", strings.Join(o.Unsettled, ", "))
	}
}

func (s stopped) explain(out *lines, key string) {
	out.add("", "Receipt %s is genuine: signed by the instance's key %s, and unchanged since.", s.ID, key)
	out.add("", "It proves that all that worked in %s %s was stopped: %s.", s.Scope.Type, s.Scope.ID, count(len(s.Sessions), "session"))
	out.add("  ", "Asked for at %s by %s %s%s. From then on nothing of it began.", stamp(s.RequestedAt), s.By.Type, s.By.ID, because(s.Reason))
	out.add("  ", "From %s on, no worker could write to the journal of any of them, hold money, or reach a sandbox.", stamp(s.FencedAt))
	if s.GoneAt != nil {
		out.add("  ", "The last sandbox was gone at %s.", stamp(*s.GoneAt))
	}
	out.add("  ", "Released: %s.", money.Nanos(s.ReleasedNanos).Display())
	if s.LastBilledAt != nil {
		out.add("  ", "The last charge to any of them was at %s.", stamp(*s.LastBilledAt))
	}
	for _, one := range s.Sessions {
		line := fmt.Sprintf("Session %s (receipt %s): epoch %d", one.Session, one.Receipt, one.Epoch)
		if one.FencedAt != nil {
			line += ", fenced by " + stamp(*one.FencedAt)
		}
		if one.SandboxGoneAt != nil {
			line += ", sandbox gone at " + stamp(*one.SandboxGoneAt)
		}
		if one.Unsettled > 0 {
			line += ", " + count(one.Unsettled, "step") + " of unknown outcome"
		}
		out.add("  ", "%s.", line)
	}
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05.000000 MST") }

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", reason)
}

func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
