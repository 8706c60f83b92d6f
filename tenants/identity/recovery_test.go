package identity_test

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
)

func (p *persons) withCode(t *testing.T, ask identity.Ask, code string) identity.Response {
	t.Helper()
	req, err := p.step.Begin(t.Context(), ask)
	require.NoError(t, err)
	return identity.Response{Method: identity.MethodRecovery, Challenge: req.Challenge, Code: code}
}

// TestWhoLostThePasskeyGetsInWithACode: the last owner of an organisation, whose only device is gone, comes back without anybody's help.
func TestWhoLostThePasskeyGetsInWithACode(t *testing.T) {
	p := newPersons(t)
	a := p.person(t, "ada@example.com")
	lost, made := p.enrol(t, a.User.ID, nil)
	codes := made.Codes
	require.Equal(t, "0", p.asOwner(t, "SELECT count(*)::text FROM recovery_codes WHERE encode(digest, 'escape') LIKE '%"+codes[0]+"%'"))

	// Her password still signs in, but confirms nothing, and a code is not for acts.
	err := p.tenants.ConfirmPassword(t.Context(), a.User.ID, password)
	require.NoError(t, err)
	act := identity.Ask{User: a.User.ID, Org: a.Organization.ID, Purpose: "mandate.sign", Challenge: digest("m")}
	_, err = p.step.Finish(t.Context(), act, p.withCode(t, act, codes[0]))
	requireCode(t, "recovery_code_refused", err)

	// A code, typed as people type, makes another passkey; then the lost one is revoked.
	options, err := p.step.BeginEnrolment(t.Context(), identity.PersonName{ID: a.User.ID, Email: "ada@example.com"},
		p.withCode(t, p.step.AskEnrol(a.User.ID), " "+strings.ToUpper(strings.ReplaceAll(codes[0], "-", " "))))
	require.NoError(t, err)
	fresh := *lost
	fresh.ID = append([]byte("new"), lost.ID...)
	out, err := p.step.Enrol(t.Context(), a.User.ID, "New phone", fresh.Create(options))
	require.NoError(t, err)
	require.Nil(t, out.Codes, "nine are left")
	_, err = p.step.Finish(t.Context(), act, p.answer(t, act, &fresh))
	require.NoError(t, err)
	require.NoError(t, p.step.Revoke(t.Context(), a.User.ID, made.Passkey.ID, p.withCode(t, p.step.AskRevoke(a.User.ID, made.Passkey.ID), codes[1])))

	// A code counts once, and is one's own.
	err = p.step.Revoke(t.Context(), a.User.ID, out.Passkey.ID, p.withCode(t, p.step.AskRevoke(a.User.ID, out.Passkey.ID), codes[1]))
	requireCode(t, "wrong_recovery_code", err)
	eve := p.person(t, "eve@example.com")
	_, _ = p.enrol(t, eve.User.ID, nil)
	_, err = p.step.ReplaceCodes(t.Context(), eve.User.ID, p.withCode(t, p.step.AskCodes(eve.User.ID), codes[2]))
	requireCode(t, "wrong_recovery_code", err)
	left, err := p.step.Codes(t.Context(), a.User.ID)
	require.NoError(t, err)
	require.Equal(t, 8, left.Unused)
	require.Equal(t, 10, left.Total)
}

func TestNewCodesVoidTheOldOnes(t *testing.T) {
	p := newPersons(t)
	a := p.person(t, "ada@example.com")
	key, made := p.enrol(t, a.User.ID, nil)
	newer, err := p.step.ReplaceCodes(t.Context(), a.User.ID, p.answer(t, p.step.AskCodes(a.User.ID), key))
	require.NoError(t, err)
	require.Len(t, newer, 10)
	for _, old := range made.Codes {
		require.NotContains(t, newer, old)
	}
	_, err = p.step.ReplaceCodes(t.Context(), a.User.ID, p.withCode(t, p.step.AskCodes(a.User.ID), made.Codes[0]))
	requireCode(t, "wrong_recovery_code", err)
}

// TestNobodyEndsWithoutAWayBack: whatever a person with passkeys does, in whatever order, a code is left or the password confirms again.
func TestNobodyEndsWithoutAWayBack(t *testing.T) {
	p := newPersons(t)
	a := p.person(t, "ada@example.com")
	_, made := p.enrol(t, a.User.ID, nil)
	codes := made.Codes
	for _, code := range codes[:9] {
		_, err := p.step.BeginEnrolment(t.Context(), identity.PersonName{ID: a.User.ID, Email: "x"}, p.withCode(t, p.step.AskEnrol(a.User.ID), code))
		require.NoError(t, err)
	}
	_, err := p.step.BeginEnrolment(t.Context(), identity.PersonName{ID: a.User.ID, Email: "x"}, p.withCode(t, p.step.AskEnrol(a.User.ID), codes[9]))
	requireCode(t, "last_recovery_code", err)
	left, err := p.step.Codes(t.Context(), a.User.ID)
	require.NoError(t, err)
	require.Equal(t, 1, left.Unused, "the refused one was not used up")
	fresh, err := p.step.ReplaceCodes(t.Context(), a.User.ID, p.withCode(t, p.step.AskCodes(a.User.ID), codes[9]))
	require.NoError(t, err)
	require.Len(t, fresh, 10)

	// Revoking the last passkey gives the confirmation back to the password.
	require.NoError(t, p.step.Revoke(t.Context(), a.User.ID, made.Passkey.ID, p.withCode(t, p.step.AskRevoke(a.User.ID, made.Passkey.ID), fresh[0])))
	ask := identity.Ask{User: a.User.ID, Org: a.Organization.ID, Purpose: "x", Challenge: digest("after")}
	_, err = p.step.Finish(t.Context(), ask, p.answer(t, ask, nil))
	require.NoError(t, err)
	// And signing in never depended on it.
	_, err = p.tenants.SignIn(t.Context(), tenants.Credentials{Email: a.User.Email, Password: password})
	require.NoError(t, err)
}

func TestTheOperatorHelpsWhoLostBoth(t *testing.T) {
	p := newPersons(t)
	a, eve := p.person(t, "ada@example.com"), p.person(t, "eve@example.com")
	_, made := p.enrol(t, a.User.ID, nil)
	_, _ = p.enrol(t, eve.User.ID, nil)
	user, err := p.tenants.OperatorFindUser(t.Context(), "ADA@example.com")
	require.NoError(t, err)
	n, err := p.step.OperatorForget(t.Context(), user)
	require.NoError(t, err)
	require.Equal(t, 1, n)
	ask := identity.Ask{User: user, Purpose: "x", Challenge: digest("after")}
	_, err = p.step.Finish(t.Context(), ask, p.answer(t, ask, nil))
	require.NoError(t, err, "the password confirms again")
	_, err = p.step.ReplaceCodes(t.Context(), user, p.withCode(t, p.step.AskCodes(user), made.Codes[0]))
	requireCode(t, "wrong_recovery_code", err)
	others, err := p.step.Passkeys(t.Context(), eve.User.ID, "")
	require.NoError(t, err)
	require.Len(t, others, 1, "nobody else's")
	_, err = p.tenants.OperatorFindUser(t.Context(), "nobody@example.com")
	requireCode(t, "not_found", err)
}

func TestGuessesOfCodesAreBounded(t *testing.T) {
	p := newPersons(t)
	a := p.person(t, "ada@example.com")
	_, _ = p.enrol(t, a.User.ID, nil)
	var err error
	for range 20 {
		if _, err = p.step.ReplaceCodes(t.Context(), a.User.ID, p.withCode(t, p.step.AskCodes(a.User.ID), "0000-0000-0000-0000")); fault.IsCode(err, "rate_limited") {
			break
		}
	}
	requireCode(t, "rate_limited", err)
	require.NoError(t, p.step.Rename(t.Context(), a.User.ID, onlyPasskey(t, p, a.User.ID), "Laptop"), "what needs no confirmation goes on")
}

func onlyPasskey(t *testing.T, p *persons, user id.User) id.Passkey {
	t.Helper()
	list, err := p.step.Passkeys(t.Context(), user, "")
	require.NoError(t, err)
	require.Len(t, list, 1)
	return list[0].ID
}
