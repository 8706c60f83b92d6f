// Package dbtest gives each test a migrated database of its own on a real Postgres.
//
// The migrations run once for each state of the migration files, into a template; a test's database is cloned from it in about a tenth
// of the time. Its connections live in a zone that is not UTC, so that code which depends on the session's zone fails here first.
package dbtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io/fs"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"ambit.dev/ambit/internal/engines/pgcluster"
	"ambit.dev/ambit/internal/id"
	"ambit.dev/ambit/internal/postgres"
	migrations "ambit.dev/ambit/migrations/postgres"
)

// zone is far from UTC and has a quarter of an hour in it.
const zone = "Pacific/Chatham"

var passwords = postgres.Passwords{App: "app-test", Worker: "worker-test"}

// New returns a database that only this test uses. It is dropped when the test ends.
func New(t testing.TB) *postgres.DB {
	t.Helper()
	db, _ := NewWithOwner(t)
	return db
}

// NewWithOwner is New and also returns the owner's URL, for tests that must look past row-level security or at the catalogue.
func NewWithOwner(t testing.TB) (*postgres.DB, string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	cluster, err := pgcluster.Shared(ctx)
	require.NoError(t, err, "the tests need a real Postgres: 'ambit doctor' says what is missing")
	admin := cluster.URL()

	template, err := ensureTemplate(ctx, admin)
	require.NoError(t, err)
	name := "t_" + string(id.New[id.Request]())[4:]
	require.NoError(t, exec(ctx, admin, fmt.Sprintf("CREATE DATABASE %s TEMPLATE %s", name, template)))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		if err := exec(ctx, admin, fmt.Sprintf("DROP DATABASE IF EXISTS %s WITH (FORCE)", name)); err != nil {
			t.Logf("drop the test's database: %v", err)
		}
	})
	owner, err := withDatabase(admin, name)
	require.NoError(t, err)
	db, err := postgres.Open(ctx, postgres.Config{OwnerURL: owner, Passwords: passwords, MaxConns: 12, TimeZone: zone})
	require.NoError(t, err)
	t.Cleanup(db.Close)
	return db, owner
}

// NewOrg makes an organisation and nothing else: no member, no project, no credit.
func NewOrg(t testing.TB, db *postgres.DB) id.Org {
	t.Helper()
	org := id.New[id.Org]()
	require.NoError(t, db.InTx(t.Context(), org, func(tx pgx.Tx) error {
		_, err := tx.Exec(t.Context(), "INSERT INTO organizations (id, name, slug, created_at, updated_at) VALUES ($1, 'Test', $2, now(), now())", string(org), strings.ReplaceAll(string(org), "_", "-"))
		return err
	}))
	return org
}

// Passwords are those of the two roles in every test database.
func Passwords() postgres.Passwords { return passwords }

func ensureTemplate(ctx context.Context, admin string) (string, error) {
	name, err := templateName()
	if err != nil {
		return "", err
	}
	// Test binaries run side by side: one of them makes the template, the others wait.
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), "ambit-"+name+".lock"), os.O_CREATE|os.O_RDWR, 0o666)
	if err != nil {
		return "", fmt.Errorf("open the template's lock: %w", err)
	}
	defer lock.Close() //nolint:errcheck // closing frees the lock
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return "", fmt.Errorf("wait for the template's lock: %w", err)
	}
	conn, err := pgx.Connect(ctx, admin)
	if err != nil {
		return "", fmt.Errorf("reach the tests' Postgres: %w", err)
	}
	defer conn.Close(ctx) //nolint:errcheck // read only from here
	var ready bool
	if err := conn.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", name).Scan(&ready); err != nil {
		return "", fmt.Errorf("look for the template: %w", err)
	}
	if ready {
		return name, nil
	}
	building := name + "_building"
	for _, statement := range []string{"DROP DATABASE IF EXISTS " + building + " WITH (FORCE)", "CREATE DATABASE " + building} {
		if _, err := conn.Exec(ctx, statement); err != nil {
			return "", fmt.Errorf("make the template: %w", err)
		}
	}
	owner, err := withDatabase(admin, building)
	if err != nil {
		return "", err
	}
	if err := postgres.Migrate(ctx, owner, passwords, slog.New(slog.DiscardHandler)); err != nil {
		return "", fmt.Errorf("migrate the template: %w", err)
	}
	if _, err := conn.Exec(ctx, fmt.Sprintf("ALTER DATABASE %s RENAME TO %s", building, name)); err != nil {
		return "", fmt.Errorf("finish the template: %w", err)
	}
	return name, nil
}

// templateName changes with any migration.
func templateName() (string, error) {
	h := sha256.New()
	err := fs.WalkDir(migrations.Files, ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := fs.ReadFile(migrations.Files, path)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%s %d\n", path, len(b))
		_, err = h.Write(b)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("read the migrations: %w", err)
	}
	return "ambit_template_" + hex.EncodeToString(h.Sum(nil))[:16], nil
}

func withDatabase(rawURL, name string) (string, error) {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "", fmt.Errorf("read the cluster's URL: %w", err)
	}
	u.Path = "/" + name
	return u.String(), nil
}

func exec(ctx context.Context, dsn, statement string) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx) //nolint:errcheck // the statement's own error counts
	_, err = conn.Exec(ctx, statement)
	return err
}
