package nomad

import (
	"context"
	"fmt"
	"sort"
	"strings"
	"time"

	"github.com/hashicorp/nomad/api"
)

// AllocState is Nomad's client status of an allocation.
type AllocState string

// The states. Complete, failed and lost are final; unknown means that its node
// does not answer.
const (
	AllocPending  AllocState = "pending"
	AllocRunning  AllocState = "running"
	AllocComplete AllocState = "complete"
	AllocFailed   AllocState = "failed"
	AllocLost     AllocState = "lost"
	AllocUnknown  AllocState = "unknown"
)

// Final says whether nothing of the allocation runs, or will run, any more.
func (s AllocState) Final() bool {
	return s == AllocComplete || s == AllocFailed || s == AllocLost
}

// Allocation is one placed process.
type Allocation struct {
	ID       string
	JobID    string
	NodeID   string
	NodeName string
	State    AllocState
	// Stopping says that Nomad wants it gone.
	Stopping bool
	// Why is a sentence on how the process ended, empty while it runs.
	Why string
	// ExitCode and Signal are the process's, where it ended by itself.
	ExitCode int
	Signal   int
	// OutOfMemory says that the kernel killed it for its memory.
	OutOfMemory bool
	FinishedAt  time.Time
}

// Allocations lists every allocation of the sandbox job's dispatches, and the
// index up to which the list is complete.
func (c *Client) Allocations(ctx context.Context) ([]Allocation, uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	q := c.query(ctx)
	q.Filter = fmt.Sprintf("JobID matches %q", "^"+c.SandboxJobID()+"/")
	list, meta, err := c.api.Allocations().List(q)
	if err != nil {
		return nil, 0, fmt.Errorf("nomad: list allocations: %w", err)
	}
	out := make([]Allocation, 0, len(list))
	for _, a := range list {
		out = append(out, Allocation{
			ID: a.ID, JobID: a.JobID, NodeID: a.NodeID, NodeName: a.NodeName,
			State: AllocState(a.ClientStatus), Stopping: a.DesiredStatus != api.AllocDesiredStatusRun,
		}.withTasks(a.TaskStates, a.ClientDescription))
	}
	return out, meta.LastIndex, nil
}

// JobAllocations lists the allocations of one job, final ones included.
func (c *Client) JobAllocations(ctx context.Context, jobID string) ([]Allocation, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	list, _, err := c.api.Jobs().Allocations(jobID, true, c.query(ctx))
	if err != nil {
		return nil, fmt.Errorf("nomad: list allocations of %s: %w", jobID, notFound(err))
	}
	out := make([]Allocation, 0, len(list))
	for _, a := range list {
		out = append(out, Allocation{
			ID: a.ID, JobID: a.JobID, NodeID: a.NodeID, NodeName: a.NodeName,
			State: AllocState(a.ClientStatus), Stopping: a.DesiredStatus != api.AllocDesiredStatusRun,
		}.withTasks(a.TaskStates, a.ClientDescription))
	}
	return out, nil
}

func fromEvent(a *api.Allocation) Allocation {
	return Allocation{
		ID: a.ID, JobID: a.JobID, NodeID: a.NodeID, NodeName: a.NodeName,
		State: AllocState(a.ClientStatus), Stopping: a.DesiredStatus != api.AllocDesiredStatusRun,
	}.withTasks(a.TaskStates, a.ClientDescription)
}

// withTasks adds what the task's last events tell. A task has many events; the
// ones that explain an end are "Terminated", "Driver Failure" and their kin.
func (a Allocation) withTasks(tasks map[string]*api.TaskState, description string) Allocation {
	if !a.State.Final() {
		return a
	}
	names := make([]string, 0, len(tasks))
	for n := range tasks {
		names = append(names, n)
	}
	sort.Strings(names)
	var why []string
	for _, n := range names {
		t := tasks[n]
		if t == nil {
			continue
		}
		if t.FinishedAt.After(a.FinishedAt) {
			a.FinishedAt = t.FinishedAt
		}
		for _, e := range t.Events {
			switch e.Type {
			case api.TaskTerminated:
				a.ExitCode, a.Signal = e.ExitCode, e.Signal
				a.OutOfMemory = a.OutOfMemory || e.Details["oom_killed"] == "true"
				why = append(why, e.DisplayMessage)
			case api.TaskDriverFailure, api.TaskSetupFailure, api.TaskKilled, api.TaskNotRestarting:
				why = append(why, e.DisplayMessage)
			}
		}
	}
	if len(why) == 0 && description != "" {
		why = append(why, description)
	}
	a.Why = strings.Join(why, "; ")
	return a
}
