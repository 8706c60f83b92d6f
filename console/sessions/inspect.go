package sessions

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"sort"
	"strings"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/transcript"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/sandbox/guest"
)

// inspect makes the right pane for what the address asks.
func (h *Handler) inspect(c echo.Context, s journal.Session, q query, head head, projection *transcript.Projection) (inspector, error) {
	ctx := c.Request().Context()
	base := page.PlaceOf(c).Path("sessions", string(s.ID))
	v := inspector{Tab: q.Tab, Tabs: q.tabs(base), Head: head}
	var err error
	switch q.Tab {
	case "files":
		v.Files = h.files(ctx, s, q, base)
	case "cost":
		v.Cost, err = h.cost(ctx, s)
	case "raw":
		v.Raw, err = raw(s)
	default:
		if q.Step != "" {
			v.Step, v.Facts, err = h.step(ctx, s, q.Step, projection)
		} else {
			v.Facts, err = h.facts(ctx, s, head)
		}
	}
	return v, err
}

// facts is what is known of the session itself.
func (h *Handler) facts(ctx context.Context, s journal.Session, head head) ([]ui.Fact, error) {
	b, err := h.sandboxOf(ctx, s)
	if err != nil {
		return nil, err
	}
	facts := []ui.Fact{
		{Term: "Session", Value: ui.Ident(head.ID)},
		{Term: "Agent", Text: head.Agent},
		{Term: "Model", Text: head.Model},
		{Term: "Started by", Text: head.By},
		{Term: "Started", Value: ui.When(head.CreatedAt)},
		{Term: "Tokens", Value: ui.Tokens(head.Tokens)},
		{Term: "Sandbox", Text: "none now"},
	}
	if b != nil {
		facts[len(facts)-1] = ui.Fact{Term: "Sandbox", Value: ui.Ident(string(b.ID))}
	}
	if s.Mandate != "" {
		facts = append(facts, ui.Fact{Term: "Mandate", Value: ui.Ident(string(s.Mandate))})
	}
	return facts, nil
}

// sandboxOf is the sandbox that the session has now, or nil.
func (h *Handler) sandboxOf(ctx context.Context, s journal.Session) (b *sandbox.Live, err error) {
	err = h.DB.InTx(ctx, s.Org, func(tx pgx.Tx) error {
		live, err := sandbox.LiveOf(ctx, tx, s.Org, s.ID)
		if one, has := live[s.ID]; has {
			b = &one
		}
		return err
	})
	return b, err
}

// step finds the entry of a step. One that is earlier than the window is projected from its own events.
func (h *Handler) step(ctx context.Context, s journal.Session, want string, projection *transcript.Projection) (*transcript.Entry, []ui.Fact, error) {
	sid, err := id.Parse[id.Step](want)
	if err != nil {
		return nil, nil, fault.NotFound()
	}
	step, err := h.Sessions.Step(ctx, s.Org, s.ID, sid)
	if err != nil {
		return nil, nil, err
	}
	entry := find(projection, want)
	if entry == nil {
		last := step.SettledSeq
		if last == 0 {
			last = step.IntendedSeq
		}
		// A tool's input stands in the model call before it, a few events earlier.
		from := max(0, step.IntendedSeq-40)
		events, err := h.Sessions.Events(ctx, s.Org, s.ID, journal.EventFilter{After: from, Limit: int(min(last-from, 200))})
		if err != nil {
			return nil, nil, err
		}
		if entry = find(transcript.Of(events, ""), want); entry == nil {
			return nil, nil, fault.NotFound()
		}
	}
	return entry, stepFacts(step, entry), nil
}

func find(p *transcript.Projection, step string) *transcript.Entry {
	for _, e := range p.Entries {
		if e.Step == step {
			return e
		}
	}
	return nil
}

func stepFacts(step journal.Step, e *transcript.Entry) []ui.Fact {
	facts := []ui.Fact{
		{Term: "Outcome", Value: ui.Badge(ui.Step(step.Outcome))},
		{Term: "Kind", Text: strings.ReplaceAll(step.Kind, "_", " ")},
		{Term: "Began", Value: ui.Clock(step.IntendedAt)},
	}
	if step.SettledAt != nil {
		facts = append(facts, ui.Fact{Term: "Took", Text: ui.Duration(step.SettledAt.Sub(step.IntendedAt))}, ui.Fact{Term: "Cost", Value: ui.Money(step.Cost)})
	} else if e.Held != nil {
		facts = append(facts, ui.Fact{Term: "Held", Value: ui.Money(*e.Held)})
	}
	if step.Usage.Tokens() > 0 {
		u := step.Usage
		facts = append(facts, ui.Fact{Term: "Tokens", Value: ui.Tokens(ui.TokenCounts{Input: u.InputTokens, CacheRead: u.CacheReadTokens, CacheWrite: u.CacheWriteTokens, Output: u.OutputTokens + u.ReasoningTokens})})
	}
	if step.Error != nil {
		facts = append(facts, ui.Fact{Term: "Error", Text: step.Error.Code + ": " + step.Error.Message})
	}
	return append(facts,
		ui.Fact{Term: "Events", Text: eventsOf(step)},
		ui.Fact{Term: "Step", Value: ui.Ident(string(step.ID))},
		ui.Fact{Term: "Effect key", Value: ui.Ident(step.EffectKey)})
}

func eventsOf(step journal.Step) string {
	if step.SettledSeq == 0 {
		return fmt.Sprintf("%d, not settled yet", step.IntendedSeq)
	}
	return fmt.Sprintf("%d to %d", step.IntendedSeq, step.SettledSeq)
}

func raw(s journal.Session) (string, error) {
	out, err := json.Marshal(map[string]any{
		"id": s.ID, "status": s.Status, "stop_reason": s.StopReason, "title": s.Title, "agent": s.Agent, "principal": s.By, "limits": s.Limits,
		"usage": s.Usage, "charged": s.Charged, "last_seq": s.LastSeq, "epoch": s.Epoch, "metadata": s.Metadata, "created_at": s.CreatedAt, "updated_at": s.UpdatedAt,
	})
	if err != nil {
		return "", fmt.Errorf("write session %s: %w", s.ID, err)
	}
	return string(out), nil
}

// maxCostSteps bounds how many steps the cost is broken down over; the sum itself is the session's.
const maxCostSteps = 5000

// cost breaks what was charged down by model and tool, and lists the ledger's transfers.
func (h *Handler) cost(ctx context.Context, s journal.Session) (costView, error) {
	steps, err := h.Sessions.Steps(ctx, s.Org, s.ID, 0, maxCostSteps)
	if err != nil {
		return costView{}, err
	}
	sums := map[string]money.Nanos{}
	var listed money.Nanos
	for _, step := range steps {
		of := strings.ReplaceAll(step.Kind, "_", " ") + ", " + step.Name
		if step.Kind == journal.KindSandbox {
			of = "time in the sandbox"
		}
		sums[of] += step.Cost
		listed += step.Cost
	}
	labels := make([]string, 0, len(sums))
	for l := range sums {
		labels = append(labels, l)
	}
	sort.Slice(labels, func(i, j int) bool {
		if sums[labels[i]] != sums[labels[j]] {
			return sums[labels[i]] > sums[labels[j]]
		}
		return labels[i] < labels[j]
	})
	var v costView
	for _, l := range labels {
		amount := sums[l]
		v.Lines = append(v.Lines, ui.Line{Label: l, Amount: &amount})
	}
	if rest := s.Charged - listed; rest != 0 { // the lines always add up to the sum
		v.Lines = append(v.Lines, ui.Line{Label: "other steps", Amount: &rest})
	}
	charged := s.Charged
	v.Lines = append(v.Lines, ui.Line{Label: "Charged", Amount: &charged, Total: true})
	var transfers []billing.Transfer
	err = h.DB.InTx(ctx, s.Org, func(tx pgx.Tx) error {
		transfers, err = billing.SessionTransfers(ctx, tx, s.Org, s.ID)
		return err
	})
	if err != nil {
		return costView{}, err
	}
	words := map[string]string{"hold": "held", "capture": "captured", "release": "released", "loss": "above the hold, not charged"}
	for _, t := range transfers[max(0, len(transfers)-200):] {
		word := words[t.Kind]
		if word == "" {
			word = t.Kind
		}
		v.Ledger = append(v.Ledger, ledgerLine{Words: word, Amount: t.Amount, At: t.CreatedAt, Step: string(t.Step)})
	}
	return v, nil
}

// files lists the working directory, and opens the file that the address names.
func (h *Handler) files(ctx context.Context, s journal.Session, q query, base string) filesView {
	at := cleanPath(q.Path)
	v := filesView{Path: "/" + at}
	dir, err := h.openFiles(ctx, s)
	if errors.Is(err, sandbox.ErrNoFiles) {
		return v
	}
	if err != nil {
		v.Problem = fault.As(err).Message
		return v
	}
	if v.Source, err = h.source(ctx, s, dir); err != nil {
		v.Problem = fault.As(err).Message
		return v
	}
	link := func(p string) string { return base + q.with(func(q *query) { q.Tab, q.Path = "files", p }) }
	folder := at
	if at != "" {
		entry, err := dir.Stat(ctx, at)
		if err != nil {
			v.Problem = fault.As(err).Message
			return v
		}
		if entry.Type != guest.TypeDirectory {
			folder = parent(at)
			v.Open, err = readFile(ctx, dir, at, base)
			if err != nil {
				v.Problem = fault.As(err).Message
				return v
			}
		}
	}
	list, err := dir.List(ctx, guest.ListRequest{Path: folder})
	if err != nil {
		v.Problem = fault.As(err).Message
		return v
	}
	v.Path = "/" + folder
	if folder != "" {
		v.Up = link(parent(folder))
	}
	for _, e := range list.Entries {
		f := file{Name: path.Base(e.Path), Path: cleanPath(e.Path), Dir: e.Type == guest.TypeDirectory, Size: e.Size, At: e.ModTime}
		f.Href = link(f.Path)
		if !f.Dir {
			f.Get = contentHref(base, f.Path)
		}
		v.Entries = append(v.Entries, f)
	}
	return v
}

// source says whose files are shown. The checkpoint of a save is in the journal; those of before there were checkpoints have only a time.
func (h *Handler) source(ctx context.Context, s journal.Session, dir *sandbox.Files) ([]ui.Fact, error) {
	saved := dir.Archive()
	if saved == nil {
		b, err := h.sandboxOf(ctx, s)
		if err != nil || b == nil {
			return nil, err
		}
		return []ui.Fact{{Term: "As it is now in", Value: ui.Ident(string(b.ID))}}, nil
	}
	facts := []ui.Fact{{Term: "As it was saved", Value: ui.When(saved.CreatedAt)}}
	found, err := h.Sessions.Events(ctx, s.Org, s.ID, journal.EventFilter{Types: []string{journal.CheckpointCreated{}.EventType()}, Descending: true, Limit: 1})
	if err != nil || len(found) == 0 {
		return facts, err
	}
	c, err := journal.Decode[journal.CheckpointCreated](found[0])
	if err != nil || c.SHA256 != saved.Sum.String() {
		return facts, err
	}
	return append(facts, ui.Fact{Term: "Checkpoint", Value: ui.Ident(string(c.Checkpoint))}), nil
}

func contentHref(base, p string) string { return base + "/files/content?path=" + url.QueryEscape(p) }

func (h *Handler) openFiles(ctx context.Context, s journal.Session) (*sandbox.Files, error) {
	if h.Sandboxes == nil {
		return nil, fault.New(fault.Unavailable, "unavailable", "The sandboxes are out of reach of this process.").Because(errNoSandboxes)
	}
	return h.Sandboxes.Files(ctx, s.Org, s.ID)
}

func cleanPath(p string) string { return strings.TrimPrefix(path.Clean("/"+p), "/") }

func parent(p string) string {
	d := path.Dir(p)
	if d == "." || d == "/" {
		return ""
	}
	return d
}

func readFile(ctx context.Context, dir *sandbox.Files, p, base string) (*openFile, error) {
	res, err := dir.Read(ctx, guest.ReadRequest{Path: p, Limit: ui.InlineLimit})
	if err != nil {
		return nil, err
	}
	f := &openFile{Path: p, Download: contentHref(base, p), Size: res.Size}
	data := res.Data
	for i := 0; i < utf8.UTFMax && len(data) > 0 && !utf8.Valid(data); i++ { // the cut may have gone through a character
		data = data[:len(data)-1]
	}
	if bytes.IndexByte(data, 0) >= 0 || (len(data) == 0 && len(res.Data) > 0) {
		f.Binary = true
		return f, nil
	}
	f.Text = string(data)
	return f, nil
}

// download sends a file of the working directory as it is, always as an attachment: it is the agent's, and must not run in the console.
func (h *Handler) download(c echo.Context) error {
	ctx := c.Request().Context()
	s, err := h.sessionOf(c)
	if err != nil {
		return err
	}
	dir, err := h.openFiles(ctx, s)
	if err != nil {
		return err
	}
	p := cleanPath(c.QueryParam("path"))
	first, err := dir.Read(ctx, guest.ReadRequest{Path: p})
	if err != nil {
		return err
	}
	head := c.Response().Header()
	head.Set("Content-Type", "application/octet-stream")
	head.Set("Content-Disposition", "attachment; filename*=UTF-8''"+url.PathEscape(path.Base(p)))
	head.Set("Content-Security-Policy", "default-src 'none'; sandbox")
	head.Set("Cache-Control", "no-store")
	c.Response().WriteHeader(200)
	for sent, part := int64(0), first.Data; len(part) > 0; {
		if _, err := c.Response().Write(part); err != nil {
			return nil //nolint:nilerr // the reader went away
		}
		if sent += int64(len(part)); sent >= first.Size {
			break
		}
		next, err := dir.Read(ctx, guest.ReadRequest{Path: p, Offset: sent})
		if err != nil {
			return fmt.Errorf("read on in %s: %w", p, err)
		}
		part = next.Data
	}
	return nil
}
