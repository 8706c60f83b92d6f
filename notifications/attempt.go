package notifications

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/notifications/internal/notificationsdb"
)

const (
	maxResponseKept = 1024
	maxErrorKept    = 500
	userAgent       = "Ambit-Webhooks/1"
)

// message is the body that an endpoint gets.
type message struct {
	ID        string          `json:"id"`
	Type      string          `json:"type"`
	CreatedAt string          `json:"created_at"`
	Data      json.RawMessage `json:"data"`
}

// ended is how one attempt went.
type ended struct {
	started  time.Time
	took     time.Duration
	status   int
	err      string
	response string
}

func (e ended) arrived() bool { return e.status >= 200 && e.status < 300 }

// attempt sends one claimed delivery once and notes how it went. Its error is one of the database; then the claim runs out, and the
// delivery is sent again.
func (w *Webhooks) attempt(ctx context.Context, c notificationsdb.ClaimDeliveriesRow) error {
	e := w.send(ctx, c)
	if ctx.Err() != nil {
		return ctx.Err() // broken off by a stop: not the endpoint's failure
	}
	failingSince, err := w.note(ctx, c, e)
	if err != nil {
		return err
	}
	log := w.deps.Logger.With("org", c.OrgID, "webhook", c.WebhookID, "delivery", c.ID, "attempt", c.Attempts, "status", e.status, "took", e.took)
	if e.arrived() {
		log.InfoContext(ctx, "webhook delivered")
		return nil
	}
	log.InfoContext(ctx, "webhook not delivered", "error", e.err)
	switch {
	case e.status == http.StatusGone:
		return w.disableFor(ctx, c, DisabledGone)
	case e.started.Sub(failingSince) >= DisableAfter:
		return w.disableFor(ctx, c, DisabledFailing)
	default:
		return nil
	}
}

func (w *Webhooks) send(ctx context.Context, c notificationsdb.ClaimDeliveriesRow) (out ended) {
	out.started = w.deps.Clock.Now()
	began := time.Now()
	defer func() { out.took = time.Since(began) }()
	body, header, err := w.compose(out.started, c)
	if err != nil {
		w.deps.Logger.ErrorContext(ctx, "a webhook's message could not be signed", "org", c.OrgID, "webhook", c.WebhookID, "error", err)
		out.err = "the platform could not sign the message"
		return out
	}
	target, err := egress.ParseURL(c.Url)
	if err != nil {
		out.err = describe(err)
		return out
	}
	res, err := w.deps.Client.Do(ctx, egress.Request{
		Method: http.MethodPost, URL: c.Url, Header: header, Body: body, Rules: egress.Exactly(target), Timeout: attemptTimeout, MaxBody: maxResponseKept,
	})
	if err != nil {
		out.err = cut(clean(describe(err)), maxErrorKept)
		return out
	}
	out.status, out.response = res.Status, cut(clean(string(res.Body)), maxResponseKept)
	switch {
	case out.arrived():
	case res.Status >= 300 && res.Status < 400:
		out.err = fmt.Sprintf("it answered %d: redirects are not followed", res.Status)
	default:
		out.err = fmt.Sprintf("it answered %d", res.Status)
	}
	return out
}

// compose makes the body and its signed headers.
func (w *Webhooks) compose(now time.Time, c notificationsdb.ClaimDeliveriesRow) ([]byte, http.Header, error) {
	secrets := make([]string, 0, 2)
	sealed := [][]byte{c.SealedSecret}
	if c.SealedPrevious != nil && c.PreviousUntil != nil && now.Before(*c.PreviousUntil) {
		sealed = append(sealed, c.SealedPrevious)
	}
	for _, s := range sealed {
		plain, err := w.deps.Sealer.Unseal(s, secretPurpose(c.OrgID, c.WebhookID))
		if err != nil {
			return nil, nil, err
		}
		secrets = append(secrets, string(plain))
	}
	body, err := json.Marshal(message{ID: c.EventID, Type: c.EventType, CreatedAt: c.EventCreatedAt.UTC().Format("2006-01-02T15:04:05.000000Z"), Data: c.Data})
	if err != nil {
		return nil, nil, fmt.Errorf("encode a webhook's message: %w", err)
	}
	signature, err := Sign(secrets, c.EventID, now, body)
	if err != nil {
		return nil, nil, err
	}
	return body, http.Header{
		"Content-Type": {"application/json"}, "User-Agent": {userAgent},
		"Webhook-Id": {c.EventID}, "Webhook-Timestamp": {strconv.FormatInt(now.Unix(), 10)}, "Webhook-Signature": {signature},
	}, nil
}

// note writes the attempt down and decides when the next one is. It returns since when the endpoint has been failing.
func (w *Webhooks) note(ctx context.Context, c notificationsdb.ClaimDeliveriesRow, e ended) (failingSince time.Time, err error) {
	now := w.deps.Clock.Now()
	end := notificationsdb.EndAttemptParams{OrgID: c.OrgID, ID: c.ID, Attempts: c.Attempts, Status: string(Delivered), DueAt: now, EndedAt: &now}
	if !e.arrived() {
		if pause, again := pauseAfter(int(c.Attempts)); again && e.status != http.StatusGone {
			end.Status, end.DueAt, end.EndedAt = string(Pending), now.Add(pause), nil
		} else {
			end.Status = string(Failed)
		}
	}
	row := notificationsdb.InsertAttemptParams{
		OrgID: c.OrgID, DeliveryID: c.ID, Number: c.Attempts, StartedAt: e.started, DurationMs: int32(min(e.took.Milliseconds(), 1<<30)), Response: e.response, //nolint:gosec // bounded
	}
	if e.status != 0 {
		status := int32(e.status) //nolint:gosec // of three digits
		row.Status = &status
	}
	if e.err != "" {
		row.Error = &e.err
	}
	err = w.deps.DB.InWorkerTx(ctx, func(tx pgx.Tx) error {
		q := notificationsdb.New(tx)
		// First, so that a delivery deleted meanwhile is noticed before its attempt is written.
		n, err := q.EndAttempt(ctx, end)
		if err != nil || n == 0 {
			return err
		}
		if err := q.InsertAttempt(ctx, row); err != nil {
			return err
		}
		if e.arrived() {
			return q.NoteSuccess(ctx, notificationsdb.NoteSuccessParams{OrgID: c.OrgID, ID: c.WebhookID})
		}
		failingSince, err = q.NoteFailure(ctx, notificationsdb.NoteFailureParams{Now: e.started, OrgID: c.OrgID, ID: c.WebhookID})
		return err
	})
	if err != nil {
		return now, fmt.Errorf("note an attempt of delivery %s: %w", c.ID, err)
	}
	if failingSince.IsZero() {
		failingSince = now
	}
	return failingSince, nil
}

// disableFor ends the sending to an endpoint, tells the others and, through OnDisabled, people. Whoever comes second does nothing.
func (w *Webhooks) disableFor(ctx context.Context, c notificationsdb.ClaimDeliveriesRow, reason string) error {
	org, webhook := id.Org(c.OrgID), id.Webhook(c.WebhookID)
	err := w.deps.DB.InTx(ctx, org, func(tx pgx.Tx) error {
		hook, err := w.change(ctx, tx, org, webhook, func(row *notificationsdb.UpdateWebhookParams, was Webhook) error {
			// Another address, or a success, since the attempt: it has begun afresh.
			if was.Status != WebhookActive || was.URL != c.Url || was.FailingSince == nil {
				return errAsItWas
			}
			disable(row, reason)
			return nil
		})
		if err != nil {
			return err
		}
		w.deps.Logger.WarnContext(ctx, "webhook disabled", "org", org, "webhook", webhook, "reason", reason)
		data := map[string]any{"type": "webhook", "id": hook.ID, "project_id": nil, "reason": reason}
		if hook.Project != "" {
			data["project_id"] = hook.Project
		}
		if err := PublishTx(ctx, tx, org, WebhookDisabled, data); err != nil {
			return err
		}
		if w.deps.OnDisabled == nil {
			return nil
		}
		return w.deps.OnDisabled(ctx, tx, hook)
	})
	if errors.Is(err, errAsItWas) || fault.IsCode(err, fault.NotFound().Code) {
		return nil
	}
	return err
}

// errAsItWas leaves a webhook unchanged.
var errAsItWas = errors.New("nothing is to be changed")

// clean makes text that the database takes and a person can look at.
func clean(s string) string {
	return strings.ReplaceAll(strings.ToValidUTF8(s, "\uFFFD"), "\x00", "\uFFFD")
}

// cut bounds a text in bytes, at the end of a character.
func cut(s string, most int) string {
	if len(s) <= most {
		return s
	}
	for most > 0 && !utf8.RuneStart(s[most]) {
		most--
	}
	return s[:most]
}
