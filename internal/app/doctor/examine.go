package doctor

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ambit.dev/ambit/internal/app/up"
	"ambit.dev/ambit/internal/config"
	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/internal/processes"
)

// examination is what the checks know.
type examination struct {
	cfg     config.Config // with the addresses of a running instance
	outside config.Config // as it was given
	running bool          // an ambit up holds the data directory
}

// Bounds below which the machine is too small to be of use.
const (
	leastMemory  = 1 << 30 // for the engines and two sandboxes
	goodMemory   = 2 << 30
	leastDisk    = 1 << 30
	goodDisk     = 8 << 30 // a first start fills the caches with about as much
	bootLimit    = 75 * time.Second
	clockDrift   = 2 * time.Second
	answerWithin = 10 * time.Second
)

// Examine runs every check, one after another, and yields its findings as they
// come.
func Examine(ctx context.Context, cfg config.Config) iter.Seq[Finding] {
	return func(yield func(Finding) bool) {
		e := &examination{outside: cfg}
		e.cfg, e.running = up.Running(cfg)
		for _, c := range []check{
			memory, disk, dataDirectory, clock,
			engineFiles, instance, addresses,
			postgresAnswers, clickhouseAnswers, nomadAnswers, serverAnswers, masterKey,
			sandboxBoots,
		} {
			for _, f := range c(ctx, e) {
				if !yield(f) {
					return
				}
			}
			if ctx.Err() != nil {
				return
			}
		}
	}
}

func one(part string, state State, remedy, format string, args ...any) []Finding {
	return []Finding{{Part: part, State: state, Text: fmt.Sprintf(format, args...), Remedy: remedy}}
}

func memory(context.Context, *examination) []Finding {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return one("memory", Warning, "", "can't be read: %v", err)
	}
	var available int64
	for line := range strings.Lines(string(b)) {
		var kb int64
		if n, _ := fmt.Sscanf(line, "MemAvailable: %d kB", &kb); n == 1 {
			available = kb << 10
		}
	}
	text := fmt.Sprintf("%.1f GB available", float64(available)/1e9)
	switch {
	case available < leastMemory:
		return one("memory", Failed, "end other programs, or use a larger machine: the engines take about 700 MB, each sandbox 50 MB and what it uses", "%s", text)
	case available < goodMemory:
		return one("memory", Warning, "lower AMBIT_WARM_SANDBOXES and AMBIT_MAX_SANDBOXES", "%s", text)
	default:
		return one("memory", OK, "", "%s", text)
	}
}

func disk(_ context.Context, e *examination) []Finding {
	var out []Finding
	for _, d := range []struct{ part, dir, setting string }{
		{"disk: data", e.cfg.DataDir, "AMBIT_DATA_DIR"}, {"disk: cache", e.cfg.CacheDir, "AMBIT_CACHE_DIR"},
	} {
		dir := d.dir
		for ; dir != "/"; dir = filepath.Dir(dir) { // of the folder that it would be made in
			if _, err := os.Stat(dir); err == nil {
				break
			}
		}
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			out = append(out, Finding{Part: d.part, State: Warning, Text: err.Error()})
			continue
		}
		free := int64(st.Bavail) * st.Bsize //nolint:gosec // far below 2^63
		f := Finding{Part: d.part, State: OK, Text: fmt.Sprintf("%.1f GB free for %s", float64(free)/1e9, d.dir)}
		switch {
		case free < leastDisk:
			f.State, f.Remedy = Failed, "free some space, or set "+d.setting+" to another disk"
		case free < goodDisk:
			f.State, f.Remedy = Warning, "a first start fills the cache with several GB; set "+d.setting+" to a larger disk"
		}
		out = append(out, f)
	}
	return out
}

// dataDirectory looks at who can enter it and read its secrets.
func dataDirectory(ctx context.Context, e *examination) []Finding {
	const part = "data directory"
	st, err := os.Stat(e.cfg.DataDir)
	if errors.Is(err, fs.ErrNotExist) {
		return one(part, OK, "", "%s does not exist yet; ambit up makes it", e.cfg.DataDir)
	}
	if err != nil {
		return one(part, Failed, "run as the user that ambit up runs as", "%v", err)
	}
	if st.Mode().Perm()&0o022 != 0 {
		return one(part, Failed, "run: chmod go-w "+e.cfg.DataDir, "%s can be written by others (mode %04o)", e.cfg.DataDir, st.Mode().Perm())
	}
	if err := unix.Access(e.cfg.DataDir, unix.W_OK); err != nil {
		return one(part, Failed, "run as its owner, or set AMBIT_DATA_DIR", "%s can't be written: %v", e.cfg.DataDir, err)
	}
	if !e.outside.PostgresURL.IsSet() {
		if err := engines.CheckPostgresReach(ctx, e.cfg.DataDir); err != nil {
			return one(part, Failed, "set AMBIT_DATA_DIR to a folder outside of it, such as /var/lib/ambit", "%v", err)
		}
	}
	for _, secret := range []string{e.cfg.MasterKeyFile, filepath.Join(e.cfg.DataDir, "postgres", "password"), filepath.Join(e.cfg.DataDir, "nomad", "token")} {
		if st, err := os.Stat(secret); err == nil && st.Mode().Perm()&0o077 != 0 {
			return one(part, Failed, "run: chmod 600 "+secret, "%s can be read by others (mode %04o)", secret, st.Mode().Perm())
		}
	}
	return one(part, OK, "", "%s, its secrets are its owner's alone", e.cfg.DataDir)
}

// clock asks the kernel whether its time is kept by a server.
func clock(context.Context, *examination) []Finding {
	now := time.Now()
	if now.Year() < 2026 {
		return one("clock", Failed, "set the clock: tokens, certificates and expiries depend on it", "it is %s", now.UTC().Format(time.RFC3339))
	}
	var t unix.Timex
	if _, err := unix.Adjtimex(&t); err == nil && t.Status&unix.STA_UNSYNC != 0 {
		return one("clock", Warning, "install a time service (apt-get install systemd-timesyncd) if none runs on the host", "it is %s, and the kernel does not know that anything keeps it right", now.UTC().Format(time.RFC3339))
	}
	return one("clock", OK, "", "it is %s, kept by a time service", now.UTC().Format(time.RFC3339))
}

func engineFiles(ctx context.Context, e *examination) []Finding {
	var out []Finding
	for _, s := range engines.Inspect(ctx, engines.Options{CacheDir: e.cfg.CacheDir}, up.Needed(e.outside)...) {
		f := Finding{Part: "engine: " + string(s.Name), State: OK, Text: s.Version + ", " + s.Path, Remedy: s.Remedy}
		if s.Problem != nil {
			f.State, f.Text = Failed, s.Problem.Error()
		}
		out = append(out, f)
	}
	for _, b := range []struct{ part, path, remedy string }{
		{"binary: guest", e.cfg.GuestBinary, "run: make build"},
		{"binary: node", e.cfg.NodeBinary, "run: make build"},
		{"given: kernel", e.outside.KernelImage, "correct AMBIT_KERNEL"},
		{"given: modules", e.outside.KernelModules, "correct AMBIT_KERNEL_MODULES"},
		{"given: rootfs", e.outside.Rootfs, "correct AMBIT_ROOTFS"},
		{"given: qemu", e.outside.QEMU, "correct AMBIT_QEMU"},
	} {
		if b.path == "" {
			continue
		}
		f := Finding{Part: b.part, State: OK, Text: b.path}
		if _, err := os.Stat(b.path); err != nil {
			f.State, f.Text, f.Remedy = Failed, err.Error(), b.remedy
		}
		out = append(out, f)
	}
	return out
}

// instance says whether one runs, and finds what a killed one has left.
func instance(ctx context.Context, e *examination) []Finding {
	if e.running {
		return one("instance", OK, "", "ambit up runs on %s", e.cfg.DataDir)
	}
	left, err := processes.FindMarked(up.Marker(e.cfg.DataDir))
	if err != nil {
		return one("instance", Warning, "", "looking for processes: %v", err)
	}
	if len(left) > 0 {
		return one("instance", Warning, "run: ambit up, which ends them first", "an ambit up was killed and has left %d processes", len(left))
	}
	return one("instance", Skipped, "", "ambit up does not run on %s", e.cfg.DataDir)
}

// addresses looks whether what is to be listened on is free, unless it is ours.
func addresses(ctx context.Context, e *examination) []Finding {
	if e.running {
		return nil
	}
	var out []Finding
	for _, a := range []struct{ setting, address string }{{"AMBIT_LISTEN", e.cfg.Listen}, {"AMBIT_NODE_LISTEN", e.cfg.NodeListen}} {
		f := Finding{Part: "address", State: OK, Text: a.address + " is free"}
		l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", a.address)
		if err != nil {
			f.State, f.Text = Failed, err.Error()
			f.Remedy = "end what listens there, or set " + a.setting + " to another address"
		} else {
			_ = l.Close()
		}
		if host, _, err := net.SplitHostPort(a.address); err == nil && f.State == OK && !isLoopback(host) {
			f.State, f.Remedy = Warning, "put a TLS proxy before it: "+a.setting+" speaks plain HTTP"
			f.Text = a.address + " can be reached from other machines"
		}
		out = append(out, f)
	}
	return out
}

func isLoopback(host string) bool {
	if host == "localhost" {
		return true
	}
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback()
}
