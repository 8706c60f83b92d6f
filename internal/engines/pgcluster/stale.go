package pgcluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ClearStale clears what a killed server has left, before the next one starts: a
// server that still runs on our data is stopped, a postmaster.pid whose process is gone, or is another
// program by now, is removed.
func (c *Cluster) ClearStale(ctx context.Context) error {
	file := filepath.Join(c.data, "postmaster.pid")
	pid, err := readPID(file)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("reading %s: %w", file, err)
	}
	deadline := time.Now().Add(20 * time.Second)
	sig := StopSignal
	for c.serves(pid) {
		if err := syscall.Kill(pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			return fmt.Errorf("stopping the Postgres that an earlier run has left (process %d): %w", pid, err)
		}
		if err := pause(ctx); err != nil {
			return err
		}
		if time.Now().After(deadline) {
			sig = syscall.SIGKILL
		}
	}
	// A server that was killed leaves backends, which end by themselves once they see that it is gone. Until the last has, its shared
	// memory is in use and the next server refuses to start, rightly: two would write the same files.
	deadline = time.Now().Add(20 * time.Second)
	for left := c.backends(); len(left) > 0; left = c.backends() {
		if time.Now().After(deadline) {
			for _, pid := range left {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		if err := pause(ctx); err != nil {
			return err
		}
	}
	return removeIfThere(file)
}

func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}

// backends are the processes of Postgres that work on our data.
func (c *Cluster) backends() (pids []int) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil && c.serves(pid) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// serves says whether pid is a Postgres server whose working folder, which is
// always its data folder, is ours. A process id alone proves nothing: it may
// have been given to another program since.
func (c *Cluster) serves(pid int) bool {
	cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		return false
	}
	data, err := filepath.EvalSymlinks(c.data)
	if err != nil || cwd != data {
		return false
	}
	exe, err := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return err == nil && strings.HasPrefix(filepath.Base(exe), "postgres")
}

func readPID(file string) (int, error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	first, _, _ := strings.Cut(string(b), "\n")
	pid, err := strconv.Atoi(strings.TrimSpace(first))
	if err != nil {
		pid = 0 // torn by a crash: no process, so it counts as stale
	}
	return max(pid, 0), nil
}

func removeIfThere(file string) error {
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}
