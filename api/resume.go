package api

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func (a *API) resumeRoutes() []Route {
	return []Route{{
		ID: "sessions.resume", Method: http.MethodPost, Path: "/v1/sessions/{session_id}/resume", Permission: tenants.SessionsWrite, Tag: "Sessions",
		Summary: "Resume a session",
		Description: "One that stopped with budget_reached goes on where it was: after a budget was raised or credit was granted, for one. Its price ceiling is held anew first. " +
			"If the limit still holds, it stops again. One that is at work already stays so.",
		Errors:   []string{"insufficient_funds", "state_conflict", "session_terminated", "archived"},
		Endpoint: write(http.StatusOK, a.resumeSession), GivesWork: true,
	}}
}

func (a *API) resumeSession(ctx context.Context, tx pgx.Tx, in sessionIn) (Session, error) {
	if _, err := seenSession(ctx, tx, in.Session); err != nil {
		return Session{}, err
	}
	out, err := a.cfg.Domains.Sessions.Resume(ctx, tx, principal.From(ctx).Org, in.Session)
	if err != nil {
		return Session{}, err
	}
	return a.showSession(ctx, tx, out)
}
