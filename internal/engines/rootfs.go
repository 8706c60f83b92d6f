package engines

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// The recipe of the sandboxes' root filesystem. A change of it makes a new
// image: its folder in the cache is named by the recipe's hash.
const rootfsSuite = "bookworm"

var rootfsPackages = []string{
	"bash", "ca-certificates", "coreutils", "curl", "git", "jq", "less", "procps", "python3", "unzip", "xz-utils",
}

// rootfsArgs are mmdebstrap's. No documentation goes in (licences do); an
// account for the agent does.
func rootfsArgs() []string {
	return []string{
		"--variant=essential",
		"--include=" + strings.Join(rootfsPackages, ","),
		"--aptopt=Acquire::Languages \"none\"",
		"--aptopt=Acquire::Retries \"3\"",
		"--dpkgopt=force-unsafe-io",
		"--dpkgopt=path-exclude=/usr/share/man/*",
		"--dpkgopt=path-exclude=/usr/share/info/*",
		"--dpkgopt=path-exclude=/usr/share/locale/*",
		"--dpkgopt=path-exclude=/usr/share/doc/*",
		"--dpkgopt=path-include=/usr/share/doc/*/copyright",
		`--customize-hook=echo agent:x:1000:1000:agent:/home/agent:/bin/bash >> "$1/etc/passwd"`,
		`--customize-hook=echo agent:x:1000: >> "$1/etc/group"`,
		`--customize-hook=mkdir -p "$1/home/agent" && chown 1000:1000 "$1/home/agent"`,
		`--customize-hook=echo sandbox > "$1/etc/hostname"`,
		`--customize-hook=printf '127.0.0.1 localhost sandbox\n::1 localhost\n' > "$1/etc/hosts"`,
		`--customize-hook=rm -rf "$1"/var/log/* "$1"/var/cache/apt/* "$1"/var/cache/debconf/*-old`,
	}
}

// erofsArgs: not compressed, because unpacking costs an emulated processor more
// than reading; no -T, because one time for all files makes Python's compiled
// files invalid.
func erofsArgs() []string { return []string{"-x", "1"} }

func rootfsRecipe() string {
	sum := sha256.Sum256([]byte(rootfsSuite + "\n" + strings.Join(rootfsArgs(), "\n") + "\n" + strings.Join(erofsArgs(), "\n")))
	return hex.EncodeToString(sum[:6])
}

func (o *obtaining) rootfsDir() string {
	return filepath.Join(o.cache, "rootfs", rootfsSuite+"-"+rootfsRecipe())
}

func (o *obtaining) findRootfs(s *Set) bool {
	return inCache(&s.RootfsErofs, filepath.Join(o.rootfsDir(), "rootfs.erofs"))
}

func obtainRootfs(ctx context.Context, o *obtaining, t *task) (err error) {
	if os.Geteuid() != 0 {
		return errors.New("making the sandboxes' root filesystem needs root's rights once: run as root, or set AMBIT_ROOTFS to an image made elsewhere")
	}
	dir := o.rootfsDir()
	making, err := os.MkdirTemp(mustParent(dir), ".making-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(making)) }()
	tree, image := filepath.Join(making, "tree"), filepath.Join(making, "image")
	if err := errors.Join(os.Mkdir(image, 0o755), os.Chmod(making, 0o755)); err != nil { //nolint:gosec // sandboxes' accounts read it
		return err
	}
	if err := bootstrap(ctx, t, tree); err != nil {
		return err
	}

	t.say("packing the image")
	file := filepath.Join(image, "rootfs.erofs")
	if out, err := exec.CommandContext(ctx, "mkfs.erofs", append(erofsArgs(), file, tree)...).CombinedOutput(); err != nil {
		return fmt.Errorf("mkfs.erofs: %w\n%s", err, lastLines(string(out), 10))
	}
	installed, err := os.ReadFile(filepath.Join(tree, "var/lib/dpkg/status"))
	if err != nil {
		return err
	}
	sum, err := fileSHA256(file)
	if err != nil {
		return err
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(image, "packages.txt"), []byte(packageVersions(string(installed))), 0o644), //nolint:gosec // public file
		os.WriteFile(filepath.Join(image, "sha256"), []byte(sum+"\n"), 0o644),                                 //nolint:gosec // public file
	); err != nil {
		return err
	}
	return os.Rename(image, dir)
}

// bootstrap fills tree with the packages, from this machine's own package
// sources when it is the same Debian, and shows mmdebstrap's steps.
func bootstrap(ctx context.Context, t *task, tree string) error {
	args := append([]string{"--mode=root", "--format=directory"}, rootfsArgs()...)
	args = append(args, rootfsSuite, tree)
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Args = append(cmd.Args, hostSources()...)
	cmd.Env = aptEnv()
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	const steps = 10 // as many lines begin with "I:"
	var last strings.Builder
	done := int64(0)
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		line := lines.Text()
		last.WriteString(line + "\n")
		if step, ok := strings.CutPrefix(line, "I: "); ok {
			done++
			t.count(strings.TrimRight(step, ". ")+", step", stepsCount, min(done, steps), steps)
		}
	}
	_, _ = io.Copy(io.Discard, stderr)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("mmdebstrap: %w\n%s", err, lastLines(last.String(), 15))
	}
	return nil
}

// hostSources are the files of this machine's Debian sources, so that a mirror
// that its owner chose serves the sandboxes too; none when it is another system.
func hostSources() []string {
	release, err := os.ReadFile("/etc/os-release")
	if err != nil || !strings.Contains(string(release), "VERSION_CODENAME="+rootfsSuite) {
		return nil
	}
	var files []string
	for _, file := range []string{"/etc/apt/sources.list", "/etc/apt/sources.list.d/debian.sources"} {
		if b, err := os.ReadFile(file); err == nil && strings.Contains(string(b), rootfsSuite) {
			files = append(files, file)
		}
	}
	return files
}

// packageVersions lists what dpkg's status file says is installed.
func packageVersions(status string) string {
	var out strings.Builder
	var name string
	for line := range strings.Lines(status) {
		field, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
		switch field {
		case "Package":
			name = value
		case "Version":
			fmt.Fprintf(&out, "%s %s\n", name, value)
		}
	}
	return out.String()
}

func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
