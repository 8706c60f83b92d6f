package builtin

import (
	"encoding/json"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/sandbox/guest"
)

// Mount is the tool mount that these tools belong to.
const Mount = "builtin"

const (
	// DefaultCommandLimit is how long a command may run that names no limit.
	DefaultCommandLimit = 2 * time.Minute
	// MaxCommandLimit is the longest that a command may ask for.
	MaxCommandLimit = time.Hour
	fileLimit       = 30 * time.Second
)

// Registry has the built-in tools that need nothing but a sandbox, and those given besides, such as HTTPRequest.
func Registry(more ...connectors.Tool) (*connectors.Registry, error) {
	return connectors.NewRegistry(append([]connectors.Tool{Bash(), Python(), ReadFile(), WriteFile(), EditFile(), ListFiles()}, more...)...)
}

// args decodes arguments that the schema has accepted.
func args[T any](input json.RawMessage) (T, error) {
	var a T
	if err := json.Unmarshal(input, &a); err != nil {
		return a, fmt.Errorf("read the arguments: %w", err)
	}
	return a, nil
}

// onlyPath is the part of every file tool's arguments that names a file.
type onlyPath struct {
	Path string `json:"path"`
}

func checkPath(input json.RawMessage) error {
	a, err := args[onlyPath](input)
	if err != nil {
		return err
	}
	_, err = inside(a.Path)
	return err
}

// onFile tells what a file tool does to which file, below the working directory.
func onFile(action string) func(json.RawMessage) (string, string) {
	return func(input json.RawMessage) (string, string) {
		a, err := args[onlyPath](input)
		if err != nil {
			return action, ""
		}
		clean, err := inside(a.Path)
		if err != nil {
			return action, ""
		}
		return action, clean
	}
}

// inside makes a path relative to the working directory. The guest has the last word, since it sees the symbolic links; here a path is
// refused that plainly leads out, before a sandbox is taken for it.
func inside(p string) (string, error) {
	if strings.ContainsRune(p, 0) {
		return "", errors.New("a path can't have a null character")
	}
	clean := path.Clean(p)
	if path.IsAbs(clean) {
		rest, ok := strings.CutPrefix(clean, guest.WorkDir)
		if !ok || (rest != "" && rest[0] != '/') {
			return "", fmt.Errorf("the path %q is outside the working directory %s", p, guest.WorkDir)
		}
		clean = strings.TrimPrefix(rest, "/")
		if clean == "" {
			clean = "."
		}
	}
	if clean == ".." || strings.HasPrefix(clean, "../") {
		return "", fmt.Errorf("the path %q is outside the working directory", p)
	}
	return clean, nil
}

func constant(d time.Duration) func(json.RawMessage) time.Duration {
	return func(json.RawMessage) time.Duration { return d }
}

const schemaPath = `"path": {"type": "string", "minLength": 1, "maxLength": 4096,
      "description": "The file, relative to the working directory."}`
