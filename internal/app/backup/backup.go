package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/clickhouse"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/internal/masterkey"
	"ambit.dev/ambit/internal/postgres"
)

// Options of a backup.
type Options struct {
	// IncludeMasterKey puts the master key into the file, in clear.
	IncludeMasterKey bool
	// Out takes what is told meanwhile.
	Out io.Writer
}

// Make writes a backup of the instance that cfg names to file, which must not
// exist, and reads it through once more. A file that could not be completed is
// removed.
func Make(ctx context.Context, cfg config.Config, file string, opts Options) (_ Manifest, err error) {
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return Manifest{}, fmt.Errorf("%s is there already: choose another name", file)
	}
	key, err := keyID(ctx, cfg)
	if err != nil {
		return Manifest{}, err
	}
	part, err := os.OpenFile(file+".part", os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return Manifest{}, fmt.Errorf("making the backup's file: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(part.Name()))
		}
	}()
	m := Manifest{Made: time.Now().UTC(), MasterKey: key}
	err = up.WithDatabases(ctx, cfg, opts.Out, false, func(ctx context.Context, cfg config.Config) error {
		return write(ctx, cfg, part, m, opts)
	})
	if err := errors.Join(err, part.Sync(), part.Close()); err != nil {
		return Manifest{}, err
	}
	fmt.Fprintln(opts.Out, "reading it through")
	if m, err = Verify(ctx, part.Name()); err != nil {
		return Manifest{}, err
	}
	return m, os.Rename(part.Name(), file)
}

// keyID names the master key. It does not let seal make one: a backup of an
// instance whose key is lost says so.
func keyID(ctx context.Context, cfg config.Config) (string, error) {
	if !cfg.MasterKey.IsSet() {
		if _, err := os.Stat(cfg.MasterKeyFile); err != nil {
			return "", fmt.Errorf("the master key: %w", err)
		}
	}
	s, err := masterkey.Open(ctx, cfg)
	if err != nil {
		return "", err
	}
	return s.KeyID(), nil
}

func write(ctx context.Context, cfg config.Config, out io.Writer, m Manifest, opts Options) error {
	set, err := engines.Obtain(ctx, engines.Options{CacheDir: cfg.CacheDir, Out: opts.Out}, engines.Postgres)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp(cfg.DataDir, ".backup-") // a dump may be too large for /tmp
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)
	w := newWriter(out)

	fmt.Fprintln(opts.Out, "dumping Postgres")
	if err := describePostgres(ctx, cfg, &m); err != nil {
		return err
	}
	dump := filepath.Join(scratch, partPostgres)
	if err := dumpPostgres(ctx, set.PostgresBinDir, cfg.PostgresURL, dump); err != nil {
		return err
	}
	if err := w.addFile(partPostgres, dump); err != nil {
		return err
	}
	if err := os.Remove(dump); err != nil { // the space may be wanted for the spans
		return err
	}

	fmt.Fprintln(opts.Out, "copying files")
	if err := addTree(ctx, w, filepath.Join(cfg.DataDir, "blobs")); err != nil {
		return err
	}

	fmt.Fprintln(opts.Out, "copying spans")
	spans := filepath.Join(scratch, "spans")
	if err := saveSpans(ctx, cfg, spans, &m); err != nil {
		return err
	}
	if err := w.addFile(partSpans, spans); err != nil {
		return err
	}

	if opts.IncludeMasterKey {
		if err := addMasterKey(w, cfg, scratch); err != nil {
			return err
		}
	}
	return w.finish(m)
}

func describePostgres(ctx context.Context, cfg config.Config, m *Manifest) error {
	var err error
	if m.PostgresSchema, _, err = postgres.SchemaVersion(ctx, cfg.PostgresURL.Reveal()); err != nil {
		return err
	}
	if m.PostgresSchema == 0 {
		return errors.New("there is nothing to back up yet: the instance was never started")
	}
	conn, err := pgx.Connect(ctx, cfg.PostgresURL.Reveal())
	if err != nil {
		return fmt.Errorf("connecting to Postgres: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	m.Roles, m.Granted, err = ownRoles(ctx, conn)
	return err
}

// addTree adds the files below dir. One that goes away meanwhile was not needed
// by the snapshot any more, or was a temporary file.
func addTree(ctx context.Context, w *writer, dir string) error {
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if ctx.Err() != nil || !d.Type().IsRegular() {
			return ctx.Err()
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if err := w.addFile(partBlobs+filepath.ToSlash(rel), path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	})
	if errors.Is(err, fs.ErrNotExist) {
		return nil // no file was ever stored
	}
	return err
}

func saveSpans(ctx context.Context, cfg config.Config, file string, m *Manifest) (err error) {
	db, err := clickhouse.Open(ctx, up.ClickHouseConfig(cfg))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, db.Close()) }()
	if m.ClickHouseSchema, _, err = db.SchemaVersion(ctx); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	m.Spans, err = dumpSpans(ctx, db, f)
	return errors.Join(err, f.Close())
}

func addMasterKey(w *writer, cfg config.Config, scratch string) error {
	if !cfg.MasterKey.IsSet() {
		return w.addFile(partMasterKey, cfg.MasterKeyFile)
	}
	file := filepath.Join(scratch, partMasterKey)
	if err := os.WriteFile(file, []byte(cfg.MasterKey.Reveal()+"\n"), 0o600); err != nil {
		return err
	}
	return w.addFile(partMasterKey, file)
}
