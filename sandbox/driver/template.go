package driver

import (
	"fmt"
	"os"
	"time"
)

// TemplateSpec says what a template is made from. All files are parameters:
// where kernel and root filesystem come from is not the driver's business.
type TemplateSpec struct {
	// Kernel is an uncompressed ELF vmlinux that QEMU boots directly.
	Kernel string
	// ModulesDir is the kernel's module tree (…/lib/modules/<release>). Only
	// the modules that the machine needs are taken, with what they depend on.
	ModulesDir string
	// Rootfs is a read-only EROFS image.
	Rootfs string
	// GuestBinary is the static ambit-guest, which becomes PID 1.
	GuestBinary string
	// MemoryMiB is the machine's memory: 128 to 16384.
	MemoryMiB int
	// VCPUs is the number of virtual CPUs: 1 to 16.
	VCPUs int
	// Dir is where the template is written; made if missing. It must be empty
	// or hold an older template, which is replaced.
	Dir string
}

// Progress is told what a build does: a phase ("boot", "save", …) and the part
// of the whole that is done, 0 to 1. It is called from one goroutine.
type Progress func(phase string, done float64)

// ManifestFormat is raised when templates written before can no longer be
// started, for instance because the guest's memory layout is used differently.
const ManifestFormat = 1

// Manifest describes a template on disk. It travels with the handles, because
// a clone must be given exactly the shape of the machine that was saved.
type Manifest struct {
	Format      int         `json:"format"`
	Key         string      `json:"key"`
	Driver      string      `json:"driver"`
	Accelerator Accelerator `json:"accelerator"`
	Version     string      `json:"version"`
	CPUModel    string      `json:"cpu_model"`
	Machine     string      `json:"machine"`
	MemoryMiB   int         `json:"memory_mib"`
	VCPUs       int         `json:"vcpus"`

	KernelSHA256  string `json:"kernel_sha256"`
	ModulesSHA256 string `json:"modules_sha256"`
	RootfsSHA256  string `json:"rootfs_sha256"`
	GuestSHA256   string `json:"guest_sha256"`

	MemoryBytes int64 `json:"memory_bytes"`
	// MemorySHA256 is over the blocks of the image that are not all zero.
	MemorySHA256 string    `json:"memory_sha256"`
	StateBytes   int64     `json:"state_bytes"`
	StateSHA256  string    `json:"state_sha256"`
	RootfsPath   string    `json:"rootfs_path"`
	BootTook     Duration  `json:"boot_took"`
	CreatedAt    time.Time `json:"created_at"`
}

// Template is an opened template: its manifest and the open files that a clone
// needs. A node service keeps it open and hands the files over a unix socket
// to the process that starts the machine.
type Template struct {
	Manifest Manifest
	Handles  Handles
}

// Close closes the handles. Machines that were started live on.
func (t *Template) Close() error { return t.Handles.Close() }

// Handles are the open files of a template. They may be read from any process
// that received them: drivers never depend on a file's position.
type Handles struct {
	// Memory is the write-sealed memory file with the guest's memory.
	Memory *os.File
	// State is the device state.
	State *os.File
	// Rootfs is the root filesystem image, open for reading.
	Rootfs *os.File
}

// handleCount is how many files Handles has.
const handleCount = 3

// Files are the handles in a fixed order, for sending with SCM_RIGHTS.
func (h Handles) Files() []*os.File { return []*os.File{h.Memory, h.State, h.Rootfs} }

// HandlesFromFiles is the inverse of Files.
func HandlesFromFiles(files []*os.File) (Handles, error) {
	if len(files) != handleCount {
		return Handles{}, fmt.Errorf("template handles: got %d files, want %d", len(files), handleCount)
	}
	for i, f := range files {
		if f == nil {
			return Handles{}, fmt.Errorf("template handles: file %d is missing", i)
		}
	}
	return Handles{Memory: files[0], State: files[1], Rootfs: files[2]}, nil
}

// Close closes all handles and reports the first failure.
func (h Handles) Close() error {
	var first error
	for _, f := range h.Files() {
		if f == nil {
			continue
		}
		if err := f.Close(); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// StartSpec says what to start.
type StartSpec struct {
	// ID names the machine in logs and in the process table: 1 to 64
	// characters of [A-Za-z0-9_-]. Unique among the machines of a host.
	ID string
	// Manifest and Handles are the template's.
	Manifest Manifest
	Handles  Handles
	// RunDir is a directory of this machine's own for its sockets and logs;
	// made if missing, emptied and removed by Close. Keep it short: a unix
	// socket's path ends at 107 bytes, and Start refuses what would not fit.
	RunDir string
	// Paused leaves the machine loaded but not running, for a warm pool:
	// Resume lets it go.
	Paused bool
}

// Duration is a time.Duration that reads as "2.1s" in a manifest.
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("duration in manifest: %w", err)
	}
	*d = Duration(v)
	return nil
}
