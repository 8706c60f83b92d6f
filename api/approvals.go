package api

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/governance/approval"
	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func (a *API) approvalRoutes() []Route {
	const tag = "Approvals"
	const whole = "Takes a key of the whole organisation. "
	decided := []string{slugDenied, "already_decided", "digest_mismatch", "approval_expired", "session_terminated", "step_up_required"}
	return []Route{
		{
			ID: "approvals.list", Method: http.MethodGet, Path: "/v1/approvals", Permission: tenants.ApprovalsRead, Tag: tag,
			Summary: "List approvals", Description: "What waits for people, and what became of what did. Newest first.", Errors: []string{slugPage}, Endpoint: read(a.listApprovals),
		},
		{
			ID: "approvals.get", Method: http.MethodGet, Path: "/v1/approvals/{approval_id}", Permission: tenants.ApprovalsRead, Tag: tag,
			Summary: "Get an approval", Endpoint: read(a.getApproval),
		},
		{
			ID: "approvals.approve", Method: http.MethodPost, Path: "/v1/approvals/{approval_id}/approve", Permission: tenants.ApprovalsDecide, Tag: tag,
			Summary:     "Approve",
			Description: "Counts as the decision of the person who answers for the key. It is good for this one action, once: arguments that change are asked about anew. Where more people or stages must decide, it stays pending. The same decision twice is one.",
			Errors:      decided, Endpoint: write(http.StatusOK, a.approve),
		},
		{
			ID: "approvals.refuse", Method: http.MethodPost, Path: "/v1/approvals/{approval_id}/refuse", Permission: tenants.ApprovalsDecide, Tag: tag,
			Summary: "Refuse", Description: "The agent reads the reason, and goes on without it. One person's refusal is enough.", Errors: decided, Endpoint: write(http.StatusOK, a.refuse),
		},
		{
			ID: "approvals.edit", Method: http.MethodPost, Path: "/v1/approvals/{approval_id}/edit", Permission: tenants.ApprovalsDecide, Tag: tag,
			Summary:     "Propose other arguments",
			Description: "Puts other arguments in place of the agent's. That is a proposal of the person's own, asked about anew, and for others to decide.",
			Errors:      decided, Endpoint: write(http.StatusOK, a.edit),
		},
		{
			ID: "approval_rules.create", Method: http.MethodPost, Path: "/v1/approval_rules", Permission: tenants.ApprovalRulesWrite, Tag: tag,
			Summary:     "Add an approval rule",
			Description: whole + "It binds from its commit on, running sessions too. What lets more happen without a person (a waiver, the loosening or deletion of a rule) takes a confirmation of who does it, in the console, and is refused here with step_up_required.",
			Errors:      []string{slugDenied, slugMoney, "state_conflict", "step_up_required"}, Endpoint: write(http.StatusCreated, a.createApprovalRule),
		},
		{
			ID: "approval_rules.list", Method: http.MethodGet, Path: "/v1/approval_rules", Permission: tenants.ApprovalRulesRead, Tag: tag,
			Summary: "List approval rules", Description: whole + "All of them, the oldest first.", Errors: []string{slugDenied}, Endpoint: read(a.listApprovalRules),
		},
		{
			ID: "approval_rules.get", Method: http.MethodGet, Path: "/v1/approval_rules/{approval_rule_id}", Permission: tenants.ApprovalRulesRead, Tag: tag,
			Summary: "Get an approval rule", Endpoint: read(a.getApprovalRule),
		},
		{
			ID: "approval_rules.update", Method: http.MethodPost, Path: "/v1/approval_rules/{approval_rule_id}", Permission: tenants.ApprovalRulesWrite, Tag: tag,
			Summary: "Replace an approval rule", Description: "The rule is replaced whole: a field that is left out is empty. What makes it weaker is refused with step_up_required.",
			Errors: []string{slugMoney, "precondition_failed", "step_up_required"}, Endpoint: write(http.StatusOK, a.updateApprovalRule),
		},
		{
			ID: "approval_rules.delete", Method: http.MethodDelete, Path: "/v1/approval_rules/{approval_rule_id}", Permission: tenants.ApprovalRulesWrite, Tag: tag,
			Summary: "Delete an approval rule", Description: "A waiver can be deleted here; a rule that asks, only in the console.", Errors: []string{"step_up_required"}, Endpoint: write(http.StatusOK, a.deleteApprovalRule),
		},
		{
			ID: "approval_settings.get", Method: http.MethodGet, Path: "/v1/approval_settings", Permission: tenants.ApprovalRulesRead, Tag: tag,
			Summary: "Get the settings of approvals", Description: whole, Errors: []string{slugDenied}, Endpoint: read(a.getApprovalSettings),
		},
		{
			ID: "approval_settings.update", Method: http.MethodPost, Path: "/v1/approval_settings", Permission: tenants.ApprovalRulesWrite, Tag: tag,
			Summary: "Change the settings of approvals", Description: whole + "A field that is left out stays. What makes them weaker is refused with step_up_required.",
			Errors: []string{slugDenied, "step_up_required"}, Endpoint: write(http.StatusOK, a.setApprovalSettings),
		},
	}
}

type listApprovalsIn struct {
	Paging
	projectFilter
	Statuses  []string   `query:"statuses[]" enum:"pending,approved,refused,edited,expired,void,used" maxitems:"7"`
	SessionID id.Session `query:"session_id" doc:"Only what this session asked for."`
	Order     string     `query:"order" enum:"asc,desc" default:"desc"`
}

func (a *API) listApprovals(ctx context.Context, tx pgx.Tx, in listApprovalsIn) (Page[Approval], error) {
	project, err := in.project(ctx)
	if err != nil {
		return Page[Approval]{}, err
	}
	after, err := positionID[id.Approval](in.place)
	if err != nil {
		return Page[Approval]{}, err
	}
	list, err := approval.List(ctx, tx, principal.From(ctx).Org, approval.Filter{
		Project: project, Session: in.SessionID, Statuses: in.Statuses, After: after, OldestFirst: in.Order == "asc", Limit: in.place.fetch(),
	})
	if err != nil {
		return Page[Approval]{}, err
	}
	return pageOf(in.place, list, func(x approval.Approval) string { return string(x.ID) }, approvalFrom), nil
}

type approvalIn struct {
	Approval id.Approval `path:"approval_id"`
}

// seenApproval is one of the project that the request is bound to, if it is bound to one.
func (a *API) seenApproval(ctx context.Context, tx pgx.Tx, asked id.Approval) (approval.Approval, error) {
	who := principal.From(ctx)
	found, err := approval.Get(ctx, tx, who.Org, asked)
	if err == nil && who.Project != "" && who.Project != found.Project {
		err = fault.NotFound()
	}
	return found, err
}

func (a *API) getApproval(ctx context.Context, tx pgx.Tx, in approvalIn) (Approval, error) {
	found, err := a.seenApproval(ctx, tx, in.Approval)
	if err != nil {
		return Approval{}, err
	}
	return approvalFrom(found), nil
}

type decideIn struct {
	Approval id.Approval `path:"approval_id"`
	Body     struct {
		Digest string `json:"digest" required:"true" pattern:"^[0-9a-f]{64}$" doc:"Of the approval that was looked at: what is decided on is just that."`
		Reason string `json:"reason" maxlen:"2000" doc:"The agent reads it when it is refused."`
	} `body:"json"`
}

func (a *API) approve(ctx context.Context, tx pgx.Tx, in decideIn) (Approval, error) {
	return a.decide(ctx, tx, in.Approval, approval.Decision{Verb: approval.Approve, Digest: in.Body.Digest, Reason: in.Body.Reason})
}

func (a *API) refuse(ctx context.Context, tx pgx.Tx, in decideIn) (Approval, error) {
	return a.decide(ctx, tx, in.Approval, approval.Decision{Verb: approval.Refuse, Digest: in.Body.Digest, Reason: in.Body.Reason})
}

type editIn struct {
	Approval id.Approval `path:"approval_id"`
	Body     struct {
		Digest    string          `json:"digest" required:"true" pattern:"^[0-9a-f]{64}$"`
		Arguments json.RawMessage `json:"arguments" required:"true" doc:"A JSON object: the tool's arguments."`
		Reason    string          `json:"reason" maxlen:"2000"`
	} `body:"json"`
}

func (a *API) edit(ctx context.Context, tx pgx.Tx, in editIn) (Approval, error) {
	return a.decide(ctx, tx, in.Approval, approval.Decision{Verb: approval.Edit, Digest: in.Body.Digest, Reason: in.Body.Reason, Arguments: in.Body.Arguments})
}

func (a *API) decide(ctx context.Context, tx pgx.Tx, asked id.Approval, d approval.Decision) (Approval, error) {
	if _, err := a.seenApproval(ctx, tx, asked); err != nil {
		return Approval{}, err
	}
	decided, err := a.cfg.Domains.Sessions.Decide(ctx, tx, principal.From(ctx).Org, asked, d)
	if err != nil {
		return Approval{}, err
	}
	return approvalFrom(decided), nil
}

type createApprovalRuleIn struct {
	Body ApprovalRuleFields `body:"json"`
}

func (a *API) createApprovalRule(ctx context.Context, tx pgx.Tx, in createApprovalRuleIn) (ApprovalRule, error) {
	if err := wholeOrganization(ctx); err != nil {
		return ApprovalRule{}, err
	}
	rule, err := in.Body.rule()
	if err != nil {
		return ApprovalRule{}, err
	}
	made, err := a.cfg.Domains.Sessions.Approvals().CreateRule(ctx, tx, principal.From(ctx).Org, rule, nil)
	if err != nil {
		return ApprovalRule{}, err
	}
	return approvalRuleFrom(made), nil
}

func (a *API) listApprovalRules(ctx context.Context, tx pgx.Tx, _ struct{}) (Page[ApprovalRule], error) {
	if err := wholeOrganization(ctx); err != nil {
		return Page[ApprovalRule]{}, err
	}
	list, err := a.cfg.Domains.Sessions.Approvals().Rules(ctx, tx, principal.From(ctx).Org)
	if err != nil {
		return Page[ApprovalRule]{}, err
	}
	return pageOf(place{limit: approval.MaxRules}, list, func(r approval.Stored) string { return string(r.ID) }, approvalRuleFrom), nil
}

type approvalRuleIn struct {
	Rule id.ApprovalRule `path:"approval_rule_id"`
}

func (a *API) seenApprovalRule(ctx context.Context, tx pgx.Tx, rule id.ApprovalRule) (approval.Stored, error) {
	who := principal.From(ctx)
	if who.Project != "" {
		return approval.Stored{}, fault.NotFound()
	}
	return a.cfg.Domains.Sessions.Approvals().GetRule(ctx, tx, who.Org, rule)
}

func (a *API) getApprovalRule(ctx context.Context, tx pgx.Tx, in approvalRuleIn) (ApprovalRule, error) {
	r, err := a.seenApprovalRule(ctx, tx, in.Rule)
	if err != nil {
		return ApprovalRule{}, err
	}
	return approvalRuleFrom(r), nil
}

type updateApprovalRuleIn struct {
	Rule    id.ApprovalRule    `path:"approval_rule_id"`
	IfMatch ifMatch            `header:"If-Match" doc:"The ETag that the rule must have."`
	Body    ApprovalRuleFields `body:"json"`
}

func (a *API) updateApprovalRule(ctx context.Context, tx pgx.Tx, in updateApprovalRuleIn) (ApprovalRule, error) {
	have, err := a.seenApprovalRule(ctx, tx, in.Rule)
	if err != nil {
		return ApprovalRule{}, err
	}
	var ifVersion *int64
	if in.IfMatch != "" {
		if !in.IfMatch.allows(have.Version) {
			return ApprovalRule{}, changedMeanwhile()
		}
		ifVersion = &have.Version
	}
	next, err := in.Body.rule()
	if err != nil {
		return ApprovalRule{}, err
	}
	r, err := a.cfg.Domains.Sessions.Approvals().UpdateRule(ctx, tx, principal.From(ctx).Org, in.Rule, ifVersion, func(approval.Rule) approval.Rule { return next }, nil)
	if err != nil {
		return ApprovalRule{}, err
	}
	return approvalRuleFrom(r), nil
}

func (a *API) deleteApprovalRule(ctx context.Context, tx pgx.Tx, in approvalRuleIn) (Deleted, error) {
	if _, err := a.seenApprovalRule(ctx, tx, in.Rule); err != nil {
		return Deleted{}, err
	}
	if err := a.cfg.Domains.Sessions.Approvals().DeleteRule(ctx, tx, principal.From(ctx).Org, in.Rule, nil); err != nil {
		return Deleted{}, err
	}
	return Deleted{ID: string(in.Rule), Type: "approval_rule_deleted"}, nil
}

func (a *API) getApprovalSettings(ctx context.Context, tx pgx.Tx, _ struct{}) (ApprovalSettings, error) {
	if err := wholeOrganization(ctx); err != nil {
		return ApprovalSettings{}, err
	}
	s, err := a.cfg.Domains.Sessions.Approvals().SettingsOf(ctx, tx, principal.From(ctx).Org)
	return settingsFrom(s), err
}

type setApprovalSettingsIn struct {
	Body struct {
		Taint      Opt[string] `json:"taint" enum:"ask,allow"`
		AsksPerDay Opt[int]    `json:"asks_per_day" doc:"1 to 10000."`
	} `body:"json"`
}

func (a *API) setApprovalSettings(ctx context.Context, tx pgx.Tx, in setApprovalSettingsIn) (ApprovalSettings, error) {
	if err := wholeOrganization(ctx); err != nil {
		return ApprovalSettings{}, err
	}
	org := principal.From(ctx).Org
	next, err := a.cfg.Domains.Sessions.Approvals().SettingsOf(ctx, tx, org)
	if err != nil {
		return ApprovalSettings{}, err
	}
	if in.Body.Taint.Set {
		next.TaintAsks = in.Body.Taint.Value == "ask"
	}
	if in.Body.AsksPerDay.Set {
		next.AsksPerDay = in.Body.AsksPerDay.Value
	}
	s, err := a.cfg.Domains.Sessions.Approvals().SetSettings(ctx, tx, org, next, nil)
	return settingsFrom(s), err
}
