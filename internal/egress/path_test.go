package egress_test

import (
	"net/url"
	"path"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"ambit.dev/ambit/internal/egress"
)

func TestAPathHasOneSpelling(t *testing.T) {
	for raw, want := range map[string][2]string{ // what is sent, and what rules look at
		"":                       {"", ""},
		"/":                      {"/", "/"},
		"/admin":                 {"/admin", "/admin"},
		"/%61dmin":               {"/admin", "/admin"},
		"/./admin":               {"/admin", "/admin"},
		"/x/../admin":            {"/admin", "/admin"},
		"/x/%2e%2E/admin":        {"/admin", "/admin"},
		"/../../admin":           {"/admin", "/admin"},
		"/admin/.":               {"/admin/", "/admin/"},
		"/admin/x/..":            {"/admin/", "/admin/"},
		"//admin":                {"//admin", "/admin"},
		"/%2Fadmin":              {"/%2Fadmin", "/admin"},
		"/group%2fname":          {"/group%2Fname", "/group/name"},
		"/a%20b/%c3%BC":          {"/a%20b/%C3%BC", "/a%20b/%C3%BC"},
		"/ü":                     {"/%C3%BC", "/%C3%BC"},
		"/a;v=1/b,c/@d:e/~f/...": {"/a;v=1/b,c/@d:e/~f/...", "/a;v=1/b,c/@d:e/~f/..."},
		"/%2561dmin":             {"/%2561dmin", "/%2561dmin"},
	} {
		target, err := egress.ParseURL("http://example.com" + raw + "?q=/../x")
		require.NoError(t, err, raw)
		require.Equal(t, "http://example.com"+want[0]+"?q=/../x", target.String(), raw)
		require.Equal(t, "http://example.com"+want[1], target.WithoutQuery(), raw)
	}
	for _, raw := range []string{"/x/..%2fadmin", "/x%2F..%2Fadmin", "/x/%2e%2e%2fadmin", "/x/..%5cadmin", "/x/.%2fadmin", "/%zz"} {
		_, err := egress.ParseURL("http://example.com" + raw)
		requireRefused(t, err, egress.BadURL)
	}
}

// FuzzPath: however a server cleans the path that is sent, it comes to what rules looked at, and that is spelled in one way.
func FuzzPath(f *testing.F) {
	for _, seed := range []string{"/admin", "/x/../admin", "/%2e%2e/a", "//a//b", "/a%2Fb", "/%", "/ü/%00", "/a/./b/", "/..%5cx"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, p string) {
		target, err := egress.ParseURL("http://example.com/" + strings.TrimPrefix(p, "/"))
		if err != nil {
			return
		}
		seen := target.WithoutQuery()
		again, err := egress.ParseURL(seen)
		if err != nil || again.WithoutQuery() != seen {
			t.Fatalf("%q is seen as %q, and that as %v (%v)", p, seen, again, err)
		}
		sent, err := url.Parse(target.String())
		if err != nil {
			t.Fatal(err)
		}
		ruled, err := url.Parse(seen)
		if err != nil {
			t.Fatal(err)
		}
		if a, b := path.Clean("/"+sent.Path), path.Clean("/"+ruled.Path); a != b {
			t.Fatalf("%q is sent as %q, which a server may take for %q; rules saw %q", p, sent, a, b)
		}
	})
}
