package webhooks

import (
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/labstack/echo/v4"

	"ambit.dev/ambit/console/page"
	"ambit.dev/ambit/console/ui"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/tenants"
)

type deliveryRow struct {
	Href, Type string
	Status     ui.Status
	// Answer is what the last attempt got, in words.
	Answer   string
	Attempts int
	At       time.Time
	Next     *time.Time
}

type attempt struct {
	Number   int
	Status   ui.Status
	At       time.Time
	Took     string
	Answer   string
	Error    string
	Response string
}

// ID is the id of the element that holds what the endpoint answered.
func (a attempt) ID() string { return "answer-" + strconv.Itoa(a.Number) }

type deliveryView struct {
	Frame    page.Frame
	Title    string
	Self     string
	Status   ui.Status
	Facts    []ui.Fact
	Attempts []attempt
	Message  string
	Pending  bool
	// Follow says that the page looks again by itself, as something will come within a minute.
	Follow    bool
	Redeliver string
	Problems  ui.Problems
}

func deliveryPath(p page.Place, w id.Webhook, d id.Delivery) string {
	return p.Path("webhooks", string(w), "deliveries", string(d))
}

// deliveryStatus is a delivery in a word.
func deliveryStatus(d notifications.Delivery) ui.Status {
	switch d.Status {
	case notifications.Delivered:
		return ui.Status{Tone: ui.ToneCompleted, Icon: "tick-disc", Word: "Delivered"}
	case notifications.Failed:
		return ui.Status{Tone: ui.ToneFailed, Icon: "octagon", Word: "Failed", Reason: "given up"}
	case notifications.Cancelled:
		return ui.Status{Tone: ui.ToneStopped, Icon: "square", Word: "Cancelled", Reason: "the webhook was disabled"}
	case notifications.Pending:
	}
	if len(d.Attempts) > 0 {
		return ui.Status{Tone: ui.ToneNeeds, Icon: "clock", Word: "Trying again"}
	}
	return ui.Status{Tone: ui.ToneQueued, Icon: "ring-dotted", Word: "Queued"}
}

func newDeliveryRow(p page.Place, d notifications.Delivery) deliveryRow {
	r := deliveryRow{
		Href: deliveryPath(p, d.Webhook, d.ID), Type: d.EventType, Status: deliveryStatus(d), Attempts: len(d.Attempts), At: d.CreatedAt, Next: d.NextAttemptAt,
	}
	if len(d.Attempts) > 0 {
		r.Answer = answerOf(d.Attempts[len(d.Attempts)-1])
	}
	return r
}

// answerOf says what an attempt got: a status, or why there was none.
func answerOf(a notifications.Attempt) string {
	if a.Status != 0 {
		return strconv.Itoa(a.Status)
	}
	return a.Error
}

func newAttempt(a notifications.Attempt) attempt {
	out := attempt{Number: a.Number, At: a.StartedAt, Took: "under 1 ms", Response: a.Response, Status: ui.Status{Tone: ui.ToneCompleted, Icon: "tick-disc", Word: "Arrived"}}
	if a.Took >= time.Millisecond {
		out.Took = ui.Duration(a.Took)
	}
	if a.Status != 0 {
		out.Answer = "answered " + strconv.Itoa(a.Status)
	}
	if a.Error != "" {
		out.Status = ui.Status{Tone: ui.ToneFailed, Icon: "octagon", Word: "Did not arrive"}
		if a.Status == 0 {
			out.Error = a.Error
		}
	}
	return out
}

// message writes what an endpoint gets, as it gets it.
func message(d notifications.Delivery) (string, error) {
	raw, err := json.Marshal(struct {
		ID        id.Event        `json:"id"`
		Type      string          `json:"type"`
		CreatedAt string          `json:"created_at"`
		Data      json.RawMessage `json:"data"`
	}{d.Event, d.EventType, d.EventCreatedAt.UTC().Format("2006-01-02T15:04:05.000000Z"), d.EventData})
	if err != nil {
		return "", fmt.Errorf("write the message of delivery %s: %w", d.ID, err)
	}
	return string(raw), nil
}

func (h *Handler) delivery(c echo.Context) error { return h.drawDelivery(c, 200, nil) }

func (h *Handler) drawDelivery(c echo.Context, status int, problems ui.Problems) error {
	w, d, err := h.loadDelivery(c)
	if err != nil {
		return err
	}
	p := page.PlaceOf(c)
	v := deliveryView{Title: d.EventType, Self: deliveryPath(p, w.ID, d.ID), Status: deliveryStatus(d), Pending: d.Status == notifications.Pending, Problems: problems}
	if v.Message, err = message(d); err != nil {
		return err
	}
	v.Facts = []ui.Fact{{Term: "To", Text: w.URL}, {Term: "Message", Value: ui.Ident(string(d.Event))}, {Term: "Delivery", Value: ui.Ident(string(d.ID))}, {Term: "Happened", Value: ui.Date(d.EventCreatedAt)}}
	if d.NextAttemptAt != nil {
		v.Follow = len(d.Attempts) == 0 || time.Until(*d.NextAttemptAt) < time.Minute
		v.Facts = append(v.Facts, ui.Fact{Term: "Next attempt", Value: ui.Date(*d.NextAttemptAt)})
	}
	if d.EndedAt != nil {
		v.Facts = append(v.Facts, ui.Fact{Term: "Ended", Value: ui.Date(*d.EndedAt)})
	}
	for _, a := range d.Attempts {
		v.Attempts = append(v.Attempts, newAttempt(a))
	}
	if p.Can(tenants.WebhooksWrite) && !v.Pending && w.Status == notifications.WebhookActive {
		v.Redeliver = v.Self + "/redeliver"
	}
	back := p.Path("webhooks", string(w.ID))
	v.Frame = page.NewFrame(c, "webhooks", d.EventType, page.Crumb{Label: "Webhooks", Href: p.Path("webhooks")}, page.Crumb{Label: hostOf(w.URL), Href: back}, page.Crumb{Label: d.EventType})
	return page.Render(c, status, Delivery(v))
}

func (h *Handler) loadDelivery(c echo.Context) (w notifications.Webhook, d notifications.Delivery, err error) {
	one, err := id.Parse[id.Delivery](c.Param("delivery"))
	if err != nil {
		return w, d, fault.NotFound()
	}
	if w, err = h.load(c); err != nil {
		return w, d, err
	}
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, p page.Place) error {
		d, err = h.Webhooks.DeliveryTx(ctx, tx, p.Org, w.ID, one)
		return err
	})
	return w, d, err
}

func (h *Handler) redeliver(c echo.Context) error {
	w, d, err := h.loadDelivery(c)
	if err != nil {
		return err
	}
	var again notifications.Delivery
	err = h.inTx(c, func(ctx context.Context, tx pgx.Tx, p page.Place) error {
		again, err = h.Webhooks.RedeliverTx(ctx, tx, p.Org, w.ID, d.ID)
		return err
	})
	if err == nil {
		return page.Redirect(c, deliveryPath(page.PlaceOf(c), w.ID, again.ID))
	}
	problems, status, err := page.FormProblems(err, nil)
	if err != nil {
		return err
	}
	return h.drawDelivery(c, status, problems)
}
