package builtin

import (
	"context"
	_ "embed"
	"encoding/json"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/sandbox"
)

//go:embed python.md
var pythonDescription string

const pythonSchema = `{
  "type": "object",
  "properties": {
    "code": {"type": "string", "minLength": 1, "maxLength": 200000, "description": "The Python program. What it prints is the answer."},
    "timeout_seconds": {"type": "integer", "minimum": 1, "maximum": 3600, "description": "How long it may run; 120 when left out."}
  },
  "required": ["code"],
  "additionalProperties": false
}`

// Python runs a Python program in the sandbox.
func Python() connectors.Tool {
	type arguments struct {
		commandArgs
		Code string `json:"code"`
	}
	return connectors.Tool{
		Name: "python", Mount: Mount, Description: pythonDescription, Schema: json.RawMessage(pythonSchema), Risk: connectors.HighRisk,
		Idempotency: connectors.Neither, Command: true, Limit: commandLimit, Shape: shape,
		Run: func(ctx context.Context, w connectors.Workspace, input json.RawMessage) (connectors.Result, error) {
			a, err := args[arguments](input)
			if err != nil {
				return connectors.Result{}, err
			}
			return run(ctx, w, sandbox.ExecSpec{Argv: []string{"python3"}, Script: a.Code, TimeLimit: a.limit()})
		},
	}
}
