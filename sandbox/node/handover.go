package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"ambit.dev/ambit/sandbox/driver"
)

// The handover socket is of type SOCK_SEQPACKET: one message is one packet, so
// that the open files of a template travel with exactly the message that names
// them. An allocation asks once; the service answers with any number of
// progress messages and one last.

// handoverRequest is what an allocation asks.
type handoverRequest struct {
	Sandbox     string `json:"sandbox"`
	Environment string `json:"environment"`
}

// handoverAnswer is one message of the service. Manifest comes with the files.
type handoverAnswer struct {
	Phase    string           `json:"phase,omitempty"`
	Progress float64          `json:"progress,omitempty"`
	Error    string           `json:"error,omitempty"`
	Manifest *driver.Manifest `json:"manifest,omitempty"`
}

const (
	maxPacket = 64 << 10
	maxFiles  = 8
	network   = "unixpacket"
)

// FetchTemplate asks the node service on socket for the template of an
// environment, and waits while it is being built. A service that is not there
// (it is being restarted) is tried again until ctx ends.
func FetchTemplate(ctx context.Context, socket, sandboxID, environment string, progress driver.Progress) (*driver.Template, error) {
	for {
		t, err := fetchOnce(ctx, socket, sandboxID, environment, progress)
		var refused *handoverError
		if err == nil || errors.As(err, &refused) {
			return t, err
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(err, ctx.Err())
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// handoverError is the service's own answer: asking again would not help.
type handoverError struct{ text string }

func (e *handoverError) Error() string { return "the node service answered: " + e.text }

func fetchOnce(ctx context.Context, socket, sandboxID, environment string, progress driver.Progress) (*driver.Template, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, network, socket)
	if err != nil {
		return nil, fmt.Errorf("reach the node service: %w", err)
	}
	defer c.Close() //nolint:errcheck // nothing is buffered
	conn := c.(*net.UnixConn)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	if err := sendPacket(conn, handoverRequest{Sandbox: sandboxID, Environment: environment}, nil); err != nil {
		return nil, fmt.Errorf("ask the node service: %w", err)
	}
	for {
		var a handoverAnswer
		files, err := receivePacket(conn, &a)
		if err != nil {
			return nil, fmt.Errorf("hear from the node service: %w", err)
		}
		switch {
		case a.Error != "":
			closeAll(files)
			return nil, &handoverError{a.Error}
		case a.Manifest != nil:
			handles, err := driver.HandlesFromFiles(files)
			if err != nil {
				closeAll(files)
				return nil, fmt.Errorf("take the template over: %w", err)
			}
			return &driver.Template{Manifest: *a.Manifest, Handles: handles}, nil
		default:
			closeAll(files)
			if progress != nil {
				progress(a.Phase, a.Progress)
			}
		}
	}
}

func sendPacket(conn *net.UnixConn, v any, files []*os.File) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode a packet: %w", err)
	}
	if len(b) > maxPacket {
		return fmt.Errorf("a packet of %d bytes", len(b))
	}
	var rights []byte
	if len(files) > 0 {
		fds := make([]int, len(files))
		for i, f := range files {
			fds[i] = int(f.Fd()) //nolint:gosec // a descriptor is small
		}
		rights = unix.UnixRights(fds...)
	}
	_, _, err = conn.WriteMsgUnix(b, rights, nil)
	return err
}

func receivePacket(conn *net.UnixConn, v any) ([]*os.File, error) {
	buf := make([]byte, maxPacket)
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := conn.ReadMsgUnix(buf, oob)
	if err != nil {
		return nil, err
	}
	files, err := takeFiles(oob[:oobn])
	if err != nil {
		return nil, err
	}
	if n == 0 {
		closeAll(files)
		return nil, net.ErrClosed
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		closeAll(files)
		return nil, errors.New("a packet was cut")
	}
	if err := json.Unmarshal(buf[:n], v); err != nil {
		closeAll(files)
		return nil, fmt.Errorf("decode a packet: %w", err)
	}
	return files, nil
}

func takeFiles(oob []byte) ([]*os.File, error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, fmt.Errorf("parse a control message: %w", err)
	}
	var files []*os.File
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			closeAll(files)
			return nil, fmt.Errorf("parse passed files: %w", err)
		}
		for _, fd := range fds {
			unix.CloseOnExec(fd)
			files = append(files, os.NewFile(uintptr(fd), "template")) //nolint:gosec // a descriptor is small
		}
	}
	return files, nil
}

func closeAll(files []*os.File) {
	for _, f := range files {
		_ = f.Close()
	}
}
