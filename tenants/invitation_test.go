package tenants_test

import (
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func (f *fixture) invite(t *testing.T, by principal.Principal, email, role string) (out tenants.Sent, err error) {
	t.Helper()
	err = f.db.InTx(t.Context(), by.Org, func(tx pgx.Tx) (err error) {
		out, err = f.InviteTx(t.Context(), tx, by, tenants.Invite{Email: email, Role: role})
		return err
	})
	return out, err
}

func (f *fixture) resend(t *testing.T, by principal.Principal, i id.Invitation) (out tenants.Sent, err error) {
	t.Helper()
	err = f.db.InTx(t.Context(), by.Org, func(tx pgx.Tx) (err error) {
		out, err = f.ResendInvitationTx(t.Context(), tx, by, i)
		return err
	})
	return out, err
}

func (f *fixture) revoke(t *testing.T, by principal.Principal, i id.Invitation) error {
	t.Helper()
	return f.db.InTx(t.Context(), by.Org, func(tx pgx.Tx) error { return f.RevokeInvitationTx(t.Context(), tx, by, i) })
}

func (f *fixture) invitationOf(t *testing.T, org id.Org, i id.Invitation) (out tenants.Invitation) {
	t.Helper()
	f.tx(t, org, func(tx pgx.Tx) (err error) {
		out, err = f.GetInvitationTx(t.Context(), tx, org, i)
		return err
	})
	return out
}

func TestAnInvitedStrangerSignsUpAndIsVerifiedByTheMail(t *testing.T) {
	f := newMailFixture(t)
	ada := f.account(t, "ada@example.com")
	owner := f.ownerOf(ada)
	sent, err := f.invite(t, owner, " Grace@Example.com", "developer")
	require.NoError(t, err)
	require.Empty(t, sent.Link, "who invites does not get what proves the address")
	mail := f.smtp.Next(t, 0)
	require.Equal(t, "grace@example.com", mail.To)
	token := tokenOf(t, mail.Link())
	require.NotContains(t, f.asOwner(t, "SELECT string_agg(i::text, '') FROM invitations i"), token)

	offer, err := f.ReadOffer(t.Context(), token)
	require.NoError(t, err)
	require.Equal(t, "grace@example.com", offer.Email)
	require.Equal(t, "developer", offer.RoleName)
	_, _, err = f.SignUpInvited(t.Context(), token, tenants.SignUp{Password: "short", Origin: here})
	requireCode(t, "invalid_request", err)
	in, joined, err := f.SignUpInvited(t.Context(), token, tenants.SignUp{Password: password, Name: "Grace", Email: "eve@example.com", Origin: here})
	require.NoError(t, err)
	require.Equal(t, ada.Organization.Slug, joined.OrganizationSlug)
	require.Equal(t, "grace@example.com", in.User.Email, "only the invited address")
	person, err := f.Authenticate(t.Context(), in.Token)
	require.NoError(t, err)
	require.NotNil(t, person.User.EmailVerifiedAt)
	require.Len(t, person.Memberships, 1, "no organisation of its own")
	require.Equal(t, tenants.RoleDeveloper, person.Memberships[0].Role)
	f.signIn(t, "grace@example.com")
	require.Equal(t, tenants.InvitationAccepted, f.invitationOf(t, owner.Org, sent.Invitation.ID).Status)

	_, err = f.ReadOffer(t.Context(), token)
	requireCode(t, "gone", err)
	_, err = f.AcceptInvitation(t.Context(), token, in.User.ID)
	requireCode(t, "gone", err)
	require.Equal(t, "state_conflict", fault.As(f.revoke(t, owner, sent.Invitation.ID)).Code)
}

func TestAnInvitedAccountAcceptsSignedInAndNoOtherDoes(t *testing.T) {
	f := newMailFixture(t)
	ada, grace, eve := f.account(t, "ada@example.com"), f.account(t, "grace@example.com"), f.account(t, "eve@example.com")
	_, err := f.invite(t, f.ownerOf(ada), "grace@example.com", "viewer")
	require.NoError(t, err)
	unknown, err := f.invite(t, f.ownerOf(ada), "nobody@example.com", "viewer")
	require.NoError(t, err, "the answer is the same for an address without an account")
	require.Equal(t, tenants.InvitationPending, unknown.Invitation.Status)
	var token string
	for n := range 2 {
		if m := f.smtp.Next(t, n); m.To == "grace@example.com" {
			token = tokenOf(t, m.Link())
		}
	}
	_, err = f.AcceptInvitation(t.Context(), token, eve.User.ID)
	requireCode(t, "wrong_account", err)
	require.NotContains(t, fault.As(err).Message, "grace", "it does not say whose it is")
	_, _, err = f.SignUpInvited(t.Context(), token, tenants.SignUp{Password: password, Origin: here})
	requireCode(t, "sign_up_refused", err)
	joined, err := f.AcceptInvitation(t.Context(), token, grace.User.ID)
	require.NoError(t, err)
	require.Equal(t, ada.Organization.Slug, joined.OrganizationSlug)
	require.Equal(t, tenants.RoleViewer, f.memberOf(t, ada.Organization.ID, grace.User.ID).Role)
	require.NotNil(t, f.memberOf(t, ada.Organization.ID, grace.User.ID).EmailVerifiedAt)
	_, err = f.invite(t, f.ownerOf(ada), "grace@example.com", "viewer")
	requireCode(t, "state_conflict", err)
}

func TestWithoutMailTheLinkIsShownOnceAndProvesNothing(t *testing.T) {
	f := newFixture(t)
	ada := f.account(t, "ada@example.com")
	sent, err := f.invite(t, f.ownerOf(ada), "grace@example.com", "developer")
	require.NoError(t, err)
	require.Contains(t, sent.Link, "http://ambit.test"+tenants.InvitationPath+"?token=")
	in, _, err := f.SignUpInvited(t.Context(), tokenOf(t, sent.Link), tenants.SignUp{Password: password, Origin: here})
	require.NoError(t, err)
	require.Nil(t, in.User.EmailVerifiedAt)
	f.signIn(t, "grace@example.com")
}

func TestNobodyInvitesAboveThemselves(t *testing.T) {
	f := newFixture(t)
	ada := f.account(t, "ada@example.com")
	owner := f.ownerOf(ada)
	member, bob := f.join(t, owner.Org, "bob@example.com", tenants.RoleAdmin)
	admin := principal.Principal{Kind: principal.User, ID: string(bob.User.ID), Org: owner.Org, Role: "admin"}
	for _, role := range []string{"owner", "billing"} {
		_, err := f.invite(t, admin, "x@example.com", role)
		requireCode(t, "permission_denied", err)
	}
	for _, role := range []string{"", "custom", "king", string(id.New[id.Role]())} {
		_, err := f.invite(t, owner, "x@example.com", role)
		requireCode(t, "invalid_request", err)
	}
	theirs, err := f.invite(t, owner, "second@example.com", "owner")
	require.NoError(t, err)
	_, err = f.resend(t, admin, theirs.Invitation.ID)
	requireCode(t, "permission_denied", err)
	requireCode(t, "permission_denied", f.revoke(t, admin, theirs.Invitation.ID))

	// What is under way counts for no more than its sender may still give.
	sent, err := f.invite(t, admin, "carol@example.com", "admin")
	require.NoError(t, err)
	_, err = f.setRole(t, owner, member, "developer")
	require.NoError(t, err)
	_, err = f.ReadOffer(t.Context(), tokenOf(t, sent.Link))
	requireCode(t, "gone", err)
	again, err := f.resend(t, owner, sent.Invitation.ID)
	require.NoError(t, err, "the owner takes it over")
	_, err = f.ReadOffer(t.Context(), tokenOf(t, again.Link))
	require.NoError(t, err)

	key, _ := f.key(t, owner, tenants.CreateKey{Scopes: []string{"members:write", "sessions:read"}})
	_, err = f.invite(t, key.Principal(), "dan@example.com", "viewer")
	requireCode(t, "permission_denied", err)
	role := f.newRole(t, owner, tenants.SaveRole{Name: "Onlooker", Permissions: []string{"sessions:read"}})
	byKey, err := f.invite(t, key.Principal(), "dan@example.com", string(role.ID))
	require.NoError(t, err)
	f.tx(t, owner.Org, func(tx pgx.Tx) error {
		requireCode(t, "state_conflict", f.DeleteRoleTx(t.Context(), tx, owner, role.ID))
		_, err := f.RevokeKeyTx(t.Context(), tx, owner.Org, key.ID)
		return err
	})
	_, err = f.ReadOffer(t.Context(), tokenOf(t, byKey.Link))
	requireCode(t, "gone", err)
}

func TestOldReplacedRevokedAndForgedInvitationsAreGone(t *testing.T) {
	f := newFixture(t)
	ada, eve := f.account(t, "ada@example.com"), f.account(t, "eve@example.com")
	owner := f.ownerOf(ada)
	first, err := f.invite(t, owner, "grace@example.com", "viewer")
	require.NoError(t, err)
	_, err = f.invite(t, owner, "GRACE@example.com", "viewer")
	requireCode(t, "state_conflict", err)
	second, err := f.resend(t, owner, first.Invitation.ID)
	require.NoError(t, err)
	gone := func(link string) {
		t.Helper()
		_, err := f.ReadOffer(t.Context(), tokenOf(t, link))
		requireCode(t, "gone", err)
		_, _, err = f.SignUpInvited(t.Context(), tokenOf(t, link), tenants.SignUp{Password: password, Origin: here})
		requireCode(t, "gone", err)
	}
	gone(first.Link)
	for _, token := range []string{"", "x", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"} {
		_, err := f.AcceptInvitation(t.Context(), token, eve.User.ID)
		requireCode(t, "gone", err)
	}
	f.hands.Advance(tenants.InvitationLasts)
	gone(second.Link)
	require.Equal(t, tenants.InvitationExpired, f.invitationOf(t, owner.Org, first.Invitation.ID).Status)
	anew, err := f.invite(t, owner, "grace@example.com", "developer")
	require.NoError(t, err, "an expired one makes room")
	_, err = f.resend(t, owner, first.Invitation.ID)
	requireCode(t, "state_conflict", err)

	foreign := f.ownerOf(eve)
	_, err = f.resend(t, foreign, anew.Invitation.ID)
	requireCode(t, "not_found", err)
	requireCode(t, "not_found", f.revoke(t, foreign, anew.Invitation.ID))
	require.NoError(t, f.revoke(t, owner, anew.Invitation.ID))
	require.NoError(t, f.revoke(t, owner, anew.Invitation.ID))
	gone(anew.Link)
	_, err = f.resend(t, owner, anew.Invitation.ID)
	requireCode(t, "state_conflict", err)

	f.hands.Advance(tenants.InvitationLasts + 31*24*time.Hour)
	f.Start(t.Context())
	<-f.Started()
	require.NoError(t, f.Stop(t.Context()))
	require.Equal(t, "0", f.asOwner(t, "SELECT count(*)::text FROM invitations"))
}

func TestAnInvitationIsAcceptedOnce(t *testing.T) {
	f := newFixture(t)
	sent, err := f.invite(t, f.ownerOf(f.account(t, "ada@example.com")), "grace@example.com", "viewer")
	require.NoError(t, err)
	grace := f.account(t, "grace@example.com")
	var wait sync.WaitGroup
	codes := make(chan string, 8)
	for range 8 {
		wait.Go(func() {
			_, err := f.AcceptInvitation(t.Context(), tokenOf(t, sent.Link), grace.User.ID)
			if err == nil {
				codes <- "joined"
				return
			}
			codes <- fault.As(err).Code
		})
	}
	wait.Wait()
	close(codes)
	counts := map[string]int{}
	for c := range codes {
		counts[c]++
	}
	require.Equal(t, map[string]int{"joined": 1, "gone": 7}, counts)
}

func TestAnOrganisationsNameCarriesNoLinkIntoAMail(t *testing.T) {
	f := newMailFixture(t)
	a, err := f.CreateAccount(t.Context(), tenants.SignUp{Email: "ada@example.com", Password: password, OrganizationName: "Win now at https://evil.test/x or me@evil.test, Inc."})
	require.NoError(t, err)
	_, err = f.invite(t, f.ownerOf(a), "grace@example.com", "viewer")
	require.NoError(t, err)
	mail := f.smtp.Next(t, 0)
	require.NotContains(t, mail.Text+mail.Subject, "evil.test")
	require.Contains(t, mail.Text, "Win now at https evil test x or me evil test, Inc.")
	for range 5 {
		list := f.invitations(t, a.Organization.ID)
		_, err = f.resend(t, f.ownerOf(a), list[0].ID)
		require.NoError(t, err)
	}
	_, err = f.resend(t, f.ownerOf(a), f.invitations(t, a.Organization.ID)[0].ID)
	requireCode(t, "rate_limited", err)
}

func (f *fixture) invitations(t *testing.T, org id.Org) (out []tenants.Invitation) {
	t.Helper()
	f.tx(t, org, func(tx pgx.Tx) (err error) {
		out, err = f.ListInvitationsTx(t.Context(), tx, org, tenants.ListInvitations{Open: true, Limit: 10})
		return err
	})
	return out
}
