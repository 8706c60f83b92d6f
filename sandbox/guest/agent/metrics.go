package agent

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"ambit.dev/ambit/sandbox/guest"
)

// createNew opens a file that must not exist yet, and follows no link.
const createNew = os.O_CREATE | os.O_EXCL | os.O_WRONLY | syscall.O_NOFOLLOW

func (s *Server) runningCommands() int {
	s.effects.mu.Lock()
	defer s.effects.mu.Unlock()
	return s.effects.running
}

func (s *Server) metrics(_ *exchange, _ struct{}) (any, error) {
	m := guest.Metrics{Commands: s.runningCommands()}
	m.MemoryTotal = meminfo("MemTotal:")
	m.MemoryAvailable = meminfo("MemAvailable:")
	var st syscall.Statfs_t
	if err := syscall.Statfs(s.cfg.WorkDir, &st); err == nil {
		m.DiskTotal = int64(st.Blocks) * st.Bsize         //nolint:gosec // sizes of a small disk
		m.DiskUsed = int64(st.Blocks-st.Bfree) * st.Bsize //nolint:gosec // sizes of a small disk
	}
	if s.cfg.CgroupDir != "" {
		m.CommandMemory = readNumber(filepath.Join(s.cfg.CgroupDir, "memory.current"))
		m.Processes = int(readNumber(filepath.Join(s.cfg.CgroupDir, "pids.current")))
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load1, _, _ = strings.Cut(string(b), " ")
	}
	return m, nil
}

// meminfo reads one line of /proc/meminfo, in bytes.
func meminfo(key string) int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == key {
			return parseInt(f[1]) << 10
		}
	}
	return 0
}
