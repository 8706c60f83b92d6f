package account

import (
	"net/http"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
)

// linkPurpose is which mailed link a page is for.
type linkPurpose int

const (
	verifyLink linkPurpose = iota
	resetLink
)

// titles are the pages' titles.
func (p linkPurpose) title() string {
	if p == verifyLink {
		return "Confirm your address"
	}
	return "Choose a new password"
}

// linkForm shows what a mailed link is for. Opening it uses nothing up: programs that look into mail open links too.
func (h *Handler) linkForm(purpose linkPurpose) echo.HandlerFunc {
	return func(c echo.Context) error {
		good, err := h.Tenants.LinkIsGood(c.Request().Context(), c.QueryParam("token"))
		if err != nil {
			return err
		}
		v := linkView{Token: c.QueryParam("token"), Purpose: purpose, Bad: !good}
		status := http.StatusOK
		if !good {
			status = http.StatusGone
		}
		// The token stands in the address; it must not leave with a link that is followed from here.
		c.Response().Header().Set("Referrer-Policy", "no-referrer")
		return page.Render(c, status, Link(page.NewFrame(c, "", purpose.title()), v))
	}
}

func (h *Handler) useLink(purpose linkPurpose) echo.HandlerFunc {
	return func(c echo.Context) error {
		ctx, token, password := c.Request().Context(), c.FormValue("token"), c.FormValue("password")
		use := h.Tenants.VerifyEmail
		if purpose == resetLink {
			use = h.Tenants.ResetPassword
		}
		in, err := use(ctx, token, password, origin(c))
		if err != nil {
			return h.refused(c, err, func(p ui.Problems, status int) error {
				return page.Render(c, status, Link(page.NewFrame(c, "", purpose.title()), linkView{Token: token, Purpose: purpose, Problems: p}))
			})
		}
		h.Cookies.set(c, in)
		if purpose == verifyLink {
			page.Flash(c, "Your address is confirmed.")
			return page.Redirect(c, "/home?welcome=1")
		}
		page.Flash(c, "Your password is changed. Other sign-ins have ended.")
		return page.Redirect(c, "/home")
	}
}
