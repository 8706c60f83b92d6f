package console_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestTheListOfAgentsSaysWhatTheyDid: runs and cost of the last seven days stand beside each agent, and lead to those sessions.
func TestTheListOfAgentsSaysWhatTheyDid(t *testing.T) {
	w := newWorld(t)
	ada := w.account(t, "ada@example.com", "Ada")
	busy := w.agent(t, ada, "analyst", "")
	w.agent(t, ada, "newcomer", "")
	spent := w.invoke(t, ada, busy, "Hello", "first").Charged + w.invoke(t, ada, busy, "Hello again", "second").Charged
	require.Positive(t, spent)

	client := w.client(t, &ada)
	code, body := get(t, client, w.URL+ada.path+"/agents")
	require.Equal(t, 200, code)
	row := func(name string) string {
		_, rest, ok := strings.Cut(body, ">"+name+"</a>")
		require.True(t, ok, name)
		out, _, _ := strings.Cut(rest, "</tr>")
		return out
	}
	list := ada.path + "/sessions?agent=" + string(busy.ID) + "&amp;since=7d"
	require.Contains(t, row("analyst"), `<a href="`+list+`">2</a>`)
	require.Contains(t, row("analyst"), "none failed")
	require.Contains(t, row("analyst"), spent.Display())
	require.Contains(t, row("newcomer"), `<span class="faint">0</span>`)
	require.Contains(t, row("newcomer"), "—")
	require.NotContains(t, row("newcomer"), "$0.00")

	code, body = get(t, client, w.URL+strings.ReplaceAll(list, "&amp;", "&"))
	require.Equal(t, 200, code)
	require.Contains(t, body, ">first</a>")
	require.Contains(t, body, ">second</a>")
}
