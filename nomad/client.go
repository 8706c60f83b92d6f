package nomad

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"regexp"
	"time"

	"github.com/hashicorp/nomad/api"
)

// Config says which Nomad to talk to, and under which names.
type Config struct {
	// Address is the HTTP address of an agent, such as http://127.0.0.1:4646.
	Address string
	// Token is the secret id of an ACL token; empty where ACLs are off. It is
	// never logged.
	Token string
	// Namespace and Region are Nomad's; empty means its defaults.
	Namespace string
	Region    string
	// Prefix begins the id of each job, so that two Ambit instances can share a
	// cluster. Default "ambit".
	Prefix string
	// Timeout bounds one request that is not a stream. Default 10 s.
	Timeout time.Duration
}

// Client is safe for concurrent use.
type Client struct {
	api       *api.Client
	log       *slog.Logger
	namespace string
	prefix    string
	timeout   time.Duration
	transport *http.Transport
}

// ErrNotFound is returned for a job, node or allocation that Nomad does not know.
var ErrNotFound = errors.New("not known to Nomad")

var prefixRE = regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`)

// New makes a client; it does not connect. Close frees its connections.
func New(cfg Config, log *slog.Logger) (*Client, error) {
	if cfg.Address == "" {
		return nil, errors.New("nomad: no address given")
	}
	if cfg.Prefix == "" {
		cfg.Prefix = "ambit"
	}
	if !prefixRE.MatchString(cfg.Prefix) {
		return nil, fmt.Errorf("nomad: job prefix %q is not lower-case letters, digits and hyphens", cfg.Prefix)
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 10 * time.Second
	}
	// A transport of its own: closing its connections must not disturb others,
	// and the event stream must never meet a client-wide time limit.
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = 16
	c, err := api.NewClient(&api.Config{
		Address:    cfg.Address,
		SecretID:   cfg.Token,
		Namespace:  cfg.Namespace,
		Region:     cfg.Region,
		HttpClient: &http.Client{Transport: transport},
	})
	if err != nil {
		return nil, fmt.Errorf("nomad: make a client for %s: %w", cfg.Address, err)
	}
	return &Client{
		api:       c,
		log:       log.With("part", "nomad"),
		namespace: cfg.Namespace,
		prefix:    cfg.Prefix,
		timeout:   cfg.Timeout,
		transport: transport,
	}, nil
}

// Close drops idle connections. Streams end with their own contexts.
func (c *Client) Close() { c.transport.CloseIdleConnections() }

// Ready returns nil when the cluster has a leader and at least one eligible
// node whose raw_exec driver is healthy; the error says which is missing.
func (c *Client) Ready(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var leader string
	if _, err := c.api.Raw().Query("/v1/status/leader", &leader, c.query(ctx)); err != nil {
		return fmt.Errorf("nomad: ask for the leader: %w", err)
	}
	if leader == "" {
		return errors.New("nomad: the cluster has no leader yet")
	}
	nodes, err := c.Nodes(ctx)
	if err != nil {
		return err
	}
	why := "no node has registered yet"
	for _, n := range nodes {
		switch {
		case n.State != NodeReady:
			why = fmt.Sprintf("node %s is %s", n.Name, n.State)
		case !n.Eligible:
			why = fmt.Sprintf("node %s is not eligible", n.Name)
		case !n.RawExec:
			why = fmt.Sprintf("the raw_exec driver of node %s is not enabled and healthy", n.Name)
		default:
			return nil
		}
	}
	return fmt.Errorf("nomad: no usable node: %s", why)
}

// AwaitReady asks Ready until it says yes or the context ends; the error then
// carries the last reason.
func (c *Client) AwaitReady(ctx context.Context) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		err := c.Ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-tick.C:
		}
	}
}

func (c *Client) query(ctx context.Context) *api.QueryOptions {
	return (&api.QueryOptions{Namespace: c.namespace}).WithContext(ctx)
}

func (c *Client) write(ctx context.Context) *api.WriteOptions {
	return (&api.WriteOptions{Namespace: c.namespace}).WithContext(ctx)
}

// notFound turns Nomad's 404 into ErrNotFound and leaves other errors alone.
func notFound(err error) error {
	var resp api.UnexpectedResponseError
	if errors.As(err, &resp) && resp.StatusCode() == http.StatusNotFound {
		return fmt.Errorf("%w: %s", ErrNotFound, resp.Body())
	}
	return err
}
