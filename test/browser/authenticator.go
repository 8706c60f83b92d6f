package browser

import (
	"testing"

	"github.com/chromedp/cdproto/webauthn"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"
)

// Authenticator is a virtual authenticator of a tab: it makes passkeys and answers for them, without anybody's touch.
type Authenticator struct {
	tab *Tab
	id  webauthn.AuthenticatorID
}

// Authenticator gives the tab one. Passkeys need the page to be opened as localhost, not under a bare address.
func (tab *Tab) Authenticator(t testing.TB) *Authenticator {
	t.Helper()
	_, err := chromedp.Call(tab.Ctx, webauthn.Enable, webauthn.EnableParams{})
	require.NoError(t, err)
	made, err := chromedp.Call(tab.Ctx, webauthn.AddVirtualAuthenticator, webauthn.AddVirtualAuthenticatorParams{Options: &webauthn.VirtualAuthenticatorOptions{
		Protocol: webauthn.AuthenticatorProtocolCtap2, Ctap2version: webauthn.Ctap2versionCtap21, Transport: webauthn.AuthenticatorTransportInternal,
		HasResidentKey: true, HasUserVerification: true, IsUserVerified: true, AutomaticPresenceSimulation: true,
	}})
	require.NoError(t, err)
	return &Authenticator{tab: tab, id: made.AuthenticatorID}
}

// Verifies says whether it recognises its person from now on.
func (a *Authenticator) Verifies(t testing.TB, yes bool) {
	t.Helper()
	_, err := chromedp.Call(a.tab.Ctx, webauthn.SetUserVerified, webauthn.SetUserVerifiedParams{AuthenticatorID: a.id, IsUserVerified: yes})
	require.NoError(t, err)
}

// Lose takes its passkeys away, as a lost device does.
func (a *Authenticator) Lose(t testing.TB) {
	t.Helper()
	_, err := chromedp.Call(a.tab.Ctx, webauthn.ClearCredentials, webauthn.ClearCredentialsParams{AuthenticatorID: a.id})
	require.NoError(t, err)
}
