package contract_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/engines"
	"ambit.dev/ambit/models"
)

const fixtures = `{"fixtures":[
 {"match":{"userMessage":"weather","hasToolResult":true},"response":{"content":"It is sunny in Paris, and will stay so.",
   "usage":{"prompt_tokens":40,"completion_tokens":8,"total_tokens":48,"input_tokens":40,"output_tokens":8}}},
 {"match":{"userMessage":"weather"},"response":{"toolCalls":[{"name":"get_weather","arguments":{"city":"Paris"}}],
   "usage":{"prompt_tokens":30,"completion_tokens":12,"total_tokens":42,"input_tokens":30,"output_tokens":12}}}
]}`

// client is the tests' own, beside those of the providers.
var client = &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{}}

func get(ctx context.Context, url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s answered %s", url, resp.Status)
	}
	return io.ReadAll(resp.Body)
}

// mock starts the independent mock of the providers' APIs and returns its base URL.
func mock(t *testing.T) string {
	t.Helper()
	set, err := engines.Obtain(context.Background(), engines.Options{}, engines.Node, engines.AIMock)
	require.NoError(t, err)
	file := filepath.Join(t.TempDir(), "fixtures.json")
	require.NoError(t, os.WriteFile(file, []byte(fixtures), 0o600))
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	require.NoError(t, l.Close())
	var log bytes.Buffer
	cmd := exec.Command(set.Node, filepath.Join(set.AIMockDir, "dist", "cli.js"), "-p", port, "-f", file, "-c", "5")
	cmd.Stdout, cmd.Stderr = &log, &log
	require.NoError(t, cmd.Start())
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		client.CloseIdleConnections()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	base := "http://127.0.0.1:" + port
	require.Eventually(t, func() bool {
		_, err := get(t.Context(), base+"/v1/models")
		return err == nil
	}, 30*time.Second, 50*time.Millisecond)
	return base
}

func TestAgainstAnIndependentMock(t *testing.T) {
	base := mock(t)
	for _, d := range dialects {
		t.Run(d.name, func(t *testing.T) {
			p, err := d.make(base+d.basePath, 10*time.Second, time.Minute)
			require.NoError(t, err)

			list, err := p.Models(context.Background())
			require.NoError(t, err)
			require.NotEmpty(t, list)
			require.Contains(t, list[0].ID, d.name+"/")

			// The first turn wants a tool.
			r := weather(d.name, "some-model")
			var f folded
			first, err := p.Generate(context.Background(), models.Call{Request: r, EffectKey: "stp_" + d.name + "_1"}, f.take)
			require.NoError(t, err)
			requireSame(t, f, first)
			require.Equal(t, models.StopToolUse, first.StopReason)
			require.Len(t, first.ToolUses(), 1)
			use := first.ToolUses()[0]
			require.Equal(t, "get_weather", use.Name)
			require.JSONEq(t, `{"city":"Paris"}`, string(use.Input))
			require.Equal(t, models.Usage{Input: 30, Output: 12}, first.Usage)
			require.False(t, first.UsageEstimated)
			require.Positive(t, first.TimeToFirstToken)
			require.Equal(t, "some-model", first.ProviderModel)

			// The second reads its result.
			r.Messages = append(r.Messages, models.Message{Role: models.Assistant, Content: first.Content},
				models.Message{Role: models.User, Content: []models.Block{models.ToolResultBlock(use.ID, "sunny", false)}})
			require.NoError(t, r.Validate())
			f = folded{}
			second, err := p.Generate(context.Background(), models.Call{Request: r, EffectKey: "stp_" + d.name + "_2"}, f.take)
			require.NoError(t, err)
			requireSame(t, f, second)
			require.Equal(t, "It is sunny in Paris, and will stay so.", second.Text())
			require.Equal(t, models.EndTurn, second.StopReason)

			// What the mock does not know is refused in the provider's own way.
			r = weather(d.name, "some-model")
			r.Messages[0].Content[0].Text = "nobody wrote a fixture for this"
			_, err = p.Generate(context.Background(), models.Call{Request: r, EffectKey: "stp_" + d.name + "_3"}, nil)
			e, ok := models.AsError(err)
			require.True(t, ok)
			require.Equal(t, http.StatusNotFound, e.Status)
			require.False(t, e.Retryable)
		})
	}
	seen := map[string]int{}
	for _, k := range journalKeys(t, base) {
		seen[k]++
	}
	for _, d := range dialects {
		for _, n := range []string{"_1", "_2", "_3"} {
			require.Equal(t, 1, seen["stp_"+d.name+n], "the mock's own log shows each effect key once")
		}
	}
}

func journalKeys(t *testing.T, base string) []string {
	t.Helper()
	body, err := get(t.Context(), base+"/__aimock/journal")
	require.NoError(t, err)
	var log []struct {
		Headers map[string]string `json:"headers"`
	}
	require.NoError(t, json.Unmarshal(body, &log))
	var keys []string
	for _, entry := range log {
		if k := entry.Headers["idempotency-key"]; k != "" {
			keys = append(keys, k)
		}
	}
	return keys
}
