package api

import (
	"context"
	"net/http"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants"
)

func (a *API) projectRoutes() []Route {
	const tag = "Projects"
	return []Route{
		{
			ID: "projects.create", Method: http.MethodPost, Path: "/v1/projects", Permission: tenants.ProjectsWrite, Tag: tag,
			Summary: "Create a project", Description: "Takes a key of the whole organisation.", Errors: []string{slugDenied, "state_conflict"},
			Endpoint: write(http.StatusCreated, a.createProject),
		},
		{
			ID: "projects.list", Method: http.MethodGet, Path: "/v1/projects", Permission: tenants.ProjectsRead, Tag: tag,
			Summary: "List projects", Description: "Newest first. A project's key sees its own.", Errors: []string{slugPage}, Endpoint: plain(a.listProjects),
		},
		{
			ID: "projects.get", Method: http.MethodGet, Path: "/v1/projects/{project_id}", Permission: tenants.ProjectsRead, Tag: tag,
			Summary: "Get a project", Endpoint: read(a.getProject),
		},
		{
			ID: "projects.update", Method: http.MethodPost, Path: "/v1/projects/{project_id}", Permission: tenants.ProjectsWrite, Tag: tag,
			Summary: "Update a project", Errors: []string{"archived", "precondition_failed", "state_conflict"}, Endpoint: write(http.StatusOK, a.updateProject),
		},
		{
			ID: "projects.archive", Method: http.MethodPost, Path: "/v1/projects/{project_id}/archive", Permission: tenants.ProjectsWrite, Tag: tag,
			Summary: "Archive a project", Description: "It stays readable. The last active project of an organisation stays.", Errors: []string{"state_conflict"},
			Endpoint: write(http.StatusOK, a.archiveProject),
		},
	}
}

// Project is a project.
type Project struct {
	ID         id.Project `json:"id"`
	Type       string     `json:"type" const:"project"`
	Name       string     `json:"name"`
	Slug       string     `json:"slug" doc:"Stands for it in the console's URLs."`
	Version    int64      `json:"version"`
	CreatedAt  Time       `json:"created_at"`
	UpdatedAt  Time       `json:"updated_at"`
	ArchivedAt *Time      `json:"archived_at"`
}

func (p Project) entityTag() string { return quoteTag(p.Version) }
func (p Project) location() string  { return "/v1/projects/" + string(p.ID) }

func projectFrom(p tenants.Project) Project {
	return Project{
		ID: p.ID, Type: "project", Name: p.Name, Slug: p.Slug, Version: p.Version,
		CreatedAt: Time(p.CreatedAt), UpdatedAt: Time(p.UpdatedAt), ArchivedAt: timePtr(p.ArchivedAt),
	}
}

type createProjectIn struct {
	Body struct {
		Name string `json:"name" required:"true" minlen:"1" maxlen:"100" example:"research"`
		Slug string `json:"slug" maxlen:"63" doc:"Made from the name when left out."`
	} `body:"json"`
}

func (a *API) createProject(ctx context.Context, tx pgx.Tx, in createProjectIn) (Project, error) {
	if err := wholeOrganization(ctx); err != nil {
		return Project{}, err
	}
	p, err := a.cfg.Domains.Tenants.CreateProjectTx(ctx, tx, principal.From(ctx).Org, tenants.CreateProject{Name: in.Body.Name, Slug: in.Body.Slug})
	return projectFrom(p), err
}

// wholeOrganization refuses a request that is bound to one project.
func wholeOrganization(ctx context.Context) error {
	if principal.From(ctx).Project == "" {
		return nil
	}
	return fault.New(fault.Forbidden, slugDenied, "This request is bound to one project. It takes a key of the whole organisation, without the header Ambit-Project.").
		With("rule", "whole_organization")
}

type listProjectsIn struct {
	Paging
	IncludeArchived bool   `query:"include_archived"`
	Order           string `query:"order" enum:"asc,desc" default:"desc"`
}

func (a *API) listProjects(c *call, in listProjectsIn) (Page[Project], error) {
	ctx := c.r.Context()
	if c.who.Project != "" {
		p, err := a.cfg.Domains.Tenants.GetProject(ctx, c.who.Org, c.who.Project)
		if err != nil {
			return Page[Project]{}, err
		}
		return Page[Project]{Data: []Project{projectFrom(p)}}, nil
	}
	after, err := positionID[id.Project](in.place)
	if err != nil {
		return Page[Project]{}, err
	}
	list, err := a.cfg.Domains.Tenants.ListProjects(ctx, c.who.Org, tenants.ListProjects{
		IncludeArchived: in.IncludeArchived, OldestFirst: in.Order == "asc", After: after, Limit: in.place.fetch(),
	})
	if err != nil {
		return Page[Project]{}, err
	}
	return pageOf(in.place, list, func(p tenants.Project) string { return string(p.ID) }, projectFrom), nil
}

type projectIn struct {
	Project id.Project `path:"project_id"`
}

func (a *API) getProject(ctx context.Context, tx pgx.Tx, in projectIn) (Project, error) {
	p, err := a.seenProject(ctx, tx, in.Project)
	if err != nil {
		return Project{}, err
	}
	return projectFrom(p), nil
}

func (a *API) seenProject(ctx context.Context, tx pgx.Tx, project id.Project) (tenants.Project, error) {
	who := principal.From(ctx)
	if who.Project != "" && who.Project != project {
		return tenants.Project{}, fault.NotFound()
	}
	return a.cfg.Domains.Tenants.GetProjectTx(ctx, tx, who.Org, project)
}

type updateProjectIn struct {
	Project id.Project `path:"project_id"`
	IfMatch ifMatch    `header:"If-Match" doc:"The ETag that the project must have."`
	Body    struct {
		Name Opt[string] `json:"name" maxlen:"100"`
		Slug Opt[string] `json:"slug" maxlen:"63"`
	} `body:"json"`
}

func (a *API) updateProject(ctx context.Context, tx pgx.Tx, in updateProjectIn) (Project, error) {
	have, err := a.seenProject(ctx, tx, in.Project)
	if err != nil {
		return Project{}, err
	}
	change := tenants.UpdateProject{Name: in.Body.Name.Ptr(), Slug: in.Body.Slug.Ptr()}
	if in.IfMatch != "" {
		if !in.IfMatch.allows(have.Version) {
			return Project{}, changedMeanwhile()
		}
		change.IfVersion = &have.Version
	}
	p, err := a.cfg.Domains.Tenants.UpdateProjectTx(ctx, tx, principal.From(ctx).Org, in.Project, change)
	return projectFrom(p), err
}

func (a *API) archiveProject(ctx context.Context, tx pgx.Tx, in projectIn) (Project, error) {
	if _, err := a.seenProject(ctx, tx, in.Project); err != nil {
		return Project{}, err
	}
	p, err := a.cfg.Domains.Tenants.ArchiveProjectTx(ctx, tx, principal.From(ctx).Org, in.Project)
	return projectFrom(p), err
}
