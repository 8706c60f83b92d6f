package config

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/money"
)

const planted = "s3cr3t-planted"

func TestDefaults(t *testing.T) {
	c, err := LoadFrom(map[string]string{"AMBIT_DATA_DIR": "/srv/a", "AMBIT_LISTEN": ""})
	require.NoError(t, err)
	require.Equal(t, "127.0.0.1:8080", c.Listen)
	require.Equal(t, Address("http://127.0.0.1:8080"), c.PublicURL)
	require.Equal(t, "/srv/a/master.key", c.MasterKeyFile)
	require.Equal(t, 5*money.Dollar, c.StarterCredit)
	require.Equal(t, slog.LevelInfo, c.LogLevel)
	require.Equal(t, 2, c.WarmSandboxes)
	require.Equal(t, 8, c.MaxSandboxes)
	require.Empty(t, c.OpenAIBaseURL, "no provider without a key or a base URL")
}

func TestEveryFieldIsDocumentedAndNamedAlike(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range (Config{}).Settings() {
		require.True(t, strings.HasPrefix(s.Name, "AMBIT_"), s.Name)
		require.Greater(t, len(s.Doc), 15, s.Name)
		require.True(t, strings.HasSuffix(s.Doc, "."), s.Name)
		require.False(t, seen[s.Name], s.Name)
		seen[s.Name] = true
	}
}

func TestWrongSettingsAreRefusedInOneLineEach(t *testing.T) {
	for name, tc := range map[string]struct{ variable, value, line string }{
		"number":          {"AMBIT_MAX_SANDBOXES", "many", "AMBIT_MAX_SANDBOXES is not a whole number"},
		"range":           {"AMBIT_MAX_SANDBOXES", "0", "AMBIT_MAX_SANDBOXES must be from 1 to 10000"},
		"money":           {"AMBIT_STARTER_CREDIT", "5", `AMBIT_STARTER_CREDIT is not an amount of dollars with two to nine decimals, such as "5.00"`},
		"negative":        {"AMBIT_STARTER_CREDIT", "-5.00", "AMBIT_STARTER_CREDIT must not be negative"},
		"level":           {"AMBIT_LOG_LEVEL", "loud", "AMBIT_LOG_LEVEL is not one of DEBUG, INFO, WARN, ERROR"},
		"format":          {"AMBIT_LOG_FORMAT", "xml", "AMBIT_LOG_FORMAT must be text or json"},
		"listen":          {"AMBIT_LISTEN", "8080", "AMBIT_LISTEN must be host:port, such as 127.0.0.1:8080"},
		"same address":    {"AMBIT_NODE_LISTEN", "127.0.0.1:8080", "AMBIT_NODE_LISTEN must differ from AMBIT_LISTEN: nodes' traffic is never public"},
		"scheme":          {"AMBIT_POSTGRES_URL", "mysql://x", "AMBIT_POSTGRES_URL must be a URL that begins with postgres:// or postgresql://"},
		"secret in a URL": {"AMBIT_POSTGRES_URL", "postgres://u:" + planted + "%zz@h", "AMBIT_POSTGRES_URL must be a URL that begins with postgres:// or postgresql://"},
		"no host":         {"AMBIT_NOMAD_ADDR", "http://", "AMBIT_NOMAD_ADDR names no host"},
		"socket":          {"AMBIT_CLICKHOUSE_URL", "unix://x/y", "AMBIT_CLICKHOUSE_URL must name the socket by its whole path: unix:///path/of.socket"},
		"relative":        {"AMBIT_DATA_DIR", "data", "AMBIT_DATA_DIR must be a whole path, from / on"},
		"key":             {"AMBIT_MASTER_KEY", planted, "AMBIT_MASTER_KEY must be 32 bytes in base64 or hexadecimal (openssl rand -base64 32 makes one)"},
		"mail":            {"AMBIT_MAIL_FROM", "nobody", "AMBIT_MAIL_FROM must be a mail address, such as Ambit <ambit@example.com>"},
		"truth":           {"AMBIT_EGRESS_ALLOW_LOOPBACK", "perhaps", "AMBIT_EGRESS_ALLOW_LOOPBACK is not true or false"},
		"driver":          {"AMBIT_SANDBOX_DRIVER", "docker", "AMBIT_SANDBOX_DRIVER must be auto or qemu"},
		"misspelt":        {"AMBIT_LISTENN", "x", "AMBIT_LISTENN is no setting; is AMBIT_LISTEN meant?"},
		"unknown":         {"AMBIT_COFFEE_STRENGTH", planted, "AMBIT_COFFEE_STRENGTH is no setting; ambit config lists them"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := LoadFrom(map[string]string{tc.variable: tc.value})
			require.EqualError(t, err, tc.line)
			require.NotContains(t, err.Error(), planted)
		})
	}
}

func TestWarmSandboxesNeverExceedAll(t *testing.T) {
	c, err := LoadFrom(map[string]string{"AMBIT_MAX_SANDBOXES": "1"})
	require.NoError(t, err)
	require.Equal(t, 1, c.WarmSandboxes)
}

func TestAllProblemsAreToldAtOnce(t *testing.T) {
	_, err := LoadFrom(map[string]string{"AMBIT_LISTEN": "x", "AMBIT_LOG_FORMAT": "y"})
	var invalid *Invalid
	require.ErrorAs(t, err, &invalid)
	require.Len(t, invalid.Problems, 2)
}

func TestSecretsNeverShow(t *testing.T) {
	s, a := Secret(planted), Address("postgres://u:"+planted+"@h:1/d?password="+planted)
	c := Config{AnthropicAPIKey: s, PostgresURL: a}
	var shown strings.Builder
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
		fmt.Fprintf(&shown, verb+verb+verb, s, a, c)
	}
	out, err := json.Marshal(c)
	require.NoError(t, err)
	shown.Write(out)
	slog.New(slog.NewTextHandler(&shown, nil)).Info("x", "s", s, "a", a, "c", c)
	slog.New(slog.NewJSONHandler(&shown, nil)).Info("x", "s", s, "a", a, "c", c)
	for _, setting := range c.Settings() {
		shown.WriteString(setting.Value)
	}
	require.NotContains(t, shown.String(), planted)
	require.NotContains(t, shown.String(), fmt.Sprintf("%x", planted))
	require.Contains(t, shown.String(), "postgres://u:[hidden]@h:1/d")
	require.Equal(t, planted, s.Reveal())
}

func TestAChildReadsTheSame(t *testing.T) {
	c, err := LoadFrom(map[string]string{
		"AMBIT_POSTGRES_URL": "postgres://u:p@h/d?sslmode=disable", "AMBIT_STARTER_CREDIT": "7.125",
		"AMBIT_LOG_LEVEL": "WARN", "AMBIT_OPENAI_API_KEY": "k", "AMBIT_INSTANCE": "i1",
	})
	require.NoError(t, err)
	vars := map[string]string{}
	for _, kv := range c.Environ() {
		name, value, _ := strings.Cut(kv, "=")
		vars[name] = value
	}
	again, err := LoadFrom(vars)
	require.NoError(t, err)
	require.Equal(t, c, again)
}

func TestLoadReadsTheEnvironment(t *testing.T) {
	for _, kv := range os.Environ() {
		if name, _, _ := strings.Cut(kv, "="); strings.HasPrefix(name, "AMBIT_") {
			t.Setenv(name, "")
		}
	}
	t.Setenv("AMBIT_WORKER_CONCURRENCY", "3")
	c, err := Load()
	require.NoError(t, err)
	require.Equal(t, 3, c.WorkerConcurrency)
}

func TestLoopbackIsOpenedOnAPrivateInstanceOnly(t *testing.T) {
	for _, listen := range []string{"0.0.0.0:8080", ":8080", "192.0.2.1:8080", "[::]:8080"} {
		_, err := LoadFrom(map[string]string{"AMBIT_EGRESS_ALLOW_LOOPBACK": "true", "AMBIT_LISTEN": listen})
		require.ErrorContains(t, err, "AMBIT_EGRESS_ALLOW_LOOPBACK is for tests")
	}
	c, err := LoadFrom(map[string]string{"AMBIT_EGRESS_ALLOW_LOOPBACK": "true", "AMBIT_LISTEN": "[::1]:0"})
	require.NoError(t, err)
	require.True(t, c.EgressAllowLoopback)
}
