package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

const (
	jsonType       = "application/json"
	streamType     = "text/event-stream"
	bytesType      = "application/octet-stream"
	replayedHeader = "Idempotency-Replayed"
)

// versioned is an answer that has a strong entity tag.
type versioned interface{ entityTag() string }

// exact is a versioned answer whose tag changes with every change of it, so that an unchanged tag means an unchanged answer.
type exact interface{ exactTag() }

// located is an answer to a creation: where to find what was made.
type located interface{ location() string }

// rendered is an answer ready to be sent, or kept and sent again.
type rendered struct {
	status int
	header map[string]string
	body   []byte
	exact  bool
}

func (r *rendered) decode(out any) error {
	if err := json.Unmarshal(r.body, out); err != nil {
		return fmt.Errorf("read a kept answer: %w", err)
	}
	return nil
}

// render encodes out and takes its headers from it.
func render(status int, out any) (*rendered, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false) // answers are never HTML, and prompts are easier to read so
	if err := enc.Encode(out); err != nil {
		return nil, fmt.Errorf("write an answer: %w", err)
	}
	r := &rendered{status: status, header: map[string]string{}, body: b.Bytes()}
	if v, ok := out.(versioned); ok {
		r.header["ETag"] = v.entityTag()
	}
	_, r.exact = out.(exact)
	if l, ok := out.(located); ok && status == http.StatusCreated {
		r.header["Location"] = l.location()
	}
	return r, nil
}

// quoteTag writes a version as a strong entity tag.
func quoteTag(version int64) string { return `"` + strconv.FormatInt(version, 10) + `"` }

func (c *call) answer(status int, out any) error {
	r, err := render(status, out)
	if err != nil {
		return err
	}
	return c.send(r)
}

func (c *call) send(r *rendered) error {
	h := c.w.Header()
	for name, value := range r.header {
		h.Set(name, value)
	}
	h.Set("Cache-Control", "no-store")
	if tag := r.header["ETag"]; tag != "" && r.exact && c.r.Method == http.MethodGet {
		h.Set("Cache-Control", "private, no-cache")
		if tagMatches(c.r.Header.Values("If-None-Match"), tag) {
			c.w.WriteHeader(http.StatusNotModified)
			return nil
		}
	}
	h.Set("Content-Type", jsonType)
	h.Set("Content-Length", strconv.Itoa(len(r.body)))
	c.w.WriteHeader(r.status)
	_, _ = c.w.Write(r.body) // the reader is gone; the effect stands
	return nil
}

// tagMatches compares as If-None-Match does: weakly, and * matches all.
func tagMatches(headers []string, tag string) bool {
	for _, h := range headers {
		for one := range strings.SplitSeq(h, ",") {
			one = strings.TrimSpace(one)
			if one == "*" || strings.TrimPrefix(one, "W/") == tag {
				return true
			}
		}
	}
	return false
}
