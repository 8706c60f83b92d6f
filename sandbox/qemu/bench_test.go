package qemu_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/sandbox/driver"
	"ambit.dev/ambit/sandbox/guest"
)

// start clones a machine outside the measured time.
func (b *bench) start(t testing.TB, i int, paused bool) driver.Machine {
	t.Helper()
	m, err := b.driver.Start(t.Context(), driver.StartSpec{
		ID: fmt.Sprintf("bench-%d", i), Manifest: b.template.Manifest, Handles: b.template.Handles,
		RunDir: filepath.Join(t.TempDir(), "run"), Paused: paused,
	})
	require.NoError(t, err)
	return m
}

// BenchmarkClone is a clone from the template to a guest that answers.
func BenchmarkClone(b *testing.B) {
	bn := sharedBench(b)
	for i := 0; b.Loop(); i++ {
		m := bn.start(b, i, false)
		c, err := m.Guest(b.Context())
		require.NoError(b, err)
		b.StopTimer()
		require.NoError(b, c.Close())
		require.NoError(b, m.Close())
		b.StartTimer()
	}
}

// BenchmarkResumeAndExec is the floor for a claim from a warm pool: the bare
// resume of a paused clone that has run a command before, and its first command
// afterwards. It also reports the median, and what the machine's process spent
// of the host's CPU, which tells the cost on a machine that is busy otherwise.
func BenchmarkResumeAndExec(b *testing.B) {
	bn := sharedBench(b)
	var took []time.Duration
	var cpu time.Duration
	exec := func(c *guest.Client, key string) {
		res, err := c.Run(b.Context(), guest.ExecRequest{EffectKey: key, Epoch: 1, Script: "echo hello"}, nil, nil)
		require.NoError(b, err)
		require.Zero(b, res.ExitCode)
	}
	spent := func(m driver.Machine) time.Duration {
		x, err := m.Metrics(b.Context())
		require.NoError(b, err)
		return x.CPU
	}
	for i := 0; b.Loop(); i++ {
		b.StopTimer()
		m := bn.start(b, i, false)
		c, err := m.Guest(b.Context())
		require.NoError(b, err)
		_, err = c.Configure(b.Context(), guest.Configuration{SandboxID: m.ID(), Epoch: 1})
		require.NoError(b, err)
		exec(c, "eff_before")
		require.NoError(b, m.Pause(b.Context()))
		before := spent(m)
		b.StartTimer()

		at := time.Now()
		require.NoError(b, m.Resume(b.Context()))
		exec(c, "eff_after")
		took = append(took, time.Since(at))

		b.StopTimer()
		cpu += spent(m) - before
		require.NoError(b, c.Close())
		require.NoError(b, m.Close())
		b.StartTimer()
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(cpu.Microseconds())/1000/float64(len(took)), "cpu-ms/op")
}

// BenchmarkExec is one command in a sandbox that runs already.
func BenchmarkExec(b *testing.B) {
	bn := sharedBench(b)
	m := bn.start(b, 0, false)
	defer m.Close() //nolint:errcheck // a benchmark's
	c, err := m.Guest(b.Context())
	require.NoError(b, err)
	_, err = c.Configure(b.Context(), guest.Configuration{SandboxID: m.ID(), Epoch: 1})
	require.NoError(b, err)
	for name, req := range map[string]guest.ExecRequest{
		"true":   {Argv: []string{"true"}},
		"bash":   {Script: "echo hello"},
		"python": {Argv: []string{"python3", "-c", "print(1)"}},
	} {
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				req.EffectKey, req.Epoch = fmt.Sprintf("eff_%s_%d_%d", name, b.N, i), 1
				_, err := c.Run(b.Context(), req, nil, nil)
				require.NoError(b, err)
			}
		})
	}
}
