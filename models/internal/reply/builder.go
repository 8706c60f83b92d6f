package reply

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"ambit.dev/ambit/models"
)

// Builder collects one reply. It is for one goroutine.
type Builder struct {
	sink      func(models.Event)
	began     time.Time
	request   models.Request
	effectKey string
	ids       map[string]bool // of tool uses in the conversation and in this reply
	blocks    []*open
	usage     models.Usage
	// reported says that a final usage came from the provider.
	reported bool
	response models.Response
}

type open struct {
	block  models.Block
	text   strings.Builder
	closed bool
	// whole is set when the provider said that the block is complete, as opposed to a stream that stopped.
	whole bool
}

// New starts a reply to the call; sink may be nil.
func New(call models.Call, sink func(models.Event)) *Builder {
	if sink == nil {
		sink = func(models.Event) {}
	}
	return &Builder{sink: sink, began: time.Now(), request: call.Request, effectKey: call.EffectKey}
}

// Named sets what the provider says of itself; empty strings leave what is known.
func (b *Builder) Named(model, requestID string) {
	if model != "" {
		b.response.ProviderModel = models.CleanText(model[:min(len(model), 200)])
	}
	if requestID != "" {
		b.response.ProviderRequestID = models.CleanText(requestID)
	}
}

func (b *Builder) touched() {
	if b.response.TimeToFirstToken == 0 {
		b.response.TimeToFirstToken = time.Since(b.began)
	}
}

// Open begins a block of type Text, Thinking or ToolUse and returns its index. A tool use without an id, or with one that the conversation
// has already, gets a new one: there are servers that count from call_0 in each reply.
func (b *Builder) Open(block models.Block) int {
	b.touched()
	if block.Type == models.ToolUse {
		block.ID, block.Name = b.uniqueID(models.CleanText(block.ID)), models.CleanText(block.Name)
	}
	b.blocks = append(b.blocks, &open{block: block})
	i := len(b.blocks) - 1
	if block.Type == models.ToolUse {
		b.sink(models.Event{Kind: models.ToolUseStart, Index: i, ToolUseID: block.ID, ToolName: block.Name})
	}
	return i
}

func (b *Builder) uniqueID(id string) string {
	if b.ids == nil {
		b.ids = map[string]bool{}
		for _, m := range b.request.Messages {
			for _, c := range m.Content {
				if c.Type == models.ToolUse {
					b.ids[c.ID] = true
				}
			}
		}
	}
	for n := 0; id == "" || len(id) > 200 || b.ids[id]; n++ {
		sum := sha256.Sum256(fmt.Appendf(nil, "%s/%d/%d", b.effectKey, len(b.blocks), n))
		id = "call_" + hex.EncodeToString(sum[:12])
	}
	b.ids[id] = true
	return id
}

// Last returns the index of the newest block if it is of the given type and still open, or -1.
func (b *Builder) Last(t models.BlockType) int {
	if i := len(b.blocks) - 1; i >= 0 && b.blocks[i].block.Type == t && !b.blocks[i].closed {
		return i
	}
	return -1
}

// Append adds text, thinking or JSON to the block, by its type.
func (b *Builder) Append(i int, s string) {
	if s == "" {
		return
	}
	o := b.blocks[i]
	if o.block.Type != models.ToolUse { // a tool's input is made fit as a whole
		s = models.CleanText(s)
	}
	o.text.WriteString(s)
	kind := models.TextDelta
	switch o.block.Type {
	case models.Thinking:
		kind = models.ThinkingDelta
	case models.ToolUse:
		kind = models.ToolUseDelta
	default:
	}
	b.sink(models.Event{Kind: kind, Index: i, Text: s})
}

// Text appends to the open text block at the end, or opens one.
func (b *Builder) Text(s string) { b.appendTo(models.Text, "", s) }

// Thinking appends to the open thinking block at the end, or opens one, of this provider.
func (b *Builder) Thinking(provider, s string) { b.appendTo(models.Thinking, provider, s) }

func (b *Builder) appendTo(t models.BlockType, provider, s string) {
	if s == "" {
		return
	}
	i := b.Last(t)
	if i < 0 {
		i = b.Open(models.Block{Type: t, Provider: provider})
	}
	b.Append(i, s)
}

// Pending is what was appended to the block so far.
func (b *Builder) Pending(i int) string { return b.blocks[i].text.String() }

// Keep stores the provider's own form of a thinking block. One that can't be stored is left out, and so does not go back.
func (b *Builder) Keep(i int, raw json.RawMessage) {
	if fit, err := models.Storable(raw); err == nil {
		b.blocks[i].block.Raw = fit
	}
}

// Close ends a block that the provider said is complete. A second time does nothing.
func (b *Builder) Close(i int) {
	o := b.blocks[i]
	if o.closed {
		return
	}
	o.closed, o.whole = true, true
	if o.block.Type == models.ToolUse {
		o.block.Input = models.ToolInput(o.text.String())
		b.sink(models.Event{Kind: models.ToolUseStop, Index: i, ToolUseID: o.block.ID, ToolName: o.block.Name, Input: o.block.Input})
	}
}

// Usage replaces the counts; final says that they are the provider's last word.
func (b *Builder) Usage(u models.Usage, final bool) {
	if u == b.usage && b.reported == final {
		return
	}
	b.usage, b.reported = u, b.reported || final
	b.sink(models.Event{Kind: models.UsageReport, Usage: &u})
}

// Reported says whether the provider's final usage came.
func (b *Builder) Reported() bool { return b.reported }

// Partial is the reply as far as it goes, for a call that failed. Tool calls are left out: they may not be acted on.
func (b *Builder) Partial() models.Response {
	r := b.response
	for _, o := range b.blocks {
		if o.block.Type == models.ToolUse {
			continue
		}
		if block, ok := o.finished(); ok {
			r.Content = append(r.Content, block)
		}
	}
	r.Usage = b.usage
	if !b.reported {
		estimate := models.EstimateUsage(b.request, r)
		r.UsageEstimated = true
		if r.Usage.Prompt() == 0 {
			r.Usage.Input = estimate.Input
		}
		r.Usage.Output = max(r.Usage.Output, estimate.Output)
	}
	return r
}

// Finish ends the reply. A tool call that the provider did not complete (max_tokens cut it) is dropped; what is left decides between
// tool_use and the other reasons, since servers differ in the reason that they give beside tool calls.
func (b *Builder) Finish(reason models.StopReason, providers string) models.Response {
	r := b.response
	r.ProviderStopReason = models.CleanText(providers[:min(len(providers), 100)])
	uses := 0
	for _, o := range b.blocks {
		if o.block.Type == models.ToolUse && !o.whole {
			continue
		}
		block, ok := o.finished()
		if !ok {
			continue
		}
		if block.Type == models.ToolUse {
			uses++
		}
		r.Content = append(r.Content, block)
	}
	switch {
	case uses > 0 && reason == models.EndTurn:
		reason = models.StopToolUse
	case uses == 0 && reason == models.StopToolUse:
		reason = models.EndTurn
	}
	r.StopReason = reason
	r.Usage = b.usage
	if !b.reported {
		r.Usage, r.UsageEstimated = models.EstimateUsage(b.request, r), true
	}
	b.sink(models.Event{Kind: models.Stop, StopReason: reason})
	return r
}

func (o *open) finished() (models.Block, bool) {
	block := o.block
	switch block.Type {
	case models.ToolUse:
		return block, true
	case models.Thinking:
		block.Text = o.text.String()
		return block, block.Text != "" || len(block.Raw) > 0
	default:
		block.Text = o.text.String()
		return block, block.Text != ""
	}
}
