package sdjwt

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"slices"
)

// The members that RFC 9901 reserves.
const (
	sdMember    = "_sd"
	sdAlgorithm = "_sd_alg"
	dots        = "..."
	sha256Name  = "sha-256"
)

// disclosed is one disclosure that was read.
type disclosed struct {
	text   string
	digest string
	// name is empty for an element of a list.
	name    string
	element bool
	value   any
	used    bool
}

// NewDisclosure writes a disclosure with a fresh salt and returns it with its digest. Without a name it stands for an element of a list.
func NewDisclosure(name string, value any) (disclosure, digest string, err error) {
	var salt [16]byte
	if _, err := rand.Read(salt[:]); err != nil {
		return "", "", fmt.Errorf("make a salt: %w", err)
	}
	parts := []any{b64.EncodeToString(salt[:])}
	if name != "" {
		if reserved(name) {
			return "", "", fmt.Errorf("the claim %q can't be disclosed selectively", name)
		}
		parts = append(parts, name)
	}
	raw, err := json.Marshal(append(parts, value))
	if err != nil {
		return "", "", fmt.Errorf("write a disclosure: %w", err)
	}
	disclosure = b64.EncodeToString(raw)
	return disclosure, Hash(disclosure), nil
}

func reserved(name string) bool { return name == sdMember || name == dots }

// disclosures reads those that travel with a token, by their digests.
func (t Token) disclosures() (map[string]*disclosed, error) {
	found := make(map[string]*disclosed, len(t.Disclosures))
	for _, text := range t.Disclosures {
		d := &disclosed{text: text, digest: Hash(text)}
		if _, twice := found[d.digest]; twice {
			return nil, refuse(DuplicateDisclosure, "a disclosure stands twice")
		}
		raw, err := decode(text)
		if err != nil {
			return nil, refuse(Malformed, "a disclosure: %s", err)
		}
		v, err := value(raw)
		if err != nil {
			return nil, refuse(Malformed, "a disclosure: %s", err)
		}
		list, ok := v.([]any)
		if !ok || len(list) < 2 || len(list) > 3 {
			return nil, refuse(Malformed, "a disclosure is a list of a salt, a name where it has one, and a value")
		}
		if salt, ok := list[0].(string); !ok || salt == "" {
			return nil, refuse(Malformed, "a disclosure has no salt")
		}
		d.element, d.value = len(list) == 2, list[len(list)-1]
		if !d.element {
			if d.name, ok = list[1].(string); !ok {
				return nil, refuse(Malformed, "a disclosure's name is no text")
			}
			if reserved(d.name) {
				return nil, refuse(ClaimHidden, "a disclosure is named %q", d.name)
			}
		}
		found[d.digest] = d
	}
	return found, nil
}

// reading puts disclosures in the place of their digests.
type reading struct {
	by   map[string]*disclosed
	seen map[string]bool
}

// resolve returns the payload as it is with all that was disclosed, and without what was not.
func (t Token) resolve(payload map[string]any) (map[string]any, error) {
	if alg, told := payload[sdAlgorithm]; told && alg != sha256Name {
		return nil, refuse(WrongAlgorithm, "its digests are by %v; only sha-256 counts", alg)
	}
	by, err := t.disclosures()
	if err != nil {
		return nil, err
	}
	r := &reading{by: by, seen: map[string]bool{}}
	out, err := r.object(payload, 0)
	if err != nil {
		return nil, err
	}
	delete(out, sdAlgorithm)
	for _, d := range by {
		if !d.used {
			return nil, refuse(UnusedDisclosure, "nothing that was signed refers to a disclosure")
		}
	}
	return out, nil
}

func (r *reading) take(v any) (*disclosed, error) {
	digest, ok := v.(string)
	if !ok {
		return nil, refuse(Malformed, "a digest is no text")
	}
	if r.seen[digest] {
		return nil, refuse(DuplicateDisclosure, "a digest stands twice")
	}
	r.seen[digest] = true
	d := r.by[digest]
	if d != nil {
		d.used = true
	}
	return d, nil
}

func (r *reading) object(m map[string]any, depth int) (map[string]any, error) {
	if depth > maxDepth {
		return nil, refuse(Malformed, "it is nested too deep")
	}
	if _, there := m[dots]; there {
		return nil, refuse(Malformed, "%q stands outside of a list", dots)
	}
	out := make(map[string]any, len(m))
	for name, v := range m {
		if name == sdMember {
			continue
		}
		if name == sdAlgorithm && depth > 0 {
			return nil, refuse(Malformed, "%s stands below the top", sdAlgorithm)
		}
		one, err := r.any(v, depth+1)
		if err != nil {
			return nil, err
		}
		out[name] = one
	}
	hidden, there := m[sdMember]
	if !there {
		return out, nil
	}
	list, ok := hidden.([]any)
	if !ok {
		return nil, refuse(Malformed, "%s is no list", sdMember)
	}
	for _, digest := range list {
		d, err := r.take(digest)
		if err != nil {
			return nil, err
		}
		if d == nil {
			continue // it was not disclosed, or stands for nothing
		}
		if d.element {
			return nil, refuse(Malformed, "an element of a list is disclosed as a claim")
		}
		if _, there := out[d.name]; there {
			return nil, refuse(ClaimHidden, "a disclosure would take the place of the claim %q", clip(d.name))
		}
		if d.name == sdAlgorithm {
			return nil, refuse(ClaimHidden, "a disclosure is named %q", d.name)
		}
		if out[d.name], err = r.any(d.value, depth+1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

func (r *reading) list(list []any, depth int) ([]any, error) {
	out := make([]any, 0, len(list))
	for _, v := range list {
		m, ok := v.(map[string]any)
		digest, hidden := m[dots]
		if !ok || !hidden {
			one, err := r.any(v, depth+1)
			if err != nil {
				return nil, err
			}
			out = append(out, one)
			continue
		}
		if len(m) != 1 {
			return nil, refuse(Malformed, "%q does not stand alone", dots)
		}
		d, err := r.take(digest)
		if err != nil {
			return nil, err
		}
		if d == nil {
			continue
		}
		if !d.element {
			return nil, refuse(Malformed, "a claim is disclosed as an element of a list")
		}
		one, err := r.any(d.value, depth+1)
		if err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, nil
}

func (r *reading) any(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, refuse(Malformed, "it is nested too deep")
	}
	switch v := v.(type) {
	case map[string]any:
		return r.object(v, depth)
	case []any:
		return r.list(v, depth)
	}
	return v, nil
}

// Without returns the token without the disclosures for which hide says so. Whatever a hidden one disclosed in turn is the caller's to hide
// too: a verifier refuses a disclosure that nothing refers to.
func (t Token) Without(hide func(name string, value any) bool) (Token, error) {
	by, err := t.disclosures()
	if err != nil {
		return Token{}, err
	}
	t.Disclosures = slices.DeleteFunc(slices.Clone(t.Disclosures), func(text string) bool {
		d := by[Hash(text)]
		return hide(d.name, d.value)
	})
	return t, nil
}
