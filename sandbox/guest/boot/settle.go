package boot

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// settle prepares everything that must be true before the first command.
func settle(mem int64) error {
	for _, d := range []struct {
		dir  string
		mode fs.FileMode
	}{{stateDir, 0o700}, {scriptDir, 0o755}} {
		if err := os.MkdirAll(d.dir, d.mode); err != nil {
			return fmt.Errorf("make %s: %w", d.dir, err)
		}
	}
	if err := os.Chmod("/run/ambit", 0o755); err != nil { //nolint:gosec // commands pass through to their scripts
		return fmt.Errorf("open /run/ambit: %w", err)
	}
	if err := limits(mem); err != nil {
		return err
	}
	if err := addUser(); err != nil {
		return err
	}
	if err := loopbackUp(); err != nil {
		return err
	}
	_ = unix.Sethostname([]byte("sandbox"))
	for key, value := range map[string]string{
		"kernel/dmesg_restrict":            "1",
		"kernel/kptr_restrict":             "2",
		"kernel/unprivileged_bpf_disabled": "1",
		"kernel/perf_event_paranoid":       "3",
		"kernel/printk":                    "3 3 1 3", // the console is a file on the host
		"user/max_user_namespaces":         "0",       // commands need none, and they widen the kernel's surface
		"vm/panic_on_oom":                  "0",
		"vm/overcommit_memory":             "0",
	} {
		// A kernel without one of these has nothing to turn off.
		_ = os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
	}
	return nil
}

// limits bounds what commands may take, and favours the agent.
func limits(mem int64) error {
	if err := os.WriteFile(filepath.Join(cgroupTop, "cgroup.subtree_control"), []byte("+memory +pids +cpu"), 0); err != nil {
		return fmt.Errorf("enable cgroup controllers: %w", err)
	}
	if err := os.Mkdir(cgroupDir, 0o755); err != nil {
		return fmt.Errorf("make the commands' cgroup: %w", err)
	}
	for file, value := range map[string]int64{
		"memory.max": max(mem-agentReserve, mem/2),
		"pids.max":   2 * maxProcesses,
		"cpu.weight": 50,
	} {
		if err := os.WriteFile(filepath.Join(cgroupDir, file), []byte(strconv.FormatInt(value, 10)), 0); err != nil {
			return fmt.Errorf("set %s of the commands' cgroup: %w", file, err)
		}
	}
	for resource, value := range map[int]uint64{
		unix.RLIMIT_CORE:    0,
		unix.RLIMIT_NOFILE:  4096,
		unix.RLIMIT_MEMLOCK: 64 << 10,
		unix.RLIMIT_NPROC:   2 * maxProcesses,
	} {
		l := unix.Rlimit{Cur: value, Max: value}
		if err := unix.Prlimit(0, resource, &l, nil); err != nil {
			return fmt.Errorf("set resource limit %d: %w", resource, err)
		}
	}
	// Not -1000: a command inherits it for the moment between its start and the
	// agent's correction, and must be killable even then.
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0); err != nil {
		return fmt.Errorf("protect the agent: %w", err)
	}
	_ = unix.Setpriority(unix.PRIO_PROCESS, 0, -10)
	return nil
}

// addUser names the commands' user, so that tools which look it up find one.
func addUser() error {
	id := strconv.Itoa(commandUID)
	for file, line := range map[string]string{
		"/etc/passwd": "agent:x:" + id + ":" + id + ":Agent:/work:/bin/bash\n",
		"/etc/group":  "agent:x:" + id + ":\n",
	} {
		old, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("read %s: %w", file, err)
		}
		if strings.Contains(string(old), ":"+id+":") {
			continue
		}
		if len(old) > 0 && old[len(old)-1] != '\n' {
			old = append(old, '\n')
		}
		if err := os.WriteFile(file, append(old, line...), 0o644); err != nil { //nolint:gosec // world-readable by nature
			return fmt.Errorf("write %s: %w", file, err)
		}
	}
	hosts := "127.0.0.1 localhost\n::1 localhost\n127.0.0.1 sandbox\n"
	if err := os.WriteFile("/etc/hosts", []byte(hosts), 0o644); err != nil { //nolint:gosec // world-readable by nature
		return fmt.Errorf("write /etc/hosts: %w", err)
	}
	return nil
}

// loopbackUp lets commands talk to servers of their own. There is no other
// interface.
func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("bring up the loopback: %w", err)
	}
	defer unix.Close(fd) //nolint:errcheck // a socket without data
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("bring up the loopback: %w", err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("bring up the loopback: %w", err)
	}
	return nil
}

func setClock(t time.Time) error {
	ts, err := unix.TimeToTimespec(t)
	if err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}

// mixEntropy stirs bytes into the kernel's pool without credit.
func mixEntropy(b []byte) error {
	f, err := os.OpenFile("/dev/urandom", os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open the random device: %w", err)
	}
	defer f.Close() //nolint:errcheck // a device
	if _, err := f.Write(b); err != nil {
		return fmt.Errorf("write to the random device: %w", err)
	}
	return reseed(f)
}

// addEntropy credits bytes from the host, and makes the generator use them now:
// two clones of one memory image would otherwise draw the same numbers for up
// to a minute.
func addEntropy(b []byte) error {
	f, err := os.OpenFile("/dev/random", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open the random device: %w", err)
	}
	defer f.Close() //nolint:errcheck // a device
	// struct rand_pool_info { int entropy_count; int buf_size; __u32 buf[]; }
	info := make([]byte, 8+len(b))
	binary.NativeEndian.PutUint32(info[0:], uint32(len(b)*8)) //nolint:gosec // at most 4 KiB
	binary.NativeEndian.PutUint32(info[4:], uint32(len(b)))   //nolint:gosec // at most 4 KiB
	copy(info[8:], b)
	const rndAddEntropy = 0x40085203
	if _, _, no := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndAddEntropy, uintptr(unsafe.Pointer(&info[0]))); no != 0 {
		return fmt.Errorf("add entropy: %w", no)
	}
	return reseed(f)
}

func reseed(f *os.File) error {
	const rndReseedCRNG = 0x5207
	if _, _, no := unix.Syscall(unix.SYS_IOCTL, f.Fd(), rndReseedCRNG, 0); no != 0 {
		return fmt.Errorf("reseed the random generator: %w", no)
	}
	return nil
}
