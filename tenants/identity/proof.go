package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-webauthn/webauthn/protocol"
)

// Method is how a person confirmed something.
type Method string

// The methods.
const (
	MethodPasskey  Method = "passkey"
	MethodPassword Method = "password"
	MethodRecovery Method = "recovery_code"
)

// ProofType is the typ of the instance's statement in a proof.
const ProofType = "step-up+jwt"

// Proof says that a person confirmed one thing. It can be kept and checked by anybody later, with VerifyProof. Bytes are base64url without
// padding.
type Proof struct {
	Method  Method `json:"method"`
	User    string `json:"user"`
	Purpose string `json:"purpose"`
	// Challenge is what was confirmed: random, or the digest of what was shown.
	Challenge string    `json:"challenge"`
	At        time.Time `json:"at"`
	// The passkey's answer, as the authenticator gave it; empty for the other methods. PublicKey is in COSE form.
	CredentialID      string `json:"credential_id,omitempty"`
	PublicKey         string `json:"public_key,omitempty"`
	AuthenticatorData string `json:"authenticator_data,omitempty"`
	ClientDataJSON    string `json:"client_data_json,omitempty"`
	Signature         string `json:"signature,omitempty"`
	// Statement is the instance's: a compact JWS over who confirmed what, how, when and with which key. A password leaves no other trace,
	// and a passkey's own signature does not say whose it is.
	Statement string `json:"statement"`
}

// proofClaims are what the instance states.
type proofClaims struct {
	Subject      string `json:"sub"`
	Method       Method `json:"method"`
	Purpose      string `json:"purpose"`
	Challenge    string `json:"challenge"`
	CredentialID string `json:"credential_id,omitempty"`
	KeyDigest    string `json:"public_key_sha256,omitempty"`
	At           int64  `json:"at_micros"`
}

func (p Proof) claims() proofClaims {
	c := proofClaims{Subject: p.User, Method: p.Method, Purpose: p.Purpose, Challenge: p.Challenge, CredentialID: p.CredentialID, At: p.At.UnixMicro()}
	if p.PublicKey != "" {
		sum := sha256.Sum256([]byte(p.PublicKey))
		c.KeyDigest = b64(sum[:])
	}
	return c
}

func (k *Keyring) sealProof(ctx context.Context, p *Proof) (err error) {
	p.Statement, err = k.SignAs(ctx, ProofType, p.claims())
	return err
}

func b64(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

// The ways in which a proof fails; VerifyProof wraps one of them.
var (
	ErrProofStatement = errors.New("the proof's statement was not made by this instance")
	ErrProofChanged   = errors.New("the proof was changed after it was made")
	ErrProofChallenge = errors.New("the proof is for something else")
	ErrProofPasskey   = errors.New("the passkey's answer in the proof does not verify")
)

// VerifyProof checks a proof without asking anybody: that the instance with these keys (the set of /.well-known/jwks.json) states it, that
// it is for this challenge, and, for a passkey, that the passkey itself signed this challenge on a page of this origin for this relying
// party, having verified its person. Whether the person may confirm such a thing is for the caller to know.
func VerifyProof(p Proof, challenge [32]byte, origin, rpID string, keys jose.JSONWebKeySet) error {
	if err := verifyStatement(p, keys); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare([]byte(p.Challenge), []byte(b64(challenge[:]))) != 1 {
		return ErrProofChallenge
	}
	switch p.Method {
	case MethodPassword, MethodRecovery:
		if p.CredentialID+p.PublicKey+p.AuthenticatorData+p.ClientDataJSON+p.Signature != "" {
			return fmt.Errorf("%w: a %s leaves no signature of a passkey", ErrProofChanged, p.Method)
		}
		return nil
	case MethodPasskey:
		return verifyPasskeyProof(p, challenge, RelyingParty{ID: rpID, Origin: origin})
	default:
		return fmt.Errorf("%w: the method %q is not known", ErrProofChanged, p.Method)
	}
}

func verifyStatement(p Proof, keys jose.JSONWebKeySet) error {
	jws, err := jose.ParseSignedCompact(p.Statement, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProofStatement, err)
	}
	header := jws.Signatures[0].Protected
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); typ != ProofType {
		return fmt.Errorf("%w: its typ is %q", ErrProofStatement, typ)
	}
	found := keys.Key(header.KeyID)
	if len(found) != 1 {
		return fmt.Errorf("%w: no published key is called %q", ErrProofStatement, header.KeyID)
	}
	payload, err := jws.Verify(found[0])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProofStatement, err)
	}
	var stated proofClaims
	if err := json.Unmarshal(payload, &stated); err != nil {
		return fmt.Errorf("%w: %w", ErrProofStatement, err)
	}
	if stated != p.claims() {
		return ErrProofChanged
	}
	return nil
}

func verifyPasskeyProof(p Proof, challenge [32]byte, rp RelyingParty) error {
	publicKey, err := base64.RawURLEncoding.DecodeString(p.PublicKey)
	if err != nil || len(publicKey) == 0 {
		return fmt.Errorf("%w: its public key can't be read", ErrProofPasskey)
	}
	answer, err := json.Marshal(map[string]any{
		"id": p.CredentialID, "rawId": p.CredentialID, "type": "public-key",
		"response": map[string]string{"authenticatorData": p.AuthenticatorData, "clientDataJSON": p.ClientDataJSON, "signature": p.Signature},
	})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProofPasskey, err)
	}
	parsed, err := parseAssertion(answer)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrProofPasskey, err)
	}
	if err := checkAssertion(rp, challenge, parsed, publicKey); err != nil {
		return fmt.Errorf("%w: %w", ErrProofPasskey, err)
	}
	return nil
}

// keepAnswer copies a passkey's answer into the proof.
func (p *Proof) keepAnswer(a *protocol.ParsedCredentialAssertionData, publicKey []byte) {
	p.CredentialID, p.PublicKey = b64(a.RawID), b64(publicKey)
	p.AuthenticatorData = b64(a.Raw.AssertionResponse.AuthenticatorData)
	p.ClientDataJSON = b64(a.Raw.AssertionResponse.ClientDataJSON)
	p.Signature = b64(a.Raw.AssertionResponse.Signature)
}
