package tenants_test

import (
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
)

func (f *fixture) signIn(t *testing.T, email string) tenants.SignedIn {
	t.Helper()
	in, err := f.SignIn(t.Context(), tenants.Credentials{Email: email, Password: password, Origin: here})
	require.NoError(t, err)
	return in
}

func TestSignInAndOut(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	in, err := f.SignIn(t.Context(), tenants.Credentials{Email: "Ada@Example.com ", Password: password, Origin: tenants.Origin{Address: "192.0.2.7", UserAgent: "Mozilla\r\n\x00é/5.0"}})
	require.NoError(t, err)
	require.Len(t, in.Token, 43)
	require.Equal(t, "Mozilla/5.0", in.SignIn.UserAgent)
	require.NotContains(t, f.asOwner(t, "SELECT string_agg(s::text, '') FROM sign_ins s"), in.Token, "the token is stored nowhere")

	who, err := f.Authenticate(t.Context(), in.Token)
	require.NoError(t, err)
	require.Equal(t, a.User.ID, who.User.ID)
	require.Equal(t, in.SignIn, who.SignIn)

	require.NoError(t, f.SignOut(t.Context(), in.Token))
	_, err = f.Authenticate(t.Context(), in.Token)
	requireCode(t, "unauthenticated", err)
	require.NoError(t, f.SignOut(t.Context(), in.Token), "again")
	require.NoError(t, f.SignOut(t.Context(), "nonsense"))
}

func TestATokenThatIsNone(t *testing.T) {
	f := newFixture(t)
	f.account(t, "ada@example.com")
	good := f.signIn(t, "ada@example.com").Token
	for _, token := range []string{"", "x", good[:42], good + "A", "A" + good[1:42] + "!", string(make([]byte, 43)), "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"} {
		_, err := f.Authenticate(t.Context(), token)
		requireCode(t, "unauthenticated", err)
	}
}

func TestASignInEndsByItself(t *testing.T) {
	f := newFixture(t)
	f.account(t, "ada@example.com")
	idle := f.signIn(t, "ada@example.com").Token
	used := f.signIn(t, "ada@example.com").Token
	for range 4 { // used each six days, until its thirty days are over
		f.hands.Advance(6 * 24 * time.Hour)
		_, err := f.Authenticate(t.Context(), used)
		require.NoError(t, err)
	}
	_, err := f.Authenticate(t.Context(), idle)
	requireCode(t, "unauthenticated", err)
	f.hands.Advance(6*24*time.Hour + time.Hour)
	_, err = f.Authenticate(t.Context(), used)
	requireCode(t, "unauthenticated", err)
}

func TestSignInsAreListedAndRevoked(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	eve := f.account(t, "eve@example.com")
	first := f.signIn(t, "ada@example.com")
	f.hands.Advance(time.Minute)
	second := f.signIn(t, "ada@example.com")
	f.hands.Advance(2 * time.Minute)
	_, err := f.Authenticate(t.Context(), first.Token)
	require.NoError(t, err)

	list, err := f.ListSignIns(t.Context(), a.User.ID)
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.Equal(t, first.SignIn.ID, list[0].ID, "the one used last comes first")
	require.True(t, list[0].LastSeenAt.After(list[1].LastSeenAt))

	requireCode(t, "not_found", f.RevokeSignIn(t.Context(), eve.User.ID, second.SignIn.ID))
	requireCode(t, "not_found", f.RevokeSignIn(t.Context(), a.User.ID, id.New[id.SignIn]()))
	require.NoError(t, f.RevokeSignIn(t.Context(), a.User.ID, second.SignIn.ID))
	require.NoError(t, f.RevokeSignIn(t.Context(), a.User.ID, second.SignIn.ID), "again")
	_, err = f.Authenticate(t.Context(), second.Token)
	requireCode(t, "unauthenticated", err)

	third := f.signIn(t, "ada@example.com")
	n, err := f.RevokeOtherSignIns(t.Context(), a.User.ID, third.SignIn.ID)
	require.NoError(t, err)
	require.EqualValues(t, 1, n)
	_, err = f.Authenticate(t.Context(), first.Token)
	requireCode(t, "unauthenticated", err)
	_, err = f.Authenticate(t.Context(), third.Token)
	require.NoError(t, err)
}

func TestAWrongPasswordAndAnUnknownAddressAnswerAlikeInWordsAndTime(t *testing.T) {
	f := newFixture(t)
	f.account(t, "ada@example.com")
	try := func(email string, n byte) (*fault.Error, time.Duration) {
		began := time.Now()
		_, err := f.SignIn(t.Context(), tenants.Credentials{Email: email, Password: "wrong" + password, Origin: tenants.Origin{Address: "192.0.2." + string('0'+n)}})
		return requireCode(t, "wrong_credentials", err), time.Since(began)
	}
	fastest := map[string]time.Duration{}
	for i := range byte(6) {
		for _, email := range []string{"ada@example.com", "nobody@example.com"} {
			got, took := try(email, i)
			require.Equal(t, "The address or the password is wrong.", got.Message)
			if was, ok := fastest[email]; !ok || took < was {
				fastest[email] = took
			}
		}
	}
	// The hash is most of the time; without the dummy, nobody's answer would come in a tenth of it.
	require.Greater(t, 3*fastest["nobody@example.com"], fastest["ada@example.com"])
}

func TestGuessingIsSlowedDownAndNeverLockedOutForEver(t *testing.T) {
	f := newFixture(t)
	f.account(t, "ada@example.com")
	guess := func(pw, address string) error {
		_, err := f.SignIn(t.Context(), tenants.Credentials{Email: "ada@example.com", Password: pw, Origin: tenants.Origin{Address: address}})
		return err
	}
	for range 5 {
		requireCode(t, "wrong_credentials", guess("wrong"+password, "192.0.2.7"))
	}
	limited := requireCode(t, "rate_limited", guess(password, "192.0.2.7"))
	require.Equal(t, fault.TooMany, limited.Kind)
	require.Equal(t, 2*time.Second, limited.RetryAfter)
	require.NoError(t, guess(password, "192.0.2.99"), "elsewhere the owner still gets in")

	// The wait doubles, up to a bound, and survives a restart.
	var longest time.Duration
	var err error
	for range 14 {
		f.hands.Advance(limited.RetryAfter + time.Second)
		requireCode(t, "wrong_credentials", guess("wrong"+password, "192.0.2.7"))
		f.Service, err = tenants.New(f.db, f.deps)
		require.NoError(t, err)
		limited = requireCode(t, "rate_limited", guess("wrong"+password, "192.0.2.7"))
		longest = max(longest, limited.RetryAfter)
	}
	require.Equal(t, 15*time.Minute, longest)
	f.hands.Advance(limited.RetryAfter + time.Second)
	require.NoError(t, guess(password, "192.0.2.7"), "the right password after the wait")
	requireCode(t, "wrong_credentials", guess("wrong"+password, "192.0.2.7"))
	require.NoError(t, guess(password, "192.0.2.7"), "a success clears the count")
}

func TestManyAccountsFromOneNetworkAreThrottledTogether(t *testing.T) {
	f := newFixture(t)
	var limited bool
	for i := range 50 {
		// An IPv6 customer moves freely within a /64.
		_, err := f.SignIn(t.Context(), tenants.Credentials{Email: string(rune('a'+i%26)) + string(rune('a'+i/26)) + "@example.com", Password: password, Origin: tenants.Origin{Address: "2001:db8::" + string("0123456789abcdef"[i%16])}})
		if limited = fault.IsCode(err, "rate_limited"); limited {
			require.GreaterOrEqual(t, i, 40)
			break
		}
	}
	require.True(t, limited)
}

func TestGuessesMadeAtOnceAllCount(t *testing.T) {
	f := newFixture(t)
	f.account(t, "ada@example.com")
	var wg sync.WaitGroup
	errs := make([]error, 20)
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = f.SignIn(t.Context(), tenants.Credentials{Email: "ada@example.com", Password: "wrong" + password, Origin: here})
		})
	}
	wg.Wait()
	checked := 0
	for _, err := range errs {
		if fault.IsCode(err, "wrong_credentials") {
			checked++
		} else {
			requireCode(t, "rate_limited", err)
		}
	}
	require.Equal(t, 5, checked, "no more passwords were tried than the guard lets through")
}

func TestChangePassword(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	mine, other := f.signIn(t, "ada@example.com"), f.signIn(t, "ada@example.com")
	link, err := f.OperatorResetLink(t.Context(), "ada@example.com")
	require.NoError(t, err)
	const next = "staple paperclip 9"

	requireCode(t, "wrong_credentials", f.ChangePassword(t.Context(), a.User.ID, mine.SignIn.ID, "wrong"+password, next))
	requireCode(t, "invalid_request", f.ChangePassword(t.Context(), a.User.ID, mine.SignIn.ID, password, "short"))
	require.NoError(t, f.ChangePassword(t.Context(), a.User.ID, mine.SignIn.ID, password, next))

	_, err = f.Authenticate(t.Context(), mine.Token)
	require.NoError(t, err, "this sign-in goes on")
	_, err = f.Authenticate(t.Context(), other.Token)
	requireCode(t, "unauthenticated", err)
	_, err = f.SignIn(t.Context(), tenants.Credentials{Email: "ada@example.com", Password: password, Origin: here})
	requireCode(t, "wrong_credentials", err)
	_, err = f.ResetPassword(t.Context(), tokenOf(t, link), "a third password 3", here)
	requireCode(t, "gone", err)

	for range 5 {
		_ = f.ChangePassword(t.Context(), a.User.ID, mine.SignIn.ID, "wrong"+password, next)
	}
	requireCode(t, "rate_limited", f.ChangePassword(t.Context(), a.User.ID, mine.SignIn.ID, next, next))
}

func TestRename(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	require.NoError(t, f.Rename(t.Context(), a.User.ID, " Ada "))
	requireCode(t, "invalid_request", f.Rename(t.Context(), a.User.ID, "a\x00b"))
	who, err := f.Authenticate(t.Context(), f.signIn(t, "ada@example.com").Token)
	require.NoError(t, err)
	require.Equal(t, "Ada", who.User.Name)
}

func TestAnOldHashIsRenewedAtSignIn(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	// "correct horse battery" under weaker parameters.
	weak := weakHash(t, password)
	require.NoError(t, f.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "SELECT set_config('app.user_id', $1, true)", string(a.User.ID))
		require.NoError(t, err)
		_, err = tx.Exec(t.Context(), "UPDATE passwords SET hash = $1", weak)
		return err
	}))
	f.signIn(t, "ada@example.com")
	require.NotEqual(t, weak, f.asOwner(t, "SELECT hash FROM passwords"))
	f.signIn(t, "ada@example.com")
}
