package engines

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// aptEnv keeps apt from asking questions and from translating its answers.
func aptEnv() []string {
	return append(os.Environ(), "DEBIAN_FRONTEND=noninteractive", "LC_ALL=C.UTF-8", "UCF_FORCE_CONFFOLD=1")
}

// installLine is what somebody with root's rights pastes.
func installLine(packages []string) string {
	return "sudo apt-get update && sudo apt-get install -y --no-install-recommends " + strings.Join(packages, " ")
}

// uninstalled returns those of the packages that dpkg does not have, sorted.
func uninstalled(ctx context.Context, packages []string) []string {
	packages = slices.Compact(slices.Sorted(slices.Values(packages)))
	return slices.DeleteFunc(packages, func(p string) bool {
		out, err := exec.CommandContext(ctx, "dpkg-query", "-W", "-f", "${Status}", p).Output()
		return err == nil && strings.HasSuffix(string(out), "ok installed")
	})
}

// installPackages installs Debian packages; apt verifies them by its signed
// index. It needs root's rights.
func (o *obtaining) installPackages(ctx context.Context, packages []string) (err error) {
	if len(packages) == 0 {
		return nil
	}
	t := o.board.begin("Debian packages")
	defer func() { t.end(err, strings.Join(packages, " ")) }()

	if slices.Contains(packages, "postgresql") {
		restore, err := preventDefaultCluster()
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, restore()) }()
	}
	updated := false
	if !listsKnow(ctx, packages) {
		if err := updateLists(ctx, t); err != nil {
			return err
		}
		updated = true
	}
	install := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
	err = aptGet(ctx, t, install...)
	if err != nil && !updated && ctx.Err() == nil {
		// Old lists name files that the mirror has replaced since.
		if err := updateLists(ctx, t); err != nil {
			return err
		}
		err = aptGet(ctx, t, install...)
	}
	return err
}

func updateLists(ctx context.Context, t *task) error {
	t.say("reading package lists")
	return aptGet(ctx, t, "update")
}

func listsKnow(ctx context.Context, packages []string) bool {
	out, err := exec.CommandContext(ctx, "apt-cache", append([]string{"show", "--no-all-versions"}, packages...)...).Output()
	return err == nil && bytes.Count(out, []byte("Package: ")) >= len(packages)
}

// aptGet runs apt-get and shows the percentage that it reports.
func aptGet(ctx context.Context, t *task, args ...string) error {
	status, w, err := os.Pipe()
	if err != nil {
		return err
	}
	args = append([]string{"-q", "-o", "APT::Status-Fd=3", "-o", "Dpkg::Use-Pty=0", "-o", "DPkg::Lock::Timeout=300", "-o", "Acquire::Retries=3"}, args...)
	cmd := exec.CommandContext(ctx, "apt-get", args...)
	cmd.Env = aptEnv()
	cmd.ExtraFiles = []*os.File{w} // its file descriptor 3
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		return errors.Join(err, status.Close(), w.Close())
	}
	_ = w.Close() // the child has its own
	read := make(chan struct{})
	go func() {
		defer close(read)
		for lines := bufio.NewScanner(status); lines.Scan(); {
			if what, done, ok := aptStatus(lines.Text()); ok {
				t.count(what, percentCount, done, 100)
			}
		}
	}()
	err = cmd.Wait()
	<-read
	_ = status.Close()
	if err != nil {
		return fmt.Errorf("apt-get %s: %w\n%s", strings.Join(args[10:], " "), err, lastLines(out.String(), 15))
	}
	return nil
}

// aptStatus reads a line such as "dlstatus:3:41.5:Retrieving file 3 of 20".
func aptStatus(line string) (what string, percent int64, ok bool) {
	parts := strings.SplitN(line, ":", 4)
	if len(parts) < 4 {
		return "", 0, false
	}
	p, err := strconv.ParseFloat(parts[2], 64)
	if err != nil {
		return "", 0, false
	}
	switch parts[0] {
	case "dlstatus":
		return "downloading", int64(p), true
	case "pmstatus":
		return "installing " + parts[1], int64(p), true
	default:
		return "", 0, false
	}
}

// Debian's Postgres package makes and starts a cluster of its own unless this
// file says otherwise.
const (
	createCluster      = "/etc/postgresql-common/createcluster.conf"
	createClusterStock = "/usr/share/postgresql-common/createcluster.conf"
)

// preventDefaultCluster keeps the package from making its "main" cluster, which
// nobody asked for, and returns what puts the file back as it was. Clusters that
// are there already are not touched.
func preventDefaultCluster() (restore func() error, err error) {
	before, err := os.ReadFile(createCluster)
	existed := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(createCluster), 0o755); err != nil { //nolint:gosec // as Debian has it
		return nil, err
	}
	now := append(slices.Clone(before), "\ncreate_main_cluster = false\n"...)
	if err := os.WriteFile(createCluster, now, 0o644); err != nil { //nolint:gosec // as Debian has it
		return nil, fmt.Errorf("keeping Debian's Postgres package from making a cluster: %w", err)
	}
	return func() error {
		if existed {
			return os.WriteFile(createCluster, before, 0o644) //nolint:gosec // as it was
		}
		stock, err := os.ReadFile(createClusterStock)
		if errors.Is(err, fs.ErrNotExist) {
			return os.Remove(createCluster)
		}
		if err != nil {
			return err
		}
		return os.WriteFile(createCluster, stock, 0o644) //nolint:gosec // as Debian has it
	}, nil
}

func lastLines(s string, n int) string {
	lines := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}
