package api

import (
	"ambit.dev/ambit/tenants"
)

// table lists every route of /v1.
func (a *API) table() []Route {
	return []Route{
		{
			ID: "sessions.steps.list", Method: "GET", Path: "/v1/sessions/{session_id}/steps", Permission: tenants.SessionsRead, Tag: "Sessions",
			Summary: "List a session's steps", Description: "Oldest first.", Endpoint: read(a.listSteps),
		},
		{
			ID: "sessions.steps.get", Method: "GET", Path: "/v1/sessions/{session_id}/steps/{step_id}", Permission: tenants.SessionsRead, Tag: "Sessions",
			Summary: "Get a step", Endpoint: read(a.getStep),
		},
	}
}
