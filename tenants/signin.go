package tenants

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

const (
	// SignInLasts is how long a sign-in lasts at most; the console's cookie ends with it.
	SignInLasts = 30 * 24 * time.Hour
	// SignInIdles is how long it lasts without being used.
	SignInIdles = 7 * 24 * time.Hour
	// seenEvery is how exactly the last use of a sign-in is noted.
	seenEvery = time.Minute

	maxUserAgent = 400
)

// SignIn is one log-in of a person, in one browser.
type SignIn struct {
	ID         id.SignIn
	CreatedAt  time.Time
	LastSeenAt time.Time
	ExpiresAt  time.Time
	Address    string
	UserAgent  string
}

// SignedIn is the outcome of signing in. Token goes into the cookie and is stored nowhere else.
type SignedIn struct {
	Token  string
	SignIn SignIn
	User   User
}

// Credentials are what somebody enters to sign in.
type Credentials struct {
	Email    string
	Password string
	Origin   Origin
}

// SignIn checks an address and a password. Its faults: wrong_credentials, which is the same for an unknown address, a wrong password and
// an address that is not verified; and rate_limited, with the time to wait.
func (s *Service) SignIn(ctx context.Context, in Credentials) (SignedIn, error) {
	email, bad := normalizeEmail(in.Email)
	if bad != nil || len(in.Password) > 4*maxPassword {
		return SignedIn{}, s.errWrongCredentials()
	}
	network := networkOf(in.Origin.Address)
	pair := s.throttle.of(guardPair, email, network)
	address := s.throttle.of(guardAddress, network)
	account := s.throttle.of(guardAccount, email)
	if err := s.throttle.take(ctx, pair, address, account); err != nil {
		return SignedIn{}, err
	}
	found, err := s.findUser(ctx, email)
	if err != nil {
		return SignedIn{}, err
	}
	user, hash, waits, err := s.readForSignIn(ctx, found)
	if err != nil {
		return SignedIn{}, err
	}
	match, stale, err := s.passwords.check(ctx, in.Password, hash)
	if err != nil {
		return SignedIn{}, err
	}
	if !match || waits {
		return SignedIn{}, s.errWrongCredentials()
	}
	rehashed := ""
	if stale {
		if rehashed, err = s.passwords.hash(ctx, in.Password); err != nil {
			return SignedIn{}, err
		}
	}
	var out SignedIn
	err = s.as(ctx, user.ID, func(tx pgx.Tx, q *tenantsdb.Queries) error {
		if err := s.throttle.forgetTx(ctx, tx, pair, account); err != nil {
			return err
		}
		if err := s.throttle.giveBackTx(ctx, tx, address); err != nil {
			return err
		}
		if rehashed != "" {
			if err := q.RehashPassword(ctx, tenantsdb.RehashPasswordParams{UserID: string(user.ID), OldHash: hash, NewHash: rehashed}); err != nil {
				return fmt.Errorf("renew a password's hash: %w", err)
			}
		}
		out, err = s.signInTx(ctx, tx, user, in.Origin)
		return err
	})
	return out, err
}

// readForSignIn reads what a sign-in needs; for nobody it makes the same queries and returns an empty hash.
func (s *Service) readForSignIn(ctx context.Context, who id.User) (user User, hash string, waits bool, err error) {
	err = s.as(ctx, who, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		row, err := q.GetUser(ctx, string(who))
		if err != nil && !noRows(err) {
			return fmt.Errorf("read a user: %w", err)
		}
		hash, err = q.GetPassword(ctx, string(who))
		if err != nil && !noRows(err) {
			return fmt.Errorf("read a password hash: %w", err)
		}
		user, waits = userOf(row), mayNotSignIn(row)
		return nil
	})
	return user, hash, waits, err
}

func (s *Service) errWrongCredentials() error {
	message := "The address or the password is wrong."
	if s.MailEnabled() {
		message = "The address or the password is wrong, or the address is not verified yet: then open the link in the mail that we sent."
	}
	return fault.New(fault.Unauthenticated, "wrong_credentials", message)
}

// signInTx opens a sign-in in a transaction that acts for the person.
func (s *Service) signInTx(ctx context.Context, tx pgx.Tx, user User, from Origin) (SignedIn, error) {
	now := s.clock.Now()
	out := SignedIn{Token: newToken(), User: user, SignIn: SignIn{
		ID: id.New[id.SignIn](), CreatedAt: now, LastSeenAt: now, ExpiresAt: now.Add(SignInLasts),
		Address: printable(from.Address, 64), UserAgent: printable(from.UserAgent, maxUserAgent),
	}}
	err := tenantsdb.New(tx).InsertSignIn(ctx, tenantsdb.InsertSignInParams{
		ID: string(out.SignIn.ID), UserID: string(user.ID), TokenSha256: digestOf(out.Token),
		CreatedAt: now, ExpiresAt: out.SignIn.ExpiresAt, Address: out.SignIn.Address, UserAgent: out.SignIn.UserAgent,
	})
	if err != nil {
		return SignedIn{}, fmt.Errorf("insert a sign-in: %w", err)
	}
	return out, nil
}

// printable keeps a header's text from breaking a page or a row.
func printable(s string, most int) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	return s[:min(len(s), most)]
}

// Authenticate returns who is signed in with this token, and notes the use. Its only fault is unauthenticated.
func (s *Service) Authenticate(ctx context.Context, token string) (Person, error) {
	who, err := s.ownerOf(ctx, token)
	if err != nil {
		return Person{}, err
	}
	var out Person
	err = s.as(ctx, who, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		row, err := q.GetSignInByToken(ctx, tenantsdb.GetSignInByTokenParams{UserID: string(who), TokenSha256: digestOf(token)})
		if noRows(err) {
			return errSignedOut()
		}
		if err != nil {
			return fmt.Errorf("read a sign-in: %w", err)
		}
		now := s.clock.Now()
		if row.RevokedAt != nil || !row.ExpiresAt.After(now) || now.Sub(row.LastSeenAt) > SignInIdles {
			return errSignedOut()
		}
		if now.Sub(row.LastSeenAt) >= seenEvery {
			if err := q.TouchSignIn(ctx, tenantsdb.TouchSignInParams{ID: row.ID, UserID: string(who), Now: now}); err != nil {
				return fmt.Errorf("note the use of a sign-in: %w", err)
			}
			row.LastSeenAt = now
		}
		out.SignIn = signInOf(row)
		user, err := q.GetUser(ctx, string(who))
		if err != nil {
			return fmt.Errorf("read a user: %w", err)
		}
		out.User = userOf(user)
		out.Memberships, err = memberships(ctx, q, who)
		return err
	})
	return out, err
}

func memberships(ctx context.Context, q *tenantsdb.Queries, who id.User) ([]Membership, error) {
	rows, err := q.MyMemberships(ctx, string(who))
	if err != nil {
		return nil, fmt.Errorf("list a person's organisations: %w", err)
	}
	out := make([]Membership, len(rows))
	for i, r := range rows {
		out[i] = Membership{
			ID: id.Member(r.ID), Organization: id.Org(r.OrgID), OrganizationName: r.OrgName, OrganizationSlug: r.OrgSlug,
			Role: Role(r.Role), RoleName: r.Role, CreatedAt: r.CreatedAt,
		}
		if r.RoleID != "" {
			out[i].CustomRole, out[i].RoleName, out[i].Permissions = id.Role(r.RoleID), r.RoleName, r.RolePermissions
		}
	}
	return out, nil
}

func (s *Service) ownerOf(ctx context.Context, token string) (id.User, error) {
	if !wellFormedToken(token) {
		return "", errSignedOut()
	}
	who, err := lookUp[id.User](ctx, s, "a sign-in", func(q *tenantsdb.Queries) (string, error) { return q.FindSignIn(ctx, digestOf(token)) })
	if err == nil && who == "" {
		return "", errSignedOut()
	}
	return who, err
}

// SignOut ends the sign-in of this token. A token that is none, or has ended, is no error.
func (s *Service) SignOut(ctx context.Context, token string) error {
	who, err := s.ownerOf(ctx, token)
	if fault.IsCode(err, "unauthenticated") {
		return nil
	}
	if err != nil {
		return err
	}
	return s.as(ctx, who, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		row, err := q.GetSignInByToken(ctx, tenantsdb.GetSignInByTokenParams{UserID: string(who), TokenSha256: digestOf(token)})
		if noRows(err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read a sign-in: %w", err)
		}
		if _, err := q.RevokeSignIn(ctx, tenantsdb.RevokeSignInParams{ID: row.ID, UserID: string(who), Now: s.clock.Now()}); err != nil {
			return fmt.Errorf("end a sign-in: %w", err)
		}
		return nil
	})
}

// ListSignIns returns a person's open sign-ins, the one that was used last first; at most 200.
func (s *Service) ListSignIns(ctx context.Context, who id.User) (out []SignIn, err error) {
	err = s.as(ctx, who, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		now := s.clock.Now()
		rows, err := q.ListSignIns(ctx, tenantsdb.ListSignInsParams{UserID: string(who), Now: now, IdleSince: now.Add(-SignInIdles)})
		if err != nil {
			return fmt.Errorf("list sign-ins: %w", err)
		}
		for _, r := range rows {
			out = append(out, signInOf(tenantsdb.GetSignInByTokenRow(r)))
		}
		return nil
	})
	return out, err
}

// RevokeSignIn ends one of a person's sign-ins; again: no error. Another's is not found.
func (s *Service) RevokeSignIn(ctx context.Context, who id.User, signIn id.SignIn) error {
	return s.as(ctx, who, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		n, err := q.RevokeSignIn(ctx, tenantsdb.RevokeSignInParams{ID: string(signIn), UserID: string(who), Now: s.clock.Now()})
		if err != nil {
			return fmt.Errorf("end a sign-in: %w", err)
		}
		if n == 0 {
			return fault.NotFound()
		}
		return nil
	})
}

// RevokeOtherSignIns ends all of a person's sign-ins but one, and says how many those were. With an empty keep it ends all.
func (s *Service) RevokeOtherSignIns(ctx context.Context, who id.User, keep id.SignIn) (n int64, err error) {
	err = s.as(ctx, who, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		n, err = q.RevokeOtherSignIns(ctx, tenantsdb.RevokeOtherSignInsParams{UserID: string(who), Keep: string(keep), Now: s.clock.Now()})
		if err != nil {
			return fmt.Errorf("end other sign-ins: %w", err)
		}
		return nil
	})
	return n, err
}

func signInOf(r tenantsdb.GetSignInByTokenRow) SignIn {
	return SignIn{ID: id.SignIn(r.ID), CreatedAt: r.CreatedAt, LastSeenAt: r.LastSeenAt, ExpiresAt: r.ExpiresAt, Address: r.Address, UserAgent: r.UserAgent}
}

func errSignedOut() error {
	return fault.New(fault.Unauthenticated, "unauthenticated", "You are not signed in, or your sign-in has ended. Sign in again.")
}
