package engines

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/pierrec/lz4/v4"
	"github.com/stretchr/testify/require"
)

func TestEveryEngineIsInTheCatalogue(t *testing.T) {
	for _, n := range ForTesting() {
		e, ok := catalogue[n]
		require.True(t, ok, n)
		require.Equal(t, n, e.name)
		require.NotNil(t, e.find, n)
		require.True(t, e.obtain != nil || len(e.packages) > 0, n)
		require.True(t, e.usesApt || len(e.packages) == 0, "%s needs packages, so it waits for apt", n)
		parsed, err := ParseName(string(n))
		require.NoError(t, err)
		require.Equal(t, n, parsed)
	}
	_, err := ParseName("mysql")
	require.ErrorContains(t, err, "there are postgres, qemu")
}

func TestWhatIsThereCostsNothing(t *testing.T) {
	set, err := Require(t.Context(), ForRunning()...)
	require.NoError(t, err)
	require.FileExists(t, set.Vmlinux)
	require.FileExists(t, set.RootfsErofs)
	require.FileExists(t, filepath.Join(set.KernelModules, "fs", "erofs", "erofs.ko"))
	require.FileExists(t, filepath.Join(set.KernelModules, "fs", "overlayfs", "overlay.ko"))
	require.FileExists(t, filepath.Join(set.KernelModules, "drivers", "char", "virtio_console.ko"))
	began := time.Now()
	_, err = Require(t.Context(), ForRunning()...)
	require.NoError(t, err)
	require.Less(t, time.Since(began), 100*time.Millisecond)
}

func TestKernelIsMadeFromThePackage(t *testing.T) {
	set, err := Require(t.Context(), Kernel)
	require.NoError(t, err)
	sum, err := fileSHA256(set.Vmlinux)
	require.NoError(t, err)
	about, err := os.ReadFile(filepath.Join(filepath.Dir(set.Vmlinux), "source.json"))
	require.NoError(t, err)
	require.Contains(t, string(about), sum)
	head := make([]byte, 4)
	f, err := os.Open(set.Vmlinux)
	require.NoError(t, err)
	defer f.Close()
	_, err = f.Read(head)
	require.NoError(t, err)
	require.Equal(t, "\x7fELF", string(head))
}

func TestOneProcessObtainsAtATime(t *testing.T) {
	cache := t.TempDir()
	unlock, err := lockCache(t.Context(), cache, &bytes.Buffer{})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	var told bytes.Buffer
	_, err = lockCache(ctx, cache, &told)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.Equal(t, 1, strings.Count(told.String(), "waiting for it"))
	unlock()
	unlock, err = lockCache(t.Context(), cache, &told)
	require.NoError(t, err)
	unlock()
}

func TestMissingPackagesAreOneLineToPaste(t *testing.T) {
	err := &MissingError{Packages: []string{"mmdebstrap", "postgresql"}, Others: []error{errors.New("Nomad: no source")}}
	require.Equal(t, "these need root's rights; run:\n\n"+
		"    sudo apt-get update && sudo apt-get install -y --no-install-recommends mmdebstrap postgresql\n\n"+
		"Nomad: no source", err.Error())
}

func TestAptStatus(t *testing.T) {
	for line, want := range map[string]string{
		"dlstatus:3:41.53:Retrieving file 3 of 20":      "downloading 41 true",
		"pmstatus:libpq5:80.1:Unpacking libpq5 (amd64)": "installing libpq5 80 true",
		"pmerror:x":           " 0 false",
		"media-change:a:b:c":  " 0 false",
		"dlstatus:1:nan%:abc": " 0 false",
	} {
		what, percent, ok := aptStatus(line)
		require.Equal(t, want, fmt.Sprint(what, " ", percent, " ", ok), line)
	}
}

func TestUninstalled(t *testing.T) {
	require.Equal(t, []string{"no-such-package-at-all"}, uninstalled(t.Context(), []string{"no-such-package-at-all", "dpkg", "dpkg"}))
}

func TestNodeVersions(t *testing.T) {
	for version, enough := range map[string]bool{
		"v20.15.0": true, "v20.14.9": false, "v22.23.3": true, "v18.20.0": false, "": false, "v20": false, "vx.y": false,
	} {
		require.Equal(t, enough, nodeIsNewEnough(version), version)
	}
}

// bzImage builds an image as the boot protocol has it.
func bzImage(payload []byte) []byte {
	const sectors = 1
	image := make([]byte, (sectors+1)*512)
	image[setupSectors] = sectors
	copy(image[headerMagicAt:], headerMagic)
	binary.LittleEndian.PutUint32(image[payloadOffset:], 0)
	binary.LittleEndian.PutUint32(image[payloadLength:], uint32(len(payload)))
	return slices.Concat(image, payload)
}

func lz4Payload(t testing.TB, content []byte, size uint32) []byte {
	t.Helper()
	var b bytes.Buffer
	w := lz4.NewWriter(&b)
	require.NoError(t, w.Apply(lz4.LegacyOption(true)))
	_, err := w.Write(content)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return binary.LittleEndian.AppendUint32(b.Bytes(), size)
}

func TestWrongKernelImagesAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		image []byte
		says  string
	}{
		"empty":    {nil, "no bzImage"},
		"no magic": {make([]byte, 4096), "no bzImage"},
		"outside":  {bzImage(nil), "outside of it"},
		"gzip":     {bzImage([]byte("\x1f\x8b\x08\x00........")), "not compressed with LZ4"},
		"huge":     {bzImage(lz4Payload(t, []byte("x"), 1<<31)), "2147483648 bytes"},
		"short":    {bzImage(lz4Payload(t, []byte("x"), 100)), "decompressing"},
		"no ELF":   {bzImage(lz4Payload(t, bytes.Repeat([]byte("x"), 100), 100)), "no ELF image"},
	} {
		_, err := extractVmlinux(tc.image)
		require.ErrorContains(t, err, tc.says, name)
	}
}

func FuzzExtractVmlinux(f *testing.F) {
	f.Add(bzImage([]byte("\x02\x21\x4c\x18aaaaaaaa")))
	f.Add([]byte("HdrS"))
	f.Fuzz(func(_ *testing.T, image []byte) {
		if len(image) > payloadLength+4 { // a size that is merely large costs memory, not safety
			for i := range 2 {
				image[len(image)-1-i] = 0
			}
		}
		_, _ = extractVmlinux(image)
	})
}

func TestDebiansOwnClusterIsPreventedAndTheFilePutBack(t *testing.T) {
	if os.Geteuid() != 0 {
		return // only root installs packages
	}
	lock, err := os.OpenFile("/run/ambit-test-createcluster.lock", os.O_CREATE|os.O_RDWR, 0o600)
	require.NoError(t, err)
	defer lock.Close()
	require.NoError(t, syscall.Flock(int(lock.Fd()), syscall.LOCK_EX))
	before, err := os.ReadFile(createCluster)
	require.NoError(t, err)
	restore, err := preventDefaultCluster()
	require.NoError(t, err)
	during, err := os.ReadFile(createCluster)
	require.NoError(t, err)
	require.Contains(t, string(during), "\ncreate_main_cluster = false\n")
	require.NoError(t, restore())
	after, err := os.ReadFile(createCluster)
	require.NoError(t, err)
	require.Equal(t, string(before), string(after))
}

func TestBoardWithoutATerminal(t *testing.T) {
	out := &syncBuffer{}
	b := newBoard(out)
	task := b.begin("Nomad")
	task.count("compiling packages", stepsCount, 412, 1431)
	b.mu.Lock()
	b.refresh(time.Now().Add(repeatEvery))
	b.mu.Unlock()
	task.end(nil, "")
	failing := b.begin("QEMU")
	failing.end(errors.New("no such package\nmore"), "")
	b.close()
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	require.Len(t, lines, 5)
	require.Equal(t, "Nomad            starting", lines[0])
	require.Contains(t, lines[1], "Nomad            compiling packages 412 of 1431 (28%), 1")
	require.Contains(t, lines[2], "Nomad            ready (0.")
	require.Contains(t, lines[4], "QEMU             FAILED no such package (0.")
}

func TestBoardOnATerminalRedrawsItsLines(t *testing.T) {
	out := &syncBuffer{}
	b := newBoard(out)
	b.mu.Lock()
	b.lines, b.width = true, func() int { return 40 }
	b.mu.Unlock()
	one, two := b.begin("ClickHouse"), b.begin("a long title that does not fit the terminal at all")
	one.count("downloading", bytesCount, 50_000_000, 178_000_000)
	two.say("waiting")
	b.mu.Lock()
	b.refresh(time.Now())
	b.mu.Unlock()
	require.Contains(t, out.String(), "ClickHouse       downloading 50.0 MB of")
	one.end(nil, "")
	two.end(nil, "")
	b.close()
	require.Contains(t, out.String(), "\x1b[2A\x1b[J", "two lines are drawn over")
	for line := range strings.Lines(out.String()) {
		if !strings.Contains(line, "ready") && !strings.Contains(line, "\x1b") {
			require.LessOrEqual(t, len(strings.TrimRight(line, "\n")), 40)
		}
	}
}

type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *syncBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *syncBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}
