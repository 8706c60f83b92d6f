package processes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Leftover is a process that an earlier run has left.
type Leftover struct {
	PID  int
	Name string // its program
}

// FindMarked returns the processes whose environment holds the variable
// "NAME=VALUE", and all their descendants, but neither this process nor its
// ancestors. It finds what left the process group, as a Nomad task does.
//
// It needs the rights to read /proc/PID/environ; what can't be read is passed
// over.
func FindMarked(variable string) ([]Leftover, error) {
	entries, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	excluded := map[int]bool{}
	for pid := os.Getpid(); pid > 1; {
		excluded[pid] = true
		parent, err := parentOf(pid)
		if err != nil {
			break
		}
		pid = parent
	}
	parents := map[int]int{}
	marked := map[int]bool{}
	for _, dir := range entries {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil || pid <= 1 {
			continue
		}
		if _, err := startTicks(pid); err != nil {
			continue // gone, or a zombie
		}
		if parents[pid], err = parentOf(pid); err != nil {
			continue
		}
		if excluded[pid] {
			continue
		}
		env, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err == nil && holds(env, variable) {
			marked[pid] = true
		}
	}
	for grown := true; grown; {
		grown = false
		for pid, parent := range parents {
			if marked[parent] && !marked[pid] && !excluded[pid] {
				marked[pid], grown = true, true
			}
		}
	}
	out := make([]Leftover, 0, len(marked))
	for pid := range marked {
		out = append(out, Leftover{PID: pid, Name: programOf(pid)})
	}
	sort.Slice(out, func(i, j int) bool { return out[i].PID < out[j].PID })
	return out, nil
}

func holds(environ []byte, variable string) bool {
	for kv := range bytes.SplitSeq(environ, []byte{0}) {
		if string(kv) == variable {
			return true
		}
	}
	return false
}

func programOf(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		return "?"
	}
	return strings.TrimSpace(string(b))
}

// Sweep ends the marked processes: SIGTERM, then SIGKILL for what is still there
// after grace, again and again until none is left or ctx ends. It returns those
// that it met.
func Sweep(ctx context.Context, variable string, grace time.Duration) ([]Leftover, error) {
	found, err := FindMarked(variable)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	met := found
	signalAll(found, syscall.SIGTERM)
	deadline := time.Now().Add(grace)
	for {
		select {
		case <-ctx.Done():
			return met, fmt.Errorf("%d processes of an earlier run are still there: %w", len(found), ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
		if found, err = FindMarked(variable); err != nil || len(found) == 0 {
			return met, err
		}
		if time.Now().After(deadline) {
			signalAll(found, syscall.SIGKILL)
		}
	}
}

func signalAll(ps []Leftover, sig syscall.Signal) {
	for _, p := range ps {
		_ = syscall.Kill(p.PID, sig) // gone meanwhile, or not ours to end: the next look tells
	}
}

// UnmountBelow detaches every mount below dir, the deepest first. Nomad leaves
// some there, and a folder with mounts can't be removed.
func UnmountBelow(dir string) error {
	b, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	var points []string
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) > 1 {
			point := strings.ReplaceAll(f[1], `\040`, " ")
			if strings.HasPrefix(point, strings.TrimSuffix(dir, "/")+"/") {
				points = append(points, point)
			}
		}
	}
	sort.Sort(sort.Reverse(sort.StringSlice(points)))
	var errs []error
	for _, p := range points {
		if err := syscall.Unmount(p, syscall.MNT_DETACH); err != nil && !errors.Is(err, syscall.EINVAL) {
			errs = append(errs, fmt.Errorf("unmounting %s: %w", p, err))
		}
	}
	return errors.Join(errs...)
}
