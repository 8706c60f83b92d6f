package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing/internal/billingdb"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
)

// What a budget covers.
const (
	ScopeOrganization = "organization"
	ScopeProject      = "project"
	ScopeAgent        = "agent"
	ScopeKey          = "key"
	ScopeMember       = "member"
	ScopeSession      = "session"
	// ScopeMandate is of the budgets that count what is spent under a mandate. They are made and ended with it, and by nothing else.
	ScopeMandate = "mandate"
)

// BudgetScopes are the kinds of scope, from the widest to the narrowest.
var BudgetScopes = []string{ScopeOrganization, ScopeProject, ScopeAgent, ScopeKey, ScopeMember, ScopeSession}

// BudgetPeriods are how often a budget begins anew, in the organisation's time zone; total never does.
var BudgetPeriods = []string{"hour", "day", "week", "month", "total"}

// What a budget does with what does not fit.
const (
	// Block refuses it.
	Block = "block"
	// Warn lets it pass and tells.
	Warn = "warn"
)

const (
	maxBudget        = 1_000_000_000 * money.Dollar
	maxBudgets       = 1000
	maxBudgetName    = 80
	maxBudgetAlerts  = 10
	maxAlertsPercent = 1000
)

// Scope is what a budget covers. ID of a member is the person's.
type Scope struct {
	Type string `json:"type"`
	ID   string `json:"id"`
}

func (s Scope) String() string { return s.Type + ":" + s.ID }

// Budget is a limit on what a scope spends in a period. What is spent and held in it is moved by the ledger's transfers alone.
type Budget struct {
	ID     id.Budget
	Name   string
	Scope  Scope
	Limit  money.Nanos
	Period string
	Action string
	// Alerts are percentages of the limit at which the organisation is told, once a period each.
	Alerts []int32
	// Spent and Held are those of the period now under way. StartsAt is zero for a total that never begins anew, and so is ResetsAt.
	Spent     money.Nanos
	Held      money.Nanos
	StartsAt  time.Time
	ResetsAt  time.Time
	Version   int64
	CreatedBy principal.Principal
	CreatedAt time.Time
	UpdatedAt time.Time
	Archived  bool
}

// Available is what is left: never below zero.
func (b Budget) Available() money.Nanos { return max(0, b.Limit-b.Spent-b.Held) }

// Left is what is left as a share of the limit, in thousandths: 1000 for a budget of which nothing was used, 0 for one with nothing left.
func (b Budget) Left() int {
	if b.Limit <= 0 {
		return 0
	}
	n := new(big.Int).Mul(big.NewInt(int64(b.Available())), big.NewInt(1000))
	return int(n.Quo(n, big.NewInt(int64(b.Limit))).Int64())
}

// LessLeft says that a smaller share of b's limit is left than of other's.
func (b Budget) LessLeft(other Budget) bool {
	if b.Limit <= 0 || other.Limit <= 0 {
		return b.Limit <= 0 && other.Limit > 0
	}
	mine := new(big.Int).Mul(big.NewInt(int64(b.Available())), big.NewInt(int64(other.Limit)))
	return mine.Cmp(new(big.Int).Mul(big.NewInt(int64(other.Available())), big.NewInt(int64(b.Limit)))) < 0
}

// Near says that at least four fifths of a budget are spent or held. A limit of zero is meant so, and is near once something was spent.
func (b Budget) Near() bool {
	used := b.Spent + b.Held
	return used > 0 && used >= b.Limit-b.Limit/5
}

// Forecast is what will have been spent at the period's end if spending goes on as it did so far; false when there is no end, or too little
// of the period has passed to tell.
func (b Budget) Forecast(now time.Time) (money.Nanos, bool) {
	whole, passed := b.ResetsAt.Sub(b.StartsAt), now.Sub(b.StartsAt)
	if b.ResetsAt.IsZero() || b.StartsAt.IsZero() || whole <= 0 || passed < whole/50 {
		return 0, false
	}
	n := new(big.Int).Mul(big.NewInt(int64(b.Spent)), big.NewInt(int64(whole)))
	if n.Quo(n, big.NewInt(int64(min(passed, whole)))); !n.IsInt64() {
		return math.MaxInt64, true
	}
	return money.Nanos(n.Int64()), true
}

// NewBudget is what a budget is made from.
type NewBudget struct {
	Name   string
	Scope  Scope
	Limit  money.Nanos
	Period string
	Action string
	Alerts []int32
}

// CreateBudget makes a budget that binds from the commit on, running work too. What its scope has spent in the period under way and holds now
// counts from the start.
func CreateBudget(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, in NewBudget) (Budget, error) {
	q := billingdb.New(tx)
	if err := checkBudget(&in.Name, in.Limit, in.Action, &in.Alerts); err != nil {
		return Budget{}, err
	}
	if !slices.Contains(BudgetPeriods, in.Period) {
		return Budget{}, fault.InvalidField("/period", "unknown_value", "A period is one of "+strings.Join(BudgetPeriods, ", ")+".")
	}
	if !slices.Contains(BudgetScopes, in.Scope.Type) {
		return Budget{}, fault.InvalidField("/scope/type", "unknown_value", "A scope is one of "+strings.Join(BudgetScopes, ", ")+".")
	}
	if in.Scope.Type == ScopeOrganization && in.Scope.ID == "" {
		in.Scope.ID = string(org)
	}
	if in.Scope.Type == ScopeMember {
		user, err := q.MemberUser(ctx, billingdb.MemberUserParams{OrgID: org, ID: in.Scope.ID})
		if err != nil && !errors.Is(err, pgx.ErrNoRows) {
			return Budget{}, fmt.Errorf("look for a member: %w", err)
		}
		in.Scope.ID = user
	}
	there, err := q.ScopeExists(ctx, billingdb.ScopeExistsParams{Kind: in.Scope.Type, OrgID: string(org), ScopeID: in.Scope.ID})
	if err != nil {
		return Budget{}, fmt.Errorf("look for what a budget covers: %w", err)
	}
	if !there {
		return Budget{}, fault.InvalidField("/scope/id", "not_found", "There is no such "+in.Scope.Type+" in this organisation.")
	}
	n, err := q.CountBudgets(ctx, org)
	if err != nil {
		return Budget{}, fmt.Errorf("count the budgets: %w", err)
	}
	if n >= maxBudgets {
		return Budget{}, fault.New(fault.Conflict, "too_many", fmt.Sprintf("An organisation has at most %d budgets. Delete one that you no longer need.", maxBudgets))
	}
	by, err := json.Marshal(principal.From(ctx))
	if err != nil {
		return Budget{}, fmt.Errorf("write the principal: %w", err)
	}
	budget := id.New[id.Budget]()
	err = q.InsertBudget(ctx, billingdb.InsertBudgetParams{
		OrgID: org, ID: string(budget), Name: in.Name, Scope: in.Scope.String(), LimitNanos: int64(in.Limit), Period: in.Period, Action: in.Action,
		Alerts: in.Alerts, CreatedBy: by, Now: now,
	})
	if err != nil {
		return Budget{}, fmt.Errorf("make a budget: %w", err)
	}
	if err := q.OpenBudget(ctx, billingdb.OpenBudgetParams{OrgID: string(org), ID: string(budget)}); err != nil {
		return Budget{}, fmt.Errorf("open a budget: %w", err)
	}
	if err := noteReached(ctx, q, org, budget); err != nil {
		return Budget{}, err
	}
	return GetBudget(ctx, tx, org, budget)
}

// ChangeBudget says what to change; nil leaves a field as it is. Scope and period are what a budget is, and stay.
type ChangeBudget struct {
	Name   *string
	Limit  *money.Nanos
	Action *string
	Alerts *[]int32
}

// UpdateBudget changes a budget, from the commit on. A threshold that is reached by it is told at once, and once. ifVersion above zero must be
// the budget's version.
func UpdateBudget(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, budget id.Budget, change ChangeBudget, ifVersion int64) (Budget, error) {
	q := billingdb.New(tx)
	if err := q.LockAccounts(ctx, org); err != nil { // before the budget, as everywhere
		return Budget{}, fmt.Errorf("lock the accounts: %w", err)
	}
	row, err := q.LockBudget(ctx, billingdb.LockBudgetParams{OrgID: org, ID: string(budget)})
	if errors.Is(err, pgx.ErrNoRows) {
		return Budget{}, fault.NotFound()
	}
	if err != nil {
		return Budget{}, fmt.Errorf("lock budget %s: %w", budget, err)
	}
	if strings.HasPrefix(row.Scope, ScopeMandate+":") {
		return Budget{}, fault.New(fault.Conflict, "state_conflict", "This is what a mandate allows, as it was signed. Sign another, or revoke it.")
	}
	if ifVersion > 0 && row.Version != ifVersion {
		return Budget{}, fault.New(fault.PreconditionFailed, "precondition_failed", "The budget has changed since you read it. Read it again and repeat your change.")
	}
	limit := money.Nanos(row.LimitNanos)
	if change.Name != nil {
		row.Name = *change.Name
	}
	if change.Limit != nil {
		limit = *change.Limit
	}
	if change.Action != nil {
		row.Action = *change.Action
	}
	if change.Alerts != nil {
		row.Alerts = *change.Alerts
	}
	if err := checkBudget(&row.Name, limit, row.Action, &row.Alerts); err != nil {
		return Budget{}, err
	}
	n, err := q.UpdateBudget(ctx, billingdb.UpdateBudgetParams{
		Name: row.Name, LimitNanos: int64(limit), Action: row.Action, Alerts: row.Alerts, Now: now, OrgID: org, ID: string(budget),
	})
	if err != nil || n != 1 {
		return Budget{}, fmt.Errorf("change budget %s (%d rows): %w", budget, n, err)
	}
	if err := noteReached(ctx, q, org, budget); err != nil {
		return Budget{}, err
	}
	return GetBudget(ctx, tx, org, budget)
}

// noteReached notes what is reached by what was spent before; the watch tells it. The accounts are locked.
func noteReached(ctx context.Context, q *billingdb.Queries, org id.Org, budget id.Budget) error {
	if err := q.NoteReached(ctx, billingdb.NoteReachedParams{OrgID: org, ID: string(budget)}); err != nil {
		return fmt.Errorf("note which thresholds of budget %s are reached: %w", budget, err)
	}
	return nil
}

// ArchiveBudget ends a budget: it binds and counts no more, and stays in the ledger's history.
func ArchiveBudget(ctx context.Context, tx pgx.Tx, now time.Time, org id.Org, budget id.Budget) error {
	n, err := billingdb.New(tx).ArchiveBudget(ctx, billingdb.ArchiveBudgetParams{Now: &now, OrgID: org, ID: string(budget)})
	if err != nil {
		return fmt.Errorf("end budget %s: %w", budget, err)
	}
	if n == 0 {
		return fault.NotFound()
	}
	return nil
}

// GetBudget reads a budget with its present period, one that has ended too.
func GetBudget(ctx context.Context, tx pgx.Tx, org id.Org, budget id.Budget) (Budget, error) {
	row, err := billingdb.New(tx).GetBudget(ctx, billingdb.GetBudgetParams{OrgID: org, ID: string(budget)})
	if errors.Is(err, pgx.ErrNoRows) {
		return Budget{}, fault.NotFound()
	}
	if err != nil {
		return Budget{}, fmt.Errorf("read budget %s: %w", budget, err)
	}
	return budgetFromRow(billingdb.ListBudgetsRow(row))
}

// ListBudgets lists the budgets that bind, newest first, after the given one. An empty scope lists all.
func ListBudgets(ctx context.Context, tx pgx.Tx, org id.Org, scope string, after id.Budget, limit int) ([]Budget, error) {
	rows, err := billingdb.New(tx).ListBudgets(ctx, billingdb.ListBudgetsParams{OrgID: org, Scope: scope, AfterID: string(after), RowLimit: int32(limit)}) //nolint:gosec // at most a page
	if err != nil {
		return nil, fmt.Errorf("list the budgets: %w", err)
	}
	out := make([]Budget, len(rows))
	for i, r := range rows {
		if out[i], err = budgetFromRow(r); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// BudgetsOver lists the budgets that a hold of something with these scopes would be checked against, in that order. It changes nothing.
func BudgetsOver(ctx context.Context, tx pgx.Tx, org id.Org, scopes []string) ([]Budget, error) {
	rows, err := billingdb.New(tx).BudgetsOver(ctx, billingdb.BudgetsOverParams{OrgID: org, Scopes: scopes})
	if err != nil {
		return nil, fmt.Errorf("list the budgets over %v: %w", scopes, err)
	}
	out := make([]Budget, len(rows))
	for i, r := range rows {
		if out[i], err = budgetFromRow(billingdb.ListBudgetsRow(r)); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// BudgetMismatches lists the budgets whose period does not say what the ledger's transfers say. An empty answer is the proof that they agree.
func BudgetMismatches(ctx context.Context, tx pgx.Tx, org id.Org) ([]string, error) {
	rows, err := billingdb.New(tx).BudgetMismatches(ctx, org)
	if err != nil {
		return nil, fmt.Errorf("recount the budgets: %w", err)
	}
	out := make([]string, len(rows))
	for i, r := range rows {
		out[i] = fmt.Sprintf("%s from %s: held %d, by the ledger %d; spent %d, by the ledger %d", r.BudgetID, r.StartsAt, r.HeldNanos, r.LedgerHeld, r.SpentNanos, r.LedgerSpent)
	}
	return out, nil
}

func checkBudget(name *string, limit money.Nanos, action string, alerts *[]int32) error {
	*name = strings.TrimSpace(*name)
	if *name == "" || utf8.RuneCountInString(*name) > maxBudgetName || strings.ContainsFunc(*name, func(r rune) bool { return r < ' ' }) {
		return fault.InvalidField("/name", "out_of_range", fmt.Sprintf("A budget has a name of at most %d characters on one line: what is refused because of it names it.", maxBudgetName))
	}
	if limit < 0 || limit > maxBudget {
		return fault.InvalidField("/limit", "out_of_range", "A limit is from zero to "+maxBudget.Display()+".")
	}
	if action != Block && action != Warn {
		return fault.InvalidField("/action", "unknown_value", "An action is block or warn.")
	}
	if len(*alerts) > maxBudgetAlerts {
		return fault.InvalidField("/alerts", "out_of_range", fmt.Sprintf("A budget has at most %d alerts.", maxBudgetAlerts))
	}
	for i, a := range *alerts {
		if a < 1 || a > maxAlertsPercent {
			return fault.InvalidField(fmt.Sprintf("/alerts/%d", i), "out_of_range", fmt.Sprintf("An alert is a percentage of the limit, from 1 to %d.", maxAlertsPercent))
		}
	}
	sorted := append([]int32{}, *alerts...)
	slices.Sort(sorted)
	*alerts = slices.Compact(sorted)
	return nil
}

func budgetFromRow(r billingdb.ListBudgetsRow) (Budget, error) {
	kind, of, _ := strings.Cut(r.Scope, ":")
	b := Budget{
		ID: id.Budget(r.ID), Name: r.Name, Scope: Scope{kind, of}, Limit: money.Nanos(r.LimitNanos), Period: r.Period, Action: r.Action, Alerts: r.Alerts,
		Spent: money.Nanos(r.SpentNanos), Held: money.Nanos(r.HeldNanos), StartsAt: r.StartsAt.UTC(), ResetsAt: r.ResetsAt.UTC(), Version: r.Version,
		CreatedAt: r.CreatedAt.UTC(), UpdatedAt: r.UpdatedAt.UTC(), Archived: r.ArchivedAt != nil,
	}
	if err := json.Unmarshal(r.CreatedBy, &b.CreatedBy); err != nil {
		return Budget{}, fmt.Errorf("read budget %s: %w", r.ID, err)
	}
	return b, nil
}
