package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/test/browser"
)

// stranger signs up a second organisation, which sees nothing of the first: its lists are empty, and the first one's addresses are
// answered as addresses that never were, byte for byte.
func (s *stories) stranger(t *testing.T) {
	owner := s.person(t, "ada")
	mine := works(t, owner.Account)
	owner.Visit(t, owner.path("sessions"))
	require.Contains(t, owner.Text(t, "main"), "Third quarter's sales", "who owns it sees it")

	tab, home := s.newcomer(t, "mallory@example.test")
	require.NotEqual(t, owner.path(), home)

	for _, list := range []struct{ path, empty string }{
		{"/sessions", "No sessions yet"}, {"/traces", "No traces yet"}, {"/agents", "No agents yet"}, {"/keys", "No keys yet"}, {"/keys?all=1", "No keys"},
	} {
		tab.Visit(t, home+list.path)
		require.Contains(t, tab.Text(t, "main"), list.empty)
		require.NotContains(t, tab.Text(t, "body"), "analyst")
		require.NotContains(t, tab.Text(t, "body"), "Third quarter")
	}
	tab.Visit(t, home+"/playground")
	require.NotContains(t, tab.Text(t, "body"), "analyst")
	tab.Visit(t, home+"/settings?tab=projects")
	require.NotContains(t, tab.Text(t, "body"), "ada")

	never := func(real string) string { // an id of the same kind that was never given
		prefix, _, _ := strings.Cut(real, "_")
		return prefix + "_0000000000000000000000000a"
	}
	for name, pair := range map[string][2]string{
		"a session":             {home + "/sessions/" + mine.Session, home + "/sessions/" + never(mine.Session)},
		"a session's stream":    {home + "/sessions/" + mine.Session + "/stream?after_seq=0", home + "/sessions/" + never(mine.Session) + "/stream?after_seq=0"},
		"a session's file":      {home + "/sessions/" + mine.Session + "/files/content?path=data/q3.csv", home + "/sessions/" + never(mine.Session) + "/files/content?path=data/q3.csv"},
		"a trace":               {home + "/traces/" + mine.Session, home + "/traces/" + never(mine.Session)},
		"an agent":              {home + "/agents/" + mine.Agent, home + "/agents/" + never(mine.Agent)},
		"an agent's editor":     {home + "/agents/" + mine.Agent + "/edit", home + "/agents/" + never(mine.Agent) + "/edit"},
		"an agent's versions":   {home + "/agents/" + mine.Agent + "/compare?from=1&to=1", home + "/agents/" + never(mine.Agent) + "/compare?from=1&to=1"},
		"the playground":        {home + "/playground?session=" + mine.Session, home + "/playground?session=" + never(mine.Session)},
		"a key by its id":       {s.URL + "/x/" + mine.Key, s.URL + "/x/" + never(mine.Key)},
		"a session by its id":   {s.URL + "/x/" + mine.Session, s.URL + "/x/" + never(mine.Session)},
		"an agent by its id":    {s.URL + "/x/" + mine.Agent, s.URL + "/x/" + never(mine.Agent)},
		"the first one's place": {owner.path("sessions"), s.URL + "/o/nobody-at-all/p/default/sessions"},
		"the session as it is":  {owner.path("sessions", mine.Session), s.URL + "/o/nobody-at-all/p/default/sessions/" + mine.Session},
		"the trace as it is":    {owner.path("traces", mine.Session), s.URL + "/o/nobody-at-all/p/default/traces/" + mine.Session},
		"the agent as it is":    {owner.path("agents", mine.Agent), s.URL + "/o/nobody-at-all/p/default/agents/" + mine.Agent},
		"the keys as they are":  {owner.path("keys"), s.URL + "/o/nobody-at-all/p/default/keys"},
	} {
		t.Run(name, func(t *testing.T) { same(t, tab, pair[0], pair[1]) })
	}
	t.Run("what changes something", func(t *testing.T) {
		for _, pair := range [][2]string{
			{home + "/keys/" + mine.Key + "/revoke", home + "/keys/" + never(mine.Key) + "/revoke"},
			{home + "/sessions/" + mine.Session + "/kill", home + "/sessions/" + never(mine.Session) + "/kill"},
			{home + "/sessions/" + mine.Session + "/interrupt", home + "/sessions/" + never(mine.Session) + "/interrupt"},
			{home + "/agents/" + mine.Agent + "/archive", home + "/agents/" + never(mine.Agent) + "/archive"},
		} {
			code, body := send(t, tab, http.MethodPost, pair[0])
			require.Equal(t, http.StatusNotFound, code, pair[0])
			_, other := send(t, tab, http.MethodPost, pair[1])
			require.Equal(t, other, body, pair[0])
		}
	})
	require.Equal(t, "idle", settled(t, owner.Account, mine.Session).Status, "and nothing of it was touched")
	require.Equal(t, http.StatusOK, owner.Call(http.MethodGet, "/v1/agents/"+mine.Agent, nil, nil))
	quiet(t, tab)
}

// same requires that an address which belongs to somebody else is answered as one that never was.
func same(t *testing.T, tab *browser.Tab, foreign, never string) {
	t.Helper()
	code, body := fetch(t, tab, foreign)
	require.Equal(t, http.StatusNotFound, code)
	code, other := fetch(t, tab, never)
	require.Equal(t, http.StatusNotFound, code)
	require.Equal(t, other, body)
}
