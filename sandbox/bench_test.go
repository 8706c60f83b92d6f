package sandbox_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/sandbox"
	"ambit.dev/ambit/sandbox/driver"
	"ambit.dev/ambit/sandbox/guest"
	"ambit.dev/ambit/sandbox/qemu"
)

func report(b *testing.B, what string, took []time.Duration) {
	slices.Sort(took)
	ms := func(q float64) float64 { return float64(took[int(q*float64(len(took)-1))]) / 1e6 }
	b.ReportMetric(ms(0.5), what+"-p50-ms")
	b.ReportMetric(ms(0.95), what+"-p95-ms")
}

// BenchmarkClaim is the path of a session's first command: the claim of a warm
// sandbox by a row lock, resume, configuration, journal, admission excluded, and
// `true` by bash through the bridge.
func BenchmarkClaim(b *testing.B) {
	r := newRig(b, warm(2), most(6))
	tn := r.tenant()
	var claim, exec, second, both []time.Duration
	for b.Loop() {
		b.StopTimer()
		r.awaitWarm(2)
		session := tn.newSession()
		b.StartTimer()
		began := time.Now()
		sb, err := tn.acquireFor(session, 1)
		require.NoError(b, err)
		claimed := time.Since(began)
		b.StopTimer()
		e := tn.begin(sb, "eff-"+string(session))
		b.StartTimer()
		began = time.Now()
		res, err := e.Exec(b.Context(), sandbox.ExecSpec{Script: "true"}, nil)
		took := time.Since(began)
		require.NoError(b, err)
		require.Zero(b, res.ExitCode)
		claim, exec, both = append(claim, claimed), append(exec, took), append(both, claimed+took)
		b.StopTimer()
		e = tn.begin(sb, "eff-2-"+string(session))
		began = time.Now()
		_, err = e.Exec(b.Context(), sandbox.ExecSpec{Script: "true"}, nil)
		require.NoError(b, err)
		second = append(second, time.Since(began))
		_, err = r.service.Kill(b.Context(), tn.org, session, sandbox.ReasonKilled)
		require.NoError(b, err)
		b.StartTimer()
	}
	report(b, "claim", claim)
	report(b, "exec", exec)
	report(b, "second-exec", second)
	report(b, "claim+exec", both)
}

// BenchmarkFloor is what the driver alone needs: resume, configuration and the
// same command in a paused clone, without Nomad, Postgres or the bridge.
func BenchmarkFloor(b *testing.B) {
	dir := built(b)
	set, err := engines.Require(b.Context(), engines.QEMU, engines.Kernel, engines.Rootfs)
	require.NoError(b, err)
	templates := filepath.Join(config.CacheDir(), "test-templates")
	d, err := qemu.New(qemu.Config{
		Binary: set.QEMU, Kernel: set.Vmlinux, GuestBinary: filepath.Join(dir, "ambit-guest"), ProbeCache: filepath.Join(templates, "probe.json"),
	})
	require.NoError(b, err)
	spec := driver.TemplateSpec{
		Kernel: set.Vmlinux, ModulesDir: set.KernelModules, Rootfs: set.RootfsErofs, GuestBinary: filepath.Join(dir, "ambit-guest"), MemoryMiB: 256, VCPUs: 1,
	}
	key, err := d.TemplateKey(b.Context(), spec)
	require.NoError(b, err)
	spec.Dir = filepath.Join(templates, key)
	tpl, err := d.OpenTemplate(b.Context(), spec.Dir)
	if err != nil {
		tpl, err = d.BuildTemplate(b.Context(), spec, nil)
	}
	require.NoError(b, err)
	defer tpl.Close() //nolint:errcheck // the end of the benchmark
	run, err := os.MkdirTemp("", "amb-floor-")
	require.NoError(b, err)
	defer os.RemoveAll(run)                  //nolint:errcheck // the end of the benchmark
	require.NoError(b, os.Chmod(run, 0o711)) //nolint:gosec // the engine's account passes
	for _, warmed := range []bool{false, true} {
		b.Run(fmt.Sprintf("warmed=%t", warmed), func(b *testing.B) {
			var took []time.Duration
			for i := 0; b.Loop(); i++ {
				b.StopTimer()
				m, err := d.Start(b.Context(), driver.StartSpec{
					ID: fmt.Sprintf("floor-%d", i), Manifest: tpl.Manifest, Handles: tpl.Handles, RunDir: filepath.Join(run, fmt.Sprint(i)),
				})
				require.NoError(b, err)
				c, err := m.Guest(b.Context())
				require.NoError(b, err)
				if warmed {
					_, err = c.Configure(b.Context(), guest.Configuration{SandboxID: "floor", Hostname: "sandbox"})
					require.NoError(b, err)
					_, err = c.Run(b.Context(), guest.ExecRequest{EffectKey: "warm-up", Script: "true"}, nil, nil)
					require.NoError(b, err)
				}
				require.NoError(b, m.Pause(b.Context()))
				b.StartTimer()
				began := time.Now()
				require.NoError(b, m.Resume(b.Context()))
				_, err = c.Configure(b.Context(), guest.Configuration{SandboxID: "floor", Epoch: 1, Hostname: "sandbox"})
				require.NoError(b, err)
				_, err = c.Run(b.Context(), guest.ExecRequest{EffectKey: "first", Epoch: 1, Script: "true"}, nil, nil)
				require.NoError(b, err)
				took = append(took, time.Since(began))
				b.StopTimer()
				_ = c.Close()
				require.NoError(b, m.Close())
				b.StartTimer()
			}
			report(b, "resume+exec", took)
		})
	}
}
