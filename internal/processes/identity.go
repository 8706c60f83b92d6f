package processes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// identity tells a process from another that has its process id later: the
// kernel's start time, in ticks since the boot, and the boot.
type identity struct {
	PID   int    `json:"pid"`
	Start uint64 `json:"start"`
	Boot  string `json:"boot"`
}

func identify(pid int) (identity, error) {
	start, err := startTicks(pid)
	if err != nil {
		return identity{}, err
	}
	return identity{PID: pid, Start: start, Boot: bootID()}, nil
}

// alive says whether that very process still runs; a zombie does not.
func (i identity) alive() bool {
	if i.PID <= 1 || i.Boot != bootID() {
		return false
	}
	start, err := startTicks(i.PID)
	return err == nil && start == i.Start
}

func bootID() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

var errZombie = errors.New("the process has ended")

// startTicks reads the 22nd field of /proc/PID/stat. The second is the name,
// which may hold spaces and brackets, so fields are counted from its end.
func startTicks(pid int) (uint64, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	if fields[0] == "Z" || fields[0] == "X" {
		return 0, errZombie
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

func parentOf(pid int) (int, error) {
	fields, err := statFields(pid)
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(fields[1])
}

// statFields are the fields from the third, the state, on.
func statFields(pid int) ([]string, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return nil, err
	}
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return nil, fmt.Errorf("process %d: unexpected stat", pid)
	}
	fields := strings.Fields(string(b[end+1:]))
	if len(fields) < 20 {
		return nil, fmt.Errorf("process %d: short stat", pid)
	}
	return fields, nil
}

// pidFile remembers a child across our own death.
type pidFile string

func (f pidFile) write(pid int) error {
	id, err := identify(pid)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, errZombie) || errors.Is(err, syscall.ESRCH) {
		return nil // it has ended already: there is nothing to remember
	}
	if err != nil {
		return err
	}
	b, err := json.Marshal(id)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(string(f)), 0o755); err != nil { //nolint:gosec // no secret
		return err
	}
	return os.WriteFile(string(f), b, 0o644) //nolint:gosec // no secret
}

// read returns the process that the file names, if it still runs.
func (f pidFile) read() (identity, bool) {
	b, err := os.ReadFile(string(f))
	if err != nil {
		return identity{}, false
	}
	var id identity
	if err := json.Unmarshal(b, &id); err != nil {
		return identity{}, false // torn by a crash
	}
	return id, id.alive()
}

func (f pidFile) remove() error {
	if err := os.Remove(string(f)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
