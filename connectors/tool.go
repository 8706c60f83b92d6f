package connectors

import (
	"context"
	"encoding/json"
	"time"

	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/sandbox/guest"
)

// Idempotency says what a second run under the same effect key would do. It decides what becomes of a call whose worker was lost.
type Idempotency string

// The classes.
const (
	// Safe changes nothing: it is simply done again.
	Safe Idempotency = "safe"
	// Idempotent leaves the same state behind, however often it is done.
	Idempotent Idempotency = "idempotent"
	// Neither may act twice. A command is attached to again by its effect key; when its machine is gone, its outcome is unknown.
	Neither Idempotency = "neither"
)

// Risk is how much harm a tool can do inside its bounds.
type Risk string

// The risks.
const (
	LowRisk    Risk = "low"    // it only looks
	MediumRisk Risk = "medium" // it changes files of the session
	HighRisk   Risk = "high"   // it runs code, or acts outside of the platform
)

// Tool is one tool and how it is carried out.
type Tool struct {
	Name        string
	Mount       string // where it comes from; "builtin"
	Description string // for the model, in Markdown
	Schema      json.RawMessage
	Risk        Risk
	Idempotency Idempotency
	// Reversible: the state before can be had back from the working directory's history.
	Reversible bool
	// Command says that the call is a command in the sandbox, which can be signalled and attached to by its effect key.
	Command bool
	// ControlPlane says that the call runs in the control plane and needs no sandbox: its Run gets no Workspace.
	ControlPlane bool
	// Limit is how long a call with this input may take.
	Limit func(input json.RawMessage) time.Duration
	// Check looks at what a schema can't say. Its error is a sentence for the model. It may be nil.
	Check func(input json.RawMessage) error
	// Run carries the call out. What the model did wrong, and what a command answers, is a Result; an error means that the platform could
	// not carry it out.
	Run func(ctx context.Context, w Workspace, input json.RawMessage) (Result, error)
	// Outside takes the place of Run in a tool of the control plane whose effect leaves the platform: it is given what the admission
	// entitles to, with the effect key that goes to the other side.
	Outside func(ctx context.Context, g gate.Grant, input json.RawMessage) (Result, error)
	// Classify tells the idempotency of one call where it depends on the arguments; nil: it is always Idempotency.
	Classify func(input json.RawMessage) Idempotency
	// Domain tells the host that a call goes to, in its one spelling, for the rules on it; nil where no call leaves the platform.
	Domain func(input json.RawMessage) string
	// Facets tells what a call does and to what, in the spelling in which rules are written; nil where there is nothing to tell apart.
	Facets func(input json.RawMessage) (action, object string)
	// Shape makes a result of a command that ended, with the output that was passed on. It is nil where Command is false.
	Shape func(output []byte, end *sandbox.ExecResult) Result
}

// Result is what a tool answers.
type Result struct {
	// Text is valid UTF-8 without null characters, at most MaxResultBytes and a little.
	Text    string
	IsError bool
	// KeptAt is the file below the working directory that has the whole of an output that was cut; empty when nothing was cut.
	KeptAt string
	// Unknown says that the call was sent and not answered: whether the other side acted is not known.
	Unknown bool
}

// Workspace is what a tool may do in the sandbox of its session under one admitted effect. *sandbox.Effect is one.
type Workspace interface {
	EffectKey() string
	Exec(ctx context.Context, spec sandbox.ExecSpec, out sandbox.Output) (*sandbox.ExecResult, error)
	ReadFile(ctx context.Context, req guest.ReadRequest) (*guest.ReadResult, error)
	WriteFile(ctx context.Context, req guest.WriteRequest, content []byte) (*guest.Entry, error)
	List(ctx context.Context, req guest.ListRequest) (*guest.ListResult, error)
	Stat(ctx context.Context, path string) (*guest.Entry, error)
}

var _ Workspace = (*sandbox.Effect)(nil)
