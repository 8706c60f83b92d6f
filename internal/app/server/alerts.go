package server

import (
	"context"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/egress"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/tenants"
)

// mailDisabledWebhook tells an organisation's owners and admins, in the transaction that disabled it, that nothing arrives at a webhook.
func (d *Domains) mailDisabledWebhook(ctx context.Context, tx pgx.Tx, w notifications.Webhook) error {
	if !d.Mail.Enabled() {
		return nil
	}
	why := fmt.Sprintf("no message has arrived there since %s", w.FailingSince.UTC().Format("2 January 2006, 15:04 MST"))
	if w.DisabledReason == notifications.DisabledGone {
		why = "it answered that it is gone (410)"
	}
	where := "its address"
	if t, err := egress.ParseURL(w.URL); err == nil {
		where = t.Origin() // the rest may hold a secret
	}
	members, err := d.Tenants.ListMembers(ctx, w.Org, "", 200)
	if err != nil {
		return fmt.Errorf("find who to tell of a disabled webhook: %w", err)
	}
	for _, m := range members {
		if m.EmailVerifiedAt == nil || (m.Role != tenants.RoleOwner && m.Role != tenants.RoleAdmin) {
			continue
		}
		err := d.Mail.SendTx(ctx, tx, notifications.Mail{
			Kind: "webhook_disabled", To: m.Email, Subject: "A webhook was disabled",
			Text: fmt.Sprintf("Ambit no longer sends messages to the webhook %s (%s):\n%s.\n\nMend the endpoint, then set the webhook active again; what was missed can be delivered again from its list of deliveries.\n\n%s\n",
				w.ID, where, why, strings.TrimRight(d.Config.PublicURL.Reveal(), "/")+"/x/"+string(w.ID)),
			Once: fmt.Sprintf("%s/webhook_disabled/%s/%d/%s", w.Org, w.ID, w.Version, m.UserID),
		})
		if err != nil {
			return err
		}
	}
	return nil
}
