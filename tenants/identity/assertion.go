package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"

	"github.com/go-webauthn/webauthn/protocol"

	"ambit.dev/ambit/internal/fault"
)

// The refusals of a confirmation. Each has a name of its own, so that a log, a test and a person can tell them apart.
var (
	errChallengeUnknown = fault.New(fault.Forbidden, "challenge_unknown", "This was not asked of you, or for another act. Open the page again.")
	errChallengeExpired = fault.New(fault.Forbidden, "challenge_expired", "That took too long. Confirm it again.")
	errChallengeUsed    = fault.New(fault.Forbidden, "challenge_used", "This was confirmed already. An answer counts once.")
	errWrongCeremony    = fault.New(fault.Forbidden, "wrong_ceremony", "This answer belongs to another kind of request.")
	errWrongOrigin      = fault.New(fault.Forbidden, "wrong_origin", "This answer was given to a page of another site.")
	errWrongRelying     = fault.New(fault.Forbidden, "wrong_relying_party", "This passkey answered for another site.")
	errUnknownPasskey   = fault.New(fault.Forbidden, "passkey_unknown", "This passkey is not one of yours, or it was revoked.")
	errPasskeyBarred    = fault.New(fault.Forbidden, "passkey_barred", "This organisation does not accept this passkey any more.")
	errNotVerified      = fault.New(fault.Forbidden, "user_not_verified", "The authenticator did not check that it is you. Unlock it with a PIN, a finger or your face.")
	errCountWentBack    = fault.New(fault.Forbidden, "sign_count_went_back", "This passkey's count of signatures went back: it may have been copied. Revoke it, and enrol it anew if it is only yours.")
	errBadSignature     = fault.New(fault.Forbidden, "bad_signature", "The passkey's signature does not fit.")
	errMalformedAnswer  = fault.New(fault.Invalid, "malformed_answer", "This is no answer of a passkey.")
	errPasskeyNeeded    = fault.New(fault.Forbidden, "passkey_required", "You have a passkey: confirm with it, not with the password.")
	errWrongCode        = fault.New(fault.Forbidden, "wrong_recovery_code", "This recovery code is wrong, or it was used already.")
	errLastCode         = fault.New(fault.Forbidden, "last_recovery_code", "This is your last recovery code. It opens one thing only: a new set of codes. Make that first.")
	errNoRecovery       = fault.New(fault.Forbidden, "recovery_code_refused", "A recovery code does not confirm this. It is for your own passkeys: enrol a new one first.")
)

// parseAssertion reads what navigator.credentials.get gave, as its toJSON writes it. These are foreign bytes: the fault is malformed_answer.
func parseAssertion(answer []byte) (*protocol.ParsedCredentialAssertionData, error) {
	if len(answer) == 0 || len(answer) > 32<<10 {
		return nil, errMalformedAnswer
	}
	parsed, err := protocol.ParseCredentialRequestResponseBytes(answer)
	if err != nil {
		return nil, errMalformedAnswer.Because(err)
	}
	return parsed, nil
}

// challengeOf returns the challenge that an answer was given to.
func challengeOf(clientData protocol.CollectedClientData) (challenge [32]byte, err error) {
	raw, err := base64.RawURLEncoding.DecodeString(clientData.Challenge)
	if err != nil || len(raw) != len(challenge) {
		return challenge, errChallengeUnknown
	}
	return [32]byte(raw), nil
}

// checkAssertion verifies an answer wholly: that it was given to this challenge, by a page of this origin, for this relying party, by a
// person whom the authenticator verified, with this key. The named checks come first, for their names' sake; the library then does all of
// section 7.2 of WebAuthn again.
func checkAssertion(rp RelyingParty, challenge [32]byte, a *protocol.ParsedCredentialAssertionData, publicKey []byte) error {
	wanted := base64.RawURLEncoding.EncodeToString(challenge[:])
	hash := sha256.Sum256([]byte(rp.ID))
	switch client := a.Response.CollectedClientData; {
	case client.Type != protocol.AssertCeremony:
		return errWrongCeremony
	case client.Challenge != wanted:
		return errChallengeUnknown
	case client.Origin != rp.Origin || client.CrossOrigin:
		return errWrongOrigin
	case !bytes.Equal(a.Response.AuthenticatorData.RPIDHash, hash[:]):
		return errWrongRelying
	case !a.Response.AuthenticatorData.Flags.UserPresent() || !a.Response.AuthenticatorData.Flags.UserVerified():
		return errNotVerified
	}
	err := a.Verify(wanted, rp.ID, "", []string{rp.Origin}, nil, nil, protocol.TopOriginExplicitVerificationMode, false, true, true, publicKey, protocol.SignaturePolicy{})
	if err != nil {
		return errBadSignature.Because(err)
	}
	return nil
}
