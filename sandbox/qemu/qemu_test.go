package qemu_test

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/sandbox/driver"
	"ambit.dev/ambit/sandbox/driver/conformance"
	"ambit.dev/ambit/sandbox/qemu"
)

// bench is what every test of this package shares: a driver and one template.
type bench struct {
	dir      string
	driver   *qemu.Driver
	spec     driver.TemplateSpec
	template *driver.Template
}

var shared = sync.OnceValues(func() (*bench, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 15*time.Minute)
	defer cancel()
	set, err := engines.Require(ctx, engines.QEMU, engines.Kernel, engines.Rootfs)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "ambit-qemu-test-")
	if err != nil {
		return nil, err
	}
	b := &bench{dir: dir}
	binary := filepath.Join(dir, "ambit-guest")
	build := exec.CommandContext(ctx, "go", "build", "-trimpath", "-ldflags", "-s -w", "-o", binary, "ambit.dev/ambit/cmd/ambit-guest")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	build.Stderr = os.Stderr
	if err := build.Run(); err != nil {
		return nil, err
	}
	b.driver, err = qemu.New(qemu.Config{
		Binary: set.QEMU, Kernel: set.Vmlinux, GuestBinary: binary, ProbeCache: filepath.Join(dir, "probe.json"),
		Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		return nil, err
	}
	b.spec = driver.TemplateSpec{
		Kernel: set.Vmlinux, ModulesDir: set.KernelModules, Rootfs: set.RootfsErofs, GuestBinary: binary,
		MemoryMiB: 256, VCPUs: 1, Dir: filepath.Join(dir, "template"),
	}
	b.template, err = b.driver.BuildTemplate(ctx, b.spec, nil)
	return b, err
})

func sharedBench(t testing.TB) *bench {
	t.Helper()
	b, err := shared()
	require.NoError(t, err)
	return b
}

func TestMain(m *testing.M) {
	code := m.Run()
	if b, err := shared(); err == nil {
		_ = b.template.Close()
		_ = os.RemoveAll(b.dir)
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			_, _ = os.Stderr.WriteString(err.Error() + "\n")
			code = 1
		}
	}
	os.Exit(code)
}

func TestConformance(t *testing.T) {
	b := sharedBench(t)
	conformance.Run(t, conformance.Subject{Driver: b.driver, Template: b.template})
}
