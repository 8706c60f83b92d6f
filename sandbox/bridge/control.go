package bridge

import "time"

// ClaimRequest makes a warm machine a session's: it is resumed and configured.
// Repeated for the same session it does no harm.
type ClaimRequest struct {
	// Env is added to the environment of each command.
	Env map[string]string `json:"env,omitempty"`
	// GatewayToken identifies the sandbox to the gateway that outbound requests
	// go through.
	GatewayToken string `json:"gateway_token,omitempty"`
	DiskMiB      int    `json:"disk_mib,omitempty"`
}

// ClaimAnswer tells what the claim took.
type ClaimAnswer struct {
	// Fresh is false when the session had claimed it before: then it has the
	// session's files and needs no restore.
	Fresh       bool          `json:"fresh"`
	ResumeTook  time.Duration `json:"resume_took_ns"`
	ConfigTook  time.Duration `json:"configure_took_ns"`
	GuestKernel string        `json:"guest_kernel"`
}

// Status is the answer to a ping.
type Status struct {
	State string `json:"state"` // warm, running, paused
	// Active counts the operations that are under way through the bridge.
	Active int   `json:"active"`
	Epoch  int64 `json:"epoch"`
	Sealed bool  `json:"sealed"`

	RSSBytes   int64 `json:"rss_bytes"`
	PSSBytes   int64 `json:"pss_bytes"`
	CPUSeconds int64 `json:"cpu_seconds"`
}

// SealRequest closes a machine to everything but saving and ending, so that
// nothing can change between its last save and its end.
type SealRequest struct {
	// IfIdle refuses (CodeBusy) while a command runs or an operation is under way.
	IfIdle bool `json:"if_idle,omitempty"`
	// Release opens it again.
	Release bool `json:"release,omitempty"`
}

// EndRequest ends the machine at once.
type EndRequest struct {
	Reason string `json:"reason"`
}

// EndAnswer is the proof that the machine is gone: its process was killed and
// reaped by its parent, the allocation.
type EndAnswer struct {
	PID    int       `json:"pid"`
	GoneAt time.Time `json:"gone_at"`
	Detail string    `json:"detail"`
}
