package api

import (
	"net/http"
	"slices"

	"ambit.dev/ambit/tenants"
)

// table lists every route of /v1.
func (a *API) table() []Route {
	return slices.Concat(
		a.invokeRoutes(),
		a.quoteRoutes(),
		a.agentRoutes(),
		a.identityRoutes(),
		a.sessionRoutes(),
		a.stopRoutes(),
		a.resumeRoutes(),
		a.eventRoutes(),
		[]Route{
			{
				ID: "sessions.steps.list", Method: http.MethodGet, Path: "/v1/sessions/{session_id}/steps", Permission: tenants.SessionsRead, Tag: "Sessions",
				Summary: "List a session's steps", Description: "Each durable effect, oldest first.", Errors: []string{slugPage}, Endpoint: read(a.listSteps),
			},
			{
				ID: "sessions.steps.get", Method: http.MethodGet, Path: "/v1/sessions/{session_id}/steps/{step_id}", Permission: tenants.SessionsRead, Tag: "Sessions",
				Summary: "Get a step", Endpoint: read(a.getStep),
			},
		},
		a.fileRoutes(),
		a.modelRoutes(),
		a.projectRoutes(),
		a.keyRoutes(),
		a.permissionRoutes(),
		a.approvalRoutes(),
		a.roleRoutes(),
		a.invitationRoutes(),
		a.budgetRoutes(),
		a.mandateRoutes(),
		a.usageRoutes(),
		a.ledgerRoutes(),
		a.webhookRoutes(),
		a.organizationRoutes(),
	)
}
