package connectors_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/connectors"
	"ambit.dev/ambit/internal/fault"
)

func TestValidateSchema(t *testing.T) {
	for _, good := range []string{
		`{"type":"object"}`,
		`{"type":"object","properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"type":"string","pattern":"^a+$"}}}`,
		`{"$schema":"https://json-schema.org/draft/2020-12/schema","type":"object"}`,
		`{"$schema":"http://json-schema.org/draft-07/schema#","type":"object"}`,
	} {
		require.NoError(t, connectors.ValidateSchema("/tools/0/input_schema", json.RawMessage(good)), good)
	}
	for _, bad := range []string{
		``, `{`, `null`, `true`, `[]`, `"object"`, `{}`, `{"type":"string"}`,
		`{"type":"object","properties":5}`,
		`{"type":"object","properties":{"a":{"type":"strin"}}}`,
		`{"type":"object","required":"a"}`,
		`{"type":"object","properties":{"a":{"pattern":"("}}}`,
		`{"type":"object","properties":{"a":{"$ref":"#/nowhere"}}}`,
		`{"type":"object","properties":{"a":{"$ref":"https://example.com/a.json"}}}`,
		`{"type":"object","properties":{"a":{"$ref":"file:///etc/passwd"}}}`,
		`{"$schema":"https://example.com/mine","type":"object"}`,
		`{"type":"object","x":"` + strings.Repeat("x", connectors.MaxSchemaBytes) + `"}`,
		`{"type":"object","x":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + `}`,
	} {
		err := connectors.ValidateSchema("/tools/0/input_schema", json.RawMessage(bad))
		require.Error(t, err, bad[:min(80, len(bad))])
		f := fault.As(err)
		require.Equal(t, fault.Invalid, f.Kind)
		require.Equal(t, "/tools/0/input_schema", f.Fields[0].Pointer)
		require.Less(t, len(f.Message), 2000)
	}
}

func FuzzValidateSchema(f *testing.F) {
	f.Add([]byte(`{"type":"object","properties":{"a":{"$ref":"#/$defs/a"}},"$defs":{"a":{"$dynamicRef":"#a"}}}`))
	f.Fuzz(func(_ *testing.T, raw []byte) {
		_ = connectors.ValidateSchema("/x", raw)
	})
}
