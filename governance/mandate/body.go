package mandate

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
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

// Types of credential, of AP2 v0.2.
const (
	TypeOpen   = "mandate.payment.open.1"
	TypeClosed = "mandate.payment.1"
)

// Currency is that of all amounts.
const Currency = "USD"

// Terms are all that a mandate says.
type Terms struct {
	ID           id.Mandate
	Organization id.Org
	Agent        id.Agent
	// By is the user who signs; of a sub-mandate the one who signed the root, on whose behalf it is handed on.
	By     id.User
	Grant  Grant
	Issued time.Time
	// Key is the agent's: whoever has it can hand on, and close, what the mandate allows.
	Key jose.JSONWebKey
}

type party struct {
	ID   string `json:"id"`
	Name string `json:"name"`
}

// constraint is one of a body, with the members of all types that are read here.
type constraint struct {
	Type           string       `json:"type"`
	Currency       string       `json:"currency,omitempty"`
	Max            *json.Number `json:"max,omitempty"`
	Min            *json.Number `json:"min,omitempty"`
	Frequency      string       `json:"frequency,omitempty"`
	MaxOccurrences *int64       `json:"max_occurrences,omitempty"`
	NotBefore      string       `json:"not_before,omitempty"`
	NotAfter       string       `json:"not_after,omitempty"`
	Allowed        any          `json:"allowed,omitempty"`
	Amount         *money.Nanos `json:"amount,omitempty"`
	Every          string       `json:"every,omitempty"`
	Levels         *int         `json:"levels,omitempty"`
}

// The types of constraint. Those of AP2 are used where they say exactly what is meant: their amounts are whole cents.
const (
	apAmount     = "payment.amount_range"
	apBudget     = "payment.budget"
	apRecurrence = "payment.agent_recurrence"
	apPayees     = "payment.allowed_payees"
	apDates      = "payment.execution_date"

	ourTotal     = "ambit.total"
	ourRecurring = "ambit.recurring"
	ourPerAction = "ambit.per_action"
	ourTools     = "ambit.tools"
	ourPayees    = "ambit.payees"
	ourDepth     = "ambit.depth"
)

var frequencies = map[string]string{"day": "DAILY", "week": "WEEKLY", "month": "MONTHLY"}

const onDemand = "ON_DEMAND"

// constraints writes a grant. Each axis is written once, and one that is not limited is not written.
func (g Grant) constraints() []constraint {
	out := []constraint{}
	// AP2's budget is that of its recurrence. It is what recurs where nothing else is limited, and the total otherwise.
	recurrence, budget := onDemand, g.Total
	if g.Total == nil && g.Recurring != nil && cents(g.Recurring.Amount) {
		recurrence, budget = frequencies[g.Recurring.Every], &g.Recurring.Amount
	} else if g.Recurring != nil {
		out = append(out, constraint{Type: ourRecurring, Every: g.Recurring.Every, Amount: &g.Recurring.Amount})
	}
	if budget != nil && cents(*budget) {
		out = append(out, constraint{Type: apBudget, Currency: Currency, Max: major(*budget)})
	} else if budget != nil {
		out = append(out, constraint{Type: ourTotal, Amount: budget})
	}
	out = append(out, constraint{Type: apRecurrence, Frequency: recurrence, MaxOccurrences: g.Sessions})
	if g.PerAction != nil && cents(*g.PerAction) {
		n := json.Number(fmt.Sprint(int64(*g.PerAction / money.Cent)))
		out = append(out, constraint{Type: apAmount, Currency: Currency, Max: &n})
	} else if g.PerAction != nil {
		out = append(out, constraint{Type: ourPerAction, Amount: g.PerAction})
	}
	if g.Payees != nil && !slices.ContainsFunc(g.Payees, isPattern) {
		parties := []party{}
		for _, p := range g.Payees {
			_, name, found := strings.Cut(p, ":")
			if !found {
				name = p
			}
			parties = append(parties, party{ID: p, Name: name})
		}
		out = append(out, constraint{Type: apPayees, Allowed: parties})
	} else if g.Payees != nil {
		out = append(out, constraint{Type: ourPayees, Allowed: g.Payees})
	}
	if g.From != nil {
		out = append(out, constraint{Type: apDates, NotBefore: g.From.Format(time.RFC3339)})
	}
	if g.Tools != nil {
		out = append(out, constraint{Type: ourTools, Allowed: g.Tools})
	}
	if g.Depth > 0 {
		out = append(out, constraint{Type: ourDepth, Levels: &g.Depth})
	}
	return out
}

func isPattern(name string) bool { return strings.HasSuffix(name, "*") }

func cents(n money.Nanos) bool { return n%money.Cent == 0 }

// major writes whole cents as a number of dollars.
func major(n money.Nanos) *json.Number {
	text := fmt.Sprintf("%d.%02d", n/money.Dollar, n%money.Dollar/money.Cent)
	text = strings.TrimSuffix(strings.TrimRight(text, "0"), ".")
	out := json.Number(text)
	return &out
}

type identified struct {
	Mandate      id.Mandate `json:"mandate"`
	Organization id.Org     `json:"organization"`
	Agent        id.Agent   `json:"agent"`
	By           id.User    `json:"user"`
	Intent       string     `json:"intent"`
}

type openBody struct {
	Type        string          `json:"vct"`
	Constraints []constraint    `json:"constraints"`
	Confirmed   confirmation    `json:"cnf"`
	Issued      int64           `json:"iat"`
	Expires     int64           `json:"exp"`
	Ambit       identified      `json:"ambit"`
	Payee       json.RawMessage `json:"payee,omitempty"`
}

type confirmation struct {
	Key json.RawMessage `json:"jwk"`
}

// Body writes terms as the claims of an open Payment mandate, in canonical JSON (RFC 8785): what is shown, hashed and signed is these bytes.
func Body(t Terms) ([]byte, error) {
	if !t.Key.IsPublic() || !t.Key.Valid() {
		return nil, fmt.Errorf("a mandate confirms a public key")
	}
	key := t.Key
	key.Use, key.Algorithm = "", "" // what is confirmed is the key and its name
	jwk, err := key.MarshalJSON()
	if err != nil {
		return nil, fmt.Errorf("write the agent's key: %w", err)
	}
	out, err := canonical.JSON(openBody{
		Type: TypeOpen, Constraints: t.Grant.constraints(), Confirmed: confirmation{jwk}, Issued: t.Issued.Unix(), Expires: t.Grant.Until.Unix(),
		Ambit: identified{t.ID, t.Organization, t.Agent, t.By, t.Grant.Intent},
	})
	if err != nil {
		return nil, fmt.Errorf("write the mandate: %w", err)
	}
	return out, nil
}

// Digest is the SHA-256 of a body's canonical JSON: what a passkey is asked to sign.
func Digest(body any) ([32]byte, error) {
	text, err := canonical.JSON(body)
	if err != nil {
		return [32]byte{}, fmt.Errorf("write the mandate: %w", err)
	}
	return sha256.Sum256(text), nil
}

// Unacceptable says why a body is refused.
type Unacceptable struct {
	// Constraint is the type of that which is not understood, or empty.
	Constraint string
	Reason     string
}

func (u *Unacceptable) Error() string {
	if u.Constraint != "" {
		return fmt.Sprintf("the mandate is refused: the constraint %s %s", u.Constraint, u.Reason)
	}
	return "the mandate is refused: " + u.Reason
}

func unacceptable(of, format string, args ...any) error {
	return &Unacceptable{of, fmt.Sprintf(format, args...)}
}

// Read reads the claims of an open Payment mandate. A constraint that it does not know, or that says something that is not enforced here, makes
// the mandate unacceptable: to pass over it would be to allow what its signer did not. strict knows AP2's own constraints only.
func Read(body map[string]any, strict bool) (Terms, error) {
	raw, err := json.Marshal(body)
	if err != nil {
		return Terms{}, fmt.Errorf("read a mandate: %w", err)
	}
	if body["vct"] != TypeOpen {
		return Terms{}, unacceptable("", "it is not an open Payment mandate (vct is %v)", body["vct"])
	}
	for name := range body {
		if !slices.Contains([]string{"vct", "constraints", "cnf", "iat", "exp", "ambit"}, name) {
			return Terms{}, unacceptable("", "it says something that is not enforced here (%s)", name)
		}
	}
	cnf, _ := body["cnf"].(map[string]any)
	ours, told := body["ambit"].(map[string]any)
	if !onlyMembers(cnf, "jwk") || (body["ambit"] != nil && !told) || !onlyMembers(ours, "mandate", "organization", "agent", "user", "intent") {
		return Terms{}, unacceptable("", "it says something of itself, or of its key, that is not understood here")
	}
	var in struct {
		Constraints *[]json.RawMessage `json:"constraints"`
		Issued      int64              `json:"iat"`
		Expires     *int64             `json:"exp"`
		Ambit       identified         `json:"ambit"`
	}
	if err := json.Unmarshal(raw, &in); err != nil || in.Constraints == nil {
		return Terms{}, unacceptable("", "its form is not that of an open Payment mandate")
	}
	t := Terms{
		ID: in.Ambit.Mandate, Organization: in.Ambit.Organization, Agent: in.Ambit.Agent, By: in.Ambit.By, Issued: time.Unix(in.Issued, 0).UTC(),
		Grant: Grant{Intent: in.Ambit.Intent},
	}
	if in.Expires == nil {
		return Terms{}, unacceptable("", "it never ends")
	}
	t.Grant.Until = time.Unix(*in.Expires, 0).UTC()
	if t.Key, err = sdjwt.Confirmed(body); err != nil {
		return Terms{}, err
	}
	seen := map[string]bool{}
	var budget *money.Nanos
	recurrence := ""
	for _, one := range *in.Constraints {
		var c constraint
		d := json.NewDecoder(bytes.NewReader(one))
		d.UseNumber()
		d.DisallowUnknownFields() // a member that is passed over may be what narrows it
		var spelt map[string]any  // the decoder takes a name in other letters for the same, which no other reader does
		if err := errors.Join(d.Decode(&c), json.Unmarshal(one, &spelt)); err != nil || !onlyMembers(spelt, constraintMembers...) {
			var named struct{ Type string }
			_ = json.Unmarshal(one, &named)
			return Terms{}, unacceptable(named.Type, "is not understood")
		}
		if seen[c.Type] {
			return Terms{}, unacceptable(c.Type, "stands twice")
		}
		seen[c.Type] = true
		if strict && strings.HasPrefix(c.Type, "ambit.") {
			return Terms{}, unacceptable(c.Type, "is not known")
		}
		switch c.Type {
		case apBudget:
			if budget, err = c.inDollars(); err == nil && !c.only("currency", "max") {
				err = unacceptable(c.Type, "is not understood")
			}
		case apRecurrence:
			recurrence, t.Grant.Sessions = c.Frequency, c.MaxOccurrences
			if !c.only("frequency", "max_occurrences") || (c.MaxOccurrences != nil && *c.MaxOccurrences < 1) {
				err = unacceptable(c.Type, "is not understood")
			}
		default:
			err = c.read(&t.Grant)
		}
		if err != nil {
			return Terms{}, err
		}
	}
	return t, t.Grant.recurs(recurrence, budget)
}

var constraintMembers = []string{"type", "currency", "max", "min", "frequency", "max_occurrences", "not_before", "not_after", "allowed", "amount", "every", "levels"}

// onlyMembers says that an object has no members but these, spelt so.
func onlyMembers(m map[string]any, names ...string) bool {
	for name := range m {
		if !slices.Contains(names, name) {
			return false
		}
	}
	return true
}

// recurs says what AP2's budget is the limit of.
func (g *Grant) recurs(frequency string, budget *money.Nanos) error {
	switch {
	case frequency == "" || frequency == onDemand:
		if budget != nil {
			if g.Total != nil {
				return unacceptable(apBudget, "limits what %s limits too", ourTotal)
			}
			g.Total = budget
		}
	default:
		for every, name := range frequencies {
			if frequency != name {
				continue
			}
			if budget == nil || g.Recurring != nil {
				return unacceptable(apRecurrence, "has no budget of its own")
			}
			g.Recurring = &Recurring{Every: every, Amount: *budget}
			return nil
		}
		return unacceptable(apRecurrence, "has the frequency %q, which is not enforced here", frequency)
	}
	if g.Total == nil && g.Recurring == nil {
		return unacceptable("", "it does not limit the money")
	}
	return nil
}

// read takes one constraint into the grant.
func (c constraint) read(g *Grant) error {
	wrong := unacceptable(c.Type, "is not understood")
	switch c.Type {
	case apAmount:
		if c.Currency != Currency || c.Max == nil || !c.only("currency", "max") || g.PerAction != nil { // a least amount would need every effect to cost as much
			return wrong
		}
		n, err := c.Max.Int64()
		if err != nil || n <= 0 || n > int64(MaxAmount/money.Cent) {
			return wrong
		}
		amount := money.Nanos(n) * money.Cent
		g.PerAction = &amount
	case apPayees:
		ids := []string{}
		list, ok := c.Allowed.([]any)
		if !ok || !c.only("allowed") || g.Payees != nil {
			return wrong
		}
		for _, v := range list {
			m, _ := v.(map[string]any)
			who, _ := m["id"].(string)
			if !payeeForm.MatchString(who) || isPattern(who) { // a payee is known by its id, never by a name that anybody can take
				return wrong
			}
			ids = append(ids, who)
		}
		slices.Sort(ids)
		g.Payees = slices.Compact(ids)
	case apDates:
		at, err := time.Parse(time.RFC3339, c.NotBefore)
		if err != nil || !c.only("not_before") {
			return wrong
		}
		at = at.UTC()
		g.From = &at
	case ourTotal:
		if c.Amount == nil || !c.only("amount") || *c.Amount <= 0 || *c.Amount > MaxAmount {
			return wrong
		}
		g.Total = c.Amount
	case ourPerAction:
		if c.Amount == nil || !c.only("amount") || *c.Amount <= 0 || *c.Amount > MaxAmount || g.PerAction != nil {
			return wrong
		}
		g.PerAction = c.Amount
	case ourRecurring:
		if c.Amount == nil || *c.Amount <= 0 || *c.Amount > MaxAmount || !slices.Contains(Periods, c.Every) || !c.only("amount", "every") {
			return wrong
		}
		g.Recurring = &Recurring{Every: c.Every, Amount: *c.Amount}
	case ourTools, ourPayees:
		list, ok := c.Allowed.([]any)
		if !ok || !c.only("allowed") {
			return wrong
		}
		form, out := toolForm, []string{}
		if c.Type == ourPayees {
			form = payeeForm
		}
		for _, v := range list {
			name, ok := v.(string)
			if !ok || !form.MatchString(name) {
				return wrong
			}
			out = append(out, name)
		}
		if c.Type == ourTools {
			g.Tools = out
		} else if g.Payees != nil {
			return wrong
		} else {
			g.Payees = out
		}
	case ourDepth:
		if c.Levels == nil || *c.Levels < 1 || *c.Levels > MaxDepth || !c.only("levels") {
			return wrong
		}
		g.Depth = *c.Levels
	default:
		return unacceptable(c.Type, "is not known")
	}
	return nil
}

// only says that a constraint has no members but these.
func (c constraint) only(names ...string) bool {
	have := map[string]bool{
		"currency": c.Currency != "", "max": c.Max != nil, "min": c.Min != nil, "frequency": c.Frequency != "", "max_occurrences": c.MaxOccurrences != nil,
		"not_before": c.NotBefore != "", "not_after": c.NotAfter != "", "allowed": c.Allowed != nil, "amount": c.Amount != nil, "every": c.Every != "", "levels": c.Levels != nil,
	}
	for name, there := range have {
		if there && !slices.Contains(names, name) {
			return false
		}
	}
	return true
}

func (c constraint) inDollars() (*money.Nanos, error) {
	wrong := unacceptable(c.Type, "is not understood")
	if c.Currency != Currency || c.Max == nil {
		return nil, wrong
	}
	whole, part, _ := strings.Cut(c.Max.String(), ".")
	if len(part) > 2 {
		return nil, wrong
	}
	n, err := money.Parse(whole + "." + (part + "00")[:2])
	if err != nil || n <= 0 || n > MaxAmount {
		return nil, wrong
	}
	return &n, nil
}

// OnlyAP2 says that a grant can be written in AP2's own constraints alone, so that a reader that knows no others accepts it.
func (g Grant) OnlyAP2() bool {
	return !slices.ContainsFunc(g.constraints(), func(c constraint) bool { return strings.HasPrefix(c.Type, "ambit.") })
}
