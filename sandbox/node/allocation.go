package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"ambit.dev/ambit/sandbox/bridge"
	"ambit.dev/ambit/sandbox/driver"
	"ambit.dev/ambit/sandbox/guest"
)

// AllocationConfig is what the process of one sandbox is given.
type AllocationConfig struct {
	Driver      driver.Driver
	SandboxID   string
	Environment string
	JobID       string
	AllocID     string
	NodeID      string
	// Claim is the file that came with the dispatch.
	Claim bridge.ClaimFile
	// Socket is the node service's handover socket.
	Socket string
	// RunRoot is where run directories are made; keep it short.
	RunRoot string
	// Bind is the address to listen on, host only; it must be one that workers
	// can reach. Default 127.0.0.1.
	Bind string
	// Grace is how long a claimed sandbox waits, when told to stop, for the
	// control plane to save its files.
	Grace  time.Duration
	Client *http.Client
	Log    *slog.Logger
}

const (
	heartbeatEvery = 5 * time.Second
	// How long an allocation outlives a silent control plane. A claimed one has
	// files that were not saved; a warm one has nothing.
	orphanWarm    = 10 * time.Minute
	orphanClaimed = 2 * time.Hour
	// startTime bounds everything up to the paused machine, template included:
	// the first build on a fresh node takes minutes.
	startTime = 10 * time.Minute
	// machineTime bounds what comes after the template: the clone, its handshake
	// and its warm-up, on a host that is as busy as can be.
	machineTime = 2 * time.Minute
)

// ErrMachineLost means that the machine ended by itself.
var ErrMachineLost = errors.New("the machine ended")

// allocation is the process's state. The mutex guards what follows it.
type allocation struct {
	cfg      AllocationConfig
	home     *bridge.Home
	token    string
	verifier *bridge.Verifier
	machine  driver.Machine
	log      *slog.Logger
	started  time.Time

	// ended carries the reason of an asked end to the main goroutine, once the
	// asker has its answer.
	ended       chan string
	accelerator string

	claiming sync.Mutex // one claim, pause or resume at a time

	mu sync.Mutex
	// ending is the reason of an end that was asked for and is being carried out.
	ending  string
	client  *guest.Client
	session string
	epoch   int64
	paused  bool
	sealed  bool
	carried map[*carriage]struct{}
}

// RunAllocation runs one sandbox until it ends: because it was asked to, because
// ctx ended (Nomad's SIGTERM), or by itself. Only the last is an error.
func RunAllocation(ctx context.Context, cfg AllocationConfig) (err error) {
	if cfg.Bind == "" {
		cfg.Bind = "127.0.0.1"
	}
	if cfg.Client == nil {
		cfg.Client = &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}}
	}
	defer cfg.Client.CloseIdleConnections()
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails, by its contract
	a := &allocation{
		cfg: cfg, home: bridge.NewHome(cfg.Claim.Control, cfg.Client), token: hex.EncodeToString(raw[:]),
		log: cfg.Log.With("sandbox", cfg.SandboxID), started: time.Now(),
		ended: make(chan string, 1), carried: map[*carriage]struct{}{}, paused: true,
	}
	a.verifier = bridge.NewVerifier(cfg.SandboxID, a.home.KeysURL(), cfg.Claim.Keys, cfg.Client)

	secret := cfg.Claim.Secret // until the control plane knows the token
	reason, detail := "start_failed", ""
	defer func() {
		if err != nil && detail == "" {
			detail = err.Error()
		}
		a.reportEnd(ctx, secret, reason, detail)
	}()

	release, err := a.start(ctx)
	if err != nil {
		if ctx.Err() != nil {
			reason, err = "stopped", nil
		}
		return err
	}
	defer release()

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort(cfg.Bind, "0"))
	if err != nil {
		return fmt.Errorf("listen for workers: %w", err)
	}
	serving, stopServing := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	defer wg.Wait()
	defer stopServing()
	wg.Go(func() { a.serve(serving, listener) })

	if err := a.phoneHome(ctx, listener.Addr().String()); err != nil {
		if ctx.Err() != nil {
			reason, err = "stopped", nil
		}
		return err
	}
	secret = a.token
	orphaned := make(chan string, 1)
	wg.Go(func() { a.heartbeat(serving, orphaned) })

	select {
	case reason = <-a.ended:
	case why := <-orphaned:
		reason, detail = "orphaned", why
	case <-a.machine.Done():
		if reason = a.askedEnd(); reason != "" {
			break
		}
		exit := a.machine.Exit()
		reason, detail = string(exit.Reason), exit.Detail
		return fmt.Errorf("%w: %s: %s", ErrMachineLost, exit.Reason, exit.Detail)
	case <-ctx.Done():
		reason = a.stop(ctx)
	}
	a.log.InfoContext(ctx, "sandbox ends", "reason", reason)
	return nil
}

// askedEnd returns the reason of an end that was asked for, after the asker has
// had a moment to get its answer; empty when the machine ended by itself.
func (a *allocation) askedEnd() string {
	a.mu.Lock()
	reason := a.ending
	a.mu.Unlock()
	if reason == "" {
		return ""
	}
	select {
	case <-a.ended:
	case <-time.After(time.Second):
	}
	return reason
}

// start gets the template, clones a machine, shakes hands with its guest and
// pauses it. The returned function ends the machine and removes its folder.
func (a *allocation) start(ctx context.Context) (release func(), err error) {
	starting, cancel := context.WithTimeout(ctx, startTime)
	defer cancel()
	dir, releaseDir, err := takeRunDir(a.cfg.RunRoot, a.cfg.SandboxID)
	if err != nil {
		return nil, err
	}
	undo := func() {
		if a.machine != nil {
			if err := a.machine.Close(); err != nil {
				a.log.ErrorContext(ctx, "the machine could not be closed", "error", err)
			}
		}
		releaseDir()
	}
	defer func() {
		if err != nil {
			undo()
		}
	}()
	tpl, err := FetchTemplate(starting, a.cfg.Socket, a.cfg.SandboxID, a.cfg.Environment, func(phase string, done float64) {
		a.log.InfoContext(ctx, "waiting for the template", "phase", phase, "done", done)
	})
	if err != nil {
		return nil, err
	}
	defer tpl.Close() //nolint:errcheck // the driver has its own duplicates
	fetched := time.Now()
	starting, cancelMachine := context.WithTimeout(starting, machineTime)
	defer cancelMachine()
	machine, err := a.cfg.Driver.Start(starting, driver.StartSpec{
		ID: a.cfg.SandboxID, Manifest: tpl.Manifest, Handles: tpl.Handles, RunDir: dir,
	})
	if err != nil {
		return nil, fmt.Errorf("start a machine: %w", err)
	}
	a.machine = machine
	cloned := time.Now()
	if a.client, err = a.machine.Guest(starting); err != nil {
		return nil, fmt.Errorf("reach the guest of a new machine: %w", err)
	}
	greeted := time.Now()
	if err := a.warmUp(starting); err != nil {
		return nil, err
	}
	warmed := time.Now()
	if err := a.machine.Pause(starting); err != nil {
		return nil, fmt.Errorf("pause a new machine: %w", err)
	}
	a.log.InfoContext(ctx, "machine ready and paused", "pid", a.machine.PID(), "template_took", fetched.Sub(a.started),
		"clone_took", cloned.Sub(fetched), "handshake_took", greeted.Sub(cloned), "warm_up_took", warmed.Sub(greeted), "accelerator", tpl.Manifest.Accelerator)
	a.accelerator = string(tpl.Manifest.Accelerator)
	return undo, nil
}

// warmUp does once, in a machine that nobody waits for yet, what its session will
// do first: a configuration and a command. A clone begins with cold caches, and a
// software CPU with nothing translated; this takes some hundred milliseconds out
// of the session's first command. What it leaves behind, a clock and random
// numbers, is replaced when the machine is claimed. It waits for the end of its
// commands however slow the host is: one that was still running would be in the
// way of a restore.
func (a *allocation) warmUp(ctx context.Context) error {
	if _, err := a.client.Configure(ctx, guest.Configuration{SandboxID: a.cfg.SandboxID, Hostname: hostname}); err != nil {
		return fmt.Errorf("warm up a new machine: %w", err)
	}
	// A command as a session's would be, the agent's own path to it included.
	if _, err := a.client.Run(ctx, guest.ExecRequest{EffectKey: "warm-up", Script: "echo warm"}, nil, nil); err != nil {
		return fmt.Errorf("warm up a new machine: %w", err)
	}
	return nil
}

// hostname is every sandbox's.
const hostname = "sandbox"

// phoneHome reports the machine, trying until it is heard.
func (a *allocation) phoneHome(ctx context.Context, address string) error {
	err := a.home.Insist(ctx, bridge.ReadyPath, a.cfg.SandboxID, a.cfg.Claim.Secret, bridge.ReadyReport{
		Token: a.token, JobID: a.cfg.JobID, AllocID: a.cfg.AllocID, NodeID: a.cfg.NodeID, Address: address,
		Driver: a.cfg.Driver.Name(), Accelerator: a.accelerator, Took: time.Since(a.started),
	})
	if err != nil {
		return fmt.Errorf("phone home: %w", err)
	}
	return nil
}

// reportEnd ends the machine, if there is one, and says so.
func (a *allocation) reportEnd(ctx context.Context, secret, reason, detail string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
	defer cancel()
	report := bridge.EndedReport{Reason: reason, Detail: detail, GoneAt: time.Now().UTC()}
	if a.machine != nil {
		if err := a.machine.Kill(ctx); err != nil {
			a.log.ErrorContext(ctx, "the machine could not be killed", "error", err)
			return // no proof, no claim
		}
		report.PID = a.machine.PID()
		report.GoneAt = a.machine.Exit().At.UTC()
	}
	err := a.home.Insist(ctx, bridge.EndedPath, a.cfg.SandboxID, secret, report)
	if err != nil && !errors.Is(err, bridge.ErrUnwanted) {
		a.log.WarnContext(ctx, "the end could not be reported", "error", err)
	}
}

// stop is Nomad's SIGTERM. A session's machine is announced as stopping, so that
// the control plane can save its files and end it; a warm one ends at once.
func (a *allocation) stop(ctx context.Context) (reason string) {
	a.mu.Lock()
	claimed := a.session != ""
	a.mu.Unlock()
	if !claimed || a.cfg.Grace <= 0 {
		return "stopped"
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.cfg.Grace)
	defer cancel()
	if err := a.home.Send(ctx, bridge.StoppingPath, a.cfg.SandboxID, a.token, struct{}{}); err != nil {
		a.log.WarnContext(ctx, "stopping without a save: the control plane did not answer", "error", err)
		return "stopped"
	}
	select {
	case reason := <-a.ended:
		return reason
	case <-a.machine.Done():
		if reason := a.askedEnd(); reason != "" {
			return reason
		}
		return string(a.machine.Exit().Reason)
	case <-ctx.Done():
		return "stopped"
	}
}

// heartbeat tells the control plane that the sandbox lives, and learns whether
// it is still wanted.
func (a *allocation) heartbeat(ctx context.Context, orphaned chan<- string) {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	heard := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		err := a.home.Send(ctx, bridge.HeartbeatPath, a.cfg.SandboxID, a.token, a.beat(ctx))
		if err == nil {
			heard = time.Now()
			continue
		}
		limit := orphanWarm
		a.mu.Lock()
		if a.session != "" {
			limit = orphanClaimed
		}
		a.mu.Unlock()
		if errors.Is(err, bridge.ErrUnwanted) || time.Since(heard) > limit {
			orphaned <- err.Error()
			return
		}
		a.log.DebugContext(ctx, "a heartbeat was not heard", "error", err)
	}
}

func (a *allocation) beat(ctx context.Context) bridge.HeartbeatReport {
	report := bridge.HeartbeatReport{Status: a.status(ctx)}
	if report.State != stateRunning {
		return report
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	client, err := a.guest(ctx)
	if err != nil {
		return report
	}
	if m, err := client.Metrics(ctx); err == nil {
		report.Commands = m.Commands
	}
	return report
}

// guest returns the connection to the guest, making a new one where the old
// broke. The machine must not be paused.
func (a *allocation) guest(ctx context.Context) (*guest.Client, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.client != nil {
		select {
		case <-a.client.Done():
		default:
			return a.client, nil
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := a.machine.Guest(ctx)
	if err != nil {
		return nil, fmt.Errorf("reach the guest again: %w", err)
	}
	a.client = c
	return c, nil
}
