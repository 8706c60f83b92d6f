package tenants

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// Paths of the console to which mailed links lead; the link's token is the query parameter "token".
const (
	VerifyPath = "/verify-email"
	ResetPath  = "/reset-password"
)

// linkPurpose is what a one-time link is for.
type linkPurpose string

const (
	linkVerify linkPurpose = "verify"
	linkReset  linkPurpose = "reset"
	// linkOperatorReset was handed over by the operator, so its use does not prove the address; the operator vouches for the account.
	linkOperatorReset linkPurpose = "operator_reset"
)

func (p linkPurpose) lasts() time.Duration {
	switch p {
	case linkVerify:
		return 48 * time.Hour
	case linkReset:
		return time.Hour
	default:
		return 24 * time.Hour
	}
}

func (p linkPurpose) path() string {
	if p == linkVerify {
		return VerifyPath
	}
	return ResetPath
}

// makeLinkTx makes a one-time link for the person for whom the transaction acts.
func (s *Service) makeLinkTx(ctx context.Context, tx pgx.Tx, user id.User, purpose linkPurpose) (string, error) {
	token, now := newToken(), s.clock.Now()
	err := tenantsdb.New(tx).InsertMailToken(ctx, tenantsdb.InsertMailTokenParams{
		TokenSha256: digestOf(token), UserID: string(user), Purpose: string(purpose), CreatedAt: now, ExpiresAt: now.Add(purpose.lasts()),
	})
	if err != nil {
		return "", fmt.Errorf("insert a one-time link: %w", err)
	}
	return s.deps.PublicURL + purpose.path() + "?" + url.Values{"token": {token}}.Encode(), nil
}

// mailLinkTx queues a mail with a new link, unless the mailbox got too many already.
func (s *Service) mailLinkTx(ctx context.Context, tx pgx.Tx, user User, purpose linkPurpose) error {
	return s.mailTx(ctx, tx, user, func() (notifications.Mail, error) {
		link, err := s.makeLinkTx(ctx, tx, user.ID, purpose)
		if err != nil {
			return notifications.Mail{}, err
		}
		if purpose == linkVerify {
			return verifyMail(user, link), nil
		}
		return resetMail(user, link), nil
	})
}

func (s *Service) mailTx(ctx context.Context, tx pgx.Tx, user User, compose func() (notifications.Mail, error)) error {
	ok, err := s.throttle.takeTx(ctx, tx, s.throttle.of(guardMailbox, user.Email))
	if err != nil || !ok {
		return err
	}
	mail, err := compose()
	if err != nil {
		return err
	}
	return s.deps.Mail.SendTx(ctx, tx, mail)
}

// mailExisting tells the owner of an account that somebody signed up with the address again. To an account that is not verified it sends
// a link that sets the password anew: whoever began that account may not have been the owner of the address.
func (s *Service) mailExisting(ctx context.Context, who id.User) error {
	return s.mailTo(ctx, who, func(tx pgx.Tx, user User, waits bool) error {
		if waits {
			return s.mailLinkTx(ctx, tx, user, linkReset)
		}
		return s.mailTx(ctx, tx, user, func() (notifications.Mail, error) { return existingMail(user, s.deps.PublicURL), nil })
	})
}

func (s *Service) mailTo(ctx context.Context, who id.User, write func(tx pgx.Tx, user User, waits bool) error) error {
	err := s.as(ctx, who, func(tx pgx.Tx, q *tenantsdb.Queries) error {
		row, err := q.GetUser(ctx, string(who))
		if noRows(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a user: %w", err)
		}
		return write(tx, userOf(row), mayNotSignIn(row))
	})
	if err == nil {
		s.deps.Mail.Wake()
	}
	return err
}

// RequestPasswordReset mails a link to the address if it has an account. It tells nobody whether it has. Its faults: rate_limited, for
// the network address that asks; not_available, without a mail server.
func (s *Service) RequestPasswordReset(ctx context.Context, rawEmail string, from Origin) error {
	return s.requestLink(ctx, rawEmail, from, func(tx pgx.Tx, user User, _ bool) error { return s.mailLinkTx(ctx, tx, user, linkReset) })
}

// ResendVerification mails another link if the address has an account that is not verified. It tells nobody whether it has. Faults as
// RequestPasswordReset.
func (s *Service) ResendVerification(ctx context.Context, rawEmail string, from Origin) error {
	return s.requestLink(ctx, rawEmail, from, func(tx pgx.Tx, user User, _ bool) error {
		if user.EmailVerifiedAt != nil {
			return nil
		}
		return s.mailLinkTx(ctx, tx, user, linkVerify)
	})
}

func (s *Service) requestLink(ctx context.Context, rawEmail string, from Origin, write func(tx pgx.Tx, user User, waits bool) error) error {
	if !s.MailEnabled() {
		return fault.New(fault.Invalid, "not_available", "This Ambit sends no mail. Ask who runs it for a reset link: ambit users reset makes one.")
	}
	email, bad := normalizeEmail(rawEmail)
	if bad != nil {
		return fault.InvalidFields(*bad)
	}
	if err := s.throttle.take(ctx, s.throttle.of(guardLinks, networkOf(from.Address))); err != nil {
		return err
	}
	defer s.evenOut(ctx, time.Now())
	who, err := s.findUser(ctx, email)
	if err != nil {
		return err
	}
	return s.mailTo(ctx, who, write)
}

// OperatorResetLink makes a link with which the person chooses a new password, for the operator to hand over. It holds for a day.
func (s *Service) OperatorResetLink(ctx context.Context, rawEmail string) (link string, err error) {
	email, bad := normalizeEmail(rawEmail)
	if bad != nil {
		return "", fault.InvalidFields(*bad)
	}
	who, err := s.findUser(ctx, email)
	if err != nil {
		return "", err
	}
	if who == "" {
		return "", fault.Newf(fault.NotFoundKind, "not_found", "Nobody has the address %s here.", email)
	}
	err = s.as(ctx, who, func(tx pgx.Tx, _ *tenantsdb.Queries) error {
		link, err = s.makeLinkTx(ctx, tx, who, linkOperatorReset)
		return err
	})
	return link, err
}

// OperatorFindUser finds a person by address, for the operator. Its fault is not_found.
func (s *Service) OperatorFindUser(ctx context.Context, rawEmail string) (id.User, error) {
	email, bad := normalizeEmail(rawEmail)
	if bad != nil {
		return "", fault.InvalidFields(*bad)
	}
	who, err := s.findUser(ctx, email)
	if err == nil && who == "" {
		err = fault.Newf(fault.NotFoundKind, "not_found", "Nobody has the address %s here.", email)
	}
	return who, err
}

// VerifyEmail takes a verification link's token and the account's password, marks the address as verified and signs in. The password is
// asked for so that the owner of an address cannot be made to confirm a stranger's account. A wrong one is wrong_credentials and leaves
// the link good; a link that is used, old or forged is gone.
func (s *Service) VerifyEmail(ctx context.Context, token, password string, from Origin) (SignedIn, error) {
	who, err := s.personOfLink(ctx, token)
	if err != nil {
		return SignedIn{}, err
	}
	pair := s.throttle.of(guardPair, string(who), networkOf(from.Address))
	if err := s.throttle.take(ctx, pair); err != nil {
		return SignedIn{}, err
	}
	_, hash, _, err := s.readForSignIn(ctx, who)
	if err != nil {
		return SignedIn{}, err
	}
	match, _, err := s.passwords.check(ctx, password, hash)
	if err != nil {
		return SignedIn{}, err
	}
	if !match {
		return SignedIn{}, fault.New(fault.Unauthenticated, "wrong_credentials",
			"This is not the password that was chosen at sign-up. If it was not you who signed up, or you forgot it, reset the password: that verifies the address too.")
	}
	return s.useLink(ctx, token, who, from, func(tx pgx.Tx, q *tenantsdb.Queries, purpose linkPurpose, now time.Time) error {
		if purpose != linkVerify {
			return errLinkGone()
		}
		if err := s.throttle.forgetTx(ctx, tx, pair); err != nil {
			return err
		}
		return q.VerifyUser(ctx, tenantsdb.VerifyUserParams{ID: string(who), Now: now})
	})
}

// ResetPassword takes a reset link's token and a new password, ends all sign-ins and all other links of the person, and signs in. A mailed
// link verifies the address as well. Its faults: gone, invalid_request.
func (s *Service) ResetPassword(ctx context.Context, token, password string, from Origin) (SignedIn, error) {
	who, err := s.personOfLink(ctx, token)
	if err != nil {
		return SignedIn{}, err
	}
	user, _, _, err := s.readForSignIn(ctx, who)
	if err != nil {
		return SignedIn{}, err
	}
	if bad := checkStrength(password, "/password", user.Email, user.Name); bad != nil {
		return SignedIn{}, fault.InvalidFields(*bad)
	}
	hash, err := s.passwords.hash(ctx, password)
	if err != nil {
		return SignedIn{}, err
	}
	return s.useLink(ctx, token, who, from, func(tx pgx.Tx, q *tenantsdb.Queries, purpose linkPurpose, now time.Time) error {
		switch purpose {
		case linkReset:
			err = q.VerifyUser(ctx, tenantsdb.VerifyUserParams{ID: string(who), Now: now})
		case linkOperatorReset:
			err = q.WaiveVerification(ctx, string(who))
		default:
			return errLinkGone()
		}
		if err != nil {
			return fmt.Errorf("open the account: %w", err)
		}
		if err := s.setPasswordTx(ctx, tx, user, hash, "", now); err != nil {
			return err
		}
		return s.throttle.forgetTx(ctx, tx, s.throttle.of(guardAccount, user.Email), s.throttle.of(guardPair, user.Email, networkOf(from.Address)))
	})
}

// LinkIsGood tells a page whether to show its form: whether the token is of a link that can still be used. It uses nothing up.
func (s *Service) LinkIsGood(ctx context.Context, token string) (bool, error) {
	who, err := s.personOfLink(ctx, token)
	if fault.IsCode(err, "gone") {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	err = s.as(ctx, who, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		_, err := q.GetMailToken(ctx, tenantsdb.GetMailTokenParams{TokenSha256: digestOf(token), UserID: string(who), Now: s.clock.Now()})
		return err
	})
	if fault.IsCode(err, "not_found") {
		return false, nil
	}
	return err == nil, err
}

func (s *Service) personOfLink(ctx context.Context, token string) (id.User, error) {
	if !wellFormedToken(token) {
		return "", errLinkGone()
	}
	who, err := lookUp[id.User](ctx, s, "a one-time link", func(q *tenantsdb.Queries) (string, error) { return q.FindMailToken(ctx, digestOf(token)) })
	if err == nil && who == "" {
		return "", errLinkGone()
	}
	return who, err
}

// useLink uses the token up and, in the same transaction, does what it is for and signs in.
func (s *Service) useLink(ctx context.Context, token string, who id.User, from Origin,
	do func(tx pgx.Tx, q *tenantsdb.Queries, purpose linkPurpose, now time.Time) error,
) (out SignedIn, err error) {
	err = s.as(ctx, who, func(tx pgx.Tx, q *tenantsdb.Queries) error {
		now := s.clock.Now()
		purpose, err := q.GetMailToken(ctx, tenantsdb.GetMailTokenParams{TokenSha256: digestOf(token), UserID: string(who), Now: now})
		if noRows(err) {
			return errLinkGone()
		}
		if err != nil {
			return fmt.Errorf("read a one-time link: %w", err)
		}
		n, err := q.UseMailToken(ctx, tenantsdb.UseMailTokenParams{TokenSha256: digestOf(token), UserID: string(who), Now: now})
		if err != nil {
			return fmt.Errorf("use a one-time link: %w", err)
		}
		if n == 0 {
			return errLinkGone() // somebody else was faster
		}
		if err := do(tx, q, linkPurpose(purpose), now); err != nil {
			return err
		}
		row, err := q.GetUser(ctx, string(who))
		if err != nil {
			return fmt.Errorf("read a user: %w", err)
		}
		out, err = s.signInTx(ctx, tx, userOf(row), from)
		return err
	})
	if err == nil {
		s.deps.Mail.Wake()
	}
	return out, err
}

// ChangePassword sets a new password for somebody who is signed in and knows the present one, and ends the person's other sign-ins and
// one-time links. Its faults: wrong_credentials, rate_limited, invalid_request.
func (s *Service) ChangePassword(ctx context.Context, who id.User, keep id.SignIn, present, next string) error {
	user, hash, _, err := s.readForSignIn(ctx, who)
	if err != nil {
		return err
	}
	if bad := checkStrength(next, "/new_password", user.Email, user.Name); bad != nil {
		return fault.InvalidFields(*bad)
	}
	confirm := s.throttle.of(guardConfirm, string(who))
	if err := s.throttle.take(ctx, confirm); err != nil {
		return err
	}
	match, _, err := s.passwords.check(ctx, present, hash)
	if err != nil {
		return err
	}
	if !match {
		return fault.New(fault.Forbidden, "wrong_credentials", "The present password is wrong.")
	}
	newHash, err := s.passwords.hash(ctx, next)
	if err != nil {
		return err
	}
	err = s.as(ctx, who, func(tx pgx.Tx, _ *tenantsdb.Queries) error {
		return errors.Join(s.setPasswordTx(ctx, tx, user, newHash, keep, s.clock.Now()), s.throttle.forgetTx(ctx, tx, confirm))
	})
	if err == nil {
		s.deps.Mail.Wake()
	}
	return err
}

// setPasswordTx sets a password, ends all sign-ins but one and all one-time links, and tells the person by mail.
func (s *Service) setPasswordTx(ctx context.Context, tx pgx.Tx, user User, hash string, keep id.SignIn, now time.Time) error {
	q := tenantsdb.New(tx)
	if err := q.SetPassword(ctx, tenantsdb.SetPasswordParams{UserID: string(user.ID), Hash: hash, ChangedAt: now}); err != nil {
		return fmt.Errorf("set a password: %w", err)
	}
	if _, err := q.RevokeOtherSignIns(ctx, tenantsdb.RevokeOtherSignInsParams{UserID: string(user.ID), Keep: string(keep), Now: now}); err != nil {
		return fmt.Errorf("end sign-ins: %w", err)
	}
	if err := q.VoidMailTokens(ctx, tenantsdb.VoidMailTokensParams{UserID: string(user.ID), Now: now}); err != nil {
		return fmt.Errorf("void one-time links: %w", err)
	}
	if !s.MailEnabled() {
		return nil
	}
	// Not throttled: the owner must hear of it however much mail strangers caused before.
	return s.deps.Mail.SendTx(ctx, tx, changedMail(user, s.deps.PublicURL))
}

func errLinkGone() error {
	return fault.New(fault.Gone, "gone", "This link was used already, or it is too old. Ask for another one.")
}
