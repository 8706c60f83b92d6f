package blob

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"path/filepath"

	"gocloud.dev/blob"
	"gocloud.dev/blob/fileblob"
	"gocloud.dev/gcerrors"

	"ambit.dev/ambit/internal/id"
)

// Errors that callers may test for with errors.Is.
var (
	// ErrNotFound: the organisation has no such blob.
	ErrNotFound = errors.New("blob not found")
	// ErrDamaged: what was read does not have the hash that it is named by.
	ErrDamaged = errors.New("blob is damaged")
	// ErrTooLarge: more bytes came than the caller allowed.
	ErrTooLarge = errors.New("blob is too large")
)

// Sum is the SHA-256 of a blob's content, and its name.
type Sum [sha256.Size]byte

// String returns 64 lower-case hex digits.
func (s Sum) String() string { return hex.EncodeToString(s[:]) }

// ParseSum reads what String wrote.
func ParseSum(text string) (Sum, error) {
	var s Sum
	if len(text) != hex.EncodedLen(len(s)) {
		return s, fmt.Errorf("a SHA-256 has 64 hex digits, not %d characters", len(text))
	}
	if _, err := hex.Decode(s[:], []byte(text)); err != nil {
		return s, fmt.Errorf("read a SHA-256: %w", err)
	}
	return s, nil
}

// Ref names a stored blob and tells its size in bytes.
type Ref struct {
	Sum  Sum
	Size int64
}

// Store is safe for concurrent use.
type Store struct {
	bucket *blob.Bucket
	spool  string
}

// OpenDir opens a store in a folder of the local file system, making it if need
// be. Only the owner may read it.
func OpenDir(dir string) (*Store, error) {
	spool := filepath.Join(dir, "spool")
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return nil, fmt.Errorf("make the blob folder: %w", err)
	}
	// Without NoTempDir a blob would be written on another file system and
	// copied, so that a crash could leave half of it under its name.
	bucket, err := fileblob.OpenBucket(filepath.Join(dir, "blobs"), &fileblob.Options{
		CreateDir: true, DirFileMode: 0o700, NoTempDir: true, Metadata: fileblob.MetadataDontWrite,
	})
	if err != nil {
		return nil, fmt.Errorf("open the blob folder: %w", err)
	}
	return &Store{bucket: bucket, spool: spool}, nil
}

// Close frees the store.
func (s *Store) Close() error { return s.bucket.Close() }

// key puts the organisation first, so that one tenant's blobs are one prefix:
// listed, counted, exported and deleted together, and never shared with another
// tenant even when the bytes are the same.
func key(org id.Org, sum Sum) string {
	hexed := sum.String()
	return string(org) + "/" + hexed[:2] + "/" + hexed
}

// Put stores what r yields, at most limit bytes (ErrTooLarge beyond, and then
// nothing is kept). The same content stored twice is one blob.
func (s *Store) Put(ctx context.Context, org id.Org, r io.Reader, limit int64) (Ref, error) {
	if org == "" {
		return Ref{}, errors.New("store a blob: no organisation given")
	}
	// The name is not known before the end: the bytes wait in a file that has
	// no name, so that a crash leaves nothing behind.
	spool, err := os.CreateTemp(s.spool, "put-*")
	if err != nil {
		return Ref{}, fmt.Errorf("store a blob: %w", err)
	}
	defer spool.Close() //nolint:errcheck // deleted already
	if err := os.Remove(spool.Name()); err != nil {
		return Ref{}, fmt.Errorf("store a blob: %w", err)
	}
	h := sha256.New()
	n, err := io.Copy(io.MultiWriter(spool, h), io.LimitReader(r, limit+1))
	if err != nil {
		return Ref{}, fmt.Errorf("store a blob: %w", err)
	}
	if n > limit {
		return Ref{}, fmt.Errorf("%w: more than %d bytes", ErrTooLarge, limit)
	}
	ref := Ref{Size: n}
	h.Sum(ref.Sum[:0])

	name := key(org, ref.Sum)
	have, err := s.bucket.Attributes(ctx, name)
	if err == nil && have.Size == n {
		return ref, nil
	}
	if err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return Ref{}, fmt.Errorf("store blob %s: %w", ref.Sum, err)
	}
	if _, err := spool.Seek(0, io.SeekStart); err != nil {
		return Ref{}, fmt.Errorf("store blob %s: %w", ref.Sum, err)
	}
	// An upload is abandoned by cancelling its context before Close.
	uploading, cancel := context.WithCancel(ctx)
	defer cancel()
	w, err := s.bucket.NewWriter(uploading, name, &blob.WriterOptions{ContentType: "application/octet-stream"})
	if err != nil {
		return Ref{}, fmt.Errorf("store blob %s: %w", ref.Sum, err)
	}
	if _, err := io.Copy(w, spool); err != nil {
		cancel()
		return Ref{}, fmt.Errorf("store blob %s: %w", ref.Sum, errors.Join(err, w.Close()))
	}
	if err := w.Close(); err != nil {
		return Ref{}, fmt.Errorf("store blob %s: %w", ref.Sum, err)
	}
	return ref, nil
}

// Get opens a blob. Its last Read returns ErrDamaged in place of io.EOF when
// the content does not have the hash: bytes handed out before that are only to
// be trusted once the end was reached.
func (s *Store) Get(ctx context.Context, org id.Org, sum Sum) (io.ReadCloser, error) {
	r, err := s.bucket.NewReader(ctx, key(org, sum), nil)
	if gcerrors.Code(err) == gcerrors.NotFound {
		return nil, fmt.Errorf("%w: %s", ErrNotFound, sum)
	}
	if err != nil {
		return nil, fmt.Errorf("open blob %s: %w", sum, err)
	}
	return &verifier{ReadCloser: r, want: sum, h: sha256.New()}, nil
}

// Delete removes a blob; a missing one is no error.
func (s *Store) Delete(ctx context.Context, org id.Org, sum Sum) error {
	if err := s.bucket.Delete(ctx, key(org, sum)); err != nil && gcerrors.Code(err) != gcerrors.NotFound {
		return fmt.Errorf("delete blob %s: %w", sum, err)
	}
	return nil
}

type verifier struct {
	io.ReadCloser
	want Sum
	h    hash.Hash
}

func (v *verifier) Read(p []byte) (int, error) {
	n, err := v.ReadCloser.Read(p)
	v.h.Write(p[:n])
	if errors.Is(err, io.EOF) {
		if got := Sum(v.h.Sum(nil)); got != v.want {
			return n, fmt.Errorf("%w: named %s, has %s", ErrDamaged, v.want, got)
		}
	}
	return n, err
}
