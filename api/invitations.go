package api

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func (a *API) invitationRoutes() []Route {
	const tag = "Members"
	const whole = "Takes a key of the whole organisation. "
	return []Route{
		{
			ID: "invitations.create", Method: http.MethodPost, Path: "/v1/invitations", Permission: tenants.MembersWrite, Tag: tag,
			Summary: "Invite somebody", Description: whole + "A link goes to the address and holds for seven days; whoever opens it signs in with the account of this address, or makes one. " +
				"The answer does not tell whether there is one. Nobody gives a role with a permission that they do not have.",
			Errors: []string{slugDenied, "state_conflict", slugRate}, Endpoint: write(http.StatusCreated, a.createInvitation),
		},
		{
			ID: "invitations.list", Method: http.MethodGet, Path: "/v1/invitations", Permission: tenants.MembersRead, Tag: tag,
			Summary: "List invitations", Description: whole + "Newest first. Those that ended a month ago are gone.", Errors: []string{slugPage, slugDenied}, Endpoint: read(a.listInvitations),
		},
		{
			ID: "invitations.resend", Method: http.MethodPost, Path: "/v1/invitations/{invitation_id}/resend", Permission: tenants.MembersWrite, Tag: tag,
			Summary: "Send an invitation again", Description: "With a new link for another seven days. The old link is void.",
			Errors: []string{slugDenied, "state_conflict", slugRate}, Endpoint: write(http.StatusOK, a.resendInvitation),
		},
		{
			ID: "invitations.delete", Method: http.MethodDelete, Path: "/v1/invitations/{invitation_id}", Permission: tenants.MembersWrite, Tag: tag,
			Summary: "Revoke an invitation", Description: "Its link is void at once.", Errors: []string{slugDenied, "state_conflict"}, Endpoint: write(http.StatusOK, a.deleteInvitation),
		},
	}
}

// Invitation is an offer to somebody to become a member.
type Invitation struct {
	ID        id.Invitation `json:"id"`
	Type      string        `json:"type" const:"invitation"`
	Email     string        `json:"email"`
	Role      string        `json:"role" doc:"owner, admin, billing, developer or viewer, or the id of a role that the organisation made."`
	RoleName  string        `json:"role_name"`
	Status    string        `json:"status" enum:"pending,accepted,expired,revoked"`
	InvitedBy string        `json:"invited_by" doc:"A user or an API key: who invited, or sent the link again last."`
	Link      *string       `json:"link" doc:"Where this Ambit sends no mail, the answer to making or sending again has the link, once, for you to hand over. Otherwise null."`
	CreatedAt Time          `json:"created_at"`
	SentAt    Time          `json:"sent_at"`
	ExpiresAt Time          `json:"expires_at"`
}

func invitationFrom(i tenants.Invitation) Invitation {
	out := Invitation{
		ID: i.ID, Type: "invitation", Email: i.Email, Role: string(i.Role), RoleName: i.RoleName, Status: string(i.Status), InvitedBy: i.InvitedBy,
		CreatedAt: Time(i.CreatedAt), SentAt: Time(i.SentAt), ExpiresAt: Time(i.ExpiresAt),
	}
	if i.CustomRole != "" {
		out.Role = string(i.CustomRole)
	}
	return out
}

func sentFrom(s tenants.Sent) Invitation {
	out := invitationFrom(s.Invitation)
	if s.Link != "" {
		out.Link = &s.Link
	}
	return out
}

type createInvitationIn struct {
	Body struct {
		Email string `json:"email" required:"true" maxlen:"254" example:"grace@example.com"`
		Role  string `json:"role" required:"true" maxlen:"64" example:"developer" doc:"owner, admin, billing, developer or viewer, or the id of a role that the organisation made."`
	} `body:"json"`
}

func (a *API) createInvitation(ctx context.Context, tx pgx.Tx, in createInvitationIn) (Invitation, error) {
	if err := wholeOrganization(ctx); err != nil {
		return Invitation{}, err
	}
	sent, err := a.cfg.Domains.Tenants.InviteTx(ctx, tx, principal.From(ctx), tenants.Invite{Email: in.Body.Email, Role: in.Body.Role})
	return sentFrom(sent), err
}

type listInvitationsIn struct {
	Paging
	Open bool `query:"open" default:"false" doc:"Leave out those that were accepted or revoked."`
}

func (a *API) listInvitations(ctx context.Context, tx pgx.Tx, in listInvitationsIn) (Page[Invitation], error) {
	if err := wholeOrganization(ctx); err != nil {
		return Page[Invitation]{}, err
	}
	before, err := positionID[id.Invitation](in.place)
	if err != nil {
		return Page[Invitation]{}, err
	}
	list, err := a.cfg.Domains.Tenants.ListInvitationsTx(ctx, tx, principal.From(ctx).Org, tenants.ListInvitations{Open: in.Open, Before: before, Limit: in.place.fetch()})
	if err != nil {
		return Page[Invitation]{}, err
	}
	return pageOf(in.place, list, func(i tenants.Invitation) string { return string(i.ID) }, invitationFrom), nil
}

type invitationIn struct {
	Invitation id.Invitation `path:"invitation_id"`
}

func (a *API) resendInvitation(ctx context.Context, tx pgx.Tx, in invitationIn) (Invitation, error) {
	if err := wholeOrMissing(ctx); err != nil {
		return Invitation{}, err
	}
	sent, err := a.cfg.Domains.Tenants.ResendInvitationTx(ctx, tx, principal.From(ctx), in.Invitation)
	return sentFrom(sent), err
}

func (a *API) deleteInvitation(ctx context.Context, tx pgx.Tx, in invitationIn) (Deleted, error) {
	if err := wholeOrMissing(ctx); err != nil {
		return Deleted{}, err
	}
	if err := a.cfg.Domains.Tenants.RevokeInvitationTx(ctx, tx, principal.From(ctx), in.Invitation); err != nil {
		return Deleted{}, err
	}
	return Deleted{ID: string(in.Invitation), Type: "invitation_deleted"}, nil
}
