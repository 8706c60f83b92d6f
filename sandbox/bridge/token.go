package bridge

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"

	"ambit.dev/ambit/sandbox/guest"
)

// Use is what a token admits. One token admits one operation of one sandbox.
type Use string

// The uses. The first group is answered by the allocation itself, the second
// is carried to the guest.
const (
	UseClaim  Use = "claim"
	UsePing   Use = "ping"
	UseSeal   Use = "seal"
	UsePause  Use = "pause"
	UseResume Use = "resume"
	UseEnd    Use = "end"

	UseExec    Use = "exec"
	UseAttach  Use = "attach"
	UseRead    Use = "read"
	UseWrite   Use = "write"
	UseSave    Use = "save"
	UseRestore Use = "restore"
	UseMetrics Use = "metrics"
)

// TokenLifetime is how long a token may be used to open a connection. What runs
// on a connection that is open may take longer.
const TokenLifetime = time.Minute

// clockSkew is how far the clocks of a worker and of a node may differ.
const clockSkew = 30 * time.Second

// Issuer is the iss claim of every token.
const Issuer = "ambit"

// Claims is the payload of a token, a compact JWS by an instance signing key.
type Claims struct {
	Issuer string `json:"iss"`
	// Sandbox is the id of the one sandbox that may accept the token.
	Sandbox string `json:"aud"`
	// Session is the session that holds the sandbox; empty for the control of a
	// warm one.
	Session   string `json:"sub,omitempty"`
	IssuedAt  int64  `json:"iat"`
	ExpiresAt int64  `json:"exp"`
	ID        string `json:"jti"`
	Use       Use    `json:"use"`
	// Epoch is the lease epoch of the session, where the use is the session's.
	Epoch int64 `json:"epoch"`
	// EffectKey is the key of the one effect that an exec token admits.
	EffectKey string `json:"effect_key,omitempty"`
}

// NewClaims fills in what every token has.
func NewClaims(now time.Time, sandboxID, session string, use Use, epoch int64, effectKey string) Claims {
	var nonce [16]byte
	_, _ = rand.Read(nonce[:]) // never fails, by its contract
	return Claims{
		Issuer: Issuer, Sandbox: sandboxID, Session: session,
		IssuedAt: now.Unix(), ExpiresAt: now.Add(TokenLifetime).Unix(),
		ID: hex.EncodeToString(nonce[:]), Use: use, Epoch: epoch, EffectKey: effectKey,
	}
}

// ErrToken is the base of every refusal of a token. The text behind it is for
// the log; the other end is told no more than this.
var ErrToken = errors.New("token refused")

// refetchEvery bounds how often an unknown key id makes a Verifier ask for the
// published keys: forged tokens must not become requests.
const refetchEvery = 2 * time.Second

// Verifier checks tokens against the instance's published keys.
type Verifier struct {
	sandbox string
	url     string
	client  *http.Client
	now     func() time.Time

	mu      sync.Mutex
	keys    jose.JSONWebKeySet
	fetched time.Time
	seen    map[string]int64 // token id to its expiry: a token is used once
}

// NewVerifier accepts tokens for one sandbox. keys may be empty; they are then
// fetched from url, as they are when a token names a key that is not among them.
func NewVerifier(sandboxID, url string, keys jose.JSONWebKeySet, client *http.Client) *Verifier {
	return &Verifier{sandbox: sandboxID, url: url, client: client, now: time.Now, keys: keys, seen: map[string]int64{}}
}

// Verify returns the claims of a token that this sandbox may accept now, once.
func (v *Verifier) Verify(ctx context.Context, token string) (Claims, error) {
	var c Claims
	jws, err := jose.ParseSignedCompact(token, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrToken, err)
	}
	key, err := v.key(ctx, jws.Signatures[0].Header.KeyID)
	if err != nil {
		return c, err
	}
	payload, err := jws.Verify(key)
	if err != nil {
		return c, fmt.Errorf("%w: %w", ErrToken, err)
	}
	if err := json.Unmarshal(payload, &c); err != nil {
		return c, fmt.Errorf("%w: claims: %w", ErrToken, err)
	}
	now := v.now()
	switch {
	case c.Issuer != Issuer:
		return c, fmt.Errorf("%w: issuer %q", ErrToken, c.Issuer)
	case c.Sandbox != v.sandbox:
		return c, fmt.Errorf("%w: made for sandbox %q", ErrToken, c.Sandbox)
	case now.Unix() > time.Unix(c.ExpiresAt, 0).Add(clockSkew).Unix():
		return c, fmt.Errorf("%w: expired", ErrToken)
	case now.Add(clockSkew).Unix() < c.IssuedAt:
		return c, fmt.Errorf("%w: not valid yet", ErrToken)
	case c.ExpiresAt-c.IssuedAt > int64(TokenLifetime/time.Second):
		return c, fmt.Errorf("%w: lives too long", ErrToken)
	case c.ID == "" || c.Use == "":
		return c, fmt.Errorf("%w: claims are missing", ErrToken)
	}
	if !v.first(c, now) {
		return c, fmt.Errorf("%w: used before", ErrToken)
	}
	return c, nil
}

// first notes a token and says whether it had not been seen.
func (v *Verifier) first(c Claims, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	oldest := now.Add(-2 * clockSkew).Unix()
	for id, exp := range v.seen {
		if exp < oldest {
			delete(v.seen, id)
		}
	}
	if _, seen := v.seen[c.ID]; seen {
		return false
	}
	v.seen[c.ID] = c.ExpiresAt
	return true
}

func (v *Verifier) key(ctx context.Context, kid string) (*jose.JSONWebKey, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if k := find(v.keys, kid); k != nil {
		return k, nil
	}
	if v.url == "" || v.now().Sub(v.fetched) < refetchEvery {
		return nil, fmt.Errorf("%w: unknown key %q", ErrToken, kid)
	}
	v.fetched = v.now()
	keys, err := FetchKeys(ctx, v.client, v.url)
	if err != nil {
		return nil, fmt.Errorf("%w: key %q is unknown, and fetching the published keys failed: %w", ErrToken, kid, err)
	}
	v.keys = keys
	if k := find(v.keys, kid); k != nil {
		return k, nil
	}
	return nil, fmt.Errorf("%w: unknown key %q", ErrToken, kid)
}

func find(set jose.JSONWebKeySet, kid string) *jose.JSONWebKey {
	if kid == "" {
		return nil
	}
	for _, k := range set.Key(kid) {
		if k.Valid() && k.IsPublic() {
			return &k
		}
	}
	return nil
}

// FetchKeys reads a JWKS document.
func FetchKeys(ctx context.Context, client *http.Client, url string) (jose.JSONWebKeySet, error) {
	var set jose.JSONWebKeySet
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, http.NoBody)
	if err != nil {
		return set, fmt.Errorf("fetch published keys: %w", err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return set, fmt.Errorf("fetch published keys: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	if resp.StatusCode != http.StatusOK {
		return set, fmt.Errorf("fetch published keys: %s", resp.Status)
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, 1<<20)).Decode(&set); err != nil {
		return set, fmt.Errorf("read published keys: %w", err)
	}
	return set, nil
}

// Allows says whether a token admits one request to the guest. What a request
// carries must be what the token names: a token for one effect can start, watch
// or signal that effect and no other, at its own epoch.
func (c Claims) Allows(req guest.Request) error {
	var body struct {
		EffectKey string `json:"effect_key"`
		Epoch     *int64 `json:"epoch"`
	}
	if len(req.Body) > 0 {
		if err := json.Unmarshal(req.Body, &body); err != nil {
			return fmt.Errorf("%w: request body: %w", ErrToken, err)
		}
	}
	if body.Epoch != nil && *body.Epoch != c.Epoch {
		return fmt.Errorf("%w: it is of epoch %d, the request of %d", ErrToken, c.Epoch, *body.Epoch)
	}
	if c.EffectKey != body.EffectKey && (c.Use == UseExec || c.Use == UseAttach || body.EffectKey != "") {
		return fmt.Errorf("%w: it is for another effect", ErrToken)
	}
	for _, op := range guestOps[c.Use] {
		if op == req.Op {
			return nil
		}
	}
	return fmt.Errorf("%w: a token for %q does not admit %q", ErrToken, c.Use, req.Op)
}

var guestOps = map[Use][]guest.Op{
	UseExec: {guest.OpExec, guest.OpAttach, guest.OpSignal, guest.OpReadOutput},
	// Attaching starts nothing, so it needs no admission: a new worker comes for
	// what the one before had begun.
	UseAttach:  {guest.OpAttach, guest.OpSignal, guest.OpReadOutput},
	UseRead:    {guest.OpReadFile, guest.OpList, guest.OpStat},
	UseWrite:   {guest.OpWriteFile, guest.OpRemove, guest.OpReadFile, guest.OpStat, guest.OpList},
	UseSave:    {guest.OpSave},
	UseRestore: {guest.OpRestore},
	UseMetrics: {guest.OpMetrics, guest.OpInfo},
}

// Guest says whether the use is carried to the guest.
func (u Use) Guest() bool { return guestOps[u] != nil }
