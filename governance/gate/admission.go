package gate

import (
	"sync"
	"time"

	"ambit.dev/ambit/internal/fault"
	"ambit.dev/ambit/internal/id"
)

// Kind is the kind of an effect.
type Kind string

// The kinds. They are those of a step.
const (
	ModelCall Kind = "model_call"
	ToolCall  Kind = "tool_call"
	Exec      Kind = "exec"
	Sandbox   Kind = "sandbox"
)

// Digest is the SHA-256 of an effect's arguments in canonical JSON (RFC 8785).
type Digest [32]byte

// Grant is what an admission entitles to, handed out when it is consumed.
type Grant struct {
	Org     id.Org
	Session id.Session
	Step    id.Step
	// EffectKey is unique for ever. It goes to the other side, where that takes one, so that it can tell a repeat from a second effect.
	EffectKey string
	Epoch     int64
	ExpiresAt time.Time
}

// Admission is the right to one effect. Only the gate makes one; the zero value and nil are refused, as is one whose decision was not
// committed, one that was consumed, one that has expired, and one for another effect.
type Admission struct {
	mu       sync.Mutex
	armed    bool
	consumed bool
	kind     Kind
	digest   Digest
	grant    Grant
	now      func() time.Time
}

func refused(why string) error {
	return fault.New(fault.Forbidden, "permission_denied", "The effect was not admitted: "+why+".").With("rule", "gate.admission")
}

// Consume spends the admission on an effect of the given kind and digest. It succeeds once.
func (a *Admission) Consume(kind Kind, digest [32]byte) (Grant, error) {
	if a == nil {
		return Grant{}, refused("there is no admission")
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case !a.armed:
		return Grant{}, refused("its decision was never committed")
	case a.consumed:
		return Grant{}, refused("its admission was used before")
	case a.kind != kind || a.digest != digest:
		return Grant{}, refused("it is not the effect that was decided on")
	case !a.now().Before(a.grant.ExpiresAt):
		return Grant{}, refused("its admission has expired")
	}
	a.consumed = true
	return a.grant, nil
}

func (a *Admission) arm() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.armed = true
}
