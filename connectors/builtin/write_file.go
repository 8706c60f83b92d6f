package builtin

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/sandbox/guest"
)

//go:embed write_file.md
var writeFileDescription string

const writeFileSchema = `{
  "type": "object",
  "properties": {
    ` + schemaPath + `,
    "content": {"type": "string", "description": "The whole new content of the file."}
  },
  "required": ["path", "content"],
  "additionalProperties": false
}`

// WriteFile makes or replaces a file.
func WriteFile() connectors.Tool {
	return connectors.Tool{
		Name: "write_file", Mount: Mount, Description: writeFileDescription, Schema: json.RawMessage(writeFileSchema), Risk: connectors.MediumRisk,
		Idempotency: connectors.Idempotent, Reversible: true, Limit: constant(fileLimit), Check: checkPath, Facets: onFile("write"),
		Run: func(ctx context.Context, w connectors.Workspace, input json.RawMessage) (connectors.Result, error) {
			a, err := args[struct {
				Path    string `json:"path"`
				Content string `json:"content"`
			}](input)
			if err != nil {
				return connectors.Result{}, err
			}
			p, err := inside(a.Path)
			if err != nil {
				return connectors.Failed("%s.", err), nil
			}
			entry, err := w.WriteFile(ctx, guest.WriteRequest{Path: p, Parents: true}, []byte(a.Content))
			if err != nil {
				return connectors.Result{}, err
			}
			return connectors.Result{Text: fmt.Sprintf("Wrote %s (%d bytes).", entry.Path, entry.Size)}, nil
		},
	}
}
