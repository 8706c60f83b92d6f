package boot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"ambit.dev/ambit/sandbox/guest"
	"ambit.dev/ambit/sandbox/guest/agent"
)

// Places inside the machine.
const (
	stateDir  = "/run/ambit/effects"
	scriptDir = "/run/ambit/scripts"
	cgroupTop = "/sys/fs/cgroup"
	cgroupDir = "/sys/fs/cgroup/commands"

	// commandUID is who commands run as.
	commandUID = 1000

	// agentReserve is memory that commands cannot take: for the kernel, the
	// agent, and the output that it keeps.
	agentReserve = 56 << 20
	maxProcesses = 256
)

// Main is PID 1. It never returns: it powers the machine off, or panics the
// kernel by ending, which the host sees as a guest panic.
func Main(version string) {
	console := openConsole()
	log := slog.New(slog.NewTextHandler(console, &slog.HandlerOptions{Level: slog.LevelInfo}))
	log.Error("the guest could not start", "error", run(version, console, log))
	_ = console.Sync()
	time.Sleep(100 * time.Millisecond) // for the serial line to empty
	os.Exit(1)
}

func run(version string, console *os.File, log *slog.Logger) error {
	if err := mountEarly(); err != nil {
		return err
	}
	if probed() {
		fmt.Fprintln(console, guest.ProbeWord)
		_ = console.Sync()
		powerOff()
	}
	if err := loadModules("/modules"); err != nil {
		return err
	}
	mem, err := memoryTotal()
	if err != nil {
		return err
	}
	if err := switchRoot(mem); err != nil {
		return err
	}
	if err := settle(mem); err != nil {
		return err
	}
	srv, err := agent.New(agent.Config{
		WorkDir: guest.WorkDir, StateDir: stateDir, ScriptDir: scriptDir,
		UID: commandUID, GID: commandUID,
		CgroupDir: cgroupDir, MaxProcesses: maxProcesses,
		Env: map[string]string{
			"HOME": guest.WorkDir, "USER": "agent", "LOGNAME": "agent", "SHELL": "/bin/bash",
			"LANG": "C.UTF-8", "TERM": "dumb", "TMPDIR": "/tmp",
		},
		Version: version, Init: true,
		SetClock: setClock, AddEntropy: addEntropy,
		SetHostname: func(name string) error { return unix.Sethostname([]byte(name)) },
		ResizeWork:  resizeWork,
		PowerOff:    powerOff,
		Log:         log,
	})
	if err != nil {
		return err
	}
	port, err := openPort(portName, 10*time.Second)
	if err != nil {
		return err
	}
	serve(srv, port, log)
	return errors.New("the channel to the host is gone for good")
}

// serve answers one host after another, for ever. Whatever is wrong with a
// conversation ends that conversation only.
func serve(srv *agent.Server, p *port, log *slog.Logger) {
	for {
		conn := p.session()
		nonce, err := guest.AcceptHandshake(conn)
		if err == nil {
			// Fresh bytes from the host before anything else draws randomness.
			err = mixEntropy(nonce)
		}
		if err == nil {
			err = srv.Serve(conn)
		}
		_ = conn.Close()
		if err != nil && !errors.Is(err, context.Canceled) {
			log.Debug("a host went away", "error", err)
		}
	}
}

func openConsole() *os.File {
	_ = os.MkdirAll("/dev", 0o755)
	_ = unix.Mount("devtmpfs", "/dev", "devtmpfs", unix.MS_NOSUID, "mode=0755")
	f, err := os.OpenFile("/dev/console", os.O_WRONLY|syscall.O_NOCTTY, 0)
	if err != nil {
		return os.Stderr
	}
	return f
}

// probed reports whether the host only wants to know that the machine boots.
func probed() bool {
	line, err := os.ReadFile("/proc/cmdline")
	return err == nil && slices.Contains(strings.Fields(string(line)), guest.ProbeArgument)
}

func powerOff() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// resizeWork changes the bound of the working directory, keeping its content.
func resizeWork(mib int) error {
	err := unix.Mount("", guest.WorkDir, "", unix.MS_REMOUNT|workFlags, "size="+strconv.Itoa(mib)+"m")
	if err != nil {
		return fmt.Errorf("resize the working directory: %w", err)
	}
	return nil
}
