package identity_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/tenants"
	"ambit.dev/ambit/tenants/identity"
	"ambit.dev/ambit/tenants/identity/authenticatortest"
)

const (
	console  = "https://console.ambit.example"
	rpID     = "console.ambit.example"
	password = "correct horse battery"
)

// persons is a console with people, their passwords and passkeys.
type persons struct {
	*fixture
	keys    *identity.Keyring
	step    *identity.StepUp
	tenants *tenants.Service
}

func newPersons(t *testing.T) *persons {
	t.Helper()
	f := newFixture(t)
	sealer, err := seal.Open(f.master, "")
	require.NoError(t, err)
	p := &persons{fixture: f, keys: f.started(t)}
	log := slog.New(slog.DiscardHandler)
	p.tenants, err = tenants.New(f.db, tenants.Deps{Clock: f.hands, Logger: log, Sealer: sealer, PublicURL: console, AnswerAfter: time.Millisecond})
	require.NoError(t, err)
	p.step, err = identity.NewStepUp(f.db, identity.StepUpDeps{
		Deps: identity.Deps{Clock: f.hands, Logger: log, Sealer: sealer}, Keys: p.keys, People: p.tenants, PublicURL: console,
	})
	require.NoError(t, err)
	return p
}

func (p *persons) person(t *testing.T, email string) tenants.Account {
	t.Helper()
	a, err := p.tenants.CreateAccount(t.Context(), tenants.SignUp{Email: email, Password: password})
	require.NoError(t, err)
	return a
}

// answer confirms what is asked: with the passkey, or with the password where there is none.
func (p *persons) answer(t *testing.T, ask identity.Ask, key *authenticatortest.Passkey) identity.Response {
	t.Helper()
	req, err := p.step.Begin(t.Context(), ask)
	require.NoError(t, err)
	if key == nil {
		require.Equal(t, identity.MethodPassword, req.Method)
		return identity.Response{Method: identity.MethodPassword, Challenge: req.Challenge, Password: password}
	}
	require.Equal(t, identity.MethodPasskey, req.Method)
	return identity.Response{Method: identity.MethodPasskey, Assertion: key.Get(req.Options)}
}

func (p *persons) enrol(t *testing.T, user id.User, with *authenticatortest.Passkey) (*authenticatortest.Passkey, identity.Enrolled) {
	t.Helper()
	options, err := p.step.BeginEnrolment(t.Context(), identity.PersonName{ID: user, Email: "x@example.com", Label: "X"}, p.answer(t, p.step.AskEnrol(user), with))
	require.NoError(t, err)
	key := authenticatortest.New(console, rpID)
	out, err := p.step.Enrol(t.Context(), user, " My laptop ", key.Create(options))
	require.NoError(t, err)
	return key, out
}

func requireCode(t *testing.T, code string, err error) {
	t.Helper()
	var f *fault.Error
	require.ErrorAs(t, err, &f, "want %s", code)
	require.Equal(t, code, f.Code, f.Error())
}

func digest(text string) [32]byte { return sha256.Sum256([]byte(text)) }

func TestAPersonConfirmsWithAPasskeyAndTheProofVerifiesOffline(t *testing.T) {
	p := newPersons(t)
	a := p.person(t, "ada@example.com")
	key, made := p.enrol(t, a.User.ID, nil)
	require.Equal(t, "My laptop", made.Passkey.Name)
	require.Len(t, made.Codes, 10, "recovery codes come with the first passkey")
	_, second := p.enrol(t, a.User.ID, key)
	require.Nil(t, second.Codes)

	ask := identity.Ask{User: a.User.ID, Org: a.Organization.ID, Purpose: "mandate.sign:man_1", Challenge: digest("up to $50")}
	proof, err := p.step.Finish(t.Context(), ask, p.answer(t, ask, key))
	require.NoError(t, err)
	require.Equal(t, identity.MethodPasskey, proof.Method)
	list, err := p.step.Passkeys(t.Context(), a.User.ID, "")
	require.NoError(t, err)
	require.Len(t, list, 2)
	require.NotNil(t, list[0].LastUsedAt)

	// Through JSON, as it is kept, with nothing but the public keys.
	text, err := json.Marshal(proof)
	require.NoError(t, err)
	var kept identity.Proof
	require.NoError(t, json.Unmarshal(text, &kept))
	keys := p.keys.Keys()
	require.NoError(t, identity.VerifyProof(kept, ask.Challenge, console, rpID, keys))

	require.ErrorIs(t, identity.VerifyProof(kept, digest("up to $5000"), console, rpID, keys), identity.ErrProofChallenge)
	require.ErrorIs(t, identity.VerifyProof(kept, ask.Challenge, "https://evil.example", rpID, keys), identity.ErrProofPasskey)
	require.ErrorIs(t, identity.VerifyProof(kept, ask.Challenge, console, "evil.example", keys), identity.ErrProofPasskey)
	require.ErrorIs(t, identity.VerifyProof(kept, ask.Challenge, console, rpID, jose.JSONWebKeySet{}), identity.ErrProofStatement)
	for name, change := range map[string]func(*identity.Proof){
		"method":  func(p *identity.Proof) { p.Method = identity.MethodPassword },
		"user":    func(p *identity.Proof) { p.User = "usr_other" },
		"purpose": func(p *identity.Proof) { p.Purpose = "mandate.sign:man_2" },
		"at":      func(p *identity.Proof) { p.At = p.At.Add(time.Second) },
		"key":     func(p *identity.Proof) { p.PublicKey = p.PublicKey[:len(p.PublicKey)-4] + "AAAA" },
	} {
		changed := kept
		change(&changed)
		require.ErrorIs(t, identity.VerifyProof(changed, ask.Challenge, console, rpID, keys), identity.ErrProofChanged, name)
	}
	changed := kept
	changed.Signature = "AAAA"
	require.ErrorIs(t, identity.VerifyProof(changed, ask.Challenge, console, rpID, keys), identity.ErrProofPasskey)
	changed = kept
	changed.Statement, err = p.keys.SignAs(t.Context(), "receipt+jwt", map[string]string{"sub": kept.User})
	require.NoError(t, err)
	require.ErrorIs(t, identity.VerifyProof(changed, ask.Challenge, console, rpID, keys), identity.ErrProofStatement, "another sort of statement by the same key")
}

func TestWhoHasNoPasskeyConfirmsWithThePassword(t *testing.T) {
	p := newPersons(t)
	a := p.person(t, "ada@example.com")
	ask := identity.Ask{User: a.User.ID, Purpose: "x", Challenge: digest("y")}
	in := p.answer(t, ask, nil)
	wrong := in
	wrong.Password = "wrong horse battery"
	_, err := p.step.Finish(t.Context(), ask, wrong)
	requireCode(t, "wrong_credentials", err)
	proof, err := p.step.Finish(t.Context(), ask, in)
	require.NoError(t, err, "a wrong one leaves the question open")
	require.NoError(t, identity.VerifyProof(proof, ask.Challenge, console, rpID, p.keys.Keys()))
	require.ErrorIs(t, identity.VerifyProof(proof, digest("z"), console, rpID, p.keys.Keys()), identity.ErrProofChallenge)
	_, err = p.step.Finish(t.Context(), ask, in)
	requireCode(t, "challenge_used", err)
	_, err = p.step.Begin(t.Context(), ask)
	requireCode(t, "challenge_used", err)

	// From the first passkey on the password confirms nothing, not even what was asked before.
	ask.Challenge = digest("another")
	in = p.answer(t, ask, nil)
	_, _ = p.enrol(t, a.User.ID, nil)
	_, err = p.step.Finish(t.Context(), ask, in)
	requireCode(t, "passkey_required", err)
	in.Password = "wrong horse battery"
	_, err = p.step.Finish(t.Context(), ask, in)
	requireCode(t, "passkey_required", err) // whether the password is right is not told

	// Guesses are bounded.
	b := p.person(t, "bob@example.com")
	ask = identity.Ask{User: b.User.ID, Purpose: "x", Challenge: digest("y")}
	in = p.answer(t, ask, nil)
	in.Password = "wrong horse battery"
	for range 20 {
		if _, err = p.step.Finish(t.Context(), ask, in); fault.IsCode(err, "rate_limited") {
			break
		}
	}
	requireCode(t, "rate_limited", err)
}

// meanwhile are people of whom one does something while the password is looked at.
type meanwhile struct {
	identity.People
	do func()
}

func (m meanwhile) ConfirmPassword(ctx context.Context, user id.User, password string) error {
	m.do()
	return m.People.ConfirmPassword(ctx, user, password)
}

func TestAPasskeyEnrolledMeanwhileEndsThePassword(t *testing.T) {
	p := newPersons(t)
	a := p.person(t, "ada@example.com")
	sealer, err := seal.Open(p.master, "")
	require.NoError(t, err)
	slow, err := identity.NewStepUp(p.db, identity.StepUpDeps{
		Deps: identity.Deps{Clock: p.hands, Logger: slog.New(slog.DiscardHandler), Sealer: sealer}, Keys: p.keys, PublicURL: console,
		People: meanwhile{People: p.tenants, do: func() { _, _ = p.enrol(t, a.User.ID, nil) }},
	})
	require.NoError(t, err)
	ask := identity.Ask{User: a.User.ID, Purpose: "x", Challenge: digest("y")}
	_, err = slow.Finish(t.Context(), ask, p.answer(t, ask, nil))
	requireCode(t, "passkey_required", err)
}

// TestEachForgedAnswerIsRefusedByName: whatever is wrong with it, and it leaves the true answer good.
func TestEachForgedAnswerIsRefusedByName(t *testing.T) {
	p := newPersons(t)
	ada, eve := p.person(t, "ada@example.com"), p.person(t, "eve@example.com")
	key, made := p.enrol(t, ada.User.ID, nil)
	evil, _ := p.enrol(t, eve.User.ID, nil)
	ask := identity.Ask{User: ada.User.ID, Org: ada.Organization.ID, Purpose: "x", Challenge: digest("y")}
	req, err := p.step.Begin(t.Context(), ask)
	require.NoError(t, err)
	finish := func(ask identity.Ask, answer json.RawMessage) error {
		_, err := p.step.Finish(t.Context(), ask, identity.Response{Method: identity.MethodPasskey, Assertion: answer})
		return err
	}
	lying := func(change func(k *authenticatortest.Passkey)) json.RawMessage {
		k := *key
		k.Count += 10
		change(&k)
		return k.Get(req.Options)
	}
	forged := map[string]json.RawMessage{
		"wrong_origin":        lying(func(k *authenticatortest.Passkey) { k.Origin = "https://console.ambit.example.evil.example" }),
		"wrong_relying_party": lying(func(k *authenticatortest.Passkey) { k.RPID = "evil.example" }),
		"wrong_ceremony":      lying(func(k *authenticatortest.Passkey) { k.Type = "webauthn.create" }),
		"user_not_verified":   lying(func(k *authenticatortest.Passkey) { k.Unverified = true }),
		"bad_signature":       lying(func(k *authenticatortest.Passkey) { k.Private = evil.Private }),
		"passkey_unknown":     evil.Get(req.Options),
		"malformed_answer":    json.RawMessage(`{"id":"x"}`),
	}
	for code, answer := range forged {
		requireCode(t, code, finish(ask, answer))
	}
	old := *key
	requireCode(t, "challenge_unknown", finish(ask, key.Answer("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")))
	unknown := identity.Ask{User: ada.User.ID, Org: ada.Organization.ID, Purpose: "x"}
	requireCode(t, "challenge_unknown", finish(unknown, key.Answer("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")))
	otherPurpose, otherOrg, otherPerson := ask, ask, ask
	otherPurpose.Purpose, otherOrg.Org, otherPerson.User = "z", eve.Organization.ID, eve.User.ID
	for _, wrong := range []identity.Ask{otherPurpose, otherOrg, otherPerson} {
		requireCode(t, "challenge_unknown", finish(wrong, key.Get(req.Options)))
	}

	good := key.Get(req.Options)
	require.NoError(t, finish(ask, good))
	requireCode(t, "challenge_used", finish(ask, good))

	// The count goes back, or stands still: a copy of the passkey.
	ask.Challenge = digest("w")
	req, err = p.step.Begin(t.Context(), ask)
	require.NoError(t, err)
	requireCode(t, "sign_count_went_back", finish(ask, old.Get(req.Options)))
	still := *key
	still.Count--
	requireCode(t, "sign_count_went_back", finish(ask, still.Get(req.Options)))
	late := key.Get(req.Options)
	p.hands.Advance(identity.ChallengeLasts + time.Second)
	requireCode(t, "challenge_expired", finish(ask, late))
	again, err := p.step.Begin(t.Context(), ask)
	require.NoError(t, err, "what was not confirmed can be asked again")
	require.NoError(t, finish(ask, key.Get(again.Options)))

	// A revoked one.
	third, _ := p.enrol(t, ada.User.ID, key)
	require.NoError(t, p.step.Revoke(t.Context(), ada.User.ID, made.Passkey.ID, p.answer(t, p.step.AskRevoke(ada.User.ID, made.Passkey.ID), third)))
	ask.Challenge = digest("v")
	req, err = p.step.Begin(t.Context(), ask)
	require.NoError(t, err)
	requireCode(t, "passkey_unknown", finish(ask, key.Get(req.Options)))
	require.NoError(t, finish(ask, third.Get(req.Options)))
}

func TestOneAnswerSentTwiceAtOnceCountsOnce(t *testing.T) {
	p := newPersons(t)
	a := p.person(t, "ada@example.com")
	key, _ := p.enrol(t, a.User.ID, nil)
	key.Countless = true
	ask := identity.Ask{User: a.User.ID, Purpose: "x", Challenge: digest("y")}
	in := p.answer(t, ask, key)
	errs := make([]error, 4)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() { _, errs[i] = p.step.Finish(context.WithoutCancel(t.Context()), ask, in) })
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
	require.Equal(t, 1, good, "an answer counts once")
}

func TestAnEnrolmentIsOnesOwnAndOnce(t *testing.T) {
	p := newPersons(t)
	ada, eve := p.person(t, "ada@example.com"), p.person(t, "eve@example.com")
	begin := func() json.RawMessage {
		options, err := p.step.BeginEnrolment(t.Context(), identity.PersonName{ID: ada.User.ID, Email: "ada@example.com"}, p.answer(t, p.step.AskEnrol(ada.User.ID), nil))
		require.NoError(t, err)
		return options
	}
	enrol := func(user id.User, answer json.RawMessage) error {
		_, err := p.step.Enrol(t.Context(), user, "x", answer)
		return err
	}
	options := begin()
	key := authenticatortest.New(console, rpID)
	requireCode(t, "challenge_unknown", enrol(eve.User.ID, key.Create(options)))
	for code, change := range map[string]func(k *authenticatortest.Passkey){
		"wrong_origin":        func(k *authenticatortest.Passkey) { k.Origin = "https://evil.example" },
		"wrong_relying_party": func(k *authenticatortest.Passkey) { k.RPID = "evil.example" },
		"wrong_ceremony":      func(k *authenticatortest.Passkey) { k.Type = "webauthn.get" },
		"user_not_verified":   func(k *authenticatortest.Passkey) { k.Unverified = true },
	} {
		k := *key
		change(&k)
		requireCode(t, code, enrol(ada.User.ID, k.Create(options)))
	}
	requireCode(t, "malformed_answer", enrol(ada.User.ID, json.RawMessage(`{}`)))
	requireCode(t, "malformed_answer", enrol(ada.User.ID, nil))
	_, err := p.step.Enrol(t.Context(), ada.User.ID, " \x00 ", key.Create(options))
	requireCode(t, "invalid_request", err)
	late := begin()
	p.hands.Advance(identity.ChallengeLasts + time.Second)
	requireCode(t, "challenge_expired", enrol(ada.User.ID, key.Create(late)))

	options = begin()
	require.NoError(t, enrol(ada.User.ID, key.Create(options)))
	requireCode(t, "challenge_used", enrol(ada.User.ID, key.Create(options)))
	options, err = p.step.BeginEnrolment(t.Context(), identity.PersonName{ID: eve.User.ID}, p.answer(t, p.step.AskEnrol(eve.User.ID), nil))
	require.NoError(t, err)
	requireCode(t, "passkey_exists", enrol(eve.User.ID, key.Create(options)))

	list, err := p.step.Passkeys(t.Context(), ada.User.ID, "")
	require.NoError(t, err)
	require.Len(t, list, 1)
	require.NoError(t, p.step.Rename(t.Context(), ada.User.ID, list[0].ID, "Phone"))
	requireCode(t, "not_found", p.step.Rename(t.Context(), eve.User.ID, list[0].ID, "Mine"))
	requireCode(t, "not_found", p.step.Revoke(t.Context(), eve.User.ID, list[0].ID, p.answer(t, p.step.AskRevoke(eve.User.ID, list[0].ID), nil)))
}

func TestAnOrganisationBarsAMembersPasskeyForItselfAlone(t *testing.T) {
	p := newPersons(t)
	owner, ada := p.person(t, "owner@example.com"), p.person(t, "ada@example.com")
	conn, err := pgx.Connect(t.Context(), p.owner)
	require.NoError(t, err)
	defer conn.Close(context.Background()) //nolint:errcheck // a test's own
	_, err = conn.Exec(t.Context(), "INSERT INTO members (org_id, id, user_id, role, created_at) VALUES ($1, $2, $3, 'developer', now())",
		owner.Organization.ID, id.New[id.Member](), ada.User.ID)
	require.NoError(t, err)
	key, made := p.enrol(t, ada.User.ID, nil)
	bar := func(by id.User, org id.Org, in identity.Response) error {
		return p.step.Bar(t.Context(), by, org, ada.User.ID, made.Passkey.ID, "lost", in)
	}
	// An organisation that she is not in neither sees nor bars it.
	mallory := p.person(t, "mallory@example.com")
	requireCode(t, "not_found", bar(mallory.User.ID, mallory.Organization.ID, p.answer(t, p.step.AskBar(mallory.User.ID, mallory.Organization.ID, made.Passkey.ID), nil)))
	require.NoError(t, p.db.InTx(t.Context(), mallory.Organization.ID, func(tx pgx.Tx) error {
		seen, err := p.step.PasskeysOfTx(t.Context(), tx, mallory.Organization.ID, ada.User.ID)
		require.Empty(t, seen)
		return err
	}))
	require.NoError(t, bar(owner.User.ID, owner.Organization.ID, p.answer(t, p.step.AskBar(owner.User.ID, owner.Organization.ID, made.Passkey.ID), nil)))
	require.NoError(t, p.db.InTx(t.Context(), owner.Organization.ID, func(tx pgx.Tx) error {
		seen, err := p.step.PasskeysOfTx(t.Context(), tx, owner.Organization.ID, ada.User.ID)
		require.Len(t, seen, 1)
		require.True(t, seen[0].Barred)
		return err
	}))

	there := identity.Ask{User: ada.User.ID, Org: owner.Organization.ID, Purpose: "x", Challenge: digest("there")}
	req, err := p.step.Begin(t.Context(), there)
	require.NoError(t, err)
	require.Equal(t, identity.MethodPassword, req.Method, "it is not shut out: the password confirms there again")
	_, err = p.step.Finish(t.Context(), there, identity.Response{Method: identity.MethodPasskey, Assertion: key.Answer(req.Challenge)})
	requireCode(t, "passkey_barred", err)
	here := identity.Ask{User: ada.User.ID, Org: ada.Organization.ID, Purpose: "x", Challenge: digest("here")}
	_, err = p.step.Finish(t.Context(), here, p.answer(t, here, key))
	require.NoError(t, err, "elsewhere it works on")
}

func TestRelyingParties(t *testing.T) {
	for url, want := range map[string]identity.RelyingParty{
		"http://127.0.0.1:8080":        {ID: "localhost", Origin: "http://localhost:8080", Usable: true},
		"http://[::1]:8080":            {ID: "localhost", Origin: "http://localhost:8080", Usable: true},
		"http://localhost:80":          {ID: "localhost", Origin: "http://localhost", Usable: true},
		"https://Ambit.Example:443/at": {ID: "ambit.example", Origin: "https://ambit.example", Usable: true},
		"http://ambit.example":         {ID: "ambit.example", Origin: "http://ambit.example"},
		"https://192.0.2.1":            {ID: "192.0.2.1", Origin: "https://192.0.2.1"},
	} {
		got, err := identity.RelyingPartyOf(url)
		require.NoError(t, err)
		require.Equal(t, want, got, url)
	}
	_, err := identity.RelyingPartyOf("ftp://x")
	require.Error(t, err)
}
