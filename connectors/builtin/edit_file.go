package builtin

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/sandbox/guest"
)

//go:embed edit_file.md
var editFileDescription string

const editFileSchema = `{
  "type": "object",
  "properties": {
    ` + schemaPath + `,
    "old_text": {"type": "string", "minLength": 1, "description": "The text to replace, exactly as it stands in the file, with its spaces and line breaks."},
    "new_text": {"type": "string", "description": "What takes its place; empty to remove it."},
    "replace_all": {"type": "boolean", "description": "Replace every occurrence. When left out, there must be exactly one."}
  },
  "required": ["path", "old_text", "new_text"],
  "additionalProperties": false
}`

// maxEdit bounds the file that can be edited.
const maxEdit = 4 << 20

type editArgs struct {
	Path       string `json:"path"`
	OldText    string `json:"old_text"`
	NewText    string `json:"new_text"`
	ReplaceAll bool   `json:"replace_all"`
}

// EditFile replaces text in a file. It is not idempotent: text that was replaced may occur in what replaced it.
func EditFile() connectors.Tool {
	return connectors.Tool{
		Name: "edit_file", Mount: Mount, Description: editFileDescription, Schema: json.RawMessage(editFileSchema), Risk: connectors.MediumRisk,
		Idempotency: connectors.Neither, Reversible: true, Limit: constant(fileLimit),
		Facets: onFile("write"),
		Check: func(input json.RawMessage) error {
			a, err := args[editArgs](input)
			if err != nil {
				return err
			}
			if a.OldText == a.NewText {
				return errors.New("old_text and new_text are the same")
			}
			_, err = inside(a.Path)
			return err
		},
		Run: editFile,
	}
}

func editFile(ctx context.Context, w connectors.Workspace, input json.RawMessage) (connectors.Result, error) {
	a, err := args[editArgs](input)
	if err != nil {
		return connectors.Result{}, err
	}
	p, err := inside(a.Path)
	if err != nil {
		return connectors.Failed("%s.", err), nil
	}
	file, err := w.ReadFile(ctx, guest.ReadRequest{Path: p, Limit: maxEdit})
	if err != nil {
		return connectors.Result{}, err
	}
	switch {
	case file.Size > maxEdit:
		return connectors.Failed("%s has %d bytes; edit_file takes files of at most %d. Use bash, for example sed.", p, file.Size, maxEdit), nil
	case binary(file.Data):
		return connectors.Failed("%s is a binary file. Use bash.", p), nil
	}
	content, count, at := replace(file.Data, a)
	switch {
	case count == 0:
		return connectors.Failed("old_text does not occur in %s. It must match exactly, spaces and line breaks included; read the file again before you retry.%s", p, hint(file.Data, a)), nil
	case count > 1 && !a.ReplaceAll:
		return connectors.Failed("old_text occurs %d times in %s, first in line %d. Add the lines around it to make it unique, or set replace_all.", count, p, at), nil
	}
	if _, err := w.WriteFile(ctx, guest.WriteRequest{Path: p}, content); err != nil {
		return connectors.Result{}, err
	}
	if count > 1 {
		return connectors.Result{Text: fmt.Sprintf("Replaced %d occurrences in %s, the first in line %d.", count, p, at)}, nil
	}
	return connectors.Result{Text: fmt.Sprintf("Replaced 1 occurrence in %s, in line %d.", p, at)}, nil
}

// replace returns the new content, how often the old text occurs, and in which line first. A file with Windows line ends is matched, and
// written, with those: a model is shown them and writes plain ones.
func replace(data []byte, a editArgs) ([]byte, int, int) {
	before, after := []byte(a.OldText), []byte(a.NewText)
	count := bytes.Count(data, before)
	if count == 0 && bytes.Contains(data, []byte("\r\n")) {
		before, after = windows(before), windows(after)
		count = bytes.Count(data, before)
	}
	if count == 0 {
		return nil, 0, 0
	}
	at := 1 + bytes.Count(data[:bytes.Index(data, before)], []byte("\n"))
	return bytes.ReplaceAll(data, before, after), count, at
}

func windows(b []byte) []byte {
	plain := bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n"))
	return bytes.ReplaceAll(plain, []byte("\n"), []byte("\r\n"))
}

// hint looks for the usual mistakes: the right words with other spaces, and an edit that was made already, which is also what a call sees that
// is taken up again after its worker was lost.
func hint(data []byte, a editArgs) string {
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	if a.NewText != "" {
		if _, count, at := replace(data, editArgs{OldText: a.NewText}); count > 0 {
			return fmt.Sprintf(" But new_text does, in line %d: this edit seems to have been made already.", at)
		}
	}
	want := squeeze(a.OldText)
	if want != "" && strings.Contains(squeeze(string(data)), want) {
		return " The same words are there, with other spaces or line breaks."
	}
	return ""
}
