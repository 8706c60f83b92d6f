package builtin

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"strings"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/sandbox/guest"
)

//go:embed list_files.md
var listFilesDescription string

const listFilesSchema = `{
  "type": "object",
  "properties": {
    "path": {"type": "string", "minLength": 1, "maxLength": 4096, "description": "The directory, relative to the working directory; the working directory itself when left out."},
    "recursive": {"type": "boolean", "description": "List what is in the directories below, too."},
    "after": {"type": "string", "maxLength": 4096, "description": "Go on after this path, the last one of the answer before."}
  },
  "additionalProperties": false
}`

// ListFiles lists a directory.
func ListFiles() connectors.Tool {
	return connectors.Tool{
		Name: "list_files", Mount: Mount, Description: listFilesDescription, Schema: json.RawMessage(listFilesSchema), Risk: connectors.LowRisk,
		Idempotency: connectors.Safe, Reversible: true, Limit: constant(fileLimit), Check: checkPath, Facets: onFile("read"), Run: listFiles,
	}
}

func listFiles(ctx context.Context, w connectors.Workspace, input json.RawMessage) (connectors.Result, error) {
	a, err := args[struct {
		Path      string `json:"path"`
		Recursive bool   `json:"recursive"`
		After     string `json:"after"`
	}](input)
	if err != nil {
		return connectors.Result{}, err
	}
	p, err := inside(a.Path)
	if err != nil {
		return connectors.Failed("%s.", err), nil
	}
	list, err := w.List(ctx, guest.ListRequest{Path: p, Recursive: a.Recursive, After: a.After})
	if err != nil {
		return connectors.Result{}, err
	}
	if len(list.Entries) == 0 {
		return connectors.Result{Text: "[nothing]"}, nil
	}
	var b strings.Builder
	last, more := "", list.More
	for _, e := range list.Entries {
		line := describe(e)
		if b.Len()+len(line) > connectors.MaxResultBytes {
			more = true
			break
		}
		b.WriteString(line)
		last = e.Path
	}
	if more {
		fmt.Fprintf(&b, "[there are more; go on with after %q]", last)
	}
	return connectors.Result{Text: connectors.Clean([]byte(b.String()))}, nil
}

func describe(e guest.Entry) string {
	switch e.Type {
	case guest.TypeDirectory:
		return e.Path + "/\n"
	case guest.TypeSymlink:
		return e.Path + " -> " + e.Target + "\n"
	case guest.TypeFile:
		return fmt.Sprintf("%s (%d bytes)\n", e.Path, e.Size)
	default:
		return e.Path + " (neither file nor directory)\n"
	}
}
