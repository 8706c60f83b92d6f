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
	"ambit.dev/ambit/internal/principal"
	"ambit.dev/ambit/tenants/internal/tenantsdb"
)

// User is a person.
type User struct {
	ID    id.User
	Email string
	// Name may be empty; Label is then what to show.
	Name string
	// EmailVerifiedAt is nil until a mailed link came back.
	EmailVerifiedAt *time.Time
	CreatedAt       time.Time
}

// Label is the name, or the address where there is none.
func (u User) Label() string {
	if u.Name != "" {
		return u.Name
	}
	return u.Email
}

// Membership is a person's place in one organisation.
type Membership struct {
	ID               id.Member
	Organization     id.Org
	OrganizationName string
	OrganizationSlug string
	// Role is one of Roles, or RoleCustom; then CustomRole says which, and Permissions what it allows.
	Role        Role
	CustomRole  id.Role
	RoleName    string
	Permissions []string
	CreatedAt   time.Time
}

// Person is somebody who is signed in.
type Person struct {
	User   User
	SignIn SignIn
	// Memberships are ordered by the organisation's name. There may be none.
	Memberships []Membership
}

// In returns the principal of this person within an organisation, given by its id or its slug; not found when it is not a member. The
// project is taken as it is: whether it exists is for its reader to find out.
func (p Person) In(organization string, project id.Project) (principal.Principal, error) {
	for _, m := range p.Memberships {
		if string(m.Organization) == organization || m.OrganizationSlug == organization {
			return principal.Principal{
				Kind: principal.User, ID: string(p.User.ID), Org: m.Organization, Project: project, Role: string(m.Role), Scopes: m.Permissions,
			}, nil
		}
	}
	return principal.Principal{}, fault.NotFound()
}

// Rename sets a person's own name.
func (s *Service) Rename(ctx context.Context, user id.User, name string) error {
	clean, bad := cleanName(name, "/name", false)
	if bad != nil {
		return fault.InvalidFields(*bad)
	}
	return s.as(ctx, user, func(_ pgx.Tx, q *tenantsdb.Queries) error {
		if _, err := q.RenameUser(ctx, tenantsdb.RenameUserParams{ID: string(user), Name: clean}); err != nil {
			return fmt.Errorf("rename a user: %w", err)
		}
		return nil
	})
}

func userOf(r tenantsdb.GetUserRow) User {
	return User{ID: id.User(r.ID), Email: r.Email, Name: r.Name, EmailVerifiedAt: r.EmailVerifiedAt, CreatedAt: r.CreatedAt}
}

// mayNotSignIn reports whether the account waits for its address to be verified.
func mayNotSignIn(r tenantsdb.GetUserRow) bool { return r.MustVerify && r.EmailVerifiedAt == nil }

var errEmailTaken = fault.New(fault.Conflict, "email_is_taken", "There is an account with this address.")

func init() {
	postgres.RegisterConstraint("users_email_is_taken", errEmailTaken)
}

// noRows tells the absence of a row from a failure.
func noRows(err error) bool { return errors.Is(err, pgx.ErrNoRows) }
