package faults

import (
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/test/instance"
)

// TestAGuestThatMisbehavesHarmsNobody: a fork bomb, a full disk, output without end and a path outside of the working directory each get
// a clear answer that the model reads, the sandbox and its session go on, and so do others meanwhile.
func TestAGuestThatMisbehavesHarmsNobody(t *testing.T) {
	i := instance.Start(t)
	a := i.Account("bad")
	id := invoke(t, a, "ambit/scripted", strings.ReplaceAll(`
~~~bash timeout_seconds=3
:(){ :|:& };: ; sleep 1000
~~~
~~~bash timeout_seconds=60
head -c 10G /dev/zero > fill; echo "status $?"; rm fill
~~~
~~~bash timeout_seconds=2
yes abcdefg
~~~
~~~read_file ../../etc/passwd
~~~
~~~write_file path=/etc/passwd
root::0:0::/:/bin/sh
~~~
~~~bash
echo still here > note; cat note
~~~
`, "~~~", "```"), "bash", "read_file", "write_file")

	// Somebody else works while the bomb goes off.
	other := invoke(t, a, "ambit/scripted", "```bash\necho undisturbed\n```", "bash")
	require.Equal(t, "end_turn", finished(t, a, other, time.Minute).StopReason.Type)
	require.Contains(t, texts(find(journalOf(t, a, other), "agent.tool_result")[0]), "undisturbed")

	require.Equal(t, "end_turn", finished(t, a, id, 3*time.Minute).StopReason.Type)
	events := journalOf(t, a, id)
	sound(t, events)
	require.Empty(t, find(events, "sandbox.ended"), "it is still the first sandbox")
	results := find(events, "agent.tool_result")
	require.Len(t, results, 6)
	for n, want := range []struct {
		failed bool
		says   string
	}{
		{true, "time"}, {false, "No space left on device"}, {true, "time"}, {true, "outside"}, {true, "outside"}, {false, "still here"},
	} {
		require.Equal(t, want.failed, results[n].IsError, "call %d: %s", n, texts(results[n]))
		require.Contains(t, texts(results[n]), want.says, "call %d", n)
		require.Less(t, len(texts(results[n])), 64<<10, "what the model reads is bounded")
	}

	// The same paths, asked for by a person.
	for _, path := range []string{"../../etc/passwd", "/etc/passwd", "a/../../../etc/passwd", "\x00"} {
		for _, what := range []string{"/files?path=", "/files/content?path="} {
			status, body := a.Raw(http.MethodGet, "/v1/sessions/"+id+what+url.QueryEscape(path), nil)
			require.Equal(t, http.StatusBadRequest, status, "%s%q: %s", what, path, body)
			require.NotContains(t, string(body), "root:")
		}
	}
	status, body := a.Raw(http.MethodGet, "/v1/sessions/"+id+"/files/content?path=note", nil)
	require.Equal(t, http.StatusOK, status)
	require.Equal(t, "still here\n", string(body))
}
