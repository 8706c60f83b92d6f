package sse_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/models/internal/sse"
)

func all(t *testing.T, r io.Reader) []sse.Event {
	t.Helper()
	var events []sse.Event
	for reader := sse.NewReader(r); ; {
		e, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return events
		}
		require.NoError(t, err)
		events = append(events, e)
	}
}

func TestReadsWhatServersSend(t *testing.T) {
	for name, c := range map[string]struct {
		in   string
		want []sse.Event
	}{
		"named event":               {"event: ping\ndata: {}\n\n", []sse.Event{{Type: "ping", Data: []byte("{}")}}},
		"carriage returns":          {"data: a\r\n\r\ndata: b\r\rdata: c\n\n", []sse.Event{{Type: "message", Data: []byte("a")}, {Type: "message", Data: []byte("b")}, {Type: "message", Data: []byte("c")}}},
		"comments and no space":     {": hello\n:\ndata:a\n: more\n\n", []sse.Event{{Type: "message", Data: []byte("a")}}},
		"several data lines":        {"data: a\ndata\ndata: b\n\n", []sse.Event{{Type: "message", Data: []byte("a\n\nb")}}},
		"byte order mark":           {"\xef\xbb\xbfdata: a\n\n", []sse.Event{{Type: "message", Data: []byte("a")}}},
		"one leading space only":    {"data:  a\n\n", []sse.Event{{Type: "message", Data: []byte(" a")}}},
		"name without data":         {"event: x\n\ndata: a\n\n", []sse.Event{{Type: "message", Data: []byte("a")}}},
		"id, retry, unknown":        {"id: 7\nretry: 10\nfoo: bar\ndata: a\n\n", []sse.Event{{Type: "message", ID: "7", Data: []byte("a")}}},
		"no last blank line":        {"data: [DONE]\n", []sse.Event{{Type: "message", Data: []byte("[DONE]"), Unterminated: true}}},
		"cut in mid line":           {"data: {\"a\":", []sse.Event{{Type: "message", Data: []byte(`{"a":`), Unterminated: true}}},
		"many blank lines":          {"\n\n\n\ndata: a\n\n\n\n", []sse.Event{{Type: "message", Data: []byte("a")}}},
		"nothing":                   {"", nil},
		"empty data is still data":  {"data:\n\n", []sse.Event{{Type: "message", Data: nil}}},
		"carriage return at an end": {"data: a\r\r", []sse.Event{{Type: "message", Data: []byte("a")}}},
	} {
		t.Run(name, func(t *testing.T) {
			whole := all(t, strings.NewReader(c.in))
			require.Len(t, whole, len(c.want))
			for i := range whole {
				require.Equal(t, c.want[i].Type, whole[i].Type)
				require.Equal(t, c.want[i].ID, whole[i].ID)
				require.Equal(t, string(c.want[i].Data), string(whole[i].Data))
				require.Equal(t, c.want[i].Unterminated, whole[i].Unterminated)
			}
			require.Equal(t, whole, all(t, iotest.OneByteReader(strings.NewReader(c.in))), "split after each byte")
		})
	}
}

func TestSizesAreBounded(t *testing.T) {
	_, err := sse.NewReaderLimits(strings.NewReader("data: "+strings.Repeat("a", 200)+"\n\n"), 100, 1000).Next()
	require.ErrorIs(t, err, sse.ErrTooLarge)
	_, err = sse.NewReaderLimits(strings.NewReader(strings.Repeat("data: a\n", 60)), 100, 1000).Next()
	require.ErrorIs(t, err, sse.ErrTooLarge)
	_, err = sse.NewReaderLimits(strings.NewReader(strings.Repeat(": ping\n\n", 1000)), 100, 1000).Next()
	require.ErrorIs(t, err, sse.ErrTooLarge, "comments count")
}

func TestTheSourcesErrorComesThrough(t *testing.T) {
	broken := errors.New("broken")
	r := sse.NewReader(io.MultiReader(strings.NewReader("data: a\n\ndata: b"), iotest.ErrReader(broken)))
	e, err := r.Next()
	require.NoError(t, err)
	require.Equal(t, "a", string(e.Data))
	_, err = r.Next()
	require.ErrorIs(t, err, broken)
}

func FuzzReader(f *testing.F) {
	for _, s := range []string{"data: a\r\n\r\n", "event: x\ndata: {}\n\n: c\n", "\xef\xbb\xbf\xefdata", "data\n\n", "id: \x00\ndata: 1"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		read := func(r io.Reader) (out []string) {
			for reader := sse.NewReaderLimits(r, 1<<10, 1<<16); ; {
				e, err := reader.Next()
				if err != nil {
					return append(out, err.Error())
				}
				if len(e.Data) > 1<<10 {
					t.Fatalf("%d bytes came through", len(e.Data))
				}
				out = append(out, e.Type+"|"+e.ID+"|"+string(e.Data))
			}
		}
		whole, split := read(bytes.NewReader(in)), read(iotest.OneByteReader(bytes.NewReader(in)))
		require.Equal(t, whole, split)
	})
}
