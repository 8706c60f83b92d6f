package notifications

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/mail"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/clock"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/notifications/internal/notificationsdb"
)

// ErrNoServer is returned by SendTx when no SMTP server is configured. A caller asks Enabled first.
var ErrNoServer = errors.New("no SMTP server is configured")

// Config says by which server mail leaves.
type Config struct {
	// SMTPURL is "smtp://user:password@host:port", with STARTTLS, or "smtps://…", with TLS from the first byte. Over smtp, "?tls=" is
	// "required" (the default with a user), "opportunistic" (the default without) or "none". Empty: no mail is sent.
	SMTPURL string
	// From is the sender of all mail, such as "Ambit <ambit@example.com>".
	From string
}

// Deps are what the mailer works with. All are needed.
type Deps struct {
	Sealer *seal.Sealer
	Clock  clock.Clock
	Logger *slog.Logger
}

// Mail is one message in plain text to one person.
type Mail struct {
	// Kind names the occasion, such as "verify_email", for logs and figures.
	Kind    string
	To      string
	Subject string
	Text    string
	// Once, when set, names the mail: a second one of the same name is not queued, as long as the first is remembered (30 days after it was
	// sent). It begins with the organisation's id, such as "org_…/budget/bud_…/2026-11/80/usr_…".
	Once string
}

// Mailer queues mail and sends it. A nil Mailer is one without a server.
type Mailer struct {
	db     *postgres.DB
	deps   Deps
	server *server
	loop   *background.Loop
}

// pollEvery bounds how late a mail is noticed. There is no NOTIFY: inside each transaction it would serialise their commits.
const pollEvery = 2 * time.Second

// New checks the configuration and returns a mailer that is not started.
func New(db *postgres.DB, deps Deps, cfg Config) (*Mailer, error) {
	m := &Mailer{db: db, deps: deps}
	if cfg.SMTPURL != "" {
		s, err := newServer(cfg)
		if err != nil {
			return nil, err
		}
		m.server = s
	}
	m.loop = background.New("mail courier", pollEvery, deps.Logger, m.runOnce)
	return m, nil
}

// Enabled reports whether mail can be sent at all.
func (m *Mailer) Enabled() bool { return m != nil && m.server != nil }

// content is what lies sealed in the queue.
type content struct {
	Subject string `json:"subject"`
	Text    string `json:"text"`
}

// SendTx queues a mail in the caller's transaction, under any role of the application.
func (m *Mailer) SendTx(ctx context.Context, tx pgx.Tx, out Mail) error {
	if !m.Enabled() {
		return ErrNoServer
	}
	if strings.ContainsAny(out.To+out.Subject, "\r\n") {
		return errors.New("a mail's address and subject are one line each")
	}
	if _, err := mail.ParseAddress(out.To); err != nil {
		return errors.New("the mail's address is not one")
	}
	mailID := "mail" + string(id.New[id.Request]())[3:]
	plain, err := json.Marshal(content{Subject: out.Subject, Text: out.Text})
	if err != nil {
		return fmt.Errorf("encode a mail: %w", err)
	}
	sealed, err := m.deps.Sealer.Seal(plain, purposeOf(mailID))
	if err != nil {
		return fmt.Errorf("seal a mail: %w", err)
	}
	row := notificationsdb.InsertMailParams{ID: mailID, Kind: out.Kind, Recipient: out.To, Sealed: sealed, CreatedAt: m.deps.Clock.Now()}
	if out.Once != "" {
		row.OnceKey = &out.Once
	}
	err = notificationsdb.New(tx).InsertMail(ctx, row)
	if err != nil {
		return fmt.Errorf("queue a mail: %w", err)
	}
	return nil
}

func purposeOf(mailID string) string { return "outgoing_mail/" + mailID }

// Start begins to send. It does nothing when there is no server.
func (m *Mailer) Start(ctx context.Context) {
	if m.Enabled() {
		m.loop.Start(ctx)
	}
}

// Started is closed once the queue was looked through for the first time; never when there is no server.
func (m *Mailer) Started() <-chan struct{} { return m.loop.Started() }

// Wake sends what has just been committed without waiting for the next look.
func (m *Mailer) Wake() {
	if m.Enabled() {
		m.loop.Wake()
	}
}

// Stop ends the sending; what is queued stays for the next start.
func (m *Mailer) Stop(ctx context.Context) error {
	if !m.Enabled() {
		return nil
	}
	return m.loop.Stop(ctx)
}
