package blob_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/blob"
	"ambit.dev/ambit/internal/id"
)

const (
	alpha = id.Org("org_alpha")
	beta  = id.Org("org_beta")
)

func open(t *testing.T) (*blob.Store, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := blob.OpenDir(dir)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s, dir
}

// files lists the regular files below dir.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	require.NoError(t, filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			out = append(out, p)
		}
		return err
	}))
	return out
}

func TestWhatIsPutCanBeReadByItsOrganisationOnly(t *testing.T) {
	s, _ := open(t)
	content := bytes.Repeat([]byte("some bytes of a working directory\n"), 10_000)
	ref, err := s.Put(t.Context(), alpha, bytes.NewReader(content), 1<<20)
	require.NoError(t, err)
	require.Equal(t, blob.Ref{Sum: sha256.Sum256(content), Size: int64(len(content))}, ref)

	r, err := s.Get(t.Context(), alpha, ref.Sum)
	require.NoError(t, err)
	got, err := io.ReadAll(r)
	require.NoError(t, err)
	require.NoError(t, r.Close())
	require.Equal(t, content, got)

	_, err = s.Get(t.Context(), beta, ref.Sum)
	require.ErrorIs(t, err, blob.ErrNotFound)
}

func TestTheSameContentIsKeptOnce(t *testing.T) {
	s, dir := open(t)
	for range 3 {
		_, err := s.Put(t.Context(), alpha, strings.NewReader("same"), 10)
		require.NoError(t, err)
	}
	require.Len(t, files(t, dir), 1)
}

func TestAChangedFileIsNoticed(t *testing.T) {
	s, dir := open(t)
	ref, err := s.Put(t.Context(), alpha, strings.NewReader("a truth"), 100)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(files(t, dir)[0], []byte("a false"), 0o600))

	r, err := s.Get(t.Context(), alpha, ref.Sum)
	require.NoError(t, err)
	defer r.Close() //nolint:errcheck // read only
	_, err = io.ReadAll(r)
	require.ErrorIs(t, err, blob.ErrDamaged)
}

func TestNothingIsLeftOfWhatFailed(t *testing.T) {
	s, dir := open(t)
	_, err := s.Put(t.Context(), alpha, strings.NewReader("12345678901"), 10)
	require.ErrorIs(t, err, blob.ErrTooLarge)

	broken := errors.New("the line was cut")
	_, err = s.Put(t.Context(), alpha, io.MultiReader(strings.NewReader("half"), iotest.ErrReader(broken)), 100)
	require.ErrorIs(t, err, broken)

	ended, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = s.Put(ended, alpha, strings.NewReader("late"), 100)
	require.Error(t, err)
	require.Empty(t, files(t, dir))
}

func TestDeleteIsIdempotent(t *testing.T) {
	s, _ := open(t)
	ref, err := s.Put(t.Context(), alpha, strings.NewReader("x"), 10)
	require.NoError(t, err)
	require.NoError(t, s.Delete(t.Context(), alpha, ref.Sum))
	require.NoError(t, s.Delete(t.Context(), alpha, ref.Sum))
	_, err = s.Get(t.Context(), alpha, ref.Sum)
	require.ErrorIs(t, err, blob.ErrNotFound)
}

func FuzzParseSum(f *testing.F) {
	f.Add(strings.Repeat("ab", 32))
	f.Add("")
	f.Add(strings.Repeat("g", 64))
	f.Fuzz(func(t *testing.T, text string) {
		s, err := blob.ParseSum(text)
		if err == nil {
			require.Equal(t, strings.ToLower(text), s.String())
		}
	})
}
