package qemu

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"sync"
	"time"

	"ambit.dev/ambit/sandbox/driver"
)

// Name is the driver's name.
const Name = "qemu"

// ProbeFile is the name of the file in the templates' folder that remembers what
// the probe found.
const ProbeFile = "probe.json"

// Config says which QEMU to use and how to lock it in.
type Config struct {
	// Binary is qemu-system-x86_64, found on the PATH when it has no slash;
	// empty is "qemu-system-x86_64".
	Binary string
	// Kernel and GuestBinary are what Probe boots: as in driver.TemplateSpec.
	// Drivers that only start clones need neither.
	Kernel      string
	GuestBinary string
	// ProbeCache is a file that remembers what the probe found, so that
	// processes that come later need not boot again; empty for none. It is only
	// believed for the same QEMU and kernel by content, /dev/kvm, CPU and boot of
	// the host.
	ProbeCache string
	// ProbeAnew boots even if the verdict is remembered, and remembers the new one.
	ProbeAnew bool
	// UID and GID are who QEMU runs as when this process is root; zero is
	// nobody (65534).
	UID, GID int
	// Accelerator forces one, and then Probe only verifies it; empty probes.
	Accelerator driver.Accelerator

	Log *slog.Logger
}

// Driver is the QEMU driver.
type Driver struct {
	cfg    Config
	log    *slog.Logger
	binary string

	probing sync.Mutex
	probed  *driver.ProbeResult

	warnOnce    sync.Once
	versionOnce sync.Once
	versionText string
	versionErr  error
}

var _ driver.Driver = (*Driver)(nil)

// New makes a driver. driver.ErrUnavailable when QEMU is not installed.
func New(cfg Config) (*Driver, error) {
	if cfg.Binary == "" {
		cfg.Binary = "qemu-system-x86_64"
	}
	if cfg.UID == 0 {
		cfg.UID = 65534
	}
	if cfg.GID == 0 {
		cfg.GID = 65534
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	binary, err := exec.LookPath(cfg.Binary)
	if err != nil {
		return nil, fmt.Errorf("%w: %s was not found; install the package qemu-system-x86", driver.ErrUnavailable, cfg.Binary)
	}
	return &Driver{cfg: cfg, log: cfg.Log, binary: binary}, nil
}

// Name implements driver.Driver.
func (d *Driver) Name() string { return Name }

var versionPattern = regexp.MustCompile(`version (\d+\.\d+(?:\.\d+)?)`)

// version is QEMU's, asked once.
func (d *Driver) version(ctx context.Context) (string, error) {
	d.versionOnce.Do(func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
		defer cancel()
		out, err := exec.CommandContext(ctx, d.binary, "--version").Output()
		if err != nil {
			d.versionErr = fmt.Errorf("ask QEMU for its version: %w", err)
			return
		}
		m := versionPattern.FindSubmatch(out)
		if m == nil {
			d.versionErr = fmt.Errorf("ask QEMU for its version: cannot read %.60q", out)
			return
		}
		d.versionText = string(m[1])
	})
	return d.versionText, d.versionErr
}

// hostCPU is the model name of the host's processor. A clone under KVM sees it,
// and under the software CPU its frequency is in the kernel's command line.
func hostCPU() (model string, khz int) {
	khz = 2_000_000
	b, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		return "unknown", khz
	}
	for line := range strings.Lines(string(b)) {
		key, value, _ := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch strings.TrimSpace(key) {
		case "model name":
			if model == "" {
				model = value
			}
		case "cpu MHz":
			var mhz float64
			if _, err := fmt.Sscanf(value, "%f", &mhz); err == nil && mhz > 100 {
				// Rounded, because the reported frequency wanders.
				return model, int(mhz/100+0.5) * 100_000
			}
		}
	}
	return model, khz
}
