package guest

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// A stream carries frames: one byte of type, four bytes of length (big endian),
// the payload. The client's first frame is a request; the guest answers with
// any number of data frames and exactly one result or error.

// FrameType is the first byte of a frame.
type FrameType byte

// The frame types. Values are part of the wire format.
const (
	FrameRequest FrameType = 1 // JSON: operation and its body; client to guest, once, first
	FrameStarted FrameType = 2 // JSON: a command is running or was found
	FrameStdout  FrameType = 3
	FrameStderr  FrameType = 4
	FrameData    FrameType = 5 // file content, either way
	FrameEnd     FrameType = 6 // no more data follows; empty
	FrameResult  FrameType = 7 // JSON; last
	FrameError   FrameType = 8 // JSON Error; last
)

// MaxFrame is the largest payload, in bytes. A peer that announces more is
// broken or hostile, and its stream is closed before anything is allocated.
const MaxFrame = 1 << 20

// dataChunk is how file content is cut into frames: well under yamux's window.
const dataChunk = 32 << 10

const frameHeader = 5

// frameSpare is what a request's envelope may take of its frame.
const frameSpare = 1 << 10

// errFrame marks what can only come from a peer that does not speak this protocol.
var errFrame = errors.New("malformed frame")

// FrameReader decodes frames. It reuses one buffer, so a payload is valid until
// the next call.
type FrameReader struct {
	r   io.Reader
	hdr [frameHeader]byte
	buf []byte
}

// NewFrameReader reads frames from r, which should be buffered or cheap to read.
func NewFrameReader(r io.Reader) *FrameReader { return &FrameReader{r: r} }

// Next reads one frame. io.EOF only between frames; a frame cut short is
// io.ErrUnexpectedEOF.
func (fr *FrameReader) Next() (FrameType, []byte, error) {
	if _, err := io.ReadFull(fr.r, fr.hdr[:]); err != nil {
		return 0, nil, err
	}
	t := FrameType(fr.hdr[0])
	if t < FrameRequest || t > FrameError {
		return 0, nil, fmt.Errorf("%w: type %d", errFrame, t)
	}
	n := binary.BigEndian.Uint32(fr.hdr[1:])
	if n > MaxFrame {
		return 0, nil, fmt.Errorf("%w: %d bytes announced, at most %d allowed", errFrame, n, MaxFrame)
	}
	if int(n) > cap(fr.buf) {
		fr.buf = make([]byte, n)
	}
	p := fr.buf[:n]
	if _, err := io.ReadFull(fr.r, p); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return 0, nil, err
	}
	return t, p, nil
}

// WriteFrame writes one frame with a single Write, so that frames of
// concurrent writers that share a lock-free writer never interleave.
func WriteFrame(w io.Writer, t FrameType, payload []byte) error {
	if len(payload) > MaxFrame {
		return fmt.Errorf("%w: payload of %d bytes", errFrame, len(payload))
	}
	b := make([]byte, frameHeader+len(payload))
	b[0] = byte(t)
	binary.BigEndian.PutUint32(b[1:frameHeader], uint32(len(payload))) //nolint:gosec // bounded above
	copy(b[frameHeader:], payload)
	_, err := w.Write(b)
	return err
}

// WriteJSON writes v as the payload of one frame.
func WriteJSON(w io.Writer, t FrameType, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode frame: %w", err)
	}
	return WriteFrame(w, t, b)
}

// Request is the first frame of a stream.
type Request struct {
	Op   Op              `json:"op"`
	Body json.RawMessage `json:"body,omitempty"`
}

// DecodeRequest reads the request that opens a stream.
func DecodeRequest(fr *FrameReader) (Request, error) {
	t, p, err := fr.Next()
	if err != nil {
		return Request{}, err
	}
	if t != FrameRequest {
		return Request{}, fmt.Errorf("%w: a stream begins with a request, not with type %d", errFrame, t)
	}
	var req Request
	if err := json.Unmarshal(p, &req); err != nil {
		return Request{}, fmt.Errorf("%w: request: %w", errFrame, err)
	}
	if req.Op == "" {
		return Request{}, fmt.Errorf("%w: request without an operation", errFrame)
	}
	return req, nil
}
