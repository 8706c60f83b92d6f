package e2e

import (
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/money"
)

// pastedLine makes a key, copies the line that the page shows, and gives it to a shell.
func (s *stories) pastedLine(t *testing.T) {
	p := s.person(t, "radia")
	p.Choose(t, "Keys", ".side")
	p.Choose(t, "New key", ".page-actions")
	p.Write(t, "Name", "terminal")
	p.Choose(t, "Create key", "form")
	p.UntilSays(t, "h1", "terminal is made")
	p.Click(t, `button[data-copy-from="curl"]`)
	p.Until(t, `document.querySelector('button[data-copy-from="curl"][data-copied]')`)
	line := p.Clipboard(t)
	require.Equal(t, strings.TrimSpace(p.Text(t, "#curl")), strings.TrimSpace(line))

	out, stderr := paste(t, line)
	var answer struct {
		Cost struct {
			Charged money.Nanos `json:"charged"`
		} `json:"cost"`
	}
	require.NoError(t, json.Unmarshal([]byte(out), &answer), "%s\n%s", out, stderr)
	require.Contains(t, out, "Linux", "the command ran")
	require.Positive(t, answer.Cost.Charged)
	p.Choose(t, "Sessions", "main")
	p.UntilSays(t, "main table", "Completed")
	p.Choose(t, "Keys", ".side")
	p.UntilSays(t, "main table", "terminal")
	require.NotContains(t, p.Text(t, "main tbody tr"), "never\n", "the key was used a moment ago")

	// The playground's line runs the same task that its form holds, with the key in a variable.
	p.Choose(t, "Playground", ".side")
	p.Write(t, "Task", "Say it's \"quoted\".\n\n```bash\necho \"it's $((40+2))\" '\"as it is\"'\n```\n")
	p.Press(t, "\t")
	p.UntilSays(t, "#estimate", "Likely") // what it likely costs comes in above the line, and moves it
	p.Choose(t, "As curl", "main")
	p.UntilSays(t, "#as-curl", "as it is")
	out, stderr = paste(t, "export AMBIT_API_KEY="+keyIn(line)+"\n"+p.Text(t, "#curl"))
	require.Contains(t, out, `it's 42 \"as it is\"`, "%s", stderr)
	require.Contains(t, out, "event: ", "it is a stream of events")
	quiet(t, p.Tab)
}

// paste gives lines to a shell as somebody would who pasted them.
func paste(t *testing.T, lines string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", lines)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()} //nolint:forbidigo // a shell of its own
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	require.NoError(t, err, "%s\n%s", errs.String(), out)
	return string(out), errs.String()
}

func keyIn(line string) string {
	_, rest, _ := strings.Cut(line, "Bearer ")
	key, _, _ := strings.Cut(rest, "'")
	return key
}
