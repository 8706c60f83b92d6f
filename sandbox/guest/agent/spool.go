package agent

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"ambit.dev/ambit/sandbox/guest"
)

// spool is the kept output of one command: pieces of both streams in the order
// in which they were read, in a file that only root may open. Whoever attaches
// reads the file; nothing is buffered in memory for a slow client, and a slow
// client never slows the command.
//
// A piece is one byte of stream, four bytes of length, the bytes.
type spool struct {
	path  string
	limit int64

	mu      sync.Mutex
	f       *os.File
	kept    int64 // payload bytes in the file
	size    int64 // bytes of the file that are whole pieces
	total   [3]int64
	dropped int64
	tail    []byte
	closed  bool
	evicted bool
	changed chan struct{}
}

const (
	spoolHeader = 5
	tailBytes   = 4 << 10
)

func newSpool(path string, limit int64) (*spool, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make a place for output: %w", err)
	}
	return &spool{path: path, limit: limit, f: f, changed: make(chan struct{})}, nil
}

// add takes a piece. What no longer fits is counted and dropped; from then on
// everything is, so that what is kept is the beginning of the output.
func (sp *spool) add(stream guest.Stream, p []byte) {
	if len(p) == 0 {
		return
	}
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.total[stream] += int64(len(p))
	sp.tail = append(sp.tail, p...)
	if len(sp.tail) > 2*tailBytes {
		sp.tail = append(sp.tail[:0], sp.tail[len(sp.tail)-tailBytes:]...)
	}
	keep := p
	if room := sp.limit - sp.kept; sp.dropped > 0 {
		keep = nil
	} else if int64(len(p)) > room {
		keep = p[:room]
	}
	if len(keep) > 0 {
		b := make([]byte, spoolHeader+len(keep))
		b[0] = byte(stream)
		binary.BigEndian.PutUint32(b[1:], uint32(len(keep))) //nolint:gosec // a pipe's piece
		copy(b[spoolHeader:], keep)
		if _, err := sp.f.Write(b); err != nil {
			// The state directory is full. Take the half piece back.
			_ = sp.f.Truncate(sp.size)
			keep = nil
		} else {
			sp.kept += int64(len(keep))
			sp.size += int64(len(b))
		}
	}
	sp.dropped += int64(len(p) - len(keep))
	sp.wake()
}

func (sp *spool) wake() {
	close(sp.changed)
	sp.changed = make(chan struct{})
}

// finish marks the end: no piece follows.
func (sp *spool) finish() {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if !sp.closed {
		sp.closed = true
		_ = sp.f.Close()
		sp.wake()
	}
}

// evict gives the file back. Results stay.
func (sp *spool) evict() {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	sp.evicted = true
	sp.dropped += sp.kept
	sp.kept, sp.size = 0, 0
	_ = os.Remove(sp.path)
}

// last is the end of the output.
func (sp *spool) last() []byte {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	t := sp.tail[max(0, len(sp.tail)-tailBytes):]
	return append([]byte(nil), t...)
}

type spoolState struct {
	size, kept, dropped int64
	stdout, stderr      int64
	closed              bool
	changed             <-chan struct{}
}

func (sp *spool) state() spoolState {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	return spoolState{sp.size, sp.kept, sp.dropped, sp.total[guest.Stdout], sp.total[guest.Stderr], sp.closed, sp.changed}
}

// spoolReader reads pieces from the start.
type spoolReader struct {
	sp  *spool
	f   *os.File
	r   *bufio.Reader
	pos int64
	buf []byte
}

func (sp *spool) reader() (*spoolReader, error) {
	sp.mu.Lock()
	defer sp.mu.Unlock()
	if sp.evicted {
		return &spoolReader{sp: sp}, nil
	}
	f, err := os.Open(sp.path)
	if err != nil {
		return nil, fmt.Errorf("open kept output: %w", err)
	}
	return &spoolReader{sp: sp, f: f, r: bufio.NewReaderSize(f, 32<<10)}, nil
}

func (r *spoolReader) close() {
	if r.f != nil {
		_ = r.f.Close()
	}
}

// errSpoolWait says that there is no piece yet.
var errSpoolWait = errors.New("no more output yet")

// next returns the next piece, io.EOF at the end, errSpoolWait when the command
// is still running and has said no more.
func (r *spoolReader) next(st spoolState) (guest.Stream, []byte, error) {
	if r.f == nil || r.pos >= st.size {
		if st.closed {
			return 0, nil, io.EOF
		}
		return 0, nil, errSpoolWait
	}
	var hdr [spoolHeader]byte
	if _, err := io.ReadFull(r.r, hdr[:]); err != nil {
		return 0, nil, fmt.Errorf("read kept output: %w", err)
	}
	n := int(binary.BigEndian.Uint32(hdr[1:]))
	if n > cap(r.buf) {
		r.buf = make([]byte, n)
	}
	p := r.buf[:n]
	if _, err := io.ReadFull(r.r, p); err != nil {
		return 0, nil, fmt.Errorf("read kept output: %w", err)
	}
	r.pos += int64(spoolHeader + n)
	return guest.Stream(hdr[0]), p, nil
}

// copyText writes the payload from byte offset to w, at most limit bytes.
func (sp *spool) copyText(w io.Writer, offset, limit int64) error {
	r, err := sp.reader()
	if err != nil {
		return err
	}
	defer r.close()
	st := sp.state()
	for limit > 0 {
		_, p, err := r.next(st)
		if errors.Is(err, io.EOF) || errors.Is(err, errSpoolWait) {
			return nil
		}
		if err != nil {
			return err
		}
		if offset >= int64(len(p)) {
			offset -= int64(len(p))
			continue
		}
		p = p[offset:]
		offset = 0
		p = p[:min(int64(len(p)), limit)]
		limit -= int64(len(p))
		if _, err := w.Write(p); err != nil {
			return err
		}
	}
	return nil
}
