package backup

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// format is the archive's version. A change that an older Ambit can't read
// raises it.
const format = 1

// The archive's parts. The manifest is the last.
const (
	partPostgres  = "postgres.dump"
	partSpans     = "clickhouse/spans.gob.zst"
	partBlobs     = "blobs/" // one entry a file
	partMasterKey = "master.key"
	partManifest  = "manifest.json"
)

// Manifest says what is in an archive.
type Manifest struct {
	Format    int       `json:"format"`
	Made      time.Time `json:"made_at"`
	MasterKey string    `json:"master_key_id"` // names the key, reveals nothing of it
	// Schema versions that the databases had.
	PostgresSchema   int64 `json:"postgres_schema"`
	ClickHouseSchema int64 `json:"clickhouse_schema"`
	// Roles of Ambit's own that the dump's rights refer to, and those of them
	// that the owner is a member of.
	Roles   []string        `json:"roles"`
	Granted []string        `json:"granted"`
	Spans   int64           `json:"spans"`
	Parts   map[string]Part `json:"parts"`
}

// Part is one file of the archive.
type Part struct {
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"`
}

// ErrDamaged is returned for an archive whose content is not what its manifest
// says.
var ErrDamaged = errors.New("the backup is damaged")

// writer writes an archive, hashing each part as it goes.
type writer struct {
	tw    *tar.Writer
	parts map[string]Part
}

func newWriter(w io.Writer) *writer {
	return &writer{tw: tar.NewWriter(w), parts: map[string]Part{}}
}

// add copies size bytes of r as one part.
func (w *writer) add(name string, size int64, r io.Reader) error {
	if err := w.tw.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, ModTime: time.Now(), Typeflag: tar.TypeReg}); err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w.tw, sum), io.LimitReader(r, size))
	if err != nil {
		return fmt.Errorf("writing %s: %w", name, err)
	}
	if n != size {
		return fmt.Errorf("writing %s: it shrank from %d to %d bytes meanwhile", name, size, n)
	}
	w.parts[name] = Part{Bytes: n, SHA256: hex.EncodeToString(sum.Sum(nil))}
	return nil
}

func (w *writer) addFile(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return w.add(name, st.Size(), f)
}

// finish writes the manifest and ends the archive.
func (w *writer) finish(m Manifest) error {
	m.Format, m.Parts = format, w.parts
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	if err := w.tw.WriteHeader(&tar.Header{Name: partManifest, Mode: 0o600, Size: int64(len(b)), ModTime: time.Now(), Typeflag: tar.TypeReg}); err != nil {
		return err
	}
	if _, err := w.tw.Write(b); err != nil {
		return err
	}
	return w.tw.Close()
}

// Verify reads an archive through and compares each part with the manifest.
func Verify(ctx context.Context, path string) (Manifest, error) {
	return read(ctx, path, func(string) (io.WriteCloser, error) { return discard{}, nil })
}

// unpack writes the parts below dir, and verifies them on the way.
func unpack(ctx context.Context, path, dir string) (Manifest, error) {
	return read(ctx, path, func(name string) (io.WriteCloser, error) {
		file := filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			return nil, err
		}
		return os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	})
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
func (discard) Close() error                { return nil }

// read hands each part to what open returns, and checks all against the manifest.
func read(ctx context.Context, path string, open func(name string) (io.WriteCloser, error)) (Manifest, error) {
	f, err := os.Open(path)
	if err != nil {
		return Manifest{}, err
	}
	defer f.Close()
	var m *Manifest
	found := map[string]Part{}
	for tr := tar.NewReader(f); ; {
		if err := ctx.Err(); err != nil {
			return Manifest{}, err
		}
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return Manifest{}, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		if h.Name == partManifest {
			m = &Manifest{}
			if err := json.NewDecoder(io.LimitReader(tr, 256<<20)).Decode(m); err != nil {
				return Manifest{}, fmt.Errorf("%w: its manifest can't be read: %w", ErrDamaged, err)
			}
			continue
		}
		if h.Typeflag != tar.TypeReg || !known(h.Name) {
			return Manifest{}, fmt.Errorf("%w: it holds %q, which no backup does", ErrDamaged, h.Name)
		}
		part, err := copyPart(tr, h.Name, open)
		if err != nil {
			return Manifest{}, err
		}
		found[h.Name] = part
	}
	if m == nil {
		return Manifest{}, fmt.Errorf("%w: it has no manifest, so it was cut off or is no backup of Ambit", ErrDamaged)
	}
	if m.Format > format {
		return Manifest{}, fmt.Errorf("the backup has format %d, this release reads up to %d: use a newer one", m.Format, format)
	}
	for name, want := range m.Parts {
		if got, ok := found[name]; !ok || got != want {
			return Manifest{}, fmt.Errorf("%w: %s is not what its manifest says", ErrDamaged, name)
		}
	}
	if len(found) != len(m.Parts) {
		return Manifest{}, fmt.Errorf("%w: it holds parts that its manifest does not know", ErrDamaged)
	}
	return *m, nil
}

// known refuses names that would lead outside of the folder, and any other.
func known(name string) bool {
	switch name {
	case partPostgres, partSpans, partMasterKey:
		return true
	default:
		return strings.HasPrefix(name, partBlobs) && filepath.IsLocal(filepath.FromSlash(name)) && !strings.HasSuffix(name, "/")
	}
}

func copyPart(r io.Reader, name string, open func(string) (io.WriteCloser, error)) (_ Part, err error) {
	w, err := open(name)
	if err != nil {
		return Part{}, err
	}
	defer func() { err = errors.Join(err, w.Close()) }()
	var sum hash.Hash = sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), r)
	if err != nil {
		return Part{}, fmt.Errorf("%w: %s: %w", ErrDamaged, name, err)
	}
	return Part{Bytes: n, SHA256: hex.EncodeToString(sum.Sum(nil))}, nil
}
