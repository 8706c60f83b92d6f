package sdjwt

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/subtle"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Bounds of what is read.
const (
	// MaxBytes bounds one token, MaxLinks the links of a chain.
	MaxBytes = 1 << 20
	MaxLinks = 16

	maxDisclosures = 1000
)

// Token is an SD-JWT as it was written: what its issuer signed, the disclosures that travel with it, and the proof of possession, if one
// does. Nothing of it is believed before it is verified.
type Token struct {
	JWT         string
	Disclosures []string
	// KeyBinding is the compact JWT at the end, or empty.
	KeyBinding string
}

// Parse takes a token apart. It checks the form only.
func Parse(text string) (Token, error) {
	if len(text) > MaxBytes {
		return Token{}, refuse(TooLarge, "it has %d bytes", len(text))
	}
	parts := strings.Split(text, "~")
	if len(parts) < 2 {
		return Token{}, refuse(Malformed, "no ~ ends what the issuer signed")
	}
	t := Token{JWT: parts[0], Disclosures: parts[1 : len(parts)-1], KeyBinding: parts[len(parts)-1]}
	if strings.Count(t.JWT, ".") != 2 || (t.KeyBinding != "" && strings.Count(t.KeyBinding, ".") != 2) {
		return Token{}, refuse(Malformed, "what is signed has three parts")
	}
	if len(t.Disclosures) > maxDisclosures {
		return Token{}, refuse(TooLarge, "it has %d disclosures", len(t.Disclosures))
	}
	for _, d := range t.Disclosures {
		if d == "" {
			return Token{}, refuse(Malformed, "an empty disclosure")
		}
	}
	return t, nil
}

// Presented is the token without its proof of possession: what sd_hash is taken of.
func (t Token) Presented() string {
	var b strings.Builder
	b.WriteString(t.JWT)
	for _, d := range t.Disclosures {
		b.WriteString("~" + d)
	}
	b.WriteString("~")
	return b.String()
}

func (t Token) String() string { return t.Presented() + t.KeyBinding }

// Hash is the digest of a text as tokens write it: base64url of its SHA-256.
func Hash(text string) string {
	sum := sha256.Sum256([]byte(text))
	return b64.EncodeToString(sum[:])
}

func sameText(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// signed checks one compact JWS and returns its header and payload.
func signed(compact string, key jose.JSONWebKey) (header, payload map[string]any, err error) {
	parts := strings.Split(compact, ".")
	if len(parts) != 3 {
		return nil, nil, refuse(Malformed, "what is signed has three parts")
	}
	rawHeader, err := decode(parts[0])
	if err != nil {
		return nil, nil, refuse(Malformed, "its header: %s", err)
	}
	if header, err = object(rawHeader); err != nil {
		return nil, nil, refuse(Malformed, "its header: %s", err)
	}
	// Before any key is looked at: what algorithm is used is for the verifier to say, and never for the token.
	if alg, _ := header["alg"].(string); alg != string(jose.ES256) {
		return nil, nil, refuse(WrongAlgorithm, "it is signed by %q; only ES256 counts", clip(alg))
	}
	if _, critical := header["crit"]; critical {
		return nil, nil, refuse(WrongAlgorithm, "it asks for an extension")
	}
	public, ok := key.Key.(*ecdsa.PublicKey)
	if !ok || public.Curve != elliptic.P256() || !key.Valid() || !key.IsPublic() {
		return nil, nil, refuse(WrongKey, "the key is not a public key of P-256")
	}
	if _, err := decode(parts[2]); err != nil {
		return nil, nil, refuse(Malformed, "its signature: %s", err)
	}
	jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.ES256})
	if err != nil {
		return nil, nil, refuse(Malformed, "its signature can't be read")
	}
	raw, err := jws.Verify(public)
	if err != nil {
		return nil, nil, refuse(BadSignature, "the signature does not hold: it was altered, or signed by another key")
	}
	if _, err := decode(parts[1]); err != nil {
		return nil, nil, refuse(Malformed, "its payload: %s", err)
	}
	if payload, err = object(raw); err != nil {
		return nil, nil, refuse(Malformed, "its payload: %s", err)
	}
	return header, payload, nil
}

// Header reads a token's header without believing it: to find which key it says it was signed by.
func Header(compact string) (map[string]any, error) {
	head, _, _ := strings.Cut(compact, ".")
	raw, err := decode(head)
	if err != nil {
		return nil, refuse(Malformed, "its header: %s", err)
	}
	h, err := object(raw)
	if err != nil {
		return nil, refuse(Malformed, "its header: %s", err)
	}
	return h, nil
}

// Signer signs a header and a payload as a compact JWS by ES256. It adds alg and its key's kid to the header.
type Signer func(header map[string]any, payload []byte) (compact string, err error)
