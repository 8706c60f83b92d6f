package tenants_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/tenants"
)

const newPassword = "staple paperclip 9"

func TestVerifyingAnAddressOpensTheAccount(t *testing.T) {
	f := newMailFixture(t)
	_, err := f.SignUp(t.Context(), tenants.SignUp{Email: "ada@example.com", Password: password, Name: "http://evil.test", Origin: here})
	require.NoError(t, err)
	mail := f.smtp.Next(t, 0)
	require.True(t, strings.HasPrefix(mail.Link(), "http://ambit.test"+tenants.VerifyPath+"?token="), mail.Link())
	require.NotContains(t, mail.Text, "evil.test", "a stranger's text does not travel under our name")
	token := tokenOf(t, mail.Link())
	require.NotContains(t, f.asOwner(t, "SELECT string_agg(m::text, '') FROM mail_tokens m"), token)
	good, err := f.LinkIsGood(t.Context(), token)
	require.NoError(t, err)
	require.True(t, good)

	_, err = f.VerifyEmail(t.Context(), token, "wrong"+password, here)
	requireCode(t, "wrong_credentials", err)
	in, err := f.VerifyEmail(t.Context(), token, password, here)
	require.NoError(t, err, "a wrong password leaves the link good")
	require.NotNil(t, in.User.EmailVerifiedAt)
	_, err = f.Authenticate(t.Context(), in.Token)
	require.NoError(t, err)
	_, err = f.VerifyEmail(t.Context(), token, password, here)
	requireCode(t, "gone", err)
	good, err = f.LinkIsGood(t.Context(), token)
	require.NoError(t, err)
	require.False(t, good)
	f.signIn(t, "ada@example.com")
}

func TestSomebodyElsesSignUpCannotBeConfirmedByAccident(t *testing.T) {
	f := newMailFixture(t)
	// A stranger signs up with the address and waits for its owner to open the link.
	_, err := f.SignUp(t.Context(), tenants.SignUp{Email: "owner@example.com", Password: "the stranger's 1", Origin: here})
	require.NoError(t, err)
	theirs := tokenOf(t, f.smtp.Next(t, 0).Link())
	// The owner signs up too, and opens both links.
	_, err = f.SignUp(t.Context(), tenants.SignUp{Email: "owner@example.com", Password: password, Origin: tenants.Origin{Address: "198.51.100.1"}})
	require.NoError(t, err)
	_, err = f.VerifyEmail(t.Context(), theirs, password, tenants.Origin{Address: "198.51.100.1"})
	requireCode(t, "wrong_credentials", err)
	in, err := f.ResetPassword(t.Context(), tokenOf(t, f.smtp.Next(t, 1).Link()), password, tenants.Origin{Address: "198.51.100.1"})
	require.NoError(t, err)
	require.NotNil(t, in.User.EmailVerifiedAt)
	// The stranger has nothing: neither the password nor the old link.
	_, err = f.SignIn(t.Context(), tenants.Credentials{Email: "owner@example.com", Password: "the stranger's 1", Origin: here})
	requireCode(t, "wrong_credentials", err)
	_, err = f.VerifyEmail(t.Context(), theirs, "the stranger's 1", here)
	requireCode(t, "wrong_credentials", err)
	_, err = f.VerifyEmail(t.Context(), theirs, password, here)
	requireCode(t, "gone", err)
}

func TestAResetByMail(t *testing.T) {
	f := newMailFixture(t)
	f.account(t, "ada@example.com")
	before := f.signIn(t, "ada@example.com")
	require.NoError(t, f.RequestPasswordReset(t.Context(), "nobody@example.com", here))
	require.NoError(t, f.RequestPasswordReset(t.Context(), "Ada@Example.com", here))
	mail := f.smtp.Next(t, 0)
	require.Equal(t, "ada@example.com", mail.To)
	token := tokenOf(t, mail.Link())

	_, err := f.ResetPassword(t.Context(), token, "short", here)
	requireCode(t, "invalid_request", err)
	_, err = f.VerifyEmail(t.Context(), token, password, here)
	requireCode(t, "gone", err)
	in, err := f.ResetPassword(t.Context(), token, newPassword, here)
	require.NoError(t, err)
	_, err = f.Authenticate(t.Context(), in.Token)
	require.NoError(t, err)
	_, err = f.Authenticate(t.Context(), before.Token)
	requireCode(t, "unauthenticated", err)
	_, err = f.SignIn(t.Context(), tenants.Credentials{Email: "ada@example.com", Password: newPassword, Origin: here})
	require.NoError(t, err)
	require.Contains(t, f.smtp.Next(t, 1).Subject, "changed", "the owner hears of it")
	_, err = f.ResetPassword(t.Context(), token, newPassword, here)
	requireCode(t, "gone", err)
	require.Len(t, f.smtp.Messages(), 2, "nobody got nothing")
}

func TestALinkEnds(t *testing.T) {
	f := newMailFixture(t)
	f.account(t, "ada@example.com")
	require.NoError(t, f.RequestPasswordReset(t.Context(), "ada@example.com", here))
	token := tokenOf(t, f.smtp.Next(t, 0).Link())
	f.hands.Advance(time.Hour + time.Minute)
	_, err := f.ResetPassword(t.Context(), token, newPassword, here)
	requireCode(t, "gone", err)
	for _, forged := range []string{"", "x", strings.Repeat("A", 43), token + "A"} {
		_, err = f.ResetPassword(t.Context(), forged, newPassword, here)
		requireCode(t, "gone", err)
		_, err = f.VerifyEmail(t.Context(), forged, newPassword, here)
		requireCode(t, "gone", err)
	}
}

func TestALinkIsUsedOnceByTwoAtOnce(t *testing.T) {
	f := newMailFixture(t)
	f.account(t, "ada@example.com")
	require.NoError(t, f.RequestPasswordReset(t.Context(), "ada@example.com", here))
	token := tokenOf(t, f.smtp.Next(t, 0).Link())
	var wg sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wg.Go(func() { _, errs[i] = f.ResetPassword(t.Context(), token, newPassword, here) })
	}
	wg.Wait()
	used := 0
	for _, err := range errs {
		if err == nil {
			used++
		} else {
			requireCode(t, "gone", err)
		}
	}
	require.Equal(t, 1, used)
}

func TestAMailboxIsNotFlooded(t *testing.T) {
	f := newMailFixture(t)
	f.account(t, "ada@example.com")
	for i := range 10 {
		require.NoError(t, f.RequestPasswordReset(t.Context(), "ada@example.com", tenants.Origin{Address: "192.0.2." + string(rune('0'+i))}))
	}
	require.Equal(t, "4", f.asOwner(t, "SELECT count(*)::text FROM outgoing_mail"))
	f.hands.Advance(6 * time.Minute)
	require.NoError(t, f.RequestPasswordReset(t.Context(), "ada@example.com", here))
	require.Equal(t, "5", f.asOwner(t, "SELECT count(*)::text FROM outgoing_mail"))
	var limited bool
	for range 25 {
		if err := f.RequestPasswordReset(t.Context(), "nobody@example.com", here); err != nil {
			requireCode(t, "rate_limited", err)
			limited = true
			break
		}
	}
	require.True(t, limited, "who asks too often from one address is told so")
}

func TestAnotherVerificationMail(t *testing.T) {
	f := newMailFixture(t)
	_, err := f.SignUp(t.Context(), tenants.SignUp{Email: "ada@example.com", Password: password, Origin: here})
	require.NoError(t, err)
	f.smtp.Next(t, 0)
	require.NoError(t, f.ResendVerification(t.Context(), "ada@example.com", here))
	require.NoError(t, f.ResendVerification(t.Context(), "nobody@example.com", here))
	_, err = f.VerifyEmail(t.Context(), tokenOf(t, f.smtp.Next(t, 1).Link()), password, here)
	require.NoError(t, err)
	require.NoError(t, f.ResendVerification(t.Context(), "ada@example.com", here), "the answer for a verified address")
	require.Equal(t, "2", f.asOwner(t, "SELECT count(*)::text FROM outgoing_mail"), "but no mail")
}

func TestTheOperatorHelpsOut(t *testing.T) {
	f := newFixture(t)
	f.account(t, "ada@example.com")
	requireCode(t, "not_available", f.RequestPasswordReset(t.Context(), "ada@example.com", here))
	requireCode(t, "not_available", f.ResendVerification(t.Context(), "ada@example.com", here))
	_, err := f.OperatorResetLink(t.Context(), "nobody@example.com")
	requireCode(t, "not_found", err)
	link, err := f.OperatorResetLink(t.Context(), " ADA@example.com")
	require.NoError(t, err)
	in, err := f.ResetPassword(t.Context(), tokenOf(t, link), newPassword, here)
	require.NoError(t, err)
	require.Nil(t, in.User.EmailVerifiedAt, "an operator's link proves nothing about the address")
}

func TestTheOperatorOpensAnAccountWhoseMailNeverCame(t *testing.T) {
	f := newMailFixture(t)
	_, err := f.SignUp(t.Context(), tenants.SignUp{Email: "ada@example.com", Password: password, Origin: here})
	require.NoError(t, err)
	link, err := f.OperatorResetLink(t.Context(), "ada@example.com")
	require.NoError(t, err)
	_, err = f.ResetPassword(t.Context(), tokenOf(t, link), newPassword, here)
	require.NoError(t, err)
	_, err = f.SignIn(t.Context(), tenants.Credentials{Email: "ada@example.com", Password: newPassword, Origin: here})
	require.NoError(t, err)
}
