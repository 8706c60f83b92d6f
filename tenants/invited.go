package tenants

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// Offer is what somebody who holds an invitation's link is shown. It says nothing of whether the address has an account.
type Offer struct {
	Organization string
	Email        string
	RoleName     string
	ExpiresAt    time.Time
}

// Joined is a new membership.
type Joined struct {
	Organization     id.Org
	OrganizationName string
	OrganizationSlug string
}

// errInvitationGone is one answer for a link that is forged, was used, revoked, replaced or is too old, and for one whose sender may not
// give the role any more.
func errInvitationGone() error {
	return fault.New(fault.Gone, "gone", "This invitation can't be accepted any more: it was used, revoked or replaced by a newer one, or it is too old. Ask for another one.")
}

// ReadOffer says what a link offers, and uses nothing up. Its fault is gone.
func (s *Service) ReadOffer(ctx context.Context, token string) (out Offer, err error) {
	err = s.withInvitation(ctx, token, func(tx pgx.Tx, org id.Org, i Invitation) error {
		o, err := tenantsdb.New(tx).GetOrganization(ctx, string(org))
		if err != nil {
			return fmt.Errorf("read an organisation: %w", err)
		}
		out = Offer{Organization: o.Name, Email: i.Email, RoleName: i.RoleName, ExpiresAt: i.ExpiresAt}
		return nil
	})
	return out, err
}

// AcceptInvitation makes somebody who is signed in a member. The person's address must be the one that was invited. A mailed link proves the
// address as well. Its faults: gone; wrong_account for somebody with another address; state_conflict for a member.
func (s *Service) AcceptInvitation(ctx context.Context, token string, who id.User) (out Joined, err error) {
	err = s.withInvitation(ctx, token, func(tx pgx.Tx, org id.Org, i Invitation) error {
		q := tenantsdb.New(tx)
		if err := q.ActAs(ctx, string(who)); err != nil {
			return fmt.Errorf("name the person of the transaction: %w", err)
		}
		user, err := q.GetUser(ctx, string(who))
		if err != nil {
			return fmt.Errorf("read a user: %w", err)
		}
		if user.Email != i.Email {
			return fault.New(fault.Forbidden, "wrong_account", "This invitation went to another address than the one you are signed in with. Sign out, and open the link again.")
		}
		if i.Mailed {
			if err := q.VerifyUser(ctx, tenantsdb.VerifyUserParams{ID: string(who), Now: s.clock.Now()}); err != nil {
				return fmt.Errorf("verify an address: %w", err)
			}
		}
		out, err = s.joinTx(ctx, tx, org, i, who)
		return err
	})
	return out, err
}

// SignUpInvited makes an account for the invited address, with this membership and no organisation of its own, and signs in. in's address
// and organisation are not looked at. The address counts as verified when the link was mailed. Its faults: gone, invalid_request,
// rate_limited, sign_up_refused.
func (s *Service) SignUpInvited(ctx context.Context, token string, in SignUp) (out SignedIn, joined Joined, err error) {
	offer, err := s.ReadOffer(ctx, token)
	if err != nil {
		return SignedIn{}, Joined{}, err
	}
	in.Email, in.OrganizationName = offer.Email, ""
	acc, err := checkSignUp(in)
	if err != nil {
		return SignedIn{}, Joined{}, err
	}
	if err := s.throttle.take(ctx, s.throttle.of(guardSignUp, networkOf(in.Origin.Address))); err != nil {
		return SignedIn{}, Joined{}, err
	}
	if acc.passwordHash, err = s.passwords.hash(ctx, in.Password); err != nil {
		return SignedIn{}, Joined{}, err
	}
	err = s.withInvitation(ctx, token, func(tx pgx.Tx, org id.Org, i Invitation) error {
		user, err := s.createInvitedTx(ctx, tx, acc, i.Mailed)
		if err != nil {
			return err
		}
		if joined, err = s.joinTx(ctx, tx, org, i, user.ID); err != nil {
			return err
		}
		out, err = s.signInTx(ctx, tx, user, in.Origin)
		return err
	})
	if errors.Is(err, errEmailTaken) {
		return SignedIn{}, Joined{}, fault.New(fault.Conflict, "sign_up_refused", "We could not create an account with these details. If you have one, sign in with it to accept.")
	}
	return out, joined, err
}

func (s *Service) createInvitedTx(ctx context.Context, tx pgx.Tx, acc newAccount, proven bool) (User, error) {
	now, q := s.clock.Now(), tenantsdb.New(tx)
	user := User{ID: id.New[id.User](), Email: acc.email, Name: acc.name, CreatedAt: now}
	if err := q.ActAs(ctx, string(user.ID)); err != nil {
		return User{}, fmt.Errorf("name the person of the transaction: %w", err)
	}
	if err := q.InsertUser(ctx, tenantsdb.InsertUserParams{ID: string(user.ID), Email: user.Email, Name: user.Name, MustVerify: proven, CreatedAt: now}); err != nil {
		return User{}, postgres.Translate(fmt.Errorf("insert a user: %w", err))
	}
	if err := q.InsertPassword(ctx, tenantsdb.InsertPasswordParams{UserID: string(user.ID), Hash: acc.passwordHash, ChangedAt: now}); err != nil {
		return User{}, fmt.Errorf("insert a password: %w", err)
	}
	if proven {
		if err := q.VerifyUser(ctx, tenantsdb.VerifyUserParams{ID: string(user.ID), Now: now}); err != nil {
			return User{}, fmt.Errorf("verify an address: %w", err)
		}
		user.EmailVerifiedAt = &now
	}
	return user, nil
}

// withInvitation runs fn in a transaction of the invitation's organisation, with its members' lock, if the invitation can be accepted now.
func (s *Service) withInvitation(ctx context.Context, token string, fn func(tx pgx.Tx, org id.Org, i Invitation) error) error {
	if !wellFormedToken(token) {
		return errInvitationGone()
	}
	org, err := lookUp[id.Org](ctx, s, "an invitation", func(q *tenantsdb.Queries) (string, error) { return q.FindInvitation(ctx, digestOf(token)) })
	if err != nil {
		return err
	}
	if org == "" {
		return errInvitationGone()
	}
	return s.in(ctx, org, func(tx pgx.Tx, q *tenantsdb.Queries) error {
		if err := lockMembership(ctx, q, org); err != nil {
			return err
		}
		found, err := q.GetInvitationByToken(ctx, tenantsdb.GetInvitationByTokenParams{OrgID: string(org), TokenSha256: digestOf(token)})
		if noRows(err) {
			return errInvitationGone()
		}
		if err != nil {
			return fmt.Errorf("read an invitation: %w", err)
		}
		i, err := s.GetInvitationTx(ctx, tx, org, id.Invitation(found))
		if err != nil {
			return err
		}
		good, err := s.stillGood(ctx, q, org, i)
		if err != nil {
			return err
		}
		if !good {
			return errInvitationGone()
		}
		return fn(tx, org, i)
	})
}

// stillGood reports whether the invitation is open and whoever sent it could still give the role: somebody who was removed or lowered since
// gives nothing by links that are under way.
func (s *Service) stillGood(ctx context.Context, q *tenantsdb.Queries, org id.Org, i Invitation) (bool, error) {
	if i.Status != InvitationPending || len(i.Permissions) == 0 {
		return false, nil
	}
	by := principal.Principal{Kind: i.byKind, ID: i.InvitedBy, Org: org}
	switch i.byKind {
	case principal.User:
		row, err := q.GetMemberByUser(ctx, tenantsdb.GetMemberByUserParams{OrgID: string(org), UserID: i.InvitedBy})
		if noRows(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read who invited: %w", err)
		}
		by.Role, by.Scopes = row.Role, row.RolePermissions
	case principal.Key:
		row, err := q.GetKey(ctx, tenantsdb.GetKeyParams{OrgID: string(org), ID: i.InvitedBy})
		if err != nil {
			return false, fmt.Errorf("read the key that invited: %w", err)
		}
		key := keyOf(row)
		if key.Status(s.clock.Now()) != KeyActive {
			return false, nil
		}
		by.Scopes = key.Scopes
	case principal.Agent, principal.System: // what Allowed says of their kind stands
	}
	return Allowed(by, MembersWrite) && mayHandOut(by, i.Permissions) == nil, nil
}

// joinTx makes the person a member and uses the invitation up.
func (s *Service) joinTx(ctx context.Context, tx pgx.Tx, org id.Org, i Invitation, who id.User) (Joined, error) {
	now, q := s.clock.Now(), tenantsdb.New(tx)
	member := tenantsdb.InsertMemberWithRoleParams{OrgID: string(org), ID: string(id.New[id.Member]()), UserID: string(who), Role: string(i.Role), CreatedAt: now}
	if i.CustomRole != "" {
		role := string(i.CustomRole)
		member.RoleID = &role
	}
	if err := q.InsertMemberWithRole(ctx, member); err != nil {
		return Joined{}, postgres.Translate(fmt.Errorf("insert a member: %w", err))
	}
	if err := q.AcceptInvitation(ctx, tenantsdb.AcceptInvitationParams{OrgID: string(org), ID: string(i.ID), Now: now, AcceptedBy: string(who)}); err != nil {
		return Joined{}, fmt.Errorf("use up an invitation: %w", err)
	}
	o, err := q.GetOrganization(ctx, string(org))
	if err != nil {
		return Joined{}, fmt.Errorf("read an organisation: %w", err)
	}
	return Joined{Organization: org, OrganizationName: o.Name, OrganizationSlug: o.Slug}, nil
}

func init() {
	postgres.RegisterConstraint("members_user_is_member", fault.New(fault.Conflict, "state_conflict", "You are a member of this organisation already."))
}
