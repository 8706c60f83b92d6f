package cli

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestALoginIsReadableByItsOwnerAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ambit", "cli.json")
	none, err := readProfile(path)
	require.NoError(t, err)
	require.Empty(t, none)
	want := profile{URL: "http://127.0.0.1:1", Key: "amb_x", Project: "prj_y"}
	require.NoError(t, want.write(path))
	require.NoError(t, want.write(path), "a second login replaces the first")
	got, err := readProfile(path)
	require.NoError(t, err)
	require.Equal(t, want, got)
	info, err := os.Stat(path)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	entries, err := os.ReadDir(filepath.Dir(path))
	require.NoError(t, err)
	require.Len(t, entries, 1, "nothing is left over")
	require.NoError(t, os.WriteFile(path, []byte(`{"key":"amb_planted`), 0o600))
	_, err = readProfile(path)
	require.Error(t, err)
	require.NotContains(t, err.Error(), "planted")
}

func TestTextOfAgentsDoesNotSteerTheTerminal(t *testing.T) {
	require.Equal(t, "a[31mb\n\tc", plainText("a\x1b[31mb\n\tc\u009b"))
	require.NotContains(t, plainText("\x1b]0;title\x07x\x9b2J"), "\x1b")
	require.NotContains(t, oneLine("a\nb\x1b[2J"), "\n")
}
