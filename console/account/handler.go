package account

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/confirm"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

// Handler serves the pages about accounts.
type Handler struct {
	Tenants *tenants.Service
	Cookies Cookies
	StepUp  *identity.StepUp
}

// Register adds the pages to the console's routes.
func (h *Handler) Register(g *echo.Group) {
	g.GET("/", h.landing)
	g.GET("/sign-up", h.signUpForm)
	g.POST("/sign-up", h.signUp)
	g.GET("/sign-in", h.signInForm)
	g.POST("/sign-in", h.signIn)
	g.POST("/sign-in/passkey", h.signInWithPasskey)
	g.POST("/sign-out", h.signOut)
	g.GET("/check-mail", h.checkMail)
	g.POST("/check-mail", h.resend)
	g.GET("/forgot-password", h.forgotForm)
	g.POST("/forgot-password", h.forgot)
	g.GET(tenants.VerifyPath, h.linkForm(verifyLink))
	g.POST(tenants.VerifyPath, h.useLink(verifyLink))
	g.GET(tenants.ResetPath, h.linkForm(resetLink))
	g.POST(tenants.ResetPath, h.useLink(resetLink))
	g.GET(tenants.InvitationPath, h.invitation)
	g.POST(tenants.InvitationPath, h.acceptInvitation)
}

func origin(c echo.Context) tenants.Origin {
	return tenants.Origin{Address: c.RealIP(), UserAgent: c.Request().UserAgent()}
}

// next is where to go after signing in: back to what was asked for, within the console.
func next(c echo.Context) string {
	to := c.QueryParam("next")
	if to == "" {
		to = c.FormValue("next")
	}
	return page.Local(to, "/home")
}

func (h *Handler) landing(c echo.Context) error {
	return page.Render(c, http.StatusOK, Landing(page.NewFrame(c, "", "The operating system for agents"), sample()))
}

// already sends somebody who is signed in on to the console.
func already(c echo.Context) bool {
	_, in := page.ViewerOf(c)
	return in
}

func (h *Handler) signUpForm(c echo.Context) error {
	if already(c) {
		return page.Redirect(c, next(c))
	}
	return page.Render(c, http.StatusOK, SignUp(page.NewFrame(c, "", "Create your account"), signUpView{MailEnabled: h.Tenants.MailEnabled()}))
}

func (h *Handler) signUp(c echo.Context) error {
	v := signUpView{Email: c.FormValue("email"), Name: c.FormValue("name"), Organization: c.FormValue("organization"), MailEnabled: h.Tenants.MailEnabled()}
	out, err := h.Tenants.SignUp(c.Request().Context(), tenants.SignUp{
		Email: v.Email, Password: c.FormValue("password"), Name: v.Name, OrganizationName: v.Organization, Origin: origin(c),
	})
	if err != nil {
		return h.refused(c, err, func(p ui.Problems, status int) error {
			v.Problems = p
			return page.Render(c, status, SignUp(page.NewFrame(c, "", "Create your account"), v))
		})
	}
	if out.SignedIn == nil {
		return page.Redirect(c, "/check-mail?email="+url.QueryEscape(v.Email))
	}
	h.Cookies.set(c, *out.SignedIn)
	return page.Redirect(c, "/home?welcome=1")
}

// refused shows a form again with what is wrong with it, or passes on what is not about the form.
func (h *Handler) refused(_ echo.Context, err error, show func(ui.Problems, int) error) error {
	problems, status, err := page.FormProblems(err, map[string]string{"/organization_name": "organization"})
	if err != nil {
		return err
	}
	return show(problems, status)
}

func (h *Handler) signInForm(c echo.Context) error {
	if already(c) {
		return page.Redirect(c, next(c))
	}
	return h.drawSignIn(c, http.StatusOK, signInView{Next: c.QueryParam("next"), Email: c.QueryParam("email")})
}

func (h *Handler) drawSignIn(c echo.Context, status int, v signInView) (err error) {
	v.MailEnabled = h.Tenants.MailEnabled()
	if rp := h.StepUp.RelyingParty(); rp.Usable {
		if v.Elsewhere = confirm.Elsewhere(c, rp); v.Elsewhere != "" {
			v.Elsewhere = rp.Origin + "/sign-in"
		} else if v.Passkey, err = h.StepUp.SignInOptions(); err != nil {
			return err
		}
	}
	return page.Render(c, status, SignIn(page.NewFrame(c, "", "Sign in"), v))
}

func (h *Handler) signInWithPasskey(c echo.Context) error {
	in, err := h.Tenants.SignInWithPasskey(c.Request().Context(), origin(c), func(ctx context.Context) (id.User, error) {
		return h.StepUp.WhoSignsIn(ctx, json.RawMessage(c.FormValue("passkey_answer")))
	})
	if err != nil {
		return h.refused(c, err, func(p ui.Problems, status int) error {
			return h.drawSignIn(c, status, signInView{Next: c.FormValue("next"), Problems: p})
		})
	}
	h.Cookies.set(c, in)
	return page.Redirect(c, next(c))
}

func (h *Handler) signIn(c echo.Context) error {
	v := signInView{Email: c.FormValue("email"), Next: c.FormValue("next")}
	in, err := h.Tenants.SignIn(c.Request().Context(), tenants.Credentials{Email: v.Email, Password: c.FormValue("password"), Origin: origin(c)})
	if err != nil {
		return h.refused(c, err, func(p ui.Problems, status int) error {
			v.Problems = p
			return h.drawSignIn(c, status, v)
		})
	}
	h.Cookies.set(c, in)
	return page.Redirect(c, next(c))
}

func (h *Handler) signOut(c echo.Context) error {
	if token := h.Cookies.Token(c.Request()); token != "" {
		if err := h.Tenants.SignOut(c.Request().Context(), token); err != nil {
			return err
		}
	}
	h.Cookies.Clear(c)
	return page.Redirect(c, page.Local(c.FormValue("next"), "/sign-in"))
}

func (h *Handler) checkMail(c echo.Context) error {
	return page.Render(c, http.StatusOK, CheckMail(page.NewFrame(c, "", "Check your mail"), mailView{Email: c.QueryParam("email"), Again: c.QueryParam("again") != ""}))
}

func (h *Handler) resend(c echo.Context) error {
	v := mailView{Email: c.FormValue("email")}
	if err := h.Tenants.ResendVerification(c.Request().Context(), v.Email, origin(c)); err != nil {
		return h.refused(c, err, func(p ui.Problems, status int) error {
			v.Problems = p
			return page.Render(c, status, CheckMail(page.NewFrame(c, "", "Check your mail"), v))
		})
	}
	return page.Redirect(c, "/check-mail?again=1&email="+url.QueryEscape(v.Email))
}

func (h *Handler) forgotForm(c echo.Context) error {
	return page.Render(c, http.StatusOK, Forgot(page.NewFrame(c, "", "Reset your password"), mailView{Email: c.QueryParam("email"), Sent: c.QueryParam("sent") != "", NoMail: !h.Tenants.MailEnabled()}))
}

func (h *Handler) forgot(c echo.Context) error {
	v := mailView{Email: c.FormValue("email"), NoMail: !h.Tenants.MailEnabled()}
	if err := h.Tenants.RequestPasswordReset(c.Request().Context(), v.Email, origin(c)); err != nil {
		return h.refused(c, err, func(p ui.Problems, status int) error {
			v.Problems = p
			return page.Render(c, status, Forgot(page.NewFrame(c, "", "Reset your password"), v))
		})
	}
	return page.Redirect(c, "/forgot-password?sent=1&email="+url.QueryEscape(v.Email))
}
