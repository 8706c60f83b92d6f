package guest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	require.NoError(t, WriteFrame(&b, FrameStdout, []byte("out")))
	require.NoError(t, WriteFrame(&b, FrameEnd, nil))
	require.NoError(t, WriteJSON(&b, FrameRequest, Request{Op: OpInfo}))
	fr := NewFrameReader(&b)
	typ, p, err := fr.Next()
	require.NoError(t, err)
	require.Equal(t, FrameStdout, typ)
	require.Equal(t, "out", string(p))
	typ, p, err = fr.Next()
	require.NoError(t, err)
	require.Equal(t, FrameEnd, typ)
	require.Empty(t, p)
	req, err := DecodeRequest(fr)
	require.NoError(t, err)
	require.Equal(t, OpInfo, req.Op)
	_, _, err = fr.Next()
	require.ErrorIs(t, err, io.EOF)

	require.ErrorIs(t, WriteFrame(io.Discard, FrameData, make([]byte, MaxFrame+1)), errFrame)
}

func TestMalformedFrames(t *testing.T) {
	frame := func(typ byte, n uint32, payload string) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{typ}, n), payload...)
	}
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"unknown type":      {frame(99, 0, ""), errFrame},
		"type zero":         {frame(0, 0, ""), errFrame},
		"too long":          {frame(3, MaxFrame+1, ""), errFrame},
		"longest number":    {frame(3, 1<<32-1, ""), errFrame},
		"cut in the header": {frame(3, 5, "")[:3], io.ErrUnexpectedEOF},
		"cut in the middle": {frame(3, 5, "ab"), io.ErrUnexpectedEOF},
		"cut at the start":  {frame(3, 5, ""), io.ErrUnexpectedEOF},
	} {
		_, _, err := NewFrameReader(bytes.NewReader(c.in)).Next()
		require.ErrorIs(t, err, c.want, name)
	}
	for name, in := range map[string][]byte{
		"not a request":    frame(byte(FrameData), 2, "{}"),
		"not JSON":         frame(byte(FrameRequest), 1, "{"),
		"no operation":     frame(byte(FrameRequest), 2, "{}"),
		"another's a type": frame(byte(FrameRequest), 10, `{"op":12.5`),
	} {
		_, err := DecodeRequest(NewFrameReader(bytes.NewReader(in)))
		require.ErrorIs(t, err, errFrame, name)
	}
}

// FuzzFrameReader: whatever arrives, reading ends without a panic, and without
// allocating more than a frame may have.
func FuzzFrameReader(f *testing.F) {
	var b bytes.Buffer
	_ = WriteJSON(&b, FrameRequest, Request{Op: OpExec, Body: []byte(`{"argv":["true"]}`)})
	_ = WriteFrame(&b, FrameData, []byte("data"))
	f.Add(b.Bytes())
	f.Add([]byte{1, 0xff, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, in []byte) {
		fr := NewFrameReader(bytes.NewReader(in))
		read := 0
		for {
			_, p, err := fr.Next()
			if err != nil {
				require.True(t, errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, errFrame), err)
				break
			}
			read += frameHeader + len(p)
		}
		require.LessOrEqual(t, read, len(in))
		require.LessOrEqual(t, cap(fr.buf), MaxFrame)
		_, _ = DecodeRequest(NewFrameReader(bytes.NewReader(in)))
	})
}

// FuzzHandshakeLine: a line is recognised or not, and what is recognised is
// well formed.
func FuzzHandshakeLine(f *testing.F) {
	f.Add("AMBIT 1 HELLO 00112233445566778899aabbccddeeff")
	f.Add("\x00\x01AMBIT AMBIT 1 GO 00112233445566778899aabbccddeeff")
	f.Add("AMBIT 99999999999999999999 OK x")
	f.Fuzz(func(t *testing.T, s string) {
		l, ok := parseHandshakeLine(s)
		if !ok {
			return
		}
		again, ok := parseHandshakeLine(l.String()[:len(l.String())-1])
		require.True(t, ok)
		require.Equal(t, l, again)
	})
}
