package agent

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"sync"
	"time"

	"ambit.dev/ambit/sandbox/guest"
)

// Bounds of what is remembered. The state directory is a tmpfs and takes memory
// that commands could use.
const (
	// maxRunning bounds commands at one time.
	maxRunning = 64
	// maxKeptOutput is how many bytes of output all finished commands keep
	// together; the oldest lose theirs first. Results are small and stay.
	maxKeptOutput = 24 << 20
	// maxEffects bounds the results. A session of that many commands in one
	// sandbox's life forgets its first ones; the journal has them settled.
	maxEffects = 20000
)

// effect is one command, from its start until the sandbox ends.
type effect struct {
	key     string
	serial  int    // of all commands of this sandbox; names its cgroup and files
	digest  string // of the request, without its epoch
	limit   int64  // output limit of the request
	started time.Time
	spool   *spool
	group   *cgroup

	mu       sync.Mutex
	pid      int // 0 before the start and after the end
	spawned  bool
	killed   bool
	timedOut bool
	result   *guest.ExecResult

	ready chan struct{} // closed when spool is set, which it stays
	done  chan struct{} // closed with result set
}

// effects is every command by its key, in the order of their start.
type effects struct {
	mu      sync.Mutex
	byKey   map[string]*effect
	order   []*effect
	running int
	serial  int
	closed  bool
}

// requestDigest tells whether two requests are the same command. The epoch is
// not part of it: a new worker asks again under a higher one.
func requestDigest(req guest.ExecRequest) string {
	req.Epoch = 0
	b, err := json.Marshal(req) // map keys are sorted
	if err != nil {
		return ""
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// claim finds the effect of a request, or reserves its key. fresh tells which;
// a fresh effect must be launched, or settled with fail.
func (t *effects) claim(req guest.ExecRequest) (e *effect, fresh bool, err error) {
	digest := requestDigest(req)
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byKey[req.EffectKey]; e != nil {
		if e.digest != digest {
			return nil, false, guest.Errorf(guest.CodeEffectMismatch, "effect key %s was used for another command", req.EffectKey)
		}
		return e, false, nil
	}
	if t.closed {
		return nil, false, guest.Errorf(guest.CodeInternal, "the sandbox is shutting down")
	}
	if t.running >= maxRunning {
		return nil, false, guest.Errorf(guest.CodeTooMany, "%d commands are running already", t.running)
	}
	t.serial++
	e = &effect{key: req.EffectKey, serial: t.serial, digest: digest, limit: req.OutputLimit, started: time.Now(), ready: make(chan struct{}), done: make(chan struct{})}
	t.byKey[req.EffectKey] = e
	t.order = append(t.order, e)
	t.running++
	return e, true, nil
}

func (t *effects) find(key string) (*effect, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.byKey[key]; e != nil {
		return e, nil
	}
	return nil, guest.Errorf(guest.CodeEffectUnknown, "no command was run under effect key %.140q", key)
}

// finished counts a command's end and drops the oldest output beyond the bound.
func (t *effects) finished() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.running--
	var kept int64
	for i := len(t.order) - 1; i >= 0; i-- {
		e := t.order[i]
		if !e.ended() || e.spool == nil {
			continue
		}
		st := e.spool.state()
		if kept += st.kept; kept > maxKeptOutput && st.kept > 0 {
			kept -= st.kept
			e.spool.evict()
		}
	}
	for len(t.order) > maxEffects && t.order[0].ended() {
		if t.order[0].spool != nil {
			t.order[0].spool.evict()
		}
		delete(t.byKey, t.order[0].key)
		t.order = t.order[1:]
	}
}

func (t *effects) all() []*effect {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]*effect(nil), t.order...)
}

func (e *effect) ended() bool {
	select {
	case <-e.done:
		return true
	default:
		return false
	}
}

// killAll ends every command and lets no new one start.
func (s *Server) killAll() {
	s.effects.mu.Lock()
	s.effects.closed = true
	s.effects.mu.Unlock()
	for _, e := range s.effects.all() {
		e.kill()
	}
	for _, e := range s.effects.all() {
		<-e.done
	}
}
