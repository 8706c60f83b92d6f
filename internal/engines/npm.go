package engines

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"ambit.dev/ambit/internal/config"
)

// npmPackage is one pinned archive of the npm registry. It is fetched by plain
// HTTPS and unpacked by us: neither Node nor npm need be there, and no
// package's install script ever runs.
type npmPackage struct {
	name, version string
	folder        string            // in the cache
	integrity     string            // of the archive, "sha512-…"
	keep          func(string) bool // which files, by their path below "package/"
	sums          map[string]string // SHA-256 in hex of single files, checked while unpacking
}

// obtainNPM puts the package's files into dir, which is complete once it exists.
func (o *obtaining) obtainNPM(ctx context.Context, t *task, p npmPackage, dir string) error {
	downloads := filepath.Join(o.cache, "downloads")
	if err := os.MkdirAll(downloads, 0o755); err != nil { //nolint:gosec // a cache of public files
		return err
	}
	archive := filepath.Join(downloads, strings.NewReplacer("@", "", "/", "-").Replace(p.name)+"-"+p.version+".tgz")
	if _, err := os.Stat(archive); errors.Is(err, fs.ErrNotExist) {
		if err := download(ctx, t, npmTarball(config.NPMRegistry(), p.name, p.version), archive, p.integrity); err != nil {
			return err
		}
	}
	making, err := os.MkdirTemp(mustParent(dir), ".making-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(making)
	if err := unpackNPM(ctx, t, archive, making, p); err != nil {
		// Whatever is wrong with it, the next run begins anew.
		return errors.Join(fmt.Errorf("unpacking %s: %w", archive, err), os.Remove(archive))
	}
	if err := os.Chmod(making, 0o755); err != nil { //nolint:gosec // public files
		return err
	}
	if err := os.Rename(making, dir); err != nil {
		return err
	}
	return os.Remove(archive)
}

func unpackNPM(ctx context.Context, t *task, archive, dir string, p npmPackage) error {
	f, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	counted := &countingReader{r: f, each: func(n int64) { t.count("unpacking", bytesCount, n, st.Size()) }}
	gz, err := gzip.NewReader(counted)
	if err != nil {
		return err
	}
	missing := map[string]bool{}
	for name := range p.sums {
		missing[name] = true
	}
	for tr := tar.NewReader(gz); ; {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		_, name, _ := strings.Cut(h.Name, "/") // the first folder is "package", or the package's name
		if h.Typeflag != tar.TypeReg || !filepath.IsLocal(name) || (p.keep != nil && !p.keep(name)) {
			continue
		}
		if err := writeChecked(filepath.Join(dir, name), tr, h.FileInfo().Mode(), p.sums[name]); err != nil {
			return err
		}
		delete(missing, name)
	}
	for name := range missing {
		return fmt.Errorf("the archive holds no %s", name)
	}
	return nil
}

// writeChecked writes a file and compares its SHA-256 when one is given.
func writeChecked(path string, r io.Reader, mode fs.FileMode, want string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // public files
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644|mode.Perm()&0o111)
	if err != nil {
		return err
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), r)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if got := hex.EncodeToString(sum.Sum(nil)); want != "" && got != want {
		return fmt.Errorf("%w: %s has sha256 %s, pinned is %s", errWrongHash, filepath.Base(path), got, want)
	}
	return nil
}

// mustParent makes dir's parent and returns it; what can't be made shows when
// it is used.
func mustParent(dir string) string {
	parent := filepath.Dir(dir)
	_ = os.MkdirAll(parent, 0o755) //nolint:gosec // public files
	return parent
}

type countingReader struct {
	r    io.Reader
	n    int64
	each func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	c.each(c.n)
	return n, err
}
