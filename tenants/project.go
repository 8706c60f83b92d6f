package tenants

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// Project is a part of an organisation with agents, sessions and keys of its own.
type Project struct {
	Org  id.Org
	ID   id.Project
	Name string
	// Slug stands for it in the console's URLs, and is unique in its organisation, archived ones included.
	Slug string
	// Version grows with each change, from 1.
	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
	// ArchivedAt is nil while the project may be written to.
	ArchivedAt *time.Time
}

// CreateProject is the input of CreateProjectTx.
type CreateProject struct {
	Name string
	// Slug may be empty; it is then made from the name.
	Slug string
}

// UpdateProject is the input of UpdateProjectTx. What is nil stays.
type UpdateProject struct {
	Name *string
	Slug *string
	// IfVersion refuses the change, with precondition_failed, when the project is at another version.
	IfVersion *int64
}

// ListProjects selects projects.
type ListProjects struct {
	IncludeArchived bool
	OldestFirst     bool
	// After is the id of the last one seen, in the same order; empty begins at the first.
	After id.Project
	Limit int
}

// CreateProjectTx makes a project. Its fault for a chosen slug that is taken is slug_is_taken.
func (s *Service) CreateProjectTx(ctx context.Context, tx pgx.Tx, org id.Org, in CreateProject) (Project, error) {
	var faults fieldFaults
	name, bad := cleanName(in.Name, "/name", true)
	faults.add(bad)
	faults.add(checkSlug(in.Slug, true))
	if err := faults.err(); err != nil {
		return Project{}, err
	}
	wanted := in.Slug
	if wanted == "" {
		wanted = slugOf(name, "project")
	}
	var row tenantsdb.Project
	insert := func(attempt int, tx pgx.Tx) (err error) {
		slug := wanted
		if attempt > 0 {
			slug = withSuffix(wanted)
		}
		row, err = tenantsdb.New(tx).InsertProject(ctx, tenantsdb.InsertProjectParams{
			OrgID: string(org), ID: string(id.New[id.Project]()), Name: name, Slug: slug, CreatedAt: s.clock.Now(),
		})
		return err
	}
	var err error
	if in.Slug == "" {
		err = untilFree(ctx, tx, insert)
	} else {
		err = postgres.Translate(insert(0, tx))
	}
	if err != nil {
		return Project{}, fmt.Errorf("insert a project: %w", err)
	}
	return projectOf(row), nil
}

// GetProject returns a project of the organisation, or not found.
func (s *Service) GetProject(ctx context.Context, org id.Org, project id.Project) (out Project, err error) {
	err = s.in(ctx, org, func(tx pgx.Tx, _ *tenantsdb.Queries) error {
		out, err = s.GetProjectTx(ctx, tx, org, project)
		return err
	})
	return out, err
}

// GetProjectTx is GetProject in a transaction of the organisation.
func (s *Service) GetProjectTx(ctx context.Context, tx pgx.Tx, org id.Org, project id.Project) (Project, error) {
	row, err := tenantsdb.New(tx).GetProject(ctx, tenantsdb.GetProjectParams{OrgID: string(org), ID: string(project)})
	if err != nil {
		return Project{}, postgres.Translate(fmt.Errorf("read a project: %w", err))
	}
	return projectOf(row), nil
}

// GetProjectBySlug returns a project by the part of a URL that stands for it, or not found.
func (s *Service) GetProjectBySlug(ctx context.Context, org id.Org, slug string) (out Project, err error) {
	err = s.in(ctx, org, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		row, err := q.GetProjectBySlug(ctx, tenantsdb.GetProjectBySlugParams{OrgID: string(org), Slug: slug})
		if err != nil {
			return fmt.Errorf("read a project: %w", err)
		}
		out = projectOf(row)
		return nil
	})
	return out, err
}

// ListProjects returns projects of the organisation, newest first unless asked otherwise.
func (s *Service) ListProjects(ctx context.Context, org id.Org, in ListProjects) (out []Project, err error) {
	err = s.in(ctx, org, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		var rows []tenantsdb.Project
		var err error
		if in.OldestFirst {
			rows, err = q.ListProjectsOldestFirst(ctx, tenantsdb.ListProjectsOldestFirstParams{
				OrgID: string(org), IncludeArchived: in.IncludeArchived, After: string(in.After), MaxRows: rowLimit(in.Limit),
			})
		} else {
			rows, err = q.ListProjects(ctx, tenantsdb.ListProjectsParams{
				OrgID: string(org), IncludeArchived: in.IncludeArchived, Before: string(in.After), MaxRows: rowLimit(in.Limit),
			})
		}
		if err != nil {
			return fmt.Errorf("list projects: %w", err)
		}
		for _, r := range rows {
			out = append(out, projectOf(r))
		}
		return nil
	})
	return out, err
}

// UpdateProjectTx changes a project. Its faults: not_found, archived, precondition_failed, slug_is_taken, invalid_request.
func (s *Service) UpdateProjectTx(ctx context.Context, tx pgx.Tx, org id.Org, project id.Project, in UpdateProject) (Project, error) {
	q := tenantsdb.New(tx)
	row, err := q.LockProject(ctx, tenantsdb.LockProjectParams{OrgID: string(org), ID: string(project)})
	if err != nil {
		return Project{}, postgres.Translate(fmt.Errorf("read a project: %w", err))
	}
	if in.IfVersion != nil && *in.IfVersion != row.Version {
		return Project{}, errVersion()
	}
	if row.ArchivedAt != nil {
		return Project{}, errArchived()
	}
	name, slug := row.Name, row.Slug
	var faults fieldFaults
	if in.Name != nil {
		var bad *fault.Field
		name, bad = cleanName(*in.Name, "/name", true)
		faults.add(bad)
	}
	if in.Slug != nil {
		slug = *in.Slug
		faults.add(checkSlug(slug, false))
	}
	if err := faults.err(); err != nil {
		return Project{}, err
	}
	if name == row.Name && slug == row.Slug {
		return projectOf(row), nil
	}
	row, err = q.UpdateProject(ctx, tenantsdb.UpdateProjectParams{OrgID: string(org), ID: string(project), Name: name, Slug: slug, Now: s.clock.Now()})
	if err != nil {
		return Project{}, postgres.Translate(fmt.Errorf("update a project: %w", err))
	}
	return projectOf(row), nil
}

// ArchiveProjectTx makes a project read-only for good; again: the same. The last active project of an organisation stays
// (last_project). Whoever writes into a project asks RequireActiveProjectTx first.
func (s *Service) ArchiveProjectTx(ctx context.Context, tx pgx.Tx, org id.Org, project id.Project) (Project, error) {
	q := tenantsdb.New(tx)
	// The organisation's row is locked first: two that archive the last two projects at once must not both succeed.
	if _, err := q.LockOrganization(ctx, string(org)); err != nil {
		return Project{}, postgres.Translate(fmt.Errorf("lock an organisation: %w", err))
	}
	row, err := q.LockProject(ctx, tenantsdb.LockProjectParams{OrgID: string(org), ID: string(project)})
	if err != nil {
		return Project{}, postgres.Translate(fmt.Errorf("read a project: %w", err))
	}
	if row.ArchivedAt != nil {
		return projectOf(row), nil
	}
	active, err := q.CountActiveProjects(ctx, string(org))
	if err != nil {
		return Project{}, fmt.Errorf("count projects: %w", err)
	}
	if active <= 1 {
		return Project{}, fault.New(fault.Conflict, "last_project", "An organisation keeps at least one active project. Create another one first.")
	}
	row, err = q.ArchiveProject(ctx, tenantsdb.ArchiveProjectParams{OrgID: string(org), ID: string(project), Now: s.clock.Now()})
	if err != nil {
		return Project{}, fmt.Errorf("archive a project: %w", err)
	}
	return projectOf(row), nil
}

// RequireActiveProjectTx returns a project that may be written to; else not_found or archived.
func (s *Service) RequireActiveProjectTx(ctx context.Context, tx pgx.Tx, org id.Org, project id.Project) (Project, error) {
	p, err := s.GetProjectTx(ctx, tx, org, project)
	if err == nil && p.ArchivedAt != nil {
		return Project{}, errArchived()
	}
	return p, err
}

func errArchived() error {
	return fault.New(fault.Conflict, "archived", "This project is archived: it can be read, not changed.")
}

func checkSlug(slug string, mayBeEmpty bool) *fault.Field {
	if (slug == "" && mayBeEmpty) || slugPattern.MatchString(slug) {
		return nil
	}
	return &fault.Field{Pointer: "/slug", Code: "invalid_slug", Message: "A short name has 1 to 63 of a–z, 0–9 and hyphens, and no hyphen at its ends."}
}

func projectOf(r tenantsdb.Project) Project {
	return Project{
		Org: id.Org(r.OrgID), ID: id.Project(r.ID), Name: r.Name, Slug: r.Slug, Version: r.Version,
		CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt, ArchivedAt: r.ArchivedAt,
	}
}
