package policy

import (
	"fmt"
	"regexp"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
)

// Effect is what a rule does.
type Effect string

// The effects. Deny wins over Approve, and Approve over Allow.
const (
	Allow Effect = "allow"
	Deny  Effect = "deny"
	// Approve permits what a person has approved. Rules of this effect are read and decided on, and are not offered by the API yet.
	Approve Effect = "approve"
)

// Kinds of effect, as the journal's steps have them.
const (
	ModelCall       = "model_call"
	ToolCall        = "tool_call"
	Exec            = "exec"
	Sandbox         = "sandbox"
	OutboundRequest = "outbound_request"
	Session         = "session"
	Hire            = "hire"
	MemoryWrite     = "memory_write"
)

// Kinds lists the kinds of effect that rules can be about.
func Kinds() []string {
	return []string{ModelCall, ToolCall, Exec, Sandbox, OutboundRequest, Session, Hire, MemoryWrite}
}

func knownKind(kind string) bool {
	switch kind {
	case ModelCall, ToolCall, Exec, Sandbox, OutboundRequest, Session, Hire, MemoryWrite:
		return true
	}
	return false
}

// Any matches everything, as a subject, a kind or a pattern.
const Any = "*"

// TagPrefix begins a subject that stands for all agents with a tag.
const TagPrefix = "tag:"

// Limits of what a rule may say.
const (
	MaxName        = 128
	MaxAction      = 64
	MaxObject      = 512
	MaxDescription = 500
	// MaxRules is how many rules an organisation has at most.
	MaxRules = 2000
	// MaxTags is how many tags an agent has at most.
	MaxTags = 16
)

// Rule says who may, or may not, do what. Name, Action and Object are patterns in which * stands for any run of characters, also across
// slashes; there is no other special character.
type Rule struct {
	// Subject is an agent's id, a project's id (all its agents), "tag:" and a tag, or "*".
	Subject string
	Effect  Effect
	// Kind is one of Kinds, or "*".
	Kind string
	// Name is of the model or the tool.
	Name string
	// Action is what is done with it, such as the method of a request; "*" when empty.
	Action string
	// Object is what it is done to, such as a path or an address; "*" when empty.
	Object    string
	Condition Condition
	// Description is for people. The agent reads it too, when the rule denies something.
	Description string
}

// Stored is a rule as an organisation has it.
type Stored struct {
	ID id.Permission
	Rule
	// Preset is the preset from which the rule was copied; empty for none.
	Preset string
	// Version grows with each change, from 1.
	Version   int64
	CreatedBy string
	CreatedAt time.Time
	UpdatedAt time.Time
}

var (
	tagForm     = regexp.MustCompile(`^[a-z][a-z0-9-]{0,39}$`)
	patternForm = regexp.MustCompile(`^[^\x00-\x20\x7f"'\\]+$`)
)

// Check returns the rule in the form in which it is kept, or a fault that names each field that is wrong. at is put before the pointers.
func (r Rule) Check(at string) (Rule, error) {
	var wrong []fault.Field
	bad := func(pointer, code, format string, args ...any) {
		wrong = append(wrong, fault.Field{Pointer: at + pointer, Code: code, Message: fmt.Sprintf(format, args...)})
	}
	if !validSubject(r.Subject) {
		bad("/subject", "invalid_value", `subject must be an agent's id (agt_…), a project's id (prj_…), "tag:" and a tag of lower-case letters, digits and hyphens, or "*" for all agents.`)
	}
	switch r.Effect {
	case Allow, Deny, Approve:
	default:
		bad("/effect", "invalid_value", "effect must be allow or deny.")
	}
	if r.Kind != Any && !knownKind(r.Kind) {
		bad("/kind", "invalid_value", "kind must be one of %s, or *.", strings.Join(Kinds(), ", "))
	}
	for _, p := range []struct {
		at   *string
		name string
		most int
	}{{&r.Name, "name", MaxName}, {&r.Action, "action", MaxAction}, {&r.Object, "object", MaxObject}} {
		if *p.at == "" {
			*p.at = Any
		}
		*p.at = simplify(*p.at)
		switch {
		case len(*p.at) > p.most:
			bad("/"+p.name, "too_long", "%s has at most %d bytes.", p.name, p.most)
		case !utf8.ValidString(*p.at) || !patternForm.MatchString(*p.at):
			bad("/"+p.name, "invalid_value", "%s is a pattern of visible characters without spaces, quotes and backslashes; * stands for any run of characters.", p.name)
		}
	}
	if r.Description = strings.TrimSpace(r.Description); len(r.Description) > MaxDescription {
		bad("/description", "too_long", "description has at most %d bytes.", MaxDescription)
	}
	if !utf8.ValidString(r.Description) || strings.ContainsFunc(r.Description, func(c rune) bool { return unicode.IsControl(c) && c != '\n' }) {
		bad("/description", "invalid_value", "description must be plain text.")
	}
	condition, fields := r.Condition.check(at + "/condition")
	r.Condition = condition
	if wrong = append(wrong, fields...); len(wrong) > 0 {
		return Rule{}, fault.InvalidFields(wrong...)
	}
	return r, nil
}

func validSubject(s string) bool {
	if s == Any {
		return true
	}
	if tag, ok := strings.CutPrefix(s, TagPrefix); ok {
		return tagForm.MatchString(tag)
	}
	if _, err := id.Parse[id.Agent](s); err == nil {
		return true
	}
	_, err := id.Parse[id.Project](s)
	return err == nil
}

// What says in words what the rule is about, for reasons that agents and people read.
func (r Rule) What() string {
	var b strings.Builder
	switch {
	case r.Kind == Any && r.Name == Any:
		b.WriteString("anything")
	case r.Kind == Any:
		b.WriteString("anything named " + r.Name)
	default:
		b.WriteString(kindInWords(r.Kind, r.Name))
	}
	if r.Action != Any {
		b.WriteString(" with the action " + r.Action)
	}
	if r.Object != Any {
		b.WriteString(" on " + r.Object)
	}
	if c := r.Condition.Words(); c != "" {
		b.WriteString(", " + c)
	}
	return b.String()
}

func kindInWords(kind, name string) string {
	noun, each := "", ""
	switch kind {
	case ModelCall:
		noun, each = "the model", "any model"
	case ToolCall:
		noun, each = "the tool", "any tool"
	case Exec:
		return "a person's own command in the sandbox"
	case Sandbox:
		return "time in a sandbox"
	case OutboundRequest:
		return "a request to the outside"
	case Session:
		return "starting a session"
	case Hire:
		return "hiring an agent"
	case MemoryWrite:
		return "writing to memory"
	default:
		return kind
	}
	if name == Any {
		return each
	}
	return noun + " " + name
}

// Summary says the rule in words: "Denies all agents the tool bash."
func (r Rule) Summary() string {
	who := "the agents with the tag " + strings.TrimPrefix(r.Subject, TagPrefix)
	switch {
	case r.Subject == Any:
		who = "all agents"
	case strings.HasPrefix(r.Subject, id.Agent("").Prefix()+"_"):
		who = "the agent " + r.Subject
	case strings.HasPrefix(r.Subject, id.Project("").Prefix()+"_"):
		who = "the agents of the project " + r.Subject
	case r.Subject == "":
		who = "its subject"
	}
	verb := map[Effect]string{Allow: "Allows", Deny: "Denies", Approve: "Asks a person about"}[r.Effect]
	if r.Effect == Approve {
		return verb + " " + r.What() + ", for " + who + "."
	}
	return verb + " " + who + " " + r.What() + "."
}
