package builtin_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/connectors/builtin"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/models"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/sandbox/guest"
)

// folder is a workspace on this machine: real files and real processes, without a sandbox's walls.
type folder struct{ root string }

func (folder) EffectKey() string { return "stp_test" }

func (f folder) Exec(ctx context.Context, spec sandbox.ExecSpec, out sandbox.Output) (*sandbox.ExecResult, error) {
	ctx, cancel := context.WithTimeout(ctx, spec.TimeLimit)
	defer cancel()
	argv := spec.Argv
	if len(argv) == 0 {
		argv = []string{"bash"}
	}
	script := filepath.Join(f.root, "..", "script")
	if err := os.WriteFile(script, []byte(spec.Script), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, argv[0], append(argv[1:], script)...)
	cmd.Dir, cmd.WaitDelay = f.root, 100*time.Millisecond
	output, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) && ctx.Err() == nil {
		return nil, err
	}
	res := &sandbox.ExecResult{ExitCode: cmd.ProcessState.ExitCode(), StdoutBytes: int64(len(output)), TimedOut: ctx.Err() != nil, Duration: spec.TimeLimit}
	shown := output[:min(int64(len(output)), spec.OutputLimit)]
	if len(shown) < len(output) {
		res.Truncated, res.OutputPath, res.Tail = true, guest.OutputDir+"/stp_test.txt", output[max(len(shown), len(output)-4096):]
	}
	for len(shown) > 0 {
		n := min(1000, len(shown))
		if err := out(guest.Chunk{Stream: guest.Stdout, Data: shown[:n]}); err != nil {
			return nil, err
		}
		shown = shown[n:]
	}
	return res, nil
}

func (f folder) refusal(p string, err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return guest.Errorf(guest.CodeNotFound, "%s does not exist", p)
	case err != nil:
		return guest.Errorf(guest.CodeIsDirectory, "%s: %v", p, err)
	}
	return nil
}

func (f folder) ReadFile(_ context.Context, req guest.ReadRequest) (*guest.ReadResult, error) {
	b, err := os.ReadFile(filepath.Join(f.root, req.Path))
	if err != nil {
		return nil, f.refusal(req.Path, err)
	}
	size := int64(len(b))
	b = b[min(req.Offset, size):]
	return &guest.ReadResult{Data: b[:min(req.Limit, int64(len(b)))], Entry: guest.Entry{Path: req.Path, Size: size}}, nil
}

func (f folder) WriteFile(_ context.Context, req guest.WriteRequest, content []byte) (*guest.Entry, error) {
	p := filepath.Join(f.root, req.Path)
	if req.Parents {
		if err := os.MkdirAll(filepath.Dir(p), 0o700); err != nil {
			return nil, f.refusal(req.Path, err)
		}
	}
	if err := os.WriteFile(p, content, 0o600); err != nil {
		return nil, f.refusal(req.Path, err)
	}
	return &guest.Entry{Path: req.Path, Size: int64(len(content))}, nil
}

func (f folder) List(_ context.Context, req guest.ListRequest) (*guest.ListResult, error) {
	var out []guest.Entry
	err := filepath.WalkDir(filepath.Join(f.root, req.Path), func(p string, d fs.DirEntry, err error) error {
		rel, _ := filepath.Rel(f.root, p)
		switch {
		case err != nil:
			return err
		case rel == "." || rel == req.Path:
			return nil
		case d.IsDir():
			out = append(out, guest.Entry{Path: rel, Type: guest.TypeDirectory})
			if !req.Recursive {
				return fs.SkipDir
			}
			return nil
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		out = append(out, guest.Entry{Path: rel, Type: guest.TypeFile, Size: info.Size()})
		return nil
	})
	sort.Slice(out, func(i, j int) bool { return out[i].Path < out[j].Path })
	return &guest.ListResult{Entries: out}, f.refusal(req.Path, err)
}

func (f folder) Stat(context.Context, string) (*guest.Entry, error) {
	return nil, errors.New("no tool asks")
}

func workspace(t *testing.T) folder {
	t.Helper()
	root := filepath.Join(t.TempDir(), "work")
	require.NoError(t, os.Mkdir(root, 0o700))
	return folder{root: root}
}

func (f folder) put(t *testing.T, name, content string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(f.root, name), []byte(content), 0o600))
}

func (f folder) get(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(f.root, name))
	require.NoError(t, err)
	return string(b)
}

// call checks the arguments and runs the tool as a session does, but for the admission.
func call(t *testing.T, f folder, tool string, arguments any) connectors.Result {
	t.Helper()
	r, err := builtin.Registry()
	require.NoError(t, err)
	input, err := json.Marshal(arguments)
	require.NoError(t, err)
	p, err := r.Check(tool, input)
	require.NoError(t, err)
	res, err := connectors.Run(context.Background(), p, f)
	require.NoError(t, err)
	require.True(t, utf8.ValidString(res.Text))
	require.NotContains(t, res.Text, "\x00")
	require.LessOrEqual(t, len(res.Text), connectors.MaxResultBytes+1000)
	return res
}

type m = map[string]any

func TestBash(t *testing.T) {
	f := workspace(t)
	require.Equal(t, connectors.Result{Text: "hi\n"}, call(t, f, "bash", m{"command": "echo hi"}))
	require.Equal(t, connectors.Result{Text: "[no output]"}, call(t, f, "bash", m{"command": "true"}))
	require.Equal(t, connectors.Result{Text: "oops\n[exit code 3]", IsError: true}, call(t, f, "bash", m{"command": "printf oops >&2; exit 3"}))
	require.Equal(t, "a\u2400\uFFFDb", call(t, f, "bash", m{"command": `printf 'a\0\xffb'`}).Text)

	res := call(t, f, "bash", m{"command": "sleep 30", "timeout_seconds": 1})
	require.True(t, res.IsError)
	require.Contains(t, res.Text, "timed out after 1s")

	res = call(t, f, "bash", m{"command": "for i in $(seq 100000); do echo line $i; done"})
	require.False(t, res.IsError)
	require.Contains(t, res.Text, "line 1\n")
	require.Contains(t, res.Text, "bytes left out here. The whole is in .ambit/outputs/stp_test.txt")
	require.True(t, strings.HasSuffix(res.Text, "line 100000\n"))
	require.Equal(t, ".ambit/outputs/stp_test.txt", res.KeptAt)

	// A little more than is passed on: the end completes it, and nothing comes twice.
	res = call(t, f, "bash", m{"command": "for i in $(seq 1000 5999); do echo $i x; done | head -c 30000"})
	require.Len(t, res.Text, 30_000)
	require.Empty(t, res.KeptAt)
	require.NotContains(t, res.Text, "left out")
}

func TestPython(t *testing.T) {
	f := workspace(t)
	require.Equal(t, connectors.Result{Text: "42\n"}, call(t, f, "python", m{"code": "print(6 * 7)"}))
	res := call(t, f, "python", m{"code": "1/0"})
	require.True(t, res.IsError)
	require.Contains(t, res.Text, "ZeroDivisionError")
	require.Contains(t, res.Text, "[exit code 1]")
}

func TestReadFile(t *testing.T) {
	f := workspace(t)
	f.put(t, "a.txt", "one\ntwo\r\nthree")
	require.Equal(t, "one\ntwo\r\nthree", call(t, f, "read_file", m{"path": "a.txt"}).Text)
	require.Equal(t, "one\ntwo\r\nthree", call(t, f, "read_file", m{"path": "/work/./b/../a.txt"}).Text)
	require.Equal(t, "two\r\n[Shown: lines 2 to 2. Read on with offset 3.]", call(t, f, "read_file", m{"path": "a.txt", "offset": 2, "limit": 1}).Text)
	require.Equal(t, "three", call(t, f, "read_file", m{"path": "a.txt", "offset": 3}).Text)
	res := call(t, f, "read_file", m{"path": "a.txt", "offset": 9})
	require.True(t, res.IsError)
	require.Contains(t, res.Text, "has 3 lines only")
	require.True(t, call(t, f, "read_file", m{"path": "nope"}).IsError)

	f.put(t, "empty", "")
	require.Equal(t, "[empty is empty]", call(t, f, "read_file", m{"path": "empty"}).Text)
	f.put(t, "binary", "\x7fELF\x00\x01")
	require.Contains(t, call(t, f, "read_file", m{"path": "binary"}).Text, "binary file of 6 bytes")
	f.put(t, "latin1", "caf\xe9 au lait")
	require.Contains(t, call(t, f, "read_file", m{"path": "latin1"}).Text, "binary file")
	f.put(t, "long", strings.Repeat("é", 30_000)+"\nend\n")
	res = call(t, f, "read_file", m{"path": "long"})
	require.Contains(t, res.Text, "cut within line 1")
	require.NotContains(t, res.Text, "\uFFFD")
	var lines strings.Builder
	for i := range 300_000 {
		fmt.Fprintf(&lines, "line %d\n", i+1)
	}
	f.put(t, "many", lines.String())
	res = call(t, f, "read_file", m{"path": "many", "offset": 250_000, "limit": 2})
	require.Equal(t, "line 250000\nline 250001\n[Shown: lines 250000 to 250001. Read on with offset 250002.]", res.Text)
}

func TestWriteAndList(t *testing.T) {
	f := workspace(t)
	require.Equal(t, "Wrote d/e/a.txt (3 bytes).", call(t, f, "write_file", m{"path": "d/e/a.txt", "content": "abc"}).Text)
	require.Equal(t, "abc", f.get(t, "d/e/a.txt"))
	require.Equal(t, "d/\n", call(t, f, "list_files", m{}).Text)
	require.Equal(t, "d/\nd/e/\nd/e/a.txt (3 bytes)\n", call(t, f, "list_files", m{"recursive": true}).Text)
	require.Equal(t, "d/e/\n", call(t, f, "list_files", m{"path": "d"}).Text)
	require.True(t, call(t, f, "list_files", m{"path": "nope"}).IsError)
}

func TestEditFile(t *testing.T) {
	f := workspace(t)
	edit := func(old, new string, all bool) connectors.Result {
		return call(t, f, "edit_file", m{"path": "a.txt", "old_text": old, "new_text": new, "replace_all": all})
	}
	f.put(t, "a.txt", "x\none two\none\n")
	require.Contains(t, edit("one", "1", false).Text, "old_text occurs 2 times in a.txt, first in line 2")
	require.Equal(t, "Replaced 1 occurrence in a.txt, in line 2.", edit("one two", "1 2", false).Text)
	require.Equal(t, "x\n1 2\none\n", f.get(t, "a.txt"))
	res := edit("1   2", "", false)
	require.True(t, res.IsError)
	require.Contains(t, res.Text, "with other spaces or line breaks")
	res = edit("one two", "1 2", false)
	require.True(t, res.IsError)
	require.Contains(t, res.Text, "in line 2: this edit seems to have been made already")
	f.put(t, "a.txt", "a a a")
	require.Equal(t, "Replaced 3 occurrences in a.txt, the first in line 1.", edit("a", "", true).Text)
	require.Equal(t, "  ", f.get(t, "a.txt"))

	f.put(t, "a.txt", "one\r\ntwo\r\nthree\r\n")
	require.False(t, edit("one\ntwo", "1\n2", false).IsError)
	require.Equal(t, "1\r\n2\r\nthree\r\n", f.get(t, "a.txt"), "Windows line ends stay")
	f.put(t, "a.txt", "\x00\x01")
	require.True(t, edit("a", "b", false).IsError)
	require.Equal(t, "\x00\x01", f.get(t, "a.txt"))
}

func TestArgumentsAreChecked(t *testing.T) {
	r, err := builtin.Registry()
	require.NoError(t, err)
	for _, c := range []struct{ tool, input, says string }{
		{"bash", `{}`, "missing property 'command'"},
		{"bash", `{"command":"ls","cwd":"/"}`, "'cwd' not allowed"},
		{"bash", `{"command":5}`, "command: got number, want string"},
		{"bash", `{"command":"ls","timeout_seconds":99999}`, "timeout_seconds: maximum"},
		{"bash", `[]`, "got array, want object"},
		{"bash", string(models.MalformedInput(`{"command":`)), "not a JSON object"},
		{"read_file", `{"path":"../etc/passwd"}`, "outside the working directory"},
		{"read_file", `{"path":"/etc/passwd"}`, "outside the working directory"},
		{"read_file", `{"path":"a/../../b"}`, "outside the working directory"},
		{"read_file", `{"path":"/workshop"}`, "outside the working directory"},
		{"read_file", `{"path":"a\u0000b"}`, "null character"},
		{"write_file", `{"path":"/work/../x","content":""}`, "outside the working directory"},
		{"list_files", `{"path":".."}`, "outside the working directory"},
		{"edit_file", `{"path":"a","old_text":"x","new_text":"x"}`, "are the same"},
		{"rm", `{}`, "There is no tool named \"rm\". The tools are: bash, edit_file"},
	} {
		_, err := r.Check(c.tool, json.RawMessage(c.input))
		require.Error(t, err, c.input)
		require.Contains(t, fault.As(err).Message, c.says)
	}
	p, err := r.Check("bash", json.RawMessage(`{"command":"ls","timeout_seconds":5}`))
	require.NoError(t, err)
	require.Equal(t, 5*time.Second, p.TimeLimit)
	require.True(t, p.Command)
	require.NotEqual(t, [32]byte{}, p.Digest)
	again, err := r.Check("bash", json.RawMessage(`{ "timeout_seconds" : 5, "command" : "ls" }`))
	require.NoError(t, err)
	require.Equal(t, p.Digest, again.Digest)
	other, err := r.Check("python", json.RawMessage(`{"code":"ls"}`))
	require.NoError(t, err)
	require.NotEqual(t, p.Digest, other.Digest)
}

func TestEveryToolIsDescribedAndFitsAProvider(t *testing.T) {
	r, err := builtin.Registry()
	require.NoError(t, err)
	require.Equal(t, []string{"bash", "edit_file", "list_files", "python", "read_file", "write_file"}, r.Names())
	request := models.Request{
		Model: "ambit/scripted", MaxTokens: 1, Tools: r.Definitions(append(r.Names(), "gone")),
		Messages: []models.Message{{Role: models.User, Content: []models.Block{models.TextBlock("x")}}},
	}
	require.NoError(t, request.Validate())
	require.Len(t, request.Tools, 6)
	for _, tool := range request.Tools {
		require.NotEmpty(t, tool.Description)
		require.NoError(t, connectors.ValidateSchema("/x", tool.InputSchema))
	}
}
