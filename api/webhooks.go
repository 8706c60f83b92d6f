package api

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/tenants"
)

func (a *API) webhookRoutes() []Route {
	const tag = "Webhooks"
	return []Route{
		{
			ID: "webhooks.create", Method: http.MethodPost, Path: "/v1/webhooks", Permission: tenants.WebhooksWrite, Tag: tag,
			Summary: "Make a webhook",
			Description: "Messages are signed as Standard Webhooks has it: the headers webhook-id, webhook-timestamp and webhook-signature, the last one v1 and the HMAC-SHA256 of id.timestamp.body in base64. " +
				"The body is {id, type, created_at, data}; data names what changed, and the API tells the rest. Messages come in no order and may come twice: drop what has an id that you have seen. " +
				"Answer with 2xx within 15 s; else the message comes again after 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 h. 410 disables the webhook, and so do five days without a message that arrives. " +
				"Redirects are not followed, and private addresses are not reached. The secret is in this answer and nowhere else. A request that is bound to a project makes webhooks of that project.",
			Errors: []string{"archived", "state_conflict"}, Endpoint: write(http.StatusCreated, a.createWebhook),
		},
		{
			ID: "webhooks.list", Method: http.MethodGet, Path: "/v1/webhooks", Permission: tenants.WebhooksRead, Tag: tag,
			Summary: "List webhooks", Description: "Newest first.", Errors: []string{slugPage}, Endpoint: read(a.listWebhooks),
		},
		{
			ID: "webhooks.get", Method: http.MethodGet, Path: "/v1/webhooks/{webhook_id}", Permission: tenants.WebhooksRead, Tag: tag,
			Summary: "Get a webhook", Endpoint: read(a.getWebhook),
		},
		{
			ID: "webhooks.update", Method: http.MethodPost, Path: "/v1/webhooks/{webhook_id}", Permission: tenants.WebhooksWrite, Tag: tag,
			Summary: "Update a webhook", Description: "A field that is left out stays. Disabling it cancels what waits for it; setting it active again begins afresh.",
			Errors: []string{"precondition_failed"}, Endpoint: write(http.StatusOK, a.updateWebhook),
		},
		{
			ID: "webhooks.rotate_secret", Method: http.MethodPost, Path: "/v1/webhooks/{webhook_id}/rotate_secret", Permission: tenants.WebhooksWrite, Tag: tag,
			Summary:     "Rotate a webhook's secret",
			Description: "For expire_old_seconds each message has two signatures, one by the old secret and one by the new. The new secret is in this answer and nowhere else.",
			Endpoint:    write(http.StatusOK, a.rotateWebhookSecret),
		},
		{
			ID: "webhooks.test", Method: http.MethodPost, Path: "/v1/webhooks/{webhook_id}/test", Permission: tenants.WebhooksWrite, Tag: tag,
			Summary: "Send a test message", Description: "Of the type webhook.test, to this webhook alone, tried like any other.",
			Errors: []string{"state_conflict"}, Endpoint: write(http.StatusCreated, a.testWebhook),
		},
		{
			ID: "webhooks.deliveries.list", Method: http.MethodGet, Path: "/v1/webhooks/{webhook_id}/deliveries", Permission: tenants.WebhooksRead, Tag: tag,
			Summary: "List a webhook's deliveries", Description: "Newest first, with their attempts. They are kept for 30 days.", Errors: []string{slugPage}, Endpoint: read(a.listDeliveries),
		},
		{
			ID: "webhooks.deliveries.get", Method: http.MethodGet, Path: "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}", Permission: tenants.WebhooksRead, Tag: tag,
			Summary: "Get a delivery", Endpoint: read(a.getDelivery),
		},
		{
			ID: "webhooks.deliveries.redeliver", Method: http.MethodPost, Path: "/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/redeliver", Permission: tenants.WebhooksWrite, Tag: tag,
			Summary: "Deliver again", Description: "The same message, under its own id, as a delivery of its own.",
			Errors: []string{"state_conflict"}, Endpoint: write(http.StatusCreated, a.redeliver),
		},
		{
			ID: "webhooks.delete", Method: http.MethodDelete, Path: "/v1/webhooks/{webhook_id}", Permission: tenants.WebhooksWrite, Tag: tag,
			Summary: "Delete a webhook", Description: "With the record of its deliveries.", Endpoint: write(http.StatusOK, a.deleteWebhook),
		},
	}
}

// Webhook is an endpoint that hears of events, without its secret.
type Webhook struct {
	ID                 id.Webhook  `json:"id"`
	Type               string      `json:"type" const:"webhook"`
	ProjectID          *id.Project `json:"project_id" doc:"null: events of the whole organisation."`
	URL                string      `json:"url"`
	Description        string      `json:"description"`
	EventTypes         []string    `json:"event_types"`
	Status             string      `json:"status" enum:"active,disabled"`
	DisabledReason     *string     `json:"disabled_reason" enum:"requested,failing,gone" doc:"failing: nothing arrived for five days. gone: it answered 410."`
	FailingSince       *Time       `json:"failing_since" doc:"The first of the failures in a row; null when the last message arrived."`
	OldSecretExpiresAt *Time       `json:"old_secret_expires_at" doc:"Until when the secret before the present one signs too."`
	Version            int64       `json:"version"`
	CreatedBy          string      `json:"created_by"`
	CreatedAt          Time        `json:"created_at"`
	UpdatedAt          Time        `json:"updated_at"`
}

func (w Webhook) entityTag() string { return quoteTag(w.Version) }
func (w Webhook) location() string  { return "/v1/webhooks/" + string(w.ID) }

// NewWebhook is a webhook with its secret, this once.
type NewWebhook struct {
	Webhook
	Secret string `json:"secret" doc:"Shown this once. It begins with whsec_; what follows is the key, in base64."`
}

func (a *API) showWebhook(w notifications.Webhook) Webhook {
	out := Webhook{
		ID: w.ID, Type: "webhook", URL: w.URL, Description: w.Description, EventTypes: w.EventTypes, Status: string(w.Status), FailingSince: timePtr(w.FailingSince),
		Version: w.Version, CreatedBy: w.CreatedBy, CreatedAt: Time(w.CreatedAt), UpdatedAt: Time(w.UpdatedAt),
	}
	if w.Project != "" {
		out.ProjectID = &w.Project
	}
	if w.DisabledReason != "" {
		out.DisabledReason = &w.DisabledReason
	}
	if w.PreviousUntil != nil && w.PreviousUntil.After(a.cfg.Clock.Now()) {
		out.OldSecretExpiresAt = timePtr(w.PreviousUntil)
	}
	return out
}

// Delivery is the sending of one message to one webhook.
type Delivery struct {
	ID            id.Delivery       `json:"id"`
	Type          string            `json:"type" const:"webhook_delivery"`
	WebhookID     id.Webhook        `json:"webhook_id"`
	Status        string            `json:"status" enum:"pending,delivered,failed,cancelled"`
	Message       DeliveredMessage  `json:"message"`
	Attempts      []DeliveryAttempt `json:"attempts"`
	NextAttemptAt *Time             `json:"next_attempt_at" doc:"null once it has ended."`
	CreatedAt     Time              `json:"created_at"`
	EndedAt       *Time             `json:"ended_at"`
}

func (d Delivery) location() string {
	return "/v1/webhooks/" + string(d.WebhookID) + "/deliveries/" + string(d.ID)
}

// DeliveredMessage is what is sent, but for the signature.
type DeliveredMessage struct {
	ID        id.Event        `json:"id" doc:"The header webhook-id: the same for every attempt and every delivery."`
	Type      string          `json:"type" example:"session.status_idle"`
	CreatedAt Time            `json:"created_at"`
	Data      json.RawMessage `json:"data"`
}

// DeliveryAttempt is one try.
type DeliveryAttempt struct {
	Number     int     `json:"number"`
	StartedAt  Time    `json:"started_at"`
	DurationMS int64   `json:"duration_ms"`
	Status     *int    `json:"status" doc:"The HTTP status; null when there was no answer."`
	Error      *string `json:"error" doc:"Why it failed, in words."`
	Response   string  `json:"response" doc:"The beginning of the answer's body."`
}

func showDelivery(d notifications.Delivery) Delivery {
	out := Delivery{
		ID: d.ID, Type: "webhook_delivery", WebhookID: d.Webhook, Status: string(d.Status), NextAttemptAt: timePtr(d.NextAttemptAt), CreatedAt: Time(d.CreatedAt),
		EndedAt: timePtr(d.EndedAt), Attempts: []DeliveryAttempt{},
		Message: DeliveredMessage{ID: d.Event, Type: d.EventType, CreatedAt: Time(d.EventCreatedAt), Data: d.EventData},
	}
	for _, at := range d.Attempts {
		shown := DeliveryAttempt{Number: at.Number, StartedAt: Time(at.StartedAt), DurationMS: at.Took.Milliseconds(), Response: at.Response}
		if at.Status != 0 {
			shown.Status = &at.Status
		}
		if at.Error != "" {
			shown.Error = &at.Error
		}
		out.Attempts = append(out.Attempts, shown)
	}
	return out
}

type createWebhookIn struct {
	Body struct {
		URL         string      `json:"url" required:"true" minlen:"1" maxlen:"2048" example:"https://example.com/ambit" doc:"It begins with https://."`
		EventTypes  []string    `json:"event_types" required:"true" minitems:"1" maxitems:"64" maxlen:"100" example:"[\"session.status_idle\"]" doc:"Some of budget.threshold, invitation.created, mandate.revoked, session.status_idle, session.status_terminated, webhook.disabled; or * for all."`
		Description string      `json:"description" maxlen:"500"`
		ProjectID   *id.Project `json:"project_id" doc:"Only events of this project. Left out: of the whole organisation, or of the project that the request is bound to."`
	} `body:"json"`
}

func (a *API) createWebhook(ctx context.Context, tx pgx.Tx, in createWebhookIn) (NewWebhook, error) {
	who := principal.From(ctx)
	ask := notifications.CreateWebhook{Project: who.Project, URL: in.Body.URL, Description: in.Body.Description, EventTypes: in.Body.EventTypes}
	if p := in.Body.ProjectID; p != nil {
		if who.Project != "" && *p != who.Project {
			return NewWebhook{}, fault.NotFound()
		}
		ask.Project = *p
	}
	if ask.Project != "" {
		if _, err := a.cfg.Domains.Tenants.RequireActiveProjectTx(ctx, tx, who.Org, ask.Project); err != nil {
			return NewWebhook{}, err
		}
	}
	made, secret, err := a.cfg.Domains.Webhooks.CreateTx(ctx, tx, who, ask)
	if err != nil {
		return NewWebhook{}, err
	}
	return NewWebhook{Webhook: a.showWebhook(made), Secret: secret}, nil
}

type listWebhooksIn struct {
	Paging
	projectFilter
}

func (a *API) listWebhooks(ctx context.Context, tx pgx.Tx, in listWebhooksIn) (Page[Webhook], error) {
	project, err := in.project(ctx)
	if err != nil {
		return Page[Webhook]{}, err
	}
	after, err := positionID[id.Webhook](in.place)
	if err != nil {
		return Page[Webhook]{}, err
	}
	list, err := a.cfg.Domains.Webhooks.ListTx(ctx, tx, principal.From(ctx).Org, project, after, in.place.fetch())
	if err != nil {
		return Page[Webhook]{}, err
	}
	return pageOf(in.place, list, func(w notifications.Webhook) string { return string(w.ID) }, a.showWebhook), nil
}

type webhookIn struct {
	Webhook id.Webhook `path:"webhook_id"`
}

// seenWebhook reads a webhook that the caller may see: a request that is bound to a project sees that project's.
func (a *API) seenWebhook(ctx context.Context, tx pgx.Tx, webhook id.Webhook) (notifications.Webhook, error) {
	who := principal.From(ctx)
	w, err := a.cfg.Domains.Webhooks.GetTx(ctx, tx, who.Org, webhook)
	if err != nil {
		return notifications.Webhook{}, err
	}
	if who.Project != "" && w.Project != who.Project {
		return notifications.Webhook{}, fault.NotFound()
	}
	return w, nil
}

func (a *API) getWebhook(ctx context.Context, tx pgx.Tx, in webhookIn) (Webhook, error) {
	w, err := a.seenWebhook(ctx, tx, in.Webhook)
	if err != nil {
		return Webhook{}, err
	}
	return a.showWebhook(w), nil
}

type updateWebhookIn struct {
	Webhook id.Webhook `path:"webhook_id"`
	IfMatch ifMatch    `header:"If-Match" doc:"The ETag that the webhook must have."`
	Body    struct {
		URL         Opt[string]   `json:"url" maxlen:"2048"`
		EventTypes  Opt[[]string] `json:"event_types" maxitems:"64"`
		Description Opt[string]   `json:"description" maxlen:"500"`
		Status      Opt[string]   `json:"status" enum:"active,disabled"`
	} `body:"json"`
}

func (a *API) updateWebhook(ctx context.Context, tx pgx.Tx, in updateWebhookIn) (Webhook, error) {
	have, err := a.seenWebhook(ctx, tx, in.Webhook)
	if err != nil {
		return Webhook{}, err
	}
	change := notifications.UpdateWebhook{URL: in.Body.URL.Ptr(), Description: in.Body.Description.Ptr()}
	if in.IfMatch != "" {
		if !in.IfMatch.allows(have.Version) {
			return Webhook{}, changedMeanwhile()
		}
		change.IfVersion = &have.Version
	}
	if in.Body.EventTypes.Set {
		change.EventTypes = append([]string{}, in.Body.EventTypes.Value...)
	}
	if s := in.Body.Status; s.Set {
		if s.Null {
			return Webhook{}, fault.InvalidField("/status", "required", "A webhook is active or disabled.")
		}
		status := notifications.WebhookStatus(s.Value)
		change.Status = &status
	}
	w, err := a.cfg.Domains.Webhooks.UpdateTx(ctx, tx, principal.From(ctx).Org, in.Webhook, change)
	if err != nil {
		return Webhook{}, err
	}
	return a.showWebhook(w), nil
}

func (a *API) deleteWebhook(ctx context.Context, tx pgx.Tx, in webhookIn) (Deleted, error) {
	if _, err := a.seenWebhook(ctx, tx, in.Webhook); err != nil {
		return Deleted{}, err
	}
	if err := a.cfg.Domains.Webhooks.DeleteTx(ctx, tx, principal.From(ctx).Org, in.Webhook); err != nil {
		return Deleted{}, err
	}
	return Deleted{ID: string(in.Webhook), Type: "webhook_deleted"}, nil
}

type rotateWebhookIn struct {
	Webhook id.Webhook `path:"webhook_id"`
	Body    struct {
		ExpireOldSeconds *int64 `json:"expire_old_seconds" min:"0" max:"604800" default:"86400" doc:"How long the old secret signs too."`
	} `body:"optional"`
}

func (a *API) rotateWebhookSecret(ctx context.Context, tx pgx.Tx, in rotateWebhookIn) (NewWebhook, error) {
	if _, err := a.seenWebhook(ctx, tx, in.Webhook); err != nil {
		return NewWebhook{}, err
	}
	grace := 24 * time.Hour
	if s := in.Body.ExpireOldSeconds; s != nil {
		grace = time.Duration(*s) * time.Second
	}
	w, secret, err := a.cfg.Domains.Webhooks.RotateSecretTx(ctx, tx, principal.From(ctx).Org, in.Webhook, grace)
	if err != nil {
		return NewWebhook{}, err
	}
	return NewWebhook{Webhook: a.showWebhook(w), Secret: secret}, nil
}

func (a *API) testWebhook(ctx context.Context, tx pgx.Tx, in webhookIn) (Delivery, error) {
	if _, err := a.seenWebhook(ctx, tx, in.Webhook); err != nil {
		return Delivery{}, err
	}
	d, err := a.cfg.Domains.Webhooks.TestTx(ctx, tx, principal.From(ctx).Org, in.Webhook)
	if err != nil {
		return Delivery{}, err
	}
	return showDelivery(d), nil
}

type listDeliveriesIn struct {
	Webhook id.Webhook `path:"webhook_id"`
	Paging
	Statuses []string `query:"statuses[]" enum:"pending,delivered,failed,cancelled" maxitems:"4"`
}

func (a *API) listDeliveries(ctx context.Context, tx pgx.Tx, in listDeliveriesIn) (Page[Delivery], error) {
	if _, err := a.seenWebhook(ctx, tx, in.Webhook); err != nil {
		return Page[Delivery]{}, err
	}
	after, err := positionID[id.Delivery](in.place)
	if err != nil {
		return Page[Delivery]{}, err
	}
	ask := notifications.ListDeliveries{After: after, Limit: in.place.fetch()}
	for _, s := range in.Statuses {
		ask.Statuses = append(ask.Statuses, notifications.DeliveryStatus(s))
	}
	list, err := a.cfg.Domains.Webhooks.DeliveriesTx(ctx, tx, principal.From(ctx).Org, in.Webhook, ask)
	if err != nil {
		return Page[Delivery]{}, err
	}
	return pageOf(in.place, list, func(d notifications.Delivery) string { return string(d.ID) }, showDelivery), nil
}

type deliveryIn struct {
	Webhook  id.Webhook  `path:"webhook_id"`
	Delivery id.Delivery `path:"delivery_id"`
}

func (a *API) getDelivery(ctx context.Context, tx pgx.Tx, in deliveryIn) (Delivery, error) {
	if _, err := a.seenWebhook(ctx, tx, in.Webhook); err != nil {
		return Delivery{}, err
	}
	d, err := a.cfg.Domains.Webhooks.DeliveryTx(ctx, tx, principal.From(ctx).Org, in.Webhook, in.Delivery)
	if err != nil {
		return Delivery{}, err
	}
	return showDelivery(d), nil
}

func (a *API) redeliver(ctx context.Context, tx pgx.Tx, in deliveryIn) (Delivery, error) {
	if _, err := a.seenWebhook(ctx, tx, in.Webhook); err != nil {
		return Delivery{}, err
	}
	d, err := a.cfg.Domains.Webhooks.RedeliverTx(ctx, tx, principal.From(ctx).Org, in.Webhook, in.Delivery)
	if err != nil {
		return Delivery{}, err
	}
	return showDelivery(d), nil
}
