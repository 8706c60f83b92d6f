package scripted

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/internal/reply"
)

// ID is the model's gateway id.
const ID = "ambit/scripted"

// Guide is the description of the language, in Markdown.
//
//go:embed scripted.md
var Guide string

const (
	maxQuoted    = 4000
	defaultChunk = 48
)

// Config of the provider.
type Config struct {
	// Pace is the silence between two chunks of a reply; zero means none.
	Pace time.Duration
	// ChunkBytes is the size of a chunk; zero means 48.
	ChunkBytes int
}

// Provider implements models.Provider.
type Provider struct {
	pace  time.Duration
	chunk int
}

// New makes the provider.
func New(c Config) *Provider {
	if c.ChunkBytes <= 0 {
		c.ChunkBytes = defaultChunk
	}
	return &Provider{pace: c.Pace, chunk: c.ChunkBytes}
}

// Name implements models.Provider.
func (*Provider) Name() string { return "ambit" }

// Models implements models.Provider.
func (*Provider) Models(context.Context) ([]models.Model, error) {
	return []models.Model{{ID: ID, Provider: "ambit", DisplayName: "Scripted (no language model)", ContextTokens: 1_000_000, MaxOutputTokens: 128_000}}, nil
}

// Generate implements models.Provider.
func (p *Provider) Generate(ctx context.Context, c models.Call, sink func(models.Event)) (models.Response, error) {
	if c.Request.Model != ID {
		return models.Response{}, models.NewError(models.ModelNotFound, "the built-in provider has the model "+ID+" only", nil)
	}
	script, results := latest(c.Request.Messages)
	t, position := p.next(script, results, c.Request.Tools)
	out := reply.New(c, sink)
	out.Named("scripted-1", "")
	w := &writer{ctx: ctx, p: p, out: out, left: c.Request.MaxTokens * 4}
	if err := wait(ctx, t.pause); err != nil {
		return out.Partial(), err
	}
	if t.fail != "" {
		return out.Partial(), models.NewError(t.fail, "the script asked for this error", nil)
	}
	reason, err := w.turn(t, position, c.Request)
	if err != nil {
		return out.Partial(), err
	}
	// The usage is part of the reply, so it is counted on what the reply will be, before it is finished.
	out.Usage(models.EstimateUsage(c.Request, models.Response{Content: w.said}), true)
	return out.Finish(reason, string(reason)), nil
}

// result is what came of one of the script's tool calls.
type result struct {
	tool    string
	text    string
	isError bool
}

// latest finds the script, which is the text of the last message with text (and of those just before it, when several were sent at once),
// and for each turn since then the results of its tool calls.
func latest(messages []models.Message) (string, [][]result) {
	begin := -1
	for i := len(messages) - 1; i >= 0; i-- {
		if messages[i].Role == models.User && text(messages[i]) != "" {
			begin = i
			break
		}
	}
	if begin < 0 {
		return "", nil
	}
	script := text(messages[begin])
	for i := begin - 1; i >= 0 && messages[i].Role == models.User; i-- {
		if s := text(messages[i]); s != "" {
			script = s + "\n" + script
		}
	}
	names := map[string]string{}
	answers := map[string]result{}
	var turns [][]string
	for _, m := range messages[begin+1:] {
		var ids []string
		for _, b := range m.Content {
			switch b.Type {
			case models.ToolUse:
				names[b.ID] = b.Name
				ids = append(ids, b.ID)
			case models.ToolResult:
				var parts []string
				for _, c := range b.Content {
					parts = append(parts, c.Text)
				}
				answers[b.ToolUseID] = result{tool: names[b.ToolUseID], text: strings.Join(parts, "\n"), isError: b.IsError}
			default: // text begins another script, and thoughts and pictures say nothing to this model
			}
		}
		if len(ids) > 0 {
			turns = append(turns, ids)
		}
	}
	results := make([][]result, len(turns))
	for i, ids := range turns {
		for _, id := range ids {
			results[i] = append(results[i], answers[id])
		}
	}
	return script, results
}

func text(m models.Message) string {
	var parts []string
	for _, b := range m.Content {
		if b.Type == models.Text && strings.TrimSpace(b.Text) != "" {
			parts = append(parts, b.Text)
		}
	}
	return strings.Join(parts, "\n")
}

// next is the turn that is due, and its number from 0.
func (p *Provider) next(script string, results [][]result, tools []models.Tool) (turn, int) {
	turns, err := parse(script, tools)
	done := len(results)
	switch {
	case err != nil:
		return turn{say: "I can't carry out this script, so I called no tool. " + sentence(err)}, done
	case done < len(turns):
		t := turns[done]
		if len(t.calls) == 0 && t.say == "" && t.stop == "" {
			t.say = closing(results)
		}
		return t, done
	case len(turns) == 0:
		return turn{say: introduction(script)}, done
	default:
		return turn{say: closing(results)}, done
	}
}

func sentence(err error) string {
	var s *scriptError
	if errors.As(err, &s) {
		return fmt.Sprintf("Line %d: %s.", s.line, s.what)
	}
	return err.Error() + "."
}

func introduction(script string) string {
	s := "I am ambit/scripted, Ambit's built-in model. I am not a language model: I carry out fenced blocks, such as ```bash, in your message, " +
		"one tool call each, and there were none."
	if script = strings.TrimSpace(script); script != "" {
		s += " You wrote:\n\n" + quote(script)
	}
	return s
}

func closing(results [][]result) string {
	n := 0
	for _, rs := range results {
		n += len(rs)
	}
	if n == 0 {
		return "Done."
	}
	last := results[len(results)-1][len(results[len(results)-1])-1]
	calls := "1 tool call"
	if n > 1 {
		calls = strconv.Itoa(n) + " tool calls"
	}
	verb := "answered"
	if last.isError {
		verb = "failed with"
	}
	if strings.TrimSpace(last.text) == "" {
		return fmt.Sprintf("Done: %s. The last one, %s, gave no output.", calls, last.tool)
	}
	return fmt.Sprintf("Done: %s. The last one, %s, %s:\n\n%s", calls, last.tool, verb, quote(last.text))
}

// quote puts text into a fence that the text can't close.
func quote(s string) string {
	s = strings.TrimRight(s, "\n")
	if len(s) > maxQuoted {
		s = cut(s, maxQuoted) + "\n… (" + strconv.Itoa(len(s)) + " bytes in all)"
	}
	fence := "```"
	for strings.Contains(s, fence) {
		fence += "`"
	}
	return fence + "\n" + s + "\n" + fence
}

// cut shortens s to at most n bytes, on a character's edge.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}

func wait(ctx context.Context, d time.Duration) error {
	if d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	if ctx.Err() != nil {
		return models.NewError(models.Cancelled, "the call was cancelled", ctx.Err())
	}
	return nil
}

// callID is unique in the conversation: it comes from where the call stands in it.
func callID(r models.Request, position, n int) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d/%d/%d", len(r.Messages), position, n))
	return "toolu_" + hex.EncodeToString(sum[:12])
}
