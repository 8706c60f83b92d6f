package mandate

import (
	"encoding/json"
	"fmt"
	"time"

	"github.com/go-jose/go-jose/v4"

	"ambit.dev/ambit/governance/mandate/sdjwt"
	"ambit.dev/ambit/internal/money"
)

// RootType is the typ of what is signed for the person: another statement by the same key does not pass for a mandate.
const RootType = "mandate+sd-jwt"

// ProofMember is where the root carries the proof that the person signed: beside the mandate, which the proof is about.
const ProofMember = "ambit.proof"

// SignRoot signs a mandate. proof is what shows that the person signed this very body.
func SignRoot(sign sdjwt.Signer, body, proof json.RawMessage) (sdjwt.Token, error) {
	return sdjwt.Root(sign, RootType, body, map[string]any{ProofMember: proof})
}

// HandOn signs a sub-mandate: sign is by the key of the parent's agent. Audience is the child's agent.
func HandOn(sign sdjwt.Signer, parent sdjwt.Token, body json.RawMessage, on sdjwt.Occasion) (sdjwt.Token, error) {
	return sdjwt.Hand(sign, sdjwt.TypeLink, parent, body, on)
}

// Closed is what one payee was paid under a mandate, as its agent signs it at settlement.
type Closed struct {
	Type          string     `json:"vct"`
	TransactionID string     `json:"transaction_id"`
	Payee         Party      `json:"payee"`
	Amount        CentAmount `json:"payment_amount"`
	Instrument    Instrument `json:"payment_instrument"`
	Date          string     `json:"execution_date,omitempty"`
	Issued        int64      `json:"iat,omitempty"`
}

// Party is a payee.
type Party struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// CentAmount is an amount in whole cents.
type CentAmount struct {
	Amount   int64  `json:"amount"`
	Currency string `json:"currency"`
}

// Instrument is what was paid with: the organisation's account on the ledger.
type Instrument struct {
	ID   string `json:"id"`
	Type string `json:"type"`
}

// Close signs the end of a chain.
func Close(sign sdjwt.Signer, leaf sdjwt.Token, closed Closed, on sdjwt.Occasion) (sdjwt.Token, error) {
	return sdjwt.Hand(sign, sdjwt.TypeLast, leaf, closed, on)
}

// Proven is a chain of mandates that holds: each is signed, in force, and no wider than the one before it.
type Proven struct {
	// Terms are those of the open mandates, from the root on.
	Terms []Terms
	// Digests are the SHA-256 of their bodies.
	Digests [][32]byte
	// Proof is what shows that a person signed the root.
	Proof json.RawMessage
	// Closed is what ends the chain, or nil.
	Closed *Closed
}

// Leaf are the terms of the last open mandate.
func (p Proven) Leaf() Terms { return p.Terms[len(p.Terms)-1] }

// Ask is what a verifier of a chain asks for.
type Ask struct {
	sdjwt.Expect
	// Strict knows AP2's own constraints only.
	Strict bool
}

// VerifyChain checks a chain of mandates: its signatures and bindings, that each constraint is known, and that no link is wider than the one
// before it.
func VerifyChain(text string, root jose.JSONWebKey, ask Ask) (Proven, error) {
	chain, err := sdjwt.ParseChain(text)
	if err != nil {
		return Proven{}, err
	}
	links, err := sdjwt.VerifyChain(chain, root, ask.Expect)
	if err != nil {
		return Proven{}, err
	}
	var out Proven
	for i, l := range links {
		if l.Last {
			if out.Closed, err = readClosed(l.Body); err != nil {
				return Proven{}, err
			}
			if i == 0 {
				return Proven{}, unacceptable("", "nothing open stands before what is closed")
			}
			if err := out.Leaf().Grant.closes(*out.Closed); err != nil {
				return Proven{}, err
			}
			continue
		}
		t, err := Read(l.Body, ask.Strict)
		if err != nil {
			return Proven{}, err
		}
		d, err := Digest(l.Body)
		if err != nil {
			return Proven{}, err
		}
		if i == 0 {
			if out.Proof, err = json.Marshal(l.Claims[ProofMember]); err != nil {
				return Proven{}, fmt.Errorf("read the proof: %w", err)
			}
		} else {
			parent := out.Leaf()
			if err := Narrow(parent.Grant, t.Grant); err != nil {
				return Proven{}, err
			}
			if t.Organization != parent.Organization || t.By != parent.By {
				return Proven{}, unacceptable("", "a link is another organisation's, or another person's")
			}
		}
		out.Terms, out.Digests = append(out.Terms, t), append(out.Digests, d)
	}
	if len(out.Terms) == 0 {
		return Proven{}, unacceptable("", "it holds no open mandate")
	}
	return out, nil
}

func readClosed(body map[string]any) (*Closed, error) {
	if body["vct"] != TypeClosed {
		return nil, unacceptable("", "the end of the chain is not a Payment mandate (vct is %v)", body["vct"])
	}
	raw, err := json.Marshal(body)
	if err != nil {
		return nil, fmt.Errorf("read what is closed: %w", err)
	}
	var c Closed
	if err := json.Unmarshal(raw, &c); err != nil || c.TransactionID == "" || c.Payee.ID == "" || c.Amount.Currency != Currency || c.Amount.Amount < 0 || c.Instrument.ID == "" {
		return nil, unacceptable("", "the end of the chain has not the form of a Payment mandate")
	}
	return &c, nil
}

// closes says that what is closed is what the open mandate allows. What one action may cost at most, in whole cents, AP2 asks of each payment
// too, so that a larger sum is closed in parts.
func (g Grant) closes(c Closed) error {
	if g.PerAction != nil && cents(*g.PerAction) && c.Amount.Amount > int64(*g.PerAction/money.Cent) {
		return unacceptable("", "what is closed is more than the mandate allows an action")
	}
	if !named(g.Payees, c.Payee.ID) {
		return unacceptable("", "what is closed pays %s, who is not allowed", c.Payee.ID)
	}
	if g.Total != nil && c.Amount.Amount > int64((*g.Total+money.Cent-1)/money.Cent) {
		return unacceptable("", "what is closed is more than the mandate allows in all")
	}
	return nil
}

// StandingAt says that the last mandate of a chain and all before it are in force at a moment.
func (p Proven) StandingAt(now time.Time) bool {
	for _, t := range p.Terms {
		if !t.Grant.InForce(now) {
			return false
		}
	}
	return true
}
