package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/go-webauthn/webauthn/protocol"
	"github.com/go-webauthn/webauthn/protocol/webauthncose"
	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants/identity/internal/identitydb"
)

const (
	// maxPasskeys is how many passkeys a person may have.
	maxPasskeys = 20

	purposeEnrol  = "passkey.enrol"
	purposeCreate = "passkey.create"
	purposeRevoke = "passkey.revoke:"
)

func init() {
	postgres.RegisterConstraint("passkeys_credential", fault.New(fault.Conflict, "passkey_exists", "This passkey is enrolled already."))
}

// Passkey is one of a person's passkeys.
type Passkey struct {
	ID   id.Passkey
	User id.User
	Name string
	// CredentialID is what the authenticator calls it, base64url.
	CredentialID string
	// BackedUp says that it is copied to the person's other devices by whoever keeps it.
	BackedUp   bool
	Transports []string
	CreatedAt  time.Time
	LastUsedAt *time.Time
	// Barred says that the organisation asked about does not accept it.
	Barred bool
}

// Passkeys lists a person's passkeys, the oldest first. With an organisation it says which of them that one does not accept.
func (s *StepUp) Passkeys(ctx context.Context, user id.User, org id.Org) (out []Passkey, err error) {
	err = s.as(ctx, user, org, func(q *identitydb.Queries) error {
		out, err = listPasskeys(ctx, q, user, org)
		return err
	})
	return out, err
}

// PasskeysOfTx lists a member's passkeys for a fellow member, in a transaction of their organisation.
func (s *StepUp) PasskeysOfTx(ctx context.Context, tx pgx.Tx, org id.Org, user id.User) ([]Passkey, error) {
	return listPasskeys(ctx, identitydb.New(tx), user, org)
}

func listPasskeys(ctx context.Context, q *identitydb.Queries, user id.User, org id.Org) ([]Passkey, error) {
	rows, err := q.ListPasskeys(ctx, identitydb.ListPasskeysParams{UserID: string(user), OrgID: string(org)})
	if err != nil {
		return nil, fmt.Errorf("list passkeys: %w", err)
	}
	out := make([]Passkey, len(rows))
	for i, r := range rows {
		out[i] = Passkey{
			ID: id.Passkey(r.ID), User: id.User(r.UserID), Name: r.Name, CredentialID: b64(r.CredentialID), BackedUp: r.BackedUp, Transports: r.Transports,
			CreatedAt: r.CreatedAt, LastUsedAt: r.LastUsedAt, Barred: r.Barred,
		}
	}
	return out, nil
}

// AskEnrol is what is confirmed before a passkey is enrolled: that it is the person, and not somebody at an open sign-in.
func (s *StepUp) AskEnrol(user id.User) Ask {
	return Ask{User: user, Purpose: purposeEnrol, Recovery: true}
}

// PersonName is whose passkey is made; authenticators show the name and the label.
type PersonName struct {
	ID    id.User
	Email string
	Label string
}

// BeginEnrolment takes the confirmation of AskEnrol and returns the options for navigator.credentials.create. Its fault
// passkeys_unavailable says that browsers refuse passkeys under this public URL.
func (s *StepUp) BeginEnrolment(ctx context.Context, who PersonName, in Response) (options json.RawMessage, err error) {
	if !s.rp.Usable {
		return nil, fault.New(fault.Conflict, "passkeys_unavailable", "Browsers refuse passkeys here: the console must be reached by a name and over TLS, or as localhost.")
	}
	now := s.deps.Clock.Now()
	var challenge [32]byte
	_, _ = rand.Read(challenge[:])
	err = s.finishAnd(ctx, s.AskEnrol(who.ID), in, func(q *identitydb.Queries, _ Proof) error {
		keys, err := q.ListPasskeys(ctx, identitydb.ListPasskeysParams{UserID: string(who.ID)})
		if err != nil {
			return fmt.Errorf("list passkeys: %w", err)
		}
		if len(keys) >= maxPasskeys {
			return fault.Newf(fault.Conflict, "too_many_passkeys", "You have %d passkeys. Revoke one first.", len(keys))
		}
		if _, err := q.InsertChallenge(ctx, identitydb.InsertChallengeParams{
			UserID: string(who.ID), Challenge: challenge[:], Purpose: purposeCreate, CreatedAt: now, ExpiresAt: now.Add(ChallengeLasts),
		}); err != nil {
			return fmt.Errorf("note the enrolment: %w", err)
		}
		options, err = json.Marshal(s.creation(who, challenge, keys))
		return err
	})
	return options, err
}

func (s *StepUp) creation(who PersonName, challenge [32]byte, have []identitydb.ListPasskeysRow) protocol.PublicKeyCredentialCreationOptions {
	parameter := func(alg webauthncose.COSEAlgorithmIdentifier) protocol.CredentialParameter {
		return protocol.CredentialParameter{Type: protocol.PublicKeyCredentialType, Algorithm: alg}
	}
	return protocol.PublicKeyCredentialCreationOptions{
		RelyingParty: protocol.RelyingPartyEntity{CredentialEntity: protocol.CredentialEntity{Name: "Ambit"}, ID: s.rp.ID},
		User:         protocol.UserEntity{CredentialEntity: protocol.CredentialEntity{Name: who.Email}, DisplayName: who.Label, ID: protocol.URLEncodedBase64(userHandle(who.ID))},
		Challenge:    challenge[:], Timeout: int(ChallengeLasts.Milliseconds()),
		Parameters:            []protocol.CredentialParameter{parameter(webauthncose.AlgES256), parameter(webauthncose.AlgEdDSA), parameter(webauthncose.AlgRS256)},
		CredentialExcludeList: descriptors(have),
		AuthenticatorSelection: protocol.AuthenticatorSelection{
			ResidentKey: protocol.ResidentKeyRequirementPreferred, UserVerification: protocol.VerificationRequired,
		},
		Attestation: protocol.PreferNoAttestation,
	}
}

// Enrolled is a new passkey. Codes are the person's first recovery codes, to be shown once; nil for who had some.
type Enrolled struct {
	Passkey Passkey
	Codes   []string
}

// Enrol keeps the passkey that navigator.credentials.create made, as PublicKeyCredential.toJSON writes it. With the first passkey come
// recovery codes: from then on a lost device must not shut its person out.
func (s *StepUp) Enrol(ctx context.Context, user id.User, name string, answer json.RawMessage) (out Enrolled, err error) {
	name, err = passkeyName(name)
	if err != nil {
		return out, err
	}
	if len(answer) == 0 || len(answer) > 64<<10 {
		return out, errMalformedAnswer
	}
	made, err := protocol.ParseCredentialCreationResponseBytes(answer)
	if err != nil {
		return out, errMalformedAnswer.Because(err)
	}
	challenge, err := challengeOf(made.Response.CollectedClientData)
	if err != nil {
		return out, err
	}
	now := s.deps.Clock.Now()
	err = s.as(ctx, user, "", func(q *identitydb.Queries) error {
		if err := s.useChallenge(ctx, q, Ask{User: user, Purpose: purposeCreate, Challenge: challenge}, now); err != nil {
			return err
		}
		if err := s.checkCreation(challenge, made); err != nil {
			return err
		}
		row := rowOf(user, name, made, now)
		if err := q.InsertPasskey(ctx, row); err != nil {
			return postgres.Translate(fmt.Errorf("insert a passkey: %w", err))
		}
		out.Passkey = Passkey{ID: id.Passkey(row.ID), User: user, Name: name, CredentialID: b64(row.CredentialID), BackedUp: row.BackedUp, Transports: row.Transports, CreatedAt: now}
		have, err := countCodes(ctx, q, user)
		if err != nil || have.Unused > 0 {
			return err
		}
		out.Codes, err = s.replaceCodes(ctx, q, user, now)
		return err
	})
	if err != nil {
		return Enrolled{}, err
	}
	s.deps.Logger.InfoContext(ctx, "passkey enrolled", "user", user, "passkey", out.Passkey.ID)
	return out, nil
}

func (s *StepUp) checkCreation(challenge [32]byte, made *protocol.ParsedCredentialCreationData) error {
	wanted := b64(challenge[:])
	hash := sha256.Sum256([]byte(s.rp.ID))
	data := made.Response.AttestationObject.AuthData
	switch client := made.Response.CollectedClientData; {
	case client.Type != protocol.CreateCeremony:
		return errWrongCeremony
	case client.Origin != s.rp.Origin || client.CrossOrigin:
		return errWrongOrigin
	case !bytes.Equal(data.RPIDHash, hash[:]):
		return errWrongRelying
	case !data.Flags.UserPresent() || !data.Flags.UserVerified():
		return errNotVerified
	}
	parameters := s.creation(PersonName{}, challenge, nil).Parameters
	_, err := made.Verify(wanted, s.rp.ID, []string{s.rp.Origin}, nil, nil, protocol.TopOriginExplicitVerificationMode, false, true, true, nil, parameters, protocol.AttestationPolicy{}, protocol.SignaturePolicy{})
	if err != nil {
		return errMalformedAnswer.Because(err)
	}
	return nil
}

func rowOf(user id.User, name string, made *protocol.ParsedCredentialCreationData, now time.Time) identitydb.InsertPasskeyParams {
	data := made.Response.AttestationObject.AuthData
	row := identitydb.InsertPasskeyParams{
		ID: string(id.New[id.Passkey]()), UserID: string(user), CredentialID: data.AttData.CredentialID, PublicKey: data.AttData.CredentialPublicKey,
		SignCount: int64(data.Counter), Aaguid: data.AttData.AAGUID, Transports: []string{}, BackedUp: data.Flags.HasBackupState(), Name: name, CreatedAt: now,
	}
	if key, err := webauthncose.ParsePublicKey(row.PublicKey); err == nil {
		row.Algorithm = algorithmOf(key)
	}
	known := []protocol.AuthenticatorTransport{protocol.USB, protocol.NFC, protocol.BLE, protocol.SmartCard, protocol.Hybrid, protocol.Internal}
	for _, t := range made.Response.Transports {
		if slices.Contains(known, t) {
			row.Transports = append(row.Transports, string(t))
		}
	}
	return row
}

func algorithmOf(key any) int32 {
	switch k := key.(type) {
	case webauthncose.EC2PublicKeyData:
		return int32(k.Algorithm) //nolint:gosec // a registered number of COSE
	case webauthncose.OKPPublicKeyData:
		return int32(k.Algorithm) //nolint:gosec // a registered number of COSE
	case webauthncose.RSAPublicKeyData:
		return int32(k.Algorithm) //nolint:gosec // a registered number of COSE
	}
	return 0
}

func passkeyName(name string) (string, error) {
	name = strings.TrimSpace(strings.Map(func(r rune) rune {
		if r < ' ' || r == utf8.RuneError {
			return -1
		}
		return r
	}, name))
	if n := utf8.RuneCountInString(name); n < 1 || n > 100 {
		return "", fault.InvalidField("/name", "invalid_name", "A passkey's name has 1 to 100 characters, such as the device it is on.")
	}
	return name, nil
}

// Rename gives one of a person's passkeys another name. Its fault is not_found.
func (s *StepUp) Rename(ctx context.Context, user id.User, passkey id.Passkey, name string) error {
	name, err := passkeyName(name)
	if err != nil {
		return err
	}
	return s.as(ctx, user, "", func(q *identitydb.Queries) error {
		n, err := q.RenamePasskey(ctx, identitydb.RenamePasskeyParams{ID: string(passkey), UserID: string(user), Name: name})
		if err != nil {
			return fmt.Errorf("rename a passkey: %w", err)
		}
		return found(n)
	})
}

func found(n int64) error {
	if n == 0 {
		return fault.NotFound()
	}
	return nil
}

// AskRevoke is what is confirmed before a person's own passkey is revoked. The lost one can't confirm it, so a recovery code may.
func (s *StepUp) AskRevoke(user id.User, passkey id.Passkey) Ask {
	return Ask{User: user, Purpose: purposeRevoke + string(passkey), Recovery: true}
}

// Revoke ends one of a person's own passkeys, for good. Without any, the password confirms again, so nobody is shut out by it.
func (s *StepUp) Revoke(ctx context.Context, user id.User, passkey id.Passkey, in Response) error {
	now := s.deps.Clock.Now()
	return s.finishAnd(ctx, s.AskRevoke(user, passkey), in, func(q *identitydb.Queries, _ Proof) error {
		n, err := q.RevokePasskey(ctx, identitydb.RevokePasskeyParams{ID: string(passkey), UserID: string(user), Now: now})
		if err != nil {
			return fmt.Errorf("revoke a passkey: %w", err)
		}
		s.deps.Logger.InfoContext(ctx, "passkey revoked", "user", user, "passkey", passkey)
		return found(n)
	})
}

// AskBar is what is confirmed before an organisation bars a member's passkey.
func (s *StepUp) AskBar(by id.User, org id.Org, passkey id.Passkey) Ask {
	return Ask{User: by, Org: org, Purpose: "passkey.bar:" + string(passkey)}
}

// Bar lets an organisation accept a member's passkey no more, for good. It stays the person's own and works elsewhere; here the member
// confirms with another one, or with the password. Whether by may do this is for the caller to have decided. Its fault is not_found.
func (s *StepUp) Bar(ctx context.Context, by id.User, org id.Org, member id.User, passkey id.Passkey, reason string, in Response) error {
	if utf8.RuneCountInString(reason) > 500 || !utf8.ValidString(reason) {
		return fault.InvalidField("/reason", "too_long", "A reason has at most 500 characters.")
	}
	now := s.deps.Clock.Now()
	return s.finishAnd(ctx, s.AskBar(by, org, passkey), in, func(q *identitydb.Queries, _ Proof) error {
		theirs, err := listPasskeys(ctx, q, member, org)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(theirs, func(k Passkey) bool { return k.ID == passkey }) {
			return fault.NotFound()
		}
		if _, err := q.BarPasskey(ctx, identitydb.BarPasskeyParams{OrgID: string(org), PasskeyID: string(passkey), BarredBy: string(by), BarredAt: now, Reason: reason}); err != nil {
			return fmt.Errorf("bar a passkey: %w", err)
		}
		s.deps.Logger.InfoContext(ctx, "passkey barred", "org", org, "by", by, "passkey", passkey)
		return nil
	})
}
