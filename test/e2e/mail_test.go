package e2e

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/notifications/mailtest"
	"ambit.dev/ambit/test/browser"
	"ambit.dev/ambit/test/instance"
)

// letters is an instance that sends mail, and where its mail arrives.
type letters struct {
	*stories

	mail *mailtest.Server
}

// TestMailedLinks goes the ways that lead through somebody's mailbox: confirming an address, choosing a new password, and joining an
// organisation, with what its admin then allows and what it may spend.
func TestMailedLinks(t *testing.T) {
	browser.KeepPicturesIn("../screens")
	mail := mailtest.New(t)
	l := &letters{stories: &stories{Instance: instance.Start(t, "AMBIT_SMTP_URL="+mail.URL(), "AMBIT_WARM_SANDBOXES=0"), browser: browser.Start(t)}, mail: mail}
	t.Run("an address is confirmed", l.confirmed)
	t.Run("a password is forgotten", l.forgotten)
	t.Run("an admin governs what a member's session does and spends", l.governed)
	t.Run("a person signs what an agent may spend, and another decides what it may do", l.authorised)
}

const firstPassword, secondPassword = "quiet rivers under old stones", "seven lanterns on the harbour wall"

// next is the mail that came after the first n: to whom it is, and its link, which leads to this instance.
func (l *letters) next(t *testing.T, n int, to, subject, path string) string {
	t.Helper()
	m := l.mail.Next(t, n)
	require.Equal(t, to, m.To)
	require.Contains(t, strings.ToLower(m.Subject), subject)
	require.True(t, strings.HasPrefix(m.Link(), l.URL+path+"?token="), m.Link())
	return m.Link()
}

// confirmed: nobody gets in before the mailbox has shown that the address is theirs, the link works once, and with the password only.
func (l *letters) confirmed(t *testing.T) {
	const email = "grace@example.test"
	n := len(l.mail.Messages())
	tab := l.wide(t)
	tab.Visit(t, l.URL+"/sign-up")
	tab.Write(t, "E-mail", email)
	tab.Write(t, "Password", firstPassword)
	tab.Choose(t, "Create account", "form")
	tab.UntilSays(t, "h1", "Check your mail")
	require.Contains(t, tab.Text(t, "main"), email)
	l.judge(t, tab, "check-mail")
	link := l.next(t, n, email, "verify your address", "/verify-email")

	l.enter(t, tab, email, firstPassword)
	tab.Until(t, `document.querySelector(".form-summary")`)
	tab.Visit(t, l.URL+"/home")
	tab.UntilSays(t, "h1", "Sign in")

	tab.Visit(t, link)
	tab.UntilSays(t, "h1", "Confirm your address")
	l.judge(t, tab, "verify-email")
	tab.Write(t, "Password", "somebody else's guess")
	tab.Choose(t, "Confirm and sign in", "form")
	tab.Until(t, `document.querySelector(".form-summary")`)
	tab.UntilSays(t, "h1", "Confirm your address")
	tab.Write(t, "Password", firstPassword)
	tab.Choose(t, "Confirm and sign in", "form")
	tab.UntilSays(t, "h1", "Welcome to Ambit")
	tab.UntilSays(t, "body", "Your address is confirmed.")
	tab.Choose(t, "Settings", ".side")
	tab.UntilSays(t, "main", "Confirmed.")

	again := l.wide(t)
	again.Visit(t, link)
	again.UntilSays(t, "h1", "This link does not work any more")

	// Somebody who signs up with the address again is told the same, and its owner hears of it.
	n = len(l.mail.Messages())
	again.Visit(t, l.URL+"/sign-up")
	again.Write(t, "E-mail", strings.ToUpper(email))
	again.Write(t, "Password", secondPassword)
	again.Choose(t, "Create account", "form")
	again.UntilSays(t, "h1", "Check your mail")
	require.Equal(t, email, l.mail.Next(t, n).To)
	l.enter(t, again, email, secondPassword)
	again.Until(t, `document.querySelector(".form-summary")`)
	quiet(t, tab)
}

// forgotten: the page says the same whether there is such an account, the link works once, and all that was open before it is closed.
func (l *letters) forgotten(t *testing.T) {
	const email = "barbara@example.test"
	n := len(l.mail.Messages())
	before := l.wide(t)
	before.Visit(t, l.URL+"/sign-up")
	before.Write(t, "E-mail", email)
	before.Write(t, "Password", firstPassword)
	before.Choose(t, "Create account", "form")
	before.UntilSays(t, "h1", "Check your mail")
	before.Visit(t, l.next(t, n, email, "verify your address", "/verify-email"))
	before.Write(t, "Password", firstPassword)
	before.Choose(t, "Confirm and sign in", "form")
	before.UntilSays(t, "h1", "Welcome to Ambit")

	n = len(l.mail.Messages())
	tab := l.wide(t)
	ask := func(email string) string {
		tab.Visit(t, l.URL+"/sign-in")
		tab.Choose(t, "Forgot the password?", "main")
		tab.UntilSays(t, "h1", "Reset your password")
		tab.Write(t, "E-mail", email)
		tab.Choose(t, "Send the link", "form")
		tab.UntilSays(t, "main", "a link is on its way")
		return strings.ReplaceAll(tab.Text(t, "main"), email, "")
	}
	unknown := ask("nobody@example.test")
	require.Equal(t, unknown, ask(email), "the page does not tell whether there is such an account")
	l.judge(t, tab, "forgot-password-sent")
	link := l.next(t, n, email, "choose a new password", "/reset-password")
	require.Len(t, l.mail.Messages(), n+1, "an address without an account gets no mail")

	tab.Visit(t, link)
	tab.UntilSays(t, "h1", "Choose a new password")
	l.judge(t, tab, "reset-password")
	tab.Write(t, "New password", "1234567890")
	tab.Choose(t, "Change password and sign in", "form")
	tab.Until(t, `document.querySelector(".form-summary")`)
	tab.UntilSays(t, "h1", "Choose a new password")
	tab.Write(t, "New password", secondPassword)
	tab.Choose(t, "Change password and sign in", "form")
	tab.UntilSays(t, "h1", "Overview")
	tab.UntilSays(t, "body", "Your password is changed.")
	told := l.mail.Next(t, n+1)
	require.Equal(t, email, told.To)
	require.Contains(t, told.Subject, "was changed", "its owner hears of it")

	before.Reload(t)
	before.UntilSays(t, "h1", "Sign in")
	l.enter(t, before, email, firstPassword)
	before.Until(t, `document.querySelector(".form-summary")`)
	before.Visit(t, link)
	before.UntilSays(t, "h1", "This link does not work any more")
	before.Choose(t, "Ask for another", "main")
	before.UntilSays(t, "h1", "Reset your password")
	l.enter(t, before, email, secondPassword)
	before.UntilSays(t, "h1", "Overview")
	quiet(t, tab)
}

// judge looks at the page that the tab shows, in every look.
func (l *letters) judge(t *testing.T, tab *browser.Tab, name string) {
	t.Helper()
	for _, look := range browser.AllLooks {
		tab.See(t, look)
		tab.JudgeHere(t, name, look)
	}
	tab.See(t, browser.AllLooks[0])
}
