package loop

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/models"
)

// MaxAttempts is how often in a row a model call is tried before the session stops with retries_exhausted.
const MaxAttempts = 5

// ToolUse is a tool call that the model asked for and that has no result yet.
type ToolUse struct {
	ID    string
	Name  string
	Input json.RawMessage
	Seq   int64
	// EditedBy put these arguments in place of the model's; nil where they are its own.
	EditedBy *journal.Actor
	// Asked says that people were asked about it: then it goes the way of what they are asked about, whatever the rules say since.
	Asked bool
}

// ModelCall is a request to be made.
type ModelCall struct {
	Request models.Request
	// LastInputSeq is the last event that the request was made from.
	LastInputSeq int64
	// Attempt counts from 1.
	Attempt int
	// RetryAfter is the wait that the failed attempt before asked for; it counts from FailedAt.
	RetryAfter time.Duration
	FailedAt   time.Time
}

// Decision is the next effect: exactly one field is set.
type Decision struct {
	Model  *ModelCall
	Tools  []ToolUse
	Finish *journal.StopReason
}

// Input is what the loop decides from, besides the events.
type Input struct {
	Agent  journal.Snapshot
	Limits journal.Limits
	Usage  journal.Usage
	// Tools are the definitions of the agent's tools, for the model.
	Tools []models.Tool
	// Now is compared with the time of creation for the wall-time limit.
	Now time.Time
}

// Next is the pure function: the next effect that follows from a whole journal. It fails only on a journal that it can't read.
func Next(events []journal.Event, in Input) (Decision, error) {
	h := NewHistory()
	if err := h.Apply(events...); err != nil {
		return Decision{}, err
	}
	return h.Next(in)
}

// Next returns the session's next effect, or how it ends. It changes nothing: asked twice, it answers the same.
func (h *History) Next(in Input) (Decision, error) {
	if h.createdAt.IsZero() {
		return Decision{}, errors.New("the journal does not begin with session.created")
	}
	if h.interruptSeq > h.idleSeq && !h.newInputAfter(h.interruptSeq) {
		return finish(journal.StopReason{Type: journal.StopInterrupted, By: h.interruptBy}), nil
	}
	if uses := h.unresolved(); len(uses) > 0 {
		if limit := reached(in, h); limit != "" {
			return finish(stopAt(limit, in)), nil
		}
		return Decision{Tools: uses}, nil
	}
	if stop, done := h.ended(); done {
		return finish(stop), nil
	}
	if limit := reached(in, h); limit != "" {
		return finish(stopAt(limit, in)), nil
	}
	messages := h.conversation()
	if len(messages) == 0 {
		return finish(journal.StopReason{Type: journal.StopEndTurn}), nil // nobody has said anything yet
	}
	call := &ModelCall{
		Request: models.Request{
			Model: in.Agent.Model, System: in.Agent.System, Messages: messages, Tools: in.Tools, MaxTokens: in.Agent.MaxTokens,
		},
		LastInputSeq: h.lastSeq, Attempt: h.failures + 1,
	}
	if h.failures > 0 {
		call.RetryAfter, call.FailedAt = h.retryAfter, h.failedAt
	}
	return Decision{Model: call}, nil
}

func finish(stop journal.StopReason) Decision { return Decision{Finish: &stop} }

// stopAt is the end at one of the session's own limits.
func stopAt(limit string, in Input) journal.StopReason {
	stop := journal.StopReason{Type: journal.StopBudgetReached, Limit: limit, Scope: "session"}
	switch limit {
	case journal.LimitSteps:
		stop.Reason = fmt.Sprintf("The session has taken %d steps; limits.max_steps allows %d.", in.Usage.Steps, in.Limits.MaxSteps)
	case journal.LimitTokens:
		stop.Reason = fmt.Sprintf("The session has used %d tokens; limits.max_tokens allows %d.", in.Usage.Tokens(), in.Limits.MaxTokens)
	case journal.LimitWallTime:
		stop.Reason = fmt.Sprintf("The session was made more than %d seconds ago, which limits.max_wall_seconds allows.", in.Limits.MaxWallSeconds)
	}
	return stop
}

// reached names the limit that forbids a further step, or nothing.
func reached(in Input, h *History) string {
	switch l := in.Limits; {
	case l.MaxSteps > 0 && in.Usage.Steps >= l.MaxSteps:
		return journal.LimitSteps
	case l.MaxTokens > 0 && in.Usage.Tokens() >= l.MaxTokens:
		return journal.LimitTokens
	case l.MaxWallSeconds > 0 && in.Now.Sub(h.createdAt) >= time.Duration(l.MaxWallSeconds)*time.Second:
		return journal.LimitWallTime
	}
	return ""
}

// History is a journal folded into what the loop needs. It grows with the journal, so that a long session is not read again for each step.
type History struct {
	createdAt    time.Time
	lastSeq      int64
	idleSeq      int64
	interruptSeq int64
	interruptBy  string
	inputSeqs    []int64

	messages []models.Message
	queued   []models.Block                     // input that no model call has seen yet
	uses     []ToolUse                          // of the last assistant turn
	results  map[string]journal.AgentToolResult // of those uses

	answered      bool // a model call has succeeded since the last input entered a call
	modelStop     string
	answeredUpTo  int64 // the last input event that the last successful call had seen
	calledUpTo    int64 // the last input event of the call under way
	failures      int
	final         bool
	failure       *journal.ErrorDetail
	retryAfter    time.Duration
	failedAt      time.Time
	assistantStep id.Step

	edits map[int64]edit    // by the number of the tool use
	asked map[string]bool   // the tool uses that people were asked about, by their ids
	taint []journal.Tainted // what came from outside, in its order
	by    []journal.Actor   // whose session it is, and who gave it input; each once
}

// edit is what a person put in place of a tool use's arguments.
type edit struct {
	input json.RawMessage
	by    *journal.Actor
}

// NewHistory is the history of a journal without events.
func NewHistory() *History {
	return &History{results: map[string]journal.AgentToolResult{}, edits: map[int64]edit{}, asked: map[string]bool{}}
}

// Clone is a history of its own, to be folded further without a change to this one.
func (h *History) Clone() *History {
	c := *h
	c.inputSeqs, c.messages, c.queued, c.uses = slices.Clone(h.inputSeqs), slices.Clone(h.messages), slices.Clone(h.queued), slices.Clone(h.uses)
	if n := len(c.messages); n > 0 {
		// The last message is the one that may still grow.
		c.messages[n-1].Content = slices.Clone(c.messages[n-1].Content)
	}
	c.results, c.edits, c.asked = maps.Clone(h.results), maps.Clone(h.edits), maps.Clone(h.asked)
	c.taint, c.by = slices.Clone(h.taint), slices.Clone(h.by)
	return &c
}

// LastSeq is the number of the last event that was applied.
func (h *History) LastSeq() int64 { return h.lastSeq }

// Apply folds further events in. They must follow the last one without a gap.
func (h *History) Apply(events ...journal.Event) error {
	for _, e := range events {
		if e.Seq != h.lastSeq+1 {
			return fmt.Errorf("the journal has number %d where %d belongs", e.Seq, h.lastSeq+1)
		}
		if err := h.apply(e); err != nil {
			return err
		}
		h.lastSeq = e.Seq
	}
	return nil
}

func (h *History) apply(e journal.Event) error {
	switch e.Type {
	case journal.SessionCreated{}.EventType():
		p, err := journal.Decode[journal.SessionCreated](e)
		if err != nil {
			return err
		}
		h.createdAt = e.CreatedAt
		h.acted(p.By)
	case journal.UserMessage{}.EventType():
		p, err := journal.Decode[journal.UserMessage](e)
		if err != nil {
			return err
		}
		h.inputSeqs = append(h.inputSeqs, e.Seq)
		h.acted(p.By)
		for _, b := range p.Content {
			h.queued = append(h.queued, models.TextBlock(b.Text))
		}
		h.failures, h.final, h.failure = 0, false, nil
	case journal.UserInterrupt{}.EventType():
		p, err := journal.Decode[journal.UserInterrupt](e)
		if err != nil {
			return err
		}
		h.interruptSeq, h.interruptBy = e.Seq, p.By.ID
	case journal.StatusIdle{}.EventType():
		h.idleSeq = e.Seq
	case journal.SessionLimits{}.EventType(), journal.StatusRescheduled{}.EventType():
		h.failures, h.final, h.failure = 0, false, nil
	case journal.StepIntended{}.EventType():
		return h.intended(e)
	case journal.StepSettled{}.EventType():
		return h.settled(e)
	case journal.AgentMessage{}.EventType():
		p, err := journal.Decode[journal.AgentMessage](e)
		if err != nil {
			return err
		}
		for _, b := range p.Content {
			h.say(e.Step, models.TextBlock(b.Text))
		}
	case journal.AgentThinking{}.EventType():
		p, err := journal.Decode[journal.AgentThinking](e)
		if err != nil {
			return err
		}
		h.say(e.Step, models.Block{Type: models.Thinking, Text: p.Summary, Provider: p.Provider, Raw: p.Raw})
	case journal.AgentToolUse{}.EventType():
		p, err := journal.Decode[journal.AgentToolUse](e)
		if err != nil {
			return err
		}
		h.say(e.Step, models.ToolUseBlock(p.ToolUseID, p.Name, p.Input))
		h.uses = append(h.uses, ToolUse{ID: p.ToolUseID, Name: p.Name, Input: p.Input, Seq: e.Seq})
	case journal.AgentToolResult{}.EventType():
		p, err := journal.Decode[journal.AgentToolResult](e)
		if err != nil {
			return err
		}
		if _, twice := h.results[p.ToolUseID]; twice { // of an earlier turn it says nothing any more
			return fmt.Errorf("event %d is a second result of tool use %s", e.Seq, p.ToolUseID)
		}
		h.results[p.ToolUseID] = p
	case journal.ApprovalRequested{}.EventType():
		p, err := journal.Decode[journal.ApprovalRequested](e)
		if err != nil {
			return err
		}
		h.asked[p.ToolUseID] = true
	case journal.ApprovalDecided{}.EventType():
		p, err := journal.Decode[journal.ApprovalDecided](e)
		if err != nil {
			return err
		}
		if p.Input != nil {
			h.edits[p.ToolUseSeq] = edit{input: p.Input, by: p.By}
		}
	case journal.Tainted{}.EventType():
		p, err := journal.Decode[journal.Tainted](e)
		if err != nil {
			return err
		}
		h.taint = append(h.taint, p)
	}
	return nil
}

// acted notes who has given the session something to do.
func (h *History) acted(by journal.Actor) {
	if by.IsZero() || slices.ContainsFunc(h.by, func(a journal.Actor) bool { return a.Kind == by.Kind && a.ID == by.ID && a.OnBehalfOf == by.OnBehalfOf }) {
		return
	}
	h.by = append(h.by, by)
}

// Askers are whose session it is and who gave it input, each once.
func (h *History) Askers() []journal.Actor { return h.by }

// Taint is what the session has read from outside, in its order; empty for one that has read nothing.
func (h *History) Taint() []journal.Tainted { return h.taint }

// Edited returns the tool use with what people have to do with it: whether they were asked, and the arguments that one put in place of the model's.
func (h *History) Edited(u ToolUse) ToolUse {
	u.Asked = h.asked[u.ID]
	if e, ok := h.edits[u.Seq]; ok {
		u.Input, u.EditedBy = e.input, e.by
	}
	return u
}

// Said is what the model said in its last turn, beside the tools that it asked for.
func (h *History) Said() string {
	for i := len(h.messages) - 1; i >= 0; i-- {
		if h.messages[i].Role != models.Assistant {
			continue
		}
		var text string
		for _, b := range h.messages[i].Content {
			if b.Type == models.Text {
				text += b.Text
			}
		}
		return text
	}
	return ""
}

// intended: a model call takes what was queued into the conversation.
func (h *History) intended(e journal.Event) error {
	p, err := journal.Decode[journal.StepIntended](e)
	if err != nil {
		return err
	}
	if p.Kind == journal.KindModelCall {
		h.flush()
		h.calledUpTo = p.LastInputSeq
	}
	return nil
}

func (h *History) settled(e journal.Event) error {
	p, err := journal.Decode[journal.StepSettled](e)
	if err != nil {
		return err
	}
	if p.Kind != journal.KindModelCall {
		return nil
	}
	if p.Outcome == journal.Succeeded {
		h.failures, h.final, h.failure = 0, false, nil
		h.answered, h.modelStop, h.answeredUpTo = true, p.StopReason, h.calledUpTo
		return nil
	}
	h.answered = false
	if p.Outcome == journal.Cancelled {
		// An interrupt, or a worker that was stopped: that says nothing of the provider.
		h.retryAfter, h.failedAt = 0, e.CreatedAt
		return nil
	}
	h.failures++
	h.final, h.failure = p.Final, p.Error
	h.retryAfter, h.failedAt = time.Duration(p.RetryAfterMillis)*time.Millisecond, e.CreatedAt
	return nil
}

// say adds a block to the assistant's turn.
func (h *History) say(step id.Step, b models.Block) {
	if n := len(h.messages); n == 0 || h.messages[n-1].Role != models.Assistant || h.assistantStep != step {
		h.messages = append(h.messages, models.Message{Role: models.Assistant})
		h.uses, h.assistantStep = nil, step
	}
	last := &h.messages[len(h.messages)-1]
	last.Content = append(last.Content, b)
}

// flush ends the user's turn: first the results of the last turn's tools, as providers demand, then what was queued.
func (h *History) flush() {
	h.messages = h.conversation()
	h.queued, h.uses, h.results = nil, nil, map[string]journal.AgentToolResult{}
}

// conversation is the messages of the next request. It leaves the history as it is.
func (h *History) conversation() []models.Message {
	blocks := h.userTurn()
	messages := slices.Clone(h.messages)
	if len(blocks) == 0 {
		return messages
	}
	if n := len(messages); n > 0 && messages[n-1].Role == models.User {
		messages[n-1].Content = append(slices.Clone(messages[n-1].Content), blocks...)
		return messages
	}
	return append(messages, models.Message{Role: models.User, Content: blocks})
}

func (h *History) userTurn() []models.Block {
	var blocks []models.Block
	for _, u := range h.uses {
		r, ok := h.results[u.ID]
		if !ok {
			// The model must be answered; nothing was done.
			blocks = append(blocks, models.ToolResultBlock(u.ID, "Not done: the work was interrupted before this tool was called.", true))
			continue
		}
		b := models.Block{Type: models.ToolResult, ToolUseID: u.ID, IsError: r.IsError}
		for _, c := range r.Content {
			b.Content = append(b.Content, models.TextBlock(c.Text))
		}
		blocks = append(blocks, b)
	}
	return append(blocks, h.queued...)
}

// unresolved are the last turn's tool uses without a result. An interrupt that came after them voids them.
func (h *History) unresolved() []ToolUse {
	var open []ToolUse
	for _, u := range h.uses {
		if _, done := h.results[u.ID]; !done && u.Seq > h.interruptSeq {
			open = append(open, h.Edited(u))
		}
	}
	return open
}

func (h *History) newInputAfter(seq int64) bool {
	n := len(h.inputSeqs)
	return n > 0 && h.inputSeqs[n-1] > seq
}

// ended says whether there is nothing left to ask the model, and why.
func (h *History) ended() (journal.StopReason, bool) {
	if h.failures > 0 && (h.final || h.failures >= MaxAttempts) {
		return journal.StopReason{Type: journal.StopRetriesExhausted, Error: h.failure}, true
	}
	if !h.answered || len(h.uses) > 0 || h.newInputAfter(h.answeredUpTo) {
		return journal.StopReason{}, false
	}
	switch models.StopReason(h.modelStop) {
	case models.StopMaxTokens:
		return journal.StopReason{Type: journal.StopMaxTokens}, true
	case models.StopRefusal:
		return journal.StopReason{Type: journal.StopRefusal}, true
	default:
		return journal.StopReason{Type: journal.StopEndTurn}, true
	}
}
