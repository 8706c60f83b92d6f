package static

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"sort"
	"strings"
	"sync"
)

// Prefix is the path below which all assets are served.
const Prefix = "/static/"

//go:embed css/*.css js/*.js fonts/*.woff2 icons/*.svg
var files embed.FS

type asset struct {
	body, gzipped []byte
	contentType   string
}

// bundle is everything that is served: by hashed path, and the hashed path by plain name.
type bundle struct {
	byPath map[string]asset
	byName map[string]string
}

var load = sync.OnceValue(func() bundle {
	b := bundle{byPath: map[string]asset{}, byName: map[string]string{}}
	for _, name := range glob("fonts/*.woff2", "icons/*.svg") {
		b.add(name, read(name))
	}
	// The style sheet goes last: it refers to the others by their hashed names.
	css := join(".css", "\n", "css/*.css")
	for name, hashed := range b.byName {
		css = bytes.ReplaceAll(css, []byte(`url("`+name+`")`), []byte(`url("`+Prefix+hashed+`")`))
	}
	b.add("app.css", css)
	b.add("app.js", join(".js", ";\n", "js/*.js"))
	return b
})

func (b *bundle) add(name string, body []byte) {
	sum := sha256.Sum256(body)
	ext := path.Ext(name)
	hashed := strings.TrimSuffix(path.Base(name), ext) + "-" + hex.EncodeToString(sum[:6]) + ext
	a := asset{body: body, contentType: contentTypes[ext]}
	if ext != ".woff2" { // woff2 is compressed already
		a.gzipped = compress(body)
	}
	b.byName[name] = hashed
	b.byPath[hashed] = a
}

var contentTypes = map[string]string{
	".css":   "text/css; charset=utf-8",
	".js":    "text/javascript; charset=utf-8",
	".svg":   "image/svg+xml",
	".woff2": "font/woff2",
}

func glob(patterns ...string) []string {
	var names []string
	for _, p := range patterns {
		found, err := fs.Glob(files, p)
		if err != nil {
			panic(fmt.Sprintf("static: pattern %q: %v", p, err)) // a constant of this file is malformed
		}
		names = append(names, found...)
	}
	sort.Strings(names)
	return names
}

func read(name string) []byte {
	body, err := files.ReadFile(name)
	if err != nil {
		panic(fmt.Sprintf("static: read embedded %s: %v", name, err)) // cannot happen: it was listed a moment ago
	}
	return body
}

func join(ext, between, pattern string) []byte {
	var out bytes.Buffer
	for _, name := range glob(pattern) {
		out.Write(bytes.TrimSpace(read(name)))
		out.WriteString(between)
	}
	return out.Bytes()
}

func compress(body []byte) []byte {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		panic(fmt.Sprintf("static: %v", err)) // the level is a constant
	}
	if _, err := w.Write(body); err != nil {
		panic(fmt.Sprintf("static: compress in memory: %v", err))
	}
	if err := w.Close(); err != nil {
		panic(fmt.Sprintf("static: compress in memory: %v", err))
	}
	return out.Bytes()
}

// URL returns the path under which the named asset is served, such as "/static/app-1f2e3d4c5b6a.css" for "app.css". It panics on a name
// that does not exist, which a test of any page finds.
func URL(name string) string {
	hashed, ok := load().byName[name]
	if !ok {
		panic("static: no asset named " + name)
	}
	return Prefix + hashed
}

// Handler serves the assets. A path without the right hash is 404: an old page of a newer instance asks for what is not there any
// more, and must not be given something else for ever.
func Handler() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := load().byPath[strings.TrimPrefix(r.URL.Path, Prefix)]
		if !ok || (r.Method != http.MethodGet && r.Method != http.MethodHead) {
			w.Header().Set("Cache-Control", "no-store")
			http.NotFound(w, r)
			return
		}
		h := w.Header()
		h.Set("Content-Type", a.contentType)
		h.Set("Cache-Control", "public, max-age=31536000, immutable")
		h.Set("X-Content-Type-Options", "nosniff")
		body := a.body
		if a.gzipped != nil {
			h.Set("Vary", "Accept-Encoding")
			if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
				h.Set("Content-Encoding", "gzip")
				body = a.gzipped
			}
		}
		h.Set("Content-Length", fmt.Sprint(len(body)))
		if r.Method == http.MethodHead {
			return
		}
		_, _ = w.Write(body) // the reader went away: there is nobody left to tell
	})
}
