package identity

import (
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"ambit.dev/ambit/internal/seal"
	"ambit.dev/ambit/tenants/identity/internal/identitydb"
)

// signingKey is one key of the instance, as held in memory.
type signingKey struct {
	id     string
	public jose.JSONWebKey
	// private is nil once the key signs no more.
	private ed25519.PrivateKey
	from    time.Time
	until   *time.Time
	revoked bool
	// stale says that the private half is sealed under an older master key.
	stale bool
}

func (k signingKey) signsAt(now time.Time) bool {
	return !k.revoked && k.private != nil && !k.from.After(now) && (k.until == nil || k.until.After(now))
}

func purposeOf(keyID string) string { return "signing_keys/" + keyID }

// generate makes a key and the row that keeps it. Its id is the thumbprint of RFC 7638, so that it follows from the key.
func generate(sealer *seal.Sealer, now, from time.Time) (identitydb.InsertSigningKeyParams, error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return identitydb.InsertSigningKeyParams{}, fmt.Errorf("generate a signing key: %w", err)
	}
	jwk := jose.JSONWebKey{Key: public, Algorithm: string(jose.EdDSA), Use: "sig"}
	thumbprint, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return identitydb.InsertSigningKeyParams{}, fmt.Errorf("take the thumbprint of a signing key: %w", err)
	}
	jwk.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	document, err := jwk.MarshalJSON()
	if err != nil {
		return identitydb.InsertSigningKeyParams{}, fmt.Errorf("write a public key: %w", err)
	}
	sealed, err := sealer.Seal(private.Seed(), purposeOf(jwk.KeyID))
	if err != nil {
		return identitydb.InsertSigningKeyParams{}, fmt.Errorf("seal a signing key: %w", err)
	}
	return identitydb.InsertSigningKeyParams{ID: jwk.KeyID, PublicJwk: document, SealedPrivate: sealed, CreatedAt: now, SignsFrom: from}, nil
}

// open reads a row. A private half that does not fit the public one is refused: it would sign what nobody can check.
func open(sealer *seal.Sealer, row identitydb.SigningKey) (signingKey, error) {
	k := signingKey{id: row.ID, from: row.SignsFrom, until: row.SignsUntil, revoked: row.RevokedAt != nil}
	if err := json.Unmarshal(row.PublicJwk, &k.public); err != nil {
		return signingKey{}, fmt.Errorf("read the public half of signing key %s: %w", row.ID, err)
	}
	public, ok := k.public.Key.(ed25519.PublicKey)
	if !ok || k.public.KeyID != row.ID {
		return signingKey{}, fmt.Errorf("signing key %s is not an Ed25519 key of that id", row.ID)
	}
	if row.SealedPrivate == nil || k.revoked {
		return k, nil
	}
	seed, err := sealer.Unseal(row.SealedPrivate, purposeOf(row.ID))
	if err != nil {
		return signingKey{}, fmt.Errorf("open signing key %s, which needs the master key that this instance was started with before: %w", row.ID, err)
	}
	if len(seed) != ed25519.SeedSize {
		return signingKey{}, fmt.Errorf("signing key %s has a private half of %d bytes", row.ID, len(seed))
	}
	k.private = ed25519.NewKeyFromSeed(seed)
	if !public.Equal(k.private.Public()) {
		return signingKey{}, fmt.Errorf("the halves of signing key %s do not fit", row.ID)
	}
	k.stale = sealer.Stale(row.SealedPrivate)
	return k, nil
}
