package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/driver"
)

// ServiceConfig is what the node service is given.
type ServiceConfig struct {
	Driver driver.Driver
	// Template is what the template is made from; its Dir is set by the service.
	Template driver.TemplateSpec
	// TemplatesDir keeps templates between runs, one folder a key.
	TemplatesDir string
	// Socket is the path of the handover socket: at most 107 bytes.
	Socket string
	// RunRoot is where allocations have their run directories.
	RunRoot string
	// Environment is the name of the environment that the template is for.
	Environment string
	// Home and Token say where and how to report; Home may be nil.
	Home     *bridge.Home
	Token    string
	NodeID   string
	NodeName string
	Log      *slog.Logger
}

const (
	reportEvery = 5 * time.Second
	sweepEvery  = 5 * time.Second
)

// RunService runs the node service until ctx ends. The template is prepared
// meanwhile; allocations that ask for it before it is ready wait.
func RunService(ctx context.Context, cfg ServiceConfig) error {
	if cfg.NodeID == "" {
		return errors.New("node service: no node id given")
	}
	listener, err := listenHandover(cfg.Socket)
	if err != nil {
		return err
	}
	t := newTemplates(cfg.Driver, cfg.Template, cfg.TemplatesDir, bridge.NodeReport{
		Name: cfg.NodeName, StartedAt: time.Now().UTC(),
	}, cfg.Log)
	defer t.close()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()

	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() { <-ctx.Done(); _ = listener.Close() })
	wg.Go(func() { t.prepare(ctx) })
	wg.Go(func() { reportNode(ctx, cfg, t) })
	wg.Go(func() { sweepRepeatedly(ctx, cfg.RunRoot, cfg.Log) })
	cfg.Log.InfoContext(ctx, "node service started", "socket", cfg.Socket, "node", cfg.NodeName)
	for {
		conn, err := listener.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			cancel()
			return fmt.Errorf("accept on the handover socket: %w", err)
		}
		wg.Go(func() { handOver(ctx, conn, cfg, t) })
	}
}

func listenHandover(path string) (*net.UnixListener, error) {
	if len(path) > 107 {
		return nil, fmt.Errorf("node service: the socket's path has %d bytes, at most 107 are possible: %s", len(path), path)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { //nolint:gosec // the socket itself is closed to others
		return nil, fmt.Errorf("make the handover socket's folder: %w", err)
	}
	// What a killed service left would refuse the address. A live one is
	// displaced on purpose: Nomad starts the next only when it wants it.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove the old handover socket: %w", err)
	}
	l, err := net.ListenUnix(network, &net.UnixAddr{Name: path, Net: network})
	if err != nil {
		return nil, fmt.Errorf("listen for allocations: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		_ = l.Close()
		return nil, fmt.Errorf("close the handover socket to others: %w", err)
	}
	return l, nil
}

// handOver answers one allocation.
func handOver(ctx context.Context, conn *net.UnixConn, cfg ServiceConfig, t *templates) {
	defer conn.Close() //nolint:errcheck // nothing is buffered
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetReadDeadline(time.Now().Add(5 * time.Second))
	var req handoverRequest
	files, err := receivePacket(conn, &req)
	closeAll(files)
	if err != nil {
		cfg.Log.WarnContext(ctx, "an allocation's request was not understood", "error", err)
		return
	}
	if req.Environment != cfg.Environment {
		_ = sendPacket(conn, handoverAnswer{Error: fmt.Sprintf("there is no template for environment %q on this node", req.Environment)}, nil)
		return
	}
	for {
		report, tpl, changed := t.state()
		if tpl != nil {
			if err := sendPacket(conn, handoverAnswer{Manifest: &tpl.Manifest}, tpl.Handles.Files()); err != nil && ctx.Err() == nil {
				cfg.Log.WarnContext(ctx, "the template could not be handed over", "sandbox", req.Sandbox, "error", err)
			}
			return
		}
		// A failed template is tried again; whoever waits is told meanwhile.
		phase := report.Phase
		if report.TemplateState == bridge.TemplateFailed {
			phase = "failed: " + report.Error
		}
		if err := sendPacket(conn, handoverAnswer{Phase: phase, Progress: report.Progress}, nil); err != nil {
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-changed:
		}
	}
}

// reportNode tells the control plane about this node: at each change, and every
// few seconds.
func reportNode(ctx context.Context, cfg ServiceConfig, t *templates) {
	if cfg.Home == nil {
		return
	}
	failing := false
	for {
		report, _, changed := t.state()
		err := cfg.Home.Send(ctx, bridge.NodePath, cfg.NodeID, cfg.Token, report)
		if err != nil && !failing && ctx.Err() == nil {
			cfg.Log.WarnContext(ctx, "the control plane does not hear this node", "error", err)
		}
		failing = err != nil
		next := time.NewTimer(reportEvery)
		select {
		case <-ctx.Done():
			next.Stop()
			return
		case <-changed:
			next.Stop()
		case <-next.C:
		}
	}
}

func sweepRepeatedly(ctx context.Context, root string, log *slog.Logger) {
	tick := time.NewTicker(sweepEvery)
	defer tick.Stop()
	for {
		if err := Sweep(root, log); err != nil {
			log.WarnContext(ctx, "sweeping leftovers failed", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
