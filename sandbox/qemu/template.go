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
	"time"

	"golang.org/x/sys/unix"

	"ambit.dev/ambit/sandbox/driver"
	"ambit.dev/ambit/sandbox/guest"
)

// The files of a template.
const (
	manifestFile = "manifest.json"
	memoryFile   = "memory.img"
	stateFile    = "device.state"
	buildDir     = "build"
)

// bootLimit bounds a cold boot with its first handshake and the warming of the
// guest's page cache. Under the software CPU on a busy machine it is slow.
const bootLimit = 3 * time.Minute

// inputs are a spec's files, read and hashed.
type inputs struct {
	guest    []byte
	modules  []module
	manifest driver.Manifest
}

// prepare reads the spec's files and fills a manifest in as far as it is known
// before the boot.
func (d *Driver) prepare(ctx context.Context, spec driver.TemplateSpec) (*inputs, error) {
	if spec.MemoryMiB < 128 || spec.MemoryMiB > 16384 {
		return nil, fmt.Errorf("a machine has 128 to 16384 MiB of memory, not %d", spec.MemoryMiB)
	}
	if spec.VCPUs < 1 || spec.VCPUs > 16 {
		return nil, fmt.Errorf("a machine has 1 to 16 virtual CPUs, not %d", spec.VCPUs)
	}
	probe, err := d.Probe(ctx)
	if err != nil {
		return nil, err
	}
	in := &inputs{}
	if in.guest, err = os.ReadFile(spec.GuestBinary); err != nil {
		return nil, fmt.Errorf("read the guest binary: %w", err)
	}
	if in.modules, err = findModules(spec.ModulesDir, wantedModules); err != nil {
		return nil, err
	}
	kernel, err := hashFile(spec.Kernel)
	if err != nil {
		return nil, err
	}
	rootfs, err := hashFile(spec.Rootfs)
	if err != nil {
		return nil, err
	}
	rootfsPath, err := filepath.Abs(spec.Rootfs)
	if err != nil {
		return nil, fmt.Errorf("find the root filesystem: %w", err)
	}
	sum := sha256.Sum256(in.guest)
	in.manifest = driver.Manifest{
		Format: driver.ManifestFormat, Driver: Name,
		Accelerator: probe.Accelerator, Version: probe.Version, CPUModel: probe.CPUModel, Machine: probe.Machine,
		MemoryMiB: spec.MemoryMiB, VCPUs: spec.VCPUs,
		KernelSHA256: kernel, ModulesSHA256: modulesHash(in.modules), RootfsSHA256: rootfs,
		GuestSHA256: hex.EncodeToString(sum[:]), RootfsPath: rootfsPath,
	}
	in.manifest.Key = templateKey(in.manifest)
	return in, nil
}

// templateKey hashes everything that makes a memory image unfit elsewhere.
func templateKey(m driver.Manifest) string {
	host, khz := hostCPU()
	h := sha256.New()
	fmt.Fprintln(h, m.Format, m.Driver, m.Accelerator, m.Version, m.CPUModel, m.Machine, m.MemoryMiB, m.VCPUs,
		m.KernelSHA256, m.ModulesSHA256, m.RootfsSHA256, m.GuestSHA256, host, khz)
	// The shape of the command line is part of the machine.
	fmt.Fprintln(h, shape{m.Accelerator, m.CPUModel, m.MemoryMiB, m.VCPUs}.arguments("", false), bootArguments(m.Accelerator, khz))
	return hex.EncodeToString(h.Sum(nil))[:32]
}

// TemplateKey implements driver.Driver.
func (d *Driver) TemplateKey(ctx context.Context, spec driver.TemplateSpec) (string, error) {
	in, err := d.prepare(ctx, spec)
	if err != nil {
		return "", fmt.Errorf("key of a template: %w", err)
	}
	return in.manifest.Key, nil
}

// BuildTemplate implements driver.Driver.
func (d *Driver) BuildTemplate(ctx context.Context, spec driver.TemplateSpec, progress driver.Progress) (*driver.Template, error) {
	if progress == nil {
		progress = func(string, float64) {}
	}
	progress("prepare", 0)
	in, err := d.prepare(ctx, spec)
	if err != nil {
		return nil, fmt.Errorf("build a template: %w", err)
	}
	if err := os.MkdirAll(spec.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("build a template: %w", err)
	}
	// Without its manifest, what is left of an older one is no template.
	if err := os.Remove(filepath.Join(spec.Dir, manifestFile)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("build a template: %w", err)
	}
	if err := d.bootAndSave(ctx, spec, in, progress); err != nil {
		return nil, fmt.Errorf("build a template: %w", err)
	}
	if err := writeManifest(spec.Dir, in.manifest); err != nil {
		return nil, fmt.Errorf("build a template: %w", err)
	}
	progress("load", 0.95)
	t, err := d.OpenTemplate(ctx, spec.Dir)
	if err != nil {
		return nil, fmt.Errorf("build a template: %w", err)
	}
	progress("done", 1)
	return t, nil
}

// bootFiles are what a cold boot inherits, in the order of the fd numbers.
func (d *Driver) bootFiles(spec driver.TemplateSpec, in *inputs) (files []*os.File, err error) {
	defer func() {
		if err != nil {
			for _, f := range files {
				_ = f.Close()
			}
		}
	}()
	memory, err := os.OpenFile(filepath.Join(spec.Dir, memoryFile), os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make the memory image: %w", err)
	}
	files = append(files, memory)
	if err := memory.Truncate(int64(spec.MemoryMiB) << 20); err != nil {
		return files, fmt.Errorf("size the memory image: %w", err)
	}
	// QEMU opens it anew, as who it runs as.
	if os.Geteuid() == 0 {
		if err := memory.Chown(d.cfg.UID, d.cfg.GID); err != nil {
			return files, fmt.Errorf("hand over the memory image: %w", err)
		}
	}
	for _, path := range []string{spec.Rootfs, spec.Kernel} {
		f, err := os.Open(path)
		if err != nil {
			return files, fmt.Errorf("open what the machine boots: %w", err)
		}
		files = append(files, f)
	}
	initrd, err := initramfsFile(in)
	if err != nil {
		return files, err
	}
	return append(files, initrd), nil
}

// initramfsFile builds the initramfs in a memory file.
func initramfsFile(in *inputs) (*os.File, error) {
	fd, err := unix.MemfdCreate("ambit-initramfs", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("make the initramfs: %w", err)
	}
	f := os.NewFile(uintptr(fd), "ambit-initramfs")
	if err := writeInitramfs(f, in.guest, in.modules); err != nil {
		_ = f.Close()
		return nil, err
	}
	return f, nil
}

func (d *Driver) bootAndSave(ctx context.Context, spec driver.TemplateSpec, in *inputs, progress driver.Progress) error {
	files, err := d.bootFiles(spec, in)
	if err != nil {
		return err
	}
	defer func() {
		for _, f := range files {
			_ = f.Close()
		}
	}()
	ctx, cancel := context.WithTimeoutCause(ctx, bootLimit, fmt.Errorf("the machine did not boot within %s", bootLimit))
	defer cancel()
	m := in.manifest
	_, khz := hostCPU()
	sh := shape{m.Accelerator, m.CPUModel, m.MemoryMiB, m.VCPUs}
	args := append(sh.arguments("template", true), bootArguments(m.Accelerator, khz)...)
	progress("boot", 0.05)
	begun := time.Now()
	p, err := d.launch(ctx, filepath.Join(spec.Dir, buildDir), args, files)
	if err != nil {
		return err
	}
	mc := &machine{id: "template", p: p, log: d.log}
	defer mc.Close() //nolint:errcheck // the machine has done its work or is useless
	go mc.watch()
	if err := d.greet(ctx, mc, progress); err != nil {
		return fmt.Errorf("%w; %s", err, p.lastWords())
	}
	in.manifest.BootTook = driver.Duration(time.Since(begun).Round(time.Millisecond))
	progress("save", 0.8)
	if err := d.saveState(ctx, mc, spec.Dir, in); err != nil {
		return err
	}
	in.manifest.MemoryBytes = int64(spec.MemoryMiB) << 20
	in.manifest.CreatedAt = time.Now().UTC()
	if in.manifest.MemorySHA256, err = eachBlock(files[0], in.manifest.MemoryBytes, nil); err != nil {
		return err
	}
	return files[0].Sync()
}

// greet waits for the guest, has it read what commands will need into its page
// cache, and hangs up, so that what is saved is a guest that waits for a host.
func (d *Driver) greet(ctx context.Context, mc *machine, progress driver.Progress) error {
	c, err := mc.Guest(ctx)
	if err != nil {
		return err
	}
	defer c.Close() //nolint:errcheck // the guest's state is what counts
	progress("warm", 0.4)
	info, err := c.Info(ctx)
	if err != nil {
		return err
	}
	if info.Protocol != guest.ProtocolVersion {
		return fmt.Errorf("the guest speaks protocol %d", info.Protocol)
	}
	if err := c.Warm(ctx, guest.WarmAll); err != nil {
		return fmt.Errorf("warm the guest: %w", err)
	}
	return nil
}

// saveState stops the machine and writes the devices' state. The memory is in
// its file already.
func (d *Driver) saveState(ctx context.Context, mc *machine, dir string, in *inputs) error {
	// Let the guest see that its host hung up before time stops for it.
	select {
	case <-time.After(200 * time.Millisecond):
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	mon := mc.p.mon
	if err := mc.Pause(ctx); err != nil {
		return err
	}
	if err := ignoreShared(ctx, mon); err != nil {
		return err
	}
	// The default limit is for live migration over a network.
	if err := mon.execute(ctx, "migrate-set-parameters", map[string]any{"max-bandwidth": int64(8) << 30}, nil); err != nil {
		return err
	}
	path := filepath.Join(dir, stateFile)
	out, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("make the state file: %w", err)
	}
	defer out.Close() //nolint:errcheck // synced below
	if err := mon.executeWith(ctx, "getfd", map[string]string{"fdname": "state"}, nil, out); err != nil {
		return err
	}
	if err := mon.execute(ctx, "migrate", map[string]string{"uri": "fd:state"}, nil); err != nil {
		return err
	}
	status, err := mc.p.waitOr(ctx, "save the machine's state", mc.p.migrated)
	if err != nil {
		return err
	}
	if status != "completed" {
		return fmt.Errorf("save the machine's state: %s: %s", status, mc.p.lastWords())
	}
	if err := out.Sync(); err != nil {
		return fmt.Errorf("save the machine's state: %w", err)
	}
	fi, err := out.Stat()
	if err != nil {
		return fmt.Errorf("save the machine's state: %w", err)
	}
	in.manifest.StateBytes = fi.Size()
	in.manifest.StateSHA256, err = hashFile(path)
	return err
}

func writeManifest(dir string, m driver.Manifest) error {
	b, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the manifest: %w", err)
	}
	tmp := filepath.Join(dir, manifestFile+".new")
	if err := os.WriteFile(tmp, append(b, '\n'), 0o600); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, manifestFile)); err != nil {
		return fmt.Errorf("write the manifest: %w", err)
	}
	return nil
}

// OpenTemplate implements driver.Driver.
func (d *Driver) OpenTemplate(ctx context.Context, dir string) (*driver.Template, error) {
	b, err := os.ReadFile(filepath.Join(dir, manifestFile))
	if err != nil {
		return nil, fmt.Errorf("open template: %w: %w", driver.ErrTemplateDamaged, err)
	}
	var m driver.Manifest
	if err := json.Unmarshal(b, &m); err != nil {
		return nil, fmt.Errorf("open template: %w: manifest: %w", driver.ErrTemplateDamaged, err)
	}
	if err := d.fits(ctx, m); err != nil {
		return nil, fmt.Errorf("open template: %w", err)
	}
	t := &driver.Template{Manifest: m}
	if t.Handles, err = openHandles(dir, m); err != nil {
		_ = t.Close()
		return nil, fmt.Errorf("open template: %w", err)
	}
	return t, nil
}

// fits compares a manifest with this machine.
func (d *Driver) fits(ctx context.Context, m driver.Manifest) error {
	probe, err := d.Probe(ctx)
	if err != nil {
		return err
	}
	switch {
	case m.Format != driver.ManifestFormat, m.Driver != Name, m.Machine != probe.Machine:
		return fmt.Errorf("%w: format %d, driver %q, machine %q", driver.ErrTemplateStale, m.Format, m.Driver, m.Machine)
	case m.Accelerator != probe.Accelerator, m.CPUModel != probe.CPUModel:
		return fmt.Errorf("%w: made with %s (%s), this machine has %s (%s)", driver.ErrTemplateStale, m.Accelerator, m.CPUModel, probe.Accelerator, probe.CPUModel)
	case m.Version != probe.Version:
		return fmt.Errorf("%w: made by QEMU %s, this is %s", driver.ErrTemplateStale, m.Version, probe.Version)
	case m.Key != templateKey(m):
		return fmt.Errorf("%w: made on another processor, or for another command line", driver.ErrTemplateStale)
	}
	return nil
}

func openHandles(dir string, m driver.Manifest) (h driver.Handles, err error) {
	damaged := func(what string, err error) error {
		return fmt.Errorf("%w: %s: %w", driver.ErrTemplateDamaged, what, err)
	}
	if h.State, err = os.Open(filepath.Join(dir, stateFile)); err != nil {
		return h, damaged("state", err)
	}
	sum, err := hashReader(h.State)
	if err != nil {
		return h, damaged("state", err)
	}
	if sum != m.StateSHA256 {
		return h, damaged("state", errors.New("its hash is not the manifest's"))
	}
	if h.Rootfs, err = os.Open(m.RootfsPath); err != nil {
		return h, damaged("root filesystem", err)
	}
	if sum, err = hashReader(h.Rootfs); err != nil {
		return h, damaged("root filesystem", err)
	}
	if sum != m.RootfsSHA256 {
		return h, damaged("root filesystem", errors.New("its hash is not the manifest's"))
	}
	image, err := os.Open(filepath.Join(dir, memoryFile))
	if err != nil {
		return h, damaged("memory", err)
	}
	defer image.Close() //nolint:errcheck // read only
	fi, err := image.Stat()
	if err != nil {
		return h, damaged("memory", err)
	}
	if fi.Size() != m.MemoryBytes {
		return h, damaged("memory", fmt.Errorf("it has %d bytes, not %d", fi.Size(), m.MemoryBytes))
	}
	if h.Memory, sum, err = loadMemory(image, m.MemoryBytes); err != nil {
		return h, err
	}
	if sum != m.MemorySHA256 {
		return h, damaged("memory", errors.New("its hash is not the manifest's"))
	}
	return h, nil
}

func hashFile(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("hash a file: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	return hashReader(f)
}

// hashReader hashes a file without moving its position.
func hashReader(f *os.File) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, io.NewSectionReader(f, 0, 1<<62)); err != nil {
		return "", fmt.Errorf("hash %s: %w", f.Name(), err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
