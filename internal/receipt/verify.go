package receipt

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"

	"github.com/go-jose/go-jose/v4"
)

// Type is the typ of a receipt's signature: another statement of the same instance does not pass for a receipt.
const Type = "receipt+jwt"

// MaxBytes bounds a receipt, and a key document.
const MaxBytes = 64 << 20

// Proven is a receipt whose signature holds.
type Proven struct {
	// KeyID names the instance's key that signed it.
	KeyID string
	// Kind is "kill_receipt" or "stop_receipt".
	Kind string
	// Claims are the signed members, as JSON.
	Claims []byte
}

// Refused says why a receipt is refused.
type Refused struct{ Reason string }

func (r *Refused) Error() string { return "the receipt is refused: " + r.Reason }

func refuse(format string, args ...any) error { return &Refused{fmt.Sprintf(format, args...)} }

// Verify checks a receipt: its JSON as the API gives it, or only its compact signature. keys is the instance's key document (RFC 7517). Every
// member of the JSON must be what was signed. Its error is a *Refused, or says that the key document can't be read.
func Verify(document, keys []byte) (Proven, error) {
	var set jose.JSONWebKeySet
	if len(keys) > MaxBytes || json.Unmarshal(keys, &set) != nil || len(set.Keys) == 0 {
		return Proven{}, errors.New("the key document holds no keys: it must be what the instance publishes at /.well-known/jwks.json")
	}
	if len(document) > MaxBytes {
		return Proven{}, refuse("it is larger than %d MiB", MaxBytes>>20)
	}
	document = bytes.TrimSpace(document)
	if len(document) == 0 {
		return Proven{}, refuse("it is empty")
	}
	compact, shown := string(document), map[string]any(nil)
	if document[0] == '{' {
		var err error
		if compact, shown, err = split(document); err != nil {
			return Proven{}, err
		}
	}
	p, err := check(compact, set)
	if err != nil {
		return Proven{}, err
	}
	if shown != nil {
		signed, err := object(p.Claims)
		if err != nil {
			return Proven{}, refuse("what was signed is no receipt")
		}
		if name, same := compare(shown, signed); !same {
			return Proven{}, refuse("%s is not what the instance signed: it was changed afterwards", name)
		}
	}
	return p, nil
}

// split takes the signature out of a receipt's JSON, and what the API says besides and nobody signed.
func split(document []byte) (compact string, members map[string]any, err error) {
	if members, err = object(document); err != nil {
		return "", nil, refuse("it is not whole: %s", err)
	}
	if inner, ok := members["receipt"].(map[string]any); ok && members["type"] == "stop" { // an order to stop, with its receipt inside
		members = inner
	} else if members["type"] == "stop" {
		return "", nil, refuse("the order is not complete yet: it has no receipt")
	}
	compact, _ = members["signature"].(string)
	if compact == "" {
		return "", nil, refuse("it carries no signature: it was not complete when it was taken down")
	}
	if complete, told := members["complete"]; told && complete != true {
		return "", nil, refuse("it says of itself that it is not complete")
	}
	delete(members, "signature")
	delete(members, "complete")
	return compact, members, nil
}

func check(compact string, set jose.JSONWebKeySet) (Proven, error) {
	if strings.Count(compact, ".") != 2 {
		return Proven{}, refuse("its signature is not whole")
	}
	jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return Proven{}, refuse("its signature can't be read; it must be a compact JWS by an Ed25519 key")
	}
	header := jws.Signatures[0].Protected
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); typ != Type {
		return Proven{}, refuse("what was signed is not a receipt (typ is %q)", clip(typ))
	}
	found := set.Key(header.KeyID)
	if header.KeyID == "" || len(found) == 0 {
		return Proven{}, refuse("it was signed by the key %q, which is not among the instance's: it is another instance's, or the key document is older than the receipt", clip(header.KeyID))
	}
	if !found[0].Valid() || !found[0].IsPublic() {
		return Proven{}, errors.New("the key document holds a key that is not a public one")
	}
	claims, err := jws.Verify(found[0])
	if err != nil {
		return Proven{}, refuse("the signature does not hold: the receipt was forged or altered")
	}
	members, err := object(claims)
	if err != nil {
		return Proven{}, refuse("what was signed is no receipt")
	}
	kind, _ := members["type"].(string)
	if kind != "kill_receipt" && kind != "stop_receipt" {
		return Proven{}, refuse("it is of a kind that this program does not know (%q)", clip(kind))
	}
	return Proven{KeyID: header.KeyID, Kind: kind, Claims: claims}, nil
}

// object reads one JSON object and nothing after it. A name that comes twice is refused: readers would differ on which of the two counts.
func object(raw []byte) (map[string]any, error) {
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	v, err := value(d, 0)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows after its end")
	}
	m, ok := v.(map[string]any)
	if !ok {
		return nil, errors.New("it is not a JSON object")
	}
	return m, nil
}

const maxDepth = 32

func value(d *json.Decoder, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("it is nested too deep")
	}
	token, err := d.Token()
	if err != nil {
		return nil, errors.New("its JSON breaks off or is not valid")
	}
	switch token {
	case json.Delim('{'):
		m := map[string]any{}
		for d.More() {
			name, err := d.Token()
			if err != nil {
				return nil, errors.New("its JSON breaks off or is not valid")
			}
			key, _ := name.(string)
			if _, twice := m[key]; twice {
				return nil, fmt.Errorf("the member %q stands twice", clip(key))
			}
			if m[key], err = value(d, depth+1); err != nil {
				return nil, err
			}
		}
		return m, closes(d)
	case json.Delim('['):
		list := []any{}
		for d.More() {
			one, err := value(d, depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, one)
		}
		return list, closes(d)
	}
	return token, nil
}

func closes(d *json.Decoder) error {
	if _, err := d.Token(); err != nil {
		return errors.New("its JSON breaks off or is not valid")
	}
	return nil
}

// compare names the first member that differs.
func compare(shown, signed map[string]any) (name string, same bool) {
	for name, v := range shown {
		was, ok := signed[name]
		if !ok || !reflect.DeepEqual(v, was) {
			return name, false
		}
	}
	for name := range signed {
		if _, ok := shown[name]; !ok {
			return name, false
		}
	}
	return "", true
}

// clip makes a stranger's text fit into a message.
func clip(s string) string {
	if len(s) > 80 {
		s = s[:80] + "…"
	}
	return s
}
