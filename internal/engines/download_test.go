package engines

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTask(t *testing.T) *task {
	t.Helper()
	b := newBoard(io.Discard)
	t.Cleanup(b.close)
	return b.begin("a test")
}

func integrityOf(b []byte) string {
	sum := sha512.Sum512(b)
	return "sha512-" + base64.StdEncoding.EncodeToString(sum[:])
}

// serveFile serves content, cutting the first cuts answers after a third, and
// notes from which byte it was asked.
func serveFile(t *testing.T, content []byte, cuts int32) (url string, asked *[]string) {
	t.Helper()
	asked = &[]string{}
	var n atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*asked = append(*asked, r.Header.Get("Range"))
		if n.Add(1) <= cuts {
			w.Header().Set("Content-Length", fmt.Sprint(len(content)))
			_, _ = w.Write(content[:len(content)/3])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler) // the connection breaks
		}
		http.ServeContent(w, r, "f", time.Time{}, bytes.NewReader(content))
	}))
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		srv.Close()
	})
	return srv.URL, asked
}

func randomBytes(t *testing.T, n int) []byte {
	t.Helper()
	b := make([]byte, n)
	_, err := rand.Read(b)
	require.NoError(t, err)
	return b
}

func TestDownloadGoesOnWhereItBroke(t *testing.T) {
	content := randomBytes(t, 300_000)
	url, asked := serveFile(t, content, 1)
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, download(t.Context(), newTask(t), url, file, integrityOf(content)))
	got, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, content, got)
	require.Len(t, *asked, 2)
	require.Empty(t, (*asked)[0])
	require.Equal(t, "bytes=100000-", (*asked)[1])
}

func TestDownloadTakesUpAnEarlierRunsPart(t *testing.T) {
	content := randomBytes(t, 100_000)
	url, asked := serveFile(t, content, 0)
	file := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(file+".part", content[:40_000], 0o600))
	require.NoError(t, download(t.Context(), newTask(t), url, file, integrityOf(content)))
	require.Equal(t, []string{"bytes=40000-"}, *asked)

	// A part that is already whole.
	require.NoError(t, os.Rename(file, file+".part"))
	require.NoError(t, download(t.Context(), newTask(t), url, file, integrityOf(content)))
	require.FileExists(t, file)
}

func TestDownloadRefusesAWrongHashAndForgetsIt(t *testing.T) {
	content := randomBytes(t, 10_000)
	url, _ := serveFile(t, content, 0)
	file := filepath.Join(t.TempDir(), "f")
	err := download(t.Context(), newTask(t), url, file, integrityOf([]byte("something else")))
	require.ErrorIs(t, err, errWrongHash)
	require.NoFileExists(t, file)
	require.NoFileExists(t, file+".part", "or it would be asked on from there for ever")
}

func TestDownloadTellsTheServersRefusal(t *testing.T) {
	srv := httptest.NewServer(http.NotFoundHandler())
	defer srv.Close()
	err := download(t.Context(), newTask(t), srv.URL, filepath.Join(t.TempDir(), "f"), "sha512-x")
	require.ErrorContains(t, err, "404")
	http.DefaultClient.CloseIdleConnections()
}

type tarFile struct {
	name, content string
	link          bool
}

func tgz(t *testing.T, files ...tarFile) []byte {
	t.Helper()
	var b bytes.Buffer
	gz := gzip.NewWriter(&b)
	tw := tar.NewWriter(gz)
	for _, f := range files {
		h := &tar.Header{Name: f.name, Mode: 0o755, Size: int64(len(f.content)), Typeflag: tar.TypeReg}
		if f.link {
			h = &tar.Header{Name: f.name, Typeflag: tar.TypeSymlink, Linkname: f.content}
		}
		require.NoError(t, tw.WriteHeader(h))
		if !f.link {
			_, err := io.WriteString(tw, f.content)
			require.NoError(t, err)
		}
	}
	require.NoError(t, tw.Close())
	require.NoError(t, gz.Close())
	return b.Bytes()
}

func TestNPMPackageIsUnpackedWholeOrNotAtAll(t *testing.T) {
	archive := tgz(t,
		tarFile{name: "package/lib.so", content: "the library"},
		tarFile{name: "package/README.md", content: "not wanted"},
		tarFile{name: "package/../../escape", content: "outside"},
		tarFile{name: "package/link", content: "/etc/passwd", link: true},
	)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/@scope/lib/-/lib-1.2.3.tgz" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(archive)
	}))
	defer srv.Close()
	defer http.DefaultClient.CloseIdleConnections()
	t.Setenv("NPM_CONFIG_REGISTRY", srv.URL+"/")
	sum := sha256.Sum256([]byte("the library"))
	p := npmPackage{
		name: "@scope/lib", version: "1.2.3", integrity: integrityOf(archive),
		keep: func(name string) bool { return !strings.HasSuffix(name, ".md") },
		sums: map[string]string{"lib.so": hex.EncodeToString(sum[:])},
	}
	o := &obtaining{cache: t.TempDir()}
	dir := filepath.Join(o.cache, "lib", "1.2.3")
	require.NoError(t, o.obtainNPM(t.Context(), newTask(t), p, dir))
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, entries, 1)
	require.Equal(t, "lib.so", entries[0].Name())
	left, err := os.ReadDir(filepath.Join(o.cache, "downloads"))
	require.NoError(t, err)
	require.Empty(t, left, "the archive is not kept")

	// A file whose hash is not the pinned one leaves nothing behind.
	p.sums = map[string]string{"lib.so": strings.Repeat("0", 64)}
	other := filepath.Join(o.cache, "other", "1.2.3")
	require.ErrorIs(t, o.obtainNPM(t.Context(), newTask(t), p, other), errWrongHash)
	require.NoDirExists(t, other)
	p.sums = map[string]string{"absent": strings.Repeat("0", 64)}
	require.ErrorContains(t, o.obtainNPM(t.Context(), newTask(t), p, other), "holds no absent")
	left, err = os.ReadDir(filepath.Dir(other))
	require.NoError(t, err)
	require.Empty(t, left)
}
