package sdjwt

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

// Types of what is signed, as their typ says.
const (
	// TypeKeyBinding is the proof of possession of RFC 9901.
	TypeKeyBinding = "kb+jwt"
	// TypeLink hands on, and confirms the next key; TypeLast ends a chain, and confirms none.
	TypeLink = "kb+sd-jwt+kb"
	TypeLast = "kb+sd-jwt"
)

// payloadMember is where a link keeps what it says: a list, whose one element is disclosed.
const payloadMember = "delegate_payload"

// Issue signs claims, of which those named in hidden can be disclosed selectively.
func Issue(sign Signer, typ string, claims map[string]any, hidden ...string) (Token, error) {
	out := make(map[string]any, len(claims)+2)
	var t Token
	digests := []string{}
	for name, v := range claims {
		if reserved(name) || name == sdAlgorithm {
			return Token{}, fmt.Errorf("the claim %q can't be issued", name)
		}
		if !slices.Contains(hidden, name) {
			out[name] = v
			continue
		}
		disclosure, digest, err := NewDisclosure(name, v)
		if err != nil {
			return Token{}, err
		}
		t.Disclosures, digests = append(t.Disclosures, disclosure), append(digests, digest)
	}
	slices.Sort(digests) // their order says nothing of the claims'
	out[sdAlgorithm] = sha256Name
	if len(digests) > 0 {
		out[sdMember] = digests
	}
	return t.sign(sign, typ, out)
}

func (t Token) sign(sign Signer, typ string, payload map[string]any) (Token, error) {
	raw, err := json.Marshal(payload)
	if err != nil {
		return Token{}, fmt.Errorf("write what is to be signed: %w", err)
	}
	if t.JWT, err = sign(map[string]any{"typ": typ}, raw); err != nil {
		return Token{}, fmt.Errorf("sign a token: %w", err)
	}
	return t, nil
}

// Root signs the first link of a chain. besides are claims about the signing itself; they are not disclosed selectively.
func Root(sign Signer, typ string, body any, besides map[string]any) (Token, error) {
	return link(sign, typ, body, besides)
}

// Occasion is for whom, and on what occasion, a link or a proof of possession is made.
type Occasion struct {
	Audience string
	Nonce    string
	At       time.Time
}

// Hand signs a link that follows prev: sign must be by the key that prev confirms. typ is TypeLink or TypeLast.
func Hand(sign Signer, typ string, prev Token, body any, on Occasion) (Token, error) {
	if on.Audience == "" || on.Nonce == "" {
		return Token{}, fmt.Errorf("a link names its audience and a nonce")
	}
	return link(sign, typ, body, map[string]any{
		"aud": on.Audience, "nonce": on.Nonce, "iat": on.At.Unix(), "sd_hash": Hash(prev.Presented()),
	})
}

func link(sign Signer, typ string, body any, besides map[string]any) (Token, error) {
	disclosure, digest, err := NewDisclosure("", body)
	if err != nil {
		return Token{}, err
	}
	payload := map[string]any{payloadMember: []any{map[string]any{dots: digest}}, sdAlgorithm: sha256Name}
	for name, v := range besides {
		if _, there := payload[name]; there || reserved(name) {
			return Token{}, fmt.Errorf("the claim %q can't be issued", name)
		}
		payload[name] = v
	}
	return Token{Disclosures: []string{disclosure}}.sign(sign, typ, payload)
}

// Bind adds the proof of possession of RFC 9901: sign must be by the key that the token confirms.
func (t Token) Bind(sign Signer, on Occasion) (Token, error) {
	raw, err := json.Marshal(map[string]any{"aud": on.Audience, "nonce": on.Nonce, "iat": on.At.Unix(), "sd_hash": Hash(t.Presented())})
	if err != nil {
		return Token{}, fmt.Errorf("write a proof of possession: %w", err)
	}
	if t.KeyBinding, err = sign(map[string]any{"typ": TypeKeyBinding}, raw); err != nil {
		return Token{}, fmt.Errorf("sign a proof of possession: %w", err)
	}
	return t, nil
}
