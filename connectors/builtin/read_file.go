package builtin

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"unicode/utf8"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/sandbox/guest"
)

//go:embed read_file.md
var readFileDescription string

const readFileSchema = `{
  "type": "object",
  "properties": {
    ` + schemaPath + `,
    "offset": {"type": "integer", "minimum": 1, "description": "The first line to read, counted from 1; 1 when left out."},
    "limit": {"type": "integer", "minimum": 1, "maximum": 10000, "description": "How many lines to read at most; 2000 when left out."}
  },
  "required": ["path"],
  "additionalProperties": false
}`

const (
	defaultLines = 2000
	readChunk    = 1 << 20
	// maxScan is how far into a file lines are counted.
	maxScan = 64 << 20
)

// ReadFile shows lines of a text file.
func ReadFile() connectors.Tool {
	return connectors.Tool{
		Name: "read_file", Mount: Mount, Description: readFileDescription, Schema: json.RawMessage(readFileSchema), Risk: connectors.LowRisk,
		Idempotency: connectors.Safe, Reversible: true, Limit: constant(fileLimit), Check: checkPath, Facets: onFile("read"), Run: readFile,
	}
}

func readFile(ctx context.Context, w connectors.Workspace, input json.RawMessage) (connectors.Result, error) {
	a, err := args[struct {
		Path   string `json:"path"`
		Offset int    `json:"offset"`
		Limit  int    `json:"limit"`
	}](input)
	if err != nil {
		return connectors.Result{}, err
	}
	p, err := inside(a.Path)
	if err != nil {
		return connectors.Failed("%s.", err), nil
	}
	first, most := max(a.Offset, 1), a.Limit
	if most == 0 {
		most = defaultLines
	}
	var (
		text     []byte
		line     = 1 // of the byte at offset
		taken    int
		size     int64
		more     bool // something of the file follows what is shown
		cutShort bool
		last     byte = '\n'
	)
	for offset := int64(0); ; {
		part, err := w.ReadFile(ctx, guest.ReadRequest{Path: p, Offset: offset, Limit: readChunk})
		if err != nil {
			return connectors.Result{}, err
		}
		size = part.Size
		if n := len(part.Data); n > 0 {
			last = part.Data[n-1]
		}
		if offset == 0 && binary(part.Data) {
			return connectors.Failed("%s is a binary file of %d bytes, not text. Look at it with bash, for example with xxd or file.", p, size), nil
		}
		offset += int64(len(part.Data))
		for rest := part.Data; len(rest) > 0; {
			i := bytes.IndexByte(rest, '\n')
			end := i + 1
			if i < 0 {
				end = len(rest)
			}
			if line >= first {
				if taken == most || len(text) >= connectors.MaxResultBytes {
					more = true
					break
				}
				text = append(text, rest[:end]...)
				if len(text) > connectors.MaxResultBytes {
					text, cutShort, more = wholeCharacters(text[:connectors.MaxResultBytes]), true, true
					break
				}
			}
			if i >= 0 {
				if line >= first {
					taken++
				}
				line++
			}
			rest = rest[end:]
		}
		if more || len(part.Data) == 0 || offset >= size {
			break
		}
		if offset >= maxScan {
			return connectors.Failed("Line %d of %s is beyond the first %d bytes. Use bash, for example sed -n or tail.", first, p, maxScan), nil
		}
	}
	switch {
	case size == 0:
		return connectors.Result{Text: "[" + p + " is empty]"}, nil
	case len(text) == 0:
		lines := line - 1
		if last != '\n' {
			lines = line // a last line without an end
		}
		return connectors.Failed("%s has %d lines only.", p, lines), nil
	}
	shown := connectors.Clean(text)
	if more {
		next := first + taken
		note := fmt.Sprintf("[Shown: lines %d to %d. Read on with offset %d.]", first, next-1, next)
		if cutShort {
			note = fmt.Sprintf("[Shown: from line %d, cut within line %d, because an answer has at most %d bytes.]", first, next, connectors.MaxResultBytes)
			if taken > 0 {
				note = fmt.Sprintf("[Shown: from line %d, cut within line %d, because an answer has at most %d bytes. Read on with offset %d.]", first, next, connectors.MaxResultBytes, next)
			}
		}
		if shown[len(shown)-1] != '\n' {
			shown += "\n"
		}
		shown += note
	}
	return connectors.Result{Text: shown}, nil
}

// binary guesses from a file's beginning, as git does: a null byte, or, here, bytes that are no UTF-8.
func binary(b []byte) bool {
	b = b[:min(len(b), 8000)]
	if bytes.IndexByte(b, 0) >= 0 {
		return true
	}
	return !utf8.Valid(wholeCharacters(b))
}
