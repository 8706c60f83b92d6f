package archtest

import (
	"go/parser"
	"go/token"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestEveryPackageSaysWhatItOwns: a package begins with a comment that says what it owns and what it does not.
func TestEveryPackageSaysWhatItOwns(t *testing.T) {
	for rel, p := range packages(t) {
		if strings.HasSuffix(rel, "db") && strings.Contains(rel, "/internal/") {
			continue // generated from SQL
		}
		if len(p.GoFiles) == 0 {
			continue // tests only
		}
		said := false
		for _, file := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, file), nil, parser.PackageClauseOnly|parser.ParseComments)
			require.NoError(t, err)
			said = said || f.Doc != nil
		}
		require.True(t, said, "package %s has no comment", rel)
	}
}
