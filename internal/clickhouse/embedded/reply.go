package embedded

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/http"
	"strconv"

	"github.com/ClickHouse/ch-go/compress"
)

// reply writes the answer to one request. Nothing reaches the client before the
// first bytes of output, so that an error found until then has its own status.
type reply struct {
	w       http.ResponseWriter
	frames  *compress.Writer
	tag     string
	started bool
}

func newReply(w http.ResponseWriter, req *request) *reply {
	out := &reply{w: w, tag: randomTag()}
	if req.framed {
		out.frames = compress.NewWriter(compress.LevelZero, req.compress)
	}
	header := w.Header()
	header.Set("X-ClickHouse-Exception-Tag", out.tag)
	if req.queryID != "" {
		header.Set("X-ClickHouse-Query-Id", req.queryID)
	}
	header.Set("X-ClickHouse-Format", req.format)
	header.Set("Content-Type", "application/octet-stream")
	return out
}

// frameSize keeps a frame well below the limit that readers of this format have.
const frameSize = 1 << 20

// write sends a piece of output.
func (o *reply) write(data []byte) error {
	if len(data) > 0 {
		o.started = true
	}
	if o.frames == nil {
		_, err := o.w.Write(data)
		return err
	}
	for len(data) > 0 {
		n := min(len(data), frameSize)
		if err := o.frames.Compress(data[:n]); err != nil {
			return fmt.Errorf("compress the answer: %w", err)
		}
		if _, err := o.w.Write(o.frames.Data); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}

// fail reports e: by status and header while nothing has been sent, else by the
// block that ClickHouse appends to a broken answer.
func (o *reply) fail(e *exception) {
	if !o.started {
		o.w.Header().Set("X-ClickHouse-Exception-Code", strconv.Itoa(e.code))
		o.w.Header().Set("Content-Type", "text/plain; charset=UTF-8")
		o.w.WriteHeader(e.status())
		_, _ = fmt.Fprintf(o.w, "%s\n", e.text)
		return
	}
	// Not compressed: the client looks for the marker in the raw bytes after its
	// decoder has given up.
	_, _ = fmt.Fprintf(o.w, "\r\n__exception__\r\n%s\r\n%s\n%d %s\r\n__exception__\r\n", o.tag, e.text, len(e.text)+1, o.tag)
}

func (o *reply) summary(written uint64) {
	o.w.Header().Set("X-ClickHouse-Summary", fmt.Sprintf(`{"read_rows":"0","written_rows":"%d"}`, written))
}

func randomTag() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return hex.EncodeToString(b[:])
}
