package models

import (
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"math"
	"slices"
)

// Digest is what an admission is bound to: the SHA-256 of all that the request holds, each field behind its length, so that two requests
// that differ in a byte have different digests and no field can pass for part of its neighbour. A conversation is hashed at each call of a
// session, so it is not written as JSON first: that took twenty times as long.
func Digest(r Request) [32]byte {
	d := digester{h: sha256.New(), buf: make([]byte, 0, digestBuffer)}
	d.text(r.Model)
	d.text(r.System)
	d.number(int64(len(r.Messages)))
	for i := range r.Messages {
		d.text(string(r.Messages[i].Role))
		d.blocks(r.Messages[i].Content)
	}
	d.number(int64(len(r.Tools)))
	for i := range r.Tools {
		d.text(r.Tools[i].Name)
		d.text(r.Tools[i].Description)
		d.bytes(r.Tools[i].InputSchema)
	}
	d.number(r.MaxTokens)
	d.float(r.Temperature)
	d.float(r.TopP)
	d.number(int64(len(r.StopSequences)))
	for _, s := range r.StopSequences {
		d.text(s)
	}
	keys := make([]string, 0, len(r.Metadata))
	for k := range r.Metadata {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	d.number(int64(len(keys)))
	for _, k := range keys {
		d.text(k)
		d.text(r.Metadata[k])
	}
	return d.sum()
}

const digestBuffer = 4096

// digester gathers small fields, so that the hash is given blocks of some size.
type digester struct {
	h   hash.Hash
	buf []byte
}

func (d *digester) blocks(blocks []Block) {
	d.number(int64(len(blocks)))
	for i := range blocks {
		b := &blocks[i]
		d.text(string(b.Type))
		d.text(b.Text)
		d.text(b.Provider)
		d.bytes(b.Raw)
		d.text(b.ID)
		d.text(b.Name)
		d.bytes(b.Input)
		d.text(b.ToolUseID)
		d.blocks(b.Content)
		d.flag(b.IsError)
		d.text(b.MediaType)
		d.text(b.Data)
	}
}

func (d *digester) text(s string) {
	d.number(int64(len(s)))
	if len(d.buf)+len(s) > digestBuffer {
		d.flush()
	}
	d.buf = append(d.buf, s...)
}

func (d *digester) bytes(b []byte) {
	d.number(int64(len(b)))
	if len(d.buf)+len(b) > digestBuffer {
		d.flush()
	}
	d.buf = append(d.buf, b...)
}

func (d *digester) number(n int64) { d.buf = binary.AppendVarint(d.buf, n) }

func (d *digester) flag(set bool) {
	if set {
		d.number(1)
	} else {
		d.number(0)
	}
}

// float tells a value that is not set from zero.
func (d *digester) float(f *float64) {
	d.flag(f != nil)
	if f != nil {
		d.buf = binary.BigEndian.AppendUint64(d.buf, math.Float64bits(*f))
	}
}

func (d *digester) flush() {
	d.h.Write(d.buf) // a hash never fails
	d.buf = d.buf[:0]
}

func (d *digester) sum() (out [32]byte) {
	d.flush()
	d.h.Sum(out[:0])
	return out
}
