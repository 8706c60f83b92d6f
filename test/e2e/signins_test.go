package e2e

import (
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// signIns signs in from two browsers, ends one from the other, signs out, and is slowed down when the password is wrong again and again.
func (s *stories) signIns(t *testing.T) {
	p := s.person(t, "joan")
	p.Choose(t, "Account", ".topbar")
	p.Choose(t, "Sign out", ".topbar")
	p.UntilSays(t, "h1", "Sign in")
	p.Visit(t, p.path("keys"))
	p.UntilSays(t, "h1", "Sign in")
	require.Contains(t, p.Path(t), "next=", "the way back is kept")
	p.Write(t, "E-mail", p.Email)
	p.Write(t, "Password", p.Password)
	p.Choose(t, "Sign in", "form")
	p.UntilSays(t, "h1", "Keys")

	other := s.wide(t)
	s.enter(t, other, p.Email, p.Password)
	other.UntilSays(t, "h1", "Overview")
	p.Choose(t, "Settings", ".side")
	p.UntilSays(t, "main", "Sign-ins")
	rows := p.Texts(t, "main table tbody tr")
	require.Len(t, rows, 2, "the one that was signed out is gone, two are open")
	require.Equal(t, 1, strings.Count(strings.Join(rows, "\n"), "this one"))
	for _, row := range rows {
		require.Contains(t, row, "Chrom")
		require.Contains(t, row, "127.0.0.1")
	}
	p.Click(t, `main tbody form button[type=submit]`)
	p.Until(t, `document.querySelectorAll("main table tbody tr").length === 1`)
	other.Reload(t)
	other.UntilSays(t, "h1", "Sign in")
	p.Reload(t)
	p.UntilSays(t, "h1", "Settings")
	quiet(t, p.Tab)

	tab := s.wide(t)
	s.enter(t, tab, "nobody@example.test", "not a password at all")
	tab.UntilSays(t, ".form-summary", "")
	unknown := tab.Text(t, ".form-summary")
	s.enter(t, tab, p.Email, "not the password")
	tab.Until(t, `document.querySelector(".form-summary")`)
	require.Equal(t, unknown, tab.Text(t, ".form-summary"), "the answer does not tell whether there is such an account")
	require.Equal(t, p.Email, tab.Value(t, "#f-email"), "what was typed is kept")
	require.Empty(t, tab.Value(t, "#f-password"))
	deadline := time.Now().Add(patience)
	for !strings.Contains(strings.ToLower(tab.Text(t, ".form-summary")), "too many") {
		require.True(t, time.Now().Before(deadline), "guessing is not slowed down: %s", tab.Text(t, ".form-summary"))
		loaded := tab.Loaded(t)
		tab.Write(t, "Password", "not the password either")
		tab.Choose(t, "Sign in", "form")
		tab.Until(t, `document.querySelector(".form-summary") && performance.timeOrigin !== `+strconv.FormatFloat(loaded, 'f', -1, 64))
	}
	require.Regexp(t, `\d+ seconds?|\d+ s\b|a minute|minutes`, tab.Text(t, ".form-summary"), "it says how long to wait")
	quiet(t, tab)
}
