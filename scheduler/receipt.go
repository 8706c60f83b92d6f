package scheduler

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/journal"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/scheduler/internal/stopdb"
)

// Types of receipt, as they say themselves.
const (
	KillReceiptType = "kill_receipt"
	StopReceiptType = "stop_receipt"
)

// KilledSession says of one session what a kill did, and when each part of it was true. Amounts are integer nano-dollars.
type KilledSession struct {
	Session id.Session  `json:"session_id"`
	Parent  *id.Session `json:"parent_session_id"`
	// Epoch is the first in which nobody works: whoever worked before it can journal nothing, hold nothing and reach no sandbox.
	Epoch int64 `json:"epoch"`
	// FencedAt is when that was seen to be committed; null until then.
	FencedAt *time.Time `json:"fenced_at"`
	// Sandbox is null while its end is under way; it has no id for a session that had none.
	Sandbox       *sandbox.Gone `json:"sandbox"`
	ChargedNanos  int64         `json:"charged_nanos"`
	HoldsReleased []ReleasedRef `json:"holds_released"`
	// LastBilled is the last that was charged to the session, the kill's own settlements included; null when nothing was.
	LastBilled   *Billed    `json:"last_billed"`
	LastBilledAt *time.Time `json:"last_billed_at"`
	// UnsettledSteps had begun; what became of them is not known. They were settled by the declared policy.
	UnsettledSteps []id.Step `json:"unsettled_steps"`
}

// Billed is a capture of the ledger.
type Billed struct {
	Entry id.Entry  `json:"ledger_entry_id"`
	Step  *id.Step  `json:"step_id"`
	Nanos int64     `json:"amount_nanos"`
	At    time.Time `json:"at"`
}

// ReleasedRef is a hold and what of it was given back, in nano-dollars.
type ReleasedRef struct {
	Hold  id.Hold   `json:"hold_id"`
	Nanos int64     `json:"released_nanos"`
	At    time.Time `json:"released_at"`
}

// KillReceipt is the receipt of a kill: of the session, and of every session below it that was stopped with it.
type KillReceipt struct {
	Type string     `json:"type" const:"kill_receipt"`
	ID   id.Receipt `json:"id"`
	KilledSession
	By          journal.Actor `json:"by"`
	Reason      string        `json:"reason"`
	RequestedAt time.Time     `json:"requested_at"`
	// Stop is the order that the kill carried out, when it was a scope that was stopped.
	Stop *id.Stop `json:"stop_id"`
	// Children are the sessions below it, those nearer to it first. Those that had ended before are counted and not listed.
	Children     []KilledSession `json:"children"`
	AlreadyEnded int             `json:"children_already_ended"`
	// Signature is a compact JWS over the receipt without it; empty until every sandbox is known to be gone.
	Signature string `json:"signature,omitempty"`
}

// Done says that every sandbox is known to be gone and the receipt is signed.
func (r *KillReceipt) Done() bool { return r.Signature != "" }

// sessions are all that the receipt speaks of, itself first.
func (r *KillReceipt) sessions() []*KilledSession {
	all := []*KilledSession{&r.KilledSession}
	for i := range r.Children {
		all = append(all, &r.Children[i])
	}
	return all
}

func readKillReceipt(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) (KillReceipt, error) {
	row, err := journal.KillReceipt(ctx, tx, org, session)
	if err != nil {
		return KillReceipt{}, err
	}
	return decodeReceipt(string(row.ID), row.Body)
}

func decodeReceipt(receipt string, body []byte) (KillReceipt, error) {
	var r KillReceipt
	if err := json.Unmarshal(body, &r); err != nil {
		return KillReceipt{}, fmt.Errorf("read receipt %s: %w", receipt, err)
	}
	return r, nil
}

// treeReceipts reads the receipts of a tree that was killed, by session, and says whether all are complete.
func treeReceipts(ctx context.Context, tx pgx.Tx, org id.Org, root id.Session) (map[id.Session]KillReceipt, bool, error) {
	rows, err := stopdb.New(tx).TreeReceipts(ctx, stopdb.TreeReceiptsParams{OrgID: org, RootSessionID: &root})
	if err != nil {
		return nil, false, fmt.Errorf("read the receipts below %s: %w", root, err)
	}
	found, complete := make(map[id.Session]KillReceipt, len(rows)), true
	for _, row := range rows {
		r, err := decodeReceipt(string(row.ID), row.Body)
		if err != nil {
			return nil, false, err
		}
		found[row.SessionID] = r
		complete = complete && row.CompletedAt != nil
	}
	return found, complete, nil
}

// KillReceipt reads the receipt of a session's kill as it is now.
func (s *Service) KillReceipt(ctx context.Context, org id.Org, session id.Session) (KillReceipt, error) {
	var r KillReceipt
	err := s.db.InTx(ctx, org, func(tx pgx.Tx) (err error) {
		r, err = readKillReceipt(ctx, tx, org, session)
		return err
	})
	return r, err
}
