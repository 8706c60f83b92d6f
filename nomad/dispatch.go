package nomad

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/hashicorp/nomad/api"
)

const (
	metaSandbox     = "sandbox"
	metaEnvironment = "environment"
	payloadFile     = "claim.json"
	maxPayload      = 16 << 10
)

// Dispatch asks for one sandbox.
type Dispatch struct {
	// Sandbox is the sandbox's id. Dispatching the same one again returns the
	// job of the first time.
	Sandbox string
	// Environment is the id or name of the template that it is cloned from.
	Environment string
	// Payload reaches the process as the file local/claim.json of its task
	// directory; at most 16 KiB.
	Payload []byte
}

func (d Dispatch) validate() error {
	switch {
	case !tokenRE.MatchString(d.Sandbox):
		return fmt.Errorf("nomad: sandbox id %q cannot name a job", d.Sandbox)
	case d.Environment != "" && !tokenRE.MatchString(d.Environment):
		return fmt.Errorf("nomad: environment %q cannot be a job's meta", d.Environment)
	case len(d.Payload) == 0:
		return errors.New("nomad: a dispatch needs a payload")
	case len(d.Payload) > maxPayload:
		return fmt.Errorf("nomad: payload of %d bytes, at most %d fit", len(d.Payload), maxPayload)
	}
	return nil
}

// Dispatch starts one sandbox and returns the id of its job, without waiting
// for it to run.
func (c *Client) Dispatch(ctx context.Context, d Dispatch) (jobID string, err error) {
	if err := d.validate(); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	w := c.write(ctx)
	w.IdempotencyToken = d.Sandbox
	meta := map[string]string{metaSandbox: d.Sandbox}
	if d.Environment != "" {
		meta[metaEnvironment] = d.Environment
	}
	resp, _, err := c.api.Jobs().DispatchOpts(&api.DispatchOptions{
		JobID: c.SandboxJobID(), Meta: meta, Payload: d.Payload, IdPrefixTemplate: d.Sandbox,
	}, w)
	if err != nil {
		return "", fmt.Errorf("nomad: dispatch sandbox %s: %w", d.Sandbox, notFound(err))
	}
	return resp.DispatchedJobID, nil
}

// SandboxOf returns the sandbox's id from the id of a dispatched job, and
// whether it is one of ours. The id is in the name, so that a job whose dispatch
// was never recorded can still be recognised.
func (c *Client) SandboxOf(jobID string) (string, bool) {
	rest, ok := strings.CutPrefix(jobID, c.SandboxJobID()+"/dispatch-")
	if !ok {
		return "", false
	}
	for range 2 { // what follows the id: "-<unix seconds>-<eight hex digits>"
		i := strings.LastIndexByte(rest, '-')
		if i < 0 {
			return "", false
		}
		rest = rest[:i]
	}
	return rest, rest != ""
}

// Stop asks Nomad to end a job: SIGTERM, then SIGKILL after the kill time-out.
// It returns when Nomad has noted the wish, not when the process is gone. With
// purge, the job's record is removed too and no terminal event will come. A job
// that Nomad does not know is no error.
func (c *Client) Stop(ctx context.Context, jobID string, purge bool) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	_, _, err := c.api.Jobs().DeregisterOpts(jobID, &api.DeregisterOptions{
		Purge: purge, NoShutdownDelay: true, EvalPriority: 90,
	}, c.write(ctx))
	if err != nil {
		return fmt.Errorf("nomad: stop job %s: %w", jobID, notFound(err))
	}
	return nil
}

// JobRef is one job in a list.
type JobRef struct {
	ID string
	// Stopped says that somebody asked for its end.
	Stopped bool
	// Dead says that nothing of it runs any more.
	Dead bool
}

// SandboxJobs lists the dispatched sandboxes that Nomad still has a record of,
// those that ended included.
func (c *Client) SandboxJobs(ctx context.Context) ([]JobRef, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	q := c.query(ctx)
	q.Prefix = c.SandboxJobID() + "/"
	list, _, err := c.api.Jobs().List(q)
	if err != nil {
		return nil, fmt.Errorf("nomad: list sandbox jobs: %w", err)
	}
	refs := make([]JobRef, 0, len(list))
	for _, j := range list {
		refs = append(refs, JobRef{ID: j.ID, Stopped: j.Stop, Dead: j.Status == "dead"})
	}
	return refs, nil
}

// CollectGarbage asks Nomad to forget what has ended, on servers and clients.
func (c *Client) CollectGarbage(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()

	if _, err := c.api.Raw().Write("/v1/system/gc", nil, nil, c.write(ctx)); err != nil {
		return fmt.Errorf("nomad: collect garbage: %w", err)
	}
	return nil
}
