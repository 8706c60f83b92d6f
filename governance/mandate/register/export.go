package register

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/mandate"
	"ambit.dev/ambit/governance/mandate/register/internal/registerdb"
	"ambit.dev/ambit/governance/mandate/sdjwt"
	"ambit.dev/ambit/internal/id"
)

// Export is a mandate's file: its chain, what narrows it, every receipt, and what was paid. What has no receipt yet gets one first.
func (s *Service) Export(ctx context.Context, tx pgx.Tx, org id.Org, of id.Mandate, issuer string) (mandate.File, error) {
	m, err := s.Get(ctx, tx, org, of)
	if err != nil {
		return mandate.File{}, err
	}
	chain, err := s.Chain(ctx, tx, m)
	if err != nil {
		return mandate.File{}, err
	}
	for {
		n, err := s.Seal(ctx, tx, org, m.Path[0])
		if err != nil {
			return mandate.File{}, err
		}
		if n == 0 {
			break
		}
	}
	f := mandate.File{Type: mandate.FileType, Issuer: issuer, Chain: chain.String(), Below: []string{}, Batches: []mandate.BatchOfReceipts{}, Closed: []string{}, Revoked: m.RevokedAt}
	q := registerdb.New(tx)
	rows, err := q.Below(ctx, registerdb.BelowParams{OrgID: string(org), ID: string(of)})
	if err != nil {
		return mandate.File{}, fmt.Errorf("find what is below %s: %w", of, err)
	}
	all, err := fromRows(rows)
	if err != nil {
		return mandate.File{}, err
	}
	chains := map[string]sdjwt.Chain{string(of): chain}
	for _, b := range all { // parents come before those below them
		if b.ID == of {
			continue
		}
		t, err := sdjwt.Parse(b.Token)
		if err != nil {
			return mandate.File{}, fmt.Errorf("read the token of %s: %w", b.ID, err)
		}
		chains[string(b.ID)] = extended(chains[string(b.Parent)], t)
		f.Below = append(f.Below, chains[string(b.ID)].String())
	}
	if f.Batches, err = s.batches(ctx, q, m, chains); err != nil {
		return mandate.File{}, err
	}
	settled, err := q.SettlementsBelow(ctx, registerdb.SettlementsBelowParams{Org: string(org), ID: string(of)})
	if err != nil {
		return mandate.File{}, fmt.Errorf("read what was paid under %s: %w", of, err)
	}
	for _, c := range settled {
		t, err := sdjwt.Parse(c.Token)
		if err != nil {
			return mandate.File{}, fmt.Errorf("read the payment %s: %w", c.ID, err)
		}
		f.Closed = append(f.Closed, extended(chains[c.MandateID], t).String())
	}
	return f, nil
}

func extended(c sdjwt.Chain, t sdjwt.Token) sdjwt.Chain { return append(c[:len(c):len(c)], t) }

// batches are those of the root, each with the receipts of the mandates that are in the file.
func (s *Service) batches(ctx context.Context, q *registerdb.Queries, m Mandate, chains map[string]sdjwt.Chain) ([]mandate.BatchOfReceipts, error) {
	rows, err := q.Batches(ctx, registerdb.BatchesParams{OrgID: string(m.Org), RootID: string(m.Path[0])})
	if err != nil {
		return nil, fmt.Errorf("read the batches of %s: %w", m.ID, err)
	}
	out := make([]mandate.BatchOfReceipts, len(rows))
	for i, b := range rows {
		lines, err := q.LinesOfBatch(ctx, registerdb.LinesOfBatchParams{OrgID: string(m.Org), BatchID: b.ID})
		if err != nil {
			return nil, fmt.Errorf("read the receipts of %s: %w", b.ID, err)
		}
		leaves := make([][]byte, len(lines))
		for j, l := range lines {
			leaves[j] = []byte(l.Line)
		}
		tree := mandate.NewTree(leaves)
		out[i] = mandate.BatchOfReceipts{Statement: b.Statement, Lines: []mandate.ReceiptInBatch{}}
		for j, l := range lines {
			if chains[l.MandateID] != nil {
				out[i].Lines = append(out[i].Lines, mandate.ReceiptInBatch{Line: json.RawMessage(l.Line), Place: j, Path: tree.Inclusion(j)})
			}
		}
	}
	return out, nil
}

// Receipts are the newest receipts of a mandate and of what is below it.
func (s *Service) Receipts(ctx context.Context, tx pgx.Tx, org id.Org, of id.Mandate, limit int) ([]mandate.Line, error) {
	rows, err := registerdb.New(tx).RecentLines(ctx, registerdb.RecentLinesParams{Org: string(org), ID: string(of), RowLimit: int32(min(max(limit, 1), 1000))}) //nolint:gosec // bounded
	if err != nil {
		return nil, fmt.Errorf("read the receipts of %s: %w", of, err)
	}
	out := make([]mandate.Line, len(rows))
	for i, r := range rows {
		if err := json.Unmarshal([]byte(r.Line), &out[i]); err != nil {
			return nil, fmt.Errorf("read the receipt %s: %w", r.ID, err)
		}
	}
	return out, nil
}
