package static

import (
	"net/http/httptest"
	"os/exec"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestScriptFitsItsBudget(t *testing.T) {
	a := load().byPath[load().byName["app.js"]]
	t.Logf("script: %d bytes, %d compressed", len(a.body), len(a.gzipped))
	require.LessOrEqual(t, len(a.gzipped), 40_000, "the console promises at most 40 kB of script")
}

func TestAssetsAreImmutableUnderTheirHash(t *testing.T) {
	url := URL("app.css")
	rec := httptest.NewRecorder()
	req := httptest.NewRequest("GET", url, nil)
	req.Header.Set("Accept-Encoding", "gzip")
	Handler().ServeHTTP(rec, req)
	require.Equal(t, 200, rec.Code)
	require.Contains(t, rec.Header().Get("Cache-Control"), "immutable")
	require.Equal(t, "gzip", rec.Header().Get("Content-Encoding"))

	rec = httptest.NewRecorder()
	Handler().ServeHTTP(rec, httptest.NewRequest("GET", Prefix+"app-000000000000.css", nil))
	require.Equal(t, 404, rec.Code)
}

func TestStyleSheetRefersOnlyToHashedAssets(t *testing.T) {
	css := string(load().byPath[load().byName["app.css"]].body)
	for _, part := range strings.Split(css, "url(")[1:] {
		require.True(t, strings.HasPrefix(part, `"`+Prefix), "url(%.40s", part)
	}
}

func TestScriptsNeverUseStringsAsCodeOrMarkup(t *testing.T) {
	for _, name := range glob("js/2*.js") {
		for _, banned := range []string{"innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"} {
			require.NotContains(t, string(read(name)), banned, name)
		}
	}
}

func TestScriptsParse(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Log("node is not installed: the browser tests are what parses the scripts here")
		return
	}
	for _, name := range glob("js/*.js") {
		out, err := exec.Command(node, "--check", name).CombinedOutput()
		require.NoError(t, err, "%s: %s", name, out)
	}
}
