// Package authenticatortest is an authenticator and the browser before it, in software, for tests: it makes passkeys and answers
// challenges as WebAuthn says, and lies on request.
//
// It owns no rule: it is written from the specification and shares no code with what verifies. It imports the CBOR encoder only.
package authenticatortest

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"fmt"

	"github.com/go-webauthn/webauthn/protocol/webauthncbor"
)

// Passkey is one credential, with its private key. Its fields may be changed to lie.
type Passkey struct {
	ID      []byte
	Private *ecdsa.PrivateKey
	// Count is the next answer's count less one; with Countless it is always 0.
	Count     uint32
	Countless bool
	// Origin and RPID are what the browser tells.
	Origin string
	RPID   string
	// Unverified leaves out that the person was verified.
	Unverified bool
	// Type, when set, stands in the client data instead of the ceremony's own.
	Type string
}

const (
	flagPresent  = 0x01
	flagVerified = 0x04
	flagAttested = 0x40
)

// New makes a passkey for pages of this origin.
func New(origin, rpID string) *Passkey {
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	credential := make([]byte, 32)
	_, _ = rand.Read(credential)
	return &Passkey{ID: credential, Private: private, Origin: origin, RPID: rpID}
}

// Create answers navigator.credentials.create with these options, as toJSON writes it.
func (p *Passkey) Create(options json.RawMessage) json.RawMessage {
	data := p.authenticatorData(flagAttested)
	data = append(data, make([]byte, 16)...)                      // AAGUID
	data = binary.BigEndian.AppendUint16(data, uint16(len(p.ID))) //nolint:gosec // 32
	data = append(data, p.ID...)
	data = append(data, p.coseKey()...)
	object := must(webauthncbor.Marshal(map[string]any{"fmt": "none", "attStmt": map[string]any{}, "authData": data}))
	return p.answer(map[string]any{
		"clientDataJSON": b64(p.clientData("webauthn.create", challengeIn(options))), "attestationObject": b64(object), "transports": []string{"internal"},
	})
}

// Get answers navigator.credentials.get with these options.
func (p *Passkey) Get(options json.RawMessage) json.RawMessage { return p.Answer(challengeIn(options)) }

// Answer answers a challenge, base64url.
func (p *Passkey) Answer(challenge string) json.RawMessage {
	if !p.Countless {
		p.Count++
	}
	client, data := p.clientData("webauthn.get", challenge), p.authenticatorData(0)
	hash := sha256.Sum256(client)
	digest := sha256.Sum256(append(append([]byte{}, data...), hash[:]...))
	signature := must(ecdsa.SignASN1(rand.Reader, p.Private, digest[:]))
	return p.answer(map[string]any{"clientDataJSON": b64(client), "authenticatorData": b64(data), "signature": b64(signature)})
}

func (p *Passkey) answer(response map[string]any) json.RawMessage {
	return must(json.Marshal(map[string]any{
		"id": b64(p.ID), "rawId": b64(p.ID), "type": "public-key", "authenticatorAttachment": "platform", "clientExtensionResults": map[string]any{}, "response": response,
	}))
}

func (p *Passkey) clientData(ceremony, challenge string) []byte {
	if p.Type != "" {
		ceremony = p.Type
	}
	return must(json.Marshal(map[string]any{"type": ceremony, "challenge": challenge, "origin": p.Origin, "crossOrigin": false}))
}

func (p *Passkey) authenticatorData(flags byte) []byte {
	hash := sha256.Sum256([]byte(p.RPID))
	flags |= flagPresent
	if !p.Unverified {
		flags |= flagVerified
	}
	return binary.BigEndian.AppendUint32(append(hash[:], flags), p.Count)
}

// coseKey is the public key of RFC 9053: kty 2 (EC2), alg -7 (ES256), crv 1 (P-256), x, y.
func (p *Passkey) coseKey() []byte {
	point := must(p.Private.PublicKey.Bytes()) // 4, x, y
	return must(webauthncbor.Marshal(map[int]any{1: 2, 3: -7, -1: 1, -2: point[1:33], -3: point[33:]}))
}

func challengeIn(options json.RawMessage) string {
	var o struct {
		Challenge string `json:"challenge"`
	}
	if err := json.Unmarshal(options, &o); err != nil || o.Challenge == "" {
		panic(fmt.Sprintf("options without a challenge: %s", options))
	}
	return o.Challenge
}

func b64(raw []byte) string { return base64.RawURLEncoding.EncodeToString(raw) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
