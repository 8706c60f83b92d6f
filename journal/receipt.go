package journal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal/internal/journaldb"
)

// Receipt is a signed statement of what happened. Body is its JSON; Signature is a compact JWS over it, empty until it is complete.
type Receipt struct {
	ID          id.Receipt
	Session     id.Session
	Body        json.RawMessage
	Signature   string
	CreatedAt   time.Time
	CompletedAt *time.Time
}

// PutReceipt writes the receipt of a kill, not yet complete.
func (l *Locked) PutReceipt(ctx context.Context, now time.Time, receipt id.Receipt, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("write a receipt: %w", err)
	}
	err = journaldb.New(l.tx).InsertReceipt(ctx, journaldb.InsertReceiptParams{OrgID: l.Org, ID: string(receipt), SessionID: l.ID, Kind: "kill", Body: b, CreatedAt: now})
	if err != nil {
		return fmt.Errorf("insert a receipt: %w", err)
	}
	return nil
}

// CompleteReceipt writes the final body and its signature. A receipt is completed once; a second time changes nothing.
func CompleteReceipt(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, receipt id.Receipt, body any, signature string) error {
	b, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("write a receipt: %w", err)
	}
	_, err = journaldb.New(tx).CompleteReceipt(ctx, journaldb.CompleteReceiptParams{OrgID: org, ID: string(receipt), Body: b, Signature: &signature, CompletedAt: &now})
	if err != nil {
		return fmt.Errorf("complete receipt %s: %w", receipt, err)
	}
	return nil
}

// KillReceipt reads the receipt of a session's kill.
func KillReceipt(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) (Receipt, error) {
	row, err := journaldb.New(tx).GetReceipt(ctx, journaldb.GetReceiptParams{OrgID: org, SessionID: session})
	if errors.Is(err, pgx.ErrNoRows) {
		return Receipt{}, fault.NotFound()
	}
	if err != nil {
		return Receipt{}, fmt.Errorf("read the receipt of %s: %w", session, err)
	}
	r := Receipt{ID: id.Receipt(row.ID), Session: row.SessionID, Body: row.Body, Signature: deref(row.Signature), CreatedAt: row.CreatedAt.UTC()}
	if row.CompletedAt != nil {
		at := row.CompletedAt.UTC()
		r.CompletedAt = &at
	}
	return r, nil
}
