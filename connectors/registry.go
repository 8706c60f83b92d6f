package connectors

import (
	"context"
	"encoding/json"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"ambit.dev/ambit/governance/gate"
	"ambit.dev/ambit/internal/canonical"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/sandbox"
)

// Registry has the tools by name. It never changes once made, and is safe for concurrent use.
type Registry struct {
	tools map[string]registered
	names []string
}

type registered struct {
	Tool
	schema *jsonschema.Schema
}

// NewRegistry makes a registry. It refuses two tools of one name, a name that a model's provider would not take, and a schema that is none.
func NewRegistry(tools ...Tool) (*Registry, error) {
	r := &Registry{tools: map[string]registered{}}
	for _, t := range tools {
		if !models.ValidToolName(t.Name) || !runs(t) || t.Limit == nil || (t.Command && t.Shape == nil) {
			return nil, fmt.Errorf("the tool %q lacks a proper name or a part", t.Name)
		}
		if _, twice := r.tools[t.Name]; twice {
			return nil, fmt.Errorf("there are two tools named %s", t.Name)
		}
		schema, err := compile(t.Schema)
		if err != nil {
			return nil, fmt.Errorf("the schema of the tool %s: %w", t.Name, err)
		}
		r.tools[t.Name] = registered{Tool: t, schema: schema}
		r.names = append(r.names, t.Name)
	}
	sort.Strings(r.names)
	return r, nil
}

// runs reports whether a tool has the one function that carries it out.
func runs(t Tool) bool {
	if t.Outside != nil {
		return t.ControlPlane && t.Run == nil
	}
	return t.Run != nil
}

// Names lists all tools, in order.
func (r *Registry) Names() []string { return append([]string{}, r.names...) }

// Knows reports whether there is such a tool.
func (r *Registry) Knows(name string) bool {
	_, ok := r.tools[name]
	return ok
}

// Lookup describes one tool.
func (r *Registry) Lookup(name string) (Tool, bool) {
	t, ok := r.tools[name]
	return t.Tool, ok
}

// Definitions are the named tools as a model sees them, in the order of the names. A name that is not known is left out: a tool may have
// been taken away since the agent was defined.
func (r *Registry) Definitions(names []string) []models.Tool {
	var out []models.Tool
	for _, name := range names {
		if t, ok := r.tools[name]; ok {
			out = append(out, models.Tool{Name: t.Name, Description: t.Description, InputSchema: t.Schema})
		}
	}
	return out
}

// Prepared is a call whose arguments were checked.
type Prepared struct {
	Name  string
	Input json.RawMessage
	// Digest is what the call's admission is bound to: of the tool's name and its arguments.
	Digest      [32]byte
	Mount       string
	Risk        Risk
	Idempotency Idempotency
	TimeLimit   time.Duration
	// Domain is the host that the call goes to, in its one spelling, and so whoever is paid by it; empty when it stays inside the platform.
	Domain string
	// Action and Object are what is done and to what, as rules name it: "write" and the path of a file, a method and an address.
	Action string
	Object string
	// Sandbox says that the call needs the session's sandbox; Command, that it is a command there.
	Sandbox bool
	Command bool
	tool    *registered
}

// Check finds the tool and checks the arguments as the model wrote them. Its error is a fault whose message tells the model what to do
// better; then there must be no effect. What it returns beside an error is filled in as far as it is known.
func (r *Registry) Check(name string, input json.RawMessage) (Prepared, error) {
	t, ok := r.tools[name]
	if !ok {
		return Prepared{Name: name, Input: input}, fault.New(fault.Unprocessable, "unknown_tool",
			fmt.Sprintf("There is no tool named %q. The tools are: %s.", short(name), strings.Join(r.names, ", ")))
	}
	p := Prepared{
		Name: name, Input: input, Mount: t.Mount, Risk: t.Risk, Idempotency: t.Idempotency, Sandbox: !t.ControlPlane, Command: t.Command, tool: &t,
	}
	if text, malformed := models.Malformed(input); malformed {
		return p, invalid(name, []string{"they are not a JSON object: " + short(text)})
	}
	digest, err := canonical.Digest(map[string]any{"tool": name, "input": input})
	if err != nil {
		return p, invalid(name, []string{"they are not JSON"})
	}
	p.Digest = digest
	if wrong := check(t.schema, input); len(wrong) > 0 {
		return p, invalid(name, wrong)
	}
	if t.Check != nil {
		if err := t.Check(input); err != nil {
			return p, invalid(name, []string{err.Error()})
		}
	}
	p.TimeLimit = t.Limit(input)
	if t.Classify != nil {
		p.Idempotency = t.Classify(input)
	}
	if t.Domain != nil {
		p.Domain = t.Domain(input)
	}
	if t.Facets != nil {
		p.Action, p.Object = t.Facets(input)
	}
	return p, nil
}

func invalid(name string, wrong []string) error {
	return fault.New(fault.Unprocessable, "invalid_arguments", "The arguments of "+name+" are not valid, and nothing was done: "+strings.Join(wrong, "; ")+".")
}

// Call carries out a checked call, in the session's sandbox where it needs one. It consumes the admission, which must be for a tool call with this very digest.
//
// What the command answered, also when that is a failure, is a Result. An error means that the call could not be carried out, or that it is
// not known how it ended (sandbox.ErrLost).
func (r *Registry) Call(ctx context.Context, adm *gate.Admission, call Prepared, box *sandbox.Sandbox) (Result, error) {
	if call.tool == nil || call.Digest == ([32]byte{}) || (call.Sandbox && box == nil) {
		return Result{}, fmt.Errorf("the call of %s was not prepared, or has no sandbox", call.Name)
	}
	if !call.Sandbox {
		grant, err := adm.Consume(gate.ToolCall, call.Digest)
		if err != nil {
			return Result{}, err
		}
		if call.tool.Outside != nil {
			return call.tool.Outside(ctx, grant, call.Input)
		}
		return Run(ctx, call, nil)
	}
	effect, err := box.Begin(adm, gate.ToolCall, call.Digest)
	if err != nil {
		return Result{}, err
	}
	return Run(ctx, call, effect)
}

// Run carries out a checked call in a workspace. A workspace of a sandbox exists only under an admission: see Call.
func Run(ctx context.Context, call Prepared, w Workspace) (Result, error) {
	if call.tool.Run == nil {
		return Result{}, fmt.Errorf("%s acts outside of the platform, which takes an admission", call.Name)
	}
	result, err := call.tool.Run(ctx, w, call.Input)
	if err != nil {
		return refusal(err)
	}
	return result, nil
}

// Attach waits for a command that an earlier worker began under the effect key, and answers as Call would have. It begins nothing, and so
// needs no admission. Where the sandbox does not know the key, the error is the guest's effect_unknown: the command never ran there.
func (r *Registry) Attach(ctx context.Context, call Prepared, box *sandbox.Sandbox, effectKey string) (Result, error) {
	if call.tool == nil || !call.Command {
		return Result{}, fmt.Errorf("%s is no command that can be attached to", call.Name)
	}
	var out Capture
	end, err := box.Attach(ctx, effectKey, out.Take)
	if err != nil {
		return Result{}, err
	}
	return call.tool.Shape(out.Bytes(), end), nil
}
