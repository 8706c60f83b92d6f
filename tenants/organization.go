package tenants

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// Organization is a tenant.
type Organization struct {
	ID   id.Org
	Name string
	// Slug stands for it in the console's URLs, and is unique in the instance.
	Slug string
	// TimeZone is the zone in which its days, weeks and months begin, by its name in the IANA database, such as Europe/Berlin.
	TimeZone string
	// Version grows with each change, from 1.
	Version   int64
	CreatedAt time.Time
	UpdatedAt time.Time
}

// UpdateOrganization is the input of UpdateOrganizationTx. What is nil stays.
type UpdateOrganization struct {
	Name     *string
	TimeZone *string
	// IfVersion refuses the change, with precondition_failed, when the organisation is at another version.
	IfVersion *int64
}

var errSlugTaken = fault.New(fault.Conflict, "slug_is_taken", "This short name is taken. Choose another.")

func init() {
	postgres.RegisterConstraint("organizations_slug_is_taken", errSlugTaken)
	postgres.RegisterConstraint("projects_slug_is_taken", errSlugTaken)
}

// CreateOrganization makes another organisation with a first project, owned by a person who has an account.
func (s *Service) CreateOrganization(ctx context.Context, owner id.User, name string) (org Organization, first Project, err error) {
	clean, bad := cleanName(name, "/name", true)
	if bad != nil {
		return Organization{}, Project{}, fault.InvalidFields(*bad)
	}
	err = s.as(ctx, owner, func(tx pgx.Tx, _ *tenantsdb.Queries) error {
		org, first, err = s.createOrganizationTx(ctx, tx, owner, clean)
		return err
	})
	return org, first, err
}

// createOrganizationTx leaves the transaction in the new organisation, so that the hook can write into it.
func (s *Service) createOrganizationTx(ctx context.Context, tx pgx.Tx, owner id.User, name string) (Organization, Project, error) {
	now := s.clock.Now()
	org := Organization{ID: id.New[id.Org](), Name: name, Slug: slugOf(name, "organisation"), TimeZone: "UTC", Version: 1, CreatedAt: now, UpdatedAt: now}
	if err := postgres.SetOrg(ctx, tx, org.ID); err != nil {
		return Organization{}, Project{}, err
	}
	wanted := org.Slug
	err := untilFree(ctx, tx, func(attempt int, tx pgx.Tx) error {
		if attempt > 0 {
			org.Slug = withSuffix(wanted)
		}
		return tenantsdb.New(tx).InsertOrganization(ctx, tenantsdb.InsertOrganizationParams{ID: string(org.ID), Name: org.Name, Slug: org.Slug, CreatedAt: now})
	})
	if err != nil {
		return Organization{}, Project{}, fmt.Errorf("insert an organisation: %w", err)
	}
	err = tenantsdb.New(tx).InsertMember(ctx, tenantsdb.InsertMemberParams{
		OrgID: string(org.ID), ID: string(id.New[id.Member]()), UserID: string(owner), Role: string(RoleOwner), CreatedAt: now,
	})
	if err != nil {
		return Organization{}, Project{}, fmt.Errorf("insert the owner: %w", err)
	}
	project, err := s.CreateProjectTx(ctx, tx, org.ID, CreateProject{Name: "Default"})
	if err != nil {
		return Organization{}, Project{}, err
	}
	if s.deps.OnOrganizationCreated != nil {
		if err := s.deps.OnOrganizationCreated(ctx, tx, org); err != nil {
			return Organization{}, Project{}, fmt.Errorf("what follows the making of an organisation: %w", err)
		}
	}
	return org, project, nil
}

// untilFree tries an insert in savepoints of its own until its slug is not taken.
func untilFree(ctx context.Context, tx pgx.Tx, insert func(attempt int, tx pgx.Tx) error) error {
	for attempt := 0; ; attempt++ {
		err := pgx.BeginFunc(ctx, tx, func(savepoint pgx.Tx) error { return postgres.Translate(insert(attempt, savepoint)) })
		if !errors.Is(err, errSlugTaken) || attempt == 4 {
			return err
		}
	}
}

// GetOrganization returns an organisation.
func (s *Service) GetOrganization(ctx context.Context, org id.Org) (out Organization, err error) {
	err = s.in(ctx, org, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		row, err := q.GetOrganization(ctx, string(org))
		if err != nil {
			return fmt.Errorf("read an organisation: %w", err)
		}
		out = organizationOf(row)
		return nil
	})
	return out, err
}

// UpdateOrganizationTx changes an organisation's name or zone. Its slug stays, as it stands in links. A new zone moves the beginnings of
// budgets' periods from the commit on; what was spent and is held in the period then under way counts on. Its faults: invalid_request,
// unknown_time_zone, precondition_failed.
func (s *Service) UpdateOrganizationTx(ctx context.Context, tx pgx.Tx, org id.Org, in UpdateOrganization) (Organization, error) {
	q := tenantsdb.New(tx)
	if in.Name != nil {
		clean, bad := cleanName(*in.Name, "/name", true)
		if bad != nil {
			return Organization{}, fault.InvalidFields(*bad)
		}
		in.Name = &clean
	}
	if in.TimeZone != nil {
		if err := checkZone(ctx, q, *in.TimeZone); err != nil {
			return Organization{}, err
		}
	}
	row, err := q.UpdateOrganization(ctx, tenantsdb.UpdateOrganizationParams{OrgID: string(org), Name: in.Name, TimeZone: in.TimeZone, IfVersion: in.IfVersion, Now: s.clock.Now()})
	if noRows(err) {
		if _, err := q.GetOrganization(ctx, string(org)); err != nil {
			return Organization{}, fmt.Errorf("read an organisation: %w", err)
		}
		return Organization{}, errVersion()
	}
	if err != nil {
		return Organization{}, fmt.Errorf("change an organisation: %w", err)
	}
	return organizationOf(tenantsdb.GetOrganizationRow(row)), nil
}

// checkZone wants a zone by which both this program and the database reckon. Local and the database's own spellings, such as FOO+3, are none.
func checkZone(ctx context.Context, q *tenantsdb.Queries, zone string) error {
	_, err := time.LoadLocation(zone)
	known := err == nil && zone != "" && zone != "Local"
	if known {
		if known, err = q.KnowsZone(ctx, zone); err != nil {
			return fmt.Errorf("look for a time zone: %w", err)
		}
	}
	if !known {
		f := fault.Newf(fault.Unprocessable, "unknown_time_zone", "There is no time zone %q. Name one of the IANA database, such as Europe/Berlin or UTC.", zone)
		f.Fields = []fault.Field{{Pointer: "/time_zone", Code: "unknown_time_zone", Message: f.Message}}
		return f
	}
	return nil
}

func organizationOf(r tenantsdb.GetOrganizationRow) Organization {
	return Organization{ID: id.Org(r.ID), Name: r.Name, Slug: r.Slug, TimeZone: r.TimeZone, Version: r.Version, CreatedAt: r.CreatedAt, UpdatedAt: r.UpdatedAt}
}

func errVersion() error {
	return fault.New(fault.PreconditionFailed, "precondition_failed", "This was changed since you read it. Read it again, then decide.")
}

// maxRows bounds every list.
const maxRows = 1001

func rowLimit(limit int) int32 { return int32(min(max(limit, 1), maxRows)) }
