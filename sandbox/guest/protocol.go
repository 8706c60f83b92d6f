package guest

import (
	"time"
)

// ProtocolVersion is what this build speaks. The guest answers one version
// only: templates are rebuilt whenever the guest binary changes.
const ProtocolVersion = 1

// WorkDir is the working directory inside every sandbox. All file operations
// are confined to it.
const WorkDir = "/work"

// OutputDir is where, relative to WorkDir, the whole output of a command is
// kept as a file when it was longer than what was streamed.
const OutputDir = ".ambit/outputs"

// A driver that only wants to know whether a machine boots puts ProbeArgument on
// the kernel's command line. The guest then prints ProbeWord on the console and
// powers off.
const (
	ProbeArgument = "ambit.probe"
	ProbeWord     = "ambit-guest-alive"
)

// Limits of the protocol. Larger requests are refused, never cut silently.
const (
	// MaxStdin is how much standard input an Exec may carry, in bytes.
	MaxStdin = 512 << 10
	// MaxRead is the most that one ReadFile or ReadOutput returns, in bytes.
	MaxRead = 8 << 20
	// MaxWrite is the most that one WriteFile takes, in bytes.
	MaxWrite = 64 << 20
	// MaxListPage is the most entries that one List returns.
	MaxListPage = 1000
	// DefaultTimeLimit bounds a command that names no limit of its own.
	DefaultTimeLimit = 2 * time.Minute
	// MaxTimeLimit is the longest that a command may ask for.
	MaxTimeLimit = 24 * time.Hour
	// DefaultOutputLimit is how many bytes of output (both streams together)
	// are streamed when the request names no limit.
	DefaultOutputLimit = 256 << 10
	// DefaultKeepLimit is how many bytes of output the guest keeps for one
	// command; what comes after is counted and dropped.
	DefaultKeepLimit = 8 << 20
	// MaxKeepLimit bounds KeepLimit.
	MaxKeepLimit = 32 << 20
)

// Op names an operation on the wire.
type Op string

// The operations.
const (
	OpInfo       Op = "info"
	OpConfigure  Op = "configure"
	OpWarm       Op = "warm"
	OpClock      Op = "clock"
	OpExec       Op = "exec"
	OpAttach     Op = "attach"
	OpSignal     Op = "signal"
	OpReadOutput Op = "read_output"
	OpReadFile   Op = "read_file"
	OpWriteFile  Op = "write_file"
	OpList       Op = "list"
	OpStat       Op = "stat"
	OpRemove     Op = "remove"
	OpSave       Op = "save"
	OpRestore    Op = "restore"
	OpMetrics    Op = "metrics"
	OpShutdown   Op = "shutdown"
)

// Info is what the guest says of itself.
type Info struct {
	Protocol   int       `json:"protocol"`
	Version    string    `json:"version"` // of the guest binary
	Kernel     string    `json:"kernel"`
	SandboxID  string    `json:"sandbox_id"` // as configured; empty before
	Configured bool      `json:"configured"`
	Epoch      int64     `json:"epoch"` // the highest seen
	Now        time.Time `json:"now"`   // the guest's wall clock
	UptimeMS   int64     `json:"uptime_ms"`
}

// Configuration makes a clone into somebody's sandbox. Until it was sent the
// guest refuses commands and files: a clone's random numbers and clock are
// those of its template.
type Configuration struct {
	SandboxID string `json:"sandbox_id"`
	// Now is the wall clock to set; Client.Configure fills it in when zero.
	Now time.Time `json:"now"`
	// Entropy seeds the guest's random number generator; at least 32 bytes,
	// filled in by Client.Configure when empty.
	Entropy []byte `json:"entropy"`
	// Token identifies this sandbox to the gateway that its outbound requests
	// go through. It stays in the guest agent's memory, out of reach of
	// commands.
	Token    string `json:"token,omitempty"`
	Hostname string `json:"hostname,omitempty"`
	// Env is added to the environment of every command.
	Env map[string]string `json:"env,omitempty"`
	// Epoch is the lease epoch of the session; never lower than one before.
	Epoch int64 `json:"epoch"`
	// DiskMiB bounds the working directory; 0 keeps the template's (40% of
	// the memory, which it shares).
	DiskMiB int `json:"disk_mib,omitempty"`
}

// ExecRequest runs one command. Either Argv or Script is set.
type ExecRequest struct {
	// EffectKey names the effect for ever: 1 to 128 characters of
	// [A-Za-z0-9_.:-]. The same key with the same command attaches to what
	// already runs or ran; with another command it is refused.
	EffectKey string `json:"effect_key"`
	// Epoch is the caller's lease epoch; lower than the highest seen is refused.
	Epoch int64 `json:"epoch"`
	// Argv is run directly, found on the PATH.
	Argv []string `json:"argv,omitempty"`
	// Script is run by bash, or by the interpreter in Argv when both are set
	// (the script is then a file whose path is appended to Argv).
	Script string `json:"script,omitempty"`
	// Cwd is absolute or relative to WorkDir; empty is WorkDir. It may lie
	// anywhere that the command's user may enter.
	Cwd string            `json:"cwd,omitempty"`
	Env map[string]string `json:"env,omitempty"`
	// Stdin is the whole standard input, at most MaxStdin bytes.
	Stdin []byte `json:"stdin,omitempty"`
	// TimeLimit ends the command and all that it started; 0 is
	// DefaultTimeLimit. It counts the guest's running time: a paused sandbox
	// does not run out of it.
	TimeLimit time.Duration `json:"time_limit_ns,omitempty"`
	// OutputLimit is how many bytes are streamed; 0 is DefaultOutputLimit.
	OutputLimit int64 `json:"output_limit,omitempty"`
	// KeepLimit is how many bytes are kept; 0 is DefaultKeepLimit.
	KeepLimit int64 `json:"keep_limit,omitempty"`
}

// AttachRequest attaches to a command by its effect key.
type AttachRequest struct {
	EffectKey string `json:"effect_key"`
	Epoch     int64  `json:"epoch"`
	// OutputLimit is how many bytes are streamed, counted from the start of
	// the command's output; 0 takes what the command was started with.
	OutputLimit int64 `json:"output_limit,omitempty"`
}

// Stream tells standard output and standard error apart.
type Stream uint8

// The two streams of a command.
const (
	Stdout Stream = 1
	Stderr Stream = 2
)

// Chunk is a piece of a command's output. Within a stream the order is the
// command's; between the two it is that in which the guest read them. Data is
// only valid until the next call of Next.
type Chunk struct {
	Stream Stream
	Data   []byte
}

// Started is the guest's first answer to exec and attach.
type Started struct {
	EffectKey  string    `json:"effect_key"`
	Reattached bool      `json:"reattached"`
	Running    bool      `json:"running"`
	StartedAt  time.Time `json:"started_at"`
}

// ExecResult is how a command ended.
type ExecResult struct {
	EffectKey string `json:"effect_key"`
	// ExitCode is the main process's; 128 + n when signal n ended it.
	ExitCode int `json:"exit_code"`
	// Signal is the name of the signal that ended it ("SIGKILL"), or empty.
	Signal string `json:"signal,omitempty"`
	// TimedOut: the time limit ended it.
	TimedOut bool `json:"timed_out,omitempty"`
	// OutOfMemory: the kernel killed at least one of its processes for memory.
	OutOfMemory bool `json:"out_of_memory,omitempty"`
	// Killed: a Signal request ended it.
	Killed bool `json:"killed,omitempty"`
	// ProcessesRefused: it met the limit on processes.
	ProcessesRefused bool `json:"processes_refused,omitempty"`

	StdoutBytes int64 `json:"stdout_bytes"` // written in all
	StderrBytes int64 `json:"stderr_bytes"`
	// Streamed is how many bytes this attachment received. Truncated means
	// that there was more than that.
	Streamed  int64 `json:"streamed"`
	Truncated bool  `json:"truncated,omitempty"`
	// Dropped is how many bytes at the end were not kept at all, because the
	// output was longer than the keep limit.
	Dropped int64 `json:"dropped,omitempty"`
	// OutputPath is the file below WorkDir that has all that was kept. It is
	// made when the output was longer than the output limit; empty otherwise,
	// and when the disk is full (ReadOutput still has it then).
	OutputPath string `json:"output_path,omitempty"`
	// Tail is the last piece of a truncated output, at most 4 KiB.
	Tail []byte `json:"tail,omitempty"`

	StartedAt time.Time     `json:"started_at"`
	Duration  time.Duration `json:"duration_ns"`
	// CPU is the processor time of the command and all its children, 0 where
	// the guest cannot tell.
	CPU time.Duration `json:"cpu_ns,omitempty"`
	// PeakMemory is in bytes, 0 where the guest cannot tell.
	PeakMemory int64 `json:"peak_memory,omitempty"`
}

// SignalRequest sends a signal to a command. SIGKILL (9) goes to every process
// that the command started, however deep; others to its process group.
type SignalRequest struct {
	EffectKey string `json:"effect_key"`
	Epoch     int64  `json:"epoch"`
	Signal    int    `json:"signal"`
}

// ReadRequest reads part of a file.
type ReadRequest struct {
	Path   string `json:"path"`
	Offset int64  `json:"offset,omitempty"`
	// Limit is the most bytes to return; 0 is MaxRead, more is refused.
	Limit int64 `json:"limit,omitempty"`
}

// ReadResult is part of a file.
type ReadResult struct {
	Data []byte `json:"-"`
	Entry
}

// WriteRequest replaces a file atomically: readers see the old or the new.
type WriteRequest struct {
	Path  string `json:"path"`
	Epoch int64  `json:"epoch"`
	// Mode is the permission bits; 0 keeps those of the file that is replaced,
	// or is 0644 for a new one.
	Mode uint32 `json:"mode,omitempty"`
	// Parents makes missing directories.
	Parents bool `json:"parents,omitempty"`
	// Exclusive refuses to replace (CodeExists).
	Exclusive bool `json:"exclusive,omitempty"`
	// Size is the exact number of bytes that follow; at most MaxWrite.
	Size int64 `json:"size"`
}

// ReadOutputRequest reads kept output of a command.
type ReadOutputRequest struct {
	EffectKey string `json:"effect_key"`
	Offset    int64  `json:"offset,omitempty"`
	Limit     int64  `json:"limit,omitempty"` // 0 is MaxRead
}

// Warmth says how much Warm runs.
type Warmth string

// How much Warm runs.
const (
	// WarmShell runs a shell: some 200 ms of a host CPU under a software CPU.
	WarmShell Warmth = "shell"
	// WarmAll also starts Python with its common modules, and git: some 2 s.
	WarmAll Warmth = "all"
)

// WarmRequest says what to run.
type WarmRequest struct {
	What Warmth `json:"what"`
}

// ClockRequest sets the guest's wall clock.
type ClockRequest struct {
	Now time.Time `json:"now"`
}

// FileType is what a path is.
type FileType string

// The types of file that a listing tells apart.
const (
	TypeFile      FileType = "file"
	TypeDirectory FileType = "directory"
	TypeSymlink   FileType = "symlink"
	TypeOther     FileType = "other"
)

// Entry is a file as seen by List and Stat. Path is relative to WorkDir.
type Entry struct {
	Path    string    `json:"path"`
	Type    FileType  `json:"type"`
	Size    int64     `json:"size"`
	Mode    uint32    `json:"mode"` // permission bits
	ModTime time.Time `json:"mod_time"`
	Target  string    `json:"target,omitempty"` // of a symlink, as written
}

// ListRequest lists a directory, ordered by path.
type ListRequest struct {
	Path      string `json:"path"`
	Recursive bool   `json:"recursive,omitempty"`
	// After continues behind this path (the last of the page before).
	After string `json:"after,omitempty"`
	// Limit is 1 to MaxListPage; 0 is MaxListPage.
	Limit int `json:"limit,omitempty"`
}

// ListResult is a page of entries. A page with long names may be shorter than
// the limit; More alone tells whether it is the last.
type ListResult struct {
	Entries []Entry `json:"entries"`
	More    bool    `json:"more"`
}

// PathRequest names a path.
type PathRequest struct {
	Path string `json:"path"`
}

// RemoveRequest removes a file or directory. The working directory itself
// cannot be removed.
type RemoveRequest struct {
	Path      string `json:"path"`
	Epoch     int64  `json:"epoch"`
	Recursive bool   `json:"recursive,omitempty"`
}

// Archive describes a saved working directory: a zstd-compressed tar with its
// entries in byte order of their paths.
type Archive struct {
	// SHA256 is of the archive as streamed, in lower-case hex.
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
	// Files counts regular files, ContentBytes their sizes.
	Files        int64 `json:"files"`
	ContentBytes int64 `json:"content_bytes"`
}

// RestoreRequest replaces the working directory by an archive. When anything
// fails, the working directory is left empty, never half restored.
type RestoreRequest struct {
	Epoch  int64  `json:"epoch"`
	SHA256 string `json:"sha256"`
	Bytes  int64  `json:"bytes"`
}

// Metrics is what the guest sees of itself. Sizes are in bytes.
type Metrics struct {
	MemoryTotal     int64  `json:"memory_total"`
	MemoryAvailable int64  `json:"memory_available"`
	CommandMemory   int64  `json:"command_memory"` // of all commands and what they left on the disk
	DiskTotal       int64  `json:"disk_total"`     // of the working directory
	DiskUsed        int64  `json:"disk_used"`
	Processes       int    `json:"processes"` // of commands
	Commands        int    `json:"commands"`  // running
	Load1           string `json:"load1"`
}
