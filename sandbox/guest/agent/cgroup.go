package agent

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// Commands run in cgroups below Config.CgroupDir: it has the memory limit that
// all of them share (the agent, outside, survives whatever they do), and each
// command a group of its own, so that its whole tree can be counted and killed
// even when it daemonised.

// prepareCgroup makes sure that limits can be set on the commands' groups.
func (s *Server) prepareCgroup() error {
	if s.cfg.CgroupDir == "" {
		return nil
	}
	if err := os.WriteFile(filepath.Join(s.cfg.CgroupDir, "cgroup.subtree_control"), []byte("+memory +pids"), 0); err != nil {
		return fmt.Errorf("enable the controllers of command groups: %w", err)
	}
	return nil
}

// cgroup is one command's group; nil stands for none.
type cgroup struct {
	dir string
	fd  *os.File
}

func (s *Server) newCgroup(name string) (*cgroup, error) {
	if s.cfg.CgroupDir == "" {
		return nil, nil //nolint:nilnil // nil is the group that is not there
	}
	g := &cgroup{dir: filepath.Join(s.cfg.CgroupDir, name)}
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make a command group: %w", err)
	}
	if err := g.write("pids.max", strconv.Itoa(s.cfg.MaxProcesses)); err != nil {
		_ = os.Remove(g.dir)
		return nil, err
	}
	fd, err := os.Open(g.dir)
	if err != nil {
		_ = os.Remove(g.dir)
		return nil, fmt.Errorf("open a command group: %w", err)
	}
	g.fd = fd
	return g, nil
}

func (g *cgroup) write(file, value string) error {
	if err := os.WriteFile(filepath.Join(g.dir, file), []byte(value), 0); err != nil {
		return fmt.Errorf("set %s of a command group: %w", file, err)
	}
	return nil
}

// kill ends every process in the group at once, forks in flight included.
func (g *cgroup) kill() {
	if g != nil {
		_ = g.write("cgroup.kill", "1")
	}
}

// pids are the processes in the group.
func (g *cgroup) pids() []int {
	if g == nil {
		return nil
	}
	b, err := os.ReadFile(filepath.Join(g.dir, "cgroup.procs"))
	if err != nil {
		return nil
	}
	var out []int
	for _, line := range strings.Fields(string(b)) {
		if pid, err := strconv.Atoi(line); err == nil {
			out = append(out, pid)
		}
	}
	return out
}

// usage is what a finished command's group has counted.
type usage struct {
	cpu         time.Duration
	peak        int64
	oom         bool
	pidsRefused bool
}

func (g *cgroup) usage() usage {
	if g == nil {
		return usage{}
	}
	var u usage
	u.cpu = time.Duration(readKeyed(filepath.Join(g.dir, "cpu.stat"), "usage_usec")) * time.Microsecond
	u.oom = readKeyed(filepath.Join(g.dir, "memory.events"), "oom_kill") > 0
	u.pidsRefused = readKeyed(filepath.Join(g.dir, "pids.events"), "max") > 0
	u.peak = readNumber(filepath.Join(g.dir, "memory.peak"))
	return u
}

// remove takes the group away once its last process is reaped. Reaping is
// PID 1's, a moment later than the kill, so it may take a few tries.
func (g *cgroup) remove() {
	if g == nil {
		return
	}
	_ = g.fd.Close()
	for range 100 {
		err := os.Remove(g.dir)
		if err == nil || !errors.Is(err, syscall.EBUSY) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// freeze stops all commands where they stand; thaw lets them go on.
func (s *Server) freeze() (thaw func()) {
	if s.cfg.CgroupDir == "" {
		return func() {}
	}
	s.starting.Lock()
	file := filepath.Join(s.cfg.CgroupDir, "cgroup.freeze")
	_ = os.WriteFile(file, []byte("1"), 0)
	for range 200 {
		if readKeyed(filepath.Join(s.cfg.CgroupDir, "cgroup.events"), "frozen") == 1 {
			break
		}
		time.Sleep(5 * time.Millisecond)
	}
	return func() {
		_ = os.WriteFile(file, []byte("0"), 0)
		s.starting.Unlock()
	}
}

// readKeyed reads "key value" from a file of such lines; 0 when absent.
func readKeyed(file, key string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), " "); ok && k == key {
			n, _ := strconv.ParseInt(v, 10, 64)
			return n
		}
	}
	return 0
}

func readNumber(file string) int64 {
	b, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64)
	return n
}

func parseInt(s string) int64 {
	n, _ := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
	return n
}
