package account

import (
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/tenants"
)

// Cookies keeps the token of a sign-in in the browser.
type Cookies struct {
	// Secure says that the console is reached over TLS: the cookie is then bound to this host and never sent in clear.
	Secure bool
}

func (k Cookies) name() string {
	if k.Secure {
		return "__Host-ambit_sign_in"
	}
	return "ambit_sign_in"
}

// Token returns the token that the request carries, or "".
func (k Cookies) Token(r *http.Request) string {
	c, err := r.Cookie(k.name())
	if err != nil {
		return ""
	}
	return c.Value
}

func (k Cookies) set(c echo.Context, in tenants.SignedIn) {
	c.SetCookie(&http.Cookie{ //nolint:gosec // Secure wherever the console is reached over TLS
		Name: k.name(), Value: in.Token, Path: "/", Expires: in.SignIn.ExpiresAt, MaxAge: int(time.Until(in.SignIn.ExpiresAt) / time.Second),
		HttpOnly: true, Secure: k.Secure, SameSite: http.SameSiteLaxMode,
	})
}

// Clear ends the sign-in in this browser.
func (k Cookies) Clear(c echo.Context) {
	c.SetCookie(&http.Cookie{Name: k.name(), Path: "/", MaxAge: -1, HttpOnly: true, Secure: k.Secure, SameSite: http.SameSiteLaxMode}) //nolint:gosec // as above
}
