package bridge

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// ClaimFile is what a dispatch hands to its allocation.
type ClaimFile struct {
	// Control is the base URL of the control plane's internal endpoints.
	Control string `json:"control"`
	// Secret is for the first report only.
	Secret string `json:"secret"`
	// Keys are the instance's published keys at the time of the dispatch.
	Keys jose.JSONWebKeySet `json:"keys"`
}

// Paths of the reports, below the control plane's base URL.
const (
	ReadyPath     = "/internal/sandboxes/{id}/ready"
	HeartbeatPath = "/internal/sandboxes/{id}/heartbeat"
	StoppingPath  = "/internal/sandboxes/{id}/stopping"
	EndedPath     = "/internal/sandboxes/{id}/ended"
	NodePath      = "/internal/nodes/{id}"
	KeysPath      = "/.well-known/jwks.json"
)

// ReadyReport says that a machine waits, and where. It carries the one-time
// secret; Token is what all later reports will carry.
type ReadyReport struct {
	Token       string `json:"token"`
	JobID       string `json:"job_id"`
	AllocID     string `json:"alloc_id"`
	NodeID      string `json:"node_id"`
	Address     string `json:"address"`
	Driver      string `json:"driver"`
	Accelerator string `json:"accelerator"`
	// Took is from the start of the process to the paused machine.
	Took time.Duration `json:"took_ns"`
}

// HeartbeatReport says that a machine lives.
type HeartbeatReport struct {
	Status
	// Commands counts the commands that run in the guest, watched or not.
	Commands int `json:"commands"`
}

// EndedReport says that a machine is gone, and why.
type EndedReport struct {
	Reason string    `json:"reason"`
	Detail string    `json:"detail"`
	PID    int       `json:"pid"`
	GoneAt time.Time `json:"gone_at"`
}

// TemplateState is how far a node's template is.
type TemplateState string

// The states of a template.
const (
	TemplateAbsent   TemplateState = "absent"
	TemplateBuilding TemplateState = "building"
	TemplateReady    TemplateState = "ready"
	TemplateFailed   TemplateState = "failed"
)

// NodeReport is what a node service says of its machine.
type NodeReport struct {
	Name          string        `json:"name"`
	Driver        string        `json:"driver"`
	Accelerator   string        `json:"accelerator"`
	DriverVersion string        `json:"driver_version"`
	Detail        string        `json:"detail"`
	TemplateKey   string        `json:"template_key"`
	TemplateState TemplateState `json:"template_state"`
	Phase         string        `json:"phase"`
	Progress      float64       `json:"progress"`
	Error         string        `json:"error"`
	StartedAt     time.Time     `json:"started_at"`
}

// ErrUnwanted means that the control plane does not know the sandbox, or does
// not want it any more: it must end itself.
var ErrUnwanted = errors.New("the control plane does not want this sandbox")

// Home sends reports to the control plane.
type Home struct {
	base   string
	client *http.Client
}

// NewHome sends to a base URL such as http://127.0.0.1:8080.
func NewHome(base string, client *http.Client) *Home {
	return &Home{base: strings.TrimSuffix(base, "/"), client: client}
}

// KeysURL is where the instance publishes its keys.
func (h *Home) KeysURL() string { return h.base + KeysPath }

// Send posts one report, once. Path is one of the paths above.
func (h *Home) Send(ctx context.Context, path, id, secret string, report any) error {
	body, err := json.Marshal(report)
	if err != nil {
		return fmt.Errorf("encode a report: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, h.base+strings.Replace(path, "{id}", id, 1), bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("report to the control plane: %w", err)
	}
	req.Header.Set("Authorization", "Bearer "+secret)
	req.Header.Set("Content-Type", "application/json")
	resp, err := h.client.Do(req)
	if err != nil {
		return fmt.Errorf("report to the control plane: %w", err)
	}
	defer resp.Body.Close() //nolint:errcheck // read only
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10))
	switch {
	case resp.StatusCode < 300:
		return nil
	case resp.StatusCode == http.StatusNotFound || resp.StatusCode == http.StatusGone || resp.StatusCode == http.StatusUnauthorized:
		return fmt.Errorf("%w: %s", ErrUnwanted, resp.Status)
	default:
		return fmt.Errorf("report to the control plane: %s", resp.Status)
	}
}

// Insist posts one report until it is taken, refused for good, or the context
// ends.
func (h *Home) Insist(ctx context.Context, path, id, secret string, report any) error {
	pause := 50 * time.Millisecond
	for {
		err := h.Send(ctx, path, id, secret, report)
		if err == nil || errors.Is(err, ErrUnwanted) {
			return err
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(pause):
		}
		pause = min(2*pause, 2*time.Second)
	}
}
