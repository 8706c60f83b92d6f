package models_test

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/models"
)

func TestStorable(t *testing.T) {
	for in, want := range map[string]string{
		`{"b": 1, "a": "<é>"}`:     `{"b": 1, "a": "<é>"}`,
		`{"a":"x\u0000y"}`:         `{"a":"x␀y"}`,
		`{"\u0000":1}`:             `{"␀":1}`,
		`{"a":"\ud800"}`:           "{\"a\":\"\uFFFD\"}",
		"{\"a\":\"\xff\"}":         "{\"a\":\"\uFFFD\"}",
		`{"a":"\\u0000"}`:          `{"a":"\\u0000"}`,
		`{"n":9007199254740993.5}`: `{"n":9007199254740993.5}`,
	} {
		got, err := models.Storable(json.RawMessage(in))
		require.NoError(t, err, in)
		require.Equal(t, want, string(got))
	}
	for _, bad := range []string{``, `{`, `{} {}`, `{"n":1e999999}`, `[` + strings.Repeat("[", 200) + strings.Repeat("]", 201), `{"n":0.` + strings.Repeat("1", 500) + `}`} {
		_, err := models.Storable(json.RawMessage(bad))
		require.Error(t, err, bad)
		if bad != "" {
			_, malformed := models.Malformed(models.ToolInput(bad))
			require.True(t, malformed)
		}
	}
}

func TestWireToolName(t *testing.T) {
	require.Equal(t, "bash", models.WireToolName("bash"))
	require.Equal(t, "functions_bash_0", models.WireToolName("functions.bash:0"))
	require.True(t, models.ValidToolName(models.WireToolName(strings.Repeat("é", 100))))
	require.Equal(t, "_", models.WireToolName(""))
}

func FuzzToolInput(f *testing.F) {
	f.Add(`{"a":"\u0000\ud800","n":1e400}`)
	f.Fuzz(func(t *testing.T, s string) {
		got := models.ToolInput(s)
		if !json.Valid(got) || !utf8.Valid(got) || got[0] == '[' {
			t.Fatalf("%q became %q", s, got)
		}
		again, err := models.Storable(got)
		if err != nil || string(again) != string(got) && strings.Contains(string(again), "\x00") {
			t.Fatalf("%q is not fit: %v", got, err)
		}
	})
}
