package qemu_test

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/sandbox/driver"
	"ambit.dev/ambit/sandbox/qemu"
)

// lockedBuffer is a log that several goroutines write.
type lockedBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) boots() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return strings.Count(b.buf.String(), "sandbox engine probed")
}

// TestALaterProcessDoesNotBootAgain: what one process found, the next believes, also when its guest agent was built again; somebody who
// wants to know boots.
func TestALaterProcessDoesNotBootAgain(t *testing.T) {
	b := sharedBench(t)
	set, err := engines.Require(t.Context(), engines.QEMU, engines.Kernel)
	require.NoError(t, err)
	cache := filepath.Join(t.TempDir(), qemu.ProbeFile)
	log := &lockedBuffer{}
	probe := func(cfg qemu.Config) (driver.ProbeResult, time.Duration) {
		cfg.Binary, cfg.Kernel, cfg.ProbeCache = set.QEMU, set.Vmlinux, cache
		cfg.Log = slog.New(slog.NewTextHandler(log, nil))
		d, err := qemu.New(cfg)
		require.NoError(t, err)
		begun := time.Now()
		r, err := d.Probe(t.Context())
		require.NoError(t, err)
		return r, time.Since(begun)
	}
	first, cold := probe(qemu.Config{GuestBinary: b.spec.GuestBinary})
	require.Equal(t, 1, log.boots())

	rebuilt := filepath.Join(t.TempDir(), "ambit-guest")
	binary, err := os.ReadFile(b.spec.GuestBinary)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(rebuilt, binary, 0o755)) //nolint:gosec // a program
	second, warm := probe(qemu.Config{GuestBinary: rebuilt})
	require.Equal(t, 1, log.boots(), "nothing was booted")
	require.Equal(t, first, second)
	t.Logf("%s: %s; remembered: %s", first.Detail, cold, warm)

	_, _ = probe(qemu.Config{GuestBinary: rebuilt, ProbeAnew: true})
	require.Equal(t, 2, log.boots())
	_, _ = probe(qemu.Config{GuestBinary: rebuilt, Accelerator: driver.AcceleratorTCG})
	require.Equal(t, 3, log.boots(), "another question is another verdict")
	_, _ = probe(qemu.Config{GuestBinary: rebuilt})
	require.Equal(t, 3, log.boots(), "and does not displace the first")
}

// TestNothingBoots: a kernel that QEMU refuses is an answer in words, and nothing is remembered.
func TestNothingBoots(t *testing.T) {
	b := sharedBench(t)
	set, err := engines.Require(t.Context(), engines.QEMU)
	require.NoError(t, err)
	kernel := filepath.Join(t.TempDir(), "vmlinux")
	require.NoError(t, os.WriteFile(kernel, nil, 0o644)) //nolint:gosec // read by another account
	cache := filepath.Join(t.TempDir(), qemu.ProbeFile)
	d, err := qemu.New(qemu.Config{Binary: set.QEMU, Kernel: kernel, GuestBinary: b.spec.GuestBinary, ProbeCache: cache})
	require.NoError(t, err)
	_, err = d.Probe(t.Context())
	require.ErrorIs(t, err, driver.ErrUnavailable)
	require.ErrorContains(t, err, "tcg cannot boot here")
	t.Log(err)
	require.NoFileExists(t, cache)
}
