package api

import (
	"context"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
)

// workProject is the project in which a request makes something: the key's own, or the one that an organisation's key names. It must be
// there and not archived.
func (a *API) workProject(ctx context.Context, tx pgx.Tx) (id.Project, error) {
	who := principal.From(ctx)
	if who.Project == "" {
		return "", fault.InvalidField("header/Ambit-Project", "required", "This key belongs to the whole organisation: name the project in the header Ambit-Project.")
	}
	if _, err := a.cfg.Domains.Tenants.RequireActiveProjectTx(ctx, tx, who.Org, who.Project); err != nil {
		return "", err
	}
	return who.Project, nil
}

// projectFilter is embedded in the input of a list that a project's resources are in.
type projectFilter struct {
	ProjectID id.Project `query:"project_id" doc:"Only those of this project. A project's key sees its own project in any case."`
}

// project is the filter's project, within what the caller may see.
func (f projectFilter) project(ctx context.Context) (id.Project, error) {
	who := principal.From(ctx)
	if who.Project != "" && f.ProjectID != "" && f.ProjectID != who.Project {
		return "", fault.NotFound()
	}
	if who.Project != "" {
		return who.Project, nil
	}
	return f.ProjectID, nil
}
