package node

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Each allocation has a run directory, and holds a lock beside it for as long as
// it lives. The kernel frees the lock however the process ends, so a directory
// whose lock can be had belongs to nobody any more.

const lockSuffix = ".lock"

// takeRunDir makes and locks the run directory of a sandbox.
func takeRunDir(root, sandboxID string) (dir string, release func(), err error) {
	// Others may pass: the engine runs as an account of its own.
	if err := os.MkdirAll(root, 0o711); err != nil { //nolint:gosec // see above
		return "", nil, fmt.Errorf("make the run folder: %w", err)
	}
	dir = filepath.Join(root, sandboxID)
	lock, err := os.OpenFile(dir+lockSuffix, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return "", nil, fmt.Errorf("make the run directory's lock: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil { //nolint:gosec // a descriptor is small
		_ = lock.Close()
		return "", nil, fmt.Errorf("lock the run directory of %s: another process has it: %w", sandboxID, err)
	}
	return dir, func() {
		_ = os.RemoveAll(dir)
		_ = os.Remove(dir + lockSuffix)
		_ = lock.Close()
	}, nil
}

// Sweep ends the machines and removes the folders of allocations that were
// killed before they could do so.
func Sweep(root string, log *slog.Logger) error {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the run folder: %w", err)
	}
	var errs []error
	for _, e := range entries {
		id, isLock := strings.CutSuffix(e.Name(), lockSuffix)
		if !isLock {
			continue
		}
		if err := sweepOne(filepath.Join(root, id), log); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func sweepOne(dir string, log *slog.Logger) error {
	lock, err := os.OpenFile(dir+lockSuffix, os.O_RDWR, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("open a run directory's lock: %w", err)
	}
	defer lock.Close()                                                //nolint:errcheck // only held
	if unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil { //nolint:gosec // a descriptor is small
		return nil // its allocation lives
	}
	killed := killNamed(filepath.Base(dir))
	log.Warn("cleared away what a killed allocation left", "dir", dir, "processes", killed)
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("remove a leftover run directory: %w", err)
	}
	if err := os.Remove(dir + lockSuffix); err != nil {
		return fmt.Errorf("remove a leftover lock: %w", err)
	}
	return nil
}

// engines are the programs, by the start of their name, that run machines.
var engines = []string{"qemu-", "firecracker", "runsc"}

// killNamed kills the machine of a sandbox: an engine's process that has the
// sandbox's id, which nothing else has, among its arguments.
func killNamed(sandboxID string) (killed int) {
	procs, err := os.ReadDir("/proc")
	if err != nil {
		return 0
	}
	for _, p := range procs {
		pid, err := strconv.Atoi(p.Name())
		if err != nil {
			continue
		}
		comm, err := os.ReadFile(filepath.Join("/proc", p.Name(), "comm"))
		if err != nil || !slices.ContainsFunc(engines, func(e string) bool { return strings.HasPrefix(string(comm), e) }) {
			continue
		}
		args, err := os.ReadFile(filepath.Join("/proc", p.Name(), "cmdline"))
		if err == nil && bytes.Contains(args, []byte(sandboxID)) && unix.Kill(pid, unix.SIGKILL) == nil {
			killed++
		}
	}
	return killed
}
