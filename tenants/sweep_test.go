package tenants_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/tenants"
)

func TestWhatEndedLongAgoIsDeleted(t *testing.T) {
	f := newFixture(t)
	f.account(t, "ada@example.com")
	f.signIn(t, "ada@example.com")
	_, err := f.OperatorResetLink(t.Context(), "ada@example.com")
	require.NoError(t, err)
	_, err = f.SignIn(t.Context(), tenants.Credentials{Email: "nobody@example.com", Password: password, Origin: here})
	requireCode(t, "wrong_credentials", err)
	rows := func() string {
		return f.asOwner(t, "SELECT (SELECT count(*) FROM sign_ins) || ' ' || (SELECT count(*) FROM mail_tokens) || ' ' || (SELECT count(*) > 0 FROM throttles)")
	}
	round := func() {
		s, err := tenants.New(f.db, f.deps)
		require.NoError(t, err)
		s.Start(t.Context())
		<-s.Started()
		require.NoError(t, s.Stop(t.Context()))
	}
	round()
	require.Equal(t, "1 1 true", rows())
	f.hands.Advance(3 * 24 * time.Hour)
	round()
	require.Equal(t, "1 1 false", rows())
	f.hands.Advance(30 * 24 * time.Hour)
	f.signIn(t, "ada@example.com")
	round()
	require.Equal(t, "2 0 true", rows(), "a sign-in is kept for a month after its end")
	f.hands.Advance(28 * 24 * time.Hour)
	round()
	require.Equal(t, "1 0 false", rows())
}
