package engines

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"time"
)

// kernelPackage is Debian's kernel for virtual machines. It names the package of
// one version, which is what is fetched.
const kernelPackage = "linux-image-cloud-amd64"

// moduleFolders are the modules that a sandbox can need, by their place below
// lib/modules/VERSION/kernel: everything virtio, the root filesystem's and the
// overlay's drivers, and the libraries under them.
var moduleFolders = []string{
	"drivers/virtio/", "drivers/block/virtio_blk", "drivers/char/virtio_console", "drivers/char/hw_random/",
	"drivers/net/virtio_net", "drivers/net/net_failover", "drivers/net/tun", "net/core/failover", "net/vmw_vsock/",
	"fs/erofs/", "fs/overlayfs/", "fs/fuse/", "fs/squashfs/", "lib/", "crypto/", "arch/x86/crypto/",
}

// kernelSource is kept beside the kernel: what it was made from.
type kernelSource struct {
	Package  string    `json:"package"`
	Version  string    `json:"version"`
	SHA256   string    `json:"sha256"` // of the .deb, by apt's signed index
	Vmlinux  string    `json:"vmlinux_sha256"`
	Obtained time.Time `json:"obtained_at"`
}

// findKernel takes the newest kernel in the cache.
func (o *obtaining) findKernel(s *Set) bool {
	found, err := filepath.Glob(filepath.Join(o.cache, "kernel", "*", "vmlinux"))
	if err != nil || len(found) == 0 {
		return false
	}
	sort.Slice(found, func(i, j int) bool { return newer(filepath.Dir(found[j]), filepath.Dir(found[i])) })
	dir := filepath.Dir(found[len(found)-1])
	s.KernelVersion, s.Vmlinux, s.KernelModules = filepath.Base(dir), filepath.Join(dir, "vmlinux"), filepath.Join(dir, "modules")
	return true
}

// newer compares by when they were obtained; names would sort 6.1.0-9 after 6.1.0-56.
func newer(a, b string) bool {
	sa, errA := os.Stat(a)
	sb, errB := os.Stat(b)
	return errA == nil && errB == nil && sa.ModTime().After(sb.ModTime())
}

func obtainKernel(ctx context.Context, o *obtaining, t *task) error {
	t.say("looking up the newest version")
	pkg, err := resolveKernel(ctx)
	if err != nil && os.Geteuid() == 0 && ctx.Err() == nil {
		if err := updateLists(ctx, t); err != nil {
			return err
		}
		pkg, err = resolveKernel(ctx)
	}
	if err != nil {
		return err
	}
	version := strings.TrimPrefix(pkg.Package, "linux-image-")
	dir := filepath.Join(o.cache, "kernel", version)

	making, err := os.MkdirTemp(mustParent(dir), ".making-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(making)
	deb, err := fetchDeb(ctx, t, pkg, making)
	if err != nil {
		return err
	}
	t.say("unpacking %s", pkg.Package)
	image, err := unpackKernel(ctx, deb, version, filepath.Join(making, "modules"))
	if err != nil {
		return fmt.Errorf("unpacking %s: %w", pkg.Package, err)
	}
	vmlinux, err := extractVmlinux(image)
	if err != nil {
		return fmt.Errorf("extracting the kernel of %s: %w", pkg.Package, err)
	}
	sum := sha256.Sum256(vmlinux)
	pkg.Vmlinux, pkg.Obtained = hex.EncodeToString(sum[:]), time.Now().UTC()
	about, err := json.MarshalIndent(pkg, "", "  ")
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(making, "vmlinux"), vmlinux, 0o644),   //nolint:gosec // public file
		os.WriteFile(filepath.Join(making, "source.json"), about, 0o644), //nolint:gosec // public file
		os.Remove(deb),
		os.Chmod(making, 0o755), //nolint:gosec // sandboxes' accounts read it
	); err != nil {
		return err
	}
	return os.Rename(making, dir)
}

// resolveKernel asks apt which versioned package the kernel's name stands for.
func resolveKernel(ctx context.Context) (kernelSource, error) {
	out, err := exec.CommandContext(ctx, "apt-cache", "depends", "--important", kernelPackage).Output()
	if err != nil {
		return kernelSource{}, fmt.Errorf("apt knows no %s (its lists may be missing: run apt-get update as root)", kernelPackage)
	}
	var src kernelSource
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "Depends: "); ok && strings.HasPrefix(name, "linux-image-") {
			src.Package = name
			break
		}
	}
	if src.Package == "" {
		return kernelSource{}, fmt.Errorf("apt's %s depends on no kernel", kernelPackage)
	}
	out, err = exec.CommandContext(ctx, "apt-cache", "show", "--no-all-versions", src.Package).Output()
	if err != nil {
		return kernelSource{}, fmt.Errorf("asking apt about %s: %w", src.Package, err)
	}
	for line := range strings.Lines(string(out)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch name {
		case "Version":
			src.Version = value
		case "SHA256":
			src.SHA256 = value
		}
	}
	if src.Version == "" || len(src.SHA256) != 64 {
		return kernelSource{}, fmt.Errorf("apt gives no version and hash for %s", src.Package)
	}
	return src, nil
}

// fetchDeb has apt download the package into dir, and checks the hash of the
// signed index once more.
func fetchDeb(ctx context.Context, t *task, pkg kernelSource, dir string) (string, error) {
	t.count("downloading "+pkg.Package, percentCount, 0, 100)
	cmd := exec.CommandContext(ctx, "apt-get", "-q", "-o", "Acquire::Retries=3", "-o", "APT::Sandbox::User=root", "download", pkg.Package+"="+pkg.Version)
	cmd.Dir, cmd.Env = dir, aptEnv()
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("apt-get download %s: %w\n%s", pkg.Package, err, lastLines(string(out), 10))
	}
	debs, err := filepath.Glob(filepath.Join(dir, "*.deb"))
	if err != nil || len(debs) != 1 {
		return "", fmt.Errorf("apt-get download left %d packages: %w", len(debs), err)
	}
	b, err := os.ReadFile(debs[0])
	if err != nil {
		return "", err
	}
	if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != pkg.SHA256 {
		return "", fmt.Errorf("%w: %s is not what apt's index says", errWrongHash, filepath.Base(debs[0]))
	}
	return debs[0], nil
}

// unpackKernel returns the compressed kernel of the package and writes the
// modules that sandboxes can need below modules.
func unpackKernel(ctx context.Context, deb, version, modules string) ([]byte, error) {
	// dpkg-deb is there wherever apt is, and knows each format of packages.
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", deb)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	image, readErr := readKernelTar(stdout, version, modules)
	if readErr != nil {
		_ = cmd.Process.Kill()
	}
	if err := cmd.Wait(); err != nil && readErr == nil {
		return nil, fmt.Errorf("dpkg-deb: %w: %s", err, stderr.String())
	}
	return image, readErr
}

func readKernelTar(r io.Reader, version, modules string) ([]byte, error) {
	var image []byte
	root := "lib/modules/" + version + "/kernel/"
	for tr := tar.NewReader(r); ; {
		h, err := tr.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(h.Name, "./"), "usr/")
		switch {
		case h.Typeflag != tar.TypeReg:
		case name == "boot/vmlinuz-"+version:
			if image, err = io.ReadAll(tr); err != nil {
				return nil, err
			}
		case strings.HasPrefix(name, root) && wantedModule(strings.TrimPrefix(name, root)):
			if err := writeChecked(filepath.Join(modules, strings.TrimPrefix(name, root)), tr, 0o644, ""); err != nil {
				return nil, err
			}
		}
	}
	if image == nil {
		return nil, errors.New("the package holds no boot/vmlinuz")
	}
	return image, nil
}

func wantedModule(path string) bool {
	return filepath.IsLocal(path) && strings.HasSuffix(path, ".ko") && hasAnyPrefix(path, moduleFolders)
}

func hasAnyPrefix(s string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
