package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// errMonitorGone means that QEMU closed its monitor: it has ended or is ending.
var errMonitorGone = errors.New("QEMU's monitor is gone")

// monitor is a client of QEMU's machine protocol (QMP) on a unix socket.
type monitor struct {
	conn    *net.UnixConn
	onEvent func(monitorEvent)

	mu      sync.Mutex
	serial  int
	pending map[string]chan monitorReply
	gone    chan struct{}

	writing sync.Mutex
}

type monitorEvent struct {
	Name string          `json:"event"`
	Data json.RawMessage `json:"data"`
}

type monitorReply struct {
	ID     string          `json:"id"`
	Return json.RawMessage `json:"return"`
	Error  *struct {
		Class string `json:"class"`
		Desc  string `json:"desc"`
	} `json:"error"`
}

// maxMonitorLine bounds one message; QEMU's are a few KiB.
const maxMonitorLine = 4 << 20

// newMonitor greets QEMU on conn and owns it from then on. onEvent is called
// from one goroutine and must not call the monitor.
func newMonitor(ctx context.Context, conn *net.UnixConn, onEvent func(monitorEvent)) (*monitor, error) {
	m := &monitor{conn: conn, onEvent: onEvent, pending: map[string]chan monitorReply{}, gone: make(chan struct{})}
	greeted := make(chan struct{})
	go m.read(greeted)
	select {
	case <-greeted:
	case <-m.gone:
		return nil, errMonitorGone
	case <-ctx.Done():
		_ = conn.Close()
		return nil, context.Cause(ctx)
	}
	if err := m.execute(ctx, "qmp_capabilities", nil, nil); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return m, nil
}

func (m *monitor) read(greeted chan<- struct{}) {
	defer func() {
		_ = m.conn.Close()
		close(m.gone)
	}()
	sc := bufio.NewScanner(m.conn)
	sc.Buffer(make([]byte, 0, 16<<10), maxMonitorLine)
	first := true
	for sc.Scan() {
		line := sc.Bytes()
		if first {
			first = false
			var g struct {
				QMP json.RawMessage `json:"QMP"`
			}
			if json.Unmarshal(line, &g) != nil || g.QMP == nil {
				return
			}
			close(greeted)
			continue
		}
		var ev monitorEvent
		if json.Unmarshal(line, &ev) == nil && ev.Name != "" {
			m.onEvent(ev)
			continue
		}
		var r monitorReply
		if json.Unmarshal(line, &r) != nil {
			return
		}
		m.mu.Lock()
		ch := m.pending[r.ID]
		delete(m.pending, r.ID)
		m.mu.Unlock()
		if ch != nil {
			ch <- r
		}
	}
}

// execute runs a command and waits for its answer. out may be nil.
func (m *monitor) execute(ctx context.Context, command string, args, out any) error {
	return m.executeWith(ctx, command, args, out, nil)
}

// executeWith also hands a file over.
func (m *monitor) executeWith(ctx context.Context, command string, args, out any, file *os.File) error {
	m.mu.Lock()
	m.serial++
	id := strconv.Itoa(m.serial)
	ch := make(chan monitorReply, 1)
	m.pending[id] = ch
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		delete(m.pending, id)
		m.mu.Unlock()
	}()
	msg := map[string]any{"execute": command, "id": id}
	if args != nil {
		msg["arguments"] = args
	}
	b, err := json.Marshal(msg)
	if err != nil {
		return fmt.Errorf("QEMU monitor, %s: %w", command, err)
	}
	if err := m.send(append(b, '\n'), file); err != nil {
		return fmt.Errorf("QEMU monitor, %s: %w: %w", command, errMonitorGone, err)
	}
	select {
	case r := <-ch:
		if r.Error != nil {
			return fmt.Errorf("QEMU refused %s: %s: %s", command, r.Error.Class, r.Error.Desc)
		}
		if out != nil {
			if err := json.Unmarshal(r.Return, out); err != nil {
				return fmt.Errorf("QEMU monitor, answer to %s: %w", command, err)
			}
		}
		return nil
	case <-m.gone:
		return fmt.Errorf("QEMU monitor, %s: %w", command, errMonitorGone)
	case <-ctx.Done():
		return fmt.Errorf("QEMU monitor, %s: %w", command, context.Cause(ctx))
	}
}

func (m *monitor) send(b []byte, file *os.File) error {
	m.writing.Lock()
	defer m.writing.Unlock()
	_ = m.conn.SetWriteDeadline(time.Now().Add(10 * time.Second))
	if file == nil {
		_, err := m.conn.Write(b)
		return err
	}
	n, _, err := m.conn.WriteMsgUnix(b, unix.UnixRights(int(file.Fd())), nil)
	if err == nil && n < len(b) {
		_, err = m.conn.Write(b[n:])
	}
	return err
}

// close hangs up; QEMU goes on.
func (m *monitor) close() {
	_ = m.conn.Close()
	<-m.gone
}
