package e2e

import (
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/require"
)

// keyboard signs in and runs the playground without a mouse.
func (s *stories) keyboard(t *testing.T) {
	a := s.Account("vera")
	tab := s.wide(t)
	tab.Visit(t, s.URL+"/")
	tab.Press(t, kb.Tab)
	require.Equal(t, "Skip to the content", tab.Focused(t), "the first stop leads past the frame")
	tab.TabTo(t, "Sign in")
	tab.Press(t, kb.Enter)
	tab.UntilSays(t, "h1", "Sign in")
	tab.Until(t, `document.activeElement?.id === "f-email"`) // a form opens with its first field
	tab.Insert(t, a.Email)
	tab.TabTo(t, "Password")
	tab.Insert(t, a.Password)
	tab.Press(t, kb.Enter)
	tab.UntilSays(t, "h1", "Overview")

	tab.Press(t, "g")
	tab.Press(t, "p")
	tab.UntilSays(t, "h1", "Playground")
	tab.TabTo(t, "Task")
	tab.Chord(t, "a")
	tab.Insert(t, "By hand.\n\n```bash\necho no mouse was moved\n```\n")
	tab.TabTo(t, "Price ceiling")
	tab.Chord(t, "a")
	tab.Insert(t, "0.10")
	tab.TabTo(t, "Run, at most $0.10")
	tab.Press(t, kb.Enter)
	tab.UntilSays(t, "#transcript", "no mouse was moved")
	tab.UntilSays(t, "#session-head .badge", "Completed")

	// Sent again from within the text, and looked at through the palette.
	tab.TabTo(t, "Message to the session")
	tab.Insert(t, "Again.\n\n```say\nStill by hand.\n```\n")
	tab.Chord(t, kb.Enter)
	tab.UntilSays(t, "#transcript", "Still by hand.")
	tab.Chord(t, "k")
	tab.Until(t, `document.querySelector("#palette").open`)
	tab.Insert(t, "sess")
	tab.Press(t, kb.Enter)
	tab.UntilSays(t, "h1", "Sessions")
	tab.Press(t, "j")
	tab.Press(t, kb.Enter)
	tab.UntilSays(t, "#session-head h1", "By hand.")
	tab.Press(t, "j")
	tab.Press(t, "?")
	tab.Until(t, `document.querySelector("#shortcuts").open`)
	tab.Press(t, kb.Escape)
	tab.Until(t, `!document.querySelector("#shortcuts").open`)
	quiet(t, tab)
}
