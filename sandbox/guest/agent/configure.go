package agent

import (
	"maps"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"time"

	"ambit.dev/ambit/sandbox/guest"
)

// identity is whose sandbox this is.
type identity struct {
	mu      sync.Mutex
	id      string
	token   string
	env     map[string]string
	epoch   int64
	claimed bool
}

func (i *identity) configured() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.claimed
}

// fence admits an operation at epoch, and remembers the highest. A lower one
// belongs to a worker whose lease another has taken over.
func (i *identity) fence(epoch int64) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	if epoch < i.epoch {
		return guest.Errorf(guest.CodeStaleEpoch, "epoch %d is behind %d", epoch, i.epoch)
	}
	i.epoch = epoch
	return nil
}

func (i *identity) environment() map[string]string {
	i.mu.Lock()
	defer i.mu.Unlock()
	return maps.Clone(i.env)
}

var hostnamePattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)

func (s *Server) configure(_ *exchange, cfg guest.Configuration) (any, error) {
	switch {
	case cfg.SandboxID == "" || len(cfg.SandboxID) > 128:
		return nil, guest.Errorf(guest.CodeInvalid, "sandbox_id must have 1 to 128 characters")
	case len(cfg.Entropy) < 32 || len(cfg.Entropy) > 4096:
		return nil, guest.Errorf(guest.CodeInvalid, "entropy must have 32 to 4096 bytes")
	case cfg.Now.Year() < 2020:
		return nil, guest.Errorf(guest.CodeInvalid, "now is not a time of today")
	case cfg.Hostname != "" && !hostnamePattern.MatchString(cfg.Hostname):
		return nil, guest.Errorf(guest.CodeInvalid, "hostname must be one label of lower-case letters, digits and hyphens")
	case cfg.DiskMiB < 0 || cfg.DiskMiB > 1<<20:
		return nil, guest.Errorf(guest.CodeInvalid, "disk_mib is out of range")
	}
	if err := checkEnv(cfg.Env); err != nil {
		return nil, err
	}
	s.identity.mu.Lock()
	defer s.identity.mu.Unlock()
	if s.identity.claimed && s.identity.id != cfg.SandboxID {
		return nil, guest.Errorf(guest.CodeInvalid, "this guest belongs to another sandbox")
	}
	if cfg.Epoch < s.identity.epoch {
		return nil, guest.Errorf(guest.CodeStaleEpoch, "epoch %d is behind %d", cfg.Epoch, s.identity.epoch)
	}
	// Randomness first, before anything runs that would draw from it.
	if err := s.cfg.AddEntropy(cfg.Entropy); err != nil {
		return nil, err
	}
	if err := s.cfg.SetClock(cfg.Now); err != nil {
		return nil, err
	}
	if cfg.Hostname != "" {
		if err := s.cfg.SetHostname(cfg.Hostname); err != nil {
			return nil, err
		}
	}
	if cfg.DiskMiB > 0 {
		if err := s.cfg.ResizeWork(cfg.DiskMiB); err != nil {
			return nil, err
		}
	}
	s.identity.id, s.identity.token, s.identity.env = cfg.SandboxID, cfg.Token, cfg.Env
	s.identity.epoch, s.identity.claimed = cfg.Epoch, true
	return s.infoLocked(), nil
}

func (s *Server) setClock(_ *exchange, req guest.ClockRequest) (any, error) {
	if req.Now.Year() < 2020 {
		return nil, guest.Errorf(guest.CodeInvalid, "now is not a time of today")
	}
	return struct{}{}, s.cfg.SetClock(req.Now)
}

func (s *Server) info(_ *exchange, _ struct{}) (any, error) {
	s.identity.mu.Lock()
	defer s.identity.mu.Unlock()
	return s.infoLocked(), nil
}

func (s *Server) infoLocked() guest.Info {
	var uts syscall.Utsname
	_ = syscall.Uname(&uts)
	return guest.Info{
		Protocol:   guest.ProtocolVersion,
		Version:    s.cfg.Version,
		Kernel:     cString(uts.Release[:]),
		SandboxID:  s.identity.id,
		Configured: s.identity.claimed,
		Epoch:      s.identity.epoch,
		Now:        time.Now(),
		UptimeMS:   time.Since(s.start).Milliseconds(),
	}
}

func cString(b []int8) string {
	var out strings.Builder
	for _, c := range b {
		if c == 0 {
			break
		}
		out.WriteByte(byte(c)) //nolint:gosec // the kernel's chars are signed here, and are bytes
	}
	return out.String()
}

// shutdown answers first and ends the machine after, so that the client hears
// that it was heard.
func (s *Server) shutdown(x *exchange, _ struct{}) (any, error) {
	x.after = func() {
		s.killAll()
		s.cfg.PowerOff()
	}
	return struct{}{}, nil
}

// checkEnv refuses names that would corrupt an environment block.
func checkEnv(env map[string]string) error {
	if len(env) > 256 {
		return guest.Errorf(guest.CodeTooMany, "an environment has at most 256 variables")
	}
	for k, v := range env {
		if k == "" || len(k) > 256 || strings.ContainsAny(k, "=\x00") || strings.ContainsRune(v, 0) || len(v) > 64<<10 {
			return guest.Errorf(guest.CodeInvalid, "environment variable %.60q is malformed or too long", k)
		}
	}
	return nil
}
