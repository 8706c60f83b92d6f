package boot

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ambit.dev/ambit/sandbox/guest"
)

const workFlags = unix.MS_NOSUID | unix.MS_NODEV

// mountEarly mounts what module loading and device discovery need.
func mountEarly() error {
	for _, m := range []struct{ fs, dir string }{{"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := mount(m.fs, m.dir, m.fs, unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return err
		}
	}
	return nil
}

func mount(source, dir, fstype string, flags uintptr, data string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make %s: %w", dir, err)
	}
	if err := unix.Mount(source, dir, fstype, flags, data); err != nil {
		return fmt.Errorf("mount %s on %s: %w", fstype, dir, err)
	}
	return nil
}

// switchRoot puts the read-only root filesystem under an overlay in memory,
// makes it the root, and mounts the rest inside. Sizes are parts of the memory,
// which file systems in memory take as they fill. What commands can fill stays
// well under their memory limit: otherwise a full disk would leave them no room
// to run in, and they would crawl instead of being refused.
func switchRoot(mem int64) error {
	const lower, upper, root = "/lower", "/upper", "/newroot"
	if err := awaitDevice("/dev/vda", 5*time.Second); err != nil {
		return err
	}
	if err := mount("/dev/vda", lower, "erofs", unix.MS_RDONLY|unix.MS_NODEV, ""); err != nil {
		return err
	}
	if err := mount("tmpfs", upper, "tmpfs", unix.MS_NODEV, size(mem, 5)+",mode=0755"); err != nil {
		return err
	}
	for _, d := range []string{upper + "/data", upper + "/work"} {
		if err := os.Mkdir(d, 0o755); err != nil {
			return fmt.Errorf("make the overlay: %w", err)
		}
	}
	// nosuid over the whole root: nothing a command finds there raises it.
	if err := mount("overlay", root, "overlay", unix.MS_NODEV|unix.MS_NOSUID,
		"lowerdir="+lower+",upperdir="+upper+"/data,workdir="+upper+"/work"); err != nil {
		return err
	}
	for _, dir := range []string{"/dev", "/proc", "/sys"} {
		if err := os.MkdirAll(root+dir, 0o755); err != nil {
			return fmt.Errorf("make %s: %w", dir, err)
		}
		if err := unix.Mount(dir, root+dir, "", unix.MS_MOVE, ""); err != nil {
			return fmt.Errorf("move %s: %w", dir, err)
		}
	}
	emptyInitramfs(map[string]bool{"lower": true, "upper": true, "newroot": true})
	if err := os.Chdir(root); err != nil {
		return fmt.Errorf("enter the new root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return fmt.Errorf("move the new root: %w", err)
	}
	if err := unix.Chroot("."); err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return fmt.Errorf("enter the root: %w", err)
	}
	closed := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	owner := ",uid=" + strconv.Itoa(commandUID) + ",gid=" + strconv.Itoa(commandUID)
	for _, m := range []struct {
		source, dir, fstype string
		flags               uintptr
		data                string
	}{
		{"devpts", "/dev/pts", "devpts", unix.MS_NOSUID | unix.MS_NOEXEC, "mode=620,ptmxmode=666"},
		{"tmpfs", "/dev/shm", "tmpfs", closed, size(mem, 5) + ",mode=1777"},
		{"tmpfs", "/run", "tmpfs", closed, size(mem, 20) + ",mode=0755"},
		{"tmpfs", "/tmp", "tmpfs", closed, size(mem, 10) + ",mode=1777"},
		{"tmpfs", guest.WorkDir, "tmpfs", workFlags, size(mem, 40) + ",mode=0755" + owner},
		{"cgroup2", cgroupTop, "cgroup2", closed, ""},
	} {
		if err := mount(m.source, m.dir, m.fstype, m.flags, m.data); err != nil {
			return err
		}
	}
	if err := unix.Mount("/tmp", "/var/tmp", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("join /var/tmp to /tmp: %w", err)
	}
	// Other processes' entries, PID 1's above all, are nobody's business.
	if err := unix.Mount("", "/proc", "", unix.MS_REMOUNT|closed, "hidepid=2"); err != nil {
		return fmt.Errorf("hide processes: %w", err)
	}
	return nil
}

func size(mem, percent int64) string {
	return "size=" + strconv.FormatInt(mem*percent/100, 10)
}

// emptyInitramfs gives the memory of the first root back. Only its own files:
// never across a mount.
func emptyInitramfs(keep map[string]bool) {
	entries, err := os.ReadDir("/")
	if err != nil {
		return
	}
	for _, e := range entries {
		if !keep[e.Name()] && e.Name() != "dev" && e.Name() != "proc" && e.Name() != "sys" {
			_ = os.RemoveAll("/" + e.Name())
		}
	}
}

func awaitDevice(path string, limit time.Duration) error {
	for end := time.Now().Add(limit); ; {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		if time.Now().After(end) {
			return fmt.Errorf("device %s did not appear within %s", path, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// memoryTotal is the machine's memory in bytes.
func memoryTotal() (int64, error) {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0, fmt.Errorf("read the size of memory: %w", err)
	}
	for line := range bytes.Lines(b) {
		if rest, ok := bytes.CutPrefix(line, []byte("MemTotal:")); ok {
			n, err := strconv.ParseInt(strings.Fields(string(rest))[0], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("read the size of memory: %w", err)
			}
			return n << 10, nil
		}
	}
	return 0, fmt.Errorf("read the size of memory: %s has no MemTotal", filepath.Join("/proc", "meminfo"))
}
