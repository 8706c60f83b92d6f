// Command ambit-node is what Nomad runs on a compute node: `ambit-node service`
// once a machine, and `ambit-node sandbox` once a sandbox. It is small, needs no
// C library, and links neither Postgres nor the gate. See sandbox/node.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/node"
	"ambit.dev/ambit/sandbox/qemu"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	if err := run(ctx, os.Args[1:], environment(os.Environ())); err != nil {
		fmt.Fprintln(os.Stderr, "ambit-node:", err)
		stop()
		os.Exit(1) //nolint:gocritic // stop was called
	}
}

// environment is what Nomad tells a task, by name.
func environment(list []string) map[string]string {
	env := make(map[string]string, len(list))
	for _, kv := range list {
		for i := range len(kv) {
			if kv[i] == '=' {
				env[kv[:i]] = kv[i+1:]
				break
			}
		}
	}
	return env
}

func run(ctx context.Context, args []string, env map[string]string) error {
	if len(args) == 0 {
		return errors.New("say service or sandbox")
	}
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	switch args[0] {
	case "service":
		return runService(ctx, args[1:], env, log)
	case "sandbox":
		return runSandbox(ctx, args[1:], env, log)
	default:
		return fmt.Errorf("%q is neither service nor sandbox", args[0])
	}
}

func runService(ctx context.Context, args []string, env map[string]string, log *slog.Logger) error {
	var cfg node.ServiceConfig
	var binary, control string
	f := flag.NewFlagSet("service", flag.ContinueOnError)
	f.StringVar(&control, "control", "", "base URL of the control plane's internal endpoints")
	f.StringVar(&cfg.Environment, "environment", "default", "name of the environment that the template is for")
	f.StringVar(&cfg.Socket, "socket", "", "path of the handover socket")
	f.StringVar(&cfg.RunRoot, "run-root", "", "folder of the sandboxes' run directories")
	f.StringVar(&cfg.TemplatesDir, "templates", "", "folder that keeps templates")
	f.StringVar(&binary, "qemu", "", "path of qemu-system-x86_64")
	f.StringVar(&cfg.Template.Kernel, "kernel", "", "path of the guest's vmlinux")
	f.StringVar(&cfg.Template.ModulesDir, "modules", "", "folder of that kernel's modules")
	f.StringVar(&cfg.Template.Rootfs, "rootfs", "", "path of the guest's erofs image")
	f.StringVar(&cfg.Template.GuestBinary, "guest", "", "path of the static ambit-guest")
	f.IntVar(&cfg.Template.MemoryMiB, "memory-mib", 256, "memory of each sandbox")
	f.IntVar(&cfg.Template.VCPUs, "vcpus", 1, "virtual CPUs of each sandbox")
	if err := f.Parse(args); err != nil {
		return err
	}
	d, err := qemu.New(qemu.Config{
		Binary: binary, Kernel: cfg.Template.Kernel, GuestBinary: cfg.Template.GuestBinary,
		ProbeCache: filepath.Join(cfg.TemplatesDir, qemu.ProbeFile), Log: log,
	})
	if err != nil {
		return err
	}
	cfg.Driver, cfg.Log = d, log
	cfg.NodeID, cfg.NodeName, cfg.Token = env["AMBIT_NODE_ID"], env["AMBIT_NODE_NAME"], env["AMBIT_NODE_TOKEN"]
	client := &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}}
	defer client.CloseIdleConnections()
	if control != "" {
		cfg.Home = bridge.NewHome(control, client)
	}
	return node.RunService(ctx, cfg)
}

func runSandbox(ctx context.Context, args []string, env map[string]string, log *slog.Logger) error {
	cfg := node.AllocationConfig{
		SandboxID: env["NOMAD_META_sandbox"], Environment: env["NOMAD_META_environment"],
		JobID: env["NOMAD_JOB_ID"], AllocID: env["NOMAD_ALLOC_ID"], NodeID: env["AMBIT_NODE_ID"], Log: log,
	}
	var binary string
	f := flag.NewFlagSet("sandbox", flag.ContinueOnError)
	f.StringVar(&cfg.Socket, "socket", "", "path of the node service's handover socket")
	f.StringVar(&cfg.RunRoot, "run-root", "", "folder of the sandboxes' run directories")
	f.StringVar(&binary, "qemu", "", "path of qemu-system-x86_64")
	f.StringVar(&cfg.Bind, "bind", "127.0.0.1", "address to listen on for workers")
	f.DurationVar(&cfg.Grace, "grace", 8*time.Second, "how long to wait for a save when told to stop")
	if err := f.Parse(args); err != nil {
		return err
	}
	if cfg.SandboxID == "" || cfg.AllocID == "" {
		return errors.New("sandbox: this is started by Nomad, which sets NOMAD_META_sandbox and NOMAD_ALLOC_ID")
	}
	claim, err := os.ReadFile(filepath.Join(env["NOMAD_TASK_DIR"], "claim.json"))
	if err != nil {
		return fmt.Errorf("sandbox: read what the dispatch brought: %w", err)
	}
	if err := json.Unmarshal(claim, &cfg.Claim); err != nil {
		return fmt.Errorf("sandbox: read what the dispatch brought: %w", err)
	}
	d, err := qemu.New(qemu.Config{Binary: binary, Log: log})
	if err != nil {
		return err
	}
	cfg.Driver = d
	return node.RunAllocation(ctx, cfg)
}
