package seal

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"

	"github.com/tink-crypto/tink-go/v2/aead"
	"github.com/tink-crypto/tink-go/v2/aead/subtle"
	"github.com/tink-crypto/tink-go/v2/tink"
)

// ErrUnknownKey is wrapped by Unseal's error when the value was sealed under a master key that this process was not given.
var ErrUnknownKey = errors.New("sealed under a master key that is not configured")

// ErrBroken is wrapped by Unseal's error when the value was changed, cut, or sealed for another purpose.
var ErrBroken = errors.New("sealed value does not open")

const (
	// version1 is the first byte of a sealed value: an envelope of Tink's, under AES-256-GCM on both levels.
	version1 = 1
	// keyIDLen is how many bytes of the master key's digest follow, to choose among several master keys.
	keyIDLen  = 4
	headerLen = 1 + keyIDLen
)

type keyID [keyIDLen]byte

type masterKey struct {
	id       keyID
	raw      []byte
	envelope tink.AEAD
}

// Sealer seals under the first of its master keys and opens what any of them sealed. It is safe for concurrent use.
type Sealer struct {
	primary masterKey
	all     map[keyID]masterKey
}

// newSealer takes the master keys, 32 bytes each; the first one seals.
func newSealer(keys [][]byte) (*Sealer, error) {
	if len(keys) == 0 {
		return nil, errors.New("no master key")
	}
	s := &Sealer{all: make(map[keyID]masterKey, len(keys))}
	for i, raw := range keys {
		kek, err := subtle.NewAESGCM(raw)
		if err != nil {
			return nil, fmt.Errorf("master key %d: %w", i+1, err)
		}
		k := masterKey{id: idOf(raw), raw: raw, envelope: aead.NewKMSEnvelopeAEAD2(aead.AES256GCMKeyTemplate(), kek)}
		if _, double := s.all[k.id]; double {
			return nil, fmt.Errorf("master key %d is given twice", i+1)
		}
		s.all[k.id] = k
		if i == 0 {
			s.primary = k
		}
	}
	return s, nil
}

// idOf names a master key without telling anything about it.
func idOf(raw []byte) (id keyID) {
	sum := sha256.Sum256(append([]byte("ambit master key id\x00"), raw...))
	copy(id[:], sum[:])
	return id
}

// Seal encrypts plaintext. The purpose, such as "signing_keys/k1", is not stored: Unseal must be given the same one, so that a sealed
// value moved to another row or another table does not open there.
func (s *Sealer) Seal(plaintext []byte, purpose string) ([]byte, error) {
	sealed, err := s.primary.envelope.Encrypt(plaintext, []byte(purpose))
	if err != nil {
		return nil, fmt.Errorf("seal for %q: %w", purpose, err)
	}
	out := make([]byte, 0, headerLen+len(sealed))
	out = append(out, version1)
	out = append(out, s.primary.id[:]...)
	return append(out, sealed...), nil
}

// Unseal returns what was sealed for this purpose. Its error wraps ErrUnknownKey or ErrBroken and says nothing of the content.
func (s *Sealer) Unseal(sealed []byte, purpose string) ([]byte, error) {
	if len(sealed) <= headerLen {
		return nil, fmt.Errorf("unseal for %q: %w: only %d bytes", purpose, ErrBroken, len(sealed))
	}
	if sealed[0] != version1 {
		return nil, fmt.Errorf("unseal for %q: %w: form %d is not known here", purpose, ErrBroken, sealed[0])
	}
	id := keyID(sealed[1:headerLen])
	k, ok := s.all[id]
	if !ok {
		return nil, fmt.Errorf("unseal for %q: %w: it is key %s", purpose, ErrUnknownKey, hex.EncodeToString(id[:]))
	}
	plaintext, err := k.envelope.Decrypt(sealed[headerLen:], []byte(purpose))
	if err != nil {
		return nil, fmt.Errorf("unseal for %q: %w", purpose, ErrBroken)
	}
	return plaintext, nil
}

// Stale reports whether the value was sealed under another master key than the present first one, and should be sealed anew.
func (s *Sealer) Stale(sealed []byte) bool {
	return len(sealed) <= headerLen || !bytes.Equal(sealed[1:headerLen], s.primary.id[:])
}

// KeyID names the master key that seals, for logs and for comparing replicas: eight hexadecimal digits that reveal nothing of it.
func (s *Sealer) KeyID() string { return hex.EncodeToString(s.primary.id[:]) }

// Derive makes a secret of its own for a purpose, such as the password of a database role, from the master key that seals. The same key
// and purpose always give the same 32 bytes, on every replica; nothing about the master key or about other purposes follows from them.
func (s *Sealer) Derive(purpose string) []byte {
	out, err := hkdf.Key(sha256.New, s.primary.raw, nil, "ambit derive\x00"+purpose, sha256.Size)
	if err != nil {
		panic("seal: " + err.Error()) // only for a length or a hash that could never work
	}
	return out
}
