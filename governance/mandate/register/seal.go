package register

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register/internal/registerdb"
	"ambit.dev/ambit/governance/mandate/sdjwt"
	"ambit.dev/ambit/internal/canonical"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/tenants/identity"
)

// Instance signs statements of the instance, each of one typ.
type Instance interface {
	SignAs(ctx context.Context, typ string, claims any) (string, error)
}

// sealBack is how far before the last batch that took all there was a seal looks again: a transaction that was under way when that batch was made may have committed
// after it.
const sealBack = time.Hour

// Seal makes receipts of what was captured and refused under a root and has none, puts them under one signed root hash, and closes what each
// payee was paid. It returns how many receipts it made. Each capture and each refusal has one receipt for ever.
func (s *Service) Seal(ctx context.Context, tx pgx.Tx, org id.Org, root id.Mandate) (int, error) {
	q := registerdb.New(tx)
	row, err := q.LockMandate(ctx, registerdb.LockMandateParams{OrgID: string(org), ID: string(root)}) // one seals at a time
	if err != nil {
		return 0, fmt.Errorf("lock the mandate %s: %w", root, err)
	}
	if row.ParentID != nil || row.SignedAt == nil {
		return 0, nil
	}
	number, since := int64(1), *row.SignedAt
	last, err := q.LastBatch(ctx, registerdb.LastBatchParams{OrgID: string(org), RootID: string(root), SignedAt: since})
	if err == nil {
		number, since = last.Number+1, last.WholeAt
	} else if !errors.Is(err, pgx.ErrNoRows) {
		return 0, fmt.Errorf("read the last batch of %s: %w", root, err)
	}
	lines, err := s.unsealed(ctx, tx, org, root, since.Add(-sealBack))
	if err != nil || len(lines) == 0 {
		return 0, err
	}
	zone, err := q.ZoneOf(ctx, string(org))
	if err != nil {
		return 0, fmt.Errorf("read the organisation's zone: %w", err)
	}
	now, batch := s.clock.Now().UTC(), id.New[id.MandateBatch]()
	in := registerdb.InsertReceiptsParams{OrgID: string(org), BatchID: string(batch)}
	leaves := make([][]byte, len(lines))
	for i, l := range lines {
		if leaves[i], err = canonical.JSON(l); err != nil {
			return 0, fmt.Errorf("write a receipt: %w", err)
		}
		in.Ids, in.Positions, in.MandateIds = append(in.Ids, l.ID), append(in.Positions, int32(i)), append(in.MandateIds, string(l.Path[len(l.Path)-1])) //nolint:gosec // at most a batch
		in.Payees, in.Amounts, in.Lines = append(in.Payees, l.Payee), append(in.Amounts, l.Amount), append(in.Lines, string(leaves[i]))
	}
	hash := mandate.NewTree(leaves).Root()
	statement, err := s.instance.SignAs(ctx, mandate.BatchType, mandate.BatchStatement{
		ID: batch, Organization: org, Root: root, Number: number, Size: len(lines), Hash: base64.RawURLEncoding.EncodeToString(hash), Zone: zone, At: now,
	})
	if err != nil {
		return 0, fmt.Errorf("sign a batch of receipts: %w", err)
	}
	err = q.InsertBatch(ctx, registerdb.InsertBatchParams{
		OrgID: string(org), ID: string(batch), RootID: string(root), Number: number, Size: int32(len(lines)), RootHash: hash, Statement: statement, Now: now, //nolint:gosec // at most a batch
	})
	if err != nil {
		return 0, fmt.Errorf("keep a batch of receipts: %w", err)
	}
	if err := q.InsertReceipts(ctx, in); err != nil {
		return 0, fmt.Errorf("keep receipts: %w", err)
	}
	return len(lines), s.close(ctx, tx, org, root, batch, now)
}

func (s *Service) unsealed(ctx context.Context, tx pgx.Tx, org id.Org, root id.Mandate, since time.Time) ([]mandate.Line, error) {
	q := registerdb.New(tx)
	rows, err := q.Below(ctx, registerdb.BelowParams{OrgID: string(org), ID: string(root)})
	if err != nil {
		return nil, fmt.Errorf("find what is below %s: %w", root, err)
	}
	paths := map[string][]id.Mandate{}
	for _, r := range rows {
		for _, p := range r.Path {
			paths[r.ID] = append(paths[r.ID], id.Mandate(p))
		}
	}
	spends, err := q.UnsealedSpends(ctx, registerdb.UnsealedSpendsParams{Org: string(org), Root: string(root), Since: since})
	if err != nil {
		return nil, fmt.Errorf("find what was spent under %s: %w", root, err)
	}
	lines := make([]mandate.Line, 0, len(spends))
	for _, r := range spends {
		lines = append(lines, mandate.Line{
			Type: mandate.Spend, ID: r.ID, Path: paths[r.MandateID], Agent: id.Agent(r.AgentID), Session: id.Session(r.SessionID), Step: id.Step(r.StepID), Kind: r.Kind, Name: r.Name,
			Payee: mandate.PayeeOf(r.Kind, r.Name, r.Domain), Held: r.HeldNanos, Amount: r.AmountNanos, At: r.CreatedAt.UTC(), HeldAt: r.HeldAt.UTC(),
		})
	}
	refusals, err := q.UnsealedRefusals(ctx, registerdb.UnsealedRefusalsParams{Org: string(org), Root: string(root), Since: since})
	if err != nil {
		return nil, fmt.Errorf("find what was refused under %s: %w", root, err)
	}
	for _, r := range refusals {
		var d journal.GateDecided
		if err := json.Unmarshal(r.Payload, &d); err != nil {
			return nil, fmt.Errorf("read the decision %s: %w", r.ID, err)
		}
		l := mandate.Line{
			Type: mandate.Refusal, ID: r.ID, Path: paths[r.MandateID], Agent: id.Agent(r.AgentID), Session: id.Session(r.SessionID), Kind: d.Kind, Name: d.Name,
			At: r.CreatedAt.UTC(), HeldAt: r.CreatedAt.UTC(),
		}
		domain := ""
		if d.Asked != nil {
			domain = d.Asked.Domain
		}
		l.Payee = mandate.PayeeOf(d.Kind, d.Name, domain)
		if len(d.Reasons) > 0 {
			l.Rule, l.Reason = d.Reasons[0].Rule, d.Reasons[0].Message
		}
		if d.Shortfall != nil && d.Shortfall.Scope == billing.ScopeMandate {
			l.Rule = d.Shortfall.ID
		}
		lines = append(lines, l)
	}
	for _, l := range lines {
		if len(l.Path) == 0 {
			return nil, fmt.Errorf("the session %s runs under a mandate that is not below %s", l.Session, root)
		}
	}
	return lines, nil
}

// close closes what each payee was paid under the mandates of a root: whole cents, rounded up once over all settlements, so that what was rounded
// up before pays for what comes.
func (s *Service) close(ctx context.Context, tx pgx.Tx, org id.Org, root id.Mandate, batch id.MandateBatch, now time.Time) error {
	q := registerdb.New(tx)
	rows, err := q.Unsettled(ctx, registerdb.UnsettledParams{Org: string(org), Root: string(root)})
	if err != nil {
		return fmt.Errorf("sum what was paid under %s: %w", root, err)
	}
	for _, r := range rows {
		cents := (r.CapturedNanos+int64(money.Cent)-1)/int64(money.Cent) - r.Cents
		if cents <= 0 {
			continue
		}
		m, err := s.Get(ctx, tx, org, id.Mandate(r.MandateID))
		if err != nil {
			return err
		}
		if err := s.pay(ctx, tx, m, r.Payee, cents, r.Cents, r.CapturedNanos, batch, now); err != nil {
			return err
		}
	}
	return nil
}

// pay closes an amount, in parts where the mandate limits what one payment may be.
func (s *Service) pay(ctx context.Context, tx pgx.Tx, m Mandate, payee string, cents, before, captured int64, batch id.MandateBatch, now time.Time) error {
	key, err := s.keys.AgentKey(ctx, tx, m.Org, identity.OfAgent(m.Agent))
	if err != nil {
		return err
	}
	if key.KeyID != m.KeyID {
		return nil // the key that the mandate confirms signs no more; the receipts stand for themselves
	}
	leaf, err := sdjwt.Parse(m.Token)
	if err != nil {
		return fmt.Errorf("read the token of %s: %w", m.ID, err)
	}
	most := cents
	for _, of := range m.Path {
		above, err := s.Get(ctx, tx, m.Org, of)
		if err != nil {
			return err
		}
		if each := above.Grant.PerAction; each != nil && *each >= money.Cent {
			most = min(most, int64(*each/money.Cent))
		}
	}
	q := registerdb.New(tx)
	for cents > 0 {
		part := min(cents, most)
		settlement := id.New[id.Settlement]()
		token, err := mandate.Close(func(header map[string]any, payload []byte) (string, error) {
			return s.keys.SignAsAgent(ctx, tx, m.Org, identity.OfAgent(m.Agent), header, payload)
		}, leaf, mandate.Closed{
			Type: mandate.TypeClosed, TransactionID: string(batch), Payee: mandate.Party{ID: payee, Name: payee}, Amount: mandate.CentAmount{Amount: part, Currency: mandate.Currency},
			Instrument: mandate.Instrument{ID: string(m.Org), Type: "ambit.ledger"}, Date: now.Format(time.RFC3339), Issued: now.Unix(),
		}, sdjwt.Occasion{Audience: payee, Nonce: string(settlement), At: now})
		if err != nil {
			return err
		}
		cents, before = cents-part, before+part
		settled := min(captured, before*int64(money.Cent))
		err = q.InsertSettlement(ctx, registerdb.InsertSettlementParams{
			OrgID: string(m.Org), ID: string(settlement), MandateID: string(m.ID), Payee: payee, Cents: part, CapturedNanos: settled,
			CarriedNanos: before*int64(money.Cent) - settled, Token: token.String(), Now: now,
		})
		if err != nil {
			return fmt.Errorf("keep what %s was paid: %w", payee, err)
		}
	}
	return nil
}
