package tenants_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/tenants"
)

func TestAnothersIsNotFoundLikeWhatNeverWas(t *testing.T) {
	f := newFixture(t)
	ada, eve := f.account(t, "ada@example.com"), f.account(t, "eve@example.com")
	theirs, _ := f.key(t, f.ownerOf(ada), tenants.CreateKey{})
	me := f.ownerOf(eve)
	name := "mine now"

	for what, ids := range map[string]struct {
		project id.Project
		key     id.Key
	}{
		"another's":  {ada.Project.ID, theirs.ID},
		"never were": {id.New[id.Project](), id.New[id.Key]()},
	} {
		var got []*fault.Error
		reads := []func() error{
			func() error { _, err := f.GetProject(t.Context(), me.Org, ids.project); return err },
			func() error { _, err := f.GetKey(t.Context(), me.Org, ids.key); return err },
			func() error { _, err := f.GetOrganization(t.Context(), id.New[id.Org]()); return err },
		}
		for _, fn := range []func(tx pgx.Tx) error{
			func(tx pgx.Tx) error {
				_, err := f.UpdateProjectTx(t.Context(), tx, me.Org, ids.project, tenants.UpdateProject{Name: &name})
				return err
			},
			func(tx pgx.Tx) error { _, err := f.ArchiveProjectTx(t.Context(), tx, me.Org, ids.project); return err },
			func(tx pgx.Tx) error {
				_, err := f.RequireActiveProjectTx(t.Context(), tx, me.Org, ids.project)
				return err
			},
			func(tx pgx.Tx) error {
				_, err := f.UpdateKeyTx(t.Context(), tx, me, ids.key, tenants.UpdateKey{Name: &name})
				return err
			},
			func(tx pgx.Tx) error { _, err := f.RevokeKeyTx(t.Context(), tx, me.Org, ids.key); return err },
			func(tx pgx.Tx) error {
				_, _, err := f.CreateKeyTx(t.Context(), tx, me, tenants.CreateKey{Name: "k", Scopes: []string{"*"}, Project: ids.project})
				return err
			},
		} {
			reads = append(reads, func() error { return f.db.InTx(t.Context(), me.Org, fn) })
		}
		for i, read := range reads {
			fl := requireCode(t, "not_found", read())
			require.Equal(t, fault.NotFound().Message, fl.Message, "%s %d", what, i)
			require.Empty(t, fl.Details)
			got = append(got, fl)
		}
		require.Len(t, got, 9)
	}
	list, err := f.ListKeys(t.Context(), me.Org, tenants.ListKeys{Limit: 10, Project: ada.Project.ID})
	require.NoError(t, err)
	require.Empty(t, list)
	members, err := f.ListMembers(t.Context(), me.Org, "", 10)
	require.NoError(t, err)
	require.Len(t, members, 1)
	require.Equal(t, "eve@example.com", members[0].Email)
	require.Equal(t, tenants.RoleOwner, members[0].Role)
}

// Row-level security alone must hold when a query forgets its organisation.
func TestWithoutTheQuerysOwnConditionTheDatabaseStillYieldsNothing(t *testing.T) {
	f := newFixture(t)
	ada, eve := f.account(t, "ada@example.com"), f.account(t, "eve@example.com")
	f.key(t, f.ownerOf(ada), tenants.CreateKey{})
	f.account(t, "bob@example.com")
	count := func(ctx context.Context, tx pgx.Tx, query string, args ...any) (n int64) {
		tag, err := tx.Exec(ctx, query, args...)
		require.NoError(t, err, query)
		return tag.RowsAffected()
	}
	adas := string(ada.Organization.ID)
	f.tx(t, eve.Organization.ID, func(tx pgx.Tx) error {
		for _, table := range []string{"organizations", "projects", "members", "api_keys"} {
			column := "org_id"
			if table == "organizations" {
				column = "id"
			}
			require.Zero(t, count(t.Context(), tx, "SELECT FROM "+table+" WHERE "+column+" <> $1", string(eve.Organization.ID)), table)
			require.Zero(t, count(t.Context(), tx, "UPDATE "+table+" SET "+column+" = "+column+" WHERE "+column+" = $1", adas), table)
		}
		require.Zero(t, count(t.Context(), tx, "DELETE FROM members WHERE org_id = $1", adas))
		require.EqualValues(t, 1, count(t.Context(), tx, "SELECT FROM users"), "of people, only fellow members are seen")
		for _, table := range []string{"passwords", "sign_ins", "mail_tokens", "my_memberships"} {
			require.Zero(t, count(t.Context(), tx, "SELECT FROM "+table), table)
		}
		return nil
	})
	for _, statement := range []string{
		"INSERT INTO projects (org_id, id, name, slug, created_at, updated_at) VALUES ('" + adas + "', 'prj_x', 'x', 'x', now(), now())",
		"INSERT INTO members (org_id, id, user_id, role, created_at) VALUES ('" + adas + "', 'mem_x', '" + string(eve.User.ID) + "', 'owner', now())",
		"UPDATE projects SET org_id = '" + adas + "'",
		"UPDATE organizations SET id = '" + adas + "'",
		"INSERT INTO users (id, email, name, must_verify, created_at) VALUES ('usr_x', 'x@example.com', '', false, now())",
		"INSERT INTO sign_ins (id, user_id, token_sha256, created_at, last_seen_at, expires_at, address, user_agent) VALUES ('sgn_x', '" + string(ada.User.ID) + "', sha256('x'), now(), now(), now(), '', '')",
	} {
		err := f.txErr(t, eve.Organization.ID, func(tx pgx.Tx) error { _, err := tx.Exec(t.Context(), statement); return err })
		require.ErrorContains(t, err, "row-level security", statement)
	}
	// With no organisation named, nothing at all.
	require.NoError(t, f.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error {
		for _, table := range []string{"organizations", "projects", "members", "api_keys", "users", "passwords", "sign_ins", "mail_tokens", "my_memberships"} {
			require.Zero(t, count(t.Context(), tx, "SELECT FROM "+table), table)
		}
		return nil
	}))
	// The worker sees of keys and sign-ins what it needs, and no secret of a key.
	require.NoError(t, f.db.InWorkerTx(t.Context(), func(tx pgx.Tx) error {
		require.EqualValues(t, 1, count(t.Context(), tx, "SELECT id FROM api_keys"))
		return nil
	}))
	for _, statement := range []string{"SELECT secret_sha256 FROM api_keys", "SELECT * FROM users", "SELECT * FROM passwords", "SELECT * FROM members", "UPDATE api_keys SET revoked_at = NULL"} {
		err := f.db.InWorkerTx(t.Context(), func(tx pgx.Tx) error { _, err := tx.Exec(t.Context(), statement); return err })
		require.ErrorContains(t, err, "permission denied", statement)
	}
	// The application reaches neither the instance's keys nor the look-ups' owner.
	for _, statement := range []string{"SELECT * FROM signing_keys", "SET ROLE ambit_definer", "SELECT * FROM outgoing_mail"} {
		err := f.db.InPlatformTx(t.Context(), func(tx pgx.Tx) error { _, err := tx.Exec(t.Context(), statement); return err })
		require.ErrorContains(t, err, "permission denied", statement)
	}
}

func TestTheLookUpFunctionsHaveAFixedSearchPathAndOneCaller(t *testing.T) {
	f := newFixture(t)
	require.Equal(t, "ambit_find_invitation,ambit_find_key,ambit_find_mail_token,ambit_find_organization,ambit_find_passkey,ambit_find_sign_in,ambit_find_user", f.asOwner(t, `
		SELECT string_agg(proname, ',' ORDER BY proname) FROM pg_proc
		WHERE prosecdef AND proname LIKE 'ambit\_find\_%' AND 'search_path=public, pg_temp' = ANY (proconfig)
		  AND pg_get_userbyid(proowner) = 'ambit_definer' AND has_function_privilege('ambit_app', oid, 'EXECUTE')
		  AND NOT has_function_privilege('ambit_worker', oid, 'EXECUTE')`))
}

func TestProjects(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	org := a.Organization.ID
	create := func(in tenants.CreateProject) (p tenants.Project, err error) {
		err = f.db.InTx(t.Context(), org, func(tx pgx.Tx) error { p, err = f.CreateProjectTx(t.Context(), tx, org, in); return err })
		return p, err
	}
	second, err := create(tenants.CreateProject{Name: "Second try"})
	require.NoError(t, err)
	require.Equal(t, "second-try", second.Slug)
	twin, err := create(tenants.CreateProject{Name: "Second try"})
	require.NoError(t, err)
	require.Regexp(t, `^second-try-[0-9a-z]{5}$`, twin.Slug)
	_, err = create(tenants.CreateProject{Name: "x", Slug: "second-try"})
	requireCode(t, "slug_is_taken", err)
	for _, bad := range []tenants.CreateProject{{}, {Name: "x", Slug: "-x"}, {Name: "x", Slug: "X"}, {Name: "x", Slug: strings.Repeat("x", 64)}, {Name: "a\tb"}} {
		_, err = create(bad)
		requireCode(t, "invalid_request", err)
	}

	got, err := f.GetProjectBySlug(t.Context(), org, "second-try")
	require.NoError(t, err)
	require.Equal(t, second, got)
	_, err = f.GetProjectBySlug(t.Context(), org, "nothing")
	requireCode(t, "not_found", err)

	name, slug := "Renamed", "renamed"
	update := func(in tenants.UpdateProject) (p tenants.Project, err error) {
		err = f.db.InTx(t.Context(), org, func(tx pgx.Tx) error {
			p, err = f.UpdateProjectTx(t.Context(), tx, org, second.ID, in)
			return err
		})
		return p, err
	}
	renamed, err := update(tenants.UpdateProject{Name: &name, Slug: &slug, IfVersion: &second.Version})
	require.NoError(t, err)
	require.Equal(t, second.Version+1, renamed.Version)
	same, err := update(tenants.UpdateProject{Name: &name})
	require.NoError(t, err)
	require.Equal(t, renamed, same, "no change, no version")
	_, err = update(tenants.UpdateProject{Name: &name, IfVersion: &second.Version})
	requireCode(t, "precondition_failed", err)
	taken := "default"
	_, err = update(tenants.UpdateProject{Slug: &taken})
	requireCode(t, "slug_is_taken", err)

	archive := func(p id.Project) (out tenants.Project, err error) {
		err = f.db.InTx(t.Context(), org, func(tx pgx.Tx) error { out, err = f.ArchiveProjectTx(t.Context(), tx, org, p); return err })
		return out, err
	}
	archived, err := archive(second.ID)
	require.NoError(t, err)
	require.NotNil(t, archived.ArchivedAt)
	again, err := archive(second.ID)
	require.NoError(t, err)
	require.Equal(t, archived, again)
	_, err = update(tenants.UpdateProject{Name: &slug})
	requireCode(t, "archived", err)
	requireCode(t, "archived", f.txErr(t, org, func(tx pgx.Tx) error {
		_, _, err := f.CreateKeyTx(t.Context(), tx, f.ownerOf(a), tenants.CreateKey{Name: "k", Scopes: []string{"*"}, Project: second.ID})
		return err
	}))

	list := func(in tenants.ListProjects) (names []string) {
		if in.Limit == 0 {
			in.Limit = 10
		}
		ps, err := f.ListProjects(t.Context(), org, in)
		require.NoError(t, err)
		for _, p := range ps {
			names = append(names, p.Name)
		}
		return names
	}
	require.Equal(t, []string{"Second try", "Default"}, list(tenants.ListProjects{}))
	require.Equal(t, []string{"Second try", "Renamed", "Default"}, list(tenants.ListProjects{IncludeArchived: true}))
	require.Equal(t, []string{"Renamed", "Default"}, list(tenants.ListProjects{IncludeArchived: true, After: twin.ID}))
	require.Equal(t, []string{"Renamed"}, list(tenants.ListProjects{IncludeArchived: true, OldestFirst: true, After: a.Project.ID, Limit: 1}))

	// Of the last two, archived at once, one stays.
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, p := range []id.Project{a.Project.ID, twin.ID} {
		wg.Go(func() { _, errs[i] = archive(p) })
	}
	wg.Wait()
	if errs[0] == nil {
		errs[0], errs[1] = errs[1], errs[0]
	}
	requireCode(t, "last_project", errs[0])
	require.NoError(t, errs[1])
}

func TestTheOrganisationsZoneIsOneThatThereIs(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	org := a.Organization.ID
	require.Equal(t, "UTC", a.Organization.TimeZone)
	for _, zone := range []string{"", "Local", "Mars/Olympus", "FOO+3", "europe", "../etc/passwd", "Europe/Berlin\x00", strings.Repeat("x", 10_000)} {
		requireCode(t, "unknown_time_zone", f.txErr(t, org, func(tx pgx.Tx) error {
			_, err := f.UpdateOrganizationTx(t.Context(), tx, org, tenants.UpdateOrganization{TimeZone: &zone})
			return err
		}))
	}
	f.tx(t, org, func(tx pgx.Tx) error {
		_, err := f.UpdateOrganizationTx(t.Context(), tx, org, tenants.UpdateOrganization{TimeZone: new("Europe/Berlin")})
		return err
	})
	got, err := f.GetOrganization(t.Context(), org)
	require.NoError(t, err)
	require.Equal(t, "Europe/Berlin", got.TimeZone)
	require.Equal(t, a.Organization.Name, got.Name)
	require.EqualValues(t, 2, got.Version)
}

func TestTheOrganisationIsRenamed(t *testing.T) {
	f := newFixture(t)
	a := f.account(t, "ada@example.com")
	org := a.Organization.ID
	var renamed tenants.Organization
	f.tx(t, org, func(tx pgx.Tx) (err error) {
		renamed, err = f.UpdateOrganizationTx(t.Context(), tx, org, tenants.UpdateOrganization{Name: new("Analytical Engines"), IfVersion: &a.Organization.Version})
		return err
	})
	got, err := f.GetOrganization(t.Context(), org)
	require.NoError(t, err)
	require.Equal(t, renamed, got)
	require.Equal(t, a.Organization.Slug, got.Slug)
	requireCode(t, "precondition_failed", f.txErr(t, org, func(tx pgx.Tx) error {
		_, err := f.UpdateOrganizationTx(t.Context(), tx, org, tenants.UpdateOrganization{Name: new("x"), IfVersion: &a.Organization.Version})
		return err
	}))
}
