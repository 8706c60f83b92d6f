package notifications

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/notifications/internal/notificationsdb"
)

// DeliveryStatus says what became of a delivery.
type DeliveryStatus string

// The statuses of a delivery.
const (
	Pending   DeliveryStatus = "pending"
	Delivered DeliveryStatus = "delivered"
	// Failed: all attempts were made, and none arrived.
	Failed DeliveryStatus = "failed"
	// Cancelled: its webhook was disabled before it arrived.
	Cancelled DeliveryStatus = "cancelled"
)

// Delivery is the sending of one event to one webhook, with all its attempts.
type Delivery struct {
	ID      id.Delivery
	Webhook id.Webhook
	// Event is the message's id, the same for every endpoint, every attempt and every redelivery.
	Event          id.Event
	EventType      string
	EventData      json.RawMessage
	EventCreatedAt time.Time
	Status         DeliveryStatus
	// Attempts are those that have ended, the first one first.
	Attempts []Attempt
	// NextAttemptAt is nil once the delivery has ended.
	NextAttemptAt *time.Time
	CreatedAt     time.Time
	EndedAt       *time.Time
}

// Attempt is one try.
type Attempt struct {
	Number    int
	StartedAt time.Time
	Took      time.Duration
	// Status is the answer's, 0 when there was none.
	Status int
	// Error is why it failed, in words; empty when it did not.
	Error string
	// Response is the beginning of the answer's body, at most 1 KiB.
	Response string
}

// ListDeliveries selects deliveries of a webhook.
type ListDeliveries struct {
	Statuses []DeliveryStatus
	// After is the id of the last one seen; empty begins at the newest.
	After id.Delivery
	Limit int
}

// DeliveriesTx lists a webhook's deliveries, newest first. A webhook that is not there has none; the caller looks first.
func (w *Webhooks) DeliveriesTx(ctx context.Context, tx pgx.Tx, org id.Org, webhook id.Webhook, in ListDeliveries) ([]Delivery, error) {
	q := notificationsdb.New(tx)
	params := notificationsdb.ListDeliveriesParams{OrgID: string(org), WebhookID: string(webhook), Before: string(in.After), MaxRows: int32(in.Limit), Statuses: []string{}} //nolint:gosec // a page
	for _, s := range in.Statuses {
		params.Statuses = append(params.Statuses, string(s))
	}
	rows, err := q.ListDeliveries(ctx, params)
	if err != nil {
		return nil, fmt.Errorf("list deliveries: %w", err)
	}
	out, ids := make([]Delivery, len(rows)), make([]string, len(rows))
	for i, r := range rows {
		out[i], ids[i] = deliveryOf(notificationsdb.GetDeliveryRow(r)), r.ID
	}
	attempts, err := q.ListAttempts(ctx, notificationsdb.ListAttemptsParams{OrgID: string(org), DeliveryIds: ids})
	if err != nil {
		return nil, fmt.Errorf("list attempts: %w", err)
	}
	byDelivery := map[id.Delivery][]Attempt{}
	for _, a := range attempts {
		d := id.Delivery(a.DeliveryID)
		byDelivery[d] = append(byDelivery[d], attemptOf(a))
	}
	for i := range out {
		out[i].Attempts = byDelivery[out[i].ID]
	}
	return out, nil
}

// DeliveryTx reads one delivery of a webhook, or says not found.
func (w *Webhooks) DeliveryTx(ctx context.Context, tx pgx.Tx, org id.Org, webhook id.Webhook, delivery id.Delivery) (Delivery, error) {
	q := notificationsdb.New(tx)
	row, err := q.GetDelivery(ctx, notificationsdb.GetDeliveryParams{OrgID: string(org), WebhookID: string(webhook), ID: string(delivery)})
	if err != nil {
		return Delivery{}, missing("read a delivery", err)
	}
	out := deliveryOf(row)
	attempts, err := q.ListAttempts(ctx, notificationsdb.ListAttemptsParams{OrgID: string(org), DeliveryIds: []string{row.ID}})
	if err != nil {
		return Delivery{}, fmt.Errorf("list attempts: %w", err)
	}
	for _, a := range attempts {
		out.Attempts = append(out.Attempts, attemptOf(a))
	}
	return out, nil
}

// TestTx sends a webhook a message of the type webhook.test, tried like any other.
func (w *Webhooks) TestTx(ctx context.Context, tx pgx.Tx, org id.Org, webhook id.Webhook) (Delivery, error) {
	hook, err := w.active(ctx, tx, org, webhook)
	if err != nil {
		return Delivery{}, err
	}
	event := id.New[id.Event]()
	row := notificationsdb.InsertSoleEventParams{OrgID: string(org), ID: string(event), Type: webhookTest, Now: w.deps.Clock.Now()}
	data := map[string]any{"type": "webhook", "id": hook.ID, "project_id": nil}
	if hook.Project != "" {
		project := string(hook.Project)
		row.ProjectID, data["project_id"] = &project, project
	}
	if row.Data, err = json.Marshal(data); err != nil {
		return Delivery{}, fmt.Errorf("encode a test message: %w", err)
	}
	if err := notificationsdb.New(tx).InsertSoleEvent(ctx, row); err != nil {
		return Delivery{}, fmt.Errorf("insert a test message: %w", err)
	}
	return w.deliver(ctx, tx, org, webhook, event)
}

// RedeliverTx sends an event once more, under its own id, as a delivery of its own.
func (w *Webhooks) RedeliverTx(ctx context.Context, tx pgx.Tx, org id.Org, webhook id.Webhook, delivery id.Delivery) (Delivery, error) {
	was, err := w.DeliveryTx(ctx, tx, org, webhook, delivery)
	if err != nil {
		return Delivery{}, err
	}
	if _, err := w.active(ctx, tx, org, webhook); err != nil {
		return Delivery{}, err
	}
	if was.Status == Pending {
		return Delivery{}, fault.New(fault.Conflict, "state_conflict", "This delivery is still under way.")
	}
	return w.deliver(ctx, tx, org, webhook, was.Event)
}

func (w *Webhooks) active(ctx context.Context, tx pgx.Tx, org id.Org, webhook id.Webhook) (Webhook, error) {
	hook, err := w.GetTx(ctx, tx, org, webhook)
	if err == nil && hook.Status != WebhookActive {
		err = fault.New(fault.Conflict, "state_conflict", "This webhook is disabled. Set its status to active first.")
	}
	return hook, err
}

func (w *Webhooks) deliver(ctx context.Context, tx pgx.Tx, org id.Org, webhook id.Webhook, event id.Event) (Delivery, error) {
	made := id.New[id.Delivery]()
	_, err := notificationsdb.New(tx).InsertDelivery(ctx, notificationsdb.InsertDeliveryParams{
		OrgID: string(org), ID: string(made), WebhookID: string(webhook), EventID: string(event), Now: w.deps.Clock.Now(),
	})
	if err != nil {
		return Delivery{}, fmt.Errorf("insert a delivery: %w", err)
	}
	return w.DeliveryTx(ctx, tx, org, webhook, made)
}

func deliveryOf(r notificationsdb.GetDeliveryRow) Delivery {
	d := Delivery{
		ID: id.Delivery(r.ID), Webhook: id.Webhook(r.WebhookID), Event: id.Event(r.EventID), EventType: r.EventType, EventData: r.Data,
		EventCreatedAt: r.EventCreatedAt, Status: DeliveryStatus(r.Status), CreatedAt: r.CreatedAt, EndedAt: r.EndedAt,
	}
	if d.Status == Pending {
		d.NextAttemptAt = &r.DueAt
	}
	return d
}

func attemptOf(r notificationsdb.WebhookAttempt) Attempt {
	a := Attempt{Number: int(r.Number), StartedAt: r.StartedAt, Took: time.Duration(r.DurationMs) * time.Millisecond, Response: r.Response}
	if r.Status != nil {
		a.Status = int(*r.Status)
	}
	if r.Error != nil {
		a.Error = *r.Error
	}
	return a
}
