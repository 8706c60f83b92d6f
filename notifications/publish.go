package notifications

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/notifications/internal/notificationsdb"
)

// The types of event that webhooks are told of.
const (
	BudgetThreshold   = "budget.threshold"
	InvitationCreated = "invitation.created"
	MandateRevoked    = "mandate.revoked"
	// SessionIdle and SessionTerminated are told by the database itself, wherever a journal says so: nobody publishes them.
	SessionIdle       = "session.status_idle"
	SessionTerminated = "session.status_terminated"
	// ApprovalRequested and ApprovalDecided are told so, too.
	ApprovalRequested = "approval.requested"
	ApprovalDecided   = "approval.decided"
	WebhookDisabled   = "webhook.disabled"

	// webhookTest is sent to one webhook when somebody asks for it. It can't be subscribed to.
	webhookTest = "webhook.test"
	// AllEvents in place of types subscribes to all of them, those too that come later.
	AllEvents = "*"
)

// EventTypes lists what can be subscribed to besides AllEvents.
func EventTypes() []string {
	return []string{ApprovalDecided, ApprovalRequested, BudgetThreshold, InvitationCreated, MandateRevoked, SessionIdle, SessionTerminated, WebhookDisabled}
}

// maxEventData bounds what an event says. It names what changed; whoever may see that asks the API.
const maxEventData = 8 << 10

// PublishTx tells an organisation's webhooks of an event, in the transaction that it tells of: it is sent if and only if that is committed.
// The payload is a JSON object such as {"type":"budget","id":"bud_…","project_id":"prj_…"}: thin, without secrets and without content.
// With a project_id only the webhooks of that project and those of the whole organisation hear of it. Where nobody listens it costs one
// look at an index. The transaction is the organisation's.
func PublishTx(ctx context.Context, tx pgx.Tx, org id.Org, eventType string, payload any) error {
	if !slices.Contains(EventTypes(), eventType) {
		return fmt.Errorf("publish an event: there is no type %q", eventType)
	}
	data, err := json.Marshal(payload)
	if err != nil {
		return fmt.Errorf("encode an event %s: %w", eventType, err)
	}
	if len(data) > maxEventData || !bytes.HasPrefix(data, []byte("{")) {
		return fmt.Errorf("publish an event %s: its data must be a JSON object of at most %d bytes", eventType, maxEventData)
	}
	var within struct {
		Project *string `json:"project_id"`
	}
	if err := json.Unmarshal(data, &within); err != nil {
		return fmt.Errorf("read the project of an event %s: %w", eventType, err)
	}
	err = notificationsdb.New(tx).InsertWebhookEvent(ctx, notificationsdb.InsertWebhookEventParams{
		OrgID: string(org), ID: string(id.New[id.Event]()), Type: eventType, ProjectID: within.Project, Data: data,
	})
	if err != nil {
		return fmt.Errorf("publish an event %s: %w", eventType, err)
	}
	return nil
}
