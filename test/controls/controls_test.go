package controls

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// control is a patch with its header: lines of "name: value" before the first line of the diff.
type control struct {
	guard     string // what the patch removes, in words
	pkg, test string // the test that must fail
	assertion string // and what it must say
	diff      string
}

func TestEachGuardIsProvedByATestThatFailsWithoutIt(t *testing.T) {
	patches, err := filepath.Glob("patches/*.patch")
	require.NoError(t, err)
	require.NotEmpty(t, patches)
	root, err := filepath.Abs("../..")
	require.NoError(t, err)
	copied := copyOf(t, root)
	for _, path := range patches {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".patch"), func(t *testing.T) {
			c := read(t, path)
			run(t, copied, strings.NewReader(c.diff), "git", "apply", "--unidiff-zero", "-")
			defer run(t, copied, strings.NewReader(c.diff), "git", "apply", "--unidiff-zero", "--reverse", "-")
			cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "^"+c.test+"$", c.pkg)
			cmd.Dir = copied
			out, err := cmd.CombinedOutput()
			require.Error(t, err, "without its guard (%s) the test still passes: it proves nothing\n%s", c.guard, out)
			require.Contains(t, string(out), "--- FAIL: "+c.test, "the test did not run")
			require.Contains(t, string(out), c.assertion, "the test fails, but not on the assertion that is there for the guard")
		})
	}
}

// copyOf copies what git knows of, as it is in the work tree, with a repository of its own so that patches apply there and nowhere else.
func copyOf(t *testing.T, root string) string {
	t.Helper()
	dir := t.TempDir()
	list := exec.CommandContext(t.Context(), "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = root
	names, err := list.Output()
	require.NoError(t, err)
	for name := range strings.SplitSeq(strings.TrimSuffix(string(names), "\x00"), "\x00") {
		content, err := os.ReadFile(filepath.Join(root, name))
		if os.IsNotExist(err) {
			continue // deleted in the work tree
		}
		require.NoError(t, err)
		to := filepath.Join(dir, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(to), 0o750))
		require.NoError(t, os.WriteFile(to, content, 0o600))
	}
	run(t, dir, nil, "git", "init", "-q")
	return dir
}

func read(t *testing.T, path string) (c control) {
	t.Helper()
	raw, err := os.ReadFile(path)
	require.NoError(t, err)
	header, diff, ok := strings.Cut(string(raw), "\n---")
	require.True(t, ok, "%s holds no diff", path)
	c.diff = "---" + diff
	for line := range strings.Lines(header) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch name {
		case "guard":
			c.guard = value
		case "package":
			c.pkg = value
		case "test":
			c.test = value
		case "assertion":
			c.assertion = value
		}
	}
	require.NotEmpty(t, c.guard)
	require.NotEmpty(t, c.pkg)
	require.NotEmpty(t, c.test)
	require.NotEmpty(t, c.assertion)
	return c
}

func run(t *testing.T, dir string, in *strings.Reader, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(name, args...) //nolint:noctx // short, and the reverse must run at the end of a test too
	cmd.Dir = dir
	if in != nil {
		cmd.Stdin = in
	}
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	require.NoError(t, cmd.Run(), "%s %s\n%s", name, strings.Join(args, " "), out.String())
}
