package qemu

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"ambit.dev/ambit/sandbox/driver"
)

// keepVerdicts is how many verdicts are remembered: programs with another QEMU
// or another setting must not make each other probe again.
const keepVerdicts = 8

// verdicts is what the file of Config.ProbeCache holds, the newest first.
type verdicts struct {
	Verdicts []verdict `json:"verdicts"`
}

type verdict struct {
	Key    string             `json:"key"`
	At     time.Time          `json:"at"`
	Result driver.ProbeResult `json:"result"`
}

// circumstances are all that a verdict depends on. The guest agent is not among
// them: each change of it makes a new template, and that boots it.
type circumstances struct {
	QEMU       string // hash of the program
	Version    string
	Kernel     string // hash of the guest's kernel
	BootID     string // of the host: modules and their settings come anew with each
	Release    string // of the host's kernel
	CPU        string
	KHz        int
	KVM        string // what /dev/kvm is and who may open it
	Root       bool
	UID, GID   int
	Forced     driver.Accelerator
	Machine    string
	Software   string
	Generation int // raised when this package judges otherwise
}

// probeGeneration is raised when verdicts of earlier versions must not be
// believed any more.
const probeGeneration = 1

// circumstances looks at the host as it is now.
func (d *Driver) circumstances(version string) (circumstances, error) {
	c := circumstances{
		Version: version, Root: os.Geteuid() == 0, UID: d.cfg.UID, GID: d.cfg.GID, Forced: d.cfg.Accelerator,
		Machine: machineType, Software: tcgCPU, KVM: "absent", Generation: probeGeneration,
	}
	var err error
	if c.QEMU, err = hashFile(d.binary); err != nil {
		return c, err
	}
	if d.cfg.Kernel != "" {
		if c.Kernel, err = hashFile(d.cfg.Kernel); err != nil {
			return c, err
		}
	}
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return c, fmt.Errorf("read the id of the host's boot: %w", err)
	}
	c.BootID = strings.TrimSpace(string(bootID))
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return c, fmt.Errorf("ask for the host's kernel: %w", err)
	}
	c.Release = unix.ByteSliceToString(name.Release[:])
	c.CPU, c.KHz = hostCPU()
	var st unix.Stat_t
	if unix.Stat("/dev/kvm", &st) == nil {
		c.KVM = fmt.Sprintf("device %d, mode %o, owner %d:%d", st.Rdev, st.Mode, st.Uid, st.Gid)
	}
	return c, nil
}

func (c circumstances) key() string {
	h := sha256.New()
	fmt.Fprintf(h, "%+v", c)
	return hex.EncodeToString(h.Sum(nil))
}

// probeKey names the circumstances in which a verdict is true; empty when
// nothing is to be remembered.
func (d *Driver) probeKey(version string) (string, error) {
	if d.cfg.ProbeCache == "" {
		return "", nil
	}
	c, err := d.circumstances(version)
	if err != nil {
		return "", err
	}
	return c.key(), nil
}

// recallProbe finds the verdict of these circumstances.
func (d *Driver) recallProbe(key string) (driver.ProbeResult, bool) {
	if key == "" || d.cfg.ProbeAnew {
		return driver.ProbeResult{}, false
	}
	known, err := readVerdicts(d.cfg.ProbeCache)
	if err != nil {
		if !errors.Is(err, os.ErrNotExist) {
			d.log.Warn("what earlier probes found is not known", "error", err)
		}
		return driver.ProbeResult{}, false
	}
	for _, v := range known.Verdicts {
		if v.Key == key {
			return v.Result, true
		}
	}
	return driver.ProbeResult{}, false
}

func readVerdicts(path string) (v verdicts, err error) {
	f, err := os.Open(path)
	if err != nil {
		return v, fmt.Errorf("read the probe's verdicts: %w", err)
	}
	defer f.Close() //nolint:errcheck // read only
	if err := json.NewDecoder(io.LimitReader(f, 1<<20)).Decode(&v); err != nil {
		return v, fmt.Errorf("read the probe's verdicts: %w", err)
	}
	return v, nil
}

// rememberProbe puts the verdict before the others; without it the next process
// probes again.
func (d *Driver) rememberProbe(key string, r driver.ProbeResult) {
	if key == "" {
		return
	}
	if err := d.writeVerdict(verdict{key, time.Now().UTC(), r}); err != nil {
		d.log.Warn("the probe's verdict was not kept", "error", err)
	}
}

func (d *Driver) writeVerdict(v verdict) error {
	out := verdicts{Verdicts: []verdict{v}}
	// One that can't be read is replaced.
	known, _ := readVerdicts(d.cfg.ProbeCache)
	for _, old := range known.Verdicts {
		if old.Key != v.Key && len(out.Verdicts) < keepVerdicts {
			out.Verdicts = append(out.Verdicts, old)
		}
	}
	b, err := json.MarshalIndent(out, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the verdicts: %w", err)
	}
	dir := filepath.Dir(d.cfg.ProbeCache)
	if err := os.MkdirAll(dir, 0o755); err != nil { //nolint:gosec // the templates' folder: the engine's account must be able to pass
		return fmt.Errorf("make the verdicts' folder: %w", err)
	}
	// Two processes may write at once: a reader sees one file or the other, whole.
	f, err := os.CreateTemp(dir, ".probe-")
	if err != nil {
		return fmt.Errorf("write the verdicts: %w", err)
	}
	defer os.Remove(f.Name()) //nolint:errcheck // renamed when all went well
	_, err = f.Write(append(b, '\n'))
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("write the verdicts: %w", err)
	}
	if err := os.Rename(f.Name(), d.cfg.ProbeCache); err != nil {
		return fmt.Errorf("write the verdicts: %w", err)
	}
	return nil
}
