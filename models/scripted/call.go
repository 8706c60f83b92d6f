package scripted

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"

	"ambit.dev/ambit/models"
)

// about names the argument that a tool's block holds.
var about = map[string]string{"bash": "command", "python": "code", "write_file": "content"}

// builtin are the tools that a block may name even when the agent lacks them: then the script is wrong, where a block of an unknown language
// is only text.
var builtin = []string{"bash", "python", "read_file", "write_file", "edit_file", "list_files", "tool"}

// failures are the errors that a script can ask for.
var failures = map[models.ErrorKind]bool{
	models.RateLimited: true, models.QuotaExhausted: true, models.Overloaded: true, models.ServerError: true, models.BadRequest: true,
	models.Authentication: true, models.ContextTooLong: true, models.Unreachable: true, models.ConnectionReset: true,
	models.TruncatedStream: true, models.MalformedReply: true, models.Timeout: true,
}

func canonicalVerb(verb string) string {
	switch verb {
	case "sh", "shell":
		return "bash"
	case "py", "python3":
		return "python"
	default:
		return verb
	}
}

func isCall(verb string, offered map[string]models.Tool) bool {
	verb = canonicalVerb(verb)
	_, ok := offered[verb]
	return ok || slices.Contains(builtin, verb)
}

func toCall(f fence, offered map[string]models.Tool) (call, int, error) {
	opts, err := options(f)
	if err != nil {
		return call{}, 0, err
	}
	repeat := 1
	if value, rest := take(opts, "repeat"); value != "" {
		if repeat, err = strconv.Atoi(value); err != nil || repeat < 1 || repeat > maxRepeat {
			return call{}, 0, wrong(f.line, "repeat must be a number from 1 to %d", maxRepeat)
		}
		opts = rest
	}
	name := canonicalVerb(f.verb)
	if name == "tool" {
		name, opts = take(opts, "name")
		if len(opts) > 0 || name == "" {
			return call{}, 0, wrong(f.line, "write ```tool name=… and put the arguments into the block, as JSON")
		}
		body := strings.TrimSpace(f.body)
		if body == "" {
			body = "{}"
		}
		if body[0] != '{' || !json.Valid([]byte(body)) {
			return call{}, 0, wrong(f.line, "the arguments of %s are not a JSON object", name)
		}
		if _, ok := offered[name]; !ok {
			return call{}, 0, missing(f.line, name)
		}
		return call{name: name, input: json.RawMessage(body)}, repeat, nil
	}
	tool, ok := offered[name]
	if !ok {
		return call{}, 0, missing(f.line, name)
	}
	input := map[string]any{}
	types := propertyTypes(tool.InputSchema)
	for _, o := range opts {
		if input[o.name], err = typed(f.line, o, types[o.name]); err != nil {
			return call{}, 0, err
		}
	}
	switch {
	case name == "edit_file":
		if err := edit(f, input); err != nil {
			return call{}, 0, err
		}
	case about[name] != "":
		body := f.body
		if name == "write_file" && body != "" {
			body += "\n" // a text file ends with a line's end
		}
		if _, twice := input[about[name]]; twice {
			return call{}, 0, wrong(f.line, "%s is the block's content", about[name])
		}
		input[about[name]] = body
	case strings.TrimSpace(f.body) != "":
		return call{}, 0, wrong(f.line, "%s takes its arguments after its name; the block must be empty", name)
	}
	raw, err := json.Marshal(input)
	if err != nil {
		return call{}, 0, wrong(f.line, "the arguments can't be written as JSON")
	}
	return call{name: name, input: raw}, repeat, nil
}

func missing(line int, name string) error {
	return wrong(line, "the agent has no tool named %s", name)
}

func propertyTypes(schema json.RawMessage) map[string]string {
	var s struct {
		Properties map[string]struct {
			Type json.RawMessage `json:"type"`
		} `json:"properties"`
	}
	types := map[string]string{}
	if json.Unmarshal(schema, &s) == nil {
		for name, p := range s.Properties {
			var t string
			if json.Unmarshal(p.Type, &t) == nil {
				types[name] = t
			}
		}
	}
	return types
}

func typed(line int, o option, schemaType string) (any, error) {
	switch schemaType {
	case "integer", "number":
		if !json.Valid([]byte(o.value)) || strings.ContainsAny(o.value[:1], `"{[tfn`) {
			return nil, wrong(line, "%s must be a number", o.name)
		}
		return json.Number(o.value), nil
	case "boolean":
		b, err := strconv.ParseBool(o.value)
		if err != nil {
			return nil, wrong(line, "%s must be true or false", o.name)
		}
		return b, nil
	default:
		return o.value, nil
	}
}

// edit reads the block of an edit_file: the old text and the new between marks like those of a merge conflict.
func edit(f fence, input map[string]any) error {
	const form = "write the old text between <<<<<<< and =======, and the new one between ======= and >>>>>>>"
	var parts [2][]string
	at := -1
	for _, line := range strings.Split(f.body, "\n") {
		switch {
		case at == -1 && strings.HasPrefix(line, "<<<<<<<"):
			at = 0
		case at == 0 && strings.HasPrefix(line, "======="):
			at = 1
		case at == 1 && strings.HasPrefix(line, ">>>>>>>"):
			at = 2
		case at == 0:
			parts[0] = append(parts[0], line)
		case at == 1:
			parts[1] = append(parts[1], line)
		case strings.TrimSpace(line) != "":
			return wrong(f.line, form)
		}
	}
	if at != 2 || len(parts[0]) == 0 {
		return wrong(f.line, form)
	}
	input["old_text"], input["new_text"] = strings.Join(parts[0], "\n"), strings.Join(parts[1], "\n")
	return nil
}

func pause(f fence, opts []option) (time.Duration, error) {
	value, _ := take(opts, "seconds")
	if value == "" {
		value = strings.TrimSpace(f.body)
	}
	seconds, err := strconv.ParseFloat(value, 64)
	if err != nil || !(seconds >= 0 && seconds <= maxPause.Seconds()) {
		return 0, wrong(f.line, "write ```pause seconds=2, with 0 to %d seconds", int(maxPause.Seconds()))
	}
	return time.Duration(seconds * float64(time.Second)), nil
}

func joined(a, b string) string {
	if a == "" {
		return b
	}
	return a + "\n" + b
}
