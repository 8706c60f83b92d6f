package server

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/dbtest"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/notifications/mailtest"
	"ambit.dev/ambit/tenants"
)

func TestOwnersAreToldOfADisabledWebhookOnce(t *testing.T) {
	smtp := mailtest.New(t)
	db, owner := dbtest.NewWithOwner(t)
	sealer, err := seal.Open(seal.NewKey(), "")
	require.NoError(t, err)
	d := &Domains{
		Config: config.Config{SMTPURL: config.Address(smtp.URL()), MailFrom: "Ambit <ambit@example.com>", PublicURL: "https://ambit.example/"},
		DB:     db, Sealer: sealer, Clock: clock.System(), Log: slog.New(slog.DiscardHandler),
	}
	require.NoError(t, d.openTenants())
	account, err := d.Tenants.CreateAccount(t.Context(), tenants.SignUp{Email: "ada@example.com", Password: "correct horse battery", Name: "Ada", OrganizationName: "Ada"})
	require.NoError(t, err)
	org := account.Organization.ID
	since := time.Date(2026, 11, 15, 9, 30, 0, 0, time.UTC)
	tell := func(reason string, version int64) {
		require.NoError(t, db.InTx(t.Context(), org, func(tx pgx.Tx) error {
			return d.mailDisabledWebhook(t.Context(), tx, notifications.Webhook{
				Org: org, ID: id.New[id.Webhook](), URL: "https://hooks.example.com/T0/secret-path", DisabledReason: reason, FailingSince: &since, Version: version,
			})
		}))
	}
	d.Mail.Start(t.Context())
	tell(notifications.DisabledFailing, 3) // her address is not verified: it may be somebody else's
	conn, err := pgx.Connect(t.Context(), owner)
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // only this one statement
	_, err = conn.Exec(t.Context(), "UPDATE users SET email_verified_at = now()")
	require.NoError(t, err)
	tell(notifications.DisabledFailing, 3)
	tell(notifications.DisabledGone, 4)
	d.Mail.Wake()
	var found []mailtest.Message
	require.Eventually(t, func() bool {
		found = nil
		for _, m := range smtp.Messages() {
			if m.Subject == "A webhook was disabled" {
				found = append(found, m)
			}
		}
		return len(found) == 2
	}, 20*time.Second, 20*time.Millisecond)
	text := found[0].Text + found[1].Text
	require.Equal(t, "ada@example.com", found[0].To)
	require.Contains(t, text, "no message has arrived there since 15 November 2026, 09:30 UTC")
	require.Contains(t, text, "it answered that it is gone (410)")
	require.Contains(t, text, "https://hooks.example.com")
	require.NotContains(t, text, "secret-path")
	require.NoError(t, d.Mail.Stop(t.Context()))
}
