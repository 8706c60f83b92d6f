package mandate

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"ambit.dev/ambit/governance/mandate/sdjwt"
	"ambit.dev/ambit/internal/canonical"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// MaxFileBytes bounds a file.
const MaxFileBytes = 64 << 20

// Checked is what a file proves.
type Checked struct {
	Proven
	// Below are the terms of what narrows it.
	Below []Terms
	// Spends and Refusals are the receipts, Spent what was captured under the mandate itself and all below it.
	Spends   []Line
	Refusals []Line
	Spent    money.Nanos
	// Paid are the closed mandates, PaidCents their sum.
	Paid      []Closed
	PaidCents int64
	Batches   int
}

// Purpose is what the person who signs a mandate is asked to confirm: an answer for another act is none for this.
func Purpose(of id.Mandate) string { return "mandate.sign:" + string(of) }

// ProofCheck checks the proof that a person signed a body, with the instance's keys. It is identity.VerifyProof's, by whoever calls.
type ProofCheck func(proof json.RawMessage, digest [32]byte, keys jose.JSONWebKeySet) error

// VerifyFile checks a mandate's file with nothing but public keys: its chain, what was handed on below it, each receipt's place in a batch that
// the instance signed, that no batch is missing, and that what was spent is within every mandate of the chain on each axis that a receipt
// tells of. It asks nobody. now is only asked whether the mandate is in force yet: one that has ended is checked all the same.
func VerifyFile(raw []byte, keys jose.JSONWebKeySet, now time.Time, proof ProofCheck) (Checked, error) {
	if len(raw) > MaxFileBytes {
		return Checked{}, unacceptable("", "the file is larger than %d MiB", MaxFileBytes>>20)
	}
	var f File
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil || f.Type != FileType {
		return Checked{}, unacceptable("", "this is not a mandate's file")
	}
	var out Checked
	var err error
	if out.Proven, err = proven(f.Chain, keys, now); err != nil {
		return Checked{}, err
	}
	if out.Closed != nil {
		return Checked{}, unacceptable("", "the file's own chain is closed")
	}
	if proof != nil {
		if err := proof(out.Proof, out.Digests[0], keys); err != nil {
			return Checked{}, fmt.Errorf("the person's confirmation: %w", err)
		}
		var by struct {
			User    id.User `json:"user"`
			Purpose string  `json:"purpose"`
		}
		root := out.Terms[0]
		if err := json.Unmarshal(out.Proof, &by); err != nil || by.User != root.By || root.By == "" || by.Purpose != Purpose(root.ID) {
			return Checked{}, unacceptable("", "what was confirmed is not the signing of this mandate by the person who is named in it")
		}
	}
	all := map[id.Mandate]Terms{}
	for _, t := range out.Terms {
		all[t.ID] = t
	}
	mine := out.Leaf().ID
	for _, text := range f.Below {
		p, err := proven(text, keys, now)
		if err != nil {
			return Checked{}, fmt.Errorf("a mandate below it: %w", err)
		}
		if !slices.ContainsFunc(p.Terms, func(t Terms) bool { return t.ID == mine }) || p.Digests[0] != out.Digests[0] {
			return Checked{}, unacceptable("", "the file holds a mandate that is not below it")
		}
		out.Below = append(out.Below, p.Leaf())
		for _, t := range p.Terms {
			all[t.ID] = t
		}
	}
	if err := out.batches(f, keys, all); err != nil {
		return Checked{}, err
	}
	return out, out.closed(f, keys, now, all)
}

// closed checks what was paid: to each payee under each mandate, at most what its receipts sum up to, rounded up to the cent once.
func (c *Checked) closed(f File, keys jose.JSONWebKeySet, now time.Time, all map[id.Mandate]Terms) error {
	type account struct {
		of    id.Mandate
		payee string
	}
	left := map[account]int64{}
	for _, r := range c.Spends {
		left[account{r.Path[len(r.Path)-1], r.Payee}] += r.Amount
	}
	for a, n := range left {
		left[a] = (n + int64(money.Cent) - 1) / int64(money.Cent)
	}
	for _, text := range f.Closed {
		p, err := proven(text, keys, now)
		if err != nil {
			return fmt.Errorf("what was paid: %w", err)
		}
		if p.Closed == nil || all[p.Leaf().ID].ID == "" {
			return unacceptable("", "the file holds a payment that is not under it")
		}
		a := account{p.Leaf().ID, p.Closed.Payee.ID}
		if left[a] -= p.Closed.Amount.Amount; left[a] < 0 {
			return unacceptable("", "%s was paid more under the mandate %s than the receipts sum up to, or a payment stands twice", a.payee, a.of)
		}
		c.Paid = append(c.Paid, *p.Closed)
		c.PaidCents += p.Closed.Amount.Amount
	}
	return nil
}

// VerifyWith checks a chain that is in force now, whose root was signed by one of the keys.
func VerifyWith(text string, keys jose.JSONWebKeySet, now time.Time) (Proven, error) {
	p, err := verifyWith(text, keys, sdjwt.Expect{Now: now})
	if err == nil && p.Closed != nil {
		return Proven{}, unacceptable("", "it is closed: what it allowed was paid")
	}
	return p, err
}

// proven checks a chain as it was when it was in force.
func proven(text string, keys jose.JSONWebKeySet, now time.Time) (Proven, error) {
	return verifyWith(text, keys, sdjwt.Expect{Now: now, Type: RootType, AnyTime: true})
}

func verifyWith(text string, keys jose.JSONWebKeySet, want sdjwt.Expect) (Proven, error) {
	header, err := sdjwt.Header(text)
	if err != nil {
		return Proven{}, err
	}
	kid, _ := header["kid"].(string)
	found := keys.Key(kid)
	if kid == "" || len(found) == 0 {
		return Proven{}, &sdjwt.Refused{Code: sdjwt.WrongKey, Detail: fmt.Sprintf("it was signed by the key %q, which is not among those given", kid)}
	}
	return VerifyChain(text, found[0], Ask{Expect: want})
}

// batches checks the receipts, and reckons what was spent under each mandate.
func (c *Checked) batches(f File, keys jose.JSONWebKeySet, all map[id.Mandate]Terms) error {
	seen := map[string]bool{}
	mine, root := c.Leaf().ID, c.Terms[0].ID
	spent := map[id.Mandate]money.Nanos{}
	periods := map[string]money.Nanos{}
	for i, b := range f.Batches {
		st, zone, err := statement(b.Statement, keys)
		if err != nil {
			return err
		}
		if st.Root != root || st.Organization != c.Terms[0].Organization {
			return unacceptable("", "batch %s is of another mandate", st.ID)
		}
		if st.Number != int64(i+1) {
			return unacceptable("", "batch %d is missing", i+1)
		}
		hash, err := base64.RawURLEncoding.DecodeString(st.Hash)
		if err != nil {
			return unacceptable("", "batch %s has no root", st.ID)
		}
		if mine == root && len(b.Lines) != st.Size {
			return unacceptable("", "batch %s has %d receipts, and %d of them are here", st.ID, st.Size, len(b.Lines))
		}
		for _, l := range b.Lines {
			line, err := canonical.JSON(l.Line)
			if err != nil {
				return unacceptable("", "a receipt can't be read")
			}
			if err := Included(line, l.Place, st.Size, hash, l.Path); err != nil {
				return unacceptable("", "a receipt is not one of batch %s: it was altered, or made up", st.ID)
			}
			var r Line
			if err := json.Unmarshal(line, &r); err != nil {
				return unacceptable("", "a receipt can't be read")
			}
			if seen[r.ID] {
				return unacceptable("", "the receipt %s stands twice", r.ID)
			}
			seen[r.ID] = true
			if !slices.Contains(r.Path, mine) {
				return unacceptable("", "the receipt %s is not of this mandate", r.ID)
			}
			if r.Type == Refusal {
				c.Refusals = append(c.Refusals, r)
				continue
			}
			if err := spendsWithin(r, all, spent, periods, zone); err != nil {
				return err
			}
			c.Spends = append(c.Spends, r)
			c.Spent += money.Nanos(r.Amount)
		}
		c.Batches++
	}
	return nil
}

// spendsWithin says whether one spend is within every mandate of its path, with those before it.
func spendsWithin(r Line, all map[id.Mandate]Terms, spent map[id.Mandate]money.Nanos, periods map[string]money.Nanos, zone *time.Location) error {
	var leaf Terms
	for _, of := range r.Path {
		t, known := all[of]
		if !known {
			return unacceptable("", "the receipt %s names the mandate %s, which is not in the file", r.ID, of)
		}
		leaf = t
		no := func(format string, args ...any) error {
			return unacceptable("", "the spend %s was not allowed by the mandate %s: %s", r.ID, of, fmt.Sprintf(format, args...))
		}
		g := t.Grant
		amount := money.Nanos(r.Amount)
		spent[of] += amount
		switch {
		case amount < 0 || r.Amount > r.Held:
			return no("it captured more than was held")
		case !r.HeldAt.Before(g.Until) || (g.From != nil && r.HeldAt.Add(sdjwt.Skew).Before(*g.From)):
			return no("it was held on %s", stamp(r.HeldAt))
		case g.Total != nil && spent[of] > *g.Total:
			return no("%s were spent of %s", spent[of].Display(), g.Total.Display())
		case g.PerAction != nil && money.Nanos(r.Held) > *g.PerAction:
			return no("%s were held for one action", money.Nanos(r.Held).Display())
		case r.Kind == "tool_call" && !named(g.Tools, r.Name):
			return no("the tool %s", r.Name)
		case !named(g.Payees, r.Payee):
			return no("the payee %s", r.Payee)
		}
		if g.Recurring != nil {
			key := string(of) + "/" + period(g.Recurring.Every, r.HeldAt.In(zone))
			if periods[key] += amount; periods[key] > g.Recurring.Amount {
				return no("%s were spent in a %s", periods[key].Display(), g.Recurring.Every)
			}
		}
	}
	if r.Agent != leaf.Agent {
		return unacceptable("", "the spend %s is of the agent %s, and the mandate is for %s", r.ID, r.Agent, leaf.Agent)
	}
	return nil
}

func period(every string, at time.Time) string {
	switch every {
	case "day":
		return at.Format("2006-01-02")
	case "month":
		return at.Format("2006-01")
	}
	year, week := at.ISOWeek()
	return fmt.Sprintf("%d/%d", year, week)
}

// statement reads what the instance signed of a batch.
func statement(compact string, keys jose.JSONWebKeySet) (BatchStatement, *time.Location, error) {
	wrong := unacceptable("", "a batch of receipts was not signed by the instance")
	jws, err := jose.ParseSignedCompact(compact, []jose.SignatureAlgorithm{jose.EdDSA})
	if err != nil {
		return BatchStatement{}, nil, wrong
	}
	header := jws.Signatures[0].Protected
	if typ, _ := header.ExtraHeaders[jose.HeaderType].(string); typ != BatchType {
		return BatchStatement{}, nil, wrong
	}
	found := keys.Key(header.KeyID)
	if header.KeyID == "" || len(found) == 0 || !found[0].IsPublic() {
		return BatchStatement{}, nil, wrong
	}
	payload, err := jws.Verify(found[0])
	if err != nil {
		return BatchStatement{}, nil, wrong
	}
	var s BatchStatement
	if err := json.Unmarshal(payload, &s); err != nil {
		return BatchStatement{}, nil, wrong
	}
	zone, err := time.LoadLocation(s.Zone)
	if err != nil || strings.TrimSpace(s.Zone) == "" {
		return BatchStatement{}, nil, unacceptable("", "the zone %q of a batch is not known", s.Zone)
	}
	return s, zone, nil
}
