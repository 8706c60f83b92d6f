package sdjwt

import (
	"encoding/json"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Skew is how far two clocks may differ.
const Skew = time.Minute

// Expect is what a verifier asks for.
type Expect struct {
	// Now is the verifier's time.
	Now time.Time
	// Type is the typ that what the issuer signed must have; empty takes any.
	Type string
	// Audience and Nonce are those of the occasion; each is asked for where it is not empty.
	Audience string
	Nonce    string
	// KeyBinding asks for the proof of possession.
	KeyBinding bool
	// MaxAge is how old a proof of possession may be; zero for any age.
	MaxAge time.Duration
	// AnyTime passes over exp and nbf: of what is looked at long after it was in force.
	AnyTime bool
}

// Verified is what a token proves: the claims with all that was disclosed, and nothing of what was not.
type Verified struct {
	Header map[string]any
	Claims map[string]any
}

// Verify checks a token against its issuer's key.
func Verify(t Token, issuer jose.JSONWebKey, want Expect) (Verified, error) {
	header, payload, err := signed(t.JWT, issuer)
	if err != nil {
		return Verified{}, err
	}
	if typ, _ := header["typ"].(string); want.Type != "" && typ != want.Type {
		return Verified{}, refuse(WrongType, "its typ is %q, and %q is asked for", clip(typ), want.Type)
	}
	claims, err := t.resolve(payload)
	if err != nil {
		return Verified{}, err
	}
	if err := want.time(claims); err != nil {
		return Verified{}, err
	}
	if t.KeyBinding == "" {
		if want.KeyBinding {
			return Verified{}, refuse(KeyBindingMissing, "the holder has not shown that it has the key")
		}
		return Verified{Header: header, Claims: claims}, nil
	}
	if !want.KeyBinding {
		return Verified{}, refuse(KeyBindingUnwanted, "a proof of possession that nobody asked for can't be judged")
	}
	key, err := Confirmed(claims)
	if err != nil {
		return Verified{}, err
	}
	bound, proof, err := signed(t.KeyBinding, key)
	if err != nil {
		return Verified{}, err
	}
	if bound["typ"] != TypeKeyBinding {
		return Verified{}, refuse(WrongType, "the proof of possession is not one")
	}
	if hash, _ := proof["sd_hash"].(string); !sameText(hash, Hash(t.Presented())) {
		return Verified{}, refuse(BrokenChain, "the proof of possession is about other disclosures")
	}
	return Verified{Header: header, Claims: claims}, want.occasion(proof)
}

// Confirmed is the key that claims confirm (RFC 7800): only a public key of P-256 is one.
func Confirmed(claims map[string]any) (jose.JSONWebKey, error) {
	var key jose.JSONWebKey
	cnf, _ := claims["cnf"].(map[string]any)
	jwk, ok := cnf["jwk"].(map[string]any)
	if !ok {
		return key, refuse(ConfirmationMissing, "it confirms no key")
	}
	if _, private := jwk["d"]; private {
		return key, refuse(WrongKey, "it carries a private key")
	}
	raw, err := json.Marshal(jwk)
	if err == nil {
		err = key.UnmarshalJSON(raw)
	}
	if err != nil || !key.Valid() || !key.IsPublic() {
		return key, refuse(WrongKey, "the key that it confirms can't be read")
	}
	return key, nil
}

func (w Expect) time(claims map[string]any) error {
	if w.AnyTime {
		return nil
	}
	if exp, told, err := moment(claims, "exp"); err != nil {
		return err
	} else if told && !w.Now.Before(exp) {
		return refuse(Expired, "it was in force until %s", exp.Format(time.RFC3339))
	}
	for _, name := range []string{"nbf", "iat"} {
		if at, told, err := moment(claims, name); err != nil {
			return err
		} else if told && w.Now.Add(Skew).Before(at) {
			return refuse(NotYetValid, "it is from %s on", at.Format(time.RFC3339))
		}
	}
	return nil
}

// occasion checks aud, nonce and iat of a link, or of a proof of possession.
func (w Expect) occasion(claims map[string]any) error {
	aud, _ := claims["aud"].(string)
	nonce, _ := claims["nonce"].(string)
	if aud == "" || (w.Audience != "" && !sameText(aud, w.Audience)) {
		return refuse(WrongAudience, "it was made for %q", clip(aud))
	}
	if nonce == "" || (w.Nonce != "" && !sameText(nonce, w.Nonce)) {
		return refuse(WrongNonce, "it was made for another occasion")
	}
	at, told, err := moment(claims, "iat")
	if err != nil {
		return err
	}
	if !told {
		return refuse(Malformed, "it does not say when it was made")
	}
	if w.MaxAge > 0 && w.Now.Sub(at) > w.MaxAge+Skew {
		return refuse(Expired, "it was made at %s", at.Format(time.RFC3339))
	}
	return w.time(claims)
}

// moment reads a NumericDate of whole seconds.
func moment(claims map[string]any, name string) (at time.Time, told bool, err error) {
	v, told := claims[name]
	if !told {
		return time.Time{}, false, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return time.Time{}, true, refuse(Malformed, "%s is no number", name)
	}
	seconds, err := n.Int64()
	if err != nil || seconds < 0 || seconds > 1<<40 {
		return time.Time{}, true, refuse(Malformed, "%s is no whole number of seconds", name)
	}
	return time.Unix(seconds, 0).UTC(), true, nil
}

// Chain is a root and the links that follow from it.
type Chain []Token

func (c Chain) String() string {
	parts := make([]string, len(c))
	for i, t := range c {
		parts[i] = t.Presented()
	}
	return strings.Join(parts, "~")
}

// ParseChain takes a chain apart. It checks the form only.
func ParseChain(text string) (Chain, error) {
	if len(text) > MaxBytes {
		return nil, refuse(TooLarge, "it has %d bytes", len(text))
	}
	parts := strings.Split(text, "~~")
	if len(parts) > MaxLinks {
		return nil, refuse(TooLarge, "it has %d links", len(parts))
	}
	chain := make(Chain, len(parts))
	for i, part := range parts {
		if i < len(parts)-1 {
			part += "~"
		}
		t, err := Parse(part)
		if err != nil {
			return nil, err
		}
		if t.KeyBinding != "" {
			return nil, refuse(KeyBindingUnwanted, "in a chain each link is the proof of possession of the one before it")
		}
		chain[i] = t
	}
	return chain, nil
}

// Link is what one link of a chain proves.
type Link struct {
	Verified
	// Body is what the link says.
	Body map[string]any
	// Last says that the link confirms no key: nothing can follow it.
	Last bool
}

// VerifyChain checks each link against the key that the one before it confirms, and the first against the root's. Audience and nonce are asked
// of the last link. Whether a link may say what it says is for the caller to judge.
func VerifyChain(chain Chain, root jose.JSONWebKey, want Expect) ([]Link, error) {
	if len(chain) == 0 {
		return nil, refuse(Malformed, "it has no links")
	}
	links := make([]Link, 0, len(chain))
	key := root
	for i, t := range chain {
		each := Expect{Now: want.Now, AnyTime: want.AnyTime}
		if i == 0 {
			each.Type = want.Type
		}
		v, err := Verify(t, key, each)
		if err != nil {
			return nil, err
		}
		l := Link{Verified: v}
		if l.Body, err = body(v.Claims); err != nil {
			return nil, err
		}
		if err := each.time(l.Body); err != nil {
			return nil, err
		}
		_, confirms := l.Body["cnf"]
		if i > 0 {
			if err := follows(v, chain[i-1], confirms); err != nil {
				return nil, err
			}
			last := Expect{Now: want.Now, AnyTime: want.AnyTime}
			if i == len(chain)-1 {
				last = want
			}
			if err := last.occasion(v.Claims); err != nil {
				return nil, err
			}
		}
		l.Last = !confirms
		if !l.Last {
			if key, err = Confirmed(l.Body); err != nil {
				return nil, err
			}
		} else if i < len(chain)-1 {
			return nil, refuse(ConfirmationMissing, "a link follows one that confirms no key")
		}
		links = append(links, l)
	}
	return links, nil
}

// follows checks that a link is bound to the one before it.
func follows(v Verified, prev Token, confirms bool) error {
	switch typ, _ := v.Header["typ"].(string); {
	case typ == TypeLink && !confirms:
		return refuse(ConfirmationMissing, "a link that hands on must confirm a key")
	case typ == TypeLast && confirms:
		return refuse(WrongType, "the end of a chain confirms no key")
	case typ != TypeLink && typ != TypeLast:
		return refuse(WrongType, "its typ is %q, which is no link's", clip(typ))
	}
	hash, bySD := v.Claims["sd_hash"].(string)
	issuer, byJWT := v.Claims["issuer_jwt_hash"].(string)
	switch {
	case bySD == byJWT:
		return refuse(BrokenChain, "a link is bound to the one before it in exactly one way")
	case bySD && !sameText(hash, Hash(prev.Presented())), byJWT && !sameText(issuer, Hash(prev.JWT)):
		return refuse(BrokenChain, "a link was made for another than the one before it")
	}
	return nil
}

func body(claims map[string]any) (map[string]any, error) {
	list, _ := claims[payloadMember].([]any)
	if len(list) != 1 {
		return nil, refuse(Malformed, "a link says one thing, and it is disclosed")
	}
	m, ok := list[0].(map[string]any)
	if !ok {
		return nil, refuse(Malformed, "what a link says is no object")
	}
	return m, nil
}
