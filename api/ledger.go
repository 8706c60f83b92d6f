package api

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func (a *API) ledgerRoutes() []Route {
	const tag = "Ledger"
	const accounts = "An organisation has five accounts: grants, available, held, spent and loss. They sum to zero. "
	return []Route{
		{
			ID: "ledger.entries.list", Method: http.MethodGet, Path: "/v1/ledger/entries", Permission: tenants.LedgerRead, Tag: tag,
			Summary: "List ledger entries", Description: accounts + "Newest first. An entry moves an amount from one account to another, and is never changed. A request that is bound to a project sees those of the project's sessions.",
			Errors: []string{slugPage}, Endpoint: read(a.listEntries),
		},
		{
			ID: "ledger.entries.get", Method: http.MethodGet, Path: "/v1/ledger/entries/{entry_id}", Permission: tenants.LedgerRead, Tag: tag,
			Summary: "Get a ledger entry", Endpoint: read(a.getEntry),
		},
		{
			ID: "ledger.holds.list", Method: http.MethodGet, Path: "/v1/ledger/holds", Permission: tenants.LedgerRead, Tag: tag,
			Summary: "List holds", Description: "Newest first. A hold is money reserved before an effect, or a session's price ceiling. unsettled: its time ran out before its effect was settled; it still counts. A request that is bound to a project sees those of the project's sessions.",
			Errors: []string{slugPage}, Endpoint: read(a.listHolds),
		},
		{
			ID: "ledger.holds.get", Method: http.MethodGet, Path: "/v1/ledger/holds/{hold_id}", Permission: tenants.LedgerRead, Tag: tag,
			Summary: "Get a hold", Endpoint: read(a.getHold),
		},
		{
			ID: "ledger.accounts.list", Method: http.MethodGet, Path: "/v1/ledger/accounts", Permission: tenants.LedgerRead, Tag: tag,
			Summary: "List the accounts", Description: "With their balances. Takes a key of the whole organisation. " + accounts, Errors: []string{slugDenied}, Endpoint: read(a.listAccounts),
		},
	}
}

// LedgerEntry is one transfer.
type LedgerEntry struct {
	ID            id.Entry    `json:"id"`
	Type          string      `json:"type" const:"ledger_entry"`
	Kind          string      `json:"kind" enum:"grant,revocation,hold,capture,release,loss" doc:"loss: what an effect used above its hold, which nobody is charged."`
	DebitAccount  string      `json:"debit_account" enum:"grants,available,held,spent,loss" doc:"What it was taken from."`
	CreditAccount string      `json:"credit_account" enum:"grants,available,held,spent,loss" doc:"What it was put into."`
	Amount        money.Nanos `json:"amount"`
	SessionID     *id.Session `json:"session_id"`
	StepID        *id.Step    `json:"step_id"`
	HoldID        *id.Hold    `json:"hold_id"`
	Note          string      `json:"note"`
	CreatedAt     Time        `json:"created_at"`
}

func entryFrom(t billing.Transfer) LedgerEntry {
	return LedgerEntry{
		ID: t.ID, Type: "ledger_entry", Kind: t.Kind, DebitAccount: string(t.Debit), CreditAccount: string(t.Credit), Amount: t.Amount,
		SessionID: idPtr(t.Session), StepID: idPtr(t.Step), HoldID: idPtr(t.Hold), Note: t.Note, CreatedAt: Time(t.CreatedAt),
	}
}

func idPtr[T ~string](v T) *T {
	if v == "" {
		return nil
	}
	return &v
}

type listEntriesIn struct {
	LongPaging
	projectFilter
	Account   string     `query:"account" enum:"grants,available,held,spent,loss" doc:"Only entries that took from this account or put into it."`
	Kind      string     `query:"kind" enum:"grant,revocation,hold,capture,release,loss"`
	SessionID id.Session `query:"session_id" doc:"Only entries of this session."`
	CreatedAt TimeRange  `query:"created_at" doc:"created_at[gt], [gte], [lt], [lte]."`
}

func (a *API) listEntries(ctx context.Context, tx pgx.Tx, in listEntriesIn) (Page[LedgerEntry], error) {
	var none Page[LedgerEntry]
	project, err := in.project(ctx)
	if err != nil {
		return none, err
	}
	after, err := positionID[id.Entry](in.place)
	if err != nil {
		return none, err
	}
	since, until := in.CreatedAt.halfOpen()
	list, err := billing.Entries(ctx, tx, principal.From(ctx).Org, billing.EntryFilter{
		Account: billing.Account(in.Account), Kind: in.Kind, Session: in.SessionID, Project: project, Since: since, Until: until, After: after, Limit: in.place.fetch(),
	})
	if err != nil {
		return none, err
	}
	return pageOf(in.place, list, func(t billing.Transfer) string { return string(t.ID) }, entryFrom), nil
}

type entryIn struct {
	Entry id.Entry `path:"entry_id"`
}

func (a *API) getEntry(ctx context.Context, tx pgx.Tx, in entryIn) (LedgerEntry, error) {
	who := principal.From(ctx)
	t, project, err := billing.Entry(ctx, tx, who.Org, in.Entry)
	if err != nil {
		return LedgerEntry{}, err
	}
	if who.Project != "" && project != who.Project {
		return LedgerEntry{}, fault.NotFound()
	}
	return entryFrom(t), nil
}

// LedgerAccount is an account with its balance.
type LedgerAccount struct {
	Name    string      `json:"name" enum:"grants,available,held,spent,loss"`
	Type    string      `json:"type" const:"ledger_account"`
	Balance money.Nanos `json:"balance" doc:"That of grants is minus what was granted, and that of loss minus what was lost: together they sum to zero."`
}

func (a *API) listAccounts(ctx context.Context, tx pgx.Tx, _ struct{}) (Page[LedgerAccount], error) {
	if err := wholeOrganization(ctx); err != nil {
		return Page[LedgerAccount]{}, err
	}
	list, err := billing.AccountBalances(ctx, tx, principal.From(ctx).Org)
	if err != nil {
		return Page[LedgerAccount]{}, err
	}
	out := Page[LedgerAccount]{Data: []LedgerAccount{}}
	for _, b := range list {
		out.Data = append(out.Data, LedgerAccount{Name: string(b.Account), Type: "ledger_account", Balance: b.Balance})
	}
	return out, nil
}

// LedgerHold is money reserved, and what came of it.
type LedgerHold struct {
	ID           id.Hold     `json:"id"`
	Type         string      `json:"type" const:"hold"`
	Status       string      `json:"status" enum:"held,unsettled,captured,released" doc:"unsettled: its time ran out before its effect was settled; it still counts."`
	Amount       money.Nanos `json:"amount"`
	Carved       money.Nanos `json:"carved" doc:"Of a price ceiling: what the holds of its effects have taken out of it now."`
	Captured     money.Nanos `json:"captured"`
	Released     money.Nanos `json:"released"`
	SessionID    id.Session  `json:"session_id"`
	StepID       *id.Step    `json:"step_id" doc:"null for a session's price ceiling."`
	ParentID     *id.Hold    `json:"parent_id" doc:"The price ceiling from which it was carved."`
	PriceVersion string      `json:"price_table_version"`
	ExpiresAt    Time        `json:"expires_at"`
	CreatedAt    Time        `json:"created_at"`
	SettledAt    *Time       `json:"settled_at"`
}

func ledgerHoldFrom(h billing.HoldRecord) LedgerHold {
	return LedgerHold{
		ID: h.ID, Type: "hold", Status: h.State, Amount: h.Amount, Carved: h.Carved, Captured: h.Captured, Released: h.Released, SessionID: h.Session,
		StepID: idPtr(h.Step), ParentID: idPtr(h.Parent), PriceVersion: h.PriceVersion, ExpiresAt: Time(h.ExpiresAt), CreatedAt: Time(h.CreatedAt), SettledAt: timePtr(h.SettledAt),
	}
}

type listHoldsIn struct {
	LongPaging
	projectFilter
	SessionID id.Session `query:"session_id" doc:"Only holds of this session."`
	Statuses  []string   `query:"statuses[]" enum:"held,unsettled,captured,released" maxitems:"4"`
}

func (a *API) listHolds(ctx context.Context, tx pgx.Tx, in listHoldsIn) (Page[LedgerHold], error) {
	var none Page[LedgerHold]
	project, err := in.project(ctx)
	if err != nil {
		return none, err
	}
	after, err := positionID[id.Hold](in.place)
	if err != nil {
		return none, err
	}
	list, err := billing.Holds(ctx, tx, principal.From(ctx).Org, billing.HoldFilter{Session: in.SessionID, Project: project, States: in.Statuses, After: after, Limit: in.place.fetch()})
	if err != nil {
		return none, err
	}
	return pageOf(in.place, list, func(h billing.HoldRecord) string { return string(h.ID) }, ledgerHoldFrom), nil
}

type holdIn struct {
	Hold id.Hold `path:"hold_id"`
}

func (a *API) getHold(ctx context.Context, tx pgx.Tx, in holdIn) (LedgerHold, error) {
	who := principal.From(ctx)
	h, project, err := billing.FindHold(ctx, tx, who.Org, in.Hold)
	if err != nil {
		return LedgerHold{}, err
	}
	if who.Project != "" && project != who.Project {
		return LedgerHold{}, fault.NotFound()
	}
	return ledgerHoldFrom(h), nil
}
