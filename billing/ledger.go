package billing

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing/internal/billingdb"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/postgres"
)

// Account is one of the five accounts that each organisation has. They are credit-normal: a transfer takes from the debited and adds to
// the credited, and the balances of one organisation sum to zero.
type Account string

// The accounts.
const (
	// Grants is where credit comes from. Its balance is minus what was granted.
	Grants Account = "grants"
	// Available is what can still be held.
	Available Account = "available"
	// Held is what is reserved for effects under way.
	Held Account = "held"
	// Spent is what was captured.
	Spent Account = "spent"
	// Loss is what an effect used above its hold: the platform's loss, never charged.
	Loss Account = "loss"
)

// Kinds of transfer.
const (
	kindGrant      = "grant"
	kindRevocation = "revocation"
)

func init() {
	postgres.RegisterConstraint("account_not_overdrawn", fault.New(fault.PaymentRequired, "insufficient_funds", "The balance does not cover this."))
}

// Transfer is one row of the ledger.
type Transfer struct {
	ID        id.Entry
	Debit     Account
	Credit    Account
	Amount    money.Nanos
	Kind      string
	Hold      id.Hold
	Session   id.Session
	Step      id.Step
	Note      string
	CreatedAt time.Time
}

// Balances are an organisation's accounts as they are now.
type Balances struct {
	Granted   money.Nanos
	Available money.Nanos
	Held      money.Nanos
	Spent     money.Nanos
}

// Grant gives an organisation credit. amount must be above zero; the note says why and is kept for ever.
func Grant(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, amount money.Nanos, note string) (id.Entry, error) {
	if amount <= 0 {
		return "", fault.InvalidField("/amount", "invalid_money", "The credit must be more than zero.")
	}
	return post(ctx, tx, org, Transfer{Debit: Grants, Credit: Available, Amount: amount, Kind: kindGrant, Note: note, CreatedAt: now})
}

// Revoke takes credit back that is not held or spent. More than that is refused with insufficient_funds.
func Revoke(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, amount money.Nanos, note string) (id.Entry, error) {
	if amount <= 0 {
		return "", fault.InvalidField("/amount", "invalid_money", "The amount to revoke must be more than zero.")
	}
	return post(ctx, tx, org, Transfer{Debit: Available, Credit: Grants, Amount: amount, Kind: kindRevocation, Note: note, CreatedAt: now})
}

// ReadBalances reads the organisation's balances.
func ReadBalances(ctx context.Context, tx pgx.Tx, org id.Org) (Balances, error) {
	rows, err := billingdb.New(tx).Balances(ctx, org)
	if err != nil {
		return Balances{}, fmt.Errorf("read the balances: %w", err)
	}
	var b Balances
	for _, r := range rows {
		switch Account(r.Account) {
		case Grants:
			b.Granted = -r.BalanceNanos
		case Available:
			b.Available = r.BalanceNanos
		case Held:
			b.Held = r.BalanceNanos
		case Spent:
			b.Spent = r.BalanceNanos
		case Loss:
		}
	}
	return b, nil
}

// Recount sums the transfers and reports the accounts whose balance is not that sum. An empty answer is the proof that they agree.
func Recount(ctx context.Context, tx pgx.Tx, org id.Org) (wrong map[Account]money.Nanos, err error) {
	q := billingdb.New(tx)
	sums, err := q.SumTransfers(ctx, org)
	if err != nil {
		return nil, fmt.Errorf("sum the transfers: %w", err)
	}
	balances, err := q.Balances(ctx, org)
	if err != nil {
		return nil, fmt.Errorf("read the balances: %w", err)
	}
	diff := map[Account]money.Nanos{}
	for _, s := range sums {
		diff[Account(s.Account)] -= money.Nanos(s.BalanceNanos)
	}
	for _, b := range balances {
		diff[Account(b.Account)] += b.BalanceNanos
	}
	for account, d := range diff {
		if d == 0 {
			delete(diff, account)
		}
	}
	return diff, nil
}

// ListTransfers lists the ledger newest first, after the given entry.
func ListTransfers(ctx context.Context, tx pgx.Tx, org id.Org, after id.Entry, limit int) ([]Transfer, error) {
	rows, err := billingdb.New(tx).ListTransfers(ctx, billingdb.ListTransfersParams{OrgID: org, BeforeID: string(after), RowLimit: int32(limit)}) //nolint:gosec // at most a page
	if err != nil {
		return nil, fmt.Errorf("list the ledger: %w", err)
	}
	return transfersFromRows(rows), nil
}

// SessionTransfers lists a session's transfers, oldest first.
func SessionTransfers(ctx context.Context, tx pgx.Tx, org id.Org, session id.Session) ([]Transfer, error) {
	rows, err := billingdb.New(tx).SessionTransfers(ctx, billingdb.SessionTransfersParams{OrgID: org, SessionID: session})
	if err != nil {
		return nil, fmt.Errorf("list the ledger of %s: %w", session, err)
	}
	return transfersFromRows(rows), nil
}

func transfersFromRows(rows []billingdb.LedgerTransfer) []Transfer {
	out := make([]Transfer, len(rows))
	for i, r := range rows {
		out[i] = Transfer{
			ID: r.ID, Debit: Account(r.DebitAccount), Credit: Account(r.CreditAccount), Amount: r.AmountNanos, Kind: r.Kind,
			Hold: id.Hold(deref(r.HoldID)), Session: r.SessionID, Step: id.Step(deref(r.StepID)), Note: r.Note, CreatedAt: r.CreatedAt.UTC(),
		}
	}
	return out
}

// post writes a transfer; a trigger of the database moves the balances in the same statement.
func post(ctx context.Context, tx pgx.Tx, org id.Org, t Transfer) (id.Entry, error) {
	t.ID = id.New[id.Entry]()
	if err := billingdb.New(tx).LockAccounts(ctx, org); err != nil {
		return "", fmt.Errorf("lock the accounts: %w", err)
	}
	err := billingdb.New(tx).InsertTransfer(ctx, billingdb.InsertTransferParams{
		OrgID: org, ID: t.ID, DebitAccount: string(t.Debit), CreditAccount: string(t.Credit), AmountNanos: t.Amount, Kind: t.Kind,
		HoldID: ref(string(t.Hold)), SessionID: t.Session, StepID: ref(string(t.Step)), Note: t.Note, CreatedAt: t.CreatedAt,
	})
	if err != nil {
		return "", fmt.Errorf("post a %s of %s: %w", t.Kind, t.Amount, err)
	}
	return t.ID, nil
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

func ref(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
