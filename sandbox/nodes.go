package sandbox

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"ambit.dev/ambit/nomad"
	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/internal/sandboxdb"
)

// NodeSetup is what runs on each node. Paths are the nodes' own: on a cluster
// they must be the same everywhere.
type NodeSetup struct {
	// Binary is the ambit-node program; Leading are arguments before its own,
	// for a binary of which the node is one of several commands.
	Binary  string
	Leading []string
	QEMU    string
	Kernel  string
	Modules string
	Rootfs  string
	Guest   string
	// TemplatesDir keeps templates between runs. RunRoot and Socket must be
	// short: unix sockets lie below them.
	TemplatesDir string
	RunRoot      string
	Socket       string
	// MemoryMiB and VCPUs are a machine's size. Default 256 and 1.
	MemoryMiB int
	VCPUs     int
	// Bind is the address that allocations listen on for workers: one that they
	// can reach. Default 127.0.0.1, which is right for one machine.
	Bind string
	// Grace is how long a claimed machine that Nomad stops waits for its save.
	// Default 8 s.
	Grace time.Duration
}

func (n NodeSetup) withDefaults() NodeSetup {
	if n.MemoryMiB == 0 {
		n.MemoryMiB = 256
	}
	if n.VCPUs == 0 {
		n.VCPUs = 1
	}
	if n.Bind == "" {
		n.Bind = "127.0.0.1"
	}
	if n.Grace <= 0 {
		n.Grace = 8 * time.Second
	}
	return n
}

func (n NodeSetup) validate() error {
	for what, path := range map[string]string{
		"ambit-node": n.Binary, "QEMU": n.QEMU, "the kernel": n.Kernel, "the kernel's modules": n.Modules, "the root filesystem": n.Rootfs,
		"ambit-guest": n.Guest, "the templates": n.TemplatesDir, "the run folder": n.RunRoot, "the node socket": n.Socket,
	} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("sandbox: the path of %s, %q, is not absolute", what, path)
		}
	}
	return nil
}

// Build identifies what machines are started from: a hash over the programs and
// images, so that none of an older build is handed to a session.
func (n NodeSetup) Build() (string, error) {
	h := sha256.New()
	for _, path := range []string{n.Binary, n.Guest} {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("hash the node's programs: %w", err)
		}
		_, err = io.Copy(h, f)
		if err = errors.Join(err, f.Close()); err != nil {
			return "", fmt.Errorf("hash the node's programs: %w", err)
		}
	}
	// The images are large, and the template's own key has their hashes; here
	// their place, size and time are enough.
	for _, path := range []string{n.QEMU, n.Kernel, n.Modules, n.Rootfs} {
		info, err := os.Stat(path)
		if err != nil {
			return "", fmt.Errorf("look at the node's images: %w", err)
		}
		fmt.Fprintf(h, "%s %d %d\n", path, info.Size(), info.ModTime().UnixNano())
	}
	fmt.Fprintf(h, "%d %d\n", n.MemoryMiB, n.VCPUs)
	return hex.EncodeToString(h.Sum(nil)[:12]), nil
}

// Memory beside the guest's own: QEMU's translation buffer and structures, and
// the allocation's process. The node service holds a template's memory and, when
// it builds one, boots a machine.
const (
	allocationOverheadMB = 192
	serviceOverheadMB    = 512
)

func (s *Service) nodeTask() nomad.Task {
	n := s.cfg.Node
	return nomad.Task{
		Command: n.Binary,
		Args: append(append([]string{}, n.Leading...), "service",
			"--control", s.cfg.ControlURL, "--environment", s.cfg.Environment, "--socket", n.Socket, "--run-root", n.RunRoot,
			"--templates", n.TemplatesDir, "--qemu", n.QEMU, "--kernel", n.Kernel, "--modules", n.Modules, "--rootfs", n.Rootfs,
			"--guest", n.Guest, "--memory-mib", strconv.Itoa(n.MemoryMiB), "--vcpus", strconv.Itoa(n.VCPUs)),
		Env: map[string]string{"AMBIT_NODE_TOKEN": s.cfg.NodeToken}, Build: s.build,
		CPUMHz: 50, MemoryMB: 2*n.MemoryMiB + serviceOverheadMB, KillTimeout: 3 * time.Second,
	}
}

func (s *Service) sandboxTask() nomad.Task {
	n := s.cfg.Node
	return nomad.Task{
		Command: n.Binary,
		Args: append(append([]string{}, n.Leading...), "sandbox",
			"--socket", n.Socket, "--run-root", n.RunRoot, "--qemu", n.QEMU, "--bind", n.Bind, "--grace", n.Grace.String()),
		Build: s.build, CPUMHz: 20, MemoryMB: n.MemoryMiB + allocationOverheadMB, KillTimeout: n.Grace + 4*time.Second,
	}
}

// Node is a machine of the operator's, as its node service last described it.
type Node struct {
	ID            string
	Name          string
	Driver        string
	Accelerator   string
	DriverVersion string
	Detail        string
	TemplateKey   string
	TemplateState string // absent, building, ready, failed
	Phase         string
	Progress      float64 // 0 to 1
	Error         string
	ReportedAt    time.Time
}

// Nodes lists the machines that have reported.
func (s *Service) Nodes(ctx context.Context) ([]Node, error) {
	var nodes []Node
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		rows, err := sandboxdb.New(tx).ListNodes(ctx)
		if err != nil {
			return fmt.Errorf("list nodes: %w", err)
		}
		for _, r := range rows {
			nodes = append(nodes, Node{
				ID: r.NodeID, Name: r.Name, Driver: r.Driver, Accelerator: r.Accelerator, DriverVersion: r.DriverVersion, Detail: r.Detail,
				TemplateKey: r.TemplateKey, TemplateState: r.TemplateState, Phase: r.TemplatePhase, Progress: float64(r.TemplateProgress),
				Error: r.Error, ReportedAt: r.ReportedAt,
			})
		}
		return nil
	})
	return nodes, err
}

func (s *Service) reportNode(ctx context.Context, nodeID string, r bridge.NodeReport) error {
	err := s.db.InWorkerTx(ctx, func(tx pgx.Tx) error {
		return sandboxdb.New(tx).ReportNode(ctx, sandboxdb.ReportNodeParams{
			NodeID: nodeID, Name: r.Name, Driver: r.Driver, Accelerator: r.Accelerator, DriverVersion: r.DriverVersion, Detail: r.Detail,
			TemplateKey: r.TemplateKey, TemplateState: string(r.TemplateState), TemplatePhase: r.Phase, TemplateProgress: float32(r.Progress),
			Error: r.Error, StartedAt: r.StartedAt,
		})
	})
	if err != nil {
		return fmt.Errorf("note a node's report: %w", err)
	}
	return nil
}
