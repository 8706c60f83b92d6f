package api_test

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestAgentsFromBirthToArchive(t *testing.T) {
	tn := newRig(t).newTenant("Ada")
	res := tn.ask("POST", "/v1/agents", `{"name":"helper","model":"ambit/scripted","tools":["bash"],"limits":{"max_cost":{"amount":"1.00","currency":"USD"}},"metadata":{"team":"a"}}`)
	require.Equal(t, 201, res.StatusCode, res.raw)
	require.Equal(t, `"1"`, res.Header.Get("ETag"))
	agent := res.field(t, "id").(string)
	require.Equal(t, "/v1/agents/"+agent, res.Header.Get("Location"))
	require.Equal(t, "1.00", res.field(t, "limits.max_cost.amount"))
	t.Log(res.raw)
	for k, v := range res.Header {
		t.Log(k, v)
	}
	res = tn.ask("GET", "/v1/agents/"+agent, "")
	require.Equal(t, 200, res.StatusCode, res.raw)
}
