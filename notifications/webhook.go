package notifications

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/notifications/internal/notificationsdb"
)

// Limits of webhooks.
const (
	MaxWebhooks    = 50 // of one organisation
	maxDescription = 500
	maxURL         = 2048
	// MaxGrace is the longest that a replaced secret goes on signing.
	MaxGrace = 7 * 24 * time.Hour
)

// WebhookStatus says whether a webhook is sent to.
type WebhookStatus string

// The statuses.
const (
	WebhookActive WebhookStatus = "active"
	WebhookOff    WebhookStatus = "disabled"
)

// Why a webhook is disabled.
const (
	DisabledByRequest = "requested"
	// DisabledFailing: nothing arrived for DisableAfter.
	DisabledFailing = "failing"
	// DisabledGone: the endpoint answered 410.
	DisabledGone = "gone"
)

// Webhook is an endpoint that hears of events. Its secret is shown when it is made, and never again.
type Webhook struct {
	Org id.Org
	ID  id.Webhook
	// Project restricts it to the events of one project; empty hears of the whole organisation.
	Project        id.Project
	URL            string
	Description    string
	EventTypes     []string
	Status         WebhookStatus
	DisabledReason string
	// FailingSince is when the first of the failures in a row happened, nil when the last delivery arrived.
	FailingSince *time.Time
	// PreviousUntil is until when the secret before the present one signs too, nil when there is none.
	PreviousUntil *time.Time
	// Version grows with each change, from 1.
	Version   int64
	CreatedBy string
	CreatedAt time.Time
	UpdatedAt time.Time
}

// CreateWebhook is the input of CreateTx.
type CreateWebhook struct {
	Project     id.Project
	URL         string
	Description string
	// EventTypes are some of EventTypes, or AllEvents alone.
	EventTypes []string
}

// UpdateWebhook is the input of UpdateTx; nil leaves a field as it is.
type UpdateWebhook struct {
	URL         *string
	Description *string
	EventTypes  []string
	Status      *WebhookStatus
	// IfVersion refuses the change, with precondition_failed, when the webhook is at another version.
	IfVersion *int64
}

// CreateTx makes a webhook in a transaction of the organisation of by. The secret is returned this once and lies sealed from then on. Its
// faults: invalid_request, state_conflict when there are too many.
func (w *Webhooks) CreateTx(ctx context.Context, tx pgx.Tx, by principal.Principal, in CreateWebhook) (Webhook, string, error) {
	var wrong []fault.Field
	row := notificationsdb.InsertWebhookParams{
		OrgID: string(by.Org), ID: string(id.New[id.Webhook]()), Description: in.Description, CreatedBy: by.ID, CreatedAt: w.deps.Clock.Now(),
	}
	row.Url = w.checkURL(in.URL, &wrong)
	row.EventTypes = checkTypes(in.EventTypes, &wrong)
	checkDescription(in.Description, &wrong)
	if len(wrong) > 0 {
		return Webhook{}, "", fault.InvalidFields(wrong...)
	}
	if in.Project != "" {
		project := string(in.Project)
		row.ProjectID = &project
	}
	q := notificationsdb.New(tx)
	n, err := q.CountWebhooks(ctx, string(by.Org))
	if err != nil {
		return Webhook{}, "", fmt.Errorf("count webhooks: %w", err)
	}
	if n >= MaxWebhooks {
		return Webhook{}, "", fault.Newf(fault.Conflict, "state_conflict", "An organisation may have at most %d webhooks. Delete one that is not needed.", MaxWebhooks)
	}
	secret := newSecret()
	if row.SealedSecret, err = w.deps.Sealer.Seal([]byte(secret), secretPurpose(row.OrgID, row.ID)); err != nil {
		return Webhook{}, "", fmt.Errorf("seal a webhook's secret: %w", err)
	}
	made, err := q.InsertWebhook(ctx, row)
	if err != nil {
		return Webhook{}, "", fmt.Errorf("insert a webhook: %w", err)
	}
	return webhookOf(made), secret, nil
}

// GetTx reads a webhook of the organisation, or says not found.
func (w *Webhooks) GetTx(ctx context.Context, tx pgx.Tx, org id.Org, webhook id.Webhook) (Webhook, error) {
	row, err := notificationsdb.New(tx).GetWebhook(ctx, notificationsdb.GetWebhookParams{OrgID: string(org), ID: string(webhook)})
	if err != nil {
		return Webhook{}, missing("read a webhook", err)
	}
	return webhookOf(row), nil
}

// ListTx lists webhooks, newest first, after the one with the id before; an empty id begins at the newest. A project restricts the list.
func (w *Webhooks) ListTx(ctx context.Context, tx pgx.Tx, org id.Org, project id.Project, before id.Webhook, limit int) ([]Webhook, error) {
	params := notificationsdb.ListWebhooksParams{OrgID: string(org), Before: string(before), MaxRows: int32(limit)} //nolint:gosec // a page
	if project != "" {
		p := string(project)
		params.ProjectID = &p
	}
	rows, err := notificationsdb.New(tx).ListWebhooks(ctx, params)
	if err != nil {
		return nil, fmt.Errorf("list webhooks: %w", err)
	}
	out := make([]Webhook, len(rows))
	for i, r := range rows {
		out[i] = webhookOf(r)
	}
	return out, nil
}

// UpdateTx changes a webhook. Disabling it cancels what waits for it; enabling it again begins afresh. Its faults: not_found,
// precondition_failed, invalid_request.
func (w *Webhooks) UpdateTx(ctx context.Context, tx pgx.Tx, org id.Org, webhook id.Webhook, in UpdateWebhook) (Webhook, error) {
	return w.change(ctx, tx, org, webhook, func(row *notificationsdb.UpdateWebhookParams, was Webhook) error {
		if in.IfVersion != nil && *in.IfVersion != was.Version {
			return fault.New(fault.PreconditionFailed, "precondition_failed", "This was changed since you read it. Read it again, then decide.")
		}
		var wrong []fault.Field
		if in.URL != nil {
			if row.Url = w.checkURL(*in.URL, &wrong); row.Url != was.URL {
				row.FailingSince = nil // the new address has not failed yet
			}
		}
		if in.EventTypes != nil {
			row.EventTypes = checkTypes(in.EventTypes, &wrong)
		}
		if in.Description != nil {
			row.Description = *in.Description
			checkDescription(row.Description, &wrong)
		}
		if len(wrong) > 0 {
			return fault.InvalidFields(wrong...)
		}
		if in.Status != nil && *in.Status != was.Status {
			if *in.Status == WebhookActive {
				row.Status, row.DisabledReason, row.FailingSince = string(WebhookActive), nil, nil
			} else {
				disable(row, DisabledByRequest)
			}
		}
		return nil
	})
}

// RotateSecretTx gives a webhook a new secret, which is returned this once. The one before signs too for as long as grace says, so that
// the receiver can change over without missing anything; an older one stops at once.
func (w *Webhooks) RotateSecretTx(ctx context.Context, tx pgx.Tx, org id.Org, webhook id.Webhook, grace time.Duration) (Webhook, string, error) {
	if grace < 0 || grace > MaxGrace {
		return Webhook{}, "", fault.InvalidField("/expire_old_seconds", "out_of_range", fmt.Sprintf("The old secret may sign for at most %d seconds more.", int(MaxGrace.Seconds())))
	}
	secret := newSecret()
	out, err := w.change(ctx, tx, org, webhook, func(row *notificationsdb.UpdateWebhookParams, _ Webhook) error {
		sealed, err := w.deps.Sealer.Seal([]byte(secret), secretPurpose(row.OrgID, row.ID))
		if err != nil {
			return fmt.Errorf("seal a webhook's secret: %w", err)
		}
		row.SealedPrevious, row.PreviousUntil = nil, nil
		if grace > 0 {
			until := row.Now.Add(grace)
			row.SealedPrevious, row.PreviousUntil = row.SealedSecret, &until
		}
		row.SealedSecret = sealed
		return nil
	})
	return out, secret, err
}

// DeleteTx deletes a webhook with its deliveries, or says not found.
func (w *Webhooks) DeleteTx(ctx context.Context, tx pgx.Tx, org id.Org, webhook id.Webhook) error {
	n, err := notificationsdb.New(tx).DeleteWebhook(ctx, notificationsdb.DeleteWebhookParams{OrgID: string(org), ID: string(webhook)})
	if err != nil {
		return fmt.Errorf("delete a webhook: %w", err)
	}
	if n == 0 {
		return fault.NotFound()
	}
	return nil
}

// change locks a webhook, lets edit change it, and writes it; what waits for one that is disabled by it is cancelled.
func (w *Webhooks) change(ctx context.Context, tx pgx.Tx, org id.Org, webhook id.Webhook, edit func(*notificationsdb.UpdateWebhookParams, Webhook) error) (Webhook, error) {
	q := notificationsdb.New(tx)
	was, err := q.LockWebhook(ctx, notificationsdb.LockWebhookParams{OrgID: string(org), ID: string(webhook)})
	if err != nil {
		return Webhook{}, missing("lock a webhook", err)
	}
	row := notificationsdb.UpdateWebhookParams{
		OrgID: was.OrgID, ID: was.ID, Url: was.Url, Description: was.Description, EventTypes: was.EventTypes, Status: was.Status, DisabledReason: was.DisabledReason,
		FailingSince: was.FailingSince, SealedSecret: was.SealedSecret, SealedPrevious: was.SealedPrevious, PreviousUntil: was.PreviousUntil, Now: w.deps.Clock.Now(),
	}
	if err := edit(&row, webhookOf(was)); err != nil {
		return Webhook{}, err
	}
	changed, err := q.UpdateWebhook(ctx, row)
	if err != nil {
		return Webhook{}, fmt.Errorf("update a webhook: %w", err)
	}
	if changed.Status != was.Status && changed.Status == string(WebhookOff) {
		if err := q.CancelDeliveries(ctx, notificationsdb.CancelDeliveriesParams{Now: row.Now, OrgID: row.OrgID, WebhookID: row.ID}); err != nil {
			return Webhook{}, fmt.Errorf("cancel what waits for a webhook: %w", err)
		}
	}
	return webhookOf(changed), nil
}

func disable(row *notificationsdb.UpdateWebhookParams, reason string) {
	row.Status, row.DisabledReason = string(WebhookOff), &reason
}

// checkURL gives the address in its one spelling.
func (w *Webhooks) checkURL(raw string, wrong *[]fault.Field) string {
	bad := func(message string) string {
		*wrong = append(*wrong, fault.Field{Pointer: "/url", Code: "invalid_url", Message: message})
		return ""
	}
	if raw == "" || len(raw) > maxURL {
		return bad(fmt.Sprintf("A webhook's address has 1 to %d characters.", maxURL))
	}
	t, err := w.deps.Client.Vet(raw)
	if err != nil {
		var refusal *egress.Refusal
		if errors.As(err, &refusal) {
			return bad(refusal.Message)
		}
		return bad("The address can't be read.")
	}
	if t.Scheme != "https" && !w.deps.Client.AllowsLoopback() {
		return bad("A webhook's address must begin with https://, so that nobody on the way can read or change what is sent.")
	}
	return t.String()
}

func checkTypes(types []string, wrong *[]fault.Field) []string {
	bad := func(code, message string) []string {
		*wrong = append(*wrong, fault.Field{Pointer: "/event_types", Code: code, Message: message})
		return nil
	}
	if slices.Contains(types, AllEvents) {
		return []string{AllEvents}
	}
	out := slices.Clone(types)
	slices.Sort(out)
	out = slices.Compact(out)
	if len(out) == 0 {
		return bad("required", `Name at least one type of event, or "*" for all.`)
	}
	for _, t := range out {
		if !slices.Contains(EventTypes(), t) {
			if len(t) > 60 {
				t = t[:60]
			}
			return bad("unknown_value", fmt.Sprintf("There is no type of event %q. There are: *, %s.", t, strings.Join(EventTypes(), ", ")))
		}
	}
	return out
}

func checkDescription(s string, wrong *[]fault.Field) {
	if utf8.RuneCountInString(s) > maxDescription || !utf8.ValidString(s) || strings.ContainsRune(s, 0) {
		*wrong = append(*wrong, fault.Field{Pointer: "/description", Code: "out_of_range", Message: fmt.Sprintf("A description has at most %d characters, without the null character.", maxDescription)})
	}
}

func missing(doing string, err error) error {
	if errors.Is(err, pgx.ErrNoRows) {
		return fault.NotFound()
	}
	return postgres.Translate(fmt.Errorf("%s: %w", doing, err))
}

// secretPurpose binds a sealed secret to its row.
func secretPurpose(org, webhook string) string { return "webhooks/" + org + "/" + webhook }

func webhookOf(r notificationsdb.Webhook) Webhook {
	w := Webhook{
		Org: id.Org(r.OrgID), ID: id.Webhook(r.ID), URL: r.Url, Description: r.Description, EventTypes: r.EventTypes, Status: WebhookStatus(r.Status),
		FailingSince: r.FailingSince, PreviousUntil: r.PreviousUntil, Version: r.Version, CreatedBy: r.CreatedBy, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt,
	}
	if r.ProjectID != nil {
		w.Project = id.Project(*r.ProjectID)
	}
	if r.DisabledReason != nil {
		w.DisabledReason = *r.DisabledReason
	}
	return w
}
