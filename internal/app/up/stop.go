package up

import (
	"context"
	"fmt"
	"os"
	"time"

	"ambit.dev/ambit/internal/processes"
)

// The shares of stopDeadline: the server drains first, because saving sandboxes'
// files needs all engines; then the engines, which need nothing of each other.
const (
	serverStop = 6 * time.Second
	nomadStop  = time.Second
	engineStop = 2 * time.Second
	sweepGrace = 300 * time.Millisecond
)

// Stop drains and ends everything, within ten seconds in all. The error tells
// what did not end by itself.
func (i *Instance) Stop() error {
	began := time.Now()
	i.removeAddresses()
	errServer := i.supervisor.Stop(serverName)
	// Nomad's client before its server, or it complains.
	errClient := i.supervisor.Stop(nomadClientName)
	errEngines := i.supervisor.StopAll()

	// Tasks of Nomad live in groups of their own, and the server has ended
	// those that it knows of. Nothing of ours may stay.
	ctx, cancel := context.WithDeadline(context.Background(), began.Add(stopDeadline))
	defer cancel()
	left, errSweep := processes.Sweep(ctx, i.marker(), sweepGrace)
	if len(left) > 0 {
		i.log.Info("ended what was left", "programs", programs(left))
	}
	var errMounts error
	if i.nomadDir != "" {
		errMounts = processes.UnmountBelow(i.nomadDir)
	}
	var problems []error
	for _, err := range []error{errServer, errClient, errEngines, errSweep, errMounts} {
		if err != nil {
			problems = append(problems, err)
			i.log.Warn("while stopping", "error", err)
		}
	}
	i.log.Info("stopped", "took", time.Since(began).Round(10*time.Millisecond))
	if len(problems) > 0 {
		return fmt.Errorf("everything is stopped, but not all of it in order (%d problems, see above)", len(problems))
	}
	return nil
}

// killAll ends everything at once; Postgres and ClickHouse lose nothing that
// was committed.
func (i *Instance) killAll() {
	found, err := processes.FindMarked(i.marker())
	if err != nil {
		i.log.Error("looking for our processes", "error", err)
		return
	}
	for _, p := range found {
		if proc, err := os.FindProcess(p.PID); err == nil {
			_ = proc.Kill()
		}
	}
}
