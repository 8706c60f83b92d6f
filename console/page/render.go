package page

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"time"

	"github.com/a-h/templ"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/ui"
)

// The console's cookies for preferences; scripts write them, the server reads them, so that no page has to change after it is drawn.
const (
	themeCookie = "ambit_theme"
	zoneCookie  = "ambit_zone"
	navCookie   = "ambit_nav"
	keysCookie  = "ambit_keys"
	flashCookie = "ambit_flash"
)

// Preferences reads what the person chose. ?tz=utc in the address wins over the cookie, so that a shared link shows the same times.
func Preferences(r *http.Request) ui.Preferences {
	p := ui.Preferences{Theme: "system", Zone: time.UTC, Now: time.Now()}
	if t := cookie(r, themeCookie); t == "light" || t == "dark" {
		p.Theme = t
	}
	if name := cookie(r, zoneCookie); name != "" && len(name) < 64 && name != "Local" {
		if zone, err := time.LoadLocation(name); err == nil {
			p.Zone = zone
		}
	}
	if r.URL.Query().Get("tz") == "utc" {
		p.Zone = time.UTC
	}
	p.Folded = cookie(r, navCookie) == "folded"
	p.ShortcutsOff = cookie(r, keysCookie) == "off"
	return p
}

func cookie(r *http.Request, name string) string {
	c, err := r.Cookie(name)
	if err != nil {
		return ""
	}
	v, err := url.QueryUnescape(c.Value)
	if err != nil {
		return ""
	}
	return v
}

// Render writes a component as the answer. It is drawn into memory first, so that a failure becomes an error page and not half a page.
// No page of a tenant is ever stored by a browser or a proxy.
func Render(c echo.Context, status int, component templ.Component) error {
	ctx := ui.WithPreferences(c.Request().Context(), Preferences(c.Request()))
	var out bytes.Buffer
	if err := component.Render(ctx, &out); err != nil {
		return fmt.Errorf("draw the page: %w", err)
	}
	c.Response().Header().Set("Cache-Control", "no-store")
	return c.HTMLBlob(status, out.Bytes())
}

// Fragment renders a component for a patch of a stream or a part of a page.
func Fragment(c echo.Context, component templ.Component) ([]byte, error) {
	ctx := ui.WithPreferences(c.Request().Context(), Preferences(c.Request()))
	var out bytes.Buffer
	if err := component.Render(ctx, &out); err != nil {
		return nil, fmt.Errorf("draw a part of the page: %w", err)
	}
	return out.Bytes(), nil
}

// Redirect sends the browser to another page after a form was accepted.
func Redirect(c echo.Context, to string) error {
	if c.Request().Header.Get("HX-Request") != "" {
		c.Response().Header().Set("HX-Redirect", to)
		return c.NoContent(http.StatusOK)
	}
	return c.Redirect(http.StatusSeeOther, to)
}

// Flash leaves a sentence for the next page to show once.
func Flash(c echo.Context, text string) {
	c.SetCookie(&http.Cookie{ //nolint:gosec // Secure wherever the console is reached over TLS; it holds a sentence and no secret
		Name: flashCookie, Value: url.QueryEscape(text), Path: "/", MaxAge: 60, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: c.IsTLS(),
	})
}

func takeFlash(c echo.Context) string {
	text := cookie(c.Request(), flashCookie)
	if text == "" {
		return ""
	}
	c.SetCookie(&http.Cookie{Name: flashCookie, Path: "/", MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteLaxMode, Secure: c.IsTLS()}) //nolint:gosec // as above
	if len(text) > 300 {
		return ""
	}
	return text
}

// Local returns a path of this console to come back to, or otherwise when next is none: an address of another site is never followed.
func Local(next, otherwise string) string {
	u, err := url.Parse(next)
	if err != nil || next == "" || next[0] != '/' || u.Host != "" || u.Scheme != "" || (len(next) > 1 && (next[1] == '/' || next[1] == '\\')) {
		return otherwise
	}
	return next
}
