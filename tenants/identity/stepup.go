package identity

import (
	"context"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants/identity/internal/identitydb"
)

// ChallengeLasts is how long a person has to confirm what was asked.
const ChallengeLasts = 5 * time.Minute

// People check passwords and bound guesses; the package tenants implements it.
type People interface {
	// ConfirmPassword checks a person's present password. Its faults: wrong_credentials, rate_limited.
	ConfirmPassword(ctx context.Context, user id.User, password string) error
	// CountGuess counts one attempt to confirm something, before it is made. Its fault is rate_limited.
	CountGuess(ctx context.Context, user id.User) error
	// ForgetGuesses is for after a success.
	ForgetGuesses(ctx context.Context, user id.User) error
}

// StepUpDeps are what confirmations work with. All are needed.
type StepUpDeps struct {
	Deps
	Keys   *Keyring
	People People
	// PublicURL is where people reach the console: passkeys are bound to it.
	PublicURL string
}

// StepUp asks a signed-in person to confirm one act, with a passkey or, where the person has none, with the password; and keeps the
// passkeys and recovery codes. It is safe for concurrent use.
type StepUp struct {
	db      *postgres.DB
	deps    StepUpDeps
	rp      RelyingParty
	codeKey []byte
	// signInKey makes the challenges of the sign-in page.
	signInKey []byte
}

// NewStepUp checks the dependencies.
func NewStepUp(db *postgres.DB, deps StepUpDeps) (*StepUp, error) {
	if db == nil || deps.Clock == nil || deps.Logger == nil || deps.Sealer == nil || deps.Keys == nil || deps.People == nil {
		return nil, errors.New("identity: database, clock, logger, sealer, keys and people are needed")
	}
	rp, err := RelyingPartyOf(deps.PublicURL)
	if err != nil {
		return nil, err
	}
	return &StepUp{db: db, deps: deps, rp: rp, codeKey: deps.Sealer.Derive("identity/recovery codes"), signInKey: deps.Sealer.Derive("identity/sign-in challenges")}, nil
}

// RelyingParty is who the passkeys are for.
func (s *StepUp) RelyingParty() RelyingParty { return s.rp }

// Ask is what a person is to confirm.
type Ask struct {
	User id.User
	// Org is for whom it is confirmed; empty for a person's own affair. It decides which passkeys are barred.
	Org id.Org
	// Purpose names the act and what it is about, such as "mandate.sign:man_…": an answer for one is refused for another. At most 200 bytes.
	Purpose string
	// Challenge is the digest of what is shown and confirmed. With zeros, Begin takes a random one, and Finish the one of the response.
	Challenge [32]byte
	// Recovery says that a recovery code may stand for the passkey: for what gives a person back their own passkeys, and nothing else.
	Recovery bool
}

// Request is what to show to the person.
type Request struct {
	// Method is passkey, or password where the person has no passkey that counts.
	Method    Method
	Challenge string
	Recovery  bool
	ExpiresAt time.Time
	// Options are for navigator.credentials.get, by PublicKeyCredential.parseRequestOptionsFromJSON; nil for a password.
	Options json.RawMessage
}

// Response is what the person did.
type Response struct {
	Method Method
	// Challenge is the Request's; it need not be given for a passkey, whose answer holds it.
	Challenge string
	Password  string
	Code      string
	// Assertion is the passkey's answer, as PublicKeyCredential.toJSON writes it.
	Assertion json.RawMessage
}

// Begin notes what is asked. Asking the same again is one question; what was confirmed once is refused with challenge_used.
func (s *StepUp) Begin(ctx context.Context, ask Ask) (out Request, err error) {
	if ask.Challenge == ([32]byte{}) {
		_, _ = rand.Read(ask.Challenge[:]) // never an error: it ends the program when the system has no randomness
	}
	now := s.deps.Clock.Now()
	out = Request{Method: MethodPassword, Challenge: b64(ask.Challenge[:]), ExpiresAt: now.Add(ChallengeLasts)}
	err = s.as(ctx, ask.User, ask.Org, func(q *identitydb.Queries) error {
		n, err := q.InsertChallenge(ctx, identitydb.InsertChallengeParams{
			UserID: string(ask.User), Challenge: ask.Challenge[:], Purpose: ask.Purpose, OrgID: string(ask.Org), CreatedAt: now, ExpiresAt: out.ExpiresAt,
		})
		if err != nil {
			return fmt.Errorf("note what is to be confirmed: %w", err)
		}
		if n == 0 {
			return errChallengeUsed
		}
		keys, err := s.usable(ctx, q, ask)
		if err != nil || len(keys) == 0 {
			return err
		}
		out.Method, out.Recovery = MethodPasskey, ask.Recovery
		options := protocol.CredentialAssertion{Response: protocol.PublicKeyCredentialRequestOptions{
			Challenge: ask.Challenge[:], Timeout: int(ChallengeLasts.Milliseconds()), RelyingPartyID: s.rp.ID,
			UserVerification: protocol.VerificationRequired, AllowedCredentials: descriptors(keys),
		}}
		out.Options, err = json.Marshal(options.Response)
		return err
	})
	return out, err
}

// usable are the person's passkeys that count for what is asked.
func (s *StepUp) usable(ctx context.Context, q *identitydb.Queries, ask Ask) ([]identitydb.ListPasskeysRow, error) {
	all, err := q.ListPasskeys(ctx, identitydb.ListPasskeysParams{UserID: string(ask.User), OrgID: string(ask.Org)})
	if err != nil {
		return nil, fmt.Errorf("list passkeys: %w", err)
	}
	keys := all[:0]
	for _, k := range all {
		if !k.Barred {
			keys = append(keys, k)
		}
	}
	return keys, nil
}

func descriptors(keys []identitydb.ListPasskeysRow) []protocol.CredentialDescriptor {
	out := make([]protocol.CredentialDescriptor, len(keys))
	for i, k := range keys {
		out[i] = protocol.CredentialDescriptor{Type: protocol.PublicKeyCredentialType, CredentialID: k.CredentialID}
		for _, t := range k.Transports {
			out[i].Transport = append(out[i].Transport, protocol.AuthenticatorTransport(t))
		}
	}
	return out
}

// Finish checks the response and uses the challenge up: the same response is refused afterwards. An answer to another purpose, another
// person's passkey and whatever else is wrong is refused under a name of its own (see assertion.go), and leaves the challenge open.
func (s *StepUp) Finish(ctx context.Context, ask Ask, in Response) (Proof, error) {
	var proof Proof
	err := s.finishAnd(ctx, ask, in, func(_ *identitydb.Queries, p Proof) error {
		proof = p
		return nil
	})
	return proof, err
}

// finishAnd does what was confirmed in the transaction that uses the challenge up.
func (s *StepUp) finishAnd(ctx context.Context, ask Ask, in Response, do func(q *identitydb.Queries, p Proof) error) error {
	answer, err := s.read(&ask, in)
	if err != nil {
		return err
	}
	switch in.Method {
	case MethodPassword:
		if err := s.mayUsePassword(ctx, ask); err != nil {
			return err
		}
		if err := s.deps.People.ConfirmPassword(ctx, ask.User, in.Password); err != nil {
			return err
		}
	case MethodRecovery:
		if err := s.deps.People.CountGuess(ctx, ask.User); err != nil {
			return err
		}
	case MethodPasskey: // nobody guesses a signature
	}
	now := s.deps.Clock.Now().Truncate(time.Microsecond)
	proof := Proof{Method: in.Method, User: string(ask.User), Purpose: ask.Purpose, Challenge: b64(ask.Challenge[:]), At: now.UTC()}
	err = s.as(ctx, ask.User, ask.Org, func(q *identitydb.Queries) error {
		if err := s.useChallenge(ctx, q, ask, now); err != nil {
			return err
		}
		switch in.Method {
		case MethodPasskey:
			if err := s.usePasskey(ctx, q, ask, answer, now, &proof); err != nil {
				return err
			}
		case MethodPassword:
			// Again, under the person's lock: a passkey may have been enrolled meanwhile.
			if keys, err := s.usable(ctx, q, ask); err != nil || len(keys) > 0 {
				return errors.Join(err, passkeyNeeded(len(keys)))
			}
		case MethodRecovery:
			if err := s.useCode(ctx, q, ask, in.Code, now); err != nil {
				return err
			}
		}
		if err := s.deps.Keys.sealProof(ctx, &proof); err != nil {
			return err
		}
		return do(q, proof)
	})
	if err != nil {
		s.deps.Logger.InfoContext(ctx, "step-up refused", "user", ask.User, "purpose", ask.Purpose, "method", in.Method, "code", fault.As(err).Code)
		return err
	}
	if in.Method == MethodPasskey {
		return nil
	}
	if err := s.deps.People.ForgetGuesses(ctx, ask.User); err != nil {
		s.deps.Logger.WarnContext(ctx, "counted guesses were not cleared", "user", ask.User, "error", err)
	}
	return nil
}

func passkeyNeeded(n int) error {
	if n > 0 {
		return errPasskeyNeeded
	}
	return nil
}

// read finds the challenge that the response is about, and the passkey's answer.
func (s *StepUp) read(ask *Ask, in Response) (*protocol.ParsedCredentialAssertionData, error) {
	given := ask.Challenge
	switch in.Method {
	case MethodPasskey:
		answer, err := parseAssertion(in.Assertion)
		if err != nil {
			return nil, err
		}
		if ask.Challenge, err = challengeOf(answer.Response.CollectedClientData); err != nil {
			return nil, err
		}
		if given != ([32]byte{}) && given != ask.Challenge {
			return nil, errChallengeUnknown
		}
		return answer, nil
	case MethodPassword, MethodRecovery:
		raw, err := base64.RawURLEncoding.DecodeString(in.Challenge)
		if err != nil || len(raw) != len(ask.Challenge) {
			return nil, errChallengeUnknown
		}
		ask.Challenge = [32]byte(raw)
		if given != ([32]byte{}) && given != ask.Challenge {
			return nil, errChallengeUnknown
		}
		return nil, nil
	default:
		return nil, errMalformedAnswer
	}
}

// mayUsePassword is asked before the password is looked at, so that it can't be guessed here by somebody at an open sign-in.
func (s *StepUp) mayUsePassword(ctx context.Context, ask Ask) error {
	return s.as(ctx, ask.User, ask.Org, func(q *identitydb.Queries) error {
		keys, err := s.usable(ctx, q, ask)
		return errors.Join(err, passkeyNeeded(len(keys)))
	})
}

func (s *StepUp) useChallenge(ctx context.Context, q *identitydb.Queries, ask Ask, now time.Time) error {
	n, err := q.UseChallenge(ctx, identitydb.UseChallengeParams{
		UserID: string(ask.User), Challenge: ask.Challenge[:], Purpose: ask.Purpose, OrgID: string(ask.Org), Now: now,
	})
	if err != nil {
		return fmt.Errorf("use a challenge: %w", err)
	}
	if n == 1 {
		return nil
	}
	row, err := q.GetChallenge(ctx, identitydb.GetChallengeParams{UserID: string(ask.User), Challenge: ask.Challenge[:]})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errChallengeUnknown
	case err != nil:
		return fmt.Errorf("read a challenge: %w", err)
	case row.Purpose != ask.Purpose || row.OrgID != string(ask.Org):
		return errChallengeUnknown
	case row.UsedAt != nil:
		return errChallengeUsed
	default:
		return errChallengeExpired
	}
}

func (s *StepUp) usePasskey(ctx context.Context, q *identitydb.Queries, ask Ask, a *protocol.ParsedCredentialAssertionData, now time.Time, proof *Proof) error {
	key, err := q.GetPasskeyByCredential(ctx, identitydb.GetPasskeyByCredentialParams{UserID: string(ask.User), OrgID: string(ask.Org), CredentialID: a.RawID})
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return errUnknownPasskey
	case err != nil:
		return fmt.Errorf("read a passkey: %w", err)
	case key.RevokedAt != nil:
		return errUnknownPasskey
	case key.Barred:
		return errPasskeyBarred
	}
	if err := checkAssertion(s.rp, ask.Challenge, a, key.PublicKey); err != nil {
		return err
	}
	count := a.Response.AuthenticatorData.Counter
	n, err := q.UsePasskey(ctx, identitydb.UsePasskeyParams{
		ID: key.ID, UserID: string(ask.User), SignCount: int64(count), BackedUp: a.Response.AuthenticatorData.Flags.HasBackupState(), Now: now,
	})
	if err != nil {
		return fmt.Errorf("note the use of a passkey: %w", err)
	}
	if n == 0 {
		return errCountWentBack // a copied authenticator: the count must grow, unless none is kept
	}
	proof.keepAnswer(a, key.PublicKey)
	return nil
}

// as runs fn in a transaction that acts for one person, alone, and sees one organisation's rows if it is for one.
func (s *StepUp) as(ctx context.Context, user id.User, org id.Org, fn func(q *identitydb.Queries) error) error {
	return s.db.InPlatformTx(ctx, func(tx pgx.Tx) error {
		q := identitydb.New(tx)
		if err := q.ActAs(ctx, string(user)); err != nil {
			return fmt.Errorf("name the person of the transaction: %w", err)
		}
		if org != "" {
			if err := q.ActForOrganization(ctx, string(org)); err != nil {
				return fmt.Errorf("name the organisation of the transaction: %w", err)
			}
		}
		if err := q.LockPerson(ctx, string(user)); err != nil {
			return fmt.Errorf("lock the passkeys of a person: %w", err)
		}
		return fn(q)
	})
}
