// Package archtest holds the architecture's rules as ordinary tests: who may import whom, and what may be called only from where.
package archtest

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

const module = "ambit.dev/ambit"

type pkg struct {
	ImportPath string
	Dir        string
	GoFiles    []string
	Imports    []string
	Deps       []string
}

// packages lists the module's packages with their imports. Test files do not count: a test may stand on anything.
func packages(t *testing.T) map[string]pkg {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Dir,GoFiles,Imports,Deps", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	found := map[string]pkg{}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		if rel, ours := strings.CutPrefix(p.ImportPath, module+"/"); ours {
			found[rel] = p
		}
	}
	require.Greater(t, len(found), 20)
	return found
}

// layers go from the top to the bottom: a package imports only layers below its own, and its own.
var layers = [][]string{
	{"cmd"},
	{"internal/app"},
	{"api", "console"},
	{"directory", "supervisor"},
	{"scheduler"},
	{"agents"},
	{"connectors"}, // its tools run in sandboxes, and are described to models
	{"models", "sandbox", "signals"},
	{"nomad"},
	{"governance"},
	{"billing"},
	{"tenants"},
	{"notifications"},
	{"journal"},
	{"internal", "migrations"},
}

func layerOf(rel string) int {
	best, length := -1, -1
	for i, layer := range layers {
		for _, prefix := range layer {
			if (rel == prefix || strings.HasPrefix(rel, prefix+"/")) && len(prefix) > length {
				best, length = i, len(prefix)
			}
		}
	}
	return best
}

func TestImportsGoDownwards(t *testing.T) {
	for rel, p := range packages(t) {
		if rel == "observability" || strings.HasPrefix(rel, "observability/") || strings.HasPrefix(rel, "test/") || strings.HasPrefix(rel, "sandbox/driver") || strings.HasPrefix(rel, "sandbox/guest") {
			continue // rules of their own, below
		}
		from := layerOf(rel)
		require.NotEqual(t, -1, from, "package %s has no place among the layers", rel)
		for _, imported := range p.Imports {
			to, ours := strings.CutPrefix(imported, module+"/")
			if !ours || strings.HasPrefix(to, "observability") {
				continue
			}
			if rel == "nomad" && (strings.HasPrefix(to, "sandbox/driver") || strings.HasPrefix(to, "internal/")) {
				continue
			}
			require.GreaterOrEqual(t, layerOf(to), from, "%s imports %s, which stands above it", rel, to)
		}
	}
}

// only says that what matches Imported is imported by the packages listed, and by no others.
type only struct {
	Imported string
	By       []string
	Why      string
}

func TestWhatOnlySomeMayImport(t *testing.T) {
	rules := []only{
		{"github.com/hashicorp/nomad/api", []string{"nomad"}, "one place knows the vendor's types"},
		{"github.com/stripe/stripe-go", []string{"billing/stripe"}, "one place knows the vendor's types"},
		{"github.com/ClickHouse/clickhouse-go", []string{"internal/clickhouse", "observability", "internal/app/backup"}, "money and permission never come from the telescope"},
		{"github.com/casbin", []string{"governance/policy"}, "rules are data everywhere else; one place knows the library"},
		{module + "/observability", []string{"internal/app", "api", "console"}, "nothing that decides may depend on what is only shown"},
		{module + "/models/anthropic", []string{"internal/app"}, "providers are plugged in, not reached around the gateway"},
		{module + "/models/openai", []string{"internal/app"}, "providers are plugged in, not reached around the gateway"},
		{module + "/models/scripted", []string{"internal/app"}, "providers are plugged in, not reached around the gateway"},
		{"github.com/jackc/pgx", []string{"internal", "migrations", "journal", "billing", "tenants", "notifications", "governance", "agents", "scheduler", "sandbox", "observability", "api", "console"}, "a node links no database"},
	}
	for rel, p := range packages(t) {
		if strings.HasPrefix(rel, "test/") {
			continue
		}
		for _, rule := range rules {
			for _, imported := range p.Imports {
				if !strings.HasPrefix(imported, rule.Imported) || strings.HasPrefix(module+"/"+rel, rule.Imported) {
					continue
				}
				allowed := slices.ContainsFunc(rule.By, func(by string) bool { return rel == by || strings.HasPrefix(rel, by+"/") })
				require.True(t, allowed, "%s imports %s: %s", rel, imported, rule.Why)
			}
		}
	}
}

// TestPermissionsDoNotKnowTheGate: the gate asks them, in its own transaction. They stand in one layer, so the order of layers does not say it.
func TestPermissionsDoNotKnowTheGate(t *testing.T) {
	p, ok := packages(t)["governance/policy"]
	require.True(t, ok)
	require.NotContains(t, p.Deps, module+"/governance/gate")
	require.NotContains(t, p.Deps, module+"/billing")
}

func TestANodeLinksNeitherTheGateNorADatabase(t *testing.T) {
	all := packages(t)
	for _, program := range []string{"cmd/ambit-node", "cmd/ambit-guest", "sandbox/driver", "sandbox/guest", "sandbox/qemu", "sandbox/node"} {
		p, ok := all[program]
		require.True(t, ok, "there is no package %s", program)
		for _, dep := range p.Deps {
			for _, forbidden := range []string{module + "/governance", module + "/billing", module + "/tenants", module + "/journal", "github.com/jackc/pgx", "database/sql"} {
				require.False(t, strings.HasPrefix(dep, forbidden), "%s links %s", program, dep)
			}
		}
	}
}

func TestTheSurfacesKnowNeitherEachOtherNorSQL(t *testing.T) {
	for rel, p := range packages(t) {
		surface := rel == "api" || strings.HasPrefix(rel, "api/") || rel == "console" || strings.HasPrefix(rel, "console/")
		if !surface {
			continue
		}
		other := module + "/console"
		if strings.HasPrefix(rel, "console") {
			other = module + "/api"
		}
		for _, imported := range p.Imports {
			require.False(t, imported == other || strings.HasPrefix(imported, other+"/"), "%s imports %s: the surfaces never import each other", rel, imported)
			require.NotContains(t, imported, "db/", "%s imports %s: a surface writes no SQL", rel, imported)
		}
		for _, file := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join(p.Dir, file))
			require.NoError(t, err)
			for _, call := range []string{"tx.Exec(", "tx.Query(", "tx.QueryRow("} {
				require.NotContains(t, string(text), call, "%s/%s: a surface writes no SQL", rel, file)
			}
		}
	}
}

// TestOnlyTheGateMakesAnAdmission: its fields are private, so a useless one is all that another package could make; still, none does.
func TestOnlyTheGateMakesAnAdmission(t *testing.T) {
	for rel, p := range packages(t) {
		if rel == "governance/gate" {
			continue
		}
		for _, file := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join(p.Dir, file))
			require.NoError(t, err)
			require.NotContains(t, string(text), "gate.Admission{", "%s/%s makes an admission", rel, file)
		}
	}
}

// TestTheEnvironmentIsReadInOnePlace: configuration is one documented struct.
func TestTheEnvironmentIsReadInOnePlace(t *testing.T) {
	for rel, p := range packages(t) {
		if rel == "internal/config" || strings.HasPrefix(rel, "cmd/ambit-guest") || strings.HasPrefix(rel, "sandbox/guest") || strings.HasPrefix(rel, "sandbox/node") {
			continue // a guest has no configuration, only what it was started with; a node is told by Nomad
		}
		for _, file := range p.GoFiles {
			text, err := os.ReadFile(filepath.Join(p.Dir, file))
			require.NoError(t, err)
			require.NotContains(t, string(text), "os.Getenv(\"AMBIT", "%s/%s reads the environment", rel, file)
		}
	}
}
