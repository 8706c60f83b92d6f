package tenants

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/notifications"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// InvitationPath is where an invitation's link leads in the console; its token is the query parameter "token".
const InvitationPath = "/invitation"

const (
	// InvitationLasts is how long an invitation can be accepted after it was sent.
	InvitationLasts = 7 * 24 * time.Hour
	// maxInvitations is how many of an organisation's are open at a time.
	maxInvitations = 500
)

// InvitationStatus says what has become of an invitation.
type InvitationStatus string

// The statuses of an invitation.
const (
	InvitationPending  InvitationStatus = "pending"
	InvitationAccepted InvitationStatus = "accepted"
	InvitationExpired  InvitationStatus = "expired"
	InvitationRevoked  InvitationStatus = "revoked"
)

// Invitation is an offer to become a member, to whoever reads the mail of an address.
type Invitation struct {
	ID    id.Invitation
	Email string
	// Role, CustomRole and RoleName are as a Member has them; RoleName is empty when the role was deleted since.
	Role        Role
	CustomRole  id.Role
	RoleName    string
	Permissions []Permission
	Status      InvitationStatus
	// InvitedBy is a person's or a key's id: who invited, or sent the link again last.
	InvitedBy string
	// Mailed says that the link went to the mailbox and to nobody else.
	Mailed    bool
	CreatedAt time.Time
	SentAt    time.Time
	ExpiresAt time.Time

	byKind principal.Kind
}

// Sent is an invitation that was just made or sent again. Link is set only where no mail can be sent: whoever invites hands it over, and
// it is kept nowhere.
type Sent struct {
	Invitation Invitation
	Link       string
}

// Invite is the input of InviteTx. Role is the name of a built-in role, or the id of one that the organisation made.
type Invite struct {
	Email string
	Role  string
}

func init() {
	postgres.RegisterConstraint("invitations_address_is_invited", errInvitedAlready())
}

func errInvitedAlready() *fault.Error {
	return fault.New(fault.Conflict, "state_conflict", "This address has an invitation that is still open. Send that one again, or revoke it first.")
}

// InviteTx invites an address, in a transaction of the organisation of by, who has all that the role allows. The answer is the same whether
// or not the address has an account. The mail leaves after the commit. Its faults: invalid_request, permission_denied, state_conflict for
// an address that is invited or is a member's, rate_limited.
func (s *Service) InviteTx(ctx context.Context, tx pgx.Tx, by principal.Principal, in Invite) (Sent, error) {
	email, bad := normalizeEmail(in.Email)
	if bad != nil {
		return Sent{}, fault.InvalidFields(*bad)
	}
	q := tenantsdb.New(tx)
	if err := lockMembership(ctx, q, by.Org); err != nil {
		return Sent{}, err
	}
	given, err := s.roleToGive(ctx, tx, by, in.Role)
	if err != nil {
		return Sent{}, err
	}
	now := s.clock.Now()
	if err := s.roomToInvite(ctx, q, by.Org, email, now); err != nil {
		return Sent{}, err
	}
	token := newToken()
	row := tenantsdb.InsertInvitationParams{
		OrgID: string(by.Org), ID: string(id.New[id.Invitation]()), Email: email, Role: given.Role, RoleID: given.RoleID, TokenSha256: digestOf(token),
		Mailed: s.MailEnabled(), ByKind: string(by.Kind), ByID: by.ID, Now: now, ExpiresAt: now.Add(InvitationLasts),
	}
	if err := q.InsertInvitation(ctx, row); err != nil {
		return Sent{}, postgres.Translate(fmt.Errorf("insert an invitation: %w", err))
	}
	data := map[string]string{"type": "invitation", "id": row.ID}
	if err := notifications.PublishTx(ctx, tx, by.Org, notifications.InvitationCreated, data); err != nil {
		return Sent{}, err
	}
	return s.sendInvitationTx(ctx, tx, by, id.Invitation(row.ID), token)
}

func (s *Service) roomToInvite(ctx context.Context, q *tenantsdb.Queries, org id.Org, email string, now time.Time) error {
	member, err := q.HasMemberOfAddress(ctx, tenantsdb.HasMemberOfAddressParams{OrgID: string(org), Email: email})
	if err != nil {
		return fmt.Errorf("look for a member of the address: %w", err)
	}
	if member {
		return fault.New(fault.Conflict, "state_conflict", "A member of this organisation has this address. Give that member another role instead.")
	}
	if err := q.EndExpiredInvitation(ctx, tenantsdb.EndExpiredInvitationParams{OrgID: string(org), Email: email, Now: now}); err != nil {
		return fmt.Errorf("end an expired invitation: %w", err)
	}
	open, err := q.CountOpenInvitations(ctx, tenantsdb.CountOpenInvitationsParams{OrgID: string(org), Now: now})
	if err != nil {
		return fmt.Errorf("count the open invitations: %w", err)
	}
	if open >= maxInvitations {
		return fault.Newf(fault.Conflict, "state_conflict", "An organisation has at most %d open invitations. Revoke some that are not needed.", maxInvitations)
	}
	return nil
}

// sendInvitationTx queues the mail, or hands the link to whoever invites, and returns the invitation as it now is.
func (s *Service) sendInvitationTx(ctx context.Context, tx pgx.Tx, by principal.Principal, invitation id.Invitation, token string) (Sent, error) {
	var out Sent
	var err error
	if out.Invitation, err = s.GetInvitationTx(ctx, tx, by.Org, invitation); err != nil {
		return Sent{}, err
	}
	link := s.deps.PublicURL + InvitationPath + "?" + url.Values{"token": {token}}.Encode()
	if !s.MailEnabled() {
		out.Link = link
		return out, nil
	}
	if err := s.throttle.takeOne(ctx, tenantsdb.New(tx), s.throttle.of(guardInvited, out.Invitation.Email)); err != nil {
		return Sent{}, err
	}
	org, err := tenantsdb.New(tx).GetOrganization(ctx, string(by.Org))
	if err != nil {
		return Sent{}, fmt.Errorf("read an organisation: %w", err)
	}
	return out, s.deps.Mail.SendTx(ctx, tx, invitationMail(out.Invitation, org.Name, link))
}

// ResendInvitationTx makes a new link, which holds as long as a first one does, and sends it. The old one is void. by answers for the role
// from now on. An expired invitation is renewed by it. Its faults: not_found, permission_denied, state_conflict for one that was accepted
// or revoked, rate_limited.
func (s *Service) ResendInvitationTx(ctx context.Context, tx pgx.Tx, by principal.Principal, invitation id.Invitation) (Sent, error) {
	was, err := s.lockInvitation(ctx, tx, by, invitation)
	if err != nil {
		return Sent{}, err
	}
	if was.Status == InvitationAccepted || was.Status == InvitationRevoked || len(was.Permissions) == 0 {
		return Sent{}, fault.New(fault.Conflict, "state_conflict", "This invitation has ended. Invite the address again.")
	}
	token, now := newToken(), s.clock.Now()
	err = tenantsdb.New(tx).RenewInvitation(ctx, tenantsdb.RenewInvitationParams{
		OrgID: string(by.Org), ID: string(invitation), TokenSha256: digestOf(token), Mailed: s.MailEnabled(), ByKind: string(by.Kind), ByID: by.ID,
		Now: now, ExpiresAt: now.Add(InvitationLasts),
	})
	if err != nil {
		return Sent{}, fmt.Errorf("renew an invitation: %w", err)
	}
	return s.sendInvitationTx(ctx, tx, by, invitation, token)
}

// RevokeInvitationTx ends an invitation; its link is void from the commit on. Again: no error. Its faults: not_found, permission_denied,
// state_conflict for one that was accepted.
func (s *Service) RevokeInvitationTx(ctx context.Context, tx pgx.Tx, by principal.Principal, invitation id.Invitation) error {
	was, err := s.lockInvitation(ctx, tx, by, invitation)
	if err != nil {
		return err
	}
	if was.Status == InvitationAccepted {
		return fault.New(fault.Conflict, "state_conflict", "This invitation was accepted. Remove the member instead.")
	}
	err = tenantsdb.New(tx).RevokeInvitation(ctx, tenantsdb.RevokeInvitationParams{OrgID: string(by.Org), ID: string(invitation), Now: s.clock.Now()})
	if err != nil {
		return fmt.Errorf("revoke an invitation: %w", err)
	}
	return nil
}

// lockInvitation reads an invitation whose role by could give, while nobody else changes members or invitations.
func (s *Service) lockInvitation(ctx context.Context, tx pgx.Tx, by principal.Principal, invitation id.Invitation) (Invitation, error) {
	if err := lockMembership(ctx, tenantsdb.New(tx), by.Org); err != nil {
		return Invitation{}, err
	}
	was, err := s.GetInvitationTx(ctx, tx, by.Org, invitation)
	if err != nil {
		return Invitation{}, err
	}
	return was, mayHandOut(by, was.Permissions)
}

// GetInvitationTx returns an invitation of the organisation, or not found.
func (s *Service) GetInvitationTx(ctx context.Context, tx pgx.Tx, org id.Org, invitation id.Invitation) (Invitation, error) {
	row, err := tenantsdb.New(tx).GetInvitation(ctx, tenantsdb.GetInvitationParams{OrgID: string(org), ID: string(invitation)})
	if err != nil {
		return Invitation{}, postgres.Translate(fmt.Errorf("read an invitation: %w", err))
	}
	return s.invitationOf(row), nil
}

// ListInvitations selects invitations, newest first.
type ListInvitations struct {
	// Open leaves out those that were accepted or revoked; expired ones stay, as they can be sent again.
	Open bool
	// Before is the last one seen; empty begins at the newest.
	Before id.Invitation
	Limit  int
}

// ListInvitationsTx returns invitations of the organisation.
func (s *Service) ListInvitationsTx(ctx context.Context, tx pgx.Tx, org id.Org, in ListInvitations) ([]Invitation, error) {
	rows, err := tenantsdb.New(tx).ListInvitations(ctx, tenantsdb.ListInvitationsParams{OrgID: string(org), OpenOnly: in.Open, Before: string(in.Before), MaxRows: rowLimit(in.Limit)})
	if err != nil {
		return nil, fmt.Errorf("list invitations: %w", err)
	}
	out := make([]Invitation, len(rows))
	for i, r := range rows {
		out[i] = s.invitationOf(tenantsdb.GetInvitationRow(r))
	}
	return out, nil
}

func (s *Service) invitationOf(r tenantsdb.GetInvitationRow) Invitation {
	out := Invitation{
		ID: id.Invitation(r.ID), Email: r.Email, Role: Role(r.Role), RoleName: r.Role, Permissions: PermissionsOf(Role(r.Role)), InvitedBy: r.ByID, Mailed: r.Mailed,
		CreatedAt: r.CreatedAt, SentAt: r.SentAt, ExpiresAt: r.ExpiresAt, byKind: principal.Kind(r.ByKind),
	}
	if r.RoleID != nil {
		out.CustomRole, out.RoleName, out.Permissions = id.Role(*r.RoleID), r.RoleName, permissionsOf(r.RolePermissions)
	}
	switch {
	case r.AcceptedAt != nil:
		out.Status = InvitationAccepted
	case r.RevokedAt != nil:
		out.Status = InvitationRevoked
	case !r.ExpiresAt.After(s.clock.Now()):
		out.Status = InvitationExpired
	default:
		out.Status = InvitationPending
	}
	return out
}
