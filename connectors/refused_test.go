package connectors_test

import (
	"context"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/connectors"
)

// TestARegistryRefusesASchemaThatIsNone: a tool whose schema can't be used never reaches a model.
func TestARegistryRefusesASchemaThatIsNone(t *testing.T) {
	tool := func(schema string) connectors.Tool {
		return connectors.Tool{
			Name: "weather", Schema: json.RawMessage(schema),
			Limit: func(json.RawMessage) time.Duration { return time.Second },
			Run: func(context.Context, connectors.Workspace, json.RawMessage) (connectors.Result, error) {
				return connectors.Result{}, nil
			},
		}
	}
	_, err := connectors.NewRegistry(tool(`{"type":"object","properties":{"city":{"type":"string"}}}`))
	require.NoError(t, err)
	for schema, why := range map[string]string{
		``:                  "not JSON",
		`"a schema"`:        `must be a JSON object with "type": "object"`,
		`{"type":"string"}`: `must be a JSON object with "type": "object"`,
		`{"type":"object","properties":{"city":{"type":"strin"}}}`:                           "properties.city.type: value must be one of",
		`{"type":"object","properties":{"city":{"$ref":"https://example.com/schema.json"}}}`: "may refer to its own parts only",
	} {
		r, err := connectors.NewRegistry(tool(schema))
		require.ErrorContains(t, err, "the schema of the tool weather", schema)
		require.ErrorContains(t, err, why, schema)
		require.Nil(t, r)
	}
}
