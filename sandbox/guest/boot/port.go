package boot

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// portName is the virtio-serial port that the driver makes.
const portName = "ambit.0"

// port is the byte channel to the host. It exists as long as the machine; hosts
// come and go on it. One goroutine reads it and gives what arrives to the
// session of the moment, so that a session that has ended cannot steal bytes
// from the next one.
//
// It uses epoll of its own: while no host is connected a read returns the end
// of file at once, and only an edge tells that one has come.
type port struct {
	fd int
	ep int

	mu      sync.Mutex
	current *portSession
}

// openPort finds the port by name and opens it.
func openPort(name string, limit time.Duration) (*port, error) {
	dev := ""
	for end := time.Now().Add(limit); dev == ""; {
		names, _ := filepath.Glob("/sys/class/virtio-ports/*/name")
		for _, n := range names {
			if b, err := os.ReadFile(n); err == nil && strings.TrimSpace(string(b)) == name {
				dev = "/dev/" + filepath.Base(filepath.Dir(n))
			}
		}
		if dev != "" {
			break
		}
		if time.Now().After(end) {
			return nil, fmt.Errorf("virtio-serial port %s did not appear within %s", name, limit)
		}
		time.Sleep(5 * time.Millisecond)
	}
	if err := awaitDevice(dev, limit); err != nil {
		return nil, err
	}
	fd, err := unix.Open(dev, unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dev, err)
	}
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("watch %s: %w", dev, err)
	}
	ev := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLHUP | unix.EPOLLET, Fd: int32(fd)} //nolint:gosec // a descriptor
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &ev); err != nil {
		return nil, fmt.Errorf("watch %s: %w", dev, err)
	}
	p := &port{fd: fd, ep: ep}
	p.current = newPortSession(p)
	go p.readLoop()
	return p, nil
}

// session is the conversation that what arrives from now on belongs to.
func (p *port) session() *portSession {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.current.isClosed() {
		p.current = newPortSession(p)
	}
	return p.current
}

// readLoop reads for ever.
func (p *port) readLoop() {
	buf := make([]byte, 64<<10)
	connected := false
	for {
		n, err := unix.Read(p.fd, buf)
		switch {
		case n > 0:
			connected = true
			p.deliver(buf[:n])
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			connected = true
			p.wait(-1)
		default: // no host: end whatever conversation there was, and wait for one
			if connected {
				connected = false
				_ = p.session().Close()
			}
			p.wait(50)
		}
	}
}

func (p *port) wait(ms int) {
	var evs [1]unix.EpollEvent
	_, _ = unix.EpollWait(p.ep, evs[:], ms)
}

// deliver gives bytes to the session, waiting until it takes them.
func (p *port) deliver(b []byte) {
	own := append([]byte(nil), b...)
	for {
		s := p.session()
		select {
		case s.in <- own:
			return
		case <-s.closed:
		}
	}
}

// portSession is one conversation on the port.
type portSession struct {
	p      *port
	in     chan []byte
	rest   []byte // of what was taken from in; only Read touches it
	closed chan struct{}
	once   sync.Once
}

func newPortSession(p *port) *portSession {
	return &portSession{p: p, in: make(chan []byte), closed: make(chan struct{})}
}

func (s *portSession) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// Read implements io.Reader.
func (s *portSession) Read(b []byte) (int, error) {
	if s.isClosed() {
		return 0, io.EOF
	}
	if len(s.rest) == 0 {
		select {
		case s.rest = <-s.in:
		case <-s.closed:
			return 0, io.EOF
		}
	}
	n := copy(b, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

// Write implements io.Writer. It fails when the host has gone.
func (s *portSession) Write(b []byte) (int, error) {
	total := 0
	for total < len(b) {
		if s.isClosed() {
			return total, io.ErrClosedPipe
		}
		n, err := unix.Write(s.p.fd, b[total:])
		switch {
		case n > 0:
			total += n
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			// The host's buffer is full, or there is no host; readLoop closes
			// the session in that case.
			fds := []unix.PollFd{{Fd: int32(s.p.fd), Events: unix.POLLOUT}} //nolint:gosec // a descriptor
			_, _ = unix.Poll(fds, 100)
			if fds[0].Revents&unix.POLLHUP != 0 {
				time.Sleep(5 * time.Millisecond)
			}
		default:
			return total, fmt.Errorf("write to the host: %w", err)
		}
	}
	return total, nil
}

// Close ends the conversation; the port stays.
func (s *portSession) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}
