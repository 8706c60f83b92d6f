package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ambit.dev/ambit/sandbox/driver"
	"ambit.dev/ambit/sandbox/guest"
)

// How long a boot may take before an accelerator counts as not working. Real
// hardware virtualisation is up in well under a second, and always before the
// software CPU. Where KVM only pretends (its calls succeed, and an emulator runs
// the guest) it hangs, fails, or is slower than the software CPU: then nothing
// speaks for it.
const (
	kvmProbeLimit = 8 * time.Second
	tcgProbeLimit = 60 * time.Second
	// kvmHeadStart is how long KVM may take even if the software CPU was faster:
	// on an idle machine a few hundred milliseconds decide nothing.
	kvmHeadStart = 2 * time.Second
	probeMemory  = 192
)

var errSlowerThanSoftware = errors.New("the software CPU booted first")

// Probe implements driver.Driver. It boots the kernel with the guest agent as
// its first process, which only has to say a word on the console: with KVM and
// with the software CPU at once, so that a KVM that hangs costs no more than a
// boot. What it finds is remembered (Config.ProbeCache).
func (d *Driver) Probe(ctx context.Context) (driver.ProbeResult, error) {
	d.probing.Lock()
	defer d.probing.Unlock()
	if d.probed != nil {
		return *d.probed, nil
	}
	version, err := d.version(ctx)
	if err != nil {
		return driver.ProbeResult{}, fmt.Errorf("probe QEMU: %w", err)
	}
	key, err := d.probeKey(version)
	if err != nil {
		return driver.ProbeResult{}, fmt.Errorf("probe QEMU: %w", err)
	}
	if r, ok := d.recallProbe(key); ok {
		d.probed = &r
		return r, nil
	}
	r, err := d.probe(ctx, version)
	if err != nil {
		return driver.ProbeResult{}, err
	}
	d.log.InfoContext(ctx, "sandbox engine probed", "accelerator", r.Accelerator, "version", r.Version, "took", r.Took, "detail", r.Detail)
	d.rememberProbe(key, r)
	d.probed = &r
	return r, nil
}

func (d *Driver) probe(ctx context.Context, version string) (driver.ProbeResult, error) {
	if d.cfg.Kernel == "" || d.cfg.GuestBinary == "" {
		return driver.ProbeResult{}, errors.New("probe QEMU: no kernel and guest were configured to boot")
	}
	begun := time.Now()
	best, notes := d.race(ctx)
	if ctx.Err() != nil {
		return driver.ProbeResult{}, fmt.Errorf("probe QEMU: %w", context.Cause(ctx))
	}
	if best == "" {
		return driver.ProbeResult{}, fmt.Errorf("%w: %s", driver.ErrUnavailable, strings.Join(notes, "; "))
	}
	return driver.ProbeResult{
		Accelerator: best, Version: version, CPUModel: cpuModel(best), Machine: machineType,
		Took: time.Since(begun).Round(time.Millisecond), Detail: strings.Join(notes, "; "),
	}, nil
}

// attempt is a boot under one accelerator: under way, and then how it went.
type attempt struct {
	accelerator driver.Accelerator
	cancel      context.CancelCauseFunc
	done        chan struct{}
	took        time.Duration
	err         error
}

func (d *Driver) attempt(ctx context.Context, a driver.Accelerator, limit time.Duration) *attempt {
	at := &attempt{accelerator: a, done: make(chan struct{})}
	if d.cfg.Accelerator != "" && d.cfg.Accelerator != a {
		at.cancel, at.err = func(error) {}, errNotTried
		close(at.done)
		return at
	}
	ctx, at.cancel = context.WithCancelCause(ctx)
	begun := time.Now()
	go func() {
		defer close(at.done)
		at.err = d.tryBoot(ctx, a, limit)
		at.took = time.Since(begun)
	}()
	return at
}

var errNotTried = errors.New("not tried")

// note says how the attempt ended.
func (at *attempt) note() string {
	switch {
	case errors.Is(at.err, errNotTried):
		return string(at.accelerator) + " was not tried, as configured"
	case at.err != nil:
		return fmt.Sprintf("%s cannot boot here: %v", at.accelerator, at.err)
	default:
		return fmt.Sprintf("%s booted a kernel in %s", at.accelerator, at.took.Round(10*time.Millisecond))
	}
}

// race boots under both accelerators at once and says which one is to be used
// (empty: neither boots), and why.
func (d *Driver) race(ctx context.Context) (best driver.Accelerator, notes []string) {
	begun := time.Now()
	kvm, tcg := d.attempt(ctx, driver.AcceleratorKVM, kvmProbeLimit), d.attempt(ctx, driver.AcceleratorTCG, tcgProbeLimit)
	defer func() { kvm.cancel(nil); tcg.cancel(nil); <-kvm.done; <-tcg.done }()
	select {
	case <-kvm.done:
	case <-tcg.done:
		if tcg.err == nil {
			// Whatever slows the software CPU slows KVM too, so that this holds on
			// a busy machine as well.
			head := time.AfterFunc(kvmHeadStart-time.Since(begun), func() { kvm.cancel(errSlowerThanSoftware) })
			defer head.Stop()
		}
	}
	<-kvm.done
	if kvm.err == nil {
		return driver.AcceleratorKVM, []string{kvm.note()}
	}
	<-tcg.done
	notes = []string{kvm.note(), tcg.note()}
	if tcg.err == nil {
		best = driver.AcceleratorTCG
	}
	return best, notes
}

// tryBoot boots until the guest says its word.
func (d *Driver) tryBoot(ctx context.Context, a driver.Accelerator, limit time.Duration) error {
	if a == driver.AcceleratorKVM {
		if _, err := os.Stat("/dev/kvm"); err != nil {
			return errors.New("there is no /dev/kvm")
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("nothing had booted after %s", limit))
	defer cancel()
	dir, err := os.MkdirTemp("", "ambit-probe-")
	if err != nil {
		return fmt.Errorf("make a directory for the probe: %w", err)
	}
	defer os.RemoveAll(dir) //nolint:errcheck // a temporary directory
	binary, err := os.ReadFile(d.cfg.GuestBinary)
	if err != nil {
		return fmt.Errorf("read the guest binary: %w", err)
	}
	in := &inputs{guest: binary}
	// The probe needs no root filesystem; any readable file does for the disk.
	spec := driver.TemplateSpec{Kernel: d.cfg.Kernel, Rootfs: d.cfg.Kernel, MemoryMiB: probeMemory, VCPUs: 1, Dir: dir}
	files, err := d.bootFiles(spec, in)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	_, khz := hostCPU()
	args := append(shape{a, cpuModel(a), probeMemory, 1}.arguments("probe", true), bootArguments(a, khz)...)
	args[len(args)-1] += " " + guest.ProbeArgument
	p, err := d.launch(ctx, filepath.Join(dir, "run"), args, files)
	if err != nil {
		return err
	}
	mc := &machine{id: "probe", p: p, log: d.log}
	defer mc.Close() //nolint:errcheck // it has told all that it can
	go mc.watch()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		if strings.Contains(p.console.String(), guest.ProbeWord) {
			return nil
		}
		if strings.Contains(p.stderr.String(), "KVM internal error") {
			return errors.New("KVM internal error: it cannot run this kernel")
		}
		select {
		case <-p.done:
			if strings.Contains(p.console.String(), guest.ProbeWord) {
				return nil
			}
			return fmt.Errorf("QEMU ended: %s", firstLine(p.lastWords()))
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
