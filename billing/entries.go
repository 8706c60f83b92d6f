package billing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing/internal/billingdb"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
)

// Accounts lists the accounts, in the order in which money passes through them.
func Accounts() []Account { return []Account{Grants, Available, Held, Spent, Loss} }

// TransferKinds lists the kinds of transfer.
func TransferKinds() []string {
	return []string{kindGrant, kindRevocation, "hold", "capture", "release", "loss"}
}

// EntryFilter selects transfers. What is empty does not restrict.
type EntryFilter struct {
	// Account selects what was taken from it or put into it.
	Account Account
	Session id.Session
	// Project selects the transfers of its sessions.
	Project id.Project
	Kind    string
	// Since is included, Until is not.
	Since, Until *time.Time
	// After is the last one seen.
	After id.Entry
	Limit int
}

// rare says that only transfers of the kinds with an index of their own can be meant.
func (f EntryFilter) rare() bool {
	return f.Account == Grants || f.Account == Loss || slices.Contains([]string{kindGrant, kindRevocation, "loss"}, f.Kind)
}

// Entries lists transfers, newest first.
func Entries(ctx context.Context, tx pgx.Tx, org id.Org, f EntryFilter) ([]Transfer, error) {
	ask := billingdb.ListEntriesParams{
		OrgID: org, BeforeID: string(f.After), Account: string(f.Account), SessionID: string(f.Session), Kind: f.Kind, ProjectID: string(f.Project),
		Since: f.Since, Until: f.Until, RowLimit: int32(f.Limit), //nolint:gosec // at most a page
	}
	var rows []billingdb.ListEntriesRow
	var err error
	if f.rare() {
		var few []billingdb.ListRareEntriesRow
		few, err = billingdb.New(tx).ListRareEntries(ctx, billingdb.ListRareEntriesParams(ask))
		for _, r := range few {
			rows = append(rows, billingdb.ListEntriesRow(r))
		}
	} else {
		rows, err = billingdb.New(tx).ListEntries(ctx, ask)
	}
	if err != nil {
		return nil, fmt.Errorf("list the ledger: %w", err)
	}
	out := make([]Transfer, len(rows))
	for i, r := range rows {
		out[i] = entryFromRow(r)
	}
	return out, nil
}

// Entry reads one transfer and the project of its session; the project is empty for one that no session has to do with.
func Entry(ctx context.Context, tx pgx.Tx, org id.Org, entry id.Entry) (Transfer, id.Project, error) {
	r, err := billingdb.New(tx).GetEntry(ctx, billingdb.GetEntryParams{OrgID: org, ID: entry})
	if errors.Is(err, pgx.ErrNoRows) {
		return Transfer{}, "", fault.NotFound()
	}
	if err != nil {
		return Transfer{}, "", fmt.Errorf("read ledger entry %s: %w", entry, err)
	}
	return entryFromRow(billingdb.ListEntriesRow{
		ID: r.ID, DebitAccount: r.DebitAccount, CreditAccount: r.CreditAccount, AmountNanos: r.AmountNanos, Kind: r.Kind, HoldID: r.HoldID,
		SessionID: r.SessionID, StepID: r.StepID, Note: r.Note, CreatedAt: r.CreatedAt,
	}), id.Project(r.ProjectID), nil
}

func entryFromRow(r billingdb.ListEntriesRow) Transfer {
	return Transfer{
		ID: r.ID, Debit: Account(r.DebitAccount), Credit: Account(r.CreditAccount), Amount: r.AmountNanos, Kind: r.Kind,
		Hold: id.Hold(deref(r.HoldID)), Session: r.SessionID, Step: id.Step(deref(r.StepID)), Note: r.Note, CreatedAt: r.CreatedAt.UTC(),
	}
}

// AccountBalance is one account as it is now.
type AccountBalance struct {
	Account Account
	Balance money.Nanos
}

// AccountBalances reads all five accounts; they sum to zero. One that was never used is zero.
func AccountBalances(ctx context.Context, tx pgx.Tx, org id.Org) ([]AccountBalance, error) {
	rows, err := billingdb.New(tx).Balances(ctx, org)
	if err != nil {
		return nil, fmt.Errorf("read the balances: %w", err)
	}
	out := make([]AccountBalance, 0, len(Accounts()))
	for _, a := range Accounts() {
		out = append(out, AccountBalance{Account: a})
	}
	for _, r := range rows {
		if i := slices.IndexFunc(out, func(b AccountBalance) bool { return b.Account == Account(r.Account) }); i >= 0 {
			out[i].Balance = r.BalanceNanos
		}
	}
	return out, nil
}

// Names finds what people call the organisation, projects, agents, keys, members (by the person's id) and sessions with these ids. What has
// no name is left out.
func Names(ctx context.Context, tx pgx.Tx, org id.Org, ids []string) (map[string]string, error) {
	out := map[string]string{}
	if len(ids) == 0 {
		return out, nil
	}
	rows, err := billingdb.New(tx).Names(ctx, billingdb.NamesParams{OrgID: string(org), Ids: ids})
	if err != nil {
		return nil, fmt.Errorf("find names: %w", err)
	}
	for _, r := range rows {
		if r.Name != "" {
			out[r.ID] = r.Name
		}
	}
	return out, nil
}

// FindOrganization returns the id of the organisation with this id or short name, for an operator's command. The transaction names no
// organisation.
func FindOrganization(ctx context.Context, tx pgx.Tx, name string) (id.Org, error) {
	found, err := billingdb.New(tx).FindOrganization(ctx, name)
	if err != nil {
		return "", fmt.Errorf("look for an organisation: %w", err)
	}
	if found == "" {
		return "", fault.Newf(fault.NotFoundKind, "not_found", "There is no organisation with the id or the short name %q.", name)
	}
	return id.Org(found), nil
}
