package qemu

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// enterJail gives the calling thread, and the QEMU process that it will start, a
// root directory with nothing in it but programs and libraries (read-only), a
// view of its own processes, and /dev/kvm: no configuration, no keys, no homes,
// no other machine's files. Everything that QEMU needs from the host comes as an
// open file. The thread must be locked and must never be reused.
//
// runDir serves as the place where the new root is mounted, seen by this thread
// alone; the machine's files in it stay as they are for everybody else.
func enterJail(runDir string) error {
	runDir, err := filepath.EvalSymlinks(runDir)
	if err != nil {
		return fmt.Errorf("find the jail: %w", err)
	}
	if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
		if errors.Is(err, unix.EPERM) {
			return errNoNamespaces
		}
		return fmt.Errorf("leave the host's mounts: %w", err)
	}
	// In a chroot "/" is no mount of its own, and says so with EINVAL; whether
	// what is mounted now would show elsewhere is looked at below.
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil && !errors.Is(err, unix.EINVAL) {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("tmpfs", runDir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "size=256k,mode=0755"); err != nil {
		return fmt.Errorf("mount the jail: %w", err)
	}
	if err := notShared(runDir); err != nil {
		_ = unix.Unmount(runDir, unix.MNT_DETACH)
		return err
	}
	for _, dir := range []string{"/usr", "/lib", "/lib64", "/lib32", "/bin"} {
		if err := jailPrograms(runDir, dir); err != nil {
			return err
		}
	}
	// etc/ld.so.cache is where the loader finds libraries quickly.
	for _, f := range []string{"/etc/ld.so.cache", "/dev/null", "/dev/urandom", "/dev/kvm"} {
		if err := jailFile(runDir, f); err != nil {
			return err
		}
	}
	// A view of processes that shows nobody else's: /proc/self/fd is how QEMU
	// reaches the files that it inherited.
	proc := filepath.Join(runDir, "proc")
	if err := os.Mkdir(proc, 0o755); err != nil {
		return fmt.Errorf("make the jail: %w", err)
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if err := unix.Mount("proc", proc, "proc", flags, "hidepid=invisible,subset=pid"); err != nil {
		return fmt.Errorf("mount the jail's processes: %w", err)
	}
	if err := changeRoot(runDir); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_BIND|unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "")
}

// errNoNamespaces means that this root may not make namespaces, as in many
// containers.
var errNoNamespaces = errors.New("this machine does not let root make namespaces")

// changeRoot makes dir the root and lets go of the old one. Where the old root
// is a chroot there is nothing to pivot on; then the old root stays, out of
// reach of a process that has neither privileges nor a directory open.
func changeRoot(dir string) error {
	old := filepath.Join(dir, "old")
	if err := os.Mkdir(old, 0o700); err != nil {
		return fmt.Errorf("make the jail: %w", err)
	}
	err := unix.PivotRoot(dir, old)
	if errors.Is(err, unix.EINVAL) {
		if err := unix.Rmdir(old); err != nil {
			return fmt.Errorf("make the jail: %w", err)
		}
		if err := unix.Chroot(dir); err != nil {
			return fmt.Errorf("enter the jail: %w", err)
		}
		return unix.Chdir("/")
	}
	if err != nil {
		return fmt.Errorf("enter the jail: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return fmt.Errorf("enter the jail: %w", err)
	}
	if err := unix.Unmount("/old", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("let go of the host's files: %w", err)
	}
	if err := unix.Rmdir("/old"); err != nil {
		return fmt.Errorf("let go of the host's files: %w", err)
	}
	return nil
}

// notShared makes sure that a mount shows in this thread's namespace only.
func notShared(dir string) error {
	b, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		return fmt.Errorf("read this thread's mounts: %w", err)
	}
	for line := range strings.Lines(string(b)) {
		// id, parent, device, root, mount point, options, optional fields…, -
		f := strings.Fields(line)
		if len(f) < 7 || f[4] != dir {
			continue
		}
		for _, field := range f[6:] {
			if field == "-" {
				break
			}
			if strings.HasPrefix(field, "shared:") {
				return fmt.Errorf("the mounts of this chroot are shared with other namespaces: make them private (mount --make-rprivate) before starting sandboxes in it")
			}
		}
	}
	return nil
}

// jailPrograms shows a directory of programs read-only, or repeats the link that
// stands in its place.
func jailPrograms(root, dir string) error {
	target, err := os.Readlink(dir)
	if err == nil {
		return os.Symlink(target, root+dir)
	}
	fi, err := os.Stat(dir)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil || !fi.IsDir() {
		return fmt.Errorf("look at %s for the jail: %w", dir, err)
	}
	if err := os.Mkdir(root+dir, 0o755); err != nil {
		return fmt.Errorf("make the jail: %w", err)
	}
	if err := unix.Mount(dir, root+dir, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show %s in the jail: %w", dir, err)
	}
	flags := uintptr(unix.MS_REMOUNT | unix.MS_BIND | unix.MS_RDONLY | unix.MS_NOSUID | unix.MS_NODEV)
	if err := unix.Mount("", root+dir, "", flags, ""); err != nil {
		return fmt.Errorf("make %s read-only in the jail: %w", dir, err)
	}
	return nil
}

// jailFile shows one file or device, when the host has it.
func jailFile(root, path string) error {
	if _, err := os.Stat(path); err != nil {
		return nil //nolint:nilerr // a host without KVM has no /dev/kvm
	}
	if err := os.MkdirAll(filepath.Dir(root+path), 0o755); err != nil {
		return fmt.Errorf("make the jail: %w", err)
	}
	f, err := os.OpenFile(root+path, os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("make the jail: %w", err)
	}
	_ = f.Close()
	if err := unix.Mount(path, root+path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("show %s in the jail: %w", path, err)
	}
	return nil
}
