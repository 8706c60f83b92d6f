package scripted

import (
	"context"
	"strings"

	"ambit.dev/ambit/models"
	"ambit.dev/ambit/models/internal/reply"
)

// writer streams a turn in chunks, within max_tokens.
type writer struct {
	ctx  context.Context
	p    *Provider
	out  *reply.Builder
	left int64 // bytes that max_tokens still allows
	said []models.Block
}

func (w *writer) turn(t turn, position int, r models.Request) (models.StopReason, error) {
	if t.think != "" {
		cut, err := w.block(models.Block{Type: models.Thinking, Provider: w.p.Name()}, t.think)
		if err != nil || cut {
			return models.StopMaxTokens, err
		}
	}
	if t.say != "" {
		say, matched := untilStop(t.say, r.StopSequences)
		cut, err := w.block(models.Block{Type: models.Text}, say)
		switch {
		case err != nil || cut:
			return models.StopMaxTokens, err
		case matched:
			return models.StopAtSequence, nil
		}
	}
	for i, c := range t.calls {
		if int64(len(c.name)+len(c.input)) > w.left {
			return models.StopMaxTokens, nil
		}
		w.left -= int64(len(c.name))
		_, err := w.block(models.Block{Type: models.ToolUse, ID: callID(r, position, i), Name: c.name}, string(c.input))
		if err != nil {
			return "", err
		}
	}
	if t.stop != "" {
		return t.stop, nil
	}
	if len(t.calls) > 0 {
		return models.StopToolUse, nil
	}
	return models.EndTurn, nil
}

// block streams one block and reports whether max_tokens cut it short.
func (w *writer) block(b models.Block, content string) (bool, error) {
	whole := len(content)
	content = cut(content, int(min(w.left, 1<<30)))
	i := w.out.Open(b)
	for rest := content; rest != ""; {
		piece := cut(rest, w.p.chunk)
		if piece == "" { // a chunk smaller than one character
			piece = rest
		}
		rest = rest[len(piece):]
		w.out.Append(i, piece)
		if err := wait(w.ctx, w.p.pace); err != nil {
			return false, err
		}
	}
	w.left -= int64(len(content))
	w.out.Close(i)
	if b.Type == models.ToolUse {
		b.Input = []byte(content)
	} else {
		b.Text = content
	}
	w.said = append(w.said, b)
	return len(content) < whole, nil
}

func untilStop(s string, stops []string) (string, bool) {
	at := -1
	for _, stop := range stops {
		if i := strings.Index(s, stop); stop != "" && i >= 0 && (at < 0 || i < at) {
			at = i
		}
	}
	if at < 0 {
		return s, false
	}
	return s[:at], true
}
