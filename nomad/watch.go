package nomad

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hashicorp/nomad/api"
)

// Follower receives what Watch sees, one call at a time, in order.
type Follower struct {
	// Snapshot gets the complete list: at the start, after every interruption,
	// and now and then in between. What it lacks does not exist any more.
	Snapshot func(ctx context.Context, all []Allocation)
	// Allocation gets each change of one of the sandbox job's allocations.
	Allocation func(ctx context.Context, a Allocation)
	// Node gets each change of a node's state.
	Node func(ctx context.Context, n Node)
}

// resyncEvery bounds how long a lost event can go unnoticed. The server keeps
// about a hundred events in memory: a stream that asks for an older index gets
// what is left, without a word about the hole.
const resyncEvery = 30 * time.Second

// Watch follows the sandbox job's allocations until the context ends, and
// returns the context's error. A server that is away or restarts is tried again
// with growing pauses of at most 5 s; each return begins with a Snapshot.
func (c *Client) Watch(ctx context.Context, f Follower) error {
	const first, most = 100 * time.Millisecond, 5 * time.Second
	pause := first
	for {
		started := time.Now()
		err := c.follow(ctx, f)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil || time.Since(started) > most {
			pause = first
		}
		if err != nil {
			c.log.WarnContext(ctx, "following Nomad's events was interrupted", "error", err, "again_in", pause)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		pause = min(2*pause, most)
	}
}

// follow takes one list and then the events that come after it. It returns nil
// when it is time for the next list.
func (c *Client) follow(ctx context.Context, f Follower) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	all, index, err := c.Allocations(ctx)
	if err != nil {
		return err
	}
	f.Snapshot(ctx, all)

	topics := map[api.Topic][]string{api.TopicAllocation: {"*"}, api.TopicNode: {"*"}}
	stream, err := c.api.EventStream().Stream(ctx, topics, index+1, c.query(ctx))
	if err != nil {
		return fmt.Errorf("nomad: open the event stream: %w", err)
	}
	defer drain(stream, cancel)
	resync := time.NewTimer(resyncEvery)
	defer resync.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-resync.C:
			return nil
		case batch, open := <-stream:
			if !open {
				return errors.New("nomad: the event stream was closed")
			}
			if batch.Err != nil {
				return fmt.Errorf("nomad: read the event stream: %w", batch.Err)
			}
			for i := range batch.Events {
				if err := c.deliver(ctx, f, &batch.Events[i]); err != nil {
					return err
				}
			}
		}
	}
}

func (c *Client) deliver(ctx context.Context, f Follower, e *api.Event) error {
	switch e.Topic {
	case api.TopicAllocation:
		a, err := e.Allocation()
		if err != nil {
			return fmt.Errorf("nomad: decode an allocation event: %w", err)
		}
		if a == nil || f.Allocation == nil {
			return nil
		}
		if _, ours := c.SandboxOf(a.JobID); ours {
			f.Allocation(ctx, fromEvent(a))
		}
	case api.TopicNode:
		n, err := e.Node()
		if err != nil {
			return fmt.Errorf("nomad: decode a node event: %w", err)
		}
		if n == nil || f.Node == nil {
			return nil
		}
		driver := n.Drivers["raw_exec"]
		f.Node(ctx, Node{
			ID: n.ID, Name: n.Name, Address: n.HTTPAddr, State: NodeState(n.Status),
			Eligible: n.SchedulingEligibility == api.NodeSchedulingEligible, Draining: n.Drain,
			RawExec: driver != nil && driver.Detected && driver.Healthy,
		})
	}
	return nil
}

// drain ends the stream's goroutine: it stops at the cancelled context, unless
// it is blocked on handing over a batch that nobody takes.
func drain(stream <-chan *api.Events, cancel context.CancelFunc) {
	cancel()
	for range stream { //nolint:revive // emptied on purpose
	}
}
