package identity

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/go-jose/go-jose/v4"
)

// Sign returns the claims, written as JSON, as a compact JWS (RFC 7515) with the header members alg, kid and typ "JWT".
func (k *Keyring) Sign(ctx context.Context, claims any) (string, error) {
	return k.SignAs(ctx, "JWT", claims)
}

// SignAs is Sign with another typ, such as "receipt+jwt". Different typs keep a statement of one sort from passing for another (RFC 8725);
// whoever verifies must ask for the one expected.
func (k *Keyring) SignAs(ctx context.Context, typ string, claims any) (string, error) {
	payload, err := json.Marshal(claims)
	if err != nil {
		return "", fmt.Errorf("write the claims: %w", err)
	}
	if len(payload) == 0 || payload[0] != '{' {
		return "", errors.New("claims are one JSON object")
	}
	keyID, private, err := k.signer(ctx)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(
		jose.SigningKey{Algorithm: jose.EdDSA, Key: jose.JSONWebKey{Key: private, KeyID: keyID}},
		(&jose.SignerOptions{}).WithType(jose.ContentType(typ)),
	)
	if err != nil {
		return "", fmt.Errorf("prepare to sign: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign: %w", err)
	}
	compact, err := jws.CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("write a signed statement: %w", err)
	}
	return compact, nil
}

// signer returns the key that signs now. When memory has none, as when this process slept through a rotation, it reads them again.
func (k *Keyring) signer(ctx context.Context) (string, ed25519.PrivateKey, error) {
	for attempt := range 2 {
		now := k.deps.Clock.Now()
		k.mu.RLock()
		for _, key := range k.keys {
			if key.signsAt(now) {
				k.mu.RUnlock()
				return key.id, key.private, nil
			}
		}
		k.mu.RUnlock()
		if attempt == 0 {
			if err := k.runOnce(ctx); err != nil {
				return "", nil, fmt.Errorf("look for a key that signs: %w", err)
			}
		}
	}
	return "", nil, errors.New("the instance has no key that signs at this time")
}

// Statement is what was verified.
type Statement struct {
	KeyID   string
	Type    string
	Payload []byte
}

// Verify checks that a compact JWS was signed by a key of this instance that is not revoked. It does not look at the claims: expiry,
// audience and typ are for the caller to check. Its error wraps ErrSignature unless the database failed.
func (k *Keyring) Verify(ctx context.Context, token string) (Statement, error) {
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	header := jws.Signatures[0].Protected
	public, ok := k.publicKey(header.KeyID)
	if !ok {
		if err := k.reload(ctx); err != nil {
			return Statement{}, err
		}
		if public, ok = k.publicKey(header.KeyID); !ok {
			return Statement{}, fmt.Errorf("%w: the key is not known", ErrSignature)
		}
	}
	payload, err := jws.Verify(public)
	if err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrSignature, err)
	}
	typ, _ := header.ExtraHeaders[jose.HeaderType].(string)
	return Statement{KeyID: header.KeyID, Type: typ, Payload: payload}, nil
}

func (k *Keyring) publicKey(keyID string) (jose.JSONWebKey, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for _, key := range k.keys {
		if key.id == keyID && !key.revoked {
			return key.public, true
		}
	}
	return jose.JSONWebKey{}, false
}

// reload reads the keys again, unless that was done a moment ago.
func (k *Keyring) reload(ctx context.Context) error {
	k.mu.RLock()
	recent := k.deps.Clock.Now().Sub(k.loaded) < reloadAtMost
	k.mu.RUnlock()
	if recent {
		return nil
	}
	if err := k.runOnce(ctx); err != nil {
		return fmt.Errorf("read the published keys again: %w", err)
	}
	return nil
}

// Typed signs with one typ only.
type Typed struct {
	keys *Keyring
	typ  string
}

// Typed returns a signer of statements of one typ: see SignAs.
func (k *Keyring) Typed(typ string) Typed { return Typed{keys: k, typ: typ} }

// Sign is SignAs with the signer's typ.
func (t Typed) Sign(ctx context.Context, claims any) (string, error) {
	return t.keys.SignAs(ctx, t.typ, claims)
}
