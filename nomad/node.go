package nomad

import (
	"context"
	"fmt"

	"github.com/hashicorp/nomad/api"
)

// NodeState is Nomad's status of a node.
type NodeState string

// The states of a node.
const (
	NodeInitializing NodeState = "initializing"
	NodeReady        NodeState = "ready"
	NodeDown         NodeState = "down"
	NodeDisconnected NodeState = "disconnected"
)

// Node is one machine of the cluster.
type Node struct {
	ID       string
	Name     string
	Address  string
	State    NodeState
	Eligible bool
	Draining bool
	// RawExec says whether the driver that Ambit's jobs use is healthy there.
	RawExec bool
	Version string
}

// Nodes lists the machines.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	list, _, err := c.api.Nodes().List(c.query(ctx))
	if err != nil {
		return nil, fmt.Errorf("nomad: list nodes: %w", err)
	}
	nodes := make([]Node, 0, len(list))
	for _, n := range list {
		driver := n.Drivers["raw_exec"]
		nodes = append(nodes, Node{
			ID: n.ID, Name: n.Name, Address: n.Address, State: NodeState(n.Status),
			Eligible: n.SchedulingEligibility == api.NodeSchedulingEligible,
			Draining: n.Drain, RawExec: driver != nil && driver.Detected && driver.Healthy, Version: n.Version,
		})
	}
	return nodes, nil
}

// SetEligible opens a node for new sandboxes, or closes it; what runs there
// goes on.
func (c *Client) SetEligible(ctx context.Context, nodeID string, eligible bool) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if _, err := c.api.Nodes().ToggleEligibility(nodeID, eligible, c.write(ctx)); err != nil {
		return fmt.Errorf("nomad: set eligibility of node %s: %w", nodeID, notFound(err))
	}
	return nil
}
