package register

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register/internal/registerdb"
	"ambit.dev/ambit/governance/mandate/sdjwt"
	"ambit.dev/ambit/governance/policy"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants/identity"
)

// DraftInput is what a mandate is drafted from.
type DraftInput struct {
	Agent id.Agent
	Grant mandate.Grant
	// Project, if it is given, is where the agent must lie.
	Project id.Project
}

// Draft keeps a mandate that nobody has signed. It allows nothing.
func (s *Service) Draft(ctx context.Context, tx pgx.Tx, org id.Org, in DraftInput) (Mandate, error) {
	now := s.clock.Now()
	grant, err := in.Grant.Check(now)
	if err != nil {
		return Mandate{}, err
	}
	q := registerdb.New(tx)
	if n, err := q.CountDrafts(ctx, string(org)); err != nil {
		return Mandate{}, fmt.Errorf("count the drafts: %w", err)
	} else if n >= maxDrafts {
		return Mandate{}, fault.Newf(fault.Conflict, "state_conflict", "There are %d mandates that nobody has signed. Sign them, or revoke them.", n)
	}
	return s.insert(ctx, tx, org, in.Agent, in.Project, grant, nil, now)
}

// insert writes a mandate: a draft, or a signed one below its parent.
func (s *Service) insert(ctx context.Context, tx pgx.Tx, org id.Org, agent id.Agent, project id.Project, grant mandate.Grant, parent *Mandate, now time.Time) (Mandate, error) {
	q := registerdb.New(tx)
	of, err := q.AgentOf(ctx, registerdb.AgentOfParams{OrgID: string(org), ID: string(agent)})
	if errors.Is(err, pgx.ErrNoRows) || (err == nil && project != "" && id.Project(of.ProjectID) != project) {
		return Mandate{}, fault.InvalidField("/agent_id", "not_found", "There is no such agent.")
	}
	if err != nil {
		return Mandate{}, fmt.Errorf("look for the agent of a mandate: %w", err)
	}
	key, err := s.keys.AgentKey(ctx, tx, org, identity.OfAgent(agent))
	if err != nil {
		return Mandate{}, err
	}
	mine := id.New[id.Mandate]()
	terms := mandate.Terms{ID: mine, Organization: org, Agent: agent, Grant: grant, Issued: now.Truncate(time.Second), Key: key.JWK}
	row := registerdb.InsertMandateParams{
		OrgID: string(org), ID: string(mine), ProjectID: of.ProjectID, Path: []string{string(mine)}, AgentID: string(agent), State: mandate.Draft, Intent: grant.Intent,
		FromAt: grant.From, UntilAt: grant.Until, KeyID: key.KeyID, Budgets: []string{}, Now: now,
	}
	if row.GrantJson, err = json.Marshal(grant); err != nil {
		return Mandate{}, fmt.Errorf("write the grant: %w", err)
	}
	if row.CreatedBy, err = json.Marshal(principal.From(ctx)); err != nil {
		return Mandate{}, fmt.Errorf("write the principal: %w", err)
	}
	if parent != nil {
		terms.By = parent.User
	}
	body, digest, err := written(terms)
	if err != nil {
		return Mandate{}, err
	}
	row.Body, row.Digest = string(body), digest[:]
	if parent != nil {
		above, user := string(parent.ID), string(parent.User)
		row.ParentID, row.UserID, row.State, row.SignedAt = &above, &user, mandate.Active, &now
		row.Path = append(texts(parent.Path), string(mine))
		token, err := s.handOn(ctx, tx, *parent, agent, mine, body, now)
		if err != nil {
			return Mandate{}, err
		}
		row.Token = &token
		if row.Budgets, err = open(ctx, tx, now, org, mine, grant); err != nil {
			return Mandate{}, err
		}
	}
	out, err := q.InsertMandate(ctx, row)
	if err != nil {
		return Mandate{}, fmt.Errorf("keep a mandate: %w", err)
	}
	return fromRow(out)
}

func written(t mandate.Terms) ([]byte, [32]byte, error) {
	body, err := mandate.Body(t)
	if err != nil {
		return nil, [32]byte{}, err
	}
	digest, err := mandate.Digest(json.RawMessage(body))
	return body, digest, err
}

// open makes the budgets that count a mandate's money.
func open(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, of id.Mandate, g mandate.Grant) ([]string, error) {
	out := []string{}
	add := func(period string, limit money.Nanos) error {
		b, err := billing.OpenMandate(ctx, tx, now, org, billing.MandateLimit{Mandate: of, Name: g.Intent, Period: period, Limit: limit, From: g.From, Until: g.Until})
		out = append(out, string(b))
		return err
	}
	if g.Total != nil {
		if err := add("total", *g.Total); err != nil {
			return nil, err
		}
	}
	if g.Recurring != nil {
		if err := add(g.Recurring.Every, g.Recurring.Amount); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// Prepare makes a draft ready for a person to sign: what is returned is what is to be shown, and its digest what is to be confirmed. It is
// written anew for another person, when the agent's key is another by now, and when the last answer to it would come too late: then its digest may
// have been confirmed by an answer that came to nothing, and no digest is asked for twice.
func (s *Service) Prepare(ctx context.Context, tx pgx.Tx, org id.Org, of id.Mandate, user id.User) (Mandate, error) {
	q := registerdb.New(tx)
	row, err := q.LockMandate(ctx, registerdb.LockMandateParams{OrgID: string(org), ID: string(of)})
	if errors.Is(err, pgx.ErrNoRows) {
		return Mandate{}, fault.NotFound()
	}
	if err != nil {
		return Mandate{}, fmt.Errorf("lock the mandate %s: %w", of, err)
	}
	m, err := fromRow(row)
	if err != nil {
		return Mandate{}, err
	}
	if err := s.signable(m); err != nil {
		return Mandate{}, err
	}
	key, err := s.keys.AgentKey(ctx, tx, org, identity.OfAgent(m.Agent))
	if err != nil {
		return Mandate{}, err
	}
	if m.User == user && m.KeyID == key.KeyID && s.clock.Now().Sub(m.UpdatedAt) < identity.ChallengeLasts {
		return m, nil
	}
	body, digest, err := written(mandate.Terms{
		ID: m.ID, Organization: org, Agent: m.Agent, By: user, Grant: m.Grant, Issued: s.clock.Now().Truncate(time.Second), Key: key.JWK,
	})
	if err != nil {
		return Mandate{}, err
	}
	by := string(user)
	row, err = q.RewriteDraft(ctx, registerdb.RewriteDraftParams{Body: string(body), Digest: digest[:], KeyID: key.KeyID, UserID: &by, Now: s.clock.Now(), OrgID: string(org), ID: string(of)})
	if err != nil {
		return Mandate{}, fmt.Errorf("write the mandate %s for its signer: %w", of, err)
	}
	return fromRow(row)
}

func (s *Service) signable(m Mandate) error {
	switch m.Status(s.clock.Now()) {
	case mandate.Draft:
		return nil
	case Expired:
		return fault.New(fault.Conflict, "state_conflict", "The time that this mandate was drafted for is over. Draft another.")
	case mandate.Revoked:
		return fault.New(fault.Conflict, "state_conflict", "This mandate was revoked.")
	}
	return fault.New(fault.Conflict, "already_decided", "This mandate is signed already.")
}

// Sign takes a person's confirmation of the draft that Prepare returned. proof must be of that person, for that very digest; above the amount
// that the organisation has set, it must be a passkey's. From the commit on the mandate is in force.
func (s *Service) Sign(ctx context.Context, tx pgx.Tx, org id.Org, of id.Mandate, user id.User, proof identity.Proof) (Mandate, error) {
	now := s.clock.Now()
	if err := policy.Raise(ctx, tx, now, org); err != nil {
		return Mandate{}, err
	}
	q := registerdb.New(tx)
	m, err := s.Get(ctx, tx, org, of)
	if err != nil {
		return Mandate{}, err
	}
	if err := s.signable(m); err != nil {
		return Mandate{}, err
	}
	if err := s.confirmed(ctx, tx, m, user, proof); err != nil {
		return Mandate{}, err
	}
	if err := roomForMore(ctx, q, org); err != nil {
		return Mandate{}, err
	}
	shown, err := json.Marshal(proof)
	if err != nil {
		return Mandate{}, fmt.Errorf("write the proof: %w", err)
	}
	token, err := mandate.SignRoot(func(header map[string]any, payload []byte) (string, error) {
		return s.keys.SignAsOrganization(ctx, tx, org, header, payload)
	}, m.Body, shown)
	if err != nil {
		return Mandate{}, err
	}
	budgets, err := open(ctx, tx, now, org, of, m.Grant)
	if err != nil {
		return Mandate{}, err
	}
	signed := token.String()
	row, err := q.SignMandate(ctx, registerdb.SignMandateParams{Token: &signed, Proof: shown, Budgets: budgets, Now: &now, OrgID: string(org), ID: string(of), Digest: m.Digest[:]})
	if err != nil {
		return Mandate{}, fmt.Errorf("keep the signed mandate %s: %w", of, err)
	}
	return fromRow(row)
}

// roomForMore is asked under the lock of whoever changes the rules.
func roomForMore(ctx context.Context, q *registerdb.Queries, org id.Org) error {
	n, err := q.CountInForce(ctx, string(org))
	if err != nil {
		return fmt.Errorf("count the mandates: %w", err)
	}
	if n >= maxInForce {
		return fault.Newf(fault.Conflict, "state_conflict", "An organisation has at most %d mandates in force. Revoke those that nobody needs.", maxInForce)
	}
	return nil
}

// Purpose names the signing of a mandate to the step-up: an answer for another act is none for this.
func Purpose(of id.Mandate) string { return mandate.Purpose(of) }

func (s *Service) confirmed(ctx context.Context, tx pgx.Tx, m Mandate, user id.User, proof identity.Proof) error {
	switch {
	case user == "" || m.User != user || proof.User != string(user):
		return fault.New(fault.Forbidden, "permission_denied", "Somebody else was shown this mandate, and signs it.").With("rule", "mandate.signer")
	case proof.Challenge != Challenge(m.Digest) || proof.Purpose != Purpose(m.ID):
		return fault.New(fault.Conflict, "digest_mismatch", "What was confirmed is not this mandate as it is now. Look at it again.")
	case proof.Method != identity.MethodPasskey && proof.Method != identity.MethodPassword:
		return fault.New(fault.Forbidden, "permission_denied", "A mandate is signed with a passkey or the password.").With("rule", "mandate.signer")
	}
	settings, err := s.Settings(ctx, tx, m.Org)
	if err != nil {
		return err
	}
	if proof.Method != identity.MethodPasskey && settings.WantsPasskey(m.Grant) {
		return fault.New(fault.Forbidden, "permission_denied", "Above "+settings.PasskeyAbove.Display()+" a mandate is signed with a passkey. Enrol one under your account.").With("rule", "mandate.passkey")
	}
	return nil
}

// NarrowInput is what a sub-mandate is made from. What the grant leaves open it has from its parent.
type NarrowInput struct {
	Parent id.Mandate
	Agent  id.Agent
	Grant  mandate.Grant
	// Project, if it is given, is where the parent and the agent must lie.
	Project id.Project
}

// Narrow hands a part of a mandate on to an agent, signed by the key of the parent's agent. It is in force from the commit on. Its fault for a
// grant that is wider than the parent's names the axis.
func (s *Service) Narrow(ctx context.Context, tx pgx.Tx, org id.Org, in NarrowInput) (Mandate, error) {
	now := s.clock.Now()
	if err := policy.Raise(ctx, tx, now, org); err != nil { // a revocation of what is above waits for this, and reaches it
		return Mandate{}, err
	}
	if err := roomForMore(ctx, registerdb.New(tx), org); err != nil {
		return Mandate{}, err
	}
	parent, err := s.Get(ctx, tx, org, in.Parent)
	if err != nil {
		return Mandate{}, err
	}
	if in.Project != "" && parent.Project != in.Project {
		return Mandate{}, fault.NotFound()
	}
	for _, of := range parent.Path {
		above, err := s.Get(ctx, tx, org, of)
		if err != nil {
			return Mandate{}, err
		}
		if at := above.Status(now); at != mandate.Active && at != Waiting {
			return Mandate{}, fault.Newf(fault.Conflict, "state_conflict", "The mandate %s is not in force: nothing of it can be handed on.", of)
		}
	}
	if len(parent.Path) > mandate.MaxDepth {
		return Mandate{}, wider(&mandate.Wider{Axis: mandate.AxisDepth, Parent: "none", Child: "one level"})
	}
	grant, err := mandate.Inherit(parent.Grant, in.Grant).Check(now)
	if err != nil {
		return Mandate{}, err
	}
	if err := mandate.Narrow(parent.Grant, grant); err != nil {
		return Mandate{}, wider(err)
	}
	return s.insert(ctx, tx, org, in.Agent, in.Project, grant, &parent, now)
}

func wider(err error) error {
	var w *mandate.Wider
	if !errors.As(err, &w) {
		return err
	}
	if w.Axis == mandate.AxisDepth && w.Parent == "none" {
		return fault.InvalidField("/depth", "wider_than_parent", "The parent may hand nothing of it on to others.")
	}
	return fault.InvalidField("/"+w.Axis, "wider_than_parent", fmt.Sprintf("This is wider than the parent: %s, where the parent has %s.", w.Child, w.Parent))
}

func (s *Service) handOn(ctx context.Context, tx pgx.Tx, parent Mandate, agent id.Agent, of id.Mandate, body []byte, now time.Time) (string, error) {
	key, err := s.keys.AgentKey(ctx, tx, parent.Org, identity.OfAgent(parent.Agent))
	if err != nil {
		return "", err
	}
	if key.KeyID != parent.KeyID {
		return "", fault.New(fault.Conflict, "state_conflict", "The agent of the parent has another key since the parent was signed, and can't sign for it any more. Sign the parent anew.")
	}
	prev, err := sdjwt.Parse(parent.Token)
	if err != nil {
		return "", fmt.Errorf("read the token of %s: %w", parent.ID, err)
	}
	token, err := mandate.HandOn(func(header map[string]any, payload []byte) (string, error) {
		return s.keys.SignAsAgent(ctx, tx, parent.Org, identity.OfAgent(parent.Agent), header, payload)
	}, prev, body, sdjwt.Occasion{Audience: string(agent), Nonce: string(of), At: now})
	return token.String(), err
}

// Chain is the mandate with all above it, as one text that verifies by the organisation's public key.
func (s *Service) Chain(ctx context.Context, tx pgx.Tx, m Mandate) (sdjwt.Chain, error) {
	var out sdjwt.Chain
	for _, of := range m.Path {
		above, err := s.Get(ctx, tx, m.Org, of)
		if err != nil {
			return nil, err
		}
		if above.Token == "" {
			return nil, fault.New(fault.Conflict, "state_conflict", "The mandate is not signed.")
		}
		t, err := sdjwt.Parse(above.Token)
		if err != nil {
			return nil, fmt.Errorf("read the token of %s: %w", of, err)
		}
		out = append(out, t)
	}
	return out, nil
}
