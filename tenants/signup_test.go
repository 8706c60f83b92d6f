package tenants_test

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/tenants"
)

func TestASignUpMakesAllThatIsNeeded(t *testing.T) {
	var hooked []tenants.Organization
	f := newFixture(t, func(d *tenants.Deps) {
		d.OnOrganizationCreated = func(ctx context.Context, tx pgx.Tx, org tenants.Organization) error {
			hooked = append(hooked, org)
			var n int
			err := tx.QueryRow(ctx, "SELECT count(*) FROM organizations WHERE id = ambit_org()").Scan(&n)
			if n != 1 {
				return errors.New("the transaction is not in the new organisation")
			}
			return err
		}
	})
	out, err := f.SignUp(t.Context(), tenants.SignUp{Email: " Ada@Example.com ", Password: password, Name: "Ada Lovelace", Origin: here})
	require.NoError(t, err)
	require.False(t, out.CheckMail)
	require.NotNil(t, out.SignedIn)
	require.Equal(t, "ada@example.com", out.SignedIn.User.Email)
	require.Nil(t, out.SignedIn.User.EmailVerifiedAt, "nothing proved the address")

	who, err := f.Authenticate(t.Context(), out.SignedIn.Token)
	require.NoError(t, err)
	require.Equal(t, "Ada Lovelace", who.User.Label())
	require.Len(t, who.Memberships, 1)
	m := who.Memberships[0]
	require.Equal(t, "Ada Lovelace's organisation", m.OrganizationName)
	require.Equal(t, "ada-lovelace-s-organisation", m.OrganizationSlug)
	require.Equal(t, tenants.RoleOwner, m.Role)
	require.Len(t, hooked, 1)
	require.Equal(t, m.Organization, hooked[0].ID)

	projects, err := f.ListProjects(t.Context(), m.Organization, tenants.ListProjects{Limit: 10})
	require.NoError(t, err)
	require.Len(t, projects, 1)
	require.Equal(t, "Default", projects[0].Name)
	require.Equal(t, "default", projects[0].Slug)

	p, err := who.In(m.OrganizationSlug, projects[0].ID)
	require.NoError(t, err)
	require.True(t, tenants.Allowed(p, tenants.BillingWrite))
	require.Equal(t, projects[0].ID, p.Project)
	_, err = who.In("org_00000000000000000000000000", "")
	requireCode(t, "not_found", err)
}

func TestAFailingHookUndoesTheWholeSignUp(t *testing.T) {
	boom := errors.New("no credit today")
	f := newFixture(t, func(d *tenants.Deps) {
		d.OnOrganizationCreated = func(context.Context, pgx.Tx, tenants.Organization) error { return boom }
	})
	_, err := f.SignUp(t.Context(), tenants.SignUp{Email: "a@example.com", Password: password, Origin: here})
	require.ErrorIs(t, err, boom)
	require.Equal(t, "0", f.asOwner(t, "SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM organizations)"))
}

func TestSignUpRefusesBadInputFieldByField(t *testing.T) {
	f := newFixture(t)
	_, err := f.SignUp(t.Context(), tenants.SignUp{Email: "nobody", Password: "short", Name: "a\nb", OrganizationName: strings.Repeat("x", 101), Origin: here})
	bad := requireCode(t, "invalid_request", err)
	var codes []string
	for _, field := range bad.Fields {
		codes = append(codes, field.Pointer+" "+field.Code)
	}
	require.Equal(t, []string{"/email invalid_email", "/name invalid_name", "/organization_name too_long", "/password too_short"}, codes)

	for _, email := range []string{"", "a@", "@b", "a b@example.com", "a@b@c", "Ada <ada@example.com>", "a@exa mple.com", "a@-x.com", "ü@example.com", "a@[127.0.0.1]", "a\r\nb@example.com", strings.Repeat("a", 251) + "@b.c"} {
		_, err := f.CreateAccount(t.Context(), tenants.SignUp{Email: email, Password: password})
		require.Error(t, err, email)
		requireCode(t, "invalid_request", err)
	}
	for _, weak := range []string{"aaaaaaaaaaaaaaaa", "1234567890", "ada@example.com", "adalovelace", "abcdefghij", strings.Repeat("x9!K", 51), "bad\xff\xfe0000000"} {
		_, err := f.CreateAccount(t.Context(), tenants.SignUp{Email: "ada@example.com", Name: "Ada Lovelace", Password: weak})
		require.Error(t, err, weak)
		requireCode(t, "invalid_request", err)
	}
}

func TestWithoutMailATakenAddressIsRefusedNeutrally(t *testing.T) {
	f := newFixture(t)
	f.account(t, "ada@example.com")
	_, err := f.SignUp(t.Context(), tenants.SignUp{Email: "ADA@example.com", Password: "another " + password, Origin: here})
	refused := requireCode(t, "sign_up_refused", err)
	require.NotContains(t, refused.Message, "exists")
	_, err = f.SignIn(t.Context(), tenants.Credentials{Email: "ada@example.com", Password: password, Origin: here})
	require.NoError(t, err, "the first account is as it was")
}

func TestWithMailTheAnswerIsTheSameForATakenAddress(t *testing.T) {
	const floor = 400 * time.Millisecond
	f := newMailFixture(t, func(d *tenants.Deps) { d.AnswerAfter = floor })
	f.account(t, "taken@example.com")
	try := func(email string) (tenants.SignedUp, time.Duration) {
		began := time.Now()
		out, err := f.SignUp(t.Context(), tenants.SignUp{Email: email, Password: password, Origin: here})
		require.NoError(t, err)
		return out, time.Since(began)
	}
	free, freeTook := try("free@example.com")
	taken, takenTook := try("taken@example.com")
	again, againTook := try("free@example.com")
	require.Equal(t, free, taken)
	require.Equal(t, free, again)
	require.True(t, taken.CheckMail)
	for _, took := range []time.Duration{freeTook, takenTook, againTook} {
		require.GreaterOrEqual(t, took, floor, "the answer waits, so that its time tells nothing")
	}
	require.Contains(t, f.smtp.Next(t, 0).Subject, "Verify")
	require.Contains(t, f.smtp.Next(t, 1).Subject, "already")
	require.Contains(t, f.smtp.Next(t, 2).Subject, "new password", "the account was never verified: whoever owns the address may take it")

	// Signing in tells no more: an unverified account answers like a wrong password and like nobody.
	refusal := func(email, pw string) *fault.Error {
		_, err := f.SignIn(t.Context(), tenants.Credentials{Email: email, Password: pw, Origin: here})
		return requireCode(t, "wrong_credentials", err)
	}
	right := refusal("free@example.com", password)
	require.Equal(t, right, refusal("free@example.com", "wrong"+password))
	require.Equal(t, right, refusal("nobody@example.com", password))
	require.Equal(t, right, refusal("taken@example.com", "wrong"+password))
}

func TestOfTwoSignUpsAtOnceOneWins(t *testing.T) {
	f := newFixture(t)
	var wg sync.WaitGroup
	errs := make([]error, 6)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = f.SignUp(t.Context(), tenants.SignUp{Email: "race@example.com", Password: password, Origin: here})
		})
	}
	wg.Wait()
	won := 0
	for _, err := range errs {
		if err == nil {
			won++
			continue
		}
		requireCode(t, "sign_up_refused", err)
	}
	require.Equal(t, 1, won)
	require.Equal(t, "1 1 1", f.asOwner(t, "SELECT (SELECT count(*) FROM users) || ' ' || (SELECT count(*) FROM organizations) || ' ' || (SELECT count(*) FROM projects)"))
}

func TestOfTwoSignUpsAtOnceWithMailBothHearTheSame(t *testing.T) {
	f := newMailFixture(t)
	var wg sync.WaitGroup
	outs, errs := make([]tenants.SignedUp, 3), make([]error, 3)
	for i := range errs {
		wg.Go(func() {
			outs[i], errs[i] = f.SignUp(t.Context(), tenants.SignUp{Email: "race@example.com", Password: password, Origin: here})
		})
	}
	wg.Wait()
	for i := range errs {
		require.NoError(t, errs[i])
		require.Equal(t, tenants.SignedUp{CheckMail: true}, outs[i])
	}
	require.Equal(t, "1", f.asOwner(t, "SELECT count(*)::text FROM users"))
}

func TestOrganisationsOfOneNameGetSlugsOfTheirOwn(t *testing.T) {
	f := newFixture(t)
	a, err := f.CreateAccount(t.Context(), tenants.SignUp{Email: "a@example.com", Password: password, OrganizationName: "Acmé, Inc."})
	require.NoError(t, err)
	b, err := f.CreateAccount(t.Context(), tenants.SignUp{Email: "b@example.com", Password: password, OrganizationName: "Acmé, Inc."})
	require.NoError(t, err)
	require.Equal(t, "acm-inc", a.Organization.Slug)
	require.Regexp(t, `^acm-inc-[0-9a-z]{5}$`, b.Organization.Slug)

	c, first, err := f.CreateOrganization(t.Context(), a.User.ID, "日本")
	require.NoError(t, err)
	require.Equal(t, "organisation", c.Slug)
	require.Equal(t, c.ID, first.Org)
	_, _, err = f.CreateOrganization(t.Context(), a.User.ID, "  ")
	requireCode(t, "invalid_request", err)

	in, err := f.SignIn(t.Context(), tenants.Credentials{Email: "a@example.com", Password: password, Origin: here})
	require.NoError(t, err)
	who, err := f.Authenticate(t.Context(), in.Token)
	require.NoError(t, err)
	require.Len(t, who.Memberships, 2)
	require.Equal(t, "Acmé, Inc.", who.Memberships[0].OrganizationName)
}

func TestSignUpsFromOneAddressAreThrottled(t *testing.T) {
	f := newFixture(t)
	var limited *fault.Error
	for range 45 {
		// A weak password costs no hash and is not counted; a taken address is counted like a free one.
		_, err := f.SignUp(t.Context(), tenants.SignUp{Email: "same@example.com", Password: password, Origin: here})
		if fault.IsCode(err, "rate_limited") {
			limited = fault.As(err)
			break
		}
	}
	require.NotNil(t, limited)
	require.Positive(t, limited.RetryAfter)
	_, err := f.SignUp(t.Context(), tenants.SignUp{Email: "other@example.com", Password: password, Origin: tenants.Origin{Address: "192.0.2.8"}})
	require.NoError(t, err, "another address is not held up")
}
