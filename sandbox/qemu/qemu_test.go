package qemu_test

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
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

// opened is the bench once somebody has asked for it.
var opened *bench

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
	opened = b
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
	if opened != nil {
		if opened.template != nil {
			_ = opened.template.Close()
		}
		_ = os.RemoveAll(opened.dir)
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

func TestTemplatesThatDoNotFit(t *testing.T) {
	b := sharedBench(t)
	// copyTemplate copies the template and lets fn spoil the copy.
	copyTemplate := func(fn func(dir string)) string {
		dir := t.TempDir()
		for _, name := range []string{"manifest.json", "device.state", "memory.img"} {
			out, err := exec.CommandContext(t.Context(), "cp", "--sparse=always", filepath.Join(b.spec.Dir, name), dir).CombinedOutput()
			require.NoError(t, err, string(out))
		}
		fn(dir)
		return dir
	}
	edit := func(old, replacement string) func(string) {
		return func(dir string) {
			file := filepath.Join(dir, "manifest.json")
			text, err := os.ReadFile(file)
			require.NoError(t, err)
			require.Contains(t, string(text), old)
			require.NoError(t, os.WriteFile(file, []byte(strings.Replace(string(text), old, replacement, 1)), 0o600))
		}
	}
	poke := func(name string, at int64) func(string) {
		return func(dir string) {
			f, err := os.OpenFile(filepath.Join(dir, name), os.O_RDWR, 0)
			require.NoError(t, err)
			defer f.Close() //nolint:errcheck // a test's
			_, err = f.WriteAt([]byte("spoilt"), at)
			require.NoError(t, err)
		}
	}
	m := b.template.Manifest
	for name, c := range map[string]struct {
		spoil func(string)
		want  error
	}{
		"another QEMU":        {edit(`"`+m.Version+`"`, `"1.0.0"`), driver.ErrTemplateStale},
		"another CPU":         {edit(m.CPUModel, "other"), driver.ErrTemplateStale},
		"another format":      {edit(`"format": 1`, `"format": 0`), driver.ErrTemplateStale},
		"another key":         {edit(m.Key, strings.Repeat("0", 32)), driver.ErrTemplateStale},
		"another memory size": {edit(`"memory_mib": 256`, `"memory_mib": 512`), driver.ErrTemplateStale},
		"changed state":       {poke("device.state", 100), driver.ErrTemplateDamaged},
		"changed memory":      {poke("memory.img", 16<<20), driver.ErrTemplateDamaged},
		"longer memory":       {poke("memory.img", m.MemoryBytes), driver.ErrTemplateDamaged},
		"no manifest":         {func(dir string) { require.NoError(t, os.Remove(filepath.Join(dir, "manifest.json"))) }, driver.ErrTemplateDamaged},
		"no JSON":             {poke("manifest.json", 0), driver.ErrTemplateDamaged},
		"no root filesystem":  {edit(m.RootfsPath, "/no/such/file"), driver.ErrTemplateDamaged},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := b.driver.OpenTemplate(t.Context(), copyTemplate(c.spoil))
			require.ErrorIs(t, err, c.want)
		})
	}
	t.Run("a copy that is whole", func(t *testing.T) {
		tpl, err := b.driver.OpenTemplate(t.Context(), copyTemplate(func(string) {}))
		require.NoError(t, err)
		require.Equal(t, m, tpl.Manifest)
		require.NoError(t, tpl.Close())
	})
	t.Run("the key is known before the build", func(t *testing.T) {
		key, err := b.driver.TemplateKey(t.Context(), b.spec)
		require.NoError(t, err)
		require.Equal(t, m.Key, key)
		other := b.spec
		other.MemoryMiB *= 2
		key, err = b.driver.TemplateKey(t.Context(), other)
		require.NoError(t, err)
		require.NotEqual(t, m.Key, key)
	})
}

func TestSpecsThatAreRefused(t *testing.T) {
	b := sharedBench(t)
	for name, change := range map[string]func(*driver.TemplateSpec){
		"little memory": func(s *driver.TemplateSpec) { s.MemoryMiB = 64 },
		"no CPU":        func(s *driver.TemplateSpec) { s.VCPUs = 0 },
		"no kernel":     func(s *driver.TemplateSpec) { s.Kernel = "/no/such/file" },
		"no modules":    func(s *driver.TemplateSpec) { s.ModulesDir = t.TempDir() },
		"no guest":      func(s *driver.TemplateSpec) { s.GuestBinary = "/no/such/file" },
	} {
		spec := b.spec
		spec.Dir = filepath.Join(t.TempDir(), "template")
		change(&spec)
		_, err := b.driver.BuildTemplate(t.Context(), spec, nil)
		require.Error(t, err, name)
		require.NoDirExists(t, spec.Dir, name)
	}
}

// TestGuestThatDoesNotStart: a machine whose first process fails is a guest
// panic with its last words, not a wait.
func TestGuestThatDoesNotStart(t *testing.T) {
	b := sharedBench(t)
	spec := b.spec
	spec.Dir = filepath.Join(t.TempDir(), "template")
	spec.GuestBinary = filepath.Join(t.TempDir(), "guest")
	require.NoError(t, os.WriteFile(spec.GuestBinary, []byte("no program"), 0o600))
	_, err := b.driver.BuildTemplate(t.Context(), spec, nil)
	require.ErrorIs(t, err, driver.ErrMachineEnded)
	require.NoFileExists(t, filepath.Join(spec.Dir, "manifest.json"))
}

func TestDriverWithoutQEMU(t *testing.T) {
	_, err := qemu.New(qemu.Config{Binary: "/no/such/qemu"})
	require.ErrorIs(t, err, driver.ErrUnavailable)
}

// TestTheJail: what a QEMU process is and what it can reach.
func TestTheJail(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Log("without root there is no jail to look at")
		return
	}
	b := sharedBench(t)
	m := b.start(t, 0, true)
	defer m.Close() //nolint:errcheck // a test's
	proc := filepath.Join("/proc", strconv.Itoa(m.PID()))
	status, err := os.ReadFile(filepath.Join(proc, "status"))
	require.NoError(t, err)
	for _, want := range []string{"Uid:\t65534\t65534\t65534\t65534", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "Seccomp:\t2", "NoNewPrivs:\t1"} {
		require.Contains(t, string(status), want)
	}
	for _, ns := range []string{"net", "ipc", "uts", "pid", "mnt"} {
		theirs, err := os.Readlink(filepath.Join(proc, "ns", ns))
		require.NoError(t, err)
		ours, err := os.Readlink("/proc/self/ns/" + ns)
		require.NoError(t, err)
		require.NotEqual(t, ours, theirs, ns)
	}
	root, err := os.ReadDir(filepath.Join(proc, "root"))
	require.NoError(t, err)
	for _, e := range root {
		require.Contains(t, []string{"usr", "lib", "lib64", "lib32", "bin", "etc", "dev", "proc"}, e.Name())
	}
	etc, err := os.ReadDir(filepath.Join(proc, "root", "etc"))
	require.NoError(t, err)
	require.Len(t, etc, 1, "no configuration, no keys")
	require.Error(t, os.WriteFile(filepath.Join(proc, "root", "x"), nil, 0o600), "nothing can be written")
}
