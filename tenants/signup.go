package tenants

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// Origin is where a request came from.
type Origin struct {
	// Address is the client's IP address, without a port.
	Address string
	// UserAgent is the browser's own description.
	UserAgent string
}

// SignUp is what somebody enters to get an account.
type SignUp struct {
	Email    string
	Password string
	// Name is the person's own; it may be empty.
	Name string
	// OrganizationName may be empty; it is then made from the person's name or address.
	OrganizationName string
	Origin           Origin
}

// SignedUp is the answer to a sign-up. Exactly one of the two is set.
type SignedUp struct {
	// CheckMail is set when mail can be sent. It is the answer whether or not the address had an account.
	CheckMail bool
	// SignedIn is the new person's first sign-in, where no mail can be sent.
	SignedIn *SignedIn
}

// Account is what a sign-up makes.
type Account struct {
	User         User
	Organization Organization
	Project      Project
}

type newAccount struct {
	email, name, orgName, passwordHash string
	mustVerify                         bool
}

// SignUp makes an account with an organisation, its first project and the owner's membership, in one transaction. See the package's
// comment for what it tells and what not. Its faults: invalid_request, rate_limited, and, without a mail server, sign_up_refused.
func (s *Service) SignUp(ctx context.Context, in SignUp) (SignedUp, error) {
	acc, err := checkSignUp(in)
	if err != nil {
		return SignedUp{}, err
	}
	if err := s.throttle.take(ctx, s.throttle.of(guardSignUp, networkOf(in.Origin.Address))); err != nil {
		return SignedUp{}, err
	}
	began := time.Now()
	acc.mustVerify = s.MailEnabled()
	// Before it is known whether the address is free, so that both cases cost a hash.
	if acc.passwordHash, err = s.passwords.hash(ctx, in.Password); err != nil {
		return SignedUp{}, err
	}
	var out SignedUp
	existing, err := s.findUser(ctx, acc.email)
	if err != nil {
		return SignedUp{}, err
	}
	if existing == "" {
		out, err = s.signUpNew(ctx, acc, in.Origin)
		if err == nil {
			if out.CheckMail {
				s.evenOut(ctx, began)
			}
			return out, nil
		}
		if !errors.Is(err, errEmailTaken) {
			return SignedUp{}, err
		}
		// Somebody was faster with the same address.
		if existing, err = s.findUser(ctx, acc.email); err != nil {
			return SignedUp{}, err
		}
	}
	if !s.MailEnabled() {
		return SignedUp{}, fault.New(fault.Conflict, "sign_up_refused",
			"We could not create an account with these details. If you have one, sign in; if you forgot the password, ask who runs this Ambit for a reset link.")
	}
	if err := s.mailExisting(ctx, existing); err != nil {
		return SignedUp{}, err
	}
	s.evenOut(ctx, began)
	return SignedUp{CheckMail: true}, nil
}

// CreateAccount makes an account for the operator, without throttling, secrecy or verification: the demonstration's, or the first one of
// an instance. Its fault for a taken address is email_is_taken.
func (s *Service) CreateAccount(ctx context.Context, in SignUp) (Account, error) {
	acc, err := checkSignUp(in)
	if err != nil {
		return Account{}, err
	}
	if acc.passwordHash, err = s.passwords.hash(ctx, in.Password); err != nil {
		return Account{}, err
	}
	var out Account
	err = s.db.InPlatformTx(ctx, func(tx pgx.Tx) error {
		out, err = s.createAccountTx(ctx, tx, acc)
		return err
	})
	return out, err
}

func checkSignUp(in SignUp) (newAccount, error) {
	var acc newAccount
	var faults fieldFaults
	var bad *fault.Field
	acc.email, bad = normalizeEmail(in.Email)
	faults.add(bad)
	acc.name, bad = cleanName(in.Name, "/name", false)
	faults.add(bad)
	acc.orgName, bad = cleanName(in.OrganizationName, "/organization_name", false)
	faults.add(bad)
	faults.add(checkStrength(in.Password, "/password", acc.email, acc.name, acc.orgName))
	if acc.orgName == "" {
		owner := acc.name
		if owner == "" {
			owner, _, _ = strings.Cut(acc.email, "@")
		}
		acc.orgName = truncate(owner, maxName-len("'s organisation")) + "'s organisation"
	}
	return acc, faults.err()
}

func truncate(s string, runes int) string {
	if r := []rune(s); len(r) > runes {
		return string(r[:runes])
	}
	return s
}

func (s *Service) findUser(ctx context.Context, email string) (id.User, error) {
	return lookUp[id.User](ctx, s, "a person by address", func(q *tenantsdb.Queries) (string, error) { return q.FindUser(ctx, email) })
}

func (s *Service) signUpNew(ctx context.Context, acc newAccount, from Origin) (SignedUp, error) {
	var out SignedUp
	err := s.db.InPlatformTx(ctx, func(tx pgx.Tx) error {
		made, err := s.createAccountTx(ctx, tx, acc)
		if err != nil {
			return err
		}
		if acc.mustVerify {
			out.CheckMail = true
			return s.mailLinkTx(ctx, tx, made.User, linkVerify)
		}
		signedIn, err := s.signInTx(ctx, tx, made.User, from)
		out.SignedIn = &signedIn
		return err
	})
	if err != nil {
		return SignedUp{}, err
	}
	s.deps.Mail.Wake()
	return out, nil
}

// createAccountTx makes the person and all that belongs to a first organisation. It leaves the transaction acting for both.
func (s *Service) createAccountTx(ctx context.Context, tx pgx.Tx, acc newAccount) (Account, error) {
	now := s.clock.Now()
	q := tenantsdb.New(tx)
	user := User{ID: id.New[id.User](), Email: acc.email, Name: acc.name, CreatedAt: now}
	if err := q.ActAs(ctx, string(user.ID)); err != nil {
		return Account{}, fmt.Errorf("name the person of the transaction: %w", err)
	}
	err := q.InsertUser(ctx, tenantsdb.InsertUserParams{ID: string(user.ID), Email: user.Email, Name: user.Name, MustVerify: acc.mustVerify, CreatedAt: now})
	if err != nil {
		return Account{}, postgres.Translate(fmt.Errorf("insert a user: %w", err))
	}
	err = q.InsertPassword(ctx, tenantsdb.InsertPasswordParams{UserID: string(user.ID), Hash: acc.passwordHash, ChangedAt: now})
	if err != nil {
		return Account{}, fmt.Errorf("insert a password: %w", err)
	}
	org, project, err := s.createOrganizationTx(ctx, tx, user.ID, acc.orgName)
	if err != nil {
		return Account{}, err
	}
	return Account{User: user, Organization: org, Project: project}, nil
}
