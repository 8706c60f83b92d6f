package notifications

import (
	"context"
	"errors"
	"fmt"
	netmail "net/mail"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/wneessen/go-mail"
)

// sendTimeout bounds one mail, from dialling to the server's last answer.
const sendTimeout = 30 * time.Second

// server is where mail is handed over.
type server struct {
	host string
	opts []mail.Option
	from *netmail.Address
}

// refusedError is a refusal for good: another attempt would end the same way.
type refusedError struct{ err error }

func (e *refusedError) Error() string { return e.err.Error() }
func (e *refusedError) Unwrap() error { return e.err }

// newServer never repeats the URL in an error: it holds a password.
func newServer(cfg Config) (*server, error) {
	u, err := url.Parse(cfg.SMTPURL)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("the SMTP address must be a URL such as smtp://user:password@host:587")
	}
	from, err := netmail.ParseAddress(cfg.From)
	if err != nil {
		return nil, fmt.Errorf("the sender %q is not a mail address", cfg.From)
	}
	s := &server{host: u.Hostname(), from: from, opts: []mail.Option{mail.WithTimeout(sendTimeout)}}
	tls, port, err := transport(u)
	if err != nil {
		return nil, err
	}
	if p := u.Port(); p != "" {
		if port, err = strconv.Atoi(p); err != nil {
			return nil, fmt.Errorf("the SMTP port %q is no number", p)
		}
	}
	s.opts = append(s.opts, tls, mail.WithPort(port)) // the port last: the TLS options set their own
	if u.User != nil {
		password, _ := u.User.Password()
		// Auto-discovery never offers the password over a line without TLS.
		s.opts = append(s.opts, mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover), mail.WithUsername(u.User.Username()), mail.WithPassword(password))
	}
	// Answers the question now whether all of it is acceptable, instead of at the first mail.
	if _, err := mail.NewClient(s.host, s.opts...); err != nil {
		return nil, fmt.Errorf("the SMTP address is not acceptable: %w", err)
	}
	return s, nil
}

func transport(u *url.URL) (tls mail.Option, port int, err error) {
	want := u.Query().Get("tls")
	switch u.Scheme {
	case "smtps":
		return mail.WithSSL(), 465, nil
	case "smtp":
		if want == "" {
			if want = "opportunistic"; u.User != nil {
				want = "required"
			}
		}
		policy, ok := map[string]mail.TLSPolicy{"required": mail.TLSMandatory, "opportunistic": mail.TLSOpportunistic, "none": mail.NoTLS}[want]
		if !ok {
			return nil, 0, fmt.Errorf("tls=%s is not known: required, opportunistic or none", want)
		}
		return mail.WithTLSPolicy(policy), 587, nil
	default:
		return nil, 0, fmt.Errorf("the SMTP address begins with %q: smtp:// or smtps://", u.Scheme)
	}
}

// send hands one mail over. The Message-ID follows from the mail's id, so that one sent twice is known to be one.
func (s *server) send(ctx context.Context, mailID, to string, at time.Time, text content) error {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := msg.FromFormat(s.from.Name, s.from.Address); err != nil {
		return &refusedError{fmt.Errorf("set the sender: %w", err)}
	}
	if err := msg.To(to); err != nil {
		return &refusedError{fmt.Errorf("set the recipient: %w", err)}
	}
	_, domain, _ := strings.Cut(s.from.Address, "@")
	msg.SetMessageIDWithValue(mailID + "@" + domain)
	msg.SetDateWithValue(at)
	msg.SetGenHeader("Auto-Submitted", "auto-generated") // RFC 3834: keeps holiday answers away
	msg.Subject(text.Subject)
	msg.SetBodyString(mail.TypeTextPlain, text.Text)

	client, err := mail.NewClient(s.host, s.opts...)
	if err != nil {
		return fmt.Errorf("prepare the mail server's client: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, sendTimeout)
	defer cancel()
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		var refused *mail.SendError
		if errors.As(err, &refused) && refused.ErrorCode() >= 500 && !refused.IsTemp() {
			return &refusedError{fmt.Errorf("the mail server refused it: %w", err)}
		}
		return fmt.Errorf("hand the mail over: %w", err)
	}
	return nil
}
