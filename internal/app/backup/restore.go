package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/clickhouse"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/internal/masterkey"
	"ambit.dev/ambit/internal/postgres"
)

// ErrNotEmpty is returned when there is an instance already where one is to be
// restored.
var ErrNotEmpty = errors.New("there is an instance here already; --force replaces it")

// RestoreOptions say how to restore.
type RestoreOptions struct {
	// Force replaces what is there.
	Force bool
	// Out takes what is told meanwhile.
	Out io.Writer
}

// Restore makes the instance that cfg names from a backup. It changes nothing
// before the whole file was found to be sound, the master key to be the right
// one and the schema to be known. It refuses to work beside a running instance.
func Restore(ctx context.Context, cfg config.Config, file string, opts RestoreOptions) (Manifest, error) {
	if err := os.MkdirAll(cfg.DataDir, 0o711); err != nil { //nolint:gosec // as ambit up makes it
		return Manifest{}, err
	}
	scratch, err := os.MkdirTemp(cfg.DataDir, ".restore-")
	if err != nil {
		return Manifest{}, err
	}
	defer os.RemoveAll(scratch)
	fmt.Fprintln(opts.Out, "checking the backup")
	m, err := unpack(ctx, file, scratch)
	if err != nil {
		return Manifest{}, err
	}
	installKey, err := checkMasterKey(ctx, cfg, filepath.Join(scratch, partMasterKey), m, opts.Force)
	if err != nil {
		return Manifest{}, err
	}
	err = up.WithDatabases(ctx, cfg, opts.Out, true, func(ctx context.Context, cfg config.Config) error {
		if err := refuseUnfit(ctx, cfg, m, opts.Force); err != nil {
			return err
		}
		return errors.Join(installKey(), apply(ctx, cfg, scratch, m, opts))
	})
	return m, err
}

// checkMasterKey makes sure that what the instance sealed can be opened again,
// and returns what puts the archive's key in its place, if that is to be used.
func checkMasterKey(ctx context.Context, cfg config.Config, included string, m Manifest, force bool) (install func() error, err error) {
	nothing := func() error { return nil }
	inArchive, err := readIfThere(included)
	if err != nil {
		return nil, err
	}
	place := func() error { return os.WriteFile(cfg.MasterKeyFile, inArchive, 0o600) }
	_, err = os.Stat(cfg.MasterKeyFile)
	if err != nil && !cfg.MasterKey.IsSet() {
		if inArchive == nil {
			return nil, fmt.Errorf("the backup's secrets are sealed under the master key %s, which it does not hold: put the key into %s (or AMBIT_MASTER_KEY) and run again", m.MasterKey, cfg.MasterKeyFile)
		}
		return place, nil
	}
	s, err := masterkey.Open(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if s.KeyID() == m.MasterKey {
		return nothing, nil
	}
	if inArchive == nil || !force || cfg.MasterKey.IsSet() {
		return nil, fmt.Errorf("the master key here is %s, the backup's secrets are sealed under %s: put that key into %s (or AMBIT_MASTER_KEY) and run again", s.KeyID(), m.MasterKey, cfg.MasterKeyFile)
	}
	return func() error {
		// To replace the instance is to replace its key; the old one may still
		// open older backups, so it is put aside.
		aside := fmt.Sprintf("%s.%s-%s", cfg.MasterKeyFile, s.KeyID(), time.Now().UTC().Format("20060102T150405"))
		if err := os.Rename(cfg.MasterKeyFile, aside); err != nil {
			return err
		}
		return place()
	}, nil
}

func readIfThere(path string) ([]byte, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return b, err
}

// refuseUnfit refuses a schema that this release does not know, and an instance
// that is there already unless it is to be replaced.
func refuseUnfit(ctx context.Context, cfg config.Config, m Manifest, force bool) error {
	_, want, err := postgres.SchemaVersion(ctx, cfg.PostgresURL.Reveal())
	if err != nil {
		return err
	}
	if m.PostgresSchema > want {
		return fmt.Errorf("the backup's schema is version %d, this release knows up to %d: use the release that made it, or a newer one", m.PostgresSchema, want)
	}
	if force {
		return nil
	}
	tables, err := countTables(ctx, cfg.PostgresURL)
	if err != nil {
		return err
	}
	if tables > 0 {
		return fmt.Errorf("%w: its Postgres database has %d tables", ErrNotEmpty, tables)
	}
	blobs := filepath.Join(cfg.DataDir, "blobs")
	if entries, err := os.ReadDir(blobs); err == nil && len(entries) > 0 {
		return fmt.Errorf("%w: %s holds files", ErrNotEmpty, blobs)
	}
	return nil
}

func apply(ctx context.Context, cfg config.Config, scratch string, m Manifest, opts RestoreOptions) error {
	set, err := engines.Obtain(ctx, engines.Options{CacheDir: cfg.CacheDir, Out: opts.Out}, engines.Postgres)
	if err != nil {
		return err
	}
	fmt.Fprintln(opts.Out, "restoring Postgres")
	if err := emptyPostgres(ctx, cfg.PostgresURL); err != nil {
		return err
	}
	if err := restorePostgres(ctx, set.PostgresBinDir, cfg.PostgresURL, filepath.Join(scratch, partPostgres), m); err != nil {
		return err
	}

	fmt.Fprintln(opts.Out, "restoring files")
	blobs := filepath.Join(cfg.DataDir, "blobs")
	if err := os.RemoveAll(blobs); err != nil {
		return err
	}
	if err := os.Rename(filepath.Join(scratch, "blobs"), blobs); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}

	fmt.Fprintln(opts.Out, "restoring spans")
	if err := restoreSpans(ctx, cfg, filepath.Join(scratch, filepath.FromSlash(partSpans)), m); err != nil {
		return err
	}
	// It is no first start any more.
	return os.WriteFile(filepath.Join(cfg.DataDir, "demonstrated"), []byte("restored from a backup of "+m.Made.Format(time.RFC3339)+"\n"), 0o600)
}

func restoreSpans(ctx context.Context, cfg config.Config, file string, m Manifest) (err error) {
	db, err := clickhouse.Open(ctx, up.ClickHouseConfig(cfg))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if err := db.Migrate(ctx, slog.New(slog.DiscardHandler)); err != nil {
		return err
	}
	for _, table := range []string{"spans", "usage_hourly"} {
		if err := db.Conn().Exec(ctx, "TRUNCATE TABLE "+table); err != nil {
			return fmt.Errorf("emptying %s: %w", table, err)
		}
	}
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	// A token of an earlier restore of the same file is still remembered, and
	// its rows are gone: each restore has tokens of its own.
	label := fmt.Sprintf("%d-%d", m.Made.UnixNano(), time.Now().UnixNano())
	n, err := loadSpans(ctx, db, f, label)
	if err != nil {
		return err
	}
	if n != m.Spans {
		return fmt.Errorf("%w: %d spans were restored, the manifest says %d", ErrDamaged, n, m.Spans)
	}
	return nil
}
