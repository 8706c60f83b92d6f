package builtin

import (
	"context"
	_ "embed"
	"encoding/json"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/sandbox"
)

//go:embed bash.md
var bashDescription string

const bashSchema = `{
  "type": "object",
  "properties": {
    "command": {"type": "string", "minLength": 1, "maxLength": 200000, "description": "What bash is to run. It may have many lines."},
    "timeout_seconds": {"type": "integer", "minimum": 1, "maximum": 3600, "description": "How long it may run; 120 when left out."}
  },
  "required": ["command"],
  "additionalProperties": false
}`

// Bash runs a command in the sandbox's shell.
func Bash() connectors.Tool {
	type arguments struct {
		commandArgs
		Command string `json:"command"`
	}
	return connectors.Tool{
		Name: "bash", Mount: Mount, Description: bashDescription, Schema: json.RawMessage(bashSchema), Risk: connectors.HighRisk,
		Idempotency: connectors.Neither, Command: true, Limit: commandLimit, Shape: shape,
		Run: func(ctx context.Context, w connectors.Workspace, input json.RawMessage) (connectors.Result, error) {
			a, err := args[arguments](input)
			if err != nil {
				return connectors.Result{}, err
			}
			return run(ctx, w, sandbox.ExecSpec{Script: a.Command, TimeLimit: a.limit()})
		},
	}
}
