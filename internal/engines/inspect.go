package engines

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"ambit.dev/ambit/internal/engines/pgcluster"
)

// Status is what Inspect found out about one engine.
type Status struct {
	Name  Name
	Title string
	// Version and Path are empty when it is not there.
	Version string
	Path    string
	// Problem is what is wrong; nil is nothing.
	Problem error
	// Remedy is what mends it.
	Remedy string
}

// Inspect looks at engines closely: their versions by running them, and the
// hashes of what was downloaded or made. It takes seconds, and obtains nothing.
func Inspect(ctx context.Context, opts Options, names ...Name) []Status {
	out := make([]Status, len(names))
	for i, n := range names {
		e := catalogue[n]
		set, missing := Find(ctx, opts, n)
		out[i] = Status{Name: n, Title: e.title}
		if len(missing) > 0 {
			out[i].Problem = errors.New("it is not there")
			out[i].Remedy = "run: ambit engines " + string(n)
			continue
		}
		version, path, err := examine(ctx, n, set)
		out[i].Version, out[i].Path, out[i].Problem = version, path, err
		if err != nil {
			out[i].Remedy = remedy(n, path)
		}
	}
	return out
}

func remedy(n Name, path string) string {
	if len(catalogue[n].packages) > 0 && catalogue[n].obtain == nil {
		return "run: " + installLine(append([]string{"--reinstall"}, catalogue[n].packages...))
	}
	return fmt.Sprintf("run: rm -r %s && ambit engines %s", filepath.Dir(path), n)
}

func examine(ctx context.Context, n Name, s *Set) (version, path string, err error) {
	switch n {
	case Postgres:
		version, err = firstWords(ctx, filepath.Join(s.PostgresBinDir, "postgres"), "--version")
		return version, s.PostgresBinDir, err
	case QEMU:
		version, err = firstWords(ctx, s.QEMU, "--version")
		return version, s.QEMU, err
	case Nomad:
		version, err = firstWords(ctx, s.Nomad, "version")
		return version, s.Nomad, err
	case Node:
		version, err = firstWords(ctx, s.Node, "--version")
		return version, s.Node, err
	case Curl:
		version, err = firstWords(ctx, s.Curl, "--version")
		return version, s.Curl, err
	case Chromium:
		version, err = firstWords(ctx, s.Chromium, "--version")
		return version, s.Chromium, err
	case Compiler:
		version, err = firstWords(ctx, s.Compiler, "--version")
		return version, s.Compiler, err
	case ClickHouse:
		return "libchdb " + chdbVersion, s.LibChdb, checkSum(s.LibChdb, libchdbSHA256)
	case Kernel:
		return s.KernelVersion, s.Vmlinux, checkKernel(s.Vmlinux)
	case Rootfs:
		want, err := os.ReadFile(filepath.Join(filepath.Dir(s.RootfsErofs), "sha256"))
		if err != nil {
			return rootfsSuite, s.RootfsErofs, err
		}
		return rootfsSuite + " " + rootfsRecipe(), s.RootfsErofs, checkSum(s.RootfsErofs, strings.TrimSpace(string(want)))
	case AIMock:
		return aimockVersion, s.AIMockDir, nil
	case AxeCore:
		return axeVersion, s.AxeJS, nil
	default:
		return "", "", fmt.Errorf("there is no engine %q", n)
	}
}

func checkKernel(vmlinux string) error {
	b, err := os.ReadFile(filepath.Join(filepath.Dir(vmlinux), "source.json"))
	if err != nil {
		return err
	}
	var src kernelSource
	if err := json.Unmarshal(b, &src); err != nil {
		return fmt.Errorf("reading what the kernel was made from: %w", err)
	}
	return checkSum(vmlinux, src.Vmlinux)
}

func checkSum(path, want string) error {
	got, err := fileSHA256(path)
	if err != nil {
		return err
	}
	if got != want {
		return fmt.Errorf("%w: %s has sha256 %s, it should be %s", errWrongHash, path, got, want)
	}
	return nil
}

// firstWords is the first line that a program prints about itself.
func firstWords(ctx context.Context, path string, arg string) (string, error) {
	out, err := exec.CommandContext(ctx, path, arg).Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w", path, arg, err)
	}
	return strings.TrimSpace(firstLine(string(out))), nil
}

// CheckPostgresReach says whether the account that Postgres runs as can enter a
// folder, which must exist.
func CheckPostgresReach(ctx context.Context, dir string) error { return pgcluster.CheckReach(ctx, dir) }
