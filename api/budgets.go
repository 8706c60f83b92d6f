package api

import (
	"context"
	"net/http"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/billing"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/money"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func (a *API) budgetRoutes() []Route {
	const tag = "Budgets"
	const whole = "Takes a key of the whole organisation. "
	return []Route{
		{
			ID: "budgets.create", Method: http.MethodPost, Path: "/v1/budgets", Permission: tenants.BudgetsWrite, Tag: tag,
			Summary: "Set a budget",
			Description: whole + "A limit on what a scope spends in a period. It binds from its commit on, running sessions too; what its scope has spent in the period under way, and holds, counts from the start. " +
				"A block budget refuses what does not fit, a warn budget only tells. A hold counts in the period in which it was made.",
			Errors: []string{slugDenied, slugMoney, "state_conflict"}, Endpoint: write(http.StatusCreated, a.createBudget),
		},
		{
			ID: "budgets.list", Method: http.MethodGet, Path: "/v1/budgets", Permission: tenants.BudgetsRead, Tag: tag,
			Summary: "List budgets", Description: whole + "Those that bind, newest first.", Errors: []string{slugPage, slugDenied}, Endpoint: read(a.listBudgets),
		},
		{
			ID: "budgets.get", Method: http.MethodGet, Path: "/v1/budgets/{budget_id}", Permission: tenants.BudgetsRead, Tag: tag,
			Summary: "Get a budget", Description: "One that was deleted too.", Endpoint: read(a.getBudget),
		},
		{
			ID: "budgets.update", Method: http.MethodPost, Path: "/v1/budgets/{budget_id}", Permission: tenants.BudgetsWrite, Tag: tag,
			Summary:     "Change a budget",
			Description: "A field that is left out stays; alerts are replaced whole. Scope and period are what a budget is, and stay. It binds at once; a session that stopped at it can then be resumed.",
			Errors:      []string{"precondition_failed", slugMoney}, Endpoint: write(http.StatusOK, a.updateBudget),
		},
		{
			ID: "budgets.delete", Method: http.MethodDelete, Path: "/v1/budgets/{budget_id}", Permission: tenants.BudgetsWrite, Tag: tag,
			Summary: "Delete a budget", Description: "It binds and counts no more. It can still be read by its id, as the ledger and refusals refer to it.",
			Endpoint: write(http.StatusOK, a.deleteBudget),
		},
	}
}

// BudgetScope is what a budget covers.
type BudgetScope struct {
	Type string `json:"type" required:"true" enum:"organization,project,agent,key,member,session"`
	ID   string `json:"id" maxlen:"40" doc:"The id of what it covers. May be left out for the organisation. A member is named by its own id or by the person's, and shown by the person's."`
}

// Budget is a limit on what a scope spends in a period.
type Budget struct {
	ID        id.Budget    `json:"id"`
	Type      string       `json:"type" const:"budget"`
	Name      string       `json:"name"`
	Scope     BudgetScope  `json:"scope"`
	Limit     money.Nanos  `json:"limit"`
	Period    string       `json:"period" enum:"total,hour,day,week,month" doc:"How often it begins anew, in the organisation's time zone; weeks begin on Monday. total never does."`
	Action    string       `json:"action" enum:"block,warn" doc:"block refuses what does not fit; warn only tells."`
	Alerts    []int32      `json:"alerts" doc:"Percentages of the limit at which the organisation is told, once a period each: by mail to owners, admins and billing members, and by the webhook event budget.threshold."`
	Spent     money.Nanos  `json:"spent" doc:"In the period under way."`
	Held      money.Nanos  `json:"held" doc:"Reserved for effects under way that count in this period."`
	Available money.Nanos  `json:"available" doc:"What is left: the limit less what is spent and held, never below zero."`
	Forecast  *money.Nanos `json:"forecast" doc:"What will have been spent at the period's end if spending goes on as it did so far; null when there is no end, or too little of the period has passed."`
	Reached   []BudgetMark `json:"alerts_reached" doc:"In the period under way."`
	StartsAt  *Time        `json:"starts_at" doc:"When the period under way began; null for total."`
	ResetsAt  *Time        `json:"resets_at" doc:"When it begins anew; null for total."`
	Version   int64        `json:"version"`
	CreatedBy Actor        `json:"created_by"`
	CreatedAt Time         `json:"created_at"`
	UpdatedAt Time         `json:"updated_at"`
	Archived  bool         `json:"archived" doc:"Whether it was deleted: it binds no more."`
}

// BudgetMark is a threshold that was reached.
type BudgetMark struct {
	Percent   int32       `json:"percent"`
	Spent     money.Nanos `json:"spent"`
	ReachedAt Time        `json:"reached_at"`
	ToldAt    *Time       `json:"told_at" doc:"null until mails and webhook events were queued."`
}

func (b Budget) entityTag() string { return quoteTag(b.Version) }
func (b Budget) location() string  { return "/v1/budgets/" + string(b.ID) }

func (a *API) showBudgets(ctx context.Context, tx pgx.Tx, org id.Org, list ...billing.Budget) ([]Budget, error) {
	ids := make([]id.Budget, len(list))
	for i, b := range list {
		ids[i] = b.ID
	}
	reached, err := billing.ReachedAlerts(ctx, tx, org, ids...)
	if err != nil {
		return nil, err
	}
	out := make([]Budget, len(list))
	for i, b := range list {
		out[i] = Budget{
			ID: b.ID, Type: "budget", Name: b.Name, Scope: BudgetScope{Type: b.Scope.Type, ID: b.Scope.ID}, Limit: b.Limit, Period: b.Period, Action: b.Action,
			Alerts: append([]int32{}, b.Alerts...), Spent: b.Spent, Held: b.Held, Available: b.Available(), Reached: []BudgetMark{},
			StartsAt: timePtr(&b.StartsAt), ResetsAt: timePtr(&b.ResetsAt), Version: b.Version, CreatedBy: Actor{Type: string(b.CreatedBy.Kind), ID: b.CreatedBy.ID},
			CreatedAt: Time(b.CreatedAt), UpdatedAt: Time(b.UpdatedAt), Archived: b.Archived,
		}
		if f, ok := b.Forecast(a.cfg.Clock.Now()); ok {
			out[i].Forecast = &f
		}
		for _, r := range reached[b.ID] {
			out[i].Reached = append(out[i].Reached, BudgetMark{Percent: r.Percent, Spent: r.Spent, ReachedAt: Time(r.ReachedAt), ToldAt: timePtr(r.ToldAt)})
		}
	}
	return out, nil
}

func (a *API) showBudget(ctx context.Context, tx pgx.Tx, b billing.Budget) (Budget, error) {
	shown, err := a.showBudgets(ctx, tx, principal.From(ctx).Org, b)
	if err != nil {
		return Budget{}, err
	}
	return shown[0], nil
}

type createBudgetIn struct {
	Body struct {
		Name   string      `json:"name" required:"true" minlen:"1" maxlen:"80" doc:"What is refused because of the budget names it."`
		Scope  BudgetScope `json:"scope" required:"true"`
		Limit  money.Nanos `json:"limit" required:"true" doc:"From zero, which admits nothing that costs, to one billion dollars."`
		Period string      `json:"period" required:"true" enum:"total,hour,day,week,month"`
		Action string      `json:"action" enum:"block,warn" default:"block"`
		Alerts []int32     `json:"alerts" maxitems:"10" example:"[50,80,100]" doc:"Whole percentages of the limit, from 1 to 1000."`
	} `body:"json"`
}

func (a *API) createBudget(ctx context.Context, tx pgx.Tx, in createBudgetIn) (Budget, error) {
	if err := wholeOrganization(ctx); err != nil {
		return Budget{}, err
	}
	if in.Body.Action == "" {
		in.Body.Action = billing.Block
	}
	made, err := billing.CreateBudget(ctx, tx, a.cfg.Clock.Now(), principal.From(ctx).Org, billing.NewBudget{
		Name: in.Body.Name, Scope: billing.Scope{Type: in.Body.Scope.Type, ID: in.Body.Scope.ID}, Limit: in.Body.Limit, Period: in.Body.Period, Action: in.Body.Action, Alerts: in.Body.Alerts,
	})
	if err != nil {
		return Budget{}, err
	}
	return a.showBudget(ctx, tx, made)
}

type listBudgetsIn struct {
	Paging
	ScopeType string `query:"scope_type" enum:"organization,project,agent,key,member,session" doc:"With scope_id: only budgets of this scope."`
	ScopeID   string `query:"scope_id" maxlen:"40"`
}

func (in *listBudgetsIn) validate() []fault.Field {
	if (in.ScopeType == "") != (in.ScopeID == "") {
		return []fault.Field{{Pointer: "query/scope_type", Code: "required", Message: "scope_type and scope_id go together."}}
	}
	return nil
}

func (a *API) listBudgets(ctx context.Context, tx pgx.Tx, in listBudgetsIn) (Page[Budget], error) {
	var none Page[Budget]
	if err := wholeOrganization(ctx); err != nil {
		return none, err
	}
	after, err := positionID[id.Budget](in.place)
	if err != nil {
		return none, err
	}
	scope := ""
	if in.ScopeType != "" {
		scope = billing.Scope{Type: in.ScopeType, ID: in.ScopeID}.String()
	}
	org := principal.From(ctx).Org
	list, err := billing.ListBudgets(ctx, tx, org, scope, after, in.place.fetch())
	if err != nil {
		return none, err
	}
	page := pageOf(in.place, list, func(b billing.Budget) string { return string(b.ID) }, func(b billing.Budget) billing.Budget { return b })
	out := Page[Budget]{NextPage: page.NextPage}
	out.Data, err = a.showBudgets(ctx, tx, org, page.Data...)
	return out, err
}

type budgetIn struct {
	Budget id.Budget `path:"budget_id"`
}

// seenBudget: budgets are the whole organisation's. For a request that is bound to one project there is none.
func seenBudget(ctx context.Context, tx pgx.Tx, budget id.Budget) (billing.Budget, error) {
	who := principal.From(ctx)
	if who.Project != "" {
		return billing.Budget{}, fault.NotFound()
	}
	return billing.GetBudget(ctx, tx, who.Org, budget)
}

func (a *API) getBudget(ctx context.Context, tx pgx.Tx, in budgetIn) (Budget, error) {
	b, err := seenBudget(ctx, tx, in.Budget)
	if err != nil {
		return Budget{}, err
	}
	return a.showBudget(ctx, tx, b)
}

type updateBudgetIn struct {
	Budget  id.Budget `path:"budget_id"`
	IfMatch ifMatch   `header:"If-Match" doc:"The ETag that the budget must have."`
	Body    struct {
		Name   Opt[string]      `json:"name" minlen:"1" maxlen:"80"`
		Limit  Opt[money.Nanos] `json:"limit"`
		Action Opt[string]      `json:"action" enum:"block,warn"`
		Alerts Opt[[]int32]     `json:"alerts" maxitems:"10" doc:"null: none."`
	} `body:"json"`
}

func (in *updateBudgetIn) validate() (wrong []fault.Field) {
	for pointer, null := range map[string]bool{"/name": in.Body.Name.Null, "/limit": in.Body.Limit.Null, "/action": in.Body.Action.Null} {
		if null {
			wrong = append(wrong, fault.Field{Pointer: pointer, Code: "required", Message: "A budget has always one. Leave the field out to keep it as it is."})
		}
	}
	slices.SortFunc(wrong, func(a, b fault.Field) int { return strings.Compare(a.Pointer, b.Pointer) })
	return wrong
}

func (a *API) updateBudget(ctx context.Context, tx pgx.Tx, in updateBudgetIn) (Budget, error) {
	have, err := seenBudget(ctx, tx, in.Budget)
	if err != nil {
		return Budget{}, err
	}
	if !in.IfMatch.allows(have.Version) {
		return Budget{}, changedMeanwhile()
	}
	var ifVersion int64
	if in.IfMatch != "" {
		ifVersion = have.Version
	}
	b, err := billing.UpdateBudget(ctx, tx, a.cfg.Clock.Now(), principal.From(ctx).Org, in.Budget, billing.ChangeBudget{
		Name: in.Body.Name.Ptr(), Limit: in.Body.Limit.Ptr(), Action: in.Body.Action.Ptr(), Alerts: in.Body.Alerts.Ptr(),
	}, ifVersion)
	if err != nil {
		return Budget{}, err
	}
	return a.showBudget(ctx, tx, b)
}

func (a *API) deleteBudget(ctx context.Context, tx pgx.Tx, in budgetIn) (Deleted, error) {
	if _, err := seenBudget(ctx, tx, in.Budget); err != nil {
		return Deleted{}, err
	}
	if err := billing.ArchiveBudget(ctx, tx, a.cfg.Clock.Now(), principal.From(ctx).Org, in.Budget); err != nil {
		return Deleted{}, err
	}
	return Deleted{ID: string(in.Budget), Type: "budget_deleted"}, nil
}
