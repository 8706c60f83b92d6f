package nomad

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/hashicorp/nomad/api"
)

// Task describes the one process of a job.
type Task struct {
	// Command is the absolute path of the program on each node.
	Command string
	Args    []string
	// Env is added to the process's environment. Names are variable names;
	// values are literal. AMBIT_NODE_ID and AMBIT_NODE_NAME are there always.
	Env map[string]string
	// Build identifies the program's content (a hash). A changed build makes
	// Nomad replace what runs; the same build leaves it untouched.
	Build string
	// CPUMHz is the share asked of the scheduler, not a ceiling.
	CPUMHz int
	// MemoryMB is asked of the scheduler and, as root, enforced by the kernel.
	MemoryMB int
	// KillTimeout is how long the process has between SIGTERM and SIGKILL.
	KillTimeout time.Duration
}

func (t Task) validate() error {
	switch {
	case !filepath.IsAbs(t.Command):
		return fmt.Errorf("nomad: command %q is not an absolute path", t.Command)
	case t.MemoryMB < 10:
		return fmt.Errorf("nomad: memory of %d MB is too small", t.MemoryMB)
	case t.CPUMHz < 1:
		return fmt.Errorf("nomad: CPU share of %d MHz is too small", t.CPUMHz)
	case t.KillTimeout <= 0:
		return errors.New("nomad: no kill time-out given")
	}
	if err := plain("command", t.Command); err != nil {
		return err
	}
	for _, a := range t.Args {
		if err := plain("argument", a); err != nil {
			return err
		}
	}
	if err := plain("build", t.Build); err != nil {
		return err
	}
	return plainMap("environment variable", t.Env)
}

func (t Task) task(name string) *api.Task {
	args := make([]any, len(t.Args))
	for i, a := range t.Args {
		args[i] = a
	}
	// These two are expressions on purpose: only the client knows its node.
	env := map[string]string{"AMBIT_NODE_ID": "${node.unique.id}", "AMBIT_NODE_NAME": "${node.unique.name}"}
	maps.Copy(env, t.Env)
	return &api.Task{
		Name:        name,
		Driver:      "raw_exec",
		Config:      map[string]any{"command": t.Command, "args": args},
		Env:         env,
		KillSignal:  "SIGTERM",
		KillTimeout: new(t.KillTimeout),
		Resources:   &api.Resources{CPU: new(t.CPUMHz), MemoryMB: new(t.MemoryMB)},
		LogConfig:   &api.LogConfig{MaxFiles: new(2), MaxFileSizeMB: new(2)},
		Meta:        map[string]string{"build": t.Build},
	}
}

// NodeJobID is the id of the system job that runs the node service.
func (c *Client) NodeJobID() string { return c.prefix + "-node" }

// SandboxJobID is the id of the parameterised job whose dispatches are sandboxes.
func (c *Client) SandboxJobID() string { return c.prefix + "-sandbox" }

// RegisterNodeJob runs t once on each node and keeps it running: Nomad restarts
// it for ever, a second apart. Registering the same job again changes nothing.
func (c *Client) RegisterNodeJob(ctx context.Context, t Task) error {
	if err := t.validate(); err != nil {
		return err
	}
	group := c.group("node", t.task("service"))
	group.RestartPolicy = &api.RestartPolicy{
		Attempts: new(30), Interval: new(time.Minute), Delay: new(time.Second), Mode: new("delay"),
	}
	return c.register(ctx, &api.Job{
		ID: new(c.NodeJobID()), Name: new(c.NodeJobID()), Type: new("system"),
		// Above the sandboxes: without its node service a machine can start none.
		Priority: new(80), TaskGroups: []*api.TaskGroup{group},
	})
}

// RegisterSandboxJob declares the job that Dispatch starts copies of. Nothing
// runs yet. A sandbox that ends is never started again by Nomad: whether another
// is wanted is the pool's decision.
func (c *Client) RegisterSandboxJob(ctx context.Context, t Task) error {
	if err := t.validate(); err != nil {
		return err
	}
	task := t.task("sandbox")
	// The secret travels in the payload, as a file of the task: meta would show
	// it in listings and in the environment of every process of the task.
	task.DispatchPayload = &api.DispatchPayloadConfig{File: payloadFile}
	group := c.group("sandbox", task)
	group.RestartPolicy = &api.RestartPolicy{
		Attempts: new(0), Interval: new(24 * time.Hour), Delay: new(time.Second), Mode: new("fail"),
	}
	group.ReschedulePolicy = &api.ReschedulePolicy{
		Attempts: new(0), Interval: new(24 * time.Hour), Unlimited: new(false),
	}
	group.Disconnect = &api.DisconnectStrategy{Replace: new(false)}
	return c.register(ctx, &api.Job{
		ID: new(c.SandboxJobID()), Name: new(c.SandboxJobID()), Type: new("batch"),
		Priority: new(50), TaskGroups: []*api.TaskGroup{group},
		ParameterizedJob: &api.ParameterizedJobConfig{
			Payload: "required", MetaRequired: []string{metaSandbox}, MetaOptional: []string{metaEnvironment},
		},
	})
}

func (c *Client) group(name string, task *api.Task) *api.TaskGroup {
	return &api.TaskGroup{
		Name: new(name), Count: new(1), Tasks: []*api.Task{task},
		// Without this each allocation reserves 300 MB of the node's disk.
		EphemeralDisk: &api.EphemeralDisk{SizeMB: new(20)},
	}
}

func (c *Client) register(ctx context.Context, job *api.Job) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	job.Datacenters = []string{"*"}
	if c.namespace != "" {
		job.Namespace = new(c.namespace)
	}
	resp, _, err := c.api.Jobs().Register(job, c.write(ctx))
	if err != nil {
		return fmt.Errorf("nomad: register job %s: %w", *job.ID, err)
	}
	if resp.Warnings != "" {
		c.log.WarnContext(ctx, "Nomad warns about a job", "job", *job.ID, "warnings", resp.Warnings)
	}
	return nil
}
