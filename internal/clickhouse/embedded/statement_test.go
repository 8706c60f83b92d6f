package embedded

import (
	"bytes"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ClickHouse/ch-go/compress"
	"github.com/stretchr/testify/require"
)

func TestParseStatement(t *testing.T) {
	for text, want := range map[string]statement{
		"SELECT 1":                             {kind: rowStatement, text: "SELECT 1"},
		" -- insert\n/* x */ select 1":         {kind: rowStatement, text: " -- insert\n/* x */ select 1"},
		"(SELECT 1)":                           {text: "(SELECT 1)"},
		"WITH 1 AS x SELECT x":                 {kind: rowStatement, text: "WITH 1 AS x SELECT x"},
		"DESCRIBE TABLE t":                     {text: "DESCRIBE TABLE t"},
		"":                                     {text: ""},
		"INSERT INTO t SELECT 1":               {text: "INSERT INTO t SELECT 1"},
		"INSERT INTO t (a, b)":                 {kind: dataInsert, text: "INSERT INTO t (a, b)"},
		"INSERT INTO t (a) FORMAT Native":      {kind: dataInsert, text: "INSERT INTO t (a) ", format: "Native"},
		"INSERT INTO t FORMAT CSV\n1,2":        {kind: dataInsert, text: "INSERT INTO t ", format: "CSV", inline: "1,2"},
		"INSERT INTO t VALUES (1, 'a\nb')":     {kind: dataInsert, text: "INSERT INTO t ", format: "Values", inline: " (1, 'a\nb')"},
		"INSERT INTO `values` (`format`)":      {kind: dataInsert, text: "INSERT INTO `values` (`format`)"},
		"INSERT INTO format (a) VALUES (1)":    {kind: dataInsert, text: "INSERT INTO format (a) ", format: "Values", inline: " (1)"},
		"insert into t settings x=1 values(1)": {kind: dataInsert, text: "insert into t settings x=1 ", format: "Values", inline: "(1)"},
	} {
		require.Equal(t, want, parseStatement(text), text)
	}
}

func FuzzParseStatement(f *testing.F) {
	f.Add("INSERT INTO t (a) VALUES ('it''s')")
	f.Add("insert into `a b` format CSV\n1")
	f.Add("/* */ -- \n(SELECT 'x')")
	f.Fuzz(func(t *testing.T, text string) {
		s := parseStatement(text)
		// Nothing of the text is made up, and data is its end.
		require.True(t, strings.HasPrefix(text, s.text))
		require.True(t, strings.HasSuffix(text, s.inline))
		if s.kind != dataInsert {
			require.Equal(t, text, s.text)
		}
	})
}

// frames compresses data into frames of at most n bytes.
func frames(t testing.TB, data []byte, n int) []byte {
	t.Helper()
	w := compress.NewWriter(compress.LevelZero, compress.LZ4)
	var out []byte
	for len(data) > 0 {
		m := min(n, len(data))
		require.NoError(t, w.Compress(data[:m]))
		out = append(out, w.Data...)
		data = data[m:]
	}
	return out
}

// TestFramesCutAnywhere proves that data which ends inside of a frame is never
// taken for data that ends.
func TestFramesCutAnywhere(t *testing.T) {
	data := bytes.Repeat([]byte("some rows, and more of them\n"), 40)
	whole := frames(t, data, 300)
	ends := map[int]bool{0: true}
	for n := 300; n < len(data)+300; n += 300 {
		ends[len(frames(t, data[:min(n, len(data))], 300))] = true
	}
	for cut := range len(whole) + 1 {
		got, err := io.ReadAll(newFrameReader(iotest.OneByteReader(bytes.NewReader(whole[:cut]))))
		if ends[cut] {
			require.NoError(t, err, cut)
		} else {
			require.ErrorIs(t, err, io.ErrUnexpectedEOF, cut)
		}
		require.True(t, bytes.HasPrefix(data, got))
	}
}

func FuzzFrames(f *testing.F) {
	f.Add(frames(f, []byte("hello"), 100))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		// A frame names its own size; the fuzzer must not be let to ask for 128 MB.
		if len(data) >= 25 && (data[23] != 0 || data[24] != 0 || data[19] != 0 || data[20] != 0) {
			return
		}
		_, err := io.Copy(io.Discard, newFrameReader(bytes.NewReader(data)))
		require.NotErrorIs(t, err, io.EOF)
	})
}
