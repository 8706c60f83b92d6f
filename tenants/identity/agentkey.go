package identity

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"ambit.dev/ambit/internal/background"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants/identity/internal/identitydb"
)

// Subject is whose key it is. Make one with OfAgent, OfSession or OfOrganization.
type Subject string

// OfAgent is a stored agent, whichever version of it runs.
func OfAgent(a id.Agent) Subject { return Subject(a) }

// OfSession is the session of an agent that was written into the invoke and has no id of its own.
func OfSession(s id.Session) Subject { return Subject(s) }

// OfOrganization is the organisation itself, in whose name the platform signs.
func OfOrganization(o id.Org) Subject { return Subject(o) }

// Acting is who acts in a session: the stored agent, or the session itself where there is none.
func Acting(agent id.Agent, session id.Session) Subject {
	if agent != "" {
		return OfAgent(agent)
	}
	return OfSession(session)
}

// PublicKey is a key that others check signatures by.
type PublicKey struct {
	// KeyID is the thumbprint of RFC 7638, base64url, and the JWK's kid.
	KeyID string
	// JWK has kty EC, crv P-256, x, y, kid, alg ES256 and use sig.
	JWK jose.JSONWebKey
}

// KeyState is what a key is good for.
type KeyState string

const (
	// KeyActive keys are published and sign, or will within minutes.
	KeyActive KeyState = "active"
	// KeyRetiring keys have a successor: they sign no more, or will not soon, and stay published until they are retired.
	KeyRetiring KeyState = "retiring"
	// KeyRetired keys are not published.
	KeyRetired KeyState = "retired"
)

// AgentKeyInfo is a key as people see it. It holds no private half.
type AgentKeyInfo struct {
	PublicKey
	State       KeyState
	Compromised bool
	CreatedBy   string
	CreatedAt   time.Time
	// SignsFrom is when it began or will begin to sign; SignsUntil and RetiresAt are nil while it has no successor.
	SignsFrom  time.Time
	SignsUntil *time.Time
	RetiresAt  *time.Time
}

const (
	// overlap is how long a key stays published after it signed last: longer than any token lives and any cache holds.
	overlap = 24 * time.Hour
	// openedAtMost bounds the private halves that are kept opened in memory.
	openedAtMost = 4096

	foreignKeyViolation = "23503"
)

// AgentKeys makes, uses and publishes the ES256 keys of agents, sessions and organisations. It is safe for concurrent use.
type AgentKeys struct {
	db   *postgres.DB
	deps Deps
	base baseURL
	care *background.Loop

	mu     sync.Mutex
	opened map[string]*ecdsa.PrivateKey // by kid; the row decides on each use whether it may still sign
}

// NewAgentKeys returns the keys. publicURL is where /agents/{id}/did.json is served, and becomes the keys' did:web names.
func NewAgentKeys(db *postgres.DB, deps Deps, publicURL string) (*AgentKeys, error) {
	base, err := parseBase(publicURL)
	if err != nil {
		return nil, err
	}
	k := &AgentKeys{db: db, deps: deps, base: base, opened: map[string]*ecdsa.PrivateKey{}}
	k.care = background.New("care of agents' keys", reloadEvery, deps.Logger, k.careOnce)
	return k, nil
}

// AgentKey returns the public key that the subject signs with now, and makes one if it has none. It works in the caller's transaction,
// which is the organisation's. Its fault is not_found, for a subject that is not the organisation's.
func (k *AgentKeys) AgentKey(ctx context.Context, tx pgx.Tx, org id.Org, of Subject) (PublicKey, error) {
	row, err := k.signing(ctx, tx, org, of)
	if err != nil {
		return PublicKey{}, err
	}
	return publicOf(row.PublicJwk)
}

// SignAsAgent signs a payload with the subject's present key and returns a compact JWS (RFC 7515). header holds further protected members,
// such as typ: different typs keep a statement of one sort from passing for another (RFC 8725). alg and kid are set here, and refused there.
func (k *AgentKeys) SignAsAgent(ctx context.Context, tx pgx.Tx, org id.Org, of Subject, header map[string]any, payload []byte) (string, error) {
	row, err := k.signing(ctx, tx, org, of)
	if err != nil {
		return "", err
	}
	private, err := k.open(row.Kid, row.SealedPrivate, row.PublicJwk)
	if err != nil {
		return "", err
	}
	return signES256(row.Kid, private, header, payload)
}

// SignAsOrganization is SignAsAgent in the organisation's own name, as for what the platform states on its behalf.
func (k *AgentKeys) SignAsOrganization(ctx context.Context, tx pgx.Tx, org id.Org, header map[string]any, payload []byte) (string, error) {
	return k.SignAsAgent(ctx, tx, org, OfOrganization(org), header, payload)
}

func signES256(kid string, private *ecdsa.PrivateKey, header map[string]any, payload []byte) (string, error) {
	options := &jose.SignerOptions{}
	for name, value := range header {
		if name == "alg" || name == "kid" || name == "jwk" || name == "crit" || name == "b64" {
			return "", fmt.Errorf("the header %q is not the caller's to set", name)
		}
		options = options.WithHeader(jose.HeaderKey(name), value)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: jose.JSONWebKey{Key: private, KeyID: kid}}, options)
	if err != nil {
		return "", fmt.Errorf("prepare to sign as an agent: %w", err)
	}
	jws, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("sign as an agent: %w", err)
	}
	compact, err := jws.CompactSerialize()
	if err != nil {
		return "", fmt.Errorf("write a statement of an agent: %w", err)
	}
	return compact, nil
}

// signing finds the key that signs now, or makes the subject's first.
func (k *AgentKeys) signing(ctx context.Context, tx pgx.Tx, org id.Org, of Subject) (identitydb.OpenAgentKeyRow, error) {
	q := identitydb.New(tx)
	now := k.deps.Clock.Now()
	read := func() (identitydb.OpenAgentKeyRow, error) {
		return q.OpenAgentKey(ctx, identitydb.OpenAgentKeyParams{OrgID: string(org), Subject: string(of), Now: now})
	}
	row, err := read()
	if !errors.Is(err, pgx.ErrNoRows) {
		return row, wrapRead(err, of)
	}
	if err := q.LockAgentKeys(ctx, string(of)); err != nil {
		return row, fmt.Errorf("lock the keys of %s: %w", of, err)
	}
	// Somebody else may have made it while this one waited: at READ COMMITTED the second look sees it.
	if row, err = read(); !errors.Is(err, pgx.ErrNoRows) {
		return row, wrapRead(err, of)
	}
	if err := k.insert(ctx, q, org, of, now, now.Add(-skew)); err != nil {
		return row, err
	}
	row, err = read()
	return row, wrapRead(err, of)
}

func wrapRead(err error, of Subject) error {
	if err != nil {
		return fmt.Errorf("read the key of %s: %w", of, err)
	}
	return nil
}

// insert makes a key. The caller holds the subject's lock.
func (k *AgentKeys) insert(ctx context.Context, q *identitydb.Queries, org id.Org, of Subject, now, from time.Time) error {
	row := identitydb.InsertAgentKeyParams{OrgID: string(org), CreatedBy: principal.From(ctx).ID, CreatedAt: now, SignsFrom: from}
	name := string(of)
	switch id.PrefixOf(name) {
	case id.Agent("").Prefix():
		row.AgentID = &name
	case id.Session("").Prefix():
		row.SessionID = &name
	default:
		if name != string(org) {
			return fault.NotFound()
		}
	}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("generate the key of %s: %w", of, err)
	}
	jwk := jose.JSONWebKey{Key: private.Public(), Algorithm: string(jose.ES256), Use: "sig"}
	thumbprint, err := jwk.Thumbprint(crypto.SHA256)
	if err != nil {
		return fmt.Errorf("take the thumbprint of a key: %w", err)
	}
	jwk.KeyID = base64.RawURLEncoding.EncodeToString(thumbprint)
	row.Kid = jwk.KeyID
	if row.PublicJwk, err = jwk.MarshalJSON(); err != nil {
		return fmt.Errorf("write a public key: %w", err)
	}
	secret, err := private.Bytes()
	if err != nil {
		return fmt.Errorf("write a private key: %w", err)
	}
	if row.SealedPrivate, err = k.deps.Sealer.Seal(secret, agentKeyPurpose(row.Kid)); err != nil {
		return fmt.Errorf("seal the key of %s: %w", of, err)
	}
	if err := q.InsertAgentKey(ctx, row); err != nil {
		var refused *pgconn.PgError
		if errors.As(err, &refused) && refused.Code == foreignKeyViolation {
			return fault.NotFound() // no such agent or session of this organisation
		}
		return fmt.Errorf("insert the key of %s: %w", of, err)
	}
	k.deps.Logger.InfoContext(ctx, "agent key made", "org", org, "subject", of, "key", row.Kid)
	return nil
}

func agentKeyPurpose(kid string) string { return "agent_keys/" + kid }

// open returns the private half, and keeps it opened: unsealing takes longer than signing.
func (k *AgentKeys) open(kid string, sealed []byte, public json.RawMessage) (*ecdsa.PrivateKey, error) {
	k.mu.Lock()
	private, ok := k.opened[kid]
	k.mu.Unlock()
	if ok {
		return private, nil
	}
	secret, err := k.deps.Sealer.Unseal(sealed, agentKeyPurpose(kid))
	if err != nil {
		return nil, fmt.Errorf("open agent key %s: %w", kid, err)
	}
	if private, err = ecdsa.ParseRawPrivateKey(elliptic.P256(), secret); err != nil {
		return nil, fmt.Errorf("read agent key %s: %w", kid, err)
	}
	known, err := publicOf(public)
	if err != nil {
		return nil, err
	}
	if key, ok := known.JWK.Key.(*ecdsa.PublicKey); !ok || !key.Equal(private.Public()) {
		return nil, fmt.Errorf("the halves of agent key %s do not fit", kid)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.opened) >= openedAtMost {
		clear(k.opened)
	}
	k.opened[kid] = private
	return private, nil
}

func publicOf(document json.RawMessage) (PublicKey, error) {
	var jwk jose.JSONWebKey
	if err := json.Unmarshal(document, &jwk); err != nil {
		return PublicKey{}, fmt.Errorf("read a public key: %w", err)
	}
	return PublicKey{KeyID: jwk.KeyID, JWK: jwk}, nil
}
