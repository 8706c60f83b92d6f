package driver

import (
	"context"
	"errors"
	"net"
	"time"

	"ambit.dev/ambit/sandbox/guest"
)

// Errors that callers may test for with errors.Is.
var (
	// ErrTemplateStale means that a template on disk was made by another
	// driver, accelerator, engine version, CPU model or format: a memory image
	// must never be restored into a machine of another shape. Build it again.
	ErrTemplateStale = errors.New("sandbox template does not fit this machine")
	// ErrTemplateDamaged means that a template's files are missing, have
	// another size, or do not match the hashes in its manifest.
	ErrTemplateDamaged = errors.New("sandbox template is damaged")
	// ErrMachineEnded is returned by operations on a machine that has ended;
	// Machine.Exit tells why.
	ErrMachineEnded = errors.New("sandbox machine has ended")
	// ErrUnavailable means that the driver cannot run here at all: a program is
	// missing, or nothing that it tried could boot.
	ErrUnavailable = errors.New("sandbox driver is not available on this machine")
)

// Driver starts machines. Implementations are safe for concurrent use and hold
// no global state: two drivers with different run directories do not meet.
type Driver interface {
	// Name is the driver's stable name, as it stands in manifests: "qemu".
	Name() string

	// Probe finds out what works here by booting something; that a device or
	// a binary exists proves nothing. It is bounded in time (see each driver)
	// as well as by ctx. The result is remembered by the driver, so later
	// calls are cheap. ErrUnavailable when nothing boots.
	Probe(ctx context.Context) (ProbeResult, error)

	// TemplateKey is the name under which the template for spec would be kept:
	// a hash over everything that makes a memory image unfit for another
	// machine (driver, accelerator, engine version, CPU model, machine type,
	// size, and the content of kernel, modules, root filesystem and guest).
	// It reads the files of spec to hash them. It probes when that has not
	// happened yet.
	TemplateKey(ctx context.Context, spec TemplateSpec) (string, error)

	// BuildTemplate boots spec once, waits until the guest answers, stops it,
	// and writes its memory and device state to spec.Dir, with a manifest
	// last, so that a half-written template is never taken for a whole one.
	// progress may be nil.
	BuildTemplate(ctx context.Context, spec TemplateSpec, progress Progress) (*Template, error)

	// OpenTemplate opens a template that BuildTemplate wrote: it checks the
	// manifest against this machine (ErrTemplateStale) and the files against
	// the manifest (ErrTemplateDamaged), and loads the memory image into a
	// write-sealed memory file from which machines are cloned.
	OpenTemplate(ctx context.Context, dir string) (*Template, error)

	// Start clones a machine from a template. The handles in spec stay the
	// caller's; the driver duplicates what it needs before Start returns. ctx
	// bounds the start only: the machine lives on until it ends or is killed.
	Start(ctx context.Context, spec StartSpec) (Machine, error)
}

// Machine is one running (or paused) sandbox. All methods are safe for
// concurrent use.
type Machine interface {
	// ID is StartSpec.ID.
	ID() string
	// PID is the process to account to, in the host's numbering.
	PID() int

	// Resume lets the virtual CPUs run; no error when they already do. The
	// guest's wall clock stood still while paused: see guest.Client.SetClock.
	Resume(ctx context.Context) error
	// Pause stops the virtual CPUs; memory stays. No error when paused already.
	Pause(ctx context.Context) error

	// Channel opens the raw byte channel to the guest. It has one user at a
	// time: opening it again closes the connection before. Most callers want
	// Guest; to let several clients in, relay them (guest.Relay) over one.
	Channel(ctx context.Context) (net.Conn, error)
	// Guest opens the channel and performs the handshake, so it needs the
	// machine to be running (not paused). The client is the caller's to close;
	// closing it neither stops the machine nor any command in it.
	Guest(ctx context.Context) (*guest.Client, error)

	// Metrics reads what the host spends on the machine.
	Metrics(ctx context.Context) (Metrics, error)

	// Done is closed when the machine's process is gone and reaped.
	Done() <-chan struct{}
	// Exit tells why the machine ended. It is only meaningful after Done.
	Exit() Exit

	// Kill ends the machine at once and returns when it is gone. Killing what
	// has already ended is no error.
	Kill(ctx context.Context) error
	// Close kills the machine if it still runs and removes all that Start
	// made (sockets, logs, handles). Idempotent.
	Close() error
}

// Accelerator says what executes the guest's instructions.
type Accelerator string

// The accelerators that drivers report.
const (
	// AcceleratorKVM is hardware virtualisation.
	AcceleratorKVM Accelerator = "kvm"
	// AcceleratorTCG is QEMU's software CPU: slow, and a real machine anywhere.
	AcceleratorTCG Accelerator = "tcg"
)

// ProbeResult is what Probe found.
type ProbeResult struct {
	Accelerator Accelerator   `json:"accelerator"`
	Version     string        `json:"version"`   // of the engine, e.g. "7.2.22"
	CPUModel    string        `json:"cpu_model"` // as given to the engine
	Machine     string        `json:"machine"`   // machine type, e.g. "microvm"
	Took        time.Duration `json:"took"`
	// Detail is one sentence for an operator: what was tried, and why what
	// would have been better was not chosen.
	Detail string `json:"detail"`
}

// Metrics is what the host spends on a machine.
type Metrics struct {
	RSSBytes int64         // resident memory of the machine's process, shared pages included
	PSSBytes int64         // proportional share; 0 where the host does not tell
	CPU      time.Duration // user and system time since the start
	Threads  int
}

// Reason says why a machine ended. There is always one.
type Reason string

// The reasons of an end.
const (
	// ReasonGuestShutdown: the guest powered itself off, as it was asked to.
	ReasonGuestShutdown Reason = "guest_shutdown"
	// ReasonGuestPanic: the guest's kernel or its agent failed.
	ReasonGuestPanic Reason = "guest_panic"
	// ReasonKilled: Kill or Close ended it.
	ReasonKilled Reason = "killed"
	// ReasonEngineCrash: the engine's process died by itself or by a signal
	// that nobody here sent.
	ReasonEngineCrash Reason = "engine_crash"
	// ReasonInternalError: the engine lives but can no longer run the guest
	// (KVM's "internal error", a failed restore).
	ReasonInternalError Reason = "internal_error"
	// ReasonOutOfMemory: the host's kernel killed the engine for memory.
	ReasonOutOfMemory Reason = "out_of_memory"
)

// Exit is the end of a machine.
type Exit struct {
	Reason Reason
	At     time.Time
	// Detail is for an operator: exit status and the engine's last words.
	Detail string
}
