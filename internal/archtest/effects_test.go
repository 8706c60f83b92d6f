package archtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// effects are the ways in which code reaches a model, a tool, a sandbox or the world outside. Each use of one must stand in a function that
// consumes an admission itself, or be listed below with the reason why it is no effect of an agent.
var effects = map[string][]string{
	"a provider":       {"(" + module + "/models.Provider).Generate"},
	"a tool":           {"field " + module + "/connectors.Tool.Run", "field " + module + "/connectors.Tool.Outside", module + "/connectors.Run"},
	"an agent's token": {"(*" + module + "/tenants/identity.AgentKeys).MintToken", "(" + module + "/scheduler.Tokens).MintToken", "(*" + module + "/scheduler.Service).Identify", "field " + module + "/connectors/builtin.Outside.Identify"},
	"a sandbox": {
		"(*" + module + "/sandbox/guest.Client).Exec", "(*" + module + "/sandbox/guest.Client).Run", "(*" + module + "/sandbox/guest.Client).WriteFile",
		"(*" + module + "/sandbox/guest.Client).WriteBytes", "(*" + module + "/sandbox/guest.Client).Remove", "(*" + module + "/sandbox/guest.Client).Restore",
		"literal " + module + "/sandbox.Effect",
		"(*" + module + "/sandbox/internal/sandboxdb.Queries).HoldUntil",
	},
	"the outside": {
		"(*" + module + "/internal/egress.Client).Do",
		"net.Dial", "net.DialTimeout", "(*net.Dialer).Dial", "(*net.Dialer).DialContext", "crypto/tls.Dial", "(*crypto/tls.Dialer).DialContext",
		"net/http.Get", "net/http.Post", "net/http.PostForm", "net/http.Head", "net/http.DefaultClient", "net/http.DefaultTransport",
		"(*net/http.Client).Do", "(*net/http.Client).Get", "(*net/http.Client).Post", "(*net/http.Client).PostForm", "(*net/http.Client).Head", "(*net/http.Transport).RoundTrip",
		"net/smtp.Dial", "net/smtp.SendMail", "net/smtp.NewClient",
	},
}

// elsewhere are the functions, or packages with a "/..." or ".*", that use one without consuming an admission, and why they may.
var elsewhere = map[string]string{
	"connectors.runs": "looks whether a tool can be run at all, and runs none",
	"connectors.Run":  "it is itself such a use: its callers are looked at, and a workspace of a sandbox exists only under an admission",

	"sandbox.(*Effect).*":                  "an Effect is made by Begin alone, which consumes the admission",
	"sandbox.(*Service).restore":           "into a machine whose time was admitted a moment before",
	"sandbox/bridge.*":                     "the connection itself: what is said over it carries a token with the effect's key and epoch",
	"sandbox/node.*":                       "a node has neither agents nor a gate; what reaches a guest carries a token that the gate's holder signed",
	"sandbox/qemu.*":                       "the machine's own monitor and channel, on unix sockets",
	"sandbox/guest.*":                      "the protocol itself",
	"sandbox/driver.*":                     "the contract that drivers are tested by",
	"nomad.*":                              "the scheduler of allocations; no agent's words reach it",
	"models/internal/upstream.*":           "what providers are reached by: called from their Generate, which stands under the gateway's admission, and to list models",
	"internal/egress.*":                    "the guarded client itself",
	"connectors/builtin.Outside.*":         "under the Grant that Registry.Call was given for its admission",
	"scheduler.(*Service).Identify":        "takes the Grant of a consumed admission, and reads all else by it",
	"notifications.*":                      "mail and signed webhooks are the platform's, not an agent's; webhooks go through the guarded client",
	"scheduler.FetchPreviews.*":            "between processes of one installation",
	"internal/clickhouse.*":                "an engine of the platform",
	"internal/app.*":                       "the operator's commands and the wiring",
	"internal/engines.*":                   "downloads with a hash, and the engines' health",
	"internal/apiclient.*":                 "the command line's client of Ambit's own API",
	"internal/clickhouse/clickhousetest.*": "tests",
}

func TestNoPathToAnEffectGoesAroundTheGate(t *testing.T) {
	uses := usesOfEffects(t)
	require.Greater(t, len(uses), 20, "the uses were not found: this test sees nothing")
	used := map[string]bool{}
	for _, u := range uses {
		if u.consumes {
			continue
		}
		reason := ""
		for pattern := range elsewhere {
			if matchesFunc(pattern, u.in) {
				reason = pattern
				used[pattern] = true
			}
		}
		if reason == "" {
			t.Errorf("%s: %s reaches %s (%s) without consuming an admission", u.at, u.in, u.what, u.of)
		}
	}
	for pattern := range elsewhere {
		if !used[pattern] {
			t.Errorf("%s is listed and uses nothing: take it from the list", pattern)
		}
	}
}

type use struct {
	of, what, in, at string
	consumes         bool
}

func matchesFunc(pattern, fn string) bool {
	if prefix, ok := strings.CutSuffix(pattern, ".*"); ok {
		return fn == prefix || strings.HasPrefix(fn, prefix+".") || strings.HasPrefix(fn, prefix+"/")
	}
	return pattern == fn
}

type exported struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
	DepOnly                 bool
}

// usesOfEffects type-checks the module, without its tests, and finds each place that names one of the effects.
func usesOfEffects(t *testing.T) []use {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles,DepOnly", "./...")
	cmd.Dir = "../.."
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err)
	exports := map[string]string{}
	var ours []exported
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p exported
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else {
			require.NoError(t, err)
		}
		exports[p.ImportPath] = p.Export
		if strings.HasPrefix(p.ImportPath, module+"/") && !strings.HasPrefix(p.ImportPath, module+"/test/") {
			ours = append(ours, p)
		}
	}
	names := map[string]string{}
	for what, list := range effects {
		for _, name := range list {
			names[name] = what
		}
	}
	fset := token.NewFileSet()
	imports := importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })
	var found []use
	for _, p := range ours {
		var files []*ast.File
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(fset, filepath.Join(p.Dir, name), nil, parser.SkipObjectResolution)
			require.NoError(t, err)
			files = append(files, f)
		}
		info := &types.Info{Uses: map[*ast.Ident]types.Object{}, Types: map[ast.Expr]types.TypeAndValue{}, Selections: map[*ast.SelectorExpr]*types.Selection{}}
		_, err := (&types.Config{Importer: imports}).Check(p.ImportPath, fset, files, info)
		require.NoError(t, err, "type-check %s", p.ImportPath)
		rel := strings.TrimPrefix(p.ImportPath, module+"/")
		for _, f := range files {
			for _, decl := range f.Decls {
				found = append(found, usesIn(fset, info, names, rel, decl)...)
			}
		}
	}
	sort.Slice(found, func(i, j int) bool { return found[i].at < found[j].at })
	return found
}

func usesIn(fset *token.FileSet, info *types.Info, names map[string]string, rel string, decl ast.Decl) (found []use) {
	in := rel
	var consumed token.Pos
	if fn, ok := decl.(*ast.FuncDecl); ok {
		in += "." + funcName(fn)
		ast.Inspect(fn, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok {
				if obj := info.Uses[s.Sel]; obj != nil && consumed == token.NoPos {
					if f, ok := obj.(*types.Func); ok && (f.FullName() == "(*"+module+"/governance/gate.Admission).Consume" || f.FullName() == "(*"+module+"/sandbox.Sandbox).Begin") {
						consumed = s.Pos()
					}
				}
			}
			return true
		})
	}
	note := func(name string, at ast.Node) {
		if what, ok := names[name]; ok {
			found = append(found, use{
				of: name, what: what, in: in, at: fset.Position(at.Pos()).String(), consumes: consumed != token.NoPos && at.Pos() > consumed,
			})
		}
	}
	ast.Inspect(decl, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			if s, ok := info.Selections[n]; ok && s.Kind() == types.FieldVal {
				note("field "+fieldName(s), n)
			}
		case *ast.Ident:
			switch obj := info.Uses[n].(type) {
			case *types.Func:
				note(obj.FullName(), n)
			case *types.Var:
				if obj.Pkg() != nil && !obj.IsField() {
					note(obj.Pkg().Path()+"."+obj.Name(), n)
				}
			}
		case *ast.CompositeLit:
			if tv, ok := info.Types[n]; ok && len(n.Elts) > 0 {
				note("literal "+tv.Type.String(), n)
			}
		}
		return true
	})
	return found
}

func funcName(fn *ast.FuncDecl) string {
	if fn.Recv == nil || len(fn.Recv.List) == 0 {
		return fn.Name.Name
	}
	switch t := fn.Recv.List[0].Type.(type) {
	case *ast.StarExpr:
		return fmt.Sprintf("(*%s).%s", types.ExprString(t.X), fn.Name.Name)
	default:
		return types.ExprString(t) + "." + fn.Name.Name
	}
}

func fieldName(s *types.Selection) string {
	recv := s.Recv()
	if p, ok := recv.(*types.Pointer); ok {
		recv = p.Elem()
	}
	// A field that is promoted belongs to the struct that it was written in.
	if v, ok := s.Obj().(*types.Var); ok && len(s.Index()) > 1 {
		for _, i := range s.Index()[:len(s.Index())-1] {
			st, ok := recv.Underlying().(*types.Struct)
			if !ok {
				break
			}
			recv = st.Field(i).Type()
			if p, ok := recv.(*types.Pointer); ok {
				recv = p.Elem()
			}
		}
		return recv.String() + "." + v.Name()
	}
	return recv.String() + "." + s.Obj().Name()
}
