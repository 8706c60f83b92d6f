package webhooks

import (
	"context"
	"net/http"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/tenants"
)

const pageSize = 50

// Handler serves the pages about webhooks.
type Handler struct {
	DB       *postgres.DB
	Webhooks *notifications.Webhooks
}

// Register adds the pages to a project's routes.
func (h *Handler) Register(g *echo.Group) {
	read, write := page.Need(tenants.WebhooksRead), page.Need(tenants.WebhooksWrite)
	g.GET("/webhooks", h.list, read)
	g.GET("/webhooks/new", h.newForm, write)
	g.POST("/webhooks/new", h.create, write)
	g.GET("/webhooks/:webhook", h.show, read)
	g.GET("/webhooks/:webhook/edit", h.editForm, write)
	g.POST("/webhooks/:webhook/edit", h.update, write)
	g.POST("/webhooks/:webhook/test", h.test, write)
	g.POST("/webhooks/:webhook/status", h.setStatus, write)
	g.POST("/webhooks/:webhook/secret", h.rotate, write)
	g.POST("/webhooks/:webhook/delete", h.delete, write)
	g.GET("/webhooks/:webhook/deliveries/:delivery", h.delivery, read)
	g.POST("/webhooks/:webhook/deliveries/:delivery/redeliver", h.redeliver, write)
}

func (h *Handler) inTx(c echo.Context, fn func(ctx context.Context, tx pgx.Tx, p page.Place) error) error {
	ctx, p := c.Request().Context(), page.PlaceOf(c)
	return h.DB.InTx(ctx, p.Org, func(tx pgx.Tx) error { return fn(ctx, tx, p) })
}

// wanted is the webhook that the address names.
func wanted(c echo.Context) (id.Webhook, error) {
	w, err := id.Parse[id.Webhook](c.Param("webhook"))
	if err != nil {
		return "", fault.NotFound()
	}
	return w, nil
}

func (h *Handler) load(c echo.Context) (w notifications.Webhook, err error) {
	one, err := wanted(c)
	if err != nil {
		return w, err
	}
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, p page.Place) error {
		w, err = h.Webhooks.GetTx(ctx, tx, p.Org, one)
		return err
	})
	return w, err
}

func (h *Handler) list(c echo.Context) error {
	p := page.PlaceOf(c)
	v := listView{Base: p.Path("webhooks"), New: p.Path("webhooks", "new"), CanWrite: p.Can(tenants.WebhooksWrite)}
	after, _ := id.Parse[id.Webhook](c.QueryParam("after"))
	err := h.inTx(c, func(ctx context.Context, tx pgx.Tx, p page.Place) error {
		found, err := h.Webhooks.ListTx(ctx, tx, p.Org, "", after, pageSize+1)
		if err != nil {
			return err
		}
		if len(found) > pageSize {
			found = found[:pageSize]
			v.Pager.Next = v.Base + "?after=" + string(found[pageSize-1].ID)
		}
		for _, w := range found {
			v.Rows = append(v.Rows, newRow(c, p, w))
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "webhooks"
	if after != "" {
		v.Pager.First = v.Base
	}
	v.Frame = page.NewFrame(c, "webhooks", "Webhooks", page.Crumb{Label: "Webhooks"})
	return page.Render(c, 200, List(v))
}

func (h *Handler) newForm(c echo.Context) error {
	return h.editor(c, 200, editView{New: true, Form: form{All: true, Where: "project"}})
}

// editor draws the form; its frame and choices are the same whether it is opened or comes back.
func (h *Handler) editor(c echo.Context, status int, v editView) error {
	p := page.PlaceOf(c)
	v.Project, v.Org, v.Types = p.ProjectName, p.OrgName, typeChoices(v.Form)
	hooks := page.Crumb{Label: "Webhooks", Href: p.Path("webhooks")}
	if v.New {
		v.Title, v.Action, v.Back = "New webhook", p.Path("webhooks", "new"), p.Path("webhooks")
		v.Frame = page.NewFrame(c, "webhooks", v.Title, hooks, page.Crumb{Label: "New"})
	} else {
		v.Title, v.Back = "Change webhook", p.Path("webhooks", c.Param("webhook"))
		v.Action = v.Back + "/edit"
		v.Frame = page.NewFrame(c, "webhooks", v.Title, hooks, page.Crumb{Label: hostOf(v.URL), Href: v.Back}, page.Crumb{Label: "Change"})
	}
	return page.Render(c, status, Edit(v))
}

func (h *Handler) refused(c echo.Context, err error, v editView) error {
	problems, status, err := page.FormProblems(err, map[string]string{"/event_types": "types"})
	if err != nil {
		return err
	}
	for i, one := range problems {
		if one.Field == "types" && !v.Form.All && len(v.Form.Types) == 0 {
			problems[i].Message = "Choose at least one type of event."
		}
	}
	v.Problems = problems
	return h.editor(c, status, v)
}

func (h *Handler) create(c echo.Context) error {
	f, err := readForm(c)
	if err != nil {
		return err
	}
	var made notifications.Webhook
	var secret string
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, p page.Place) error {
		in := notifications.CreateWebhook{URL: f.URL, Description: f.Description, EventTypes: f.eventTypes()}
		if f.Where != "organisation" {
			in.Project = p.Project
		}
		made, secret, err = h.Webhooks.CreateTx(ctx, tx, p.Acting, in)
		return err
	})
	if err != nil {
		return h.refused(c, err, editView{New: true, Form: f})
	}
	return h.shown(c, made, secret, "The webhook is made", "")
}

// shown shows a secret, once. It is in this one answer and nowhere else: no redirect, as it would have to be kept for the page after it.
func (h *Handler) shown(c echo.Context, w notifications.Webhook, secret, title, note string) error {
	p := page.PlaceOf(c)
	v := secretView{Title: title, Note: note, Host: hostOf(w.URL), Secret: secret, Back: p.Path("webhooks", string(w.ID))}
	v.Frame = page.NewFrame(c, "webhooks", title, page.Crumb{Label: "Webhooks", Href: p.Path("webhooks")}, page.Crumb{Label: v.Host, Href: v.Back}, page.Crumb{Label: "Secret"})
	return page.Render(c, http.StatusOK, Secret(v))
}

func (h *Handler) editForm(c echo.Context) error {
	w, err := h.load(c)
	if err != nil {
		return err
	}
	return h.editor(c, 200, editView{URL: w.URL, Form: formOf(w)})
}

func (h *Handler) update(c echo.Context) error {
	was, err := h.load(c)
	if err != nil {
		return err
	}
	f, err := readForm(c)
	if err != nil {
		return err
	}
	in := notifications.UpdateWebhook{URL: &f.URL, Description: &f.Description, EventTypes: append([]string{}, f.eventTypes()...)}
	if n, err := strconv.ParseInt(f.Version, 10, 64); err == nil {
		in.IfVersion = &n
	}
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, p page.Place) error {
		_, err := h.Webhooks.UpdateTx(ctx, tx, p.Org, was.ID, in)
		return err
	})
	if err != nil {
		return h.refused(c, err, editView{URL: was.URL, Form: f})
	}
	page.Flash(c, "The webhook is changed.")
	return page.Redirect(c, page.PlaceOf(c).Path("webhooks", string(was.ID)))
}

func (h *Handler) show(c echo.Context) error { return h.draw(c, 200, nil) }

// draw shows a webhook with its deliveries, and the problems of an act that was refused.
func (h *Handler) draw(c echo.Context, status int, problems ui.Problems) error {
	w, err := h.load(c)
	if err != nil {
		return err
	}
	p := page.PlaceOf(c)
	v := newShow(c, p, w, c.QueryParam("status"))
	v.Problems = problems
	after, _ := id.Parse[id.Delivery](c.QueryParam("after"))
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, p page.Place) error {
		found, err := h.Webhooks.DeliveriesTx(ctx, tx, p.Org, w.ID, notifications.ListDeliveries{Statuses: v.statuses(), After: after, Limit: pageSize + 1})
		if err != nil {
			return err
		}
		if len(found) > pageSize {
			found = found[:pageSize]
			v.Pager.Next = v.filtered("after", string(found[pageSize-1].ID))
		}
		for _, d := range found {
			v.Rows = append(v.Rows, newDeliveryRow(p, d))
		}
		return nil
	})
	if err != nil {
		return err
	}
	v.Pager.Shown, v.Pager.Noun = len(v.Rows), "deliveries"
	if after != "" {
		v.Pager.First = v.filtered("", "")
	}
	v.Frame = page.NewFrame(c, "webhooks", v.Host, page.Crumb{Label: "Webhooks", Href: p.Path("webhooks")}, page.Crumb{Label: v.Host})
	return page.Render(c, status, Show(v))
}

// done goes on to an address, or shows the webhook with what was refused.
func (h *Handler) done(c echo.Context, err error, said, to string) error {
	if err == nil {
		if said != "" {
			page.Flash(c, said)
		}
		return page.Redirect(c, to)
	}
	if fault.As(err).Kind == fault.NotFoundKind {
		return err
	}
	problems, status, err := page.FormProblems(err, nil)
	if err != nil {
		return err
	}
	return h.draw(c, status, problems)
}

func (h *Handler) test(c echo.Context) error {
	w, err := wanted(c)
	if err != nil {
		return err
	}
	var sent notifications.Delivery
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, p page.Place) error {
		sent, err = h.Webhooks.TestTx(ctx, tx, p.Org, w)
		return err
	})
	return h.done(c, err, "", deliveryPath(page.PlaceOf(c), w, sent.ID))
}

func (h *Handler) setStatus(c echo.Context) error {
	w, err := wanted(c)
	if err != nil {
		return err
	}
	status, said := notifications.WebhookOff, "The webhook is disabled. What waited for it is cancelled."
	if c.FormValue("status") == string(notifications.WebhookActive) {
		status, said = notifications.WebhookActive, "The webhook is active. It hears of what happens from now on."
	}
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, p page.Place) error {
		_, err := h.Webhooks.UpdateTx(ctx, tx, p.Org, w, notifications.UpdateWebhook{Status: &status})
		return err
	})
	return h.done(c, err, said, page.PlaceOf(c).Path("webhooks", string(w)))
}

func (h *Handler) rotate(c echo.Context) error {
	one, err := wanted(c)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(graces, func(g grace) bool { return g.value == c.FormValue("grace") })
	if i < 0 {
		i = 0
	}
	var w notifications.Webhook
	var secret string
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, p page.Place) error {
		w, secret, err = h.Webhooks.RotateSecretTx(ctx, tx, p.Org, one, graces[i].lasts)
		return err
	})
	if err != nil {
		return h.done(c, err, "", "")
	}
	note := "The old secret signs no more."
	if graces[i].lasts > 0 {
		note = "The old secret signs each message too for " + graces[i].label + ", so that nothing is missed while you change over."
	}
	return h.shown(c, w, secret, "The secret is new", note)
}

func (h *Handler) delete(c echo.Context) error {
	w, err := wanted(c)
	if err != nil {
		return err
	}
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, p page.Place) error {
		return h.Webhooks.DeleteTx(ctx, tx, p.Org, w)
	})
	return h.done(c, err, "The webhook is deleted, with the record of what was sent to it.", page.PlaceOf(c).Path("webhooks"))
}

// grace is how long a replaced secret goes on signing.
type grace struct {
	value, label string
	lasts        time.Duration
}

var graces = []grace{{"day", "24 hours", 24 * time.Hour}, {"hour", "1 hour", time.Hour}, {"week", "7 days", 7 * 24 * time.Hour}, {"none", "no time: it may be known to others", 0}}
