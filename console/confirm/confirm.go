package confirm

import (
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/a-h/templ"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/tenants/identity"
)

// View is what a form shows to have something confirmed.
type View struct {
	Request identity.Request
	// Label is the act on the button, such as "Sign the mandate"; Kind is the button's.
	Label, Kind string
	// Elsewhere is the address under which passkeys work, where the page was opened under another one; else empty.
	Elsewhere string
	// Back is where the person goes instead; empty shows no way.
	Back     string
	Problems ui.Problems
}

// Attributes are for the form around the fields: method and action are the page's own.
func (v View) Attributes() templ.Attributes {
	if v.passkey() {
		return templ.Attributes{"data-passkey-get": string(v.Request.Options)}
	}
	return templ.Attributes{}
}

func (v View) passkey() bool { return v.Request.Method == identity.MethodPasskey }

// Elsewhere is the same page under the address that passkeys are bound to, or "" where this is it.
func Elsewhere(c echo.Context, rp identity.RelyingParty) string {
	origin, err := url.Parse(rp.Origin)
	if err != nil || !rp.Usable || origin.Host == c.Request().Host {
		return ""
	}
	return rp.Origin + c.Request().URL.RequestURI()
}

// Read takes the person's answer from the form.
func Read(c echo.Context) identity.Response {
	in := identity.Response{Method: identity.MethodPasskey, Challenge: c.FormValue("challenge"), Assertion: json.RawMessage(c.FormValue("passkey_answer"))}
	switch identity.Method(c.FormValue("confirm_by")) {
	case identity.MethodPassword:
		in.Method, in.Password = identity.MethodPassword, c.FormValue("confirm_password")
	case identity.MethodRecovery:
		in.Method, in.Code = identity.MethodRecovery, c.FormValue("recovery_code")
	case identity.MethodPasskey:
	}
	return in
}

// Refused tells a refused confirmation, to be shown above the form that is asked again, from an error that is none.
func Refused(err error) (ui.Problems, int, error) {
	switch fault.As(err).Code {
	case "wrong_credentials":
		return ui.Problems{{Field: "confirm_password", Message: fault.As(err).Message}}, http.StatusUnprocessableEntity, nil
	case "wrong_recovery_code":
		return ui.Problems{{Field: "recovery_code", Message: fault.As(err).Message}}, http.StatusUnprocessableEntity, nil
	}
	if fault.As(err).Kind == fault.NotFoundKind {
		return nil, 0, err
	}
	return page.FormProblems(err, nil)
}

// codeWrong opens the part for a recovery code when one was refused.
func (v View) codeWrong() bool { return v.Problems.For("recovery_code") != "" }
