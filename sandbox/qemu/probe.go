package qemu

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"ambit.dev/ambit/sandbox/driver"
	"ambit.dev/ambit/sandbox/guest"
)

// How long a boot may take before an accelerator counts as not working. Real
// hardware virtualisation is up in well under a second; where KVM only pretends
// (its calls succeed, and an emulator runs the guest) it hangs or fails.
const (
	kvmProbeLimit = 8 * time.Second
	tcgProbeLimit = 60 * time.Second
	probeMemory   = 192
)

// Probe implements driver.Driver. It boots the kernel with the guest agent as
// its first process, which only has to say a word on the console: first with
// KVM, for at most 8 s, and when that fails with the software CPU, for at most
// 60 s.
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
	if r, ok := d.cachedProbe(version); ok {
		d.probed = &r
		return r, nil
	}
	r, err := d.probe(ctx, version)
	if err != nil {
		return driver.ProbeResult{}, err
	}
	d.log.Info("sandbox engine probed", "accelerator", r.Accelerator, "version", r.Version, "took", r.Took, "detail", r.Detail)
	d.rememberProbe(r)
	d.probed = &r
	return r, nil
}

func (d *Driver) probe(ctx context.Context, version string) (driver.ProbeResult, error) {
	if d.cfg.Kernel == "" || d.cfg.GuestBinary == "" {
		return driver.ProbeResult{}, errors.New("probe QEMU: no kernel and guest were configured to boot")
	}
	begun := time.Now()
	var notes []string
	for _, try := range []struct {
		accelerator driver.Accelerator
		limit       time.Duration
	}{{driver.AcceleratorKVM, kvmProbeLimit}, {driver.AcceleratorTCG, tcgProbeLimit}} {
		a := try.accelerator
		if d.cfg.Accelerator != "" && d.cfg.Accelerator != a {
			notes = append(notes, string(a)+" was not tried, as configured")
			continue
		}
		at := time.Now()
		if err := d.tryBoot(ctx, a, try.limit); err != nil {
			if ctx.Err() != nil {
				return driver.ProbeResult{}, fmt.Errorf("probe QEMU: %w", context.Cause(ctx))
			}
			notes = append(notes, fmt.Sprintf("%s cannot boot here: %v", a, err))
			continue
		}
		notes = append(notes, fmt.Sprintf("%s booted a kernel in %s", a, time.Since(at).Round(10*time.Millisecond)))
		return driver.ProbeResult{
			Accelerator: a, Version: version, CPUModel: cpuModel(a), Machine: machineType,
			Took: time.Since(begun).Round(time.Millisecond), Detail: strings.Join(notes, "; "),
		}, nil
	}
	return driver.ProbeResult{}, fmt.Errorf("%w: %s", driver.ErrUnavailable, strings.Join(notes, "; "))
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

// probeRecord is what the cache file holds.
type probeRecord struct {
	Key    string             `json:"key"`
	Result driver.ProbeResult `json:"result"`
}

// probeKey names the circumstances in which a result is true.
func (d *Driver) probeKey(version string) string {
	host, khz := hostCPU()
	bootID, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	h := sha256.New()
	fmt.Fprintln(h, d.binary, version, host, khz, strings.TrimSpace(string(bootID)), d.cfg.Accelerator, driver.ManifestFormat, tcgCPU, machineType)
	for _, path := range []string{d.binary, d.cfg.Kernel, d.cfg.GuestBinary, "/dev/kvm"} {
		if fi, err := os.Stat(path); err == nil {
			fmt.Fprintln(h, path, fi.Size(), fi.Mode())
			if fi.Mode().IsRegular() {
				fmt.Fprintln(h, fi.ModTime().UnixNano())
			}
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

func (d *Driver) cachedProbe(version string) (driver.ProbeResult, bool) {
	if d.cfg.ProbeCache == "" {
		return driver.ProbeResult{}, false
	}
	f, err := os.Open(d.cfg.ProbeCache)
	if err != nil {
		return driver.ProbeResult{}, false
	}
	defer f.Close() //nolint:errcheck // read only
	var rec probeRecord
	if json.NewDecoder(io.LimitReader(f, 1<<20)).Decode(&rec) != nil || rec.Key != d.probeKey(version) {
		return driver.ProbeResult{}, false
	}
	return rec.Result, true
}

// rememberProbe writes the cache; without it the next process probes again.
func (d *Driver) rememberProbe(r driver.ProbeResult) {
	if d.cfg.ProbeCache == "" {
		return
	}
	b, err := json.Marshal(probeRecord{d.probeKey(r.Version), r})
	if err == nil {
		if err = os.MkdirAll(filepath.Dir(d.cfg.ProbeCache), 0o700); err == nil {
			err = os.WriteFile(d.cfg.ProbeCache, b, 0o600)
		}
	}
	if err != nil {
		d.log.Warn("the probe's result was not kept", "error", err)
	}
}
