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

// ServerReady says whether a client can register. On the very first start it
// switches access control on, so that not every program of this machine may run
// tasks as root.
func (p *Pair) ServerReady(ctx context.Context) error {
	if err := p.bootstrap(ctx); err != nil {
		return err
	}
	// The server opens its keyring in the background, and a client that comes
	// before that is refused and asks again only after 15 to 30 seconds. The
	// public keys can't be told before it is open.
	var keys struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := call(ctx, http.MethodGet, p.URL(), "/.well-known/jwks.json", "", nil, &keys); err != nil {
		return err
	}
	if len(keys.Keys) == 0 {
		return errors.New("the keyring is not there yet")
	}
	return nil
}

// ClientReady says whether the client can be given work. That the server calls
// its node ready would not do: it may speak of an earlier run.
func (p *Pair) ClientReady(ctx context.Context) error {
	var self struct {
		Stats struct {
			Client struct {
				TTL string `json:"heartbeat_ttl"`
			} `json:"client"`
		} `json:"stats"`
	}
	if err := call(ctx, http.MethodGet, address(p.ports.ClientHTTP), "/v1/agent/self", p.token, nil, &self); err != nil {
		return err
	}
	if ttl := self.Stats.Client.TTL; ttl == "" || ttl == "0s" {
		return errors.New("the client has not registered yet")
	}
	return NodeReady(ctx, p.URL(), p.token)
}

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

func (p *Pair) bootstrap(ctx context.Context) error {
	err := call(ctx, http.MethodPost, p.URL(), "/v1/acl/bootstrap", "", map[string]string{"BootstrapSecret": p.token}, nil)
	var refused *statusError
	if errors.As(err, &refused) && strings.Contains(refused.text, "already done") {
		return nil
	}
	return err
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
