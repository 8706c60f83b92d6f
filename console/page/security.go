package page

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/internal/fault"
)

// Policy is the content security policy of every page: everything from this origin, nothing inline, nothing evaluated, and nodes made
// from text by htmx's policy alone.
const Policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; connect-src 'self'; " +
	"form-action 'self'; frame-ancestors 'none'; base-uri 'none'; manifest-src 'self'; require-trusted-types-for 'script'; trusted-types htmx"

// Secure sets the security headers of a page.
func Secure(next echo.HandlerFunc) echo.HandlerFunc {
	return func(c echo.Context) error {
		h := c.Response().Header()
		h.Set("Content-Security-Policy", Policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "same-origin")
		h.Set("Cross-Origin-Opener-Policy", "same-origin")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Permissions-Policy", "camera=(), microphone=(), geolocation=(), payment=()")
		return next(c)
	}
}

// SameOrigin refuses requests that change something and come from another site. Browsers say where a request comes from
// (Sec-Fetch-Site, Origin); no token has to be kept in forms.
func SameOrigin(trusted ...string) (echo.MiddlewareFunc, error) {
	protection := http.NewCrossOriginProtection()
	for _, origin := range trusted {
		if err := protection.AddTrustedOrigin(origin); err != nil {
			return nil, err
		}
	}
	return func(next echo.HandlerFunc) echo.HandlerFunc {
		return func(c echo.Context) error {
			if err := protection.Check(c.Request()); err != nil {
				return fault.New(fault.Forbidden, "permission_denied", "This request came from another site and was refused. Open the console itself and try again.").Because(err)
			}
			return next(c)
		}
	}, nil
}
