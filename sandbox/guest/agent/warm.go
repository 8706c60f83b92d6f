package agent

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"ambit.dev/ambit/sandbox/guest"
)

// warmLimit bounds one program of the warming.
const warmLimit = 60 * time.Second

// warmPrograms are what commands mostly begin with; the first ones are the
// shell's. None of them writes.
var warmPrograms = [][]string{
	{"bash", "-c", "echo hello"},
	{"bash", "-c", "ls /; cat /dev/null; grep x /dev/null; for i in 1 2; do :; done"},
	{"python3", "-c", "import sys, os, io, re, json, subprocess, pathlib, traceback, tempfile"},
	{"git", "--version"},
}

// warmShell is how many of them WarmShell runs.
const warmShell = 1

// warm runs them once; one that this root filesystem lacks is left out.
func (s *Server) warm(x *exchange, req guest.WarmRequest) (any, error) {
	programs := warmPrograms
	switch req.What {
	case guest.WarmAll:
	case guest.WarmShell:
		programs = programs[:warmShell]
	default:
		return nil, guest.Errorf(guest.CodeInvalid, "warm: shell or all")
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open the null device: %w", err)
	}
	defer null.Close() //nolint:errcheck // a device
	for i, argv := range programs {
		path, err := lookPath(argv[0], defaultPath, "/")
		var missing *notRunnable
		if errors.As(err, &missing) {
			continue
		}
		if err := s.warmOne(path, argv, null, "warm"+strconv.Itoa(i)); err != nil {
			return nil, err
		}
		if x.ctx.Err() != nil {
			return nil, x.ctx.Err()
		}
	}
	return struct{}{}, nil
}

func (s *Server) warmOne(path string, argv []string, null *os.File, name string) error {
	group, err := s.newCgroup(name)
	if err != nil {
		return err
	}
	defer group.remove()
	attr := s.processAttributes(group)
	attr.Dir = "/"
	attr.Env = []string{"PATH=" + defaultPath, "HOME=/nonexistent", "LANG=C.UTF-8", "PYTHONDONTWRITEBYTECODE=1"}
	attr.Files = []uintptr{null.Fd(), null.Fd(), null.Fd()}
	s.starting.RLock()
	pid, ended, err := s.spawn.start(path, argv, attr)
	s.starting.RUnlock()
	if err != nil {
		return fmt.Errorf("warm %s: %w", argv[0], err)
	}
	select {
	case <-ended:
	case <-time.After(warmLimit):
		group.kill()
		_ = syscall.Kill(-pid, syscall.SIGKILL)
		<-ended
	}
	return nil
}
