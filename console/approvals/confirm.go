package approvals

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"sort"

	"github.com/a-h/templ"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/confirm"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/internal/canonical"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/tenants/identity"
)

// act is something that may have to be confirmed by who does it.
type act struct {
	purpose, title, what, back string
	danger                     bool
}

// field is one of the form's, kept through the confirmation.
type field struct{ Name, Value string }

// confirmed does what a form asks for. If that takes a confirmation, it shows the page for it and reports so; the answer comes with the same
// form, and is good for just what stands in it: the challenge is the digest of its fields.
func (h *Handler) confirmed(c echo.Context, a act, do func(proof json.RawMessage) error) (asks bool, err error) {
	fields, digest, err := formOf(c)
	if err != nil {
		return false, err
	}
	viewer, _ := page.ViewerOf(c)
	p := page.PlaceOf(c)
	ask := identity.Ask{User: viewer.User, Org: p.Org, Purpose: a.purpose, Challenge: digest}
	v := confirm.PageView{
		Title: a.title + "?", Action: c.Request().URL.Path,
		Frame: page.NewFrame(c, "approvals", a.title, page.Crumb{Label: "Approvals", Href: p.Path("approvals")}, page.Crumb{Label: a.title}),
		View:  confirm.View{Label: a.title, Kind: "primary", Elsewhere: confirm.Elsewhere(c, h.StepUp.RelyingParty()), Back: a.back},
	}
	if a.danger {
		v.View.Kind = "danger"
	}
	status := http.StatusOK
	if c.FormValue("confirm_by") != "" {
		proof, err := h.StepUp.Finish(c.Request().Context(), ask, confirm.Read(c))
		if err == nil {
			raw, err := json.Marshal(proof)
			if err != nil {
				return false, fmt.Errorf("write a confirmation: %w", err)
			}
			return false, do(raw)
		}
		if v.View.Problems, status, err = confirm.Refused(err); err != nil {
			return false, err
		}
	} else if err := do(nil); !fault.IsCode(err, "step_up_required") {
		return false, err
	}
	if v.View.Request, err = h.StepUp.Begin(c.Request().Context(), ask); err != nil {
		return true, err
	}
	return true, page.Render(c, status, templ.ComponentFunc(func(ctx context.Context, w io.Writer) error {
		return confirm.Page(v).Render(templ.WithChildren(ctx, Confirming(a.what, fields)), w)
	}))
}

// formOf is what the form says, without the confirmation's own fields, and the digest of it.
func formOf(c echo.Context) ([]field, [32]byte, error) {
	values, err := c.FormParams()
	if err != nil {
		return nil, [32]byte{}, fault.New(fault.Invalid, "invalid_request", "The form can't be read.")
	}
	var fields []field
	for name, list := range values {
		switch name {
		case "challenge", "passkey_answer", "confirm_by", "confirm_password", "recovery_code", "at":
			continue
		}
		for _, value := range list {
			fields = append(fields, field{name, value})
		}
	}
	sort.Slice(fields, func(i, j int) bool {
		return fields[i].Name < fields[j].Name || fields[i].Name == fields[j].Name && fields[i].Value < fields[j].Value
	})
	at := c.FormValue("at") // one form is confirmed once; the next is another, though it says the same
	if at == "" {
		at = rand.Text()
	}
	digest, err := canonical.Digest(map[string]any{"path": c.Request().URL.Path, "fields": fields, "at": at})
	return append(fields, field{"at", at}), digest, err
}
