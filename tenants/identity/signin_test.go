package identity_test

import (
	"context"
	"encoding/json"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
	"ambit.dev/ambit/tenants/identity/authenticatortest"
)

func (p *persons) signInWith(t *testing.T, answer json.RawMessage) (tenants.SignedIn, error) {
	t.Helper()
	return p.tenants.SignInWithPasskey(t.Context(), tenants.Origin{Address: "192.0.2.7"}, func(ctx context.Context) (id.User, error) { return p.step.WhoSignsIn(ctx, answer) })
}

func TestAPasskeySignsIn(t *testing.T) {
	p := newPersons(t)
	ada, eve := p.person(t, "ada@example.com"), p.person(t, "eve@example.com")
	key, made := p.enrol(t, ada.User.ID, nil)
	evil, _ := p.enrol(t, eve.User.ID, nil)
	options := func() json.RawMessage {
		o, err := p.step.SignInOptions()
		require.NoError(t, err)
		require.NotContains(t, string(o), "allowCredentials", "no account is named")
		return o
	}
	in, err := p.signInWith(t, key.Get(options()))
	require.NoError(t, err)
	require.Equal(t, ada.User.ID, in.User.ID)
	who, err := p.tenants.Authenticate(t.Context(), in.Token)
	require.NoError(t, err)
	require.Equal(t, ada.User.ID, who.User.ID)
	in, err = p.signInWith(t, evil.Get(options()))
	require.NoError(t, err)
	require.Equal(t, eve.User.ID, in.User.ID, "each as oneself")

	good := key.Get(options())
	_, err = p.signInWith(t, good)
	require.NoError(t, err)
	_, err = p.signInWith(t, good)
	requireCode(t, "challenge_used", err)
	for code, change := range map[string]func(k *authenticatortest.Passkey){
		"wrong_origin":        func(k *authenticatortest.Passkey) { k.Origin = "https://evil.example" },
		"wrong_relying_party": func(k *authenticatortest.Passkey) { k.RPID = "evil.example" },
		"wrong_ceremony":      func(k *authenticatortest.Passkey) { k.Type = "webauthn.create" },
		"user_not_verified":   func(k *authenticatortest.Passkey) { k.Unverified = true },
		"bad_signature":       func(k *authenticatortest.Passkey) { k.Private = evil.Private },
		"passkey_unknown":     func(k *authenticatortest.Passkey) { k.ID = []byte("nobody's") },
	} {
		k := *key
		k.Count += 10
		change(&k)
		_, err = p.signInWith(t, k.Get(options()))
		requireCode(t, code, err)
	}
	old := *key
	old.Count -= 2
	_, err = p.signInWith(t, old.Get(options()))
	requireCode(t, "sign_count_went_back", err)
	_, err = p.signInWith(t, key.Answer("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))
	requireCode(t, "challenge_unknown", err)
	// What was answered for an act signs nobody in, and the other way round.
	ask := identity.Ask{User: ada.User.ID, Purpose: "x", Challenge: digest("act")}
	act := p.answer(t, ask, key)
	_, err = p.signInWith(t, act.Assertion)
	requireCode(t, "challenge_unknown", err)
	_, err = p.step.Finish(t.Context(), identity.Ask{User: ada.User.ID, Purpose: "x"}, identity.Response{Method: identity.MethodPasskey, Assertion: key.Get(options())})
	requireCode(t, "challenge_unknown", err)
	late := options()
	p.hands.Advance(identity.ChallengeLasts + time.Second)
	_, err = p.signInWith(t, key.Get(late))
	requireCode(t, "challenge_expired", err)
	_, err = p.signInWith(t, json.RawMessage(`{}`))
	requireCode(t, "malformed_answer", err)
	require.Equal(t, "0", p.asOwner(t, "SELECT count(*)::text FROM sign_ins WHERE user_id = '"+string(ada.User.ID)+"' AND created_at > now() + interval '4 minutes'"), "no refused answer signed in")

	require.NoError(t, p.step.Revoke(t.Context(), ada.User.ID, made.Passkey.ID, p.answer(t, p.step.AskRevoke(ada.User.ID, made.Passkey.ID), key)))
	_, err = p.signInWith(t, key.Get(options()))
	requireCode(t, "passkey_unknown", err)
	_, err = p.tenants.SignIn(t.Context(), tenants.Credentials{Email: ada.User.Email, Password: password})
	require.NoError(t, err, "the password signs in as ever")
}

func TestOneAnswerSignsInOnce(t *testing.T) {
	p := newPersons(t)
	a := p.person(t, "ada@example.com")
	key, _ := p.enrol(t, a.User.ID, nil)
	key.Countless = true
	key.Count = 0
	options, err := p.step.SignInOptions()
	require.NoError(t, err)
	answer := key.Get(options)
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = p.step.WhoSignsIn(context.WithoutCancel(t.Context()), answer) })
	}
	wg.Wait()
	good := 0
	for _, err := range errs {
		if err == nil {
			good++
			continue
		}
		requireCode(t, "challenge_used", err)
	}
	require.Equal(t, 1, good)
}

func TestAPasskeyOfAnAddressThatIsNotVerifiedSignsNobodyIn(t *testing.T) {
	p := newPersons(t)
	a := p.person(t, "ada@example.com")
	key, _ := p.enrol(t, a.User.ID, nil)
	p.exec(t, "UPDATE users SET must_verify = true, email_verified_at = NULL WHERE id = '"+string(a.User.ID)+"'")
	options, err := p.step.SignInOptions()
	require.NoError(t, err)
	_, err = p.signInWith(t, key.Get(options))
	requireCode(t, "wrong_credentials", err)
}

func TestGuessedPasskeysAreThrottledByAddress(t *testing.T) {
	p := newPersons(t)
	stranger := authenticatortest.New(console, rpID)
	var err error
	for range 60 {
		options, oerr := p.step.SignInOptions()
		require.NoError(t, oerr)
		if _, err = p.signInWith(t, stranger.Get(options)); err != nil && err.Error()[:12] == "rate_limited" {
			break
		}
	}
	requireCode(t, "rate_limited", err)
}
