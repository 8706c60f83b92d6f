package nomadagent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
)

// Ready says whether the agent's node can be given work.
func (a *Agent) Ready(ctx context.Context) error { return NodeReady(ctx, a.URL(), a.token) }

// NodeReady asks any Nomad whether at least one node is ready and eligible.
func NodeReady(ctx context.Context, address, token string) error {
	var nodes []struct {
		Status                string
		SchedulingEligibility string
		Drivers               map[string]struct{ Healthy bool }
	}
	if err := call(ctx, http.MethodGet, address, "/v1/nodes", token, nil, &nodes); err != nil {
		return err
	}
	reason := "no node has registered yet"
	for _, n := range nodes {
		switch {
		case n.Status != "ready":
			reason = "the node is " + n.Status
		case n.SchedulingEligibility != "eligible":
			reason = "the node is " + n.SchedulingEligibility
		case !n.Drivers["raw_exec"].Healthy:
			reason = "the node's raw_exec driver is not healthy"
		default:
			return nil
		}
	}
	return errors.New(reason)
}

// Version asks a Nomad for its version.
func Version(ctx context.Context, address, token string) (string, error) {
	var self struct {
		Config struct {
			Version struct{ Version string }
		} `json:"config"`
	}
	err := call(ctx, http.MethodGet, address, "/v1/agent/self", token, nil, &self)
	return self.Config.Version.Version, err
}

func (a *Agent) bootstrap(ctx context.Context) error {
	err := call(ctx, http.MethodPost, a.URL(), "/v1/acl/bootstrap", "", map[string]string{"BootstrapSecret": a.token}, nil)
	var refused *statusError
	// Our own earlier try may have come through without its answer.
	if errors.As(err, &refused) && strings.Contains(refused.text, "already done") {
		return nil
	}
	return err
}

func (a *Agent) keyringReady(ctx context.Context) error {
	var keys []struct{ State string }
	if err := call(ctx, http.MethodGet, a.URL(), "/v1/operator/keyring/keys", a.token, nil, &keys); err != nil {
		return err
	}
	for _, k := range keys {
		if k.State == "active" {
			return nil
		}
	}
	return errors.New("the keyring is not there yet")
}

type statusError struct {
	status int
	text   string
}

func (e *statusError) Error() string { return fmt.Sprintf("Nomad answered %d: %s", e.status, e.text) }

func call(ctx context.Context, method, address, path, token string, in, out any) error {
	var body io.Reader = http.NoBody
	if in != nil {
		b, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, strings.TrimSuffix(address, "/")+path, body)
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("X-Nomad-Token", token)
	}
	req.Close = true // polled rarely: no idle connection is worth its goroutines
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return &statusError{status: resp.StatusCode, text: strings.TrimSpace(string(b[:min(len(b), 300)]))}
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(b, out)
}
