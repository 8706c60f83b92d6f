package backup

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/config"
)

// pgTool runs one of Postgres's programs on a database. The password travels in
// the environment: arguments can be read by everybody on the machine.
func pgTool(ctx context.Context, binDir, program string, address config.Address, args ...string) error {
	u, err := url.Parse(address.Reveal())
	if err != nil {
		return fmt.Errorf("the Postgres address is no URL") //nolint:perfsprint,revive // the parser's text would show the password
	}
	password, _ := u.User.Password()
	u.User = url.User(u.User.Username())
	cmd := exec.CommandContext(ctx, filepath.Join(binDir, program), append([]string{"--dbname", u.String()}, args...)...)
	cmd.Env = append(os.Environ(), "PGPASSWORD="+password, "LC_ALL=C.UTF-8")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", program, err, strings.TrimSpace(stderr.String()))
	}
	return nil
}

// dumpPostgres writes the whole database in one snapshot.
func dumpPostgres(ctx context.Context, binDir string, address config.Address, file string) error {
	return pgTool(ctx, binDir, "pg_dump", address, "--format=custom", "--compress=1", "--lock-wait-timeout=60s", "--file", file)
}

// ownRoles are Ambit's roles. They belong to the server, not to the database, so
// that a dump does not hold them.
func ownRoles(ctx context.Context, conn *pgx.Conn) (roles, granted []string, err error) {
	rows, err := conn.Query(ctx, `SELECT rolname::text, pg_has_role(current_user, oid, 'MEMBER') AND NOT (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
		OR EXISTS (SELECT FROM pg_auth_members m JOIN pg_roles me ON me.oid = m.member WHERE m.roleid = r.oid AND me.rolname = current_user)
		FROM pg_roles r WHERE rolname LIKE 'ambit\_%' ORDER BY rolname`)
	if err != nil {
		return nil, nil, fmt.Errorf("reading the roles: %w", err)
	}
	var name string
	var member bool
	_, err = pgx.ForEachRow(rows, []any{&name, &member}, func() error {
		roles = append(roles, name)
		if member {
			granted = append(granted, name)
		}
		return nil
	})
	return roles, granted, err
}

// makeRoles makes the roles that are not there, as the first migration does:
// they can't log in until the program gives them their passwords.
func makeRoles(ctx context.Context, conn *pgx.Conn, m Manifest) error {
	for _, r := range m.Roles {
		var there bool
		if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)", r).Scan(&there); err != nil {
			return err
		}
		if there {
			continue
		}
		if _, err := conn.Exec(ctx, "CREATE ROLE "+pgx.Identifier{r}.Sanitize()+" NOLOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT"); err != nil {
			return fmt.Errorf("making the role %s: %w", r, err)
		}
	}
	for _, r := range m.Granted {
		if _, err := conn.Exec(ctx, "GRANT "+pgx.Identifier{r}.Sanitize()+" TO CURRENT_USER"); err != nil {
			return fmt.Errorf("joining the role %s: %w", r, err)
		}
	}
	return nil
}

// countTables counts the tables that a database holds.
func countTables(ctx context.Context, address config.Address) (tables int, err error) {
	conn, err := pgx.Connect(ctx, address.Reveal())
	if err != nil {
		return 0, fmt.Errorf("connecting to Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// Asking for the schema's version makes the table of versions.
	err = conn.QueryRow(ctx, `SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
		WHERE c.relkind IN ('r', 'p') AND c.relname <> 'goose_db_version' AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname NOT LIKE 'pg\_%'`).Scan(&tables)
	return tables, err
}

// emptyPostgres drops all that a database holds.
func emptyPostgres(ctx context.Context, address config.Address) error {
	conn, err := pgx.Connect(ctx, address.Reveal())
	if err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	// Schemas and not the database: we may own the one and not be allowed to
	// make the other.
	rows, err := conn.Query(ctx, `SELECT nspname::text FROM pg_namespace WHERE nspname NOT IN ('pg_catalog', 'information_schema') AND nspname NOT LIKE 'pg\_%'`)
	if err != nil {
		return err
	}
	schemas, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return err
	}
	for _, s := range schemas {
		if _, err := conn.Exec(ctx, "DROP SCHEMA "+pgx.Identifier{s}.Sanitize()+" CASCADE"); err != nil {
			return fmt.Errorf("emptying the database: %w", err)
		}
	}
	_, err = conn.Exec(ctx, "CREATE SCHEMA public; GRANT USAGE ON SCHEMA public TO PUBLIC")
	return err
}

// restorePostgres fills an empty database from a dump, all or nothing.
func restorePostgres(ctx context.Context, binDir string, address config.Address, file string, m Manifest) error {
	conn, err := pgx.Connect(ctx, address.Reveal())
	if err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	err = makeRoles(ctx, conn, m)
	_ = conn.Close(ctx)
	if err != nil {
		return err
	}
	return pgTool(ctx, binDir, "pg_restore", address, "--single-transaction", "--exit-on-error", file)
}
