package settings

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/a-h/templ"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/confirm"
	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants/identity"
)

type passkeyRow struct {
	ID, Name, Where string
	Created         time.Time
	LastUsed        *time.Time
	Barred          bool
	Rename, Revoke  string
}

type securityView struct {
	Passkeys []passkeyRow
	Codes    identity.RecoveryCodes
	// New and NewCodes lead to the pages that ask for a confirmation first.
	New, NewCodes string
	// Usable is false where browsers refuse passkeys; Elsewhere is where they work, if not here.
	Usable    bool
	Elsewhere string
	OrgName   string
}

// low is when somebody should make new codes.
const low = 3

func (v securityView) codesLow() bool { return len(v.Passkeys) > 0 && v.Codes.Unused <= low }

func (h *Handler) registerSecurity(g *echo.Group) {
	g.GET("/settings/passkeys/new", h.newPasskey)
	g.POST("/settings/passkeys/new", h.beginPasskey)
	g.POST("/settings/passkeys", h.createPasskey)
	g.POST("/settings/passkeys/:passkey/rename", h.renamePasskey)
	g.GET("/settings/passkeys/:passkey/revoke", h.askRevokePasskey)
	g.POST("/settings/passkeys/:passkey/revoke", h.revokePasskey)
	g.GET("/settings/recovery-codes", h.askCodes)
	g.POST("/settings/recovery-codes", h.newCodes)
}

// security is what the tab shows.
func (h *Handler) security(c echo.Context) (securityView, error) {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	viewer, _ := page.ViewerOf(c)
	v := securityView{
		New: p.Path("settings", "passkeys", "new"), NewCodes: p.Path("settings", "recovery-codes"),
		Usable: h.StepUp.RelyingParty().Usable, Elsewhere: confirm.Elsewhere(c, h.StepUp.RelyingParty()), OrgName: p.OrgName,
	}
	found, err := h.StepUp.Passkeys(ctx, viewer.User, p.Org)
	if err != nil {
		return v, err
	}
	for _, k := range found {
		at := p.Path("settings", "passkeys", string(k.ID))
		where := "This device or key only"
		if k.BackedUp {
			where = "Copied to your other devices"
		}
		v.Passkeys = append(v.Passkeys, passkeyRow{
			ID: string(k.ID), Name: k.Name, Where: where, Created: k.CreatedAt, LastUsed: k.LastUsedAt, Barred: k.Barred, Rename: at + "/rename", Revoke: at + "/revoke",
		})
	}
	v.Codes, err = h.StepUp.Codes(ctx, viewer.User)
	return v, err
}

func (h *Handler) securityHome(c echo.Context) string {
	return page.PlaceOf(c).Path("settings") + "?tab=security"
}

// act is one thing that is confirmed on a page of its own.
type act struct {
	ask           identity.Ask
	title, crumb  string
	label, kind   string
	action        string
	what          templ.Component
	problems      ui.Problems
	problemStatus int
}

// confirm shows the page that asks for it. A refused answer comes here again, with a fresh question.
func (h *Handler) confirm(c echo.Context, a act) error {
	request, err := h.StepUp.Begin(c.Request().Context(), a.ask)
	if err != nil {
		return err
	}
	status := http.StatusOK
	if a.problemStatus != 0 {
		status = a.problemStatus
	}
	back := h.securityHome(c)
	frame := page.NewFrame(c, "settings", a.title, page.Crumb{Label: "Settings", Href: back}, page.Crumb{Label: a.crumb})
	v := confirm.PageView{Frame: frame, Title: a.title, Action: a.action, View: confirm.View{
		Request: request, Label: a.label, Kind: a.kind, Elsewhere: confirm.Elsewhere(c, h.StepUp.RelyingParty()), Back: back, Problems: a.problems,
	}}
	return page.Render(c, status, withChildren(confirm.Page(v), a.what))
}

// withChildren gives a component the children that a template would.
func withChildren(outer, children templ.Component) templ.Component {
	return templ.ComponentFunc(func(ctx context.Context, w io.Writer) error {
		return outer.Render(templ.WithChildren(ctx, children), w)
	})
}

// refused asks again, saying what was wrong with the answer.
func (h *Handler) refused(c echo.Context, a act, err error) error {
	a.problems, a.problemStatus, err = confirm.Refused(err)
	if err != nil {
		return err
	}
	return h.confirm(c, a)
}

func (h *Handler) enrolAct(c echo.Context) act {
	viewer, _ := page.ViewerOf(c)
	return act{
		ask: h.StepUp.AskEnrol(viewer.User), title: "Add a passkey", crumb: "Add a passkey", label: "Continue", kind: "primary",
		action: page.PlaceOf(c).Path("settings", "passkeys", "new"), what: enrolText(h.StepUp.RelyingParty().ID),
	}
}

func (h *Handler) newPasskey(c echo.Context) error { return h.confirm(c, h.enrolAct(c)) }

// beginPasskey takes the confirmation and shows the page on which the passkey is made.
func (h *Handler) beginPasskey(c echo.Context) error {
	viewer, _ := page.ViewerOf(c)
	options, err := h.StepUp.BeginEnrolment(c.Request().Context(), identity.PersonName{ID: viewer.User, Email: viewer.Email, Label: viewer.DisplayName()}, confirm.Read(c))
	if err != nil {
		return h.refused(c, h.enrolAct(c), err)
	}
	return h.drawCreate(c, http.StatusOK, options, passkeyNameFor(c.Request().UserAgent()))
}

func (h *Handler) drawCreate(c echo.Context, status int, options json.RawMessage, name string) error {
	back := h.securityHome(c)
	c.Response().Header().Set("Cache-Control", "no-store")
	return page.Render(c, status, CreatePasskey(createView{
		Frame:  page.NewFrame(c, "settings", "Add a passkey", page.Crumb{Label: "Settings", Href: back}, page.Crumb{Label: "Add a passkey"}),
		Action: page.PlaceOf(c).Path("settings", "passkeys"), Options: string(options), Name: name, Back: back,
		Elsewhere: confirm.Elsewhere(c, h.StepUp.RelyingParty()),
	}))
}

type createView struct {
	Frame                       page.Frame
	Action, Options, Name, Back string
	Elsewhere                   string
}

// passkeyNameFor suggests the device's name.
func passkeyNameFor(agent string) string {
	name := browserOf(agent)
	if !strings.Contains(name, " on ") {
		return "My passkey"
	}
	return name
}

func (h *Handler) createPasskey(c echo.Context) error {
	viewer, _ := page.ViewerOf(c)
	made, err := h.StepUp.Enrol(c.Request().Context(), viewer.User, c.FormValue("name"), json.RawMessage(c.FormValue("passkey_answer")))
	if err != nil {
		// The challenge is used up or spoilt: the person begins again, with the reason.
		return h.refused(c, h.enrolAct(c), err)
	}
	said := fmt.Sprintf("The passkey %s is enrolled.", made.Passkey.Name)
	if made.Codes == nil {
		page.Flash(c, said)
		return page.Redirect(c, h.securityHome(c))
	}
	return h.showCodes(c, made.Codes, said+" It confirms what matters from now on.")
}

func (h *Handler) showCodes(c echo.Context, codes []string, said string) error {
	back := h.securityHome(c)
	c.Response().Header().Set("Cache-Control", "no-store")
	c.Response().Header().Set("Referrer-Policy", "no-referrer")
	return page.Render(c, http.StatusOK, Codes(codesView{
		Frame: page.NewFrame(c, "settings", "Recovery codes", page.Crumb{Label: "Settings", Href: back}, page.Crumb{Label: "Recovery codes"}),
		Codes: codes, Said: said, Back: back,
	}))
}

type codesView struct {
	Frame page.Frame
	Codes []string
	Said  string
	Back  string
}

func (h *Handler) passkey(c echo.Context) (identity.Passkey, error) {
	viewer, _ := page.ViewerOf(c)
	pid, err := id.Parse[id.Passkey](c.Param("passkey"))
	if err != nil {
		return identity.Passkey{}, fault.NotFound()
	}
	mine, err := h.StepUp.Passkeys(c.Request().Context(), viewer.User, "")
	if err != nil {
		return identity.Passkey{}, err
	}
	for _, k := range mine {
		if k.ID == pid {
			return k, nil
		}
	}
	return identity.Passkey{}, fault.NotFound()
}

func (h *Handler) renamePasskey(c echo.Context) error {
	k, err := h.passkey(c)
	if err != nil {
		return err
	}
	return h.done(c, h.StepUp.Rename(c.Request().Context(), k.User, k.ID, c.FormValue("name")), "security", "The passkey is renamed.")
}

func (h *Handler) revokeAct(c echo.Context) (act, identity.Passkey, error) {
	k, err := h.passkey(c)
	if err != nil {
		return act{}, k, err
	}
	mine, err := h.StepUp.Passkeys(c.Request().Context(), k.User, "")
	return act{
		ask: h.StepUp.AskRevoke(k.User, k.ID), title: "Revoke " + k.Name + "?", crumb: "Revoke a passkey", label: "Revoke the passkey", kind: "danger",
		action: page.PlaceOf(c).Path("settings", "passkeys", string(k.ID), "revoke"), what: revokeText(len(mine) == 1),
	}, k, err
}

func (h *Handler) askRevokePasskey(c echo.Context) error {
	a, _, err := h.revokeAct(c)
	if err != nil {
		return err
	}
	return h.confirm(c, a)
}

func (h *Handler) revokePasskey(c echo.Context) error {
	a, k, err := h.revokeAct(c)
	if err != nil {
		return err
	}
	if err := h.StepUp.Revoke(c.Request().Context(), k.User, k.ID, confirm.Read(c)); err != nil {
		return h.refused(c, a, err)
	}
	page.Flash(c, "The passkey "+k.Name+" is revoked.")
	return page.Redirect(c, h.securityHome(c))
}

func (h *Handler) codesAct(c echo.Context) act {
	viewer, _ := page.ViewerOf(c)
	return act{
		ask: h.StepUp.AskCodes(viewer.User), title: "New recovery codes", crumb: "Recovery codes", label: "Make new codes", kind: "primary",
		action: page.PlaceOf(c).Path("settings", "recovery-codes"), what: codesText(),
	}
}

func (h *Handler) askCodes(c echo.Context) error { return h.confirm(c, h.codesAct(c)) }

func (h *Handler) newCodes(c echo.Context) error {
	viewer, _ := page.ViewerOf(c)
	codes, err := h.StepUp.ReplaceCodes(c.Request().Context(), viewer.User, confirm.Read(c))
	if err != nil {
		return h.refused(c, h.codesAct(c), err)
	}
	return h.showCodes(c, codes, "All older codes are void.")
}
